"""Dead letters by reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.job.model import State
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look
from queuectl.web.pages.rows import ROWS, id_in, rows

if TYPE_CHECKING:
    from queuectl.web.dashboard import Dashboard


def page(dashboard: Dashboard, query: Query) -> Page:
    """Dead letters by reason, and a page of those that have one reason or match a text."""
    look = Look.take(dashboard)
    letters = dashboard.dead_letters()
    words, number = query.text("q"), query.number("page")
    kind = query.values.get("reason")
    groups = letters.groups(words)
    fitting = list(letters.matching(kind, words))
    facts = look.frame | {
        "groups": [
            {"reason": reason, "count": len(names), "newest": id_in(State.DEAD, names[0])}
            for reason, names in groups[:ROWS]
        ],
        "more_groups": max(0, len(groups) - ROWS),
        "reason": kind,
        "q": words,
        "page": number,
        "pages": max(1, -(-len(fitting) // ROWS)),
        "total": len(fitting),
        "more": len(fitting) > number * ROWS,
        "unread": letters.unread,
        "filters": {"reason": kind, "q": words},
        "jobs": rows(look, State.DEAD, fitting[(number - 1) * ROWS : number * ROWS]),
    }
    return Page("dead", "Dead letters", ("filter-dead", "groups", "letters"), facts, still=("filter-dead",))
