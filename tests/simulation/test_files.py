"""The simulated file systems behave as SPOOL.md has measured the real ones, each switch for itself."""

from __future__ import annotations

import errno
import random

import pytest

from tests.simulation.files import Disk
from tests.simulation.kernel import Mount
from tests.simulation.shares import LOCAL, NFS, NFS3, SMB, Share


class Time:
    now = 1000.0


def disk(time: Time, share: Share = LOCAL) -> Disk:
    made = Disk(lambda: int(time.now * 1e9), max(1, int(share.tick * 1e9)))
    made.make("/a", 0o700, is_folder=True)
    made.make("/b", 0o700, is_folder=True)
    made.make_all_safe()
    return made


def mount(of: Disk, share: Share, time: Time, seed: int = 1) -> Mount:
    return Mount(of, share, random.Random(seed), lambda: time.now)


def test_a_move_is_undone_whole_or_kept_whole_by_a_power_cut() -> None:
    seen = set()
    for seed in range(50):
        here = disk(Time())
        inode = here.make("/a/x", 0o600)
        here.write(inode, b"text", 0)
        here.sync(inode)
        here.sync(here.folder("/a"))
        here.rename("/a/x", "/b/x")
        here.cut_power(random.Random(seed))
        places = [path for path in ("/a/x", "/b/x") if here.find(path)]
        assert len(places) == 1
        assert inode.data == b"text"
        seen.add(places[0])
    assert seen == {"/a/x", "/b/x"}


def test_what_was_not_synced_may_be_there_under_its_name_and_empty() -> None:
    found = set()
    for seed in range(80):
        here = disk(Time())
        here.write(here.make("/a/x", 0o600), b"text", 0)
        here.cut_power(random.Random(seed))
        kept = here.find("/a/x")
        found.add(None if kept is None else kept.data)
    assert {None, b"", b"text"} <= found


def test_a_journal_keeps_no_name_change_without_those_before_it() -> None:
    for seed in range(50):
        here = disk(Time())
        here.has_journal = True
        for number in range(5):
            here.make(f"/a/{number}", 0o600)
        here.cut_power(random.Random(seed))
        kept = sorted(here.tree("/a"))
        assert kept == [str(number) for number in range(len(kept))]


def test_a_directory_that_is_not_empty_is_not_replaced() -> None:
    here = disk(Time())
    here.make("/b/x", 0o600)
    with pytest.raises(OSError, match="not empty") as caught:
        here.rename("/a", "/b")
    assert caught.value.errno == errno.ENOTEMPTY


def test_nfs_remembers_that_a_name_was_not_there_and_lists_it_all_the_same() -> None:
    time = Time()
    server = disk(time, NFS)
    one = mount(server, NFS, time)
    assert one.look_up("/a/x") is None
    server.make("/a/x", 0o600)
    assert one.look_up("/a/x") is None
    assert one.names("/a") == ["x"]
    time.now += 30
    assert one.look_up("/a/x") is not None


def test_nfs3_shows_an_old_listing_until_the_directory_changes_or_its_pages_are_dropped() -> None:
    time = Time()
    server = disk(time, NFS3)
    one = mount(server, NFS3, time)
    server.make("/a/x", 0o600)
    assert one.names("/a") == ["x"]
    server.make("/a/y", 0o600)  # in the same tick
    time.now += 60
    assert one.names("/a") == ["x"]
    one.drop_pages(server.folder("/a"))
    assert sorted(one.names("/a")) == ["x", "y"]


def test_smb_reports_two_winners_of_one_target_and_one_where_each_has_a_target_of_its_own() -> None:
    time = Time()
    share = SMB
    server = disk(time, share)
    server.make("/a/x", 0o600)
    one, two = mount(server, share, time, 3), mount(server, share, time, 4)
    one.rename("/a/x", "/b/x")
    two.rename("/a/x", "/b/x")
    server.make("/a/y", 0o600)
    one.rename("/a/y", "/b/y@one")
    with pytest.raises(FileNotFoundError):
        two.rename("/a/y", "/b/y@two")


def test_a_full_disk_takes_a_part_and_then_nothing() -> None:
    here = disk(Time())
    inode = here.make("/a/x", 0o600)
    here.free = 3
    assert here.write(inode, b"text", 0) == 3
    with pytest.raises(OSError, match="No space"):
        here.write(inode, b"t", 3)
