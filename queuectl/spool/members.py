"""Filing a batch: its name is reserved first, so that members which a crash leaves out can be filed later.

logs/NAME.batch     the name is reserved, with the number of members and the digest of their commands
pending/…-NAME.1    members, whose ids are taken as all chosen ids are: no two filings file one twice
logs/NAME.batch     gets its second line: all members have been filed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import BadUsage, IdTaken, QueueError
from queuectl.job.model import State, is_id
from queuectl.spool import batches, ids, jobs
from queuectl.spool.batches import Batch
from queuectl.spool.names import AFTER, id_in, is_made_id, make_id
from queuectl.system import drafts, files

if TYPE_CHECKING:
    from queuectl.spool.root import Root


def draw(root: Root, size: int, digest: str) -> Batch:
    """Take a name that nobody has, for a batch that has been given none."""
    batch = Batch(make_id(), size, digest)
    _write(root, batch)
    _sync(root, batch)
    return batch


def reserve(root: Root, batch: Batch) -> None:
    """Take the name of a batch, on all hosts at once, also from single jobs.

    Raises `BadUsage` for a name that no batch may have, and `IdTaken` where another batch or a job has it, or
    the id of a member.
    """
    last = batch.member(batch.size)
    if not is_id(batch.name) or not is_id(last) or batches.batch_of(batch.name) or not root.takes_id(last):
        raise BadUsage(
            f"{batch.name!r} is no name for a batch.",
            "It takes letters, digits, '.', '_' and '-', a letter or digit first, and no end such as `.7`.",
        )
    try:
        _write(root, batch)
    except FileExistsError:
        raise QueueError(
            f"The name {batch.name!r} is taken by another batch.",
            "Choose another one. If that filing was cut off, --resume files the members that are missing.",
        ) from None
    # Race: whoever takes an id looks for a batch of that name afterwards, so one of the two sees the other.
    if (stranger := _stranger(root, batch.name)) is not None:
        files.remove(batches.path_of(root, batch.name))
        raise IdTaken(stranger, stranger)
    _sync(root, batch)


def reserve_again(root: Root, batch: Batch) -> None:
    """Take the name of a batch that is to be resumed, whose file a crash may have left empty."""
    if batches.is_taken(root, batch.name):
        drafts.replace(batches.path_of(root, batch.name), _content(batch), root.file_mode)
    else:
        reserve(root, batch)


def _content(batch: Batch) -> bytes:
    return f"{batch.size} {batch.digest} {batch.name}\n".encode()


def _write(root: Root, batch: Batch) -> None:
    files.create(batches.path_of(root, batch.name), _content(batch), mode=root.file_mode)


def _sync(root: Root, batch: Batch) -> None:
    drafts.sync_files([batches.path_of(root, batch.name)])
    files.sync_folder(root.logs)


def _stranger(root: Root, name: str) -> str | None:
    """The id of a job that is the name of a batch, or that of a member."""
    wanted = name.lower()
    for job_id in ids.chosen(root):
        if job_id == wanted or batches.batch_of(job_id) == wanted:
            return job_id
    return ids.borne(root, [name]).get(wanted) if is_made_id(wanted) else None  # such ids are not reserved


def finish(root: Root, name: str) -> None:
    """Note that all members have been filed: from now on none is missing, even if it is deleted."""
    files.append(batches.path_of(root, name), f"{batches.FILED}\n".encode(), sync=True)


def spent(root: Root) -> list[str]:
    """The names, in lower case, of batches that have been filed and have no member left.

    Empty while a job waits for another one: it may wait for the batch.
    """
    names = [name for name in batches.names(root) if (batch := batches.read(root, name)) and batch.is_filed]
    if not names:
        return []
    left = set()
    for one in jobs.everywhere(root):
        if one.name.parked and one.name.parked.startswith(AFTER):
            return []
        left.add((batches.batch_of(one.id) or "").lower())
    return [name for name in names if name not in left]


def missing(root: Root, batch: Batch) -> set[int]:
    """The numbers of the members that nobody has filed or is filing.

    Crash: drafts and ids that a filing has left behind are removed first. One that was only stopped fails to
    publish its drafts when it goes on.
    """
    wanted = {batch.member(number).lower(): number for number in range(1, batch.size + 1)}
    left = _drafts(root, wanted)
    absent = wanted.keys() - _filed(root)
    reserved = {job_id: mark for job_id in absent if (mark := ids.mark(root, job_id)) is not None}
    if left or reserved:
        answers = root.medium.answers_truly
        times.clock.sleep(ids.FILING_TAKES if answers else drafts.ABANDONED)
        for path, mark in left.items():
            if _is_abandoned(root, path, mark):
                files.remove(path)
        ids.free_each(root, reserved)
        drafted = {id_in(path.rpartition("/")[2]).lower() for path in _drafts(root, wanted)}
        absent = wanted.keys() - _filed(root) - drafted
    return {wanted[job_id] for job_id in absent}


def _filed(root: Root) -> set[str]:
    """The ids of all jobs, in lower case."""
    looked = ((state, [text for text in texts if text[:1] != "."]) for state, texts in jobs.look(root))
    return {job_id.lower() for state, texts in looked for job_id in jobs.ids_in(state, texts)}


def _drafts(root: Root, wanted: dict[str, int]) -> dict[str, files.Mark]:
    """The drafts of these members in pending/, each with its mark."""
    folder, found = root.folder(State.PENDING), {}
    for text in root.texts_in(folder):
        if text[:1] == "." and id_in(text).lower() in wanted:
            try:
                found[f"{folder}/{text}"] = files.mark(f"{folder}/{text}")
            except FileNotFoundError:  # it has just been published
                continue
    return found


def _is_abandoned(root: Root, path: str, mark: files.Mark) -> bool:
    try:
        return files.mark(path) == mark and not root.medium.being_written(path)
    except FileNotFoundError:
        return False
