"""Facts about this host and its processes: names, boot, who a process is, its session, its last moment.

A simulation of many hosts puts its own object in the place of `here`.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import sys
from functools import cache

from queuectl import times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Whether the system reports file events by inotify.
HAS_INOTIFY = sys.platform == "linux"


class Host:
    """The machine that this process runs on."""

    def full_name(self) -> str:
        """The host name as the system gives it."""
        return socket.gethostname()

    def kernel_id(self) -> str:
        """A text that is the same for two processes only if they share a kernel and see each other's pids."""
        return _kernel_id()

    def booted_at(self) -> float:
        """When the machine was started, in seconds since 1970 by its own clock."""
        import psutil

        return psutil.boot_time()

    def runs(self, pid: int) -> bool:
        """Whether a process of this number runs here. It may be a stranger that got the number later."""
        import psutil

        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


#: The host that the functions of this module ask.
here = Host()


def host_name() -> str:
    """The short name of the host, in the form that the names of workers contain."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", here.full_name().split(".")[0])[:40].strip("-") or "host"


def kernel_id() -> str:
    """The kernel and the process namespace of this process: see `Host.kernel_id`."""
    return here.kernel_id()


@cache
def _kernel_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()}/{here.booted_at():.0f}"


def identity(pid: int) -> str | None:
    """A text that no other process on this host has, had or will have; None if the system shows too little.

    It names the kernel since its boot, the namespace of the number, and the moment of birth as the
    kernel counts it. Numbers of processes and of namespaces are given out again, but no process of a
    later namespace was born before it.
    """
    if sys.platform == "linux":
        try:
            return f"{kernel_id()}/{_stat(pid)[19]}"
        except OSError:
            return None
    import psutil

    try:
        return f"{kernel_id()}/{psutil.Process(pid).create_time()!r}"
    except psutil.Error:
        return None


def _stat(pid: int) -> list[str]:
    """The numbers of `/proc/PID/stat` from the third on: the name before them may contain anything."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].decode().split()


def last_ran(pid: int) -> float | None:
    """When a process last had a processor, on the monotonic clock: of a dead one, its end (Linux).

    Each processor has a clock of its own for this, which leaves out the time of a hypervisor and of
    interrupts. So this thread reads it on the processor that the process had last.
    """
    if sys.platform != "linux":
        return None
    allowed = os.sched_getaffinity(0)
    try:
        processor = int(_stat(pid)[36])
        then = _last_start(f"/proc/{pid}/sched")
        os.sched_setaffinity(0, {processor})
        now = _last_start("/proc/thread-self/sched")
    except OSError:  # a kernel that was built without it, or a processor that this process may not use
        return None
    finally:
        os.sched_setaffinity(0, allowed)
    return None if then is None or now is None else times.clock.monotonic() - (now - then)


def _last_start(path: str) -> float | None:
    with open(path, encoding="ascii", errors="replace") as file:
        found = re.search(r"^se\.exec_start\s*:\s*([\d.]+)$", file.read(), re.MULTILINE)
    return float(found[1]) / 1000 if found else None


def session_of(pid: int) -> int | None:
    """The session of a process; None once it has ended, 0 where it lies outside this namespace."""
    try:
        session = os.getsid(pid)
    except OSError:
        return None
    return session if here.runs(pid) else None


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    import psutil

    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):  # it has just ended
            if os.getsid(pid) == session and here.runs(pid):
                found.append(pid)
    return found


def prints_to(pid: int, wanted: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the standard output or error of a process is one of these files, open for writing (Linux).

    `wanted` maps the names of files to their device and inode.
    """
    if sys.platform != "linux":
        return False
    for number in (1, 2):
        link = f"/proc/{pid}/fd/{number}"
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            known = wanted.get(os.path.basename(os.readlink(link)))
            # Only a file with the right name is asked for more: another one may lie on a share that hangs.
            if known is not None and os.lstat(link).st_mode & stat.S_IWUSR:
                facts = os.stat(link)
                if (facts.st_dev, facts.st_ino) == known:
                    return True
    return False
