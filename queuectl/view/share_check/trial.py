"""What is tried: how the mount treats the files of one host, and trials of two hosts together."""

from __future__ import annotations

import contextlib
import os
import stat
import statistics
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.spool.root import Root
from queuectl.system import files, host, mounts, users
from queuectl.view.share_check.meeting import LOOK, TELL, Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: The two runs race for this many files.
FILES = 100
#: The number of pairs of files made in quick succession, and the seconds between two pairs.
PAIRS, BETWEEN = 16, 0.3
#: A change that is not seen within this many seconds never comes.
NEVER = 40.0


class Alone(NamedTuple):
    """What one host finds out by itself.

    `clock_offset` is by how many seconds its clock is ahead of the share's, `lease` whether a read lease is
    granted on a file that nobody has open, None if the system has no leases; `owner` is the user that a new
    file belongs to, if it is not the one who made it; `is_private` whether nobody else may open a file with
    mode 0600, and `keeps_modes` whether a chmod takes effect; `syncs_folders` whether a directory can be
    synced.
    """

    host: str
    filesystem: str
    clock_offset: float
    lease: bool | None = True
    owner: str | None = None
    is_private: bool = True
    keeps_modes: bool = True
    syncs_folders: bool = True


class Together(NamedTuple):
    """What two hosts found out. Times are seconds; None stands for a change that was never seen."""

    other_host: str
    same_mount: bool
    other_clock_offset: float
    seen_after: float
    change_seen_after: float | None
    created_twice: int
    claimed_twice: int
    claims_lost: int
    stale_listings: int = 0


def mount_of(folder: Path) -> str:
    """Identifies the mount of a directory on this host until it reboots."""
    return f"{host.kernel_id()}/{folder.stat().st_dev}"


def measure(folder: Path, table: Table) -> Alone:
    """Compare the clocks, and see how the mount treats files."""
    path = f"{table.path}/.{table.me}.try"
    offsets = []
    for _ in range(3):
        table.asks("create a file")
        begun = times.clock.now().timestamp()
        there = files.server_time(table.path, f".{table.me}.try")
        offsets.append((begun + times.clock.now().timestamp()) / 2 - there)
    table.asks("ask for a lease")
    files.create(path, b"?")
    written = files.being_written(path)
    owner, is_private, keeps_modes = None, True, True
    table.asks("change a mode")
    if users.HAVE_MODES:
        maker = files.kernel.lstat(path).st_uid
        owner = None if maker == os.geteuid() else users.user_name(maker)
        keeps_modes = _takes_mode(path, 0o640) & _takes_mode(path, 0o600)
        is_private = not files.kernel.lstat(path).st_mode & 0o077
    files.remove(path)
    table.asks("sync a directory")
    syncs = not Root(table.path).medium.forgets_names
    try:
        files.sync_folder(table.path)
    except OSError:
        syncs = False
    return Alone(
        host.host_name(),
        mounts.filesystem(str(folder)),
        round(statistics.median(offsets), 3),
        None if written is None else not written,
        owner,
        is_private,
        keeps_modes,
        syncs,
    )


def _takes_mode(path: str, mode: int) -> bool:
    try:
        files.kernel.chmod(path, mode)
    except PermissionError:
        return False
    return bool(stat.S_IMODE(files.kernel.lstat(path).st_mode) == mode)


def compare(folder: Path, table: Table, alone: Alone) -> Together:
    """Go through the steps together with the other run."""
    hello = table.get("hello")
    seen = _see_a_name(table)
    stale = _list_pairs(table)
    beat, other_beat = (f"{table.path}/{name}.beat" for name in (table.me, table.other))
    if table.is_first:
        for number in range(FILES):
            files.create(table.common(f"job-{number}"))
    files.create(beat, b"1")
    table.swap("ready")
    files.read(other_beat)  # a client may go on showing what it has read
    made, claimed = _race(table)
    files.patch(beat, b"2", 0)
    theirs = table.swap("result", {"made": made, "claimed": claimed, "offset": alone.clock_offset})
    change = _until(lambda: files.read(other_beat) == b"2")
    told = table.swap("bye", {"seen": seen, "change": change, "stale": stale})
    if table.is_first:
        table.get("gone")
        table.ended.append(table.other)
    else:
        table.put("gone")
        table.ended.clear()  # the other run reads the files and removes them
    return Together(
        other_host=table.other.rsplit("-", 2)[0],
        same_mount=hello["place"] == mount_of(folder),
        other_clock_offset=theirs["offset"],
        seen_after=round(max(seen, told["seen"]), 3),
        change_seen_after=None if None in {change, told["change"]} else max(change or 0.0, told["change"]),
        created_twice=len(set(made) & set(theirs["made"])),
        claimed_twice=len(set(claimed) & set(theirs["claimed"])),
        claims_lost=FILES - len(set(claimed) | set(theirs["claimed"])),
        stale_listings=max(stale, told["stale"]),
    )


def _see_a_name(table: Table) -> float:
    """Seconds until the other host's new name is seen: half a round trip."""
    begun = times.clock.monotonic()
    if table.is_first:
        table.put("ping")
        table.get("pong")
        return (times.clock.monotonic() - begun) / 2
    table.get("ping")
    table.put("pong")
    return 0.0


def _list_pairs(table: Table) -> int:
    """How often the second of two files made within one clock tick stayed hidden from listings.

    The first run makes the files, the other lists.
    """
    if table.is_first:
        table.get("lists")
        for number in range(PAIRS):
            table.asks("create two files")
            files.create(table.common(f"pair-{number}-a"))
            times.clock.sleep(number % 8 / 1000)
            files.create(table.common(f"pair-{number}-b"))
            times.clock.sleep(BETWEEN)
        table.put("paired")
        return 0
    table.put("lists")
    stale = 0
    for number in range(PAIRS):
        first, second = (os.path.basename(table.common(f"pair-{number}-{one}")) for one in "ab")
        if _until(lambda: first in table.names(), TELL) is not None:  # noqa: B023 - called at once
            times.clock.sleep(BETWEEN / 2)
            if second not in table.names():
                times.clock.sleep(BETWEEN / 8)
                stale += second not in table.names()
    table.get("paired")
    return stale


def _until(condition: Callable[[], bool], patience: float = NEVER) -> float | None:
    """The seconds until the condition holds; None if it does not within `patience` seconds."""
    begun = times.clock.monotonic()
    while not condition():
        if times.clock.monotonic() - begun > patience:
            return None
        times.clock.sleep(LOOK)
    return round(times.clock.monotonic() - begun, 3)


def _race(table: Table) -> tuple[list[int], list[int]]:
    """The files that this run won: by exclusive creation, and by rename."""
    made, claimed = [], []
    for number in range(FILES):
        table.asks("create and rename files")
        with contextlib.suppress(FileExistsError):  # the other run won it
            files.create(table.common(f"made-{number}"))
            made.append(number)
        job = table.common(f"job-{number}")
        if files.move(job, f"{job}@{table.me}"):
            claimed.append(number)
    return made, claimed
