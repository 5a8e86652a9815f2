"""`worker`, `pause` and `resume`."""

from __future__ import annotations

import signal
from functools import partial

import click

from queuectl.cli import completion, printer
from queuectl.cli.groups import Group
from queuectl.cli.places import spool_of, spool_or_new
from queuectl.errors import QueueError
from queuectl.spool import descriptions, liveness, requests
from queuectl.spool.onlooker import Onlooker
from queuectl.times import duration, entered_duration, parse_moment


@click.group("worker", cls=Group)
def worker_command() -> None:
    """Start workers, stop them, see what they do."""


@worker_command.command(
    "start",
    epilog="\b\nExamples:\n  queuectl worker start --count 4        four in the background\n"
    "  queuectl worker start --foreground     for systemd, containers, a second terminal\n"
    "  queuectl worker start --drain          until nothing is left to run now\n"
    "  queuectl worker start --drain=retries  until no failed job waits for its next try either",
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
@click.pass_context
def _start(ctx: click.Context, count: int, foreground: bool, drain: str | None) -> int:
    """Start workers; prints their names."""
    spool = spool_or_new(ctx)
    if requests.is_paused(spool.root):
        printer.note("The queue is paused: workers start nothing before `queuectl resume`.")
    if foreground or drain is not None:
        _hold_ctrl_c()
    from queuectl.worker import fleet

    if drain is not None:
        return fleet.run(spool.root, descriptions.DRAIN, count, drain)
    if foreground:
        return fleet.run(spool.root, descriptions.FOREGROUND, count)
    try:
        names = fleet.start_detached(spool.root, count)
    except fleet.NotAllStarted as error:
        _say_started(error.started)
        raise
    _say_started(names)
    return 0


def _hold_ctrl_c() -> None:
    """Hold Ctrl-C back until `fleet.run` handles it: Python drops a signal that arrives within an import."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _say_started(names: list[str]) -> None:
    for name in names:
        printer.line(name)


@worker_command.command(
    "stop", epilog="\b\nExamples:\n  queuectl worker stop\n  queuectl worker stop --timeout 30 web1-4242-9f3c"
)
@click.argument("names", nargs=-1, shell_complete=completion.live_workers)
@click.option(
    "--timeout", "-t", metavar="SECONDS", help="After this time, stop the job and return it to the queue."
)
@click.pass_context
def _stop(ctx: click.Context, names: tuple[str, ...], timeout: str | None) -> int:
    """Let workers, on any host, finish the job at hand and exit; all of them if none is named.

    Dead workers are not waited for. A Python program that joined hears no request; it is named.
    """
    from queuectl.worker import fleet

    spool = spool_of(ctx)
    limit = None if timeout is None else entered_duration("--timeout", timeout)
    lease = spool.live.now().lock_lease_seconds
    onlooker = Onlooker(spool.root)
    known = {worker.name: worker for worker in descriptions.members(spool.root)}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise QueueError(f"There is no worker {unknown[0]!r}.", "See `queuectl worker status`.")
    asked, deaf, dead = [], [], []
    for name in dict.fromkeys(names or known):
        verdict = onlooker.judge(name, lease)
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
    left = fleet.await_end(spool.root, asked, patience, partial(onlooker.judge, lease=lease), printer.line)
    for name, why in left.items():
        is_frozen = onlooker.judge(name, lease).standing is liveness.Standing.FROZEN
        wake = f"If that is stopped, {known[name].how_to_wake} lets it go on."
        printer.note(
            f"{name} has not stopped: {why}. {wake if is_frozen else 'See `queuectl worker status`.'}"
        )
    return 1 if left or deaf else 0


@worker_command.command("status", epilog="\b\nExample:\n  queuectl worker status")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.pass_context
def _status(ctx: click.Context, as_json: bool) -> None:
    """Show every worker: name, host, pid, state, job, since when, last beat, clock, runs ended.

    CLOCK is by how much its host's clock is ahead of the share's; "-" where the spool is on no share.
    """
    from queuectl.view import workers

    spool = spool_of(ctx)
    facts = workers.workers(spool.root, spool.live.now())
    if as_json:
        for worker in facts:
            printer.as_json(worker._asdict())
        return
    if not facts and printer.is_terminal():
        printer.note("No workers.")
        return
    now = spool.clock()

    def ago(text: str) -> str:
        return f"{duration(max(0.0, (now - parse_moment(text)).total_seconds()))} ago"

    rows = [
        (
            worker.name,
            worker.host,
            worker.pid,
            worker.state,
            worker.job or "-",
            ago(worker.since),
            f"{duration(worker.beat_age_seconds)} ago",
            _clock(worker.clock_offset_seconds),
            worker.jobs_done,
        )
        for worker in facts
    ]
    printer.table(("NAME", "HOST", "PID", "STATE", "JOB", "SINCE", "BEAT", "CLOCK", "DONE"), rows)


def _clock(offset: float | None) -> str:
    return "-" if offset is None else f"{offset:+.1f} s"


@click.command("pause", epilog="\b\nExample:\n  queuectl pause && queuectl wait --all && queuectl resume")
@click.pass_context
def pause_command(ctx: click.Context) -> None:
    """Start nothing new; what runs goes on."""
    spool = spool_of(ctx)
    requests.pause(spool.root, spool.clock())
    printer.line("paused")


@click.command("resume", epilog="\b\nExample:\n  queuectl resume")
@click.pass_context
def resume_command(ctx: click.Context) -> None:
    """Let workers claim jobs again."""
    was = requests.resume(spool_of(ctx).root)
    printer.line("resumed" if was else "it was not paused")
