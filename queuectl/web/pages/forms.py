"""Pages that a person fills in: a new job, and the answer to a question."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from queuectl.view.wording import escaped
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from queuectl.web.actions import Question
    from queuectl.web.dashboard import Dashboard


def new(dashboard: Dashboard, typed: Query, problem: str = "") -> Page:
    """The form for a new job, with the text typed so far and the problem with it."""
    facts = Look.at_hand(dashboard).frame | {"typed": dict(typed.values), "problem": escaped(problem)}
    return Page("new", "New job", ("new",), facts, still=("new",), status=400 if problem else 200)


def question(
    dashboard: Dashboard, asked: Question, action: str, fields: Sequence[tuple[str, str]], back: str
) -> Page:
    """Asks before something is destroyed. The answer sends `fields` to `action` again."""
    form = {"action": action, "fields": fields, "back": back}
    facts = Look.at_hand(dashboard).frame | asdict(asked) | form
    return Page("sure", "Are you sure?", ("sure",), facts, still=("sure",))
