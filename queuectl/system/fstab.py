"""Mount points that /etc/fstab names: a mount hides what was written below its mount point before."""

from __future__ import annotations

import os
import re

FSTAB = "/etc/fstab"
MOUNTED = "/proc/self/mountinfo"


def unmounted_at(path: str) -> str | None:
    """The mount point that `path` is or lies below, if /etc/fstab names it and it is not mounted now.

    None also on systems without these files.
    """
    named, mounted = _points(FSTAB, 1), _points(MOUNTED, 4)
    place = os.path.realpath(path)
    while place not in mounted and not os.path.ismount(place):
        if place in named:
            return place
        place = os.path.dirname(place)
    return None


def _points(table: str, column: int) -> set[str]:
    """The mount points in a table of mounts, where they stand in this column (from 0)."""
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as lines:
            rows = [line.split() for line in lines if not line.lstrip().startswith("#")]
    except OSError:
        return set()
    found = {_plain(row[column]) for row in rows if len(row) > column}
    return {os.path.realpath(point) for point in found if point.startswith("/")}


def _plain(text: str) -> str:
    r"""A path as it is: in these tables a space is written `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
