"""When and how a command or its worker ends: rules that are pure functions of facts and times.

Times are those of `times.clock.monotonic()`, in seconds.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

#: Signals to stop within this many seconds are one request. A command that ends by such a signal may
#: end this long before its worker hears of the request.
ONCE = 0.5
#: Seconds between two SIGKILLs to a command that does not end.
AGAIN = 1.0
#: Seconds between looks at what a command has left in its session.
LINGER = 0.01
#: Exit statuses of a command that was ended by what a service manager or a terminal sends to all processes
#: of a service: SIGHUP, SIGINT, SIGTERM. A shell reports 128 + the signal's number, as we do.
BY_THE_STOP = frozenset({129, 130, 143})


class Why(Enum):
    """Why a worker ends a command. The value is the error in the history."""

    LOST = "the claim was lost"
    CANCELLED = "cancelled"
    STOPPED = "the worker was stopped"
    #: Others may take the job over after the lease: nothing of it may run by then.
    OUT_OF_REACH = "the spool was out of reach, or its worker stood still, for too long"
    OVERDUE = "it ran longer than its limit"


class Facts(NamedTuple):
    """What speaks for ending a command that runs."""

    is_lost: bool = False
    is_cancelled: bool = False
    is_to_give_back: bool = False
    is_cut_off: bool = False
    #: Seconds that it has run, and may run; no limit is 0.
    seconds: float = 0.0
    limit: float = 0.0


def reason_to_end(facts: Facts) -> Why | None:
    """Why to end the command now; None lets it run. The first reason that holds counts."""
    if facts.is_lost:
        return Why.LOST
    if facts.is_cancelled:
        return Why.CANCELLED
    if facts.is_to_give_back:
        return Why.STOPPED
    if facts.is_cut_off:
        return Why.OUT_OF_REACH
    if facts.limit and facts.seconds >= facts.limit:
        return Why.OVERDUE
    return None


class Stopping(NamedTuple):
    """A command that has been asked to end, and when it is killed; after that, when it is killed again."""

    why: Why
    kill_at: float
    is_killed: bool = False

    def killed(self, now: float) -> Stopping:
        """The same after a SIGKILL."""
        return self._replace(kill_at=now + AGAIN, is_killed=True)


class Act(Enum):
    """What to do about a command that has been asked to end."""

    WAIT = "wait until it has ended or is to be killed"
    KILL = "kill it"
    #: It ended within its grace: what it left in its session has the rest of it.
    LINGER = "wait while something of it is left"
    REAP = "collect its exit status"


def next_act(stopping: Stopping, now: float, *, has_ended: bool) -> Act:
    """What to do now about a command that has been asked to end."""
    if not has_ended:
        return Act.KILL if now >= stopping.kill_at else Act.WAIT
    return Act.REAP if stopping.is_killed or now >= stopping.kill_at else Act.LINGER


class Cause(Enum):
    """Why a command ended without success."""

    ITSELF = "it failed"
    STOP = "the request to its worker"
    OPEN = "not known yet"


def cause_of_end(status: int, since_end: float, *, is_signalled: bool, is_asked: bool) -> Cause:
    """Whether a command that did not succeed ended because its worker is to stop.

    `is_signalled` says that a signal asked this worker to stop, `is_asked` that anything did. A signal
    often goes to all processes of a service, and a command may clean up for minutes before it ends with
    any status. Nobody can see whether it got the signal, so every failure after ours counts as caused by
    it: a failure of its own then costs one more run. A request in the spool reaches no command.
    Race: a command that ends by the signal may do so before its worker hears of it.
    """
    if is_signalled:
        return Cause.STOP
    if status not in BY_THE_STOP:
        return Cause.ITSELF
    if is_asked:
        return Cause.STOP
    return Cause.OPEN if since_end < ONCE else Cause.ITSELF


class Stop:
    """How soon a worker is to end, by signals and by requests in the spool."""

    def __init__(self) -> None:
        self.is_asked = False
        self.is_urgent = False
        self.is_signalled = False
        self._asked_at = float("-inf")
        self._by = float("inf")
        self._limit: float | None = None

    def ask(self, now: float) -> bool:
        """Take a signal in: the first lets the job at hand end, a later one does not.

        False where it belongs to one that came less than `ONCE` before.
        """
        if now - self._asked_at < ONCE:
            return False
        self._asked_at = now
        self.is_signalled = True
        self.is_urgent = self.is_asked
        self.is_asked = True
        return True

    def hear(self, limit: float | None, now: float) -> None:
        """Take a request in that the spool holds. The job at hand is given back after `limit` seconds."""
        self.is_asked = True
        if limit is not None and limit != self._limit:
            self._limit = limit
            self._by = min(self._by, now + limit)

    def seconds_left(self, now: float) -> float:
        """Seconds until the job at hand is to be given back."""
        return 0.0 if self.is_urgent else max(0.0, self._by - now)
