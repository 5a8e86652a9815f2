"""A batch: its counts, rate, time left and failures, and its jobs; and the list of all batches."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from queuectl.spool import batches
from queuectl.spool.names import ID_AT
from queuectl.system import files
from queuectl.view.wording import escaped
from queuectl.web.pages import refusals
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look
from queuectl.web.pages.rows import ROWS, STATES, id_in, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl.job.model import State
    from queuectl.web.dashboard import Dashboard


def page(dashboard: Dashboard, name: str, query: Query) -> Page:
    """How a batch stands, and a page of its jobs."""
    found = dashboard.standing(name)
    if found is None:
        return refusals.missing(dashboard, f"There is no batch {name!r} in this spool.")
    look, number = Look.take(dashboard, dashboard.lately()), query.number("page")
    places = list(islice(_members(look, name), (number - 1) * ROWS, number * ROWS + 1))
    told = found.as_dict() | {"ended": found.ended, "unknown": found.unknown}
    told["attention"] = [escaped(one) for one in found.attention]
    facts = look.frame | {
        "batch": told,
        "jobs": [row for state, text in places[:ROWS] for row in rows(look, state, [text])],
        "page": number,
        "pages": max(1, -(-found.filed // ROWS)),
        "more": len(places) > ROWS,
    }
    return Page("batch", found.name, ("batch-head", "batch-jobs"), facts)


def _members(look: Look, name: str) -> Iterator[tuple[State, str]]:
    """The states and file names of the members of a batch, in the order of the page with all jobs."""
    wanted = name.lower()
    for word in STATES:
        for state, text in look.census.in_order(word, look.now)[1]:
            is_near = text[ID_AT:].lower().startswith(f"{wanted}.")
            if is_near and batches.batch_of(id_in(state, text).lower()) == wanted:
                yield state, text


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
