"""From a job to a file in pending/: on disk, under its name, before its id is told.

logs/ID.1.out        the id is taken (only for an id that somebody chose)
pending/.NAME.tmp    written and synced: a crash leaves a dot file that no worker reads
pending/NAME         closed and renamed: the job is filed, and workers hear it
fsync of pending/    a power cut leaves it filed; now the id may be told

Where syncing a directory does nothing (SMB) the file is kept open over the rename and synced after it.

A disk that fails before that has nothing left of it: what has its name is taken back.
"""

from __future__ import annotations

from itertools import islice

from queuectl import disk
from queuectl.errors import BadJob, FiledAllTheSame, IdTaken, IdTooLong, QueueError, StorageTrouble
from queuectl.job import Job, State, shifted, stamp, to_yaml
from queuectl.spool.names import SHORT_ID, Name, id_in, make_id, rank_of
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from typing import TypeAlias

    from queuectl.settings import Settings
    from queuectl.spool.root import Root

#: Jobs that share one sync of the directory; each holds a file open until then.
TOGETHER = 200

#: A file name, what goes under it, and whether somebody chose the id.
Named: TypeAlias = "tuple[Name, Job, bool]"


class Filed(NamedTuple):
    """What became of one job: its id, or why it was not taken."""

    id: str
    error: QueueError | None = None


def file_jobs(
    root: Root, settings: Settings, jobs: Iterable[Job], clock: Callable[[], datetime]
) -> Iterator[Filed]:
    """File jobs in their order; one answer each, given when the job is safely on disk.

    A job that is refused leaves no trace and does not hinder the others. Raises `StorageTrouble`
    when the disk takes no more: every job answered for until then is filed, no other is.
    """
    jobs = iter(jobs)
    moment = clock()
    while chunk := list(islice(jobs, TOGETHER)):
        named: list[Named] = []
        answers: list[Filed] = []
        for job in chunk:
            moment = max(clock(), shifted(moment))
            named.append(_named(job, settings, moment))
        try:
            answers = _file_together(root, settings, named)
        except OSError as error:
            if StorageTrouble.explains(error):
                raise StorageTrouble(error) from error
            raise
        yield from answers


def _named(job: Job, settings: Settings, moment: datetime) -> Named:
    job_id = job.id or make_id()
    priority = settings.priority if job.priority is None else job.priority
    rank = rank_of(priority, fifo=settings.scheduling_mode == "fifo")
    name = Name(rank, stamp(job.run_at or moment), job_id)
    return name, job._replace(id=job_id, created_at=job.created_at or moment), job.id is not None


def _file_together(root: Root, settings: Settings, named: list[Named]) -> list[Filed]:
    """File a few jobs with one sync of each directory: all of them, or an error and none is left.

    Raises `FiledAllTheSame` where some could not be taken back, as workers had them already.
    """
    # On a share the content must be there before the name: another host may claim it at once.
    sync = settings.durability != "none" or root.is_shared
    mode = root.guarded_mode(settings)
    drafts: list[disk.Draft] = []
    published: list[disk.Draft] = []
    taken: list[Name] = []
    answers: list[Filed] = []
    refused: list[int] = []
    try:
        for name, job, chosen in named:
            text = to_yaml(job).encode()
            if error := _unfit(root, name, text):
                answers.append(Filed(name.id, error))
            elif chosen and not _take(root, name, taken):
                refused.append(len(answers))
                answers.append(Filed(name.id))
            else:
                drafts.append(disk.draft(root.folder(State.PENDING), str(name), text, sync=False, mode=mode))
                answers.append(Filed(name.id))
        _refuse_given_away(root, settings, drafts)
        _tell_taken(root, answers, refused, taken)
        if sync:
            _sync(root, drafts, taken)
        if settings.durability != "none" and root.forgets_names:
            _publish_synced(drafts, published)
        else:
            _publish(drafts, published)
            if sync:
                disk.sync_folder(root.folder(State.PENDING))
    except BaseException as error:
        for draft in drafts:
            disk.discard(draft)
        kept = {draft.target for draft in published if not disk.withdraw(draft)}
        _give_back(root, taken, kept)
        if kept and isinstance(error, OSError):
            raise FiledAllTheSame([id_in(path.rpartition("/")[2]) for path in sorted(kept)], error) from error
        raise
    return answers


def _refuse_given_away(root: Root, settings: Settings, drafts: list[disk.Draft]) -> None:
    if drafts and root.gives_away:
        root.refuse_given_away(disk.owner_of(drafts[0].fd), settings)


def _publish(drafts: list[disk.Draft], published: list[disk.Draft]) -> None:
    while drafts:
        draft = drafts.pop(0)
        disk.publish(draft)
        published.append(draft)


def _publish_synced(drafts: list[disk.Draft], published: list[disk.Draft]) -> None:
    """Give drafts their names and sync each file under it, whoever has claimed it by then."""
    still_open: list[int] = []
    try:
        while drafts:
            draft = drafts.pop(0)
            disk.publish_open(draft)
            still_open.append(draft.fd)
            published.append(draft)
        disk.sync(published)
    finally:
        disk.close(*still_open)


def _give_back(root: Root, taken: list[Name], kept: set[str]) -> None:
    """Give the ids back that were taken for jobs that are not filed after all."""
    folder = root.folder(State.PENDING)
    if lost := [name.id for name in taken if f"{folder}/{name}" not in kept]:
        from queuectl.spool import ids

        ids.release(root, lost)


def _take(root: Root, name: Name, taken: list[Name]) -> bool:
    from queuectl.spool import ids  # most jobs are filed without an id of somebody's choice

    if not ids.take(root, name.id):
        return False
    taken.append(name)
    return True


def _tell_taken(root: Root, answers: list[Filed], refused: list[int], taken: list[Name]) -> None:
    """Give those answers whose id is taken the error that names who has it: one of `taken`, or a job."""
    if not refused:
        return
    from queuectl.spool import finding

    holders = finding.bearers(root, [answers[at].id for at in refused])
    holders |= {name.id.lower(): name.id for name in taken}
    for at in refused:
        job_id = answers[at].id
        answers[at] = Filed(job_id, IdTaken(job_id, holders.get(job_id.lower())))


def _sync(root: Root, drafts: list[disk.Draft], taken: list[Name]) -> None:
    disk.sync(drafts)
    if taken:
        # Crash: without this the job could survive a power cut that its id does not.
        if root.forgets_names:
            from queuectl.spool import output

            disk.sync_files([output.id_path(root, name.id) for name in taken])
        else:
            disk.sync_folder(root.logs)


def _unfit(root: Root, name: Name, text: bytes) -> BadJob | None:
    """Why no file can hold this job, or bear its id, if there is a reason."""
    if not root.takes_id(name.id):
        return IdTooLong(name.id, SHORT_ID)
    if len(text) <= disk.MAX_BYTES:
        return None
    size = f"It would be a file of {len(text):,} bytes, more than the {disk.MAX_BYTES:,} that a job may have."
    return BadJob(size, "Put more of it into a script.")
