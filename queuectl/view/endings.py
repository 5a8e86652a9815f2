"""Waiting until jobs have ended: a few by their known names, many by listing the directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import times
from queuectl.job.model import State
from queuectl.spool import jobs
from queuectl.spool.jobs import Found
from queuectl.system import files
from queuectl.view.census import PROVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from queuectl.spool.root import Root

#: Up to this many jobs are looked up by name. For more, the directories are listed.
FEW = 100
#: Seconds between the first two looks, and between later looks that take no time.
FIRST, USUAL = 0.005, 0.25
#: Looks may take this share of the time, unless the pause would be longer than this many seconds.
SHARE, LONGEST = 0.1, 0.5
_ENDED = (State.DONE, State.DEAD)


def pause_after(pause: float, cost: float) -> float:
    """Seconds until the next look, after a pause of `pause` seconds and a look that took `cost`."""
    return min(max(min(pause * 1.3, USUAL), cost / SHARE), LONGEST)


class Ends:
    """The jobs to wait for, and what became of each.

    `ended` holds the jobs that are done or dead, `gone` the ids without a file, and `left` all others as
    they were seen last. With many jobs `left` keeps ended ones until few still wait or run.
    """

    def __init__(self, root: Root, found: Iterable[Found]) -> None:
        self._root = root
        self._marks: list[files.Mark] | None = None
        self.left: dict[str, Found] = {}
        self.ended: dict[str, Found] = {}
        self.gone: list[str] = []
        for one in found:
            self._take(one)
        self._total = len(self.left) + len(self.ended)
        self._live = len(self.left)

    @property
    def over(self) -> int:
        """How many have ended, as far as the last look could see."""
        return self._total - min(self._live, len(self.left))

    def looks(self, end: float | None = None) -> Iterator[None]:
        """Look until nothing is left or until `end` (monotonic). Yields after each look."""
        pause = FIRST
        while True:
            begun = times.clock.monotonic()
            self.look()
            yield
            now = times.clock.monotonic()
            if self.left and end is not None and now >= end:
                self._settle(list(self.left))
                yield
                return
            if not self.left:
                return
            pause = pause_after(pause, now - begun)
            times.clock.sleep(pause if end is None else min(pause, end - now))

    def look(self) -> None:
        """Find out once which have ended."""
        if len(self.left) > FEW:
            self._list()
        elif not self._root.medium.answers_truly:  # it may answer from its cache for a name that is gone
            self._settle(list(self.left))
        else:
            moved = [one for one in self.left.values() if not files.exists(one.path)]
            for one in moved:
                self._take_ended(one)
            self._settle([one.id for one in moved if one.id in self.left])

    def give_up(self, job_id: str) -> None:
        """Wait no longer for this job."""
        self.left.pop(job_id, None)

    def _take_ended(self, one: Found) -> None:
        """Take a job that has ended under the name that it had."""
        for state in _ENDED:
            name = one.name.free()
            path = f"{self._root.folder(state)}/{name}"
            if files.exists(path):
                self._take(Found(state, name, path))
                return

    def _settle(self, job_ids: list[str]) -> None:
        """Find out where these jobs are, by one look for all."""
        found = jobs.places(self._root, job_ids).found
        for job_id in job_ids:
            if job_id in found:
                self._take(found[job_id])
            else:
                del self.left[job_id]
                self.gone.append(job_id)

    def _take(self, found: Found) -> None:
        if found.state in _ENDED:
            self.left.pop(found.id, None)
            self.ended[found.id] = found
        else:
            self.left[found.id] = found

    def _list(self) -> None:
        """Count the jobs that still wait or run, unless nothing has changed. Settle the last few."""
        folders = [self._root.folder(state) for state in (State.PROCESSING, *jobs.WAITING)]
        marks, now = [files.mark(folder) for folder in folders], times.clock.now().timestamp()
        if marks == self._marks and self._root.medium.hears_all:
            return
        live: set[str] = set()
        for state, texts in jobs.look(self._root, jobs.WAITING):
            live |= self.left.keys() & set(jobs.ids_in(state, texts))
        self._live = len(live)
        is_proof = all(now - mark.mtime_ns / 1e9 > PROVES for mark in marks)
        self._marks = marks if is_proof else None
        if len(live) <= FEW:
            self._settle(list(self.left))
