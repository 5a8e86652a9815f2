"""What a claimed file is: a job whose claim stands, a file under a wrong name, or no job at all.

The content decides:
    it is a job, and the name agrees             the claim stands
    the content asks for another name            back to where it was, under that name
    the layout takes no further event            written again once, then as above
    it cannot be a job                           dead/, untouched, with the reason beside it
"""

from __future__ import annotations

import errno
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import BadJob, ClaimLost
from queuectl.job.history import RETRIED
from queuectl.job.model import Job, State
from queuectl.spool import aside, ids, jobfile, presence, safety
from queuectl.spool.claims import Claim, ready
from queuectl.spool.holds import OURS, BeingWritten, may_be_open, written_by_us
from queuectl.spool.jobs import free_name
from queuectl.spool.names import FIFO_RANK, Name, rank_of
from queuectl.system import files, users
from queuectl.times import parse_moment, stamp

if TYPE_CHECKING:
    from queuectl.spool.jobfile import Record
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: A name may be this much later than `run_at` says: each return to pending/ adds a microsecond.
LEEWAY = timedelta(seconds=1)
#: Errors that the system gives for one file, however much room the disk has.
OF_ONE_FILE = frozenset({errno.EFBIG, errno.ENAMETOOLONG})


class IdContested(Exception):
    """The content gives the job another id, which is taken. `right` is the name that it asks for."""

    def __init__(self, right: Name) -> None:
        super().__init__(right.id)
        self.right = right


class Terms(NamedTuple):
    """Conditions for a claimed file: who may have filed it; anybody where `trust` is None.

    `settled` is the time of a last change after which the file was seen not to change any more.
    """

    trust: users.Trust | None = None
    settled: float | None = None


def confirm(
    root: Root, name: Name, source: State, now: datetime, terms: Terms | None = None
) -> Claim | Name | None:
    """Read what was claimed. None when it is gone, or is no job and was put aside.

    Returns a name when the job was filed again under it, as its content asks. Raises `BeingWritten`,
    `IdContested`, or the `OSError` of a disk that cannot be read now: the claim lasts then.
    """
    path = f"{root.folder(State.PROCESSING)}/{name}"
    try:
        reading = ready(root, path, _read_whole(root, name, now, terms or Terms()))
    except (BadJob, files.NotAFile, PermissionError) as error:
        given_away = isinstance(error, files.Untrusted) and safety.gives_away(root)
        aside.bury(root, name, name.free(), aside.why(error), aside.GIVEN_AWAY if given_away else None)
        return None
    except (FileNotFoundError, ClaimLost):
        return None
    claim = Claim.of(root, name, reading, source)
    right = true_name(claim, now)
    if right is None:
        return claim
    if right.id != name.id and not ids.take(root, right.id):
        raise IdContested(right)
    return file_again(root, name, source, right)


def file_again(root: Root, name: Name, source: State, right: Name) -> Name:
    """Undo a claim, under the name that the content asks for. Returns the name that the file got."""
    right = free_name(root, source, right)
    files.move(f"{root.folder(State.PROCESSING)}/{name}", f"{root.folder(source)}/{right}")
    return right


def file_apart(claim: Claim) -> Name:
    """Undo a claim, under an id of its own that begins like the one that another file has as well."""
    own = ids.take_like(claim.root, claim.id)
    try:
        right = file_again(claim.root, claim.name, claim.source, claim.name.free()._replace(id=own))
    except BaseException:
        ids.release(claim.root, [own])
        raise
    log.warning("job %s: another file has this id, and this one names none: it is job %s now", claim.id, own)
    return right


def _read_whole(root: Root, name: Name, now: datetime, terms: Terms) -> Record:
    """The record of a file that is whole: half of a command must never run.

    Raises `BeingWritten` for a file that may not be whole, else as `jobfile.read` does.
    """
    path = f"{root.folder(State.PROCESSING)}/{name}"
    if root.medium.tells_writers:
        data = files.read_settled(path, files.MAX_WITH_HISTORY, terms.trust)
        if data is None:
            raise BeingWritten(name.id, None)
        return jobfile.parse(data)
    data, written = files.read_dated(path, files.MAX_WITH_HISTORY, terms.trust)
    is_open = terms.settled != written and may_be_open(written, now.timestamp())
    try:
        reading = jobfile.parse(data)
    except BadJob:
        if is_open:
            raise BeingWritten(name.id, written) from None
        raise
    if is_open and written - written_by_us(reading.job) > OURS:
        raise BeingWritten(name.id, written)
    return reading


def true_name(claim: Claim, now: datetime) -> Name | None:
    """The name that the content asks for. None where the file has it already."""
    name, job = claim.name.free(), claim.job
    right = name
    if job.id is not None and job.id != name.id:
        right = right._replace(id=job.id)
    rank = name.rank if job.priority is None or name.rank == FIFO_RANK else rank_of(job.priority, fifo=False)
    if rank != name.rank:
        right = right._replace(rank=rank)
    if (due := _asked_due(claim, now)) is not None:
        right = right._replace(due=stamp(due))
    if right == name:
        return None
    # No name comes back to a directory it has left, even if the old priority does.
    return right if right.due != name.due else right._replace(due=name.later().due)


def _asked_due(claim: Claim, now: datetime) -> datetime | None:
    """The time that the content asks for and the name does not give. None where they agree."""
    job, due = claim.job, claim.name.due_at
    is_new = not job.history or job.history[-1].get("event") == RETRIED
    if job.run_at is None:
        # Nothing says that it is to wait: the line was removed, or the clock of its filing was ahead.
        is_late = claim.source is State.PENDING and is_new
        return now if is_late and due > now + timedelta(seconds=presence.TOLERANCE) else None
    if not is_new and job.run_at <= _last_moment(job):
        return None  # the last run had it; the name gives the next try
    is_later = due - job.run_at > LEEWAY and due > now
    return job.run_at if due < job.run_at or is_later else None


def _last_moment(job: Job) -> datetime:
    """When the last event of a job was; the end of time where it does not say."""
    try:
        return parse_moment(str(job.history[-1].get("at")))
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


def has_failed_after(now: datetime, job: Job) -> bool:
    """Whether a job's last run ended in the future: the clock was set back since, so it need not wait."""
    at = job.history[-1].get("at") if job.history else None
    try:
        return at is not None and parse_moment(at) > now + LEEWAY
    except ValueError:
        return False
