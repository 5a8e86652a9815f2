"""Ids that somebody chose: a file each in ids/, which is made exclusively and so once, on all hosts.

ids/ is made when the first id is chosen. Where it is missing, it is made of the names of the jobs that there
are: an id is that of the job files that exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.job.model import State, is_id
from queuectl.spool.names import is_made_id, make_id, name_in
from queuectl.spool.root import IDS, make_folder
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.spool.root import Root

_ENDING = ".id"


def path_of(root: Root, job_id: str) -> str:
    """The file whose being there takes an id; ids that differ in case alone share it, so none may."""
    return f"{root.ids}/{job_id.lower()}{_ENDING}"


def make(root: Root, job_id: str) -> bool:
    """Take an id for good, on all hosts at once; False when it is taken."""
    while True:
        try:
            files.create(path_of(root, job_id), mode=root.file_mode)
        except FileExistsError:
            return False
        except FileNotFoundError:
            _make_folder(root)
        else:
            return True


def restore(root: Root) -> None:
    """Take the ids of all jobs again where ids/ is empty: somebody deleted its files.

    Ids that were deleted one by one are not missed: that would take a listing of all jobs an id.
    """
    try:
        if not files.is_empty(root.ids):
            return
    except FileNotFoundError:
        return  # it is made whole
    for job_id in _borne(root):
        make(root, job_id)


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


def set_aside(root: Root, job_id: str) -> str | None:
    """Rename a reservation, which one process alone can do. Returns its new path, None if it is gone."""
    away = f"{root.ids}/.{make_id()}"
    return away if files.move(path_of(root, job_id), away) else None


def _make_folder(root: Root) -> None:
    """Make ids/ with the ids of all jobs that there are; it appears whole."""
    if IDS in files.list_names(root.text):
        return  # another one was faster
    root.require()
    draft = f"{root.text}/.{IDS}.{make_id()}"
    make_folder(draft, files.kernel.stat(root.text).st_mode)
    for job_id in _borne(root):
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


def _borne(root: Root) -> set[str]:
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
