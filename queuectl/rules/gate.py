"""The rules that are asked before jobs are filed or changed: some are parked, and some are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.rules import after, groups

if TYPE_CHECKING:
    from queuectl.errors import QueueError
    from queuectl.job.model import Job
    from queuectl.spool.root import Root


class Gate:
    """What is asked of each lot of the jobs that one call files."""

    def __init__(self, root: Root, *, may_be_unfiled: bool) -> None:
        self._root = root
        self._may_be_unfiled = may_be_unfiled
        self._seen = after.NOTHING

    def judge(self, lot: list[Job]) -> dict[str, str | QueueError]:
        """For the ids of these jobs: why they are parked, or why they are refused."""
        judged: dict[str, str | QueueError] = {}
        if any(job.after for job in lot):
            # 100,000 jobs behind one: a listing each lot of 200 would take minutes.
            judged, self._seen = after.gate(
                self._root, lot, may_be_unfiled=self._may_be_unfiled, before=self._seen
            )
        return judged | groups.refusals(self._root, lot)
