"""Rows for spreadsheets and programs: one a job, or one a run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from queuectl.job.history import OUTCOMES
from queuectl.job.template import VALUE
from queuectl.spool import batches
from queuectl.view import lookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from queuectl.spool.jobs import Found

#: The columns of a row a job, and of a row a run.
JOB = (
    *("id", "batch", "state", "priority", "group", "created_at", "run_at", "started_at", "ended_at"),
    *("seconds", "exit_code", "attempts", "worker", "error", "value", "command"),
)
RUN = (
    *("id", "batch", "attempt", "outcome", "started_at", "ended_at", "seconds", "cpu_seconds"),
    *("max_rss_kb", "exit_code", "signal", "worker", "error", "value", "command"),
)


def job(view: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a job, from its JSON object."""
    history = view["history"]
    starts = [event["at"] for event in history if event.get("event") == "started"]
    ends = [event for event in history if event.get("event") in OUTCOMES]
    last = ends[-1] if ends else {}
    facts = {"started_at": starts[-1] if starts else None, "ended_at": last.get("at")}
    row = {**view, **facts, "seconds": last.get("seconds"), "command": _command(view["command"])}
    return row | {"batch": batches.batch_of(view["id"]), "value": (view.get("env") or {}).get(VALUE)}


def runs(found: Found) -> Iterator[dict[str, Any]]:
    """The rows of the runs of a job."""
    command = found.job.command if found.job else None
    value = found.job.env.get(VALUE) if found.job else None
    shared = {"batch": batches.batch_of(found.id), "value": value, "command": _command(command)}
    for run in lookup.runs_of(found.job):
        whole = {"id": found.id, **shared, **run}
        yield {column: whole.get(column) for column in RUN}


def _command(command: Any) -> str | None:
    return command if command is None or isinstance(command, str) else shlex.join(command)
