"""The other workers of a spool, as one member sees them: who is watched, and whose claims are taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import times
from queuectl.job.model import State
from queuectl.spool import liveness, recovery
from queuectl.spool.liveness import Standing
from queuectl.spool.names import parse_claim
from queuectl.spool.onlooker import Onlooker

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.settings import Live
    from queuectl.spool.root import Root

#: Seconds between looks for claims of dead workers, where locks show at once who is dead.
RECOVERY_EVERY = 2.0


class Others:
    """Watches the other workers for the member `name`, and takes over what dead ones left.

    `doubts` says in words which of them may turn out to be dead.
    """

    def __init__(self, root: Root, live: Live, name: str) -> None:
        self._root = root
        self._live = live
        self._name = name
        self._onlooker = Onlooker(root)
        self._watched_at = self._recovered_at = self._doubted_at = float("-inf")
        self._told: list[str] = []
        self._kept: frozenset[str] = frozenset()
        self.doubts: tuple[str, ...] = ()

    @property
    def _lease(self) -> float:
        return self._live.last.lock_lease_seconds

    def watch(self) -> None:
        """Look at the beats of all others if it is time. Called also while a command runs."""
        now = times.clock.monotonic()
        if now - self._watched_at >= liveness.looks_every(self._lease):
            self._watched_at = now
            self._onlooker.watch(self._lease)

    def is_recovery_due(self) -> bool:
        """Whether it is time to look for claims of dead workers."""
        locks_tell = self._root.medium.locks_tell
        every = RECOVERY_EVERY if locks_tell else liveness.looks_every(self._lease)
        return times.clock.monotonic() - self._recovered_at >= every

    def recover(self, stop_remains: recovery.StopRemains, now: datetime, held: frozenset[str]) -> list[str]:
        """End the claims of dead workers, except for those in `held`; returns in words what is new of it."""
        values = self._live.now()
        rescue = recovery.Rescue(self._root, self._name, self._onlooker, values, stop_remains, held)
        recovered = rescue.recover(now)
        self._recovered_at = times.clock.monotonic()
        new = [one for one in recovered.told if one not in self._told]
        self._told, self._kept = recovered.told, recovered.kept
        return new

    def may_leave_claims(self) -> bool:
        """Whether an owner of a claim is dead, or may turn out to be; judged every few seconds."""
        if self.doubts and times.clock.monotonic() - self._doubted_at < liveness.GLANCE:
            return True
        self._doubted_at = times.clock.monotonic()
        claims = map(parse_claim, self._root.texts_in(self._root.folder(State.PROCESSING)))
        owners = {name.owner for name in claims if name and name.owner and name.owner != self._name}
        verdicts = {owner: self._onlooker.judge(owner, self._lease) for owner in owners}
        self.doubts = tuple(
            f"Worker {owner}: {verdict.why}; its jobs are taken over if that lasts"
            for owner, verdict in verdicts.items()
            if verdict.is_open
        )
        dead = {owner for owner, verdict in verdicts.items() if verdict.standing is Standing.DEAD}
        if dead - self._kept:
            self._recovered_at = float("-inf")  # it is time, whenever that was done last
        return bool(self.doubts or dead - self._kept)
