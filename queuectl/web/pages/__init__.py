"""The pages: each a function from the spool and a query to facts, for a template and for JSON alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import NotASpool
from queuectl.web.pages import batch, config, dead, job, jobs, overview, refusals, workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from queuectl.web.dashboard import Dashboard
    from queuectl.web.pages.frame import Page, Query

PAGES: Mapping[str, Callable[[Dashboard, Query], Page]] = {
    "/": overview.page,
    "/jobs": jobs.page,
    "/batches": batch.every,
    "/dead": dead.page,
    "/workers": workers.page,
    "/config": config.page,
}


def find(dashboard: Dashboard, path: str, query: Query) -> Page:
    """The page under a path (without `.json`); `refusals.away` while the spool is out of reach."""
    try:
        return _found(dashboard, path, query)
    except (OSError, NotASpool) as error:
        return refusals.away(dashboard, error)


def _found(dashboard: Dashboard, path: str, query: Query) -> Page:
    if path in PAGES:
        return PAGES[path](dashboard, query)
    head, _, job_id = path.rpartition("/")
    if head == "/jobs":
        return job.page(dashboard, job_id, query)
    if head == "/batches":
        return batch.page(dashboard, job_id, query)
    return refusals.missing(dashboard, f"There is no page {path!r}.")
