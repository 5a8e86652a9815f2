"""The jobs that are parked behind others, as one worker knows them: judged once the other one has ended.

pending/N.yaml.after+build.held        ->  processing/N+after.held@ME    all has ended as asked
processing/N+after.held@ME gets `ready`
processing/N+after.held@ME             ->  pending/N'                    it waits for a worker
pending/N.yaml.after+build.held        ->  pending/N'.yaml.after+lint.held    it waits for another one still

The worker that ends a job judges what is parked behind it: a hint. The sweep that follows a listing is the
truth. The name is a hint, too: now and then, and where a file was edited, the content is compared with it.

Crash: a claim without its move is parked again by a recovery. `ready` repeats what was met; whoever claims a
job without it parks the job, so a stray `mv` does no harm.
"""

from __future__ import annotations

import errno
import heapq
import logging
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, ClaimLost
from queuectl.job.model import State
from queuectl.rules import after
from queuectl.spool import aside, batches, claiming, claims, jobfile, jobs
from queuectl.spool.claims import Claim
from queuectl.spool.holds import BeingWritten
from queuectl.spool.names import AFTER, PARKED, id_in, parse_parked
from queuectl.system import files
from queuectl.system.medium import GRAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from queuectl.job.model import Job
    from queuectl.rules.after import End
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: A sweep may follow the last one after this many times as long as that took: sweeps cost 5 % at most.
PATIENCE = 20
#: How many parked jobs are judged by one look at the directories.
AT_ONCE = 100
#: How many files one sweep compares with their names, and the seconds between two rounds of all files where
#: one sweep suffices for them, and where it does not.
CHECKED, OFTEN, SELDOM = 200, 60.0, 600.0
_MARK = f".{AFTER}+"


class Parked(NamedTuple):
    """A job that is parked behind another one: its file name and its directory. They sort in run order."""

    text: str
    state: State

    @property
    def name(self) -> Name:
        """The parts of the file name."""
        name = parse_parked(self.text)
        assert name is not None
        return name

    @property
    def pointer(self) -> str:
        """The id or batch that it is parked behind, in lower case."""
        return self.text.rpartition("+")[2].removesuffix(PARKED).lower()

    def path(self, root: Root) -> str:
        """Where its file is."""
        return f"{root.folder(self.state)}/{self.text}"


class Dependents:
    """The jobs that are parked behind others, and which of them are to be judged. One per worker."""

    def __init__(self, root: Root, owner: str) -> None:
        self._root = root
        self._owner = owner
        #: How the id that a job is parked behind had ended when the job was judged; None if it was not.
        self._known: dict[Parked, End | None] = {}
        self._behind: dict[str, dict[Parked, None]] = {}
        self._by_id: dict[str, Parked] = {}
        #: The ids, in lower case, of jobs that are parked for another reason, by their file names.
        self._others: dict[str, str] = {}
        #: The parked names of the last listing, and those that came since.
        self._listed: dict[State, set[str]] = {state: set() for state in jobs.WAITING}
        #: Those that the system refuses to move, such as immutable ones.
        self._refused: set[Parked] = set()
        #: A heap, and what is in it.
        self._asked: list[Parked] = []
        self._is_asked: set[Parked] = set()
        self._judge_at = float("-inf")
        #: The last look for others that jobs wait for.
        self._look = after.NOTHING
        self._new: list[str] = []
        self._swept = _Swept()
        #: Whether a job was parked behind one that ran, at the last sweep.
        self.is_behind_a_run = False

    # ── what is known ─────────────────────────────────────────────────────────────────────

    def take_in(self, parked: Mapping[State, Iterable[str]]) -> None:
        """Take in the parked names of a listing, by the directories that they are in."""
        # Most names are those of the last listing: parsing 100,000 takes as long as running a hundred jobs.
        for state, before in self._listed.items():
            there = set(parked.get(state, ()))
            for text in before - there:
                self._forget(Parked(text, state))
                self._others.pop(text, None)
            for text in there - before:
                one = Parked(text, state)
                if _MARK in text:
                    self._note(one)
                else:
                    self._others[text] = id_in(text).lower()
            self._listed[state] = there

    def hear(self, texts: Iterable[str]) -> None:
        """Take in names that have come into pending/, and judge those that were there: they were edited."""
        for text in texts:
            if _MARK in text and parse_parked(text) is not None:
                one = Parked(text, State.PENDING)
                if one in self._known:
                    self._ask(one)
                self._note(one)

    def ended(self, job_id: str) -> None:
        """Judge the jobs that are parked behind this one: it has just ended. A hint, not the truth."""
        for one in self._behind.get(job_id.lower(), ()):
            self._ask(one)
            self._judge_at = float("-inf")

    @property
    def is_busy(self) -> bool:
        """Whether jobs are still to be judged."""
        return bool(self._asked)

    @property
    def is_due(self) -> bool:
        """Whether to judge some of them while there is other work: not soon after a lot that freed nobody."""
        return self.is_busy and times.clock.monotonic() >= self._judge_at

    def _note(self, one: Parked) -> None:
        self._listed[one.state].add(one.text)
        if one not in self._known:
            job_id = id_in(one.text).lower()
            self._known[one] = None
            self._behind.setdefault(one.pointer, {})[one] = None
            self._by_id[job_id] = one
            self._new.append(job_id)

    def _forget(self, one: Parked) -> None:
        self._listed[one.state].discard(one.text)
        if one not in self._known:
            return
        del self._known[one]
        self._refused.discard(one)
        behind = self._behind[one.pointer]
        del behind[one]
        if not behind:
            del self._behind[one.pointer]
        if self._by_id.get(job_id := one.name.id.lower()) == one:
            del self._by_id[job_id]

    def _ask(self, one: Parked) -> None:
        if one not in self._is_asked:
            self._is_asked.add(one)
            heapq.heappush(self._asked, one)

    # ── the sweep ─────────────────────────────────────────────────────────────────────────

    def sweep(self, waiting: Callable[[], Iterable[str]], *, at_once: bool = False) -> None:
        """Find the jobs to judge: those parked behind an id of which nothing waits or runs.

        `waiting` returns the names of a listing just made that are not parked. A sweep that follows the last
        one too soon is left out, unless it is wanted `at_once`.
        """
        begun = times.clock.monotonic()
        self.is_behind_a_run = False
        if not self._known or (begun < self._swept.next_at and not at_once):
            return
        root, behind = self._root, self._behind
        self._bury_circles()
        running = set(_ids(State.PROCESSING, root.texts_in(root.folder(State.PROCESSING))))
        self.is_behind_a_run = any(one in behind or batches.batch_of(one) in behind for one in running)
        over = behind.keys() - self._by_id.keys() - running
        over.difference_update(self._others.values())
        if over:
            over.difference_update(_ids(State.PENDING, waiting()))
        if over:
            live = chain(self._by_id, self._others.values(), running, _ids(State.PENDING, waiting()))
            over -= {name for job_id in live if (name := batches.batch_of(job_id)) in over}
        is_new = any(self._known[one] is None for pointer in over for one in behind[pointer])
        if over and (self._swept.may_differ(root, over) or is_new):
            self._look = after.look(root, over, self._look)
            for pointer in over:
                for one in behind[pointer]:
                    if self._known[one] is not self._look.ends[pointer]:
                        self._ask(one)
        self._check(begun)
        self._swept.ends(begun)

    def _bury_circles(self) -> None:
        """Put the last job of each circle aside: dropped files may wait for one another."""
        new, self._new = self._new, []

        def behind(job_id: str) -> str | None:
            return self._by_id[job_id].pointer if job_id in self._by_id else None

        for way in after.circles(new, behind):
            circle = [self._by_id[job_id] for job_id in way[:-1]]
            wrong = [one for one in circle if not self._is_behind(one)]
            for one in wrong:
                self._ask(one)  # its name says what its content does not
            if not wrong:
                self._bury(max(circle), [one.name.id for one in (*circle, circle[0])])

    def _bury(self, last: Parked, way: list[str]) -> None:
        claim = last.name.owned(self._owner)
        if not self._moves(last, f"{self._root.folder(State.PROCESSING)}/{claim}"):
            return
        reason = f"It waits for itself: {' -> '.join(way)}."
        remedy = "Change `after:` in one of them and move this one back:\n    mv '{0}' ../pending/"
        try:
            aside.bury(self._root, claim, claim.free(), reason, remedy)
        except OSError:
            claims.put_back(self._root, claim, last.state)
            raise

    def _check(self, now: float) -> None:
        """Judge those whose content may ask for another name than they have."""
        for one in self._swept.to_check(self._known, now):
            if one in self._refused or not self._is_behind(one):
                self._ask(one)

    def _is_behind(self, one: Parked) -> bool:
        """Whether a parked file still asks to wait for what it is parked behind, as far as it can be read."""
        try:
            job = jobfile.read(one.path(self._root)).job
        except BadJob:
            return False  # it is no job any more, or is being saved
        except OSError:  # it has moved, or the share is in trouble
            return True
        wanted = next((how for job_id, how in job.after.items() if job_id.lower() == one.pointer), None)
        if wanted is None or after.is_ready(job):
            return False
        end = self._known.get(one)
        return end is None or not after.judge({one.pointer: wanted}, {one.pointer: end}).is_met

    # ── the judgement ─────────────────────────────────────────────────────────────────────

    def judge(self, now: datetime) -> list[tuple[State, str]]:
        """Judge some of the jobs that are to be judged, by one look. Returns the names that may start now."""
        lot = [heapq.heappop(self._asked) for _ in range(min(AT_ONCE, len(self._asked)))]
        self._is_asked.difference_update(lot)
        begun = times.clock.monotonic()
        try:
            freed = self._judge(lot, now)
        except OSError:
            for one in lot:
                self._ask(one)
            raise
        ended = times.clock.monotonic()
        self._judge_at = ended if freed else ended + PATIENCE * (ended - begun)
        return freed

    def _judge(self, lot: list[Parked], now: datetime) -> list[tuple[State, str]]:
        wanted = {one: job for one in lot if (job := self._read(one)) is not None}
        look = after.look(self._root, {job_id for job in wanted.values() for job_id in job.after}, self._look)
        self._look = look
        freed = []
        for one, job in wanted.items():
            verdict = after.judge(job.after, look.ends)
            there: Parked | None = one
            if after.is_ready(job) or verdict.is_met:
                end = after.End.OK
                if (name := self._release(one, job, now)) is not None:
                    freed.append((one.state, str(name)))
            else:
                behind = after.pointer(verdict, look.turns)
                end = look.ends[behind]
                if behind.lower() != one.pointer:
                    there = self._move_to(one, f"{AFTER}+{behind}")
            if there in self._known:
                self._known[there] = end
        return freed

    def _read(self, one: Parked) -> Job | None:
        """The content of a parked job. None where it has moved, or is no job: its claim says why then."""
        try:
            return jobfile.read(one.path(self._root)).job
        except FileNotFoundError:
            self._forget(one)
        except (BadJob, files.NotAFile, PermissionError):
            self._move_to(one, None)
        return None

    def _move_to(self, one: Parked, reason: str | None) -> Parked | None:
        """Park a job for another reason, or for none. Returns where it is parked then."""
        name = one.name.later()._replace(parked=reason)
        if reason is not None and not self._root.takes_length(len(str(name))):
            name = name.unparked()  # whoever claims it puts it aside
        name = jobs.free_name(self._root, one.state, name)
        is_moved = self._moves(one, f"{self._root.folder(one.state)}/{name}")
        if not is_moved or name.parked is None:
            return None
        there = Parked(str(name), one.state)
        self._note(there)
        return there

    def _moves(self, one: Parked, target: str) -> bool:
        """Move a parked job; False where it is gone, or cannot be moved.

        Raises `OSError` where the directory is the cause: then all its jobs meet the same.
        """
        try:
            is_moved = files.move(one.path(self._root), target)
        except PermissionError as error:
            if error.errno == errno.EACCES:
                raise
            path = one.path(self._root)
            files.probe(f"{self._root.folder(one.state)}/.{self._owner}.probe")
            if one not in self._refused:
                log.warning("job %s cannot be released or parked: %s (%s)", one.name.id, error.strerror, path)
            self._refused.add(one)
            return False
        self._forget(one)
        return is_moved

    def _release(self, one: Parked, judged: Job, now: datetime) -> Name | None:
        """Let a job start that has all that it waits for. None where it was moved or changed meanwhile."""
        root = self._root
        claim = one.name.owned(self._owner)
        path = f"{root.folder(State.PROCESSING)}/{claim}"
        if not self._moves(one, path):
            return None
        name: Name | None = None
        try:
            record = claims.ready(root, path, claiming.read_whole(root, path, now, None, None))
            if record.job.after == judged.after:
                name = one.name.later().unparked().grouped(record.job.group, record.job.slots)
                if not after.is_ready(record.job):
                    Claim(root, claim, record, one.state, path).noted(after.ready(judged.after, now))
        except (BadJob, files.NotAFile, PermissionError):
            name = one.name.later().unparked()  # whoever claims it says why it is no job
        except (BeingWritten, ClaimLost, FileNotFoundError):
            pass
        except OSError:
            claims.put_back(root, claim, one.state)
            raise
        if name is None:
            claims.put_back(root, claim, one.state)
            return None
        name = jobs.free_name(root, one.state, name)
        return name if files.move(path, f"{root.folder(one.state)}/{name}") else None


class _Swept:
    """What the last sweep saw, and when the next one may come."""

    def __init__(self) -> None:
        self.next_at = float("-inf")
        self._seen: tuple[set[str], list[files.Mark]] | None = None
        self._unchecked: list[Parked] = []
        self._check_at = float("-inf")

    def may_differ(self, root: Root, over: set[str]) -> bool:
        """Whether what became of these ids may have changed since it was last looked at."""
        marks = [files.mark(root.folder(state)) for state in (State.DONE, State.DEAD)]
        now = times.clock.now().timestamp()
        seen, self._seen = self._seen, None
        if root.medium.hears_all and all(now - mark.mtime_ns / 1e9 > GRAIN for mark in marks):
            self._seen = over, marks
        return self._seen is None or self._seen != seen

    def to_check(self, known: Iterable[Parked], now: float) -> list[Parked]:
        """The next of the files to compare with their names."""
        if not self._unchecked and now >= self._check_at:
            self._unchecked = list(known)
            self._check_at = now + (OFTEN if len(self._unchecked) <= CHECKED else SELDOM)
        checked = self._unchecked[-CHECKED:]
        del self._unchecked[-CHECKED:]
        return checked

    def ends(self, begun: float) -> None:
        """Note the end of a sweep."""
        ended = times.clock.monotonic()
        self.next_at = ended + PATIENCE * (ended - begun)


def _ids(state: State, texts: Iterable[str]) -> Iterator[str]:
    return map(str.lower, jobs.ids_in(state, texts))
