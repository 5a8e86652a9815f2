"""Jobs after jobs: what a job waits for, when it starts, and when it never can."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl import Spool, State
from queuectl.errors import BadJob, CannotRun
from queuectl.rules import after
from queuectl.rules.after import End, Verdict
from queuectl.spool import acts, parking
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.view import audit

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from queuectl.worker.member import Member
    from tests.conftest import Counting, StoppedClock
    from tests.shell import Shell

quick = settings(max_examples=200, deadline=None, database=None)
few = st.sampled_from("abcdef")


def work(me: Member, spool: Spool, failing: frozenset[str] = frozenset()) -> list[str]:
    """Claim and end jobs until nothing is left to claim; those of these ids fail for good."""
    ran: list[str] = []
    for _ in range(3):  # the last listing may have been made before a job was released
        me.relist(spool.clock(), sweeps=True)
        me.look(spool.clock())
        while me.dependents.is_busy:  # as an idle worker does
            me.judge(spool.clock())
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
    found = list(after.circles(behind, behind.get))
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


def test_a_retry_that_another_worker_runs_revives_what_was_judged_to_be_unable_to_run(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "a")
    with spool.member() as one, spool.member() as two:
        assert work(one, spool, frozenset("a")) == ["a"]
        with acts.hand(spool.root, spool.clock()) as hand:
            acts.retry(hand, spool.find("a"), spool.settings(), spool.clock())
        two.relist(spool.clock())
        claim = two.claim(spool.clock())
        assert claim is not None
        two.complete(two.note(claim, two.started(2, None, spool.clock())), {"exit_code": 0}, spool.clock())
        assert work(one, spool) == ["b"]


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


# ── what goes wrong meanwhile ─────────────────────────────────────────────────────────────────


def test_ids_that_differ_in_case_alone_are_one(spool: Spool) -> None:
    file(spool, "Build")
    file(spool, "ship", "bUILD")
    with pytest.raises(BadJob, match="whatever its case"):
        spool.file({"command": "true", "after": {"build": "ok", "BUILD": "any"}})
    (filed,) = spool.file_many([{"id": "x", "command": "true", "after": ["y", "X"]}], after_unfiled=True)
    assert "x -> x" in str(filed.error)
    with spool.member() as me:
        assert work(me, spool) == ["Build", "ship"]


def test_an_edit_of_a_parked_file_counts_when_it_is_saved(spool: Spool) -> None:
    for job_id in ("a", "c"):
        file(spool, job_id)
    file(spool, "b", ["a", "c"])
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        found = spool.find("b")
        assert found.name.parked == "after+c"
        with open(found.path, encoding="utf-8") as parked:
            text = parked.read()
        with open(found.path, "w", encoding="utf-8") as parked:
            parked.write(text.replace("after: [a, c]", "after: a"))
        parking.hold(spool.root, spool.find("c"))
        me.complete(me.note(claim, me.started(1, None, spool.clock())), {"exit_code": 0}, spool.clock())
        me.look(spool.clock(), heard=[os.path.basename(found.path)])
        assert spool.find("b").name.parked is None


def test_a_name_that_says_another_reason_than_the_content_is_found_out(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "a")
    file(spool, "slow")
    parking.hold(spool.root, spool.find("slow"))
    found = spool.find("b")
    os.rename(found.path, found.path.replace("after+a", "after+slow"))
    with spool.member() as me:
        assert work(me, spool) == ["a", "b"]


def test_a_parked_file_that_is_no_job_any_more_is_put_aside(spool: Spool) -> None:
    file(spool, "a")
    parking.hold(spool.root, spool.find("a"))
    file(spool, "b", "a")
    with open(spool.find("b").path, "w", encoding="utf-8"):
        pass  # an editor met a full disk
    with spool.member() as me:
        assert work(me, spool) == []
    assert spool.find("b").state is State.DEAD


def test_a_file_that_is_being_written_is_not_released(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "a")
    with spool.member() as me:
        with open(spool.find("b").path, "a", encoding="utf-8"):
            assert work(me, spool) == ["a"]
            assert spool.find("b").name.parked == "after+a"
        assert work(me, spool) == ["b"]


@dataclass
class Failing:
    """System calls on a disk that refuses to rename or to write to what has this in its path."""

    part: str
    error: int
    call: str

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name) if name != self.call else self._fail

    def _fail(self, *given: Any) -> Any:
        if any(self.part in str(one) for one in given):
            raise OSError(self.error, os.strerror(self.error))
        return getattr(os, self.call)(*given)


def test_trouble_in_a_release_leaves_the_job_parked_and_it_is_judged_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(spool, "a")
    file(spool, "b", "a")
    with spool.member() as me:
        with monkeypatch.context() as patched:
            patched.setattr(files, "kernel", Failing('"ready"', errno.ENOSPC, "write"))
            with pytest.raises(OSError, match="No space"):
                work(me, spool)
        assert spool.find("b").name.parked == "after+a"
        assert work(me, spool) == ["b"]


def test_a_parked_file_that_cannot_be_moved_holds_nobody_else_up(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for job_id, wanted in (("a", None), ("b", "a"), ("c", "a"), ("d", "c")):
        file(spool, job_id, wanted)
    with spool.member() as me:
        with monkeypatch.context() as patched:
            patched.setattr(files, "kernel", Failing("-b.yaml", errno.EPERM, "rename"))
            assert work(me, spool) == ["a", "c", "d"]
            assert caplog.text.count("job b cannot be released") == 1
        assert spool.find("b").name.parked == "after+a"
    with spool.member() as me:
        assert work(me, spool) == ["b"]


def test_a_claim_of_a_job_that_no_longer_waits_is_recovered_as_a_plain_one(spool: Spool) -> None:
    file(spool, "a", None)
    found = spool.find("a")
    name = found.name._replace(parked="after+b").owned("here-1-dead")
    os.rename(found.path, f"{spool.root.folder(State.PROCESSING)}/{name}")
    with spool.member() as me:
        me.recover(lambda *_: None, spool.clock())
        assert work(me, spool) == ["a"]


def test_two_workers_release_each_job_once(spool: Spool) -> None:
    file(spool, "a")
    names = [f"b{number}" for number in range(20)]
    for job_id in names:
        file(spool, job_id, "a")
    with spool.member() as one, spool.member() as two:
        one.relist(spool.clock())
        two.relist(spool.clock())
        claim = one.claim(spool.clock())
        assert claim is not None
        one.complete(one.note(claim, one.started(1, None, spool.clock())), {"exit_code": 0}, spool.clock())
        two.dependents.ended("a")
        for me in (one, two):
            me.look(spool.clock())
        ready = [found.job.history for found in spool.list() if found.job and found.id != "a"]
        assert [len(history) for history in ready] == [1] * len(names)
        assert sorted([*work(one, spool), *work(two, spool)]) == sorted(names)


def test_a_drain_stays_while_a_job_waits_for_one_that_another_worker_runs(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "a")
    file(spool, "c", "b")
    file(spool, "d")
    file(spool, "e", "d")
    parking.hold(spool.root, spool.find("d"))
    with spool.member() as one, spool.member() as two:
        one.relist(spool.clock())
        claim = one.claim(spool.clock())
        assert claim is not None
        assert not two.is_drained(spool.clock())
        one.fail(one.note(claim, one.started(1, None, spool.clock())), {}, spool.clock(), 0.0)
        assert spool.find("a").state is State.DEAD
        assert two.is_drained(spool.clock())


@dataclass
class Opening:
    """System calls, of which the paths that are opened are noted."""

    opened: list[str]

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, *given: int) -> int:
        self.opened.append(path)
        return os.open(path, *given)


def test_the_last_of_a_batch_lets_a_job_start_that_is_judged_about_once(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spool.path / "logs" / "all.batch").write_text("300\n")
    members = [{"id": f"all.{number}", "command": "true"} for number in range(1, 300)]
    assert all(filed.error is None for filed in spool.file_many(members))
    file(spool, "end", "all")
    opened: list[str] = []
    monkeypatch.setattr(files, "kernel", Opening(opened))
    with spool.member() as me:
        assert len(work(me, spool)) == 299
        assert spool.find("end").name.parked == "after+all"
        file(spool, "all.300")
        assert work(me, spool) == ["all.300", "end"]
    assert 0 < sum("-end.yaml" in path for path in opened) < 12


def test_many_that_wait_for_one_are_released_in_lots(spool: Spool) -> None:
    file(spool, "a")
    jobs: list[Mapping[str, object]] = [
        {"id": f"b{number}", "command": "true", "after": "a"} for number in range(250)
    ]
    assert all(filed.error is None for filed in spool.file_many(jobs))
    with spool.member() as me:
        me.relist(spool.clock())
        claim = me.claim(spool.clock())
        assert claim is not None
        me.complete(me.note(claim, me.started(1, None, spool.clock())), {"exit_code": 0}, spool.clock())
        for left in (150, 50, 0):
            me.look(spool.clock())
            assert sum(found.name.parked is not None for found in spool.list()) == left
        assert work(me, spool) == [f"b{number}" for number in range(250)]


def test_a_plain_job_takes_no_file_operation_more_beside_jobs_that_wait(
    spool: Spool, counting: Counting, clock: StoppedClock
) -> None:
    def cost() -> Counter[str]:
        assert all(filed.error is None for filed in spool.file_many(["true"] * 10))
        clock.sleep(60.0)
        with spool.member() as me:
            me.relist(spool.clock())
            while me.dependents.is_busy:
                me.judge(spool.clock())
            counting.calls.clear()
            me.look(spool.clock())
            while (claim := me.claim(spool.clock())) is not None:
                me.complete(me.note(claim, me.started(1, None, spool.clock())), {}, spool.clock())
                me.look(spool.clock())
            return counting.calls.copy()

    alone = cost()
    file(spool, "later", run_at="2100-01-01T00:00:00Z")
    file(spool, "dead")
    clock.sleep(1.0)
    with spool.member() as me:
        assert work(me, spool, frozenset(["dead"])) == ["dead"]
    for number in range(40):
        file(spool, f"b{number}", ("later", "dead")[number % 2])
    assert cost() == alone


def test_what_waits_for_a_refused_job_of_the_same_lot_is_refused_too(spool: Spool) -> None:
    lot: list[Mapping[str, object]] = [
        {"id": "c", "command": "true", "after": "b"},
        {"id": "b", "command": "true", "after": "nope"},
        {"id": "a", "command": "true"},
        {"id": "a", "command": "true", "after": "b"},
    ]
    assert [one.error is None for one in spool.file_many(lot)] == [False, False, True, False]
    assert spool.find("a").name.parked is None


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


def test_who_waits_for_a_job_that_cannot_run_is_told_at_once(shell: Shell) -> None:
    shell("enqueue", "--id", "build", "--max-retries", "0", "exit 3")
    shell("enqueue", "--id", "test", "--after", "build", "true")
    shell("enqueue", "--id", "ship", "--after", "test:any", "true")
    shell("enqueue", "--id", "tidy", "--after", "build:any", "true")
    shell("worker", "start", "--drain")
    why = "build failed, and test waits for it"
    assert f"Job ship cannot run: {why}" in shell.refused("wait", "ship", "tidy", status=1)
    assert f"cannot run: {why}" in shell("status", "ship").out
    assert "before    test\n" in shell("status", "build").out
    assert "after test" in shell("list", "--state", "blocked").out
    with pytest.raises(CannotRun, match=why):
        shell.spool.wait("ship")
    (said,) = [one for one in shell("status", "--json").json["attention"] if "cannot run" in one]
    assert said == "2 cannot run: build failed. Retry that, or `queuectl cancel build --dependents`."
    assert [found.id for found in shell.spool.dependents("build")] == ["test"]
    assert shell("cancel", "build", "--dependents").lines == [
        "ship is dead (cancelled before it ran)",
        "test is dead (cancelled before it ran)",
    ]
    assert "is dead, not waiting" in shell.refused("cancel", "build", "--dependents", status=1)


def test_a_job_that_is_released_now_runs_whatever_it_waits_for_and_that_is_said(shell: Shell) -> None:
    shell("enqueue", "--id", "build", "--delay", "1h", "true")
    for job_id in ("ship", "other"):
        shell("enqueue", "--id", job_id, "--after", "build", f"echo {job_id} >> order")
    shell("hold", "other")
    assert shell("release", "other").lines == ["other is blocked"]
    said = "ship is pending, though build has not ended as it asks"
    assert shell("release", "--now", "ship").lines == [said]
    shell("worker", "start", "--drain")
    assert (shell.home / "order").read_text() == "ship\n"


def test_all_that_waits_for_a_job_is_cancelled_before_it(shell: Shell) -> None:
    shell("enqueue", "--id", "a", "true")
    for job_id, wanted in (("b", ["a"]), ("c", ["a", "b:any"]), ("d", ["c:any", "a:any"])):
        shell("enqueue", "--id", job_id, *[word for one in wanted for word in ("--after", one)], "true")
    shell("enqueue", "--id", "e", "true")
    ended = [line.partition(" ")[0] for line in shell("cancel", "a", "--dependents").lines]
    assert ended[0] == "d"
    assert ended[-1] == "a"
    assert set(ended) == {"a", "b", "c", "d"}


def test_what_a_blocked_job_waits_for_is_deleted_by_nobody(shell: Shell) -> None:
    shell("enqueue", "--id", "lint", "--max-retries", "0", "exit 3")
    shell("enqueue", "--id", "build", "true")
    shell("enqueue", "--id", "other", "--max-retries", "0", "exit 3")
    shell("enqueue", "--id", "slow", "--delay", "1h", "true")
    shell("enqueue", "--id", "ship", "--after", "build", "--after", "lint", "--after", "slow", "true")
    shell("worker", "start", "--drain")
    said = shell("prune", "--older-than", "0s", "--yes")
    assert "2 jobs kept: others wait" in said.err
    shell("dlq", "purge", "--yes")
    assert {found.id for found in shell.spool.list()} == {"build", "lint", "slow", "ship"}


def test_check_finds_a_job_that_is_parked_behind_what_it_does_not_wait_for(spool: Spool) -> None:
    for job_id in ("a", "b"):
        file(spool, job_id)
    file(spool, "c", "a")
    found = spool.find("c")
    os.rename(found.path, found.path.replace("after+a", "after+b"))
    (wrong,) = audit.check(spool.root, Onlooker(spool.root), 1, spool.clock())
    assert "parked behind b, which it does not ask to wait for" in wrong.sentence
    assert wrong.mend is not None
    wrong.mend()
    assert spool.find("c").name.parked is None
