"""Facts about any process of this host: who it is, its session, its last moment, the files it writes."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from typing import TYPE_CHECKING

from queuectl.system.host import kernel_id

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXEC_START = re.compile(r"^se\.exec_start\s*:\s*([\d.]+)$", re.MULTILINE)


def identity(pid: int) -> str | None:
    """A text that no other process on this host has, had or will have; None if the system tells too little.

    It names the kernel since its boot, the namespace of the number, and the moment of birth as the
    kernel counts it. Numbers of processes and of namespaces are given out again, but no process of a
    later namespace was born before it.
    """
    birth = _birth(pid)
    return None if birth is None else f"{kernel_id()}/{birth}"


def _birth(pid: int) -> str | None:
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[19].decode()
        except OSError:
            return None
    import psutil

    try:
        return repr(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def last_ran(pid: int) -> float | None:
    """When a process last had a processor, on the monotonic clock: of a dead one, its end (Linux).

    Each processor has a clock of its own for this: it leaves out what a hypervisor or interrupts took.
    So this thread reads it on the processor that the process had last.
    """
    if sys.platform != "linux":
        return None
    allowed = os.sched_getaffinity(0)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            processor = int(file.read().rpartition(b")")[2].split()[36])
        with open(f"/proc/{pid}/sched", encoding="ascii", errors="replace") as its:
            then = _EXEC_START.search(its.read())
        os.sched_setaffinity(0, {processor})
        with open("/proc/thread-self/sched", encoding="ascii", errors="replace") as own:
            now = _EXEC_START.search(own.read())
    except OSError:  # a kernel that was built without it, or a processor that this process may not use
        return None
    finally:
        os.sched_setaffinity(0, allowed)
    if then is None or now is None:
        return None
    return time.monotonic() - (float(now[1]) - float(then[1])) / 1000


def session_of(pid: int) -> int:
    """The session of a process; 0 if it lies outside this namespace, or the system has no sessions.

    Raises `OSError` when there is no such process.
    """
    return 0 if sys.platform == "win32" else os.getsid(pid)


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
