"""`status` and `list`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, printer
from queuectl.cli.places import spool_of
from queuectl.errors import BadUsage
from queuectl.job.history import last_attempt
from queuectl.job.model import State
from queuectl.spool import output, requests
from queuectl.times import duration, parse_moment, stamp, when
from queuectl.view import census, explain, lookup
from queuectl.view.wording import shortened, visible
from queuectl.view.workers import alive, workers

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from queuectl.api import Spool
    from queuectl.spool.jobs import Found

LIVE = ("pending", "scheduled", "processing", "failed")


# ── status ────────────────────────────────────────────────────────────────────────────────────


@click.command(
    "status",
    epilog="\b\nExamples:\n  queuectl status            the whole queue\n"
    "  queuectl status resize-42  one job, and why it does not run\n"
    "  queuectl status --watch    redrawn until Ctrl-C",
)
@click.argument("job_id", required=False, shell_complete=completion.ids_in(*completion.ANY))
@click.option("--json", "as_json", is_flag=True, help="One JSON object and nothing else.")
@click.option("--watch", "-w", is_flag=True, help="Redraw until Ctrl-C.")
@click.pass_context
def status_command(ctx: click.Context, job_id: str | None, as_json: bool, watch: bool) -> None:
    """Show the whole queue, or one job."""
    spool = spool_of(ctx)
    if job_id is not None:
        found = spool.find(job_id)
        if as_json:
            printer.as_json(spool.view(found))
        elif watch:
            printer.watch(lambda: _job_text(spool, lookup.again(spool.root, found)))
        else:
            printer.text(_job_text(spool, found))
    elif as_json:
        printer.as_json(_overview(spool))
    elif watch:
        batch = _Batch()
        printer.watch(lambda: _overview_text(_overview(spool), batch))
    else:
        printer.text(_overview_text(_overview(spool)))


def _overview(spool: Spool) -> dict[str, Any]:
    root, now = spool.root, spool.clock()
    texts = census.listed(root)
    counts = census.counts(texts, now)
    known = workers(spool.root, spool.live.now())
    return {
        "counts": counts.as_dict(),
        "workers": alive(known),
        "average_duration_seconds": census.average_duration(root, texts[State.DONE]),
        "oldest_pending_seconds": counts.oldest(now),
        "spool": str(spool.path),
        "paused": requests.is_paused(root),
        "attention": [one.sentence for one in explain.attention(root, counts, known, now)],
    }


class _Batch:
    """The progress since a watch began: jobs done, and an estimate of the time left."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: int | None = None

    def line(self, counts: dict[str, int]) -> str:
        """`done 120 of 500, about 3 min left`."""
        ended = counts["completed"] + counts["dead"]
        if self._first is None:
            self._first = ended
        left = counts["pending"] + counts["processing"] + counts["failed"]
        gained = ended - self._first
        total = gained + left
        rate = gained / max(0.001, time.monotonic() - self._began)
        rest = f", about {duration(left / rate)} left" if rate > 0 and left else ""
        return f"done {gained} of {total} since this was opened{rest}"


def _overview_text(facts: dict[str, Any], batch: _Batch | None = None) -> str:
    lines = [f"spool      {visible(facts['spool'])}"]
    for word, count in facts["counts"].items():
        shown = f"{word:<11}{count:>11,}"
        lines.append(click.style(shown, fg=printer.COLOURS[word]) if printer.colour() and count else shown)
    lines.append(f"workers    {facts['workers']:>11,}")
    average, oldest = facts["average_duration_seconds"], facts["oldest_pending_seconds"]
    lines.append(f"average    {duration(average):>11}   of a completed job's last run")
    lines.append(f"oldest     {duration(oldest):>11}   since the first of those that wait was due")
    if batch is not None:
        lines.append(batch.line(facts["counts"]))
    lines += [f"! {visible(text)}" for text in facts["attention"]]
    return "\n".join(lines) + "\n"


def _job_text(spool: Spool, found: Found) -> str:
    now = spool.clock()
    view = spool.view(found)
    label = view["state"]
    state = click.style(label, fg=printer.COLOURS.get(label)) if printer.colour() else label
    job = found.job
    reasons = explain.reasons(spool.root, spool.live.now(), found, now)
    why = "; ".join(one.clause for one in reasons)
    pairs: list[tuple[str, Any]] = [
        ("job", found.id),
        ("state", f"{state}: {visible(why)}"),
        ("command", visible(job.command_line) if job else "(the file cannot be read)"),
        ("priority", view["priority"]),
        ("filed", when(job.created_at, now) if job and job.created_at else None),
        ("due", when(found.name.due_at, now) if label in {"scheduled", "failed"} else None),
        ("runs", f"{view['attempts']}; at most {view['max_retries'] + 1} before it is dead"),
        ("limit", duration(view["timeout"]) if view["timeout"] else "none"),
        ("cwd", job.cwd if job else None),
        ("env", " ".join(f"{key}={value}" for key, value in job.env.items()) if job and job.env else None),
        ("file", found.path),
    ]
    width = 10
    lines = [
        f"{name:<{width}}{value if name == 'state' else visible(str(value))}"
        for name, value in pairs
        if value is not None
    ]
    runs = lookup.runs_of(job)
    if runs:
        lines.append("")
        lines.append(f"{'run':<5}{'outcome':<12}{'exit':<14}{'took':<14}{'cpu':<10}{'memory':<10}worker")
        lines += [_run_line(run, now) for run in runs]
        for stream in output.STREAMS:
            path = output.log_path(spool.root, found.id, runs[-1]["attempt"], stream)
            lines.append(f"std{stream:<7}{path}")
    return "\n".join(lines) + "\n"


def _run_line(run: dict[str, Any], now: datetime) -> str:
    outcome = run.get("outcome") or "running"
    took = run.get("seconds")
    if took is None and outcome == "running" and run.get("started_at"):
        took = (now - parse_moment(run["started_at"])).total_seconds()
    code = "" if run.get("exit_code") is None else str(run["exit_code"])
    if run.get("signal"):
        code = f"{code} {run['signal']}"
    memory = f"{run['max_rss_kb'] / 1024:.0f} MB" if run.get("max_rss_kb") else "-"
    cells = (
        f"{run['attempt']:<5}{outcome:<12}{code or '-':<14}{duration(took):<14}"
        f"{duration(run.get('cpu_seconds')):<10}{memory:<10}{run.get('worker', '')}"
    )
    error = run.get("error")
    return visible(cells) + (f"\n     {visible(shortened(error))}" if error else "")


# ── list ──────────────────────────────────────────────────────────────────────────────────────


@click.command(
    "list",
    epilog="\b\nExamples:\n  queuectl list --state pending --limit 20\n"
    "  queuectl list --state dead --json | queuectl -s OTHER enqueue -",
)
@click.option("--state", type=click.Choice(list(lookup.WORDS)), help="Only jobs in this state.")
@click.option("--limit", "-n", type=click.IntRange(min=0), help="The most jobs to show.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.option("--watch", "-w", is_flag=True, help="Redraw until Ctrl-C.")
@click.pass_context
def list_command(
    ctx: click.Context, state: str | None, limit: int | None, as_json: bool, watch: bool
) -> None:
    """List jobs in the order in which they run; completed ones newest first."""
    spool = spool_of(ctx)
    if as_json:
        for found in spool.list(state, limit):
            printer.as_json(spool.view(found))
    elif watch:
        if not printer.is_terminal():
            raise BadUsage("--watch needs a terminal.", "Leave it out in a pipe.")
        height = max(5, (limit or 1000))
        batch = _Batch()
        printer.watch(lambda: _live_list(spool, state, min(height, printer.console().height - 6), batch))
    else:
        rows = (_row(found, spool.clock()) for found in spool.list(state, limit))
        printer.table(COLUMNS, rows, state_column=1, none="No jobs.")


COLUMNS = ("ID", "STATE", "PRI", "RUNS", "WHEN", "COMMAND")


def _live_list(spool: Spool, state: str | None, limit: int, batch: _Batch) -> Any:
    from rich.console import Group
    from rich.text import Text

    now = spool.clock()
    rows = [[visible(str(cell)) for cell in _row(found, now)] for found in spool.list(state, limit)]
    head = batch.line(census.counts(census.listed(spool.root), now).as_dict())
    return Group(Text(head), printer.rich_table(COLUMNS, rows, state_column=1))


def _row(found: Found, now: datetime) -> tuple[Any, ...]:
    label = found.label(now)
    job = found.job
    runs = last_attempt(job.history) if job else 0
    command = job.command_line if job else f"({found.unreadable})"
    priority = 10 - found.name.rank if found.name.rank <= 10 else "-"
    if job and job.priority is not None:
        priority = job.priority
    return found.id, label, priority, runs, _when(found, label, now), command


def _when(found: Found, label: str, now: datetime) -> str:
    if label in {"scheduled", "failed"} and found.name.due > stamp(now):
        return f"in {duration((found.name.due_at - now).total_seconds())}"
    if label in {"completed", "dead", "processing"} and found.job and found.job.history:
        at = found.job.history[-1].get("at")
        if isinstance(at, str):
            return f"{duration(max(0.0, (now - parse_moment(at)).total_seconds()))} ago"
    return f"{duration(max(0.0, (now - found.name.due_at).total_seconds()))} ago"
