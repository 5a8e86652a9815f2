"""Who has an id: the file that bears it. A reservation tells whoever takes one that no other file does.

    pending/.NAME.tmp    the draft of a job that bears the id: whoever has it may take the id
    ids/ID.id            the id is taken, exclusively (ids that were made up are not)
    pending/NAME         a job has it

So an id that is taken while no file bears it was left by somebody who died, or its job was deleted by hand.
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

#: Seconds after which an id that is taken, but borne by no file, was left by somebody who died: a worker
#: takes the id of a dropped file a moment before the file bears it.
FILING_TAKES = 1.0
#: Seconds from the first look for who has an id to the second.
AGAIN = 0.05


def take(root: Root, job_id: str) -> bool:
    """Take an id; False where another job may have it, which `Abandoned.judge` finds out.

    Ids that were made up are not reserved, so any of that form may be another job's.
    """
    return not is_made_id(job_id.lower()) and reservations.make(root, job_id)


def take_all(root: Root, job_ids: list[str], drafts: Container[str]) -> Iterator[bool]:
    """Take each of these ids for the one of these drafts in pending/ that bears it; whether it was free."""
    doubtful = [job_id for job_id in job_ids if is_made_id(job_id.lower())]
    held = set(borne(root, doubtful, drafts)) if doubtful else set()
    held |= {job_id.lower() for job_id in doubtful if output.was_begun(root, job_id, 1)}
    for job_id in job_ids:
        yield job_id.lower() not in held and reservations.make(root, job_id)


def take_like(root: Root, suggested: str) -> str:
    """Take an id, or one that begins like it, for a file that names none."""
    free = suggested if root.takes_id(suggested) else suggested[:SHORT_ID]
    while not take(root, free):
        free = f"{suggested[: SHORT_ID - 5]}-{make_id()[:4]}"
    return free


def release(root: Root, job_ids: Iterable[str]) -> None:
    """Give the ids back of jobs that were not filed; never raises."""
    for job_id in job_ids:
        with contextlib.suppress(OSError):
            reservations.drop(root, job_id)


def borne(root: Root, job_ids: Iterable[str], besides: Container[str] = ()) -> dict[str, str]:
    """Of these ids, in lower case, those that a job or the draft of one bears, and as it has them.

    Drafts in `besides` do not count. They are looked for first: one that is published then is a job.
    """
    wanted = {job_id.lower() for job_id in job_ids}
    drafts = [text for text in root.texts_in(root.folder(State.PENDING)) if text[:1] == "."]
    found = {id_in(text).lower(): id_in(text) for text in drafts if text not in besides}
    held = {job_id: found[job_id] for job_id in found.keys() & wanted}
    return held | jobs.bearers(root, wanted)


def free(root: Root, job_id: str, judged: files.Mark) -> bool:
    """Free an id that was judged to be nobody's when its reservation had this mark; False where it is not.

    Race: only one of those who judged it so gets hold of the reservation, and looks again then.
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
    """Ids that are taken while no job has them, and since when this process has known of each.

    Crash: who dies after taking an id leaves it taken for nobody, and so does a person who deletes
    the job. A file that names such an id gets it, once the id has been so for longer than a filing
    takes. Nobody sleeps for that: whoever asks too early asks again.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._since: dict[str, float] = {}

    def judge(self, job_ids: Iterable[str]) -> dict[str, IdTaken | float]:
        """For each of these ids: who has it, or the seconds to wait until it may be taken over.

        0 seconds mean that it has been taken for the one who asks. One look serves all of them.
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
            # Race: a job that moves about may be in none of the listings. It is not twice.
            return max(AGAIN, FILING_TAKES - age)
        left = FILING_TAKES - max(clock - self._since[key], age)
        if left > 0:
            return left
        del self._since[key]
        return 0.0 if free(self._root, job_id, mark) and reservations.make(self._root, job_id) else AGAIN
