"""Files that grow while others read them: the output of jobs and the logs of workers."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from queuectl.system import files, linux

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_NEW = files.NEW | os.O_APPEND
_ANY = files.WRITE | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK


def open_new(path: Path | str, mode: int = files.PRIVATE) -> int:
    """Make a file for a command to write to; returns a descriptor.

    Raises `FileExistsError` when it was there.
    """
    return files.make(path, _NEW, mode)


def open_log(path: Path | str, mode: int = files.PRIVATE) -> int:
    """Open a file for a command to write to, made where it is missing, emptied where it is not.

    Returns a descriptor. Raises `NotAFile` for what is no regular file with one link, and leaves it
    as it was.
    """
    return _open(path, mode, keep=False)


def open_append(path: Path | str, mode: int = files.PRIVATE) -> BinaryIO:
    """Open a file to add to, made where it is missing; raises `NotAFile` as `open_log` does."""
    return open(_open(path, mode, keep=True), "ab", buffering=0)


def _open(path: Path | str, mode: int, *, keep: bool) -> int:
    try:
        return open_new(path, mode)
    except FileExistsError:
        pass
    try:
        fd = files.make(path, _ANY, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise files.NotAFile(errno.EINVAL, "a fifo is not a log", str(path)) from None
        raise
    try:
        facts = files.kernel.fstat(fd)
        if reason := files.unfit(facts):
            raise files.NotAFile(errno.EINVAL, reason, str(path))
        if facts.st_size and not keep:
            files.kernel.ftruncate(fd, 0)
        files.kernel.set_blocking(fd, True)
    except OSError:
        files.kernel.close(fd)
        raise
    return fd


def open_update(path: Path | str) -> int:
    """Open a regular file with one link to change it in place; returns the descriptor."""
    return files.open_fit(path, files.UPDATE)[0]


def keep_newest_lines(path: Path | str, most: int) -> None:
    """Cut a log that has grown longer than `most` bytes to its newest half of that, in place.

    A process that appends to it goes on at its new end. Crash: some lines may then stand twice.
    """
    with files.opened_fit(path, files.UPDATE) as (fd, facts):
        if facts.st_size <= most:
            return
        files.kernel.lseek(fd, facts.st_size - most // 2, os.SEEK_SET)
        newest = files.read_all(fd, most // 2, most // 2).partition(b"\n")[2]
        files.write_at(fd, newest, 0)
        files.kernel.ftruncate(fd, len(newest))


def reached(fd: int) -> int:
    """The offset up to which any process has written through this opening of a file; no server is asked."""
    return int(files.kernel.lseek(fd, 0, os.SEEK_CUR))


def first_hole(fd: int) -> int:
    """Where the first hole in an open file begins; at its end where it has none."""
    return int(files.kernel.lseek(fd, 0, os.SEEK_HOLE))


def punch(fd: int, start: int, end: int) -> bool:
    """Free the blocks between two places of a log, which then read as NUL; False where that is not possible.

    The log keeps its length, so a command that writes to it goes on at its end.
    """
    done: bool = getattr(files.kernel, "punch_hole", linux.punch_hole)(fd, start, end - start)
    return done
