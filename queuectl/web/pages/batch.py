"""A batch: its counts, rate, time left and failures, and its jobs; and the list of all batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.spool import batches
from queuectl.system import files
from queuectl.view.wording import escaped
from queuectl.web.pages import refusals
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look
from queuectl.web.pages.rows import ROWS, rows

if TYPE_CHECKING:
    from queuectl.web.dashboard import Dashboard


def page(dashboard: Dashboard, name: str, query: Query) -> Page:
    """How a batch stands, and a page of its jobs."""
    found = dashboard.standing(name)
    if found is None:
        return refusals.missing(dashboard, f"There is no batch {name!r} in this spool.")
    look, number = Look.take(dashboard, dashboard.lately()), query.number("page")
    shown = found.members[(number - 1) * ROWS : number * ROWS]
    told = found.as_dict() | {"ended": found.ended, "unknown": found.unknown}
    told["attention"] = [escaped(one) for one in found.attention]
    facts = look.frame | {
        "batch": told,
        "jobs": [row for one in shown for row in rows(look, one.state, [str(one.name)])],
        "page": number,
        "pages": max(1, -(-found.filed // ROWS)),
        "more": found.filed > number * ROWS,
    }
    return Page("batch", found.name, ("batch-head", "batch-jobs"), facts)


def every(dashboard: Dashboard, query: Query) -> Page:
    """The batches, the newest first."""
    root, number = dashboard.spool.root, query.number("page")
    dated = []
    for name in batches.names(root):
        try:
            dated.append((files.modified(batches.path_of(root, name)), name))
        except FileNotFoundError:  # it has just been deleted
            continue
    names = [name for _, name in sorted(dated, reverse=True)]
    some = names[(number - 1) * ROWS : number * ROWS]
    facts = Look.take(dashboard, dashboard.lately()).frame | {
        "batches": [one._asdict() for name in some if (one := batches.read(root, name))],
        "page": number,
        "pages": max(1, -(-len(names) // ROWS)),
        "more": len(names) > number * ROWS,
    }
    return Page("batches", "Batches", ("batches",), facts)
