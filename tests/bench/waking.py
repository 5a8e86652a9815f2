"""Rows about idle workers: how soon a new job starts, and what waiting for it costs."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import psutil

from queuectl.spool import descriptions
from tests.bench import peers, spools
from tests.bench.place import (
    QUEUECTL,
    Failed,
    Mark,
    cpu_seconds,
    environment,
    need_proc,
    own_memory,
    run,
    wait_for,
)
from tests.bench.timing import Figure, at_most, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from queuectl import Spool
    from tests.bench.place import Place


def _delay(act: Callable[[], object], mark: Mark) -> float:
    """Milliseconds from the beginning of an act until the command that it files tells that it runs."""
    time.sleep(random.uniform(0.03, 0.08))  # so that the worker has fallen idle, and at no fixed beat
    began = time.perf_counter()
    act()
    return (mark.wait(30) - began) * 1000


def _percentiles(
    subject: str, samples: list[float], most: tuple[float, float] | None, note: str = ""
) -> Iterator[Figure]:
    for share, number in zip((0.5, 0.99), most or (None, None), strict=True):
        target = None if number is None else at_most(number)
        yield Figure(subject, "ms", samples, target=target, share=share, note=note)


def start(place: Place) -> Iterator[Figure]:
    """From the beginning of the call, or of the filing process, to the first act of the command.

    The process that files still ends while the command starts: that is waited for before the next.
    """
    folder = place.new()
    with ExitStack() as stack:
        mark = stack.enter_context(Mark(folder / "mark"))
        unsynced, synced = spools.make(folder / "a" / "spool", "none"), spools.make(folder / "b" / "spool")
        for spool in (unsynced, synced):
            stack.enter_context(spools.idle_worker(spool))
        command = ["sh", "-c", mark.command]
        by_command = [*QUEUECTL, "--spool", str(unsynced.path), "enqueue", mark.command]
        sides: dict[str, Callable[[], float]] = {
            "unsynced": partial(_delay, partial(unsynced.file, mark.command), mark),
            "synced": partial(_delay, partial(synced.file, mark.command), mark),
            "by command": partial(_delay_of_process, by_command, folder, {}, mark),
        }
        notes = {"unsynced": "durability: none", "synced": "", "by command": "durability: none"}
        for peer in peers.installed(None):
            if peer.enqueue:
                queue = place.new()
                stack.callback(peer.end, queue)
                words = [*peer.enqueue, *command]
                sides[peer.name] = partial(_delay_of_process, words, queue, peer.variables(queue), mark)
                notes[peer.name] = peer.note
        in_turn(sides, 1)
        took = in_turn(sides, place.size(300, 3))
    subjects = {
        "unsynced": "API, unsynced",
        "synced": "API, synced",
        "by command": "queuectl enqueue, whole process",
    }
    for name, samples in took.items():
        most = (3.0, 6.0) if name == "unsynced" else None
        yield from _percentiles(subjects.get(name, name), samples, most, notes[name])


def _delay_of_process(words: list[str], where: Path, variables: dict[str, str], mark: Mark) -> float:
    filing: list[subprocess.Popen[bytes]] = []

    def file() -> None:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=where,
            env={**environment(), **variables},
        )
        filing.append(child)

    try:
        return _delay(file, mark)
    finally:
        if filing[0].wait(30):
            raise Failed(f"{words[0]} could not file a job")


def dropped(place: Place) -> Iterator[Figure]:
    """A file that is moved into pending/ by another program, which rings no bell."""
    folder = place.new()
    with Mark(folder / "mark") as mark:
        spool = spools.make(folder / "spool")
        outside = folder / "job.yaml"

        def drop(number: int) -> None:
            outside.rename(spool.path / "pending" / f"drop-{number}.yaml")

        samples = []
        with spools.idle_worker(spool):
            for number in range(place.size(100, 2)):
                outside.write_text(f'command: "{mark.command}"\n')
                samples.append(_delay(partial(drop, number), mark))
    yield from _percentiles("mv of a file into pending/", samples, (250.0, 250.0))


# ── what waiting costs ────────────────────────────────────────────────────────────────────────


def idle(place: Place) -> Iterator[Figure]:
    need_proc()
    watched, settle = (60.0, 5.0) if not place.is_quick else (0.5, 0.1)
    others = 8
    shares, alone, more = [], [], []
    for _ in range(place.size(3, 1)):
        folder = place.new()
        (pid,) = _detached(spools.make(folder / "one" / "spool"), 1, settle)
        try:
            alone.append(own_memory(pid))
            before = cpu_seconds(pid)
            time.sleep(watched)
            shares.append((cpu_seconds(pid) - before) / watched * 100)
        finally:
            _end([pid])
        pids = _detached(spools.make(folder / "several" / "spool"), 1 + others, settle)
        try:
            more.append((sum(map(own_memory, pids)) - alone[-1]) / others)
        finally:
            _end(pids)
    yield Figure(f"CPU over {watched:g} s", "%", shares, target=at_most(0.1))
    yield Figure("memory of a worker (PSS)", "MB", alone, target=at_most(20))
    yield Figure(f"memory of each of {others} more", "MB", more, target=at_most(8))


def _detached(spool: Spool, count: int, settle: float) -> list[int]:
    """The pids of workers that have just been started, once each has run something if it could."""
    run([*QUEUECTL, "--spool", str(spool.path), "worker", "start", "--count", str(count)], spool.path.parent)
    names = descriptions.described(spool.root)
    if len(names) != count:
        raise Failed(f"{len(names)} of {count} workers are there")
    spool.file("true")
    wait_for(lambda: spools.done(spool) == 1, "a worker works", within=30)
    time.sleep(settle)
    return [int(name.rsplit("-", 2)[1]) for name in names]


def _end(pids: list[int]) -> None:
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    for process in left:
        process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=20)
    for process in stubborn:
        process.kill()
