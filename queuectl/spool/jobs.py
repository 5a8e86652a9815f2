"""Where jobs are: the names in each directory, found by state and by id.

A listing is one look. A job may move between two looks, so absence takes several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import BadJob
from queuectl.job.model import Job, State
from queuectl.spool import jobfile
from queuectl.spool.names import ID_AT, Name, id_in, name_in
from queuectl.system import files
from queuectl.times import from_stamp, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from queuectl.spool.root import Root


#: Labels of waiting jobs that are not due, that a person holds, and that wait for something else.
SCHEDULED, HELD, BLOCKED = "scheduled", "held", "blocked"
ORDER = (State.PROCESSING, State.PENDING, State.FAILED, State.DEAD, State.DONE)
WAITING = (State.PENDING, State.FAILED)
_AT_REST = (*WAITING, State.DEAD, State.DONE)
#: A job that was in none of this many looks is missing.
LOOKS = 3
#: A job that was seen, and moves each time, is given up after this many tries.
TRIES = 20


class Found(NamedTuple):
    """A job's file: where it is and, once read, its content. `job` is None if it cannot be read."""

    state: State
    name: Name
    path: str
    job: Job | None = None
    unreadable: str = ""

    @property
    def id(self) -> str:
        """The id in the file name."""
        return self.name.id

    def label(self, now: datetime) -> str:
        """The state in the words of `list --state`."""
        if self.name.parked:
            return label_of(self.name.parked)
        if self.state is State.PENDING and self.name.due > stamp(now):
            return SCHEDULED
        return self.state.label


def label_of(parked: str) -> str:
    """The state of a job that is parked for this reason, in the words of `list --state`."""
    return BLOCKED if parked.startswith(("after", "needs-")) else HELD


def names_in(root: Root, state: State) -> list[Name]:
    """The names of all jobs in a state, in no order; other files are passed over."""
    names = (name_in(state, text) for text in root.texts_in(root.folder(state)))
    return [name for name in names if name is not None]


def found_in(root: Root, state: State) -> list[Found]:
    """The files of all jobs in a state in the order of their names, not read."""
    return sorted(_jobs_among(root, state, root.texts_in(root.folder(state))), key=lambda one: one.path)


def live(root: Root) -> list[Found]:
    """The files of all jobs that wait or run, each once, not read."""
    looked = look(root, WAITING)
    return list({one.id: one for state, texts in looked for one in _jobs_among(root, state, texts)}.values())


def _jobs_among(root: Root, state: State, texts: Iterable[str]) -> Iterator[Found]:
    """The files of jobs among these names in the directory of a state, not read."""
    folder = root.folder(state)
    for text in texts:
        if (name := name_in(state, text)) is not None:
            yield Found(state, name, f"{folder}/{text}")


def everywhere(root: Root, at_rest: Iterable[State] = _AT_REST) -> Iterator[Found]:
    """The files of all jobs, from one look, not read. A job that moves meanwhile may come twice.

    With `at_rest` only those in these states and the running ones.
    """
    for state, texts in look(root, at_rest):
        for text in texts:
            if (name := name_in(state, text)) is not None:
                yield Found(state, name, f"{root.folder(state)}/{text}")


def names_of(root: Root, job_id: str) -> list[Found]:
    """Every file with this id, in any case. More than one are duplicates."""
    wanted = {job_id.lower()}
    found: list[Found] = []
    for state in ORDER:
        found += bearing(root, state, root.texts_in(root.folder(state)), wanted)
    return found


def look(root: Root, at_rest: Iterable[State] = _AT_REST) -> Iterator[tuple[State, list[str]]]:
    """One look at where jobs are: the names in each directory, processing/ before and after each other one.

    Race: jobs move while the directories are listed. Each move of a worker or of a command leads into
    processing/ or out of it, so one that moves once during a look is in at least one of the listings.
    A look misses a job only if, in the time of one listing, the job goes through processing/ from a
    directory that is still to be listed back into one that was listed: it is given back or put back.
    """
    passing = State.PROCESSING
    yield passing, root.texts_in(root.folder(passing))
    for state in at_rest:
        yield state, root.texts_in(root.folder(state))
        yield passing, root.texts_in(root.folder(passing))


def ids_in(state: State, texts: Iterable[str]) -> list[str]:
    """The id in each file name in the directory of a state; any text for a name that is not a job's."""
    if state is State.PROCESSING:
        return [text[ID_AT:].partition("@")[0].partition("+")[0] for text in texts]
    return [text[ID_AT:-5] if text[-5:] == ".yaml" and "+" not in text else id_in(text) for text in texts]


def bearing(root: Root, state: State, texts: list[str], wanted: AbstractSet[str]) -> Iterator[Found]:
    """Those files in the directory of a state whose ids, in lower case, are among `wanted`."""
    near = [
        text for text, job_id in zip(texts, ids_in(state, texts), strict=True) if job_id.lower() in wanted
    ]
    return _jobs_among(root, state, near)


class Places(NamedTuple):
    """Where jobs were found, by id, and the last look if it was one to the end."""

    found: dict[str, Found]
    last: list[tuple[State, list[str]]]


def places(root: Root, job_ids: Iterable[str]) -> Places:
    """Where the jobs of these ids, in any case, are; no file is read.

    The directories are listed once for any number of ids, and up to `LOOKS` times where some are
    missing.
    """
    exactly = set(job_ids)
    wanted = {job_id.lower() for job_id in exactly}
    found: dict[str, Found] = {}
    last: list[tuple[State, list[str]]] = []
    for _ in range(LOOKS if wanted else 0):
        last = []
        for state, texts in look(root):
            last.append((state, texts))
            found |= {one.id: one for one in bearing(root, state, texts, wanted)}
            if exactly <= found.keys():
                return Places(found, [])
    return Places(found, last)


def bearers(root: Root, job_ids: Iterable[str]) -> dict[str, str]:
    """Those of these ids, in lower case, that a job has, each with the spelling of the job."""
    return {job_id.lower(): job_id for job_id in places(root, job_ids).found}


def read(found: Found) -> Found | None:
    """The same job with its content. None when it has moved meanwhile."""
    try:
        job = jobfile.read(found.path).job
    except FileNotFoundError:
        return None
    except (BadJob, files.NotAFile, PermissionError) as error:
        why = error.problem if isinstance(error, BadJob) else (error.strerror or str(error))
        return found._replace(job=None, unreadable=why)
    return found._replace(job=job, unreadable="")


def free_name(root: Root, state: State, name: Name) -> Name:
    """The name, moved on by microseconds until no file in that directory has it."""
    while files.exists(f"{root.folder(state)}/{name}"):
        name = name.later()
    return name


def parse_due(text: str | None) -> datetime | None:
    """The time in the RUNAT part of a name."""
    return None if text is None else from_stamp(text)
