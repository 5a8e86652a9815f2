"""Trouble with the disk: what may pass, what only one file meets, and what the log says of it, once."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from queuectl.errors import StorageTrouble
from queuectl.job.model import State
from queuectl.spool import claiming, presence
from queuectl.spool.root import mend
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.spool.root import Root
    from queuectl.worker.member import Member

log = logging.getLogger("queuectl")

#: Errors of a disk, or of a user's share of it, that takes no further block.
FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


def may_pass(error: OSError) -> bool:
    """Whether the same call may succeed later.

    A directory that is missing is made again. SFTP has no word for a full disk: sshfs says EPERM.
    """
    return StorageTrouble.explains(error) or isinstance(error, FileNotFoundError | PermissionError)


def why_unusable(root: Root, owner: str) -> OSError | None:
    """Why a worker cannot use the spool now, with the directory; None where each takes a file."""
    try:
        root.require_reachable()
        mend(root)
        for folder in (root.workers, root.logs, *map(root.folder, State)):
            _try(folder, owner)
    except OSError as error:
        return error
    return None


def full_disk(root: Root, owner: str) -> OSError | None:
    """The error that the disk of the spool answers a new block with; None where it takes one."""
    try:
        _try(root.logs, owner)
    except OSError as error:
        return error if error.errno in FULL else None
    return None


def _try(folder: str, owner: str) -> None:
    """Try whether a directory takes a file; raises the `OSError` with the name of the directory."""
    try:
        files.probe(f"{folder}/.{owner}.probe")
    except OSError as error:
        raise OSError(error.errno, error.strerror, folder) from error


def beyond_one_file(error: OSError, root: Root, owner: str) -> OSError | None:
    """What is wrong with the disk or a directory; None where only the file at hand is refused.

    A file may be immutable, say, or too large for `ulimit -f`. SFTP has no word for a full disk, so EPERM
    may mean the disk, and a rename does not say which directory refused it: other files are tried.
    """
    if error.errno in claiming.OF_ONE_FILE:
        return None
    if isinstance(error, FileNotFoundError) or StorageTrouble.explains(error):
        return error
    return why_unusable(root, owner)


class Trouble:
    """The trouble that lasts, with the disk, config.yaml or the clock, as far as the log has reported it."""

    def __init__(self) -> None:
        self._said: tuple[object, ...] | None = None
        self._owed_said = ""
        self._has_said_stop = False
        self._settings: str | None = None
        self._is_clock_wrong = False

    @property
    def lasts(self) -> bool:
        """Whether trouble with the disk was reported and its end was not."""
        return self._said is not None

    def tell(self, error: OSError, owed: str, *, is_stopping: bool) -> None:
        """Report once what is wrong, which outcomes wait for the disk, and why a stop takes time."""
        # All files of a full disk meet the same; a permission is that of one directory.
        trouble = (error.errno, error.filename if isinstance(error, PermissionError) else None)
        then = (
            f"The outcome is recorded as soon as it can be: {owed}." if owed else "No new claims until then."
        )
        if trouble != self._said:
            log.error("%s %s", StorageTrouble(error), then)
        elif owed and owed != self._owed_said:
            log.error("%s", then)
        self._said, self._owed_said = trouble, owed
        if owed and is_stopping and not self._has_said_stop:
            self._has_said_stop = True
            log.warning(
                "asked to stop, but an outcome is not recorded yet: %s. This worker ends once it is; "
                "`kill %d` ends it at once, and a run whose outcome is not in its file counts as lost.",
                owed,
                files.kernel.getpid(),
            )

    def ends(self) -> None:
        """Report that the trouble is over."""
        if self._said is not None:
            log.info("Work goes on.")
            self._said = None

    def warn(self, member: Member) -> None:
        """Report once what is wrong with config.yaml or with this host's clock."""
        settings, is_clock_wrong = member.live.trouble, member.presence.is_clock_wrong()
        if settings and settings != self._settings:
            log.warning("%s", settings)
        if is_clock_wrong and not self._is_clock_wrong:
            log.warning("%s", presence.clock_warning(member.presence.clock_offset or 0.0, "this host"))
        self._settings, self._is_clock_wrong = settings, is_clock_wrong
