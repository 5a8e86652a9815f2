"""All rules, in the order in which a claim is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.rules import after
from queuectl.rules.twins import Twins

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.settings import Live
    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root


class Start:
    """The rules as one worker asks them."""

    def __init__(self, root: Root, live: Live) -> None:
        self._live = live
        self._twins = Twins(root)

    def ask(self, claim: Claim, now: datetime) -> Claim | Name:
        """The claim, if its job may start. Else the name under which the file waits now."""
        if (name := self._twins.put_off(claim)) is not None:
            return name
        return after.admit(claim, now, sync=self._live.last.syncs)
