"""Files that share an id: a copy, or a file that a person renamed, whose content names no id."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.job.model import State
from queuectl.spool import claiming, ids, jobs, output
from queuectl.spool.waiting import Listing, is_due
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: Where another file may have an id without a log that shows it.
_WITHOUT_LOG = (*jobs.WAITING, State.PROCESSING, State.DEAD)


class Twins:
    """The ids that more than one file has, as one worker saw them last.

    Only files without a line `id:` are asked about. Dropped files may be many such, so the directories
    are listed only as often as `waiting.is_due` allows: looking takes a twentieth of the time at most.
    A copy that was made since the last look is found by its log, if the other file has run.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._twice: set[str] = set()
        self._listing = Listing(float("-inf"), 0.0)

    def put_off(self, claim: Claim) -> Name | None:
        """Give a file that shares its id, and names none, an id of its own; returns its name then."""
        if claim.job.id is not None or claim.job.history:
            return None
        # A person may have given the file this name. Trying to take an id costs five times a look for it.
        if not files.exists(ids.path_of(self._root, claim.id)):
            ids.take(self._root, claim.id)
        if not self._has(claim.name):
            return None
        own = ids.take_like(self._root, claim.id)
        try:
            right = claiming.file_again(claim, claim.name.free()._replace(id=own))
        except BaseException:
            ids.release(self._root, [own])
            raise
        log.warning(
            "job %s: another file has this id, and this one names none: it is job %s now", claim.id, own
        )
        return right

    def _has(self, claimed: Name) -> bool:
        """Whether another file has the id of this claim."""
        begun = times.clock.monotonic()
        if is_due(self._listing, 0.0, begun):
            self._twice = self._look()
            ended = times.clock.monotonic()
            self._listing = Listing(ended, ended - begun)
        if claimed.id.lower() not in self._twice and not output.was_begun(self._root, claimed.id, 1):
            return False
        # Race: the look may have seen one file twice, as jobs move. The claim itself stays where it is.
        return any(found.name != claimed for found in jobs.names_of(self._root, claimed.id))

    def _look(self) -> set[str]:
        seen: set[str] = set()
        twice: set[str] = set()
        for state in _WITHOUT_LOG:
            texts = self._root.texts_in(self._root.folder(state))
            for job_id in map(str.lower, jobs.ids_in(state, texts)):
                (twice if job_id in seen else seen).add(job_id)
        return twice
