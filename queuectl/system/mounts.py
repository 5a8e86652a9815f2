"""Mounts: the file system that holds a path, its options, and its name for a directory."""

from __future__ import annotations

import os
import re
import sys

from queuectl.system import files
from queuectl.tuples import NamedTuple

#: The file in which Linux lists the mounts of this process.
MOUNTS = "/proc/self/mountinfo"
#: Mount options that make all files private to their owner, by file systems that make modes up.
PRIVATE_OPTIONS = {
    **dict.fromkeys(["cifs", "smb3"], "file_mode=0600,dir_mode=0700"),
    **dict.fromkeys(["vfat", "exfat", "ntfs", "ntfs3", "fuseblk"], "umask=077"),
}
#: Mount options with which those file systems keep real modes.
_REAL_MODES = frozenset({"posix", "unix", "modefromsid", "cifsacl", "permissions", "acl"})


class Mount(NamedTuple):
    """One line of `/proc/self/mountinfo`.

    `options` are those of the mount and of the file system. `root` is the directory of the file
    system that is seen at the mount point.
    """

    kind: str
    source: str
    options: str
    root: str
    point: str

    @property
    def makes_modes_up(self) -> bool:
        """Whether owner and modes of files come from the mount options, so that `chmod` changes nothing."""
        return self.kind in PRIVATE_OPTIONS and _REAL_MODES.isdisjoint(self.options.split(","))


def filesystem(path: str) -> str:
    """The type of the file system that holds `path`, as the system names it."""
    if mount := mount_of(path):
        return mount.kind
    import psutil

    parts = [
        part
        for part in psutil.disk_partitions(all=True)
        if os.path.commonpath([path, part.mountpoint]) == part.mountpoint
    ]
    return max(parts, key=lambda part: len(part.mountpoint)).fstype.lower() if parts else "unknown"


def mount_options(path: str) -> set[str]:
    """The options of the mount that holds `path`; empty where the system does not list mounts."""
    mount = mount_of(path)
    return set(mount.options.split(",")) if mount else set()


def mount_of(path: str) -> Mount | None:
    """A mount of the file system that holds `path`; None where the system does not list mounts."""
    return next(iter(_mounts(path)), None)


def name_on_share(path: str) -> str | None:
    """The server's name and path of a directory on a share, the same by every mount of it.

    None where the system does not list mounts.
    """
    real = os.path.realpath(path)
    around = [one for one in _mounts(path) if os.path.commonpath([real, one.point]) == one.point]
    if not around:
        return None
    mount = max(around, key=lambda one: len(one.point))
    inside = os.path.normpath(f"/{mount.root}/{os.path.relpath(real, mount.point)}").lstrip("/")
    return f"{mount.source.rstrip('/')}/{inside}".rstrip("/")


def on_block_device(facts: os.stat_result) -> bool:
    """Whether a file lies on a block device: Linux gives file systems without one the major number 0."""
    return sys.platform == "win32" or os.major(facts.st_dev) != 0


def _mounts(path: str) -> list[Mount]:
    """Every mount of the file system that holds `path` (Linux)."""
    if sys.platform != "linux":
        return []
    number = files.kernel.stat(path).st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    found = []
    for line in files.read(MOUNTS, sys.maxsize).decode("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        _, _, device, root, point, *_ = before.split(" ")
        if device == wanted:
            kind, source, options = after.split(" ", 2)
            found.append(Mount(kind, source, options, _plain(root), _plain(point)))
    return found


def _plain(text: str) -> str:
    """A path as mountinfo writes it, with its octal escapes (space, tab, newline, backslash) resolved."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
