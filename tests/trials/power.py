"""What a power cut may leave of a directory: every legal state, from the recorded operations.

Promised is what the systems promise, and no more: data that was synced, and names whose directory
was synced after they were made. Everything else is there or not, in any combination; a rename is
done or undone as a whole, and what was written is there up to any byte, or as zeros.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path


class Op(NamedTuple):
    """One recorded operation. `kind` says which of the others count."""

    kind: str  # link, unlink, move, write, cut, sync, sync_folder, tell
    path: str = ""
    target: str = ""
    inode: int = 0
    at: int = 0
    data: bytes = b""


@dataclass
class Recorder:
    """The system calls of the queue below one directory, written down as they are done."""

    root: str
    ops: list[Op] = field(default_factory=list)
    _open: dict[int, tuple[str, int]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def tell(self, job_id: str) -> None:
        """From here on somebody knows of this job."""
        self.ops.append(Op("tell", job_id))

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        text = os.fspath(path)
        there = os.path.lexists(text)
        fd = os.open(text, flags, mode)
        inode = os.fstat(fd).st_ino
        self._open[fd] = (text, inode)
        if not there:
            self.ops.append(Op("link", text, inode=inode))
        return fd

    def write(self, fd: int, data: bytes) -> int:
        appends = _flags(fd) & os.O_APPEND
        at = os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
        count = os.write(fd, data)
        self.ops.append(Op("write", inode=self._open[fd][1], at=at, data=bytes(data[:count])))
        return count

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)
        self.ops.append(Op("cut", inode=self._open[fd][1], at=length))

    def fsync(self, fd: int) -> None:
        os.fsync(fd)
        path, inode = self._open[fd]
        folder = os.path.isdir(path)
        self.ops.append(Op("sync_folder", path) if folder else Op("sync", inode=inode))

    def rename(self, source: Any, target: Any) -> None:
        os.rename(source, target)
        self.ops.append(Op("move", os.fspath(source), os.fspath(target), os.lstat(target).st_ino))

    replace = rename

    def unlink(self, path: Any) -> None:
        inode = os.lstat(path).st_ino
        os.unlink(path)
        self.ops.append(Op("unlink", os.fspath(path), inode=inode))


def _flags(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL)


class Disk(NamedTuple):
    """A directory tree: the inode of each path, and what each inode holds."""

    names: dict[str, int]
    content: dict[int, bytes]


def taken_of(root: Path) -> Disk:
    """A tree as it is, all of it safe: what the action began with."""
    names, content = {}, {}
    for folder, _, texts in os.walk(root):
        for text in texts:
            path = os.path.join(folder, text)
            if not path.endswith(".lock"):
                names[path] = inode = os.lstat(path).st_ino
                with open(path, "rb") as file:
                    content[inode] = file.read()
    return Disk(names, content)


Tree = dict[str, bytes]


@dataclass(frozen=True)
class Cut:
    """The power goes off after the first `ops` of what was recorded.

    With `by_file` syncing a directory does nothing, as on SMB, and syncing a file makes its name safe.
    """

    before: Disk
    ops: tuple[Op, ...]
    by_file: bool = False

    def told(self) -> set[str]:
        """The jobs that somebody knew of by then."""
        return {op.path for op in self.ops if op.kind == "tell"}

    def trees(self, limit: int, luck: random.Random) -> Iterator[Tree]:
        """What may be there: each legal state where they are few, else some of them.

        Those come first in which the names stand alone that a single lost operation leaves.
        """
        loose = [n for n, op in enumerate(self.ops) if self._is_name(op) and not self._is_safe(n)]
        if len(loose) <= 6:
            kept_sets: Iterator[tuple[int, ...]] = itertools.chain.from_iterable(
                itertools.combinations(loose, size) for size in range(len(loose), -1, -1)
            )
        else:
            few = (itertools.combinations(loose, size) for size in (len(loose), len(loose) - 1, 1, 0))
            some = (tuple(n for n in loose if luck.random() < 0.5) for _ in range(limit))
            kept_sets = itertools.chain(*few, some)
        for kept in kept_sets:
            names = self._names(set(kept))
            variants = [self._contents(inode, luck) for inode in names.values()]
            count = 1
            for variant in variants:
                count *= len(variant)
            if count <= limit:
                mixtures: Iterator[tuple[bytes, ...]] = itertools.product(*variants)
            else:
                mixtures = (tuple(luck.choice(variant) for variant in variants) for _ in range(limit))
            for mixture in mixtures:
                yield dict(zip(names, mixture, strict=True))

    @staticmethod
    def _is_name(op: Op) -> bool:
        return op.kind in {"link", "unlink", "move"}

    def _is_safe(self, n: int) -> bool:
        op = self.ops[n]
        if self.by_file:
            return any(later.kind == "sync" and later.inode == op.inode for later in self.ops[n + 1 :])
        folders = {os.path.dirname(path) for path in (op.path, op.target) if path}
        return any(later.kind == "sync_folder" and later.path in folders for later in self.ops[n + 1 :])

    def _names(self, kept: set[int]) -> dict[str, int]:
        """The names with these loose operations done, and those that they and the safe ones build upon."""
        wanted = kept | {n for n, op in enumerate(self.ops) if self._is_name(op) and self._is_safe(n)}
        for n in sorted(wanted, reverse=True):
            wanted |= self._needed_by(n)
        names = dict(self.before.names)
        for n in sorted(wanted):
            op = self.ops[n]
            if op.kind == "link":
                names[op.path] = op.inode
            elif names.get(op.path) == op.inode:
                del names[op.path]
                if op.kind == "move":
                    names[op.target] = op.inode
        return names

    def _needed_by(self, n: int) -> set[int]:
        """The operations that gave the file the name from which this one takes it, and so on back."""
        needed: set[int] = set()
        path, inode = self.ops[n].path, self.ops[n].inode
        if self.ops[n].kind == "link":
            return needed
        for earlier in range(n - 1, -1, -1):
            op = self.ops[earlier]
            if op.inode == inode and self._is_name(op) and (op.target or op.path) == path:
                needed.add(earlier)
                path = op.path
        return needed

    def _contents(self, inode: int, luck: random.Random) -> list[bytes]:
        """What a file may hold: what was synced, and of what came after that any beginning."""
        own = [op for op in self.ops if op.inode == inode and op.kind in {"write", "cut", "sync"}]
        synced = max((n + 1 for n, op in enumerate(own) if op.kind == "sync"), default=0)
        content = self.before.content.get(inode, b"")
        for op in own[:synced]:
            content = _done(content, op)
        found = [content]
        for op in own[synced:]:
            if op.kind == "write" and op.data:
                place = luck.randrange(len(op.data))
                found.insert(0, _done(content, op._replace(data=op.data[: len(op.data) // 2])))
                found.append(_done(content, op._replace(data=op.data[:place])))
                found.append(_done(content, op._replace(data=op.data[:-1])))
                found.append(_done(content, op._replace(data=bytes(len(op.data)))))
            content = _done(content, op)
            found.append(content)
        return list(dict.fromkeys(found))


def _done(content: bytes, op: Op) -> bytes:
    if op.kind == "cut":
        return content[: op.at].ljust(op.at, b"\0")
    if op.kind == "sync":
        return content
    return content[: op.at].ljust(op.at, b"\0") + op.data + content[op.at + len(op.data) :]
