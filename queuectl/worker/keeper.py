"""The keeper: shows signs of life, and looks for requests and for files that no event reported.

All that a worker does on a share while a command runs is done here. `Keeper.look` is one look. Two threads
stand beside a worker: `Looks` has the keeper look in time, `Guard` ends a command in time.
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
from queuectl.system.processes import keep_descriptors
from queuectl.worker.silence import IN_ORDER, Silence

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.spool.output import Curb
    from queuectl.spool.wake import Bell, Wake
    from queuectl.system.processes import Command
    from queuectl.worker.member import Member
    from queuectl.worker.stopping import Stop

#: Seconds between looks at the directories' times, where a look costs no round trip.
LOOK = 0.25
#: The time of a directory proves nothing for this many seconds after it last changed: a later change may
#: leave it the same time. A whole second may come from a file system that knows no shorter times (FAT: 2 s).
YOUNG, YOUNG_WHOLE = 0.1, 2.0
#: A worker that drains listens for events after this many seconds, or once fewer runs than `FEW` have
#: ended between two looks. To begin takes the time of some twenty short runs. Until then it meets a job
#: that is more urgent than those it has listed at the next `poll_interval`.
BUSY, FEW = 5.0, 2


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

    `requests` is what was heard last, `changed` is set by a look and cleared by the code that lists. A set
    `asked` makes the thread look at once. `buried`: others took the member for dead, its description is gone.
    """

    def __init__(self, member: Member, control: Wake, bell: Bell) -> None:
        self.member = member
        self._control = control
        self.bell = bell
        self._hearing = threading.Lock()
        self._marks: dict[str, Seen] = {}
        self.asked = threading.Event()
        self.silence = Silence()
        self.requests = Requests()
        self.changed = False
        self.curb: Curb | None = None
        self.buried = False

    @property
    def lease(self) -> float:
        """`lock_lease_seconds` as last read; asks nothing of a disk that may hang."""
        return self.member.live.last.lock_lease_seconds

    @property
    def grace(self) -> float:
        """`stop_grace_seconds` as last read."""
        return self.member.live.last.stop_grace_seconds

    def wants_end(self, stop: Stop) -> bool:
        """Whether the worker is to end: it was asked to, by a signal or by a file, or is taken for dead."""
        if self.requests.stop:
            stop.hear(self.requests.limit, times.clock.monotonic())
        return stop.is_asked or self.buried

    def forbids_claims(self) -> bool:
        """Whether nothing may be claimed now: a person wants it so, or this worker is cut off."""
        return self.requests.paused or self.is_silent()

    def is_silent(self) -> bool:
        """Whether so much of the lease has gone without a sign of life that nothing may be begun."""
        return self.silence.is_doubtful(self.lease)

    def is_cut_off(self) -> bool:
        """Whether the job at hand must be given up, as others may soon take it over.

        Never on a local disk: the lock is held there, and others go by it. A worker whose claims were
        taken all the same finds out by its next beat (`buried`).
        """
        if self.member.root.medium.locks_tell:
            return False
        if self.silence.becomes_doubtful(self.lease):
            self.asked.set()
        return self.silence.is_over(self.lease)

    def rest(self) -> float:
        """Seconds until the next look is due."""
        interval = LOOK
        if not self.member.root.medium.hears_all:
            beat = liveness.beats_every(self.lease)
            interval = min(1.0, beat)
            with contextlib.suppress(OSError):  # a share that does not answer is looked at all the same
                interval = min(self.member.live.now().poll_interval, beat)
        self.silence.expect_look(interval)
        return interval

    def look(self) -> None:
        """One look: beat if it is time, hear requests, notice a changed pending/, curb the output."""
        member = self.member
        self.silence.note_look()
        try:
            is_cheap = not member.root.medium.is_remote
            if self.silence.is_beat_due(self.lease, member.done, is_cheap=is_cheap):
                member.live.now()
                self._beat()
        finally:  # a disk that takes no beat may well show what is asked
            self.hear()
        member.others.watch()
        if self._may_differ(member.root.folder(State.PENDING)):
            self.changed = True
            self.bell.ring()
        if (curb := self.curb) is not None:
            curb.look()

    def hear(self, *, at_once: bool = False) -> None:
        """Take in what is asked of this worker. `at_once` asks nothing of a share that may be slow."""
        root = self.member.root
        if at_once and root.medium.is_remote:
            return
        with self._hearing:  # else the older of two listings might have the last word
            if not self._may_differ(root.workers):
                return
            try:
                asked = requests.requests_to(root, self.member.name)
            except OSError:
                self._marks.pop(root.workers, None)  # not seen: look again, whatever the folder's time
                raise
            if asked != self.requests:
                self.requests = asked
                self._ring()

    def _ring(self) -> None:
        self._control.ring()
        self.bell.ring()

    def _beat(self) -> None:
        # Race: it is on the disk at some time from here on. Others may count from here.
        begun, member, root = times.clock.awake(), self.member, self.member.root
        done = member.done
        try:
            member.beat(member.now())
        except FileNotFoundError:
            root.require_reachable()  # else that is trouble, and no news of this worker
            if f"{member.name}.yaml" in root.texts_in(root.workers):
                raise
            self.buried = True
            self._ring()
            return
        self.silence.ends(begun, self.lease, done, may_lapse=not root.medium.locks_tell)

    def _may_differ(self, folder: str) -> bool:
        """Whether a directory may hold other names than at the last look."""
        if not self.member.root.medium.hears_all:
            return True
        before = self._marks.get(folder)
        self._marks[folder] = seen = seen_again(before, files.mark(folder), times.clock.monotonic())
        # The look that proves a mark has to list once more.
        return before is None or before.mark != seen.mark or not before.is_proven


class Looks(threading.Thread):
    """Has the keeper look when a look is due.

    If the share hangs, this thread hangs: the silence of the keeper grows, and the worker sees it.
    """

    def __init__(self, keeper: Keeper) -> None:
        super().__init__(name="keeper", daemon=True)
        self._keeper = keeper
        self._is_ending = False

    def run(self) -> None:
        """Look until `end`."""
        keeper, hang_at, done = self._keeper, times.clock.monotonic() + BUSY, 0
        while not self._is_ending:
            keeper.asked.wait(keeper.rest())
            keeper.asked.clear()
            if self._is_ending:
                return
            is_brisk, done = keeper.member.done - done >= FEW, keeper.member.done
            if (not is_brisk or times.clock.monotonic() >= hang_at) and keeper.bell.hang():
                keep_descriptors()
            with contextlib.suppress(OSError):  # the worker meets the same trouble, and reports it
                keeper.look()

    def end(self) -> None:
        """Stop looking; returns soon if the share hangs."""
        self._is_ending = True
        self._keeper.asked.set()
        if self.is_alive():  # it may never have been started
            self.join(1.0)


class Guard(threading.Thread):
    """Ends the command at hand once the lease is nearly over, whatever the worker itself hangs in.

    On a share any call may hang for as long as the server is away: a line for the log, an event for
    the job's file. This thread asks nothing of the share. `command` returns the command that runs now.
    """

    def __init__(self, keeper: Keeper, command: Callable[[], Command | None]) -> None:
        super().__init__(name="guard", daemon=True)
        self._keeper = keeper
        self._command = command
        self._ending = threading.Event()

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
            # An engine hears of the end from its launcher only, and not of a kill.
            command.cut_off(at_once=now - begun >= self._keeper.lease * IN_ORDER / 2)

    def end(self) -> None:
        """Stop looking."""
        self._ending.set()
