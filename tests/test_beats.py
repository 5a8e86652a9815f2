"""Who is alive where no lock tells: by the beats that are seen, and by no clock but the observer's own."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl.spool import liveness
from queuectl.spool.onlooker import Onlooker
from queuectl.spool.wake import Bell, Wake
from queuectl.system.medium import Medium
from queuectl.view.workers import workers
from queuectl.worker.keeper import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl import Spool
    from tests.conftest import StoppedClock

    Beat = Callable[[int, str], None]

LEASE = 100
NAME = "elsewhere-7-abcd"
MOMENTS = ["1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"]


@pytest.fixture
def beat(spool: Spool) -> Beat:
    """Shows a sign of life of a worker on another host, whose clock says so."""

    def show(count: int, at: str) -> None:
        facts = {"host": "elsewhere", "pid": "7", "kind": "drain", "place": "another-boot/pid:[1]/9"}
        facts |= {"started_at": at, "beat": json.dumps({"count": count, "at": at, "jobs_done": 0})}
        text = "".join(f"{key}: {value}\n" for key, value in facts.items())
        Path(spool.root.workers, f"{NAME}.yaml").write_text(text)

    return show


@pytest.fixture
def onlooker(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> Onlooker:
    """On a share: elsewhere a worker of another boot could only be dead."""
    monkeypatch.setattr(Medium, "is_shared", True)
    return Onlooker(spool.root)


@pytest.mark.parametrize("at", MOMENTS)
def test_a_beat_that_changes_is_life_and_one_that_stood_still_for_the_lease_is_death(
    beat: Beat, onlooker: Onlooker, clock: StoppedClock, at: str
) -> None:
    every = liveness.looks_every(LEASE)
    for count in range(20):
        beat(count, at)
        assert onlooker.is_alive(NAME, LEASE)
        clock.passed += every
    beat(20, at)
    assert onlooker.is_alive(NAME, LEASE)
    still_since = clock.passed
    while onlooker.is_alive(NAME, LEASE):
        clock.passed += every
    assert LEASE <= clock.passed - still_since < LEASE + every
    beat(21, at)
    assert onlooker.is_alive(NAME, LEASE)


@pytest.mark.parametrize("set_by", [timedelta(days=400), timedelta(days=-400)])
def test_a_wall_clock_that_is_set_shortens_and_lengthens_no_lease(
    beat: Beat, onlooker: Onlooker, clock: StoppedClock, set_by: timedelta
) -> None:
    beat(1, MOMENTS[1])
    assert onlooker.is_alive(NAME, LEASE)
    clock.set_by = set_by
    watched, every = 0.0, liveness.looks_every(LEASE)
    while watched < LEASE:
        assert onlooker.is_alive(NAME, LEASE)
        clock.passed += every
        watched += every
    assert not onlooker.is_alive(NAME, LEASE)


@pytest.mark.parametrize("set_by", [timedelta(days=400), timedelta(days=-400)])
def test_a_worker_s_own_silence_is_not_measured_by_the_wall_clock(
    spool: Spool, clock: StoppedClock, set_by: timedelta
) -> None:
    wake = Wake()
    with spool.member() as me, contextlib.closing(wake):
        keeper = Keeper(me, wake, Bell(spool.root, wake))
        clock.set_by = set_by
        assert keeper.silence.seconds() == 0
        assert not keeper.is_silent()
        clock.passed += keeper.lease
        assert keeper.silence.seconds() == keeper.lease
        assert keeper.is_silent()
        keeper.look()
        assert keeper.silence.seconds() == 0


def test_a_worker_is_shown_with_the_age_of_its_last_beat(spool: Spool, clock: StoppedClock) -> None:
    with spool.member():
        clock.passed += 42
        (shown,) = workers(spool.root, spool.settings())
    assert shown.beat_age_seconds > 40
