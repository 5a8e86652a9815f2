"""The directory itself: where things are in it, how one is made, and when one is refused."""

from __future__ import annotations

import os
import stat
import sys
from functools import cached_property
from pathlib import Path

from queuectl import disk, settings
from queuectl.errors import NotASpool, QueueError, UnsafeSpool
from queuectl.job import State

LOGS, WORKERS = "logs", "workers"
FOLDERS = (*(str(state) for state in State), LOGS, WORKERS)

_LOCAL = frozenset(
    [
        "ext2",
        "ext3",
        "ext4",
        "xfs",
        "btrfs",
        "zfs",
        "f2fs",
        "jfs",
        "tmpfs",
        "ramfs",
        "overlay",
        "bcachefs",
        "reiserfs",
        "vfat",
        "exfat",
        "ntfs3",
        "fuseblk",
        "apfs",
        "hfs",
        "ufs",
        "ntfs",
        "erofs",
        "squashfs",
    ]
)


class Root:
    """The absolute path of a spool and the folders in it, as text: paths are joined a million times.

    `logs` holds the outputs of jobs and the workers' own logs, `workers` the locks and descriptions
    of live workers and what is asked of them. `config` has the settings, and is the mark by which a
    spool is known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / settings.FILE
        self._folders = {state: f"{path}/{state.value}" for state in State}
        self.logs = f"{path}/{LOGS}"
        self.workers = f"{path}/{WORKERS}"

    def folder(self, state: State) -> str:
        """The directory of a state."""
        return self._folders[state]

    @cached_property
    def is_shared(self) -> bool:
        """Whether other hosts may see this directory: events do not tell of what they do there."""
        return filesystem(self.path) not in _LOCAL

    def require(self) -> None:
        """Raise `NotASpool` unless config.yaml is there: an unmounted share is an empty directory."""
        try:
            present = settings.FILE in disk.list_names(self.path)
        except (FileNotFoundError, NotADirectoryError):
            present = False
        if not present:
            raise NotASpool(self.path)


def open_root(path: Path) -> Root:
    """The spool at `path`; raises `NotASpool` or `UnsafeSpool`. Missing folders are made anew."""
    root = Root(path.absolute())
    root.require()
    refuse_unsafe(root)
    mend(root)
    return root


def mend(root: Root) -> None:
    """Make the folders anew that are missing. The root must have its config.yaml."""
    for name in set(FOLDERS) - set(disk.list_names(root.path)):
        _make_folder(root.path / name, root.path.stat().st_mode)


def create(path: Path) -> Root:
    """Make a spool at `path`, which may be an empty directory; raises `QueueError` for others.

    Private to its owner.
    """
    path = path.absolute()
    try:
        present = set(disk.list_names(path))
    except FileNotFoundError:
        present = set()
        try:
            path.mkdir(mode=0o700)
        except FileNotFoundError:
            raise QueueError(f"{path.parent} does not exist.", "Make it, or name another place.") from None
    except NotADirectoryError:
        raise QueueError(f"{path} is not a directory.", "Name another place.") from None
    if settings.FILE not in present and present - set(FOLDERS) - {"lost+found"}:
        raise QueueError(f"{path} is not empty.", "A spool wants a directory of its own.")
    if os.name == "posix":
        path.chmod(0o700)
    mode = path.stat().st_mode
    for name in FOLDERS:
        if name not in present:
            _make_folder(path / name, mode)
    if settings.FILE not in present:
        disk.replace(path / settings.FILE, settings.template().encode())
    return open_root(path)


def _make_folder(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    if os.name == "posix":
        path.chmod(stat.S_IMODE(mode))


def refuse_unsafe(root: Root) -> None:
    """Raise `UnsafeSpool` where somebody else could put a command that a worker would run."""
    if os.name != "posix":
        return
    for place in (root.path, *(root.path / name for name in FOLDERS)):
        try:
            facts = place.stat()
        except FileNotFoundError:
            continue
        if facts.st_mode & stat.S_IWOTH:
            raise UnsafeSpool(place, "anybody", "o-w")
        if facts.st_mode & stat.S_IWGRP and not facts.st_mode & stat.S_ISGID and not _own_group(facts):
            raise UnsafeSpool(place, "its group", "g-w")
    for parent in reversed(root.path.parents):
        facts = parent.stat()
        if facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX:
            raise UnsafeSpool(parent, "anybody, who could put another spool in its place", "o-w")
        if not facts.st_mode & stat.S_IXOTH:
            return  # nobody else comes any further


def _own_group(facts: os.stat_result) -> bool:
    """Whether the group is its owner's private one, as many systems give each user."""
    if sys.platform == "win32":
        return True
    import grp
    import pwd

    try:
        owner, group = pwd.getpwuid(facts.st_uid), grp.getgrgid(facts.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and set(group.gr_mem) <= {owner.pw_name}


def filesystem(path: Path) -> str:
    """The type of the file system that holds `path`, in the system's words."""
    if sys.platform == "linux":
        device = path.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            if before.split(" ")[2] == wanted:
                return after.split(" ")[0]
    import psutil

    parts = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return max(parts, key=lambda part: len(part.mountpoint)).fstype.lower() if parts else "unknown"
