"""The only door to bytes on disk: publish, append, move, read.

Every system call on a spool goes through the name `kernel`, so that a trial can count, record or
refuse any one of them, or kill the process there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any, BinaryIO
if sys.platform != "win32":
    import fcntl


kernel: Any = os
MAX_BYTES = 64 * 1024
#: What is read at first, for which memory is set aside: most job files are far smaller.
_PORTION = 8 * 1024
#: What is read of a job's file at most, with its history: some 80,000 runs.
MAX_WITH_HISTORY = 16 * 1024 * 1024
#: How many syncs are waited for at once, where there are as many.
SYNCS = 8
#: Who closes a file is heard of a moment before it counts as closed: the seconds between the looks
#: How often a file is tried to be made that is said to be there, and is not.
INSIST = 4
#: Seconds for which the draft of a change may stand still before it counts as left by a crash.
ABANDONED = 10.0
#: The mode of files that nobody but their owner may see.
PRIVATE = 0o600
_READ = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_WRITE = _NEW & ~(os.O_CREAT | os.O_EXCL)
_APPEND = os.O_APPEND | _WRITE | getattr(os, "O_NONBLOCK", 0)
#: What opening says of a link, a fifo or socket, and a directory.
_OTHER_THINGS = frozenset({errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR})


class NotAFile(OSError):
    """A symlink, a second hard link, a device, a fifo or a directory where a job file should be."""


class Untrusted(NotAFile):
    """A file that somebody wrote, or may have written, whose commands are not to be run here."""


class Trust(NamedTuple):
    """Whose files count: those of these users, and of them only what nobody else may write to.

    `alone` tells that nobody else comes as far as the file, whatever its mode.
    """

    owners: frozenset[int]
    alone: bool


def read(path: Path | str, limit: int = MAX_BYTES, trust: Trust | None = None) -> bytes:
    """The bytes of a regular file with one link, never following a symlink, never blocking.

    Raises `NotAFile` for anything else than such a file, for one larger than `limit` bytes, and
    `Untrusted` for one that others may have written.
    """
    return read_dated(path, limit, trust)[0]


def read_dated(path: Path | str, limit: int = MAX_BYTES, trust: Trust | None = None) -> tuple[bytes, float]:
    """Like `read`, with the time at which the file was last written to, by its server's clock."""
    fd, facts = _open_fit(path, limit, trust)
    try:
        return _read_all(fd, facts.st_size, limit), facts.st_mtime
    finally:
        kernel.close(fd)


def read_settled(path: Path | str, limit: int = MAX_BYTES, trust: Trust | None = None) -> bytes | None:
    """Like `read`, but None while anybody has the file open for writing, where that can be told."""
    fd, facts = _open_fit(path, limit, trust)
    try:
        return None if _has_writer(fd) else _read_all(fd, facts.st_size, limit)
    finally:
        kernel.close(fd)


def open_read(path: Path | str) -> BinaryIO:
    """Open a regular file with one link, of any size, to be read in portions; raises `NotAFile`."""
    return open(_open_fit(path, sys.maxsize)[0], "rb")


def _open_fit(path: Path | str, limit: int, trust: Trust | None = None) -> tuple[int, os.stat_result]:
    """Open a file, then look at what was opened: between a look at its name and this it may change."""
    try:
        fd: int = kernel.open(path, _READ)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK}:
            raise NotAFile(errno.ELOOP, "a symbolic link is not a job file", str(path)) from None
        if error.errno == errno.ENXIO:
            raise NotAFile(errno.ENXIO, "a socket is not a job file", str(path)) from None
        raise
    try:
        facts = kernel.fstat(fd)
        reason = _unfit(facts, limit)
        if reason:
            raise NotAFile(errno.EINVAL, reason, str(path))
        if trust is not None and (reason := _doubtful(facts, trust)):
            raise Untrusted(errno.EACCES, reason, str(path))
    except BaseException:
        kernel.close(fd)
        raise
    return fd, facts


def _read_all(fd: int, size: int, limit: int) -> bytes:
    """All there is, at most one byte more than `limit`. Each portion is as long as all before it."""
    data = b""
    while block := kernel.read(fd, min(max(_PORTION, len(data)), limit + 1 - len(data))):
        data += block
        if len(data) == size:
            break
    return data


def _unfit(facts: os.stat_result, limit: int) -> str | None:
    if stat.S_ISFIFO(facts.st_mode):
        return "a fifo is not a job file"
    if not stat.S_ISREG(facts.st_mode):
        return "it is not a regular file"
    if facts.st_nlink > 1:
        return "it has a second hard link, through which it could change unseen"
    if facts.st_size > limit:
        return f"it has {facts.st_size:,} bytes, more than the {limit:,} that a job may have"
    return None


def _doubtful(facts: os.stat_result, trust: Trust) -> str | None:
    if facts.st_uid not in trust.owners:
        return f"it was filed by {user_name(facts.st_uid)}, who is not among the trusted_users of this worker"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not trust.alone:
        return "others than its owner may write to it (`chmod go-w` mends that)"
    return None


def user_name(uid: int) -> str:
    """The name of a user, or the number where there is none."""
    if sys.platform != "win32":
        import pwd

        with contextlib.suppress(KeyError):
            return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def group_name(gid: int) -> str:
    """The name of a group, or the number where there is none."""
    if sys.platform != "win32":
        import grp

        with contextlib.suppress(KeyError):
            return grp.getgrgid(gid).gr_name
    return str(gid)


def list_names(folder: Path | str) -> list[str]:
    """The names in a directory, in no order; one pass, whatever its size."""
    names: list[str] = kernel.listdir(folder)
    return names


class Mark(NamedTuple):
    """What must stay the same for a file or directory to be the same as before."""

    mtime_ns: int
    size: int
    inode: int


def mark(path: Path | str) -> Mark:
    """The present `Mark` of a path, itself and not what a link points to."""
    return mark_of(kernel.lstat(path))


def mark_of(facts: os.stat_result) -> Mark:
    """The `Mark` in what the system tells of a file."""
    return Mark(facts.st_mtime_ns, facts.st_size, facts.st_ino)


def list_marked(folder: Path | str, trusted: Mark | None) -> tuple[list[str], Mark]:
    """The names in a directory, and its `Mark` just before; from the kernel's cache if that is `trusted`.

    NFS clients know an old listing by the directory's time. Where two changes bear the same time, one
    that listed between them goes on showing the first until the directory changes again.
    """
    fd = kernel.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        seen = mark_of(kernel.fstat(fd))
        if seen != trusted:
            kernel.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return kernel.listdir(fd), seen
    finally:
        kernel.close(fd)


def opened_mark(path: Path | str) -> Mark:
    """The `Mark` of a file that is opened for this: NFS clients ask the server then, whatever they cache.

    Raises as `read` does.
    """
    fd, facts = _open_fit(path, sys.maxsize)
    kernel.close(fd)
    return mark_of(facts)


def modified(path: Path | str) -> tuple[float, float]:
    """When a file was last written to, by its server's clock, and by how much that may be wrong.

    SFTP and some file systems tell whole seconds.
    """
    facts = kernel.lstat(path)
    if facts.st_mtime_ns % 1_000_000_000:
        return facts.st_mtime_ns / 1e9, 0.0
    return facts.st_mtime_ns / 1e9 + 0.5, 0.5


def server_time(folder: Path | str, name: str) -> float:
    """What the clock says of whoever keeps this directory: the time of a file that is made for this."""
    path = f"{folder}/{name}"
    remove(path)
    try:
        create(path)
        return modified(path)[0]
    finally:
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


def _make(path: Path | str, flags: int, mode: int) -> int:
    """Open a file that may be new. What a group is to have is set past the umask."""
    try:
        fd = _open_insisting(path, flags, mode)
    except PermissionError as error:
        # SFTP has one word for all that fails: sshfs says EPERM where another host was faster.
        if error.errno == errno.EPERM and flags & os.O_EXCL and exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        raise
    if _OTHERS and flags & os.O_EXCL:
        _give(fd, str(path))
    if mode != PRIVATE and sys.platform != "win32":
        try:
            kernel.fchmod(fd, mode)
        except PermissionError:
            pass  # it was there, and is another's
        except BaseException:
            if flags & os.O_EXCL:
                _abandon(path, fd)
            else:
                kernel.close(fd)
            raise
    return fd


#: The directories of other users in which root makes files, each with the user and group that get these.
_OTHERS: dict[str, tuple[int, int]] = {}


def give_what_is_made_in(folder: str, facts: os.stat_result) -> None:
    """Let what root makes below another user's directory belong to that user; `facts` are the directory's.

    Else the user could neither read nor change it. Files of other users that are there already stay theirs.
    """
    if sys.platform == "win32" or kernel.geteuid() != 0:
        return
    if facts.st_uid == 0:
        _OTHERS.pop(folder, None)
    else:
        _OTHERS[folder] = facts.st_uid, facts.st_gid


def belongs_to_another(path: Path | str) -> bool:
    """Whether what root makes under this name goes to another user."""
    return any(str(path).startswith(f"{folder}/") for folder in _OTHERS)


def _give(fd: int, path: str) -> None:
    """Give a file to the user of the directory that it was made in; one that cannot be given is not made."""
    owner = next((owner for folder, owner in _OTHERS.items() if path.startswith(f"{folder}/")), None)
    if owner is None:
        return
    try:
        kernel.fchown(fd, *owner)
    except OSError:
        kernel.close(fd)
        kernel.unlink(path)
        raise


def make_folder(path: str, mode: int = 0o777) -> None:
    """Make a directory; one that root makes in another user's belongs to that user."""
    kernel.mkdir(path, mode)
    if sys.platform == "win32" or kernel.geteuid() != 0:
        return
    parent = kernel.stat(os.path.dirname(path))
    if parent.st_uid != 0:
        fd = kernel.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            kernel.fchown(fd, parent.st_uid, parent.st_gid)
        finally:
            kernel.close(fd)


def _open_insisting(path: Path | str, flags: int, mode: int) -> int:
    """Open a file that may be new; of one that must be, believe EEXIST once the file is seen.

    GlusterFS tells EEXIST whoever makes a file that another host looks for just then, and takes
    what had to be new away again: of 2,000 names that two hosts raced for, up to 5 were made by
    neither. A mount that remembers what was not there shows no file, so there is an end to it.
    """
    for _ in range(INSIST - 1):
        try:
            return int(kernel.open(path, flags, mode))
        except FileExistsError:
            if flags & os.O_EXCL and exists(path):
                raise
    return int(kernel.open(path, flags, mode))


def create(path: Path | str, data: bytes = b"", mode: int = PRIVATE) -> None:
    """Make a file that was not there; raises `FileExistsError` when it was. Not synced.

    On any other error nothing is left of it: an empty file would count as a request or a job.
    """
    _fill(path, _make(path, _NEW, mode), data, sync=False)


def create_synced(path: Path | str, data: bytes) -> None:
    """Make a file as `create` does, its content safe from a power cut."""
    _fill(path, _make(path, _NEW, PRIVATE), data, sync=True)


def create_like(path: Path | str, data: bytes, model: Path | str) -> None:
    """Make a file as `create_synced` does, with the mode of another and, as far as we may, its owner.

    Who has a file written anew must not come to vouch for what is in it.
    """
    facts = kernel.lstat(model)
    fd = _make(path, _NEW, PRIVATE)
    try:
        if sys.platform != "win32":
            kernel.fchmod(fd, stat.S_IMODE(facts.st_mode) & 0o666 | PRIVATE)
            if facts.st_uid != kernel.geteuid():
                with contextlib.suppress(PermissionError):
                    kernel.fchown(fd, facts.st_uid, facts.st_gid)
    except BaseException:
        _abandon(path, fd)
        raise
    _fill(path, fd, data, sync=True)


def _fill(path: Path | str, fd: int, data: bytes, *, sync: bool) -> None:
    """Write and close a file that was just made; remove it where the disk does not take all of it."""
    try:
        write_all(fd, data)
        if sync:
            kernel.fsync(fd)
    except BaseException:
        _abandon(path, fd)
        raise
    try:
        kernel.close(fd)  # NFS reports a full disk here
    except BaseException:
        with contextlib.suppress(OSError):
            kernel.unlink(path)
        raise


def _abandon(path: Path | str, fd: int) -> None:
    """Close and remove a file that was just made and cannot be finished; never raises."""
    with contextlib.suppress(OSError):
        kernel.close(fd)
    with contextlib.suppress(OSError):
        kernel.unlink(path)


def may_copy(path: Path | str) -> bool:
    """Whether a copy that this process makes of a file can belong to the same owner."""
    return sys.platform == "win32" or kernel.geteuid() in {0, kernel.lstat(path).st_uid}


def hand_over(path: Path | str, group: int, mode: int) -> None:
    """Give what lies in a directory of this mode to its group, or take it away from it; links stay.

    A directory gets the mode itself, a file what of it files can have.
    """
    try:
        fd = kernel.open(path, _READ)
    except OSError as error:
        if error.errno in _OTHER_THINGS:
            return
        raise
    try:
        facts = kernel.fstat(fd)
        if stat.S_ISDIR(facts.st_mode) or not _unfit(facts, sys.maxsize):
            if mode & stat.S_ISGID:
                kernel.fchown(fd, -1, group)
            kernel.fchmod(fd, mode if stat.S_ISDIR(facts.st_mode) else mode & 0o666)
    finally:
        kernel.close(fd)


def probe(path: Path | str) -> None:
    """Try whether the disk takes a file of one block, and a rename; raises the `OSError` if it does not."""
    moved = f"{path}~"
    remove(path)
    try:
        create_synced(path, b"\0" * 4096)
        kernel.rename(path, moved)
    finally:
        for left in (path, moved):
            with contextlib.suppress(OSError):
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


def open_new(path: Path | str, mode: int = PRIVATE) -> int:
    """Make a file for a command to write to; returns a descriptor.

    Raises `FileExistsError` when it was there.
    """
    return _make(path, _NEW | os.O_APPEND, mode)


def open_log(path: Path | str, mode: int = PRIVATE) -> int:
    """Open a file for a command to write to, made where it is missing, emptied where it is not.

    Returns a descriptor. Raises `NotAFile` for what is no regular file with one link, and leaves it
    as it was.
    """
    try:
        return open_new(path, mode)
    except FileExistsError:
        return _open_log(path, mode, keep=False)


def open_append(path: Path | str, mode: int = PRIVATE) -> BinaryIO:
    """Open a file to add to, made where it is missing; raises `NotAFile` as `open_log` does."""
    try:
        fd = open_new(path, mode)
    except FileExistsError:
        fd = _open_log(path, mode, keep=True)
    return open(fd, "ab", buffering=0)


def close(*descriptors: int) -> None:
    """Close what `open_new` and `open_log` opened for others to write to: what they lose is no error here."""
    for fd in descriptors:
        try:  # noqa: SIM105 - `suppress` takes as long as the call
            kernel.close(fd)
        except OSError:
            pass


def reached(fd: int) -> int:
    """How far a file has been written to through this opening of it, by whoever; no server is asked."""
    place: int = kernel.lseek(fd, 0, os.SEEK_CUR)
    return place


def _open_log(path: Path | str, mode: int, *, keep: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = _make(path, flags, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotAFile(errno.EINVAL, "a fifo is not a log", str(path)) from None
        raise
    try:
        facts = kernel.fstat(fd)
        reason = _unfit(facts, sys.maxsize)
        if reason:
            raise NotAFile(errno.EINVAL, reason, str(path))
        if facts.st_size and not keep:
            kernel.ftruncate(fd, 0)
        if sys.platform != "win32":
            os.set_blocking(fd, True)
    except BaseException:
        kernel.close(fd)
        raise
    return fd


def sync_folder(folder: Path | str) -> None:
    """Make the names in a directory survive a power cut (where a directory can be opened)."""
    if sys.platform == "win32":
        return
    fd = kernel.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kernel.fsync(fd)
    finally:
        kernel.close(fd)


class Draft(NamedTuple):
    """A file on its way: its open descriptor, its dot name, and the name it is to get."""

    fd: int
    hidden: str
    target: str


def draft(folder: Path | str, name: str, data: bytes, *, sync: bool, mode: int = PRIVATE) -> Draft:
    """Write `data` under a dot name beside its target and keep it open.

    Raises `OSError` and leaves nothing behind when the disk does not take it.
    """
    hidden = f"{folder}/.{name}.tmp"
    fd = _make(hidden, _NEW, mode)
    try:
        write_all(fd, data)
        if sync:
            kernel.fsync(fd)
    except BaseException:
        _abandon(hidden, fd)
        raise
    return Draft(fd, hidden, f"{folder}/{name}")


def sync(drafts: Sequence[Draft]) -> None:
    """Make the content of drafts survive a power cut; raises the first `OSError` that any of them meets.

    The disk is asked to begin with all of them, and many are waited for at a time: a file system
    makes one flush of the disk's cache do for those who wait together. On ext4 that is five times as
    fast as one after the other.
    """
    if len(drafts) > 1 and hasattr(os, "posix_fadvise"):
        for draft in drafts:
            kernel.posix_fadvise(draft.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if len(drafts) < SYNCS:
        _sync_each(drafts)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(SYNCS, "sync") as pool:
        for _ in pool.map(_sync_each, [drafts[first::SYNCS] for first in range(SYNCS)]):
            pass


def _sync_each(drafts: Sequence[Draft]) -> None:
    for draft in drafts:
        kernel.fsync(draft.fd)


def sync_files(paths: Sequence[Path | str]) -> None:
    """Make files that are there survive a power cut with their names, where a directory is not synced."""
    opened: list[Draft] = []
    try:
        opened.extend(Draft(kernel.open(path, _WRITE), str(path), str(path)) for path in paths)
        sync(opened)
    finally:
        close(*(one.fd for one in opened))


def owner_of(fd: int) -> int:
    """The number of the user to whom an open file belongs."""
    return int(kernel.fstat(fd).st_uid)


def publish(draft: Draft) -> None:
    """Close a draft, then give it its name: the move is the ring that workers hear.

    The name must be one that nobody else makes.
    """
    try:
        kernel.close(draft.fd)
        _give_name(draft)
    except BaseException:
        with contextlib.suppress(OSError):
            kernel.unlink(draft.hidden)
        raise


def publish_open(draft: Draft) -> None:
    """Give a draft its name and keep it open, so that the file can be synced whoever moves it on."""
    try:
        _give_name(draft)
    except BaseException:
        discard(draft)
        raise


def _give_name(draft: Draft) -> None:
    if not move(draft.hidden, draft.target):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), draft.hidden)


def withdraw(draft: Draft) -> bool:
    """Remove what was published; False where it stays, or somebody has taken it. Never raises."""
    try:
        return remove(draft.target)
    except OSError:
        return False


def discard(draft: Draft) -> None:
    """Remove a draft that is not to be published; never raises."""
    _abandon(draft.hidden, draft.fd)


def replace(path: Path | str, data: bytes, mode: int = PRIVATE) -> None:
    """Put new content under a name that readers poll: whole before or whole after, and synced."""
    put(prepare(path, data, mode, sync=True), path)
    _sync_replaced(path)


def _sync_replaced(path: Path | str) -> None:
    """Make a name survive a power cut to which a file has been moved; on SMB syncing the file alone does."""
    sync_files([path])
    sync_folder(os.path.dirname(path))


def prepare(path: Path | str, data: bytes, mode: int = PRIVATE, *, sync: bool = False) -> str:
    """Write what is to stand under a name beside it, under a dot name, which is returned.

    Raises `OSError` and leaves nothing behind when the disk does not take it.
    """
    folder, name = os.path.split(path)
    hidden = f"{folder}/.{name}.{kernel.urandom(4).hex()}.tmp"
    _fill(hidden, _make(hidden, _NEW, mode), data, sync=sync)
    return hidden


def put(hidden: str, path: Path | str) -> None:
    """Give what was prepared its name, in the place of what is there; on an error nothing is left of it."""
    try:
        kernel.replace(hidden, path)
    except BaseException:
        with contextlib.suppress(OSError):
            kernel.unlink(hidden)
        raise


def rewrite(path: Path, change: Callable[[bytes], tuple[bytes, int]]) -> None:
    """Put what `change` makes of a file's content, and the mode that it names, in its place.

    Any number of processes on any hosts may do so at once: each builds on what the one before it wrote.
    The draft is the lock. It is created exclusively, and the rename that puts it in the file's place also
    releases it.
    Crash: a draft that has stood still for `ABANDONED` seconds is taken away. Its writer, if it is only
    stopped, finds it gone when it goes on, and begins again.
    """
    while not _rewrite(path, f"{path.parent}/.{path.name}.lock", change):
        pass


def _rewrite(path: Path, hidden: str, change: Callable[[bytes], tuple[bytes, int]]) -> bool:
    """One try; False where the draft was taken away, or a program saved the file meanwhile."""
    fd = _create_alone(hidden)
    inode = kernel.fstat(fd).st_ino
    try:
        try:
            # Race: making the draft has changed the directory, so a share's client looks the file up again.
            before = mark(path)
            data, mode = change(read(path))
            if belongs_to_another(path):
                facts = kernel.lstat(path)
                kernel.fchown(fd, facts.st_uid, facts.st_gid)
                mode |= facts.st_mode & 0o044  # who may read it goes on doing so
            write_all(fd, data)
            if mode != PRIVATE and sys.platform != "win32":
                kernel.fchmod(fd, mode)
            kernel.fsync(fd)
        finally:
            kernel.close(fd)
        if mark(path) != before or not _is_inode(hidden, inode):
            return False
        kernel.replace(hidden, path)
    finally:
        if _is_inode(hidden, inode):
            kernel.unlink(hidden)
    _sync_replaced(path)
    return True


def _create_alone(path: str) -> int:
    """Create a file once nobody else has it; returns the descriptor."""
    seen: Mark | None = None
    since = 0.0
    while True:
        try:
            return int(kernel.open(path, _NEW, PRIVATE))
        except FileExistsError:
            pass
        with contextlib.suppress(FileNotFoundError):
            if (now := mark(path)) != seen:
                seen, since = now, times.clock.monotonic()
            elif times.clock.monotonic() - since > ABANDONED:
                remove(path)
        times.clock.sleep(0.01)


def _is_inode(path: str, inode: int) -> bool:
    try:
        return bool(kernel.lstat(path).st_ino == inode)
    except FileNotFoundError:
        return False


def append(path: Path | str, data: bytes, *, keep: int | None = None, sync: bool = False) -> None:
    """Add `data` to a file that must be there; cut it to `keep` bytes first if given.

    Raises `FileNotFoundError` when the file has been moved away, whatever is there instead:
    nothing comes back to life. On any other error the file is cut back to what it was.
    """
    try:
        fd = kernel.open(path, _APPEND)
    except OSError as error:
        if error.errno in _OTHER_THINGS:
            raise _gone(path) from error
        raise
    try:
        facts = kernel.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise _gone(path)
        before = facts.st_size if keep is None else keep
        if keep is not None:
            kernel.ftruncate(fd, keep)
        try:
            write_all(fd, data)
        except OSError:
            with contextlib.suppress(OSError):
                kernel.ftruncate(fd, before)
            raise
        if sync:
            kernel.fsync(fd)
    finally:
        kernel.close(fd)


def _gone(path: Path | str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "something else has taken its place", str(path))


def patch(path: Path | str, data: bytes, at: int) -> None:
    """Write `data` over the bytes from `at` of a file that must be there, in place."""
    fd = kernel.open(path, _WRITE)
    try:
        write_at(fd, data, at)
    finally:
        kernel.close(fd)


def write_at(fd: int, data: bytes, at: int) -> None:
    """Write `data` over the bytes from `at` of a file that is not open for appending."""
    kernel.lseek(fd, at, os.SEEK_SET)
    write_all(fd, data)


def size(path: Path | str) -> int:
    """How many bytes a file has."""
    return int(kernel.lstat(path).st_size)


def open_update(path: Path | str) -> int:
    """Open a regular file with one link to change it in place; returns the descriptor."""
    fd: int = kernel.open(path, _READ & ~os.O_RDONLY | os.O_RDWR)
    if reason := _unfit(kernel.fstat(fd), sys.maxsize):
        kernel.close(fd)
        raise NotAFile(errno.EINVAL, reason, str(path))
    return fd


def keep_newest_lines(path: Path | str, most: int) -> None:
    """Cut a log that has grown longer than `most` bytes to its newest half of that, in place.

    Who appends to it goes on at its new end. Crash: some lines may then stand twice.
    """
    fd = open_update(path)
    try:
        length = kernel.fstat(fd).st_size
        if length <= most:
            return
        kernel.lseek(fd, length - most // 2, os.SEEK_SET)
        newest = _read_all(fd, most // 2, most // 2).partition(b"\n")[2]
        write_at(fd, newest, 0)
        kernel.ftruncate(fd, len(newest))
    finally:
        kernel.close(fd)


def punch(fd: int, start: int, end: int) -> bool:
    """Give the blocks between two places back to the disk, which then read as NUL; False where none can.

    The length of the file stays, so whoever appends to it goes on as before.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    keep_size_and_punch_hole = 0x01 | 0x02
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(fallocate(fd, keep_size_and_punch_hole, start, end - start) == 0)


def first_hole(fd: int) -> int:
    """Where the first hole in an open file begins; at its end where it has none."""
    if not hasattr(os, "SEEK_HOLE"):
        return int(kernel.fstat(fd).st_size)
    place: int = kernel.lseek(fd, 0, os.SEEK_HOLE)
    return place


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


def move_synced(source: Path | str, target: Path | str) -> bool:
    """`move` to a name that survives a power cut, where syncing the directory would not make it so."""
    try:
        fd = kernel.open(source, _WRITE)
    except FileNotFoundError:
        return move(source, target)
    try:
        moved = move(source, target)
        kernel.fsync(fd)
    finally:
        kernel.close(fd)
    return moved


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
        fd, _ = _open_fit(path, sys.maxsize)
    except OSError:
        return None
    try:
        return _has_writer(fd)
    finally:
        kernel.close(fd)


def _has_writer(fd: int) -> bool | None:
    """Whether the file has a writer: else Linux grants its owner a read lease, on local file systems.

    The lease (F_SETLEASE) lasts until the file is closed, as it must be soon: whoever opens it for
    writing waits for that.
    """
    if sys.platform != "linux":
        return None
    import signal

    # Race: who opens the file for writing just then makes the kernel signal us; SIGIO would be the end.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False
