"""A member of a spool: a presence with a name, the jobs that wait as it knows them, and its claims."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from queuectl import settings
from queuectl.errors import StorageTrouble
from queuectl.job.history import COMPLETED, STARTED, Event, last_attempt, last_start
from queuectl.job.model import State
from queuectl.rules.dependents import Dependents
from queuectl.rules.groups import Slots
from queuectl.rules.start import Start
from queuectl.spool import aside, claiming, finishing, ids, jobs, output, presence
from queuectl.spool.dropping import Drops
from queuectl.spool.waiting import Waiting
from queuectl.system import files
from queuectl.times import iso
from queuectl.worker.others import Others

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import TracebackType
    from typing import Any, Self

    from queuectl.spool import recovery
    from queuectl.spool.claims import Claim
    from queuectl.spool.edits import Place
    from queuectl.spool.presence import Presence
    from queuectl.spool.root import Root


class Member:
    """A claimant of a spool, from `join` to `leave`. Its claims are taken by others once it is dead.

    Used as a context manager it leaves at the end. It hears no requests; `worker stop` and `cancel` say
    so. A program that holds a claim on a network share for longer than a third of `lock_lease_seconds`
    calls `beat` meanwhile.
    """

    def __init__(
        self, root: Root, live: settings.Live, presence: Presence, listed: Waiting | None, only: str | None
    ) -> None:
        self.root = root
        self.live = live
        self.presence = presence
        self.name = presence.name
        self.done = 0
        self.others = Others(root, live, presence.name)
        self.waiting = listed or Waiting(root)
        self.slots = Slots(root, self.name, only)
        self.waiting.admit_by(self.slots)
        abandoned = ids.Abandoned(root)
        self._drops = Drops(root, self.name, abandoned)
        rules = Start(root, live, self.slots)
        self._claimant = claiming.Claimant(presence.name, live, self.waiting, abandoned, rules.ask)
        self._unsettled: list[str] = []
        self.dependents = Dependents(root, self.name)
        self.dependents.take_in(self.waiting.parked)

    @classmethod
    def join(
        cls, root: Root, kind: str, now: datetime, listed: Waiting | None = None, only: str | None = None
    ) -> Member:
        """Become a member of this spool; `kind` is a word for `worker status`.

        `listed` are the names that wait, if they have just been listed. With `only` it claims jobs of this
        group alone.
        """
        live = settings.Live(root.text, root.medium)
        live.now()  # how long a silence may last counts from the first beat
        return cls(root, live, presence.join(root, kind, now), listed, only)

    def leave(self) -> None:
        """Go; the caller holds no claim any more."""
        self.presence.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def now(self) -> datetime:
        """The time that this member goes by: see `Presence.now`."""
        return self.presence.now()

    def beat(self, now: datetime) -> None:
        """Show a sign of life to other hosts and, on a share, read its clock."""
        self.presence.beat(now, self.done)
        if self.root.medium.has_own_clock:
            self.presence.read_clock()

    # ── what waits ────────────────────────────────────────────────────────────────────────

    def look(
        self, now: datetime, heard: Iterable[str] = (), edited: Iterable[Place] = (), *, again: bool = False
    ) -> None:
        """Take in reported names and edits, list the directories if it is time, and judge dropped files."""
        values, waiting = self.live.now(), self.waiting
        self.slots.tidy(now)
        heard = list(heard)
        waiting.hear(heard)
        self.dependents.hear(heard)
        waiting.edits.hear(edited)
        if waiting.is_stale(0.0 if again else values.poll_interval):
            self.relist(now)
        candidates = [*waiting.strangers, *self._unsettled]
        waiting.strangers = []
        if candidates:
            self._unsettled, filed = self._drops.look(candidates, values, now)
            for text in filed:
                waiting.expect(State.PENDING, text)
        if self.dependents.is_due:
            self.judge(now)

    def judge(self, now: datetime) -> None:
        """Judge some of the parked jobs that are to be judged, and take in those that may start."""
        for state, text in self.dependents.judge(now):
            self.waiting.expect(state, text)

    def relist(self, now: datetime, *, sweeps: bool = False) -> None:
        """List the directories, and find parked jobs to judge: if it is time, or if `sweeps` is true."""
        self.waiting.relist(now)
        self.dependents.take_in(self.waiting.parked)
        self.dependents.sweep(self.waiting.names, at_once=sweeps)

    @property
    def is_settling(self) -> bool:
        """Whether a dropped file is being watched until it is whole."""
        return bool(self._unsettled)

    def is_drained(self, now: datetime, awaited: Collection[State] = ()) -> bool:
        """Whether nothing is left to run now: by a fresh look at names, drops and doubtful dates.

        A job of an `awaited` state that is due later is left, too. So is a claim whose owner is dead,
        or may turn out to be (`others.doubts` says who).
        """
        self.relist(now, sweeps=True)
        self.look(now)
        if self.dependents.is_busy:
            self.judge(now)
        self.waiting.doubt(now)
        if self.is_settling or self.waiting.has_due(now) or self._has_later(awaited):
            return False
        if self.dependents.is_busy or self.dependents.is_behind_a_run or self.waits_for_slots:
            return False
        return not self.others.may_leave_claims()

    @property
    def waits_for_slots(self) -> bool:
        """Whether jobs are due that only wait for slots which others will give back."""
        return any(map(self.slots.may_open, self.waiting.due_groups()))

    def _has_later(self, states: Collection[State]) -> bool:
        """Whether a job of these states that this member takes is due later."""
        return any(self.slots.takes(group) for state in states for group in self.waiting.later_groups(state))

    def recover(
        self, stop_remains: recovery.StopRemains, now: datetime, held: frozenset[str] = frozenset()
    ) -> list[str]:
        """Every few seconds: end the claims of dead workers; returns in words what is new of it.

        `held` are the names of this member's own claims; any other was left by an error of the disk.
        """
        if not self.others.is_recovery_due():
            return []
        self.slots.doubt()
        new = self.others.recover(stop_remains, now, held)
        if new:
            self.relist(now)
        return new

    # ── a claim ───────────────────────────────────────────────────────────────────────────

    def claim(self, now: datetime, most: int = sys.maxsize) -> Claim | None:
        """Claim the most urgent job that may run now; None when there is none among those listed.

        Also None when as many files as `most` were no claims after all. Raises `OSError` when the
        spool is out of reach.
        """
        return self._claimant.claim(now, most)

    def begin(self, claim: Claim) -> tuple[Claim, int, tuple[int, int]] | None:
        """Open the logs of the next attempt (two descriptors): from here on the claim counts as a run.

        None if it cannot be run and was put aside, with the reason: another file with this id has begun
        this attempt, or its log cannot be opened.
        """
        attempt = last_attempt(claim.job.history) + 1
        while True:
            try:
                return claim, attempt, output.open_logs(self.root, claim.id, attempt)
            except FileExistsError:
                others = [one for one in jobs.names_of(self.root, claim.id) if one.path != claim.path]
                if others:
                    reason = f"Another file has the same id: {others[0].path}."
                    aside.bury(self.root, claim.name, claim.name.free(), reason, aside.OTHER_ID)
                    return None
                attempt += 1  # a power cut took the history's last lines, not the log
            except OSError as error:
                if StorageTrouble.explains(error) or isinstance(error, FileNotFoundError):
                    raise
                # No job is to blame if none can have logs.
                files.probe(f"{self.root.logs}/.{self.name}.probe")
                reason = f"Its log cannot be opened: {error}."
                aside.bury(self.root, claim.name, claim.name.free(), reason)
                return None

    def told(self, claim: Claim) -> dict[str, str]:
        """The variables in which the command of a claim finds its worker and its slots."""
        slots = self.slots.names(claim.name)
        return {"QUEUECTL_WORKER": self.name} | ({"QUEUECTL_SLOT": ",".join(slots)} if slots else {})

    def started(self, attempt: int, pid: int | None, now: datetime) -> Event:
        """The event of a command's start; without `pid`, of one that could not start."""
        start: Event = {"event": STARTED, "attempt": attempt, "at": iso(now), "worker": self.name}
        return start if pid is None else {**start, "pid": pid}

    def note(self, claim: Claim, *added: Event) -> Claim:
        """Add events to the file of a claim."""
        return claim.noted(*added, sync=self.live.last.syncs)

    def complete(self, claim: Claim, facts: dict[str, Any], now: datetime) -> State:
        """End a claim as done; the facts (exit_code, seconds …) go into the history."""
        return self.end(claim, finishing.outcome(COMPLETED, claim, facts, now))

    def fail(self, claim: Claim, facts: dict[str, Any], now: datetime, luck: float) -> State:
        """End a claim as failed; it is tried again by the policy, or is dead."""
        return self.end(claim, finishing.failed(claim, facts, self.live.last, now, luck))

    def end(self, claim: Claim, outcome: Event) -> State:
        """End a claim with an outcome (see `finishing`): recorded first, then moved; where to.

        Raises `ClaimLost`, and nothing is recorded then, or `SpoolAway`.
        """
        return self.settle(self.note(claim, outcome), outcome)

    def settle(self, claim: Claim, outcome: Event) -> State:
        """Move a claim to where the outcome in its file sends it."""
        state, name = finishing.settle(claim, outcome, sync=self.live.last.syncs)
        self.done += 1
        self.slots.give_back(claim.name, last_start(claim.history) if claim.name.group else None)
        if state in {State.PENDING, State.FAILED}:
            self.waiting.expect(state, str(name))
        else:
            self.dependents.ended(claim.id)
        return state

    def give_back(self, claim: Claim) -> None:
        """Put a claim back whose command was never started; it is the next again."""
        self.waiting.expect(claim.source, str(finishing.give_back(claim)))
        self.slots.give_back(claim.name)


def seconds_until(moment: datetime | None, now: datetime, longest: float) -> float:
    """How long to wait for a moment, never longer than `longest` (clocks are set)."""
    if moment is None:
        return longest
    return min(max(0.0, (moment - now) / timedelta(seconds=1)), longest)
