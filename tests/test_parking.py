"""Parked jobs: held and released by command and by `mv`, passed over by workers, found by everything else."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State
from queuectl.errors import JobMoved, WrongState
from queuectl.spool import acts, changes, descriptions, parking
from queuectl.view.census import Census, counts, listed
from tests.conftest import make_old

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell import Shell


def drained(spool: Spool) -> list[str]:
    """The ids that a member claims until nothing is left to claim."""
    found = []
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        while (claim := me.claim(spool.clock())) is not None:
            found.append(claim.id)
            me.complete(me.note(claim, me.started(1, None, spool.clock())), {"exit_code": 0}, spool.clock())
    return found


def test_held_jobs_stay_until_they_are_released_and_keep_their_turn(shell: Shell) -> None:
    for name in ("first", "second", "third"):
        shell("enqueue", "--id", name, f"echo {name} >> order")
    assert shell("hold", "first", "third").lines == ["first is held", "third is held"]
    assert shell("list", "--state", "held", "--json").json_lines[0]["id"] == "first"
    shell("worker", "start", "--drain")
    counted = shell("status", "--json").json["counts"]
    assert (counted["held"], counted["completed"], counted["pending"]) == (2, 1, 0)
    assert "a person holds it (`queuectl release first` lets it run)" in shell("status", "first").out
    assert shell("release", "first", "third").lines == ["first is pending", "third is pending"]
    shell("worker", "start", "--drain")
    assert (shell.home / "order").read_text().split() == ["second", "first", "third"]
    assert shell("check").status == 0


def test_a_held_job_that_is_due_later_says_when(shell: Shell) -> None:
    shell("enqueue", "--hold", "--id", "later", "--delay", "2h", "true")
    assert re.search(r"^later +held +0 +0 +in (2 h|1 h 59 min)", shell("list").out, re.MULTILINE)


def test_what_is_not_held_is_not_released_and_what_does_not_wait_is_not_held(shell: Shell) -> None:
    shell("enqueue", "--id", "waits", "true")
    shell("enqueue", "--id", "gone", "true")
    shell("cancel", "gone")
    assert "Job waits is pending, not held" in shell.refused("release", "waits", status=1)
    assert "Job gone is dead, not waiting" in shell.refused("hold", "gone", status=1)
    assert "nope" in shell.refused("hold", "nope", status=3)
    assert shell("hold", "waits").lines == shell("hold", "waits").lines == ["waits is held"]


def test_mv_holds_and_releases(spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    path = spool.find("one").path
    os.rename(path, f"{path}.held")
    assert drained(spool) == []
    assert spool.find("one").label(spool.clock()) == "held"
    os.rename(f"{path}.held", path)
    assert drained(spool) == ["one"]


def test_a_job_that_is_filed_held_is_never_to_be_claimed_before_its_release(
    shell: Shell, spool: Spool
) -> None:
    assert shell("enqueue", "--hold", "--id", "one", "echo one >> order").lines == ["one"]
    shell("enqueue", "--hold", "--id", "two", "--after", "one", "echo two >> order")
    assert [one["id"] for one in shell("list", "--state", "held", "--json").json_lines] == ["one", "two"]
    shell("worker", "start", "--drain")
    assert not (shell.home / "order").exists()
    assert shell("release", "one").lines == ["one is pending"]
    shell("release", "two")
    shell("worker", "start", "--drain")
    assert (shell.home / "order").read_text().split() == ["one", "two"]
    filed = list(spool.file_many(["true", {"command": "true", "after": "nope"}], held=True))
    assert spool.find(filed[0].id).name.parked == "held"
    assert "no job or batch 'nope'" in str(filed[1].error)
    assert drained(spool) == []


def test_a_file_that_is_dropped_as_held_is_taken_in_and_then_held(spool: Spool) -> None:
    pending = spool.root.folder(State.PENDING)
    for name in ("ship it.yaml.held", "own.json.held"):
        with open(f"{pending}/{name}", "w", encoding="utf-8") as file:
            file.write(
                '{"command": "true", "priority": 7, "id": "mine"}' if "own" in name else "command: true\n"
            )
    with open(f"{pending}/bad.yaml.held", "w", encoding="utf-8") as file:
        file.write("command: [\n")
    make_old(spool)
    assert drained(spool) == []
    held = {found.id: found for found in spool.list("held")}
    assert held.keys() == {"ship-it", "mine"}
    assert held["mine"].name.rank == 3
    assert [found.id for found in spool.list("dead")] == ["bad"]
    assert spool.find("bad").name.parked is None
    parking.release(spool.root, held["mine"])
    assert drained(spool) == ["mine"]


def test_a_hold_that_comes_after_a_claim_changes_nothing(spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    found = spool.find("one")
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        with pytest.raises(JobMoved):
            parking.hold(spool.root, found)
        assert spool.find("one").state is State.PROCESSING
        with pytest.raises(WrongState):
            parking.hold(spool.root, spool.find("one"))
        me.give_back(claim)


def test_no_name_comes_back_to_a_directory_that_it_has_left(spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    seen = {spool.find("one").path}
    for _ in range(3):
        parking.hold(spool.root, spool.find("one"))
        parking.release(spool.root, spool.find("one"))
        assert spool.find("one").path not in seen
        seen.add(spool.find("one").path)


def test_a_held_job_whose_priority_changes_stays_held_and_one_that_is_cancelled_is_not_parked(
    spool: Spool,
) -> None:
    spool.file({"id": "one", "command": "true"})
    held = parking.hold(spool.root, spool.find("one"))
    with acts.hand(spool.root, spool.clock()) as me:
        edit = partial(changes.edited, changes={"priority": 7})
        acts.change(me, held, acts.Change(edit, spool.settings(), lambda _: {}), spool.clock())
        found = spool.find("one")
        assert (found.name.rank, found.name.parked) == (3, "held")
        acts.cancel_waiting(me, found, spool.clock())
    assert spool.find("one").state is State.DEAD
    assert spool.find("one").name.parked is None


def test_a_claim_of_a_held_job_whose_owner_dies_is_held_again(spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    held = parking.hold(spool.root, spool.find("one"))
    dead = held.name.owned("here-1-dead")
    os.rename(held.path, f"{spool.root.folder(State.PROCESSING)}/{dead}")
    with spool.member() as me:
        me.recover(lambda *_: None, spool.clock())
        assert spool.find("one").name.parked == "held"
        me.look(spool.clock(), again=True)
        assert me.claim(spool.clock()) is None


def test_a_cancellation_of_a_held_job_that_a_crash_cuts_off_ends_as_one(spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    held = parking.hold(spool.root, spool.find("one"))
    claimed = f"{spool.root.folder(State.PROCESSING)}/{held.name.owned('here-1-dead')}"
    os.rename(held.path, claimed)
    with open(claimed, "a", encoding="utf-8") as file:
        file.write('- {"event": "cancelled", "at": "2026-01-01T00:00:00Z", "worker": "here-1-dead"}\n')
    with spool.member() as me:
        me.recover(lambda *_: None, spool.clock())
    found = spool.find("one")
    assert (found.state, found.name.parked) == (State.DEAD, None)


def test_both_ways_to_count_agree_on_parked_jobs(spool: Spool) -> None:
    for name in "abcde":
        spool.file({"id": name, "command": "true"})
    parking.hold(spool.root, spool.find("a"))
    parking.park(spool.root, spool.find("b"), "after+a")
    parking.park(spool.root, spool.find("c"), "edit+ann")
    census = Census(spool.root)
    census.look()
    now = spool.clock()
    counted = census.counts(now)
    assert counted == counts(listed(spool.root), now)
    assert (counted.pending, counted.held, counted.blocked) == (2, 2, 1)
    for word, ids in (("held", ["a", "c"]), ("blocked", ["b"]), ("pending", ["d", "e"])):
        total, names = census.in_order(word, now)
        shown = [found.id for found in spool.list(word)]
        assert total == len(list(names)) == len(shown)
        assert shown == ids
    assert [state for state, _ in census.lookup("b")] == [State.PENDING]


def test_a_live_worker_that_does_not_know_parked_jobs_is_to_be_stopped_first(
    shell: Shell, new_spool: Callable[[str], Spool]
) -> None:
    shell("enqueue", "--id", "one", "true")
    spool, other = Spool(shell.root), new_spool("other")
    before = spool.find("one").path
    with spool.member("foreground") as old:
        path = Path(descriptions.path_of(spool.root, old.name))
        path.write_text(path.read_text().replace('version: "2"\n', ""))
        env: dict[str, str | None] = {"EDITOR": "true"}
        for words in (
            ["hold", "one"],
            ["edit", "one"],
            ["move", "one", "--to", str(other.path)],
            ["set", "one", "after=one"],
            ["set", "one", "unique=key"],
            ["enqueue", "--hold", "true"],
            ["enqueue", "--after", "one", "true"],
            ["enqueue", "--unique", "key", "true"],
        ):
            said = shell.refused(*words, env=env, status=1)
            assert f"Worker {old.name} is of an older version" in said
            assert f"queuectl worker stop {old.name}" in said
        assert (spool.find("one").path, len(list(spool.list()))) == (before, 1)
        shell("set", "one", "priority=3")
        shell("enqueue", "true")
    assert shell("hold", "one").lines == ["one is held"]
