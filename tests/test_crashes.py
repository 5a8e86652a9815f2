"""Death at any point: of workers while commands run, and of any process between any two system calls."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
import pytest

from queuectl import Spool, State, disk
from queuectl.job import utc_now
from queuectl.spool import presence
from queuectl.worker.loop import Worker
from queuectl.worker.remains import stop_remains

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.job import Event
    from queuectl.spool.claiming import Claim
    from tests.conftest import Evidence, Until, Workers

    History = Callable[[str], tuple[Event, ...]]


def kinds(history: tuple[Event, ...]) -> list[str]:
    return [event["event"] for event in history]


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
    until(lambda: evidence.finished() == [job_id], "another worker has run it", seconds=6)


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

    until(all_ended, "all jobs have ended", seconds=40)
    assert kinds(history(killer)).count("lost") == 3
    assert len(evidence.started(killer)) == 3
    assert Counter(one for one in evidence.started() if one != killer) == Counter(others)


@pytest.mark.usefixtures("audited")
def test_in_a_storm_of_kills_every_job_ends_once(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    history: History,
    size: Callable[[int, int], int],
) -> None:
    count, pause = size(150, 10_000), size(150, 200) / 1000
    stubborn = 'test "$QUEUECTL_ATTEMPT" -ge 3 || exit 1'
    plan = {
        f"job-{n}": evidence.command("sleep 0.3" if n % 10 == 0 else stubborn if n % 20 == 1 else ":")
        for n in range(count)
    }
    for filed in spool.file_many(
        {"id": job_id, "command": command, "max_retries": 5} for job_id, command in plan.items()
    ):
        assert filed.error is None
    kills = 0
    wanted = size(3, 4)
    end = time.monotonic() + size(60, 3600)
    workers.refill(wanted)
    while left(spool):
        assert time.monotonic() < end, f"{left(spool)} jobs left after {kills} kills"
        # A worker that has not begun yet cannot lose anything: the victim is one that has. On a
        # slow machine, where none would get far between two kills, the storm abates in the end.
        up = [one for one in workers.running() if any(f"-{one.pid}-" in name for name in names_up(spool))]
        if up and kills < count // 3:
            random.choice(up).kill()
            kills += 1
        workers.refill(wanted)
        time.sleep(pause)
    workers.stop()
    assert kills > 3
    states = Counter(spool.find(job_id).state for job_id in plan)
    assert set(states) <= {State.DONE, State.DEAD}
    expected = count + 2 * sum(n % 20 == 1 for n in range(count))
    lost = sum(kinds(history(job_id)).count("lost") for job_id in plan)
    assert lost <= kills
    assert len(evidence.started()) <= expected + kills


def names_up(spool: Spool) -> list[str]:
    return presence.described(spool.root)


def left(spool: Spool) -> int:
    """How many jobs have not ended."""
    return sum(
        name.endswith(".yaml")
        for state in (State.PENDING, State.PROCESSING, State.FAILED)
        for name in os.listdir(spool.root.folder(state))
    )


@pytest.mark.usefixtures("audited")
def test_a_worker_that_was_taken_for_dead_records_nothing_and_goes_on_under_a_new_name(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History
) -> None:
    with spool.root.config.open("a") as config:
        config.write("lock_lease_seconds: 1\n")
    job_id = spool.file(evidence_of_two(evidence))
    sleeper = workers.start()
    until(lambda: len(history(job_id)) == 1, "it runs")
    buried = sleeper.name
    foreign(spool, buried)
    sleeper.popen.send_signal(signal.SIGSTOP)
    other = workers.start()
    until(lambda: spool.find(job_id).state is State.DONE, "another worker has taken it over")
    sleeper.popen.send_signal(signal.SIGCONT)
    until(lambda: not runs_of(job_id, "1"), "its command is stopped", seconds=3)
    assert kinds(history(job_id)) == ["started", "lost", "started", "completed"]
    assert history(job_id)[-1]["worker"] == other.name
    other.popen.terminate()
    assert other.wait() == 0
    later = spool.file(evidence.command())
    until(lambda: spool.find(later).state is State.DONE, "it works on")
    assert history(later)[-1]["worker"] == sleeper.name != buried


def evidence_of_two(evidence: Evidence) -> str:
    """The first run cannot be stopped by a taker that believes it to be on another host."""
    return (
        f"if test $QUEUECTL_ATTEMPT = 2; then {evidence.command()}; exit; fi; "
        "trap 'exit 1' TERM; while :; do sleep 0.1; done"
    )


def foreign(spool: Spool, name: str) -> None:
    """Make a worker look as if it ran on another host."""
    path = Path(spool.root.workers, f"{name}.yaml")
    text = path.read_text()
    at = text.index("place: ") + len("place: ")
    with path.open("r+") as file:
        file.seek(at)
        file.write(text[at:].replace(text[at : at + 4], "0000", 1)[:4])


def runs_of(job_id: str, attempt: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            names = process.environ()
            if names.get("QUEUECTL_JOB_ID") == job_id and names.get("QUEUECTL_ATTEMPT") == attempt:
                found.append(process.pid)
    return found


# ── death at any system call ──────────────────────────────────────────────────────────────────


class Deadly:
    """The system calls of the queue, of which the n-th is the last thing that this process does.

    `how` says whether it dies before that call, after it, or, where the call writes, half way.
    """

    def __init__(self, n: int, how: str) -> None:
        self._n = n
        self._how = how
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._count += 1
            if self._count < self._n:
                return real(*arguments, **named)
            if self._how == "after":
                real(*arguments, **named)
            elif self._how == "half way" and name == "write":
                descriptor, data = arguments
                os.write(descriptor, data[: len(data) // 2])
            os._exit(DEADLY)

        return call


DEADLY = 9


def survives(action: Callable[[], object], kernel: object = os) -> bool:
    """Run an action in a process of its own, on this kernel; whether it came to its end."""
    child = os.fork()
    if child == 0:
        finish_child(action, kernel)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, DEADLY}, f"the process ended with {code}; its traceback is on stderr"
    return code == 0


def finish_child(action: Callable[[], object], kernel: object) -> NoReturn:
    code = 1
    try:
        disk.kernel = kernel
        action()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is: this process must not return into pytest
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


@dataclass
class Scene:
    """A spool, and what is known of it before the deadly action."""

    spool: Spool
    told: Path
    ids: list[str] = field(default_factory=list)
    unnamed: int = 0

    def tell(self, job_id: str) -> None:
        """What printing an id is to a person: from here on the job must not be lost."""
        with self.told.open("a") as file:
            file.write(f"{job_id}\n")

    def promised(self) -> set[str]:
        return set(self.ids) | set(self.told.read_text().split())


def claimed(scene: Scene, *, begun: bool = True) -> Claim:
    """A claim of a member that lives as long as this process."""
    member = scene.spool.member()
    now = utc_now()
    member.look(now)
    claim: Claim = member.claim(now)
    assert claim
    KEPT.append(member)
    if begun:
        claim, attempt, logs = member.begin(claim)
        disk.close(*logs)
        return claim.noted(*member.started(claim, attempt, 0, now))
    return claim


KEPT: list[Any] = []


def file_one(scene: Scene) -> None:
    scene.tell(scene.spool.file("true"))


def file_with_id(scene: Scene) -> None:
    scene.tell(scene.spool.file({"id": "chosen", "command": "true"}))


def file_several(scene: Scene) -> None:
    for filed in scene.spool.file_many([{"id": f"chosen-{n}", "command": "true"} for n in range(3)]):
        scene.tell(filed.id)


def claim_and_complete(scene: Scene) -> None:
    claim = claimed(scene)
    KEPT[-1].complete(claim, {"exit_code": 0, "seconds": 0.0}, utc_now())
    KEPT[-1].leave()


def claim_and_fail(scene: Scene) -> None:
    claim = claimed(scene)
    KEPT[-1].fail(claim, {"exit_code": 1, "seconds": 0.0, "error": "exit status 1"}, utc_now(), 0.0)
    KEPT[-1].leave()


def retry(scene: Scene) -> None:
    scene.spool.retry(scene.ids[0])


def cancel(scene: Scene) -> None:
    scene.spool.cancel_waiting(scene.ids[0])


def take_drop_in(scene: Scene) -> None:
    with scene.spool.member() as member:
        for _ in range(2):
            member.look(utc_now(), again=True)


def recover(scene: Scene) -> None:
    with scene.spool.member() as member:
        member.recover(stop_remains, utc_now())


def nothing_before(scene: Scene) -> None:
    """The scene begins with an empty spool."""


def waiting(scene: Scene) -> None:
    scene.ids.append(scene.spool.file({"id": "first", "command": "true"}))


def dead(scene: Scene) -> None:
    waiting(scene)
    assert survives(lambda: end_as_dead(scene))


def end_as_dead(scene: Scene) -> None:
    claim = claimed(scene)
    KEPT[-1].end(claim, {"event": "failed", "attempt": 1, "at": "x", "worker": claim.owner, "error": "e"})
    KEPT[-1].leave()


def orphaned(scene: Scene) -> None:
    """A worker died while the command ran."""
    waiting(scene)
    assert not survives(lambda: (claimed(scene), os._exit(DEADLY)))


def orphaned_with_an_outcome(scene: Scene) -> None:
    """A worker died between recording the outcome and the move."""
    waiting(scene)

    def action() -> None:
        claim = claimed(scene)
        done = {"event": "completed", "attempt": 1, "at": "x", "worker": claim.owner, "exit_code": 0}
        claim.noted(done)
        os._exit(DEADLY)

    assert not survives(action)


def drop(scene: Scene, name: str, text: str, job_id: str | None = None) -> None:
    """Put a file into pending/ that has stood still for an hour; without an id it may be given any."""
    path = Path(scene.spool.root.folder(State.PENDING), name)
    path.write_text(text)
    long_ago = (utc_now() - timedelta(hours=1)).timestamp()
    os.utime(path, (long_ago, long_ago))
    if job_id is None:
        scene.unnamed += 1
    else:
        scene.ids.append(job_id)


def dropped(scene: Scene) -> None:
    drop(scene, "note.yml", "command: 'true'\n")


def dropped_with_id(scene: Scene) -> None:
    drop(scene, "note.yaml", "id: its-own\ncommand: 'true'\n", "its-own")


def dropped_twin(scene: Scene) -> None:
    """The name of the file suggests the id of a job that is there already."""
    scene.ids.append(scene.spool.file({"id": "note", "command": "true"}))
    assert survives(partial(drain, scene))
    dropped(scene)


def dropped_json(scene: Scene) -> None:
    drop(scene, "note.json", '{"command": "true"}')


def waiting_json(scene: Scene) -> None:
    """JSON under a name that sorts already is written anew by whoever claims it."""
    name = "05-20260101T000000.000000Z-json.yaml"
    drop(scene, name, '{"command": "true"}', "json")


POINTS: dict[str, tuple[Callable[[Scene], None], Callable[[Scene], None]]] = {
    "filing": (nothing_before, file_one),
    "filing under a chosen id": (nothing_before, file_with_id),
    "filing several": (nothing_before, file_several),
    "claiming and completing": (waiting, claim_and_complete),
    "claiming and failing": (waiting, claim_and_fail),
    "retrying": (dead, retry),
    "cancelling": (waiting, cancel),
    "taking a drop in": (dropped, take_drop_in),
    "taking a drop in that has an id": (dropped_with_id, take_drop_in),
    "taking a drop in whose name is another job's id": (dropped_twin, take_drop_in),
    "taking JSON in": (dropped_json, take_drop_in),
    "claiming JSON": (waiting_json, claim_and_complete),
    "recovering a lost run": (orphaned, recover),
    "recovering an outcome": (orphaned_with_an_outcome, recover),
}


def ways(size: Callable[[int, int], int]) -> Iterator[tuple[int, str]]:
    """Where to die, and how: quickly at every second call, or in full at each in each way."""
    hows = ("before", "after", "half way")[: size(1, 3)]
    return ((n, how) for n in itertools.count(1, size(2, 1)) for how in hows)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.timeout(900)
def test_death_before_any_system_call_loses_no_job_and_doubles_none(
    new_spool: Callable[[str], Spool],
    tmp_path: Path,
    size: Callable[[int, int], int],
    problems_left: Callable[[Spool], list[str]],
    places: Callable[[Spool], dict[str, list[State]]],
    point: str,
) -> None:
    before, action = POINTS[point]
    faults: dict[str, object] = {}
    for n, how in ways(size):
        scene = Scene(new_spool(f"spool-{n}-{how}"), tmp_path / f"told-{n}-{how}")
        scene.told.touch()
        before(scene)
        came_to_its_end = survives(partial(action, scene), Deadly(n, how))
        promised = scene.promised()
        assert survives(partial(drain, scene))
        found = places(scene.spool)
        wanted = [[State.DONE], [State.DEAD]] if action in {retry, cancel} else [[State.DONE]]
        fault = [
            f"{job_id} is in {found.get(job_id)}" for job_id in promised if found.get(job_id) not in wanted
        ]
        fault += [f"{job_id} is in {states}" for job_id, states in found.items() if len(states) > 1]
        fault += [
            f"{job_id} ran again after it had completed"
            for job_id in promised & set(found)
            if kinds(history_of(scene.spool, job_id)).count("completed") > 1
        ]
        strangers = {job_id: states for job_id, states in found.items() if job_id not in promised}
        if scene.unnamed and list(strangers.values()) != [[State.DONE]] * scene.unnamed:
            fault.append(f"the drop has become {strangers}")
        fault += problems_left(scene.spool)
        if fault:
            faults[f"{how} call {n}"] = fault
        if came_to_its_end and how == "before":
            break
    assert n > 5
    assert faults == {}


def history_of(spool: Spool, job_id: str) -> tuple[Event, ...]:
    job = spool.find(job_id).job
    return job.history if job else ()


def drain(scene: Scene) -> None:
    Worker(scene.spool.root, "drain", drain=True).run()
