"""What a person does to a job: retry, cancel, delete. Each is one rename, or a request to its owner."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from queuectl import disk
from queuectl.errors import WrongState
from queuectl.job import CANCELLED, TRANSITIONS, State, iso, last_attempt, stamp
from queuectl.spool import claiming, finishing, output, presence, record
from queuectl.spool.finding import REASON, Found
from queuectl.spool.names import Name, rank_of

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.settings import Settings
    from queuectl.spool.root import Root

_BY_HAND = "hand"


def retry(root: Root, found: Found, settings: Settings, now: datetime) -> str:
    """Put a failed, dead or completed job back to pending, its tries counted anew; returns its path.

    Raises `WrongState` for a job that waits or runs, `FileNotFoundError` when it moved meanwhile,
    and `BadJob` when its file has not been mended.
    """
    if found.state in {State.PENDING, State.PROCESSING}:
        raise WrongState(found.id, found.state.label, "failed, dead or completed", "It will run as it is.")
    assert State.PENDING in TRANSITIONS[found.state]
    reading = record.read(found.path)
    fifo = settings.scheduling_mode == "fifo"
    rank = found.name.rank if reading.job.priority is None else rank_of(reading.job.priority, fifo=fifo)
    name = claiming.free_name(root, State.PENDING, Name(rank, stamp(now), found.name.id))
    target = f"{root.folder(State.PENDING)}/{name}"
    # Crash: the note is added first; without the move the job stays where it is, and says so.
    if reading.job.history and reading.columns is not None:
        record.append(found.path, reading, (finishing.retried(now),))
    if not disk.move(found.path, target):
        raise FileNotFoundError(2, "it moved meanwhile", found.path)
    disk.remove(found.path + REASON)
    return target


def cancel_waiting(root: Root, found: Found, now: datetime) -> str:
    """Move a waiting job to dead as cancelled; returns its path.

    Raises `FileNotFoundError` when a worker was faster. The job is claimed first, so that no
    worker starts what is being cancelled.
    """
    owner = f"{presence.host_name()}-{_BY_HAND}-{os.urandom(4).hex()}"
    mine = found.name.owned(owner)
    path = f"{root.folder(State.PROCESSING)}/{mine}"
    if not disk.move(found.path, path):
        raise FileNotFoundError(2, "it moved meanwhile", found.path)
    target = f"{root.folder(State.DEAD)}/{claiming.free_name(root, State.DEAD, found.name.free())}"
    with contextlib.suppress(disk.NotAFile):
        reading = record.read(path)
        if reading.columns is None:
            claiming.write_anew(path, reading)
            reading = record.read(path)
        event = {"event": CANCELLED, "at": iso(now), "worker": owner, "error": "cancelled before it ran"}
        attempt = last_attempt(reading.job.history)
        record.append(path, reading, (event | ({"attempt": attempt} if attempt else {}),))
    disk.move(path, target)
    return target


def delete(root: Root, found: list[Found]) -> int:
    """Delete finished jobs, then what they printed; returns how many files of jobs went."""
    gone = {item.id for item in found if disk.remove(item.path)}
    for item in found:
        disk.remove(item.path + REASON)
    if gone:
        output.delete_logs(root, gone)
    return len(gone)
