"""Rows about looking at large spools: `status` and `list`, whole processes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.bench import spools
from tests.bench.place import QUEUECTL, run
from tests.bench.timing import Figure, at_most, in_turn, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from queuectl import Spool
    from tests.bench.place import Place


def _looked(spool: Spool, words: list[str], folder: Path, rounds: int) -> list[float]:
    look = partial(run, [*QUEUECTL, "--spool", str(spool.path), *words], folder)
    look()
    return in_turn({"look": partial(seconds, look)}, rounds)["look"]


def status(place: Place) -> Iterator[Figure]:
    count = place.size(100_000, 200)
    folder = place.new()
    spool = spools.make(folder / "spool")
    spools.fill_done(spool, count)
    samples = _looked(spool, ["status"], folder, place.size(10, 2))
    yield Figure(f"status, {count:,} done", "s", samples, target=at_most(0.3))


def listing(place: Place) -> Iterator[Figure]:
    count = place.size(1_000_000, 500)
    folder = place.new()
    spool = spools.make(folder / "spool")
    spools.fill(spool, count)
    samples = _looked(spool, ["list", "--limit", "20"], folder, place.size(5, 2))
    yield Figure(f"list --limit 20, {count:,} waiting", "s", samples, target=at_most(1))


def status_job(place: Place) -> Iterator[Figure]:
    count = place.size(100_000, 200)
    folder = place.new()
    spool = spools.make(folder / "spool")
    spools.fill(spool, count)
    job_id = f"{spools.MEASURED}{count // 2:011}"
    samples = _looked(spool, ["status", job_id], folder, place.size(10, 2))
    yield Figure(f"status of 1 of {count:,} waiting", "s", samples)


def first_row(place: Place) -> Iterator[Figure]:
    count = place.size(100_000, 200)
    folder = place.new()
    spool = spools.make(folder / "spool")
    spools.fill(spool, count)
    words = ["sh", "-c", '"$@" | head -1 > /dev/null', "sh", *QUEUECTL, "--spool", str(spool.path), "list"]
    look = partial(run, words, folder)
    samples = in_turn({"look": partial(seconds, look)}, place.size(10, 2))["look"]
    yield Figure(f"list | head -1, {count:,} waiting", "s", samples, target=at_most(1))
