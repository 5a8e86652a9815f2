"""File locks that a process holds until it releases them. The system frees the locks of a dead process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from queuectl.system import files

if TYPE_CHECKING:
    from filelock import FileLock


class Lock(Protocol):
    """A lock that this process holds. Keep it: `filelock` releases a lock that is collected."""

    def release(self) -> None:
        """Let others take the lock. The file stays."""


class Locks:
    """The locks of this system, by `filelock`."""

    def load(self) -> None:
        """Import `filelock`, so that workers that are forked later share it."""
        import filelock

        del filelock

    def take(self, path: str, mode: int) -> FileLock | None:
        """Lock a file, which is made where it is missing; None where somebody else holds the lock.

        Raises `OSError` where the file cannot be opened or the file system has no locks.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(
            path,
            timeout=0,
            mode=mode,
            fallback_to_soft=False,
            preserve_lock_file=True,
            thread_local=False,
        )
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock


#: The locks that `take` uses. A simulation puts its own there.
system = Locks()


def take(path: str, mode: int = files.PRIVATE) -> Lock | None:
    """Take a lock at once: see `Locks.take`."""
    return system.take(path, mode)
