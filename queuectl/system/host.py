"""Facts about this host: its name, its boot and its process namespace.

Every fact is asked from `here` when it is needed, so that a simulation can answer for many hosts.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from functools import cache
from pathlib import Path

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
        except psutil.Error:
            return True


#: The host that the functions of this module ask. A simulation puts its own there.
here = Host()


def host_name() -> str:
    """The short name of the host, in the form that the names of workers contain."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", here.full_name().split(".")[0])[:40].strip("-") or "host"


def kernel_id() -> str:
    """The kernel and the process namespace of this process: see `Host.kernel_id`."""
    return here.kernel_id()


@cache
def _kernel_id() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    import psutil

    return f"{socket.gethostname()}/{psutil.boot_time():.0f}"
