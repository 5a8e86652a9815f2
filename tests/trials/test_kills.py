"""Workers that are killed one after the other, and in a storm: no runs overlap, and every job ends once."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from queuectl import State
from tests.conftest import kinds
from tests.test_crashes import LEFT_BEHIND

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl import Spool
    from tests.conftest import Evidence, Until, Workers


@pytest.mark.usefixtures("audited")
def test_no_run_of_a_killed_worker_overlaps_the_next(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    until: Until,
    size: Callable[[int, int], int],
    figure: Callable[[str, str], None],
) -> None:
    """Each worker takes up the run that the kill of the one before it cut off, and is killed in its own."""
    count = size(10, 1000)
    ways = itertools.cycle(LEFT_BEHIND.values())
    ids = [f"job-{number}" for number in range(count)]
    for job_id in ids:
        body = f"if test $QUEUECTL_ATTEMPT = 1; then {next(ways)}; fi"
        spool.file({"id": job_id, "command": evidence.command(body)})
        worker = workers.start()
        until(lambda: evidence.started(job_id), "it runs")  # noqa: B023 - called in this round
        worker.kill()
    workers.drain()
    assert Counter(evidence.finished()).keys() == set(ids)
    assert {found.state for found in spool.list()} == {State.DONE}
    runs = len(evidence.started())
    assert 2 * count <= runs <= 3 * count
    assert evidence.faults(spool) == []
    figure("worker killed while its command runs", f"{count:,} kills, {runs:,} runs, 0 overlaps")


def left(spool: Spool) -> int:
    """How many jobs have not ended."""
    return sum(
        name.endswith(".yaml")
        for state in (State.PENDING, State.PROCESSING, State.FAILED)
        for name in os.listdir(spool.root.folder(state))
    )


@pytest.mark.usefixtures("audited")
def test_in_a_storm_of_kills_every_job_ends_once(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    size: Callable[[int, int], int],
    figure: Callable[[str, str], None],
) -> None:
    count, pause = size(100, 10_000), size(150, 200) / 1000
    stubborn = 'test "$QUEUECTL_ATTEMPT" -ge 3 || exit 1'
    plan = {
        f"job-{n}": evidence.command("sleep 0.3" if n % 10 == 0 else stubborn if n % 20 == 1 else ":")
        for n in range(count)
    }
    for filed in spool.file_many(
        {"id": job_id, "command": command, "max_retries": 5} for job_id, command in plan.items()
    ):
        assert filed.error is None
    kills, most = 0, size(20, 1000)
    wanted = size(3, 4)
    workers.refill(wanted)
    while left(spool):
        # One that has claimed nothing yet can lose nothing, and on a slow machine none would get so far.
        claims = os.listdir(spool.root.folder(State.PROCESSING))
        up = [one for one in workers.running() if any(f"-{one.pid}-" in name for name in claims)]
        if up and kills < most:
            random.choice(up).kill()
            kills += 1
        workers.refill(wanted)
        time.sleep(pause)
    workers.stop()
    assert kills > 3
    states: Counter[str] = Counter()
    lost = 0
    for found in spool.list():
        assert found.job
        states[found.state.label] += 1
        lost += kinds(found.job.history).count("lost")
    assert set(states) <= {State.DONE.label, State.DEAD.label}
    expected = count + 2 * sum(n % 20 == 1 for n in range(count))
    assert lost <= kills
    assert len(evidence.started()) <= expected + kills
    extra = len(evidence.started()) - expected
    ended = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    figure("storm of kills", f"{count:,} jobs, {kills:,} kills, {extra:,} extra runs: {ended}")
