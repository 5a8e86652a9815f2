"""Who works, what keeps jobs from ending, and why a job does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.job.model import State
from queuectl.spool import descriptions, jobs, order, requests
from queuectl.spool.jobs import Found
from queuectl.spool.liveness import Standing
from queuectl.spool.names import REASON, odd
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.times import local, parse_moment, stamp, when
from queuectl.view import lookup
from queuectl.view.wording import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence
    from datetime import datetime
    from typing import Any

    from queuectl.settings import Settings
    from queuectl.spool.root import Root


def workers(root: Root, values: Settings, onlooker: Onlooker | None = None) -> list[dict[str, Any]]:
    """Every worker with a description: who it is, whether it lives, what it does.

    Who looks again and again hands in the same `onlooker`.
    """
    onlooker = onlooker or Onlooker(root)
    lease = values.lock_lease_seconds
    claims = {name.owner: name for name in jobs.names_in(root, State.PROCESSING)}
    told = []
    for worker in descriptions.members(root):
        name = worker.name
        claim = claims.get(name)
        verdict = onlooker.judge(name, lease)
        since = None
        if claim is not None:
            reading = jobs.read(Found(State.PROCESSING, claim, f"{root.folder(State.PROCESSING)}/{claim}"))
            runs = lookup.runs_of(reading.job) if reading and reading.job else []
            since = runs[-1].get("started_at") if runs else None
        asked = requests.requests_to(root, name)
        state = "busy" if claim else "paused" if asked.paused else "idle"
        if verdict.is_dead:
            state = "dead"
        elif worker.hears and verdict.standing is Standing.FROZEN:
            state = "frozen"
        elif asked.stop:
            state = "stopping"
        told.append(
            {
                "name": name,
                "host": worker.host,
                "pid": worker.pid,
                "kind": worker.kind,
                "state": state,
                "job": claim.id if claim else None,
                "since": since or worker.started_at,
                "started_at": worker.started_at,
                "last_heartbeat": worker.beat_at,
                "beat_age_seconds": round(verdict.age or 0.0, 3),
                "clock_offset_seconds": worker.clock_offset,
                "jobs_done": worker.jobs_done,
                "how_to_wake": worker.how_to_wake if state == "frozen" else None,
            }
        )
    return told


def lives(worker: dict[str, Any]) -> bool:
    """Whether a worker of `workers` is alive."""
    return bool(worker["state"] != "dead")


def alive(known: Sequence[dict[str, Any]]) -> int:
    """How many of these workers live."""
    return sum(map(lives, known))


def hindrances(root: Root, values: Settings, onlooker: Onlooker, job_ids: Container[str]) -> list[str]:
    """What keeps these jobs from ending as long as nobody does anything, a sentence each."""
    told = []
    known = workers(root, values, onlooker)
    if requests.is_paused(root):
        told.append("The queue is paused: nothing new is started before `queuectl resume`.")
    if not alive(known):
        told.append("No worker is alive: `queuectl worker start` starts one.")
    for worker in known:
        job = f"{worker['job']}: its worker {worker['name']}"
        if worker["job"] not in job_ids:
            continue
        if not lives(worker):
            told.append(f"{job} is dead: a live worker, or `queuectl check --repair`, takes it up.")
        elif worker["state"] == "frozen":
            told.append(f"{job} stands still: {worker['how_to_wake']} lets it go on.")
    return told


def why(
    root: Root, values: Settings, found: Found, now: datetime, before: Callable[[], int] | None = None
) -> str:
    """In words: why a job does not run, or how it stands. `before` counts the jobs that run first."""
    if found.state is State.PROCESSING:
        owner = found.name.owner or ""
        verdict = Onlooker(root).judge(owner, values.lock_lease_seconds)
        if verdict.is_dead:
            return (
                f"its worker {owner} died ({verdict.why}); the next one, or `queuectl check --repair`, "
                "takes it up"
            )
        runs = lookup.runs_of(found.job) if found.job else []
        since = runs[-1].get("started_at") if runs else None
        return f"running on {found.name.owner}" + (f" since {clock(since)}" if since else "")
    if found.state is State.DONE:
        event = lookup.exit_of(found.job.history) if found.job else {}
        code = event.get("exit_code")
        return "nothing is recorded of its end" if code is None else f"done, exit status {code}"
    if found.state is State.DEAD:
        return f"{shortened(lookup.reason_for(found))} ({_remedy(found)})"
    return "; ".join(_why_waiting(root, values, found, now, before))


def _why_waiting(
    root: Root, values: Settings, found: Found, now: datetime, before: Callable[[], int] | None
) -> Iterator[str]:
    if requests.is_paused(root):
        yield "the queue is paused (`queuectl resume`)"
    if found.name.due > stamp(now):
        what = "next try at" if found.state is State.FAILED else "due at"
        yield f"{what} {when(found.name.due_at, now)}"
    if not alive(workers(root, values)):
        yield "no worker is alive (`queuectl worker start`)"
    if found.unreadable:
        yield f"its file is broken: {found.unreadable}"
    if found.name.due <= stamp(now):
        if root.medium.being_written(found.path):
            yield "a program has its file open for writing"
        ahead = before() if before else _before(root, found, now)
        yield f"{ahead:,} jobs before it" if ahead != 1 else "1 job before it"


def _remedy(found: Found) -> str:
    again = f"`queuectl retry {found.id}` runs it again"
    if found.job is None:
        return f"mend {found.path}, then {again}"
    reason = f"{found.path}{REASON}"
    return f"what helps is told in {reason}" if files.exists(reason) else again


def _before(root: Root, found: Found, now: datetime) -> int:
    own = str(found.name)
    listed = (root.texts_in(root.folder(state)) for state in jobs.WAITING)
    due = (order.split(texts, stamp(now))[0] for texts in listed)
    ahead = (order.before(names, own) for names in due)
    return sum(len(names) - len(odd(State.PENDING, names)) for names in ahead)


def clock(text: str | None) -> str:
    """A moment of a history in local time."""
    return "-" if text is None else local(parse_moment(text))
