"""Unique keys: a job that has one starts only while the key is its own.

Filing takes the key. A dropped file, a retry and an `mv` may bring two jobs with one key to pending/ all the
same, so the claimant asks before the first run since the filing, a retry, or a move by hand. A job's own
retries never ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import BadJob
from queuectl.job.history import OUTCOMES, attempts, destination
from queuectl.spool import aside, keys
from queuectl.spool.holds import NotYet

if TYPE_CHECKING:
    from queuectl.job.history import Event
    from queuectl.job.model import State
    from queuectl.spool.claims import Claim
    from queuectl.spool.root import Root


class Unique:
    """The rule as one worker asks it."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._keys = keys.Keys(root)

    def admit(self, claim: Claim) -> Claim | None:
        """The claim of a job that has its key; None for any other, which is put aside.

        Raises `NotYet` while nobody can tell who has the key.
        """
        was_moved = _was_moved_by_hand(claim.job.history, claim.source)
        if attempts(claim.job.history) and not was_moved:
            return claim
        wish = keys.Wish.of(claim.job, claim.id)
        # Race: a filing may just now take this job for ended, as it was until it was moved. Only a new number
        # settles that.
        if not was_moved and self._is_its_own(wish):
            return claim
        (answer,) = self._keys.take([wish])
        if isinstance(answer, str):
            return claim
        if isinstance(answer, float):
            raise NotYet(answer)
        aside.bury(self._root, claim.name, claim.name.free(), str(answer), aside.KEY)
        return None

    def _is_its_own(self, wish: keys.Wish) -> bool:
        """Whether a job has the key already, or had it for a time that is over while the job waited."""
        try:
            now = keys.standing(self._root, keys.folder_of(self._root, wish.key))
        except BadJob:
            return False  # the same is found where the key is to be taken
        if now.holder is None or now.unwritten is not None:
            return False
        if now.holder.is_of(wish.job_id):
            return True
        return wish.is_timed and keys.is_named_by_any(now, wish.job_id)


def _was_moved_by_hand(history: tuple[Event, ...], source: State) -> bool:
    """Whether a person moved a job to where it waits: its last outcome leads elsewhere."""
    last = history[-1] if history else {}
    return last.get("event") in OUTCOMES and destination(last) is not source
