"""Claims of dead workers: finish the move where an outcome is recorded; count every other run as lost.

    a crash after                       left is                          mended by
    the claim, no command started       processing/N@DEAD                back to pending/
    the command was started             and logs/ID.K.err                its rest stopped, N@ME, lost, moved
    the outcome was recorded            the outcome at its end           the move it asks for

Any number of processes may do this at once: each step is one rename that one of them wins. A process adds
to a file only once its own name is in the file's name.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, ClaimLost, StorageTrouble
from queuectl.job.history import FAILED, STARTED, last_attempt, outcome_by
from queuectl.job.model import State
from queuectl.spool import aside, claims, descriptions, finishing, output, presence, safety, tokens
from queuectl.spool.claims import Claim
from queuectl.spool.descriptions import described
from queuectl.spool.names import Name, parse_claim
from queuectl.system import files, users

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.job.history import Event
    from queuectl.settings import Settings
    from queuectl.spool.onlooker import Onlooker
    from queuectl.spool.root import Root

#: Stops the processes of a claim's command that still run on this host, and returns when none is left.
#: Takes the claim's name and its history, empty where that cannot be read. Raises `StillRuns`
#: where it may not, `ClaimLost` where somebody else has taken the claim.
StopRemains = Callable[["Root", Name, tuple["Event", ...]], None]


class StillRuns(Exception):
    """A process that a dead worker left running cannot be stopped, or does not end.

    `pid` is None where the process is in a namespace that cannot be seen from here.
    """

    def __init__(self, pid: int | None) -> None:
        self.pid = pid
        what = "its command still runs in another container"
        super().__init__(what if pid is None else f"process {pid} of its command still runs")


class Left(NamedTuple):
    """Why the claim of a dead owner had to stay, and a sentence that says what a person can do."""

    why: str
    remedy: str


class Recovered(NamedTuple):
    """A sentence for each claim and worker that was cleared, and the claims that had to stay.

    These are `left`, by the names of their files.
    """

    told: list[str]
    left: dict[str, Left]

    @property
    def kept(self) -> frozenset[str]:
        """The dead owners whose claims had to stay."""
        return frozenset(text.removesuffix(".yaml").rpartition("@")[2] for text in self.left)


class Rescue(NamedTuple):
    """One live owner, `me`, that ends the claims of dead owners.

    A claim of `me` that is not among the `held` was left by an error of the disk.
    """

    root: Root
    me: str
    onlooker: Onlooker
    settings: Settings
    stop_remains: StopRemains
    held: frozenset[str] = frozenset()

    def recover(self, now: datetime) -> Recovered:
        """End the claims of every dead owner."""
        lease = self.settings.lock_lease_seconds
        began = times.clock.monotonic()

        @cache
        def is_dead(owner: str | None) -> bool:
            return owner == self.me or not (owner is None or self.onlooker.is_alive(owner, lease))

        for text, belonging in list(claims.leftovers(self.root)):
            if (name := parse_claim(belonging)) and is_dead(name.owner):
                _undo_rewrite(self.root, text, belonging)
        # Race: an owner that dies after the listing of claims may leave one that it does not show. So those
        # that are buried, and whose slots are freed, are dead before it.
        dead = {owner for owner in described(self.root) if is_dead(owner)}
        slots = [(folder, token) for folder, token in tokens.held(self.root) if is_dead(token.owner)]
        told: list[str] = []
        left: dict[str, Left] = {}
        for text in self.root.texts_in(self.root.folder(State.PROCESSING)):
            name = parse_claim(text)
            if name is not None and text not in self.held and is_dead(name.owner):
                sentence, reason = self._try_to_end(name, now)
                told += [f"Job {name.id}: {sentence}"] if sentence else []
                left |= {} if reason is None else {text: reason}
        recovered = Recovered(told, left)
        kept = {self.me, *recovered.kept}
        # Crash: only now, as the commands of the dead have ended that ran in their slots.
        later = now + timedelta(seconds=times.clock.monotonic() - began)
        tokens.free([(folder, token) for folder, token in slots if token.owner not in kept], later)
        buried = self.onlooker.bury(dead - kept)
        told += [f"Worker {owner} is dead; its place is cleared." for owner in buried]
        return recovered

    def _try_to_end(self, name: Name, now: datetime) -> tuple[str, Left | None]:
        """A sentence to report, and why the claim is left; None once this process or another has ended it."""
        fate = self._fate_of(name.owner)
        path = f"{self.root.folder(State.PROCESSING)}/{name}"
        try:
            return self._end(name, now), None
        except ClaimLost:
            return "", None  # another process recovers it, too
        except files.Untrusted as error:  # a worker that trusts its owner ends it
            mends = f"Run `chmod go-w {shlex.quote(path)}`, then `{self._repair}`."
            return "", Left(error.strerror or str(error), self._by_owner_of(path) or mends)
        except StillRuns as one:
            told = f"{fate}, but {one}; it waits for that."
            return told, Left(str(one), self._against(one, name.owner))
        except OSError as error:
            if StorageTrouble.explains(error):
                raise
            place = _culprit(error, path)
            what = "its file" if place == path else "the directory"
            looks = f"Look at `ls -ld {shlex.quote(place)}` and `lsattr -d {shlex.quote(place)}`. "
            mends = f"{looks}Once it can be changed, run `{self._repair}`."
            by_owner = None if users.is_root() else self._by_owner_of(place)
            return (
                f"{fate}, and {what} cannot be changed: {error.strerror} ({place}).",
                Left(f"{error.strerror}: {place}", by_owner or mends),
            )

    @property
    def _repair(self) -> str:
        return f"queuectl -s {shlex.quote(self.root.text)} check --repair"

    def _by_owner_of(self, path: str) -> str | None:
        """The remedy that the owner of a file runs the repair; None where that is the present user."""
        try:
            owner = files.kernel.stat(path).st_uid
        except FileNotFoundError:
            return None
        if not users.HAVE_MODES or owner == os.geteuid():
            return None
        user = users.user_name(owner)
        who = user if users.user_id(user) == owner else f"'#{owner}'"
        return f"Run `sudo -u {who} {self._repair}`."

    def _against(self, one: StillRuns, owner: str | None) -> str:
        """The remedy for a process that still runs: it belongs to the user whose worker died."""
        if one.pid is None:
            return f"Run `{self._repair}` in that container, or stop the container first."
        by_owner = None if users.is_root() else self._by_owner_of(f"{self.root.workers}/{owner}.yaml")
        return by_owner or f"Look at `ps -fp {one.pid}`. Once it has ended, run `{self._repair}`."

    def _fate_of(self, owner: str | None) -> str:
        """Why a claim was left, in words."""
        if owner == self.me:
            return "the disk failed before its claim was ended"
        return f"its worker {owner} died"

    def _end(self, name: Name, now: datetime) -> str:
        root, owner = self.root, name.owner or ""
        fate = self._fate_of(owner)
        try:
            reading = claims.read(root, f"{root.folder(State.PROCESSING)}/{name}")
        except (BadJob, files.NotAFile, PermissionError) as error:
            # Crash: its command may have been running. From dead/ a person may mend and retry the job.
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
        # Root kills no process that only another user's file names.
        claims.read(root, claim.path, safety.trust(root, self.settings))
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
        """Stop the processes of a claim's command. Raises `StillRuns` where one may run on another host."""
        self.stop_remains(self.root, name, history)
        attempt = output.last_begun(self.root, name.id, last_attempt(history))
        if not self.onlooker.is_here(name.owner or "") and output.is_written(self.root, name.id, attempt):
            raise StillRuns(None)


def by_hand(
    root: Root, onlooker: Onlooker, values: Settings, stop_remains: StopRemains, now: datetime
) -> Recovered:
    """End the claims of every owner that this onlooker finds dead, under a name taken just for that."""
    me = presence.join(root, descriptions.BY_HAND, now)
    try:
        return Rescue(root, me.name, onlooker, values, stop_remains).recover(now)
    finally:
        me.leave()


def _culprit(error: OSError, path: str) -> str:
    """Where the cause of an error is: a directory that takes no names, or else the claim's file at `path`."""
    for place in (error.filename2, error.filename):
        folder = os.path.dirname(place or path)
        if files.is_folder(folder) and not files.kernel.access(folder, os.W_OK | os.X_OK):
            return folder
    return path


def _taken_over(claim: Claim, me: str) -> Claim:
    """The claim under the name of `me`. Raises `ClaimLost` where another process took it."""
    mine = Claim.of(claim.root, claim.name.owned(me), claim.record, claim.source)
    if not files.move(claim.path, mine.path):
        raise claims.lost(claim.root, claim.path)
    if not claim.root.medium.locks_tell and users.may_copy(mine.path):
        # Race: the dead worker's host may hold back writes, and the share may deliver them to this very
        # file, under any name, when that host is reached again. So the claim goes on in a new file.
        claims.write_anew(claim.root, mine.path, files.read(mine.path, files.MAX_WITH_HISTORY))
    return mine._replace(record=claims.read_ready(claim.root, mine.path))


def _undo_rewrite(root: Root, text: str, belonging: str) -> None:
    folder = root.folder(State.PROCESSING)
    if text.endswith(".old") and belonging not in root.texts_in(folder):
        files.move(f"{folder}/{text}", f"{folder}/{belonging}")
    else:
        files.remove(f"{folder}/{text}")
