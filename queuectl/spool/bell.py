"""The bell: a ring means look. Events are a hint, the directory is the truth."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from queuectl import disk
from queuectl.job import State

if TYPE_CHECKING:
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: A file in pending/ that is opened and closed to hear whether that is heard. It stays, for all workers.
RING = ".ring"
#: How often, and for how many seconds each, a worker waits to hear its own first ring.
TRIES, PATIENCE = 20, 0.05


def load_watch() -> None:
    """Import what a watch needs, which takes time and memory that forked workers can share."""
    import watchdog.observers

    del watchdog


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
    """Rings when a file in pending/ was closed after writing, and keeps the names that did.

    Watching for more than that costs dear: watchdog holds back half of a move for half a second
    to find its other half.
    """

    def __init__(self, root: Root, wake: Wake) -> None:
        self._heard: deque[str] = deque(maxlen=100_000)
        self._wake = wake
        self._works = threading.Event()
        self._observer: Any = None
        self._root = root
        self._hanging = threading.Lock()
        self._is_hung = False

    def hang(self) -> bool:
        """Begin to listen, unless it has begun already; whether it was this call that did.

        It takes as long as some hundred jobs: a short drain does without.
        """
        with self._hanging:
            if self._is_hung:
                return False
            self._is_hung = True
            self._start()
            return True

    def _start(self) -> None:
        from watchdog.events import FileClosedEvent, FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer

        bell = self

        class Ear(FileSystemEventHandler):
            def on_closed(self, event: FileSystemEvent) -> None:
                bell.heard(os.path.basename(os.fsdecode(event.src_path)))

        folder = self._root.folder(State.PENDING)
        try:
            observer = Observer()  # raises, too: a user may have so many and no more
            observer.schedule(Ear(), folder, event_filter=[FileClosedEvent])
            observer.start()
        except OSError as error:
            log.warning("No file events here (%s); looking every poll_interval instead.", error)
            return
        self._observer = observer
        if not self._tries_out(folder, self._root.file_mode):
            log.warning("File events do not arrive here; looking every poll_interval instead.")

    def _tries_out(self, folder: str, mode: int) -> bool:
        """Ring ourselves until it is heard: the watch begins in a thread, some time after `start`."""
        with contextlib.suppress(OSError):
            for _ in range(TRIES):
                disk.touch(f"{folder}/{RING}", mode)
                if self._works.wait(PATIENCE):
                    break
        return self._works.is_set()

    def heard(self, name: str) -> None:
        """Note that a file of this name was closed in pending/."""
        if name == RING:
            self._works.set()
        if name[:1] != ".":
            self._heard.append(name)
            self._wake.ring()

    def ring(self) -> None:
        """Wake whoever waits for it."""
        self._wake.ring()

    def names(self) -> list[str]:
        """The names heard since the last call."""
        found = []
        while self._heard:
            found.append(self._heard.popleft())
        return found

    def close(self) -> None:
        """Stop listening."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(2)
