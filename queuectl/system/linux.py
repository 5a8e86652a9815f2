"""System calls of Linux that the module `os` lacks, each with the answer of systems without it."""

from __future__ import annotations

import errno
import sys
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

if sys.platform == "linux":
    import fcntl


def has_writer(fd: int) -> bool | None:
    """Whether an open file is also open for writing anywhere; None where the system cannot tell.

    Linux grants the owner of a file on a local file system a read lease (F_SETLEASE) only if nobody
    has it open for writing. The lease lasts until the file is closed; until then, whoever opens the file
    for writing waits.
    """
    if sys.platform != "linux":
        return None
    import signal

    # Race: the kernel signals the holder when the file is opened for writing. SIGIO would end the process.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def punch_hole(fd: int, start: int, length: int) -> bool:
    """Free the blocks of a part of a file, which then reads as NUL; False where that is not possible.

    The file keeps its length.
    """
    if sys.platform != "linux":
        return False
    from ctypes import c_int, c_int64

    keep_size_and_punch_hole = 0x01 | 0x02
    fallocate = _libc().fallocate64
    fallocate.argtypes = [c_int, c_int, c_int64, c_int64]
    return bool(fallocate(fd, keep_size_and_punch_hole, start, length) == 0)


def prctl(option: int, value: int) -> bool:
    """Change how the kernel treats this process; False where that is not possible."""
    return sys.platform == "linux" and bool(_libc().prctl(option, value, 0, 0, 0) == 0)


@cache
def _libc() -> CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
