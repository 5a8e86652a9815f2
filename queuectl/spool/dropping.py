"""Files that people and programs put into pending/: taken in once whole, or put aside with a reason."""

from __future__ import annotations

import logging
import stat
import time

from queuectl import disk
from queuectl.errors import BadJob, IdTaken
from queuectl.job import State, stamp
from queuectl.spool import claiming, finding, ids
from queuectl.spool.claiming import SETTLE_BLIND
from queuectl.spool.names import Name, id_from_file_name, make_id, rank_of
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from datetime import datetime

    from queuectl.settings import Settings
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: Seconds that a file must have stayed the same, where the system tells that nobody writes to it.
SETTLE = 0.2
#: A file that has not come to be whole after this many seconds is reported, once.
LONG = 10.0

_ENDINGS = (".yaml", ".yml", ".json")


def is_job_file(text: str) -> bool:
    """Whether a file of this name is meant as a job."""
    return text[:1] != "." and text.lower().endswith(_ENDINGS)


class _Seen(NamedTuple):
    """A file's mark and since when it is the same; when it was first seen, and whether that was reported."""

    mark: disk.Mark
    since: float
    first: float
    is_told: bool = False


class Drops:
    """The files in pending/ that have no sortable name yet, and since when each stands still."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._seen: dict[str, _Seen] = {}

    def look(self, names: list[str], owner: str, settings: Settings, now: datetime) -> tuple[list[str], bool]:
        """Take in those that are whole.

        Returns the names that want another look soon, and whether any of the others is gone from
        where it was: then pending/ holds names that nobody has listed.
        """
        clock = time.monotonic()
        unsettled, is_gone = [], False
        for text in dict.fromkeys(filter(is_job_file, names)):
            path = f"{self._root.folder(State.PENDING)}/{text}"
            try:
                facts: os.stat_result = disk.kernel.lstat(path)
            except FileNotFoundError:
                self._seen.pop(text, None)
                is_gone = True
                continue
            if stat.S_ISDIR(facts.st_mode):
                continue
            settled = self._has_settled(text, path, facts, clock, now)
            if settled and self._take_in(text, owner, settings, now):
                self._seen.pop(text, None)
                is_gone = True
            else:
                unsettled.append(text)
                self._tell_late(text, clock)
        self._seen = {text: seen for text, seen in self._seen.items() if text in set(unsettled)}
        return unsettled, is_gone

    def _has_settled(self, text: str, path: str, facts: os.stat_result, clock: float, now: datetime) -> bool:
        if not stat.S_ISREG(facts.st_mode):
            return True
        mark = disk.Mark(facts.st_mtime_ns, facts.st_size, facts.st_ino)
        seen = self._seen.get(text)
        if seen is None or seen.mark != mark:
            first, is_told = (seen.first, seen.is_told) if seen else (clock, False)
            seen = self._seen[text] = _Seen(mark, clock, first, is_told)
        if self._root.is_shared:
            return clock - seen.since >= SETTLE_BLIND and _same(_opened_mark(path, mark), mark)
        written = disk.being_written(path)
        if written is None:
            return clock - seen.since >= SETTLE_BLIND
        age = now.timestamp() - facts.st_mtime
        return not written and (age >= SETTLE or clock - seen.since >= SETTLE)

    def _tell_late(self, text: str, clock: float) -> None:
        seen = self._seen.get(text)
        if seen is not None and not seen.is_told and clock - seen.first >= LONG:
            log.warning("pending/%s is not taken in yet: it has been written to for %.0f s", text, LONG)
            self._seen[text] = seen._replace(is_told=True)

    def _take_in(self, text: str, owner: str, settings: Settings, now: datetime) -> bool:
        """Claim the file, so that no other worker judges it, then name it or put it aside.

        False if it turns out to be written to still. A share may have shown its size and time from a
        cache; under its new name they are those that the server has.
        Crash: the claim bears an id that nobody has; recovery files it again under that.
        """
        root = self._root
        fifo = settings.scheduling_mode == "fifo"
        name = Name(rank_of(settings.priority, fifo=fifo), stamp(now), make_id(), owner)
        path = f"{root.folder(State.PROCESSING)}/{name}"
        dropped = f"{root.folder(State.PENDING)}/{text}"
        if not disk.move(dropped, path):
            return True
        seen = self._seen.get(text)
        if root.is_shared and seen and not _same(disk.mark(path), seen.mark):
            disk.move(path, dropped)
            return False
        try:
            self._file(name, path, id_from_file_name(text), now, fifo=fifo)
        except OSError:
            claiming.put_back(root, name, State.PENDING)
            raise
        return True

    def _file(self, name: Name, path: str, suggested: str, now: datetime, *, fifo: bool) -> None:
        root = self._root
        try:
            job = claiming.read_ready(path).job
        except (BadJob, disk.NotAFile, PermissionError) as error:
            self._put_aside(name, suggested, claiming.why(error))
            return
        if job.id is not None and not ids.take_over(root, job.id):
            taken = IdTaken(job.id, finding.bearers(root, [job.id]).get(job.id.lower()))
            self._put_aside(name, suggested, str(taken), claiming.OTHER_ID)
            return
        rank = name.rank if job.priority is None else rank_of(job.priority, fifo=fifo)
        own = job.id or ids.take_like(root, suggested)
        target = claiming.free_name(root, State.PENDING, Name(rank, stamp(job.run_at or now), own))
        disk.move(path, f"{root.folder(State.PENDING)}/{target}")

    def _put_aside(self, name: Name, suggested: str, reason: str, remedy: str | None = None) -> None:
        target = name._replace(id=ids.take_like(self._root, suggested), owner=None)
        claiming.bury(self._root, name, target, reason, remedy)


def _opened_mark(path: str, known: disk.Mark) -> disk.Mark | None:
    """The mark that the server has, None where the file is gone.

    Of one that cannot be opened it is the known mark: such a file is put aside unread.
    """
    try:
        return disk.opened_mark(path)
    except FileNotFoundError:
        return None
    except (disk.NotAFile, PermissionError):
        return known


def _same(one: disk.Mark | None, other: disk.Mark) -> bool:
    """Whether nobody wrote between the two; the inode is no evidence, FUSE makes its number up."""
    return one is not None and (one.mtime_ns, one.size) == (other.mtime_ns, other.size)
