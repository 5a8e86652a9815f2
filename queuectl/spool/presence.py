"""Who works here: one description with a beat, and one lock, for each worker."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from queuectl import documents, times
from queuectl.errors import BadJob
from queuectl.job.layout import scalar
from queuectl.spool.liveness import Facts, Standing, Verdict, judge
from queuectl.system import files, host, locks
from queuectl.system.host import host_name, kernel_id
from queuectl.times import duration, iso, parse_moment, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from typing import Any

    from queuectl.spool.root import Root


#: The kinds of the workers of the command line. They hear requests; a Python program that joined hears none.
DETACHED, FOREGROUND, DRAIN = "detached", "foreground", "drain"
_HEARS = frozenset({DETACHED, FOREGROUND, DRAIN})
#: The kind of a member that lives for one act of a person.
BY_HAND = "by hand"
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
#: For so many seconds the clock of a share is taken to go on as the monotonic one does.
_CLOCK = 10.0
#: Seconds between looks of a command that watches: SMB never shows a beat that is read more often.
GLANCE = 2.0


def place_of(root: Root) -> str:
    """The kernel and the mount: whoever has the same sees this process, and the locks that it holds here."""
    return f"{kernel_id()}/{files.kernel.stat(root.workers).st_dev}"


def load() -> None:
    """Import and find out what every worker needs, so that those that are forked share it."""
    locks.system.load()
    kernel_id()


class Presence:
    """One live worker's description and, where there is one, its lock. Made by `join`, ended by `leave`."""

    def __init__(self, root: Root, name: str, lock: locks.Lock | None, at: int) -> None:
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
        files.patch(self._path, _beat_line(self._count, now, jobs_done, self.clock_offset), self._beat_at)

    def read_clock(self) -> None:
        """Read the share's clock off a new file, as far as the share makes one now and is prompt.

        Not off the beat: an SMB client shows for a file that it has just written the time of the write
        before. A disk that is full takes no new file and goes on taking beats.
        """
        with contextlib.suppress(OSError):
            begun = times.clock.now().timestamp()
            there = files.server_time(self._root.workers, f".{self.name}.clock.probe")
            ended = times.clock.now().timestamp()
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
        """Take away what stands for it in workers/; call it when no claim bears the name. Never raises.

        Whatever was done under this name is done: what the disk does not let go of is that of a dead
        worker, which any other one clears away.
        """
        with contextlib.suppress(OSError):
            files.remove(self._path)
        with contextlib.suppress(OSError):
            for text in _names_in(self._root):
                if text == f"{self.name}.stop" or text.endswith(f"@{self.name}.cancel"):
                    files.remove(f"{self._root.workers}/{text}")
        _unlock(self._root, self.name, self._lock)


def _lock_file(root: Root, name: str) -> str:
    return f"{root.workers}/{name}.lock"


def _unlock(root: Root, name: str, lock: locks.Lock | None) -> None:
    """Remove the file of a lock, then release the lock; never raises."""
    if not root.medium.locks_tell:
        return
    if os.name == "posix":
        with contextlib.suppress(OSError):
            files.remove(_lock_file(root, name))
    if lock is not None:
        with contextlib.suppress(OSError):
            lock.release()


def join(root: Root, kind: str, now: datetime) -> Presence:
    """Become a worker of this spool, under a name that no owner ever had.

    Raises `OSError` and leaves nothing behind when the disk does not take it.
    """
    while True:
        name = f"{host_name()}-{files.kernel.getpid()}-{files.kernel.urandom(2).hex()}"
        lock: locks.Lock | None = None
        if root.medium.locks_tell:
            try:
                lock = _take_own_lock(root, name)
            except OSError:
                _unlock(root, name, None)  # its file may have been made before it could not be locked
                raise
            if lock is None:
                continue
        facts = {
            "name": name,
            "host": host.here.full_name(),
            "pid": files.kernel.getpid(),
            "kind": kind,
            "place": place_of(root),
            "started_at": iso(now),
        }
        head = "".join(f"{key}: {scalar(str(value))}\n" for key, value in facts.items()).encode()
        try:
            # Those who share the spool see who works, and none but its user says so.
            mode = root.file_mode & ~0o020
            files.create(f"{root.workers}/{name}.yaml", head + _beat_line(1, now, 0, None), mode)
        except FileExistsError:
            if lock is not None:
                lock.release()
            continue
        except BaseException:
            _unlock(root, name, lock)
            raise
        presence = Presence(root, name, lock, len(head))
        try:
            if root.medium.has_own_clock:
                presence.learn_clock()
        except BaseException:
            presence.leave()
            raise
        return presence


def _take_own_lock(root: Root, name: str) -> locks.Lock | None:
    path = _lock_file(root, name)
    if files.belongs_to_another(path):
        with contextlib.suppress(FileExistsError):  # the lock would make it as root's own
            files.create(path, mode=root.file_mode)
    return locks.take(path, root.file_mode)


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

    @property
    def hears(self) -> bool:
        """Whether it hears requests to stop and to cancel."""
        return self.kind in _HEARS

    @property
    def how_to_end(self) -> str:
        """What to tell people of one that does not."""
        return (
            f"is a Python program ({self.kind}), which hears no request: "
            f"end it on {self.host} with `kill {self.pid}`."
        )


def describe(root: Root, name: str) -> Description | None:
    """Read a worker's description afresh; None where it has none or a broken one."""
    try:
        # Read apart, as one document it would need PyYAML, whose import takes as long as many jobs.
        head, _, last = documents.text_of(files.read(f"{root.workers}/{name}.yaml")).rpartition("\nbeat: ")
        tree: Any = documents.load(f"{head}\n").tree
        beat: Any = documents.load_json(last)
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
    except (FileNotFoundError, files.NotAFile, BadJob, KeyError, TypeError, ValueError):
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


def members(root: Root) -> list[Description]:
    """Every worker and program that joined, by name; not who is there for one act of a person."""
    found = (describe(root, name) for name in described(root))
    return [one for one in found if one is not None and one.kind != BY_HAND]


def spool_time(root: Root) -> float | None:
    """The time by the clock of whoever keeps the spool; None where this process may not ask for it."""
    if not root.medium.has_own_clock:
        return times.clock.now().timestamp()
    try:
        return files.server_time(root.workers, f".{host_name()}-{files.kernel.getpid()}.probe")
    except OSError:
        return None


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
    """Gathers what can be known about owners and judges them: see `standing.judge`.

    A lock file in workers/ is made only by a worker that has the spool on a local disk, and one
    kernel alone has that disk: where this process has it as well, the lock tells at once whether that
    worker lives, also across process namespaces and containers. On a share no lock is asked: flock
    proves nothing there (GlusterFS drops locks that are held). There, and for a worker of another
    host that reaches this disk by the network, the beats are watched.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._medium = root.medium
        self._place = place_of(root)
        self._seen: dict[str, _Seen] = {}
        self._listed: frozenset[str] = frozenset()
        self._listed_at = float("-inf")
        self._clock: tuple[float | None, float] = (None, float("-inf"))

    def _describe(self, owner: str) -> Description | None:
        """Its description, if it is there. A name that is asked for too early stays "not there" on NFS."""
        if not self._medium.answers_truly:
            clock = times.clock.monotonic()
            if clock - self._listed_at > _LISTING:
                self._listed, self._listed_at = frozenset(described(self._root)), clock
            if owner not in self._listed:
                return None
        return describe(self._root, owner)

    def is_here(self, owner: str) -> bool:
        """Whether the owner runs on this kernel, so that its processes can be seen from here."""
        description = self._describe(owner)
        if description is None:
            return owner.startswith(f"{host_name()}-") and self._medium.locks_tell
        return description.place == self._place

    def is_alive(self, owner: str, lease: float) -> bool:
        """Whether claims of this owner must be left alone."""
        return self.judge(owner, lease).standing is not Standing.DEAD

    def judge(self, owner: str, lease: float) -> Verdict:
        """Look at an owner once, and judge it by that and by the looks before."""
        return judge(self._look(owner, lease), lease)

    def _look(self, owner: str, lease: float) -> Facts:
        description = self._describe(owner)
        is_locked = self._locked(owner, description) if self._medium.locks_tell else None
        if description is None:
            watched = 0.0 if is_locked is not None else self._watched(owner, None, lease)
            return Facts(is_described=False, is_locked=is_locked, watched=watched)
        is_here = not self._medium.locks_tell and description.place == self._place
        runs = host.here.runs(description.pid) if is_here else None
        watched = self._watched(owner, description.beat, lease)
        try:
            beaten = files.modified(f"{self._root.workers}/{owner}.yaml")[0]
        except FileNotFoundError:  # it left just now, or is being buried
            return Facts(is_locked=is_locked, runs=runs, watched=watched)
        now = self._now()
        # By the own clock where the share's cannot be asked: whoever may not write takes nothing over.
        age = max(0.0, (times.clock.now().timestamp() if now is None else now) - beaten)
        by_hosts = None
        if self._medium.has_own_clock and now is not None and description.clock_offset is not None:
            by_hosts = times.clock.now().timestamp() - (beaten + description.clock_offset)
        return Facts(is_locked=is_locked, runs=runs, age=age, age_by_hosts=by_hosts, watched=watched)

    def _now(self) -> float | None:
        """The time by the clock of whoever keeps the spool, which is asked for it now and then."""
        if not self._medium.has_own_clock:
            return times.clock.now().timestamp()
        told, at = self._clock
        if times.clock.monotonic() - at > _CLOCK:
            told, at = self._clock = (spool_time(self._root), times.clock.monotonic())
        return None if told is None else told + times.clock.monotonic() - at

    def watch(self, lease: float) -> None:
        """Look at every beat that counts. Call it every `looks_every(lease)`, else no time counts.

        On a local disk this costs one listing where all workers have locks.
        """
        names = set(_names_in(self._root))
        for text in names:
            owner, _, ending = text.rpartition(".")
            if ending == "yaml" and (not self._medium.locks_tell or f"{owner}.lock" not in names):
                self.judge(owner, lease)

    def settle(self, owners: Iterable[str], lease: float, tell: Callable[[str], None]) -> None:
        """Watch owners until it is certain whether each is dead, for the lease at most.

        Says what it waits for, if it has to wait at all.
        """
        verdicts = {owner: self.judge(owner, lease) for owner in owners}
        for owner, verdict in verdicts.items():
            if verdict.is_open:
                tell(
                    f"Worker {owner}: {verdict.why}. It is watched for {duration(verdict.open_for)} "
                    "before anything of it is taken over."
                )
        while still := [owner for owner, verdict in verdicts.items() if verdict.is_open]:
            times.clock.sleep(min(GLANCE, max(verdicts[owner].open_for for owner in still)))
            verdicts |= {owner: self.judge(owner, lease) for owner in still}

    def _watched(self, owner: str, beat: int | None, lease: float) -> float:
        """For how long the beat has been the same, as far as it was looked at.

        Race: after a gap the count begins anew. A share that was away from all of them hid the
        beats of the living, too.
        """
        now = times.clock.monotonic()
        seen = self._seen.get(owner)
        if seen is None or seen.beat != beat or now - seen.at > GAP * looks_every(lease):
            seen = _Seen(beat, now, now)
        self._seen[owner] = seen._replace(at=now)
        return now - seen.since

    def _locked(self, owner: str, description: Description | None) -> bool | None:
        """Whether the owner's lock is held; None where the beats must tell.

        It has none where it works over the network, and another user's may not be open to this one.
        """
        path = _lock_file(self._root, owner)
        if not files.exists(path):
            # A lock that was lost with a power cut, or deleted by hand, tells all the same.
            is_local = description is None or self._is_of_this_disk(description)
            return False if is_local else None
        try:
            lock = locks.take(path, self._root.file_mode)
        except PermissionError:
            return None
        if lock is None:
            return True
        if describe(self._root, owner) is None:
            # Race: it left while we asked; the lock file that we hold is one that we made.
            files.remove(path)
        lock.release()
        return False

    def _is_of_this_disk(self, description: Description) -> bool:
        """Whether a worker without a lock had this local disk itself, in this boot or an earlier one.

        A local disk may be exported: what beats while this machine runs works on another one.
        """
        place, mine = description.place.split("/"), self._place.split("/")
        if place[0] == mine[0]:
            return place[-1] == mine[-1]
        try:
            beaten = files.modified(f"{self._root.workers}/{description.name}.yaml")[0]
        except FileNotFoundError:
            return False
        return description.host == host.here.full_name() and beaten < host.here.booted_at()

    def bury(self, owner: str) -> bool:
        """Clear away what a dead worker left in workers/, once none of its claims is left.

        False where it had gone by itself just then.
        """
        left = files.remove(f"{self._root.workers}/{owner}.yaml")
        for text in _names_in(self._root):
            if _owner_of(text) == owner:
                files.remove(f"{self._root.workers}/{text}")
        self._seen.pop(owner, None)
        return left

    def clear_orphans(self) -> None:
        """Remove locks and requests of workers that came to their end between two steps of a clearance.

        Not on a share, where a lock may prove nothing of a worker that has just begun.
        """
        names = set(_names_in(self._root)) if self._medium.locks_tell else set()
        for text in names:
            owner = _owner_of(text)
            if owner and f"{owner}.yaml" not in names and self._locked(owner, None) is False:
                files.remove(f"{self._root.workers}/{text}")


def _owner_of(text: str) -> str | None:
    """The worker that a lock is of, or that a request is to."""
    stem, _, ending = text.rpartition(".")
    return stem.rpartition("@")[2] if ending in {"lock", "stop", "cancel"} else None
