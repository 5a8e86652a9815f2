"""`group`: the limits on how many jobs run at once, and how often they start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl.cli import printer
from queuectl.cli.commands import Group, taking
from queuectl.cli.options import AS_JSON
from queuectl.errors import BadUsage
from queuectl.job.model import MOST_SLOTS
from queuectl.rules.groups import checked
from queuectl.times import duration, entered_duration

if TYPE_CHECKING:
    from queuectl.api import Spool
    from queuectl.view.groups import Group as Seen


@click.group("group", cls=Group)
def group_command() -> None:
    """Limit how many jobs of a group run at once, or how often they start."""


@group_command.on_spool("list", "queuectl group list")
@taking(AS_JSON)
def _list(spool: Spool, as_json: bool) -> None:
    """Show the groups: their slots, how many are in use, and how many jobs wait."""
    found = spool.groups()
    if as_json:
        for one in found:
            printer.as_json(one._asdict())
        return
    columns = ("GROUP", "SLOTS", "IN USE", "RESTING", "WAITING", "REST", "STATE")
    printer.table(columns, map(_row, found), none="No groups.")


def _row(one: Seen) -> tuple[object, ...]:
    rest = duration(one.rest_seconds) if one.rest_seconds else "-"
    state = "paused" if one.paused else "open" if one.in_use + one.resting < one.slots else "full"
    return one.group, one.slots, one.in_use, one.resting, one.waiting, rest, state


@group_command.on_spool(
    "set",
    "queuectl group set gpu --slots 4",
    "queuectl group set api --slots 10 --rest 60s   at most ten starts in any minute",
)
@click.argument("name")
@click.option(
    "--slots", "-n", type=click.IntRange(1, MOST_SLOTS), metavar="N", help="How many jobs run at once."
)
@click.option("--rest", metavar="TIME", help="For how long a slot rests from each start; 0 = not at all.")
def _set(spool: Spool, name: str, slots: int | None, rest: str | None) -> None:
    """Make a group, or change its slots 1 to N. Slots that were made by hand stay."""
    if slots is None and rest is None:
        raise BadUsage("Nothing to set was given.", f"Write for example: queuectl group set {name} --slots 2")
    spool.set_group(name, slots, None if rest is None else entered_duration("--rest", rest))
    now = next(one for one in spool.groups() if one.group == name)
    rests = f", each rests for {duration(now.rest_seconds)} from a start" if now.rest_seconds else ""
    printer.line(f"{name} has {now.slots} {'slot' if now.slots == 1 else 'slots'}{rests}")
    if now.in_use > now.slots:
        printer.note(
            f"{now.in_use} are in use; nothing is started in {name} until fewer than {now.slots} are."
        )


@group_command.on_spool("pause", "queuectl group pause gpu")
@click.argument("name")
def _pause(spool: Spool, name: str) -> None:
    """Start no job of a group; what runs goes on."""
    _require(spool, name)
    spool.pause_group(name)
    printer.line(f"{name} is paused")


@group_command.on_spool("resume", "queuectl group resume gpu")
@click.argument("name")
def _resume(spool: Spool, name: str) -> None:
    """Let jobs of a group be started again."""
    _require(spool, name)
    printer.line(f"{name} is resumed" if spool.resume_group(name) else f"{name} was not paused")


def _require(spool: Spool, name: str) -> None:
    """Raise `BadUsage` for a group that nobody has set up and no job is in: most likely a slip."""
    if checked(name) not in {one.group for one in spool.groups()}:
        raise BadUsage(
            f"There is no group {name!r}.",
            f"See `queuectl group list`, or make it first: `queuectl group set {name} --slots 1`.",
        )
