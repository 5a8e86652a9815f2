"""Batches: jobs that share a name. The ids of its members are the name, a dot and a number, as in `sweep.17`.

`logs/NAME.batch` reserves the name and holds how many members the batch has; it is made exclusively.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.spool.root import Root

_MEMBER = re.compile(r"(.+)\.(\d{1,9})", re.DOTALL)


def path_of(root: Root, name: str) -> str:
    """The file that reserves the name of a batch. Names that differ in case alone share it."""
    return f"{root.logs}/{name.lower()}.batch"


def size_of(root: Root, name: str) -> int | None:
    """How many members a batch has, filed or not; None where there is no batch of this name."""
    try:
        return int(files.read(path_of(root, name)).decode("ascii").split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None


def batch_of(job_id: str) -> str | None:
    """The name of the batch that a job with this id would be a member of; None for another form of id."""
    match = _MEMBER.fullmatch(job_id)
    return match[1] if match else None
