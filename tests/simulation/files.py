"""Simulated file systems: a disk that promises what POSIX promises, and shares as they were measured.

A `Disk` is the truth: inodes, names, and what of both a power cut would keep. A `Mount` is what one
host sees of it, with that host's caches. Every behaviour of a share is one switch of `Share`.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

#: Simulated files belong to whoever runs the simulation, so that the product trusts them.
OWNER = os.geteuid()


def error(number: int, path: str = "") -> OSError:
    """The `OSError` that the kernel raises for an error number."""
    return OSError(number, os.strerror(number), path or None)


@dataclass(eq=False)
class Inode:
    """A file or directory. `names` maps names to inodes in a directory and is None in a file.

    `path` is the present name of a file, None once it has none: no file gets a second link here.
    `safe` is the content that survives a power cut; `writes` are those after the last sync, each the
    whole content after it.
    """

    number: int
    mode: int
    mtime_ns: int
    names: dict[str, Inode] | None = None
    data: bytes = b""
    links: int = 0
    path: str | None = None
    safe: bytes = b""
    writes: list[bytes] = field(default_factory=list)
    _facts: tuple[tuple[int, ...], os.stat_result] | None = None

    @property
    def is_folder(self) -> bool:
        """Whether this is a directory."""
        return self.names is not None

    def facts(self, mtime_ns: int | None = None) -> os.stat_result:
        """What `stat` answers."""
        when = self.mtime_ns if mtime_ns is None else mtime_ns
        key = (when, len(self.data), self.links, self.mode)
        if self._facts is not None and self._facts[0] == key:
            return self._facts[1]
        kind = stat.S_IFDIR if self.is_folder else stat.S_IFREG
        links = 2 if self.is_folder else self.links
        row = (kind | self.mode, self.number, 1, links, OWNER, OWNER, len(self.data))
        seconds = when // 10**9
        facts = os.stat_result(
            (*row, seconds, seconds, seconds, when / 1e9, when / 1e9, when / 1e9, when, when, when)
        )
        self._facts = key, facts
        return facts


class NameChange(NamedTuple):
    """A change of names that no sync has made safe yet: a link, an unlink or a rename."""

    inode: Inode
    source: tuple[Inode, str] | None
    target: tuple[Inode, str] | None


class Disk:
    """The truth about one file system. `now` gives its clock in nanoseconds, `tick` its grain."""

    #: Hears of each change of names, once it has been made.
    on_names: Callable[[str | None, str | None], None]

    def __init__(self, now: Callable[[], int], tick: int = 1) -> None:
        self._now = now
        self._tick = tick
        self.on_names = lambda _source, _target: None
        self.names_are_safe = False
        self.has_journal = False
        #: Whether what a power cut would leave is kept account of.
        self.may_lose_power = True
        self._number = 1
        self.free = 1 << 40
        self.root = self._inode(0o755, {})
        self._unsafe: list[NameChange] = []
        self._moves: dict[str, str] = {}
        self._safe_names: dict[Inode, dict[str, Inode]] = {self.root: {}}
        #: Directories by their paths, as long as none is made, moved or removed.
        self._folders: dict[str, Inode] = {}

    def _inode(self, mode: int, names: dict[str, Inode] | None = None) -> Inode:
        self._number += 1
        return Inode(self._number, mode, self.time(), names)

    def time(self) -> int:
        """The time that a change made now is stamped with."""
        now = self._now()
        return now - now % self._tick

    def folder(self, path: str) -> Inode:
        """The directory at a path; raises `FileNotFoundError` or `NotADirectoryError`."""
        if (known := self._folders.get(path)) is not None:
            return known
        found = self.root
        for step in path.split("/"):
            if step:
                if found.names is None:
                    raise error(errno.ENOTDIR, path)
                if step not in found.names:
                    raise error(errno.ENOENT, path)
                found = found.names[step]
        if found.names is None:
            raise error(errno.ENOTDIR, path)
        self._folders[path] = found
        return found

    def place(self, path: str) -> tuple[Inode, str]:
        """The directory that holds a name, and the name."""
        folder, _, name = path.rpartition("/")
        return self.folder(folder), name

    def find(self, path: str) -> Inode | None:
        """What is at a path, None where nothing is."""
        if path in {"", "/"}:
            return self.root
        folder, _, name = path.rpartition("/")
        inode = self._folders.get(folder) or self.folder(folder)
        assert inode.names is not None
        return inode.names.get(name)

    def make(self, path: str, mode: int, *, is_folder: bool = False) -> Inode:
        """Make a file or a directory that is not there; raises `FileExistsError`."""
        folder, name = self.place(path)
        if name in _names(folder):
            raise error(errno.EEXIST, path)
        self._need(1)
        inode = self._inode(mode, {} if is_folder else None)
        if is_folder:
            self._safe_names[inode] = {}
        self._change(NameChange(inode, None, (folder, name)), None, path)
        return inode

    def unlink(self, path: str) -> None:
        """Remove a name."""
        folder, name = self.place(path)
        inode = _names(folder).get(name)
        if inode is None:
            raise error(errno.ENOENT, path)
        if inode.is_folder:
            raise error(errno.EISDIR, path)
        self._change(NameChange(inode, (folder, name), None), path, None)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        folder, name = self.place(path)
        inode = _names(folder).get(name)
        if inode is None:
            raise error(errno.ENOENT, path)
        if _names(inode):
            raise error(errno.ENOTEMPTY, path)
        self._change(NameChange(inode, (folder, name), None), path, None)

    def rename(self, source: str, target: str) -> None:
        """Move a name, in place of whatever has the target's name."""
        old, new = self.place(source), self.place(target)
        inode = _names(old[0]).get(old[1])
        if inode is None:
            raise error(errno.ENOENT, source)
        replaced = _names(new[0]).get(new[1])
        if replaced is inode:
            return
        if replaced is not None and replaced.names:
            raise error(errno.ENOTEMPTY, target)
        if replaced is not None and replaced.is_folder != inode.is_folder:
            raise error(errno.EISDIR if replaced.is_folder else errno.ENOTDIR, target)
        if replaced is not None:  # the same change takes its name away, so that no power cut parts the two
            replaced.path, replaced.links = None, 0
            self.on_names(target, None)
        self._change(NameChange(inode, old, new), source, target)
        self._moves[target] = source

    def was_moved(self, source: str, target: str) -> bool:
        """Whether the file at `target` came from `source`, as the server remembers for a while."""
        return self._moves.get(target) == source

    def _change(self, change: NameChange, source: str | None, target: str | None) -> None:
        if change.inode.names is not None:
            self._folders.clear()
        _apply(change, _names)
        change.inode.path = target
        change.inode.links += (change.target is not None) - (change.source is not None)
        for place in (change.source, change.target):
            if place:
                place[0].mtime_ns = self.time()
        if self.names_are_safe:
            _apply(change, self._safe_of)
        elif self.may_lose_power:
            self._unsafe.append(change)
        self.on_names(source, target)

    def write(self, inode: Inode, data: bytes, at: int) -> int:
        """Write over the bytes from `at`; a full disk takes a part, or raises ENOSPC."""
        grows = max(0, at + len(data) - len(inode.data))
        if grows > self.free:
            data = data[: len(data) - (grows - self.free)]
            if not data:
                raise error(errno.ENOSPC)
        self.free -= min(grows, self.free)
        self._set(inode, inode.data[:at].ljust(at, b"\0") + data + inode.data[at + len(data) :])
        return len(data)

    def truncate(self, inode: Inode, length: int) -> None:
        """Cut a file, or lengthen it with NUL."""
        self._set(inode, inode.data[:length].ljust(length, b"\0"))

    def _set(self, inode: Inode, data: bytes) -> None:
        inode.data = data
        if self.may_lose_power:
            inode.writes.append(data)
        inode.mtime_ns = self.time()

    def _need(self, size: int) -> None:
        if self.free < size:
            raise error(errno.ENOSPC)

    def sync(self, inode: Inode) -> None:
        """Make a file's content, or the names in a directory, survive a power cut."""
        if inode.names is None:
            inode.safe, inode.writes = inode.data, []
            return
        if self.has_journal:
            self._make_safe(set(range(len(self._unsafe))))
            return
        wanted = {n for n, change in enumerate(self._unsafe) if inode in _folders(change)}
        self._make_safe(wanted)

    def sync_names_of(self, inode: Inode) -> None:
        """Make the names of one file survive a power cut (an fsync of the file does on SMB)."""
        changes = {n for n, change in enumerate(self._unsafe) if self.has_journal or change.inode is inode}
        self._make_safe(changes)

    def _make_safe(self, wanted: set[int]) -> None:
        """Make some name changes safe, with all that they build upon."""
        for n in sorted(wanted, reverse=True):
            wanted |= self._needed_by(n)
        for n in sorted(wanted):
            _apply(self._unsafe[n], self._safe_of)
        self._unsafe = [change for n, change in enumerate(self._unsafe) if n not in wanted]

    def _safe_of(self, folder: Inode) -> dict[str, Inode]:
        return self._safe_names[folder]

    def _needed_by(self, n: int) -> set[int]:
        """The earlier changes that gave a file the name which this one takes, and made way for it."""
        needed: set[int] = set()
        change = self._unsafe[n]
        place = change.source
        for earlier in range(n - 1, -1, -1):
            other = self._unsafe[earlier]
            if place is not None and other.inode is change.inode and other.target == place:
                needed.add(earlier)
                place = other.source
            elif change.target is not None and other.source == change.target:
                needed.add(earlier)
        return needed

    def cut_power(self, luck: random.Random) -> None:
        """Lose what a power cut may lose: each unsynced name change, and each file after its last sync.

        A disk with a journal loses the last of the name changes, not one without those after it, and a
        sync makes all before it safe.
        """
        if self.has_journal:
            self._make_safe(set(range(luck.randint(0, len(self._unsafe)))))
        else:
            self._make_safe({n for n in range(len(self._unsafe)) if luck.random() < 0.5})
        self._unsafe = []
        self._folders.clear()
        self.root.names = {}
        for folder, names in self._safe_names.items():
            folder.names = dict(names)
        for path, inode in self._all():
            if inode.names is None:
                inode.path, inode.links = path, 1
                self.lose_unsynced(inode, luck)

    def lose_unsynced(self, inode: Inode, luck: random.Random) -> None:
        """Lose what a power cut may lose of the content of a file."""
        inode.data = luck.choice(list(_remains(inode, luck)))
        inode.safe, inode.writes = inode.data, []

    def make_all_safe(self) -> None:
        """What a disk does that is left alone for long enough."""
        self._make_safe(set(range(len(self._unsafe))))
        for _, inode in self._all():
            if inode.names is None:
                inode.safe, inode.writes = inode.data, []

    def _all(self) -> Iterator[tuple[str, Inode]]:
        left = [("", self.root)]
        while left:
            path, inode = left.pop()
            yield path, inode
            if inode.names is not None:
                left.extend((f"{path}/{name}", one) for name, one in inode.names.items())

    def tree(self, path: str) -> dict[str, bytes]:
        """The files in a directory, by name."""
        return {name: one.data for name, one in _names(self.folder(path)).items() if not one.is_folder}


def _names(folder: Inode) -> dict[str, Inode]:
    if folder.names is None:
        raise error(errno.ENOTDIR)
    return folder.names


def _folders(change: NameChange) -> list[Inode]:
    return [place[0] for place in (change.source, change.target) if place]


def _apply(change: NameChange, names_of: Callable[[Inode], dict[str, Inode]]) -> None:
    if change.source and names_of(change.source[0]).get(change.source[1]) is change.inode:
        del names_of(change.source[0])[change.source[1]]
    if change.target:
        names_of(change.target[0])[change.target[1]] = change.inode


def _remains(inode: Inode, luck: random.Random) -> Iterator[bytes]:
    """What a file may hold after a power cut: what was synced, or any beginning of what came after."""
    yield inode.safe
    before = inode.safe
    for after in inode.writes:
        if len(after) > len(before):
            yield after[: luck.randrange(len(before), len(after))]
            yield before.ljust(len(after), b"\0")
        yield after
        before = after
