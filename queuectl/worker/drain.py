"""A drain: what it waits for, and what the log says of what it leaves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from queuectl.job.model import State
from queuectl.times import when

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.worker.member import Member

log = logging.getLogger("queuectl")

#: What a drain leaves, in words, and the command that would have waited for it.
_LATER = (
    (State.FAILED, "failed jobs left for their next try", "queuectl worker start --drain=retries"),
    (State.PENDING, "jobs left for the time they are scheduled for", "queuectl worker start --drain=all"),
)


class Drain:
    """What a draining worker waits for, and what the log has reported of it."""

    def __init__(self, awaited: frozenset[State]) -> None:
        self.awaited = awaited
        self._doubts: tuple[str, ...] = ()

    def tell(self, doubts: tuple[str, ...]) -> None:
        """Report once which other workers may be dead."""
        if doubts != self._doubts:
            self._doubts = doubts
            for doubt in doubts:
                log.warning("%s", doubt)

    def tell_left(self, member: Member, now: datetime) -> None:
        """Report which jobs a drain leaves because they are due later."""
        for state, what, command in _LATER:
            count, due = member.waiting.later(state), member.waiting.next_due([state])
            if count and due is not None:
                first = when(due, now)
                log.info("%s: %d, the first at %s; `%s` waits for them", what, count, first, command)
