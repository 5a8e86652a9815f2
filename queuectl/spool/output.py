"""What jobs printed: a file per attempt and stream, the first of which also takes the id."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from queuectl import disk
from queuectl.job import ID

if TYPE_CHECKING:
    from queuectl.spool.root import Root

STREAMS = ("out", "err")
_LOG = re.compile(r"(.+)\.(\d+)\.(out|err)")


def log_path(root: Root, job_id: str, attempt: int, stream: str) -> str:
    """Where a stream of an attempt is; ids that differ in case alone share it, so none may."""
    return f"{root.logs}/{job_id.lower()}.{attempt}.{stream}"


def take_id(root: Root, job_id: str) -> bool:
    """Take an id for good, on all hosts at once; False when another job has it."""
    try:
        disk.create(log_path(root, job_id, 1, "out"))
    except FileExistsError:
        return False
    return True


def is_taken(root: Root, text: str) -> bool:
    """Whether this is, or was meant to be, the whole id of a job."""
    return ID.fullmatch(text) is not None and disk.exists(log_path(root, text, 1, "out"))


def release_id(root: Root, job_id: str) -> None:
    """Give back an id that was taken for a job that was not filed after all."""
    disk.remove(log_path(root, job_id, 1, "out"))


def open_logs(root: Root, job_id: str, attempt: int) -> tuple[int, int]:
    """New files for an attempt's stdout and stderr: their descriptors, to be closed by the caller.

    Raises `FileExistsError` where this attempt of this id has been begun before: the sign of a
    second file with the same id, or of a history that lost its last lines.
    """
    err = disk.open_new(log_path(root, job_id, attempt, "err"))
    try:
        out = disk.open_log(log_path(root, job_id, attempt, "out"))
    except BaseException:
        disk.close(err)
        disk.remove(log_path(root, job_id, attempt, "err"))  # it would say that the run was begun
        raise
    return out, err


def was_begun(root: Root, job_id: str, attempt: int) -> bool:
    """Whether a command may have been started for this attempt."""
    return disk.exists(log_path(root, job_id, attempt, "err"))


def owner_of_log(name: str) -> tuple[str, int] | None:
    """The lower-case id and the attempt that a log's file name tells, None for other files."""
    match = _LOG.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def delete_logs(root: Root, job_ids: set[str]) -> None:
    """Delete all that these jobs printed, which also frees their ids."""
    lower = {job_id.lower() for job_id in job_ids}
    for name in disk.list_names(root.logs):
        owner = owner_of_log(name)
        if owner and owner[0] in lower:
            disk.remove(f"{root.logs}/{name}")
