"""Users and groups of this system, whose files count, and to whom files are given."""

from __future__ import annotations

import contextlib
import os
import stat

from queuectl.system import files
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

#: Whether files have an owner and a mode that say who may write to them. Windows has access lists instead.
HAVE_MODES = os.name == "posix"
#: The owner of files whose true owner this system does not know: root, seen from a container or over NFS.
UNKNOWN = 65534

if HAVE_MODES:
    import pwd


class Trust(NamedTuple):
    """Whose job files a worker runs: those of `owners` that nobody else may write to.

    `alone` says that the directory lets nobody else reach the file, whatever its mode.
    """

    owners: frozenset[int]
    alone: bool

    def doubts(self, facts: os.stat_result) -> str | None:
        """Why a file is not trusted; None if it is."""
        if facts.st_uid not in self.owners:
            user = user_name(facts.st_uid)
            return f"it was filed by {user}, who is not among the trusted_users of this worker"
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not self.alone:
            return "others than its owner may write to it (`chmod go-w` mends that)"
        return None


def is_root() -> bool:
    """Whether this process runs as root, so that it may read and write everything."""
    return HAVE_MODES and os.geteuid() == 0


def user_name(uid: int) -> str:
    """The name of a user; `user UID` if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def user_id(name: str) -> int | None:
    """The number of a user; None if there is no user of this name."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group_name(gid: int) -> str:
    """The name of a group; its number if there is none."""
    import grp  # a shared library, which a plain `enqueue` does not load

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def is_private_group(facts: os.stat_result) -> bool:
    """Whether the group of a file has its owner as the only member, as many systems give each user one."""
    import grp

    try:
        owner, group = pwd.getpwuid(facts.st_uid), grp.getgrgid(facts.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and set(group.gr_mem) <= {owner.pw_name}


def create_like(path: Path | str, data: bytes, model: Path | str) -> None:
    """Make a synced file with the mode of another and, if this process may give files away, with its owner.

    The file must not seem to be written by the user who makes this copy.
    """
    facts = files.kernel.lstat(model)
    fd = files.make(path, files.NEW, files.PRIVATE)
    try:
        files.kernel.fchmod(fd, stat.S_IMODE(facts.st_mode) & 0o666 | files.PRIVATE)
        if facts.st_uid != files.kernel.geteuid():
            with contextlib.suppress(PermissionError):  # only root may: see `may_copy`
                files.kernel.fchown(fd, facts.st_uid, facts.st_gid)
    except OSError:
        files.abandon(path, fd)
        raise
    files.fill(path, fd, data, sync=True)


def may_copy(path: Path | str) -> bool:
    """Whether a copy that this process makes of a file can belong to the same owner."""
    return files.kernel.geteuid() in {0, files.kernel.lstat(path).st_uid}


def hand_over(path: Path | str, group: int, mode: int) -> None:
    """Give what lies in a directory of this mode to its group, or take it away from it; links stay.

    A directory gets the mode itself, a file the part of it that files can have.
    """
    try:
        fd = files.kernel.open(path, files.READ)
    except OSError as error:
        if error.errno in files.NOT_FILES:
            return
        raise
    try:
        facts = files.kernel.fstat(fd)
        is_folder = stat.S_ISDIR(facts.st_mode)
        if is_folder or not files.unfit(facts):
            if mode & stat.S_ISGID:
                files.kernel.fchown(fd, -1, group)
            files.kernel.fchmod(fd, mode if is_folder else mode & 0o666)
    finally:
        files.kernel.close(fd)


def make_folder(path: str, mode: int = 0o777) -> None:
    """Make a directory; one that root makes in another user's belongs to that user."""
    files.kernel.mkdir(path, mode)
    parent = files.kernel.stat(os.path.dirname(path))
    if parent.st_uid and files.kernel.geteuid() == 0:
        # Danger: by its name a directory could by now be another one, which its owner has put there.
        with files.opened(path, files.FOLDER | os.O_NOFOLLOW) as fd:
            files.kernel.fchown(fd, parent.st_uid, parent.st_gid)
