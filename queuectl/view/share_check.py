"""Whether a mount is fit for a queue: two runs of this, on two hosts, try out what the queue relies on.

both      hello         each finds others by listing
both      meets-NAME    and answers them; two that have answered each other begin
first     ping, more    how soon a new name is seen, and one that was asked for too early
both      lists, stale  files made in quick succession by the first, listed by the second meanwhile
both      ready, race   files made exclusively, files renamed, a lock that the first one holds
both      result, bye   what each has won is compared
second    gone          then the first one clears the table

Every file bears the name of a run: whatever a third or a dead one has there is no matter of the two.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import statistics
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import QueueError
from queuectl.spool import presence
from queuectl.spool.holds import SETTLE_BLIND
from queuectl.spool.root import Root
from queuectl.system import files, host, locks, mounts, users

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

FOLDER = ".queuectl-check"
#: How many files the two race for.
FILES = 100
#: How often each operation is timed.
TIMES = 15
#: Seconds between looks for what the other has done.
LOOK = 0.02
#: Seconds that one may take for a step before it is taken for gone, or a name for never coming.
STEP, NEVER = 60.0, 40.0
#: Seconds after which the user is told what is waited for.
TELL = 5.0
#: Seconds without a single answer of the share after which the run ends.
HANGS = 60.0
#: Seconds that a run has to clear the table after it was interrupted.
STOPPING = 5.0
#: How often two files are made in quick succession, and the seconds that lie between two such pairs.
PAIRS, BETWEEN = 16, 0.3
#: How long it is tried to sit down, where the directory comes and goes.
SEATING = 5.0
#: A name that takes longer than this many seconds to be seen slows the queue down.
SLOW = 3.0
#: What is this many seconds older than a run's own files was left by one that was killed.
LEFT = 3600.0
_OF_A_RUN = re.compile(r"\.?[A-Za-z0-9-]+-\d+-[0-9a-f]{4}\.", re.ASCII)

#: The options that were good on SMB, beside those for owner and modes.
SMB = "cache=none,actimeo=1,nobrl,nolease"
#: What to change, by type of mount, where names or contents are seen late.
FRESHER = {
    "nfs": "mount it with `-o lookupcache=positive,actimeo=1`",
    "nfs4": "mount it with `-o lookupcache=positive,actimeo=1`",
    "cifs": f"mount it with `-o {SMB}`",
    "smb3": f"mount it with `-o {SMB}`",
    "fuse.sshfs": "mount it with `-o dir_cache=no`",
    "fuse.glusterfs": "mount it with `-o entry-timeout=1,attribute-timeout=1,negative-timeout=0`",
}


class Alone(NamedTuple):
    """What one host can measure for itself. Times are seconds.

    `lease` tells whether a read lease is granted on a file that nobody has open, None where none is
    offered; `owner` is the user that a new file belongs to, if it is not the one who made it; `is_private`
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
    """What two hosts found out. `None` where it could not be tried."""

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


class Report(NamedTuple):
    """The figures, and what they mean in words. `verdict` is `safe`, `unsafe` or `unknown`."""

    alone: Alone
    together: Together | None
    verdict: str
    remarks: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The object that `check --share --json` prints."""
        both = None if self.together is None else self.together._asdict()
        return {"verdict": self.verdict, **self.alone._asdict(), "together": both, "remarks": self.remarks}


def check(folder: Path, patience: float, tell: Callable[[str], None]) -> Report:
    """Measure the mount that holds `folder`, with another run of this if one comes within `patience`.

    Leaves nothing behind. Raises `QueueError` where a third one meddles, the other one goes away, or the
    share does not answer for `HANGS` seconds: the call that hangs is left to a thread that ends with us.
    """
    pulse = Pulse()
    found: list[Report | BaseException] = []
    is_done = threading.Event()  # Python 3.11 takes a thread whose `join` was interrupted for ended

    def run() -> None:
        try:
            found.append(_check(folder, patience, tell, pulse))
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the thread that waits
            found.append(error)
        is_done.set()

    threading.Thread(target=run, name="check --share", daemon=True).start()
    try:
        while not is_done.wait(0.2):
            if pulse.silence() > HANGS:
                raise QueueError(
                    f"{folder} has not answered for {HANGS:g} s: it hangs in `{pulse.at}`.",
                    "See whether its server can be reached, then start both again.",
                )
    finally:
        pulse.is_ended = True  # Ctrl-C: the thread clears the table at its next step
        is_done.wait(STOPPING)
    (result,) = found
    if isinstance(result, BaseException):
        raise result
    return result


class Ended(Exception):
    """The run is over: nobody waits for it."""


class Pulse:
    """What a run asks of the share, and since when: the share has answered what came before."""

    def __init__(self) -> None:
        self.at = ""
        self.since = times.clock.monotonic()
        self.is_ended = False

    def beat(self, at: str) -> None:
        """Tell what is asked for next; raises `Ended` once nobody waits for it."""
        if self.is_ended:
            raise Ended
        self.at, self.since = at, times.clock.monotonic()

    def silence(self) -> float:
        """Seconds since the share has answered."""
        return times.clock.monotonic() - self.since


def _check(folder: Path, patience: float, tell: Callable[[str], None], pulse: Pulse) -> Report:
    place = folder.absolute() / FOLDER
    table = Table.at(place, tell, pulse)
    try:
        alone = _alone(folder, table)
        together: Together | None = None
        table.put("hello", {"place": _mount(folder)})
        tell(f"Waiting for `queuectl check --share {folder}` on another host, for {patience:g} s at most.")
        if table.find_other(patience):
            tell("There it is; trying out the share together.")
            try:
                together = _together(folder, table, alone)
            except FileNotFoundError:  # what the other one had put there is gone, with it
                raise table.stuck() from None
        return judged(folder, alone, together, table.silent)
    finally:
        table.clear()
        with contextlib.suppress(OSError):  # another one is still there, and does it
            place.rmdir()


def _mount(folder: Path) -> str:
    return f"{host.kernel_id()}/{folder.stat().st_dev}"


class Table:
    """The directory in which the two meet: what each puts there bears its name, and is whole at once."""

    def __init__(self, path: str, tell: Callable[[str], None], pulse: Pulse) -> None:
        self.path = path
        self.pulse = pulse
        self._tell = tell
        self._root = Root(path)
        self.me = f"{host.host_name()}-{files.kernel.getpid()}-{files.kernel.urandom(2).hex()}"
        self.other = ""
        self.silent: list[str] = []
        self.ended = [self.me]

    @classmethod
    def at(
        cls, place: Path, tell: Callable[[str], None] = lambda _: None, pulse: Pulse | None = None
    ) -> Table:
        """Take a seat, which keeps the directory from being removed by one that leaves just then."""
        if what := "a link" if place.is_symlink() else "a file" if place.is_file() else None:
            raise QueueError(f"{place} is {what}, where a directory was to be made.", "Delete it.")
        table = cls(str(place), tell, pulse or Pulse())
        end = times.clock.monotonic() + SEATING
        while True:
            try:
                place.mkdir(exist_ok=True)
                files.create(f"{place}/.{table.me}.seat")
            except OSError as error:
                # GlusterFS makes none of a directory that two make at once, and tells both it is there.
                is_late = times.clock.monotonic() > end
                if is_late or error.errno not in {errno.ENOENT, errno.EEXIST, errno.ENODATA}:
                    raise
                times.clock.sleep(LOOK)
            else:
                return table

    @property
    def is_first(self) -> bool:
        """Whether this one does what one of the two has to do."""
        return self.me < self.other

    def common(self, what: str) -> str:
        """The path of a file that the two have in common."""
        return f"{self.path}/{min(self.me, self.other)}.{what}"

    def put(self, step: str, facts: object) -> None:
        """Come to a step, with what the other is to know then."""
        self.pulse.beat("create and rename a file")
        hidden = f"{self.path}/.{self.me}.new"
        files.create(hidden, json.dumps(facts).encode())
        files.move(hidden, f"{self.path}/{self.me}.{step}")

    def find_other(self, patience: float) -> bool:
        """Wait for another one that answers; `silent` are then those that did not."""
        end = times.clock.monotonic() + patience
        met: set[str] = set()
        while True:
            names = self.names()
            hellos = [text for text in names if text.endswith(".hello") and _OF_A_RUN.match(text)]
            others = {text.removesuffix(".hello") for text in hellos} - {self.me}
            for name in others - met:
                self.put(f"meets-{name}", None)
            met |= others
            answered = [name for name in others if f"{name}.meets-{self.me}" in names]
            if len(answered) > 1:
                raise QueueError(
                    "More than two runs check this directory at once.", "Let two of them do it, alone."
                )
            if answered:
                self.other = answered[0]
                return True
            if times.clock.monotonic() > end:
                self.silent = sorted(others)
                return False
            times.clock.sleep(LOOK)

    def names(self) -> list[str]:
        """Everything that lies there."""
        self.pulse.beat("list the directory")
        return self._root.texts_in(self.path)

    def wait(self, step: str) -> float:
        """Wait until the other has come so far; returns the seconds that this took."""
        begun = times.clock.monotonic()
        is_told = False
        while f"{self.other}.{step}" not in (names := self.names()):
            passed = times.clock.monotonic() - begun
            if f"{self.other}.hello" not in names or passed > STEP:
                self.ended.append(self.other)
                raise self.stuck()
            if passed > TELL and not is_told:
                is_told = True
                self._tell(f"Waiting for {self.other} to come to its step `{step}`, for {STEP:g} s at most.")
            times.clock.sleep(LOOK)
        return times.clock.monotonic() - begun

    def stuck(self) -> QueueError:
        """What to say when the other one has gone away."""
        return QueueError(f"The run on the other host ({self.other}) does not go on.", "Start both anew.")

    def get(self, step: str) -> Any:
        """Wait until the other has come so far; returns what it put there."""
        self.wait(step)
        return json.loads(files.read(f"{self.path}/{self.other}.{step}"))

    def clear(self) -> None:
        """Remove what was put there by those who have `ended`, and by others long ago."""
        with contextlib.suppress(OSError):
            of_ended = tuple(f"{hidden}{name}." for name in self.ended for hidden in ("", "."))
            now = files.modified(f"{self.path}/.{self.me}.seat")[0]
            for text in self._root.texts_in(self.path):
                if text.startswith(of_ended) or self._is_left(text, now):
                    files.remove(f"{self.path}/{text}")

    def _is_left(self, text: str, now: float) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return bool(_OF_A_RUN.match(text)) and now - files.modified(f"{self.path}/{text}")[0] > LEFT
        return False


# ── measuring ─────────────────────────────────────────────────────────────────────────────────


def _alone(folder: Path, table: Table) -> Alone:
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
    if os.name == "posix":
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


def _together(folder: Path, table: Table, alone: Alone) -> Together:
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
        table.ended.clear()  # the other one reads them, and removes them
    return Together(
        other_host=table.other.rsplit("-", 2)[0],
        same_mount=hello["place"] == _mount(folder),
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
    """How soon a name is seen: half of there and back; and how soon one that was asked for too early."""
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
    """How often a listing went on without the second of two files that were made within a tick of a clock.

    And how often one past the client's cache did. The first run makes them, the second one lists.
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
            is_there = (
                second in files.list_marked(table.path, None)[0] if hasattr(os, "posix_fadvise") else False
            )
            stale += is_stale and is_there
            uncached += is_stale and not is_there
    table.wait("paired")
    return stale, uncached


def _comes(table: Table, name: str) -> bool:
    """Whether a name comes to be listed as any program lists it."""
    begun = times.clock.monotonic()
    while name not in files.list_names(table.path):
        table.pulse.beat("list the directory")
        if times.clock.monotonic() - begun > TELL:
            return False
    return True


def _until(condition: Callable[[], bool]) -> float | None:
    """The seconds until it holds; None if it does not come to hold."""
    begun = times.clock.monotonic()
    while not condition():
        if times.clock.monotonic() - begun > NEVER:
            return None
        times.clock.sleep(LOOK)
    return round(times.clock.monotonic() - begun, 3)


def _race(table: Table) -> tuple[list[int], list[int]]:
    """What this one has won: of files to be made exclusively, and of files to be renamed."""
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


# ── judging ───────────────────────────────────────────────────────────────────────────────────


def judged(folder: Path, alone: Alone, together: Together | None, silent: Sequence[str] = ()) -> Report:
    """What the figures mean, in words; `silent` are runs that did not answer this one."""
    remarks = [*_remarks_on_mount(folder, alone), *_remarks_on_clock(alone.host, alone.clock_offset)]
    if together is None:
        remarks.append("No other host came: whether claims are exclusive here was not tried.")
        if silent:
            remarks.append(
                f"{', '.join(silent)} did not answer: they try it out with each other, or were killed."
            )
        return Report(alone, None, "unknown", remarks)
    if together.same_mount:
        remarks.append("Both runs are on one mount of one host: run the other one on another host.")
    remarks += _remarks_on_clock(together.other_host, together.other_clock_offset)
    wrong = []
    if together.claimed_twice or together.claims_lost:
        wrong.append(
            f"Of {FILES} files that both renamed, {together.claimed_twice} were won by both and "
            f"{together.claims_lost} by none: a job would run twice or never. Do not use this mount."
        )
    if together.created_twice:
        wrong.append(
            f"Of {FILES} files that both made exclusively, {together.created_twice} were made by both: "
            "an id could be taken twice. Do not use this mount."
        )
    if together.stale_uncached:
        wrong.append(
            f"In {together.stale_uncached} of {PAIRS} tries a new file stayed hidden from listings past the "
            "cache, too: an idle worker may not see a job. Do not use this mount."
        )
    remarks += _remarks_on_caches(alone.filesystem, together)
    if together.lock_excludes is not True:
        remarks.append("A lock does not exclude other hosts here. The queue does not need it to.")
    verdict = "unsafe" if wrong else "unknown" if together.same_mount else "safe"
    return Report(alone, together, verdict, wrong + remarks)


def _remarks_on_mount(folder: Path, alone: Alone) -> list[str]:
    options = mounts.mount_options(str(folder))
    remarks = []
    if alone.filesystem.startswith("nfs") and options & {"soft", "softerr"}:
        remarks.append(
            "It is mounted `soft`: what is written may get lost unnoticed; mount it with `-o hard`."
        )
    if alone.filesystem in {"cifs", "smb3"} and "nolease" not in options:
        remarks.append(
            "A host that vanishes with files open for writing holds up others that rename them, for a minute "
            "or more: mount it with `-o nolease`."
        )
    if alone.lease is False:
        remarks.append(
            "A lease is refused though nobody has the file open. The queue asks for none on a share: there a "
            f"file is whole once it has stood still for {SETTLE_BLIND:g} s."
        )
    if not alone.syncs_folders:
        remarks.append(
            "Syncing a directory does nothing here: a power cut of the server may undo a rename. The queue "
            "syncs each job's file under its name; your own scripts should, too."
        )
    return remarks + _remarks_on_owner(alone)


def _remarks_on_owner(alone: Alone) -> list[str]:
    remarks = []
    if alone.owner is not None:
        remarks.append(
            f"What is made here belongs to {alone.owner}, and not to the user who makes it: a worker of root "
            "runs no such job. Export it with `no_root_squash` (NFS) or mount it with `-o uid=USER` (SMB)."
        )
    if not alone.is_private:
        remarks.append(
            "Other users may open what is made here, and a chmod has no effect: mount it so that files are "
            "private, on SMB with `-o uid=USER,gid=GROUP,file_mode=0600,dir_mode=0700`."
        )
    return remarks


def _remarks_on_clock(host: str, offset: float) -> list[str]:
    return [presence.clock_warning(offset, host)] if abs(offset) > presence.TOLERANCE else []


def _remarks_on_caches(kind: str, together: Together) -> list[str]:
    remarks = []
    fresher = FRESHER.get(kind, "look for the mount options of its caches")
    if together.seen_after > SLOW:
        remarks.append(
            f"A new name is seen after {together.seen_after:.1f} s: to start jobs sooner, {fresher}."
        )
    if together.early_seen_after is not None and together.early_seen_after > SLOW:
        remarks.append(
            f"A name that was asked for too early stays hidden for {together.early_seen_after:.0f} s or "
            "more. The queue looks by listing; your own scripts should, too."
        )
    if together.stale_listings:
        remarks.append(
            f"In {together.stale_listings} of {PAIRS} tries a listing stayed out of date until the directory "
            "changed again. The queue lists past the cache; your own scripts may miss files."
        )
    late = NEVER if together.change_seen_after is None else together.change_seen_after
    slowest = max(late, together.seen_after)
    if slowest > SLOW:
        remarks.append(
            f"Set `lock_lease_seconds` to no less than {4 * slowest:.0f}: signs of life are seen late here."
        )
    return remarks
