"""`retry`, `cancel`, `wait`, `dlq`, `prune`: what a person does to jobs."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

import click

from queuectl import disk
from queuectl.cli import completion, show
from queuectl.cli.groups import Group
from queuectl.cli.places import spool_of
from queuectl.errors import BadJob, BadUsage, QueueError, WrongState
from queuectl.job import State, entered_duration, is_bare_number
from queuectl.spool import acting, asking, finding, presence
from queuectl.spool.finding import Found
from queuectl.spool.wording import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from queuectl.spool.spool import Spool


def each(job_ids: Iterable[str], act: Callable[[str], str]) -> int:
    """Do something to each job; what fails is told and does not hinder the next."""
    status = 0
    for job_id in dict.fromkeys(job_ids):
        try:
            show.line(act(job_id))
        except QueueError as error:
            show.note(f"Error: {error}")
            status = status or (1 if isinstance(error, BadJob) else error.exit_status)
    return status


@click.command("retry", epilog="\b\nExample:\n  queuectl retry resize-42")
@click.argument(
    "job_ids", nargs=-1, required=True, shell_complete=completion.ids_in(*completion.MAY_RUN_AGAIN)
)
@click.pass_context
def retry_command(ctx: click.Context, job_ids: tuple[str, ...]) -> int:
    """Put failed, dead or completed jobs back to pending, their tries counted anew."""
    spool = spool_of(ctx)
    return each(job_ids, lambda job_id: _retry(spool, job_id))


def _retry(spool: Spool, job_id: str) -> str:
    spool.retry(job_id)
    return f"{spool.find(job_id).id} is pending"


@click.command("cancel", epilog="\b\nExample:\n  queuectl cancel resize-42")
@click.argument("job_ids", nargs=-1, required=True, shell_complete=completion.ids_in(*completion.LIVE))
@click.pass_context
def cancel_command(ctx: click.Context, job_ids: tuple[str, ...]) -> int:
    """Cancel jobs: a waiting one goes to dead, a running one is stopped first."""
    spool = spool_of(ctx)
    return each(job_ids, lambda job_id: _cancel(spool, job_id))


def _cancel(spool: Spool, job_id: str) -> str:
    """Wherever the job is by the time it is looked at: one outcome."""
    asked: str | None = None
    end = time.monotonic() + 60 + spool.settings().stop_grace_seconds
    onlooker = presence.Onlooker(spool.root)
    try:
        while time.monotonic() < end:
            found = spool.find(job_id)
            if found.state is State.DEAD and asked:
                return f"{found.id} is dead (cancelled while it ran)"
            if found.state in {State.DONE, State.DEAD}:
                raise WrongState(
                    found.id, found.state.label, "waiting or running", "There is nothing to cancel."
                )
            if found.state is State.PROCESSING:
                owner = found.name.owner or ""
                if not onlooker.is_alive(owner, spool.settings().lock_lease_seconds):
                    _recover(spool)
                    continue
                asked = asking.to_cancel(spool.root, found.name)
                _until_moved(found, end)
                continue
            try:
                spool.cancel_waiting(found.id)
            except WrongState:
                continue
            return f"{found.id} is dead (cancelled before it ran)"
    finally:
        if asked:
            disk.remove(asked)
    raise QueueError(f"Job {job_id} could not be stopped in time.", "Its worker does not answer; try again.")


def _recover(spool: Spool) -> None:
    from queuectl.worker.remains import stop_remains

    with spool.member(acting.BY_HAND) as me:
        me.recover(stop_remains, spool.clock())


def _until_moved(found: Found, end: float) -> None:
    while disk.exists(found.path) and time.monotonic() < end:
        time.sleep(0.02)


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
        raise BadUsage("Name jobs, or say --all.", "One of the two.")
    spool = spool_of(ctx)
    limit = None if timeout is None else entered_duration("--timeout", timeout)
    end = None if limit is None else time.monotonic() + limit
    if everything:
        waiting = [found for state in _LIVE for found in spool.list(state)]
    else:
        waiting = [spool.find(job_id) for job_id in dict.fromkeys(job_ids)]
    single = len(waiting) == 1 and not everything
    worst = 0
    with show.progress("waiting", len(waiting)) as advance:
        for done, found in enumerate(waiting):
            left = None if end is None else max(0.0, end - time.monotonic())
            ended = spool.wait(found.id, left)
            if ended is None:
                show.note(f"{found.id} has not ended in time.")
                return 124
            code = _exit_status(ended)
            worst = max(worst, code if single else min(code, 1))
            advance(done + 1)
    return worst


_LIVE = ("processing", "pending", "scheduled", "failed")


def _exit_status(found: Found) -> int:
    if found.state is State.DONE:
        return 0
    code = finding.exit_of(found.job.history).get("exit_code") if found.job else None
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
    rows = []
    for found in spool.list("dead", limit):
        if as_json:
            show.as_json(spool.view(found) | {"reason": finding.reason_for(found)})
        else:
            command = found.job.command_line if found.job else "(unreadable)"
            rows.append((found.id, finding.reason_for(found), command))
    if not as_json:
        if rows or not show.is_terminal():
            show.table(("ID", "REASON", "COMMAND"), rows)
        else:
            show.note("No dead jobs.")


@dlq_command.command(
    "retry", epilog="\b\nExamples:\n  queuectl dlq retry resize-42\n  queuectl dlq retry --all"
)
@click.argument("job_ids", nargs=-1, shell_complete=completion.ids_in(State.DEAD))
@click.option("--all", "everything", is_flag=True, help="Every dead job.")
@click.pass_context
def _dlq_retry(ctx: click.Context, job_ids: tuple[str, ...], everything: bool) -> int:
    """Put dead jobs back to pending, their tries counted anew."""
    if bool(job_ids) == everything:
        raise BadUsage("Name jobs, or say --all.", "One of the two.")
    spool = spool_of(ctx)
    if not everything:
        return each(job_ids, lambda job_id: _retry_dead(spool, job_id))
    names = finding.names_in(spool.root, State.DEAD)
    if not names:
        show.note("No dead jobs.")
    return each([name.id for name in sorted(names, key=str)], lambda job_id: _retry_dead(spool, job_id))


def _retry_dead(spool: Spool, job_id: str) -> str:
    found = spool.find(job_id)
    if found.state is not State.DEAD:
        raise WrongState(found.id, found.state.label, "dead", "Nothing was changed.")
    return _retry(spool, found.id)


@dlq_command.command("purge", epilog="\b\nExample:\n  queuectl dlq purge --dry-run")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_context
def _dlq_purge(ctx: click.Context, yes: bool, dry_run: bool) -> int:
    """Delete all dead jobs and what they printed."""
    spool = spool_of(ctx)
    found = list(spool.list("dead"))
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
    for state in {finding.WORDS[word] for word in states or ("completed", "dead")}:
        folder = spool.root.folder(state)
        for name in finding.names_in(spool.root, state):
            path = f"{folder}/{name}"
            try:
                ended = disk.mark(path).mtime_ns / 1e9
            except FileNotFoundError:
                continue
            if ended <= oldest.timestamp():
                found.append(Found(state, name, path))
    which = f"that ended more than {duration(age)} ago"
    logs = [] if states else acting.spent_worker_logs(spool.root, oldest)
    return _delete(spool, found, which, logs, yes=yes, dry_run=dry_run)


def _delete(
    spool: Spool, found: list[Any], which: str, logs: Sequence[str] = (), *, yes: bool, dry_run: bool
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
    gone = acting.delete(spool.root, found)
    for path in logs:
        disk.remove(path)
    show.note(f"{_count(gone, 'job')}{beside and ' and' + beside} deleted.")
    sys.stdout.flush()
    return 0


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
