"""Cancelling jobs: move a waiting job to dead/, ask the owner of a running one, take over from a dead one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import QueueError, WrongState
from queuectl.job.model import State
from queuectl.spool import acts, descriptions, liveness, recovery, requests
from queuectl.spool.recovery import Recovered
from queuectl.system import files
from queuectl.times import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from queuectl.settings import Settings
    from queuectl.spool.acts import Hand
    from queuectl.spool.jobs import Found
    from queuectl.spool.liveness import Verdict
    from queuectl.spool.onlooker import Onlooker
    from queuectl.spool.recovery import StopRemains

#: Seconds between looks at a job that is about to move.
_LOOK = 0.02


class Cancelling:
    """Cancels jobs in any state: asks all owners of running jobs first, then waits for them.

    The caller finds the jobs, calls `act` for each, `take_over` and `wait` for those that are left, and
    starts again. The command line and the dashboard do the same, each with its own time limit.
    """

    def __init__(
        self,
        me: Hand,
        values: Settings,
        onlooker: Onlooker,
        stop_remains: StopRemains,
        clock: Callable[[], datetime],
    ) -> None:
        self._me = me
        self._values = values
        self._onlooker = onlooker
        self._stop_remains = stop_remains
        self._clock = clock
        self._verdicts: dict[str, Verdict] = {}
        self._owners: set[str] = set()
        self._ran: set[str] = set()
        self._asked: dict[str, list[str]] = {}
        self._recovered = Recovered([], {})
        self._is_told = False

    def withdraw(self) -> None:
        """Withdraw the requests to owners."""
        for paths in self._asked.values():
            for path in paths:
                files.remove(path)

    def act(self, found: Found) -> str | None:
        """Cancel a job that waits, or ask the owner of one that runs.

        Returns how it was cancelled, in words, and None where it is not cancelled yet.

        Raises `WrongState`, `JobMoved` where the job has moved, and `QueueError` where the
        owner of a running job will not answer, though it is not dead.
        """
        if found.state is State.DEAD and found.id in self._ran:
            # Without a request the lost run was its last try.
            return "cancelled while it ran" if found.id in self._asked else "cancelled after its run was lost"
        if found.state in {State.DONE, State.DEAD}:
            raise WrongState(found.id, found.state.label, "waiting or running", "There is nothing to cancel.")
        if found.state is not State.PROCESSING:
            return acts.cancel_waiting(self._me, found, self._clock())[1]
        owner = found.name.owner or ""
        verdict = self._judge(owner)
        self._refuse_deaf(found, owner, verdict)
        self._owners.add(owner)
        self._ran.add(found.id)
        if not (verdict.is_dead or verdict.is_open):
            self._asked.setdefault(found.id, []).append(requests.to_cancel(self._me.root, found.name))
        return None

    def _judge(self, owner: str) -> Verdict:
        """The verdict on an owner, judged once a round."""
        if owner not in self._verdicts:
            self._verdicts[owner] = self._onlooker.judge(owner, self._values.lock_lease_seconds)
        return self._verdicts[owner]

    def _refuse_deaf(self, found: Found, owner: str, verdict: Verdict) -> None:
        """Raise `QueueError` if the job must stay with an owner that is dead or reads no requests."""
        if left := self._recovered.left.get(str(found.name)):
            problem = f"Job {found.id} cannot be taken over from its dead worker {owner}: {left.why}."
            raise QueueError(problem, left.remedy)
        worker = descriptions.describe(self._me.root, owner)
        if worker is None or verdict.is_dead:
            return
        if not (worker.hears or worker.kind == descriptions.BY_HAND):  # a hand holds a job only for moments
            raise QueueError(f"Job {found.id} is held by {owner}.", f"It {worker.how_to_end}")
        if not verdict.may_answer:
            raise QueueError(
                f"Job {found.id} cannot be stopped by its worker {owner}: {verdict.why}.",
                f"If that is stopped, {worker.how_to_wake} lets it go on.",
            )

    def undecided(self) -> list[tuple[str, Verdict]]:
        """The owners that may turn out to be dead, each with the verdict so far."""
        return [(owner, verdict) for owner in self._owners if (verdict := self._judge(owner)).is_open]

    def settle(self, tell: Callable[[str], None]) -> None:
        """Watch the owners until each is known to be alive or dead, for the length of the lease at most."""
        self._onlooker.settle(self._owners, self._values.lock_lease_seconds, tell)

    def take_over(self) -> None:
        """Take over the jobs of dead owners, and end their commands that still run on this host."""
        self._verdicts.clear()
        if any(self._judge(owner).is_dead for owner in self._owners - self._recovered.kept):
            self._recovered = recovery.by_hand(
                self._me.root, self._onlooker, self._values, self._stop_remains, self._clock()
            )

    def wait(self, left: Iterable[Found], end: float, tell: Callable[[str], None]) -> None:
        """Wait until one of the running jobs has moved, or an owner can no longer answer."""
        waiting = list(left)
        judge_at = times.clock.monotonic() + liveness.GLANCE
        while all(files.exists(found.path) for found in waiting) and (now := times.clock.monotonic()) < end:
            times.clock.sleep(_LOOK)
            if now < judge_at:
                continue
            if not self._is_told:
                self._is_told = True
                tell(f"Waiting for workers to stop {len(waiting)}, {duration(end - now)} at most …")
            self._verdicts.clear()
            if not all(self._judge(owner).may_answer for owner in self._owners):
                return
            judge_at = now + liveness.GLANCE
