"""One queue on a real share, worked off by several machines: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.job.model import State
from tests.shares.conftest import LONG, SHORT
from tests.shares.network import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shares.conftest import Site
    from tests.shares.network import Machine

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
CACHED = "reconnect,ServerAliveInterval=1,ServerAliveCountMax=3"  # sshfs's own directory cache of 20 s
#: A name that was asked for before it was there stays "not there", as on NFS.
FORGETFUL = [
    ("sshfs", "dir_cache=no,negative_timeout=600,reconnect"),
    ("glusterfs", "negative-timeout=600"),
]

WRITE_SLOWLY = """
import sys, time
with open(sys.argv[1], "w") as job:
    for part in sys.argv[2:]:
        job.write(part)
        job.flush()
        time.sleep(1.2)
"""

MAKE = """
import sys
from queuectl.system import files as disk
for number in range(2000):
    disk.create(f"{sys.argv[1]}/{number}")
    print(number)
"""
LOOK_FOR = """
import sys
from queuectl.system import files as disk
from queuectl.errors import StorageTrouble
for number in range(2000):
    is_there = False
    while not is_there:
        try:
            is_there = disk.exists(f"{sys.argv[1]}/{number}")
        except OSError as error:
            if not StorageTrouble.explains(error):  # ENODATA: it is half made
                raise
"""
SIT_DOWN = """
import pathlib, sys
from queuectl.view.share_check.meeting import Table
for number in range(1000):
    Table(pathlib.Path(sys.argv[1], str(number))).sit()
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
    lines = site.folder / "jobs"
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


def test_a_file_is_made_though_another_machine_looks_for_it_just_then(site: Site) -> None:
    folder = site.alpha.spool / "looked-for"
    site.alpha.run("mkdir", folder)
    looking = site.beta.start(sys.executable, "-c", LOOK_FOR, folder)
    made = site.alpha.run(sys.executable, "-c", MAKE, folder).split()
    assert len(made) == 2000
    assert looking.wait(60) == 0


# ── what is asked from elsewhere ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "options"), FORGETFUL, indirect=["kind"])
def test_pause_cancel_stop_and_the_end_of_a_job_reach_the_other_machine(site: Site) -> None:
    site.alpha.queuectl("enqueue", "--id", "long", site.command("echo begun; sleep 60"))
    worker = site.alpha.worker()
    wait_for(lambda: site.evidence.started("long"), "it runs")
    followed = site.folder / "followed"
    followed.touch()
    follow = site.beta.queuectl_words("logs", "long", "--follow")
    following = site.beta.start("sh", "-c", f"exec {follow} > {followed}")
    wait_for(lambda: "begun" in followed.read_text(), "its output is seen", 30)
    site.beta.queuectl("cancel", "long")
    site.reaches("long", State.DEAD)
    assert following.wait(40) == 0
    site.beta.queuectl("pause")
    wait_for(lambda: [one["state"] for one in status(site.beta).values()] == ["paused"], "it is paused")
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


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lease", [SHORT])
def test_no_job_is_lost_or_done_twice_when_machines_die_are_cut_off_and_the_server_starts_anew(
    site: Site, size: Callable[[int, int], int], figure: Callable[[str, str], None]
) -> None:
    count = size(150, 6000)
    gamma = site.machine("gamma")
    # Not so quick that one machine does the rest while the work of the others is taken over.
    slow = "*) sleep 0.3" if count < 1000 else "*[0-3]) sleep 0.05"
    body = f'case "$QUEUECTL_JOB_ID" in *4) [ "$QUEUECTL_ATTEMPT" != 1 ];; {slow};; esac'
    # One that is killed while the share is away ends once its files there are closed: have it hold none.
    command = f"exec > /dev/null 2>&1; {site.command(body)}"
    ids = site.file(site.alpha, [command] * (count // 2)) + site.file(site.beta, [command] * (count // 2))
    begun = time.monotonic()
    for machine in (site.alpha, site.beta, gamma) * 2:
        machine.worker()
    site.has_done(count // 8, 600)
    gamma.kill()
    site.has_done(count // 4, 600)
    site.alpha.cut()
    wait_for(lambda: not site.workers(site.alpha) + site.workers(gamma), "their work is taken over", 60)
    site.alpha.mend()
    site.has_done(count // 2, 600)
    assert len(site.names(State.DONE)) < count, "it was not in the middle"
    site.share.restart()
    site.boot(gamma)
    for _ in range(2):
        gamma.worker()
    site.has_done(count, 900)
    seconds = time.monotonic() - begun
    wait_for(lambda: site.alpha.said().count("goes on under a new name") == 2, "both go on", 60)
    site.beta.queuectl("worker", "stop")
    jobs = site.audit(ids)
    assert {job["state"] for job in jobs.values()} == {"completed"}
    ended = Counter(event["event"] for job in jobs.values() for event in job["history"])
    assert (ended["completed"], ended["cancelled"]) == (count, 0)
    extra = len(site.evidence.started()) - count - ended["failed"]
    # Of each worker that is lost, the run at hand and the outcome that it owes of the one before.
    assert 0 <= extra <= ended["lost"] + ended["returned"] <= 16
    figure(
        f"machines lost, cut off, server restarted ({site.share.kind})",
        f"{count} jobs, 3 machines with 2 workers each, {seconds:.0f} s: each done once, "
        f"{ended['lost']} runs lost, {ended['returned']} given back, {extra} run again",
    )


WRITE_LATE = """
import os, sys, time
folder, told, release = sys.argv[1:]
(name,) = [name for name in os.listdir(folder) if "-long@" in name]
with open(f"{folder}/{name}", "ab", buffering=0) as job:
    open(told, "x").close()
    while not os.path.exists(release):
        time.sleep(0.05)
    job.write(b'- {"event": "completed", "attempt": 1, "at": "2026-11-24T00:00:00Z", "worker": "late"}\\n')
"""


@pytest.mark.parametrize("lease", [SHORT])
def test_a_machine_that_is_cut_off_lets_go_before_another_takes_over(site: Site) -> None:
    site.alpha.queuectl("enqueue", "--id", "long", site.command("[ $QUEUECTL_ATTEMPT = 2 ] || sleep 60"))
    site.alpha.worker()
    wait_for(lambda: site.evidence.started("long"), "it runs")
    site.beta.worker()
    wait_for(lambda: len(status(site.beta)) == 2, "the other watches")
    opened, release = site.folder / "opened", site.folder / "release"
    late = site.alpha.start(
        sys.executable, "-c", WRITE_LATE, site.alpha.spool / "processing", opened, release
    )
    wait_for(opened.exists, "a write to the job's file is on its way")
    site.alpha.cut()
    wait_for(lambda: not site.alpha.running("sleep 60"), "it is stopped there")
    assert len(site.evidence.started("long")) == 1, "others took it over before"
    site.reaches("long", State.DONE)
    site.alpha.mend()
    wait_for(lambda: "goes on under a new name" in site.alpha.said(), "it goes on", 60)
    release.touch()
    late.wait(60)  # with an error or without one
    site.beta.queuectl("worker", "stop", "--timeout", "0", *site.workers(site.beta))
    site.file(site.beta, [site.command()] * 20)
    site.has_done(21)
    site.alpha.queuectl("worker", "stop")
    jobs = site.jobs()
    events = [(event["event"], event["attempt"]) for event in jobs["long"]["history"]]
    assert events == [("started", 1), ("lost", 1), ("started", 2), ("completed", 2)]


@pytest.mark.parametrize(("kind", "lease"), [("sshfs", 3 * SHORT)], indirect=["kind"])
def test_a_command_is_killed_in_time_even_while_its_worker_hangs(site: Site) -> None:
    (client,) = site.alpha.running("sshfs")
    site.alpha.queuectl("worker", "start")  # its log is on the share, too
    (worker,) = site.alpha.running("queuectl.worker")
    told = site.folder / "told"
    # It does not end when it is told to, and holds no file of the share open: it would hang in its own end.
    # It freezes the share before its worker writes that it has started, or that it runs.
    freeze = "kill -STOP $(pidof sshfs)"
    stubborn = f"exec > /dev/null 2>&1; trap ': > {told}' TERM; {freeze}; sleep 60; sleep 60"
    body = f'[ "$QUEUECTL_ATTEMPT" = 1 ] || exec sleep 60; {stubborn}'
    site.beta.queuectl("enqueue", "--id", "long", site.command(body))
    wait_for(lambda: site.evidence.started("long"), "it runs")
    stack = Path(f"/proc/{worker}/task/{worker}/stack")  # of the thread that attends to the run
    wait_for(lambda: "fuse" in stack.read_text(), "its worker hangs in a call to the share")
    wait_for(lambda: not site.alpha.running("sleep 60"), "it is killed", 30)
    assert "fuse" in stack.read_text(), "its worker may have killed it"
    assert len(site.evidence.started("long")) == 1, "others took it over before"
    assert told.exists(), "it was not told before"
    os.kill(client, signal.SIGCONT)
    wait_for(lambda: len(site.evidence.started("long")) == 2, "it runs again", 60)
    site.beta.queuectl("cancel", "long")
    site.reaches("long", State.DEAD)
    events = [(event["event"], event["attempt"]) for event in site.jobs()["long"]["history"]]
    assert events == [("started", 1), ("returned", 1), ("started", 2), ("cancelled", 2)]


def test_work_goes_on_when_the_server_has_started_anew(site: Site) -> None:
    """GlusterFS forgets the locks that its clients hold when it does."""
    release = site.folder / "release"
    until = f"while [ ! -e {release} ]; do sleep 0.05; done"
    for machine in (site.alpha, site.beta):
        machine.queuectl("enqueue", "--id", machine.name, site.command(until))
        machine.worker()
    wait_for(lambda: len(site.evidence.started()) == 2, "both are at work")
    site.share.restart()
    for machine in (site.alpha, site.beta):
        wait_for(lambda it=machine: it.run("ls", it.spool, status=None), "it has the share again")
        machine.worker()  # looks whether the others are alive when it begins
    ids = site.file(site.alpha, [site.command()] * 40)
    site.has_done(40)
    release.touch()
    site.has_done(42)
    site.beta.queuectl("worker", "stop")
    site.audit([*ids, "alpha", "beta"])
    assert sorted(site.evidence.started()) == sorted([*ids, "alpha", "beta"])


@pytest.mark.parametrize("lease", [3600])
def test_what_a_killed_worker_left_is_taken_up_on_its_machine_without_delay(site: Site) -> None:
    again = site.command("[ $QUEUECTL_ATTEMPT = 2 ] || sleep 60")
    site.alpha.queuectl("enqueue", "--id", "long", again)
    worker = site.alpha.worker()
    wait_for(lambda: site.evidence.started("long"), "it runs")
    (pid,) = site.alpha.running("queuectl.worker")
    os.kill(pid, signal.SIGKILL)
    worker.wait()
    site.drain(site.beta)
    assert site.where("long") == [State.PROCESSING], "another machine cannot know"
    site.drain(site.alpha)
    assert site.where("long") == [State.DONE]
    assert not site.alpha.running("sleep 60")
    site.audit(["long"])


# ── clocks ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not os.path.exists(FAKETIME), reason="not installed: apt-get install faketime")
def test_a_machine_with_a_wrong_clock_goes_by_that_of_the_share(site: Site) -> None:
    gamma = site.machine("gamma")
    gamma.queuectl("enqueue", "--id", "long", site.command("sleep 600"))
    gamma.worker()
    wait_for(lambda: site.evidence.started("long"), "a machine whose clock is right is at work")
    for machine, minutes, word in ((site.alpha, 5, "ahead of"), (site.beta, -5, "behind")):
        later, fails = f"later-{machine.name}", f"fails-{machine.name}"
        clock = {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME": f"{minutes * 60:+d}",
            "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        begun = time.time()
        gamma.queuectl("enqueue", "--id", later, "--delay", "4s", site.command())
        gamma.queuectl("enqueue", "--id", fails, "--max-retries", "1", site.command("exit 1"))
        worker = machine.worker(env=clock)
        site.reaches(fails, State.DEAD)
        (told,) = [one for one in status(gamma).values() if one["host"] == machine.name]
        assert abs(told["clock_offset_seconds"] - minutes * 60) < 2
        assert told["beat_age_seconds"] < LONG / 2
        assert f"s {word} the share's" in gamma.queuectl("status")
        assert f"s {word} the share's" in machine.said()
        site.reaches(later, State.DONE)
        assert time.time() - begun > 3
        gamma.queuectl("worker", "stop", *site.workers(machine))
        assert worker.wait(20) == 0
    assert site.where("long") == [State.PROCESSING]
    assert len(site.evidence.started("long")) == 1, "it was taken over from a live worker"
    gamma.queuectl("cancel", "long")
    site.reaches("long", State.DEAD)
    jobs = site.jobs()
    for name in ("later-alpha", "later-beta"):
        (run,) = [event for event in jobs[name]["history"] if event["event"] == "completed"]
        assert run["seconds"] >= 0


# ── files that are dropped ────────────────────────────────────────────────────────────────────


def test_a_file_that_is_written_slowly_on_another_machine_runs_once_it_is_whole(site: Site) -> None:
    site.alpha.worker()
    wait_for(lambda: status(site.beta), "a worker is there")
    path = site.beta.spool / "pending/slow.yaml"
    parts = ("command: |\n", f"  touch {site.folder}/half", "X\n", f"  {site.command()}")
    site.beta.run(sys.executable, "-c", WRITE_SLOWLY, path, *parts)
    site.reaches("slow", State.DONE, 40)
    assert not (site.folder / "half").exists()
    assert site.evidence.started() == ["slow"]


# ── check --share ─────────────────────────────────────────────────────────────────────────────


def test_two_hosts_that_begin_at_once_come_to_one_table(site: Site) -> None:
    folder = site.alpha.spool / "tables"
    site.alpha.run("mkdir", folder)
    words = (sys.executable, "-c", SIT_DOWN, folder)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda machine: machine.run(*words), (site.alpha, site.beta)))
    seats = [
        len(list(place.iterdir())) for place in (site.share.export / site.alpha.queue / "tables").iterdir()
    ]
    assert seats == [2] * 1000


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
    assert sorted(path.name for path in site.share.export.iterdir()) == before
