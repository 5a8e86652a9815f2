"""Who is taken for alive: by the boot, by the name, and by the beats that were looked at."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl.spool import descriptions, liveness, presence, requests
from queuectl.spool.onlooker import Onlooker
from queuectl.spool.wake import Bell, Wake
from queuectl.system import files, locks
from queuectl.times import utc_now
from queuectl.worker.keeper import LOOK, Keeper
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl import Spool
    from tests.conftest import StoppedClock

LEASE = 3600


@pytest.mark.parametrize(
    ("host", "before_the_boot", "alive"),
    [
        ("here", True, False),  # it can only be this machine, before it was started anew
        ("here", False, True),  # two hosts with one name: somebody beats while this one runs
        ("elsewhere", True, True),  # a host that works on the directory by the network
        ("elsewhere", False, True),
    ],
)
def test_an_owner_of_another_boot_is_dead_at_once_only_where_it_was_this_machine(
    spool: Spool, host: str, before_the_boot: bool, alive: bool
) -> None:
    me = presence.join(spool.root, "test", utc_now())
    workers = spool.path / "workers"
    text = (workers / f"{me.name}.yaml").read_text()
    boot = descriptions.place_of(spool.root).split("/")[0]
    assert boot in text
    text = text.replace(boot, "0" * len(boot)).replace(me.name, "other-1-abcd")
    if host == "elsewhere":
        text = text.replace(f"host: {os.uname().nodename}", "host: elsewhere")
    other = workers / "other-1-abcd.yaml"
    other.write_text(text)
    if before_the_boot:
        then = psutil.boot_time() - 60
        os.utime(other, (then, then))
    assert Onlooker(spool.root).is_alive("other-1-abcd", LEASE) is alive
    me.leave()


def test_time_in_which_nobody_looked_does_not_count(spool: Spool, clock: StoppedClock) -> None:
    me = presence.join(spool.root, "test", utc_now())
    text = (spool.path / f"workers/{me.name}.yaml").read_text()
    elsewhere = text.replace(descriptions.place_of(spool.root), "another").replace(me.name, "other-1-abcd")
    (spool.path / "workers/other-1-abcd.yaml").write_text(elsewhere)
    onlooker, lease = Onlooker(spool.root), 100
    assert onlooker.is_alive("other-1-abcd", lease)
    clock.passed += 10 * lease  # the share was away from all, say
    seen_again = clock.passed
    while onlooker.is_alive("other-1-abcd", lease):
        clock.passed += liveness.looks_every(lease)
    assert clock.passed - seen_again >= lease
    me.leave()


@pytest.fixture
def keeper(spool: Spool) -> Iterator[Keeper]:
    control = Wake()
    with spool.member() as me, contextlib.closing(control):
        yield Keeper(me, control, Bell(spool.root, control))


def test_a_worker_watches_the_beats_of_others_also_on_a_local_disk(spool: Spool, clock: StoppedClock) -> None:
    """Else nobody watches them while it is busy, and each look of its own would begin to count anew."""
    name, lease = "elsewhere-1-abcd", 1
    with spool.root.config.open("a") as config:
        config.write(f"lock_lease_seconds: {lease}\n")
    wake, job_id = Wake(), spool.file("true")
    with spool.member() as me, contextlib.closing(wake):
        text = (spool.path / f"workers/{me.name}.yaml").read_text()
        text = text.replace(descriptions.place_of(spool.root), "another/place").replace(me.name, name)
        (spool.path / f"workers/{name}.yaml").write_text(text)
        clock.passed += 1
        me.look(utc_now())
        claim = me.claim(utc_now())
        assert claim
        os.rename(claim.path, claim.path.replace(me.name, name))
        Keeper(me, wake, Bell(spool.root, wake)).look()
        clock.passed += lease
        told = me.recover(lambda *_: None, utc_now())
    assert f"Job {job_id}: its worker {name} died; it was not started, and waits again." in told


def test_a_request_that_leaves_the_folder_the_time_of_a_change_before_it_is_heard(
    spool: Spool, clock: StoppedClock, keeper: Keeper
) -> None:
    """A file system whose clock ticks slowly gives both the same time."""
    folder = spool.path / "workers"
    keeper.look()
    before = folder.stat()
    requests.to_stop(spool.root, descriptions.described(spool.root), None)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.sleep(LOOK)  # as a keeper does
    keeper.look()
    assert keeper.requests.stop


def test_a_folder_that_stays_as_it_was_is_not_listed_for_ever(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[str] = []

    class Listing:
        def listdir(self, folder: str) -> list[str]:
            listings.append(folder)
            return os.listdir(folder)

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    monkeypatch.setattr(files, "kernel", Listing())

    def hears_no_more() -> bool:
        before = len(listings)
        keeper.hear(at_once=True)
        return len(listings) == before

    wait_until(hears_no_more, "the folder has proven to be as it was")
    assert len(listings) > 1


class FailsOnce:
    """System calls, of which the second opening of one file meets an error of the disk."""

    def __init__(self, path: str) -> None:
        self._path, self._left = path, 2

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, *rest: int) -> int:
        if str(path) == self._path:
            self._left -= 1
            if self._left == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return os.open(path, *rest)


def test_a_look_that_fails_keeps_no_lock_of_a_dead_worker(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = presence.join(spool.root, descriptions.BY_HAND, utc_now())
    path, lock = descriptions.path_of(spool.root, me.name), presence.lock_file(spool.root, me.name)
    data = files.read(path)
    me.leave()
    files.create(path, data)
    files.create(lock)
    monkeypatch.setattr(files, "kernel", FailsOnce(str(path)))
    with pytest.raises(
        OSError, match="Input/output"
    ) as failed:  # a lock that nothing holds on to is released
        Onlooker(spool.root).is_alive(me.name, LEASE)
    taken = locks.take(str(lock), files.PRIVATE)
    assert taken is not None
    taken.release()
    assert failed.value.errno == errno.EIO
