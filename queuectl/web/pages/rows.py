"""A job as a row of a table: what `status --json` shows of it, and more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from queuectl.job.history import OUTCOMES, last_attempt
from queuectl.job.model import State
from queuectl.spool.names import AFTER, EDIT, HELD, name_in
from queuectl.times import iso, parse_moment, stamp
from queuectl.view import lookup
from queuectl.view.dead_letters import command_of, last_words
from queuectl.view.wording import escaped, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from queuectl.spool.jobs import Found
    from queuectl.web.pages.look import Look

#: The number of jobs on a page.
ROWS = 50
STATES = ("processing", "pending", "scheduled", "held", "blocked", "failed", "dead", "completed")
MEANINGS = {
    "processing": "running now",
    "pending": "waiting for a worker",
    "scheduled": "due later",
    "held": "waits until it is released",
    "blocked": "waits for something else",
    "failed": "will be tried again",
    "completed": "ended with status 0",
    "dead": "needs a person",
}
#: What can be done to a job in each state that is not parked.
BUTTONS = {
    State.PENDING: ("cancel", "run", "hold", "set"),
    State.PROCESSING: ("cancel",),
    State.FAILED: ("retry", "cancel", "run", "hold", "set"),
    State.DEAD: ("retry", "delete"),
    State.DONE: ("retry", "delete"),
}
#: What can be done to a parked job, by the reason in its name. Its way to another spool ends by a command.
PARKED_BUTTONS = {
    HELD: ("release", "cancel", "set"),
    AFTER: ("free", "hold", "cancel", "set"),
    EDIT: ("hold",),
}


def row(look: Look, found: Found) -> dict[str, Any]:
    """A job as `status --json` shows it, with the further facts of a table row."""
    view = lookup.view(found, look.dashboard.settings(), look.now)
    history = found.job.history if found.job else ()
    runs = lookup.runs_of(found.job)
    last = runs[-1] if runs else {}
    ended = history[-1].get("at") if history and history[-1].get("event") in OUTCOMES else None
    line, why = command_of(found), reason(found)
    return _brief(view) | {
        "history": [_brief(event) for event in view["history"]],
        "command_line": line,
        "runs": last_attempt(history),
        "started_at": moment(last.get("started_at")),
        "ended_at": moment(ended),
        "seconds": figure(last.get("seconds")),
        "due_at": iso(found.name.due_at),
        "is_due": found.name.due <= stamp(look.now),
        "reason": shortened(why) or None,
        "last_words": last_words(look.dashboard.spool.root, found) or None,
        "can": () if look.dashboard.read_only else _buttons(found),
        "file_name": str(found.name),
    }


def _buttons(found: Found) -> tuple[str, ...]:
    if found.name.parked is None:
        return BUTTONS[found.state]
    return PARKED_BUTTONS.get(found.name.parked.partition("+")[0], ())


def _brief(facts: dict[str, Any]) -> dict[str, Any]:
    """These facts of a job or a run with a long error cut."""
    error = facts.get("error")
    return facts | {"error": shortened(error)} if isinstance(error, str) else facts


def reason(found: Found) -> str:
    """Why a job is dead, or how its last run ended; "" if neither is known."""
    if found.state is State.DEAD:
        return escaped(lookup.reason_for(found))
    error = found.unreadable or lookup.exit_of(found.job).get("error")
    return escaped(str(error or ""))


def figure(value: Any) -> float | None:
    """A number in a history; None if the text there is not a finite number."""
    good = isinstance(value, int | float) and math.isfinite(value) and abs(value) < 10**12
    return float(value) if good else None


def moment(value: Any) -> str | None:
    """A time in a history; None if the text there is not a time."""
    try:
        return iso(parse_moment(value)) if value else None
    except (ValueError, OverflowError, TypeError):
        return None


def rows(look: Look, state: State, names: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of the jobs in these files; a job that has moved meanwhile is left out."""
    return [row(look, found) for found in look.dashboard.read_names(state, names)]


def id_in(state: State, text: str) -> str:
    """The id in a file name, "" if it is no name of a job."""
    name = name_in(state, text)
    return name.id if name else ""
