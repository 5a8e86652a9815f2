"""Which host this is: its name, its boot and its process namespace."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from functools import cache
from pathlib import Path


def host_name() -> str:
    """The name of the host as owners' names bear it."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().split(".")[0])[:40].strip("-") or "host"


@cache
def kernel_id() -> str:
    """The same for processes that share a kernel and see each other's pids, else different."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    import psutil

    return f"{socket.gethostname()}/{psutil.boot_time():.0f}"
