"""What a dead worker's command left running on this host: found by its environment, ended."""

from __future__ import annotations

import contextlib
import os
import time

import psutil

from queuectl.job import STARTED, parse_moment
from queuectl.spool.recovery import StillRuns
from queuectl.worker.launcher import GRACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.spool.claiming import Claim

#: Seconds by which the clocks of the kernel and of the history may differ, that a program takes to
#: load, and that what was killed takes to go.
_SLACK = 2.0

#: Seconds from one look to the next at what is just being started.
_GLANCE = 0.02


def stop_remains(claim: Claim) -> None:
    """Kill every process that the claim's command started, and wait until none is left.

    Raises `StillRuns` where one is another user's, or does not end: it may wait for a disk that hangs.

    A process is one of them if its environment names the worker and the job, or if it is of a
    session of such a one or of the session that the command led.
    """
    led = _session(claim)
    sessions = set() if led is None else {led}
    until = time.monotonic() + _SLACK
    while True:
        others = {one: _environment(one) for one in psutil.process_iter() if one.pid != os.getpid()}
        named = [one for one, environment in others.items() if environment and _names(environment, claim)]
        sessions.update(session for process in named if (session := _session_of(process)) is not None)
        found = named + [one for one in others if _session_of(one) in sessions and one not in named]
        late = time.monotonic() > until
        if found and late:
            raise StillRuns(found[0].pid)
        if found:
            _end(found)
        elif not late and any(environment == {} and _is_young(one) for one, environment in others.items()):
            time.sleep(_GLANCE)
        else:
            return


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
    """An engine hears of the end from its launcher, if that has the time to tell it."""
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


def _names(environment: dict[str, str], claim: Claim) -> bool:
    return (
        environment.get("QUEUECTL_WORKER") == claim.owner
        and environment.get("QUEUECTL_JOB_ID") == claim.id
        and os.path.realpath(environment.get("QUEUECTL_SPOOL", "")) == os.path.realpath(claim.root.text)
    )


def _is_young(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and time.time() - process.create_time() < _SLACK
    return False


def _session_of(process: psutil.Process) -> int | None:
    """The session of a process that still runs."""
    with contextlib.suppress(psutil.Error, OSError):
        if os.name == "posix" and process.status() != psutil.STATUS_ZOMBIE:
            return os.getsid(process.pid)
    return None


def _session(claim: Claim) -> int | None:
    """The session of the command, unless its number has gone to a stranger since."""
    last = claim.job.history[-1] if claim.job.history else {}
    pid = last.get("pid")
    if last.get("event") != STARTED or not isinstance(pid, int) or pid <= 1 or "at" not in last:
        return None
    try:
        born = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return pid  # the leader has gone; its session keeps the number for as long as it has members
    except psutil.Error:
        return None
    noted: datetime = parse_moment(last["at"])
    return pid if born <= noted.timestamp() + _SLACK else None
