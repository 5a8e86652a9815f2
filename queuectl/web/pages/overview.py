"""How the queue is, in one sentence and on one screen."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from queuectl.job.model import State
from queuectl.spool import jobs, tokens
from queuectl.view import explain, groups
from queuectl.view.census import quantile
from queuectl.view.wording import Kind, escaped
from queuectl.view.workers import alive
from queuectl.web import chart
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look
from queuectl.web.pages.rows import MEANINGS, rows

if TYPE_CHECKING:
    from typing import Any

    from queuectl.web.dashboard import Dashboard


def page(dashboard: Dashboard, _: Query) -> Page:
    """How the queue is, in one sentence and on one screen."""
    look = Look.take(dashboard)
    durations = look.census.durations()
    completed, failed = look.census.minutes("completed"), look.census.minutes("failed")
    oldest = look.counts.first_due
    facts = (
        look.frame
        | {
            "health": health(look),
            "attention": [
                escaped(one.sentence)
                for one in explain.attention(dashboard.spool.root, look.counts, look.workers, look.now)
                if one.kind is not Kind.DEAD_JOBS  # the page has dead letters of its own
            ],
            "meanings": MEANINGS,
            "limits": _limits(look, dashboard),
            "charts": {
                "hour": asdict(chart.lay_out(completed, failed, look.now, 60, 1)),
                "day": asdict(chart.lay_out(completed, failed, look.now, 72, 20)),
            },
            "typical_seconds": quantile(durations, 0.5),
            "slow_seconds": quantile(durations, 0.9),
            "oldest": next(iter(rows(look, State.PENDING, [oldest] if oldest else [])), None),
            "running": rows(look, State.PROCESSING, look.census.listing(State.PROCESSING).names[:8]),
            "failures": _last_failures(look, 8),
        }
    )
    return Page(
        "overview", "Overview", ("health", "counts", "limits", "charts", "running", "failures"), facts
    )


def _limits(look: Look, dashboard: Dashboard) -> list[dict[str, Any]]:
    """The groups of jobs that share slots."""
    root = dashboard.spool.root
    if not tokens.folders(root):
        return []  # most queues have none: then a million names are not looked at
    waiting = (text for state in jobs.WAITING for text in look.census.listing(state).names)
    found = groups.among(root, waiting, look.census.listing(State.PROCESSING).names, look.now)
    return [one._asdict() for one in found]


def health(look: Look) -> dict[str, str]:  # noqa: PLR0911 - one return a sentence
    """The state of the queue: `level` is ok, note or alarm, `sentence` says why."""
    counts, living = look.counts, alive(look.workers)
    waits = counts.pending + counts.failed
    dead = f"{counts.dead:,} dead {'job needs' if counts.dead == 1 else 'jobs need'} a person"
    running = f"{counts.processing:,} running, {counts.pending:,} waiting"
    if look.trouble:
        return {"level": "alarm", "sentence": "The spool is out of reach; these are the last figures."}
    if not look.census.is_whole:
        return {"level": "note", "sentence": "Still counting what is in the spool."}
    if look.paused:
        return {"level": "note", "sentence": f"Paused: nothing new is started ({running})."}
    if waits and not living:
        what = "1 job waits" if waits == 1 else f"{waits:,} jobs wait"
        return {"level": "alarm", "sentence": f"Nothing runs: {what} and no worker is alive."}
    if any(not worker.lives for worker in look.workers):
        return {"level": "alarm", "sentence": f"A worker died at work; {running}."}
    if counts.dead:
        return {"level": "note", "sentence": f"{dead}; all else goes on ({running})."}
    if not sum(counts.as_dict().values()):
        return {"level": "ok", "sentence": "The queue is empty."}
    if not waits and not counts.processing:
        later = f"; {counts.scheduled:,} scheduled" if counts.scheduled else ""
        return {"level": "ok", "sentence": f"All done: nothing runs and nothing waits{later}."}
    return {"level": "ok", "sentence": f"All is well: {running}."}


def _last_failures(look: Look, number: int) -> list[dict[str, Any]]:
    newest = []
    for state in (State.DEAD, State.FAILED):
        listing = look.census.listing(state)
        pairs = list(zip(listing.ends, listing.names, strict=False))[-number:]
        newest += [(end, name, state) for end, name in pairs]
    chosen = sorted(newest, reverse=True)[:number]
    return [entry for _, name, state in chosen for entry in rows(look, state, [name])]
