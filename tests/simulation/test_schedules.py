"""Schedules of many hosts, drawn from seeds: each promise of the protocol holds after every step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.shares import PROFILES

TOP = Path(__file__).parents[2]
#: Of each kind of file system: 2,002 schedules in all.
EACH = 286


def simulation(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *words],
        cwd=TOP,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)  # some seconds on a machine that is not busy
@pytest.mark.parametrize("profile", PROFILES)
def test_no_schedule_breaks_a_promise(profile: str) -> None:
    ran = simulation("run", str(EACH), "--jobs", "1", "--profile", profile)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{EACH} schedules" in ran.stdout


def test_no_schedule_that_failed_once_fails_again() -> None:
    ran = simulation("kept")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_seed_is_always_the_same_schedule() -> None:
    once, again = simulation("replay", "7"), simulation("replay", "7")
    assert once.stdout == again.stdout
    assert re.search(r"host\d/worker-\d+ +rename +pending/\S+ processing/\S+@host\d-\d+-", once.stdout)
