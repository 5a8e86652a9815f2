"""What a dead worker's command left running on this host: recognised by what proves it, and ended.

A process is of a claim's command if one of these holds:

- Its environment names this spool, the job, and the worker whose claim it is.
- It is the process that the `started` event records: the same spool, kernel, number and birth.
- Its standard output or error is a log of this job, written for the attempt that was cut off.
- It is in the session of one of the first two, or in one that one of the third leads. A number of a
  process or of a session proves nothing alone: by now it may be a stranger's, and in a copy of the
  spool it is that of the original's command.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

import psutil

from queuectl import times
from queuectl.job.history import STARTED, last_attempt
from queuectl.job.model import State
from queuectl.spool import output
from queuectl.spool.claims import lost
from queuectl.spool.recovery import StillRuns
from queuectl.system import files, process_facts
from queuectl.worker.launcher import GRACE

if TYPE_CHECKING:
    from queuectl.job.history import Event
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

#: The variable that carries the identity of the spool to whatever a command starts.
SPOOL_ID = "QUEUECTL_SPOOL_ID"

#: Seconds that a program takes to load, and that what was killed takes to go.
_SLACK = 2.0

#: Seconds from one look to the next at what is just being started.
_GLANCE = 0.02


def stop_remains(root: Root, name: Name, history: tuple[Event, ...] = ()) -> None:
    """Kill every process that the command of a dead owner's claim started, and wait until none is left.

    `history` is empty where the claim's file cannot be read. Raises `StillRuns` where a process is
    another user's, or does not end: it may wait for a disk that hangs. Raises `ClaimLost`
    where the claim is somebody else's by now.
    """
    marks = _Marks.of(root, name, history)
    until = times.clock.monotonic() + _SLACK
    while True:
        own = files.kernel.getpid()
        others = [_Other(one, _environment(one)) for one in psutil.process_iter() if one.pid != own]
        found = _found(others, marks)
        late = times.clock.monotonic() > until
        if found and late:
            raise StillRuns(found[0].pid)
        if found:
            _end(found)
        elif not late and any(one.environment == {} and _is_young(one.process) for one in others):
            times.clock.sleep(_GLANCE)
        else:
            return


class _Other(NamedTuple):
    """A process, and what it was started with: nothing yet while the kernel loads its program.

    The environment is None where it is not told.
    """

    process: psutil.Process
    environment: dict[str, str] | None


class _Marks(NamedTuple):
    """What proves that a process is of one claim's command."""

    environment: dict[str, str]
    #: The number and the identity of the process that the file records.
    recorded: tuple[int, str] | None
    #: Device and inode of each log that the command may write to, by the name of its file.
    logs: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, root: Root, name: Name, history: tuple[Event, ...]) -> _Marks:
        environment = {
            SPOOL_ID: root.identity,
            "QUEUECTL_JOB_ID": name.id,
            "QUEUECTL_WORKER": name.owner or "",
        }
        logs = _logs(root, name.id, max(1, last_attempt(history)))
        # Race: another one may have recovered the claim, and a log of the job's next run be among these.
        path = f"{root.folder(State.PROCESSING)}/{name}"
        if not files.exists(path):
            raise lost(root, path)
        return cls(environment, _recorded(root, history), logs)

    def name(self, other: _Other) -> bool:
        """Whether the process bears this claim's mark, or is recorded in it."""
        environment = other.environment
        if environment and all(environment.get(key) == value for key, value in self.environment.items()):
            return True
        pid = other.process.pid
        return self.recorded is not None and self.recorded == (pid, process_facts.identity(pid))


def _recorded(root: Root, history: tuple[Event, ...]) -> tuple[int, str] | None:
    """The process that the last event records; none where this is a copy of the spool that it was of."""
    last = history[-1] if history else {}
    pid, process = last.get("pid"), last.get("process")
    if last.get("event") != STARTED or last.get("spool") != root.identity:
        return None
    return (pid, process) if isinstance(pid, int) and isinstance(process, str) else None


def _logs(root: Root, job_id: str, attempt: int) -> dict[str, tuple[int, int]]:
    """The logs of this attempt and of those begun after it."""
    found = {}
    for number in range(attempt, output.last_begun(root, job_id, attempt) + 1):
        for stream in output.STREAMS:
            path = output.log_path(root, job_id, number, stream)
            with contextlib.suppress(FileNotFoundError):
                facts = files.kernel.stat(path)
                if facts.st_nlink == 1:  # else a copy made of links may have it, too
                    found[os.path.basename(path)] = facts.st_dev, facts.st_ino
    return found


def _found(others: list[_Other], marks: _Marks) -> list[psutil.Process]:
    """Those that are proven to be of the command, and what shares a session with them."""
    sessions = {one.process: session for one in others if (session := _session_of(one.process)) is not None}
    named = [one.process for one in others if one.process in sessions and marks.name(one)]
    # A person may add to a log by a shell: that shell is not to blame.
    writing = [process for process in sessions if process_facts.prints_to(process.pid, marks.logs)]
    of_the_command = {sessions[process] for process in named}
    of_the_command |= {process.pid for process in writing if sessions[process] == process.pid}
    of_the_command -= {0, _session_of(psutil.Process())}
    proven = {*named, *writing}
    return [
        process for process, session in sessions.items() if process in proven or session in of_the_command
    ]


def _end(found: list[psutil.Process]) -> None:
    """Kill these, and give them a moment to go. Raises `StillRuns` where one may not be killed."""
    _let_launchers_end(found)
    for process in found:
        try:
            process.kill()
        except psutil.AccessDenied:
            raise StillRuns(process.pid) from None
        except psutil.Error:
            continue
    psutil.wait_procs(found, timeout=0.2)


def _let_launchers_end(found: list[psutil.Process]) -> None:
    """An engine hears of the end from its launcher, if that has the time to say so."""
    grace = 0.0
    for process in found:
        with contextlib.suppress(psutil.Error, ValueError):
            grace = max(grace, float(process.environ().get(GRACE, "0")))
    if grace:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        psutil.wait_procs(found, timeout=grace)


def _environment(process: psutil.Process) -> dict[str, str] | None:
    """What a process was started with: nothing yet while the kernel loads its program; None if untold.

    Race: what a dead worker held is closed before that, so that its claim is taken up meanwhile.
    """
    with contextlib.suppress(psutil.Error, OSError):  # a zombie has none
        return process.environ()
    return None


def _is_young(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return not _is_gone(process) and times.clock.now().timestamp() - process.create_time() < _SLACK
    return False


def _is_gone(process: psutil.Process) -> bool:
    """Whether it has ended, and only waits to be reaped at most."""
    with contextlib.suppress(psutil.AccessDenied):
        try:
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
    return False


def _session_of(process: psutil.Process) -> int | None:
    """The session of a process, None once it has ended; 0 where there are none, or out of this namespace."""
    with contextlib.suppress(OSError):
        if not _is_gone(process):
            return process_facts.session_of(process.pid)
    return None
