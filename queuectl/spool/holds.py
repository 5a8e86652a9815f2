"""Jobs that are left alone for a while: a program is writing to the file, or its id is not free yet.

On a local disk the kernel says whether a file is open for writing. On a share only time tells: a file is
whole once it has not changed for `Medium.settle_time`.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.spool import presence
from queuectl.system import medium
from queuectl.times import parse_moment

if TYPE_CHECKING:
    from queuectl.job.model import Job
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: A job is left alone for this many seconds after its file was found open for writing.
HOLD = 0.5
#: The same for the first time: inotify reports a close before the kernel frees the lease.
CLOSING = 0.005
#: A change this many seconds after the last event in the file, or its filing, is the queue's own. It
#: allows for two clocks that differ by `presence.TOLERANCE`.
OURS = medium.SETTLE_UNWATCHED + presence.TOLERANCE
#: A job that has been left alone for this many seconds is reported, once.
LONG_HELD = 10.0


class BeingWritten(Exception):
    """Somebody is changing the job's file.

    `written` is the time of the last change on a share, and None where the kernel sees the writer.
    """

    def __init__(self, path: str, written: float | None) -> None:
        super().__init__(path)
        self.written = written


class Hold(NamedTuple):
    """A job that is left alone: until when and since when (monotonic), and for which change of its file."""

    until: float
    since: float
    written: float | None = None
    is_told: bool = False


class NotYet(Exception):
    """A job cannot be judged now: it is tried again after these seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Holds:
    """The jobs that are left alone, by id. One per worker."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._held: dict[str, Hold] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def hear(self, name: Name) -> None:
        """Try a job again at once, as its file was closed; on a share only time tells that."""
        hold = self._held.get(name.id)
        if hold and hold.written is None:
            self._held[name.id] = hold._replace(until=0.0)

    def hold(self, name: Name, written: float | None) -> None:
        """Leave a job alone as somebody is writing to its file: for a while, or until `hear`."""
        now = times.clock.monotonic()
        pause = medium.SETTLE_UNWATCHED
        if written is None:
            pause = HOLD if name.id in self._held else CLOSING
        hold = self._held.get(name.id) or Hold(now, now)
        if not hold.is_told and now - hold.since >= LONG_HELD:
            log.warning(
                "job %s: it does not run yet, as a program has been writing to its file for %.0f s",
                name.id,
                now - hold.since,
            )
            hold = hold._replace(is_told=True)
        self._held[name.id] = hold._replace(until=now + pause, written=written)

    def postpone(self, name: Name, seconds: float) -> None:
        """Leave a job alone for this long, or until `hear`."""
        now = times.clock.monotonic()
        self._held[name.id] = Hold(now + seconds, now)

    def let_go(self, name: Name) -> None:
        """Forget that a job was left alone: its file is whole."""
        self._held.pop(name.id, None)

    def settled(self, name: Name) -> float | None:
        """The time of the last change of a file that was left alone because of it."""
        hold = self._held.get(name.id)
        return hold.written if hold else None

    def left(self, name: Name, path: str) -> float | None:
        """Seconds for which a job is to be left alone still; None where it may be claimed.

        The lease is asked of the file where it lies: a rename to ask would wake other workers.
        """
        hold = self._held.get(name.id)
        if hold is None:
            return None
        now = times.clock.monotonic()
        if hold.until > now:
            return hold.until - now
        if hold.written is None and self._root.medium.being_written(path):
            self.hold(name, None)
            return self._held[name.id].until - now
        return None


def may_be_open(written: float, now: float) -> bool:
    """Whether a file on a share changed so shortly ago that its writer may not be done."""
    return now - written < OURS


def written_by_us(job: Job) -> float:
    """When the queue last wrote to a job's file, in seconds since 1970, as its content says."""
    moments = [job.created_at] if job.created_at else []
    at = job.history[-1].get("at") if job.history else None
    with contextlib.suppress(ValueError):  # a person may write anything there
        moments += [parse_moment(at)] if isinstance(at, str) else []
    return max((moment.timestamp() for moment in moments), default=float("-inf"))
