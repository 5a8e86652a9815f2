"""The rest of a dead worker's command on this host: recognised by what proves it, and ended.

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
from queuectl.system import files, host
from queuectl.worker.launcher import GRACE

if TYPE_CHECKING:
    from queuectl.job.history import Event
    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

#: The variable that carries the identity of the spool to whatever a command starts.
SPOOL_ID = "QUEUECTL_SPOOL_ID"
#: Seconds that a program takes to load, and that a killed process takes to go.
_SLACK = 2.0
#: Seconds from one look to the next at a process that is just being started.
_GLANCE = 0.02


def stop_remains(root: Root, name: Name, history: tuple[Event, ...] = ()) -> None:
    """Kill every process that the command of a dead owner's claim started, and wait until none is left.

    `history` is empty where the claim's file cannot be read. Raises `StillRuns` where a process is
    another user's, or does not end: it may wait for a disk that hangs. Raises `ClaimLost`
    where the claim is somebody else's by now.
    """
    _stop(_marks(root, name, history))


def stop_earlier(claim: Claim) -> None:
    """Kill what earlier runs of a job left here. The claim is the caller's, who has started no command yet.

    Raises `StillRuns` as `stop_remains` does.
    """
    _stop(_Marks({SPOOL_ID: claim.root.identity, "QUEUECTL_JOB_ID": claim.id}, None, {}))


def _stop(marks: _Marks) -> None:
    """Kill every process with one of these marks, and wait until none is left."""
    until = times.clock.monotonic() + _SLACK
    while True:
        own = files.kernel.getpid()
        environments = {one: _environment(one) for one in psutil.process_iter() if one.pid != own}
        found = _found(environments, marks)
        is_late = times.clock.monotonic() > until
        if found and is_late:
            raise StillRuns(found[0].pid)
        if found:
            _end(found)
        elif not is_late and any(told == {} and _is_young(one) for one, told in environments.items()):
            times.clock.sleep(_GLANCE)
        else:
            return


def _environment(process: psutil.Process) -> dict[str, str] | None:
    """The variables that a process was started with; None where the system does not tell them.

    Race: while the kernel loads the program there are none. What the process had open of a dead worker, its
    lock included, is closed before that, so the claim may be taken up meanwhile.
    """
    try:
        return process.environ()
    except (psutil.Error, OSError):  # a zombie has none
        return None


def _is_young(process: psutil.Process) -> bool:
    try:
        age = times.clock.now().timestamp() - process.create_time()
    except psutil.Error:
        return False
    return age < _SLACK and host.here.runs(process.pid)


class _Marks(NamedTuple):
    """What proves that a process is of one claim's command.

    `recorded` is the number and the identity of the process that the file records. `logs` has the device and
    the inode of each log that the command may write to, by the name of its file.
    """

    environment: dict[str, str]
    recorded: tuple[int, str] | None
    logs: dict[str, tuple[int, int]]


def _marks(root: Root, name: Name, history: tuple[Event, ...]) -> _Marks:
    environment = {SPOOL_ID: root.identity, "QUEUECTL_JOB_ID": name.id, "QUEUECTL_WORKER": name.owner or ""}
    logs = _logs(root, name.id, max(1, last_attempt(history)))
    # Race: another one may have recovered the claim, and a log of the job's next run be among these.
    path = f"{root.folder(State.PROCESSING)}/{name}"
    if not files.exists(path):
        raise lost(root, path)
    return _Marks(environment, _recorded(root, history), logs)


def _logs(root: Root, job_id: str, attempt: int) -> dict[str, tuple[int, int]]:
    """The logs of this attempt and of those begun after it."""
    found = {}
    for number in range(attempt, output.last_begun(root, job_id, attempt) + 1):
        for stream in output.STREAMS:
            path = output.log_path(root, job_id, number, stream)
            with contextlib.suppress(FileNotFoundError):  # a person has deleted it
                facts = files.kernel.stat(path)
                if facts.st_nlink == 1:  # else a copy made of links may have it, too
                    found[os.path.basename(path)] = facts.st_dev, facts.st_ino
    return found


def _recorded(root: Root, history: tuple[Event, ...]) -> tuple[int, str] | None:
    """The process that the last event records; none where this is a copy of the spool of the command."""
    last = history[-1] if history else {}
    pid, process = last.get("pid"), last.get("process")
    if last.get("event") != STARTED or last.get("spool") != root.identity:
        return None
    return (pid, process) if isinstance(pid, int) and isinstance(process, str) else None


def _found(environments: dict[psutil.Process, dict[str, str] | None], marks: _Marks) -> list[psutil.Process]:
    """The processes that are proven to be of the command, and those that share a session with them."""
    known = {one: host.session_of(one.pid) for one in environments}
    sessions = {one: session for one, session in known.items() if session is not None}
    named = [
        one
        for one in sessions
        if marks.environment.items() <= (environments[one] or {}).items()
        or (marks.recorded and marks.recorded == (one.pid, host.identity(one.pid)))
    ]
    # A person may add to a log by a shell: that shell is not to blame.
    writing = [one for one in sessions if host.prints_to(one.pid, marks.logs)]
    of_the_command = {sessions[one] for one in named}
    of_the_command |= {one.pid for one in writing if sessions[one] == one.pid}
    of_the_command -= {0, os.getsid(0)}
    proven = {*named, *writing}
    return [one for one, session in sessions.items() if one in proven or session in of_the_command]


def _end(found: list[psutil.Process]) -> None:
    """Kill these, and give them a moment to go. Raises `StillRuns` where one may not be killed."""
    _let_launchers_end(found)
    for process in found:
        try:
            process.kill()
        except psutil.AccessDenied:
            raise StillRuns(process.pid) from None
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(found, timeout=0.2)


def _let_launchers_end(found: list[psutil.Process]) -> None:
    """Give a launcher the time to tell its engine that the job is to end."""
    grace = max(map(_grace, found))
    if grace:
        for process in found:
            with contextlib.suppress(psutil.Error):  # it has ended, or `_end` reports it
                process.terminate()
        psutil.wait_procs(found, timeout=grace)


def _grace(process: psutil.Process) -> float:
    """The seconds that a launcher was given; 0 for any other process."""
    try:
        return float((_environment(process) or {}).get(GRACE, "0"))
    except ValueError:  # a command has changed the variable
        return 0.0
