"""Death at any point: of workers while commands run, and of any process between any two system calls."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl import Spool, State
from queuectl.system import files, locks
from tests.conftest import ON_A_SHARE, kinds

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.history import Event
    from tests.conftest import Evidence, Until, Workers

    History = Callable[[str], tuple[Event, ...]]


# ── a worker dies while its command runs ──────────────────────────────────────────────────────

LEFT_BEHIND = {
    "a shell and its child": "sleep 60",
    "a background child": "sleep 60 & wait",
    "a daemon in a session of its own": "setsid sleep 60 & sleep 60",
    "an orphan whose parent has ended": "(sh -c 'sleep 60 & exit 0'); setsid sh -c 'sleep 60 &'; sleep 60",
    "one that ignores SIGTERM": "trap '' TERM HUP INT; while :; do sleep 1; done",
}


@pytest.mark.usefixtures("audited")
@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_the_command_of_a_killed_worker_is_stopped_before_it_runs_again(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History, left: str
) -> None:
    job_id = spool.file(evidence.command(f"if test $QUEUECTL_ATTEMPT = 1; then {LEFT_BEHIND[left]}; fi"))
    worker = workers.start()
    until(partial(is_under_way, evidence, history, job_id, 1), "it runs")
    worker.kill()
    workers.drain()
    assert spool.find(job_id).state is State.DONE
    assert kinds(history(job_id)) == ["started", "lost", "started", "completed"]
    assert evidence.started() == [job_id] * 2


@pytest.mark.usefixtures("audited")
def test_a_job_moved_back_by_hand_is_no_old_outcome_to_whoever_finds_its_worker_dead(
    spool: Spool, history: History, problems_left: Callable[[Spool], list[str]]
) -> None:
    """The worker that had completed it dies just after it has claimed it again."""
    job_id = spool.file("true")

    def complete_and_claim_again() -> None:
        me = spool.member("test")
        me.look(me.now())
        claim, _, logs = me.begin(me.claim(me.now()) or pytest.fail("none")) or pytest.fail("a twin")
        files.close(*logs)
        me.complete(me.note(claim, me.started(1, None, me.now())), {"exit_code": 0}, me.now())
        done = Path(spool.find(job_id).path)
        done.rename(spool.path / "pending" / done.name)
        while not me.waiting.has_due(me.now()):
            me.look(me.now(), again=True)
        os._exit(0 if me.claim(me.now()) else 1)

    process = get_context("fork").Process(target=complete_and_claim_again)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert problems_left(spool) == []
    assert spool.find(job_id).state is State.PENDING
    assert kinds(history(job_id)) == ["started", "completed", "retried"]


@pytest.mark.usefixtures("audited")
def test_a_job_moved_back_by_hand_has_its_tries_anew_even_if_its_worker_dies_at_once(
    spool: Spool, workers: Workers, history: History
) -> None:
    command = "case $QUEUECTL_ATTEMPT in 1|2) exit 1;; 3) kill -9 $PPID; sleep 60;; esac"
    job_id = spool.file({"command": command, "max_retries": 1})
    workers.drain()
    dead = Path(spool.find(job_id).path)
    assert dead.parent.name == "dead"
    dead.rename(spool.path / "pending" / dead.name)
    assert workers.start("drain").wait() == -signal.SIGKILL
    workers.drain()
    assert spool.find(job_id).state is State.DONE
    assert kinds(history(job_id))[-5:] == ["failed", "retried", "lost", "started", "completed"]


def is_under_way(evidence: Evidence, history: History, job_id: str, attempt: int) -> bool:
    """Whether a run has begun, and its start is in the file."""
    return len(evidence.started(job_id)) == attempt and kinds(history(job_id))[-1:] == ["started"]


@pytest.mark.usefixtures("audited")
def test_a_lost_run_counts_as_a_failed_one(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History
) -> None:
    job_id = spool.file({"command": evidence.command("sleep 60"), "max_retries": 1})
    for attempt in (1, 2):
        worker = workers.start()
        until(partial(is_under_way, evidence, history, job_id, attempt), "it runs")
        worker.kill()
    workers.drain()
    assert spool.find(job_id).state is State.DEAD
    assert kinds(history(job_id)) == ["started", "lost"] * 2
    assert spool.view(spool.find(job_id))["attempts"] == 2


@pytest.mark.usefixtures("audited")
def test_a_running_worker_takes_over_from_a_killed_one(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until
) -> None:
    job_id = spool.file(evidence.command("test $QUEUECTL_ATTEMPT = 2 || sleep 60"))
    worker = workers.start()
    until(lambda: evidence.started() == [job_id], "it runs")
    workers.start()
    worker.kill()
    until(lambda: evidence.finished() == [job_id], "another worker has run it")


@pytest.mark.usefixtures("audited")
def test_a_job_that_kills_its_worker_is_dead_after_its_attempts_and_others_are_unaffected(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History
) -> None:
    killer = spool.file({"command": evidence.command("kill -9 $PPID; sleep 60"), "max_retries": 2})
    others = [spool.file(evidence.command()) for _ in range(100)]

    def all_ended() -> bool:
        workers.refill(2)
        return len(os.listdir(spool.root.folder(State.DONE))) == 100 and (
            spool.find(killer).state is State.DEAD
        )

    until(all_ended, "all jobs have ended")
    assert kinds(history(killer)).count("lost") == 3
    assert len(evidence.started(killer)) == 3
    assert Counter(one for one in evidence.started() if one != killer) == Counter(others)


@pytest.mark.usefixtures("audited")
def test_what_a_killed_clearance_has_left_of_a_dead_worker_is_cleared(
    spool: Spool, workers: Workers, until: Until
) -> None:
    living = workers.start()
    until(lambda: living.name, "it has begun")
    folder = Path(spool.root.workers)
    for text in ("web-7-abcd.lock", "web-7-abcd.stop", "05-x-job-1@web-7-abcd.cancel", "web-8-abcd.lock"):
        (folder / text).touch()
    held = locks.take(str(folder / "web-8-abcd.lock"))
    assert held is not None  # one that has just begun, and tells nothing of itself yet
    workers.drain()
    assert {path.name for path in folder.iterdir()} == {
        "web-8-abcd.lock",
        f"{living.name}.lock",
        f"{living.name}.yaml",
    }
    held.release()
    (folder / "web-8-abcd.lock").unlink()


LEASE = 1


@pytest.mark.usefixtures("audited")
@pytest.mark.parametrize("its_command", ["runs on", "has ended"])
def test_a_worker_that_was_taken_for_dead_records_nothing_and_goes_on_under_a_new_name(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History, its_command: str
) -> None:
    """It stands still for three leases, and to the one who takes over it is of another host."""
    with spool.root.config.open("a") as config:
        config.write(f"lock_lease_seconds: {LEASE}\n")
    release, hidden = evidence.folder / "release", evidence.folder / "hidden"
    job_id = spool.file(evidence_of_two(evidence, release, hidden))
    sleeper = workers.start()
    until(lambda: len(history(job_id)) == 1 and hidden.exists(), "it runs")
    left = int(hidden.read_text())
    buried = sleeper.name
    foreign(spool, buried)
    sleeper.popen.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    other = workers.start(changes=ON_A_SHARE)
    until(lambda: spool.find(job_id).state is State.DONE, "another worker has taken it over")
    if its_command == "has ended":
        release.touch()
    until(lambda: time.monotonic() - stopped > 3 * LEASE, "three leases have passed")
    outcome = Path(spool.find(job_id).path).read_bytes()
    sleeper.popen.send_signal(signal.SIGCONT)
    until(lambda: not psutil.pid_exists(left), "its command is stopped")
    assert kinds(history(job_id)) == ["started", "lost", "started", "completed"]
    assert f"-{other.pid}-" in history(job_id)[-1]["worker"]
    other.popen.terminate()
    assert other.wait() == 0
    later = spool.file(evidence.command())
    until(lambda: spool.find(later).state is State.DONE, "it works on")
    assert history(later)[-1]["worker"] == sleeper.name != buried
    assert Path(spool.find(job_id).path).read_bytes() == outcome


@pytest.mark.usefixtures("audited")
def test_a_worker_of_another_host_that_shows_signs_of_life_keeps_its_job(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History
) -> None:
    with spool.root.config.open("a") as config:
        config.write(f"lock_lease_seconds: {LEASE}\n")
    release = evidence.folder / "release"
    job_id = spool.file(evidence.command(f"until test -e {release}; do sleep 0.1; done"))
    worker = workers.start()
    until(lambda: len(history(job_id)) == 1, "it runs")
    foreign(spool, worker.name)
    assert workers.start(changes=ON_A_SHARE).name
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 5 * LEASE, "the other has looked more than once")
    release.touch()
    until(lambda: spool.find(job_id).state is State.DONE, "it ends")
    assert kinds(history(job_id)) == ["started", "completed"]
    assert history(job_id)[-1]["worker"] == worker.name


def evidence_of_two(evidence: Evidence, release: Path, hidden: Path) -> str:
    """The first run bears no mark by which the taker could end it, as if it were on another host."""
    first = f"echo $$ > {hidden}.new; mv {hidden}.new {hidden}; until test -e {release}; do sleep 0.1; done"
    return (
        f"if test $QUEUECTL_ATTEMPT = 2; then {evidence.command()}; exit; fi; "
        f"env -i PATH=$PATH setsid sh -c '{first}' >/dev/null 2>&1 & wait; exit 7"
    )


def foreign(spool: Spool, name: str) -> None:
    """Make a worker look as if it ran on another host, to one who takes the directory for a share."""
    path = Path(spool.root.workers, f"{name}.yaml")
    at = path.read_text().index("place: ") + len("place: ")
    with path.open("r+") as file:
        file.seek(at)
        file.write("00000000")
