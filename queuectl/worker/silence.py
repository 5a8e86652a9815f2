"""How long the spool has not taken a beat of a worker, and what follows from that.

The rules are pure functions of seconds. The order in a lease: beat, be in doubt (`GIVE_UP`), end the command
(`DOUBT` later), kill it (`IN_ORDER` later). Once the lease is over, others may take over what was claimed.
"""

from __future__ import annotations

from queuectl import times
from queuectl.spool import liveness

#: The share of the lease after which the silence of a worker on a share is doubtful.
GIVE_UP = 0.7
#: The share of the lease that a doubt lasts. A worker that has just stood still beats meanwhile; one
#: that is cut off cannot, and gives its job up.
DOUBT = 0.1
#: The share of the lease that a command has between SIGTERM and SIGKILL.
IN_ORDER = 0.1
#: A beat publishes a new number of ended runs this many seconds after the last beat; not on a share.
TELL_DONE = 2.0
#: A look that comes later than this, in seconds, shows that the process stood still or that the disk hangs.
LATE = 0.5


def is_beat_due(silence: float, lease: float, *, has_news: bool) -> bool:
    """Whether to beat now. `has_news`: the description is out of date, and is cheap to rewrite."""
    return silence >= liveness.beats_every(lease) or (has_news and silence >= TELL_DONE)


def is_over(silence: float, doubt: float, lease: float) -> bool:
    """Whether a worker with this silence is cut off from its share.

    `doubt` is how long the silence had lasted when it was first found doubtful, negative before that. It
    is late where the process stood still: then half of what is left of the lease remains for a beat.
    """
    if silence >= lease:
        return True
    return 0 <= doubt <= silence - min(lease * DOUBT, (lease - doubt) / 2)


class Silence:
    """The signs of life of one worker, by a clock that goes on while the host sleeps, and its late looks.

    `has_lapsed`: a beat came later than the lease after the one before, and what was claimed before it
    may be another worker's by now. Code that holds no claim clears it.
    """

    def __init__(self) -> None:
        self._beaten = times.clock.awake()
        self._published = 0
        self._doubted = float("-inf")
        self._due, self._late_at = float("inf"), float("-inf")
        self.has_lapsed = False

    def expect_look(self, seconds: float) -> None:
        """The next look is due after these seconds."""
        self._due = times.clock.monotonic() + seconds

    def note_look(self) -> None:
        """A look begins."""
        now = times.clock.monotonic()
        if now > self._due + LATE:
            self._late_at = now

    def was_late(self, since: float) -> bool:
        """Whether a look since then came late, or is late now: the process stood still, or the disk hangs."""
        return self._late_at >= since or times.clock.monotonic() > self._due + LATE

    def is_beat_due(self, lease: float, done: int, *, is_cheap: bool) -> bool:
        """Whether to beat now. A beat also publishes the number of ended runs, early if that is cheap."""
        return is_beat_due(self.seconds(), lease, has_news=is_cheap and done != self._published)

    def seconds(self) -> float:
        """Seconds since the last beat that the spool took."""
        return times.clock.awake() - self._beaten

    def ends(self, begun: float, lease: float, done: int, *, may_lapse: bool) -> None:
        """The spool took a beat that was begun at this time and publishes this number of ended runs."""
        self.has_lapsed |= may_lapse and self.seconds() >= lease
        self._beaten, self._published = begun, done

    def is_doubtful(self, lease: float) -> bool:
        """Whether so much of the lease has gone that nothing may be begun."""
        return self.has_lapsed or times.clock.awake() - self._beaten > lease * GIVE_UP

    def becomes_doubtful(self, lease: float) -> bool:
        """Whether it is doubtful as of now, and was not at the last call."""
        now, beaten = times.clock.awake(), self._beaten
        if self._doubted >= beaten or now - beaten <= lease * GIVE_UP:
            return False
        self._doubted = now
        return True

    def is_over(self, lease: float) -> bool:
        """Whether the job at hand must be given up; see `is_over`."""
        now, beaten = times.clock.awake(), self._beaten
        return self.has_lapsed or is_over(now - beaten, self._doubted - beaten, lease)
