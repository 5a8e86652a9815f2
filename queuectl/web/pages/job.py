"""One job: how it stands and why, its runs, what it printed, its file."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from queuectl.rules import after
from queuectl.spool import batches, jobs, output
from queuectl.times import parse_moment
from queuectl.view import dependencies, explain, lookup
from queuectl.view.wording import ERROR_SHOWN, Kind, escaped
from queuectl.web.pages import refusals
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look
from queuectl.web.pages.rows import figure, moment, reason, row

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from queuectl.spool.jobs import Found
    from queuectl.web.dashboard import Dashboard

#: The page shows this many bytes at the end of each stream.
TAIL = 64 * 1024
#: So many of the jobs that one waits for are shown, and of those that wait for it.
SOME = 20
#: The page shows this many characters of a text, and a link to the whole.
LIMITS = {"error": ERROR_SHOWN, "run": 300, "command": 16_000, "file": 32_000}


def page(dashboard: Dashboard, job_id: str, query: Query) -> Page:
    """One job: how it stands and why, its runs, what it printed, its file."""
    found = dashboard.find(job_id)
    if found is None:
        return refusals.missing(dashboard, f"There is no job {job_id!r} in this spool.")
    look = Look.take(dashboard, dashboard.lately())
    runs = lookup.runs_of(found.job)
    numbers = [run["attempt"] for run in runs]
    last = numbers[-1] if numbers else 0
    asked = query.number("run", last)
    number = asked if asked in numbers else last
    file = dashboard.file_bytes(found)
    facts = look.frame | {
        "job": row(look, found),
        "why": escaped(_why(look, found)),
        "batch": _batch(look, found),
        "after": _after(dashboard, found),
        "before": _before(look, found),
        "runs": _timeline(runs, look.now),
        "run": number,
        "latest": number == last,
        "output": {stream: tail(dashboard, found.id, number, stream) for stream in output.STREAMS if number},
        "file": None if file is None else file.decode("utf-8", "replace"),
    }
    return Page("job", found.id, ("job-head", "job-runs", "job-output", "job-facts", "job-file"), facts)


def _batch(look: Look, found: Found) -> str | None:
    """The name of the batch that a job is a member of."""
    name = batches.batch_of(found.id)
    return name if name and batches.is_taken(look.dashboard.spool.root, name) else None


def _why(look: Look, found: Found) -> str:
    spool = look.dashboard.spool
    ahead = look.census.before(str(found.name), look.now)
    reasons = explain.reasons(spool.root, look.dashboard.settings(), found, look.now, ahead)
    # The page has a button for what `queuectl retry` does.
    return "; ".join(one.problem if one.kind is Kind.DEAD else one.clause for one in reasons)


def _after(dashboard: Dashboard, found: Found) -> list[dict[str, str]]:
    """Some of the jobs that this one runs after, and how they have ended, as long as it waits for them."""
    job = found.job
    if job is None or found.state not in jobs.WAITING or after.is_ready(job):
        return []
    some = dict(islice(job.after.items(), SOME))
    ends = after.look(dashboard.spool.root, some).ends
    return [{"id": one, "wanted": how, "end": ends[one].value} for one, how in some.items()]


def _before(look: Look, found: Found) -> list[str]:
    """Some of the jobs that wait for this one."""
    if not look.counts.blocked:
        return []
    return [one.id for one in dependencies.direct(look.dashboard.spool.root, found.id)[:SOME]]


def _timeline(runs: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """The runs, newest first, each with its duration as a percentage of the longest."""
    told = []
    for run in runs:
        begun, seconds = moment(run.get("started_at")), figure(run.get("seconds"))
        if seconds is None and begun and not run.get("outcome"):
            seconds = max(0.0, (now - parse_moment(begun)).total_seconds())
        words = {key: escaped(value) for key, value in run.items() if isinstance(value, str)}
        figures = {key: figure(run.get(key)) for key in ("cpu_seconds", "max_rss_kb")}
        outcome = words.get("outcome") or "running"
        told.append(run | words | figures | {"started_at": begun, "seconds": seconds, "outcome": outcome})
    longest = max((run["seconds"] or 0.0 for run in told), default=0.0) or 1.0
    return [run | {"share": round(100 * (run["seconds"] or 0.0) / longest, 1)} for run in reversed(told)]


def tail(dashboard: Dashboard, job_id: str, attempt: int, stream: str) -> dict[str, Any]:
    """The end of what a run printed: at most `TAIL` bytes, from the start of a line if possible.

    `trouble` says why it cannot be read; the rest of the page is shown all the same.
    """
    told: dict[str, Any] = {"size": 0, "shown": 0, "text": ""}
    try:
        size, data = output.tail(dashboard.spool.root, job_id, attempt, stream, TAIL)
    except OSError as error:
        return told | {"trouble": escaped(error.strerror or str(error))}
    text = data.decode("utf-8", "replace")
    if size > len(data):
        text = text.partition("\n")[2] or text
    return told | {"size": size, "shown": len(data), "text": text}


def error_of(found: Found, attempt: int) -> str:
    """The whole error of a run, "" if it has none; for run 0, why the job is dead."""
    if attempt == 0:
        return reason(found)
    runs = lookup.runs_of(found.job)
    return next((str(run.get("error") or "") for run in runs if run["attempt"] == attempt), "")
