"""One queue on a real share, worked off by several machines: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.job import State
from tests.conftest import wait_until
from tests.shares.conftest import LEASE

if TYPE_CHECKING:
    from tests.shares.conftest import Site
    from tests.shares.network import Machine

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
CACHED = "reconnect,ServerAliveInterval=1,ServerAliveCountMax=3"  # sshfs's own directory cache of 20 s

WRITE_SLOWLY = """
import sys, time
with open(sys.argv[1], "w") as job:
    for part in sys.argv[2:]:
        job.write(part)
        job.flush()
        time.sleep(1.2)
"""


def status(machine: Machine) -> dict[str, dict[str, Any]]:
    """What `worker status` tells of each worker, as this machine sees it."""
    lines = machine.queuectl("worker", "status", "--json").splitlines()
    return {worker["name"]: worker for worker in map(json.loads, lines)}


# ── claims ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "options"), [("sshfs", CACHED), ("glusterfs", "")], indirect=["kind"])
def test_each_job_runs_once_whichever_machine_claims_it(site: Site) -> None:
    ids = site.file(site.alpha, [site.command()] * 150) + site.file(site.beta, [site.command()] * 150)
    site.drain(site.alpha, site.alpha, site.beta, site.beta)
    site.drain(site.alpha)  # what a cache had hidden
    jobs = site.audit(ids)
    assert {job["state"] for job in jobs.values()} == {"completed"}
    assert sorted(site.evidence.started()) == sorted(ids)
    assert len({job["worker"].split("-")[0] for job in jobs.values()}) == 2
    assert "ERROR" not in site.alpha.said() + site.beta.said()


def test_an_id_that_two_machines_file_at_once_is_taken_once(site: Site) -> None:
    wanted = [f"id-{number}" for number in range(40)]
    lines = site.net.folder / "jobs"
    lines.write_text("".join(json.dumps({"id": name, "command": site.command()}) + "\n" for name in wanted))
    with ThreadPoolExecutor(2) as pool:
        filed = pool.map(
            lambda machine: machine.queuectl("enqueue", "--file", lines, status=None).split(),
            (site.alpha, site.beta),
        )
    assert sorted(name for names in filed for name in names) == sorted(wanted)
    site.drain(site.beta)
    site.audit(wanted)
    assert sorted(site.evidence.started()) == sorted(wanted)


# ── what is asked from elsewhere ──────────────────────────────────────────────────────────────


def test_pause_cancel_stop_and_the_end_of_a_job_reach_the_other_machine(site: Site) -> None:
    site.alpha.queuectl("enqueue", "--id", "long", site.command("echo begun; sleep 60"))
    worker = site.alpha.worker()
    wait_until(lambda: site.evidence.started("long"), "it runs")
    followed = site.net.folder / "followed"
    followed.touch()
    follow = site.beta.queuectl_words("logs", "long", "--follow")
    following = site.beta.start("sh", "-c", f"exec {follow} > {followed}")
    wait_until(lambda: "begun" in followed.read_text(), "its output is seen", 30)
    site.beta.queuectl("cancel", "long")
    site.reaches("long", State.DEAD)
    assert following.wait(40) == 0
    site.beta.queuectl("pause")
    wait_until(lambda: [one["state"] for one in status(site.beta).values()] == ["paused"], "it is paused")
    time.sleep(1)  # five looks at what is asked
    site.alpha.queuectl("enqueue", "--id", "next", site.command())
    time.sleep(1)
    assert site.where("next") == [State.PENDING]
    waiting = site.beta.start(*site.beta.queuectl_words("wait", "next", "--timeout", "40").split())
    site.beta.queuectl("resume")
    assert waiting.wait(45) == 0
    site.beta.queuectl("worker", "stop")
    assert worker.wait(20) == 0
    site.audit(["long", "next"])


# ── machines that die, and shares that go away ────────────────────────────────────────────────


def test_what_a_machine_did_that_lost_its_power_is_done_by_others(site: Site) -> None:
    ids = site.file(site.alpha, [site.command("sleep 0.05")] * 60)
    site.alpha.queuectl("enqueue", "--id", "long", "--priority", "10", site.command("sleep 2"))
    for machine in (site.alpha, site.alpha, site.beta, site.beta):
        machine.worker()
    wait_until(lambda: len(site.evidence.finished()) > 10, "they are at work")
    site.alpha.kill()
    wait_until(lambda: len(site.names(State.DONE)) == 61, "the other machine has done all", 60)
    site.beta.queuectl("worker", "stop")
    jobs = site.audit([*ids, "long"])
    lost = [job for job in jobs.values() if any(event["event"] == "lost" for event in job["history"])]
    assert 1 <= len(lost) <= 4  # of each of the two workers that died, the run and the outcome it owed
    assert len(site.evidence.started()) <= 61 + len(lost)


def test_a_machine_that_is_cut_off_lets_go_before_another_takes_over(site: Site) -> None:
    site.alpha.queuectl("enqueue", "--id", "long", site.command("sleep 6"))
    site.alpha.worker()
    wait_until(lambda: site.evidence.started("long"), "it runs")
    site.beta.worker()
    wait_until(lambda: len(status(site.beta)) == 2, "the other watches")
    time.sleep(1)
    site.alpha.cut()
    wait_until(lambda: not site.alpha.running("sleep 6"), "it is stopped there", 2 * LEASE)
    assert len(site.evidence.started("long")) == 1
    wait_until(lambda: len(site.evidence.started("long")) == 2, "it runs on the other", 30)
    site.alpha.mend()
    site.reaches("long", State.DONE)
    wait_until(lambda: "goes on under a new name" in site.alpha.said(), "it goes on", 60)
    site.file(site.beta, [site.command()] * 20)
    wait_until(lambda: len(site.names(State.DONE)) == 21, "the rest is done", 30)
    site.alpha.queuectl("worker", "stop")
    jobs = site.jobs()
    events = [(event["event"], event["attempt"]) for event in jobs["long"]["history"]]
    assert events == [("started", 1), ("lost", 1), ("started", 2), ("completed", 2)]


@pytest.mark.parametrize("kind", ["sshfs"], indirect=True)
def test_a_command_is_killed_in_time_even_while_its_worker_hangs(site: Site) -> None:
    (client,) = site.alpha.running("sshfs")
    site.alpha.queuectl("worker", "start")  # its log is on the share, too: a line for it hangs
    site.beta.queuectl("enqueue", "--id", "long", site.command("sleep 60"))
    wait_until(lambda: site.evidence.started("long"), "it runs")
    os.kill(client, signal.SIGSTOP)
    wait_until(lambda: not site.alpha.running("sleep 60"), "it is killed", 3 * LEASE)
    assert len(site.evidence.started("long")) == 1, "others took it over before"
    os.kill(client, signal.SIGCONT)
    wait_until(lambda: len(site.evidence.started("long")) == 2, "it runs again", 30)
    site.beta.queuectl("cancel", "long")
    site.reaches("long", State.DEAD)
    events = [(event["event"], event["attempt"]) for event in site.jobs()["long"]["history"]]
    assert events == [("started", 1), ("returned", 1), ("started", 2), ("cancelled", 2)]


def test_work_goes_on_when_the_server_has_started_anew(site: Site) -> None:
    ids = site.file(site.alpha, [site.command("sleep 0.05")] * 80)
    for machine in (site.alpha, site.beta):
        machine.worker()
    wait_until(lambda: len(site.evidence.finished()) > 10, "they are at work")
    site.share.restart()
    wait_until(lambda: len(site.names(State.DONE)) == 80, "all is done", 60)
    site.beta.queuectl("worker", "stop")
    site.audit(ids)


# ── clocks ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not os.path.exists(FAKETIME), reason="not installed: apt-get install faketime")
@pytest.mark.parametrize("minutes", [5, -5])
def test_a_machine_with_a_wrong_clock_goes_by_that_of_the_share(site: Site, minutes: int) -> None:
    clock = {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME": f"{minutes * 60:+d}",
        "NO_FAKE_STAT": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    begun = time.time()
    site.beta.queuectl("enqueue", "--id", "later", "--delay", "6s", site.command())
    site.beta.queuectl("enqueue", "--id", "fails", "--max-retries", "1", site.command("exit 1"))
    site.alpha.worker(env=clock)
    wait_until(lambda: site.where("fails") == [State.DEAD], "it is tried twice", 20)
    (worker,) = status(site.beta).values()
    assert worker["host"] == "alpha"
    assert abs(worker["clock_offset_seconds"] - minutes * 60) < 2
    assert worker["beat_age_seconds"] < LEASE
    word = "ahead of" if minutes > 0 else "behind"
    assert f"s {word} the share's" in site.beta.queuectl("status")
    assert f"s {word} the share's" in site.alpha.said()
    site.reaches("later", State.DONE, 20)
    assert time.time() - begun >= 5
    (run,) = [event for event in site.jobs()["later"]["history"] if event["event"] == "completed"]
    assert run["seconds"] >= 0


# ── files that are dropped ────────────────────────────────────────────────────────────────────


def test_a_file_that_is_written_slowly_on_another_machine_runs_once_it_is_whole(site: Site) -> None:
    site.alpha.worker()
    wait_until(lambda: status(site.beta), "a worker is there")
    path = site.beta.place / "spool/pending/slow.yaml"
    parts = ("command: |\n", f"  touch {site.net.folder}/half", "X\n", f"  {site.command()}")
    site.beta.run(sys.executable, "-c", WRITE_SLOWLY, path, *parts)
    site.reaches("slow", State.DONE, 40)
    assert not (site.net.folder / "half").exists()
    assert site.evidence.started() == ["slow"]


# ── check --share ─────────────────────────────────────────────────────────────────────────────


def test_two_hosts_find_out_together_that_a_queue_is_safe_and_leave_nothing(site: Site) -> None:
    def check(machine: Machine) -> dict[str, Any]:
        words = machine.queuectl_words("check", "--share", machine.place, "--json")
        report: dict[str, Any] = json.loads(machine.run("sh", "-c", words))
        return report

    before = sorted(path.name for path in site.share.export.iterdir())
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(check, (site.alpha, site.beta)))
    for report, other in zip(reports, ("beta", "alpha"), strict=True):
        both = report["together"]
        assert report["verdict"] == "safe", report
        assert report["filesystem"] == f"fuse.{site.share.kind}"
        assert (both["other_host"], both["same_mount"]) == (other, False)
        assert (both["created_twice"], both["claimed_twice"], both["claims_lost"]) == (0, 0, 0)
        assert both["lock_excludes"] is (site.share.kind == "glusterfs")
        assert set(report["round_trips"]) == {"create", "append", "read", "rename", "list", "remove"}
    assert sorted(path.name for path in site.share.export.iterdir()) == before
