"""From a job to a file in pending/: it is on disk, under its name, before its id is printed.

pending/.NAME.tmp    written: a crash leaves a dot file that no worker reads
ids/ID.id            the id is taken, if somebody chose it
keys/KEY/1           the unique key is taken, if the job has one
pending/NAME         synced, renamed and closed: the job is filed, and workers are woken
fsync of pending/    the job survives a power cut; now the id may be printed

Where syncing a directory does nothing (SMB) the file is kept open over the rename and synced after it.

If the disk fails before that, nothing is left: files that have their names already are removed. Others free
an id only once its draft is gone; a filing that was stopped for that long fails to publish its draft.
"""

from __future__ import annotations

import contextlib
from itertools import islice

from queuectl.errors import (
    BadJob,
    CutOff,
    FiledAllTheSame,
    IdTaken,
    IdTooLong,
    KeyTaken,
    QueueError,
    StorageTrouble,
)
from queuectl.job.layout import to_yaml
from queuectl.job.model import Job, State
from queuectl.spool import safety
from queuectl.spool.names import SHORT_ID, Name, id_in, make_id, rank_of
from queuectl.system import drafts, files
from queuectl.times import shifted, stamp
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import TypeAlias

    from queuectl.settings import Settings
    from queuectl.spool.root import Root

#: How many jobs share one sync of the directory. Each holds a file open until then.
TOGETHER = 200

#: A file name, what goes under it, and whether somebody chose the id.
Named: TypeAlias = "tuple[Name, Job, bool]"
#: Asked of each lot of jobs before they are written. Returns for the ids of those that may not start yet why
#: they are parked, and for those of others why they are refused.
Gate: TypeAlias = "Callable[[list[Job]], Mapping[str, str | QueueError]]"


class Filed(NamedTuple):
    """The answer for one job: its id and, if it was refused, the error.

    If another job holds its unique key, nothing was filed: `id` is that of the other job, and `is_new` false.
    """

    id: str
    error: QueueError | None = None
    is_new: bool = True


def file_jobs(
    root: Root, settings: Settings, jobs: Iterable[Job], clock: Callable[[], datetime], gate: Gate
) -> Iterator[Filed]:
    """File jobs in their order. Yields one answer a job, once the job is safely on disk.

    A job that is refused leaves no trace and does not hinder the others. Raises `StorageTrouble`
    when the disk takes no more: the jobs whose answers were yielded are filed, and no others.
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
            judged = gate([job for _, job, _ in named])
            answers = _file_together(root, settings, [_parked(one, judged) for one in named], judged)
        except OSError as error:
            if StorageTrouble.explains(error):
                raise StorageTrouble(error) from error
            raise
        yield from answers


def _named(job: Job, settings: Settings, moment: datetime) -> Named:
    job_id = job.id or make_id()
    priority = settings.priority if job.priority is None else job.priority
    rank = rank_of(priority, fifo=settings.scheduling_mode == "fifo")
    name = Name(rank, stamp(job.run_at or moment), job_id).grouped(job.group, job.slots)
    return name, job._replace(id=job_id, created_at=job.created_at or moment), job.id is not None


def _parked(one: Named, judged: Mapping[str, str | QueueError]) -> Named:
    name, job, is_chosen = one
    reason = judged.get(name.id)
    return (name._replace(parked=reason), job, is_chosen) if isinstance(reason, str) else one


def _file_together(
    root: Root, settings: Settings, named: list[Named], judged: Mapping[str, str | QueueError]
) -> list[Filed]:
    """File a few jobs with one sync of each directory: all of them, or none and an error.

    Raises `FiledAllTheSame` where some could not be removed again, as workers had claimed them.
    """
    # On a share the content must be there before the name: another host may claim it at once.
    sync = settings.durability != "none" or root.medium.is_remote
    written: list[drafts.Draft] = []
    published: list[drafts.Draft] = []
    taken: list[Name] = []
    try:
        answers = _write(root, settings, named, judged, written)
        _take_ids(root, named, answers, written, taken)
        numbers = _take_keys(root, named, answers, written, taken)
        _refuse_given_away(root, settings, written)
        if sync:
            _sync(root, written, taken, numbers)
        if settings.durability != "none" and root.medium.forgets_names:
            _publish_synced(root, written, published)
        else:
            _publish(root, written, published)
            if sync:
                files.sync_folder(root.folder(State.PENDING))
    except BaseException as error:
        kept = _undo(root, written, published, taken, error.path if isinstance(error, CutOff) else "")
        if kept and isinstance(error, OSError):
            raise FiledAllTheSame([id_in(path.rpartition("/")[2]) for path in sorted(kept)], error) from error
        raise
    return answers


def _write(
    root: Root,
    settings: Settings,
    named: list[Named],
    judged: Mapping[str, str | QueueError],
    written: list[drafts.Draft],
) -> list[Filed]:
    """Write the drafts of all jobs that can be filed. Returns an answer for each job."""
    answers: list[Filed] = []
    mode = safety.guarded_mode(root, settings)
    for name, job, _ in named:
        text = to_yaml(job).encode()
        refusal = judged.get(name.id)
        error = refusal if isinstance(refusal, QueueError) else _unfit(root, name, text)
        if error is None:
            try:
                draft = drafts.draft(root.folder(State.PENDING), str(name), text, mode)
            except FileExistsError:  # another filing of this id and time is under way, or died
                is_ours = any(draft.target == _path(root, name) for draft in written)
                error = IdTaken(name.id, name.id if is_ours else None)
            else:
                written.append(draft)
        answers.append(Filed(name.id, error))
    return answers


def _take_ids(
    root: Root, named: list[Named], answers: list[Filed], written: list[drafts.Draft], taken: list[Name]
) -> None:
    """Take the ids that somebody chose, each for its draft, and refuse the jobs whose ids are taken."""
    chosen = [at for at, (_, _, is_chosen) in enumerate(named) if is_chosen and answers[at].error is None]
    if not chosen:
        return
    from queuectl.spool import ids  # most jobs are filed without a chosen id

    own = {draft.hidden.rpartition("/")[2] for draft in written}
    by_target = {draft.target: draft for draft in written}
    refused: list[int] = []
    for at, is_free in zip(chosen, ids.take_all(root, [named[at][0].id for at in chosen], own), strict=True):
        if is_free:
            taken.append(named[at][0])
        else:
            refused.append(at)
            written.remove(draft := by_target[_path(root, named[at][0])])
            drafts.discard(draft)
    _tell_taken(root, answers, refused, taken)


def _take_keys(
    root: Root,
    named: list[Named],
    answers: list[Filed],
    written: list[drafts.Draft],
    taken: list[Name],
) -> list[str]:
    """Take the unique keys, each for a draft; returns the paths of their numbers.

    A job whose key another one has is not filed.
    """
    unique = [at for at, (_, job, _) in enumerate(named) if job.unique is not None and not answers[at].error]
    if not unique:
        return []
    from queuectl.spool import keys  # most jobs have none

    by_target = {draft.target: draft for draft in written}
    wishes = [keys.Wish.of(named[at][1], named[at][0].id) for at in unique]
    made = []
    for at, answer in zip(unique, keys.take_all(root, wishes), strict=True):
        if isinstance(answer, str):
            made.append(answer)
            continue
        name = named[at][0]
        if name in taken:  # before the draft goes: see `_undo`
            taken.remove(name)
            _give_back(root, [name])
        written.remove(draft := by_target[_path(root, name)])
        drafts.discard(draft)
        if isinstance(answer, KeyTaken):
            answers[at] = Filed(answer.holder, is_new=False)
        else:
            answers[at] = Filed(name.id, answer)
    return made


def _undo(
    root: Root, written: list[drafts.Draft], published: list[drafts.Draft], taken: list[Name], cut_off: str
) -> set[str]:
    """Remove everything that was not filed to its end. Returns the paths that workers have claimed already.

    `cut_off` is the path of a job whose draft is gone, and with it its id.
    """
    targets = {draft.target for draft in published}
    # Race: nobody else frees an id while its draft is there, so the id is freed before the draft goes.
    _give_back(root, [name for name in taken if _path(root, name) not in {*targets, cut_off}])
    for draft in written:
        drafts.discard(draft)
    kept = {draft.target for draft in published if not drafts.withdraw(draft)}
    _give_back(root, [name for name in taken if _path(root, name) in targets - kept])
    return kept


def _refuse_given_away(root: Root, settings: Settings, written: list[drafts.Draft]) -> None:
    if written and safety.gives_away(root):
        safety.refuse_given_away(root, files.kernel.fstat(written[0].fd).st_uid, settings)


def _publish(root: Root, written: list[drafts.Draft], published: list[drafts.Draft]) -> None:
    while written:
        draft = written.pop(0)
        with _noticing_loss(root, draft):
            drafts.publish(draft)
        published.append(draft)


def _publish_synced(root: Root, written: list[drafts.Draft], published: list[drafts.Draft]) -> None:
    """Rename the drafts and sync each file under its new name, even if a worker has claimed it by then."""
    still_open: list[int] = []
    try:
        while written:
            draft = written.pop(0)
            still_open.append(draft.fd)
            with _noticing_loss(root, draft):
                drafts.publish_open(draft)
            published.append(draft)
        drafts.sync(published)
    finally:
        files.close(*still_open)


@contextlib.contextmanager
def _noticing_loss(root: Root, draft: drafts.Draft) -> Iterator[None]:
    """Remove a draft that cannot be published; raise `CutOff` where it is gone while the spool is there."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):  # the error that led here is the one to report
            files.remove(draft.hidden)
        # Race: a share may report an error for a rename that happened, and a worker may have claimed the
        # job before its name is looked for.
        if isinstance(error, OSError) and root.medium.is_remote and _is_filed(root, draft):
            return
        if isinstance(error, FileNotFoundError):
            root.require()
            raise CutOff(draft.target) from error
        raise


def _is_filed(root: Root, draft: drafts.Draft) -> bool:
    """Whether a job has the id of this draft, whatever has been done to it since."""
    from queuectl.spool import jobs

    try:
        return bool(jobs.bearers(root, [id_in(draft.target.rpartition("/")[2])]))
    except OSError:
        return False


def _path(root: Root, name: Name) -> str:
    return f"{root.folder(State.PENDING)}/{name}"


def _give_back(root: Root, names: list[Name]) -> None:
    """Free the ids that were taken for jobs that are not filed after all."""
    if names:
        from queuectl.spool import ids

        ids.release(root, [name.id for name in names])


def _tell_taken(root: Root, answers: list[Filed], refused: list[int], taken: list[Name]) -> None:
    """Put an error into each refused answer that names who has the id: a job, or one of `taken`."""
    if not refused:
        return
    from queuectl.spool import batches, jobs

    holders = jobs.bearers(root, [answers[at].id for at in refused])
    holders |= {name.id.lower(): name.id for name in taken}
    for at in refused:
        job_id = answers[at].id
        holder = holders.get(job_id.lower()) or (job_id if batches.is_taken(root, job_id) else None)
        answers[at] = Filed(job_id, IdTaken(job_id, holder))


def _sync(root: Root, written: list[drafts.Draft], taken: list[Name], numbers: list[str]) -> None:
    drafts.sync(written)
    if numbers:  # a number that a power cut leaves empty holds no key
        drafts.sync_files(numbers)
        for folder in {root.keys, *(path.rpartition("/")[0] for path in numbers)}:
            files.sync_folder(folder)
    if taken:
        # Crash: without this the job could survive a power cut that its id does not.
        if root.medium.forgets_names:
            from queuectl.spool import ids

            drafts.sync_files([ids.path_of(root, name.id) for name in taken])
        else:
            files.sync_folder(root.ids)


def _unfit(root: Root, name: Name, text: bytes) -> QueueError | None:
    """Why no file can hold this job or have its id in its name; None where one can."""
    if not root.takes_id(name.id):
        return IdTooLong(name.id, SHORT_ID)
    if len(text) <= files.MAX_BYTES:
        return None
    size = (
        f"It would be a file of {len(text):,} bytes, more than the {files.MAX_BYTES:,} that a job may have."
    )
    return BadJob(size, "Put more of it into a script.")
