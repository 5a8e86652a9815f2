"""The ear: hears of files that were closed after writing, in one thread, many at a time (Linux)."""

from __future__ import annotations

import os

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.observers.inotify_c import WatchDescriptor


class Ear(InotifyFD):
    """Listens to one directory from the moment it is made; `start` begins to tell, `stop` ends it.

    An `Observer` of watchdog's would hand each event through three threads, each of which takes the
    interpreter from the worker. Hearing of more than closed files costs dear, too: half of a move is
    held back for half a second to find its other half.

    Raises `OSError` when it is made where the user may watch no more.
    """

    def __init__(self, folder: str, tell: Callable[[list[str]], None]) -> None:
        super().__init__()
        self._tell = tell
        self._names: list[str] = []
        self.add_callback(os.fsencode(folder), InotifyConstants.IN_CLOSE_WRITE, self, CallbackId(1))

    def run(self) -> None:
        """Tell of what was closed, all that the kernel has noted at once; `tell` may take its time."""
        while self.should_keep_running():
            for event in self.read_events():
                self.handle_event(event)
            names, self._names = self._names, []
            if names:
                self._tell(names)

    def on_event(self, event: InotifyEvent) -> None:
        """Note the file's name."""
        self._names.append(os.fsdecode(event.name))

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The directory is gone: whoever looks at it meets that."""

    def on_queue_overflow(self) -> None:
        """Names were lost, which the log has been told: whoever looks at the directory finds them."""
