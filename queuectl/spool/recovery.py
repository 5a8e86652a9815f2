"""Dead workers' claims: the move that an outcome asked for is finished, all others are lost runs.

a crash after …                     left is                          mended by
the claim, no command started       processing/N@OWNER               back to pending/
the command was started             … and logs/ID.K.err              the rest of it stopped, lost, pending/
the outcome was recorded            … with the outcome at its end    the move it asks for
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from queuectl import disk
from queuectl.errors import BadJob
from queuectl.job import LOST, STARTED, State, last_attempt, outcome_by
from queuectl.spool import claiming, finishing, output, record
from queuectl.spool.claiming import Claim
from queuectl.spool.names import Name, parse_claim
from queuectl.spool.presence import Onlooker, described

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.settings import Settings
    from queuectl.spool.root import Root

#: Stops whatever still runs of a claim's command on this host, and returns when nothing does.
StopRemains = Callable[[Claim], None]


def recover(
    root: Root, onlooker: Onlooker, settings: Settings, stop_remains: StopRemains, now: datetime
) -> list[str]:
    """End the claims of every dead owner; returns a sentence for each, for the log.

    Any number of processes may do this at once: each move is one rename that one of them wins.
    """
    told: list[str] = []
    owners: dict[str, bool] = {}

    def is_dead(owner: str) -> bool:
        if owner not in owners:
            owners[owner] = not onlooker.is_alive(owner, settings.lock_lease_seconds)
        return owners[owner]

    for text, belonging in list(claiming.leftovers(root)):
        name = parse_claim(belonging)
        if name and name.owner and is_dead(name.owner):
            _undo_rewrite(root, text, belonging)
    for text in disk.list_names(root.folder(State.PROCESSING)):
        name = parse_claim(text)
        if name and name.owner and is_dead(name.owner):
            with contextlib.suppress(FileNotFoundError):  # another one recovers it, too
                stop = stop_remains if onlooker.is_here(name.owner) else _none_here
                told.append(_end(root, name, settings, stop, now))
    for owner in described(root):
        if is_dead(owner):
            onlooker.bury(owner)
            told.append(f"Worker {owner} is dead; its place is cleared.")
    return told


def _end(
    root: Root,
    name: Name,
    settings: Settings,
    stop_remains: StopRemains,
    now: datetime,
) -> str:
    path = f"{root.folder(State.PROCESSING)}/{name}"
    owner = name.owner or ""
    try:
        reading = record.read(path)
    except (BadJob, disk.NotAFile, PermissionError) as error:
        where = claiming.bury(root, name, claiming.why(error))
        return f"Job {name.id}: its worker {owner} died and its file cannot be read; see {where}."
    if reading.columns is None:
        claiming.write_anew(path, reading)
        reading = record.read(path)
    claim = Claim(root, name, reading, State.PENDING)
    history = reading.job.history
    outcome = outcome_by(history, owner)
    begun = output.was_begun(root, name.id, last_attempt(history) + 1)
    if outcome is None or begun:
        stop_remains(claim)
        running = bool(history) and history[-1].get("event") == STARTED
        if not running and not begun:
            if reading.job.id == name.id and not history and not claiming.keep_id(root, name):
                return claiming.put_aside(root, name, f"The id {name.id!r} is taken by another job.")
            finishing.give_back(claim)
            return f"Job {name.id}: its worker {owner} died before it ran; it waits again."
        outcome = finishing.lost(claim, settings, now, "the worker died while it ran")
        claim = claim.noted(outcome)
    state, _ = finishing.settle(claim, outcome)
    what = "run was lost" if outcome["event"] == LOST else f"outcome ({outcome['event']}) was recorded"
    return f"Job {name.id}: its worker {owner} died, its {what}; it is {state.label}."


def _none_here(_: Claim) -> None:
    """The owner was on another kernel: nothing of its command can be on this one."""


def _undo_rewrite(root: Root, text: str, belonging: str) -> None:
    folder = root.folder(State.PROCESSING)
    if text.endswith(".old") and belonging not in disk.list_names(folder):
        disk.move(f"{folder}/{text}", f"{folder}/{belonging}")
    else:
        disk.remove(f"{folder}/{text}")
