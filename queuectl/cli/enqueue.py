"""`queuectl enqueue`: jobs from arguments, standard input and files."""

from __future__ import annotations

import contextlib
from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, options, printer, sources
from queuectl.cli.commands import taking
from queuectl.cli.places import spool_or_new
from queuectl.errors import (
    BadJob,
    BadUsage,
    Completed,
    IdTaken,
    LongAgo,
    NotPrinted,
    OutputTrouble,
    QueueError,
)
from queuectl.job.fields import ALIASES, from_fields
from queuectl.spool.batches import Batch
from queuectl.system import files
from queuectl.times import entered_moment, iso, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterator
    from typing import Any

    from queuectl.api import Spool
    from queuectl.cli.sources import Given, Source
    from queuectl.job.model import Job
    from queuectl.spool.root import Root

EXAMPLES = """\b
Examples:
  queuectl enqueue "convert a.png b.jpg"               a shell command
  queuectl enqueue -- ffmpeg -i a.mov a.mp4            an argument list, no shell
  queuectl enqueue '{"id": "j1", "command": "echo hi"}'
  queuectl enqueue --id j2 --command "make" --priority 10 --delay 90s
  queuectl enqueue --file jobs.yaml
  queuectl enqueue --each 'convert {} {.}.png' -- *.jpg    one job per file
  find . -name '*.wav' -print0 | queuectl enqueue --each 'flac {}' -0 -
  queuectl enqueue --each 'train {lr} {seed}' --with lr=0.1,0.01 --with seed=1..5
"""


class _Enqueue(click.Command):
    """Separates the words of the command from the options before click parses the options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give click only the options."""
        if not ctx.resilient_parsing:
            with contextlib.suppress(options.Unread):  # click words the error
                line = ctx.meta["line"] = options.read(args)
                args = line.options
        return super().parse_args(ctx, args)


@click.command("enqueue", cls=_Enqueue, epilog=EXAMPLES)
@click.argument("what", nargs=-1, shell_complete=completion.files)
@taking(*options.FIELDS, *options.RULES, *options.VALUES, *options.OTHERS)
@click.pass_context
def enqueue_command(
    ctx: click.Context,
    /,
    what: tuple[str, ...],
    command: str | None,
    files: tuple[str, ...],
    env: tuple[str, ...],
    after: tuple[str, ...],
    after_unfiled: bool,
    held: bool,
    combined: tuple[str, ...],
    by_nul: bool,
    batch: str | None,
    resume: bool,
    dry_run: bool,
    lines: bool,
    again: bool,
    yes: bool,
    as_json: bool,
    **texts: str | None,
) -> int:
    """File jobs and print their ids, one per line.

    Each job is accepted or refused on its own: the good ones are filed, the others are listed on
    standard error, and the exit status is not 0.
    """
    del what  # the line has the command with its `--`
    line: options.Line = ctx.meta["line"]
    said = {key: text for key, text in texts.items() if text is not None}
    of_values = {key: said.pop(key) for key in sources.OF_VALUES & said.keys()}
    flags = options.fields(said, env, lambda past: yes or _is_meant(past))
    if after:
        flags["after"] = options.after(after)
    given = sources.of_values(line, command, of_values, combined, by_nul=by_nul)
    is_batch = given is not None or batch is not None
    if given is None:
        given = sources.of_jobs(line, command, files, lines=lines)
    elif files or lines:
        raise BadUsage(
            "--file and --lines name commands, and there are values for a command.", "Leave one out."
        )
    if is_batch or given.total > 1:
        _refuse_for_several(said)
    if resume and batch is None:
        raise BadUsage("--resume does not say which batch.", "Add --batch NAME.")
    if given.at_once and "group" in flags:
        raise BadUsage("--array with % and --group both limit how many run.", "Leave one of them out.")
    jobs = _Jobs(given, flags, again=again, are_members=is_batch)
    if dry_run:
        return _show(jobs, as_json=as_json)
    if is_batch:
        return _file_batch(
            ctx, jobs, batch, after_unfiled=after_unfiled, held=held, as_json=as_json, resume=resume
        )
    return _file(ctx, jobs, lambda: None, after_unfiled=after_unfiled, held=held, as_json=as_json)


def _is_meant(past: LongAgo) -> bool:
    """Ask whether a moment of long ago is meant; raises `BadUsage` without a terminal."""
    if not printer.can_ask():
        raise BadUsage(past.problem, f"{past.remedy} If it is meant, add --yes.")
    return printer.ask(f"{past.problem} Is it meant?")


def _refuse_for_several(said: Container[str]) -> None:
    """Raise `BadUsage` for options that only one job may have."""
    if "id" in said:
        raise BadUsage(
            "--id cannot be given to several jobs.", "Name them with --batch, or write the ids into the jobs."
        )
    if "unique" in said:
        raise BadUsage(
            "--unique gives several jobs one key, so only one of them would be filed.",
            "Write a key of its own into each job, or leave it out.",
        )


class _Jobs:
    """The jobs of one command, each made of its source when it is asked for, and which of them are refused.

    `asked` has the jobs that were given out and whose answers have not come yet, each with its place. Of a
    batch, once `named`, only the members with the `wanted` numbers are given out.
    """

    def __init__(self, given: Given, flags: dict[str, Any], *, again: bool, are_members: bool) -> None:
        self.total = given.total
        self.at_once = given.at_once
        self.refused: list[tuple[str, QueueError]] = []
        self.asked: deque[tuple[str, Job]] = deque()
        self._given = given
        self._flags = flags
        self._again = again
        self._are_members = are_members
        self._batch: Batch | None = None
        self._wanted: Container[int] = range(1, given.total + 1)
        self.are_resumed = False

    def name(self, batch: Batch, wanted: Collection[int]) -> None:
        """Give out the members of this batch with these numbers."""
        self._batch, self._wanted = batch, wanted
        self.are_resumed = len(wanted) < self.total

    def __iter__(self) -> Iterator[Job]:
        completed = 0
        for number, source in enumerate(self._given.sources(), 1):
            if number not in self._wanted:
                continue
            try:
                job = self._made(source, number)
            except Completed:
                completed += 1
            except QueueError as error:
                self.refused.append((source.place, error))
            else:
                self.asked.append((source.place, job))
                yield job
        if completed:
            are = "1 job is" if completed == 1 else f"{completed:,} jobs are"
            printer.note(f"{are} completed already and not filed; --again files such jobs, too.")

    def _made(self, source: Source, number: int) -> Job:
        if not self._are_members:
            return _job(source, self._flags, again=self._again)
        try:
            job = _job(source, self._flags, again=self._again)
        except Completed:
            raise BadJob(
                "The job is completed already.", "Add --again, or leave it out of the batch."
            ) from None
        if job.id is not None:
            raise BadJob(f"It has the id {job.id!r}, and members of a batch get theirs.", "Leave the id out.")
        if self._batch is None:
            return job
        return job._replace(
            id=self._batch.member(number), group=self._batch.name if self.at_once else job.group
        )

    def passed_over(self, place: str, job: Job, holder: str) -> QueueError | None:
        """Say that a job was not filed, as `holder` has its key; for a member of a batch that is an error."""
        said = f"job {holder} has the unique key {job.unique!r}"
        if self._are_members:
            return QueueError(f"Not filed: {said}.", "Wait for that job.")
        printer.note(f"{place}: {said}." if place else f"Nothing was filed: {said}.")
        return None

    def digest(self) -> str:
        """The digest of all commands and where they run. Finds all jobs that are to be refused."""
        import hashlib

        digest = hashlib.blake2b(digest_size=16)
        for job in self:
            self.asked.clear()
            digest.update(repr((job.command, job.cwd)).encode())
        return digest.hexdigest()

    def report(self, filed: int) -> int:
        """Print what was refused, and return the exit status. Raises the error of the only job."""
        if not self.refused:
            return 0
        if self.total == 1:
            raise _placed(*self.refused[0])
        for place, why in self.refused:
            printer.note(f"{place}: {why}")
        printer.note(f"Filed {filed} of {self.total} jobs; {len(self.refused)} refused.")
        return 1


def _show(jobs: _Jobs, *, as_json: bool) -> int:
    """Print the commands of jobs that are not filed."""
    number = 0
    for job in jobs:
        jobs.asked.clear()
        number += 1
        if as_json:
            printer.as_json({"command": job.command, "env": dict(job.env)})
        else:
            printer.line(job.command_line)
    printer.note(f"{'1 job' if number == 1 else f'{number:,} jobs'} would be filed.")
    return jobs.report(0)


def _file_batch(
    ctx: click.Context,
    jobs: _Jobs,
    name: str | None,
    *,
    resume: bool,
    after_unfiled: bool,
    held: bool,
    as_json: bool,
) -> int:
    """File the members of a batch: all of them, or with `resume` those that are missing."""
    from queuectl.spool import batches, members

    digest = jobs.digest()
    if jobs.refused:  # a batch with a member that cannot be would never be whole
        return jobs.report(0)
    root = spool_or_new(ctx).root
    known = batches.read(root, name) if resume and name else None
    batch = _reserved(root, name, known, jobs, digest, resume=resume)
    name = batch.name
    wanted: Collection[int] = range(1, batch.size + 1)
    if known is not None:
        wanted = () if known.is_filed else members.missing(root, batch)
    jobs.name(batch, wanted)
    if jobs.at_once:
        from queuectl.rules import groups

        groups.set_up(root, name, jobs.at_once, None)
    is_whole = False

    def finish() -> None:
        nonlocal is_whole
        is_whole = known is None or known.is_filed or not members.missing(root, batch)
        if is_whole and not (known and known.is_filed):
            members.finish(root, name)
        count = f"{batch.size:,}"
        what = f"{len(wanted):,} of {count}" if known else count
        printer.note(f"Batch {name}: {what} jobs filed. See `queuectl status {name}`.")

    try:
        return _file(ctx, jobs, finish, after_unfiled=after_unfiled, held=held, as_json=as_json)
    finally:
        if not is_whole:
            line = f"the same line with --batch {name} --resume"
            printer.note(f"Not all jobs of batch {name} are filed; {line} files the others.")


def _reserved(
    root: Root, name: str | None, known: Batch | None, jobs: _Jobs, digest: str, *, resume: bool
) -> Batch:
    """The batch of these jobs, whose name is taken; `known` is what there is of it already."""
    from queuectl.spool import members

    if name is None:
        return members.draw(root, jobs.total, digest)
    batch = Batch(name, jobs.total, digest)
    if known is not None:
        _refuse_other(known, batch)
        return batch
    if jobs.at_once:
        _refuse_group(root, name)
    (members.reserve_again if resume else members.reserve)(root, batch)
    return batch


def _refuse_group(root: Root, name: str) -> None:
    """Raise an error where the group that limits a batch cannot have its name, or is there already."""
    from queuectl.rules import groups

    if files.exists(groups.folder_of(root, groups.checked(name))):
        raise QueueError(f"There is a group {name!r} already.", "Choose another name for the batch.")


def _refuse_other(known: Batch, asked: Batch) -> None:
    """Raise `QueueError` where a batch is to be resumed with other jobs than it was begun with."""
    if known.size != asked.size:
        problem = f"Batch {known.name} has {known.size:,} jobs, and this line makes {asked.size:,}."
    elif known.digest != asked.digest:
        problem = f"Batch {known.name} was begun with other commands, or in another directory."
    else:
        return
    raise QueueError(problem, "Resume it with the line that began it, or file another batch.")


def _file(
    ctx: click.Context,
    jobs: _Jobs,
    finish: Callable[[], None],
    *,
    after_unfiled: bool,
    held: bool,
    as_json: bool,
) -> int:
    """File jobs and print their ids; `finish` is called once all are filed."""
    made = iter(jobs)
    first = list(islice(made, 1))
    if not first:
        if not jobs.refused:
            finish()
        return jobs.report(0)  # no spool is made for nothing
    spool = spool_or_new(ctx)
    told = _Told(spool, as_json=as_json)
    answers = spool.file_checked(chain(first, made), after_unfiled=after_unfiled, held=held)
    # On a terminal the ids show the progress.
    shown = 0 if printer.is_terminal() and not as_json else jobs.total
    try:
        with printer.progress("filing", shown, least=printer.MANY) as advance:
            for filed in answers:
                place, job = jobs.asked.popleft()
                error = filed.error if filed.is_new else jobs.passed_over(place, job, filed.id)
                if error is None:
                    told.tell(filed.id)
                elif not (jobs.are_resumed and isinstance(error, IdTaken)):  # another one was faster
                    jobs.refused.append((place, error))
                advance(told.number)
        if not jobs.refused:
            finish()
    finally:
        told.end()
    return jobs.report(told.number)


class _Told:
    """Prints the ids of jobs as they are filed, or with `as_json` the jobs once all are.

    Where standard output takes no more, filing goes on, and `end` raises the error.
    """

    def __init__(self, spool: Spool, *, as_json: bool) -> None:
        self.number = 0
        self._spool = spool
        self._as_json = as_json
        self._kept: list[str] = []
        self._trouble: OSError | None = None

    def tell(self, job_id: str) -> None:
        """Print the id of a job that is on disk."""
        self.number += 1
        if self._as_json or self._trouble:
            self._kept.append(job_id)
            return
        try:
            printer.line(job_id)
        except (BrokenPipeError, OutputTrouble) as error:
            self._fail(job_id, error)

    def _fail(self, job_id: str, error: OSError) -> None:
        printer.drop(1)
        self._kept.append(job_id)
        self._trouble = error

    def end(self) -> None:
        """Print what is left. Raises `NotPrinted`, or `BrokenPipeError` where nobody reads any more."""
        if self._as_json:
            self._print_jobs()
        if self._trouble is not None:
            if isinstance(self._trouble, OutputTrouble):
                raise NotPrinted(self._kept, self._trouble) from None
            raise self._trouble

    def _print_jobs(self) -> None:
        from queuectl.spool import jobs
        from queuectl.view import lookup

        root = self._spool.root
        try:
            for job_id, answer in lookup.find_each(root, self._kept).items():
                # Race: a worker may have it by now.
                printer.as_json(self._spool.view(jobs.read(lookup.meant(answer)) or self._spool.find(job_id)))
        except OutputTrouble as error:
            printer.drop(1)
            self._trouble = error


def _placed(place: str, why: QueueError) -> QueueError:
    return why.at(place) if place else why


def _job(source: Source, flags: dict[str, Any], *, again: bool) -> Job:
    if source.error is not None:
        raise source.error
    fields = dict(source.fields or {})
    if again:
        fields.pop("state", None)
    for older, name in ALIASES.items():
        if name in flags:
            fields.pop(older, None)
    if isinstance(fields.get("env"), dict) and "env" in flags:
        flags = flags | {"env": fields["env"] | flags["env"]}
    run_at = fields.get("run_at")
    if isinstance(run_at, str) and run_at.startswith("+"):
        fields["run_at"] = iso(entered_moment("run_at", run_at, utc_now()))
    fields |= flags
    listed = fields.pop("history", None) is not None  # it comes from `list --json`, as it was filed
    if fields.get("cwd") is None and not listed:
        fields["cwd"] = options.here()
    return from_fields(fields)
