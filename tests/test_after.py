"""Jobs after jobs: what a job waits for, when it starts, and when it never can."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl import Spool, State
from queuectl.errors import BadJob
from queuectl.rules import after
from queuectl.rules.after import End, Verdict
from queuectl.spool import acts, parking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.worker.member import Member
    from tests.shell import Shell

quick = settings(max_examples=200, deadline=None, database=None)
few = st.sampled_from("abcdef")


def work(me: Member, spool: Spool, failing: frozenset[str] = frozenset()) -> list[str]:
    """Claim and end jobs until nothing is left to claim; those of these ids fail for good."""
    ran: list[str] = []
    for _ in range(3):  # the last listing may have been made before a job was released
        me.relist(spool.clock())
        me.look(spool.clock())
        while (claim := me.claim(spool.clock())) is not None:
            ran.append(claim.id)
            claim = me.note(claim, me.started(1, None, spool.clock()))
            if claim.id in failing:
                me.fail(claim, {"exit_code": 1}, spool.clock(), 0.0)
            else:
                me.complete(claim, {"exit_code": 0}, spool.clock())
            me.look(spool.clock())
    return ran


def file(spool: Spool, job_id: str, wanted: object = None, **fields: object) -> None:
    given_: Mapping[str, object] = {"id": job_id, "command": "true", "max_retries": "0", **fields}
    (filed,) = spool.file_many(
        [given_ if wanted is None else {**given_, "after": wanted}], after_unfiled=True
    )
    assert filed.error is None, filed.error


# ── the judgement ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wanted", "met"),
    [("ok", {End.OK}), ("failed", {End.FAILED}), ("any", {End.OK, End.FAILED, End.CANCELLED})],
)
def test_each_ending_is_met_broken_or_open(wanted: str, met: set[End]) -> None:
    for end in End:
        verdict = after.judge({"a": wanted}, {"a": end})
        is_open = end in {End.OPEN, End.UNFILED}
        broken = () if is_open or end in met else ("a",)
        assert verdict == Verdict(("a",) if is_open else (), broken)
        assert verdict.is_met == (end in met)


def test_a_batch_has_ended_once_as_many_members_as_it_declares_have() -> None:
    assert after.end_of_batch(3, [End.OK, End.OK]) is End.OPEN
    assert after.end_of_batch(3, [End.OK, End.OK, End.OPEN]) is End.OPEN
    assert after.end_of_batch(3, [End.OK] * 3) is End.OK
    assert after.end_of_batch(3, [End.OK, End.CANCELLED, End.FAILED]) is End.FAILED
    assert after.end_of_batch(3, [End.OK, End.CANCELLED, End.OK]) is End.CANCELLED


@quick
@given(st.dictionaries(few, few))
def test_every_circle_is_found_once_and_nothing_else(behind: dict[str, str]) -> None:
    found = list(after.circles(behind))
    on_a_circle = set()
    for start, first in behind.items():
        one, steps = first, 0
        while one != start and one in behind and steps < len(behind):
            one, steps = behind[one], steps + 1
        if one == start:
            on_a_circle.add(start)
    assert sorted(one for way in found for one in way[:-1]) == sorted(on_a_circle)
    assert all(way[0] == way[-1] and [behind[one] for one in way[:-1]] == way[1:] for way in found)


@quick
@given(st.dictionaries(few, st.lists(few, max_size=3)), few)
def test_a_way_back_to_a_job_is_found_if_there_is_one(waits: dict[str, list[str]], start: str) -> None:
    way = after.cycle(start, lambda job_id: waits.get(job_id, []))
    reached, left = set(), list(waits.get(start, []))
    while left:
        if (one := left.pop()) not in reached:
            reached.add(one)
            left += waits.get(one, [])
    assert (way is not None) == (start in reached)
    if way is not None:
        assert way[0] == way[-1] == start
        assert all(there in waits.get(here, []) for here, there in pairwise(way))


# ── jobs that wait ────────────────────────────────────────────────────────────────────────────


def test_a_job_waits_for_all_that_it_runs_after_and_then_starts(spool: Spool) -> None:
    for job_id, wanted in (("c", ["a", "b"]), ("d", "c"), ("b", None), ("a", None)):
        file(spool, job_id, wanted)
    assert {found.id: found.label(spool.clock()) for found in spool.list()} == {
        "a": "pending",
        "b": "pending",
        "c": "blocked",
        "d": "blocked",
    }
    with spool.member() as me:
        assert work(me, spool) == ["b", "a", "c", "d"]
    ready = next(event for event in spool.find("c").job.history if event["event"] == "ready")  # type: ignore[union-attr]
    assert ready["after"] == {"a": "ok", "b": "ok"}


def test_a_job_that_died_keeps_what_waits_for_it_until_it_is_retried(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "a")
    file(spool, "c", {"a": "failed"})
    file(spool, "d", {"a": "any"})
    with spool.member() as me:
        assert sorted(work(me, spool, frozenset("a"))) == ["a", "c", "d"]
        assert spool.find("b").name.parked == "after+a"
        with acts.hand(spool.root, spool.clock()) as hand:
            acts.retry(hand, spool.find("a"), spool.settings(), spool.clock())
        assert work(me, spool) == ["a", "b"]


def test_a_cancelled_job_satisfies_only_who_wants_any_end(spool: Spool) -> None:
    file(spool, "a")
    for job_id, wanted in (("b", "ok"), ("c", "failed"), ("d", "any")):
        file(spool, job_id, {"a": wanted})
    with acts.hand(spool.root, spool.clock()) as hand:
        acts.cancel_waiting(hand, spool.find("a"), spool.clock())
    with spool.member() as me:
        assert work(me, spool) == ["d"]


def test_a_job_that_was_filed_later_or_deleted(spool: Spool) -> None:
    file(spool, "b", "a")
    with spool.member() as me:
        assert work(me, spool) == []
        file(spool, "a")
        assert work(me, spool) == ["a", "b"]
        file(spool, "gone")
        file(spool, "c", "gone")
        os.remove(spool.find("gone").path)
        assert work(me, spool) == []
    assert after.look(spool.root, ["gone"]).ends == {"gone": End.REMOVED}


def test_a_job_that_is_moved_past_its_parked_name_is_parked_again(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "a")
    found = spool.find("b")
    os.rename(found.path, f"{spool.root.folder(State.PENDING)}/{found.name.unparked()}")
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        assert claim.id == "a"
        assert me.claim(spool.clock()) is None
        assert spool.find("b").name.parked == "after+a"
        me.give_back(claim)


def test_what_was_met_counts_until_the_field_is_edited(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "a", priority="1")
    file(spool, "c")
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        while spool.find("a").state is not State.DONE:
            claim = me.claim(spool.clock())
            assert claim is not None
            if claim.id != "a":
                me.give_back(claim)
                continue
            me.complete(me.note(claim, me.started(1, None, spool.clock())), {"exit_code": 0}, spool.clock())
        me.look(spool.clock())
        found = spool.find("b")
        assert found.label(spool.clock()) == "pending"
        parking.hold(spool.root, spool.find("c"))
        with open(found.path, encoding="utf-8") as file_:
            text = file_.read()
        with open(found.path, "w", encoding="utf-8") as file_:
            file_.write(text.replace("after: a", "after: [a, c]"))
        assert work(me, spool) == []
        assert spool.find("b").name.parked == "after+c"
        parking.release(spool.root, spool.find("c"))
        assert work(me, spool) == ["c", "b"]


def test_a_claim_of_a_dead_worker_that_was_releasing_a_job_is_parked_and_judged_again(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "a")
    found = spool.find("b")
    os.rename(found.path, f"{spool.root.folder(State.PROCESSING)}/{found.name.owned('here-1-dead')}")
    with spool.member() as me:
        assert work(me, spool) == ["a"]
        me.recover(lambda *_: None, spool.clock())
        assert work(me, spool) == ["b"]


def test_dropped_files_that_wait_for_one_another_do_not_wait_for_ever(spool: Spool) -> None:
    file(spool, "a", "b")
    path = f"{spool.root.folder(State.PENDING)}/05-20260101T000000.000000Z-b.yaml.after+a.held"
    with open(path, "w", encoding="utf-8") as drop:
        drop.write("id: b\ncommand: 'true'\nafter: a\n")
    with spool.member() as me:
        assert work(me, spool) == []
    states = {found.id: found.state for found in spool.list()}
    assert sorted(states.values()) == [State.DEAD, State.PENDING]
    (dead,) = (found for found in spool.list() if found.state is State.DEAD)
    with open(f"{dead.path}.reason.txt", encoding="utf-8") as reason:
        assert "It waits for itself: " in reason.read()


# ── refused when filed ────────────────────────────────────────────────────────────────────────


def test_unknown_ids_and_circles_are_refused_and_nothing_is_filed(spool: Spool) -> None:
    with pytest.raises(BadJob, match="no job or batch 'nope'"):
        spool.file({"id": "x", "command": "true", "after": "nope"})
    file(spool, "b", "a")
    file(spool, "c", ["b"])
    (filed,) = spool.file_many([{"id": "a", "command": "true", "after": ["c"]}])
    assert "a -> c -> b -> a" in str(filed.error)
    assert [found.id for found in spool.list()] == ["b", "c"]
    lot: list[Mapping[str, object]] = [
        {"id": "d", "command": "true", "after": "e"},
        {"id": "e", "command": "true", "after": "d"},
        {"id": "f", "command": "true", "after": "g"},
        {"id": "g", "command": "true"},
    ]
    assert [one.error is None for one in spool.file_many(lot)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[a, a]", "each id once"),
        ("{a: nok}", "ok, any or failed"),
        ("12:30", "letters, digits"),
        ("'no id!'", "letters, digits"),
        (f"[{', '.join(f'a{number}' for number in range(1001))}]", "name a batch"),
    ],
)
def test_a_wrong_field_is_refused_with_what_it_takes(shell: Shell, text: str, why: str) -> None:
    (shell.home / "job.yaml").write_text(f"command: 'true'\nafter: {text}\n")
    assert why in shell.refused("enqueue", "--file", "job.yaml", status=2)


# ── the command line ──────────────────────────────────────────────────────────────────────────


def test_a_pipeline_is_run_in_order_by_one_drain(shell: Shell) -> None:
    shell("enqueue", "--id", "build", "echo build >> order")
    shell("enqueue", "--id", "test", "--after", "build", "echo test >> order")
    shell("enqueue", "--id", "lint", "--max-retries", "0", "exit 3")
    shell("enqueue", "--id", "tidy", "--after", "test:any", "--after", "lint:failed", "echo tidy >> order")
    shell("enqueue", "--id", "ship", "--after", "lint", "echo ship >> order")
    assert "waits for build" in shell("status", "test").out
    assert shell("status", "--json").json["counts"]["blocked"] == 3
    shell("worker", "start", "--drain")
    assert (shell.home / "order").read_text().split() == ["build", "test", "tidy"]
    assert "cannot run: lint failed" in shell("status", "ship").out
    assert shell("status", "tidy", "--json").json["after"] == {"test": "any", "lint": "failed"}
    assert shell("check").status == 0
