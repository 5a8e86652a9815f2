"""Putting a file aside in dead/: its bytes stay as they are, and a file beside it gives the reason."""

from __future__ import annotations

import contextlib
import errno
import logging
import stat
from typing import TYPE_CHECKING

from queuectl.errors import BadJob, IdTooLong
from queuectl.job.model import State
from queuectl.spool.jobs import free_name
from queuectl.spool.names import REASON, SHORT_ID, Name, make_id
from queuectl.system import files

if TYPE_CHECKING:
    import os

    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

# How to bring a file back that was put aside, for the reason beside it; {0} is its name.
_MEND = "Mend it and move it back:\n    mv '{0}' ../pending/"
_COPY = "A copy of it has one link:\n    cp '{0}' ../pending/ && rm '{0}'"
_FOLLOW = "Copy the file that the link leads to into pending/, and delete the link:\n    rm '{0}'"
_REPLACE = "It can hold no job: write one into a file in pending/, and delete this."
GIVEN_AWAY = (
    "If root filed it, the mount gives what root writes to that user: export it with no_root_squash (NFS)\n"
    "or mount it with -o uid=root (SMB), let the file belong to root, and move it back:\n"
    "    chown root '{0}' && mv '{0}' ../pending/"
)
SHORTER_ID = (
    "Give it a shorter id, in the line `id:` too if there is one:\n    mv '{0}' ../pending/NEW-ID.yaml"
)
#: The same for a job that ran, and whose outcome is not in its file.
RAN = "It was started, though. To have it run again:\n    mv '{0}' ../pending/"
OTHER_ID = (
    "Give it another id and move it back; without a line `id:` it gets that of its new name:\n"
    "    mv '{0}' ../pending/NEW-ID.yaml"
)

#: The same for a job whose unique key another one holds.
KEY = "Once the key is free, move it back:\n    mv '{0}' ../pending/"


def why(error: BadJob | OSError) -> str:
    """What is wrong with a file, in one line."""
    if isinstance(error, BadJob):
        return str(error)
    if isinstance(error, PermissionError):
        return "No permission to read it."
    if error.errno == errno.EFBIG:
        return "It would grow larger than its worker may make a file: see `ulimit -f`."
    text = error.strerror or str(error)
    return f"{text[0].upper()}{text[1:]}."


def bury(root: Root, name: Name, target: Name, reason: str, remedy: str | None = None) -> str:
    """Move a claim that cannot be a job to dead/, bytes untouched, with the reason beside it.

    `remedy` says how to bring it back; without one the kind of file decides. Returns the path in dead/.
    If the claim is lost meanwhile, no reason is left behind.
    """
    dead = root.folder(State.DEAD)
    target = free_name(root, State.DEAD, target.unparked())
    remedy = remedy or _remedy(f"{root.folder(State.PROCESSING)}/{name}")
    unchanged = "unchanged" if remedy == RAN else "unchanged, and no worker runs it"
    aside = "put aside" if remedy == RAN else "not run, and put aside"
    text = f"{reason}\n\nThe file beside this one is {unchanged}. {remedy.format(target)}\n"
    beside = f"{dead}/{target}{REASON}"
    files.remove(beside)  # left by a file of this name that a person moved away
    files.create(beside, text.encode("utf-8", "replace"), root.file_mode)
    is_there = False
    try:
        is_there = files.move(f"{root.folder(State.PROCESSING)}/{name}", f"{dead}/{target}")
    finally:
        if not is_there:
            with contextlib.suppress(OSError):
                files.remove(beside)
    if is_there:
        log.warning("job %s: %s in dead/: %s", target.id, aside, reason)
    return f"{dead}/{target}"


def bury_unclaimed(root: Root, name: Name, source: State, owner: str) -> None:
    """Put a job aside that cannot be claimed, as the name of the claim is too long for the file system.

    Crash: it is claimed under a short id, and recovery files it again under that id.
    """
    claim = name._replace(id=make_id()).owned(owner)
    if not files.move(f"{root.folder(source)}/{name}", f"{root.folder(State.PROCESSING)}/{claim}"):
        return
    reason = str(IdTooLong(name.id, SHORT_ID))
    try:
        try:
            bury(root, claim, name, reason, SHORTER_ID)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            shorter = name._replace(id=f"{name.id[: SHORT_ID - 5]}-{make_id()[:4]}")
            bury(root, claim, shorter, reason, SHORTER_ID)
    except OSError:
        with contextlib.suppress(OSError):
            files.move(f"{root.folder(State.PROCESSING)}/{claim}", f"{root.folder(source)}/{name}")
        raise


def _remedy(path: str) -> str:
    """How to make a job of the file at `path`, by its kind."""
    try:
        facts: os.stat_result = files.kernel.lstat(path)
    except FileNotFoundError:
        return _MEND
    if stat.S_ISLNK(facts.st_mode):
        return _FOLLOW
    if not stat.S_ISREG(facts.st_mode):
        return _REPLACE
    return _COPY if facts.st_nlink > 1 else _MEND
