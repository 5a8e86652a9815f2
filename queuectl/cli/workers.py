"""`worker`, `pause` and `resume`."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, printer
from queuectl.cli.commands import Group, examples, on_spool, taking
from queuectl.cli.options import AS_JSON
from queuectl.cli.places import spool_or_new
from queuectl.errors import QueueError
from queuectl.rules import groups
from queuectl.spool import descriptions, liveness, requests
from queuectl.spool.onlooker import Onlooker
from queuectl.times import duration, entered_duration, parse_moment

if TYPE_CHECKING:
    from queuectl.api import Spool


@click.group("worker", cls=Group)
def worker_command() -> None:
    """Start workers, stop them, see what they do."""


@worker_command.command(
    "start",
    epilog=examples(
        "queuectl worker start --count 4        four in the background",
        "queuectl worker start --foreground     for systemd, containers, a second terminal",
        "queuectl worker start --drain          until nothing is left to run now",
        "queuectl worker start --drain=retries  until no failed job waits for its next try either",
    ),
)
@click.option("--count", "-n", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many.")
@click.option("--foreground", "-f", is_flag=True, help="Stay, log to the terminal.")
@click.option(
    "--drain",
    is_flag=False,
    flag_value="now",
    type=click.Choice(["now", "retries", "all"]),
    help="Stay, and end when nothing is left to run now; with =retries, when no failed job waits for its "
    "next try either; with =all, when no job is left, whenever it is due.",
)
@click.option("--group", "only", metavar="NAME", help="Run only jobs of this group.")
@click.pass_context
def _start(ctx: click.Context, count: int, foreground: bool, drain: str | None, only: str | None) -> int:
    """Start workers; prints their names."""
    if only is not None:
        groups.checked(only)
    root = spool_or_new(ctx).root
    if requests.is_paused(root):
        printer.note("The queue is paused: workers start nothing before `queuectl resume`.")
    if (foreground or drain is not None) and hasattr(signal, "pthread_sigmask"):
        # `fleet.run` lets Ctrl-C in again: Python drops a signal that arrives within an import.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    from queuectl.worker import fleet

    if drain is not None:
        return fleet.run(root, descriptions.DRAIN, count, drain, only)
    if foreground:
        return fleet.run(root, descriptions.FOREGROUND, count, only=only)
    try:
        names = fleet.start_detached(root, count, only)
    except fleet.NotAllStarted as error:
        printer.lines(error.started)
        raise
    printer.lines(names)
    return 0


@worker_command.on_spool("stop", "queuectl worker stop", "queuectl worker stop --timeout 30 web1-4242-9f3c")
@click.argument("names", nargs=-1, shell_complete=completion.live_workers)
@click.option(
    "--timeout", "-t", metavar="SECONDS", help="After this time, stop the job and return it to the queue."
)
def _stop(spool: Spool, names: tuple[str, ...], timeout: str | None) -> int:
    """Let workers, on any host, finish the job at hand and exit; all of them if none is named.

    Dead workers are not waited for. A Python program that joined hears no request; it is named.
    """
    from queuectl.worker import fleet

    limit = None if timeout is None else entered_duration("--timeout", timeout)
    judge = partial(Onlooker(spool.root).judge, lease=spool.live.now().lock_lease_seconds)
    known = {worker.name: worker for worker in descriptions.members(spool.root)}
    if unknown := sorted(set(names) - set(known)):
        raise QueueError(f"There is no worker {unknown[0]!r}.", "See `queuectl worker status`.")
    asked, deaf, dead = [], [], []
    for name in dict.fromkeys(names or known):
        verdict = judge(name)
        if verdict.is_dead:
            dead.append(name)
            printer.note(f"{name} is dead: {verdict.why}. `queuectl check --repair` takes up what it left.")
        elif known[name].hears:
            asked.append(name)
        else:
            deaf.append(name)
            printer.note(f"{name} {known[name].how_to_end}")
    requests.to_stop(spool.root, [*asked, *dead], limit)  # one that is silent may come back
    if not asked:
        if not deaf:
            printer.note("No worker is alive.")
        return 1 if deaf else 0
    patience = None if limit is None else limit + spool.settings().stop_grace_seconds + 30
    most = "" if patience is None else f", {duration(patience)} at most"
    printer.note(f"Waiting for {len(asked)} to finish the job at hand{most} …")
    left = fleet.await_end(spool.root, asked, patience, judge, printer.line)
    for name, why in left.items():
        advice = "See `queuectl worker status`."
        if judge(name).standing is liveness.Standing.FROZEN:
            advice = f"If that is stopped, {known[name].how_to_wake} lets it go on."
        printer.note(f"{name} has not stopped: {why}. {advice}")
    return 1 if left or deaf else 0


@worker_command.on_spool("status", "queuectl worker status")
@taking(AS_JSON)
def _status(spool: Spool, as_json: bool) -> None:
    """Show every worker: name, host, pid, state, job, since when, last beat, clock, runs ended.

    CLOCK is by how much its host's clock is ahead of the share's; "-" where the spool is on no share.
    """
    from queuectl.view.workers import workers

    found = workers(spool.root, spool.live.now())
    if as_json:
        for one in found:
            printer.as_json(one._asdict())
        return
    now = spool.clock()
    rows = [
        (
            one.name,
            one.host,
            one.pid,
            one.state,
            one.job or "-",
            f"{duration(max(0.0, (now - parse_moment(one.since)).total_seconds()))} ago",
            f"{duration(one.beat_age_seconds)} ago",
            "-" if one.clock_offset_seconds is None else f"{one.clock_offset_seconds:+.1f} s",
            one.jobs_done,
        )
        for one in found
    ]
    columns = ("NAME", "HOST", "PID", "STATE", "JOB", "SINCE", "BEAT", "CLOCK", "DONE")
    printer.table(columns, rows, none="No workers.")


@on_spool("pause", "queuectl pause && queuectl wait --all && queuectl resume")
def pause_command(spool: Spool) -> None:
    """Start nothing new; what runs goes on."""
    requests.pause(spool.root, spool.clock())
    printer.line("paused")


@on_spool("resume", "queuectl resume")
def resume_command(spool: Spool) -> None:
    """Let workers claim jobs again."""
    printer.line("resumed" if requests.resume(spool.root) else "it was not paused")
