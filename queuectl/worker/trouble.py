"""Trouble with the disk: what may pass, what only one file meets, and what the log says of it, once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from queuectl.errors import QueueError, StorageTrouble
from queuectl.job.model import State
from queuectl.spool import claiming, presence
from queuectl.spool.root import mend
from queuectl.system import files

if TYPE_CHECKING:
    from queuectl.spool.root import Root
    from queuectl.worker.member import Member

log = logging.getLogger("queuectl")


def may_pass(error: OSError) -> bool:
    """Whether the same call may succeed later. SFTP has no word for a full disk: sshfs says EPERM."""
    return StorageTrouble.explains(error) or isinstance(error, PermissionError)


def is_usable(root: Root, owner: str) -> bool:
    """Whether the spool is there and takes new files where a worker needs them."""
    try:
        root.require()
        mend(root)
        for folder in (root.workers, root.logs, root.folder(State.PROCESSING)):
            files.probe(f"{folder}/.{owner}.probe")
    except (OSError, QueueError):
        return False
    return True


def is_of_one_file(error: OSError, root: Root, owner: str) -> bool:
    """Whether only the file at hand is refused: it is immutable, say, or too large for `ulimit -f`.

    SFTP has no word for a full disk, so EPERM may mean the disk: then other files are refused, too.
    """
    if error.errno in claiming.OF_ONE_FILE:
        return True
    may_be_gone = isinstance(error, FileNotFoundError)
    return not (may_be_gone or StorageTrouble.explains(error)) and is_usable(root, owner)


class Trouble:
    """The trouble that lasts, as far as the log has reported it."""

    def __init__(self) -> None:
        self._said: str | None = None
        self._owed_said = ""
        self._has_said_stop = False

    @property
    def lasts(self) -> bool:
        """Whether trouble was reported and its end was not."""
        return self._said is not None

    def tell(self, error: OSError, owed: str, *, is_stopping: bool) -> None:
        """Report once what is wrong, which outcomes wait for the disk, and why a stop takes time."""
        text = str(StorageTrouble(error))
        then = (
            f"The outcome is recorded as soon as it can be: {owed}." if owed else "No new claims until then."
        )
        if text != self._said:
            log.error("%s %s", text, then)
        elif owed and owed != self._owed_said:
            log.error("%s", then)
        self._said, self._owed_said = text, owed
        if owed and is_stopping and not self._has_said_stop:
            self._has_said_stop = True
            log.warning(
                "asked to stop, but an outcome is not recorded yet: %s. This worker ends once it is; "
                "`kill %d` ends it at once, and the run counts as lost.",
                owed,
                files.kernel.getpid(),
            )

    def ends(self) -> None:
        """Report that the trouble is over."""
        if self._said is not None:
            log.info("Work goes on.")
            self._said = None


class Warnings:
    """What is wrong with config.yaml and with this host's clock, as far as the log has reported it."""

    def __init__(self) -> None:
        self._settings: str | None = None
        self._clock = False

    def tell(self, member: Member) -> None:
        """Report once what is wrong now."""
        settings, clock = member.live.trouble, member.presence.is_clock_wrong()
        if settings and settings != self._settings:
            log.warning("%s", settings)
        if clock and not self._clock:
            log.warning("%s", presence.clock_warning(member.presence.clock_offset or 0.0, "this host"))
        self._settings, self._clock = settings, clock
