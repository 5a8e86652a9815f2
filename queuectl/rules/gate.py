"""The rules that are asked before jobs are filed or changed: some are parked, and some are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.rules import after, groups

if TYPE_CHECKING:
    from queuectl.errors import QueueError
    from queuectl.job.model import Job
    from queuectl.spool.root import Root


def judge(root: Root, lot: list[Job], *, may_be_unfiled: bool) -> dict[str, str | QueueError]:
    """For the ids of jobs that are filed together: why they are parked, or why they are refused."""
    judged = after.gate(root, lot, may_be_unfiled=may_be_unfiled) if any(job.after for job in lot) else {}
    return judged | groups.refusals(root, lot)
