"""The jobs that are parked behind others, as one worker knows them: judged once the other one has ended.

pending/N.yaml.after+build.held        ->  processing/N+after.held@ME    all has ended as asked
processing/N+after.held@ME gets `ready`
processing/N+after.held@ME             ->  pending/N'                    it waits for a worker
pending/N.yaml.after+build.held        ->  pending/N'.yaml.after+lint.held    it waits for another one still

Crash: a claim without its move is parked again by a recovery. `ready` repeats what was met; whoever claims a
job without it parks the job, so a stray `mv` does no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, ClaimLost
from queuectl.job.model import State
from queuectl.rules import after
from queuectl.spool import aside, batches, claims, jobfile, jobs
from queuectl.spool.claims import Claim
from queuectl.spool.names import AFTER, Name, parse_claim, parse_parked
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from queuectl.job.model import Job
    from queuectl.rules.after import End
    from queuectl.spool.root import Root

#: A sweep may follow the last one after this many times as long as that took: sweeps cost 5 % at most.
PATIENCE = 20
#: How many parked jobs are judged by one look at the directories.
AT_ONCE = 100


class Parked(NamedTuple):
    """A job that is parked behind another one."""

    state: State
    name: Name

    @property
    def pointer(self) -> str:
        """The id or batch that it is parked behind."""
        return (self.name.parked or "").partition("+")[2]

    def path(self, root: Root) -> str:
        """Where its file is."""
        return f"{root.folder(self.state)}/{self.name}"


class Dependents:
    """The parked jobs of the last listing, and which of them are to be judged. One per worker."""

    def __init__(self, root: Root, owner: str) -> None:
        self._root = root
        self._owner = owner
        self._parked: dict[str, list[Parked]] = {}
        #: The ids of jobs that are parked for another reason.
        self._held: list[str] = []
        self._asked: dict[Parked, None] = {}
        #: How the id that a job is parked behind had ended when the job was judged.
        self._judged: dict[Parked, End] = {}
        self._next_sweep = float("-inf")

    def __bool__(self) -> bool:
        return bool(self._parked)

    def take_in(self, parked: Iterable[tuple[State, str]]) -> None:
        """Take in the parked names of a listing."""
        self._parked, self._held = {}, []
        for state, text in parked:
            name = parse_parked(text)
            if name is None or name.parked is None:
                continue
            if name.parked.startswith(f"{AFTER}+"):
                one = Parked(state, name)
                self._parked.setdefault(one.pointer, []).append(one)
            else:
                self._held.append(name.id)
        known = {one for some in self._parked.values() for one in some}
        self._judged = {one: end for one, end in self._judged.items() if one in known}

    def ended(self, job_id: str) -> None:
        """Judge the jobs that are parked behind this one: it has just ended. A hint, not the truth."""
        self._asked.update(dict.fromkeys(self._parked.get(job_id, ())))

    @property
    def is_busy(self) -> bool:
        """Whether jobs are still to be judged."""
        return bool(self._asked)

    def is_behind(self, job_ids: Iterable[str]) -> bool:
        """Whether a job is parked behind one of these, or behind the batch of one."""
        return any(one in self._parked or batches.batch_of(one) in self._parked for one in job_ids)

    def sweep(self, waiting: Iterable[str], *, at_once: bool = False) -> None:
        """Find the jobs to judge: those parked behind an id of which nothing waits or runs.

        `waiting` are the names of the last listing that are not parked. A sweep that follows the last one too
        soon is left out, unless it is wanted `at_once`.
        """
        begun = times.clock.monotonic()
        if not self._parked or (begun < self._next_sweep and not at_once):
            return
        root = self._root
        live = {one.name.id for some in self._parked.values() for one in some} | set(self._held)
        live.update(jobs.ids_in(State.PENDING, waiting))
        live.update(jobs.ids_in(State.PROCESSING, root.texts_in(root.folder(State.PROCESSING))))
        self._bury_cycles()
        over = self._parked.keys() - live
        if over:
            over -= {name for job_id in live if (name := batches.batch_of(job_id)) in over}
        if over:
            ends = after.look(root, over).ends
            for pointer in over:
                self._asked.update(
                    (one, None) for one in self._parked[pointer] if self._judged.get(one) is not ends[pointer]
                )
        ended = times.clock.monotonic()
        self._next_sweep = ended + PATIENCE * (ended - begun)

    def _bury_cycles(self) -> None:
        """Put the last job of each circle aside: dropped files may wait for one another."""
        behind = {one.name.id: one for some in self._parked.values() for one in some}
        for way in after.circles({job_id: one.pointer for job_id, one in behind.items()}):
            last = max((behind[job_id] for job_id in way), key=lambda one: str(one.name))
            claim = last.name.owned(self._owner)
            path = f"{self._root.folder(State.PROCESSING)}/{claim}"
            if files.move(last.path(self._root), path):
                reason = f"It waits for itself: {' -> '.join(way)}."
                remedy = "Change `after:` in one of them and move this one back:\n    mv '{0}' ../pending/"
                aside.bury(self._root, claim, claim.free(), reason, remedy)

    def judge(self, now: datetime) -> list[tuple[State, str]]:
        """Judge some of the jobs that are to be judged, by one look. Returns the names that may start now."""
        lot = [self._asked.popitem()[0] for _ in range(min(AT_ONCE, len(self._asked)))]
        wanted = {one: job for one in lot if (job := self._read(one)) is not None}
        if not wanted:
            return []
        look = after.look(self._root, {job_id for job in wanted.values() for job_id in job.after})
        freed = []
        for one, job in wanted.items():
            verdict = after.judge(job.after, look.ends)
            if verdict.is_met:
                if (name := self._release(one, job, now)) is not None:
                    freed.append((one.state, str(name)))
            elif (behind := after.pointer(verdict, look.turns)) != one.pointer:
                self._park(one, f"{AFTER}+{behind}")
            else:
                self._judged[one] = look.ends[behind]
        return freed

    def _read(self, one: Parked) -> Job | None:
        """The content of a parked job. None where it has moved, or is no job: its claim says why then."""
        try:
            return jobfile.read(one.path(self._root)).job
        except FileNotFoundError:
            return None
        except (BadJob, files.NotAFile, PermissionError):
            self._park(one, None)
            return None

    def _park(self, one: Parked, reason: str | None) -> None:
        name = jobs.free_name(self._root, one.state, one.name.later()._replace(parked=reason))
        files.move(one.path(self._root), f"{self._root.folder(one.state)}/{name}")

    def _release(self, one: Parked, judged: Job, now: datetime) -> Name | None:
        """Let a job start that has all that it waits for. None where it was moved or changed meanwhile."""
        root = self._root
        claim = parse_claim(str(one.name.owned(self._owner)))
        assert claim is not None
        path = f"{root.folder(State.PROCESSING)}/{claim}"
        if not files.move(one.path(root), path):
            return None
        try:
            record = claims.read_ready(root, path)
            name = one.name.later()
            if record.job.after == judged.after:
                Claim(root, claim, record, one.state, path).noted(after.ready(judged.after, now))
                name = name._replace(parked=None)
            name = jobs.free_name(root, one.state, name)
            files.move(path, f"{root.folder(one.state)}/{name}")
        except (BadJob, files.NotAFile) as error:
            aside.bury(root, claim, claim.free(), aside.why(error))
            return None
        except ClaimLost:
            return None
        return None if name.parked else name
