"""The order in which jobs run, from their file names; no file is read.

A job is due once the RUNAT in its name has come. Due jobs run in the order of their names, the most
urgent first; the others follow in the order in which they come to be due. `moment` is a `stamp`.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from queuectl.job.model import State
from queuectl.spool.names import DUE, group_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: The length of a `stamp`.
_STAMP = DUE.stop - DUE.start


def split(names: Iterable[str], moment: str) -> tuple[list[str], list[str]]:
    """The names that are due at this moment, and those that are due later."""
    names = list(names)
    later = [name for name in names if name[DUE] > moment]
    # Most often all are due: a second pass over a million names costs a tenth of listing them.
    return [name for name in names if name[DUE] <= moment] if later else names, later


def turn(name: str) -> str:
    """The sort key of a name that is due later. `name_of_turn` gives the name back."""
    return name[DUE] + name


def name_of_turn(text: str) -> str:
    """The name in a `turn`."""
    return text[_STAMP:]


def in_turn(due: list[str], later: list[str], count: int | None = None) -> Iterator[str]:
    """Due names, then later ones, in order. Where the caller takes only `count`, few more are sorted."""
    return chain(_smallest(due, count, None), _smallest(later, count, turn))


def _smallest(names: list[str], count: int | None, key: Callable[[str], str] | None) -> Iterator[str]:
    first = 0 if count is None else count + 16
    yield from heapq.nsmallest(first, names, key=key)
    if first < len(names):
        yield from sorted(names, key=key)[first:]


def before(due: Iterable[str], name: str) -> list[str]:
    """The due names that run before this name, unordered."""
    return [other for other in due if other < name]


def oldest(due: Iterable[str]) -> str | None:
    """The job that has been due for longest."""
    return min(due, key=turn, default=None)


#: The lane of jobs without a group.
NO_GROUP = ""


class Stretch(NamedTuple):
    """In sorted names, where one rank begins, where its later names begin, and where it ends."""

    low: int
    later: int
    high: int


def stretches(names: list[str], moment: str) -> list[Stretch]:
    """The ranks in sorted names, found by bisection: no pass over a million names."""
    found, low = [], 0
    while low < len(names):
        rank = names[low][:2]
        high = bisect_left(names, f"{rank}.", low)  # `.` comes after `-`
        found.append(Stretch(low, bisect_left(names, f"{rank}-{moment}.", low, high), high))
        low = high
    return found


class Sorted(NamedTuple):
    """Sorted names and their ranks at a moment: the answers of the functions above, by bisection."""

    names: list[str]
    ranks: list[Stretch]

    @classmethod
    def at(cls, names: list[str], moment: str) -> Sorted:
        """Sorted names as they stand at this moment."""
        return cls(names, stretches(names, moment))

    @property
    def due(self) -> int:
        """How many are due."""
        return sum(rank.later - rank.low for rank in self.ranks)

    def first(self) -> Iterator[str]:
        """The due ones in their order."""
        return chain.from_iterable(islice(self.names, rank.low, rank.later) for rank in self.ranks)

    def rest(self) -> Iterator[str]:
        """The later ones in theirs."""
        return heapq.merge(*(islice(self.names, rank.later, rank.high) for rank in self.ranks), key=turn)

    def before(self, name: str) -> int:
        """How many due ones run before this."""
        own = bisect_left(self.names, name)
        return sum(max(0, min(own, rank.later) - rank.low) for rank in self.ranks)

    def oldest(self) -> str | None:
        """The one that has been due for longest."""
        return oldest(self.names[rank.low] for rank in self.ranks if rank.low < rank.later)


class Lineup:
    """The names that wait: heaps of those that are due, a lane a group, and heaps of those that are not.

    `is_open` says whether jobs of a group may be taken now; "" stands for jobs without a group. A closed lane
    costs the others nothing.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, dict[State, list[str]]] = {NO_GROUP: _heaps()}
        self._later = _heaps()
        self.is_open: Callable[[str], bool] = lambda _: True

    def fill(self, state: State, due: list[str], later: list[str]) -> None:
        """Take these names in place of all that the state has."""
        for lane in self._lanes.values():
            lane[state] = []
        if grouped := [text for text in due if "+" in text]:
            due = [text for text in due if "+" not in text]
            for text in grouped:
                self._lane(text)[state].append(text)
        self._lanes[NO_GROUP][state] = due
        self._later[state] = [turn(text) for text in later]
        for heap in (self._later[state], *(lane[state] for lane in self._lanes.values())):
            heapq.heapify(heap)

    def _lane(self, text: str) -> dict[State, list[str]]:
        return self._lanes.setdefault(group_in(text), _heaps()) if "+" in text else self._lanes[NO_GROUP]

    def add(self, state: State, text: str, moment: str | None = None) -> None:
        """Take in a name that is due at this moment, or at the one that it gives."""
        heapq.heappush(self._later[state], turn(text) if moment is None else moment + text)

    def add_due(self, state: State, text: str) -> None:
        """Take in a name that is due, whatever it says."""
        heapq.heappush(self._lane(text)[state], text)

    def promote(self, moment: str) -> bool:
        """Move to the due names those whose time has come; whether any name is due in an open lane."""
        for state, later in self._later.items():
            while later and later[0][:_STAMP] <= moment:
                self.add_due(state, name_of_turn(heapq.heappop(later)))
        return any(any(lane.values()) and self.is_open(group) for group, lane in self._lanes.items())

    def pop(self, spread: int = 1) -> tuple[State, str] | None:
        """Take out the most urgent due name of the open lanes, or any of the first `spread` of its rank."""
        best: tuple[State, list[str]] | None = None
        for group, lane in self._lanes.items():
            if self.is_open(group):
                for state, due in lane.items():
                    if due and (best is None or due[0] < best[1][0]):
                        best = state, due
        if best is None:
            return None
        state, due = best
        near = [heapq.heappop(due)]
        for _ in range(random.randrange(spread) if spread > 1 else 0):  # noqa: S311 - spreading, not secrecy
            if not due or due[0][:2] != near[0][:2]:
                break
            near.append(heapq.heappop(due))
        chosen = near.pop()
        for text in near:
            heapq.heappush(due, text)
        return state, chosen

    def first(self, count: int) -> Iterator[tuple[State, str]]:
        """The first names of each state, `count` due ones and `count` later ones; they stay."""
        for state in self._later:
            lanes = heapq.merge(*(smallest(lane[state], count) for lane in self._lanes.values()))
            yield from ((state, text) for text in islice(lanes, count))
            yield from ((state, name_of_turn(entry)) for entry in smallest(self._later[state], count))

    def due_groups(self) -> list[str]:
        """The groups that have due names, "" for names without one."""
        return [group for group, lane in self._lanes.items() if any(lane.values())]

    def next_due(self, states: Iterable[State]) -> str | None:
        """The stamp at which the next of the later names is due."""
        firsts = [self._later[state][0] for state in states if self._later[state]]
        return min(firsts)[:_STAMP] if firsts else None

    def later(self, state: State) -> Iterator[str]:
        """The names that are not due yet, in no order."""
        return map(name_of_turn, self._later[state])

    def names(self) -> Iterator[str]:
        """All names, in no order."""
        yield from chain(*(due for lane in self._lanes.values() for due in lane.values()))
        yield from chain(*map(self.later, self._later))

    def count_later(self, state: State) -> int:
        """How many names are not due yet."""
        return len(self._later[state])


def _heaps() -> dict[State, list[str]]:
    return {State.PENDING: [], State.FAILED: []}


def smallest(heap: list[str], count: int) -> Iterator[str]:
    """The first few of a heap in their order, whatever its size; it stays as it is."""
    ahead = [(text, 0) for text in heap[:1]]
    while ahead and count:
        count -= 1
        text, at = heapq.heappop(ahead)
        yield text
        for child in (2 * at + 1, 2 * at + 2):
            if child < len(heap):
                heapq.heappush(ahead, (heap[child], child))
