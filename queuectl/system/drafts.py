"""New content on its way to a name: written beside it under a dot name, then moved there."""

from __future__ import annotations

import contextlib
import errno
import os

from queuectl import times
from queuectl.system import files
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


#: Syncs that are waited for at once.
SYNCS = 8
#: Seconds for which the draft of a change may stand still before it counts as left by a crash.
ABANDONED = 10.0


class Draft(NamedTuple):
    """A file on its way: its open descriptor, its dot name, and the name it is to get."""

    fd: int
    hidden: str
    target: str


def draft(folder: Path | str, name: str, data: bytes, mode: int = files.PRIVATE) -> Draft:
    """Write `data` under a dot name beside its target and keep it open.

    Raises `OSError` and leaves nothing behind when the disk does not take it.
    """
    hidden = f"{folder}/.{name}.tmp"
    fd = files.make(hidden, files.NEW, mode)
    files.write_new(hidden, fd, data)
    return Draft(fd, hidden, f"{folder}/{name}")


def sync(drafts: Sequence[Draft]) -> None:
    """Make the content of drafts survive a power cut; raises the first `OSError` that any of them meets.

    The disk begins with all of them, and several threads wait: a file system flushes the disk's cache once
    for all that wait together. On ext4 that is five times as fast as one after the other.
    """
    if len(drafts) > 1 and files.CAN_DROP_LISTINGS:
        for draft in drafts:
            files.kernel.posix_fadvise(draft.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if len(drafts) < SYNCS:
        _sync_each(drafts)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(SYNCS, "sync") as pool:
        for _ in pool.map(_sync_each, [drafts[first::SYNCS] for first in range(SYNCS)]):
            pass


def _sync_each(drafts: Sequence[Draft]) -> None:
    for draft in drafts:
        files.kernel.fsync(draft.fd)


def sync_files(paths: Sequence[Path | str]) -> None:
    """Make files survive a power cut with their names, where syncing a directory does nothing."""
    opened: list[Draft] = []
    try:
        opened.extend(Draft(files.kernel.open(path, files.WRITE), str(path), str(path)) for path in paths)
        sync(opened)
    finally:
        files.close(*(one.fd for one in opened))


def publish(draft: Draft) -> None:
    """Close a draft, then give it its name: workers hear the move.

    The name must be one that nobody else makes.
    """
    try:
        files.kernel.close(draft.fd)
        publish_open(draft)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error counts
            files.kernel.unlink(draft.hidden)
        raise


def publish_open(draft: Draft) -> None:
    """Give a draft its name and keep it open, so that the file can be synced even if a worker moves it.

    After an error the draft is still there, and open.
    """
    if not files.move(draft.hidden, draft.target):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), draft.hidden)


def withdraw(draft: Draft) -> bool:
    """Remove what was published; False where it stays, or somebody has taken it. Never raises."""
    try:
        return files.remove(draft.target)
    except OSError:
        return False


def discard(draft: Draft) -> None:
    """Remove a draft that is not to be published; never raises."""
    files.abandon(draft.hidden, draft.fd)


def replace(path: Path | str, data: bytes, mode: int = files.PRIVATE) -> None:
    """Put new content under a name that readers poll: whole before or whole after, and synced."""
    put(prepare(path, data, mode, sync=True), path)
    _sync_replaced(path)


def _sync_replaced(path: Path | str) -> None:
    """Make a name survive a power cut to which a file has been moved; on SMB syncing the file alone does."""
    sync_files([path])
    files.sync_folder(os.path.dirname(path))


def prepare(path: Path | str, data: bytes, mode: int = files.PRIVATE, *, sync: bool = False) -> str:
    """Write the content for a name beside it, under a dot name, which is returned.

    Raises `OSError` and leaves nothing behind when the disk does not take it.
    """
    folder, name = os.path.split(path)
    hidden = f"{folder}/.{name}.{files.kernel.urandom(4).hex()}.tmp"
    files.fill(hidden, files.make(hidden, files.NEW, mode), data, sync=sync)
    return hidden


def put(hidden: str, path: Path | str) -> None:
    """Give prepared content its name, in the place of what is there; on an error nothing is left of it.

    A share may report an error for a rename that happened: then the draft is gone, and nobody else uses
    its name.
    """
    try:
        files.kernel.replace(hidden, path)
    except OSError:
        if not files.exists(hidden) and files.exists(path):
            return
        with contextlib.suppress(OSError):  # the first error counts
            files.kernel.unlink(hidden)
        raise


def rewrite(path: Path, change: Callable[[bytes], tuple[bytes, int]]) -> None:
    """Replace a file by the content and the mode that `change` returns for its present content.

    Any number of processes on any hosts may do so at once: each builds on what the one before it wrote.
    The draft is the lock. It is created exclusively, and the rename that puts it in the file's place also
    releases it.
    Crash: a draft that has stood still for `ABANDONED` seconds is removed. If its writer was only stopped,
    it finds the draft gone when it goes on, and begins again.
    """
    while not _rewrite(path, f"{path.parent}/.{path.name}.lock", change):
        pass


def _rewrite(path: Path, hidden: str, change: Callable[[bytes], tuple[bytes, int]]) -> bool:
    """One try; False where the draft was removed, or a program saved the file meanwhile."""
    fd = _create_alone(hidden)
    inode = files.kernel.fstat(fd).st_ino
    try:
        try:
            # Race: making the draft has changed the directory, so a share's client looks the file up again.
            before = files.mark(path)
            data, mode = change(files.read(path))
            if files.belongs_to_another(path):
                facts = files.kernel.lstat(path)
                files.kernel.fchown(fd, facts.st_uid, facts.st_gid)
                mode |= facts.st_mode & 0o044  # who may read it goes on doing so
            files.write_all(fd, data)
            files.kernel.fchmod(fd, mode)
            files.kernel.fsync(fd)
        finally:
            files.kernel.close(fd)
        if files.mark(path) != before or not _is_inode(hidden, inode):
            return False
        files.kernel.replace(hidden, path)
    finally:
        if _is_inode(hidden, inode):
            files.kernel.unlink(hidden)
    _sync_replaced(path)
    return True


def _create_alone(path: str) -> int:
    """Create a file once nobody else has it; returns the descriptor."""
    seen: files.Mark | None = None
    since = 0.0
    while True:
        try:
            return int(files.kernel.open(path, files.NEW, files.PRIVATE))
        except FileExistsError:
            pass
        with contextlib.suppress(FileNotFoundError):  # its writer is done
            if (now := files.mark(path)) != seen:
                seen, since = now, times.clock.monotonic()
            elif times.clock.monotonic() - since > ABANDONED:
                files.remove(path)
        times.clock.sleep(0.01)


def _is_inode(path: str, inode: int) -> bool:
    try:
        return bool(files.kernel.lstat(path).st_ino == inode)
    except FileNotFoundError:
        return False


def move_synced(source: Path | str, target: Path | str) -> bool:
    """`files.move` and sync the file under its new name, where syncing the directory does nothing."""
    try:
        fd = files.kernel.open(source, files.WRITE)
    except FileNotFoundError:
        return files.move(source, target)
    try:
        moved = files.move(source, target)
        files.kernel.fsync(fd)
    finally:
        files.kernel.close(fd)
    return moved
