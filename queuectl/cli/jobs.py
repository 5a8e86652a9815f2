"""`retry`, `cancel`, `wait`, `dlq`, `prune`: what a person does to jobs."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, show
from queuectl.cli.groups import Group
from queuectl.cli.interrupts import Interrupts
from queuectl.cli.places import spool_of
from queuectl.errors import (
    BadJob,
    BadUsage,
    JobMoved,
    Moving,
    NoSuchJob,
    QueueError,
    StorageTrouble,
    WrongState,
)
from queuectl.job.model import State
from queuectl.spool import acts, jobs, presence
from queuectl.spool.cancellation import Cancelling
from queuectl.spool.jobs import Found
from queuectl.system import files
from queuectl.times import duration, entered_duration, is_bare_number
from queuectl.view import explain, lookup
from queuectl.view.endings import Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from queuectl.api import Spool
    from queuectl.job.history import Event
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

#: Seconds that a worker has to stop a job, beyond the grace of its command.
_PATIENCE = 60.0


class Lot:
    """The jobs that a command is for: looked up together, and again together where they have moved since.

    What cannot be done is told and does not hinder the others; `status` is the exit status.
    """

    def __init__(self, spool: Spool, found: Iterable[Found] = ()) -> None:
        self.spool = spool
        self.left = list(found)
        self.status = 0

    @classmethod
    def of(cls, spool: Spool, words: Iterable[str]) -> Lot:
        """The jobs that these ids, or beginnings of ids, mean."""
        lot = cls(spool)
        found: dict[str, Found] = {}
        for answer in lookup.find_each(spool.root, words).values():
            if isinstance(answer, QueueError):
                lot.refuse(answer)
            else:
                found[answer.id] = answer
        lot.left = list(found.values())
        return lot

    def refuse(self, error: QueueError) -> None:
        """Tell why something could not be done."""
        show.note(f"Error: {error}")
        self.status = self.status or (1 if isinstance(error, BadJob) else error.exit_status)

    def do(self, what: str, act: Callable[[Found], str | None]) -> None:
        """Act on each job that is left; one that has moved, or has no answer yet, stays left."""
        todo, self.left = self.left, []
        shown = 0 if show.is_terminal() else len(todo)  # on a terminal each line shows it
        with show.progress(what, shown, least=show.MANY) as advance, Interrupts() as interrupts:
            for done, found in enumerate(todo, 1):
                try:
                    interrupts.check()
                    said = act(found)
                except JobMoved:
                    said = None
                except QueueError as error:
                    self.refuse(error)
                    continue
                except BaseException:
                    self.left += todo[done - 1 :]
                    raise
                if said is None:
                    self.left.append(found)
                else:
                    show.line(said)
                advance(done)

    @contextlib.contextmanager
    def naming_what_is_left(self) -> Iterator[None]:
        """Where the disk refuses one of them, say which are left, so that the command can be repeated."""
        try:
            yield
        except OSError as error:
            if not StorageTrouble.explains(error) or not self.left:
                raise
            trouble = StorageTrouble(error)
            trouble.remedy += f" Left as they were: {' '.join(found.id for found in self.left)}"
            raise trouble from error

    def look_again(self) -> None:
        """Find out where those are that are left."""
        found = jobs.places(self.spool.root, [one.id for one in self.left]).found
        for one in self.left:
            if one.id not in found:
                self.refuse(NoSuchJob(one.id))
        self.left = [found[one.id] for one in self.left if one.id in found]

    def do_all(self, what: str, act: Callable[[Found], str | None]) -> int:
        """Act on each until none is left, wherever they move; returns the exit status."""
        for _ in range(jobs.TRIES):
            self.do(what, act)
            if not self.left:
                return self.status
            self.look_again()
        for found in self.left:
            self.refuse(Moving(found.id))
        return self.status


@click.command("retry", epilog="\b\nExample:\n  queuectl retry resize-42")
@click.argument(
    "job_ids", nargs=-1, required=True, shell_complete=completion.ids_in(*completion.MAY_RUN_AGAIN)
)
@click.pass_context
def retry_command(ctx: click.Context, job_ids: tuple[str, ...]) -> int:
    """Put failed, dead or completed jobs back to pending, their tries counted anew."""
    spool = spool_of(ctx)
    lot = Lot.of(spool, job_ids)
    with lot.naming_what_is_left(), _retrying(spool) as retry:
        return lot.do_all("retrying", retry)


@contextlib.contextmanager
def _retrying(spool: Spool) -> Iterator[Callable[[Found], str]]:
    values = spool.settings()
    with acts.hand(spool.root, spool.clock()) as me:

        def retry(found: Found) -> str:
            acts.retry(me, found, values, spool.clock())
            return f"{found.id} is pending"

        yield retry


@click.command("cancel", epilog="\b\nExample:\n  queuectl cancel resize-42")
@click.argument("job_ids", nargs=-1, required=True, shell_complete=completion.ids_in(*completion.LIVE))
@click.pass_context
def cancel_command(ctx: click.Context, job_ids: tuple[str, ...]) -> int:
    """Cancel jobs: a waiting one goes to dead, a running one is stopped first."""
    spool = spool_of(ctx)
    values = spool.settings()
    lot = Lot.of(spool, job_ids)
    with lot.naming_what_is_left(), acts.hand(spool.root, spool.clock()) as me:
        onlooker = presence.Onlooker(spool.root)
        cancelling = Cancelling(me, values, onlooker, _stop_remains, spool.clock)

        def cancel(found: Found) -> str | None:
            how = cancelling.act(found)
            return how and f"{found.id} is dead ({how})"

        try:
            lot.do("cancelling", cancel)
            end = time.monotonic() + _PATIENCE + values.stop_grace_seconds
            while lot.left and time.monotonic() < end:
                begun = time.monotonic()
                cancelling.settle(show.note)
                cancelling.take_over()
                end += time.monotonic() - begun  # that is no time that a worker had
                cancelling.wait(lot.left, end, show.note)
                lot.look_again()
                lot.do("cancelling", cancel)
        finally:
            cancelling.withdraw()
    for found in lot.left:
        problem = f"Job {found.id} could not be stopped in time."
        lot.refuse(QueueError(problem, "Its worker does not answer; try again."))
    return lot.status


def _stop_remains(root: Root, name: Name, history: tuple[Event, ...]) -> None:
    from queuectl.worker.remains import stop_remains  # few jobs that are cancelled have a dead worker

    stop_remains(root, name, history)


@click.command(
    "wait",
    epilog='\b\nExamples:\n  queuectl wait "$(queuectl enqueue make)"\n  queuectl wait --all --timeout 10m',
)
@click.argument("job_ids", nargs=-1, shell_complete=completion.ids_in(*completion.LIVE))
@click.option("--all", "everything", is_flag=True, help="All jobs that wait or run now.")
@click.option("--timeout", "-t", metavar="SECONDS", help="Return 124 after so long.")
@click.pass_context
def wait_command(ctx: click.Context, job_ids: tuple[str, ...], everything: bool, timeout: str | None) -> int:
    """Wait until jobs are done or dead; returns the job's own exit status, of many 0 if all did."""
    if bool(job_ids) == everything:
        raise BadUsage(
            "Jobs and --all were both given." if everything else "No job was named.",
            "Name the ids of jobs, or say --all.",
        )
    spool = spool_of(ctx)
    limit = None if timeout is None else entered_duration("--timeout", timeout)
    end = None if limit is None else time.monotonic() + limit
    if everything:
        found = jobs.live(spool.root)
    else:
        found = [lookup.meant(answer) for answer in lookup.find_each(spool.root, job_ids).values()]
    ends = Ends(spool.root, found)
    hindrances = _Hindrances(spool)
    with show.progress("waiting", len(found)) as advance:
        for _ in ends.looks(end):
            advance(ends.over)
            hindrances.tell(ends.left)
    for job_id in ends.gone:
        show.note(f"Error: {NoSuchJob(job_id)}")
    if ends.left:
        first, *others = ends.left
        have = f" and {len(others):,} more have" if others else " has"
        show.note(f"{first}{have} not ended in time.")
        return 124
    if ends.gone:
        return NoSuchJob.exit_status
    if len(ends.ended) == 1 and not everything:
        (one,) = ends.ended.values()
        return _exit_status(jobs.read(one) or one)
    return int(any(one.state is State.DEAD for one in ends.ended.values()))


class _Hindrances:
    """Says once, on standard error, what keeps those jobs from ending that somebody waits for."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._onlooker = presence.Onlooker(spool.root)
        self._said: set[str] = set()
        self._look_at = time.monotonic() + presence.GLANCE

    def tell(self, job_ids: Container[str]) -> None:
        """Look now and then, not at every call; who waits for moments hears nothing."""
        if time.monotonic() < self._look_at:
            return
        every = presence.looks_every(self._spool.live.now().lock_lease_seconds)
        self._look_at = time.monotonic() + every
        for told in explain.hindrances(self._spool.root, self._spool.live.now(), self._onlooker, job_ids):
            if told not in self._said:
                self._said.add(told)
                show.note(told)


def _exit_status(found: Found) -> int:
    if found.state is State.DONE:
        return 0
    code = lookup.exit_of(found.job.history).get("exit_code") if found.job else None
    return code if isinstance(code, int) and 0 < code < 256 else 1


# ── dead letters ──────────────────────────────────────────────────────────────────────────────


@click.group("dlq", cls=Group)
def dlq_command() -> None:
    """The dead letter queue: jobs that need a person."""


@dlq_command.command("list", epilog="\b\nExample:\n  queuectl dlq list --limit 10")
@click.option("--limit", "-n", type=click.IntRange(min=1), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.pass_context
def _dlq_list(ctx: click.Context, limit: int | None, as_json: bool) -> None:
    """List dead jobs, newest first, with the reason of each."""
    spool = spool_of(ctx)
    dead = spool.list("dead", limit)
    if as_json:
        for found in dead:
            show.as_json(spool.view(found) | {"reason": lookup.reason_for(found)})
        return
    rows = (
        (one.id, lookup.reason_for(one), one.job.command_line if one.job else "(unreadable)") for one in dead
    )
    show.table(("ID", "REASON", "COMMAND"), rows, none="No dead jobs.")


@dlq_command.command(
    "retry", epilog="\b\nExamples:\n  queuectl dlq retry resize-42\n  queuectl dlq retry --all"
)
@click.argument("job_ids", nargs=-1, shell_complete=completion.ids_in(State.DEAD))
@click.option("--all", "everything", is_flag=True, help="Every dead job.")
@click.pass_context
def _dlq_retry(ctx: click.Context, job_ids: tuple[str, ...], everything: bool) -> int:
    """Put dead jobs back to pending, their tries counted anew."""
    if bool(job_ids) == everything:
        raise BadUsage(
            "Jobs and --all were both given." if everything else "No job was named.",
            "Name the ids of jobs, or say --all.",
        )
    spool = spool_of(ctx)
    if not everything:
        lot = Lot.of(spool, job_ids)
        with lot.naming_what_is_left(), _retrying(spool) as retry:
            return lot.do_all("retrying", lambda found: _retry_dead(found, retry))
    lot = Lot(spool, jobs.found_in(spool.root, State.DEAD))
    if not lot.left:
        show.note("No dead jobs.")
        return 0
    with _retrying(spool) as retry:
        lot.do("retrying", retry)  # one that has moved is dead no more
    return lot.status


def _retry_dead(found: Found, retry: Callable[[Found], str]) -> str:
    if found.state is not State.DEAD:
        raise WrongState(found.id, found.state.label, "dead", "Nothing was changed.")
    return retry(found)


@dlq_command.command("purge", epilog="\b\nExample:\n  queuectl dlq purge --dry-run")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_context
def _dlq_purge(ctx: click.Context, yes: bool, dry_run: bool) -> int:
    """Delete all dead jobs and what they printed."""
    spool = spool_of(ctx)
    found = jobs.found_in(spool.root, State.DEAD)
    return _delete(spool, found, "that are dead", yes=yes, dry_run=dry_run)


@click.command("prune", epilog="\b\nExample:\n  queuectl prune --older-than 7d --state completed --dry-run")
@click.option("--older-than", metavar="AGE", required=True, help="Ended so long ago: 7d, 12h, 30m.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["completed", "done", "dead"]),
    help="Only these; else completed and dead.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_context
def prune_command(
    ctx: click.Context, older_than: str, states: tuple[str, ...], dry_run: bool, yes: bool
) -> int:
    """Delete finished jobs and their logs; without --state, the logs of workers that are gone, too."""
    age = entered_duration("--older-than", older_than)
    if is_bare_number(older_than):
        text = older_than.strip()
        raise BadUsage(
            f"--older-than: {text} has no unit.", f"Write {text}d for days, {text}h for hours or {text}s."
        )
    spool = spool_of(ctx)
    oldest = spool.clock() - timedelta(seconds=age)
    found = []
    for state in {lookup.WORDS[word] for word in states or ("completed", "dead")}:
        folder = spool.root.folder(state)
        for name in jobs.names_in(spool.root, state):
            path = f"{folder}/{name}"
            try:
                ended = files.mark(path).mtime_ns / 1e9
            except FileNotFoundError:
                continue
            if ended <= oldest.timestamp():
                found.append(Found(state, name, path))
    which = f"that ended more than {duration(age)} ago"
    logs = [] if states else acts.spent_worker_logs(spool.root, oldest)
    return _delete(spool, found, which, logs, yes=yes, dry_run=dry_run)


def _delete(
    spool: Spool, found: list[Found], which: str, logs: Sequence[str] = (), *, yes: bool, dry_run: bool
) -> int:
    """Delete jobs with their logs, and logs of workers."""
    beside = f" {_count(len(logs), 'log')} of workers that are gone" if logs else ""
    if dry_run:
        for item in found:
            show.line(item.id)
        show.note(f"{_count(len(found), 'job')}{beside and ' and' + beside} would be deleted.")
        return 0
    question = (
        f"Delete {_count(len(found), 'job')} {which}, and what they printed{beside and ', and' + beside}?"
    )
    if (found or logs) and not show.sure(question, yes):
        show.note("Nothing was deleted.")
        return 1
    gone = 0
    try:
        with show.progress("deleting", len(found), least=show.MANY) as advance, Interrupts() as interrupts:
            for gone, _ in enumerate(acts.delete(spool.root, found), 1):
                advance(gone)
                interrupts.check()
    except BaseException:
        show.note(f"{_count(gone, 'job')} of {len(found):,} deleted.")
        raise
    for path in logs:
        files.remove(path)
    show.note(f"{_count(gone, 'job')}{beside and ' and' + beside} deleted.")
    return 0


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
