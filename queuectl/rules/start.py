"""All rules, in the order in which a claim is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.rules import after
from queuectl.rules.twins import Twins
from queuectl.rules.unique import Unique
from queuectl.spool import finishing
from queuectl.spool.claims import Claim

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.rules.groups import Slots
    from queuectl.settings import Live
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root


class Start:
    """The rules as one worker asks them."""

    def __init__(self, root: Root, live: Live, slots: Slots) -> None:
        self._live = live
        self._twins = Twins(root)
        self._unique = Unique(root)
        self._slots = slots

    def ask(self, claim: Claim, now: datetime) -> Claim | Name | None:
        """The claim, if its job may start. Else the name under which the file waits now, None if nowhere.

        Raises `NotYet` where that cannot be told yet.
        """
        if (name := self._twins.put_off(claim)) is not None:
            return name
        if not self._slots.holds(claim.name):
            return finishing.give_back(claim)  # it was claimed for a name that its content no longer asks for
        answer: Claim | Name | None = after.admit(claim, now, sync=self._live.last.syncs)
        if isinstance(answer, Claim) and answer.job.unique is not None:
            answer = self._unique.admit(answer)
        return answer
