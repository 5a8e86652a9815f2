"""One run of a claimed job: what its worker knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from queuectl.job.history import Event
    from queuectl.spool.claims import Claim
    from queuectl.spool.output import Curb
    from queuectl.system.processes import Command
    from queuectl.worker.stopping import Stopping


class Run:
    """One run of a claimed job.

    `command` is None once it has been reaped, or where it could not be started. `is_recorded`: the worker
    has tried to write the start to the file. `is_told`: the log reports the run. `ended`: the facts of the
    end and its time while the cause is open. `unsure`: an error leaves open whether the file has what is
    unwritten.
    """

    __slots__ = (
        "claim", "command", "curb", "ended", "is_recorded", "is_told", "limit", "logs", "outcome",
        "stopping", "unsure",
    )  # fmt: skip

    def __init__(self, claim: Claim, command: Command | None) -> None:
        self.claim = claim
        self.command = command
        self.logs: tuple[int, ...] = ()
        self.limit = 0.0
        self.curb: Curb | None = None
        self.is_recorded = False
        self.is_told = False
        self.stopping: Stopping | None = None
        self.ended: tuple[dict[str, Any], float] | None = None
        self.outcome: Event | None = None
        self.unsure = False

    def in_words(self) -> str:
        """How it ended."""
        assert self.outcome is not None  # it has
        error = self.outcome.get("error")
        return f"{self.outcome['event']}: {error}" if error else str(self.outcome["event"])

    def ends_as(self, outcome: Event) -> None:
        """Take the outcome, which is to be written."""
        self.outcome = outcome
        self.claim = self.claim.adding(outcome)
