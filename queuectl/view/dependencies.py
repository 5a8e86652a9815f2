"""What waits for what, and what can never run, as onlookers see it: from names, and from parked files.

A job that is moved past its parked name is not seen here until a worker has parked it again.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.job.model import State
from queuectl.rules import after
from queuectl.rules.after import End
from queuectl.spool import batches, jobs
from queuectl.spool.jobs import Found
from queuectl.spool.names import AFTER, ID_AT, PARKED, name_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from queuectl.spool.root import Root

_MARK = f".{AFTER}+"
#: Of how many ids that jobs are parked behind `status` finds out what became of them; the busiest first.
MOST = 200
#: For what waits for one job so many parked files are read at most; else their names have to do.
MOST_READ = 500
#: Whoever waits for jobs asks no sooner than after this many seconds, and this many times what asking took.
EVERY, PATIENCE = 1.0, 20


# ── what waits for a job ──────────────────────────────────────────────────────────────────────


def parked(root: Root) -> Iterator[Found]:
    """The parked jobs that still have to wait for others, read."""
    return _read(one for state in jobs.WAITING for one in jobs.found_in(root, state) if one.name.parked)


def _read(found: Iterable[Found]) -> Iterator[Found]:
    for one in found:
        reading = jobs.read(one)
        if reading is not None and reading.job is not None and not after.is_ready(reading.job):
            yield reading


def needed(root: Root) -> set[str]:
    """The ids and batches that parked jobs wait for, in lower case."""
    return {job_id.lower() for one in parked(root) if one.job for job_id in one.job.after}


def is_needed(found: Found, needed: set[str]) -> bool:
    """Whether a job, or the batch that it is in, is among these."""
    return found.id.lower() in needed or batches.batch_of(found.id.lower()) in needed


def direct(root: Root, job_id: str) -> list[Found]:
    """The parked jobs that wait for this one, or for the batch that it is in, in run order; read.

    Where more than `MOST_READ` jobs are parked, only those that are parked behind it now.
    """
    ids = {job_id.lower(), batches.batch_of(job_id.lower())} - {None}
    found = [one for state in jobs.WAITING for one in jobs.found_in(root, state) if one.name.parked]
    if len(found) > MOST_READ:
        found = [one for one in found if (one.name.parked or "").partition("+")[2].lower() in ids]
    return [one for one in _read(found) if one.job and ids & {name.lower() for name in one.job.after}]


def tree(root: Root, job_ids: Iterable[str]) -> list[Found]:
    """All parked jobs that wait for these, and for one another, each before those that it waits for; read."""
    behind: dict[str, list[Found]] = defaultdict(list)
    for one in parked(root):
        for job_id in one.job.after if one.job else ():
            behind[job_id.lower()].append(one)

    def waiting_for(job_id: str) -> Iterator[Found]:
        return iter((*behind.get(job_id, ()), *behind.get(batches.batch_of(job_id) or "", ())))

    given = {job_id.lower() for job_id in job_ids}
    seen = set(given)
    found: list[Found] = []
    for job_id in given:
        way: list[tuple[Found | None, Iterator[Found]]] = [(None, waiting_for(job_id))]
        while way:
            here, branches = way[-1]
            following = next(branches, None)
            if following is None:
                way.pop()
                found += [here] if here is not None else []
            elif following.id.lower() not in seen:
                seen.add(following.id.lower())
                way.append((following, waiting_for(following.id.lower())))
    return found


# ── what can never run ────────────────────────────────────────────────────────────────────────


class Blame(NamedTuple):
    """Why a job cannot run: the id that ended otherwise than asked, and how. `through` waits for that one.

    `through` is None where the job itself does.
    """

    job_id: str
    end: End
    through: str | None

    def __str__(self) -> str:
        told = f"{self.job_id} {self.end.value}"
        return told if self.through is None else f"{told}, and {self.through} waits for it"


class Snapshot:
    """Where all jobs are, from one look; files are read as they are asked about."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._there: dict[str, tuple[State, str]] = {}
        for state, texts in jobs.look(root):
            ids = map(str.lower, jobs.ids_in(state, texts))
            self._there.update((job_id, (state, text)) for job_id, text in zip(ids, texts, strict=True))
        self._ends: dict[str, End] = {}

    def blame(self, job_id: str) -> Blame | None:
        """Why a parked job cannot run, directly or because one that it waits for cannot; None if it may yet.

        What is not found by the one look is looked for again, so that no job is blamed that moves.
        """
        seen = {job_id.lower()}
        left = deque([job_id])
        while left:
            here = left.popleft()
            wanted = self._after(here)
            through = None if here == job_id else here
            for one in after.judge(wanted, {one: self._end(one) for one in wanted}).broken:
                return Blame(one, self._end(one), through)
            new = [one for one in wanted if one.lower() not in seen]
            seen.update(map(str.lower, new))
            left.extend(new)
        return None

    def _after(self, job_id: str) -> Mapping[str, str]:
        """What a job waits for; nothing for one that is not parked, or has it."""
        state, text = self._there.get(job_id.lower(), (None, ""))
        if state not in jobs.WAITING or not text.endswith(PARKED):
            return {}
        name = name_in(state, text)
        reading = jobs.read(Found(state, name, f"{self._root.folder(state)}/{text}")) if name else None
        job = reading.job if reading else None
        return job.after if job and not after.is_ready(job) else {}

    def _end(self, job_id: str) -> End:
        state, _ = self._there.get(job_id.lower(), (None, ""))
        if state is State.DONE:
            return End.OK
        if state is not None and state is not State.DEAD:
            return End.OPEN
        if job_id not in self._ends:
            self._ends[job_id] = after.look(self._root, [job_id]).ends[job_id]
        return self._ends[job_id]


class Hopeless:
    """Finds out now and then which of the jobs that somebody waits for cannot run."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._next_at = float("-inf")

    def among(self, awaited: Iterable[Found]) -> dict[str, Blame]:
        """Those of the awaited jobs that cannot run, with the reason; none if it was asked too soon."""
        begun = times.clock.monotonic()
        blocked = [one.id for one in awaited if (one.name.parked or "").startswith(f"{AFTER}+")]
        if not blocked or begun < self._next_at:
            return {}
        snapshot = Snapshot(self._root)
        blamed = {job_id: blame for job_id in blocked if (blame := snapshot.blame(job_id)) is not None}
        ended = times.clock.monotonic()
        self._next_at = ended + max(EVERY, PATIENCE * (ended - begun))
        return blamed


class Stuck(NamedTuple):
    """How many parked jobs cannot run, and because of what: some of the causes, the busiest first."""

    number: int
    causes: list[tuple[str, End, int]]


def stuck(root: Root) -> Stuck:
    """Which parked jobs cannot run, as far as their names show.

    The number of ids that are looked up is limited, and the contents of few files are read.
    """
    behind: dict[str, list[str]] = defaultdict(list)
    ids: dict[str, str] = {}
    for path in (f"{state}/{text}" for state in jobs.WAITING for text in root.texts_in(root.folder(state))):
        stem, mark, pointer = path.rpartition(_MARK)
        if mark:
            job_id = stem.partition("/")[2][ID_AT:].removesuffix(".yaml").lower()
            behind[pointer.removesuffix(PARKED).lower()].append(job_id)
            ids[job_id] = path
    first = sorted(behind.keys() - ids.keys(), key=lambda one: -len(behind[one]))[:MOST]
    ends = after.look(root, first).ends
    causes = [
        (pointer, ends[pointer], _count(behind, pointer))
        for pointer in first
        if _is_broken(root, ids[behind[pointer][0]], pointer, ends[pointer])
    ]
    causes.sort(key=lambda one: -one[2])
    return Stuck(sum(count for _, _, count in causes), causes)


def _is_broken(root: Root, path: str, pointer: str, end: End) -> bool:
    """Whether a job is parked behind an id that ended otherwise than it asks; `path` is below the spool."""
    if end not in {End.FAILED, End.CANCELLED, End.REMOVED}:
        return False
    folder, _, text = path.partition("/")
    name = name_in(State(folder), text)
    reading = jobs.read(Found(State(folder), name, f"{root.text}/{path}")) if name else None
    after_ = reading.job.after if reading and reading.job else {}
    return any(
        after.judge({one: how}, {one: end}).cannot_run
        for one, how in after_.items()
        if one.lower() == pointer
    )


def _count(behind: Mapping[str, Sequence[str]], pointer: str) -> int:
    """How many jobs are parked behind this id, and behind those in turn."""
    number, left = 0, [pointer]
    while left:
        more = behind.get(left.pop(), ())
        number += len(more)
        left += more
    return number
