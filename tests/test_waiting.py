"""Waiting for jobs: who is asked for by name, when directories are listed, and what becomes of each."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State
from queuectl.errors import NoSuchJob
from queuectl.spool import jobs
from queuectl.system.medium import Medium
from queuectl.view import endings
from queuectl.view.endings import FEW, FIRST, LONGEST, USUAL, Ends, pause_after

if TYPE_CHECKING:
    from queuectl.spool.claims import Claim
    from queuectl.worker.member import Member
    from tests.conftest import Counting

MANY = FEW + 20


def filed(spool: Spool, count: int) -> Ends:
    """So many jobs that wait, and who waits for them."""
    made = ({"id": f"job-{number}", "command": "true"} for number in range(count))
    assert all(one.error is None for one in spool.file_many(made))
    return Ends(spool.root, jobs.live(spool.root))


def claim(me: Member, spool: Spool) -> Claim:
    me.look(spool.clock(), again=True)
    taken = me.claim(spool.clock())
    assert taken is not None
    return taken


def finish(me: Member, spool: Spool, taken: Claim) -> State:
    started = me.note(taken, me.started(1, None, spool.clock()))
    return me.complete(started, {"exit_code": 0}, spool.clock())


def make_old(spool: Spool) -> None:
    """Let the directories have stood still for long enough to be believed."""
    for state in State:
        os.utime(spool.root.folder(state), (time.time() - 60,) * 2)


def test_a_few_jobs_are_asked_for_by_their_names_and_no_directory_is_listed(
    spool: Spool, counting: Counting
) -> None:
    waiting = filed(spool, 3)
    counting.listed.clear()
    for _ in range(10):
        waiting.look()
    assert dict(counting.listed) == {}
    with spool.member() as me:
        taken = claim(me, spool)
        counting.listed.clear()
        for _ in range(10):
            waiting.look()
        assert dict(counting.listed) == {"processing": 1}  # who has claimed it, no name tells
        finish(me, spool, taken)
    counting.listed.clear()
    for _ in range(10):
        waiting.look()
    assert counting.listed.total() <= 1
    assert (list(waiting.ended), len(waiting.left), waiting.over) == ([taken.id], 2, 1)


def test_many_jobs_are_counted_by_one_listing_a_look_and_by_none_where_nothing_has_changed(
    spool: Spool, counting: Counting
) -> None:
    waiting = filed(spool, MANY)
    make_old(spool)
    for expected in (1, 0, 0):
        counting.listed.clear()
        waiting.look()
        assert (counting.listed["pending"], counting.listed["failed"]) == (expected, expected)
        assert counting.listed["done"] == counting.listed["dead"] == 0
    with spool.member() as me:
        finish(me, spool, claim(me, spool))
    waiting.look()
    assert (waiting.over, len(waiting.gone)) == (1, 0)


@pytest.mark.parametrize("count", [3, MANY])
def test_each_job_that_ends_is_counted_and_at_the_end_told_where_it_is(spool: Spool, count: int) -> None:
    waiting = filed(spool, count)
    looks = waiting.looks()
    with spool.member() as me:
        for number in range(count - 1):
            taken = claim(me, spool)
            next(looks)
            assert waiting.over == number
            finish(me, spool, taken)
        next(looks)
        assert waiting.over == count - 1
        taken = me.note(claim(me, spool), me.started(1, None, spool.clock()))
        me.end(taken, {"event": "cancelled", "attempt": 1, "at": "2026-01-01T00:00:00Z"})
    for _ in looks:
        pass
    states = [one.state for one in waiting.ended.values()]
    assert (states.count(State.DONE), states.count(State.DEAD)) == (count - 1, 1)
    assert all(Path(one.path).exists() for one in waiting.ended.values())


@pytest.mark.parametrize("count", [3, MANY])
def test_a_job_that_is_deleted_is_gone_and_the_others_are_waited_for(spool: Spool, count: int) -> None:
    waiting = filed(spool, count)
    Path(spool.find("job-1").path).unlink()
    waiting.look()
    assert len(waiting.left) >= count - 1
    with spool.member() as me:
        for _ in range(count - 1):
            finish(me, spool, claim(me, spool))
    for _ in waiting.looks():
        pass
    assert (waiting.gone, len(waiting.ended)) == (["job-1"], count - 1)


@pytest.mark.parametrize("count", [1, MANY])
def test_when_the_time_is_up_those_that_have_not_ended_are_left(spool: Spool, count: int) -> None:
    waiting = filed(spool, count + 1)
    with spool.member() as me:
        for _ in range(count):
            finish(me, spool, claim(me, spool))
    for _ in waiting.looks(time.monotonic()):
        pass
    assert (len(waiting.left), len(waiting.ended)) == (1, count)


@pytest.mark.parametrize("count", [1, MANY])
def test_a_job_that_is_given_back_or_tried_again_is_followed(spool: Spool, count: int) -> None:
    waiting = filed(spool, count)
    with spool.member() as me:
        me.give_back(claim(me, spool))
        waiting.look()
        taken = claim(me, spool)
        waiting.look()
        started = me.note(taken, me.started(1, None, spool.clock()))
        assert me.fail(started, {"exit_code": 1}, spool.clock(), 0.0) is State.FAILED
        waiting.look()
    assert (len(waiting.left), waiting.over, waiting.gone) == (count, 0, [])


def test_on_a_share_no_name_is_asked_for_that_may_be_answered_from_a_cache(
    spool: Spool, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = filed(spool, 2)
    monkeypatch.setattr(Medium, "is_shared", True)
    counting.calls.clear()
    waiting.look()
    with spool.member() as me:
        taken = claim(me, spool)
        waiting.look()
        finish(me, spool, taken)
    counting.calls.clear()
    waiting.look()
    assert counting.calls["lstat"] == 0
    assert list(waiting.ended) == [taken.id]


def test_a_program_that_waits_for_a_job_that_is_deleted_is_told(spool: Spool) -> None:
    filed(spool, 1)
    path = Path(spool.find("job-0").path)
    waiting = Ends(spool.root, [spool.find("job-0")])
    path.unlink()
    waiting.look()
    assert waiting.gone == ["job-0"]
    with pytest.raises(NoSuchJob):
        spool.wait("job-0")


def test_the_pause_between_looks_grows_and_is_longer_where_a_look_is_dear() -> None:
    pauses = [FIRST]
    for _ in range(30):
        pauses.append(pause_after(pauses[-1], 0.0))
    assert pauses == sorted(pauses)
    assert pauses[-1] == USUAL
    assert pause_after(FIRST, 0.03) == pytest.approx(0.03 / endings.SHARE)
    assert pause_after(USUAL, 10.0) == LONGEST
