"""Waiting jobs whose files a person may have edited: they are read before a less urgent job is claimed.

On a local disk (Linux) events report edits. Elsewhere, and where events were lost, each listing compares the
files of the first jobs with their marks at the listing before. All others are read at their turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.spool.names import DUE
from queuectl.system import files
from queuectl.times import from_stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from queuectl.job.model import State
    from queuectl.spool.root import Root

#: How many files of each kind are compared at a listing.
FIRST = 200
#: After a comparison that took longer than this many seconds, the next one waits `PATIENCE` times as long.
CHEAP, PATIENCE = 0.02, 20
#: It never waits for longer, in seconds: a share that was away meanwhile is not slow.
LONGEST = 30.0
#: A file that changed more than this many seconds after the time in its name was not just filed.
FILING_TAKES = 1.0


class Place(NamedTuple):
    """A waiting job's file: the directory and the name."""

    state: State
    text: str


def was_edited(place: Place, mark: files.Mark, before: files.Mark | None) -> bool:
    """Whether a file has changed since it had the mark `before`, or without one, since it was filed."""
    if before is not None:
        return mark[:2] != before[:2]  # the inode proves nothing: FUSE makes up its number
    return mark.mtime_ns / 1e9 - from_stamp(place.text[DUE]).timestamp() > FILING_TAKES


class Edits:
    """The files to read because they may have been edited. One per worker."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._doubtful: dict[Place, None] = {}
        self._marks: dict[Place, files.Mark] = {}
        self._next = float("-inf")

    def hear(self, places: Iterable[Place]) -> None:
        """Note files that events reported."""
        self._doubtful.update(dict.fromkeys(places))

    def compare(self, places: Iterable[Place]) -> None:
        """Note the files that were edited since they were compared last or filed."""
        begun = times.clock.monotonic()
        is_first, is_early = self._next == float("-inf"), begun < self._next
        # A look at each file on a share may be a round trip.
        if is_early or (is_first and self._root.medium.is_remote):
            self._next = max(self._next, begun)
            return
        marks: dict[Place, files.Mark] = {}
        for place in places:
            try:
                mark = files.mark(f"{self._root.folder(place.state)}/{place.text}")
            except OSError:  # it has moved, or the share is in trouble: it is read at its turn
                continue
            marks[place] = mark
            if was_edited(place, mark, self._marks.get(place)):
                self._doubtful[place] = None
        self._marks = marks
        ended = times.clock.monotonic()
        cost = ended - begun
        self._next = ended + (min(PATIENCE * cost, LONGEST) if cost > CHEAP else 0.0)

    def take(self) -> Iterator[Place]:
        """The files to read, each once."""
        while self._doubtful:
            yield self._doubtful.popitem()[0]
