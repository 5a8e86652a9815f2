"""Ids: a job has the id in the name of its file, and a reservation keeps others from taking it.

    pending/.NAME.tmp    the draft of a job has the id in its name, and may take it
    ids/ID.id            the id is taken, exclusively; generated ids are not reserved
    pending/NAME         a job has the id

A reserved id without a file was abandoned: its process died, or its job was deleted by hand. ids/ is made
when the first id is chosen, of the names of the jobs that there are.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import IdTaken
from queuectl.job.model import State, is_id
from queuectl.spool import batches, jobs, output
from queuectl.spool.names import SHORT_ID, id_in, is_made_id, make_id, name_in
from queuectl.spool.root import IDS, make_folder
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from queuectl.spool.root import Root

#: An id reserved this many seconds ago without a job file was abandoned. A worker reserves the id of a
#: dropped file a moment before it renames the file.
FILING_TAKES = 1.0
#: Seconds between the two looks for the file that has an id.
AGAIN = 0.05
_ENDING = ".id"


def path_of(root: Root, job_id: str) -> str:
    """The file whose being there takes an id; ids that differ in case alone share it, so none may."""
    return f"{root.ids}/{job_id.lower()}{_ENDING}"


def reserve(root: Root, job_id: str) -> bool:
    """Take an id for good, on all hosts at once; False when a job or a batch has it."""
    while True:
        try:
            files.create(path_of(root, job_id), mode=root.file_mode)
        except FileExistsError:
            return False
        except FileNotFoundError:
            _make_folder(root)
        else:
            break
    is_free = False
    try:
        # Race: a batch reserves its name before it looks for an id like it.
        is_free = not batches.is_taken(root, job_id)
    finally:
        if not is_free:
            drop(root, job_id)
    return is_free


def restore(root: Root) -> None:
    """Take the ids of all jobs again where ids/ is empty: somebody deleted its files.

    Ids that were deleted one by one are not missed: that would take a listing of all jobs an id.
    """
    try:
        if not files.is_empty(root.ids):
            return
    except FileNotFoundError:
        return  # it is made whole
    for job_id in _of_jobs(root):
        reserve(root, job_id)


def mark(root: Root, job_id: str) -> files.Mark | None:
    """What must stay the same for a reservation to be the same; None where there is none."""
    try:
        return files.mark(path_of(root, job_id))
    except FileNotFoundError:
        return None


def is_same(root: Root, one: files.Mark | None, other: files.Mark | None) -> bool:
    """Whether two marks are of the same reservation. FUSE makes inodes up, so they count on no share."""
    if one is None or other is None or root.medium.answers_truly:
        return one == other
    return one[:2] == other[:2]


def is_taken(root: Root, text: str) -> bool:
    """Whether this is, or was meant to be, the whole id of a job."""
    return is_id(text) and files.exists(path_of(root, text))


def drop(root: Root, job_id: str) -> None:
    """Give back an id; the caller is the one who has it."""
    files.remove(path_of(root, job_id))


def listed(root: Root) -> set[str]:
    """Every id that is taken, in lower case."""
    try:
        names = root.texts_in(root.ids)
    except FileNotFoundError:  # no id has been chosen yet
        return set()
    return {name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING) and name[:1] != "."}


def chosen(root: Root) -> Iterator[str]:
    """Every id that somebody chose, in lower case; also some that are taken by no job."""
    restore(root)
    if IDS not in files.list_names(root.text):
        yield from _of_jobs(root)
    yield from listed(root)


def take(root: Root, job_id: str) -> bool:
    """Take an id. False where another job may have it: `Abandoned.judge` finds out.

    Generated ids are not reserved, so an id of that form may be another job's.
    """
    return not is_made_id(job_id.lower()) and reserve(root, job_id)


def take_all(root: Root, job_ids: list[str], drafts: Container[str]) -> Iterator[bool]:
    """Take each of these ids for its draft in pending/. Yields for each whether it was free."""
    doubtful = [job_id for job_id in job_ids if is_made_id(job_id.lower())]
    restore(root)
    held = set(borne(root, doubtful, drafts)) if doubtful else set()
    held |= {job_id.lower() for job_id in doubtful if output.was_begun(root, job_id, 1)}
    for job_id in job_ids:
        yield job_id.lower() not in held and reserve(root, job_id)


def fitting(root: Root, suggested: str) -> str:
    """An id for a file that names none: cut where the file system takes no names that long."""
    return suggested if root.takes_id(suggested) else suggested[:SHORT_ID]


def take_like(root: Root, suggested: str) -> str:
    """Take this id, or one that begins like it, for a file that names no id."""
    free = fitting(root, suggested)
    while not take(root, free):
        free = f"{suggested[: SHORT_ID - 5]}-{make_id()[:4]}"
    return free


def release(root: Root, job_ids: Iterable[str]) -> None:
    """Free the ids of jobs that were not filed. Never raises."""
    for job_id in job_ids:
        with contextlib.suppress(OSError):
            drop(root, job_id)


def borne(root: Root, job_ids: Iterable[str], besides: Container[str] = ()) -> dict[str, str]:
    """Those of these ids, in lower case, that a job or a draft has, each with the spelling that it has there.

    Drafts in `besides` do not count. Drafts are listed first: one that is published meanwhile is a job then.
    """
    wanted = {job_id.lower() for job_id in job_ids}
    drafts = [text for text in root.texts_in(root.folder(State.PENDING)) if text[:1] == "."]
    found = {id_in(text).lower(): id_in(text) for text in drafts if text not in besides}
    held = {job_id: found[job_id] for job_id in found.keys() & wanted}
    return held | jobs.bearers(root, wanted)


def free(root: Root, job_id: str, judged: files.Mark) -> bool:
    """Free an id that was found abandoned when its reservation had this mark. False where it is in use."""
    return bool(free_each(root, {job_id: judged}))


def free_each(root: Root, judged: Mapping[str, files.Mark]) -> list[str]:
    """Free those of these ids that are abandoned still; each with the mark that its reservation had.

    Race: several may find them abandoned. One of them gets a reservation by rename, and looks again.
    """
    away = {}
    for job_id in judged:
        hidden = f"{root.ids}/.{make_id()}"
        if files.move(path_of(root, job_id), hidden):
            away[job_id] = hidden
    freed = []
    with root.medium.listing_anew():
        held: Container[str] = borne(root, away) if away else ()
    for job_id, hidden in away.items():
        if is_same(root, files.mark(hidden), judged[job_id]) and job_id.lower() not in held:
            files.remove(hidden)
            freed.append(job_id)
        elif mark(root, job_id) is None:
            files.move(hidden, path_of(root, job_id))
        else:
            files.remove(hidden)
    return freed


def _make_folder(root: Root) -> None:
    """Make ids/ with the ids of all jobs that there are; it appears whole."""
    if IDS in files.list_names(root.text):
        return  # another one was faster
    root.require()
    draft = f"{root.text}/.{IDS}.{make_id()}"
    make_folder(draft, files.kernel.stat(root.text).st_mode)
    for job_id in _of_jobs(root):
        files.create(f"{draft}/{job_id}{_ENDING}", mode=root.file_mode)
    try:
        files.sync_folder(draft)
        files.kernel.rename(draft, root.ids)
    except OSError:
        for name in files.list_names(draft):
            files.remove(f"{draft}/{name}")
        files.kernel.rmdir(draft)
        if IDS not in files.list_names(root.text):
            raise
    else:
        files.sync_folder(root.text)


def _of_jobs(root: Root) -> set[str]:
    """The ids of all jobs, in lower case, but for those that were made up. Two looks, as jobs move."""
    found = {
        name.id.lower()
        for _ in range(2)
        for state in State
        for text in root.texts_in(root.folder(state))
        if (name := name_in(state, text)) is not None  # a filing takes the id of its draft itself
    }
    # Older versions took an id by the first log of its job.
    ends = ".1.out"
    found |= {text[: -len(ends)] for text in root.texts_in(root.logs) if text.endswith(ends)}
    return {one for one in found if is_id(one) and not is_made_id(one)}


class Abandoned:
    """Ids that are reserved while no job has them, and when this process first saw each so.

    Crash: a process that dies after taking an id leaves it reserved, and so does a person who deletes
    the job. A file that names such an id gets it once the id has been abandoned for longer than a
    filing takes. Nobody sleeps for that: a caller that asks too early asks again.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._since: dict[str, float] = {}

    def judge(self, job_ids: Iterable[str]) -> dict[str, IdTaken | float]:
        """For each of these ids the error that names who has it, or the seconds until it may be taken.

        0 seconds mean that it was taken for the caller. One look at the directories serves all ids.
        """
        wanted = list(dict.fromkeys(job_ids))
        holders = borne(self._root, wanted)
        return {job_id: self._verdict(job_id, holders.get(job_id.lower())) for job_id in wanted}

    def _verdict(self, job_id: str, holder: str | None) -> IdTaken | float:
        key, clock = job_id.lower(), times.clock.monotonic()
        if holder is not None or output.was_begun(self._root, job_id, 1):
            self._since.pop(key, None)
            return IdTaken(job_id, holder)
        if reserve(self._root, job_id):
            return 0.0
        found = mark(self._root, job_id)
        if found is None:
            return IdTaken(job_id, job_id) if batches.is_taken(self._root, job_id) else AGAIN
        age = 0.0 if self._root.medium.has_own_clock else times.clock.now().timestamp() - found.mtime_ns / 1e9
        if key not in self._since:
            self._since[key] = clock
            # Race: one look may miss a job that moves. Two looks do not.
            return max(AGAIN, FILING_TAKES - age)
        left = FILING_TAKES - max(clock - self._since[key], age)
        if left > 0:
            return left
        del self._since[key]
        return 0.0 if free(self._root, job_id, found) and reserve(self._root, job_id) else AGAIN
