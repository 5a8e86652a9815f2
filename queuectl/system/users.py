"""Users and groups of this system, and whose files count."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from queuectl.tuples import NamedTuple

if sys.platform != "win32":
    import pwd


#: Whether files have an owner and a mode that say who may write to them. Windows has access lists instead.
HAVE_MODES = os.name == "posix"
#: The owner of files whose true owner this system does not know: root, seen from a container or over NFS.
UNKNOWN = 65534


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
    return sys.platform != "win32" and os.geteuid() == 0


def user_name(uid: int) -> str:
    """The name of a user; `user UID` if there is none."""
    if sys.platform != "win32":
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def user_id(name: str) -> int | None:
    """The number of a user; None if there is no user of this name."""
    if sys.platform != "win32":
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    return None


def group_name(gid: int) -> str:
    """The name of a group; its number if there is none."""
    if sys.platform != "win32":
        import grp  # a shared library, which a plain `enqueue` does not load

        with contextlib.suppress(KeyError):
            return grp.getgrgid(gid).gr_name
    return str(gid)


def is_private_group(facts: os.stat_result) -> bool:
    """Whether the group of a file has its owner as the only member, as many systems give each user one."""
    if sys.platform == "win32":
        return True
    import grp

    try:
        owner, group = pwd.getpwuid(facts.st_uid), grp.getgrgid(facts.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and set(group.gr_mem) <= {owner.pw_name}
