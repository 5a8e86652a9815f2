"""The ear: hears of files that came or were edited, in one thread, many at a time (Linux)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask

from queuectl.job.model import State
from queuectl.spool.edits import Place
from queuectl.spool.names import is_sortable

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.observers.inotify_c import WatchDescriptor

    from queuectl.spool.root import Root

#: A file has come once it is closed after writing, or moved in; to be made is not enough.
_COME = Mask(InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_MOVED_TO)
#: How many drafts are remembered until they are renamed.
MOST_DRAFTS = 10_000


class Ear(InotifyFD):
    """Listens to pending/ and failed/ from the moment it is made; `start` begins to tell, `stop` ends it.

    `tell` is given the names of files that have come into pending/, hidden ones left out, and those files
    in pending/ and failed/ that may have been edited.

    An `Observer` of watchdog's would hand each event through three threads, each of which takes the
    interpreter from the worker, and would hold half of a move back for half a second to find its
    other half.

    Raises `OSError` when it is made where the user may watch no more.
    """

    def __init__(self, root: Root, tell: Callable[[list[str], list[Place]], None]) -> None:
        super().__init__()
        self._tell = tell
        self._names: list[str] = []
        self._edited: list[Place] = []
        self._drafts: set[str] = set()
        self._is_saved = False
        self._pending = self._listen(root.folder(State.PENDING), _COME)
        self._failed = self._listen(root.folder(State.FAILED), _COME)

    def _listen(self, folder: str, mask: Mask) -> WatchDescriptor:
        return self.add_callback(os.fsencode(folder), mask, self, CallbackId(1))

    def run(self) -> None:
        """Tell of what came, all that the kernel has noted at once; `tell` may take its time."""
        while self.should_keep_running():
            for event in self.read_events():
                self.handle_event(event)
            names, self._names = self._names, []
            edited, self._edited = self._edited, []
            if names or edited:
                self._tell(names, edited)

    def on_event(self, event: InotifyEvent) -> None:
        """Note the file's name, or tell of it."""
        name = os.fsdecode(event.name)
        if event.wd == self._pending:
            self._in_pending(name, is_moved=event.is_moved_to)
        else:
            self._in_failed(name, is_moved=event.is_moved_to)

    def _in_pending(self, name: str, *, is_moved: bool) -> None:
        """A filing closes its draft, then renames it. What else comes under a job's name may be an edit."""
        if name[:1] == ".":
            if not is_moved:
                self._note_draft(name)
            return
        self._names.append(name)
        if is_moved and name in self._drafts:
            self._drafts.discard(name)
        elif is_sortable(name):
            self._edited.append(Place(State.PENDING, name))

    def _note_draft(self, name: str) -> None:
        if len(self._drafts) >= MOST_DRAFTS:  # of filings that never came to their end
            self._drafts.clear()
        self._drafts.add(name[1:].removesuffix(".tmp"))

    def _in_failed(self, name: str, *, is_moved: bool) -> None:
        """Workers only move files here. An editor writes to the file, or to another that it then renames."""
        is_job = is_sortable(name)
        if is_job and (self._is_saved or not is_moved):
            self._edited.append(Place(State.FAILED, name))
        if not is_moved:
            self._is_saved = not is_job
        elif is_job:
            self._is_saved = False

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The directory is gone. The keeper's looks find what comes to one in its place."""

    def on_queue_overflow(self) -> None:
        """The kernel dropped names, and watchdog has logged it. The next listing finds them."""
