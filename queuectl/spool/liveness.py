"""Whether an owner of claims is alive: one judgement, from facts, for every command and every worker.

A worker writes a beat at least every `beats_every(lease)` and gives up its job when none of its
beats was taken for `GIVE_UP` of the lease. From one lease after its last beat on nothing of it runs.
So its claims may be taken over as soon as it is certain that a lease has passed since that beat.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from queuectl.times import duration

#: A worker looks whether it is time to beat no less often than it beats: two beats' time is the longest.
_BEATS_TO_MISS = 3


class Standing(Enum):
    """What an observer may conclude about an owner."""

    ALIVE = "alive"
    #: Its lock is held, so it lives, but it has not beaten for the lease: SIGSTOP, a paused container.
    FROZEN = "frozen"
    #: A share shows its claim but not (or not yet) its description.
    UNKNOWN = "unknown"
    #: No beat for the lease by the spool's clock. It is reported as dead; before anything of it is
    #: taken over it must be watched.
    SILENT = "silent"
    DEAD = "dead"


class Facts(NamedTuple):
    """What one look tells about an owner. Times are in seconds; None is what cannot be known.

    `is_locked`     its lock is held. Only on a local disk: there the one kernel that has the disk decides.
    `runs`          its process is there. Only on a share, and from the process namespace that it runs in.
    `age`           since its last beat by one clock, that of whoever keeps the files.
    `age_by_hosts`  the same by the clocks of the two hosts: this one's now, the owner's at that beat.
    `watched`       this observer has seen the same beat for so long by its monotonic clock, without a gap.
    """

    is_described: bool = True
    is_locked: bool | None = None
    runs: bool | None = None
    age: float | None = None
    age_by_hosts: float | None = None
    watched: float = 0.0


class Verdict(NamedTuple):
    """The judgement: the standing, the reason in words, and how long to watch until it is certain.

    `age` is that of the last beat in seconds, as in `Facts`.
    """

    standing: Standing
    why: str
    open_for: float = 0.0
    age: float | None = None

    @property
    def is_dead(self) -> bool:
        """Whether to call the owner dead: nothing is asked of it any more, and nobody waits for it."""
        return self.standing in {Standing.SILENT, Standing.DEAD}

    @property
    def is_open(self) -> bool:
        """Whether it takes watching to learn if its claims may be taken over."""
        return self.standing in {Standing.UNKNOWN, Standing.SILENT}

    @property
    def may_answer(self) -> bool:
        """Whether to wait for what the owner was asked for: not if it is dead, or frozen for certain."""
        return not self.is_dead and not (self.standing is Standing.FROZEN and self.open_for <= 0)


def beats_every(lease: float) -> float:
    """Seconds between two beats of a worker."""
    return min(lease / 5, 10.0)


def confirmation(lease: float) -> float:
    """Seconds in which a worker that reaches the spool has certainly beaten: several beats' time."""
    return _BEATS_TO_MISS * beats_every(lease)


def judge(facts: Facts, lease: float) -> Verdict:
    """Judge an owner by what one look told; whoever looks again hands in what has changed.

    A claim may be taken over (`DEAD`) in three cases:

    1. Its lock is free on a local disk, or its process is gone as seen from its own namespace.
    2. The beat stayed the same for the lease while this observer watched. No clock but the
       observer's monotonic one is used, so no step of a clock can hurt.
    3. The beat is older than the lease by the clock of whoever keeps the files and also by those of
       the two hosts, and stayed the same for `confirmation(lease)` of watching. A step of any single
       clock changes only one of the two ages: then the claim waits for case 2. If two clocks were set
       by more than the lease since that beat, the watching still protects every worker that reaches
       the spool, as it has beaten meanwhile.

    Case 3 lets a command settle in half a minute what case 2 would make it watch for the whole lease.
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
    left = (min(lease, confirmation(lease)) if is_agreed else lease) - facts.watched
    standing = Standing.DEAD if left <= 0 else Standing.SILENT if is_silent else Standing.ALIVE
    if not facts.is_described and standing is not Standing.DEAD:
        return Verdict(Standing.UNKNOWN, "it has no description in workers/", left)
    why = "it beats" if standing is Standing.ALIVE else silence
    return Verdict(standing, why, max(0.0, left), facts.age)
