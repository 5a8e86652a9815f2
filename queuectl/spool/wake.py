"""The bell: a ring means look. Events are a hint, the directory is the truth."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING

from queuectl.system import host

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from queuectl.spool.edits import Place
    from queuectl.spool.root import Root

    T = TypeVar("T")

log = logging.getLogger("queuectl")

#: After it has rung, the bell rests until its names are taken, at most so many seconds: who is busy
#: is disturbed by many files once, not by each.
REST = 0.05


def load_ear() -> None:
    """Import what a bell needs, which takes time and memory that forked workers can share."""
    if host.HAS_INOTIFY:
        from queuectl.spool import events

        del events


class Wake:
    """Something that a thread can ring and another can wait for, beside other descriptors."""

    def __init__(self) -> None:
        self._ear, self._hand = socket.socketpair()
        self._ear.setblocking(False)
        self._hand.setblocking(False)

    def fileno(self) -> int:
        """The descriptor that is readable after a ring."""
        return self._ear.fileno()

    def ring(self) -> None:
        """Wake whoever waits; rings that nobody heard yet count as one."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._hand.send(b"!")

    def wait(self, seconds: float) -> bool:
        """Wait for a ring at most so long; whether there was one."""
        ready, _, _ = select.select([self._ear], [], [], max(0.0, seconds))
        self.hush()
        return bool(ready)

    def hush(self) -> None:
        """Forget the rings so far."""
        with contextlib.suppress(BlockingIOError):
            while self._ear.recv(4096):
                pass

    def close(self) -> None:
        """Give the descriptors back."""
        self._ear.close()
        self._hand.close()


class Bell:
    """Rings when a file has come into pending/ whole or was edited, and keeps the names of those (Linux).

    Other systems do not report that a file was closed: there it never rings by itself.
    """

    def __init__(self, root: Root, wake: Wake, rest: float = REST) -> None:
        self._heard: deque[str] = deque(maxlen=100_000)
        self._edited: deque[Place] = deque(maxlen=100_000)
        self._taken = threading.Event()
        self._wake = wake
        self._rest = rest
        self._ear: Any = None
        self._root = root
        self._hanging = threading.Lock()
        self._is_hung = False

    def hang(self) -> bool:
        """Begin to listen, unless it has begun already; whether it was this call that did.

        What it imports takes as long as some twenty jobs: a short drain does without.
        """
        with self._hanging:
            if self._is_hung:
                return False
            self._is_hung = True
            if host.HAS_INOTIFY:
                self._listen()
            return True

    def _listen(self) -> None:
        from queuectl.spool.events import Ear

        try:
            # A user may have so many and no more.
            ear = Ear(self._root, self.heard)
            ear.start()
        except (OSError, RuntimeError) as error:  # the latter where there is no room for a thread
            log.warning("No file events here (%s); looking every poll_interval instead.", error)
            return
        self._ear = ear

    def heard(self, names: list[str], edited: list[Place]) -> None:
        """Note the files that have come into pending/ and those that may have been edited, ring, and rest."""
        self._taken.clear()
        self._heard.extend(names)
        self._edited.extend(edited)
        self._wake.ring()
        self._taken.wait(self._rest)

    def ring(self) -> None:
        """Wake whoever waits for it."""
        self._wake.ring()

    def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most this many seconds; whether it rang."""
        return self._wake.wait(seconds)

    def names(self) -> list[str]:
        """The names heard since the last call."""
        return self._take(self._heard)

    def edited(self) -> list[Place]:
        """The files that may have been edited since the last call."""
        return self._take(self._edited)

    def _take(self, heard: deque[T]) -> list[T]:
        found = []
        while heard:
            found.append(heard.popleft())
        if found:
            self._taken.set()
        return found

    def close(self) -> None:
        """Stop listening, and close the wake too."""
        if self._ear is not None:
            self._ear.stop()
            self._taken.set()
            self._ear.join(2)
        self._wake.close()
