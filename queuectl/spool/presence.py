"""A worker's own presence in a spool: its description with a beat and, on a local disk, its lock."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.spool import descriptions
from queuectl.system import drafts, files, locks
from queuectl.system.host import host_name, kernel_id
from queuectl.times import utc_now

if TYPE_CHECKING:
    from datetime import datetime

    from queuectl.spool.root import Root

#: A host's clock counts as wrong if it differs from that of the share by more than this many seconds.
TOLERANCE = 2.0
#: A file that took longer than this many seconds to make does not tell the clock of the share.
PROMPT = 1.0


def load() -> None:
    """Import and find out what every worker needs, so that those that are forked share it."""
    locks.system.load()
    kernel_id()


class Presence:
    """A live worker's description and lock. `join` makes one, `leave` ends it."""

    def __init__(self, root: Root, name: str, at: int) -> None:
        self.name = name
        self._root = root
        self._lock: locks.Lock | None = None
        self._path = descriptions.path_of(root, name)
        self._beat_at = at
        self._count = 1
        self.clock_offset: float | None = None

    def take_lock(self) -> bool:
        """Take the worker's lock, where locks tell who lives; False where another process has it."""
        if not self._root.medium.locks_tell:
            return True
        path, mode = lock_file(self._root, self.name), self._root.file_mode
        if files.belongs_to_another(path):
            with contextlib.suppress(FileExistsError):  # the lock would make it as root's own
                files.create(path, mode=mode)
        self._lock = locks.take(path, mode)
        return self._lock is not None

    def beat(self, now: datetime, jobs_done: int) -> None:
        """Show a sign of life; raises `OSError` when the disk does not take it."""
        self._count += 1
        line = descriptions.beat_line(self._count, now, jobs_done, self.clock_offset)
        files.patch(self._path, line, self._beat_at)

    def read_clock(self) -> None:
        """Measure the clock of the share by the time of a new file, if the share makes one promptly.

        The beat does not show it: an SMB client dates a file that it has just written to the write
        before. A full disk takes no new file, but goes on taking beats.
        """
        with contextlib.suppress(OSError):  # the last measurement stays
            begun = times.clock.now().timestamp()
            there = files.server_time(self._root.workers, f".{self.name}.clock.probe")
            ended = times.clock.now().timestamp()
            if 0 <= ended - begun <= PROMPT:
                self.clock_offset = (begun + ended) / 2 - there

    def settle_in(self) -> None:
        """On a share: make the description safe, then measure the share's clock and publish it.

        No job is started by this host's clock before.
        """
        if self._root.medium.forgets_names:
            # Crash: a worker outlives a power cut of its server. Without its description, or with one
            # that has lost its content, it would be taken for dead while it beats.
            drafts.sync_files([self._path])
        for _ in range(3 if self._root.medium.has_own_clock else 0):
            self.read_clock()
            if self.clock_offset is not None:
                self.beat(self.now(), 0)
                break

    def is_clock_wrong(self) -> bool:
        """Whether this host's clock differs from that of the share by more than `TOLERANCE`."""
        return self.clock_offset is not None and abs(self.clock_offset) > TOLERANCE

    def now(self) -> datetime:
        """The time by this host's clock or, if that is wrong, by the share's.

        So all workers of a share start a scheduled job by one clock.
        """
        if self.clock_offset is None or not self.is_clock_wrong():
            return utc_now()
        return utc_now() - timedelta(seconds=self.clock_offset)

    def leave(self) -> None:
        """Remove the worker's files from workers/. Call it when no claim bears the name. Never raises.

        A file that cannot be removed counts as a dead worker's, and others remove it.
        """
        with contextlib.suppress(OSError):
            files.remove(self._path)
        with contextlib.suppress(OSError):
            for text in self._root.texts_in(self._root.workers):
                if text == f"{self.name}.stop" or text.endswith(f"@{self.name}.cancel"):
                    files.remove(f"{self._root.workers}/{text}")
        if self._root.medium.locks_tell:
            with contextlib.suppress(OSError):
                files.remove(lock_file(self._root, self.name))
        self.unlock()

    def unlock(self) -> None:
        """Release the lock; its file stays. Never raises."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.release()


def lock_file(root: Root, name: str) -> str:
    """The path of a worker's lock."""
    return f"{root.workers}/{name}.lock"


def join(root: Root, kind: str, now: datetime) -> Presence:
    """Become a worker of this spool, under a name that no owner ever had.

    Raises `OSError` and leaves nothing behind when the disk does not take it.
    """
    while True:
        name = f"{host_name()}-{files.kernel.getpid()}-{files.kernel.urandom(2).hex()}"
        head = descriptions.head(root, name, kind, now)
        me = Presence(root, name, len(head))
        try:
            if not me.take_lock():
                continue
            # The group of a shared spool may read who works, but nobody else may write it.
            text = head + descriptions.beat_line(1, now, 0, None)
            files.create(descriptions.path_of(root, name), text, root.file_mode & ~0o020)
            me.settle_in()
        except FileExistsError:  # a dead worker's name
            me.unlock()
            continue
        except FileNotFoundError:  # a server that lost its power has forgotten the description
            me.leave()
            root.require()
            continue
        except BaseException:
            me.leave()
            raise
        return me


def clock_warning(offset: float, whose: str) -> str:
    """The warning about a host whose clock differs from that of the share by more than `TOLERANCE`."""
    how = "ahead of" if offset > 0 else "behind"
    return (
        f"The clock of {whose} is {abs(offset):.1f} s {how} the share's; "
        "its workers go by the share's until it is set right."
    )
