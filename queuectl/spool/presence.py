"""Who is alive: one lock and one beat a worker.

workers/NAME.lock          held by a FileLock for as long as the worker lives; none on a share
workers/NAME.yaml          who it is; its last line is the beat, rewritten in place
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from datetime import timedelta
from functools import cache
from pathlib import Path

from queuectl import disk
from queuectl.errors import BadJob
from queuectl.job import iso, parse_moment, scalar, utc_now
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import Any

    from filelock import FileLock

    from queuectl.spool.root import Root

_BEAT_WIDTH = 160
#: Seconds by which the clock of a host may differ from that of the share before anybody need care.
TOLERANCE = 2.0
#: A clock is not read off a file that took longer than this many seconds to make.
PROMPT = 1.0
#: So many times the interval of looks may pass before a watcher must say that it did not watch.
GAP = 3
#: Seconds by which no clock is off; more than that is no number that a program wrote.
_AGES = 1e12
#: For so many seconds a listing of workers/ tells whose description may be asked for.
_LISTING = 1.0


def host_name() -> str:
    """The name of the host as owners' names bear it."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().split(".")[0])[:40].strip("-") or "host"


@cache
def kernel_id() -> str:
    """The same for processes that share a kernel and see each other's pids, else different."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    import psutil

    return f"{socket.gethostname()}/{psutil.boot_time():.0f}"


def place_of(root: Root) -> str:
    """The kernel and the mount: whoever has the same sees this process, and the locks that it holds here."""
    return f"{kernel_id()}/{disk.kernel.stat(root.workers).st_dev}"


def load() -> None:
    """Import and find out what every worker needs, so that those that are forked share it."""
    import filelock

    del filelock
    kernel_id()


def _runs(pid: int) -> bool:
    """Whether a process of this number runs on this kernel, be it a stranger that was given it since."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _lock(root: Root, name: str) -> FileLock:
    return lock_on(f"{root.workers}/{name}.lock", root.file_mode)


def lock_on(path: str, mode: int = disk.PRIVATE) -> FileLock:
    """A lock on a file, not taken yet; `acquire` raises `Timeout` at once where another one has it."""
    from filelock import FileLock

    return FileLock(
        path,
        timeout=0,
        mode=mode,
        fallback_to_soft=False,
        preserve_lock_file=True,
        thread_local=False,
    )


def _take(lock: FileLock) -> bool:
    """Take the lock; False where somebody else has it, be it one who asks just then whose it is."""
    from filelock import Timeout

    try:
        lock.acquire()
    except Timeout:
        return False
    return True


class Presence:
    """One live worker's description and, where there is one, its lock. Made by `join`, ended by `leave`."""

    def __init__(self, root: Root, name: str, lock: FileLock | None, at: int) -> None:
        self.name = name
        self._root = root
        self._lock = lock  # released when collected, so it is kept
        self._path = f"{root.workers}/{name}.yaml"
        self._beat_at = at
        self._count = 1
        self.clock_offset: float | None = None

    def beat(self, now: datetime, jobs_done: int) -> None:
        """Show a sign of life; raises `OSError` when the share does not take it."""
        self._count += 1
        disk.patch(self._path, _beat_line(self._count, now, jobs_done, self.clock_offset), self._beat_at)

    def read_clock(self) -> None:
        """Read the share's clock off a new file, as far as the share makes one now and is prompt.

        Not off the beat: an SMB client shows for a file that it has just written the time of the write
        before. A disk that is full takes no new file and goes on taking beats.
        """
        with contextlib.suppress(OSError):
            begun = time.time()
            there = disk.server_time(self._root.workers, f".{self.name}.clock.probe")
            ended = time.time()
            if 0 <= ended - begun <= PROMPT:
                self.clock_offset = (begun + ended) / 2 - there

    def learn_clock(self) -> None:
        """Read the share's clock before anything is started by the own one, and tell the others."""
        for _ in range(3):
            self.read_clock()
            if self.clock_offset is not None:
                self.beat(self.now(), 0)
                break

    def is_clock_wrong(self) -> bool:
        """Whether this host's clock is further from the share's than anybody may ignore."""
        return self.clock_offset is not None and abs(self.clock_offset) > TOLERANCE

    def now(self) -> datetime:
        """The time by this host's clock or, where that is wrong, by the share's.

        So all workers of a share start a scheduled job by one clock.
        """
        if self.clock_offset is None or not self.is_clock_wrong():
            return utc_now()
        return utc_now() - timedelta(seconds=self.clock_offset)

    def leave(self) -> None:
        """Take the description away, then the lock; call it when no claim bears the name."""
        try:
            for text in _names_in(self._root):
                if text == f"{self.name}.stop" or text.endswith(f"@{self.name}.cancel"):
                    disk.remove(f"{self._root.workers}/{text}")
            disk.remove(self._path)
            if self._lock is not None and os.name == "posix":
                disk.remove(self._lock.lock_file)
        finally:
            if self._lock is not None:
                self._lock.release()


def join(root: Root, kind: str, now: datetime) -> Presence:
    """Become a worker of this spool, under a name that no owner ever had."""
    while True:
        name = f"{host_name()}-{os.getpid()}-{os.urandom(2).hex()}"
        lock = None if root.is_shared else _lock(root, name)
        if lock is not None and not _take(lock):
            continue
        facts = {
            "name": name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "kind": kind,
            "place": place_of(root),
            "started_at": iso(now),
        }
        head = "".join(f"{key}: {scalar(str(value))}\n" for key, value in facts.items()).encode()
        try:
            disk.create(f"{root.workers}/{name}.yaml", head + _beat_line(1, now, 0, None))
        except FileExistsError:
            if lock is not None:
                lock.release()
            continue
        presence = Presence(root, name, lock, len(head))
        if root.is_shared:
            presence.learn_clock()
        return presence


def _beat_line(count: int, now: datetime, jobs_done: int, clock_offset: float | None) -> bytes:
    beat: dict[str, Any] = {"count": count, "at": iso(now), "jobs_done": jobs_done}
    if clock_offset is not None:
        beat["clock_offset"] = round(clock_offset, 3)
    text = f"beat: {json.dumps(beat)}"
    return (text.ljust(_BEAT_WIDTH - 1) + "\n").encode()


def _names_in(root: Root) -> list[str]:
    return root.texts_in(root.workers)


class Description(NamedTuple):
    """What a worker tells of itself."""

    name: str
    host: str
    pid: int
    kind: str
    place: str
    started_at: str
    beat: int
    beat_at: str
    jobs_done: int
    clock_offset: float | None


def describe(root: Root, name: str) -> Description | None:
    """Read a worker's description afresh; None where it has none or a broken one."""
    try:
        # Read apart, as one document it would need PyYAML, whose import takes as long as many jobs.
        head, _, last = disk.text_of(disk.read(f"{root.workers}/{name}.yaml")).rpartition("\nbeat: ")
        tree: Any = disk.load(f"{head}\n").tree
        beat: Any = disk.load_json(last)
        return Description(
            name=name,
            host=_text(tree["host"]),
            pid=int(tree["pid"]),
            kind=_text(tree["kind"]),
            place=_text(tree["place"]),
            started_at=_moment(tree["started_at"]),
            beat=int(beat["count"]),
            beat_at=_moment(beat["at"]),
            jobs_done=int(beat["jobs_done"]),
            clock_offset=_seconds(beat["clock_offset"]) if "clock_offset" in beat else None,
        )
    except (FileNotFoundError, disk.NotAFile, BadJob, KeyError, TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _moment(value: Any) -> str:
    parse_moment(text := _text(value))
    return text


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not abs(seconds) < _AGES:
        raise ValueError(value)
    return seconds


def described(root: Root) -> list[str]:
    """The names of the workers that have a description, sorted."""
    return sorted(text[:-5] for text in _names_in(root) if text.endswith(".yaml"))


def silences(root: Root, names: Iterable[str]) -> dict[str, float]:
    """Seconds since each worker's last beat, by one clock alone: that of whoever keeps the spool."""
    now = time.time()
    if root.is_shared:
        with contextlib.suppress(OSError):  # one who may only read has to go by the own clock
            now = disk.server_time(root.workers, f".{host_name()}-{os.getpid()}.probe")
    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = max(0.0, now - disk.modified(f"{root.workers}/{name}.yaml")[0])
    return found


def clock_warning(offset: float, whose: str) -> str:
    """What to say of a host whose clock differs from the share's by more than `TOLERANCE`."""
    how = "ahead of" if offset > 0 else "behind"
    return (
        f"The clock of {whose} is {abs(offset):.1f} s {how} the share's; "
        "its workers go by the share's until it is set right."
    )


def looks_every(lease: float) -> float:
    """Seconds between looks at the beats of others: often enough to tell within the lease, no oftener."""
    return min(max(2.0, lease / 10), 30.0)


class _Seen(NamedTuple):
    beat: int | None
    since: float
    at: float


class Onlooker:
    """Tells live owners from dead ones, by locks on a local disk and by watching beats on a share.

    A beat is dead when it has stayed the same for the lease on this process's monotonic clock:
    no clock of another host is compared. A server may drop a lock that is still held: GlusterFS
    does when it is started anew and after a client was cut off. So no lock is asked on a share;
    a worker of this kernel is dead there once its process is gone, too.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._share = root.is_shared
        self._place = place_of(root)
        self._seen: dict[str, _Seen] = {}
        self._listed: frozenset[str] = frozenset()
        self._listed_at = float("-inf")

    def _describe(self, owner: str) -> Description | None:
        """Its description, if it is there. A name that is asked for too early stays "not there" on NFS."""
        if self._share:
            clock = time.monotonic()
            if clock - self._listed_at > _LISTING:
                self._listed, self._listed_at = frozenset(described(self._root)), clock
            if owner not in self._listed:
                return None
        return describe(self._root, owner)

    def is_here(self, owner: str) -> bool:
        """Whether the owner runs on this kernel, so that its processes can be seen from here."""
        description = self._describe(owner)
        if description is None:
            return owner.startswith(f"{host_name()}-") and not self._share
        return description.place == self._place

    def is_alive(self, owner: str, lease: float) -> bool:
        """Whether claims of this owner must be left alone."""
        description = self._describe(owner)
        if description is None:
            # A share may show a claim before the description of its owner.
            return self._unchanged(owner, None, lease) < lease if self._share else self._is_locked(owner)
        is_here = description.place == self._place
        if not self._share and (is_here or self._is_of_an_earlier_boot(description)):
            return self._is_locked(owner)
        if is_here and not _runs(description.pid):
            return False
        return self._unchanged(owner, description.beat, lease) < lease

    def _is_of_an_earlier_boot(self, description: Description) -> bool:
        """Whether it can only be this machine before it was started anew.

        A local disk may be exported: what beats while this machine runs works on another one.
        """
        if description.place.split("/")[0] == self._place.split("/")[0]:
            return False
        import psutil

        try:
            beaten = disk.modified(f"{self._root.workers}/{description.name}.yaml")[0]
        except FileNotFoundError:
            return False
        return description.host == socket.gethostname() and beaten < psutil.boot_time()

    def watch(self, lease: float) -> None:
        """Look at every worker's beat. Call it every `looks_every(lease)`, else no time counts."""
        for owner in described(self._root):
            self.is_alive(owner, lease)

    def _unchanged(self, owner: str, beat: int | None, lease: float) -> float:
        """For how long it has been the same, as far as it was looked at.

        Race: after a gap the count begins anew. A share that was away from all of them hid the
        beats of the living, too.
        """
        now = time.monotonic()
        seen = self._seen.get(owner)
        if seen is None or seen.beat != beat or now - seen.at > GAP * looks_every(lease):
            seen = _Seen(beat, now, now)
        self._seen[owner] = seen._replace(at=now)
        return now - seen.since

    def _is_locked(self, owner: str) -> bool:
        if not disk.exists(f"{self._root.workers}/{owner}.lock"):
            return False
        lock = _lock(self._root, owner)
        if not _take(lock):
            return True
        if describe(self._root, owner) is None:
            # Race: it left while we asked; the lock file that we hold is one that we made.
            disk.remove(lock.lock_file)
        lock.release()
        return False

    def bury(self, owner: str) -> bool:
        """Clear away what a dead worker left in workers/, once none of its claims is left.

        False where it had gone by itself just then.
        """
        left = disk.remove(f"{self._root.workers}/{owner}.yaml")
        for text in _names_in(self._root):
            if _owner_of(text) == owner:
                disk.remove(f"{self._root.workers}/{text}")
        self._seen.pop(owner, None)
        return left

    def clear_orphans(self) -> None:
        """Remove locks and requests of workers that came to their end between two steps of a clearance.

        Not on a share, where a lock may prove nothing of a worker that has just begun.
        """
        names = set() if self._share else set(_names_in(self._root))
        for text in names:
            owner = _owner_of(text)
            if owner and f"{owner}.yaml" not in names and not self._is_locked(owner):
                disk.remove(f"{self._root.workers}/{text}")


def _owner_of(text: str) -> str | None:
    """The worker that a lock is of, or that a request is to."""
    stem, _, ending = text.rpartition(".")
    return stem.rpartition("@")[2] if ending in {"lock", "stop", "cancel"} else None
