"""Every worker: where it is, what it does, and its last sign of life."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from queuectl.times import iso
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look
from queuectl.web.pages.rows import moment

if TYPE_CHECKING:
    from queuectl.web.dashboard import Dashboard


def page(dashboard: Dashboard, _: Query) -> Page:
    """Every worker: where it is, what it does, and its last sign of life."""
    look = Look.take(dashboard)
    moments = ("since", "started_at", "last_heartbeat")
    told = [
        worker._asdict()
        | {key: moment(getattr(worker, key)) for key in moments}
        | {"beat_at": iso(look.now - timedelta(seconds=worker.beat_age_seconds))}
        for worker in look.workers
    ]
    return Page("workers", "Workers", ("workers",), look.frame | {"workers": told})
