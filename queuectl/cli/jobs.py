"""`retry`, `cancel` and `wait`."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, printer
from queuectl.cli.interrupts import Interrupts
from queuectl.cli.places import spool_of
from queuectl.errors import (
    BadJob,
    BadUsage,
    JobMoved,
    NoSuchJob,
    QueueError,
    StorageTrouble,
)
from queuectl.job.model import State
from queuectl.spool import acts, jobs, liveness, parking
from queuectl.spool.cancellation import Cancelling
from queuectl.spool.onlooker import Onlooker
from queuectl.times import entered_duration
from queuectl.view import explain, lookup
from queuectl.view.endings import Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from queuectl.api import Spool
    from queuectl.job.history import Event
    from queuectl.spool.jobs import Found
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

#: Seconds for a worker to stop a job, beyond the grace period of its command.
_PATIENCE = 60.0


class Lot:
    """The jobs that a command acts on. All are looked up together, also again if some have moved.

    An error with one job is printed and does not stop the others; `status` is the exit status.
    """

    def __init__(self, spool: Spool, found: Iterable[Found] = ()) -> None:
        self.spool = spool
        self.left = list(found)
        self.status = 0

    @classmethod
    def of(cls, spool: Spool, words: Iterable[str]) -> Lot:
        """The jobs with these ids or prefixes of ids."""
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
        """Print an error and note its exit status."""
        printer.note(f"Error: {error}")
        self.status = self.status or (1 if isinstance(error, BadJob) else error.exit_status)

    def do(self, what: str, act: Callable[[Found], str | None]) -> None:
        """Act on each job that is left. A job that has moved, or for which `act` returns None, stays left."""
        todo, self.left = self.left, []
        shown = 0 if printer.is_terminal() else len(todo)  # on a terminal each line shows it
        with printer.progress(what, shown, least=printer.MANY) as advance, Interrupts() as interrupts:
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
                    printer.line(said)
                advance(done)

    @contextlib.contextmanager
    def naming_what_is_left(self) -> Iterator[None]:
        """Name the jobs that are left in an error of the disk, so that the command can be repeated."""
        try:
            yield
        except OSError as error:
            if not StorageTrouble.explains(error) or not self.left:
                raise
            trouble = StorageTrouble(error)
            trouble.remedy += f" Left as they were: {' '.join(found.id for found in self.left)}"
            raise trouble from error

    def look_again(self) -> None:
        """Look up the jobs that are left."""
        found = jobs.places(self.spool.root, [one.id for one in self.left]).found
        for one in self.left:
            if one.id not in found:
                self.refuse(NoSuchJob(one.id))
        self.left = [found[one.id] for one in self.left if one.id in found]

    def do_all(self, what: str, act: Callable[[Found], str | None]) -> int:
        """Act on each job until all are done, also if they move meanwhile; returns the exit status."""
        for _ in range(jobs.TRIES):
            self.do(what, act)
            if not self.left:
                return self.status
            self.look_again()
        for found in self.left:
            self.refuse(JobMoved(found.id))
        return self.status


@click.command("retry", epilog="\b\nExample:\n  queuectl retry resize-42")
@click.argument(
    "job_ids", nargs=-1, required=True, shell_complete=completion.ids_in(*completion.MAY_RUN_AGAIN)
)
@click.pass_context
def retry_command(ctx: click.Context, job_ids: tuple[str, ...]) -> int:
    """Move failed, dead or completed jobs to pending; their retries are counted from zero."""
    spool = spool_of(ctx)
    lot = Lot.of(spool, job_ids)
    with lot.naming_what_is_left(), retrying(spool) as retry:
        return lot.do_all("retrying", retry)


@contextlib.contextmanager
def retrying(spool: Spool) -> Iterator[Callable[[Found], str]]:
    """What `Lot.do` needs to put jobs back to pending."""
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
        onlooker = Onlooker(spool.root)
        cancelling = Cancelling(me, values, onlooker, _stop_remains, spool.clock)

        def cancel(found: Found) -> str | None:
            how = cancelling.act(found)
            return how and f"{found.id} is dead ({how})"

        try:
            lot.do("cancelling", cancel)
            end = time.monotonic() + _PATIENCE + values.stop_grace_seconds
            while lot.left and time.monotonic() < end:
                begun = time.monotonic()
                cancelling.settle(printer.note)
                cancelling.take_over()
                end += time.monotonic() - begun  # the worker could not use this time
                cancelling.wait(lot.left, end, printer.note)
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


@click.command("hold", epilog="\b\nExample:\n  queuectl hold resize-42")
@click.argument("job_ids", nargs=-1, required=True, shell_complete=completion.ids_in(*jobs.WAITING))
@click.pass_context
def hold_command(ctx: click.Context, job_ids: tuple[str, ...]) -> int:
    """Keep waiting jobs from being started until they are released."""
    spool = spool_of(ctx)

    def hold(found: Found) -> str:
        parking.hold(spool.root, found)
        return f"{found.id} is held"

    lot = Lot.of(spool, job_ids)
    with lot.naming_what_is_left():
        return lot.do_all("holding", hold)


@click.command("release", epilog="\b\nExample:\n  queuectl release resize-42")
@click.argument("job_ids", nargs=-1, required=True, shell_complete=completion.ids_in(*jobs.WAITING))
@click.pass_context
def release_command(ctx: click.Context, job_ids: tuple[str, ...]) -> int:
    """Let held jobs be started."""
    spool = spool_of(ctx)

    def release(found: Found) -> str:
        return f"{found.id} is {parking.release(spool.root, found).label(spool.clock())}"

    lot = Lot.of(spool, job_ids)
    with lot.naming_what_is_left():
        return lot.do_all("releasing", release)


@click.command(
    "wait",
    epilog='\b\nExamples:\n  queuectl wait "$(queuectl enqueue make)"\n  queuectl wait --all --timeout 10m',
)
@click.argument("job_ids", nargs=-1, shell_complete=completion.ids_in(*completion.LIVE))
@click.option("--all", "everything", is_flag=True, help="All jobs that wait or run now.")
@click.option("--timeout", "-t", metavar="SECONDS", help="Exit with 124 after this time.")
@click.pass_context
def wait_command(ctx: click.Context, job_ids: tuple[str, ...], everything: bool, timeout: str | None) -> int:
    """Wait until jobs are done or dead; exit with the status of the job, or 0 if several all succeeded."""
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
    with printer.progress("waiting", len(found)) as advance:
        for _ in ends.looks(end):
            advance(ends.over)
            hindrances.tell(ends.left)
    for job_id in ends.gone:
        printer.note(f"Error: {NoSuchJob(job_id)}")
    if ends.left:
        first, *others = ends.left
        have = f" and {len(others):,} more have" if others else " has"
        printer.note(f"{first}{have} not ended in time.")
        return 124
    if ends.gone:
        return NoSuchJob.exit_status
    if len(ends.ended) == 1 and not everything:
        (one,) = ends.ended.values()
        return _exit_status(jobs.read(one) or one)
    return int(any(one.state is State.DEAD for one in ends.ended.values()))


class _Hindrances:
    """Prints on standard error, once each, the reasons why the awaited jobs cannot end."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._onlooker = Onlooker(spool.root)
        self._said: set[str] = set()
        self._look_at = time.monotonic() + liveness.GLANCE

    def tell(self, job_ids: Container[str]) -> None:
        """Check at intervals, not at every call; a short wait prints nothing."""
        if time.monotonic() < self._look_at:
            return
        every = liveness.looks_every(self._spool.live.now().lock_lease_seconds)
        self._look_at = time.monotonic() + every
        for told in explain.hindrances(self._spool.root, self._spool.live.now(), self._onlooker, job_ids):
            if told.sentence not in self._said:
                self._said.add(told.sentence)
                printer.note(told.sentence)


def _exit_status(found: Found) -> int:
    if found.state is State.DONE:
        return 0
    code = lookup.exit_of(found.job).get("exit_code")
    return code if isinstance(code, int) and 0 < code < 256 else 1
