"""`retry`, `cancel`, `wait`, `prune`, and `dlq`, the dead letter queue."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, printer
from queuectl.cli.commands import Group, jobs_argument, jobs_or_all, on_spool, taking
from queuectl.cli.lots import Lot, interruptible
from queuectl.cli.options import AS_JSON, DRY_RUN, LIMIT, YES
from queuectl.cli.parking import entered_changes
from queuectl.cli.selecting import selecting
from queuectl.errors import BadUsage, CannotRun, NoSuchJob, QueueError, WrongState
from queuectl.job.model import State
from queuectl.spool import acts, batches, jobs, liveness, members, names
from queuectl.spool.cancellation import Cancelling
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.times import duration, entered_duration
from queuectl.view import dependencies, explain, lookup
from queuectl.view.dependencies import Hopeless
from queuectl.view.endings import Ends
from queuectl.view.selection import LABELS, Selection, select
from queuectl.view.wording import shortened

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from typing import Any

    from queuectl.api import Spool
    from queuectl.job.history import Event
    from queuectl.settings import Settings
    from queuectl.spool.acts import Hand
    from queuectl.spool.jobs import Found
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

#: The states of jobs that have ended, and the labels of those that have not.
ENDED = (State.DONE, State.DEAD)
LIVE = ("pending", "scheduled", "held", "blocked", "failed", "processing")
#: Seconds for a worker to stop a job, beyond the grace period of its command.
_PATIENCE = 60.0


@on_spool("retry", "queuectl retry resize-42", "queuectl retry resize-42 --set timeout=2h")
@selecting(completion.ids_in(*completion.MAY_RUN_AGAIN))
@taking(DRY_RUN)
@click.option("--set", "words", metavar="KEY=VALUE", multiple=True, help="Change a field; may be repeated.")
def retry_command(spool: Spool, chosen: Selection, dry_run: bool, words: tuple[str, ...]) -> int:
    """Move failed, dead or completed jobs to pending; their retries are counted from zero.

    Of a batch, and with options alone, only the dead ones.
    """
    changing = entered_changes(words, spool.clock())
    spool.refuse_unknown(changing)
    lot, values = Lot.of(spool, chosen, "dead"), spool.settings()
    if dry_run:
        return lot.show("pending")
    with lot.hand() as me:
        return lot.do_all("retrying", lambda found: _retry(spool, me, found, values, changing))


def _retry(spool: Spool, me: Hand, found: Found, values: Settings, changing: Mapping[str, Any]) -> str:
    path = acts.retry(me, found, values, spool.clock(), changing)
    return f"{found.id} is {'held' if path.endswith(names.PARKED) else 'pending'}"


@on_spool("cancel", "queuectl cancel resize-42", "queuectl cancel build --dependents")
@selecting(completion.ids_in(*completion.LIVE))
@click.option("--dependents", is_flag=True, help="Also all jobs that wait for them, and for those in turn.")
@taking(DRY_RUN)
def cancel_command(spool: Spool, chosen: Selection, dependents: bool, dry_run: bool) -> int:
    """Cancel jobs: a waiting one goes to dead, a running one is stopped first."""
    values = spool.settings()
    lot = Lot.of(spool, chosen, *LIVE)
    if dependents:
        _add_dependents(spool, lot)
    if dry_run:
        return lot.show("cancelled")
    with lot.hand() as me:
        cancelling = Cancelling(me, values, Onlooker(spool.root), _stop_remains, spool.clock)

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


def _add_dependents(spool: Spool, lot: Lot) -> None:
    """Cancel first what waits for the jobs of a lot, lest it start at their end.

    Jobs that have ended are left out where others wait for them.
    """
    waiting = dependencies.tree(spool.root, [one.id for one in lot.left])
    own = {one.id for one in lot.left}
    over = {State.DONE, State.DEAD} if waiting else set()
    lot.left = [
        *(one for one in waiting if one.id not in own),
        *(one for one in lot.left if one.state not in over),
    ]


def _stop_remains(root: Root, name: Name, history: tuple[Event, ...]) -> None:
    from queuectl.worker.remains import stop_remains  # few jobs that are cancelled have a dead worker

    stop_remains(root, name, history)


@on_spool("wait", 'queuectl wait "$(queuectl enqueue make)"', "queuectl wait --all --timeout 10m")
@selecting(completion.ids_in(*completion.LIVE))
@click.option("--all", "everything", is_flag=True, help="All jobs that wait or run now.")
@click.option("--timeout", "-t", metavar="SECONDS", help="Exit with 124 after this time.")
@taking(DRY_RUN)
def wait_command(
    spool: Spool, chosen: Selection, everything: bool, timeout: str | None, dry_run: bool
) -> int:
    """Wait until jobs are done or dead; exit with the status of the job, or 0 if several all succeeded."""
    jobs_or_all(() if chosen.is_empty else ("some",), everything)
    end = None if timeout is None else time.monotonic() + entered_duration("--timeout", timeout)
    found = jobs.live(spool.root) if everything else _selected(spool, chosen)
    if dry_run:
        return Lot(spool, found).show("waited for")
    ends = Ends(spool.root, found)
    onlooker, said = Onlooker(spool.root), set[str]()
    hopeless, given_up = Hopeless(spool.root), 0
    tell_at = time.monotonic() + liveness.GLANCE  # a short wait prints nothing
    with printer.progress("waiting", len(found)) as advance:
        for _ in ends.looks(end):
            advance(ends.over)
            for job_id, why in hopeless.among(ends.left.values()).items():
                printer.note(f"Error: {CannotRun(job_id, str(why))}")
                ends.give_up(job_id)
                given_up += 1
            if time.monotonic() >= tell_at:
                tell_at = time.monotonic() + liveness.looks_every(spool.live.now().lock_lease_seconds)
                _tell_hindrances(spool, onlooker, ends.left, said)
    for job_id in ends.gone:
        printer.note(f"Error: {NoSuchJob(job_id)}")
    if ends.left:
        first, *others = ends.left
        have = f" and {len(others):,} more have" if others else " has"
        printer.note(f"{first}{have} not ended in time.")
        return 124
    if ends.gone:
        return NoSuchJob.exit_status
    if given_up:
        return CannotRun.exit_status
    if len(ends.ended) == 1 and chosen.words and not everything:
        (one,) = ends.ended.values()
        return _exit_status(jobs.read(one) or one)
    return int(any(one.state is State.DEAD for one in ends.ended.values()))


def _selected(spool: Spool, chosen: Selection) -> list[Found]:
    """The jobs to wait for: all that are named, and of others those that have not ended."""
    selected = select(spool.root, chosen, LABELS if chosen.words else LIVE, spool.clock())
    if selected.errors:
        raise selected.errors[0]
    for batch in filter(None, (batches.read(spool.root, word) for word in chosen.words)):
        if not batch.is_filed:
            printer.note(
                f"Not all {batch.size:,} jobs of batch {batch.name} are filed: those that are count."
            )
    return selected.found


def _tell_hindrances(spool: Spool, onlooker: Onlooker, job_ids: Container[str], said: set[str]) -> None:
    """Print on standard error, once each, the reasons why the awaited jobs cannot end."""
    for one in explain.hindrances(spool.root, spool.live.now(), onlooker, job_ids):
        if one.sentence not in said:
            said.add(one.sentence)
            printer.note(one.sentence)


def _exit_status(found: Found) -> int:
    if found.state is State.DONE:
        return 0
    code = lookup.exit_of(found.job).get("exit_code")
    return code if isinstance(code, int) and 0 < code < 256 else 1


# ── deleting ──────────────────────────────────────────────────────────────────────────────────


@on_spool("prune", "queuectl prune --older-than 7d --state completed --dry-run")
@selecting(completion.ids_in(*ENDED), words=("completed", "done", "dead"))
@taking(DRY_RUN, YES)
def prune_command(spool: Spool, chosen: Selection, dry_run: bool, yes: bool) -> int:
    """Delete finished jobs and their logs.

    With --older-than alone also the logs of workers that have ended.
    """
    if not chosen.words and chosen.age is None:
        raise BadUsage(
            "All finished jobs would be deleted.", "Say which: --older-than 7d, the name of a batch, or ids."
        )
    selected = select(spool.root, chosen, ("completed", "dead"), spool.clock())
    if selected.errors:
        raise selected.errors[0]
    for one in selected.found:
        if one.state not in ENDED:
            raise WrongState(one.id, one.label(spool.clock()), "completed or dead", "Nothing was deleted.")
    is_alone = chosen.age is not None and chosen == Selection(age=chosen.age)
    oldest = spool.clock() - timedelta(seconds=chosen.age or 0)
    logs = acts.spent_worker_logs(spool.root, oldest) if is_alone else []
    which = "that have ended" if chosen.age is None else f"that ended more than {duration(chosen.age)} ago"
    return _delete(spool, selected.found, which, logs, yes=yes, dry_run=dry_run)


def _delete(
    spool: Spool, found: list[Found], which: str, logs: Sequence[str] = (), *, yes: bool, dry_run: bool
) -> int:
    """Delete jobs with what they printed, and logs of workers; not those that parked jobs wait for."""
    needed = dependencies.needed(spool.root)
    kept = [item for item in found if dependencies.is_needed(item, needed)]
    if kept:
        kept_ids = {item.id for item in kept}
        found = [item for item in found if item.id not in kept_ids]
        said = printer.count(len(kept), "job")
        printer.note(f"{said} kept: others wait, see `queuectl list --state blocked`.")
    beside = f"{printer.count(len(logs), 'log')} of workers that are gone" if logs else ""
    if dry_run:
        for item in found:
            printer.line(item.id)
        printer.note(f"{printer.count(len(found), 'job')}{beside and f' and {beside}'} would be deleted.")
        return 0
    what = f"{printer.count(len(found), 'job')} {which}, and what they printed{beside and f', and {beside}'}"
    if (found or logs) and not printer.sure(f"Delete {what}?", yes):
        printer.note("Nothing was deleted.")
        return 1
    gone = 0
    try:
        with (
            printer.progress("deleting", len(found), least=printer.MANY) as advance,
            interruptible() as check,
        ):
            for gone, _ in enumerate(acts.delete(spool.root, found), 1):
                advance(gone)
                check()
    except BaseException:
        printer.note(f"{printer.count(gone, 'job')} of {len(found):,} deleted.")
        raise
    for path in logs:
        files.remove(path)
    for name in members.spent(spool.root) if any(batches.batch_of(one.id) for one in found) else ():
        files.remove(batches.path_of(spool.root, name))
    printer.note(f"{printer.count(gone, 'job')}{beside and f' and {beside}'} deleted.")
    return 0


# ── dead letters ──────────────────────────────────────────────────────────────────────────────


@click.group("dlq", cls=Group)
def dlq_command() -> None:
    """The dead letter queue: jobs that need a person."""


@dlq_command.on_spool("list", "queuectl dlq list --limit 10")
@taking(LIMIT, AS_JSON)
def _dlq_list(spool: Spool, limit: int | None, as_json: bool) -> None:
    """List dead jobs, newest first, with the reason of each."""
    dead = ((one, lookup.reason_for(one)) for one in spool.list("dead", limit))
    if as_json:
        for one, reason in dead:
            printer.as_json(spool.view(one) | {"reason": reason})
        return
    rows = (
        (one.id, shortened(reason), one.job.command_line if one.job else "(unreadable)")
        for one, reason in dead
    )
    printer.table(("ID", "REASON", "COMMAND"), rows, none="No dead jobs.")


@dlq_command.on_spool("retry", "queuectl dlq retry resize-42", "queuectl dlq retry --all")
@jobs_argument(State.DEAD)
@click.option("--all", "everything", is_flag=True, help="Every dead job.")
def _dlq_retry(spool: Spool, job_ids: tuple[str, ...], everything: bool) -> int:
    """Move dead jobs to pending; their retries are counted from zero."""
    jobs_or_all(job_ids, everything)
    lot = (
        Lot(spool, jobs.found_in(spool.root, State.DEAD))
        if everything
        else Lot.of(spool, Selection(job_ids), "dead")
    )
    if everything and not lot.left:
        printer.note("No dead jobs.")
        return 0
    values = spool.settings()
    with lot.hand() as me:

        def retry(found: Found) -> str:
            if found.state is not State.DEAD:
                raise WrongState(found.id, found.state.label, "dead", "Nothing was changed.")
            return _retry(spool, me, found, values, {})

        if not everything:
            return lot.do_all("retrying", retry)
        lot.do("retrying", retry)  # a job that has moved is no longer dead
        return lot.status


@dlq_command.on_spool("purge", "queuectl dlq purge --dry-run")
@taking(YES, DRY_RUN)
def _dlq_purge(spool: Spool, yes: bool, dry_run: bool) -> int:
    """Delete all dead jobs and what they printed."""
    found = jobs.found_in(spool.root, State.DEAD)
    return _delete(spool, found, "that are dead", yes=yes, dry_run=dry_run)
