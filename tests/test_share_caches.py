"""Reading a share's clock, and listing its directories, past what its client has in a cache."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.job.model import State
from queuectl.system import files
from queuectl.system.medium import GRAIN, Medium, listed
from queuectl.times import utc_now

if TYPE_CHECKING:
    from queuectl import Spool


class Kernel:
    """System calls as they are; each test changes some."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class Late(Kernel):
    """An SMB client: for a file that it wrote to in place it shows the time of the write before."""

    def __init__(self) -> None:
        self._written: dict[int, str] = {}

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        fd = os.open(path, flags, mode)
        if flags & os.O_WRONLY and not flags & os.O_CREAT:
            self._written[fd] = path
        return fd

    def close(self, fd: int) -> None:
        os.close(fd)
        if path := self._written.pop(fd, None):
            before = time.time() - 11
            os.utime(path, (before, before))


def test_the_clock_of_a_share_is_not_read_off_a_file_that_was_written_in_place(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Medium, "is_shared", True)
    monkeypatch.setattr(files, "kernel", Late())
    with spool.member() as me:
        me.beat(utc_now())
        offset = me.presence.clock_offset
        assert offset is not None
        assert abs(offset) < 2
        assert not me.presence.is_clock_wrong()
        assert [name for name in os.listdir(spool.root.workers) if name.startswith(".")] == []


class Full(Kernel):
    """A disk that takes no new file."""

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return os.open(path, flags, mode)


def test_a_sign_of_life_gets_through_on_a_share_that_takes_no_new_file(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Medium, "is_shared", True)
    with spool.member() as me:
        path = f"{spool.root.workers}/{me.name}.yaml"
        before = files.read(path)
        with monkeypatch.context() as patch:
            patch.setattr(files, "kernel", Full())
            me.beat(utc_now())
        assert files.read(path) != before


class Stale(Kernel):
    """An NFS client that lists a directory from its cache unless its time is new or it is told to forget."""

    def __init__(self) -> None:
        self._cached: dict[int, tuple[int, list[str]]] = {}
        self.forgot = 0

    def posix_fadvise(self, fd: int, *_: int) -> None:
        self.forgot += 1
        self._cached.pop(os.fstat(fd).st_ino, None)

    def listdir(self, folder: int | str) -> list[str]:
        facts = os.stat(folder)
        known = self._cached.get(facts.st_ino)
        if known is None or known[0] != facts.st_mtime_ns:
            known = self._cached[facts.st_ino] = (facts.st_mtime_ns, os.listdir(folder))
        return known[1]


@pytest.mark.parametrize(("kind", "is_seen"), [("nfs", True), ("nfs4", True), ("cifs", False)])
def test_a_job_that_was_filed_in_the_tick_of_the_last_listing_is_seen_on_nfs(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, kind: str, is_seen: bool
) -> None:
    kernel = Stale()
    monkeypatch.setattr(files, "kernel", kernel)
    monkeypatch.setattr(Medium, "filesystem", kind)
    folder = spool.root.folder(State.PENDING)
    assert spool.root.texts_in(folder) == []
    tick = os.stat(folder)
    job_id = spool.file("true")
    os.utime(folder, ns=(tick.st_atime_ns, tick.st_mtime_ns))
    assert bool([text for text in spool.root.texts_in(folder) if job_id in text]) is is_seen


def test_a_directory_that_has_stood_still_is_listed_from_the_cache(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Stale()
    monkeypatch.setattr(files, "kernel", kernel)
    monkeypatch.setattr(Medium, "filesystem", "nfs")
    monkeypatch.setattr("queuectl.system.medium.GRAIN", 0.0)
    folder = spool.root.folder(State.PENDING)
    for _ in range(5):
        spool.root.texts_in(folder)
    assert kernel.forgot == 2


def test_a_listing_proves_a_directory_once_its_time_is_older_than_any_grain() -> None:
    one, other = files.Mark(1, 2, 3), files.Mark(2, 2, 3)
    fresh = listed(None, one, 10.0)
    assert not fresh.is_proven
    assert not listed(fresh, one, 10.0 + GRAIN - 0.1).is_proven
    proven = listed(fresh, one, 10.0 + GRAIN)
    assert proven.is_proven
    assert listed(proven, one, 99.0).is_proven
    assert not listed(proven, other, 99.0).is_proven
