"""What is tried: measurements on one host, and trials of two hosts together."""

from __future__ import annotations

import contextlib
import os
import stat
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.spool.root import Root
from queuectl.system import files, host, locks, mounts, users
from queuectl.view.share_check.meeting import LOOK, TELL, Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: The two runs race for this many files.
FILES = 100
#: Each operation is timed this many times.
TIMES = 15
#: The number of pairs of files made in quick succession, and the seconds between two pairs.
PAIRS, BETWEEN = 16, 0.3
#: A name that is not seen within this many seconds never comes.
NEVER = 40.0


class Alone(NamedTuple):
    """What one host measures by itself. Times are seconds.

    `lease` tells whether a read lease is granted on a file that nobody has open, None if the system has
    no leases; `owner` is the user that a new file belongs to, if it is not the one who made it; `is_private`
    whether nobody else may open a file with mode 0600, and `keeps_modes` whether a chmod takes effect;
    `syncs_folders` whether a directory can be synced.
    """

    host: str
    filesystem: str
    clock_offset: float
    round_trips: dict[str, float]
    lease: bool | None = True
    owner: str | None = None
    is_private: bool = True
    keeps_modes: bool = True
    syncs_folders: bool = True


class Together(NamedTuple):
    """What two hosts found out; None if it could not be tried."""

    other_host: str
    same_mount: bool
    other_clock_offset: float
    seen_after: float
    early_seen_after: float | None
    change_seen_after: float | None
    lock_excludes: bool | None
    created_twice: int
    claimed_twice: int
    claims_lost: int
    stale_listings: int = 0
    stale_uncached: int = 0


def mount_of(folder: Path) -> str:
    """Identifies the mount of a directory on this host until it reboots."""
    return f"{host.kernel_id()}/{folder.stat().st_dev}"


def measure(folder: Path, table: Table) -> Alone:
    """Time each operation, compare the clocks, and see how the mount treats files."""
    path = f"{table.path}/.{table.me}.try"
    moved = f"{path}d"
    pulse = table.pulse
    steps: dict[str, Callable[[], object]] = {
        "create": lambda: files.create(path, b"?"),
        "append": lambda: files.append(path, b"?"),
        "read": lambda: files.read(path),
        "rename": lambda: files.move(path, moved),
        "list": lambda: files.list_names(table.path),
        "remove": lambda: files.remove(moved),
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TIMES):
        for name, act in steps.items():
            pulse.beat(f"{name} a file")
            begun = time.perf_counter()
            act()
            taken[name].append(time.perf_counter() - begun)
    trips = {name: round(statistics.median(found), 6) for name, found in taken.items()}
    offsets = []
    for _ in range(3):
        begun = times.clock.now().timestamp()
        there = files.server_time(table.path, f".{table.me}.try")
        offsets.append((begun + times.clock.now().timestamp()) / 2 - there)
    return Alone(
        host.host_name(),
        mounts.filesystem(str(folder)),
        round(statistics.median(offsets), 3),
        trips,
        *_character(table, path),
    )


def _character(table: Table, path: str) -> tuple[bool | None, str | None, bool, bool, bool]:
    """The last five figures of `Alone`."""
    table.pulse.beat("ask for a lease")
    files.create(path, b"?")
    written = files.being_written(path)
    lease = None if written is None else not written
    owner, is_private, keeps_modes = None, True, True
    table.pulse.beat("change a mode")
    if users.HAVE_MODES:
        facts: os.stat_result = files.kernel.lstat(path)
        owner = None if facts.st_uid == os.geteuid() else users.user_name(facts.st_uid)
        keeps_modes = _takes_mode(path, 0o640) & _takes_mode(path, 0o600)
        is_private = not files.kernel.lstat(path).st_mode & 0o077
    table.pulse.beat("sync a directory")
    syncs = not Root(table.path).medium.forgets_names
    try:
        files.sync_folder(table.path)
    except OSError:
        syncs = False
    files.remove(path)
    return lease, owner, is_private, keeps_modes, syncs


def _takes_mode(path: str, mode: int) -> bool:
    try:
        files.kernel.chmod(path, mode)
    except PermissionError:
        return False
    return bool(stat.S_IMODE(files.kernel.lstat(path).st_mode) == mode)


def compare(folder: Path, table: Table, alone: Alone) -> Together:
    """Go through the steps together with the other run."""
    hello = table.get("hello")
    seen, early = _see(table)
    stale = _list_pairs(table)
    lock: locks.Lock | None = None
    beat = f"{table.path}/{table.me}.beat"
    if table.is_first:
        with contextlib.suppress(OSError, NotImplementedError):  # no locks on this mount
            lock = locks.take(table.common("lock"))
        for number in range(FILES):
            files.create(table.common(f"job-{number}"))
    files.create(beat, b"1")
    table.put("ready", None)
    table.wait("ready")
    other_beat = f"{table.path}/{table.other}.beat"
    files.read(other_beat)
    made, claimed = _race(table)
    excludes = lock is not None if table.is_first else _is_excluded(table.common("lock"))
    files.patch(beat, b"2", 0)
    table.put("result", {"made": made, "claimed": claimed, "offset": alone.clock_offset, "lock": excludes})
    theirs = table.get("result")
    change = _until(lambda: files.read(other_beat) == b"2")
    table.put("bye", {"seen": seen, "early": early, "change": change, "stale": stale})
    told = table.get("bye")
    if table.is_first:
        table.wait("gone")
        if lock is not None:
            lock.release()
        table.ended.append(table.other)
    else:
        table.put("gone", None)
        table.ended.clear()  # the other run reads the files and removes them
    return Together(
        other_host=table.other.rsplit("-", 2)[0],
        same_mount=hello["place"] == mount_of(folder),
        other_clock_offset=theirs["offset"],
        seen_after=round(max(seen, told["seen"]), 3),
        early_seen_after=told["early"] if early is None else early,
        change_seen_after=None if None in (change, told["change"]) else max(change or 0.0, told["change"]),
        lock_excludes=excludes and theirs["lock"],
        created_twice=len(set(made) & set(theirs["made"])),
        claimed_twice=len(set(claimed) & set(theirs["claimed"])),
        claims_lost=FILES - len(set(claimed) | set(theirs["claimed"])),
        stale_listings=max(stale[0], told["stale"][0]),
        stale_uncached=max(stale[1], told["stale"][1]),
    )


def _see(table: Table) -> tuple[float, float | None]:
    """Seconds until a name is seen (half a round trip), and until one is that was looked up too early."""
    early = table.common("early")
    if table.is_first:
        begun = times.clock.monotonic()
        table.put("ping", None)
        table.wait("pong")
        seen = (times.clock.monotonic() - begun) / 2
        files.create(early)
        table.put("more", None)
        table.wait("enough")
        return seen, None
    table.wait("ping")
    files.exists(early)
    begun = times.clock.monotonic()
    table.put("pong", None)
    table.wait("more")
    seen = (times.clock.monotonic() - begun) / 2
    found = _until(lambda: files.exists(early))
    table.put("enough", None)
    return seen, NEVER if found is None else found


def _list_pairs(table: Table) -> tuple[int, int]:
    """How many listings kept missing the second of two files made within one clock tick.

    The second figure counts listings past the client's cache. The first run makes the files, the other lists.
    """
    if table.is_first:
        table.wait("lists")
        for number in range(PAIRS):
            table.pulse.beat("create two files")
            files.create(table.common(f"pair-{number}-a"))
            times.clock.sleep(number % 8 / 1000)
            files.create(table.common(f"pair-{number}-b"))
            times.clock.sleep(BETWEEN)
        table.put("paired", None)
        return 0, 0
    table.put("lists", None)
    stale = uncached = 0
    for number in range(PAIRS):
        first, second = (os.path.basename(table.common(f"pair-{number}-{one}")) for one in "ab")
        if not _comes(table, first):
            continue
        times.clock.sleep(BETWEEN / 2)
        if second not in files.list_names(table.path):
            times.clock.sleep(BETWEEN / 8)
            is_stale = second not in files.list_names(table.path)
            is_there = second in files.list_marked(table.path, None)[0] if files.CAN_DROP_LISTINGS else False
            stale += is_stale and is_there
            uncached += is_stale and not is_there
    table.wait("paired")
    return stale, uncached


def _comes(table: Table, name: str) -> bool:
    """Whether a name appears in an ordinary listing within `TELL` seconds."""
    begun = times.clock.monotonic()
    while name not in files.list_names(table.path):
        table.pulse.beat("list the directory")
        if times.clock.monotonic() - begun > TELL:
            return False
    return True


def _until(condition: Callable[[], bool]) -> float | None:
    """The seconds until the condition holds; None if it does not within `NEVER` seconds."""
    begun = times.clock.monotonic()
    while not condition():
        if times.clock.monotonic() - begun > NEVER:
            return None
        times.clock.sleep(LOOK)
    return round(times.clock.monotonic() - begun, 3)


def _race(table: Table) -> tuple[list[int], list[int]]:
    """The files that this run won: by exclusive creation, and by rename."""
    made, claimed = [], []
    for number in range(FILES):
        table.pulse.beat("create and rename files")
        with contextlib.suppress(FileExistsError):
            files.create(table.common(f"made-{number}"))
            made.append(number)
        job = table.common(f"job-{number}")
        if files.move(job, f"{job}@{table.me}"):
            claimed.append(number)
    return made, claimed


def _is_excluded(path: str) -> bool | None:
    try:
        lock = locks.take(path)
    except (OSError, NotImplementedError):
        return None
    if lock is None:
        return True
    lock.release()
    return False
