"""The door to bytes on disk: read, list, create, append, move and remove files.

Every system call on a spool goes through the name `kernel`, the module `os` or an object in its
place. So a test can count, record or refuse any call, or simulate the whole disk. A system whose calls
differ from those of POSIX gets an object of its own there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys

from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, BinaryIO

    from queuectl.system.users import Trust


kernel: Any = os
MAX_BYTES = 64 * 1024
#: The bytes that the first read asks for, and sets memory aside for: most job files are far smaller.
_PORTION = 8 * 1024
#: The most that is read of a job's file with its history: some 80,000 runs.
MAX_WITH_HISTORY = 16 * 1024 * 1024
#: Tries to make a file of which the system says that it is there when it is not.
INSIST = 4
#: Whether a cached listing of a directory can be dropped (`list_marked`).
CAN_DROP_LISTINGS = hasattr(os, "posix_fadvise")
#: The mode of files that nobody but their owner may see.
PRIVATE = 0o600
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
UPDATE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NEW = WRITE | os.O_CREAT | os.O_EXCL
_APPEND = WRITE | os.O_APPEND | os.O_NONBLOCK
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: The errors of opening a link, a fifo or socket, and a directory.
NOT_FILES = frozenset({errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR})


class NotAFile(OSError):
    """A symlink, a second hard link, a device, a fifo or a directory where a job file should be."""


class Untrusted(NotAFile):
    """A file that somebody may have written whose commands are not run here."""


def read(path: Path | str, limit: int = MAX_BYTES, trust: Trust | None = None) -> bytes:
    """The bytes of a regular file with one link, never following a symlink, never blocking.

    Raises `NotAFile` for anything else than such a file, for one larger than `limit` bytes, and
    `Untrusted` for one that others may have written.
    """
    return read_dated(path, limit, trust)[0]


def read_dated(path: Path | str, limit: int = MAX_BYTES, trust: Trust | None = None) -> tuple[bytes, float]:
    """Like `read`, with the time at which the file was last written to, by its server's clock."""
    with opened_fit(path, READ, limit, trust) as (fd, facts):
        return read_all(fd, facts.st_size, limit), facts.st_mtime


def read_settled(path: Path | str, limit: int = MAX_BYTES, trust: Trust | None = None) -> bytes | None:
    """Like `read`, but None while anybody has the file open for writing, as far as the system shows it."""
    with opened_fit(path, READ, limit, trust) as (fd, facts):
        return None if _has_writer(fd) else read_all(fd, facts.st_size, limit)


def read_marked(path: Path | str, limit: int = MAX_BYTES) -> tuple[bytes, Mark]:
    """Like `read`, with the `Mark` of what was opened, for which NFS clients ask the server."""
    with opened_fit(path, READ, limit) as (fd, facts):
        return read_all(fd, facts.st_size, limit), mark_of(facts)


def read_watched(path: Path | str, limit: int = MAX_BYTES) -> tuple[bytes, Mark, bool | None]:
    """Like `read_marked`, and whether anybody has the file open for writing; None: nothing tells."""
    with opened_fit(path, READ, limit) as (fd, facts):
        is_written = _has_writer(fd)
        return read_all(fd, facts.st_size, limit), mark_of(facts), is_written


def open_read(path: Path | str) -> BinaryIO:
    """Open a regular file with one link, of any size, to be read in portions; raises `NotAFile`."""
    return open(open_fit(path)[0], "rb")


@contextlib.contextmanager
def opened(path: Path | str, flags: int) -> Iterator[int]:
    """A file or directory while it is open: its descriptor."""
    fd = kernel.open(path, flags)
    try:
        yield fd
    finally:
        kernel.close(fd)


@contextlib.contextmanager
def opened_fit(
    path: Path | str, flags: int = READ, limit: int = sys.maxsize, trust: Trust | None = None
) -> Iterator[tuple[int, os.stat_result]]:
    """A file while it is open as by `open_fit`."""
    fd, facts = open_fit(path, flags, limit, trust)
    try:
        yield fd, facts
    finally:
        kernel.close(fd)


def open_fit(
    path: Path | str, flags: int = READ, limit: int = sys.maxsize, trust: Trust | None = None
) -> tuple[int, os.stat_result]:
    """Open a regular file with one link; returns the descriptor and the attributes. Raises as `read` does.

    Race: between a look at a name and the opening the file may be another, so the opened file is looked at.
    """
    try:
        fd: int = kernel.open(path, flags)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK}:
            raise NotAFile(errno.ELOOP, "a symbolic link is not a job file", str(path)) from None
        if error.errno == errno.ENXIO:
            raise NotAFile(errno.ENXIO, "a socket is not a job file", str(path)) from None
        raise
    try:
        facts = kernel.fstat(fd)
        if reason := unfit(facts, limit):
            raise NotAFile(errno.EINVAL, reason, str(path))
        if trust is not None and (reason := trust.doubts(facts)):
            raise Untrusted(errno.EACCES, reason, str(path))
    except OSError:
        kernel.close(fd)
        raise
    return fd, facts


def read_all(fd: int, size: int, limit: int) -> bytes:
    """All there is, at most one byte more than `limit`. Each portion is as long as all before it."""
    data = b""
    while block := kernel.read(fd, min(max(_PORTION, len(data)), limit + 1 - len(data))):
        data += block
        if len(data) == size:
            break
    return data


def unfit(facts: os.stat_result, limit: int = sys.maxsize) -> str | None:
    """Why this is no regular file with one link and at most `limit` bytes; None if it is one."""
    if stat.S_ISFIFO(facts.st_mode):
        return "a fifo is not a job file"
    if not stat.S_ISREG(facts.st_mode):
        return "it is not a regular file"
    if facts.st_nlink > 1:
        return "it has a second hard link, through which it could change unseen"
    if facts.st_size > limit:
        return f"it has {facts.st_size:,} bytes, more than the {limit:,} that a job may have"
    return None


def list_names(folder: Path | str) -> list[str]:
    """The names in a directory, in no order; one pass, whatever its size."""
    names: list[str] = kernel.listdir(folder)
    return names


def is_empty(folder: Path | str) -> bool:
    """Whether a directory holds nothing; its first entry answers, whatever its size."""
    with kernel.scandir(folder) as entries:
        return next(entries, None) is None


class Mark(NamedTuple):
    """The attributes that show whether a file or directory is still the same."""

    mtime_ns: int
    size: int
    inode: int


def mark(path: Path | str) -> Mark:
    """The present `Mark` of a path, itself and not what a link points to."""
    return mark_of(kernel.lstat(path))


def mark_of(facts: os.stat_result) -> Mark:
    """The `Mark` in the attributes of a file."""
    return Mark(facts.st_mtime_ns, facts.st_size, facts.st_ino)


def list_marked(folder: Path | str, trusted: Mark | None) -> tuple[list[str], Mark]:
    """The names in a directory, and its `Mark` just before; from the kernel's cache if that is `trusted`.

    An NFS client takes its cached listing for good while the directory keeps its time. If two changes have
    the same time, a client that listed between them shows the first until the directory changes again.
    """
    with opened(folder, FOLDER) as fd:
        seen = mark_of(kernel.fstat(fd))
        if seen != trusted:
            kernel.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return kernel.listdir(fd), seen


def modified(path: Path | str) -> float:
    """When a file was last written to, by its server's clock; of SFTP's whole seconds the middle."""
    whole, part = divmod(kernel.lstat(path).st_mtime_ns, 1_000_000_000)
    return float(whole + (part / 1e9 or 0.5))


def server_time(folder: Path | str, name: str) -> float:
    """The time by the clock that dates the files of a directory, read off a file made for this."""
    path = f"{folder}/{name}"
    remove(path)
    try:
        create(path)
        return modified(path)
    finally:
        remove(path)


def touch_folder(folder: Path | str) -> None:
    """Make and remove a file, so that this host's client lists the directory anew."""
    path = f"{folder}/.{kernel.urandom(4).hex()}.probe"
    create(path)
    remove(path)


def exists(path: Path | str) -> bool:
    """Whether this very name is there now. On a share, ask only for names nobody else makes."""
    try:
        kernel.lstat(path)
    except FileNotFoundError:
        return False
    return True


def is_folder(path: Path | str) -> bool:
    """Whether a directory is there, and no link to one."""
    try:
        return stat.S_ISDIR(kernel.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, whatever portions the file system takes."""
    while data:
        data = data[kernel.write(fd, data) :]


def make(path: Path | str, flags: int, mode: int) -> int:
    """Open a file that may be new. A mode for the group is set past the umask."""
    fd = _open_insisting(path, flags, mode)
    try:
        if flags & os.O_EXCL and (owner := _owner_for(path)):
            kernel.fchown(fd, *owner)
        if mode != PRIVATE:
            with contextlib.suppress(PermissionError):  # it was there, and is another's
                kernel.fchmod(fd, mode)
    except OSError:
        if flags & os.O_EXCL:
            abandon(path, fd)
        else:
            kernel.close(fd)
        raise
    return fd


def _open_insisting(path: Path | str, flags: int, mode: int) -> int:
    """Open a file that may be new; if it must be, believe EEXIST only once the file is seen.

    GlusterFS may report EEXIST to the host that makes a file while another host looks for it, and then
    removes a file that had to be new: of 2,000 names that two hosts raced for, up to 5 were made by
    neither. A mount that remembers that a name was not there shows no file, so the tries are limited.
    """
    for _ in range(INSIST - 1):
        try:
            return int(kernel.open(path, flags, mode))
        except FileExistsError:
            if flags & os.O_EXCL and exists(path):
                raise
        except PermissionError as error:
            # SFTP has one error for all failures: sshfs reports EPERM where another host was faster.
            if error.errno == errno.EPERM and flags & os.O_EXCL and exists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            raise
    return int(kernel.open(path, flags, mode))


#: The directories of other users in which root makes files, each with the user and group that get these.
_OTHERS: dict[str, tuple[int, int]] = {}


def give_what_is_made_in(folder: str, facts: os.stat_result) -> None:
    """Let files that root makes below another user's directory belong to that user.

    `facts` are those of the directory. Else the user could neither read nor change the files.
    """
    if facts.st_uid and kernel.geteuid() == 0:
        _OTHERS[folder] = facts.st_uid, facts.st_gid
    else:
        _OTHERS.pop(folder, None)


def belongs_to_another(path: Path | str) -> bool:
    """Whether a file that root makes under this name goes to another user."""
    return _owner_for(path) is not None


def _owner_for(path: Path | str) -> tuple[int, int] | None:
    return next((owner for folder, owner in _OTHERS.items() if str(path).startswith(f"{folder}/")), None)


def create(path: Path | str, data: bytes = b"", mode: int = PRIVATE) -> None:
    """Make a file that was not there; raises `FileExistsError` when it was. Not synced.

    On any other error nothing is left of it: an empty file would count as a request or a job.
    """
    fill(path, make(path, NEW, mode), data)


def write_new(path: Path | str, fd: int, data: bytes, *, sync: bool = False) -> None:
    """Write a file that was just made; remove it if the disk does not take all of it, or at Ctrl-C."""
    try:
        write_all(fd, data)
        if sync:
            kernel.fsync(fd)
    except BaseException:
        abandon(path, fd)
        raise


def fill(path: Path | str, fd: int, data: bytes, *, sync: bool = False) -> None:
    """Write as `write_new` does, and close the file."""
    write_new(path, fd, data, sync=sync)
    try:
        kernel.close(fd)  # NFS reports a full disk here
    except OSError:
        with contextlib.suppress(OSError):  # the first error counts
            kernel.unlink(path)
        raise


def abandon(path: Path | str, fd: int) -> None:
    """Close and remove a file that was just made and cannot be finished; never raises."""
    with contextlib.suppress(OSError):  # the error that the caller has counts
        kernel.close(fd)
    with contextlib.suppress(OSError):  # as above
        kernel.unlink(path)


def probe(path: Path | str) -> None:
    """Try whether the disk takes a file of one block, and a rename; raises the `OSError` if it does not."""
    moved = f"{path}~"
    remove(path)
    try:
        fill(path, make(path, NEW, PRIVATE), b"\0" * 4096, sync=True)
        kernel.rename(path, moved)
    finally:
        for left in (path, moved):
            with contextlib.suppress(OSError):  # the first error counts; the next probe removes it
                remove(left)


def takes_name(folder: Path | str, length: int) -> bool:
    """Whether a directory takes a file name of this many bytes, found out by making one."""
    path = f"{folder}/.{'x' * (length - 1)}"
    try:
        create(path)
    except FileExistsError:
        return True  # another process tries the same just now
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise
    remove(path)
    return True


def close(*descriptors: int) -> None:
    """Close files that were opened for others to write to: an error of their writes is none here."""
    for fd in descriptors:
        with contextlib.suppress(OSError):  # as above
            kernel.close(fd)


def sync_folder(folder: Path | str) -> None:
    """Make the names in a directory survive a power cut."""
    with opened(folder, FOLDER) as fd:
        kernel.fsync(fd)


def append(path: Path | str, data: bytes, *, keep: int | None = None, sync: bool = False) -> None:
    """Add `data` to a file that must be there; cut it to `keep` bytes first if given.

    Raises `FileNotFoundError` when the file has been moved away, whatever is there instead:
    nothing comes back to life. On any other error the file is cut back to what it was.
    """
    try:
        fd = kernel.open(path, _APPEND)
    except OSError as error:
        if error.errno in NOT_FILES:
            raise _gone(path) from error
        raise
    try:
        facts = kernel.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise _gone(path)
        if keep is not None:
            kernel.ftruncate(fd, keep)
        try:
            write_all(fd, data)
        except OSError:
            with contextlib.suppress(OSError):  # readers ignore half a line, and the next writer cuts it off
                kernel.ftruncate(fd, facts.st_size if keep is None else keep)
            raise
        if sync:
            kernel.fsync(fd)
    finally:
        kernel.close(fd)


def _gone(path: Path | str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "something else has taken its place", str(path))


def patch(path: Path | str, data: bytes, at: int) -> None:
    """Write `data` over the bytes from `at` of a file that must be there, in place."""
    with opened(path, WRITE) as fd:
        write_at(fd, data, at)


def write_at(fd: int, data: bytes, at: int) -> None:
    """Write `data` over the bytes from `at` of a file that is not open for appending."""
    kernel.lseek(fd, at, os.SEEK_SET)
    write_all(fd, data)


def size(path: Path | str) -> int:
    """How many bytes a file has."""
    return int(kernel.lstat(path).st_size)


def move(source: Path | str, target: Path | str) -> bool:
    """Rename to a name that only the caller uses; True when it happened, False when lost.

    Network file systems may report ENOENT for a rename that happened, and EIO or ESTALE for one
    of either kind; the caller's own name settles it. Raises the error when it cannot be settled.
    """
    try:
        kernel.rename(source, target)
    except FileNotFoundError:
        return exists(target)
    except OSError:
        if exists(target):
            return True
        raise
    return True


def remove(path: Path | str) -> bool:
    """Delete a file; False when it was gone already."""
    try:
        kernel.unlink(path)
    except FileNotFoundError:
        return False
    return True


def being_written(path: Path | str) -> bool | None:
    """Whether anybody has the file open for writing; None where the system cannot tell."""
    try:
        with opened_fit(path) as (fd, _):
            return _has_writer(fd)
    except OSError:
        return None


def _has_writer(fd: int) -> bool | None:
    """`linux.has_writer`, or what the object in the place of `os` answers instead."""
    from queuectl.system import linux  # a plain `enqueue` does without

    answer: bool | None = getattr(kernel, "has_writer", linux.has_writer)(fd)
    return answer
