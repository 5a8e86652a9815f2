"""`dlq`: the dead letter queue, the jobs that need a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, deletion, printer
from queuectl.cli.groups import Group
from queuectl.cli.jobs import Lot, retrying
from queuectl.cli.places import spool_of
from queuectl.errors import (
    BadUsage,
    WrongState,
)
from queuectl.job.model import State
from queuectl.spool import jobs
from queuectl.view import lookup
from queuectl.view.wording import shortened

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.spool.jobs import Found


@click.group("dlq", cls=Group)
def dlq_command() -> None:
    """The dead letter queue: jobs that need a person."""


@dlq_command.command("list", epilog="\b\nExample:\n  queuectl dlq list --limit 10")
@click.option("--limit", "-n", type=click.IntRange(min=1), help="The most jobs to show.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.pass_context
def _dlq_list(ctx: click.Context, limit: int | None, as_json: bool) -> None:
    """List dead jobs, newest first, with the reason of each."""
    spool = spool_of(ctx)
    dead = spool.list("dead", limit)
    if as_json:
        for found in dead:
            printer.as_json(spool.view(found) | {"reason": lookup.reason_for(found)})
        return
    rows = (
        (
            one.id,
            shortened(lookup.reason_for(one)),
            one.job.command_line if one.job else "(unreadable)",
        )
        for one in dead
    )
    printer.table(("ID", "REASON", "COMMAND"), rows, none="No dead jobs.")


@dlq_command.command(
    "retry", epilog="\b\nExamples:\n  queuectl dlq retry resize-42\n  queuectl dlq retry --all"
)
@click.argument("job_ids", nargs=-1, shell_complete=completion.ids_in(State.DEAD))
@click.option("--all", "everything", is_flag=True, help="Every dead job.")
@click.pass_context
def _dlq_retry(ctx: click.Context, job_ids: tuple[str, ...], everything: bool) -> int:
    """Move dead jobs to pending; their retries are counted from zero."""
    if bool(job_ids) == everything:
        raise BadUsage(
            "Jobs and --all were both given." if everything else "No job was named.",
            "Name the ids of jobs, or say --all.",
        )
    spool = spool_of(ctx)
    if not everything:
        lot = Lot.of(spool, job_ids)
        with lot.naming_what_is_left(), retrying(spool) as retry:
            return lot.do_all("retrying", lambda found: _retry_dead(found, retry))
    lot = Lot(spool, jobs.found_in(spool.root, State.DEAD))
    if not lot.left:
        printer.note("No dead jobs.")
        return 0
    with retrying(spool) as retry:
        lot.do("retrying", retry)  # a job that has moved is no longer dead
    return lot.status


def _retry_dead(found: Found, retry: Callable[[Found], str]) -> str:
    if found.state is not State.DEAD:
        raise WrongState(found.id, found.state.label, "dead", "Nothing was changed.")
    return retry(found)


@dlq_command.command("purge", epilog="\b\nExample:\n  queuectl dlq purge --dry-run")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.pass_context
def _dlq_purge(ctx: click.Context, yes: bool, dry_run: bool) -> int:
    """Delete all dead jobs and what they printed."""
    spool = spool_of(ctx)
    found = jobs.found_in(spool.root, State.DEAD)
    return deletion.delete(spool, found, "that are dead", yes=yes, dry_run=dry_run)
