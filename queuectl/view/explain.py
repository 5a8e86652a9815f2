"""What a person should know, as findings: of the queue, of awaited jobs, and why one job does not run."""

from __future__ import annotations

import shlex
from itertools import islice
from typing import TYPE_CHECKING

from queuectl import settings
from queuectl.errors import BrokenConfig
from queuectl.job.history import moved_to
from queuectl.job.model import UNSTARTED, State
from queuectl.rules import after
from queuectl.rules import groups as rules
from queuectl.spool import holds, jobs, order, presence, requests
from queuectl.spool.names import EDIT, HELD, MOVING, REASON, classify, odd, parse, split_parked
from queuectl.spool.names import Kind as NameKind
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.times import duration, local, parse_moment, stamp, when
from queuectl.view import dependencies, groups, lookup
from queuectl.view.wording import Finding, Kind, shortened
from queuectl.view.workers import Worker, alive, workers

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence
    from datetime import datetime

    from queuectl.job.model import Job
    from queuectl.settings import Settings
    from queuectl.spool.jobs import Found
    from queuectl.spool.root import Root
    from queuectl.view.census import Counts


#: How many of the jobs that one waits for are named.
_SOME = 5


def attention(root: Root, counts: Counts, known: Sequence[Worker], now: datetime) -> Iterator[Finding]:
    """What a person should look at in a queue with these workers; nothing if all is well."""
    yield from _standstill(root, known, is_work=bool(counts.pending or counts.failed))
    yield from (Finding(Kind.SOME_PAUSED, {"group": group}) for group in groups.paused(root))
    yield from (Finding(Kind.FROZEN, one._asdict()) for one in known if one.state == "frozen")
    if len(known) > alive(known):
        yield Finding(Kind.DIED, {"number": len(known) - alive(known)})
    clocks = {one.host: one.clock_offset_seconds or 0.0 for one in known if one.lives}
    for host, offset in sorted(clocks.items()):
        if abs(offset) > presence.TOLERANCE:
            yield Finding(Kind.CLOCK, {"warning": presence.clock_warning(offset, host).rstrip(".")})
    if counts.dead:
        yield Finding(Kind.DEAD_JOBS, {"number": counts.dead})
    yield from _too_wide(root, counts.wide)
    if counts.blocked:
        yield from _stuck(root)
    if counts.first_due:
        yield from _held(root, counts.first_due, now)
    yield from _strangers(root, counts.strangers)
    yield from config(root)


def _too_wide(root: Root, texts: Sequence[str]) -> Iterator[Finding]:
    """The jobs that want more slots than their groups have; some of them, if there are many."""
    found = [name for text in texts if (name := parse(text)) and name.group]
    sizes = {group: rules.glance(root, group).size for group in {name.group or "" for name in found}}
    too_wide = (name for name in found if name.slots > sizes[name.group or ""])
    for name in islice(too_wide, _SOME):
        facts = {"id": name.id, "wanted": name.slots, "group": name.group, "size": sizes[name.group or ""]}
        yield Finding(Kind.TOO_WIDE, facts)


def _stuck(root: Root) -> Iterator[Finding]:
    """How many jobs cannot run as others ended otherwise than they ask, and because of which."""
    stuck = dependencies.stuck(root)
    if stuck.number:
        some = ", ".join(_named(job_id, end) for job_id, end, _ in stuck.causes[:_SOME])
        rest = f" and {len(stuck.causes) - _SOME:,} more" if len(stuck.causes) > _SOME else ""
        facts = {"number": stuck.number, "what": some + rest, "first": stuck.causes[0][0]}
        yield Finding(Kind.STUCK, facts)


def _standstill(root: Root, known: Sequence[Worker], *, is_work: bool) -> Iterator[Finding]:
    """Why nothing new is started."""
    if requests.is_paused(root):
        yield Finding(Kind.PAUSED)
    if is_work and not alive(known):
        yield Finding(Kind.NO_WORKER)


def _held(root: Root, text: str, now: datetime) -> Iterator[Finding]:
    """The job that has waited longest, if a program that writes to its file holds it up."""
    name = parse(text)
    if name is None or (now - name.due_at).total_seconds() < holds.LONG_HELD:
        return
    path = f"{root.folder(State.PENDING)}/{text}"
    try:
        is_open = root.medium.being_written(path)
        if is_open is None:
            is_open = holds.may_be_open(files.mark(path).mtime_ns / 1e9, now.timestamp())
    except FileNotFoundError:
        return
    if is_open:
        yield Finding(Kind.HELD, {"job": name.id, "file": path})


def _strangers(root: Root, texts: Sequence[str]) -> Iterator[Finding]:
    """Drops that no worker has taken in yet, and what is left alone."""
    drops = {text: None for text in texts if _is_drop(root, text)}
    if drops:
        yield Finding(Kind.DROPPED, {"number": len(drops), "first": next(iter(drops)).partition("/")[2]})
    strange = [text for text in texts if text not in drops]
    if strange:
        kind = Kind.LEFT_ALONE if len(strange) == 1 else Kind.MANY_LEFT_ALONE
        yield Finding(kind, {"number": len(strange), "some": ", ".join(strange[:3])})


def _is_drop(root: Root, text: str) -> bool:
    """Whether a worker will take this in as a job."""
    folder, _, name = text.partition("/")
    is_file = folder == State.PENDING and classify(State.PENDING, name) is NameKind.DROP
    return is_file and not files.is_folder(f"{root.text}/{text}")


def config(root: Root) -> Iterator[Finding]:
    """What is wrong in config.yaml. Raises `OSError`."""
    try:
        settings.load(root.text)
    except BrokenConfig as error:
        facts = {"why": f"{error.why[:1].lower()}{error.why[1:]}".rstrip("."), "remedy": error.remedy}
        yield Finding(Kind.BAD_CONFIG, facts, str(root.config))


def hindrances(
    root: Root, values: Settings, onlooker: Onlooker, job_ids: Container[str]
) -> Iterator[Finding]:
    """What keeps these jobs from ending as long as nobody does anything."""
    known = workers(root, values, onlooker)
    yield from _standstill(root, known, is_work=True)
    for worker in known:
        if worker.job in job_ids and worker.state in {"dead", "frozen"}:
            yield Finding(Kind.OWNER_FROZEN if worker.lives else Kind.OWNER_DEAD, worker._asdict())


def reasons(
    root: Root, values: Settings, found: Found, now: datetime, ahead: int | None = None
) -> list[Finding]:
    """Why a job does not run, or how it stands. `ahead` is how many jobs run first, if that is known."""
    if found.state in jobs.WAITING:
        return list(_why_it_waits(root, values, found, now, ahead))
    if found.state is State.PROCESSING:
        return [_how_it_runs(root, values, found)]
    if found.state is State.DONE:
        code = lookup.exit_of(found.job).get("exit_code")
        return [Finding(Kind.ENDED) if code is None else Finding(Kind.DONE, {"code": code})]
    kind = Kind.DEAD
    facts = {"why": shortened(lookup.reason_for(found)).rstrip("."), "id": found.id, "file": found.path}
    if found.job is None:
        kind = Kind.DEAD_UNREAD
    elif files.exists(found.path + REASON):
        kind = Kind.DEAD_EXPLAINED
    elif (to := moved_to(found.job.history)) is not None:
        kind = Kind.IS_ELSEWHERE
        facts["there"] = shlex.quote(to)
    return [Finding(kind, facts)]


def _how_it_runs(root: Root, values: Settings, found: Found) -> Finding:
    owner = found.name.owner or ""
    verdict = Onlooker(root).judge(owner, values.lock_lease_seconds)
    if verdict.is_dead:
        return Finding(Kind.LOST, {"owner": owner, "why": verdict.why})
    since = lookup.started_at(found.job)
    return Finding(Kind.RUNS, {"owner": owner, "since": f" since {clock(since)}" if since else ""})


def _why_it_waits(
    root: Root, values: Settings, found: Found, now: datetime, ahead: int | None
) -> Iterator[Finding]:
    is_due = found.name.due <= stamp(now) and not found.name.parked
    reason, _, user = (found.name.parked or "").partition("+")
    if (kind := _PARKED.get(reason)) is not None:
        yield Finding(kind, {"id": found.id, "user": user})
    if found.job is not None and not after.is_ready(found.job):
        yield from _behind_others(root, found.id, found.job)
    if requests.is_paused(root):
        yield Finding(Kind.QUEUE_PAUSED)
    if found.name.due > stamp(now):
        what = "next try" if found.state is State.FAILED else "due"
        yield Finding(Kind.LATER, {"what": what, "when": when(found.name.due_at, now)})
    if found.job is not None and found.job.group is not None:
        yield from _in_group(root, found.job.group, found.job.slots or 1, now)
    if not alive(workers(root, values)):
        yield Finding(Kind.NOBODY_WORKS)
    if found.unreadable:
        yield Finding(Kind.BROKEN, {"why": found.unreadable})
    if is_due:
        if root.medium.being_written(found.path):
            yield Finding(Kind.OPEN)
        number = _ahead(root, found, now) if ahead is None else ahead
        yield Finding(Kind.ONE_AHEAD if number == 1 else Kind.AHEAD, {"number": number})


_PARKED = {HELD: Kind.PARKED_BY_HAND, EDIT: Kind.IN_EDITOR, MOVING: Kind.MOVING}


def _in_group(root: Root, group: str, wanted: int, now: datetime) -> Iterator[Finding]:
    """Why the group of a job does not let it start now."""
    one = groups.one(root, group, 0, 0, now)
    if one.paused:
        yield Finding(Kind.GROUP_PAUSED, {"group": group})
    if wanted > one.slots:
        yield Finding(Kind.TOO_MANY_SLOTS, {"wanted": wanted, "group": group, "size": one.slots})
    elif one.slots - one.in_use - one.resting < wanted:
        facts = {"what": "a slot" if wanted == 1 else f"{wanted} slots", "group": group}
        resting = f", {one.resting} resting" if one.resting else ""
        yield Finding(
            Kind.WAITS_FOR_SLOT, facts | {"used": one.in_use, "size": one.slots, "resting": resting}
        )


def _behind_others(root: Root, job_id: str, job: Job) -> Iterator[Finding]:
    """What a job waits for that runs after others, or why it cannot run."""
    ends = after.look(root, job.after).ends
    verdict = after.judge(job.after, ends)
    for kind, ids in ((Kind.CANNOT_RUN, verdict.broken), (Kind.WAITS_FOR, verdict.open)):
        if ids:
            some = ", ".join(_named(one, ends[one]) for one in ids[:_SOME])
            rest = f" and {len(ids) - _SOME:,} more" if len(ids) > _SOME else ""
            yield Finding(kind, {"what": some + rest, "id": job_id})
    if (
        verdict.open
        and not verdict.broken
        and (blame := dependencies.Snapshot(root).blame(job_id)) is not None
    ):
        yield Finding(Kind.CANNOT_RUN, {"what": str(blame), "id": job_id})


def _named(job_id: str, end: after.End) -> str:
    if end is after.End.OPEN:
        return job_id
    return f"{job_id} ({end.value})" if end is after.End.UNFILED else f"{job_id} {end.value}"


def _ahead(root: Root, found: Found, now: datetime) -> int:
    """How many jobs run before this one, from one listing of each directory."""
    number = 0
    for state in jobs.WAITING:
        due, _ = order.split(root.texts_in(root.folder(state)), stamp(now))
        ahead, _ = split_parked(state, order.before(due, str(found.name)))
        number += len(ahead) - len(odd(state, ahead))
    return number


def term(job: Job) -> str:
    """For how long a job has its unique key, in words."""
    if isinstance(job.unique_for, float):
        return f"for {duration(job.unique_for)} from its filing"
    return "until it starts" if job.unique_for == UNSTARTED else "while it waits or runs"


def clock(text: str) -> str:
    """A moment of a history in local time."""
    return local(parse_moment(text))
