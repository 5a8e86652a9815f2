"""Batches: jobs that share a name. The ids of its members are the name, a dot and a number, as in `sweep.17`.

`logs/NAME.batch` reserves the name; it is made exclusively. Its first line is `SIZE DIGEST NAME`. Its second
line is `filed` once all members have been filed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from queuectl.job.model import is_id
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.spool.root import Root

#: The second line of a batch whose members have all been filed.
FILED = "filed"
_ENDING = ".batch"
_MEMBER = re.compile(r"(.+)\.(\d{1,9})", re.DOTALL)


def path_of(root: Root, name: str) -> str:
    """The file that reserves the name of a batch. Names that differ in case alone share it."""
    return f"{root.logs}/{name.lower()}{_ENDING}"


class Batch(NamedTuple):
    """What is written of a batch: its name, how many members it has, and the digest of their commands.

    `is_filed` is true once all members have been filed.
    """

    name: str
    size: int
    digest: str
    is_filed: bool = False

    def member(self, number: int) -> str:
        """The id of a member; numbers begin with 1."""
        return f"{self.name}.{number}"


def read(root: Root, name: str) -> Batch | None:
    """The batch of this name; None where there is none, or a crash has left its file empty."""
    if not is_id(name):
        return None
    try:
        words = files.read(path_of(root, name)).decode("ascii").split()
        return Batch(words[2], int(words[0]), words[1], words[3:] == [FILED])
    except (FileNotFoundError, ValueError, IndexError):
        return None


def size_of(root: Root, name: str) -> int | None:
    """How many members a batch has, filed or not; None where there is no batch of this name."""
    try:
        return int(files.read(path_of(root, name)).decode("ascii").split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None


def names(root: Root) -> list[str]:
    """The names of all batches, in lower case."""
    return [text.removesuffix(_ENDING) for text in root.texts_in(root.logs) if text.endswith(_ENDING)]


def is_taken(root: Root, name: str) -> bool:
    """Whether a batch has this name: ids and batches share one namespace."""
    return is_id(name) and files.exists(path_of(root, name))


def batch_of(job_id: str) -> str | None:
    """The name of the batch that a job with this id would be a member of; None for another form of id."""
    match = _MEMBER.fullmatch(job_id)
    return match[1] if match else None


def number_of(job_id: str) -> int:
    """The number of a member, by its id."""
    return int(job_id.rpartition(".")[2])
