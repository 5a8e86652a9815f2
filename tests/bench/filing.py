"""Rows about filing: through the API against a bare loop, by command, and by many producers at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from queuectl import Spool, State
from tests.bench import peers, spools
from tests.bench.place import PATIENCE, QUEUECTL, Failed, run, wait_for
from tests.bench.timing import Figure, at_least, at_most, in_turn, ratios, seconds, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Event, Semaphore
    from pathlib import Path

    from tests.bench.place import Place

T = TypeVar("T")
_TEXT = b"id: b00000000000\ncommand: 'true'\ncreated_at: 2026-01-01T00:00:00.000000Z\nhistory:\n"


def _bare_loop(folder: Path, count: int, *, sync: bool = True) -> None:
    """Write, fsync, rename, fsync of the folder: the least that keeps each job through a power cut.

    Without the syncs, the least that lets no worker see half a file.
    """
    directory = os.open(folder, os.O_RDONLY)
    for number in range(count):
        file = os.open(f"{folder}/.{number}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(file, _TEXT)
        if sync:
            os.fsync(file)
        os.close(file)
        os.rename(f"{folder}/.{number}.tmp", f"{folder}/{number}.yaml")
        if sync:
            os.fsync(directory)
    os.close(directory)


def _one_by_one(spool: Spool, count: int) -> None:
    for _ in range(count):
        spool.file("true")


def _in_one_call(spool: Spool, count: int) -> None:
    for filed in spool.file_many("true" for _ in range(count)):
        if filed.error:
            raise filed.error


def _filed(place: Place, act: Callable[[Spool, int], None], count: int, durability: str) -> float:
    """Jobs a second into a new spool."""
    folder = place.new()
    spool = spools.make(folder / "spool", durability)
    took = seconds(lambda: act(spool, count))
    found = len(os.listdir(spool.root.folder(State.PENDING)))
    if found != count:
        raise Failed(f"{found} of {count} jobs are filed")
    return count / took


def _looped(place: Place, count: int, *, sync: bool = True) -> float:
    folder = place.new()
    return count / seconds(lambda: _bare_loop(folder, count, sync=sync))


def filing(place: Place) -> Iterator[Figure]:
    few, many = place.size(1000, 5), place.size(5000, 20)
    sides = {
        "bare loop": partial(_looped, place, few),
        "bare loop, unsynced": partial(_looped, place, many, sync=False),
        "unsynced": partial(_filed, place, _one_by_one, many, "none"),
        "unsynced, one call": partial(_filed, place, _in_one_call, many, "none"),
        "synced": partial(_filed, place, _one_by_one, few, "filed"),
        "synced, one call": partial(_filed, place, _in_one_call, many, "filed"),
    }
    rates = in_turn(sides, place.size(7, 1))
    loop = "write, fsync, rename, fsync"
    yield Figure(
        f"API without sync, {many:,} one by one", "jobs/s", rates["unsynced"], target=at_least(15_000)
    )
    yield Figure(f"API without sync, {many:,} in one call", "jobs/s", rates["unsynced, one call"])
    for name, subject, least in (
        ("synced", f"API with sync, {few:,} one by one", 0.9),
        ("synced, one call", f"API with sync, {many:,} in one call", 5),
    ):
        of_loop = ratios(rates[name], rates["bare loop"])
        yield Figure(subject, "jobs/s", rates[name], against=loop, ratios=of_loop, target=at_least(least))
    yield Figure(f"a loop of {loop}", "jobs/s", rates["bare loop"])
    yield Figure("a loop of write, rename", "jobs/s", rates["bare loop, unsynced"])


# ── the command ───────────────────────────────────────────────────────────────────────────────


def _milliseconds(act: Callable[[], object]) -> float:
    return seconds(act) * 1000


def _enqueue(spool: Spool) -> list[str]:
    return [*QUEUECTL, "--spool", str(spool.path), "enqueue", "true"]


def enqueue(place: Place) -> Iterator[Figure]:
    """Whole processes, from the start of the interpreter to its end."""
    folder = place.new()
    with ExitStack() as stack:
        spool, unsynced = spools.make(folder / "spool"), spools.make(folder / "unsynced", "none")
        python = partial(run, [sys.executable, "-c", "pass"], folder)
        actions: dict[str, Callable[[], object]] = {
            "python": python,
            "queuectl": partial(run, _enqueue(spool), folder),
            "unsynced": partial(run, _enqueue(unsynced), folder),
        }
        for peer in peers.installed(None):
            if peer.enqueue:
                queue = place.new()
                stack.callback(peer.end, queue)
                words = [*peer.enqueue, "true"]
                actions[peer.name] = partial(run, words, queue, peer.variables(queue))
        for act in actions.values():  # what is compiled or started by the first of its kind is not counted
            act()
        sides = {name: partial(_milliseconds, act) for name, act in actions.items()}
        took = in_turn(sides, place.size(60, 2))
    for name, subject, target in (
        ("queuectl", "queuectl enqueue true", at_most(2.5)),
        ("unsynced", "the same, durability: none", None),
    ):
        of_python = ratios(took[name], took["python"])
        yield Figure(subject, "ms", took[name], against="python -c pass", ratios=of_python, target=target)
    yield Figure("python -c pass", "ms", took["python"])
    for peer in peers.installed(None):
        if peer.name in took:
            yield Figure(f"{' '.join(peer.enqueue)} true", "ms", took[peer.name], note=peer.note)


def enqueue_at_depth(place: Place) -> Iterator[Figure]:
    others = place.size(100_000, 200)
    folder = place.new()
    deep, empty = spools.make(folder / "deep"), spools.make(folder / "empty")
    spools.fill(deep, others, series=spools.OTHERS)
    sides = {
        name: partial(_milliseconds, partial(run, _enqueue(spool), folder))
        for name, spool in (("deep", deep), ("empty", empty))
    }
    in_turn(sides, 1)
    took = in_turn(sides, place.size(60, 2))
    yield Figure(
        f"queuectl enqueue true, {others:,} waiting",
        "ms",
        took["deep"],
        against="an empty spool",
        ratios=ratios(took["deep"], took["empty"]),
        target=at_most(1.05),
    )


# ── many producers ────────────────────────────────────────────────────────────────────────────


class _Gates(NamedTuple):
    """What producers pass: neither their start nor their end is measured."""

    ready: Semaphore
    go: Event
    filed: Semaphore
    leave: Event


def _produce(path: Path, count: int, gates: _Gates) -> None:
    spool = Spool(path)
    import_module("queuectl.spool.filing")
    gates.ready.release()
    gates.go.wait(PATIENCE)
    _one_by_one(spool, count)
    gates.filed.release()
    gates.leave.wait(PATIENCE)


def _produced(spool: Spool, producers: int, each: int, then: Callable[[], T]) -> tuple[float, T]:
    """Seconds from the moment that all producers are let go until they have filed, and what follows."""
    context = multiprocessing.get_context("spawn")
    gates = _Gates(context.Semaphore(0), context.Event(), context.Semaphore(0), context.Event())
    children = [context.Process(target=_produce, args=(spool.path, each, gates)) for _ in range(producers)]
    try:
        for child in children:
            child.start()
        _pass(gates.ready, producers)
        settle()
        began = time.perf_counter()
        gates.go.set()
        _pass(gates.filed, producers)
        result = then()
        took = time.perf_counter() - began
        gates.leave.set()
        for child in children:
            child.join()
        if any(child.exitcode for child in children):
            raise Failed("a producer could not file")
    finally:
        for child in children:
            if child.is_alive():
                child.kill()
    return took, result


def _pass(gate: Semaphore, count: int) -> None:
    for _ in range(count):
        if not gate.acquire(timeout=PATIENCE):
            raise Failed("a producer does not come on")


def producers(place: Place) -> Iterator[Figure]:
    """Producers alone, workers alone on as many jobs, and both at once, in turn."""
    crowd, each, workers = place.size(50, 4), place.size(100, 5), 4
    total = crowd * each
    complaints: list[str] = []

    def filing_alone() -> float:
        folder = place.new()
        return _produced(spools.make(folder / "spool"), crowd, each, lambda: None)[0]

    def draining_alone() -> float:
        folder = place.new()
        spool = spools.make(folder / "spool")
        spools.fill(spool, total)
        with spools.working(spool, workers):
            return seconds(lambda: _until_done(spool))

    def both() -> float:
        folder = place.new()
        spool = spools.make(folder / "spool")
        with spools.working(spool, workers):
            took, _ = _produced(spool, crowd, each, lambda: _until_done(spool))
        spools.expect_done(spool, total)
        said = (folder / "running.log").read_text(errors="replace").splitlines()
        complaints.extend(line for line in said if " WARNING " in line or " ERROR " in line)
        return took

    took = in_turn({"filing": filing_alone, "draining": draining_alone, "both": both}, place.size(5, 1))
    slower = [max(pair) for pair in zip(took["filing"], took["draining"], strict=True)]
    yield Figure(
        f"{crowd} producers file {each} each, workers: {workers}",
        "jobs/s",
        [total / one for one in took["both"]],
        against="the slower side alone",
        ratios=ratios(slower, took["both"]),
        target=at_least(0.9),
    )
    for name in ("filing", "draining"):
        yield Figure(f"{name} alone", "jobs/s", [total / one for one in took[name]])
    yield Figure(
        "warnings and errors of the workers",
        "",
        [float(len(complaints))],
        target=at_most(0),
        note=complaints[0] if complaints else "",
    )


def _until_done(spool: Spool) -> None:
    """Wait until nothing waits and nothing runs; each look is a listing, so there are few of them."""
    folders = [spool.root.folder(state) for state in (State.PENDING, State.PROCESSING)]
    wait_for(lambda: not any(_jobs_in(folder) for folder in folders), "all jobs are done", every=0.02)


def _jobs_in(folder: str) -> bool:
    return any(name.endswith(".yaml") for name in os.listdir(folder))
