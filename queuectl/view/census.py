"""The names, ends and counts of each directory, remembered until the directory changes."""

from __future__ import annotations

import errno
import threading
from array import array
from collections import Counter
from dataclasses import dataclass, field
from heapq import merge
from itertools import chain, compress, pairwise
from math import isfinite
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import BadJob
from queuectl.job.model import State
from queuectl.spool import jobfile, jobs, order
from queuectl.spool.names import name_in, odd
from queuectl.system import files
from queuectl.times import stamp
from queuectl.view import lookup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from queuectl.spool.root import Root

#: A directory that took long to list is not listed again for this many times as long.
PATIENCE = 20
#: A listing that took fewer seconds is made whenever it is asked for.
CHEAP = 0.05
#: An mtime younger than this many seconds proves nothing: a later change may leave the same mtime.
PROVES = 2.0
#: A minute in nanoseconds, the unit of the ends.
MINUTE = 60 * 10**9
#: How many minutes back ends are counted.
DAY = 24 * 60
#: The states where the file was last written when the run ended, and the outcome that it counts as.
_ENDS = {State.DONE: "completed", State.FAILED: "failed", State.DEAD: "failed"}
#: How many of the jobs that completed last are read for their durations.
SAMPLE = 200
LOT = 20_000


@dataclass(frozen=True, slots=True)
class Listing:
    """One directory as it was last listed: in run order or, finished jobs, in the order of their ends.

    `ends` holds when each file was last written, in nanoseconds since 1970, in the states of `_ENDS`. It
    is shorter than `names` until all files have been looked at.
    """

    names: list[str] = field(default_factory=list)
    ends: array[int] = field(default_factory=lambda: array("q"))
    strangers: tuple[str, ...] = ()
    read: bool = False


class Census:
    """Lists the directories of a spool when asked, and remembers. Safe to call from any thread."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._marks: dict[State, files.Mark | None] = dict.fromkeys(State)
        self._first: dict[State, tuple[files.Mark | None, float]] = dict.fromkeys(State, (None, 0.0))
        self._next: dict[State, float] = dict.fromkeys(State, 0.0)
        self._listings: dict[State, Listing] = dict.fromkeys(State, Listing())
        self._minutes: dict[str, Counter[int]] = {word: Counter() for word in _ENDS.values()}
        self._seconds: dict[str, float | None] = {}

    def look(self, *, patient: bool = True) -> None:
        """List the directories that changed. If `patient`, skip those that took long to list lately."""
        with self._lock:
            for state in State:
                self._look_at(state, patient=patient)

    def _look_at(self, state: State, *, patient: bool) -> None:
        begun = times.clock.monotonic()
        if patient and begun < self._next[state]:
            return
        folder = self._root.folder(state)
        mark, at = files.mark(folder), times.clock.now().timestamp()
        if mark == self._marks[state]:
            return
        texts = self._root.texts_in(folder)
        looking = 0.0
        if state in _ENDS:
            looking = self._take_ended(state, texts)
        else:
            others = odd(state, texts)
            passed_over = set(others)
            found = sorted(text for text in texts if text not in passed_over)
            strangers = tuple(sorted(lookup.to_report(state, others)))
            self._listings[state] = Listing(found, strangers=strangers, read=True)
        # Race: a change within the grain of the clock leaves the same mark, so a young mark proves nothing.
        self._marks[state] = mark if self._stands(state, mark, begun, at) > PROVES else None
        ended = times.clock.monotonic()
        cost = ended - begun - looking
        self._next[state] = ended + (PATIENCE * cost if cost > CHEAP else 0.0)

    def _stands(self, state: State, mark: files.Mark, clock: float, now: float) -> float:
        """Seconds since a directory changed. On a share our own clock counts, not the server's."""
        if not self._root.medium.has_own_clock:
            return now - mark.mtime_ns / 1e9
        if self._first[state][0] != mark:
            self._first[state] = (mark, clock)
        return clock - self._first[state][1]

    def _take_ended(self, state: State, texts: list[str]) -> float:
        """Look at the files of new names only. Returns the seconds that the look took."""
        before = self._listings[state]
        present: set[str] = set()
        for some in _gently(texts):
            present.update(some)
        added = present.copy()
        for some in _gently(before.names):
            added.difference_update(some)
        names, ends = before.names, before.ends
        if len(names) + len(added) > len(present):
            stays = [name in present for name in names]
            names, ends = list(compress(names, stays)), array("q", compress(ends, stays))
        others = set(odd(state, list(added)))
        strangers = tuple(sorted(lookup.to_report(state, others)))
        jobs = list(added - others)
        if not before.read and jobs:  # the count is known while their times are looked up
            self._listings[state] = Listing(jobs, strangers=strangers)
        begun = times.clock.monotonic()
        ended = [self._ends_of(state, some) for some in _gently(jobs)]
        looking = times.clock.monotonic() - begun
        for lot in ended:
            self._count(_ENDS[state], lot[0])
        names, ends = _merged([(ends, names), *ended])
        self._listings[state] = Listing(names, ends, strangers, read=True)
        if state is State.DONE:
            self._sample(names[-SAMPLE:])
        return looking

    def _ends_of(self, state: State, names: list[str]) -> tuple[array[int], list[str]]:
        folder = self._root.folder(state)
        found = []
        for name in names:
            try:
                found.append((files.mark(f"{folder}/{name}").mtime_ns, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                found.append((0, name))  # a bad block under one file hides no other file
        found.sort()
        return array("q", [end for end, _ in found]), [name for _, name in found]

    def _count(self, word: str, ends: Iterable[int]) -> None:
        minutes = self._minutes[word]
        oldest = int(times.clock.now().timestamp()) // 60 - DAY
        minutes.update(end // MINUTE for end in ends)
        for minute in [minute for minute in minutes if minute < oldest]:
            del minutes[minute]

    def _sample(self, newest: list[str]) -> None:
        known = self._seconds
        self._seconds = {name: known[name] if name in known else self._duration(name) for name in newest}

    def _duration(self, name: str) -> float | None:
        try:
            history = jobfile.read(f"{self._root.folder(State.DONE)}/{name}").job.history
        except (BadJob, OSError):
            return None
        seconds = lookup.exit_of(history).get("seconds")
        return float(seconds) if isinstance(seconds, int | float) and isfinite(seconds) else None

    # ── what was seen ────────────────────────────────────────────────────────────────────────

    def listing(self, state: State) -> Listing:
        """The directory of a state as it was last listed."""
        return self._listings[state]

    @property
    def is_whole(self) -> bool:
        """Whether every directory has been read to its end."""
        return all(listing.read for listing in self._listings.values())

    def counts(self, now: datetime) -> lookup.Counts:
        """The result of `lookup.counts`, from the last listing."""
        waiting = self._ordered(State.PENDING, now)
        pending = waiting.due
        return lookup.Counts(
            pending=pending,
            scheduled=len(waiting.names) - pending,
            processing=len(self._listings[State.PROCESSING].names),
            completed=len(self._listings[State.DONE].names),
            failed=len(self._listings[State.FAILED].names),
            dead=len(self._listings[State.DEAD].names),
            first_due=waiting.oldest(),
            strangers=tuple(
                f"{state.value}/{text}" for state in State for text in self._listings[state].strangers
            ),
        )

    def oldest(self, now: datetime) -> str | None:
        """The file name of the job that has been due for longest."""
        return self._ordered(State.PENDING, now).oldest()

    def _ordered(self, state: State, now: datetime) -> order.Sorted:
        return order.Sorted.at(self._listings[state].names, stamp(now))

    def in_order(self, word: str, now: datetime) -> tuple[int, Iterable[str]]:
        """How many names a word of `list --state` has, and the names in its order."""
        state = lookup.WORDS[word]
        names = self._listings[state].names
        if state in {State.DONE, State.DEAD}:
            return len(names), reversed(names)
        if state is State.PROCESSING:
            return len(names), names
        ordered = self._ordered(state, now)
        if state is State.FAILED:
            return len(names), chain(ordered.first(), ordered.rest())
        if word == jobs.SCHEDULED:
            return len(names) - ordered.due, ordered.rest()
        return ordered.due, ordered.first()

    def before(self, name: str, now: datetime) -> int:
        """How many due jobs run before the one with this name."""
        return sum(self._ordered(state, now).before(name) for state in jobs.WAITING)

    def lookup(self, job_id: str) -> Iterator[tuple[State, str]]:
        """Where a job with exactly this id was last seen: state and file name."""
        for state in (State.PROCESSING, State.PENDING, State.FAILED, State.DEAD, State.DONE):
            end = f"-{job_id}@" if state is State.PROCESSING else f"-{job_id}.yaml"
            for name in self._listings[state].names:
                if end in name and (parsed := name_in(state, name)) and parsed.id == job_id:
                    yield state, name

    def minutes(self, word: str) -> Counter[int]:
        """Runs of the last day that ended `completed` or `failed`, counted by minutes since 1970.

        Each name that was ever seen in done/, failed/ or dead/ counts once, even after it has gone.
        """
        return Counter(self._minutes[word])

    def ended_since(self, word: str, minutes: int) -> int:
        """How many runs have ended so in the last `minutes` minutes."""
        first = int(times.clock.now().timestamp()) // 60 - minutes + 1
        return sum(count for minute, count in self.minutes(word).items() if minute >= first)

    def durations(self) -> list[float]:
        """Seconds of the last run of each job that completed last, sorted. Each file is read once."""
        return sorted(seconds for seconds in self._seconds.values() if seconds is not None)


def _gently(items: list[str]) -> Iterator[list[str]]:
    """The items in lots: one C call over a million items would block all other threads."""
    for start in range(0, len(items), LOT):
        yield items[start : start + LOT]


def _merged(lots: list[tuple[array[int], list[str]]]) -> tuple[list[str], array[int]]:
    """Merge lots that are each sorted by their ends, without holding a million pairs in memory."""
    lots = [(ends, names) for ends, names in lots if names]
    if all(one[0][-1] <= other[0][0] for one, other in pairwise(lots)):
        names: list[str] = []
        ends = array("q")
        for lot in lots:
            ends.extend(lot[0])
            names.extend(lot[1])
        return names, ends
    names, ends = [], array("q")
    for end, name in merge(*(zip(*lot, strict=True) for lot in lots)):
        names.append(name)
        ends.append(end)
    return names, ends


def quantile(ordered: list[float], share: float) -> float | None:
    """The value below which this share of the sorted values lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


class Watch:
    """A thread that keeps a census fresh while somebody looks, and rests when nobody does."""

    EVERY = 0.5
    RESTS_AFTER = 30.0
    #: A look this many seconds old is good enough for the frame of a page.
    LATELY = 1.0

    def __init__(self, census: Census) -> None:
        self.census = census
        self._asked = threading.Condition()
        self._wanted = 0
        self._done = 0
        self._asked_at = times.clock.monotonic()
        self._looked_at = float("-inf")
        self._closed = False
        self.trouble: OSError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="census")
        self._thread.start()

    def fresh(self, seconds: float) -> Census:
        """The census after a new look or, if that takes longer than `seconds`, after the last one."""
        with self._asked:
            self._wanted += 1
            wanted = self._wanted
            self._asked_at = times.clock.monotonic()
            self._asked.notify_all()
            self._asked.wait_for(lambda: self._done >= wanted, seconds)
        return self.census

    def lately(self, seconds: float) -> Census:
        """The census as it is if the last look is not older than `LATELY`, else as `fresh` gives it."""
        with self._asked:
            now = times.clock.monotonic()
            if now - self._looked_at <= self.LATELY:
                self._asked_at = now
                return self.census
        return self.fresh(seconds)

    def close(self, seconds: float | None = None) -> None:
        """Stop looking. Waits for a look under way, `seconds` at most. The census stays as it is."""
        with self._asked:
            self._closed = True
            self._asked.notify_all()
        self._thread.join(seconds)

    def _run(self) -> None:
        while (wanted := self._wait()) is not None:
            try:
                begun = times.clock.monotonic()
                self.census.look()
                self.trouble = None
                self._looked_at = begun
            except OSError as error:  # the share is away: the last figures stay, and the page says so
                self.trouble = error
            with self._asked:
                self._done = wanted
                self._asked.notify_all()

    def _wait(self) -> int | None:
        """Wait for the next look. Returns how many were asked for so far, None once closed."""
        with self._asked:
            resting = times.clock.monotonic() - self._asked_at > self.RESTS_AFTER
            self._asked.wait_for(
                lambda: self._closed or self._wanted > self._done, None if resting else self.EVERY
            )
            return None if self._closed else self._wanted
