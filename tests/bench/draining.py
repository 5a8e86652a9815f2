"""Rows about working waiting jobs off: alone, synced, beside many others, and against other queues."""

from __future__ import annotations

import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import peers, spools
from tests.bench.place import Mark, family, need_proc, peak_memory, run
from tests.bench.timing import Figure, at_least, at_most, in_turn, ratios, seconds, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from queuectl import Spool
    from tests.bench.place import Place
    from tests.bench.timing import Target

_BARE_LOOP = Path(__file__).with_name("bare_loop.py")
OURS = "stdout, stderr, exit status, seconds, CPU, memory; {}"
SYNCS = {"filed": "syncs when filed", "full": "syncs outcomes, too"}


def _of_spool(place: Place, durability: str, count: int, drain: Callable[[Spool], object]) -> float:
    folder = place.new()
    spool = spools.make(folder / "spool", durability)
    spools.fill(spool, count)
    took = seconds(lambda: drain(spool))
    spools.expect_done(spool, count)
    return took


def _queuectl(place: Place, durability: str, count: int, workers: int) -> float:
    return _of_spool(place, durability, count, lambda spool: spools.drain(spool, workers))


def _bare_loop(place: Place, count: int, workers: int) -> float:
    def drain(spool: Spool) -> None:
        run([sys.executable, str(_BARE_LOOP), str(spool.path), str(workers)], spool.path.parent)

    return _of_spool(place, "none", count, drain)


def _in_folder(place: Place, drain: Callable[[Path, int, int], float], count: int, workers: int) -> float:
    return drain(place.new(), count, workers)


def _rates(took: list[float], count: int) -> list[float]:
    return [count / one for one in took]


def _against_xargs(place: Place, durability: str, targets: Mapping[int, Target | None]) -> Iterator[Figure]:
    """Whole processes, from the start of the workers until the last of them has ended."""
    count = place.size(2000, 20)
    for workers, target in targets.items():
        sides = {
            "queuectl": partial(_queuectl, place, durability, count, workers),
            "xargs": partial(_in_folder, place, peers.xargs, count, workers),
            "loop": partial(_bare_loop, place, count, workers),
        }
        took = in_turn(sides, place.size(7, 1))
        ours, theirs, least = (_rates(took[name], count) for name in sides)
        yield Figure(
            f"{count:,} jobs, workers: {workers}",
            "jobs/s",
            ours,
            against=f"xargs -P{workers}",
            ratios=ratios(ours, theirs),
            target=target,
            note=OURS.format(SYNCS[durability]),
        )
        yield Figure(f"xargs -P{workers}", "jobs/s", theirs, note=peers.XARGS_NOTE)
        yield Figure(
            f"a bare loop in Python, processes: {workers}",
            "jobs/s",
            least,
            against=f"xargs -P{workers}",
            ratios=ratios(least, theirs),
            note="stdout, stderr, exit status, CPU, memory; syncs nothing, promises nothing",
        )


def drain(place: Place) -> Iterator[Figure]:
    targets = {1: at_least(0.95), 2: at_least(0.95), 4: at_least(0.85), 8: at_least(0.85)}
    return _against_xargs(place, "filed", targets)


def drain_full(place: Place) -> Iterator[Figure]:
    return _against_xargs(place, "full", {1: None, 2: None, 4: at_least(0.4), 8: None})


def drain_peers(place: Place) -> Iterator[Figure]:
    """All of them in turn; each ratio is to the xargs of the same round."""
    count = place.size(1000, 5)
    found = peers.installed(place.python_peers)
    for workers in (1, 2):
        sides: dict[str, Callable[[], float]] = {
            "xargs": partial(_in_folder, place, peers.xargs, count, workers),
            "queuectl": partial(_queuectl, place, "filed", count, workers),
        }
        notes = {"xargs": peers.XARGS_NOTE, "queuectl": OURS.format(SYNCS["filed"])}
        for peer in found:
            if workers <= peer.most_workers:
                sides[peer.name] = partial(_in_folder, place, peer.drain, count, workers)
                notes[peer.name] = peer.note
        took = in_turn(sides, place.size(3, 1))
        for name, times in took.items():
            yield Figure(
                f"{count:,} jobs, workers: {workers}: {name}",
                "jobs/s",
                _rates(times, count),
                against="" if name == "xargs" else f"xargs -P{workers}",
                ratios=() if name == "xargs" else ratios(took["xargs"], times),
                note=notes[name],
            )


# ── beside many others ────────────────────────────────────────────────────────────────────────


def _marked_batch(spool: Spool, count: int, mark: Mark) -> None:
    """Jobs before all others, the first and the last of which tell that they run."""
    spools.fill(spool, 1, mark.command, priority=spools.URGENT)
    spools.fill(spool, count - 2, priority=spools.URGENT, first=1)
    spools.fill(spool, 1, mark.command, priority=spools.URGENT, first=count - 1)


def _first_and_last(spool: Spool, count: int, workers: int, mark: Mark) -> tuple[float, float, float]:
    """Seconds from the start of the workers to the first and the last job; the peak memory of a worker."""
    _marked_batch(spool, count, mark)
    settle()
    began = time.perf_counter()
    with spools.working(spool, workers) as process:
        first = mark.wait() - began
        last = mark.wait() - began
        memory = max(peak_memory(pid) for pid in family(process.pid))
    spools.forget(spool)
    return first, last, memory


def beside_many(place: Place) -> Iterator[Figure]:
    """Half of the others may run, after those that are measured; half are due later."""
    count, others = place.size(2000, 20), place.size(100_000, 200)
    folder = place.new()
    with Mark(folder / "mark") as mark:
        alone, beside = spools.make(folder / "a" / "spool"), spools.make(folder / "b" / "spool")
        spools.fill(beside, others // 2, series=spools.OTHERS, priority=spools.LAST)
        spools.fill(beside, others // 2, series=spools.OTHERS, due=spools.FUTURE, first=others // 2)
        for workers in (1, 4):
            sides = {
                name: partial(lambda spool, n: _first_and_last(spool, count, n, mark)[1], spool, workers)
                for name, spool in (("beside", beside), ("alone", alone))
            }
            took = in_turn(sides, place.size(5, 1))
            yield Figure(
                f"{count:,} jobs beside {others:,}, workers: {workers}",
                "jobs/s",
                _rates(took["beside"], count),
                against="none beside them",
                ratios=ratios(took["alone"], took["beside"]),
                target=at_least(0.95),
            )


def beside_parked(place: Place) -> Iterator[Figure]:
    """By the processor time of the workers and of all that they start, from their start to their end."""
    count, others = place.size(2000, 20), place.size(100_000, 200)
    folder = place.new()
    alone, beside = spools.make(folder / "a" / "spool"), spools.make(folder / "b" / "spool")
    spools.fill_parked(beside, others)

    def used(spool: Spool) -> float:
        spools.fill(spool, count)
        settle()
        before = _used_by_children()
        spools.drain(spool, 1)
        after = _used_by_children()
        spools.expect_done(spool, count)
        spools.forget(spool)
        return after - before

    took = in_turn({"beside": partial(used, beside), "alone": partial(used, alone)}, place.size(5, 1))
    yield Figure(
        f"{count:,} jobs beside {others:,} parked ones, CPU",
        "s",
        took["beside"],
        against="none beside them",
        ratios=ratios(took["alone"], took["beside"]),
        target=at_least(0.95),
    )


def _used_by_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def million(place: Place) -> Iterator[Figure]:
    """The first claim counts from the start of the process; the rate from the first job to the last."""
    need_proc()
    count, others = place.size(1000, 20), place.size(1_000_000, 500)
    folder = place.new()
    with Mark(folder / "mark") as mark:
        alone, beside = spools.make(folder / "a" / "spool"), spools.make(folder / "b" / "spool")
        spools.fill(beside, others, series=spools.OTHERS, priority=spools.LAST)
        firsts, memories, shares, rates = [], [], [], []
        for _ in range(place.size(3, 1)):
            first, last, memory = _first_and_last(beside, count, 1, mark)
            first_alone, last_alone, _ = _first_and_last(alone, count, 1, mark)
            firsts.append(first)
            memories.append(memory)
            rates.append((count - 1) / (last - first))
            shares.append((last_alone - first_alone) / (last - first))
    yield Figure(f"{others:,} waiting: first claim", "s", firsts, target=at_most(1.5))
    yield Figure(
        f"{others:,} waiting: rate",
        "jobs/s",
        rates,
        against=f"{count:,} waiting",
        ratios=shares,
        target=at_least(0.9),
    )
    yield Figure(f"{others:,} waiting: peak memory of the worker", "MB", memories, target=at_most(400))
