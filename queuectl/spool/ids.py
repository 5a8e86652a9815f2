"""Ids that somebody chose: each is taken once, on all hosts, by its first log."""

from __future__ import annotations

import contextlib
import time

from queuectl import disk
from queuectl.errors import IdTaken
from queuectl.spool import finding, output
from queuectl.spool.names import SHORT_ID, is_made_id, make_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.spool.root import Root

#: Seconds after which an id that is taken, but borne by no file, was left by somebody who died.
FILING_TAKES = 1.0
#: Seconds from the first look for who has an id to the second.
AGAIN = 0.05


def take(root: Root, job_id: str) -> bool:
    """Take an id for a job that is being filed; False when another job has it."""
    return not _was_made(root, job_id) and output.take_id(root, job_id)


def take_like(root: Root, suggested: str) -> str:
    """Take an id, or one that begins like it, for a file that names none."""
    free = suggested if root.takes_id(suggested) else suggested[:SHORT_ID]
    while not output.take_id(root, free):
        free = f"{suggested[: SHORT_ID - 5]}-{make_id()[:4]}"
    return free


def release(root: Root, job_ids: Iterable[str]) -> None:
    """Give the ids back of jobs that were not filed; never raises."""
    for job_id in job_ids:
        with contextlib.suppress(OSError):
            output.release_id(root, job_id)


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
        """For each of these taken ids: who has it, or the seconds to wait until it may be taken over.

        No more than 0 seconds mean that the one who asks has it now. One listing of each directory
        serves all of them.
        """
        wanted = list(dict.fromkeys(job_ids))
        holders = finding.bearers(self._root, wanted)
        clock = time.monotonic()
        verdicts: dict[str, IdTaken | float] = {}
        for job_id in wanted:
            key = job_id.lower()
            if key in holders or output.was_begun(self._root, job_id, 1):
                self._since.pop(key, None)
                verdicts[job_id] = IdTaken(job_id, holders.get(key))
                continue
            if key not in self._since:
                self._since[key] = clock
                # Race: a job that moves about may be in none of the listings. It is not twice.
                verdicts[job_id] = max(AGAIN, FILING_TAKES - self._age(job_id))
            else:
                verdicts[job_id] = FILING_TAKES - max(clock - self._since[key], self._age(job_id))
        return verdicts

    def _age(self, job_id: str) -> float:
        """Seconds since the id was taken; 0 on a share, whose clock is another one."""
        if self._root.is_shared:
            return 0.0
        try:
            return time.time() - disk.modified(output.log_path(self._root, job_id, 1, "out"))[0]
        except FileNotFoundError:
            return 0.0


def _was_made(root: Root, job_id: str) -> bool:
    """Whether it is the id that `make_id` made for another job, which no file takes."""
    return is_made_id(job_id.lower()) and bool(finding.names_of(root, job_id))
