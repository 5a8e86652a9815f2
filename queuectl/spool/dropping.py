"""Files that people and programs drop into pending/: each becomes a job once it is whole, or is put aside.

pending/ANY.yaml          ->  pending/NAME             it is a job, under the id that was taken for it
pending/ANY.yaml.held     ->  pending/NAME.held        the same, and it is held
pending/ANY.yaml          ->  processing/NAME@OWNER    it is none: nobody else judges it now
processing/NAME@OWNER     ->  dead/NAME                with the reason beside it

Several workers may judge a file at once: the one that takes its id files it. Crash: the file is where it was
dropped and its id is abandoned; or recovery files it under NAME, and whoever claims it judges it again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import stat
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, IdTaken, QueueError
from queuectl.job.model import State
from queuectl.spool import aside, claims, ids, jobfile, jobs, keys
from queuectl.spool.names import (
    FIFO_RANK,
    HELD,
    PARKED,
    Kind,
    Name,
    classify,
    id_from_file_name,
    is_made_id,
    make_id,
    rank_of,
)
from queuectl.system import files
from queuectl.system.medium import SETTLE_UNWATCHED
from queuectl.times import stamp

if TYPE_CHECKING:
    import os
    from datetime import datetime

    from queuectl.job.model import Job
    from queuectl.settings import Settings
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: A file that is not whole after this many seconds is reported, once.
LONG = 10.0
#: Seconds between tries to move a file that the system refuses to move, such as an immutable one.
REFUSED = 5.0


class _Seen(NamedTuple):
    """What is known of a dropped file; all times are monotonic.

    `since` is when it was first seen with this mark, `first` when it was first seen at all. `is_told` says
    whether it was reported as not whole. One that the system refuses to move is not tried before `refused`.
    """

    mark: files.Mark
    since: float
    first: float
    is_told: bool = False
    refused: float = 0.0


class _Drop(NamedTuple):
    """A dropped file that is whole: its name, its mark, and its job.

    `wanted` is the id that it names, else the one that its name suggests.
    """

    text: str
    mark: files.Mark
    job: Job
    wanted: str


class Drops:
    """The files in pending/ that have no sortable name yet, and when each changed last. One per worker.

    Nothing waits here: a file that cannot be judged yet stays where it is and is looked at again later.
    """

    def __init__(self, root: Root, owner: str, abandoned: ids.Abandoned) -> None:
        self._root = root
        self._abandoned = abandoned
        self._keys = keys.Keys(root)
        #: The claim of a file whose content asks for nothing, without an id.
        self._default = Name(0, "", "", owner)
        self._seen: dict[str, _Seen] = {}
        self._filed: list[str] = []

    def look(self, names: list[str], settings: Settings, now: datetime) -> tuple[list[str], list[str]]:
        """Take in the files that are whole.

        Returns the names to look at again soon, and the names in pending/ of those that may start. Raises
        `OSError` where the disk fails: the files that are left have their own names then.
        """
        clock = times.clock.monotonic()
        drops = [text for text in dict.fromkeys(names) if classify(State.PENDING, text) is Kind.DROP]
        if drops:
            ids.restore(self._root)
        rank = rank_of(settings.priority, fifo=settings.scheduling_mode == "fifo")
        self._default = self._default._replace(rank=rank, due=stamp(now))
        self._seen = {text: seen for text in drops if (seen := self._look_at(text, clock)) is not None}
        self._filed = []
        contested = []
        for text, seen in list(self._seen.items()):
            data = None if seen.refused > clock else self._whole(text, seen, clock, now)
            if data is not None and (drop := self._judge(text, seen.mark, data)) is not None:
                contested.append(drop)
        # Race: an id may have been taken since this look began.
        ended = now.timestamp() + times.clock.monotonic() - clock
        contested = [drop for drop in contested if not self._is_in_hand(drop, ended)]
        if contested:
            self._settle(contested)
        return [text for text, seen in self._seen.items() if not seen.refused], self._filed

    def _look_at(self, text: str, clock: float) -> _Seen | None:
        """What is known of a file now; None for a directory and for what is gone."""
        try:
            facts: os.stat_result = files.kernel.lstat(self._path(text))
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(facts.st_mode):
            return None
        mark, seen = files.mark_of(facts), self._seen.get(text)
        if seen is None:
            return _Seen(mark, clock, clock)
        return seen if seen.mark == mark else _Seen(mark, clock, seen.first, seen.is_told)

    def _whole(self, text: str, seen: _Seen, clock: float, now: datetime) -> bytes | OSError | None:
        """The bytes of a file that is whole, or why it cannot be read; None while it may not be whole."""
        medium, still = self._root.medium, clock - seen.since
        age = still if medium.has_own_clock else max(still, now.timestamp() - seen.mark.mtime_ns / 1e9)
        if age >= medium.settle_time:
            try:
                data, mark, is_written = medium.read_watched(self._path(text), files.MAX_WITH_HISTORY)
            except (files.NotAFile, PermissionError) as error:
                return error
            except FileNotFoundError:
                del self._seen[text]
                return None
            is_known = is_written is not None or still >= SETTLE_UNWATCHED
            if is_known and not is_written and _same(mark, seen.mark):
                return data
        if not seen.is_told and clock - seen.first >= LONG:
            log.warning("pending/%s is not taken in yet: it has been written to for %.0f s", text, LONG)
            self._seen[text] = seen._replace(is_told=True)
        return None

    def _judge(self, text: str, mark: files.Mark, data: bytes | OSError) -> _Drop | None:
        """File a whole drop or put it aside. Returns it where another job may have its id."""
        try:
            if isinstance(data, OSError):
                raise data
            job = jobfile.parse(data).job
        except (BadJob, files.NotAFile, PermissionError) as error:
            self._put_aside(text, mark, aside.why(error))
            return None
        drop = _Drop(text, mark, job, job.id or ids.fitting(self._root, id_from_file_name(text)))
        if not ids.take(self._root, drop.wanted):
            return drop
        self._enter(drop, drop.wanted)
        return None

    def _is_in_hand(self, drop: _Drop, now: float) -> bool:
        """Whether another worker has taken a file in, or has taken its id just now and may be about to."""
        if not files.exists(self._path(drop.text)):
            self._seen.pop(drop.text, None)
            return True
        mark = ids.mark(self._root, drop.wanted)
        return mark is not None and abs(now - mark.mtime_ns / 1e9) < ids.FILING_TAKES

    def _settle(self, contested: list[_Drop]) -> None:
        """Judge the files whose ids are taken: put aside, filed, or left until the id is free."""
        named = [drop.wanted for drop in contested if drop.job.id or is_made_id(drop.wanted.lower())]
        verdicts = self._abandoned.judge(named) if named else {}
        for drop in contested:
            own = drop.wanted
            verdict = verdicts.get(own)
            if drop.job.id is None and (verdict is None or isinstance(verdict, IdTaken)):
                self._enter(drop, ids.take_like(self._root, own))
            elif isinstance(verdict, IdTaken):
                self._put_aside(drop.text, drop.mark, str(verdict), aside.OTHER_ID)
            elif verdict == 0:
                is_filed = self._enter(drop, own)
                verdicts[own] = IdTaken(own, own) if is_filed else ids.AGAIN

    def _enter(self, drop: _Drop, own: str) -> bool:
        """File a drop under an id that was taken for it; False where it is gone or cannot be moved."""
        root, default, job = self._root, self._default, drop.job
        rank, due = default.rank, default.due if job.run_at is None else stamp(job.run_at)
        if job.priority is not None:
            rank = rank_of(job.priority, fifo=rank == FIFO_RANK)
        mark = ids.mark(root, own)
        parked = _reason(drop.text)
        wanted = Name(rank, due, own, parked=parked).grouped(job.group, job.slots)
        name = jobs.free_name(root, State.PENDING, wanted)
        is_filed = False
        try:
            is_filed = self._move(drop.text, self._path(str(name)))
        finally:
            if not is_filed and mark is not None:
                ids.free(root, own, mark)  # a share may report an error for a rename that happened
        if not is_filed:
            return False
        # Race: a worker that was stopped for long before this has lost the id, as an abandoned one.
        now = ids.mark(root, own)
        if not ids.is_same(root, now, mark) and not ids.reserve(root, own):
            lost, name = name, wanted._replace(id=make_id())
            files.move(self._path(str(lost)), self._path(str(name)))
        if (job.unique is None or self._has_key(name, job)) and parked is None:
            self._filed.append(str(name))
        return True

    def _has_key(self, name: Name, job: Job) -> bool:
        """Take the unique key of a job that was just filed; False where another job has it: it is put aside.

        Crash: a job without its key takes it before it starts, and so does one of which nobody can tell yet.
        """
        (answer,) = self._keys.take([keys.Wish.of(job, name.id)])
        if not isinstance(answer, QueueError):
            return True
        claim = name.owned(self._default.owner or "")
        if files.move(self._path(str(name)), f"{self._root.folder(State.PROCESSING)}/{claim}"):
            aside.bury(self._root, claim, name, str(answer), aside.KEY)
        return False

    def _put_aside(self, text: str, mark: files.Mark, reason: str, remedy: str | None = None) -> None:
        """Move a file to dead/, unless it was changed since it was judged: then it is judged again."""
        root, own = self._root, ""
        claim = self._default._replace(id=make_id(), parked=_reason(text))
        path = f"{root.folder(State.PROCESSING)}/{claim}"
        if not self._move(text, path):
            return
        try:
            if _same(files.mark(path), mark):
                own = ids.take_like(root, id_from_file_name(text))
                aside.bury(root, claim, claim.free()._replace(id=own), reason, remedy)
            else:
                self._give_back(text, claim)
        except BaseException:
            ids.release(root, [own] if own else [])
            self._give_back(text, claim)
            raise

    def _give_back(self, text: str, claim: Name) -> None:
        """Give a file its own name back. Where another file has that name by now, it keeps the claim's."""
        with contextlib.suppress(OSError):  # recovery does it later
            if not files.exists(self._path(text)):
                files.move(f"{self._root.folder(State.PROCESSING)}/{claim}", self._path(text))
                return
        claims.put_back(self._root, claim, State.PENDING)

    def _move(self, text: str, target: str) -> bool:
        """Move a file out of its place; False where it is gone, or cannot be moved.

        Raises `OSError` where the directory is the cause: then all its files meet the same.
        """
        try:
            is_moved = files.move(self._path(text), target)
        except PermissionError as error:
            seen = self._seen.get(text)
            if error.errno == errno.EACCES or seen is None:
                raise
            files.probe(self._path(f".{self._default.owner}.probe"))
            if not seen.refused:
                log.warning("%s cannot be taken in: %s", self._path(text), error.strerror)
            self._seen[text] = seen._replace(refused=times.clock.monotonic() + REFUSED)
            return False
        self._seen.pop(text, None)
        return is_moved

    def _path(self, text: str) -> str:
        return f"{self._root.folder(State.PENDING)}/{text}"


def _reason(text: str) -> str | None:
    """Why the job of a dropped file of this name is parked; None for one that may start."""
    return HELD if text.endswith(PARKED) else None


def _same(one: files.Mark, other: files.Mark) -> bool:
    """Whether nobody wrote between the two marks. The inode proves nothing: FUSE makes up its number."""
    return one[:2] == other[:2]
