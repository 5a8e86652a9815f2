"""Ids: a job has the id in the name of its file, and a reservation keeps others from taking it.

    pending/.NAME.tmp    the draft of a job has the id in its name, and may take it
    ids/ID.id            the id is taken, exclusively; generated ids are not reserved
    pending/NAME         a job has the id

A reserved id without a file was abandoned: its process died, or its job was deleted by hand.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import IdTaken
from queuectl.job.model import State
from queuectl.spool import jobs, output, reservations
from queuectl.spool.names import SHORT_ID, id_in, is_made_id, make_id
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from queuectl.spool.root import Root

#: An id reserved this many seconds ago without a job file was abandoned. A worker reserves the id of a
#: dropped file a moment before it renames the file.
FILING_TAKES = 1.0
#: Seconds between the two looks for the file that has an id.
AGAIN = 0.05


def take(root: Root, job_id: str) -> bool:
    """Take an id. False where another job may have it: `Abandoned.judge` finds out.

    Generated ids are not reserved, so an id of that form may be another job's.
    """
    return not is_made_id(job_id.lower()) and reservations.make(root, job_id)


def take_all(root: Root, job_ids: list[str], drafts: Container[str]) -> Iterator[bool]:
    """Take each of these ids for its draft in pending/. Yields for each whether it was free."""
    doubtful = [job_id for job_id in job_ids if is_made_id(job_id.lower())]
    reservations.restore(root)
    held = set(borne(root, doubtful, drafts)) if doubtful else set()
    held |= {job_id.lower() for job_id in doubtful if output.was_begun(root, job_id, 1)}
    for job_id in job_ids:
        yield job_id.lower() not in held and reservations.make(root, job_id)


def take_like(root: Root, suggested: str) -> str:
    """Take this id, or one that begins like it, for a file that names no id."""
    free = suggested if root.takes_id(suggested) else suggested[:SHORT_ID]
    while not take(root, free):
        free = f"{suggested[: SHORT_ID - 5]}-{make_id()[:4]}"
    return free


def release(root: Root, job_ids: Iterable[str]) -> None:
    """Free the ids of jobs that were not filed. Never raises."""
    for job_id in job_ids:
        with contextlib.suppress(OSError):
            reservations.drop(root, job_id)


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
    """Free an id that was found abandoned when its reservation had this mark. False where it is in use.

    Race: several may find it abandoned. One of them gets the reservation by rename, and looks again.
    """
    away = reservations.set_aside(root, job_id)
    if away is None:
        return False
    if reservations.is_same(root, files.mark(away), judged) and not borne(root, [job_id]):
        files.remove(away)
        return True
    if reservations.mark(root, job_id) is None:
        files.move(away, reservations.path_of(root, job_id))
    else:
        files.remove(away)
    return False


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
        if reservations.make(self._root, job_id):
            return 0.0
        mark = reservations.mark(self._root, job_id)
        if mark is None:
            return AGAIN
        age = 0.0 if self._root.medium.has_own_clock else times.clock.now().timestamp() - mark.mtime_ns / 1e9
        if key not in self._since:
            self._since[key] = clock
            # Race: one look may miss a job that moves. Two looks do not.
            return max(AGAIN, FILING_TAKES - age)
        left = FILING_TAKES - max(clock - self._since[key], age)
        if left > 0:
            return left
        del self._since[key]
        return 0.0 if free(self._root, job_id, mark) and reservations.make(self._root, job_id) else AGAIN
