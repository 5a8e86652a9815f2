"""The judgement whether an owner of claims is alive, from facts, for every command and every worker.

A worker beats at least every `beats_every(lease)` and gives up its job when the spool has taken none
of its beats for `keeper.GIVE_UP` of the lease. One lease after its last beat none of its commands runs.
So its claims may be taken over once it is certain that a lease has passed since that beat.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from queuectl.times import duration

#: A worker checks at least once per beat whether one is due, so two beats are never further apart than this.
_BEATS_TO_MISS = 3
#: An observer restarts its count of silence after a gap of this many intervals between its looks.
GAP = 3
#: Seconds between the looks of a command that watches. SMB never shows a beat that is read more often.
GLANCE = 2.0


class Standing(Enum):
    """The conclusion of an observer about an owner."""

    ALIVE = "alive"
    #: It lives, as its lock is held, but has not beaten for the lease: SIGSTOP, a paused container.
    FROZEN = "frozen"
    #: A share shows its claim but not (or not yet) its description.
    UNKNOWN = "unknown"
    #: No beat for the lease by the spool's clock. It is reported as dead; before anything of it is
    #: taken over it must be watched.
    SILENT = "silent"
    DEAD = "dead"


class Facts(NamedTuple):
    """The facts that one look at an owner finds. Times are in seconds; None stands for an unknown fact.

    `is_locked`     its lock is held; known on a local disk only, where one kernel decides.
    `runs`          its process is there; known on a share only, from within its process namespace.
    `age`           time since its last beat, by the clock that dates the files.
    `age_by_hosts`  the same by the clocks of the two hosts: this one's now, the owner's at that beat.
    `watched`       time for which this observer saw the same beat without a gap, by its monotonic clock.
    """

    is_described: bool = True
    is_locked: bool | None = None
    runs: bool | None = None
    age: float | None = None
    age_by_hosts: float | None = None
    watched: float = 0.0


class Verdict(NamedTuple):
    """The judgement: the standing, the reason in words, and for how many seconds to watch to be certain.

    `age` is as in `Facts`.
    """

    standing: Standing
    why: str
    open_for: float = 0.0
    age: float | None = None

    @property
    def is_dead(self) -> bool:
        """Whether to report the owner as dead. Nobody sends it a request or waits for it."""
        return self.standing in {Standing.SILENT, Standing.DEAD}

    @property
    def is_open(self) -> bool:
        """Whether the owner must be watched before its claims may be taken over."""
        return self.standing in {Standing.UNKNOWN, Standing.SILENT}

    @property
    def may_answer(self) -> bool:
        """Whether to wait for the answer to a request: not if the owner is dead, or frozen for certain."""
        return not self.is_dead and not (self.standing is Standing.FROZEN and self.open_for <= 0)


def beats_every(lease: float) -> float:
    """Seconds between two beats of a worker."""
    return min(lease / 5, 10.0)


def confirmation(lease: float) -> float:
    """Seconds within which every worker that reaches the spool has beaten."""
    return _BEATS_TO_MISS * beats_every(lease)


def looks_every(lease: float) -> float:
    """Seconds between looks at the beats of others: often enough to judge within the lease."""
    return min(max(2.0, lease / 10), 30.0)


class Seen(NamedTuple):
    """A beat that an observer has seen: its count, since when, and at which last look (monotonic)."""

    beat: int | None
    since: float
    at: float


def seen(known: Seen | None, beat: int | None, now: float, lease: float) -> Seen:
    """What an observer has seen of an owner after a look at `now` found this beat.

    Race: the count restarts after a gap between looks. A share that was out of reach hid the beats of
    the living, too.
    """
    if known is None or known.beat != beat or now - known.at > GAP * looks_every(lease):
        return Seen(beat, now, now)
    return known._replace(at=now)


def judge(facts: Facts, lease: float) -> Verdict:
    """Judge an owner by the facts of one look.

    A claim may be taken over (`DEAD`) in three cases:

    1. Its lock is free on a local disk, or its process is gone as seen from its own namespace.
    2. The beat stayed the same for the lease while this observer watched. This uses only the
       observer's monotonic clock, so no step of a clock matters.
    3. The beat is older than the lease by the clock that dates the files and also by the clocks of
       the two hosts, and stayed the same for `confirmation(lease)` of watching. A step of one clock
       changes only one of the two ages; then the claim waits for case 2. If two clocks were stepped
       by more than the lease since that beat, the watching still protects every worker that reaches
       the spool, because such a worker has beaten meanwhile.

    Case 3 lets a command decide in half a minute instead of a whole lease.
    """
    if facts.is_locked is False or facts.runs is False:
        return Verdict(Standing.DEAD, "its process has ended", age=facts.age)
    is_silent = facts.age is not None and facts.age >= lease
    silence = f"no sign of life for {duration(max(facts.age or 0.0, facts.watched))}"
    if facts.is_locked:
        if is_silent:
            why, left = f"its process is there, but gave {silence}", confirmation(lease) - facts.watched
            return Verdict(Standing.FROZEN, why, left, facts.age)
        return Verdict(Standing.ALIVE, "its process is there", age=facts.age)
    is_agreed = is_silent and facts.age_by_hosts is not None and facts.age_by_hosts >= lease
    left = (confirmation(lease) if is_agreed else lease) - facts.watched
    standing = Standing.DEAD if left <= 0 else Standing.SILENT if is_silent else Standing.ALIVE
    if not facts.is_described and standing is not Standing.DEAD:
        return Verdict(Standing.UNKNOWN, "it has no description in workers/", left)
    why = "it beats" if standing is Standing.ALIVE else silence
    return Verdict(standing, why, max(0.0, left), facts.age)
