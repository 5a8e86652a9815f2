"""The owner, group and mode of files."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from queuectl.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def create_like(path: Path | str, data: bytes, model: Path | str) -> None:
    """Make a file as `create_synced` does, with the mode of another and, as far as we may, its owner.

    The file must not seem to be written by the user who makes this copy.
    """
    facts = files.kernel.lstat(model)
    fd = files.make(path, files.NEW, files.PRIVATE)
    try:
        if sys.platform != "win32":
            files.kernel.fchmod(fd, stat.S_IMODE(facts.st_mode) & 0o666 | files.PRIVATE)
            if facts.st_uid != files.kernel.geteuid():
                with contextlib.suppress(PermissionError):
                    files.kernel.fchown(fd, facts.st_uid, facts.st_gid)
    except BaseException:
        files.abandon(path, fd)
        raise
    files.fill(path, fd, data, sync=True)


def may_copy(path: Path | str) -> bool:
    """Whether a copy that this process makes of a file can belong to the same owner."""
    return sys.platform == "win32" or files.kernel.geteuid() in {0, files.kernel.lstat(path).st_uid}


def hand_over(path: Path | str, group: int, mode: int) -> None:
    """Give what lies in a directory of this mode to its group, or take it away from it; links stay.

    A directory gets the mode itself, a file what of it files can have.
    """
    try:
        fd = files.kernel.open(path, files.READ)
    except OSError as error:
        if error.errno in files.NOT_FILES:
            return
        raise
    try:
        facts = files.kernel.fstat(fd)
        if stat.S_ISDIR(facts.st_mode) or not files.unfit(facts, sys.maxsize):
            if mode & stat.S_ISGID:
                files.kernel.fchown(fd, -1, group)
            files.kernel.fchmod(fd, mode if stat.S_ISDIR(facts.st_mode) else mode & 0o666)
    finally:
        files.kernel.close(fd)


def make_folder(path: str, mode: int = 0o777) -> None:
    """Make a directory; one that root makes in another user's belongs to that user."""
    files.kernel.mkdir(path, mode)
    if sys.platform == "win32" or files.kernel.geteuid() != 0:
        return
    parent = files.kernel.stat(os.path.dirname(path))
    if parent.st_uid != 0:
        fd = files.kernel.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            files.kernel.fchown(fd, parent.st_uid, parent.st_gid)
        finally:
            files.kernel.close(fd)


def owner_of(fd: int) -> int:
    """The number of the user to whom an open file belongs."""
    return int(files.kernel.fstat(fd).st_uid)
