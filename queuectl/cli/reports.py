"""`status` and `list`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, printer
from queuectl.cli.commands import on_spool, taking
from queuectl.cli.options import AS_JSON, LIMIT, WATCH
from queuectl.cli.selecting import selecting
from queuectl.errors import BadUsage
from queuectl.job import layout
from queuectl.job.history import last_attempt
from queuectl.job.model import URGENT, State
from queuectl.spool import jobs, output, requests
from queuectl.times import duration, parse_moment, stamp, when
from queuectl.view import census, dependencies, estimate, explain, lookup, records
from queuectl.view.selection import listed
from queuectl.view.standing import standing
from queuectl.view.wording import shortened, visible
from queuectl.view.workers import alive, workers

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from queuectl.api import Spool
    from queuectl.spool.jobs import Found
    from queuectl.view.selection import Selection
    from queuectl.view.standing import Standing

#: How many of the jobs that wait for one are named.
_SOME = 5
COLUMNS = ("ID", "STATE", "PRI", "RUNS", "WHEN", "COMMAND")


# ── status ────────────────────────────────────────────────────────────────────────────────────


@on_spool(
    "status",
    "queuectl status            the whole queue",
    "queuectl status resize-42  one job, and why it does not run",
    "queuectl status sweep      a batch: counts, time left, failures",
    "queuectl status --watch    redrawn until Ctrl-C",
)
@click.argument("job_id", required=False, shell_complete=completion.ids_in(*completion.ANY))
@taking(AS_JSON, WATCH)
def status_command(spool: Spool, job_id: str | None, as_json: bool, watch: bool) -> None:
    """Show the whole queue, a batch, or one job."""
    progress = _Progress() if watch else None
    if job_id is not None and (batch := _standing(spool, job_id)):
        if as_json:
            printer.as_json(batch.as_dict())
        else:
            printer.show(lambda: _batch_text(_standing(spool, job_id) or batch), watch=watch)
        return
    found = None if job_id is None else spool.find(job_id)
    if as_json:
        printer.as_json(_overview(spool) if found is None else spool.view(found))
    elif found is None:
        printer.show(lambda: _overview_text(_overview(spool), progress), watch=watch)
    elif not watch:
        printer.text(_job_text(spool, found))
    else:
        printer.show(lambda: _job_text(spool, lookup.again(spool.root, found)), watch=True)


def _standing(spool: Spool, name: str) -> Standing | None:
    return standing(spool.root, name, spool.live.now(), spool.clock())


def _batch_text(batch: Standing) -> str:
    lines = [f"batch      {batch.name}: {batch.ended:,} of {batch.size:,} have ended"]
    for word, number in batch.counts.items():
        if number:
            lines.append(printer.coloured(f"{word:<11}{number:>11,}", word))
    if batch.rate is not None:
        lines.append(f"{'rate':<11}{batch.rate * 60:>11.1f}   jobs end a minute")
    left = f"about {duration(batch.seconds_left)}" if batch.seconds_left else "nothing"
    if batch.seconds_left is None:
        left = f"unknown: {batch.unknown}"
    lines.append(f"left       {left}")
    if batch.average is not None:
        lines.append(f"average    {duration(batch.average):>11}   of a completed job's last run")
    if batch.slowest:
        slowest = ", ".join(f"{job_id} {duration(seconds)}" for job_id, seconds in batch.slowest)
        lines.append(f"slowest    {slowest}")
    for failure in batch.failures:
        more = ", …" if failure.number > len(failure.ids) else ""
        text = f"{failure.reason} ({', '.join(failure.ids)}{more})"
        lines.append(f"{printer.count(failure.number, 'failure')}: {visible(text)}")
    lines += [f"! {visible(text)}" for text in batch.attention]
    return "\n".join(lines) + "\n"


def _overview(spool: Spool) -> dict[str, Any]:
    """The queue as the documented JSON object."""
    root, now = spool.root, spool.clock()
    texts = census.listed(root)
    counts = census.counts(texts, now)
    known = workers(root, spool.live.now())
    average, is_paused = census.average_duration(root, texts[State.DONE]), requests.is_paused(root)
    working, waiting = 0 if is_paused else alive(known), counts.pending + counts.failed
    return {
        "counts": counts.as_dict(),
        "workers": alive(known),
        "average_duration_seconds": average,
        "seconds_left": estimate.of_queue(waiting, counts.processing, average, working),
        "oldest_pending_seconds": counts.oldest(now),
        "spool": str(spool.path),
        "paused": is_paused,
        "attention": [one.sentence for one in explain.attention(root, counts, known, now)],
    }


class _Progress:
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
        rate = gained / max(0.001, time.monotonic() - self._began)
        rest = f", about {duration(left / rate)} left" if rate > 0 and left else ""
        return f"done {gained} of {gained + left} since this was opened{rest}"


def _overview_text(facts: dict[str, Any], progress: _Progress | None) -> str:
    lines = [f"spool      {visible(facts['spool'])}"]
    for word, count in facts["counts"].items():
        shown = f"{word:<11}{count:>11,}"
        lines.append(printer.coloured(shown, word) if count else shown)
    average, oldest = facts["average_duration_seconds"], facts["oldest_pending_seconds"]
    lines += [
        f"workers    {facts['workers']:>11,}",
        f"average    {duration(average):>11}   of a completed job's last run",
        f"oldest     {duration(oldest):>11}   since the first of those that wait was due",
    ]
    if facts["seconds_left"]:
        lines.append(f"left       {duration(facts['seconds_left']):>11}   about, with these workers")
    if progress is not None:
        lines.append(progress.line(facts["counts"]))
    lines += [f"! {visible(text)}" for text in facts["attention"]]
    return "\n".join(lines) + "\n"


def _job_text(spool: Spool, found: Found) -> str:
    now = spool.clock()
    view, job = spool.view(found), found.job
    reasons = explain.reasons(spool.root, spool.live.now(), found, now)
    why = "; ".join(one.clause for one in reasons)
    pairs: list[tuple[str, Any]] = [
        ("command", job.command_line if job else "(the file cannot be read)"),
        ("priority", view["priority"]),
        ("filed", when(job.created_at, now) if job and job.created_at else None),
        ("due", when(found.name.due_at, now) if view["state"] in {"scheduled", "failed"} else None),
        ("runs", f"{view['attempts']}; at most {view['max_retries'] + 1} before it is dead"),
        ("limit", duration(view["timeout"]) if view["timeout"] else "none"),
        ("after", layout.after(job.after) if job and job.after else None),
        ("before", _before(spool, found.id)),
        ("cwd", view.get("cwd")),
        ("env", " ".join(f"{key}={value}" for key, value in view["env"].items()) if "env" in view else None),
        ("unique", f"{job.unique} ({explain.term(job)})" if job and job.unique else None),
        ("file", found.path),
    ]
    lines = [f"job       {found.id}", f"state     {printer.coloured(view['state'])}: {visible(why)}"]
    lines += [f"{name:<10}{visible(str(value))}" for name, value in pairs if value is not None]
    if runs := lookup.runs_of(job):
        lines += ["", f"{'run':<5}{'outcome':<12}{'exit':<14}{'took':<14}{'cpu':<10}{'memory':<10}worker"]
        lines += [_run_line(run, now) for run in runs]
        for stream in output.STREAMS:
            path = output.log_path(spool.root, found.id, runs[-1]["attempt"], stream)
            lines.append(f"std{stream:<7}{path}")
    return "\n".join(lines) + "\n"


def _before(spool: Spool, job_id: str) -> str | None:
    """The jobs that wait for this one."""
    waiting = [one.id for one in dependencies.direct(spool.root, job_id)]
    rest = f" and {len(waiting) - _SOME:,} more" if len(waiting) > _SOME else ""
    return ", ".join(waiting[:_SOME]) + rest if waiting else None


def _run_line(run: dict[str, Any], now: datetime) -> str:
    outcome, took = run.get("outcome") or "running", run.get("seconds")
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


@on_spool(
    "list",
    "queuectl list --state pending --limit 20",
    "queuectl list --state dead --json | queuectl -s OTHER enqueue -",
    "queuectl list sweep --csv --runs > runs.csv",
)
@selecting(completion.ids_in(*completion.ANY))
@click.option("--csv", "as_csv", is_flag=True, help="CSV for spreadsheets and pandas.")
@click.option("--runs", is_flag=True, help="With --csv or --json: a row a run instead of a job.")
@taking(LIMIT, AS_JSON, WATCH)
def list_command(
    spool: Spool,
    chosen: Selection,
    as_csv: bool,
    runs: bool,
    limit: int | None,
    as_json: bool,
    watch: bool,
) -> None:
    """List jobs in the order in which they run; completed ones newest first."""
    if sum((as_csv, as_json, watch)) > 1 or (runs and not (as_csv or as_json)):
        raise BadUsage(
            "--csv, --json and --watch exclude each other; --runs needs --csv or --json.", "Choose one."
        )
    found = listed(spool.root, chosen, spool.clock(), limit)
    if as_csv or as_json:
        rows = (row for one in found for row in (records.runs(one) if runs else [spool.view(one)]))
        if as_json:
            for row in rows:
                printer.as_json(row)
        else:
            printer.as_csv(*((records.RUN, rows) if runs else (records.JOB, map(records.job, rows))))
    elif watch:
        if not printer.is_terminal():
            raise BadUsage("--watch needs a terminal.", "Leave it out in a pipe.")
        progress = _Progress()
        printer.show(lambda: _live_list(spool, chosen, limit, progress), watch=True)
    else:
        hint = " File one: queuectl enqueue 'echo hello'" if chosen.is_empty else ""
        printer.table(COLUMNS, (_row(one, spool.clock()) for one in found), none=f"No jobs.{hint}")


def _live_list(spool: Spool, chosen: Selection, limit: int | None, progress: _Progress) -> Any:
    from rich.console import Group
    from rich.text import Text

    now = spool.clock()
    most = min(max(5, limit or 1000), printer.console().height - 6)
    found = listed(spool.root, chosen, now, most)
    rows = [[visible(str(cell)) for cell in _row(one, now)] for one in found]
    head = progress.line(census.counts(census.listed(spool.root), now).as_dict())
    return Group(Text(head), printer.rich_table(COLUMNS, rows))


def _row(found: Found, now: datetime) -> tuple[Any, ...]:
    label, job, rank = found.label(now), found.job, found.name.rank
    runs = last_attempt(job.history) if job else 0
    command = job.command_line if job else f"({found.unreadable})"
    priority = "-" if rank > URGENT else URGENT - rank
    if job and job.priority is not None:
        priority = job.priority
    return found.id, label, priority, runs, _when(found, label, now), command


def _when(found: Found, label: str, now: datetime) -> str:
    if label == jobs.BLOCKED and found.job and found.job.after:
        _, _, pointer = (found.name.parked or "").partition("+")
        more = len(found.job.after) - 1
        return f"after {pointer or next(iter(found.job.after))}{f' +{more:,}' if more else ''}"
    if label in {"scheduled", "failed", jobs.HELD} and found.name.due > stamp(now):
        return f"in {duration((found.name.due_at - now).total_seconds())}"
    history = found.job.history if found.job else ()
    at = history[-1].get("at") if history and label in {"completed", "dead", "processing"} else None
    moment = parse_moment(at) if isinstance(at, str) else found.name.due_at
    return f"{duration(max(0.0, (now - moment).total_seconds()))} ago"
