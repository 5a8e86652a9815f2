"""Files that people and programs drop into pending/: each becomes a job once it is whole, or is put aside.

pending/ANY.yaml          ->  processing/NAME@OWNER    so that no other worker judges the file
processing/NAME@OWNER     ->  pending/NAME'            it is a job, under the id that was taken for it
processing/NAME@OWNER     ->  dead/NAME'               it is not, with the reason beside it
"""

from __future__ import annotations

import contextlib
import errno
import logging
import stat
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, IdTaken
from queuectl.job.model import Job, State
from queuectl.spool import aside, claims, ids, jobfile, jobs, reservations
from queuectl.spool.holds import SETTLE_BLIND
from queuectl.spool.names import Kind, Name, classify, id_from_file_name, is_made_id, make_id, rank_of
from queuectl.system import files
from queuectl.times import stamp

if TYPE_CHECKING:
    import os
    from datetime import datetime

    from queuectl.settings import Settings
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: Seconds for which a file must not have changed, where the system says that nobody writes to it.
SETTLE = 0.2
#: A file that is not whole after this many seconds is reported, once.
LONG = 10.0

#: Seconds between tries to move a file that the system refuses to move, such as an immutable one.
REFUSED = 5.0


class _Turn(Enum):
    """What to do with a dropped file now."""

    GONE = "it is not there any more"
    ALONE = "leave it alone until the next listing"
    SOON = "look at it again soon"
    WHOLE = "take it in"


class _Seen(NamedTuple):
    """What is known of a dropped file; all times are monotonic.

    `since` is when it was first seen with this mark, `first` when it was first seen at all. It is not
    tried before `again`. `is_told` says whether it was reported as not whole.
    """

    mark: files.Mark
    since: float
    first: float
    is_told: bool = False
    again: float = 0.0
    turn: _Turn = _Turn.SOON


class _Drop(NamedTuple):
    """A dropped file that is claimed: its name in pending/ and the name of the claim."""

    text: str
    name: Name


class Drops:
    """The files in pending/ that have no sortable name yet, and when each changed last.

    Nothing waits here: a file that cannot be judged yet stays where it is and is looked at again later.
    """

    def __init__(self, root: Root, abandoned: ids.Abandoned) -> None:
        self._root = root
        self._abandoned = abandoned
        self._seen: dict[str, _Seen] = {}

    def look(self, names: list[str], owner: str, settings: Settings, now: datetime) -> tuple[list[str], bool]:
        """Take in the files that are whole.

        Returns the names to look at again soon, and whether any other file has left its place: then
        pending/ holds names that nobody has listed. Raises `OSError` where the disk fails: each file
        is back under its own name then.
        """
        clock = times.clock.monotonic()
        fifo = settings.scheduling_mode == "fifo"
        rank = rank_of(settings.priority, fifo=fifo)
        turns: dict[str, _Turn] = {}
        contested: list[tuple[_Drop, Job]] = []
        try:
            drops = [text for text in names if classify(State.PENDING, text) is Kind.DROP]
            if drops:
                reservations.restore(self._root)
            for text in dict.fromkeys(drops):
                turn = self._turn_of(text, clock, now)
                if turn is _Turn.WHOLE:
                    drop = _Drop(text, Name(rank, stamp(now), make_id(), owner))
                    turn = self._claim(drop, clock)
                    if turn is _Turn.WHOLE and (job := self._file(drop, now, fifo=fifo)):
                        contested.append((drop, job))
                turns[text] = turn
                if turn is _Turn.SOON:
                    self._tell_late(text, clock)
            turns |= self._settle(contested, clock, now, fifo=fifo)
        except BaseException:
            for drop, _ in contested:
                self._give_back(drop)
            raise
        kept = {text for text, turn in turns.items() if turn in {_Turn.SOON, _Turn.ALONE}}
        self._seen = {text: seen for text, seen in self._seen.items() if text in kept}
        soon = [text for text, turn in turns.items() if turn is _Turn.SOON]
        return soon, any(turn in {_Turn.GONE, _Turn.WHOLE} for turn in turns.values())

    def _turn_of(self, text: str, clock: float, now: datetime) -> _Turn:
        path = f"{self._root.folder(State.PENDING)}/{text}"
        try:
            facts: os.stat_result = files.kernel.lstat(path)
            if stat.S_ISDIR(facts.st_mode):
                return _Turn.ALONE
            if not stat.S_ISREG(facts.st_mode):
                return _Turn.WHOLE
            mark = files.mark_of(facts)
            seen = self._seen.get(text)
            if seen is None or seen.mark != mark:
                first, is_told = (seen.first, seen.is_told) if seen else (clock, False)
                seen = self._seen[text] = _Seen(mark, clock, first, is_told)
            if seen.again > clock:
                return seen.turn
            return _Turn.WHOLE if self._has_settled(path, mark, clock - seen.since, now) else _Turn.SOON
        except FileNotFoundError:
            return _Turn.GONE

    def _has_settled(self, path: str, mark: files.Mark, still: float, now: datetime) -> bool:
        if not self._root.medium.tells_writers:
            return still >= SETTLE_BLIND and _same(_opened_mark(path, mark), mark)
        written = files.being_written(path)
        if written is None:
            return still >= SETTLE_BLIND
        age = now.timestamp() - mark.mtime_ns / 1e9
        return not written and max(age, still) >= SETTLE

    def _tell_late(self, text: str, clock: float) -> None:
        seen = self._seen.get(text)
        if seen is not None and not seen.is_told and clock - seen.first >= LONG:
            log.warning("pending/%s is not taken in yet: it has been written to for %.0f s", text, LONG)
            self._seen[text] = seen._replace(is_told=True)

    def _claim(self, drop: _Drop, clock: float) -> _Turn:
        """Move the file away, so that no other worker judges it; `WHOLE` where this worker has it.

        `SOON` if somebody still writes to it: a share may show size and time from a cache, and shows
        those of the server under a new name.
        Crash: the claim has an id that no other job has; recovery files it again under that id.
        """
        dropped, path = self._paths(drop)
        seen = self._seen.get(drop.text)
        try:
            if not files.move(dropped, path):
                return _Turn.GONE
        except PermissionError as error:
            if error.errno == errno.EACCES:  # the directory is the cause: all its files meet the same
                raise
            files.probe(f"{self._root.folder(State.PENDING)}/.{drop.name.owner}.probe")
            if seen is None or not seen.again:
                log.warning("%s cannot be taken in: %s", dropped, error.strerror)
            if seen is not None:
                self._seen[drop.text] = seen._replace(again=clock + REFUSED, turn=_Turn.ALONE)
            return _Turn.ALONE
        if not self._root.medium.answers_truly and seen and not _same(files.mark(path), seen.mark):
            files.move(path, dropped)
            return _Turn.SOON
        return _Turn.WHOLE

    def _paths(self, drop: _Drop) -> tuple[str, str]:
        """Where the file was dropped, and where it is claimed."""
        root = self._root
        return f"{root.folder(State.PENDING)}/{drop.text}", f"{root.folder(State.PROCESSING)}/{drop.name}"

    def _give_back(self, drop: _Drop) -> None:
        """Give a file its own name back. Where another file has that name by now, it keeps the claim's id."""
        dropped, path = self._paths(drop)
        with contextlib.suppress(OSError):  # recovery does it later
            if not files.exists(dropped):
                files.move(path, dropped)
                return
        claims.put_back(self._root, drop.name, State.PENDING)

    def _file(self, drop: _Drop, now: datetime, *, fifo: bool) -> Job | None:
        """File a claimed drop or put it aside. Returns the job where the id that it names is taken."""
        suggested = id_from_file_name(drop.text)
        try:
            try:
                job = jobfile.read(self._paths(drop)[1]).job
            except (BadJob, files.NotAFile, PermissionError) as error:
                self._put_aside(drop, aside.why(error))
                return None
            if job.id is None and not is_made_id(suggested.lower()):
                own = ids.take_like(self._root, suggested)
            elif not ids.take(self._root, own := job.id or suggested):
                return job
            try:
                self._enter(drop, own, job, now, fifo=fifo)
            except BaseException:
                ids.release(self._root, [own])
                raise
        except BaseException:
            self._give_back(drop)
            raise
        return None

    def _enter(self, drop: _Drop, own: str, job: Job, now: datetime, *, fifo: bool) -> None:
        """Move a claimed drop to its sortable name, under an id that was taken for it."""
        root = self._root
        mark = reservations.mark(root, own)
        rank = drop.name.rank if job.priority is None else rank_of(job.priority, fifo=fifo)
        target = jobs.free_name(root, State.PENDING, Name(rank, stamp(job.run_at or now), own))
        path, filed = self._paths(drop)[1], f"{root.folder(State.PENDING)}/{target}"
        files.move(path, filed)
        # Race: a worker that was stopped for long before this has lost the id, as an abandoned one.
        if (
            not reservations.is_same(root, reservations.mark(root, own), mark)
            and not reservations.make(root, own)
            and files.move(filed, path)
        ):
            self._put_aside(drop, str(IdTaken(own, own)), aside.OTHER_ID)

    def _settle(
        self, contested: list[tuple[_Drop, Job]], clock: float, now: datetime, *, fifo: bool
    ) -> dict[str, _Turn]:
        """Judge the files whose ids are taken: put aside, filed if the id is free, or given back."""
        turns: dict[str, _Turn] = {}
        wanted = [job.id or id_from_file_name(drop.text) for drop, job in contested]
        verdicts = self._abandoned.judge(wanted) if contested else {}
        while contested:
            drop, job = contested[0]
            own = wanted[-len(contested)]
            verdict = verdicts[own]
            if isinstance(verdict, IdTaken) and job.id is None:
                self._enter(drop, ids.take_like(self._root, own), job, now, fifo=fifo)
            elif isinstance(verdict, IdTaken):
                self._put_aside(drop, str(verdict), aside.OTHER_ID)
            elif verdict <= 0:
                self._enter(drop, own, job, now, fifo=fifo)
                verdicts[own] = IdTaken(own, own)
            else:
                self._give_back(drop)
                if drop.text in self._seen:
                    self._seen[drop.text] = self._seen[drop.text]._replace(again=clock + verdict)
                turns[drop.text] = _Turn.SOON
            contested.pop(0)
        return turns

    def _put_aside(self, drop: _Drop, reason: str, remedy: str | None = None) -> None:
        own = ids.take_like(self._root, id_from_file_name(drop.text))
        try:
            aside.bury(self._root, drop.name, drop.name._replace(id=own, owner=None), reason, remedy)
        except BaseException:
            ids.release(self._root, [own])
            raise


def _opened_mark(path: str, known: files.Mark) -> files.Mark | None:
    """The mark that the server has, None where the file is gone.

    Returns the known mark of a file that cannot be opened: such a file is put aside unread.
    """
    try:
        return files.opened_mark(path)
    except FileNotFoundError:
        return None
    except (files.NotAFile, PermissionError):
        return known


def _same(one: files.Mark | None, other: files.Mark) -> bool:
    """Whether nobody wrote between the two marks. The inode proves nothing: FUSE makes up its number."""
    return one is not None and (one.mtime_ns, one.size) == (other.mtime_ns, other.size)
