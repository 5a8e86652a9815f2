"""Pages that say what is wrong, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.view.wording import escaped
from queuectl.web.pages.frame import AWAY, Page
from queuectl.web.pages.look import Look, what_is_wrong

if TYPE_CHECKING:
    from queuectl.errors import NotASpool, QueueError
    from queuectl.web.dashboard import Dashboard


def missing(dashboard: Dashboard, problem: str) -> Page:
    """The address leads to nothing."""
    return refusal(dashboard, problem, "It may have been deleted, or never been there.", 404)


def refusal(dashboard: Dashboard, problem: str, remedy: str, status: int) -> Page:
    """What is wrong, and what to do."""
    facts = Look.at_hand(dashboard).frame | {"problem": escaped(problem), "remedy": escaped(remedy)}
    return Page("error", "Not possible", ("error",), facts, still=("error",), status=status)


def away(dashboard: Dashboard, error: OSError | NotASpool) -> Page:
    """Stands for any page while the spool is out of reach; the open page reloads when it is back."""
    return out_of_reach(dashboard, what_is_wrong(dashboard, error))


def out_of_reach(dashboard: Dashboard, told: QueueError) -> Page:
    """The same for a known cause, without any access to the disk."""
    frame = Look.remembered(dashboard, told.problem).frame
    facts = frame | {"problem": escaped(told.problem), "remedy": escaped(told.remedy)}
    return Page(AWAY, "The spool is away", (AWAY,), facts, status=503)
