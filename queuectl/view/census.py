"""How many jobs each state has: counted once, or remembered by directory until the directory changes."""

from __future__ import annotations

import errno
import threading
from array import array
from collections import Counter
from dataclasses import dataclass, field
from heapq import merge
from itertools import chain, compress, pairwise
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob
from queuectl.job.model import State
from queuectl.spool import jobfile, jobs, order
from queuectl.spool.jobs import label_of
from queuectl.spool.names import DUE, Kind, classify, name_in, odd, parse, parse_parked, split_parked
from queuectl.system import files
from queuectl.times import from_stamp, stamp
from queuectl.view import lookup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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
#: How many completed jobs are read for their durations.
SAMPLE = 200
LOT = 20_000


class Listing(NamedTuple):
    """One directory: the jobs in it in run order or, finished ones, in the order of their ends.

    `parked` are the names of parked jobs, which `names` leaves out, `strangers` those that a person should
    see, `wide` those of waiting jobs that want several slots of their group. `ends` holds when each file was
    last written, in nanoseconds since 1970, in the states of `_ENDS`; until all files have been looked at it
    is shorter than `names`, and `read` is false.
    """

    names: list[str]
    parked: Sequence[str] = ()
    strangers: Sequence[str] = ()
    wide: Sequence[str] = ()
    ends: array[int] = array("q")
    read: bool = False

    @classmethod
    def of(cls, state: State, texts: list[str]) -> Listing:
        """Tell the names in the directory of a state apart, in no order."""
        names, parked = split_parked(state, texts) if state in jobs.WAITING else (texts, [])
        others = set(odd(state, names))
        strangers = (text for text in others if classify(state, text) in {Kind.DROP, Kind.STRANGER})
        found = [text for text in names if text not in others] if others else names
        wide = [text for text in found if "=" in text] if state in jobs.WAITING else []
        return cls(found, parked, sorted(strangers), wide, read=True)


class Counts(NamedTuple):
    """How many jobs each state has, and other facts from the names alone.

    `first_due` is the file name of the job that has waited longest. `strangers` are paths below the spool,
    `wide` the names of waiting jobs that want several slots of their group.
    """

    pending: int
    scheduled: int
    held: int
    blocked: int
    processing: int
    completed: int
    failed: int
    dead: int
    first_due: str | None
    strangers: tuple[str, ...]
    wide: tuple[str, ...]

    @classmethod
    def of(cls, listings: Mapping[State, Listing], due: int, first_due: str | None) -> Counts:
        """The counts by label from those by directory; `due` is how many in pending/ are."""
        sizes = {state.label: len(listings[state].names) for state in State}
        parked = Counter(label for state in jobs.WAITING for _, label in labels(listings[state]))
        return cls(
            **sizes | {"pending": due},
            scheduled=sizes["pending"] - due,
            held=parked[jobs.HELD],
            blocked=parked[jobs.BLOCKED],
            first_due=first_due,
            strangers=tuple(f"{state}/{text}" for state in State for text in listings[state].strangers),
            wide=tuple(text for state in jobs.WAITING for text in listings[state].wide),
        )

    def oldest(self, now: datetime) -> float | None:
        """For how many seconds the job that has waited longest has been due."""
        if self.first_due is None:
            return None
        return max(0.0, (now - from_stamp(self.first_due[DUE])).total_seconds())

    def as_dict(self) -> dict[str, int]:
        """One entry for each state, as `status --json` prints it."""
        return dict(zip(self._fields[:-3], self[:-3], strict=True))


def listed(root: Root) -> dict[State, list[str]]:
    """The names in the directory of each state."""
    return {state: root.texts_in(root.folder(state)) for state in State}


def counts(texts: Mapping[State, list[str]], now: datetime) -> Counts:
    """Count the jobs in these listings; no file is read."""
    listings = {state: Listing.of(state, texts[state]) for state in State}
    due, _ = order.split(listings[State.PENDING].names, stamp(now))
    return Counts.of(listings, len(due), order.oldest(due))


def labels(listing: Listing) -> Iterator[tuple[str, str]]:
    """The names of parked jobs with their labels."""
    for text in listing.parked:
        if (name := parse_parked(text)) and name.parked:
            yield text, label_of(name.parked)


def average_duration(root: Root, names: Sequence[str]) -> float | None:
    """Mean seconds of the last runs of these completed jobs: of all, or of an even sample."""
    sample = sorted(names[:: max(1, len(names) // SAMPLE)])
    seconds = [one for text in sample if (one := _duration(root, text)) is not None]
    return sum(seconds) / len(seconds) if seconds else None


def _duration(root: Root, text: str) -> float | None:
    """How many seconds the last run of a completed job took, if that can be read."""
    if parse(text) is None:
        return None
    try:
        job = jobfile.read(f"{root.folder(State.DONE)}/{text}").job
    except (BadJob, OSError):
        return None
    seconds = lookup.exit_of(job).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) and isfinite(seconds) else None


@dataclass(slots=True)
class _Folder:
    """What is remembered of one directory: its last listing, its mark then, and when to list it again.

    `mark` is None if it proves nothing. `seen` is the last mark, and when it was first seen (monotonic).
    """

    listing: Listing = field(default_factory=lambda: Listing([]))
    mark: files.Mark | None = None
    seen: tuple[files.Mark | None, float] = (None, 0.0)
    look_at: float = 0.0


class Census:
    """Lists the directories of a spool when asked, and remembers. Safe to call from any thread."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._folders = {state: _Folder() for state in State}
        self._minutes: dict[str, Counter[int]] = {word: Counter() for word in _ENDS.values()}
        self._seconds: dict[str, float | None] = {}

    def look(self, *, patient: bool = True) -> None:
        """List the directories that changed. If `patient`, skip those that took long to list lately."""
        with self._lock:
            for state, folder in self._folders.items():
                if not patient or times.clock.monotonic() >= folder.look_at:
                    self._look_at(state, folder)

    def _look_at(self, state: State, folder: _Folder) -> None:
        path = self._root.folder(state)
        begun, now, mark = times.clock.monotonic(), times.clock.now().timestamp(), files.mark(path)
        if mark == folder.mark:
            return
        texts = self._root.texts_in(path)
        looking = 0.0
        if state in _ENDS:
            looking = self._take_ended(state, folder, texts)
        else:
            listing = Listing.of(state, texts)
            listing.names.sort()
            folder.listing = listing
        # Race: a change within the grain of the clock leaves the same mark, so a young mark proves nothing.
        # On a share this host's own watch counts, not the server's clock.
        if folder.seen[0] != mark:
            folder.seen = (mark, begun)
        is_remote = self._root.medium.has_own_clock
        age = begun - folder.seen[1] if is_remote else now - mark.mtime_ns / 1e9
        folder.mark = mark if age > PROVES else None
        ended = times.clock.monotonic()
        cost = ended - begun - looking
        folder.look_at = ended + (PATIENCE * cost if cost > CHEAP else 0.0)

    def _take_ended(self, state: State, folder: _Folder, texts: list[str]) -> float:
        """Look at the files of new names only. Returns the seconds that the look took."""
        names, ends = folder.listing.names, folder.listing.ends
        present: set[str] = set()
        for some in _gently(texts):
            present.update(some)
        added = present.copy()
        for some in _gently(names):
            added.difference_update(some)
        if len(names) + len(added) > len(present):
            stays = [name in present for name in names]
            names, ends = list(compress(names, stays)), array("q", compress(ends, stays))
        new = Listing.of(state, list(added))
        if not folder.listing.read and new.names:  # the count is known while their times are looked up
            folder.listing = new._replace(read=False)
        begun = times.clock.monotonic()
        ended = [self._ends_of(state, some) for some in _gently(new.names)]
        looking = times.clock.monotonic() - begun
        for lot, _ in ended:
            self._count(_ENDS[state], lot)
        names, ends = _merged([(ends, names), *ended])
        folder.listing = new._replace(names=names, ends=ends)
        if state is State.DONE:
            known = self._seconds
            self._seconds = {
                name: known[name] if name in known else _duration(self._root, name)
                for name in names[-SAMPLE:]
            }
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

    # ── what was seen ────────────────────────────────────────────────────────────────────────

    def listing(self, state: State) -> Listing:
        """The directory of a state as it was last listed."""
        return self._folders[state].listing

    @property
    def is_whole(self) -> bool:
        """Whether every directory has been read to its end."""
        return all(folder.listing.read for folder in self._folders.values())

    def counts(self, now: datetime) -> Counts:
        """The result of `counts`, from the last listings."""
        waiting = self._ordered(State.PENDING, now)
        listings = {state: folder.listing for state, folder in self._folders.items()}
        return Counts.of(listings, waiting.due, waiting.oldest())

    def _ordered(self, state: State, now: datetime) -> order.Sorted:
        return order.Sorted.at(self.listing(state).names, stamp(now))

    def in_order(self, word: str, now: datetime) -> tuple[int, Iterator[tuple[State, str]]]:
        """How many names a word of `list --state` has, and the states and names in its order."""
        if word in {jobs.HELD, jobs.BLOCKED}:
            parked = [
                (text, state)
                for state in jobs.WAITING
                for text, label in labels(self.listing(state))
                if label == word
            ]
            return len(parked), ((state, text) for text, state in sorted(parked))
        (state,) = lookup.WORDS[word]
        count, names = self._names(state, word, now)
        return count, ((state, name) for name in names)

    def _names(self, state: State, word: str, now: datetime) -> tuple[int, Iterable[str]]:
        names = self.listing(state).names
        if state not in jobs.WAITING:
            return len(names), names if state is State.PROCESSING else reversed(names)
        ordered = self._ordered(state, now)
        if word == "pending":
            return ordered.due, ordered.first()
        if word == jobs.SCHEDULED:
            return len(names) - ordered.due, ordered.rest()
        return len(names), chain(ordered.first(), ordered.rest())

    def before(self, name: str, now: datetime) -> int:
        """How many due jobs run before the one with this name."""
        return sum(self._ordered(state, now).before(name) for state in jobs.WAITING)

    def lookup(self, job_id: str) -> Iterator[tuple[State, str]]:
        """Where a job with exactly this id was last seen: state and file name."""
        for state in jobs.ORDER:
            for name in chain(self.listing(state).names, self.listing(state).parked):
                if job_id in name and (parsed := name_in(state, name)) and parsed.id == job_id:
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
    names: list[str] = []
    ends = array("q")
    if all(one[0][-1] <= other[0][0] for one, other in pairwise(lots)):
        for lot_ends, lot_names in lots:
            ends.extend(lot_ends)
            names.extend(lot_names)
    else:
        for end, name in merge(*(zip(*lot, strict=True) for lot in lots)):
            ends.append(end)
            names.append(name)
    return names, ends


def quantile(ordered: list[float], share: float) -> float | None:
    """The value below which this share of the sorted values lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


class Watch:
    """A thread that keeps a census fresh while somebody looks, and rests when nobody does.

    `trouble` is the error of the last look, None if it succeeded; then the last figures stay.
    """

    EVERY = 0.5
    RESTS_AFTER = 30.0
    #: A look this many seconds old is good enough for the frame of a page.
    LATELY = 1.0

    def __init__(self, census: Census) -> None:
        self.census = census
        self.trouble: OSError | None = None
        self._asked = threading.Condition()
        self._wanted = self._done = 0
        self._asked_at = times.clock.monotonic()
        self._looked_at = float("-inf")
        self._closed = False
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
            begun = times.clock.monotonic()
            try:
                self.census.look()
                self.trouble, self._looked_at = None, begun
            except OSError as error:  # the share is away
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
