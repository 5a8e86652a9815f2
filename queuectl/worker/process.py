"""One command: started in a session of its own, watched, stopped with all that it started, reaped.

The one place that knows how systems differ in this.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

POSIX = os.name == "posix"
NOT_FOUND, NOT_EXECUTABLE = 127, 126
#: Seconds between looks at a process where the system cannot wait for it and for a ring at once.
_LOOK = 0.02


class Cannot(Exception):
    """The command could not be started; `exit_code` is what a shell would have said."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Waited(Enum):
    """Why a wait for a command ended."""

    EXITED = "exited"
    RUNG = "rung"
    TIME = "time"


class Ended(NamedTuple):
    """How a command ended and what it used. `signal` is the name of what killed it, or None."""

    exit_code: int
    signal: str | None
    seconds: float
    cpu_seconds: float
    max_rss_kb: int

    def facts(self) -> dict[str, Any]:
        """The entries of the history; a killed command has 128 + the signal's number as exit code."""
        found: dict[str, Any] = {"exit_code": self.exit_code}
        if self.signal:
            found["signal"] = self.signal
        return found | {
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "max_rss_kb": self.max_rss_kb,
        }


def adopt_orphans() -> None:
    """Make what commands leave behind in the background this process's children (Linux).

    Without it a process that left its session would escape to init and be found no more.
    """
    if sys.platform != "linux":
        return
    import ctypes

    set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


class Command:
    """A started command. `pid` is also its session and its process group (POSIX)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._began = time.monotonic()
        self.pid = process.pid
        self._pidfd = _pidfd(process.pid)
        self._reaping = threading.Lock()
        self._reaped = False
        self.was_cut_off = False

    def wait(self, wake: Any, seconds: float | None) -> Waited:
        """Wait for the end, for a ring of `wake`, or for the time, whichever comes first."""
        if self._pidfd is None:
            return self._poll(wake, seconds)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(wake.fileno(), select.POLLIN)
        # Rounded up: a wait that ends a fraction early would be a busy loop until the time is up.
        ready = poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1))
        found = {fd for fd, _ in ready}
        if self._pidfd in found:
            return Waited.EXITED
        if found:
            wake.hush()
            return Waited.RUNG
        return Waited.TIME

    def _poll(self, wake: Any, seconds: float | None) -> Waited:
        end = None if seconds is None else time.monotonic() + seconds
        pause = 0.001
        while not self._has_exited():
            if end is not None and time.monotonic() >= end:
                return Waited.TIME
            pause = min(pause * 1.5, _LOOK)
            if wake.wait(pause):
                return Waited.RUNG
        return Waited.EXITED

    def _has_exited(self) -> bool:
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None

    def stop(self, wake: Any, grace: float) -> None:
        """SIGTERM to all that the command started, `grace` seconds to go, then SIGKILL."""
        self._signal(signal.SIGTERM)
        if POSIX:
            self._signal(signal.SIGCONT)
        end = time.monotonic() + grace
        while (left := end - time.monotonic()) > 0:
            if self.wait(wake, left) is Waited.EXITED:
                self._await_session(end)
                return
        self._signal(signal.SIGKILL if POSIX else signal.SIGTERM)
        while self.wait(wake, 1.0) is not Waited.EXITED:
            self._signal(signal.SIGKILL if POSIX else signal.SIGTERM)

    def cut_off(self) -> None:
        """Kill it at once, from another thread than the one that will reap it."""
        with self._reaping:
            if not self._reaped and not self.was_cut_off:
                self.was_cut_off = True
                self._signal(signal.SIGKILL if POSIX else signal.SIGTERM)

    def _await_session(self, end: float) -> None:
        """Give what the leader leaves behind the rest of the grace."""
        while POSIX and time.monotonic() < end and self._has_company():
            time.sleep(0.01)

    def _has_company(self) -> bool:
        import psutil

        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        if not POSIX:
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def reap(self) -> Ended:
        """Collect the exit status, after killing what the command left running in its session.

        Call it when `wait` said EXITED. The dead leader keeps its number until it is reaped, so
        the kill before that cannot meet a stranger.
        """
        seconds = time.monotonic() - self._began
        if not POSIX:
            code = self._process.wait()
            return Ended(code, None, seconds, 0.0, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with self._reaping:
            _, status, used = os.wait4(self.pid, 0)
            self._reaped = True
        if self._pidfd is not None:
            os.close(self._pidfd)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        name = signal.Signals(-code).name if code < 0 and -code in _SIGNALS else None
        if code < 0 and name is None:
            name = f"signal {-code}"
        scale = 1024 if sys.platform == "darwin" else 1
        return Ended(
            exit_code=128 - code if code < 0 else code,
            signal=name,
            seconds=seconds,
            cpu_seconds=used.ru_utime + used.ru_stime,
            max_rss_kb=used.ru_maxrss // scale,
        )


_SIGNALS = {int(number) for number in signal.Signals}


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def start(
    command: str | tuple[str, ...],
    out: BinaryIO,
    err: BinaryIO,
    cwd: str | None,
    environment: Mapping[Any, Any],
) -> Command:
    """Start a shell command, or an argument list without a shell; raises `Cannot`."""
    shell = isinstance(command, str)
    arguments: Any = ["/bin/sh", "-c", command] if shell and POSIX else command
    try:
        process = subprocess.Popen(
            arguments,
            shell=shell and not POSIX,
            stdin=_nothing(),
            stdout=out,
            stderr=err,
            cwd=cwd,
            env=environment,
            start_new_session=POSIX,
        )
    except (OSError, ValueError) as error:
        raise _cannot(error, command, cwd) from error
    return Command(process)


@cache
def _nothing() -> int:
    """The null device, opened once for all commands."""
    return os.open(os.devnull, os.O_RDONLY)


def _cannot(error: OSError | ValueError, command: str | tuple[str, ...], cwd: str | None) -> Cannot:
    program = "/bin/sh" if isinstance(command, str) else command[0]
    if isinstance(error, ValueError):
        return Cannot(f"cannot be started: {error}", NOT_EXECUTABLE)
    if cwd is not None and error.filename in {cwd, os.fsencode(cwd)} and not os.path.isdir(cwd):
        return Cannot(f"no such directory: {cwd}", NOT_EXECUTABLE)
    if isinstance(error, FileNotFoundError):
        return Cannot(f"command not found: {program}", NOT_FOUND)
    if isinstance(error, PermissionError):
        return Cannot(f"permission denied: {error.filename or program}", NOT_EXECUTABLE)
    return Cannot(f"{program} cannot be started: {error.strerror}", NOT_EXECUTABLE)


def end_orphans(patience: float = 5.0) -> int:
    """Kill and reap whatever a command left behind outside its session; returns how many.

    One system call where there is nothing. Needs `adopt_orphans`; the caller has no other child.
    """
    if not POSIX:
        return 0
    ended = 0
    end = time.monotonic() + patience
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid:
            continue
        if time.monotonic() > end:
            return ended
        import psutil

        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if child.status() != psutil.STATUS_ZOMBIE:
                    child.kill()
                    ended += 1
        time.sleep(0.001)
