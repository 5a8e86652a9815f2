"""The end of a claim: the outcome is appended first, the rename is the commit.

processing/N@OWNER gets its outcome     after a crash here, recovery makes the move
processing/N@OWNER  ->  done/N failed/N' dead/N pending/N'     the end of the claim
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from queuectl.job.history import (
    FAILED,
    LOST,
    RETRIED,
    STARTED,
    Event,
    destination,
    failures,
    last_attempt,
)
from queuectl.job.model import State
from queuectl.spool import claims, jobs
from queuectl.spool.names import AFTER
from queuectl.system import drafts, files
from queuectl.times import iso, parse_moment, stamp

if TYPE_CHECKING:
    from typing import Any

    from queuectl.settings import Settings
    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name


def outcome(kind: str, claim: Claim, facts: dict[str, Any], now: datetime) -> Event:
    """The outcome of a run, of this kind and with these facts (`exit_code`, `seconds`, `error` …)."""
    history = claim.history
    is_open = bool(history) and history[-1].get("event") == STARTED
    attempt = last_attempt(history) + (0 if is_open else 1)
    return {"event": kind, "attempt": attempt, "at": iso(now), "worker": claim.owner} | facts


def failed(claim: Claim, facts: dict[str, Any], settings: Settings, now: datetime, luck: float) -> Event:
    """The outcome of a run that failed, with the time of the next try if one is left."""
    event = dict(outcome(FAILED, claim, facts, now))
    policy = settings.policy(claim.job.max_retries, claim.job.backoff_base)
    runs = failures((*claim.history, event))
    if not policy.gives_up(runs):
        event["next_try"] = iso(now + timedelta(seconds=policy.wait(runs, luck)))
    return event


def lost(claim: Claim, settings: Settings, now: datetime, why: str) -> Event:
    """The outcome of a run whose worker died: it counts as a failure, and the next try may start at once."""
    event: dict[str, Any] = dict(outcome(LOST, claim, {"error": why}, now))
    policy = settings.policy(claim.job.max_retries, claim.job.backoff_base)
    if not policy.gives_up(failures((*claim.history, event))):
        event["next_try"] = iso(now)
    return event


def retried(now: datetime) -> Event:
    """The event of a person's retry: from here on the tries are counted from zero."""
    return {"event": RETRIED, "at": iso(now)}


def settle(claim: Claim, ending: Event, *, sync: bool = False) -> tuple[State, Name]:
    """Make the move that a recorded outcome asks for. The worker and a recovery make the same move."""
    state = destination(ending)
    name = claim.name.free() if state in jobs.WAITING else claim.name.unparked()
    if state is State.PENDING:
        name = name.later()
    elif state is State.FAILED:
        name = name._replace(due=stamp(parse_moment(ending["next_try"])))
    return state, _release(claim, state, name, sync=sync)


def give_back(claim: Claim) -> Name:
    """Put a claim back whose command was never started; nothing is recorded. Returns its new name."""
    name = claim.name.later()
    if name.parked == AFTER:  # a claim's name has no room for the id
        first = next(iter(claim.job.after), None)
        name = name._replace(parked=first and f"{AFTER}+{first}")
        if not claim.root.takes_length(len(str(name))):
            name = name.unparked()
    return _release(claim, claim.source, name)


def park(claim: Claim, reason: str | None) -> Name:
    """Put a claim back, parked for this reason or, for None, not parked. Returns its name."""
    return _release(claim, claim.source, claim.name.later()._replace(parked=reason))


def _release(claim: Claim, state: State, wanted: Name, *, sync: bool = False) -> Name:
    """The rename that ends a claim. Returns the job's new name. Raises `ClaimLost` or `SpoolAway`."""
    root = claim.root
    name = jobs.free_name(root, state, wanted)
    by_file = sync and root.medium.forgets_names
    move = drafts.move_synced if by_file else files.move
    if not move(claim.path, f"{root.folder(state)}/{name}"):
        raise claims.lost(root, claim.path)
    if sync and not by_file:
        files.sync_folder(root.folder(state))
        files.sync_folder(root.folder(State.PROCESSING))
    return name
