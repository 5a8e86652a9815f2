"""Schedules written by hand, each on many orders of the same calls."""

from __future__ import annotations

from functools import partial

import pytest

from queuectl import State, times
from queuectl.spool import requests
from tests.simulation import people
from tests.simulation.rules import LEASE
from tests.simulation.scene import Scene
from tests.simulation.shares import PROFILES

SHARES = [name for name in PROFILES if name != "local"]


@pytest.mark.parametrize("profile", PROFILES)
def test_of_five_workers_that_race_for_a_job_one_runs_it(profile: str) -> None:
    for seed in range(10):
        with Scene(profile, seed) as scene:
            host = scene.host("one")
            job = scene.file(host, "sim 0.5 0 end")
            for number in range(4):
                scene.worker(host if profile == "local" else scene.host(f"other{number}"))
            scene.settle()
            assert len(scene.runs(job)) == 1
            assert [event["event"] for event in scene.history(job)] == ["started", "completed"]


@pytest.mark.parametrize("profile", SHARES)
def test_nothing_of_a_worker_that_is_cut_off_runs_once_another_takes_its_job_over(profile: str) -> None:
    with Scene(profile) as scene:
        one, two = scene.host("one"), scene.host("two")
        cut_off = scene.worker(one)
        job = scene.file(two, "sim 15 0 stubborn end")
        scene.until(lambda: scene.running(job))
        scene.run(1.0)
        scene.worker(two)
        scene.cut_off(one, seconds=3 * LEASE)
        scene.until(lambda: len(scene.runs(job)) == 2)
        first, second = scene.runs(job)
        assert (first.process, first.was_stopped) == (cut_off, True)
        assert first.ends < second.began
        scene.settle()
        assert scene.state(job) is State.DONE
        assert [event["event"] for event in scene.history(job)] == ["started", "lost", "started", "completed"]


@pytest.mark.parametrize("calls", range(1, 6))
def test_a_command_ends_in_time_whatever_call_its_worker_hangs_in(calls: int) -> None:
    with Scene("nfs", calls) as scene:
        one, two = scene.host("one"), scene.host("two")
        scene.worker(one)
        scene.cut_off_in_a_run(calls, seconds=3 * LEASE)
        job = scene.file(two, "sim 60 0 end")
        scene.until(lambda: scene.running(job))
        scene.worker(two)
        scene.until(lambda: len(scene.runs(job)) == 2)
        assert scene.runs(job)[0].ends < scene.runs(job)[1].began


def test_a_worker_that_stood_still_while_its_job_was_taken_over_records_nothing() -> None:
    with Scene("nfs") as scene:
        one, two = scene.host("one"), scene.host("two")
        stopped = scene.worker(one)
        job = scene.file(two, "sim 60 0 end")
        scene.until(lambda: scene.running(job))
        scene.run(1.0)
        scene.stop(stopped, seconds=3 * LEASE)
        scene.worker(two)
        scene.until(lambda: len(scene.runs(job)) == 2)
        scene.until(lambda: len(scene.running(job)) == 1)
        assert scene.running(job)[0].machine is two
        scene.settle()
        assert [event["event"] for event in scene.history(job)] == ["started", "lost", "started", "completed"]


@pytest.mark.parametrize("codes", ["0", "1,0"])
@pytest.mark.parametrize("takes", [0.01, 2])
def test_a_worker_that_dies_at_any_call_of_a_run_costs_one_run_at_most(takes: float, codes: str) -> None:
    for calls in range(1, 80):
        with Scene(seed=calls) as scene:
            host = scene.host("one")
            job = scene.file(host, f"sim {takes} {codes} end")
            second = scene.file(host, "sim 0.01 0 end", "second")
            scene.kill(scene.worker(host), calls)
            scene.settle()
            assert scene.state(job) is scene.state(second) is State.DONE
            assert len(scene.runs(job)) + len(scene.runs(second)) <= 3 + codes.count(",")


@pytest.mark.parametrize("profile", ["smb", "gluster", "sshfs"])
def test_a_worker_outlives_a_power_cut_of_its_server(profile: str) -> None:
    """Its description is on the server's disk before it claims anything, else it would be taken for dead."""
    for seed in range(10):
        with Scene(profile, seed, may_lose_power=True) as scene:
            one, two = scene.host("one"), scene.host("two")
            workers = [scene.worker(one), scene.worker(two)]
            scene.run(0.5)
            scene.restart_server()
            scene.run(3.0)
            names = [process.worker.name for process in workers if process.worker]
            scene.run(3 * LEASE)
            assert [process.worker.name for process in workers if process.worker] == names
            scene.settle()


def test_a_worker_lists_again_within_a_minute_of_a_share_that_was_away_for_long() -> None:
    """It hung in a listing for all that time; that a listing took long is no reason to wait for long."""
    for calls in range(1, 40):
        with Scene("nfs", calls) as scene:
            host = scene.host("one")
            worker = scene.worker(host)
            scene.run(1.0)
            worker.at_call = calls, lambda scene=scene, host=host: scene.cut_off(host, seconds=60.0)
            scene.run(70.0)
            job = scene.file(scene.host("two"), "sim 0.5 0 end")
            scene.run(60.0)
            assert scene.state(job) is State.DONE


def test_a_run_of_a_worker_that_stands_still_ends_before_its_job_runs_again_on_its_host() -> None:
    with Scene("nfs") as scene:
        one, two = scene.host("one"), scene.host("two")
        stopped = scene.worker(one)
        job = scene.file(two, "sim 90 0 end")
        scene.until(lambda: scene.running(job))
        scene.run(1.0)
        scene.stop(stopped, seconds=10 * LEASE)
        scene.act(two, lambda world: requests.pause(world.root(), times.utc_now()))
        rescuer = scene.worker(two)
        scene.until(lambda: scene.world.disk.tree("/spool/pending"))
        scene.kill(rescuer)
        scene.worker(one)
        scene.act(two, people.resume)
        scene.until(lambda: len(scene.runs(job)) == 2)
        first, second = scene.runs(job)
        assert first.machine is second.machine
        assert first.was_stopped


def test_a_repair_keeps_the_logs_and_the_id_of_a_job_that_old_listings_do_not_show() -> None:
    for seed in range(10):
        with Scene("sshfs", seed) as scene:
            one, two = scene.host("one"), scene.host("two")
            scene.worker(one)
            job = scene.file(one, "sim 4 0 end")
            scene.until(partial(scene.running, job))
            scene.act(two, people.repair)
            scene.run(6.0)
            scene.act(two, people.repair)
            scene.settle()


def test_an_urgent_job_goes_before_those_that_have_waited_longer() -> None:
    with Scene("smb") as scene:
        host = scene.host("one")
        scene.worker(host)
        for number in range(4):
            scene.file(host, "sim 5 0 end", f"old-{number}")
        scene.until(lambda: scene.running("old-0"))
        scene.file(host, "sim 0.5 0 end", "urgent", priority=9)
        scene.until(lambda: scene.runs("urgent"))
        assert not any(scene.runs(f"old-{number}") for number in range(1, 4))


def test_a_job_that_is_cancelled_while_it_runs_is_dead_within_seconds() -> None:
    with Scene("nfs") as scene:
        one, two = scene.host("one"), scene.host("two")
        scene.worker(one)
        job = scene.file(two, "sim 60 0 stubborn end")
        scene.until(lambda: scene.running(job))
        begun = scene.world.time
        scene.act(two, people.cancel, 0)
        assert scene.state(job) is State.DEAD
        assert scene.world.time < begun + 10.0
        assert not scene.running(job)


def test_a_person_who_dies_at_any_call_of_a_change_of_a_held_job_leaves_it_held() -> None:
    for calls in range(1, 50):
        with Scene(seed=calls) as scene:
            host = scene.host("one")
            job = scene.file(host, "sim 0.5 0 end")
            scene.act(host, people.hold, 0)
            person = scene.world.start(host, "person", partial(people.set_priority, scene.world, 0, 3))
            scene.kill(person, calls)
            scene.until(partial(getattr, person, "is_dead"))
            scene.worker(host)
            scene.run(2 * LEASE)
            assert (scene.state(job), scene.runs(job)) == (State.PENDING, [])
            scene.settle()
            assert scene.state(job) is State.DONE
