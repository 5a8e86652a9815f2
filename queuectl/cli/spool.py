"""`init` and `check`: the directory as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from queuectl.api import Spool
from queuectl.cli import completion, printer
from queuectl.cli.commands import examples, taking
from queuectl.cli.options import AS_JSON
from queuectl.cli.places import absolute, make_way_to_own, place_of, spool_of
from queuectl.errors import BadUsage
from queuectl.job.model import State
from queuectl.times import entered_duration

if TYPE_CHECKING:
    from queuectl.view.share_check.report import Report


@click.command(
    "init",
    epilog=examples("queuectl init jobs", "mkdir jobs; chgrp devs jobs; queuectl init --shared jobs"),
)
@click.argument("where", metavar="[DIR]", required=False, shell_complete=completion.folders)
@click.option("--shared", is_flag=True, help="For all users of the group that the directory has.")
@click.pass_context
def init_command(ctx: click.Context, where: str | None, shared: bool) -> None:
    """Make a spool, with a config.yaml that explains each key; private unless it is shared."""
    path = Path(place_of(ctx) if where is None else absolute("DIR", where))
    make_way_to_own(str(path))
    known = (path / "config.yaml").exists()
    spool = Spool.create(path, shared=shared)
    whose = f", {'now ' if known else ''}shared by the group {spool.root.group}" if shared else ""
    printer.line(f"{spool.path} {'was a spool already' if known else 'is a new spool'}{whose}")


@click.command(
    "check",
    epilog=examples(
        "queuectl check",
        "queuectl check --repair",
        "queuectl check --share /mnt/jobs   on two hosts at once, before a spool is made there",
    ),
)
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@click.option(
    "--share",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Try out whether a mount is fit for a queue, with another run of this on another host.",
)
@click.option("--timeout", "-t", metavar="SECONDS", help="With --share: wait so long for the other; 60.")
@taking(AS_JSON)
@click.pass_context
def check_command(
    ctx: click.Context, repair: bool, share: Path | None, timeout: str | None, as_json: bool
) -> int:
    """Read the whole spool; report, or mend, what does not belong. Exit status 1 if anything is left."""
    if share is None:
        if timeout is not None:
            raise BadUsage("--timeout is for --share.", "Leave it out.")
        return _check(spool_of(ctx), repair=repair, as_json=as_json)
    if repair:
        raise BadUsage("--share and --repair do not go together.", "Leave one of them out.")
    patience = 60.0 if timeout is None else entered_duration("--timeout", timeout)
    from queuectl.view import share_check

    report = share_check.check(share, patience, printer.note)
    if as_json:
        printer.as_json(report.as_dict())
    else:
        _print_report(report)
    return 1 if report.verdict == "unsafe" else 0


def _check(spool: Spool, *, repair: bool, as_json: bool) -> int:
    from queuectl.spool import jobs
    from queuectl.spool.descriptions import described
    from queuectl.spool.onlooker import Onlooker
    from queuectl.view import audit

    onlooker, values = Onlooker(spool.root), spool.live.now()
    if repair:
        from queuectl.worker.remains import stop_remains

        owners = {name.owner for name in jobs.names_in(spool.root, State.PROCESSING) if name.owner}
        onlooker.settle(owners.union(described(spool.root)), values.lock_lease_seconds, printer.note)
        found = audit.repair(spool.root, onlooker, values, stop_remains, spool.clock())
    else:
        found = audit.check(spool.root, onlooker, values.lock_lease_seconds, spool.clock())
    for item in found:
        if as_json:
            printer.as_json({"path": item.path, "problem": item.problem, "remedy": item.remedy})
        else:
            printer.line(item.sentence)
    if not as_json:
        left = "left to mend by hand" if repair else "found"
        printer.note(f"{len(found)} {left}." if found else "Everything is in its place.")
    return 1 if found else 0


VERDICTS = {
    "safe": "A queue is safe here.",
    "unsafe": "A queue is not safe here.",
    "unknown": "Whether a queue is safe here is not known yet.",
}


def _print_report(report: Report) -> None:
    both = report.together._asdict() if report.together else {}
    for name, value in (report.alone._asdict() | both).items():
        shown = {"None": "-", "True": "yes", "False": "no"}.get(str(value), str(value))
        printer.line(f"{name.replace('_', ' '):<20}{shown}")
    printer.line(VERDICTS[report.verdict])
    printer.lines(f"- {remark}" for remark in report.remarks)
