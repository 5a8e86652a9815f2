"""Parking: a job that must not start yet keeps its directory, under a name that workers pass over unread.

pending/N, failed/N         ->  pending/N'.yaml.held, …     it is parked, and `ls` shows why
pending/N'.yaml.held        ->  pending/N''                 it waits for a worker again

Each step is one rename to a name that was never there: RUNAT moves on by a microsecond. `mv` does the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import JobMoved, WrongState
from queuectl.spool import jobs
from queuectl.spool.names import EDIT, HELD, MOVING
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.spool.jobs import Found
    from queuectl.spool.root import Root


def hold(root: Root, found: Found) -> Found:
    """Let no worker start a waiting job until `release`. One that waits for another reason is held, too.

    Raises `WrongState` for a job that does not wait, `JobMoved` when a worker was faster.
    """
    if found.state not in jobs.WAITING:
        raise WrongState(found.id, found.state.label, "waiting", "Nothing was changed.")
    if found.name.parked == MOVING:
        refuse_taken(found)
    return found if found.name.parked == HELD else park(root, found, HELD)


def release(root: Root, found: Found, reason: str | None = None) -> Found:
    """Let workers start a job that a person holds, unless it has to wait for another `reason`.

    Raises `WrongState` for a job that no person holds, `JobMoved` when it moved meanwhile.
    """
    if found.name.parked != HELD:
        refuse_taken(found)
        raise WrongState(found.id, found.name.parked or found.state.label, "held", "Nothing was changed.")
    return park(root, found, reason)


def edit(root: Root, found: Found, user: str) -> Found:
    """Park a waiting job while a person has it in an editor. The name is the lock, which nothing else ends.

    Raises `WrongState` for a job that does not wait or that is in an editor, `JobMoved` when it moved.
    """
    if found.state not in jobs.WAITING:
        raise WrongState(found.id, found.state.label, "waiting", "Nothing was changed.")
    refuse_taken(found)
    return park(root, found, f"{EDIT}+{user}")


def refuse_taken(found: Found) -> None:
    """Raise `WrongState` for a job that a person has in an editor, or that is on its way to another spool."""
    reason, _, user = (found.name.parked or "").partition("+")
    if reason == EDIT:
        remedy = f"Try again once that is closed, or take it out of there: `queuectl hold {found.id}`."
        raise WrongState(found.id, f"in an editor of {user}", "free", remedy)
    if reason == MOVING:
        remedy = f"`queuectl move {found.id} --to DIR` with that spool ends it."
        raise WrongState(found.id, "on its way to another spool", "here", remedy)


def park(root: Root, found: Found, reason: str | None) -> Found:
    """Park a job for this reason, or no longer if it is None. Raises `JobMoved` when it has moved."""
    wanted = found.name.later()._replace(parked=reason)
    if reason is None and (reading := jobs.read(found)) is not None and reading.job is not None:
        wanted = wanted.grouped(reading.job.group, reading.job.slots)  # a parked name leaves the group out
    name = jobs.free_name(root, found.state, wanted)
    path = f"{root.folder(found.state)}/{name}"
    if not files.move(found.path, path):
        root.require_reachable()
        raise JobMoved(found.id)
    return found._replace(name=name, path=path)
