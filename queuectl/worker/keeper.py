"""The threads beside the worker: one shows signs of life and hears what is asked, one cuts off in time."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import NotASpool
from queuectl.job.model import State
from queuectl.spool import liveness, requests
from queuectl.spool.requests import Requests
from queuectl.system import files
from queuectl.system.processes import keep_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.spool.output import Curb
    from queuectl.spool.wake import Bell, Wake
    from queuectl.system.processes import Command
    from queuectl.worker.member import Member

#: Seconds between looks at the directories' times, where a look costs no round trip; and between those
#: that are made all the same where events tell what comes.
LOOK, TOLD = 0.25, 1.0
#: The share of the lease after which the silence of a worker on a share is doubtful.
GIVE_UP = 0.7
#: The share of the lease that a doubt lasts: one who has just stood still beats meanwhile, one who
#: is cut off cannot, and gives its job up.
DOUBT = 0.1
#: The share of the lease that it has for that, before the command is killed over its head.
IN_ORDER = 0.1
#: Seconds by which the keeper may be late before it counts as having stood still, or hung.
LATE = 0.5
#: How many runs have ended is told after so many seconds, with a beat that comes early; not on a share.
TELL_DONE = 2.0
#: A worker that drains listens for jobs that are more urgent than those listed after so many seconds,
#: or once fewer runs than this have ended since the last look: to begin takes the time of some twenty
#: brisk ones. Before, it meets them as it lists anew, every `poll_interval`.
BUSY, BRISK = 5.0, 2
#: A directory's time proves nothing for so many seconds after it last changed: a later change may
#: bear the same time. Where it is a whole second, the file system may know no shorter ones (FAT: 2 s).
YOUNG, YOUNG_WHOLE = 0.1, 2.0


class _Seen(NamedTuple):
    """A directory's mark, since when it is known, and whether a look that long after it has found no more."""

    mark: files.Mark
    since: float
    is_proven: bool = False


class Keeper(threading.Thread):
    """Beats, and looks for requests and for files that no event told of.

    All that the worker does on a share while a command runs is done here: if the share hangs, this
    thread hangs, and the worker sees that it does (`silence`).
    """

    def __init__(self, member: Member, control: Wake, bell: Bell) -> None:
        super().__init__(name="keeper", daemon=True)
        self._member = member
        self._control = control
        self._bell = bell
        self._is_ending = False
        self._hearing = threading.Lock()
        self._medium = member.root.medium
        self._marks: dict[str, _Seen] = {}
        self._beaten = times.clock.awake()
        self._doubted = float("-inf")
        self._back_by, self._late_at = float("inf"), float("-inf")
        self._watched = float("-inf")
        self._done_told = 0
        self.requests = Requests()
        self.changed = False
        self.curb: Curb | None = None
        self.trouble: Exception | None = None
        self.buried = False
        #: On a share: a beat came later than the lease after the one before, and what was claimed
        #: before that may be another worker's by now. Whoever holds no claim any more clears it.
        self.has_lapsed = False

    def silence(self) -> float:
        """Seconds since the last sign of life that the spool took, a suspension of this host included."""
        return times.clock.awake() - self._beaten

    def watch_output(self, curb: Curb | None) -> None:
        """Curb what a command prints from now on; None is the end of it.

        Where looks are few one is made at once.
        """
        self.curb = curb
        if curb is not None and self._is_told:
            self._bell.asked.set()

    @property
    def lease(self) -> float:
        """`lock_lease_seconds` as last read."""
        return self._member.live_lease

    def is_silent(self) -> bool:
        """Whether so much of the lease has gone without a sign of life that nothing may be begun."""
        return self.has_lapsed or self.silence() > self.lease * GIVE_UP

    def is_cut_off(self) -> bool:
        """Whether the job at hand must be given up, as others may soon take it over.

        Never on a local disk, where nobody does: the lock is held. A worker of which they did all
        the same finds out by its next beat (`buried`).
        """
        if self._medium.locks_tell:
            return False
        now, beaten = times.clock.awake(), self._beaten
        silence = now - beaten
        if silence > self.lease * GIVE_UP and self._doubted < beaten:
            self._doubted = now
            self._bell.asked.set()
        return self.has_lapsed or is_over(silence, self._doubted - beaten, self.lease)

    def was_late(self, since: float) -> bool:
        """Whether a look since then came, or is to come, late: the process stood still, or the disk hangs."""
        return self._late_at >= since or times.clock.monotonic() > self._back_by + LATE

    def run(self) -> None:
        """Look until `end`."""
        hang_at, done = times.clock.monotonic() + BUSY, 0
        while self._rests():
            is_brisk, done = self._member.done - done >= BRISK, self._member.done
            if (not is_brisk or times.clock.monotonic() >= hang_at) and self._bell.hang():
                keep_descriptors()
            try:
                self.look()
                self.trouble = None
            except (OSError, NotASpool) as error:
                self.trouble = error

    def _rests(self) -> bool:
        """Wait until it is time to look; False at the end."""
        interval = self._interval()
        self._back_by = times.clock.monotonic() + interval
        self._bell.asked.wait(interval)
        self._bell.asked.clear()
        if (now := times.clock.monotonic()) > self._back_by + LATE:
            self._late_at = now
        return not self._is_ending

    @property
    def _is_told(self) -> bool:
        return self._bell.is_listening and self._medium.hears_all

    def _interval(self) -> float:
        beat = liveness.beats_every(self.lease)
        if self._medium.hears_all:
            # A request to stop is heard as it is made, and its limit once it has been written.
            is_calm = self.curb is None and not self.requests.stop
            return min(TOLD, beat) if is_calm and self._is_told else LOOK
        with contextlib.suppress(OSError):
            return min(self._member.live.now().poll_interval, beat)
        return min(1.0, beat)

    def look(self) -> None:
        """One look: beat if it is time, hear requests, notice a changed pending/, curb the output."""
        root = self._member.root
        try:
            self._beat_in_time()
        finally:  # a disk that takes no beat may well show what is asked
            self.hear()
        if times.clock.monotonic() - self._watched >= liveness.looks_every(self.lease):
            self._watched = times.clock.monotonic()
            self._member.watch()
        if self._may_differ(root.folder(State.PENDING)):
            self.changed = True
            self._bell.ring()
        if (curb := self.curb) is not None:
            curb.look()

    def hear(self, *, at_once: bool = False) -> None:
        """Take in what is asked of this worker. `at_once` asks nothing of a share that may be slow."""
        root = self._member.root
        if at_once and self._medium.is_remote:
            return
        with self._hearing:  # else the older of two listings might have the last word
            if not self._may_differ(root.workers):
                return
            try:
                asked = requests.requests_to(root, self._member.name)
            except OSError:
                self._marks.pop(root.workers, None)  # not seen: look again, whatever the time of the folder
                raise
            if asked != self.requests:
                self.requests = asked
                self._control.ring()
                self._bell.ring()

    def _beat_in_time(self) -> None:
        news = not self._medium.is_remote and self._member.done != self._done_told
        if (news and self.silence() >= TELL_DONE) or self.silence() >= liveness.beats_every(self.lease):
            self._done_told = self._member.done
            self._member.live.now()
            self._beat()

    def _beat(self) -> None:
        # Race: it is on the disk at some time from here on. Whoever watches it may count from here.
        begun = times.clock.awake()
        try:
            self._member.beat(self._member.now())
        except FileNotFoundError:
            root = self._member.root
            root.require()  # the share is gone: that is trouble, and no news of this worker
            if f"{self._member.name}.yaml" in root.texts_in(root.workers):
                raise
            self.buried = True
            self._control.ring()
            self._bell.ring()
            return
        self.has_lapsed |= not self._medium.locks_tell and self.silence() >= self.lease
        self._beaten = begun

    def _may_differ(self, folder: str) -> bool:
        """Whether a directory may hold other names than at the last look."""
        if not self._medium.hears_all:
            return True
        mark, now = files.mark(folder), times.clock.monotonic()
        seen = self._marks.get(folder)
        if seen is None or seen.mark != mark:
            self._marks[folder] = _Seen(mark, now)
            return True
        if seen.is_proven:
            return False
        young = YOUNG if mark.mtime_ns % 1_000_000_000 else YOUNG_WHOLE
        self._marks[folder] = seen._replace(is_proven=now - seen.since >= young)
        return True  # the look that proves it is this one

    def end(self) -> None:
        """Stop looking; returns soon if the share hangs."""
        self._is_ending = True
        self._bell.asked.set()
        if self.is_alive():  # it may never have been started
            self.join(1.0)


def is_over(silence: float, doubt: float, lease: float) -> bool:
    """Whether a silence of so many seconds is that of a worker that is cut off from its share.

    `doubt` is how long it had lasted when it was first looked at and found doubtful, negative before
    that. Later than it should where the process stood still: then it has half of what is left of the
    lease to beat. Once the lease is over others may have taken over what it held.
    """
    if silence >= lease:
        return True
    return 0 <= doubt <= silence - min(lease * DOUBT, (lease - doubt) / 2)


class Guard(threading.Thread):
    """Ends the command at hand once the lease is nearly over, whatever the worker itself hangs in.

    On a share any call may hang for as long as the server is away: a line for the log, an event for
    the job's file. This thread asks nothing of the share.
    """

    def __init__(self, keeper: Keeper, command: Callable[[], Command | None]) -> None:
        """`command` returns the one that runs now."""
        super().__init__(name="guard", daemon=True)
        self._keeper = keeper
        self._ending = threading.Event()
        self._command = command

    def run(self) -> None:
        """Look until `end`."""
        begun = None
        while not self._ending.wait(self._keeper.lease * IN_ORDER / 4):
            command = self._command()
            if command is None or not self._keeper.is_cut_off():
                begun = None
                continue
            now = times.clock.monotonic()
            begun = now if begun is None else begun
            # An engine hears of the end from its launcher alone, and of a kill it does not.
            command.cut_off(at_once=now - begun >= self._keeper.lease * IN_ORDER / 2)

    def end(self) -> None:
        """Stop looking."""
        self._ending.set()
