"""A worker that is stepped: without threads, without waiting, on a clock of the test's own."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from queuectl import State
from queuectl.spool import descriptions, requests
from queuectl.system import files
from queuectl.system.medium import Medium
from queuectl.system.processes import Ended
from queuectl.times import iso
from queuectl.worker.keeper import Guard, seen_again
from queuectl.worker.loop import BRISK, IDLE, Worker
from queuectl.worker.silence import DOUBT, GIVE_UP, IN_ORDER, is_beat_due
from queuectl.worker.stopping import (
    ONCE,
    Act,
    Cause,
    Facts,
    Stop,
    Stopping,
    Why,
    cause_of_end,
    next_act,
    reason_to_end,
)
from queuectl.worker.waits import DONE, On, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from queuectl import Spool
    from queuectl.job.history import Event
    from queuectl.settings import Settings
    from queuectl.spool.claims import Claim
    from tests.conftest import StoppedClock, Until

    History = Callable[[str], tuple[Event, ...]]


class Pretended:
    """A command without a process: it ends after `lasts` seconds, or by a signal that it heeds."""

    def __init__(self, clock: StoppedClock, lasts: float, status: int, *, heeds: bool) -> None:
        self._clock, self._heeds, self._status = clock, heeds, status
        self.pid = os.getpid()
        self.began = clock.monotonic()
        self._end = self.began + lasts
        self.was_cut_off = False
        self.signals: list[str] = []

    def has_ended(self) -> bool:
        return self._clock.monotonic() >= self._end

    def ask_to_end(self, grace: float) -> float:
        self.signals.append("TERM")
        if self._heeds:
            self._end, self._status = self._clock.monotonic(), 143
        return grace

    def kill(self) -> None:
        self.signals.append("KILL")
        self._end, self._status = self._clock.monotonic(), 137

    def cut_off(self, *, at_once: bool) -> None:
        self.was_cut_off = True
        self.signals.append("KILL" if at_once else "TERM")

    def has_company(self) -> bool:
        return False

    def identity(self) -> None:
        return None

    def look_back(self) -> None:
        pass

    def reap(self) -> Ended:
        assert self.has_ended()
        return Ended(self._status, None, self._end - self.began, 0.0, 0)


class Stage:
    """Workers of one spool whose commands are pretended, stepped by the test."""

    def __init__(self, spool: Spool, clock: StoppedClock) -> None:
        self._spool, self._clock = spool, clock
        self.lasts, self.status, self.heeds = 0.0, 0, True
        self.started: list[str] = []
        self.commands: list[Pretended] = []
        self.workers: list[Worker] = []

    def start(
        self, claim: Claim, attempt: int, told: Mapping[str, str], logs: tuple[int, ...], values: Settings
    ) -> Pretended:
        del attempt, told, logs, values
        self.started.append(claim.id)
        self.commands.append(Pretended(self._clock, self.lasts, self.status, heeds=self.heeds))
        return self.commands[-1]

    def clear_up(self) -> None:
        pass

    def stop_earlier(self, claim: Claim) -> None:
        raise AssertionError(f"no run is taken over here, yet {claim.name} is cleared of one")

    def stop_remains(self, root: object, name: object, history: object) -> None:
        raise AssertionError(f"no worker dies here, yet {name} of {root} is recovered: {history}")

    def enter(self, awaited: frozenset[State] | None = frozenset(), only: str | None = None) -> Worker:
        worker = Worker(self._spool.root, "simulated", awaited=awaited, only=only, starter=self)  # type: ignore[arg-type]
        worker.enter()
        self._clock.sleep(1.0)  # what was filed is due
        self.workers.append(worker)
        return worker

    def step(self, worker: Worker) -> Wait:
        """One look of the keeper, one step, and the time that the worker would have waited at most."""
        worker.keeper.look()
        wait = worker.step()
        self._clock.sleep(wait.seconds)
        return wait

    def until(self, worker: Worker, on: On, most: int = 200) -> Wait:
        for _ in range(most):
            if (wait := self.step(worker)).on is on:
                return wait
        raise AssertionError(f"no step waits for {on}")


@pytest.fixture
def stage(spool: Spool, clock: StoppedClock) -> Iterator[Stage]:
    made = Stage(spool, clock)
    yield made
    for worker in made.workers:
        worker.close()
        worker.member.leave()


def test_three_workers_in_one_thread_run_each_job_once(spool: Spool, stage: Stage) -> None:
    stage.lasts = 3.0
    ids = {spool.file("true") for _ in range(20)}
    workers = [stage.enter() for _ in range(3)]
    left = set(workers)
    for _ in range(5000):
        for worker in workers:
            if worker in left and stage.step(worker) == DONE:
                left.discard(worker)
                worker.leave()
    assert not left
    assert sorted(stage.started) == sorted(ids)
    assert {spool.find(job_id).state for job_id in ids} == {State.DONE}
    assert descriptions.described(spool.root) == []


def test_a_step_runs_no_more_than_one_command_and_does_not_wait_for_it(
    spool: Spool, stage: Stage, clock: StoppedClock
) -> None:
    stage.lasts = 5.0
    first = spool.file("true")
    clock.sleep(0.001)
    second = spool.file("true")
    worker = stage.enter()
    assert worker.step() == Wait(On.COMMAND, BRISK)
    assert stage.started == [first]
    assert worker.step().on is On.COMMAND
    assert stage.started == [first]
    assert spool.find(second).state is State.PENDING


def test_a_brisk_run_is_written_at_its_end_and_a_longer_one_while_it_runs(
    spool: Spool, stage: Stage, clock: StoppedClock, history: History
) -> None:
    stage.lasts = 5.0
    job_id = spool.file("true")
    worker = stage.enter()
    worker.step()
    assert history(job_id) == ()
    clock.sleep(BRISK)
    worker.step()
    assert [event["event"] for event in history(job_id)] == ["started"]
    stage.until(worker, On.END)
    assert [event["event"] for event in history(job_id)] == ["started", "completed"]


@pytest.mark.parametrize(
    ("heeds", "signals", "status"), [(True, ["TERM"], 143), (False, ["TERM", "KILL"], 137)]
)
def test_a_command_past_its_limit_is_asked_to_end_and_killed_after_its_grace(
    spool: Spool, stage: Stage, history: History, heeds: bool, signals: list[str], status: int
) -> None:
    stage.lasts, stage.heeds = 1e6, heeds
    job_id = spool.file({"command": "sleep 1000000", "timeout": 7, "max_retries": 0})
    worker = stage.enter()
    stage.until(worker, On.END)
    assert stage.commands[0].signals == signals
    last = history(job_id)[-1]
    assert (last["event"], last["exit_code"]) == ("failed", status)
    assert last["error"] == "it ran longer than its limit of 7 s"
    assert 7.0 <= last["seconds"] < 8.0


def test_a_request_to_cancel_ends_the_run_that_it_names(spool: Spool, stage: Stage) -> None:
    stage.lasts = 1e6
    job_id = spool.file("sleep 1000000")
    worker = stage.enter()
    worker.step()
    requests.to_cancel(spool.root, spool.find(job_id).name)
    worker.keeper.look()
    stage.until(worker, On.END)
    assert spool.find(job_id).state is State.DEAD
    assert stage.commands[0].signals == ["TERM"]


def test_a_paused_worker_waits_though_a_scheduled_job_has_become_due(
    spool: Spool, stage: Stage, clock: StoppedClock
) -> None:
    spool.root.config.write_text("poll_interval: 60\n")
    spool.file({"command": "true", "run_at": iso(clock.now() + timedelta(seconds=5))})
    worker = stage.enter(None)
    stage.until(worker, On.RING)
    requests.pause(spool.root, clock.now())
    clock.sleep(10.0)
    worker.keeper.look()
    assert [stage.step(worker).seconds for _ in range(3)] == [IDLE] * 3
    assert stage.started == []


def test_a_second_signal_gives_the_job_back(spool: Spool, stage: Stage, clock: StoppedClock) -> None:
    stage.lasts = 1e6
    job_id = spool.file("sleep 1000000")
    worker = stage.enter(None)
    worker.step()
    worker.ask_to_stop()
    assert worker.step().on is On.COMMAND
    clock.sleep(ONCE)
    worker.ask_to_stop()
    stage.until(worker, On.END)
    assert spool.find(job_id).state is State.PENDING


@pytest.mark.parametrize("awaited", [None, frozenset()], ids=["foreground", "drain"])
def test_a_signal_that_ends_a_command_uses_up_no_try_if_its_worker_gets_it_right_after(
    spool: Spool,
    stage: Stage,
    clock: StoppedClock,
    history: History,
    awaited: frozenset[State] | None,
) -> None:
    stage.lasts, stage.status = 5.0, 143
    job_id = spool.file({"command": "sleep 60", "max_retries": 0})
    worker = stage.enter(awaited)
    worker.step()
    clock.sleep(5.0)
    assert worker.step().on is On.CONTROL, "it waits for a signal of its own"
    clock.sleep(0.9 * ONCE)
    worker.ask_to_stop()
    stage.until(worker, On.END)
    assert spool.find(job_id).state is State.PENDING
    last = history(job_id)[-1]
    assert (last["event"], last["exit_code"], last["error"]) == ("returned", 143, "the worker was stopped")


def test_a_worker_that_was_taken_for_dead_ends_its_command_and_records_nothing(
    spool: Spool, stage: Stage, history: History
) -> None:
    stage.lasts = 1e6
    job_id = spool.file("sleep 1000000")
    worker = stage.enter(None)
    stage.step(worker)
    stage.step(worker)
    before = history(job_id)
    os.remove(f"{spool.root.workers}/{worker.name}.yaml")
    found = spool.find(job_id)
    os.rename(found.path, spool.root.folder(State.PENDING) + f"/{found.name.free().later()}")
    for _ in range(100):
        if stage.step(worker) == DONE:
            break
    assert worker.keeper.buried
    assert stage.commands[0].signals == ["TERM"]
    assert history(job_id) == before


# ── the rules ─────────────────────────────────────────────────────────────────────────────────


def test_the_first_reason_to_end_a_command_counts() -> None:
    every = Facts(True, True, True, True, 10.0, 5.0)
    order = [Why.LOST, Why.CANCELLED, Why.STOPPED, Why.OUT_OF_REACH, Why.OVERDUE]
    left = every
    for why, field in zip(order, Facts._fields, strict=False):
        assert reason_to_end(left) is why
        left = left._replace(**{field: False})
    assert reason_to_end(Facts(seconds=1e9)) is None, "no limit is 0"
    assert reason_to_end(Facts(seconds=4.9, limit=5.0)) is None
    assert reason_to_end(Facts(seconds=5.0, limit=5.0)) is Why.OVERDUE


def test_a_command_has_its_grace_and_is_killed_until_it_ends() -> None:
    asked = Stopping(Why.STOPPED, kill_at=10.0)
    assert next_act(asked, 9.9, has_ended=False) is Act.WAIT
    assert next_act(asked, 9.9, has_ended=True) is Act.LINGER
    assert next_act(asked, 10.0, has_ended=True) is Act.REAP
    assert next_act(asked, 10.0, has_ended=False) is Act.KILL
    killed = asked.killed(10.0)
    assert next_act(killed, 10.5, has_ended=False) is Act.WAIT
    assert next_act(killed, 10.5, has_ended=True) is Act.REAP
    assert next_act(killed, 11.0, has_ended=False) is Act.KILL


@pytest.mark.parametrize(
    ("status", "since_end", "signalled", "asked", "cause"),
    [
        (3, 0.0, True, True, Cause.STOP),
        (3, 0.0, False, True, Cause.ITSELF),
        (3, 0.0, False, False, Cause.ITSELF),
        (143, 0.0, False, False, Cause.OPEN),
        (143, ONCE, False, False, Cause.ITSELF),
        (143, ONCE, False, True, Cause.STOP),
        (130, 0.0, True, True, Cause.STOP),
        (137, 0.0, True, True, Cause.STOP),
        (137, 0.0, False, True, Cause.ITSELF),
    ],
)
def test_a_failure_after_a_signal_and_an_end_by_a_signal_after_any_request_are_due_to_the_stop(
    status: int, since_end: float, signalled: bool, asked: bool, cause: Cause
) -> None:
    assert cause_of_end(status, since_end, is_signalled=signalled, is_asked=asked) is cause


def test_signals_within_half_a_second_are_one_request() -> None:
    stop = Stop()
    assert stop.ask(100.0)
    assert (stop.is_asked, stop.is_urgent) == (True, False)
    assert not stop.ask(100.0 + ONCE - 0.01)
    assert not stop.is_urgent
    assert stop.ask(100.0 + ONCE)
    assert stop.is_urgent
    assert stop.seconds_left(101.0) == 0.0


def test_the_earliest_limit_of_a_request_counts() -> None:
    stop = Stop()
    stop.hear(None, 0.0)
    assert stop.seconds_left(0.0) == float("inf")
    stop.hear(60.0, 10.0)
    stop.hear(60.0, 30.0)  # the same request, heard once more
    assert stop.seconds_left(30.0) == 40.0
    stop.hear(5.0, 30.0)
    assert stop.seconds_left(30.0) == 5.0
    stop.hear(90.0, 31.0)
    assert stop.seconds_left(31.0) == 4.0


@pytest.mark.parametrize(
    ("silence", "has_news", "is_due"),
    [
        (1.9, True, False),
        (2.0, True, True),
        (9.9, False, False),
        (10.0, False, True),
    ],
)
def test_a_beat_is_due_in_time_and_earlier_with_news(silence: float, has_news: bool, is_due: bool) -> None:
    assert is_beat_due(silence, 60.0, has_news=has_news) is is_due


def test_the_time_of_a_folder_proves_nothing_until_it_is_old_enough() -> None:
    mark = files.Mark(1_500_000_001, 10, 7)
    seen = seen_again(None, mark, 100.0)
    assert not seen.is_proven
    assert not seen_again(seen, mark, 100.05).is_proven
    proven = seen_again(seen, mark, 100.2)
    assert proven.is_proven
    assert seen_again(proven, mark, 100.2).is_proven
    assert not seen_again(proven, mark._replace(mtime_ns=1_500_000_002), 200.0).is_proven
    whole = seen_again(None, mark._replace(mtime_ns=2_000_000_000), 100.0)
    assert not seen_again(whole, whole.mark, 101.9).is_proven
    assert seen_again(whole, whole.mark, 102.1).is_proven


def test_a_worker_that_cannot_beat_on_a_share_gives_its_job_up_within_the_lease(
    spool: Spool, stage: Stage, clock: StoppedClock, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No keeper looks here, as if the share took no beats: the worker itself finds out in time."""
    monkeypatch.setattr(Medium, "is_shared", True)
    stage.lasts = 1e6
    job_id = spool.file("sleep 1000000")
    clock.sleep(5.0)
    worker = stage.enter(None)
    begun, lease = clock.monotonic(), worker.keeper.lease
    while not stage.commands or not stage.commands[0].signals:
        clock.sleep(worker.step().seconds)
        assert clock.monotonic() < begun + lease
    assert clock.monotonic() > begun + 0.7 * lease
    for _ in range(20):
        clock.sleep(worker.step().seconds)
    assert history(job_id)[-1]["event"] == "returned"
    assert stage.started == [job_id], "nothing is begun before a beat was taken"


@pytest.mark.parametrize("wakes_first", ["keeper", "worker"])
@pytest.mark.parametrize(("share", "is_given_up"), [(0.8, False), (1.2, True)])
def test_on_a_share_a_worker_gives_its_job_up_only_if_it_stood_still_for_longer_than_its_lease(
    spool: Spool,
    stage: Stage,
    clock: StoppedClock,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    is_given_up: bool,
    wakes_first: str,
) -> None:
    monkeypatch.setattr(Medium, "is_shared", True)
    stage.lasts = 1000.0
    job_id = spool.file("sleep 1000")
    clock.sleep(5.0)
    worker = stage.enter(None)
    for _ in range(10):
        stage.step(worker)
    clock.sleep(share * worker.keeper.lease)
    if wakes_first == "worker":
        worker.step()
    while len(history(job_id)) < 2:
        stage.step(worker)
    assert (stage.commands[0].signals == ["TERM"]) is is_given_up
    assert history(job_id)[1]["event"] == ("returned" if is_given_up else "completed")


def test_the_command_of_a_worker_that_hangs_is_ended_and_then_killed_within_the_lease(
    spool: Spool, stage: Stage, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """The worker itself makes no step here: it hangs in a call to the share."""
    with spool.root.config.open("a") as config:
        config.write("lock_lease_seconds: 1\n")
    monkeypatch.setattr(Medium, "is_shared", True)
    stage.lasts, stage.heeds = 1e6, False
    spool.file("sleep 1000000")
    clock.sleep(5.0)
    worker = stage.enter(None)
    while not stage.commands:
        stage.step(worker)
    (command,) = stage.commands
    guard = Guard(worker.keeper, lambda: command)  # type: ignore[arg-type,return-value]
    guard.start()
    try:
        clock.sleep(GIVE_UP + 0.01)
        until(worker.keeper.asked.is_set, "it is in doubt")
        assert command.signals == []
        clock.sleep(DOUBT + 0.01)
        until(lambda: command.signals, "it is asked to end")
        assert set(command.signals) == {"TERM"}
        clock.sleep(IN_ORDER / 2 + 0.01)
        until(lambda: "KILL" in command.signals, "it is killed")
        assert clock.monotonic() - command.began < 1.0
    finally:
        guard.end()
        guard.join()


# ── when a job starts ─────────────────────────────────────────────────────────────────────────


def test_a_scheduled_job_starts_at_its_time(spool: Spool, stage: Stage, clock: StoppedClock) -> None:
    moment = clock.now() + timedelta(seconds=100)
    spool.file({"command": "true", "run_at": moment.isoformat()})
    worker = stage.enter(None)
    while not stage.started:
        began = clock.now()
        stage.step(worker)
    assert moment <= began < moment + timedelta(seconds=0.1)


def test_an_urgent_job_filed_while_the_worker_is_busy_starts_next(
    spool: Spool, stage: Stage, clock: StoppedClock
) -> None:
    def file(priority: int = 5) -> str:
        clock.sleep(0.001)
        return spool.file({"command": "true", "priority": priority})

    stage.lasts = 5.0
    busy, *others = (file() for _ in range(50))
    worker = stage.enter()
    stage.step(worker)
    urgent = file(10)
    stage.until(worker, On.END, 2000)
    assert stage.started == [busy, urgent, *others]


def test_a_retry_that_is_due_starts_before_what_waits_if_it_is_more_urgent(
    spool: Spool, stage: Stage, clock: StoppedClock
) -> None:
    stage.status = 1
    again = spool.file({"command": "false", "priority": 7, "max_retries": 1, "backoff_base": 10})
    worker = stage.enter(None)
    while spool.find(again).state is not State.FAILED:
        stage.step(worker)
    stage.status, stage.lasts = 0, 20.0
    first, less = (spool.file({"command": "true", "priority": priority}) for priority in (8, 6))
    clock.sleep(30.0)
    while len(stage.started) < 4:
        stage.step(worker)
    assert stage.started == [again, first, again, less]
