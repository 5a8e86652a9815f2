"""The clock is set while work goes on: nothing runs early, is lost, runs twice, or takes a negative time."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State
from queuectl.spool import jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Evidence, Until, Workers

LIBRARIES = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
pytestmark = pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed")

STEPS = {
    "an hour on": ["+0", "+1h"],
    "an hour back": ["+0", "-1h"],
    "ten years on and back": ["+0", "+10y", "+0"],
    "to 1970": ["+0", "-20780d"],
    "to and fro": ["+0", "+1h", "-1h", "+10y", "-20780d", "+0"],
    "over the end of summer time": ["@2026-10-25 02:59:58", "@2026-10-25 02:00:01"],
    "over its beginning": ["@2026-03-29 01:59:58", "@2026-03-29 03:00:01"],
}


class Clock:
    """The wall clock of the workers that are started with it; the monotonic one stays."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = {
            **os.environ,
            "LD_PRELOAD": LIBRARIES[0],
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "TZ": "Europe/Berlin",
        }

    def set(self, to: str) -> None:
        fresh = self._file.with_name("fresh")
        fresh.write_text(f"{to}\n")
        fresh.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture
def start_by(spool: Spool, clock: Clock, workers: Workers) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts workers that go by this clock."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", "queuectl.worker", str(spool.path), "foreground"]
        with workers.log.open("ab") as log:
            started.append(subprocess.Popen(arguments, env=clock.environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("what", STEPS)
def test_a_clock_that_is_set_under_load_makes_nothing_early_lost_or_double(
    spool: Spool,
    clock: Clock,
    start_by: Callable[[], subprocess.Popen[bytes]],
    evidence: Evidence,
    until: Until,
    size: Callable[[int, int], int],
    problems: Callable[[Spool], list[str]],
    figure: Callable[[str, str], None],
    what: str,
) -> None:
    far = spool.file({"command": evidence.command(), "run_at": "2999-01-01T00:00:00Z"})
    clock.set(STEPS[what][0])
    running = [start_by(), start_by()]
    count = size(10, 200)
    ids: list[str] = []
    again = 'test "$QUEUECTL_ATTEMPT" = 2 || exit 1'
    for step in STEPS[what]:
        clock.set(step)
        ids += [spool.file(evidence.command("sleep 0.02")) for _ in range(count)]
        ids.append(spool.file({"command": evidence.command(again), "max_retries": 1}))
        half = len(ids) - count // 2
        until(lambda: len(set(evidence.finished())) >= half, "work goes on", seconds=60)  # noqa: B023
    until(lambda: len(set(evidence.finished())) == len(ids), "all ran", seconds=60)
    until(lambda: len(jobs.names_in(spool.root, State.DONE)) == len(ids), "all are recorded")
    assert [process.poll() for process in running] == [None, None]
    assert sorted(evidence.finished()) == sorted(ids)
    assert far not in evidence.started()
    assert spool.find(far).state is State.PENDING
    events = [event for found in spool.list() if found.job for event in found.job.history]
    assert [event for event in events if event.get("seconds", 0) < 0] == []
    assert evidence.faults(spool) == []
    for process in running:
        process.terminate()
        assert process.wait(10) == 0
    assert problems(spool) == []
    figure(f"clock set {what}", f"{len(ids):,} jobs, none early, lost or double")
