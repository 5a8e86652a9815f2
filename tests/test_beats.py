"""Who is alive where no lock tells: by the beats that are seen, and by no clock but the observer's own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl.spool import presence

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl import Spool
    from tests.conftest import Until

LEASE = 0.4
NAME = "elsewhere-7-abcd"
MOMENTS = ["1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"]


@pytest.fixture
def beat(spool: Spool) -> Callable[[int, str], None]:
    """Shows a sign of life of a worker on another host, whose clock says so."""

    def show(count: int, at: str) -> None:
        facts = {"host": "elsewhere", "pid": "7", "kind": "drain", "place": "another-boot/pid:[1]/9"}
        facts |= {"started_at": at, "beat": json.dumps({"count": count, "at": at, "jobs_done": 0})}
        text = "".join(f"{key}: {value}\n" for key, value in facts.items())
        Path(spool.root.workers, f"{NAME}.yaml").write_text(text)

    return show


@pytest.fixture
def onlooker(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> presence.Onlooker:
    """On a share: elsewhere a worker of another boot could only be dead."""
    monkeypatch.setattr(type(spool.root), "is_shared", True)
    return presence.Onlooker(spool.root)


@pytest.mark.parametrize("at", MOMENTS)
def test_a_beat_that_changes_is_life_and_one_that_stood_still_for_the_lease_is_death(
    beat: Callable[[int, str], None], onlooker: presence.Onlooker, until: Until, at: str
) -> None:
    begun = time.monotonic()
    count = 0
    while time.monotonic() - begun < 2 * LEASE:
        beat(count := count + 1, at)
        assert onlooker.is_alive(NAME, LEASE)
    begun = time.monotonic()
    until(lambda: not onlooker.is_alive(NAME, LEASE), "it is taken for dead", seconds=10)
    assert time.monotonic() - begun >= LEASE * 0.9
    beat(count + 1, at)
    assert onlooker.is_alive(NAME, LEASE)
