"""One command: started in a session of its own, watched, stopped with all that it started, reaped.

The one place that knows how systems differ in this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import threading
import time
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import LACKS, Lacking
from queuectl.system import process_facts

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from typing import Any

POSIX = os.name == "posix"
#: Whether a process can become several. Windows has to start each by itself.
CAN_FORK = hasattr(os, "fork")
NOT_FOUND, NOT_EXECUTABLE = 127, 126
#: Seconds between looks at a process where the system cannot wait for it and for a ring at once.
_LOOK = 0.02


#: Seconds that the end of a command on another host has to become known here, beyond the grace.
FAR = 5.0


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
        found["seconds"] = round(self.seconds, 3)
        found["cpu_seconds"] = round(self.cpu_seconds, 3)
        found["max_rss_kb"] = self.max_rss_kb
        return found


def load() -> None:
    """Import what every worker needs of the system, so that those that are forked share it."""
    if POSIX:
        import ctypes
        import resource

        del ctypes, resource


def adopt_orphans() -> None:
    """Make what commands leave behind in the background this process's children (Linux).

    Without it a process that left its session would escape to init and be found no more.
    """
    set_child_subreaper = 36
    _prctl(set_child_subreaper, 1)


def end_with(parent: int) -> None:
    """Be asked to end, by SIGTERM, when the process that forked this one is gone (Linux)."""
    set_parent_death_signal = 1
    if _prctl(set_parent_death_signal, signal.SIGTERM) and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _prctl(what: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    return bool(ctypes.CDLL(None, use_errno=True).prctl(what, value, 0, 0, 0) == 0)


class Streams(NamedTuple):
    """The descriptors of a command's output, and of its input where that is not the null device."""

    out: int
    err: int
    given: int | None = None

    def in_order(self) -> tuple[int, int, int]:
        """Standard input, output and error."""
        return _nothing() if self.given is None else self.given, self.out, self.err


class Command:
    """A started command. `pid` is also its session and its process group (POSIX)."""

    def __init__(self, pid: int, began: float, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.lifeline: int | None = None
        self.began = began
        self._process = process  # Windows alone waits through it
        self._pidfd = _pidfd(pid)
        self._reaping = threading.Lock()
        self._reaped = False
        self._has_ended = False
        self._ended: float | None = None
        self.was_cut_off = False

    def identity(self) -> str | None:
        """A text that names this process and no other: see `process_facts.identity`."""
        return process_facts.identity(self.pid)

    def look_back(self) -> None:
        """Date the end by the kernel, because this process stood still and saw it late."""
        self._ended = process_facts.last_ran(self.pid)

    def wait(self, wake: Any, seconds: float | None) -> Waited:
        """Wait for the end, for a ring of `wake`, or for the time, whichever comes first."""
        if self._has_ended:
            return Waited.EXITED
        if self._pidfd is None:
            return self._poll(wake, seconds)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(wake.fileno(), select.POLLIN)
        # Rounded up: a wait that ends a fraction early would be a busy loop until the time is up.
        ready = poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1))
        found = {fd for fd, _ in ready}
        if self._pidfd in found:
            self._has_ended = True
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
        if self._process is not None:
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def has_ended(self) -> bool:
        """Whether the command has ended; it may have left others in its session."""
        if not self._has_ended:
            self._has_ended = self._has_exited()
        return self._has_ended

    def ask_to_end(self, grace: float) -> float:
        """Send SIGTERM to all that the command started; returns how many seconds they have to end.

        A command on a lifeline hears of it at its other end, and has `FAR` seconds more than `grace`.
        """
        if self.lifeline is not None:
            self._let_go()
            return grace + FAR
        self._signal(signal.SIGTERM)
        if POSIX:
            self._signal(signal.SIGCONT)
        return grace

    def kill(self) -> None:
        """Send SIGKILL to all that the command started."""
        self._signal(signal.SIGKILL if POSIX else signal.SIGTERM)

    def has_company(self) -> bool:
        """Whether anything is left in the command's session besides the command itself (POSIX)."""
        if not POSIX:
            return False
        import psutil

        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):  # it has just ended
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    return True
        return False

    def _let_go(self) -> None:
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def cut_off(self, *, at_once: bool) -> None:
        """End it, in order or at once, from another thread than the one that will reap it."""
        with self._reaping:
            if not self._reaped:
                self.was_cut_off = True
                self._signal(signal.SIGKILL if POSIX and at_once else signal.SIGTERM)

    def reap(self) -> Ended:
        """Collect the exit status, after killing what the command left running in its session.

        Call it when `wait` said EXITED. The dead leader keeps its number until it is reaped, so
        the kill before that cannot meet a stranger.
        """
        now = time.monotonic()
        seconds = (now if self._ended is None else min(max(self.began, self._ended), now)) - self.began
        self._let_go()
        if self._process is not None:
            return Ended(self._process.wait(), None, seconds, 0.0, 0)
        try:  # noqa: SIM105 - `suppress` takes longer than the call
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        with self._reaping:
            _, status, used = os.wait4(self.pid, 0)
            self._reaped = True
        if self._pidfd is not None:
            os.close(self._pidfd)
        code = os.waitstatus_to_exitcode(status)
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


def start_on_lifeline(words: tuple[str, ...], streams: Streams, environment: Mapping[Any, Any]) -> Command:
    """Start a command whose standard input ends when it is stopped or has ended, or this process has."""
    try:
        ear, hand = os.pipe()
    except OSError as error:
        raise _cannot(error, words[0]) from error
    try:
        command = start(words, streams._replace(given=ear), None, environment)
    except BaseException:
        os.close(hand)
        raise
    finally:
        os.close(ear)
    command.lifeline = hand
    return command


def start(
    command: str | tuple[str, ...], streams: Streams, cwd: str | None, environment: Mapping[Any, Any]
) -> Command:
    """Start a shell command, or an argument list without a shell.

    The environment's names and values are bytes (POSIX) or text. Raises `Cannot` where the command is
    to blame, and `Lacking` where the system has no room for it just now.
    """
    if not POSIX:
        return _start_elsewhere(command, streams, cwd, environment)
    began = time.monotonic()
    words = ("/bin/sh", "-c", command) if isinstance(command, str) else command
    try:
        arguments = [encoded(word) for word in words]
        actions = [(os.POSIX_SPAWN_DUP2, fd, wanted) for wanted, fd in enumerate(streams.in_order())]
        _standing.go(cwd)
        program = _program(arguments[0], environment)
        pid = os.posix_spawn(
            program,
            arguments,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_HEEDED,
        )
    except (OSError, ValueError) as error:
        raise _cannot(error, words[0]) from error
    finally:
        _standing.back()
    return Command(pid, began)


def encoded(text: str) -> bytes:
    """A word, name or value of a job for the system: in UTF-8, whatever the locale of the worker is."""
    return text.encode("utf-8", "surrogateescape")


def decoded(data: bytes) -> str:
    """The text that `encoded` makes these bytes of."""
    return data.decode("utf-8", "surrogateescape")


#: A command heeds all signals, whatever Python, `nohup` or a shell lets the worker ignore. It has
#: none blocked either, whatever the one who started the worker had.
_HEEDED = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP} if POSIX else set()


class _Standing:
    """Where this process stands: `posix_spawn` starts a command where its parent is.

    Its own place is the directory in which it began or, where that is gone, the topmost one.
    """

    def __init__(self) -> None:
        self._home: int | None = None
        self._is_away = False

    def go(self, cwd: str | None) -> None:
        """Be in a directory, None for the own place; raises `Cannot`."""
        if cwd is None:
            if self._is_away:
                self._return()
            return
        if self._home is None:
            try:
                self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                self._home = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.chdir(encoded(cwd))
        except OSError as error:
            if error.errno in _LACKS:
                raise
            what = "no such directory" if isinstance(error, FileNotFoundError) else error.strerror
            raise Cannot(f"{what}: {cwd}", NOT_EXECUTABLE) from error
        self._is_away = True

    def back(self) -> None:
        """Leave the directory of a job. What has been started there is not to blame if that fails."""
        if self._is_away:
            with contextlib.suppress(Cannot):
                self._return()

    def _return(self) -> None:
        assert self._home is not None  # it went away
        try:
            os.fchdir(self._home)
        except OSError as error:
            os.chdir("/")  # a job's directory must not be kept from being unmounted
            raise Cannot(f"the worker's own directory: {error.strerror}", NOT_EXECUTABLE) from error
        self._is_away = False


_standing = _Standing()


def own_directory() -> str:
    """Where this process is, by the way that its environment names if that leads here."""
    said = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(said) and os.path.samefile(said, "."):
            return said
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def _program(word: bytes, environment: Mapping[Any, Any]) -> bytes:
    """Where the program is that a word means, by the PATH of the command's own environment."""
    if b"/" in word:
        return word
    refused = None
    for folder in os.get_exec_path(environment):
        path = os.path.join(os.fsencode(folder), word)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
        refused = path if refused is None and os.path.isfile(path) else refused
    if refused is not None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), refused.decode("utf-8", "replace"))
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), word.decode("utf-8", "replace"))


def _start_elsewhere(
    command: str | tuple[str, ...], streams: Streams, cwd: str | None, environment: Mapping[str, str]
) -> Command:
    """The same on Windows, which knows neither sessions nor `posix_spawn`."""
    import subprocess

    if cwd is not None and not os.path.isdir(cwd):
        raise Cannot(f"no such directory: {cwd}", NOT_EXECUTABLE)
    shell = isinstance(command, str)
    given, out, err = streams.in_order()
    try:
        process = subprocess.Popen(
            command, shell=shell, stdin=given, stdout=out, stderr=err, cwd=cwd, env=environment
        )
    except (OSError, ValueError) as error:
        raise _cannot(error, "the shell" if isinstance(command, str) else command[0]) from error
    return Command(process.pid, time.monotonic(), process)


@cache
def _nothing() -> int:
    """The null device, opened once for all commands."""
    return os.open(os.devnull, os.O_RDONLY)


def keep_descriptors() -> None:
    """Let no command inherit a descriptor of this process beyond the standard ones.

    Those that Python opens are not inherited; others are, such as the event queue of a watch.
    """
    try:
        own = os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
    except OSError:
        return
    for text in own:
        with contextlib.suppress(OSError):  # the one that listed them
            if int(text) > 2:
                os.set_inheritable(int(text), False)


#: What starting a process says where the system has no room for it.
_LACKS = LACKS | {errno.EAGAIN}


def _cannot(error: OSError | ValueError, program: str) -> Cannot | Lacking:
    if isinstance(error, ValueError):
        return Cannot(f"cannot be started: {error}", NOT_EXECUTABLE)
    if error.errno in _LACKS:
        return Lacking(error.errno, error.strerror)
    if isinstance(error, FileNotFoundError):
        return Cannot(f"command not found: {program}", NOT_FOUND)
    if isinstance(error, PermissionError):
        place = os.fsdecode(error.filename) if error.filename else program
        return Cannot(f"permission denied: {place}", NOT_EXECUTABLE)
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
