"""System calls of Linux that the module `os` lacks. `files.kernel` may have its own in their place."""

from __future__ import annotations

import errno
import sys

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
    import ctypes

    keep_size_and_punch_hole = 0x01 | 0x02
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(fallocate(fd, keep_size_and_punch_hole, start, length) == 0)
