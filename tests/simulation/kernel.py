"""The system calls of a simulated process: the part of the module `os` that the product uses.

Each call first hands control to the scheduler, which may let others go on, inject a fault, or end
the process; then it happens at one instant.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulation.files import Inode, error

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.simulation.files import Disk
    from tests.simulation.shares import Share
    from tests.simulation.world import Machine, Process, World


#: What the product asks of `os` that touches no file.
_AS_THEY_ARE = frozenset({"geteuid", "getegid"})
_WRITES = os.O_WRONLY | os.O_RDWR


class _Listing(NamedTuple):
    names: list[str]
    at: float
    mtime_ns: int


class _Known(NamedTuple):
    facts: os.stat_result
    at: float


class Mount:
    """What one host sees of a disk. `clock` counts true seconds."""

    def __init__(self, disk: Disk, share: Share, luck: random.Random, clock: Callable[[], float]) -> None:
        self.disk = disk
        self.share = share
        self.is_cut_off = False
        self.late: list[Callable[[], None]] = []
        self._luck = luck
        self._clock = clock
        self._missing: dict[str, float] = {}
        self._listed: dict[str, _Listing] = {}
        self._known: dict[str, _Known] = {}

    def says_it_exists(self) -> bool:
        """Whether the making of a file is refused as if it were there, though nobody has made it."""
        return self.share.false_exists > 0 and self._luck.random() < self.share.false_exists

    def forget(self) -> None:
        """Empty the caches, as a host that is started again does."""
        self._missing.clear()
        self._listed.clear()
        self._known.clear()
        self.late.clear()

    def heal(self) -> None:
        """Reach the server again; what was written meanwhile arrives late."""
        self.is_cut_off = False
        late, self.late = self.late, []
        for write in late:
            write()

    def look_up(self, path: str) -> Inode | None:
        """What `open` and `stat` find under a name, remembered misses included."""
        if not self.share.negative_entries:
            return self.disk.find(path)
        now = self._clock()
        if self._missing.get(path, now) > now:
            return None
        inode = self.disk.find(path)
        if inode is None:
            self._missing[path] = now + self._luck.uniform(0, self.share.negative_entries)
        return inode

    def facts(self, path: str) -> os.stat_result:
        """What `lstat` answers: attributes may be old, those of a name that has gone included."""
        if not self.share.stale_attributes:
            inode = self.disk.find(path)
            if inode is None:
                raise error(errno.ENOENT, path)
            return inode.facts()
        now, known = self._clock(), self._known.get(path)
        if known and now - known.at < self.share.stale_attributes and self._luck.random() < 0.5:
            return known.facts
        inode = self.look_up(path)
        if inode is None:
            self._known.pop(path, None)
            raise error(errno.ENOENT, path)
        found = inode.facts()
        if self.share.stale_attributes:
            self._known[path] = _Known(found, now)
        return found

    def names(self, path: str) -> list[str]:
        """A listing, which may be old."""
        folder = self.disk.folder(path)
        if not self.share.stale_listing:
            return list(folder.names or ())
        now, known = self._clock(), self._listed.get(path)
        if known:
            if now - known.at < self._luck.uniform(0, self.share.stale_listing):
                return list(known.names)
            if self.share.sticky_listing and known.mtime_ns == folder.mtime_ns:
                return list(known.names)
        assert folder.names is not None
        names = list(folder.names)
        self._luck.shuffle(names)
        self._listed[path] = _Listing(names, now, folder.mtime_ns)
        return list(names)

    def drop_pages(self, inode: Inode) -> None:
        """Forget a listing (posix_fadvise DONTNEED)."""
        for path in [path for path in self._listed if self.disk.find(path) is inode]:
            del self._listed[path]

    def changed(self, *paths: str) -> None:
        """Note that this host has changed these names itself: it knows of its own changes."""
        for path in paths:
            self._missing.pop(path, None)
            self._known.pop(path, None)
            self._listed.pop(path.rpartition("/")[0], None)

    def rename(self, source: str, target: str) -> None:
        """Rename at the server; the answer may be lost, or be another one's."""
        luck = self._luck.random()
        if self.share.unknown_ends and luck < self.share.unknown_ends:
            if self._luck.random() < 0.5:
                self._rename(source, target)
            raise error(errno.EIO, source)
        self._rename(source, target)
        if self.share.lost_replies and luck > 1 - self.share.lost_replies:
            raise error(errno.ENOENT, source)

    def _rename(self, source: str, target: str) -> None:
        self.changed(source, target)
        if self.share.many_winners and self.disk.find(source) is None:
            there = self.disk.find(target)
            if there is not None and not there.is_folder and self.disk.was_moved(source, target):
                return
        self.disk.rename(source, target)


@dataclass(eq=False)
class Opened:
    """An open file: the inode stays reachable through it whatever becomes of its name."""

    inode: Inode
    path: str
    flags: int
    owner: Process
    mount: Mount
    at: int = 0
    wrote: bool = False
    before_ns: int = 0
    is_stale: bool = False


class Kernel:
    """Stands in for the module `os` behind the product's door to the disk."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: dict[int, Opened] = {}
        self._next = 1000

    def __getattr__(self, name: str) -> Any:
        if name not in _AS_THEY_ARE:
            raise NotImplementedError(f"os.{name} is not simulated")
        return getattr(os, name)

    def _step(self, call: str, path: Any) -> Mount:
        """Let the scheduler have its say; returns the mount of the process that goes on."""
        return self._world.step(call, path if isinstance(path, str) else os.fspath(path))

    def _file(self, call: str, fd: int) -> Opened:
        opened = self._open.get(fd)
        if opened is None:
            raise error(errno.EBADF)
        self._step(call, opened.path)
        if opened.is_stale:
            raise error(errno.ESTALE, opened.path)
        return opened

    def urandom(self, size: int) -> bytes:
        return self._world.luck.randbytes(size)

    def getpid(self) -> int:
        return self._world.current.pid

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        mount = self._step("open", path)
        text = os.fspath(path)
        creates, exclusive = flags & os.O_CREAT, flags & os.O_EXCL
        inode = mount.disk.find(text) if creates else mount.look_up(text)
        if creates and exclusive and (inode is not None or mount.says_it_exists()):
            raise error(errno.EPERM if mount.share.says_eperm else errno.EEXIST, text)
        if inode is None:
            if not creates:
                raise error(errno.ENOENT, text)
            inode = mount.disk.make(text, mode)
            mount.changed(text)
        if inode.is_folder and flags & (_WRITES):
            raise error(errno.EISDIR, text)
        if not inode.is_folder and flags & os.O_DIRECTORY:
            raise error(errno.ENOTDIR, text)
        if flags & os.O_TRUNC:
            mount.disk.truncate(inode, 0)
        self._next += 1
        self._open[self._next] = Opened(
            inode, text, flags, self._world.current, mount, before_ns=inode.mtime_ns
        )
        return self._next

    def close(self, fd: int) -> None:
        opened = self._open.get(fd)
        if opened is None:
            raise error(errno.EBADF)
        try:
            if opened.wrote:  # what was written is flushed, and so waits for the server
                self._step("close", opened.path)
        finally:
            self._open.pop(fd, None)  # as Linux does also where the call fails
            if opened.flags & _WRITES:
                if opened.mount.share.close_syncs:
                    opened.mount.disk.sync(opened.inode)
                self._world.closed(opened.inode)

    def drop(self, owner: Process) -> None:
        """Close what a process has open that is gone."""
        for fd in [fd for fd, one in self._open.items() if one.owner is owner]:
            del self._open[fd]

    def reopen(self) -> None:
        """What clients do once their server is back: a file that has not the name they know is stale."""
        for one in self._open.values():
            one.is_stale |= one.mount.disk.find(one.path) is not one.inode

    def lose_unflushed(self, machine: Machine) -> None:
        """Lose what a host has not sent to its share as it loses its power: files that it has not closed."""
        for one in self._open.values():
            if one.owner.machine is machine and one.wrote:
                one.mount.disk.lose_unsynced(one.inode, self._world.luck)

    def opened(self, fd: int) -> str:
        """What a descriptor stands for, in words."""
        one = self._open.get(fd)
        return f"<{one.path}>" if one else f"fd {fd}"

    def has_writer(self, fd: int) -> bool:
        """Whether anybody has the file open for writing: a lease tells that on a local disk."""
        inode = self._file("lease", fd).inode
        return any(one.inode is inode and one.flags & (_WRITES) for one in self._open.values())

    def write(self, fd: int, data: bytes) -> int:
        opened = self._open.get(fd)
        if opened is None:
            raise error(errno.EBADF)
        mount = opened.mount
        if mount.is_cut_off and mount.share.late_writes:
            place, inode = opened.at, opened.inode
            appends = bool(opened.flags & os.O_APPEND)

            def arrive() -> None:
                mount.disk.write(inode, data, len(inode.data) if appends else place)
                self._world.auditor.arrived(inode)

            mount.late.append(arrive)
            opened.at += len(data)
            opened.wrote = True
            return len(data)
        self._file("write", fd)
        at = len(opened.inode.data) if opened.flags & os.O_APPEND else opened.at
        if mount.disk.free < len(data):  # it takes a part at most
            self._world.current.is_hindered(self._world.time)
        count = mount.disk.write(opened.inode, data, at)
        self._world.wrote(opened.inode)
        opened.at = at + count
        opened.wrote = True
        mount.changed(opened.path)
        return count

    def read(self, fd: int, size: int) -> bytes:
        opened = self._file("read", fd)
        data = opened.inode.data[opened.at : opened.at + size]
        opened.at += len(data)
        return data

    def pread(self, fd: int, size: int, at: int) -> bytes:
        return self._file("pread", fd).inode.data[at : at + size]

    def lseek(self, fd: int, offset: int, how: int) -> int:
        opened = self._open[fd]
        if how not in {os.SEEK_SET, os.SEEK_CUR, os.SEEK_END}:
            raise error(errno.EINVAL)
        start = {os.SEEK_SET: 0, os.SEEK_CUR: opened.at, os.SEEK_END: len(opened.inode.data)}[how]
        opened.at = start + offset
        return opened.at

    def ftruncate(self, fd: int, length: int) -> None:
        opened = self._file("ftruncate", fd)
        opened.mount.disk.truncate(opened.inode, length)
        self._world.wrote(opened.inode)
        opened.wrote = True

    def fsync(self, fd: int) -> None:
        opened = self._file("fsync", fd)
        if opened.inode.is_folder and opened.mount.share.no_folder_sync:
            return
        opened.mount.disk.sync(opened.inode)
        if opened.mount.share.no_folder_sync and not opened.inode.is_folder:
            opened.mount.disk.sync_names_of(opened.inode)

    def fstat(self, fd: int) -> os.stat_result:
        opened = self._file("fstat", fd)
        old = opened.wrote and opened.mount.share.old_mtime
        return opened.inode.facts(opened.before_ns if old else None)

    def lstat(self, path: Any) -> os.stat_result:
        return self._step("lstat", path).facts(os.fspath(path))

    stat = lstat

    def listdir(self, path: Any) -> list[str]:
        path = self._open[path].path if isinstance(path, int) else os.fspath(path)
        return self._step("listdir", path).names(path)

    def scandir(self, path: Any) -> contextlib.AbstractContextManager[Iterator[str]]:
        """The product asks only whether there is an entry, so the names stand for the entries."""
        return contextlib.nullcontext(iter(self.listdir(path)))

    def access(self, path: Any, how: int) -> bool:
        """Modes are not simulated: what is there may be read and written to."""
        del how
        return self._step("access", path).look_up(os.fspath(path)) is not None

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        mount = self._step("mkdir", path)
        mount.disk.make(os.fspath(path), mode, is_folder=True)
        mount.changed(os.fspath(path))

    def unlink(self, path: Any) -> None:
        mount = self._step("unlink", path)
        mount.disk.unlink(os.fspath(path))
        mount.changed(os.fspath(path))

    def rmdir(self, path: Any) -> None:
        mount = self._step("rmdir", path)
        mount.disk.rmdir(os.fspath(path))
        mount.changed(os.fspath(path))

    def rename(self, source: Any, target: Any) -> None:
        old, new = os.fspath(source), os.fspath(target)
        mount = self._step("rename", f"{old} -> {new}")
        try:
            mount.rename(old, new)
        except OSError as problem:
            if problem.errno == errno.EIO and mount.disk.find(new) is None:
                self._world.current.is_hindered(self._world.time)
            raise
        finally:
            for one in self._open.values():
                if one.path == old and one.mount is mount and one.inode.path == new:
                    one.path = new

    replace = rename

    def chmod(self, path: Any, mode: int) -> None:
        mount = self._step("chmod", path)
        inode = mount.disk.find(os.fspath(path))
        if inode is None:
            raise error(errno.ENOENT, os.fspath(path))
        inode.mode = mode

    def set_blocking(self, fd: int, blocking: bool) -> None:
        """All calls block here."""

    def fchmod(self, fd: int, mode: int) -> None:
        self._open[fd].inode.mode = mode

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        """Owners are not simulated."""

    def posix_fadvise(self, fd: int, _offset: int, _length: int, advice: int) -> None:
        opened = self._open[fd]
        if advice == os.POSIX_FADV_DONTNEED:
            opened.mount.drop_pages(opened.inode)

    def readlink(self, path: Any) -> str:
        raise error(errno.EINVAL, os.fspath(path))
