"""The threads beside a worker: one has the keeper look in time, one ends a command in time."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import NotASpool
from queuectl.system.processes import keep_descriptors
from queuectl.worker.silence import IN_ORDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.spool.wake import Bell
    from queuectl.system.processes import Command
    from queuectl.worker.keeper import Keeper
    from queuectl.worker.member import Member

#: A worker that drains listens for events after this many seconds, or once fewer runs than `BRISK` have
#: ended between two looks. To begin takes the time of some twenty short runs. Until then it meets a job
#: that is more urgent than those it has listed at the next `poll_interval`.
BUSY, BRISK = 5.0, 2


class Looks(threading.Thread):
    """Has the keeper look when a look is due.

    If the share hangs, this thread hangs: the silence of the keeper grows, and the worker sees it.
    """

    def __init__(self, keeper: Keeper, member: Member, bell: Bell) -> None:
        super().__init__(name="keeper", daemon=True)
        self._keeper = keeper
        self._member = member
        self._bell = bell
        self._is_ending = False

    def run(self) -> None:
        """Look until `end`."""
        keeper, hang_at, done = self._keeper, times.clock.monotonic() + BUSY, 0
        while not self._is_ending:
            keeper.asked.wait(keeper.rest())
            keeper.asked.clear()
            if self._is_ending:
                return
            is_brisk, done = self._member.done - done >= BRISK, self._member.done
            if (not is_brisk or times.clock.monotonic() >= hang_at) and self._bell.hang():
                keep_descriptors()
            with contextlib.suppress(OSError, NotASpool):  # the worker meets the same trouble, and reports it
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
