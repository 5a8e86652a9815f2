"""Starting workers beside this process, and asking workers anywhere to stop."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from queuectl import times
from queuectl.errors import Lacking, QueueError, StorageTrouble
from queuectl.job.model import State
from queuectl.spool import descriptions, liveness, output, presence, safety
from queuectl.spool.descriptions import DETACHED, DRAIN, FOREGROUND
from queuectl.spool.safety import open_root
from queuectl.spool.waiting import Waiting
from queuectl.spool.wake import load_ear
from queuectl.system import files, host, logs, processes
from queuectl.times import local, utc_now
from queuectl.worker.loop import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.spool.liveness import Verdict
    from queuectl.spool.root import Root

#: A detached worker's own log is cut to its newest half when it has grown longer than this.
LOG_BYTES = 8 * 1024 * 1024
#: What a worker that drains waits for besides what may run now, by the word of `--drain=WORD`.
DRAINS = {
    "now": frozenset[State](),
    "retries": frozenset({State.FAILED}),
    "all": frozenset({State.FAILED, State.PENDING}),
}
#: What a detached worker tells whoever started it: its name, or its exit status and the reason.
READY, REFUSED = "ready ", "refused "
#: What asks a worker to end: a terminal that is closed sends SIGHUP.
_ENDINGS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _Line(logging.Formatter):
    """One line a record, no control characters: local time with its zone, worker, level, what happened."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker
        self._second = 0
        self._shown = self._zone = ""

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:  # most lines come in the same second as the one before
            self._second = second
            text = local(datetime.fromtimestamp(second, UTC))
            self._shown, self._zone = text[:19], text[19:]
        at = f"{self._shown},{int(record.msecs):03}{self._zone}"
        line = f"{at} {self._worker} {record.levelname} {record.getMessage()}"
        if record.exc_info:
            line += f" {self.formatException(record.exc_info)}"
        return _CONTROL.sub("?", line)


class _Reopened(logging.StreamHandler[TextIO]):
    """Opens its file anew where it takes no more: a share that was away leaves dead descriptors.

    Has `trim` cut the file now and then, as a worker may live for years.
    """

    def __init__(self, stream: TextIO, reopen: Callable[[], None], trim: Callable[[], None]) -> None:
        super().__init__(stream)
        self._reopen = reopen
        self._trim = trim
        self._untrimmed = 0

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record) + self.terminator
        for _ in range(2):
            try:
                self.stream.write(text)
                self.stream.flush()
            except OSError:
                with contextlib.suppress(OSError):
                    self._reopen()
            else:
                self._untrimmed += len(text)
                break
        if self._untrimmed > LOG_BYTES // 4:
            self._untrimmed = 0
            with contextlib.suppress(OSError):  # a disk that fails is tried again after as many lines
                self._trim()


def _do_nothing() -> None:
    """What a stream that is no file needs."""


def log_to(
    stream: TextIO,
    worker: str,
    reopen: Callable[[], None] = _do_nothing,
    trim: Callable[[], None] = _do_nothing,
) -> None:
    """Let this process's log go to a stream, the worker's name in every line."""
    # What no line of ours shows need not be found out for each (logging's HOWTO, "Optimization").
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    logging._srcfile = None  # noqa: SLF001 - the HOWTO's own word
    handler = _Reopened(stream, reopen, trim)
    handler.setFormatter(_Line(worker))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class NotAllStarted(QueueError):
    """Some of the workers that were asked for did not start; `started` names those that did."""

    def __init__(self, started: list[str], count: int, said: str, status: int) -> None:
        super().__init__(f"{count - len(started)} of {count} workers did not start.", said)
        self.started = started
        self.exit_status = status


def start_detached(root: Root, count: int) -> list[str]:
    """Start workers that outlive this process and its terminal; returns their names.

    Raises `NotAllStarted` when one does not come up; the others run on. Raises the `OSError` of a disk
    that takes nothing, or of a system without room for a process, before any is started.
    """
    import subprocess

    safety.refuse_idle_root(root)
    files.probe(f"{root.workers}/.{host.host_name()}-{files.kernel.getpid()}.probe")
    command = [sys.executable, "-m", "queuectl.worker", root.text, DETACHED]
    commands = [[*command, str(count)]] if processes.CAN_FORK else [command] * count
    try:
        started = [
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
            for command in commands
        ]
    except OSError as error:
        raise Lacking(error.errno, error.strerror) from error
    lines = []
    for child in started:
        assert child.stdout is not None
        with child.stdout:
            lines += child.stdout.read().splitlines()
        if processes.CAN_FORK:
            child.wait()
        child.returncode = 0  # else it is the worker, and meant to outlive us: nobody waits for it here
    names = [line.removeprefix(READY) for line in lines if line.startswith(READY)]
    if len(names) < count:
        raise NotAllStarted(names, count, *_refusal(lines))
    return names


def _refusal(lines: list[str]) -> tuple[str, int]:
    """Why workers did not start, in their own words, each once, and the exit status that says so."""
    refused = [line.removeprefix(REFUSED).partition(" ") for line in lines if line.startswith(REFUSED)]
    said = dict.fromkeys(text for _, _, text in refused)
    said |= dict.fromkeys(line for line in lines if not line.startswith((READY, REFUSED)))
    status = max((int(number) for number, _, _ in refused), default=1)
    return " ".join(said) or "They said nothing; try `queuectl worker start --foreground`.", status


def _prepare(kind: str) -> None:
    """Get ready to be a worker, or several, with all that forked ones can share.

    What is imported is not looked through for garbage.
    """
    presence.load()
    processes.load()
    if kind != DRAIN:
        load_ear()
    gc.freeze()
    gc.enable()


def _fork(count: int) -> list[int]:
    """Fork so many children; none in a child, else their pids.

    Raises `Lacking` where the system has no room for all of them, once those that it had are asked to end.
    """
    sys.stdout.flush()
    children: list[int] = []
    for _ in range(count):
        try:
            child = os.fork()
        except OSError as error:
            for one in children:
                os.kill(one, signal.SIGTERM)
            raise Lacking(error.errno, error.strerror) from error
        if not child:
            return []
        children.append(child)
    return children


def _list_once(root: Root) -> Waiting | None:
    """List what waits for all workers that are about to be forked; None where each looks for itself.

    What comes before they listen is met when they fall idle, or list again. On a share each must
    know first by how much this host's clock is wrong.
    """
    if root.medium.has_own_clock:
        return None
    listed = Waiting(root)
    with contextlib.suppress(OSError):  # the worker meets it, and sits it out
        listed.relist(utc_now())
    return listed


def run_here(root: Root, kind: str, until: str, listed: Waiting | None = None) -> int:
    """Be a worker in this process until it ends; returns 130 after Ctrl-C, else 0."""
    worker = Worker(root, kind, awaited=DRAINS[until] if kind == DRAIN else None, listed=listed)
    if kind == DETACHED:
        _detach(root, worker)
    else:
        log_to(sys.stderr, worker.name)
    interrupted = []

    def on_signal(number: int, _: object) -> None:
        if number == signal.SIGINT:
            interrupted.append(number)
        worker.ask_to_stop()

    for number in _heeded():
        signal.signal(number, on_signal)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _awaited())
    worker.run()
    return 130 if interrupted else 0


def _heeded() -> list[signal.Signals]:
    """The signals that ask for an end; not SIGHUP under `nohup`."""
    return [
        number
        for number in _ENDINGS
        if number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) != signal.SIG_IGN
    ]


def _awaited() -> set[signal.Signals]:
    """What the parent of workers waits for."""
    return {*_heeded(), signal.SIGCHLD}


def _detach(root: Root, worker: Worker) -> None:
    """Tell whoever started this worker that it is ready, and let go of what it has from there.

    Raises `OSError` and leaves nothing of the worker behind where its log cannot be made.
    """
    path = output.worker_log_path(root, worker.name)
    try:
        logs.open_append(path, root.file_mode).close()
    except BaseException:
        worker.member.leave()
        raise
    sys.stdout.write(f"{READY}{worker.name}\n")
    sys.stdout.flush()
    _log_to_file(root, worker.name)
    log_to(
        sys.stderr,
        worker.name,
        lambda: _log_to_file(root, worker.name),
        lambda: logs.keep_newest_lines(path, LOG_BYTES),
    )


def _log_to_file(root: Root, name: str) -> None:
    """Let this process's output go to its log, which is made anew where it was deleted."""
    with logs.open_append(output.worker_log_path(root, name), root.file_mode) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def run(root: Root, kind: str, count: int, until: str = "now") -> int:
    """Be the one worker, or run several as children of this process, until all have ended.

    In a child, be one and exit. `until` is a word of `DRAINS`.
    """
    safety.refuse_idle_root(root)
    if count == 1:
        _prepare(kind)
        return run_here(root, kind, until)
    if not processes.CAN_FORK:
        import subprocess

        command = [sys.executable, "-m", "queuectl.worker", root.text, f"{kind}={until}"]
        return max(child.wait() for child in [subprocess.Popen(command) for _ in range(count)])
    _prepare(kind)
    listed = _list_once(root)
    # Race: whoever asks for an end just then is heard by all of them, once they can end in order.
    signal.signal(signal.SIGCHLD, lambda *_: None)  # else some systems forget those that are blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, _awaited())
    parent = files.kernel.getpid()
    children = _fork(count)
    if not children:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        processes.end_with(parent)
        return run_here(root, kind, until, listed)
    return _stand_by(set(children))


def _stand_by(alive: set[int]) -> int:
    """Pass on what asks for an end until all children have ended; returns the worst of their statuses.

    What a terminal sends to all of them reaches them twice.
    """
    worst = 0
    while alive:
        number = signal.sigwait(_awaited())
        if number != signal.SIGCHLD:
            for child in alive:
                os.kill(child, number)
            continue
        while alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            alive.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                name = signal.Signals(-code).name
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

    Tells `gone` the name of each that does. Returns the others, each with the reason in words. Who dies
    meanwhile, or gives no sign of life for long enough, is not waited for.
    """
    left = set(names)
    others: dict[str, str] = {}
    end = None if patience is None else times.clock.monotonic() + patience
    judged_at = times.clock.monotonic()
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
    """`python -m queuectl.worker SPOOL KIND[=UNTIL] [COUNT]`: be a worker, or fork so many and end."""
    kind, _, until = arguments[1].partition("=") if len(arguments) in {2, 3} else ("", "", "")
    is_known = kind in {DETACHED, FOREGROUND, DRAIN} and (until or "now") in DRAINS
    if not is_known or not all(re.fullmatch("[1-9][0-9]{0,3}", count) for count in arguments[2:]):
        sys.stderr.write(
            "This is for `queuectl worker start` alone.\nRun that, or see `queuectl worker start --help`.\n"
        )
        return 2
    path, _, *count = arguments
    try:
        root = open_root(path)
        listed = None
        _prepare(kind)
        if count:
            listed = _list_once(root)
            if _fork(int(count[0])):
                return 0  # nobody is their parent, as a worker takes its children for a job's
            os.setsid()
        return run_here(root, kind, until or "now", listed)
    except QueueError as error:
        trouble: QueueError = error
    except OSError as error:
        if not (StorageTrouble.explains(error) or isinstance(error, FileNotFoundError)):
            raise  # a spool that goes away just then is no fault of ours
        trouble = StorageTrouble(error)
    told = f"{REFUSED}{trouble.exit_status} " if kind == DETACHED else ""
    sys.stderr.write(f"{told}{trouble}\n")
    return trouble.exit_status
