"""`prune`, and the deletion that `dlq purge` shares with it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from queuectl.cli import printer
from queuectl.cli.interrupts import Interrupts
from queuectl.cli.places import spool_of
from queuectl.errors import (
    BadUsage,
)
from queuectl.spool import acts, jobs
from queuectl.spool.jobs import Found
from queuectl.system import files
from queuectl.times import duration, entered_duration, is_bare_number
from queuectl.view import lookup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.api import Spool


@click.command("prune", epilog="\b\nExample:\n  queuectl prune --older-than 7d --state completed --dry-run")
@click.option(
    "--older-than", metavar="AGE", required=True, help="The age since the end of the job: 7d, 12h, 30m."
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["completed", "done", "dead"]),
    help="Only jobs in this state; without it, completed and dead.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_context
def prune_command(
    ctx: click.Context, older_than: str, states: tuple[str, ...], dry_run: bool, yes: bool
) -> int:
    """Delete finished jobs and their logs; without --state also the logs of workers that have ended."""
    age = entered_duration("--older-than", older_than)
    if is_bare_number(older_than):
        text = older_than.strip()
        raise BadUsage(
            f"--older-than: {text} has no unit.", f"Write {text}d for days, {text}h for hours or {text}s."
        )
    spool = spool_of(ctx)
    oldest = spool.clock() - timedelta(seconds=age)
    found = []
    for state in {state for word in states or ("completed", "dead") for state in lookup.WORDS[word]}:
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
    return delete(spool, found, which, logs, yes=yes, dry_run=dry_run)


def delete(
    spool: Spool, found: list[Found], which: str, logs: Sequence[str] = (), *, yes: bool, dry_run: bool
) -> int:
    """Delete jobs with their logs, and logs of workers."""
    beside = f" {_count(len(logs), 'log')} of workers that are gone" if logs else ""
    if dry_run:
        for item in found:
            printer.line(item.id)
        printer.note(f"{_count(len(found), 'job')}{beside and ' and' + beside} would be deleted.")
        return 0
    question = (
        f"Delete {_count(len(found), 'job')} {which}, and what they printed{beside and ', and' + beside}?"
    )
    if (found or logs) and not printer.sure(question, yes):
        printer.note("Nothing was deleted.")
        return 1
    gone = 0
    try:
        with (
            printer.progress("deleting", len(found), least=printer.MANY) as advance,
            Interrupts() as interrupts,
        ):
            for gone, _ in enumerate(acts.delete(spool.root, found), 1):
                advance(gone)
                interrupts.check()
    except BaseException:
        printer.note(f"{_count(gone, 'job')} of {len(found):,} deleted.")
        raise
    for path in logs:
        files.remove(path)
    printer.note(f"{_count(gone, 'job')}{beside and ' and' + beside} deleted.")
    return 0


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
