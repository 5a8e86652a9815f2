"""Acts of a person on a job: retry, cancel, run now, change, delete."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, ClaimLost, JobMoved, QueueError, WrongState
from queuectl.job.history import CANCELLED, moved_to, when_cancelled
from queuectl.job.model import TRANSITIONS, State
from queuectl.spool import (
    aside,
    changes,
    claims,
    descriptions,
    finishing,
    ids,
    jobfile,
    jobs,
    keys,
    output,
    parking,
    presence,
)
from queuectl.spool.claims import Claim
from queuectl.spool.names import FIFO_RANK, HELD, REASON, Name, rank_of
from queuectl.spool.root import KEYS
from queuectl.system import files
from queuectl.times import iso, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from typing import Any

    from queuectl.job.history import Event
    from queuectl.job.model import Job
    from queuectl.settings import Settings
    from queuectl.spool.filing import Gate
    from queuectl.spool.jobs import Found
    from queuectl.spool.root import Root

#: Seconds between the beats of a hand that acts on many jobs.
BEAT_EVERY = 2.0


class Hand:
    """A live owner under whose name a person acts on jobs, one after the other. Made by `hand`."""

    def __init__(self, root: Root, me: presence.Presence) -> None:
        self.root = root
        self._me = me
        self._beaten_at = times.clock.monotonic()

    @contextlib.contextmanager
    def claimed(self, found: Found, now: datetime) -> Iterator[tuple[Name, str]]:
        """The job in processing/ under this hand's name: no worker can start it, no other hand act on it.

        Raises `JobMoved` when somebody else was faster, `SpoolAway` when the spool is out of reach.
        """
        if times.clock.monotonic() - self._beaten_at > BEAT_EVERY:
            self._me.beat(now, 0)
            self._beaten_at = times.clock.monotonic()
        name = found.name.owned(self._me.name)
        path = f"{self.root.folder(State.PROCESSING)}/{name}"
        if not files.move(found.path, path):
            self.root.require_reachable()
            raise JobMoved(found.id)
        try:
            yield name, path
        except ClaimLost as error:  # this hand was taken for dead
            raise JobMoved(found.id) from error
        except BaseException:
            claims.put_back(self.root, name, found.state)
            raise


@contextlib.contextmanager
def hand(root: Root, now: datetime) -> Iterator[Hand]:
    """Join as an owner for any number of acts."""
    me = presence.join(root, descriptions.BY_HAND, now)
    try:
        yield Hand(root, me)
    finally:
        me.leave()


def retry(
    me: Hand, found: Found, settings: Settings, now: datetime, changing: Mapping[str, Any] | None = None
) -> str:
    """Put a failed, dead or completed job back to pending, and count its tries from zero. Returns its path.

    `changing` are changes of its fields, as `changes.edited` takes them. A job that is held stays so.
    Raises `WrongState` for a job that waits or runs, `JobMoved` when it moved meanwhile, `KeyTaken` while
    another job holds its unique key, `BadJob` when its file has not been mended, and `QueueError` for a job
    that is in another spool now.
    """
    if State.PENDING not in TRANSITIONS[found.state] or found.state is State.PROCESSING:
        raise WrongState(found.id, found.state.label, "failed, dead or completed", "It will run as it is.")
    parking.refuse_taken(found)
    _refuse_unreadable(found)
    with me.claimed(found, now) as (claim, path):
        record = claims.read_ready(me.root, path)
        if (to := moved_to(record.job.history)) is not None:
            there = f"queuectl -s {shlex.quote(to)}"
            raise QueueError(
                f"Job {claim.id} was moved to {to}, and would run twice.",
                f"See `{there} status {claim.id}`. Nothing was changed.",
            )
        if (wanted := changes.changed(record.job, changing or {})).unique is not None:
            _take_key(me.root, wanted, claim.id)
        if changing:
            _edit(me.root, path, changing)
            record = claims.read_ready(me.root, path)
        job = Claim.of(me.root, claim, record, found.state).noted(finishing.retried(now)).job
        priority, fifo = job.priority, settings.scheduling_mode == "fifo"
        rank = claim.rank if priority is None else rank_of(priority, fifo=fifo)
        due = max(now, job.run_at or now)
        parked = HELD if claim.parked == HELD else None
        name = Name(rank, stamp(due), claim.id, parked=parked).grouped(job.group, job.slots)
        target = _put(me.root, State.PENDING, path, name)
    # The job is put back: an error here would mislead, and `check --repair` removes a reason that stays.
    with contextlib.suppress(OSError):
        files.remove(found.path + REASON)
    return target


def _take_key(root: Root, job: Job, job_id: str) -> None:
    (answer,) = keys.take_all(root, [keys.Wish.of(job, job_id)])
    if isinstance(answer, QueueError):
        raise answer


def cancel_waiting(me: Hand, found: Found, now: datetime) -> tuple[str, str]:
    """Move a waiting job to dead as cancelled; returns its path, and in words how it was cancelled.

    Raises `WrongState` for a job that does not wait, `JobMoved` when a worker was faster.
    """
    _refuse_unless_waiting(found, "waiting")
    how = "cancelled while it waited"
    with me.claimed(found, now) as (claim, path):
        with contextlib.suppress(files.NotAFile, BadJob):  # what cannot be read has no history to add to
            record = claims.read_ready(me.root, path)
            how = when_cancelled(record.job.history)
            event = {"event": CANCELLED, "at": iso(now), "worker": claim.owner, "error": how}
            Claim.of(me.root, claim, record, found.state).noted(event)
        return _put(me.root, State.DEAD, path, claim.unparked()), how


def run_now(me: Hand, found: Found, now: datetime) -> str:
    """Let a scheduled job, or the next try of a failed job, start at once. Returns its path.

    Its tries still count. Raises `WrongState` for others, `JobMoved` when it moved
    meanwhile, and `BadJob` when its file cannot be read.
    """
    _refuse_unless_waiting(found, "scheduled or waiting for its next try")
    _refuse_unreadable(found)
    if found.name.due <= stamp(now):
        raise WrongState(found.id, "due already", "due later", "It starts as soon as a worker is free.")
    with me.claimed(found, now) as (claim, path):
        if claims.read_ready(me.root, path).job.run_at is not None:
            _edit(me.root, path, {"run_at": now})
        return _put(me.root, found.state, path, claim._replace(due=stamp(now)))


class Change(NamedTuple):
    """A change of the content of jobs. `edit` makes the new bytes of a file of the old ones, or raises.

    `gate` is asked about a job that is to run after other jobs than before.
    """

    edit: Callable[[bytes], bytes]
    settings: Settings
    gate: Gate


def change(me: Hand, found: Found, how: Change, now: datetime) -> str:
    """Change the file of a waiting job, and give it the name that it asks for then. Returns its path.

    A job that is held stays so. In `fifo` mode a job that is ordered by time alone stays so.
    Raises as `run_now` does and what `edit` raises; nothing is changed then.
    """
    _refuse_unless_waiting(found, "waiting")
    _refuse_unreadable(found)
    return _apply(me, found, how, found.name.parked, now)


def end_edit(me: Hand, found: Found, how: Change, reason: str | None, now: datetime) -> str:
    """Put a job back, changed, that was parked for `reason` before a person took it into an editor.

    Returns its path. Raises as `change` does.
    """
    return _apply(me, found, how, reason, now)


def _apply(me: Hand, found: Found, how: Change, reason: str | None, now: datetime) -> str:
    with me.claimed(found, now) as (claim, path):
        data = files.read(path, files.MAX_WITH_HISTORY)
        new = how.edit(data)
        job = before = jobfile.parse(new).job
        with contextlib.suppress(BadJob):  # it is being mended; whoever claims it compares it with its name
            before = jobfile.parse(data).job
        name = claim.later()._replace(
            parked=reason
        )  # no name comes back to a directory it has left, even if the old priority does
        name = name.grouped(job.group, job.slots)
        if job.priority != before.priority:
            name = name._replace(rank=_rank_of(job, claim, how.settings))
        if job.run_at != before.run_at and (job.run_at or found.state is State.PENDING):
            name = name._replace(due=stamp(job.run_at or now))
        if (job.after, job.group, job.slots) != (before.after, before.group, before.slots):
            judged = how.gate([job._replace(id=claim.id)]).get(claim.id)
            if isinstance(judged, QueueError):
                raise judged
            if reason != HELD:
                name = name._replace(parked=judged)
        if job.unique is not None and job.unique != before.unique:
            _take_key(me.root, job, claim.id)
        if new != data:
            claims.write_anew(me.root, path, new)
        target = _put(me.root, found.state, path, name)
    if before.unique is not None and before.unique != job.unique:
        # The job is changed: an error here would mislead, and its end frees the key.
        with contextlib.suppress(OSError):
            keys.free_of(me.root, before.unique, claim.id)
    return target


def _rank_of(job: Job, name: Name, values: Settings) -> int:
    fifo = values.scheduling_mode == "fifo" and name.rank == FIFO_RANK
    return rank_of(values.priority if job.priority is None else job.priority, fifo=fifo)


def release_now(me: Hand, found: Found, noting: Callable[[Job], tuple[Event, ...]], now: datetime) -> str:
    """Let workers start a job that is parked, whatever it waits for. Returns its path.

    `noting` gives the events that say so to the rules. Raises as `run_now` does.
    """
    _refuse_unless_waiting(found, "held")
    if found.name.parked is None:
        raise WrongState(found.id, found.state.label, "held", "It waits for nothing but a worker.")
    _refuse_unreadable(found)
    with me.claimed(found, now) as (claim, path):
        record = claims.read_ready(me.root, path)
        if events := noting(record.job):
            Claim.of(me.root, claim, record, found.state).noted(*events)
        name = claim.later().unparked().grouped(record.job.group, record.job.slots)
        return _put(me.root, found.state, path, name)


def _refuse_unless_waiting(found: Found, wanted: str) -> None:
    if found.state not in {State.PENDING, State.FAILED}:
        raise WrongState(found.id, found.state.label, wanted, "Nothing was changed.")
    parking.refuse_taken(found)


def _refuse_unreadable(found: Found) -> None:
    try:
        jobfile.read(found.path)
    except (BadJob, files.NotAFile, PermissionError) as error:
        raise BadJob(
            f"Job {found.id} cannot be read: {aside.why(error)}",
            f"Its file is {found.path}; try again once it is correct.",
        ) from None
    except FileNotFoundError as error:
        raise JobMoved(found.id) from error


def _edit(root: Root, path: str, changing: Mapping[str, Any]) -> None:
    before = files.read(path, files.MAX_WITH_HISTORY)
    after = changes.edited(before, changing)
    if after != before:
        claims.write_anew(root, path, after)


def _put(root: Root, state: State, path: str, name: Name) -> str:
    """Move a claim to where it ends. Raises `ClaimLost` or `SpoolAway`."""
    target = f"{root.folder(state)}/{jobs.free_name(root, state, name.free())}"
    if not files.move(path, target):
        raise claims.lost(root, path)
    return target


def delete(root: Root, found: list[Found]) -> Iterator[str]:
    """Delete finished jobs with their logs, which frees their ids and keys. Yields the id of each."""
    logs = output.logs_of(root, {item.id.lower() for item in found})
    reserved = ids.listed(root)
    has_keys = KEYS in files.list_names(root.text)
    for item in found:
        job = _read(item) if has_keys else None
        if not files.remove(item.path):
            continue  # somebody moved or deleted it meanwhile
        files.remove(item.path + REASON)
        for path in logs.get(item.id.lower(), ()):
            files.remove(path)
        if item.id.lower() in reserved:
            ids.drop(root, item.id)
        if job is not None and job.unique is not None:
            keys.free_of(root, job.unique, item.id)
        yield item.id


def _read(found: Found) -> Job | None:
    """The content of a job's file; None where it is gone or cannot be read."""
    reading = jobs.read(found)
    return reading and reading.job


def spent_worker_logs(root: Root, oldest: datetime) -> list[str]:
    """The paths of the logs of workers that are gone and last wrote to them before `oldest`."""
    present = set(descriptions.described(root))
    spent = []
    for worker, path in output.worker_logs(root).items():
        if worker not in present:
            with contextlib.suppress(FileNotFoundError):
                if files.modified(path) <= oldest.timestamp():
                    spent.append(path)
    return spent
