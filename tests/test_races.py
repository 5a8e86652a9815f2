"""Many processes at one job: whatever the order, one of them wins and nobody else sees it done twice."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import QueueError, Spool, State
from queuectl.errors import IdTaken, NoSuchJob, WrongState
from queuectl.job.history import last_attempt
from queuectl.spool import finishing, jobs, requests
from queuectl.spool.root import Root
from queuectl.spool.waiting import Waiting
from queuectl.system import files
from queuectl.system.medium import Medium
from queuectl.times import iso, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from queuectl.job.history import Event
    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root
    from queuectl.worker.member import Member
    from tests.conftest import AtOnce, Evidence, Until, Workers

    Figure = Callable[[str, str], None]
    Size = Callable[[int, int], int]
    Problems = Callable[[Spool], list[str]]
    Places = Callable[[Spool], dict[str, list[State]]]


@pytest.fixture
def quick_spool(spool: Spool) -> Spool:
    """A spool that does not sync: here nothing is cut off, and the races are closer."""
    with spool.root.config.open("a") as config:
        config.write("durability: none\n")
    return spool


def file_all(spool: Spool, ids: Sequence[str]) -> None:
    answers = list(spool.file_many({"id": job_id, "command": "true"} for job_id in ids))
    assert [one.error for one in answers if one.error] == []


def stories_in(spool: Spool) -> dict[str, tuple[str, ...]]:
    """Where each job is, and the kinds of the events of its history."""
    told: dict[str, tuple[str, ...]] = {}
    for found in spool.list():
        assert found.job
        told[found.id] = (found.state, *(event["event"] for event in found.job.history))
    return told


# ── claiming ──────────────────────────────────────────────────────────────────────────────────


def claim_everything(spool: Spool) -> list[str]:
    """Claim and complete until nothing is left; returns the ids claimed."""
    claimed: list[str] = []
    with spool.member() as me:
        me.look(utc_now(), again=True)
        while True:
            claim = me.claim(utc_now())
            if claim is None:
                me.look(utc_now(), again=True)
                if not me.waiting.has_due(utc_now()):
                    return claimed
                continue
            claimed.append(claim.id)
            complete(me, claim)


def complete(me: Member, claim: Claim) -> None:
    """End a claim as if its command had run."""
    claim = me.note(claim, me.started(last_attempt(claim.job.history) + 1, None, utc_now()))
    me.complete(claim, {"exit_code": 0}, utc_now())


@pytest.mark.parametrize("count", [2, 8])
def test_each_job_is_claimed_by_exactly_one_process(
    quick_spool: Spool,
    at_once: AtOnce,
    size: Size,
    count: int,
    problems: Problems,
    figure: Figure,
) -> None:
    ids = [f"job-{n}" for n in range(size(200, 10_000))]
    file_all(quick_spool, ids)
    claimed = at_once([partial(claim_everything, quick_spool)] * count)
    assert Counter(itertools.chain(*claimed)) == Counter(ids)
    assert sum(len(one) > 0 for one in claimed) > 1
    assert len(jobs.names_in(quick_spool.root, State.DONE)) == len(ids)
    assert problems(quick_spool) == []
    figure(f"{count} claimants race", f"{len(ids):,} claims of {len(ids):,} jobs, none twice")


def test_a_name_that_is_listed_and_heard_of_is_claimed_once_while_its_claim_lasts(quick_spool: Spool) -> None:
    quick_spool.file({"id": "once", "command": "true"})
    with quick_spool.member() as me:
        me.look(utc_now(), again=True)
        (name,) = os.listdir(quick_spool.root.folder(State.PENDING))
        me.look(utc_now(), [name, name])
        claim = me.claim(utc_now())
        assert claim
        assert me.claim(utc_now()) is None
        complete(me, claim)
        assert me.claim(utc_now()) is None
    assert stories_in(quick_spool) == {"once": (State.DONE, "started", "completed")}


class _Cached:
    """A kernel whose share goes on listing what was there at first, from a cache."""

    def __init__(self) -> None:
        self._listed: dict[str, list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def listdir(self, folder: str) -> list[str]:
        return self._listed.setdefault(folder, os.listdir(folder))


def test_a_name_that_a_share_goes_on_listing_is_tried_once(
    quick_spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Medium, "is_shared", True)
    monkeypatch.setattr(files, "kernel", _Cached())
    quick_spool.file({"command": "true"})
    waiting = Waiting(quick_spool.root)
    waiting.relist(utc_now())
    (name,) = os.listdir(quick_spool.root.folder(State.PENDING))
    os.unlink(f"{quick_spool.root.folder(State.PENDING)}/{name}")  # claimed on another host, say
    assert waiting.has_due(utc_now())
    assert waiting.take("me-1-abcd", utc_now()) is None
    waiting.relist(utc_now())
    assert name in files.list_names(quick_spool.root.folder(State.PENDING))
    assert not waiting.has_due(utc_now())


# ── filing ────────────────────────────────────────────────────────────────────────────────────


def answer(action: Callable[[], object]) -> str:
    """What an action said: `done`, or the kind of its refusal."""
    try:
        action()
    except QueueError as error:
        return type(error).__name__
    return "done"


def test_of_many_who_file_one_id_at_once_one_is_accepted(
    quick_spool: Spool, at_once: AtOnce, size: Size, places: Places, figure: Figure
) -> None:
    ids = ["Job", "jOB", "job", "JOB"]
    count = size(20, 50)
    actions = [
        partial(answer, partial(quick_spool.file, {"id": ids[n % 4], "command": f"echo {n}"}))
        for n in range(count)
    ]
    assert Counter(at_once(actions)) == {"done": 1, IdTaken.__name__: count - 1}
    assert list(places(quick_spool).values()) == [[State.PENDING]]
    figure("one id filed at once", f"{count} processes: 1 accepted, {count - 1} told so")


def test_ids_that_are_made_up_at_once_differ(quick_spool: Spool, at_once: AtOnce) -> None:
    def several() -> list[str]:
        return [quick_spool.file("true") for _ in range(50)]

    ids = list(itertools.chain(*at_once([several] * 8)))
    assert len(set(ids)) == 400
    assert len(jobs.names_in(quick_spool.root, State.PENDING)) == 400


def test_a_drop_that_many_take_in_at_once_becomes_one_job(
    quick_spool: Spool, at_once: AtOnce, places: Places, problems_left: Problems
) -> None:
    names = [f"drop-{n}" for n in range(60)]
    past = time.time() - 60
    for name in names:
        path = f"{quick_spool.root.folder(State.PENDING)}/{name}.yaml"
        with open(path, "w") as file:
            file.write("command: 'true'\n")
        os.utime(path, (past, past))
    claimed = at_once([partial(claim_everything, quick_spool)] * 4)
    claimed.append(claim_everything(quick_spool))
    assert Counter(itertools.chain(*claimed)) == Counter(names)
    assert places(quick_spool) == {name: [State.DONE] for name in names}
    assert problems_left(quick_spool) == []


# ── cancelling ────────────────────────────────────────────────────────────────────────────────


def in_rounds(parties: int) -> Callable[[Sequence[Callable[[], object]]], list[str]]:
    """All the actions in their order, each begun when every party has come to the same one."""
    gate = get_context("fork").Barrier(parties)

    def run(actions: Sequence[Callable[[], object]]) -> list[str]:
        answers = []
        for action in actions:
            gate.wait()
            for _ in range(random.randrange(3000)):  # some microseconds: else one is always first
                pass
            answers.append(answer(action))
        return answers

    return run


CLAIMED = (WrongState.__name__, State.DONE, "started", "completed")
CANCELLED = ("done", State.DEAD, "cancelled")


def test_a_job_is_either_claimed_or_cancelled(
    quick_spool: Spool,
    at_once: AtOnce,
    size: Size,
    problems: Problems,
    figure: Figure,
) -> None:
    ids = [f"job-{n}" for n in range(size(100, 10_000))]
    # Who cancels lists the directory first, which takes the longer the more is in it.
    pace = get_context("fork").Value("d", 0.0)

    def file(job_id: str) -> None:
        quick_spool.file({"id": job_id, "command": "true"})

    def cancel(job_id: str) -> None:
        begun = time.perf_counter()
        try:
            quick_spool.cancel_waiting(job_id)
        finally:
            pace.value = time.perf_counter() - begun

    def claim(me: Member) -> None:
        me.look(utc_now(), again=True)
        time.sleep(random.random() * 1.5 * pace.value)  # so that either may be the first
        if (claim := me.claim(utc_now())) is None:
            raise NoSuchJob("any")
        complete(me, claim)

    def work() -> list[str]:
        with quick_spool.member() as me:
            return rounds([me.live.now, partial(claim, me)] * len(ids))

    def cancel_each() -> list[str]:
        return rounds([partial(act, one) for one in ids for act in (file, cancel)])[1::2]

    # One job at a time: it is filed, and then both are after it.
    rounds = in_rounds(2)
    _, cancelled = at_once([work, cancel_each])
    assert claim_everything(quick_spool) is not None
    ends = stories_in(quick_spool)
    stories = Counter((told, *ends[job_id]) for job_id, told in zip(ids, cancelled, strict=True))
    assert set(stories) <= {CLAIMED, CANCELLED}
    assert problems(quick_spool) == []
    figure(
        "cancel against claim",
        f"{stories[CANCELLED]:,} of {len(ids):,} jobs cancelled, {stories[CLAIMED]:,} run, one outcome each",
    )


def test_what_is_being_cancelled_is_not_given_back_by_those_who_look_for_dead_workers(
    quick_spool: Spool, at_once: AtOnce, size: Size, problems_left: Problems, figure: Figure
) -> None:
    ids = [f"job-{n}" for n in range(size(100, 10_000))]
    file_all(quick_spool, ids)
    stop = quick_spool.path.parent / "stop"

    def cancel() -> list[str]:
        try:
            return [answer(partial(quick_spool.cancel_waiting, job_id)) for job_id in ids]
        finally:
            stop.touch()

    def recover() -> int:
        """Look for dead workers all the time; how many claims were taken for theirs."""
        told = 0
        while not stop.exists():
            with quick_spool.member() as me:
                told += len(me.recover(no_remains, utc_now()))
        return told

    answers, *_ = at_once([cancel, recover])
    ends = stories_in(quick_spool)
    stories = Counter((told, *ends[job_id]) for job_id, told in zip(ids, answers, strict=True))
    assert stories == {CANCELLED: len(ids)}
    assert problems_left(quick_spool) == []
    figure("cancel against recovery", f"{len(ids):,} jobs, each cancelled once")


def no_remains(root: Root, name: Name, history: tuple[Event, ...]) -> None:
    """These claims never had a command."""


@pytest.mark.usefixtures("audited")
def test_a_running_job_that_is_cancelled_as_it_ends_has_one_outcome(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, size: Size, figure: Figure
) -> None:
    count = size(15, 1000)
    workers.start()
    for number in range(count):
        pause = random.uniform(0.0, 0.3)
        job_id = spool.file({"id": f"job-{number}", "command": evidence.command(f"sleep {pause:.3f}")})
        until(lambda: evidence.started(job_id), "it runs")  # noqa: B023 - called in this round
        if (running := spool.find(job_id)).state is State.PROCESSING:  # else it ended before it was found
            requests.to_cancel(spool.root, running.name)
        assert spool.wait(job_id)
        assert len(evidence.started(job_id)) == 1
    stories = Counter(stories_in(spool).values())
    done, dead = (State.DONE, "started", "completed"), (State.DEAD, "started", "cancelled")
    assert stories[done] + stories[dead] == count
    figure(
        "cancel against the end of a run",
        f"{stories[dead]:,} of {count:,} jobs cancelled, {stories[done]:,} completed, one outcome each",
    )


# ── finding ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("others", [["job-10"], ["job-10", "job-11"]], ids=["one alike", "several alike"])
def test_a_job_is_found_by_its_whole_id_while_it_moves(
    quick_spool: Spool, at_once: AtOnce, size: Size, others: list[str]
) -> None:
    """`cancel job-1` must not come to mean job-10 because job-1 is just being claimed."""
    file_all(quick_spool, ["job-1"])
    for job_id in others:
        quick_spool.file({"id": job_id, "command": "true", "run_at": "2999-01-01T00:00:00Z"})
    stop = quick_spool.path.parent / "stop"

    def move() -> None:
        """Claim the job and give it back, over and over."""
        with quick_spool.member() as me:
            while not stop.exists():
                me.look(utc_now(), again=True)
                claim = me.claim(utc_now())
                if claim is not None:
                    finishing.give_back(claim)

    def find() -> Counter[str]:
        try:
            return Counter(told(quick_spool, "job-1") for _ in range(size(1500, 100_000)))
        finally:
            stop.touch()

    _, *answers = at_once([move, find, find])
    found = sum(answers, Counter[str]())
    assert set(found) <= {"job-1", NoSuchJob.__name__}
    assert found["job-1"] > found[NoSuchJob.__name__]


def told(spool: Spool, word: str) -> str:
    """The id of the job that a word finds, or the kind of the refusal."""
    try:
        return spool.find(word).id
    except QueueError as error:
        return type(error).__name__


# ── recovering ────────────────────────────────────────────────────────────────────────────────


def orphan(spool: Spool, events: tuple[Event, ...] | None) -> None:
    """Claim all that waits and die: before a command is begun, or with these events recorded after that."""

    def claim_and_die() -> None:
        me: Member = spool.member()
        me.look(utc_now(), again=True)
        while (claim := me.claim(utc_now())) is not None:
            if events is None:
                continue
            claim, attempt, logs = me.begin(claim) or pytest.fail("a twin")
            files.close(*logs)
            start = me.started(attempt, None, utc_now())
            me.note(claim, start, *({**event, "worker": me.name} for event in events))
        os._exit(0)

    process = get_context("fork").Process(target=claim_and_die)
    process.start()
    process.join(60)


@pytest.mark.parametrize(
    ("outcome", "wanted"),
    [
        (None, (State.PENDING,)),
        ((), (State.PENDING, "started", "lost")),
        (({"event": "completed", "attempt": 1, "at": iso(utc_now())},), (State.DONE, "started", "completed")),
        (({"event": "failed", "attempt": 1, "at": iso(utc_now())},), (State.DEAD, "started", "failed")),
    ],
    ids=["before it ran", "while it ran", "after it had completed", "after it had failed for good"],
)
def test_of_many_who_find_an_orphan_one_ends_its_claim(
    quick_spool: Spool,
    at_once: AtOnce,
    size: Size,
    places: Places,
    problems_left: Problems,
    figure: Figure,
    outcome: tuple[Event, ...] | None,
    wanted: tuple[str, ...],
) -> None:
    ids = [f"job-{n}" for n in range(size(80, 5000))]
    file_all(quick_spool, ids)
    orphan(quick_spool, outcome)
    assert places(quick_spool) == {job_id: [State.PROCESSING] for job_id in ids}

    def recover() -> None:
        with quick_spool.member() as me:
            me.recover(no_remains, utc_now())

    at_once([recover] * 4)
    assert Counter(stories_in(quick_spool).values()) == {wanted: len(ids)}
    assert places(quick_spool) == {job_id: [wanted[0]] for job_id in ids}
    assert problems_left(quick_spool) == []
    how = "before a run" if outcome is None else outcome[0]["event"] if outcome else "while it ran"
    figure(f"4 find an orphan ({how})", f"{len(ids):,} jobs, each ended once: {', '.join(wanted)}")
