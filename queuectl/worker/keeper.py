"""The keeper: shows signs of life, and looks for requests and for files that no event reported.

All that a worker does on a share while a command runs is done here. `look` is one look; the thread
around it is in `threads`.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.job.model import State
from queuectl.spool import liveness, requests
from queuectl.spool.requests import Requests
from queuectl.system import files
from queuectl.worker.silence import Silence, is_beat_due, is_doubtful, is_late

if TYPE_CHECKING:
    from queuectl.spool.output import Curb
    from queuectl.spool.wake import Bell, Wake
    from queuectl.worker.member import Member

#: Seconds between looks at the directories' times, where a look costs no round trip.
LOOK = 0.25
#: The time of a directory proves nothing for this many seconds after it last changed: a later change may
#: leave it the same time. A whole second may come from a file system that knows no shorter times (FAT: 2 s).
YOUNG, YOUNG_WHOLE = 0.1, 2.0


class Seen(NamedTuple):
    """A directory's mark, since when it is known, and whether a later look has proven it."""

    mark: files.Mark
    since: float
    is_proven: bool = False


def seen_again(before: Seen | None, mark: files.Mark, now: float) -> Seen:
    """What is known of a directory that shows this mark now."""
    if before is None or before.mark != mark:
        return Seen(mark, now)
    young = YOUNG if mark.mtime_ns % 1_000_000_000 else YOUNG_WHOLE
    return before._replace(is_proven=before.is_proven or now - before.since >= young)


class Keeper:
    """Beats for one member, hears what is asked of it, and notices a changed pending/.

    `requests` is what was heard last, `changed` is set by a look and cleared by the code that lists.
    `buried`: others took the member for dead, its description is gone.
    """

    def __init__(self, member: Member, control: Wake, bell: Bell) -> None:
        self._member = member
        self._control = control
        self._bell = bell
        self._hearing = threading.Lock()
        self._marks: dict[str, Seen] = {}
        self._done_told = 0
        self._watched = float("-inf")
        self._due, self._late_at = float("inf"), float("-inf")
        self.asked = threading.Event()
        self.silence = Silence()
        self.requests = Requests()
        self.changed = False
        self.curb: Curb | None = None
        self.buried = False

    @property
    def lease(self) -> float:
        """`lock_lease_seconds` as last read."""
        return self._member.live_lease

    def is_silent(self) -> bool:
        """Whether so much of the lease has gone without a sign of life that nothing may be begun."""
        return self.silence.has_lapsed or is_doubtful(self.silence.seconds(), self.lease)

    def is_cut_off(self) -> bool:
        """Whether the job at hand must be given up, as others may soon take it over.

        Never on a local disk: the lock is held there, and others go by it. A worker whose claims were
        taken all the same finds out by its next beat (`buried`).
        """
        if self._member.root.medium.locks_tell:
            return False
        if self.silence.becomes_doubtful(self.lease):
            self.asked.set()
        return self.silence.is_over(self.lease)

    def was_late(self, since: float) -> bool:
        """Whether a look since then came, or is to come, late: the process stood still, or the disk hangs."""
        return self._late_at >= since or is_late(times.clock.monotonic(), self._due)

    def rest(self) -> float:
        """Seconds until the next look is due."""
        beat = liveness.beats_every(self.lease)
        interval = LOOK
        if not self._member.root.medium.hears_all:
            interval = min(1.0, beat)
            with contextlib.suppress(OSError):  # a share that does not answer is looked at all the same
                interval = min(self._member.live.now().poll_interval, beat)
        self._due = times.clock.monotonic() + interval
        return interval

    def look(self) -> None:
        """One look: beat if it is time, hear requests, notice a changed pending/, curb the output."""
        now, root = times.clock.monotonic(), self._member.root
        if is_late(now, self._due):
            self._late_at = now
        try:
            self._beat_in_time()
        finally:  # a disk that takes no beat may well show what is asked
            self.hear()
        if now - self._watched >= liveness.looks_every(self.lease):
            self._watched = now
            self._member.watch()
        if self._may_differ(root.folder(State.PENDING)):
            self.changed = True
            self._bell.ring()
        if (curb := self.curb) is not None:
            curb.look()

    def hear(self, *, at_once: bool = False) -> None:
        """Take in what is asked of this worker. `at_once` asks nothing of a share that may be slow."""
        root = self._member.root
        if at_once and root.medium.is_remote:
            return
        with self._hearing:  # else the older of two listings might have the last word
            if not self._may_differ(root.workers):
                return
            try:
                asked = requests.requests_to(root, self._member.name)
            except OSError:
                self._marks.pop(root.workers, None)  # not seen: look again, whatever the folder's time
                raise
            if asked != self.requests:
                self.requests = asked
                self._ring()

    def _ring(self) -> None:
        self._control.ring()
        self._bell.ring()

    def _beat_in_time(self) -> None:
        member = self._member
        has_news = not member.root.medium.is_remote and member.done != self._done_told
        if is_beat_due(self.silence.seconds(), self.lease, has_news=has_news):
            self._done_told = member.done
            member.live.now()
            self._beat()

    def _beat(self) -> None:
        # Race: it is on the disk at some time from here on. Others may count from here.
        begun, root = times.clock.awake(), self._member.root
        try:
            self._member.beat(self._member.now())
        except FileNotFoundError:
            root.require()  # the share is gone: that is trouble, and no news of this worker
            if f"{self._member.name}.yaml" in root.texts_in(root.workers):
                raise
            self.buried = True
            self._ring()
            return
        self.silence.ends(begun, self.lease, may_lapse=not root.medium.locks_tell)

    def _may_differ(self, folder: str) -> bool:
        """Whether a directory may hold other names than at the last look."""
        if not self._member.root.medium.hears_all:
            return True
        before = self._marks.get(folder)
        self._marks[folder] = seen = seen_again(before, files.mark(folder), times.clock.monotonic())
        # The look that proves a mark has to list once more.
        return before is None or before.mark != seen.mark or not before.is_proven
