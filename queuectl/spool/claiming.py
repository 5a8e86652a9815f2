"""Claiming a job: the first of those that wait is taken by rename, and its content decides what it is.

it is a job, and the name agrees             the claim stands
the content asks for another name            back to where it was, under that name
the layout takes no further event            written again once, then as above
it is being written to                       back to where it was, and left alone for a while
it cannot be a job                           dead/, untouched, with the reason beside it
"""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from queuectl.errors import BadJob, ClaimLost, IdTaken
from queuectl.job.history import READY, RETRIED, moved_by_hand
from queuectl.job.model import Job, State
from queuectl.spool import aside, finishing, ids, jobfile, presence, safety
from queuectl.spool.claims import Claim, lost, put_back, ready
from queuectl.spool.holds import OURS, BeingWritten, NotYet, may_be_open, written_by_us
from queuectl.spool.jobs import free_name
from queuectl.spool.names import FIFO_RANK, Name, rank_of
from queuectl.system import files
from queuectl.times import parse_moment, stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.settings import Live
    from queuectl.spool.jobfile import Record
    from queuectl.spool.root import Root
    from queuectl.spool.waiting import Waiting
    from queuectl.system import users

#: A name may be this much later than `run_at` says: each return to pending/ adds a microsecond.
LEEWAY = timedelta(seconds=1)
#: Errors that the system gives for one file, however much room the disk has.
OF_ONE_FILE = frozenset({errno.EFBIG, errno.ENAMETOOLONG})


class Claimant:
    """Claims for one owner the jobs that `waiting` lists. Files that are no jobs are put aside on the way."""

    def __init__(
        self,
        owner: str,
        live: Live,
        waiting: Waiting,
        abandoned: ids.Abandoned,
        ask: Callable[[Claim, datetime], Claim | Name | None],
    ) -> None:
        """`ask` gives the answer of the `rules` for a claim."""
        self._owner = owner
        self._live = live
        self._waiting = waiting
        self._abandoned = abandoned
        self._ask = ask

    def claim(self, now: datetime, most: int) -> Claim | None:
        """Claim the most urgent job that may run now; None when there is none among those listed.

        Also None when as many files as `most` were no claims after all. Raises `OSError` when the
        spool is out of reach.
        """
        for _ in range(most):
            taken = self._waiting.take(self._owner, now)
            if taken is None:
                return None
            claim = None
            try:
                claim = self._try(*taken, now)
            finally:
                if claim is None:
                    self._waiting.not_claimed(taken[0])
            if claim is not None:
                return claim
        return None

    def _try(self, name: Name, source: State, now: datetime) -> Claim | None:
        """The claim of a job that was taken. None if it was put aside or back, or is lost."""
        waiting = self._waiting
        try:
            claim = self.confirmed(name, source, now)
        except ClaimLost:
            claim = None  # somebody took this owner for dead, and the job with it
        except BeingWritten as one:
            waiting.holds.hold(name, one.written)
            self._put_back(name, source)
            return None
        except NotYet as until:
            waiting.holds.postpone(name, until.seconds)
            self._put_back(name, source)
            return None
        except OSError as error:
            if error.errno not in OF_ONE_FILE:
                put_back(waiting.root, name, source)
                raise
            aside.bury(waiting.root, name, name.free(), aside.why(error))
            return None
        waiting.holds.let_go(name)
        if isinstance(claim, Claim):
            return claim
        if claim is not None and not claim.parked:
            waiting.expect(source, str(claim))
        return None

    def _put_back(self, name: Name, source: State) -> None:
        if (back := put_back(self._waiting.root, name, source)) is not None:
            self._waiting.expect(source, str(back))

    def confirmed(self, name: Name, source: State, now: datetime) -> Claim | Name | None:
        """Read what was claimed. None if it is no job and was put aside.

        Returns a name if the job was filed again under it, as its content asks. Raises `ClaimLost`,
        `BeingWritten`, `NotYet`, or the `OSError` of a disk that cannot be read now: the claim lasts then.
        """
        root, path = self._waiting.root, f"{self._waiting.root.folder(State.PROCESSING)}/{name}"
        trust, settled = safety.trust(root, self._live.last), self._waiting.holds.settled(name)
        try:
            record = ready(root, path, read_whole(root, path, now, trust, settled))
        except (BadJob, files.NotAFile, PermissionError) as error:
            given_away = isinstance(error, files.Untrusted) and safety.gives_away(root)
            aside.bury(root, name, name.free(), aside.why(error), aside.GIVEN_AWAY if given_away else None)
            return None
        except FileNotFoundError as error:
            raise lost(root, path) from error
        claim, job = Claim(root, name, record, source, path), record.job
        right = true_name(name.free(), job, source, now)
        if right is None:
            answer = self._ask(claim, now)
            if not isinstance(answer, Claim):
                return answer
            claim = answer
            if source is State.PENDING and moved_by_hand(job.history):
                # Crash: else the outcome before that would be taken for one of this claim.
                return claim.noted(finishing.retried(now), sync=self._live.last.syncs)
            return claim
        if right.id != name.id and not ids.take(root, right.id):
            verdict = self._abandoned.judge([right.id])[right.id]
            if isinstance(verdict, IdTaken):
                reason = f"The id {right.id!r} that it gives itself is taken."
                aside.bury(root, name, name.free(), reason, aside.OTHER_ID)
                return None
            if verdict > 0:
                raise NotYet(verdict)
        return file_again(claim, right)


def file_again(claim: Claim, right: Name) -> Name:
    """Undo a claim, under the name that the content asks for. Returns the name that the file got."""
    right = free_name(claim.root, claim.source, right)
    files.move(claim.path, f"{claim.root.folder(claim.source)}/{right}")
    return right


def read_whole(
    root: Root, path: str, now: datetime, trust: users.Trust | None, settled: float | None
) -> Record:
    """The record of a claim's file that is whole: half of a command must never run.

    `settled` is the time of a last change after which the file was seen not to change any more. Raises
    `BeingWritten` for a file that may not be whole, else as `jobfile.read` does.
    """
    if root.medium.tells_writers:
        data = files.read_settled(path, files.MAX_WITH_HISTORY, trust)
        if data is None:
            raise BeingWritten(path, None)
        return jobfile.parse(data)
    data, written = files.read_dated(path, files.MAX_WITH_HISTORY, trust)
    is_open = settled != written and may_be_open(written, now.timestamp())
    try:
        record = jobfile.parse(data)
    except BadJob:
        if is_open:
            raise BeingWritten(path, written) from None
        raise
    if is_open and written - written_by_us(record.job) > OURS:
        raise BeingWritten(path, written)
    return record


def true_name(name: Name, job: Job, source: State, now: datetime) -> Name | None:
    """The name that the content of a file in `source` asks for; None where it has that name."""
    right = name
    if job.id is not None and job.id != name.id:
        right = right._replace(id=job.id)
    rank = name.rank if job.priority is None or name.rank == FIFO_RANK else rank_of(job.priority, fifo=False)
    if rank != name.rank:
        right = right._replace(rank=rank)
    if (due := _asked_due(name, job, source, now)) is not None:
        right = right._replace(due=stamp(due))
    if (job.group, job.slots or 1) != (name.group, name.slots) and not name.parked:
        right = right.grouped(job.group, job.slots)
    if right == name:
        return None
    # No name comes back to a directory it has left, even if the old priority does.
    return right if right.due != name.due else right._replace(due=name.later().due)


def _asked_due(name: Name, job: Job, source: State, now: datetime) -> datetime | None:
    """The time that the content asks for and the name does not give. None where they agree."""
    due = name.due_at
    is_new = not job.history or job.history[-1].get("event") in {RETRIED, READY}
    if job.run_at is None:
        # Nothing says that it is to wait: the line was removed, or the clock of its filing was ahead.
        is_late = source is State.PENDING and is_new
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
