"""Ids that somebody chose: each is taken once, on all hosts, by its first log."""

from __future__ import annotations

import contextlib
import time

from queuectl.spool import finding, output
from queuectl.spool.names import is_made_id, make_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.spool.root import Root

#: Seconds after which an id that is taken, but borne by no file, was left by somebody who died.
FILING_TAKES = 1.0


def take(root: Root, job_id: str) -> bool:
    """Take an id for a job that is being filed; False when another job has it."""
    return not _was_made(root, job_id) and output.take_id(root, job_id)


def take_over(root: Root, job_id: str) -> bool:
    """Take an id that a person wrote into a file; False when another job has it.

    Crash: who died after taking an id leaves it taken by nobody. It is taken over once no file
    has come to bear it for longer than a filing takes.
    """
    if _was_made(root, job_id):
        return False
    if output.take_id(root, job_id):
        return True
    end = time.monotonic() + FILING_TAKES
    while not finding.names_of(root, job_id) and not output.was_begun(root, job_id, 1):
        if time.monotonic() > end:
            return True
        time.sleep(0.05)
    return False


def take_like(root: Root, suggested: str) -> str:
    """Take an id, or one that begins like it, for a file that names none."""
    free = suggested
    while not output.take_id(root, free):
        free = f"{suggested[:80]}-{make_id()[:4]}"
    return free


def release(root: Root, job_ids: Iterable[str]) -> None:
    """Give the ids back of jobs that were not filed; never raises."""
    for job_id in job_ids:
        with contextlib.suppress(OSError):
            output.release_id(root, job_id)


def _was_made(root: Root, job_id: str) -> bool:
    """Whether it is the id that `make_id` made for another job, which no file takes."""
    return is_made_id(job_id.lower()) and bool(finding.names_of(root, job_id))
