"""Who works: every worker of a spool, whether it lives and what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queuectl.job.model import State
from queuectl.spool import descriptions, jobs, requests
from queuectl.spool.jobs import Found
from queuectl.spool.liveness import Standing
from queuectl.spool.onlooker import Onlooker
from queuectl.view.lookup import started_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.settings import Settings
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

#: The states of workers.
STATES = ("idle", "busy", "paused", "stopping", "frozen", "dead")


class Worker(NamedTuple):
    """A worker, with the fields of `worker status --json`. `since` is the start of its run, or its own."""

    name: str
    host: str
    pid: int
    kind: str
    state: str
    job: str | None
    since: str
    started_at: str
    last_heartbeat: str
    beat_age_seconds: float
    clock_offset_seconds: float | None
    jobs_done: int
    how_to_wake: str | None

    @property
    def lives(self) -> bool:
        """Whether it is alive."""
        return self.state != "dead"


def alive(workers: Iterable[Worker]) -> int:
    """How many of these workers live."""
    return sum(worker.lives for worker in workers)


def workers(root: Root, values: Settings, onlooker: Onlooker | None = None) -> list[Worker]:
    """Every worker that has a description. A caller that looks again passes the same `onlooker`."""
    onlooker = onlooker or Onlooker(root)
    claims = {name.owner: name for name in jobs.names_in(root, State.PROCESSING)}
    return [
        _worker(root, one, onlooker, values.lock_lease_seconds, claims.get(one.name))
        for one in descriptions.members(root)
    ]


def _worker(
    root: Root, one: descriptions.Description, onlooker: Onlooker, lease: float, claim: Name | None
) -> Worker:
    verdict = onlooker.judge(one.name, lease)
    since = None
    if claim is not None:
        running = jobs.read(Found(State.PROCESSING, claim, f"{root.folder(State.PROCESSING)}/{claim}"))
        since = running and started_at(running.job)
    asked = requests.requests_to(root, one.name)
    if verdict.is_dead:
        state = "dead"
    elif one.hears and verdict.standing is Standing.FROZEN:
        state = "frozen"
    elif asked.stop:
        state = "stopping"
    else:
        state = "busy" if claim else "paused" if asked.paused else "idle"
    return Worker(
        name=one.name,
        host=one.host,
        pid=one.pid,
        kind=one.kind,
        state=state,
        job=claim and claim.id,
        since=since or one.started_at,
        started_at=one.started_at,
        last_heartbeat=one.beat_at,
        beat_age_seconds=round(verdict.age or 0.0, 3),
        clock_offset_seconds=one.clock_offset,
        jobs_done=one.jobs_done,
        how_to_wake=one.how_to_wake if state == "frozen" else None,
    )
