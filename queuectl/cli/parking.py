"""`hold`, `release`, `set` and `move`: what a person does to jobs that wait."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import click

from queuectl.api import Spool
from queuectl.cli import completion, options
from queuectl.cli.commands import on_spool, taking
from queuectl.cli.lots import Lot
from queuectl.cli.places import absolute
from queuectl.cli.selecting import selecting
from queuectl.errors import BadUsage
from queuectl.rules import after
from queuectl.rules.release import release, release_now
from queuectl.spool import acts, changes, jobs, moving, parking
from queuectl.times import entered_moment, iso

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import Any

    from queuectl.spool.jobs import Found
    from queuectl.view.selection import Selection

#: The labels of jobs that wait.
WAIT = ("pending", jobs.SCHEDULED, jobs.HELD, jobs.BLOCKED, "failed")


@on_spool("hold", "queuectl hold resize-42")
@selecting(completion.ids_in(*jobs.WAITING))
@taking(options.DRY_RUN)
def hold_command(spool: Spool, chosen: Selection, dry_run: bool) -> int:
    """Keep waiting jobs from being started until they are released."""

    def hold(found: Found) -> str:
        parking.hold(spool.root, found)
        return f"{found.id} is held"

    spool.refuse_older_workers()
    lot = Lot.of(spool, chosen, *WAIT)
    return lot.show("held") if dry_run else lot.do_all("holding", hold)


@on_spool("release", "queuectl release resize-42")
@selecting(completion.ids_in(*jobs.WAITING))
@click.option("--now", "at_once", is_flag=True, help="Also jobs that wait for other jobs.")
@taking(options.DRY_RUN)
def release_command(spool: Spool, chosen: Selection, at_once: bool, dry_run: bool) -> int:
    """Let held jobs be started."""
    lot = Lot.of(spool, chosen, jobs.HELD, *([jobs.BLOCKED] if at_once else []))
    if dry_run:
        return lot.show("released")
    if not at_once:

        def freed(found: Found) -> str:
            now = spool.clock()
            return f"{found.id} is {release(spool.root, found, now).label(now)}"

        return lot.do_all("releasing", freed)
    with lot.hand() as me:

        def let_go(found: Found) -> str:
            reading = jobs.read(found)
            reason = after.parked_behind(spool.root, reading.job) if reading and reading.job else None
            release_now(me, found, spool.clock())
            unmet = f", though {reason.partition('+')[2]} has not ended as it asks" if reason else ""
            return f"{found.id} is {found.state.label}{unmet}"

        return lot.do_all("releasing", let_go)


@on_spool(
    "set", "queuectl set resize-42 priority=9 timeout=10m", "queuectl set resize-42 run_at=+1h env.MODE=fast"
)
@selecting(completion.ids_in(*jobs.WAITING))
@taking(options.DRY_RUN)
def set_command(spool: Spool, chosen: Selection, dry_run: bool) -> int:
    """Change fields of waiting jobs; comments in their files stay.

    A key is a field of the job or env.NAME. Without a value the field is taken out.
    """
    words = [word for word in chosen.words if "=" in word]
    chosen = chosen._replace(words=tuple(word for word in chosen.words if "=" not in word))
    changing = entered_changes(words, spool.clock())
    if chosen.is_empty or not changing:
        what = "No job was named." if chosen.is_empty else "Nothing to change was given."
        raise BadUsage(what, "Write for example: queuectl set resize-42 priority=9")
    spool.refuse_unknown(changing)
    lot, how = Lot.of(spool, chosen, *WAIT), spool.change(partial(changes.edited, changes=changing))
    said = ", ".join(words)
    if dry_run:
        return lot.show("changed")
    with lot.hand() as me:

        def change(found: Found) -> str:
            acts.change(me, found, how, spool.clock())
            return f"{found.id}: {said}"

        return lot.do_all("changing", change)


@on_spool("move", "queuectl move resize-42 --to /srv/jobs")
@selecting(completion.ids_in(*jobs.WAITING))
@click.option(
    "--to", metavar="DIR", required=True, shell_complete=completion.folders, help="The other spool."
)
@taking(options.DRY_RUN)
def move_command(spool: Spool, chosen: Selection, to: str, dry_run: bool) -> int:
    """Move waiting jobs to another spool.

    Said again, it finishes what a crash left.
    """
    other = Spool(absolute("--to", to))
    if os.path.samefile(other.path, spool.path):
        raise BadUsage(f"--to: {to} is the spool where the jobs are.", "Name another one.")
    spool.refuse_older_workers()
    lot, there = Lot.of(spool, chosen, *WAIT), other.target()
    if dry_run:
        return lot.show("moved")
    with lot.hand() as me:

        def move(found: Found) -> str:
            moving.move(me, found, there, spool.clock())
            return f"{found.id} is in {other.path}"

        return lot.do_all("moving", move)


def entered_changes(words: Iterable[str], now: datetime) -> dict[str, Any]:
    """The changes that words such as `priority=9` ask for. Raises `BadUsage` or `BadJob`."""
    given: dict[str, Any] = {}
    for word in map(options.in_utf8, words):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadUsage(f"{word!r} is not KEY=VALUE.", "Write for example priority=9.")
        key = key if key.startswith(changes.ENV) else key.replace("-", "_")
        if key in given:
            raise BadUsage(f"{key} is set twice.", "Keep one.")
        given[key] = _entered(key, value, now)
    return changes.checked(given)


def _entered(key: str, value: str, now: datetime) -> object:
    """A value as a job file has it."""
    if key.startswith(changes.ENV):
        return value
    if not value:
        return None
    if key in {"run_at", "available_at"}:
        return iso(entered_moment(key, value, now))
    if key == "cwd":
        return options.seen_from_here(value)
    return options.after(value.split(",")) if key == "after" else value
