"""Mounts: the file system that holds a path, its options, and its name for a directory."""

from __future__ import annotations

import os
import re
import sys

from queuectl.system import files
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Where Linux lists the mounts of this process, and where Unix lists those that ought to be.
MOUNTS, FSTAB = "/proc/self/mountinfo", "/etc/fstab"
#: Mount options that make all files private to their owner, by file systems that make modes up.
PRIVATE_OPTIONS = {
    **dict.fromkeys(["cifs", "smb3"], "file_mode=0600,dir_mode=0700"),
    **dict.fromkeys(["vfat", "exfat", "ntfs", "ntfs3", "fuseblk"], "umask=077"),
}
#: Mount options with which those file systems keep real modes.
_REAL_MODES = frozenset({"posix", "unix", "modefromsid", "cifsacl", "permissions", "acl"})


class Mount(NamedTuple):
    """One line of `/proc/self/mountinfo`.

    `device` is the number of the file system as `MAJOR:MINOR`. `options` are those of the mount and of
    the file system. `root` is the directory of the file system that is seen at the mount point.
    """

    device: str
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

    parts = [part for part in psutil.disk_partitions(all=True) if _is_below(path, part.mountpoint)]
    return max(parts, key=lambda part: len(part.mountpoint)).fstype.lower() if parts else "unknown"


def mount_options(path: str) -> set[str]:
    """The options of the mount that holds `path`; empty where the system does not list mounts."""
    mount = mount_of(path)
    return set(mount.options.split(",")) if mount else set()


def mount_of(path: str) -> Mount | None:
    """A mount of the file system that holds `path`; None where the system does not list mounts."""
    return next(iter(_mounts_with(path)), None)


def name_on_share(path: str) -> str | None:
    """The server's name and path of a directory on a share, the same by every mount of it.

    None where the system does not list mounts.
    """
    real = os.path.realpath(path)
    around = [one for one in _mounts_with(path) if _is_below(real, one.point)]
    if not around:
        return None
    mount = max(around, key=lambda one: len(one.point))
    inside = os.path.normpath(f"/{mount.root}/{os.path.relpath(real, mount.point)}").lstrip("/")
    return f"{mount.source.rstrip('/')}/{inside}".rstrip("/")


def unmounted_at(path: str) -> str | None:
    """The mount point that `path` is or lies below, if /etc/fstab names it and it is not mounted now.

    A mount hides what was written below its mount point before. None also on systems without these files.
    """
    try:
        with open(FSTAB, encoding="utf-8", errors="surrogateescape") as lines:
            rows = [line.split() for line in lines if not line.lstrip().startswith("#")]
    except OSError:
        return None
    named = _real(_plain(row[1]) for row in rows if len(row) > 1)
    mounted = _real(mount.point for mount in _mounts())
    place = os.path.realpath(path)
    while place not in mounted and not os.path.ismount(place):
        if place in named:
            return place
        place = os.path.dirname(place)
    return None


def on_block_device(facts: os.stat_result) -> bool:
    """Whether a file lies on a block device: Linux gives file systems without one the major number 0."""
    return os.major(facts.st_dev) != 0


def _mounts_with(path: str) -> list[Mount]:
    """Every mount of the file system that holds `path`."""
    number = files.kernel.stat(path).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    return [mount for mount in _mounts() if mount.device == device]


def _mounts() -> list[Mount]:
    """Every mount that this process sees (Linux)."""
    if not os.path.exists(MOUNTS):
        return []
    found = []
    for line in files.read(MOUNTS, sys.maxsize).decode("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        _, _, device, root, point, *_ = before.split(" ")
        kind, source, options = after.split(" ", 2)
        found.append(Mount(device, kind, source, options, _plain(root), _plain(point)))
    return found


def _plain(text: str) -> str:
    r"""A path as it is: in these tables a space is written `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def _real(points: Iterable[str]) -> set[str]:
    """The mount points without links; swap and the like have none."""
    return {os.path.realpath(point) for point in points if point.startswith("/")}


def _is_below(path: str, point: str) -> bool:
    return os.path.commonpath([path, point]) == point
