"""Jobs after jobs: whether a job may start follows from where the jobs that it waits for lie.

Nothing is propagated and nothing is counted: the answer is derived each time. So a dependency that is retried
revives what waits for it, and nothing has to be undone.
"""

from __future__ import annotations

import errno
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import BadJob
from queuectl.job.history import CANCELLED, MOVED, READY
from queuectl.job.model import State
from queuectl.spool import batches, finishing, ids, jobs, output
from queuectl.spool.names import AFTER, ID_AT, PARKED, SHORT_ID, id_in, is_made_id
from queuectl.system import files
from queuectl.times import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from queuectl.errors import QueueError
    from queuectl.job.history import Event
    from queuectl.job.model import Job
    from queuectl.spool.claims import Claim
    from queuectl.spool.jobs import Found
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root


class End(Enum):
    """How a job that others wait for has ended."""

    #: It waits or runs, or it may be tried again.
    OPEN = "has not ended"
    #: No job has had this id so far.
    UNFILED = "is not filed yet"
    OK = "succeeded"
    FAILED = "failed"
    CANCELLED = "was cancelled"
    #: It is in no directory any more: somebody deleted its file.
    REMOVED = "was removed"


_WANTED: Mapping[str, frozenset[End]] = {
    "ok": frozenset({End.OK}),
    "failed": frozenset({End.FAILED}),
    "any": frozenset({End.OK, End.FAILED, End.CANCELLED}),
}
_OPEN = frozenset({End.OPEN, End.UNFILED})


class Verdict(NamedTuple):
    """Whether a job may start: it waits for the ids `open`, and cannot run because of the ids `broken`.

    It may start where both are empty.
    """

    open: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def is_met(self) -> bool:
        """Whether all has ended as asked."""
        return not self.open and not self.broken

    @property
    def cannot_run(self) -> bool:
        """Whether something has ended otherwise than asked."""
        return bool(self.broken)


def judge(after: Mapping[str, str], ends: Mapping[str, End]) -> Verdict:
    """Whether a job may start that runs `after` these ids, which have these ends."""
    still_open = tuple(job_id for job_id in after if ends[job_id] in _OPEN)
    broken = tuple(
        job_id
        for job_id, wanted in after.items()
        if ends[job_id] not in _OPEN and ends[job_id] not in _WANTED[wanted]
    )
    return Verdict(still_open, broken)


def end_of_batch(size: int, members: Sequence[End]) -> End:
    """How a batch has ended that declares `size` members, of which these are filed.

    A batch has ended when all of them have. It counts as failed where one failed, and as cancelled where one
    was cancelled and none failed. One that is half filed has not ended.
    """
    if len(members) < size or any(end in _OPEN for end in members):
        return End.OPEN
    for end in (End.FAILED, End.REMOVED, End.CANCELLED):
        if end in members:
            return end
    return End.OK


def pointer(verdict: Verdict, turns: Mapping[str, str]) -> str:
    """The id under which a job is parked that cannot start yet.

    Of those that it waits for it is the last one in run order (`turns`), which is likely to end last. So a
    job that waits for a thousand others is judged about once. Where the job cannot run, it is the id that
    is to blame.
    """
    if verdict.broken:
        return verdict.broken[0]
    return max(verdict.open, key=lambda job_id: turns[job_id])


def cycle(start: str, after: Callable[[str], Iterable[str]]) -> list[str] | None:
    """The way from a job through those that it waits for back to itself; None where there is none.

    `after` returns what a job waits for, nothing for an id without a waiting job.
    """
    way: list[str] = [start]
    branches = [iter(after(start))]
    seen = {start}
    while branches:
        following = next(branches[-1], None)
        if following is None:
            branches.pop()
            way.pop()
        elif following == start:
            return [*way, start]
        elif following not in seen:
            seen.add(following)
            way.append(following)
            branches.append(iter(after(following)))
    return None


def is_ready(job: Job) -> bool:
    """Whether a job has what it waits for, as an event in its file says.

    The event repeats what was met, so an edit of `after` makes the job wait again.
    """
    if not job.after:
        return True
    said = next((event for event in reversed(job.history) if event.get("event") == READY), {})
    return said.get("after") == dict(job.after)


#: Bytes that the draft of a parked name has besides the two ids.
_AROUND_IDS = len(".") + ID_AT + len(f".yaml.{AFTER}+{PARKED}.tmp")
#: How many files are read at most to find a circle when a job is filed. The sweep finds longer ones.
MOST_READ = 1000


def ready(wanted: Mapping[str, str], now: datetime) -> Event:
    """The event that a job has what it waits for."""
    return {"event": READY, "at": iso(now), "after": dict(wanted)}


def parked_behind(root: Root, job: Job) -> str | None:
    """Why a job that nobody holds any more is parked still; None where it has what it waits for."""
    if is_ready(job):
        return None
    seen = look(root, job.after)
    verdict = judge(job.after, seen.ends)
    return None if verdict.is_met else f"{AFTER}+{pointer(verdict, seen.turns)}"


def admit(claim: Claim, now: datetime, *, sync: bool) -> Claim | Name:
    """The claim of a job that has what it waits for. Any other job is parked: the name that it has then.

    Only a job that was filed or moved past its parked name is judged here. Raises `OSError` where the file
    system has no room for the parked name.
    """
    if is_ready(claim.job):
        return claim
    reason = parked_behind(claim.root, claim.job)
    if reason is None:
        return claim.noted(ready(claim.job.after, now), sync=sync)
    if not claim.root.takes_length(len(str(claim.name._replace(owner=None, parked=reason)))):
        raise OSError(errno.ENAMETOOLONG, "Its id and one in `after` are too long together for a file name")
    return finishing.park(claim, reason)


def gate(
    root: Root, lot: list[Job], *, may_be_unfiled: bool, before: Look | None = None
) -> tuple[dict[str, str | QueueError], Look]:
    """For the ids of jobs that are filed together: why they are parked, or why they are refused.

    A job that may start is left out. A job may wait for another one of the lot. Returns also where the
    others lie, for the next lot.
    """
    own: dict[str, Job] = {}
    for job in lot:
        own.setdefault(_folded(job), job)  # a second job of one id is refused
    wanted = {job_id for job in lot for job_id in job.after}
    inside = {job_id for job_id in wanted if job_id.lower() in own}
    seen = look(root, wanted - inside, before or NOTHING)
    ends = seen.ends | dict.fromkeys(inside, End.OPEN)
    places = {job_id: at for at, job_id in enumerate(own)}
    turns = {job_id: f"{_OWN}{places[job_id.lower()]:06}" for job_id in inside} | seen.turns
    behind = _Behind(root, own)
    judged: dict[str, str | QueueError] = {}
    for job in filter(lambda job: job.after, own.values()):
        job_id = job.id or ""
        if error := _unfit(root, job, ends, behind, may_be_unfiled=may_be_unfiled):
            judged[job_id] = error
        elif not (verdict := judge(job.after, ends)).is_met:
            judged[job_id] = f"{AFTER}+{pointer(verdict, turns)}"
    if not may_be_unfiled:
        _refuse_what_waits_for_refused(own, judged)
    return judged, seen


def _folded(job: Job) -> str:
    return (job.id or "").lower()


def _unfit(
    root: Root, job: Job, ends: Mapping[str, End], behind: _Behind, *, may_be_unfiled: bool
) -> QueueError | None:
    """Why a job may not be filed that waits for others; None where it may."""
    unknown = [job_id for job_id in job.after if ends[job_id] in {End.UNFILED, End.REMOVED}]
    if unknown and not may_be_unfiled:
        return _unknown(unknown[0])
    # Nobody can wait for an id that was just made up.
    if not is_made_id(_folded(job)) and (way := cycle(_folded(job), behind.of)) is not None:
        return BadJob(f"after: it would wait for itself: {' -> '.join(way)}.", "Leave one out.")
    longest = max(job.after, key=len)
    if not root.takes_length(_AROUND_IDS + len(job.id or "") + len(longest)):
        problem = f"after: this file system has no room for {longest!r} beside the job's own id."
        return BadJob(problem, f"Take ids of at most {SHORT_ID - 5} characters.")
    return None


def _unknown(job_id: str) -> BadJob:
    remedy = "File it first, or say --after-unfiled to wait until it is filed."
    return BadJob(f"after: there is no job or batch {job_id!r}.", remedy)


def _refuse_what_waits_for_refused(own: Mapping[str, Job], judged: dict[str, str | QueueError]) -> None:
    is_new = True
    while is_new:
        is_new = False
        refused = {job_id.lower() for job_id, why in judged.items() if not isinstance(why, str)}
        for job in own.values():
            lacking = [job_id for job_id in job.after if job_id.lower() in refused]
            if lacking and _folded(job) not in refused:
                judged[job.id or ""] = _unknown(lacking[0])
                is_new = True


class _Behind:
    """What jobs wait for: those of a lot, and those that are parked in the spool."""

    def __init__(self, root: Root, own: Mapping[str, Job]) -> None:
        self._root = root
        self._own = own
        self._parked: dict[str, Found] | None = None
        self._left = MOST_READ

    def of(self, job_id: str) -> list[str]:
        """The ids, in lower case, that a job waits for; none where no job has the id or waits for others."""
        if job_id in self._own:
            return [one.lower() for one in self._own[job_id].after]
        if self._parked is None:
            found = (one for state in jobs.WAITING for one in jobs.found_in(self._root, state))
            self._parked = {one.id.lower(): one for one in found if one.name.parked}
        if job_id not in self._parked or not self._left:
            return []
        self._left -= 1
        reading = jobs.read(self._parked[job_id])
        return [one.lower() for one in reading.job.after] if reading and reading.job else []


class Look(NamedTuple):
    """How jobs and batches have ended, and where each stands in run order: its file name, or `LAST`.

    `places` are the files of those that are jobs.
    """

    ends: dict[str, End]
    turns: dict[str, str]
    places: dict[str, Found]


#: The turn of what is no job that waits, and the beginning of that of a job which is being filed. Both sort
#: behind all file names.
LAST, _OWN = "~", "}"
#: What nobody has looked for yet.
NOTHING = Look({}, {}, {})


def look(root: Root, job_ids: Iterable[str], before: Look = NOTHING) -> Look:
    """Look where these jobs and batches lie now: a few listings for any number of ids.

    Ids that differ in case alone are one id. The answers are by the spelling that was asked for. Nothing is
    listed for jobs that are where they were at the look `before`.
    """
    seen = Look({}, {}, {})
    wanted: set[str] = set()
    for job_id in job_ids:
        if _is_still(root, before, job_id):
            seen.ends[job_id], seen.turns[job_id] = before.ends[job_id], before.turns[job_id]
            seen.places[job_id] = before.places[job_id]
        else:
            wanted.add(job_id)
    found = {one.id.lower(): one for one in jobs.places(root, wanted).found.values()}
    sizes: dict[str, int] = {}
    for job_id in wanted:
        seen.turns[job_id] = LAST
        if (one := found.get(job_id.lower())) is not None:
            seen.ends[job_id], seen.turns[job_id] = _end_of_job(one), str(one.name)
            seen.places[job_id] = one
        elif (size := batches.size_of(root, job_id)) is not None:
            sizes[job_id] = size
        else:
            seen.ends[job_id] = End.REMOVED if _was_filed(root, job_id) else End.UNFILED
    members = _members(root, sizes)
    for name, size in sizes.items():
        seen.ends[name] = _end_of_batch(size, members[name.lower()])
    return seen


def _is_still(root: Root, before: Look, job_id: str) -> bool:
    """Whether a job lies where it lay: no name comes back to a directory that it has left."""
    one = before.places.get(job_id)
    return one is not None and root.medium.answers_truly and files.exists(one.path)


def _end_of_batch(size: int, members: list[Found]) -> End:
    has_ended = len(members) >= size and all(one.state in {State.DONE, State.DEAD} for one in members)
    return end_of_batch(size, [_end_of_job(one) for one in members]) if has_ended else End.OPEN


def _end_of_job(found: Found) -> End:
    if found.state is State.DONE:
        return End.OK
    if found.state is not State.DEAD:
        return End.OPEN
    reading = jobs.read(found)
    if reading is None:
        return End.OPEN  # it moves just now: the next look finds it
    history = reading.job.history if reading.job else ()
    return End.CANCELLED if history and history[-1].get("event") in {CANCELLED, MOVED} else End.FAILED


def _members(root: Root, names: Iterable[str]) -> dict[str, list[Found]]:
    """The jobs that are members of these batches, by the names in lower case, from one look."""
    found: dict[str, dict[str, Found]] = {name.lower(): {} for name in names}
    if found:
        for one in jobs.everywhere(root):
            if (name := batches.batch_of(one.id.lower())) in found:
                found[name][one.id.lower()] = one
    return {name: list(members.values()) for name, members in found.items()}


def _was_filed(root: Root, job_id: str) -> bool:
    """Whether a job had this id that is in no directory any more, and is not being filed just now."""
    if not (is_made_id(job_id) or ids.is_taken(root, job_id) or output.was_begun(root, job_id, 1)):
        return False
    pending = root.texts_in(root.folder(State.PENDING))
    return job_id.lower() not in {id_in(text).lower() for text in pending if text[:1] == "."}


def circles(starts: Iterable[str], behind: Callable[[str], str | None]) -> Iterator[list[str]]:
    """The circles that these jobs lead to, each as the way back to its first job.

    `behind` returns what a job is parked behind, None for an id without a parked job.
    """
    seen: set[str] = set()
    for start in starts:
        way: dict[str, None] = {}
        job_id: str | None = start
        while job_id is not None and job_id not in seen:
            seen.add(job_id)
            way[job_id] = None
            job_id = behind(job_id)
        if job_id in way:
            ids = list(way)
            yield [*ids[ids.index(job_id) :], job_id]
