"""Rows about commands for many jobs of a large spool, whole processes: `cancel`, `retry`, `wait --all`."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

from queuectl import State
from queuectl.spool import jobs
from tests.bench import spools
from tests.bench.place import QUEUECTL, Failed, cpu_seconds, need_proc, run, running, wait_for
from tests.bench.timing import Figure, at_most, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl import Spool
    from tests.bench.place import Place

#: A command for a thousand jobs may take as long as three looks at the queue, and two seconds.
LOOKS, MORE = 3, 2.0


def many(place: Place) -> Iterator[Figure]:
    count, some = place.size(30_000, 200), place.size(1_000, 20)
    folder = place.new()
    spool = spools.make(folder / "spool")
    spools.fill(spool, count)
    ids = [found.id for found in jobs.found_in(spool.root, State.PENDING)][:: count // some][:some]
    command = [*QUEUECTL, "--spool", str(spool.path)]

    def took(*words: str) -> float:
        return seconds(partial(run, [*command, *words], folder))

    steps = {"cancel": ids, "retry": ids, "dlq retry --all": []}
    samples: dict[str, list[float]] = {step: [] for step in steps}
    looks = []
    for _ in range(place.size(5, 1)):
        looks.append(sum(took("status") for _ in range(LOOKS)))
        for step, named in steps.items():
            if not named:
                took("cancel", *ids)
            samples[step].append(took(*step.split(), *named))
    target = at_most(MORE + sorted(looks)[len(looks) // 2])
    for step in steps:
        subject = f"{step}, {len(ids):,} of {count:,} waiting"
        yield Figure(subject, "s", samples[step], target=target, note=f"{LOOKS} times status, and {MORE:g} s")


def wait_all(place: Place) -> Iterator[Figure]:
    need_proc()
    count = place.size(30_000, 200)
    samples = []
    for _ in range(place.size(3, 1)):
        folder = place.new()
        spool = spools.make(folder / "spool")
        spools.fill(spool, count)
        samples.append(_returns_after(spool))
    yield Figure(f"wait --all, from the last end of {count:,}", "s", samples, target=at_most(1))


def _returns_after(spool: Spool) -> float:
    """Seconds from the end of the last job to that of the command, which has begun to wait before."""
    pending, done = spool.root.folder(State.PENDING), spool.root.folder(State.DONE)
    command = [*QUEUECTL, "--spool", str(spool.path), "wait", "--all"]
    with running(command, spool.path.parent) as process:
        wait_for(lambda: _rests(process.pid), "it waits")
        for name in os.listdir(pending):
            os.rename(f"{pending}/{name}", f"{done}/{name}")
        ended = time.perf_counter()
        if process.wait() != 0:
            raise Failed("it does not see that all have ended")
        return time.perf_counter() - ended


def _rests(pid: int) -> bool:
    """Whether a command has started up and uses next to no processor."""
    before = cpu_seconds(pid)
    time.sleep(0.2)
    return before > 0.05 and cpu_seconds(pid) - before < 0.05
