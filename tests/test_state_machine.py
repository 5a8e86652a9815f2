"""Whatever people, programs and crashes do in whatever order: each job is in one place, whole."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from queuectl import Spool, State
from queuectl.errors import BadJob, ClaimLost, IdTaken, NoSuchJob, SpoolAway, WrongState
from queuectl.job.history import CANCELLED, COMPLETED, RETRIED, RETURNED, failures, last_attempt
from queuectl.spool import descriptions, finishing, jobfile, names
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.times import from_stamp, iso, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from queuectl.spool.claims import Claim
    from queuectl.worker.member import Member

MAX_RETRIES = 2
CONFIG = f"durability: none\nmax_retries: {MAX_RETRIES}\nbackoff_base: 2\n"

picks = st.integers(0, 999)
seconds_later = st.sampled_from([1, 10, 3600])


@dataclass
class Worker:
    """A member, and the one claim it may hold."""

    member: Member
    claim: Claim | None = None
    begun: bool = False


@dataclass(frozen=True)
class Place:
    """A job file found by listing, and what its name says."""

    path: Path
    state: State
    id: str
    owner: str | None


def jobs_in(spool: Spool) -> list[Place]:
    """Every job file, found by listing the directories, as a person would with `ls`."""
    found = []
    for state in State:
        for text in sorted(os.listdir(spool.path / state)):
            name = names.parse_claim(text) if state is State.PROCESSING else names.parse(text)
            if name is not None:
                found.append(Place(spool.path / state / text, state, name.id, name.owner))
    return found


def dropped_in(spool: Spool) -> list[str]:
    """The ids of the files in pending/ that nobody has taken in yet."""
    return [text.partition(".")[0] for text in os.listdir(spool.path / "pending") if text.startswith("drop-")]


def recover(spool: Spool, now: datetime) -> None:
    with spool.member() as member:
        member.recover(lambda *_: None, now)


def begun(member: Member, claim: Claim, now: datetime) -> Claim:
    """The claim with its run begun, as a worker does it when a command starts."""
    opened = member.begin(claim)
    assert opened is not None
    claim, attempt, logs = opened
    files.close(*logs)
    return member.note(claim, member.started(attempt, 1, now))


class Queue(RuleBasedStateMachine):
    """One spool, up to three members, people with `mv` and an editor, and a clock that is set."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="queuectl-machine-"))
        # Ahead of the files that are dropped, which count as settled then.
        self.now = utc_now() + timedelta(hours=6)
        self.dropped_at = self.now
        self.spool = Spool.create(self.folder / "spool")
        self.spool.root.config.write_text(CONFIG)
        self.spool.clock = lambda: self.now
        self.workers: list[Worker] = []
        self.handed_out: set[str] = set()
        self.retries: Counter[str] = Counter()

    def teardown(self) -> None:
        self.workers.clear()
        gc.collect()
        shutil.rmtree(self.folder)

    # ── choosing ──────────────────────────────────────────────────────────────────────────

    def jobs(self, *states: State) -> list[Place]:
        return [place for place in jobs_in(self.spool) if place.state in states]

    def some(self, pick: int, *states: State) -> Place | None:
        found = self.jobs(*states)
        return found[pick % len(found)] if found else None

    def worker(self, pick: int) -> Worker:
        return self.workers[pick % len(self.workers)]

    # ── filing ────────────────────────────────────────────────────────────────────────────

    @rule(chosen=st.booleans(), priority=st.none() | st.integers(0, 10), wait=st.none() | seconds_later)
    def file(self, chosen: bool, priority: int | None, wait: int | None) -> None:
        fields: dict[str, Any] = {"command": "echo hi", "priority": priority}
        if chosen:
            fields["id"] = f"Job-{len(self.handed_out)}"
        if wait:
            fields["run_at"] = self.now + timedelta(seconds=wait)
        self.handed_out.add(self.spool.file(fields))

    @precondition(lambda self: self.handed_out)
    @rule(pick=picks, upper=st.booleans())
    def file_under_an_id_that_is_taken(self, pick: int, upper: bool) -> None:
        taken = sorted(self.handed_out - set(dropped_in(self.spool)))
        if taken:
            job_id = taken[pick % len(taken)]
            with pytest.raises(IdTaken):
                self.spool.file({"id": job_id.upper() if upper else job_id, "command": "echo again"})

    @rule(as_json=st.booleans(), names_itself=st.booleans(), by_move=st.booleans(), comment=st.booleans())
    def drop(self, as_json: bool, names_itself: bool, by_move: bool, comment: bool) -> None:
        job_id = f"drop-{len(self.handed_out)}"
        fields = {"command": "echo dropped"} | ({"id": job_id} if names_itself else {})
        text = "".join(f"{key}: {value}\n" for key, value in fields.items())
        if as_json:
            text = json.dumps(fields)
        elif comment:
            text = f"# from a person\n{text}# the end"
        target = self.spool.path / "pending" / f"{job_id}.{'json' if as_json else 'yaml'}"
        if by_move:
            aside = self.folder / target.name
            aside.write_text(text)
            aside.rename(target)
        else:
            target.write_text(text)
        self.dropped_at = max(self.dropped_at, self.now)
        past = self.now.timestamp() - 60
        os.utime(target, (past, past))
        self.handed_out.add(job_id)

    # ── workers ───────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def join(self) -> None:
        self.workers.append(Worker(self.spool.member()))

    @precondition(lambda self: self.workers)
    @rule(pick=picks, again=st.booleans())
    def claim(self, pick: int, again: bool) -> None:
        worker = self.worker(pick)
        worker.member.look(self.now, again=again)
        if worker.claim is None:
            worker.claim = worker.member.claim(self.now)
            worker.begun = False
        worker.member.waiting.doubt(self.now)

    @precondition(lambda self: self.workers)
    @rule(pick=picks)
    def begin(self, pick: int) -> None:
        worker = self.worker(pick)
        if worker.claim is None or worker.begun:
            return
        mine = Path(worker.claim.path).exists()
        opened = worker.member.begin(worker.claim)
        if opened is None:
            assert not mine, "a claim was put aside as a duplicate, though it is the only one of its id"
            worker.claim = None
            return
        claim, attempt, logs = opened
        files.close(*logs)
        try:
            worker.claim = worker.member.note(claim, worker.member.started(attempt, 1, self.now))
            worker.begun = True
        except ClaimLost:
            assert not mine
            worker.claim = None

    @precondition(lambda self: self.workers)
    @rule(pick=picks, end=st.sampled_from(["complete", "fail", "fail", "return", "cancel", "give back"]))
    def finish(self, pick: int, end: str) -> None:
        worker = self.worker(pick)
        claim = worker.claim
        if claim is None or (end == "give back") == worker.begun:
            return
        mine = Path(claim.path).exists()
        try:
            if end == "complete":
                state = worker.member.complete(claim, {"exit_code": 0}, self.now)
                assert state is State.DONE
            elif end == "fail":
                state = worker.member.fail(claim, {"exit_code": 1}, self.now, 0.5)
                assert state in {State.FAILED, State.DEAD}
            elif end == "return":
                state = worker.member.end(claim, finishing.outcome(RETURNED, claim, {}, self.now))
                assert state is State.PENDING
            elif end == "cancel":
                state = worker.member.end(claim, finishing.outcome(CANCELLED, claim, {}, self.now))
                assert state is State.DEAD
            else:
                finishing.give_back(claim)
            assert mine
        except ClaimLost:
            assert not mine, "a claim was lost that nobody had taken"
        worker.claim = None

    @precondition(lambda self: self.workers)
    @rule(pick=picks, told=st.booleans())
    def die(self, pick: int, told: bool) -> None:
        """The lock goes as the kernel takes it from a killed process; all else stays as it is."""
        worker = self.worker(pick)
        if told and worker.claim and worker.begun and Path(worker.claim.path).exists():
            worker.member.note(worker.claim, finishing.outcome(COMPLETED, worker.claim, {}, self.now))
        name = worker.member.name
        self.workers.remove(worker)
        del worker
        gc.collect()
        assert not Onlooker(self.spool.root).is_alive(name, 1)

    @precondition(lambda self: self.workers)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        worker = self.worker(pick)
        if worker.claim is None:
            worker.member.leave()
            self.workers.remove(worker)

    @rule()
    def recover(self) -> None:
        recover(self.spool, self.now)
        alive = {worker.member.name for worker in self.workers}
        assert {place.owner for place in self.jobs(State.PROCESSING)} <= alive
        assert set(descriptions.described(self.spool.root)) == alive

    @rule()
    def work_everything_off(self) -> None:
        """A fresh worker brings every job that waits to its end; what others run is left alone."""
        recover(self.spool, self.now)
        running = {place.id for place in self.jobs(State.PROCESSING)}
        for place in self.jobs(State.PENDING, State.FAILED):
            run_at = jobfile.read(str(place.path)).job.run_at or self.now
            self.now = max(self.now, run_at, from_stamp(place.path.name[3:26]))
        self.now = max(self.now, self.dropped_at + timedelta(seconds=1)) + timedelta(minutes=1)
        with self.spool.member() as member:
            for _ in range(len(self.handed_out) * 3 + 3):
                member.look(self.now, again=True)
                claim = member.claim(self.now)
                if claim is None and not member.is_settling:
                    break
                if claim:
                    member.complete(begun(member, claim, self.now), {"exit_code": 0}, self.now)
        ended = {place.id for place in self.jobs(State.DONE, State.DEAD)}
        assert ended | running == self.handed_out

    # ── people ────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.handed_out)
    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        place = self.some(pick, *State)
        if place is None:
            return
        if place.state in {State.PENDING, State.PROCESSING}:
            with pytest.raises(WrongState):
                self.spool.retry(place.id)
        else:
            self.retries[place.id] += 1
            assert Path(self.spool.retry(place.id)).parent.name == "pending"

    @precondition(lambda self: self.handed_out)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        place = self.some(pick, *State)
        if place is None:
            return
        if place.state in {State.PENDING, State.FAILED}:
            path = self.spool.cancel_waiting(place.id)
            assert Path(path).parent.name == "dead"
            assert jobfile.read(path).job.history[-1]["event"] == "cancelled"
        else:
            with pytest.raises(WrongState):
                self.spool.cancel_waiting(place.id)

    @rule()
    def ask_for_a_job_that_is_not_there(self) -> None:
        for act in (self.spool.retry, self.spool.cancel_waiting):
            with pytest.raises(NoSuchJob):
                act("nobody")

    @precondition(lambda self: self.handed_out)
    @rule(pick=picks)
    def move_back_to_pending_by_hand(self, pick: int) -> None:
        place = self.some(pick, State.DEAD, State.FAILED, State.DONE)
        if place:
            self.retries[place.id] += 1
            place.path.rename(self.spool.path / "pending" / place.path.name)

    @precondition(lambda self: self.handed_out)
    @rule(pick=picks)
    def move_to_dead_by_hand(self, pick: int) -> None:
        place = self.some(pick, State.PENDING, State.FAILED)
        if place:
            place.path.rename(self.spool.path / "dead" / place.path.name)

    @precondition(lambda self: self.handed_out)
    @rule(pick=picks)
    def take_a_running_job_away_by_hand(self, pick: int) -> None:
        place = self.some(pick, State.PROCESSING)
        if place:
            self.retries[place.id] += 1
            place.path.rename(self.spool.path / "pending" / f"{place.path.name.partition('@')[0]}.yaml")

    @precondition(lambda self: self.handed_out)
    @rule(
        pick=picks,
        priority=st.integers(0, 10),
        wait=st.none() | seconds_later,
        how=st.sampled_from(["in place", "by an editor", "as JSON"]),
    )
    def edit(self, pick: int, priority: int, wait: int | None, how: str) -> None:
        place = self.some(pick, State.PENDING, State.FAILED, State.DEAD)
        if place is None:
            return
        job = jobfile.read(str(place.path)).job
        changes: dict[str, Any] = {"priority": str(priority)}
        if wait:
            changes["run_at"] = iso(self.now + timedelta(seconds=wait))
        if how == "as JSON" or place.path.read_text().startswith("{"):
            fields = {"id": place.id, "command": job.command, **changes}
            text = json.dumps(fields | {"history": [dict(event) for event in job.history]})
        else:
            kept = [
                line
                for line in place.path.read_text().splitlines(keepends=True)
                if line.partition(":")[0] not in changes
            ]
            text = "".join([*(f"{key}: {value} # edited\n" for key, value in changes.items()), *kept])
        if how == "by an editor":
            aside = place.path.with_name(f".{place.path.name}.swp")
            aside.write_text(text)
            aside.replace(place.path)
        else:
            place.path.write_text(text)

    # ── time ──────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([1, 5, 60, 86_400]))
    def pass_time(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(hours=st.sampled_from([1, 2]))
    def set_the_clock_back(self, hours: int) -> None:
        self.now -= timedelta(hours=hours)

    # ── what holds at every moment ────────────────────────────────────────────────────────

    @invariant()
    def each_id_is_in_exactly_one_place(self) -> None:
        found = [place.id for place in jobs_in(self.spool)] + dropped_in(self.spool)
        assert sorted(found) == sorted(self.handed_out)

    @invariant()
    def every_file_is_whole_and_says_what_its_name_says(self) -> None:
        for place in jobs_in(self.spool):
            job = jobfile.read(str(place.path)).job
            assert job.id in {None, place.id}
            numbers = [event["attempt"] for event in job.history if event["event"] == "started"]
            assert numbers == sorted(set(numbers)), "an attempt was begun twice"
            assert last_attempt(job.history) >= len(numbers)

    @invariant()
    def what_is_done_has_ended_well(self) -> None:
        for place in self.jobs(State.DONE):
            assert jobfile.read(str(place.path)).job.history[-1]["event"] in {"completed", RETRIED}

    @invariant()
    def only_a_person_gives_a_job_its_tries_anew(self) -> None:
        for place in jobs_in(self.spool):
            history = jobfile.read(str(place.path)).job.history
            assert sum(event["event"] == RETRIED for event in history) <= self.retries[place.id]
            assert failures(history) <= MAX_RETRIES + 1

    @invariant()
    def nothing_unfinished_lies_about(self) -> None:
        left = [text for state in State for text in os.listdir(self.spool.path / state) if text[:1] == "."]
        assert left == []


def test_each_job_is_in_exactly_one_place_whatever_happens_to_it(
    size: Callable[[int, int], int], figure: Callable[[str, str], None]
) -> None:
    examples, steps = size(15, 500), size(30, 50)
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    figure("state machine", f"{examples} sequences of {steps} steps, no violation")


# ── what the machine has found, or cannot reach ───────────────────────────────────────────────


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool.create(tmp_path / "spool")
    spool.root.config.write_text(CONFIG)
    return spool


def claimed(member: Member, now: datetime) -> Claim:
    member.look(now, again=True)
    claim = member.claim(now)
    assert claim is not None
    return claim


def run(member: Member, now: datetime) -> Claim:
    """Claim the next job and begin its run, as a worker does."""
    return begun(member, claimed(member, now), now)


def test_an_id_that_was_made_up_is_as_taken_as_one_that_was_chosen(spool: Spool) -> None:
    made = spool.file("echo hi")
    for job_id in (made, made.upper()):
        with pytest.raises(IdTaken):
            spool.file({"id": job_id, "command": "echo again"})
    assert [place.id for place in jobs_in(spool)] == [made]


def test_a_worker_that_dies_before_a_retry_begins_gives_the_job_no_tries_anew(spool: Spool) -> None:
    spool.file({"id": "a", "command": "false"})
    now = utc_now() + timedelta(hours=1)
    with spool.member() as member:
        assert member.fail(run(member, now), {"exit_code": 1}, now, 0.0) is State.FAILED
    now += timedelta(hours=1)
    doomed = spool.member()
    claimed(doomed, now)
    del doomed
    gc.collect()
    recover(spool, now)
    now += timedelta(hours=1)
    with spool.member() as member:
        claim = run(member, now)
        assert [event["event"] for event in claim.job.history] == ["started", "failed", "started"]
        assert failures((*claim.job.history, {"event": "failed"})) == 2


def test_an_edit_of_the_priority_gives_a_failed_job_no_tries_anew(spool: Spool) -> None:
    spool.file({"id": "a", "command": "false", "priority": 1})
    now = utc_now() + timedelta(hours=1)
    with spool.member() as member:
        assert member.fail(run(member, now), {"exit_code": 1}, now, 0.0) is State.FAILED
    path = Path(spool.find("a").path)
    path.write_text(path.read_text().replace("priority: 1", "priority: 9"))
    now += timedelta(hours=1)
    with spool.member() as member:
        claim = run(member, now)
        assert claim.name.rank == 1
        assert [event["event"] for event in claim.job.history] == ["started", "failed", "started"]


@pytest.mark.parametrize("content", ["command: [\n", "comand: x\n", "", "id: a\ncommand: x\nhistory: 5\n"])
def test_a_waiting_file_that_was_broken_can_be_cancelled_and_keeps_its_bytes(
    spool: Spool, content: str
) -> None:
    spool.file({"id": "a", "command": "true"})
    Path(spool.find("a").path).write_text(content)
    spool.cancel_waiting("a")
    (place,) = jobs_in(spool)
    assert (place.id, place.state) == ("a", State.DEAD)
    assert place.path.read_text() == content


def test_a_dead_job_that_has_not_been_mended_is_not_retried_and_stays(spool: Spool) -> None:
    spool.file({"id": "a", "command": "true"})
    path = spool.path / "dead" / Path(spool.find("a").path).name
    Path(spool.find("a").path).rename(path)
    path.write_text("command: [\n")
    with pytest.raises(BadJob):
        spool.retry("a")
    assert path.read_text() == "command: [\n"
    path.write_text("id: a\ncommand: true again\n")
    assert Path(spool.retry("a")).parent.name == "pending"
    assert [place.state for place in jobs_in(spool)] == [State.PENDING]


def test_a_claim_is_not_lost_while_the_spool_is_away(spool: Spool, tmp_path: Path) -> None:
    spool.file({"id": "a", "command": "true"})
    now = utc_now() + timedelta(hours=1)
    away = tmp_path / "away"
    with spool.member() as member:
        claim = run(member, now)
        spool.path.rename(away)
        spool.path.mkdir()
        for end in (lambda: member.complete(claim, {}, now), lambda: finishing.give_back(claim)):
            with pytest.raises(SpoolAway):
                end()
        spool.path.rmdir()
        away.rename(spool.path)
        assert member.complete(claim, {}, now) is State.DONE


def test_an_owner_that_lost_its_claim_records_nothing(spool: Spool) -> None:
    spool.file({"id": "a", "command": "true"})
    now = utc_now() + timedelta(hours=1)
    with spool.member() as member:
        claim = run(member, now)
        Path(claim.path).rename(spool.path / "pending" / str(claim.name.free()))
        before = Path(spool.find("a").path).read_bytes()
        for end in (
            lambda: member.complete(claim, {}, now),
            lambda: member.fail(claim, {}, now, 0.0),
            lambda: finishing.give_back(claim),
        ):
            with pytest.raises(ClaimLost):
                end()
        assert Path(spool.find("a").path).read_bytes() == before
        assert [place.state for place in jobs_in(spool)] == [State.PENDING]


@pytest.mark.parametrize("how", ["given back", "returned", "worker dead", "lost"])
def test_a_job_that_comes_back_to_pending_has_a_name_that_was_never_there(spool: Spool, how: str) -> None:
    spool.file({"id": "a", "command": "true"})
    first = jobs_in(spool)[0].path.name
    now = utc_now() + timedelta(hours=1)
    member = spool.member()
    claim = claimed(member, now) if how in {"given back", "worker dead"} else run(member, now)
    if how == "given back":
        finishing.give_back(claim)
    elif how == "returned":
        member.end(claim, finishing.outcome(RETURNED, claim, {}, now))
    del member
    gc.collect()
    recover(spool, now)
    (place,) = jobs_in(spool)
    assert place.state is State.PENDING
    assert place.path.name > first


def test_two_recoverers_of_one_dead_worker_file_its_job_once(spool: Spool) -> None:
    spool.file({"id": "a", "command": "true"})
    now = utc_now() + timedelta(hours=1)
    doomed = spool.member()
    run(doomed, now)
    del doomed
    gc.collect()
    with spool.member() as one, spool.member() as other:
        told = [*one.recover(lambda *_: None, now), *other.recover(lambda *_: None, now)]
    assert sum("run was lost" in text for text in told) == 1
    (place,) = jobs_in(spool)
    assert place.state is State.PENDING
    assert [event["event"] for event in jobfile.read(str(place.path)).job.history] == ["started", "lost"]


def test_a_job_that_kills_every_worker_ends_in_dead(spool: Spool) -> None:
    spool.file({"id": "a", "command": "kill"})
    now = utc_now()
    runs = 0
    while jobs_in(spool)[0].state is not State.DEAD:
        now += timedelta(hours=1)
        runs += 1
        assert runs <= MAX_RETRIES + 1
        doomed = spool.member()
        run(doomed, now)
        del doomed
        gc.collect()
        recover(spool, now)
    assert runs == MAX_RETRIES + 1


def test_what_still_runs_of_a_dead_workers_job_is_stopped_before_the_job_is_filed_again(
    spool: Spool,
) -> None:
    spool.file({"id": "a", "command": "true"})
    now = utc_now() + timedelta(hours=1)
    doomed = spool.member()
    run(doomed, now)
    del doomed
    gc.collect()
    seen: list[tuple[str, State]] = []
    with spool.member() as member:
        member.recover(lambda _, name, __: seen.append((name.id, jobs_in(spool)[0].state)), now)
    assert seen == [("a", State.PROCESSING)]
