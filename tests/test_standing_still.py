"""A worker that stood still, and one that is told to stop together with its command: no run is lost by it."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl import Spool, State
from queuectl.spool import descriptions, requests
from queuectl.spool.wake import Bell, Wake
from queuectl.system.medium import Medium
from queuectl.worker.keeper import Keeper
from queuectl.worker.silence import is_over
from tests.conftest import kinds

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.history import Event
    from tests.conftest import Evidence, Process, StoppedClock, Until, Workers

    History = Callable[[str], tuple[Event, ...]]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no such signals")
LEASE = 1.0


@pytest.fixture
def short(spool: Spool) -> Spool:
    with spool.root.config.open("a") as config:
        config.write(f"lock_lease_seconds: {LEASE}\n")
    return spool


def beats(spool: Spool, worker: Process) -> int:
    description = descriptions.describe(spool.root, worker.name)
    return description.beat if description else 0


def stand_still(spool: Spool, worker: Process, seconds: float, until: Until) -> None:
    """Stop a worker for so long, and wait until it has shown a sign of life."""
    before = beats(spool, worker)
    worker.popen.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > seconds, "it has stood still")
    worker.popen.send_signal(signal.SIGCONT)
    until(lambda: not worker.is_running or beats(spool, worker) > before + 1, "it beats again")


# ── standing still ────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("audited")
def test_a_worker_on_a_local_disk_goes_on_with_its_job_however_long_it_stood_still(
    short: Spool, workers: Workers, evidence: Evidence, until: Until, history: History
) -> None:
    release = evidence.folder / "release"
    job_id = short.file(evidence.command(f"until test -e {release}; do sleep 0.05; done"))
    worker = workers.start()
    until(lambda: kinds(history(job_id)) == ["started"], "it runs")
    for _ in range(2):
        stand_still(short, worker, 1.3 * LEASE, until)
    release.touch()
    until(lambda: short.find(job_id).state is State.DONE, "it ends")
    assert kinds(history(job_id)) == ["started", "completed"]


@pytest.mark.usefixtures("audited")
def test_a_worker_that_stood_still_while_it_was_idle_or_claimed_goes_on_under_its_name(
    short: Spool, workers: Workers, evidence: Evidence, until: Until, history: History
) -> None:
    worker = workers.start()
    name = worker.name
    stand_still(short, worker, 1.3 * LEASE, until)
    ids = [short.file(evidence.command()) for _ in range(100)]
    until(evidence.started, "it is at work")
    for _ in range(2):
        worker.popen.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 1.1 * LEASE, "it has stood still")  # noqa: B023
        worker.popen.send_signal(signal.SIGCONT)
        until(partial(has_gone_on, evidence, len(evidence.finished())), "it goes on")
    until(lambda: all(short.find(job_id).state is State.DONE for job_id in ids), "all have ended")
    assert [kinds(history(job_id)) for job_id in ids] == [["started", "completed"]] * len(ids)
    assert {history(job_id)[-1]["worker"] for job_id in ids} == {name}


def has_gone_on(evidence: Evidence, before: int) -> bool:
    return len(evidence.finished()) in {100, *range(before + 5, 100)}


@pytest.mark.parametrize(
    ("silence", "doubt", "over"),
    [
        (0.1, -9.0, False),  # it beats
        (70.0, 70.0, False),  # doubtful as of now
        (79.9, 70.0, False),
        (80.1, 70.0, True),  # it was awake, and could not beat
        (90.0, 90.0, False),  # it has just woken: it may beat in time
        (94.9, 90.0, False),
        (95.1, 90.0, True),
        (98.0, 98.0, False),
        (99.1, 98.0, True),  # half of what was left of the lease
        (100.0, 100.0, True),  # others may have taken over
        (5000.0, -1.0, True),
    ],
)
def test_a_silence_is_over_once_it_could_have_been_broken(silence: float, doubt: float, over: bool) -> None:
    assert is_over(silence, doubt, 100.0) is over


@pytest.mark.parametrize("shared", [True, False])
def test_a_beat_that_comes_later_than_the_lease_does_not_undo_it_on_a_share(
    short: Spool, monkeypatch: pytest.MonkeyPatch, clock: StoppedClock, shared: bool
) -> None:
    """Whichever of the threads of a worker is the first to go on."""
    monkeypatch.setattr(Medium, "is_shared", shared)
    spool, control = Spool(short.path), Wake()
    with spool.member() as me, contextlib.closing(control):
        me.live.now()
        keeper = Keeper(me, control, Bell(spool.root, control))
        clock.sleep(1.1 * LEASE)
        assert keeper.is_cut_off() is shared
        keeper.look()
        assert keeper.is_cut_off() is shared
        assert keeper.is_silent() is shared
        keeper.silence.has_lapsed = False
        assert not keeper.is_cut_off()


@pytest.mark.skipif(not os.path.exists("/proc/self/sched"), reason="the kernel does not tell")
def test_a_run_that_ended_while_its_worker_stood_still_took_no_longer_for_that(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History
) -> None:
    before = time.monotonic()
    job_id = spool.file({"command": evidence.command("sleep 0.5"), "timeout": 3600})
    worker = workers.start()
    until(lambda: kinds(history(job_id)) == ["started"], "it runs")
    worker.popen.send_signal(signal.SIGSTOP)
    command = psutil.Process(history(job_id)[-1]["pid"])
    until(lambda: command.status() == psutil.STATUS_ZOMBIE, "it has ended")
    ended = time.monotonic()
    until(lambda: time.monotonic() - ended > 2, "its worker stands still for longer")
    worker.popen.send_signal(signal.SIGCONT)
    until(lambda: spool.find(job_id).state is State.DONE, "that is recorded")
    assert 0.49 <= history(job_id)[-1]["seconds"] <= ended - before


# ── told to stop ──────────────────────────────────────────────────────────────────────────────

#: How a command may end on SIGTERM, and the exit status that tells of it.
ENDS = {
    "of the signal": (":", 143),
    "with the status for it": ("trap 'exit 143' TERM", 143),
    "with another status": ("trap 'exit 3' TERM", 3),
}


def begin(
    spool: Spool,
    workers: Workers,
    until: Until,
    first: str,
    kind: str = "foreground",
    then: str = ":",
) -> tuple[str, Process, int]:
    """A job that runs, its worker, and the pid of its command."""
    begun = spool.path.parent / "begun"
    wait = f"while :; do sleep 0.05; {then}; done"
    job_id = spool.file(
        {"command": f"{first}; echo $$ > {begun}.new; mv {begun}.new {begun}; {wait}", "max_retries": 0}
    )
    worker = workers.start(kind)
    until(lambda: begun.exists() and spool.find(job_id).state is State.PROCESSING, "it runs")
    return job_id, worker, int(begun.read_text())


def signals(order: str, worker: int, command: int) -> None:
    if order == "the worker first":
        os.kill(worker, signal.SIGTERM)
        os.kill(command, signal.SIGTERM)
    else:  # at once
        os.kill(worker, signal.SIGSTOP)
        os.kill(command, signal.SIGTERM)
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)


ORDERS = ["the worker first", "at once"]


@pytest.mark.parametrize(
    ("ends", "order", "kind"),
    [
        *((ends, order, "foreground") for ends in ENDS for order in ORDERS),
        *(("of the signal", order, "drain") for order in ORDERS),
    ],
)
def test_a_signal_to_a_worker_and_its_command_uses_up_no_try(
    spool: Spool, workers: Workers, until: Until, history: History, ends: str, order: str, kind: str
) -> None:
    body, status = ENDS[ends]
    job_id, worker, command = begin(spool, workers, until, body, kind=kind)
    signals(order, worker.pid, command)
    assert worker.wait() == 0
    assert spool.find(job_id).state is State.PENDING
    last = history(job_id)[-1]
    assert (last["event"], last["exit_code"], last["error"]) == ("returned", status, "the worker was stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(("status", "events"), [(3, ["started", "returned"]), (0, ["started", "completed"])])
def test_a_command_that_cleans_up_for_long_after_a_signal_to_both_uses_up_no_try(
    spool: Spool,
    workers: Workers,
    until: Until,
    history: History,
    number: signal.Signals,
    status: int,
    events: list[str],
) -> None:
    cleaning, release = spool.path.parent / "cleaning", spool.path.parent / "release"
    clean_up = f"touch {cleaning}; until test -e {release}; do sleep 0.05; done; exit {status}"
    first = f"trap '{clean_up}' {number.name[3:]}"
    job_id, worker, command = begin(spool, workers, until, first)
    os.kill(worker.pid, number)
    os.kill(command, number)
    until(cleaning.exists, "it cleans up")
    release.touch()
    assert worker.wait() == (130 if number is signal.SIGINT else 0)
    assert kinds(history(job_id)) == events


def test_a_command_that_succeeds_on_the_signal_has_succeeded(
    spool: Spool, workers: Workers, until: Until, history: History
) -> None:
    job_id, worker, command = begin(spool, workers, until, "trap 'exit 0' TERM")
    signals("at once", worker.pid, command)
    assert worker.wait() == 0
    assert kinds(history(job_id)) == ["started", "completed"]


@pytest.mark.parametrize(("ending", "event"), [("kill -TERM $$", "returned"), ("exit 7", "failed")])
def test_long_after_a_worker_was_asked_to_stop_only_a_signal_is_no_failure_of_its_job(
    spool: Spool, workers: Workers, until: Until, history: History, ending: str, event: str
) -> None:
    release = spool.path.parent / "release"
    then = f"test ! -e {release} || {ending}"
    job_id, worker, _ = begin(spool, workers, until, ":", then=then)
    requests.to_stop(spool.root, [worker.name], None)
    until(lambda: not os.path.exists(release) and is_asked(spool, worker), "it is asked")
    release.touch()
    assert worker.wait() == 0
    assert kinds(history(job_id)) == ["started", event]


def is_asked(spool: Spool, worker: Process) -> bool:
    return bool(requests.requests_to(spool.root, worker.name).stop)


def test_a_command_that_is_killed_while_its_worker_goes_on_has_failed(
    spool: Spool, workers: Workers, until: Until, history: History
) -> None:
    job_id, worker, command = begin(spool, workers, until, ":")
    os.kill(command, signal.SIGTERM)
    until(lambda: spool.find(job_id).state is State.DEAD, "that is recorded")
    assert kinds(history(job_id)) == ["started", "failed"]
    assert worker.is_running


#: Runs two workers where one is asked for.
TWO = """
import sys
from queuectl.spool.root import Root
from queuectl.worker import fleet
sys.exit(fleet.run(Root(sys.argv[-2]), sys.argv[-1], 2))
"""


def test_a_signal_to_all_of_several_workers_and_their_commands_uses_up_no_try(
    spool: Spool, workers: Workers, until: Until, history: History
) -> None:
    """In whatever order it reaches them: the parent of the workers passes it on, too."""
    for number in range(2):
        spool.file({"id": f"job-{number}", "command": "sleep 60", "max_retries": 0})
    parent = workers.start_inside(sys.executable, "-c", TWO)
    until(lambda: all(len(history(f"job-{number}")) == 1 for number in range(2)), "both run")
    everyone = [parent.pid, *(child.pid for child in psutil.Process(parent.pid).children(recursive=True))]
    random.shuffle(everyone)
    for pid, number in itertools.product(everyone, [signal.SIGSTOP, signal.SIGTERM]):
        os.kill(pid, number)
    for pid in everyone:
        with contextlib.suppress(ProcessLookupError):  # one that goes on already may end others
            os.kill(pid, signal.SIGCONT)
    assert parent.wait() == 0
    assert [kinds(history(f"job-{number}")) for number in range(2)] == [["started", "returned"]] * 2
