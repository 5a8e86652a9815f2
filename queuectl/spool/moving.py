"""Moving a job to another spool: parked here, filed there, cancelled here.

pending/N                      ->  processing/N@ME gets `moving`     where it goes, and why it was parked
processing/N@ME                ->  processing/N+moving.held@ME       from here on no worker starts it
there: pending/M                                                     it has the same id, and `moved_from`
processing/N+moving.held@ME gets `moved`  ->  dead/N                 it is there

Crash: the claim becomes pending/N'.yaml.moving.held, and the same command again finishes it: a job there with
the mark `moved_from` is taken for the one that was filed.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, FiledAllTheSame, IdTaken, JobMoved, QueueError, StorageTrouble, WrongState
from queuectl.job.history import MOVED, MOVING, moved_to
from queuectl.job.model import State
from queuectl.spool import claims, finishing, ids, jobs, names, parking, safety
from queuectl.spool.claims import Claim
from queuectl.system import files
from queuectl.times import iso

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from queuectl.job.history import Event
    from queuectl.job.model import Job
    from queuectl.settings import Settings
    from queuectl.spool.acts import Hand
    from queuectl.spool.filing import Filed
    from queuectl.spool.jobs import Found
    from queuectl.spool.root import Root


class Target(NamedTuple):
    """The spool that jobs are moved to. `file` files a job there, held if asked."""

    root: Root
    settings: Settings
    file: Callable[[Job, bool], Filed]

    @property
    def place(self) -> str:
        """The same text for every path to the spool on this host."""
        return os.path.realpath(self.root.text)


def begun(history: tuple[Event, ...]) -> Event:
    """The event of the last move that was begun, or an empty one."""
    return next((event for event in reversed(history) if event.get("event") == MOVING), {})


def move(me: Hand, found: Found, there: Target, now: datetime) -> None:
    """Move a waiting job to another spool, or finish a move that a crash cut off.

    Raises `WrongState` for a job that does not wait, `JobMoved` when it moved meanwhile, and the error of the
    other spool: the job waits here as before then.
    """
    job = _movable(found, there)
    if job is None:
        return
    with me.claimed(found, now) as (name, path):
        claim = Claim.of(me.root, name, claims.read_ready(me.root, path), found.state)
        reason = name.parked
        if reason == names.MOVING:
            reason = begun(claim.history).get("parked", names.HELD)
        else:
            event = {"event": MOVING, "at": iso(now), "to": there.place, "parked": reason}
            claim = _marked(claim.noted(event))
    # Here the name of the claim tells a recovery what to do.
    try:
        _file(claim, reason, there)
        outcome = {"event": MOVED, "at": iso(now), "worker": claim.owner, "to": there.place}
        outcome["error"] = f"moved to {there.place}"
        finishing.settle(claim.noted(outcome), outcome)
    except FiledAllTheSame:
        claims.put_back(me.root, claim.name, found.state)
        raise
    except QueueError:
        finishing.park(claim, reason)
        raise
    except BaseException:
        claims.put_back(me.root, claim.name, found.state)
        raise


def _movable(found: Found, there: Target) -> Job | None:
    """The job if it can be moved; None if it has been. Raises `QueueError` and `JobMoved`."""
    if found.name.parked != names.MOVING:
        parking.refuse_taken(found)
    reading = jobs.read(found)
    if reading is None:
        raise JobMoved(found.id)
    history = reading.job.history if reading.job else ()
    if found.state is State.DEAD and moved_to(history) == there.place:
        return None
    if found.state not in jobs.WAITING:
        raise WrongState(found.id, found.state.label, "waiting", "Nothing was changed.")
    if reading.job is None:
        raise BadJob(f"Job {found.id} cannot be read: {reading.unreadable}", f"Its file is {found.path}.")
    other = begun(history).get("to") if found.name.parked == names.MOVING else None
    if other not in {None, there.place}:
        raise QueueError(
            f"Job {found.id} is on its way to {other}.", f"`queuectl move {found.id} --to {other}` ends that."
        )
    trust = safety.trust(there.root, there.settings)
    if trust is not None and (doubt := trust.doubts(files.kernel.lstat(found.path))):
        raise QueueError(
            f"Job {found.id} does not become root's: {doubt}.", "Move it as the user whose job it is."
        )
    return reading.job


def _marked(claim: Claim) -> Claim:
    """The claim under a name that says that the job is on its way."""
    marked = Claim.of(claim.root, claim.name._replace(parked=names.MOVING), claim.record, claim.source)
    if not files.move(claim.path, marked.path):
        raise claims.lost(claim.root, claim.path)
    return marked


def _file(claim: Claim, reason: str | None, there: Target) -> None:
    """File the job there, unless it is there already. Raises `QueueError` where it is not."""
    here = os.path.realpath(claim.root.text)
    mark = f"{here}/{claim.id}"
    job = claim.job._replace(id=claim.id, moved_from=mark, history=())
    error = _refusal(there, job, is_held=reason == names.HELD)
    if isinstance(error, IdTaken):
        if (one := jobs.places(there.root, [claim.id]).found.get(claim.id)) is None:
            _free_abandoned(there.root, claim.id)
            error = _refusal(there, job, is_held=reason == names.HELD)
        elif (reading := jobs.read(one)) and reading.job and reading.job.moved_from == mark:
            return
        elif reading and reading.job and moved_to(reading.job.history) == here:
            error = QueueError(
                f"Job {claim.id} came from there, and what is left of it has its id.",
                f"`queuectl -s {shlex.quote(there.place)} prune {claim.id}` frees the id.",
            )
    if error is not None:
        raise error.at(there.root.text)


def _refusal(there: Target, job: Job, *, is_held: bool) -> QueueError | None:
    """File a job there. Returns why it is not, and raises `StorageTrouble` or `NotASpool`."""
    try:
        filed = there.file(job, is_held)
    except FileNotFoundError as error:
        there.root.require()
        raise StorageTrouble(error) from error
    except OSError as error:
        raise StorageTrouble(error) from error
    if filed.error is not None or filed.is_new:
        return filed.error
    if filed.id == job.id:  # that has its key: perhaps from here
        return IdTaken(filed.id, filed.id)
    return QueueError(
        f"The key {job.unique!r} is job {filed.id}'s.", f"Wait for that, or change `unique` of {job.id}."
    )


def _free_abandoned(root: Root, job_id: str) -> None:
    """Free an id there that no job has: most likely a move that a crash cut off has taken it.

    Race: a filing that is under way is done by then, or still has its draft open.
    """
    mark = ids.mark(root, job_id)
    times.clock.sleep(ids.FILING_TAKES)
    pending = root.folder(State.PENDING)
    for text in root.texts_in(pending):
        is_draft = text.startswith(".") and names.id_in(text).lower() == job_id.lower()
        if is_draft and root.medium.being_written(f"{pending}/{text}") is False:
            files.remove(f"{pending}/{text}")
    if mark is not None:
        ids.free(root, job_id, mark)
