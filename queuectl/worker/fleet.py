"""Starting workers in this process and beside it, and waiting for workers anywhere to stop."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import Lacking, QueueError, StorageTrouble
from queuectl.job.model import State
from queuectl.rules import groups
from queuectl.spool import descriptions, liveness, output, presence, safety
from queuectl.spool.descriptions import DETACHED, DRAIN, FOREGROUND
from queuectl.spool.safety import open_root
from queuectl.spool.waiting import Waiting
from queuectl.spool.wake import load_ear
from queuectl.system import files, host, logs, processes
from queuectl.worker import log
from queuectl.worker.loop import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.spool.liveness import Verdict
    from queuectl.spool.root import Root

#: What a worker that drains waits for besides what may run now, by the word of `--drain=WORD`.
DRAINS = {
    "now": frozenset[State](),
    "retries": frozenset({State.FAILED}),
    "all": frozenset({State.FAILED, State.PENDING}),
}
#: A detached worker tells the process that started it its name, or its exit status and the reason.
READY, REFUSED = "ready ", "refused "


class NotAllStarted(QueueError):
    """Some of the workers that were asked for did not start; `started` names those that did."""

    def __init__(self, started: list[str], count: int, said: str, status: int) -> None:
        super().__init__(f"{count - len(started)} of {count} workers did not start.", said)
        self.started = started
        self.exit_status = status


def start_detached(root: Root, count: int, only: str | None = None) -> list[str]:
    """Start workers that outlive this process and its terminal; returns their names.

    With `only` they take jobs of this group alone.

    Raises `NotAllStarted` when one does not come up; the others run on. Raises the `OSError` of a disk
    that takes nothing, or of a system without room for a process, before any is started.
    """
    import subprocess

    safety.refuse_idle_root(root)
    files.probe(f"{root.workers}/.{host.host_name()}-{files.kernel.getpid()}.probe")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "queuectl.worker", root.text, DETACHED, str(count), only or ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # its end is there once each worker has let go of it
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise Lacking(error.errno, error.strerror) from error
    lines = done.stdout.splitlines()
    names = [line.removeprefix(READY) for line in lines if line.startswith(READY)]
    if len(names) < count:
        raise NotAllStarted(names, count, *_refusal(lines))
    return names


def _refusal(lines: list[str]) -> tuple[str, int]:
    """Why workers did not start, in their own words, each once, and the exit status for it."""
    refused = [line.removeprefix(REFUSED).partition(" ") for line in lines if line.startswith(REFUSED)]
    said = dict.fromkeys(text for _, _, text in refused)
    said |= dict.fromkeys(line for line in lines if not line.startswith((READY, REFUSED)))
    status = max((int(number) for number, _, _ in refused), default=1)
    return " ".join(said) or "They said nothing; try `queuectl worker start --foreground`.", status


def _prepare(kind: str) -> None:
    """Import what workers need, so that those that are forked share it and no collection goes through it."""
    presence.load()
    processes.load()
    if kind != DRAIN:
        load_ear()
    gc.freeze()
    gc.enable()


def _fork(count: int) -> set[int]:
    """Fork this process; returns the pids of the children, none in a child.

    Raises `Lacking` where the system has no room for all of them, once those that it had are asked to end.
    """
    sys.stdout.flush()
    children: set[int] = set()
    for _ in range(count):
        try:
            child = os.fork()
        except OSError as error:
            for one in children:
                os.kill(one, signal.SIGTERM)
            raise Lacking(error.errno, error.strerror) from error
        if not child:
            return set()
        children.add(child)
    return children


def _list_once(root: Root) -> Waiting | None:
    """List the waiting jobs for all workers that are about to be forked; None where each lists by itself.

    A job that comes before they listen is found when they fall idle, or list again. On a share each must
    know first by how much this host's clock is wrong.
    """
    if root.medium.has_own_clock:
        return None
    listed = Waiting(root)
    with contextlib.suppress(OSError):  # each worker meets the same trouble, and waits for its end
        listed.relist(times.utc_now())
    return listed


def run_here(
    root: Root, kind: str, until: str, only: str | None = None, listed: Waiting | None = None
) -> int:
    """Be a worker in this process until it ends; returns 130 after Ctrl-C, else 0."""
    awaited = DRAINS[until] if kind == DRAIN else None
    worker = Worker(root, kind, awaited=awaited, only=only, listed=listed)
    if kind == DETACHED:
        _detach(root, worker)
    else:
        log.to_stream(sys.stderr, worker.name)
    interrupted = []

    def on_signal(number: int, _: object) -> None:
        if number == signal.SIGINT:
            interrupted.append(number)
        worker.ask_to_stop()

    for number in _endings():
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_endings(), signal.SIGCHLD})
    worker.run()
    return 130 if interrupted else 0


def _endings() -> list[signal.Signals]:
    """The signals that ask a worker to end. A terminal that is closed sends SIGHUP, which `nohup` ignores."""
    hears_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hears_terminal else [])]


def _detach(root: Root, worker: Worker) -> None:
    """Tell the process that started this worker that it is ready, and let go of its streams.

    Raises `OSError` and leaves nothing of the worker behind where its log cannot be made.
    """
    try:
        logs.open_append(output.worker_log_path(root, worker.name), root.file_mode).close()
    except OSError:
        worker.member.leave()
        raise
    sys.stdout.write(f"{READY}{worker.name}\n")
    sys.stdout.flush()
    log.to_file(root, worker.name)
    log.to_stream(sys.stderr, worker.name, lambda: log.to_file(root, worker.name))


def run(root: Root, kind: str, count: int, until: str = "now", only: str | None = None) -> int:
    """Be the one worker, or run several as children of this process, until all have ended.

    In a child, be one and exit. `until` is a word of `DRAINS`. With `only` they run that group's jobs alone.
    """
    safety.refuse_idle_root(root)
    _prepare(kind)
    if count == 1:
        return run_here(root, kind, until, only)
    listed = _list_once(root)
    # Race: a signal that comes just then reaches all of them once they can end in order.
    awaited = {*_endings(), signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, lambda *_: None)  # else some systems forget those that are blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    parent = files.kernel.getpid()
    children = _fork(count)
    if not children:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        processes.end_with(parent)
        return run_here(root, kind, until, only, listed)
    return _stand_by(children, awaited)


def _stand_by(alive: set[int], awaited: set[signal.Signals]) -> int:
    """Pass signals on until all children have ended; returns the worst of their statuses.

    A signal of a terminal reaches each of them twice.
    """
    worst = 0
    while alive:
        number = signal.sigwait(awaited)
        if number != signal.SIGCHLD:
            for child in alive:
                os.kill(child, number)
            continue
        while alive and (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            pid, status = ended
            alive.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                name = processes.signal_name(-code)
                sys.stderr.write(f"The worker with pid {pid} was ended by {name}; {len(alive)} go on.\n")
            worst = max(worst, code if code >= 0 else 1)
    return worst


def await_end(
    root: Root,
    names: Iterable[str],
    patience: float | None,
    judge: Callable[[str], Verdict],
    gone: Callable[[str], None],
) -> dict[str, str]:
    """Wait until workers that were asked to stop have gone, `patience` seconds at most.

    Calls `gone` with the name of each that does. Returns the others, each with the reason in words. One
    that dies meanwhile, or gives no sign of life for long enough, is not waited for.
    """
    left = set(names)
    others: dict[str, str] = {}
    judged_at = times.clock.monotonic()
    end = None if patience is None else judged_at + patience
    while left and (end is None or times.clock.monotonic() < end):
        for name in left - set(descriptions.described(root)):
            left.discard(name)
            gone(name)
        if times.clock.monotonic() - judged_at >= liveness.GLANCE:
            judged_at = times.clock.monotonic()
            verdicts = {name: judge(name) for name in left}
            others |= {name: verdict.why for name, verdict in verdicts.items() if not verdict.may_answer}
            left -= others.keys()
        if left:
            times.clock.sleep(0.05)
    return others | dict.fromkeys(sorted(left), "it has not answered in time")


def main(arguments: list[str]) -> int:
    """`python -m queuectl.worker SPOOL KIND [COUNT [GROUP]]`: be a worker, or fork COUNT of them and end."""
    path, kind, count, only = [*arguments, "", ""][:4] if len(arguments) in {2, 3, 4} else [""] * 4
    is_count, is_group = re.fullmatch("([1-9][0-9]{0,3})?", count), not only or groups.is_name(only)
    if kind not in {DETACHED, FOREGROUND, DRAIN} or not is_count or not is_group:
        sys.stderr.write(
            "This is for `queuectl worker start` alone.\nRun that, or see `queuectl worker start --help`.\n"
        )
        return 2
    try:
        root = open_root(path)
        listed = None
        _prepare(kind)
        if count:
            listed = _list_once(root)
            if _fork(int(count)):
                return 0  # the workers have no parent: a worker takes its children for a job's
            os.setsid()
        return run_here(root, kind, "now", only or None, listed)
    except QueueError as error:
        trouble: QueueError = error
    except OSError as error:
        # A spool that goes away just then is no fault of ours.
        if not (StorageTrouble.explains(error) or isinstance(error, FileNotFoundError)):
            raise
        trouble = StorageTrouble(error)
    told = f"{REFUSED}{trouble.exit_status} " if kind == DETACHED else ""
    sys.stderr.write(f"{told}{trouble}\n")
    return trouble.exit_status
