"""One command: started in a session of its own, watched, stopped with all that it started, and reaped."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import LACKS, Lacking
from queuectl.system import host, linux

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NOT_FOUND, NOT_EXECUTABLE = 127, 126
#: Seconds between looks at a command where the system cannot wait for it and for a ring at once.
_LOOK = 0.02
#: Seconds beyond the grace within which the end of a command on another host becomes known here.
FAR = 5.0
#: The errors of starting a process for which the system has no room.
_LACKS = LACKS | {errno.EAGAIN}
#: The signals that a command is to heed, whatever Python, `nohup` or a shell lets the worker ignore.
_HEEDED = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class Cannot(Exception):
    """The command could not be started; `exit_code` is what a shell would have said."""

    def __init__(self, message: str, exit_code: int = NOT_EXECUTABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Ended(NamedTuple):
    """How a command ended and what it used. `signal` is the name of what killed it, or None."""

    exit_code: int
    signal: str | None
    seconds: float
    cpu_seconds: float
    max_rss_kb: int

    def facts(self) -> dict[str, Any]:
        """The entries of the history; a killed command has 128 + the signal's number as exit code."""
        return {
            "exit_code": self.exit_code,
            **({"signal": self.signal} if self.signal else {}),
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "max_rss_kb": self.max_rss_kb,
        }


def load() -> None:
    """Import what every worker needs of the system, so that those that are forked share it."""
    import ctypes
    import resource  # `os.wait4` does

    del ctypes, resource


class Command:
    """A started command. `pid` is also its session and its process group."""

    def __init__(self, pid: int, began: float) -> None:
        self.pid = pid
        self.began = began
        self.lifeline: int | None = None
        self.was_cut_off = False
        self._pidfd = _pidfd(pid)
        self._reaping = threading.Lock()
        self._reaped = False
        self._ended: float | None = None

    def identity(self) -> str | None:
        """A text that names this process and no other: see `host.identity`."""
        return host.identity(self.pid)

    def look_back(self) -> None:
        """Date the end by the kernel, because this process stood still and saw it late."""
        self._ended = host.last_ran(self.pid)

    def wait(self, wake: Any, seconds: float | None) -> None:
        """Wait for the end, for a ring of `wake`, or for the time, whichever comes first."""
        if self._pidfd is None:
            self._look(wake, seconds)
            return
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(wake.fileno(), select.POLLIN)
        # Rounded up: a wait that ends a fraction early would be a busy loop until the time is up.
        found = {fd for fd, _ in poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1))}
        if found and self._pidfd not in found:
            wake.hush()

    def _look(self, wake: Any, seconds: float | None) -> None:
        end = None if seconds is None else times.clock.monotonic() + seconds
        pause = 0.001
        while not self.has_ended() and (end is None or times.clock.monotonic() < end):
            pause = min(pause * 1.5, _LOOK)
            if wake.wait(pause):
                return

    def has_ended(self) -> bool:
        """Whether the command has ended; it may have left others in its session."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ask_to_end(self, grace: float) -> float:
        """Send SIGTERM to all that the command started; returns how many seconds they have to end.

        For a command on a lifeline the end of its standard input is the signal. It has `FAR` seconds more.
        """
        if self.lifeline is not None:
            self._let_go()
            return grace + FAR
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        return grace

    def kill(self) -> None:
        """Send SIGKILL to all that the command started."""
        self._signal(signal.SIGKILL)

    def has_company(self) -> bool:
        """Whether anything is left in the session of a command that has ended."""
        return bool(host.members(self.pid))

    def _let_go(self) -> None:
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None

    def _signal(self, number: signal.Signals) -> None:
        # Nobody is left in the group, or only processes that have become another user's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def cut_off(self, *, at_once: bool) -> None:
        """End it, in order or at once, from another thread than the one that will reap it."""
        with self._reaping:
            if not self._reaped:
                self.was_cut_off = True
                self._signal(signal.SIGKILL if at_once else signal.SIGTERM)

    def reap(self) -> Ended:
        """Collect the exit status, after killing what the command left running in its session.

        Call it once `has_ended`. The dead leader keeps its number until it is reaped, so the kill before
        that cannot meet a stranger.
        """
        now = times.clock.monotonic()
        seconds = (now if self._ended is None else min(max(self.began, self._ended), now)) - self.began
        self._let_go()
        self.kill()
        with self._reaping:
            _, status, used = os.wait4(self.pid, 0)
            self._reaped = True
        if self._pidfd is not None:
            os.close(self._pidfd)
        code = os.waitstatus_to_exitcode(status)
        return Ended(
            exit_code=128 - code if code < 0 else code,
            signal=signal_name(-code) if code < 0 else None,
            seconds=seconds,
            cpu_seconds=used.ru_utime + used.ru_stime,
            max_rss_kb=used.ru_maxrss // (1024 if sys.platform == "darwin" else 1),
        )


def signal_name(number: int) -> str:
    """`SIGKILL`, or `signal 40` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # Linux before 5.3
        return None


def start_on_lifeline(
    words: tuple[str, ...], logs: tuple[int, ...], environment: Mapping[bytes, bytes]
) -> Command:
    """Start a command whose standard input ends when it is stopped or has ended, or this process has."""
    try:
        ear, hand = os.pipe()
    except OSError as error:
        raise _cannot(error, words[0]) from error
    try:
        command = start(words, logs, None, environment, ear)
    except (Cannot, Lacking):
        os.close(hand)
        raise
    finally:
        os.close(ear)
    command.lifeline = hand
    return command


def start(
    command: str | tuple[str, ...],
    logs: tuple[int, ...],
    cwd: str | None,
    environment: Mapping[bytes, bytes],
    given: int | None = None,
) -> Command:
    """Start a shell command, or an argument list without a shell.

    `logs` are the descriptors for its output and its errors. `given` is that of its input, instead of the
    null device.
    Raises `Cannot` where the command is to blame, and `Lacking` where the system has no room for it
    just now.
    """
    began = times.clock.monotonic()
    words = ("/bin/sh", "-c", command) if isinstance(command, str) else command
    try:
        arguments = [encoded(word) for word in words]
        streams = (_nothing() if given is None else given, *logs)
        actions = [(os.POSIX_SPAWN_DUP2, fd, wanted) for wanted, fd in enumerate(streams)]
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


class _Standing:
    """The directory of this process, in which `posix_spawn` starts a command.

    Its own is the one in which it began or, where that is gone, the root directory.
    """

    def __init__(self) -> None:
        self._home: int | None = None
        self._is_away = False

    def go(self, cwd: str | None) -> None:
        """Be in a directory, None for the own one; raises `Cannot`."""
        if cwd is None:
            self._return()
            return
        if self._home is None:
            self._home = _opened_home()
        try:
            os.chdir(encoded(cwd))
        except OSError as error:
            if error.errno in _LACKS:
                raise
            what = "no such directory" if isinstance(error, FileNotFoundError) else error.strerror
            raise Cannot(f"{what}: {cwd}") from error
        self._is_away = True

    def back(self) -> None:
        """Leave the directory of a job; a command that was started there is not to blame if that fails."""
        with contextlib.suppress(Cannot):
            self._return()

    def _return(self) -> None:
        if not self._is_away or self._home is None:
            return
        try:
            os.fchdir(self._home)
        except OSError as error:
            os.chdir("/")  # a job's directory must not be kept from being unmounted
            raise Cannot(f"the worker's own directory: {error.strerror}") from error
        self._is_away = False


def _opened_home() -> int:
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


_standing = _Standing()


def own_directory() -> str:
    """Where this process is, by the path in its environment if that leads here."""
    path = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):  # it leads nowhere
        if os.path.isabs(path) and os.path.samefile(path, "."):
            return path
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def _program(word: bytes, environment: Mapping[bytes, bytes]) -> bytes:
    """The path of a program, searched for in the PATH of the command's own environment."""
    if b"/" in word:
        return word
    refused = None
    for folder in environment.get(b"PATH", os.defpath.encode()).split(b":"):
        path = os.path.join(folder, word)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            refused = refused or path
    if refused is not None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), refused.decode("utf-8", "replace"))
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), word.decode("utf-8", "replace"))


def _cannot(error: OSError | ValueError, program: str) -> Cannot | Lacking:
    if isinstance(error, ValueError):
        return Cannot(f"cannot be started: {error}")
    if error.errno in _LACKS:
        return Lacking(error.errno, error.strerror)
    if isinstance(error, FileNotFoundError):
        return Cannot(f"command not found: {program}", NOT_FOUND)
    if isinstance(error, PermissionError):
        return Cannot(f"permission denied: {os.fsdecode(error.filename) if error.filename else program}")
    return Cannot(f"{program} cannot be started: {error.strerror}")


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
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            if int(text) > 2:
                os.set_inheritable(int(text), False)


def adopt_orphans() -> None:
    """Make what commands leave behind in the background this process's children (Linux).

    Without it a process that left its session would become a child of init and be found no more.
    """
    set_child_subreaper = 36
    linux.prctl(set_child_subreaper, 1)


def end_with(parent: int) -> None:
    """Be asked to end, by SIGTERM, when the process that forked this one is gone (Linux)."""
    set_parent_death_signal = 1
    if linux.prctl(set_parent_death_signal, signal.SIGTERM) and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def end_orphans(patience: float = 5.0) -> None:
    """Kill and reap whatever a command left behind outside its session.

    One system call where there is nothing. Needs `adopt_orphans`; the caller has no other child.
    """
    end = times.clock.monotonic() + patience
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            continue
        if times.clock.monotonic() > end:
            return
        import psutil

        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # or it ends by itself
                child.kill()
        times.clock.sleep(0.001)
