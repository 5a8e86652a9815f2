"""Pages that a person fills in: a new job, and the answer to a question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.view.wording import escaped
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.web.dashboard import Dashboard


def new(dashboard: Dashboard, typed: Query, problem: str = "") -> Page:
    """The form for a new job, with the text typed so far and the problem with it."""
    facts = Look.at_hand(dashboard).frame | {"typed": dict(typed.values), "problem": escaped(problem)}
    return Page("new", "New job", ("new",), facts, still=("new",), status=400 if problem else 200)


def question(dashboard: Dashboard, asked: Mapping[str, Any]) -> Page:
    """Asks before something is destroyed; `asked` holds the question and the form that answers it."""
    facts = Look.at_hand(dashboard).frame | dict(asked)
    return Page("sure", "Are you sure?", ("sure",), facts, still=("sure",))
