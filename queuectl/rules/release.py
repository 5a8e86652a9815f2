"""Releasing jobs: one that nobody holds any more may still have to wait for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import JobMoved
from queuectl.rules import after
from queuectl.spool import acts, claiming, jobs, parking

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.spool.acts import Hand
    from queuectl.spool.jobs import Found
    from queuectl.spool.root import Root


def release(root: Root, found: Found, now: datetime) -> Found:
    """Let a job start that a person holds, once it has all else that it waits for.

    It gets the rank and the time that its content asks for, as a person may have edited it.
    Raises `WrongState` for a job that no person holds, `JobMoved` when it moved meanwhile.
    """
    reading = jobs.read(found)
    if reading is None:
        raise JobMoved(found.id)
    if reading.job is None:
        return parking.release(root, found)  # whoever claims it says what is wrong with it
    right = claiming.true_name(found.name, reading.job, found.state, now) or found.name
    right = right._replace(id=found.id)
    return parking.release(root, found._replace(name=right), after.parked_behind(root, reading.job))


def release_now(me: Hand, found: Found, now: datetime) -> str:
    """Let a parked job start whatever it waits for. Returns its path; raises as `acts.release_now` does."""
    return acts.release_now(
        me, found, lambda job: () if after.is_ready(job) else (after.ready(job.after, now),), now
    )
