"""Dead workers' claims: the move that an outcome asked for is finished, all others are lost runs.

    a crash after                       left is                          mended by
    the claim, no command started       processing/N@DEAD                back to pending/
    the command was started             and logs/ID.K.err                its rest stopped, N@ME, lost, moved
    the outcome was recorded            the outcome at its end           the move it asks for

Any number of processes may do this at once: each step is one rename that one of them wins, and
nothing is added to a file before it bears the name of the one who adds.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import BadJob, ClaimLost, StorageTrouble
from queuectl.job.history import FAILED, STARTED, last_attempt, outcome_by
from queuectl.job.model import State
from queuectl.spool import aside, claims, finishing, output, presence
from queuectl.spool.claims import Claim
from queuectl.spool.names import Name, parse_claim
from queuectl.spool.presence import Onlooker, described
from queuectl.system import files, owners

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.job.history import Event
    from queuectl.settings import Settings
    from queuectl.spool.root import Root

#: Stops whatever still runs on this host of the command of a claim, and returns when nothing does.
#: It is told the claim's name and its history, empty where that cannot be read. Raises `StillRuns`
#: where it may not, `ClaimLost` where somebody else has taken the claim.
StopRemains = Callable[["Root", Name, tuple["Event", ...]], None]


class StillRuns(Exception):
    """What a dead worker left running cannot be stopped by this one, or does not end.

    `pid` is its number, None where it is in a process namespace that is not seen from here.
    """

    def __init__(self, pid: int | None) -> None:
        what = "its command still runs in another container"
        super().__init__(what if pid is None else f"process {pid} of its command still runs")


class Recovered(NamedTuple):
    """A sentence for each claim and place that was ended, and the dead owners whose claims had to stay."""

    told: list[str]
    kept: frozenset[str]


class Rescue(NamedTuple):
    """One live owner, `me`, that ends the claims of dead ones.

    A claim that bears its own name and is not among the `held` was left by an error of the disk.
    """

    root: Root
    me: str
    onlooker: Onlooker
    settings: Settings
    stop_remains: StopRemains
    held: frozenset[str] = frozenset()

    def recover(self, now: datetime) -> Recovered:
        """End the claims of every dead owner."""
        told: list[str] = []
        kept: set[str | None] = {self.me}
        dead: dict[str, bool] = {self.me: True}

        def is_dead(name: Name | None) -> bool:
            owner = name.owner if name else None
            if owner is not None and owner not in dead:
                dead[owner] = not self.onlooker.is_alive(owner, self.settings.lock_lease_seconds)
            return owner is not None and dead[owner]

        for text, belonging in list(claims.leftovers(self.root)):
            if is_dead(parse_claim(belonging)):
                _undo_rewrite(self.root, text, belonging)
        for text in self.root.texts_in(self.root.folder(State.PROCESSING)):
            name = parse_claim(text)
            if name is not None and text not in self.held and is_dead(name):
                is_ended, sentence = self._try_to_end(name, now)
                told += [f"Job {name.id}: {sentence}"] if sentence else []
                kept |= set() if is_ended else {name.owner}
        told += [
            f"Worker {owner} is dead; its place is cleared."
            for owner in described(self.root)
            if owner not in kept and is_dead(Name(0, "", "", owner)) and self.onlooker.bury(owner)
        ]
        self.onlooker.clear_orphans()
        return Recovered(told, frozenset(owner for owner in kept if owner))

    def _try_to_end(self, name: Name, now: datetime) -> tuple[bool, str]:
        """Whether a claim is ended now, by whoever it was, and what there is to say of it."""
        fate = self._fate_of(name.owner)
        try:
            return True, self._end(name, now)
        except ClaimLost:
            return True, ""  # another one recovers it, too
        except files.Untrusted:
            return False, ""  # left to a worker that may
        except StillRuns as one:
            return False, f"{fate}, but {one}; it waits for that."
        except OSError as error:
            if StorageTrouble.explains(error):
                raise
            path = f"{self.root.folder(State.PROCESSING)}/{name}"
            return False, f"{fate}, and its file cannot be changed: {error.strerror} ({path})."

    def _fate_of(self, owner: str | None) -> str:
        """Why a claim is left, in words."""
        return (
            "the disk failed before its claim was ended" if owner == self.me else f"its worker {owner} died"
        )

    def _end(self, name: Name, now: datetime) -> str:
        root, owner = self.root, name.owner or ""
        fate = self._fate_of(owner)
        try:
            reading = claims.read(root, f"{root.folder(State.PROCESSING)}/{name}")
        except (BadJob, files.NotAFile, PermissionError) as error:
            # Crash: it may have been running. Once it is in dead/ a person may mend it and retry it.
            self._stop(name, ())
            reason = f"{fate[:1].upper()}{fate[1:]}. {aside.why(error)}"
            where = aside.bury(root, name, name.free(), reason)
            return f"{fate} and its file cannot be read; see {where}."
        history = reading.job.history
        failed = bool(history) and history[-1].get("event") == FAILED and "next_try" in history[-1]
        claim = Claim.of(root, name, reading, State.FAILED if failed else State.PENDING)
        begun = output.was_begun(root, name.id, last_attempt(history) + 1)
        outcome = outcome_by(history, owner)
        if outcome is not None and not begun:
            state, _ = finishing.settle(claim, outcome)
            return f"{fate}, its outcome was recorded; it is {state.label}."
        if not begun and not (history and history[-1].get("event") == STARTED):
            finishing.give_back(claim)
            return f"{fate}; it was not started, and waits again."
        # Root kills nothing that only a stranger's file names.
        claims.read(root, claim.path, root.trust(self.settings))
        self._stop(name, history)
        claim = _taken_over(claim, self.me)
        why = "the disk failed while it ran" if owner == self.me else f"its worker {owner} died while it ran"
        lost = finishing.lost(claim, self.settings, now, why)
        try:
            claim = claim.noted(lost)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            reason = f"Its run was lost, as {why}, and its file takes no more: {error.strerror}."
            where = aside.bury(root, claim.name, claim.name.free(), reason, aside.RAN)
            return f"{fate}, its run was lost; see {where}."
        state, _ = finishing.settle(claim, lost)
        return f"{fate}, its run was lost; it is {state.label}."

    def _stop(self, name: Name, history: tuple[Event, ...]) -> None:
        """Stop what still runs of a claim's command. Raises `StillRuns` where it runs on out of our sight."""
        self.stop_remains(self.root, name, history)
        attempt = output.last_begun(self.root, name.id, last_attempt(history))
        if not self.onlooker.is_here(name.owner or "") and output.is_written(self.root, name.id, attempt):
            raise StillRuns(None)


def by_hand(
    root: Root, onlooker: Onlooker, values: Settings, stop_remains: StopRemains, now: datetime
) -> Recovered:
    """End the claims of every owner that this onlooker finds dead, as a member for just that long."""
    me = presence.join(root, presence.BY_HAND, now)
    try:
        return Rescue(root, me.name, onlooker, values, stop_remains).recover(now)
    finally:
        me.leave()


def _taken_over(claim: Claim, me: str) -> Claim:
    """The claim under a name of our own; raises `ClaimLost` where somebody else took it."""
    mine = Claim.of(claim.root, claim.name.owned(me), claim.record, claim.source)
    if not files.move(claim.path, mine.path):
        raise claims.lost(claim.root, claim.path)
    if claim.root.medium.writes_late and owners.may_copy(mine.path):
        # Race: the share may hold back what the dead one was writing, and deliver it to this very
        # file, whatever its name, when its host is reached again.
        claims.write_anew(claim.root, mine.path, files.read(mine.path, files.MAX_WITH_HISTORY))
    return mine._replace(record=claims.read_ready(claim.root, mine.path))


def _undo_rewrite(root: Root, text: str, belonging: str) -> None:
    folder = root.folder(State.PROCESSING)
    if text.endswith(".old") and belonging not in root.texts_in(folder):
        files.move(f"{folder}/{text}", f"{folder}/{belonging}")
    else:
        files.remove(f"{folder}/{text}")
