"""The ear: hears of files that came into a directory, in one thread, many at a time (Linux)."""

from __future__ import annotations

import os

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.observers.inotify_c import WatchDescriptor

#: A file has come once it is closed after writing, or moved in; to be made is not enough.
_COME = Mask(InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_MOVED_TO)
#: Names have come or gone. What is rewritten in place changes none.
_CHANGED = Mask(InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVED_TO | InotifyConstants.IN_DELETE)


class Ear(InotifyFD):
    """Listens to two directories from the moment it is made; `start` begins to tell, `stop` ends it.

    `tell` is given the names of files that have come into the one, hidden ones left out; `changed` is
    given each name that has come or gone in the other.

    An `Observer` of watchdog's would hand each event through three threads, each of which takes the
    interpreter from the worker, and would hold half of a move back for half a second to find its
    other half.

    Raises `OSError` when it is made where the user may watch no more.
    """

    def __init__(
        self, folder: str, tell: Callable[[list[str]], None], desk: str, changed: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._tell = tell
        self._changed = changed
        self._names: list[str] = []
        self.is_deaf = False
        self.add_callback(os.fsencode(folder), _COME, self, CallbackId(1))
        self._desk = self.add_callback(os.fsencode(desk), _CHANGED, self, CallbackId(1))

    def run(self) -> None:
        """Tell of what came, all that the kernel has noted at once; `tell` may take its time."""
        while self.should_keep_running():
            for event in self.read_events():
                self.handle_event(event)
            names, self._names = self._names, []
            if names:
                self._tell(names)

    def on_event(self, event: InotifyEvent) -> None:
        """Note the file's name, or tell of it."""
        if event.wd == self._desk:
            self._changed(os.fsdecode(event.name))
        elif event.name[:1] != b".":
            self._names.append(os.fsdecode(event.name))

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:  # noqa: ARG002 - either of the two
        """The directory is gone, and one in its place is not listened to."""
        self.is_deaf = True

    def on_queue_overflow(self) -> None:
        """Names were lost, which the log has been told: whoever looks at the directory finds them."""
