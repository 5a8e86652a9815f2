"""Very many jobs, and events that do not arrive."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import QueueError, Spool, State
from queuectl.spool import jobs
from queuectl.spool.names import make_id
from queuectl.times import stamp, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import AtOnce, Evidence, Until, Workers

    Figure = Callable[[str, str], None]
    Size = Callable[[int, int], int]

INSTANCES = "/proc/sys/user/max_inotify_instances"


def pending(spool: Spool, name: str) -> Path:
    return Path(spool.root.folder(State.PENDING), name)


def fill(spool: Spool, count: int, command: str = "':'") -> None:
    """Put whole job files into pending/ as fast as a program can."""
    moment = stamp(utc_now())
    for _ in range(count):
        pending(spool, f"10-{moment}-{make_id()}.yaml").write_text(f"command: {command}\n")


def test_more_files_than_the_event_queue_holds_are_all_run(
    spool: Spool, workers: Workers, until: Until, size: Size, figure: Figure
) -> None:
    """The worker sleeps while they come, so that the events of the system overflow."""
    count = size(500, 30_000)
    worker = workers.start()
    assert worker.name
    spool.wait(spool.file("true"), 10)
    worker.popen.send_signal(signal.SIGSTOP)
    fill(spool, count)
    worker.popen.send_signal(signal.SIGCONT)
    begun = time.monotonic()
    patience = size(60, 1800)
    until(lambda: len(os.listdir(spool.root.folder(State.DONE))) == count + 1, "all ran", seconds=patience)
    seconds = time.monotonic() - begun
    assert worker.is_running
    workers.stop()
    figure(
        "files that come while the watcher sleeps", f"{count:,} of {count:,} ran, {count / seconds:,.0f}/s"
    )


#: Runs a program where its user may have no inotify instance; for all other programs nothing changes.
WITHOUT_INSTANCES = ["unshare", "-Ur", "sh", "-c", f'echo 0 > {INSTANCES} && exec "$@"', "sh"]


@pytest.fixture
def without_instances() -> list[str]:
    if not shutil.which("unshare") or subprocess.call(
        [*WITHOUT_INSTANCES, "true"], stderr=subprocess.DEVNULL
    ):
        pytest.skip("using up the inotify instances needs user namespaces")
    return WITHOUT_INSTANCES


def test_without_file_events_a_worker_says_so_once_and_looks_by_itself(
    spool: Spool, workers: Workers, until: Until, evidence: Evidence, without_instances: list[str]
) -> None:
    workers.start_inside(*without_instances)
    for number in range(3):
        spool.file({"id": f"job-{number}", "command": evidence.command()})
        until(lambda: f"job-{number}" in evidence.finished(), "it ran", seconds=5)  # noqa: B023
    until(lambda: len(jobs.names_in(spool.root, State.DONE)) == 3, "all are recorded")
    assert workers.said().count("looking every poll_interval instead") == 1
    assert evidence.faults(spool) == []


def test_with_very_many_waiting_the_first_claim_comes_soon_and_the_rate_stays(
    spool: Spool, workers: Workers, size: Size, figure: Figure
) -> None:
    count = size(20_000, 1_000_000)
    with spool.root.config.open("a") as config:
        config.write("durability: none\n")
    fill(spool, 1000)
    shallow = claims_a_second(spool)[0]
    fill(spool, count)
    rate, first, memory = claims_a_second(spool)
    assert memory < 400_000
    figure(
        f"{count:,} waiting jobs",
        f"first claim after {first:.2f} s, {rate:,.0f} claims/s (of a thousand: {shallow:,.0f}), "
        f"{memory / 1000:.0f} MB",
    )


MEASURE = """
import re, sys, time
from pathlib import Path
from queuectl import Spool
from queuectl.times import utc_now
spool = Spool(sys.argv[1])
begun = time.monotonic()
with spool.member() as me:
    me.look(utc_now(), again=True)
    claim = me.claim(utc_now())
    first = time.monotonic() - begun
    begun = time.monotonic()
    for n in range(500):
        me.complete(claim, {"exit_code": 0}, utc_now())
        me.look(utc_now())
        claim = me.claim(utc_now())
    rate = 500 / (time.monotonic() - begun)
    me.complete(claim, {"exit_code": 0}, utc_now())
# Not ru_maxrss: what the process was before exec counts for that, a copy of the one that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(rate, first, peak)
"""


def claims_a_second(spool: Spool) -> tuple[float, float, int]:
    """Claims and completions a second, seconds to the first, and memory in kB of one who does just that."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, spool.path], capture_output=True, text=True, check=True
    )
    rate, first, memory = ran.stdout.split()
    return float(rate), float(first), int(memory)


def test_dlq_retry_all_twice_at_once_puts_each_job_back_once(
    spool: Spool, at_once: AtOnce, size: Size, problems: Callable[[Spool], list[str]], figure: Figure
) -> None:
    count = size(40, 5000)
    ids = [f"job-{number}" for number in range(count)]
    for filed in spool.file_many({"id": job_id, "command": "true"} for job_id in ids):
        spool.cancel_waiting(filed.id)

    def retry_all() -> Counter[str]:
        order = ids.copy()
        random.shuffle(order)
        return Counter(answer(partial(spool.retry, job_id)) for job_id in order)

    told = sum(at_once([retry_all] * 2), Counter[str]())
    assert told["done"] == count
    assert told["WrongState"] == count
    assert len(jobs.names_in(spool.root, State.PENDING)) == count
    assert problems(spool) == []
    figure("`dlq retry --all` twice at once", f"{count:,} jobs, each put back once")


def answer(action: Callable[[], object]) -> str:
    try:
        action()
    except QueueError as error:
        return type(error).__name__
    return "done"
