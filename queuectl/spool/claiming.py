"""From a waiting file to a claim: one listing, many tries, one rename that one worker wins.

pending/N, failed/N   ->  processing/N@OWNER     the claim
the content is read, and decides:
    it is a job, and the name tells the truth    the claim stands
    the name is out of date                      back to pending/ under the right name
    nothing can be added to its layout           written anew once, then as above
    it cannot be a job                           dead/, untouched, with the reason beside it
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import logging
import random
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, ClaimLost, IdTooLong, SpoolAway
from queuectl.job.history import RETRIED, STARTED, Event
from queuectl.job.layout import to_yaml
from queuectl.job.model import Job, State
from queuectl.spool import ids, jobfile, jobs, order, presence
from queuectl.spool.edits import FIRST, Edits, Place
from queuectl.spool.names import (
    FIFO_RANK,
    SHORT_ID,
    WAITING_NAME,
    Name,
    id_in,
    make_id,
    parse,
    rank_of,
    split,
    strangers,
)
from queuectl.system import files
from queuectl.times import parse_moment, stamp

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from queuectl.spool.jobfile import Record
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: Workers that have just lost a race take any of this many equals instead of the next.
SPREAD = 32
#: A listing may be this many times as old as it took to make: listing costs 5 % at most.
PATIENCE = 20
#: For so many seconds a share may go on listing a name that is gone (sshfs: 20).
STALE = 30.0
#: Seconds for which a job is left alone after its file was found to be in the middle of a change.
HOLD = 0.5
#: The same at first: inotify reports a close shortly before the kernel counts the file as closed.
CLOSING = 0.005
#: Seconds for which a file on a share must have stood still to be whole: nothing tells of its writers.
SETTLE_BLIND = 2.0
#: Seconds by which the time in a job's file, of its last event or of its filing, may be before that of
#: the file: what the queue wrote itself is whole. Two clocks may differ by `presence.TOLERANCE`.
OURS = SETTLE_BLIND + presence.TOLERANCE
#: A job that has been left alone for this many seconds is reported, once.
LONG_HELD = 10.0
#: A name may be this much later than `run_at` says: each return to pending/ adds a microsecond.
LEEWAY = timedelta(seconds=1)
#: What the system says of a file that it refuses whatever room the disk has.
OF_ONE_FILE = frozenset({errno.EFBIG, errno.ENAMETOOLONG})
#: A job whose file alone cannot be moved (an immutable one) is passed over for this many seconds.
REFUSED = 5.0
#: How many of the names that were claimed last are remembered, lest one be claimed twice.
MOST_TAKEN = 10_000
#: How many scheduled names are checked against their content in one idle look.
DOUBTS = 200

# What brings a file back that was put aside, for the reason beside it; {0} is its name.
_MEND = "Mend it and move it back:\n    mv '{0}' ../pending/"
_COPY = "A copy of it has one link:\n    cp '{0}' ../pending/ && rm '{0}'"
_FOLLOW = "Copy the file that the link leads to into pending/, and delete the link:\n    rm '{0}'"
_REPLACE = "It can hold no job: write one into a file in pending/, and delete this."
_GIVEN_AWAY = (
    "If root filed it, the mount gives what root writes to that user: export it with no_root_squash (NFS)\n"
    "or mount it with -o uid=root (SMB), let the file belong to root, and move it back:\n"
    "    chown root '{0}' && mv '{0}' ../pending/"
)
SHORTER_ID = (
    "Give it a shorter id, in the line `id:` too if there is one:\n    mv '{0}' ../pending/NEW-ID.yaml"
)
#: Of a job whose outcome is not in its file.
RAN = "It was started, though. To have it run again:\n    mv '{0}' ../pending/"
OTHER_ID = (
    "Give it another id and move it back; without a line `id:` it gets that of its new name:\n"
    "    mv '{0}' ../pending/NEW-ID.yaml"
)


class BeingWritten(Exception):
    """Somebody is changing the job's file.

    `written` is the time of the last change where nothing but that tells (on a share), else None.
    """

    def __init__(self, job_id: str, written: float | None) -> None:
        super().__init__(job_id)
        self.written = written


class Hold(NamedTuple):
    """A job that is left alone: until when and since when, by the monotonic clock, and for which change."""

    until: float
    since: float
    written: float | None = None
    is_told: bool = False


class NotYet(Exception):
    """A job cannot be judged now: it is tried again after these seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class IdContested(Exception):
    """The content gives the job another id, which is taken; `right` is the name that it asks for."""

    def __init__(self, right: Name) -> None:
        super().__init__(right.id)
        self.right = right


class Claim(NamedTuple):
    """A job that this owner, and nobody else, may run: its file, and what the file says."""

    root: Root
    name: Name
    record: Record
    source: State
    #: Where the file is for as long as the claim lasts.
    path: str
    #: Events that the file is to get and has not yet.
    unwritten: tuple[Event, ...] = ()

    @classmethod
    def of(cls, root: Root, name: Name, reading: Record, source: State) -> Claim:
        """The claim that this name tells of."""
        return cls(root, name, reading, source, f"{root.folder(State.PROCESSING)}/{name}")

    @property
    def id(self) -> str:
        """The job's id."""
        return self.name.id

    @property
    def stem(self) -> str:
        """The file's name without its ending: no other claim has or had it."""
        return str(self.name).removesuffix(".yaml")

    @property
    def owner(self) -> str:
        """The worker whose claim it is."""
        assert self.name.owner is not None
        return self.name.owner

    @property
    def job(self) -> Job:
        """What is to run."""
        return self.record.job

    @property
    def history(self) -> tuple[Event, ...]:
        """The history as it will be once all is written."""
        return (*self.job.history, *self.unwritten)

    def adding(self, *events: Event) -> Claim:
        """The claim with events that its file is to get."""
        return self._replace(unwritten=(*self.unwritten, *events))

    def recording(self, **facts: Any) -> Claim:
        """The claim with facts added to the start that its file is to get; without one it is the same."""
        if not self.unwritten or self.unwritten[0].get("event") != STARTED:
            return self
        return self._replace(unwritten=({**self.unwritten[0], **facts}, *self.unwritten[1:]))

    def noted(self, *added: Event, sync: bool = False) -> Claim:
        """The claim after these events, and what else was unwritten, were added to its file.

        Raises `ClaimLost` or `SpoolAway`.
        """
        events = (*self.unwritten, *added)
        return self._replace(record=note(self.root, self.path, self.record, events, sync=sync), unwritten=())

    def noted_again(self, *, sync: bool = False) -> Claim:
        """The same, adding only those of the events that the file does not end with already."""
        try:
            reading = read(self.root, self.path)
        except (BadJob, files.NotAFile) as error:  # something else has taken its place
            raise ClaimLost(self.id) from error
        history, added = reading.job.history, self.unwritten
        there = next(n for n in range(len(added), -1, -1) if history[len(history) - n :] == added[:n])
        if missing := added[there:]:
            reading = note(self.root, self.path, reading, missing, sync=sync)
        return self._replace(record=reading, unwritten=())


class Waiting:
    """The names that wait, as last listed, the most urgent first. One per worker."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._due: dict[State, list[str]] = {State.PENDING: [], State.FAILED: []}
        self._later: dict[State, list[str]] = {State.PENDING: [], State.FAILED: []}
        self._trusted: set[str] = set()
        self._overdue: set[str] = set()
        self._trusted_at = 0.0
        self._listed_at = float("-inf")
        self.cost = 0.0
        self._is_crowded = False
        self._refused: dict[str, float] = {}
        self._held: dict[str, Hold] = {}
        self._taken: dict[str, None] = {}
        self._gone: dict[str, float] = {}
        self._misnamed: list[Place] = []
        self.edits = Edits(root)
        self.strangers: list[str] = []

    def age(self) -> float:
        """Seconds since the last listing."""
        return times.clock.monotonic() - self._listed_at

    def is_stale(self, interval: float) -> bool:
        """Whether it is time to list again: after `interval`, or later where listing is dear."""
        return self.age() >= max(interval, PATIENCE * self.cost)

    def relist(self, now: datetime) -> None:
        """Look at the directories: the truth, whatever events told."""
        begun = times.clock.monotonic()
        moment = stamp(now)
        self._forget_gone(begun)
        for state in self._due:
            texts = self._root.texts_in(self._root.folder(state))
            odd = strangers(texts)
            if odd or self._gone or self._refused:
                refused = [text for text, until in self._refused.items() if until > begun]
                passed_over = {*odd, *self._gone, *refused}
                texts = [text for text in texts if text not in passed_over]
            due, later = order.split(texts, moment)
            if self._overdue:
                due += [text for text in later if text in self._overdue]
                later = [text for text in later if text not in self._overdue]
            later = [order.turn(text) for text in later]
            heapq.heapify(due)
            heapq.heapify(later)
            self._due[state], self._later[state] = due, later
            if state is State.PENDING:
                self.strangers = odd
        self.edits.compare(self._fronts())
        self._listed_at = times.clock.monotonic()
        self.cost = self._listed_at - begun

    def _fronts(self) -> Iterator[Place]:
        """The jobs that come first of those that are due, and of those that are not yet."""
        for state in self._due:
            yield from (Place(state, text) for text in smallest(self._due[state], FIRST))
            yield from (
                Place(state, order.name_of_turn(entry)) for entry in smallest(self._later[state], FIRST)
            )

    def _forget_gone(self, clock: float) -> None:
        """Names that were lost are passed over for as long as a share may list them from its cache.

        A local disk tells the truth: there a name that is listed again has been put back by hand.
        """
        if self._gone:
            kept = STALE if self._root.is_shared else 0.0
            self._gone = {text: at for text, at in self._gone.items() if clock - at < kept}

    def hear(self, texts: Iterable[str]) -> None:
        """Take in names of pending/ that events told of; they may be gone, or known already."""
        for text in texts:
            self._trusted.discard(text)
            name = parse(text) if self._held else None
            hold = self._held.get(name.id) if name else None
            if name and hold and hold.written is None:
                self._held[name.id] = hold._replace(until=0.0)
            if not WAITING_NAME(text):
                self.strangers.append(text)
            else:
                self.expect(State.PENDING, text)

    def expect(self, state: State, text: str) -> None:
        """Take in a name that is known to be there; it is due when its time has come."""
        heapq.heappush(self._later[state], order.turn(text))

    def next_due(self, states: Iterable[State] = (State.PENDING, State.FAILED)) -> datetime | None:
        """When the next of those that are not due yet will be."""
        firsts = [self._later[state][0] for state in states if self._later[state]]
        return jobs.parse_due(min(firsts)[:23]) if firsts else None

    def later(self, state: State) -> int:
        """How many of a state were not due when they were last listed."""
        return len(self._later[state])

    def has_due(self, now: datetime) -> bool:
        """Whether any listed job may run now, or is to be filed again as its edited content asks."""
        self._read_edited(now)
        self._promote(now)
        return bool(self._misnamed) or any(self._due.values())

    def _read_edited(self, now: datetime) -> None:
        """Read the files that may have been edited: those that ask for another name are claimed first."""
        for place in self.edits.take():
            try:
                reading = jobfile.read(f"{self._root.folder(place.state)}/{place.text}")
            except (BadJob, OSError):
                continue  # it has moved, or cannot be read now: whoever claims it finds out
            if true_name(Claim.of(self._root, split(place.text), reading, place.state), now) is not None:
                self._misnamed.append(place)

    def take(self, owner: str, now: datetime) -> tuple[Name, State] | None:
        """Claim the most urgent job that may run, by rename; None when none is left.

        A job whose edited content asks for another name comes first, to be given that name.
        """
        self._read_edited(now)
        self._promote(now)
        lost, raced, crowded = False, False, self._is_crowded
        self._is_crowded = False
        processing = self._root.folder(State.PROCESSING)
        while (place := self._next(raced=raced)) is not None:
            state, text = place
            source = f"{self._root.folder(state)}/{text}"
            # A look costs a tenth of a rename that is lost; on a share both cost a round trip.
            looked = crowded and not self._root.is_shared
            if looked and not files.exists(source):
                self._is_crowded = True
                continue
            name = split(text)
            if self._is_held(name, source):
                held = timedelta(seconds=self._held[name.id].until - times.clock.monotonic())
                heapq.heappush(self._later[state], stamp(now + held) + text)
                continue
            mine = name.owned(owner)
            target = f"{processing}/{mine}"
            # Race: a name that was listed and heard of stands here twice. While its claim lasts, the
            # rename would seem to have been won again: what tells so is our own name for it.
            if text in self._taken and files.exists(target):
                continue
            try:
                if files.move(source, target):
                    self._take_note(text)
                    return mine, state
            except OSError as error:
                if error.errno not in {errno.EPERM, errno.ENAMETOOLONG}:
                    raise
                self._pass_over(name, state, owner, error)
                continue
            if not lost and not files.exists(processing):  # not to another: there is nowhere to claim it into
                raise SpoolAway(processing)
            lost = crowded = self._is_crowded = True
            raced = looked or self._root.is_shared
            self._gone[text] = times.clock.monotonic()
        return None

    def _next(self, *, raced: bool) -> Place | None:
        if self._misnamed:
            return self._misnamed.pop()
        state = self._front()
        if state is None:
            return None
        return Place(state, self._pick(self._due[state]) if raced else heapq.heappop(self._due[state]))

    def _pass_over(self, name: Name, state: State, owner: str, error: OSError) -> None:
        """Put a job aside whose claim's name would be too long; pass over one that cannot be moved.

        Raises `OSError` where the directory is to blame, and so all its jobs meet it.
        """
        if error.errno == errno.ENAMETOOLONG:
            bury_unclaimed(self._root, name, state, owner)
            return
        folder, text = self._root.folder(state), str(name)
        files.probe(f"{folder}/.{owner}.probe")
        if text not in self._refused:
            log.warning("job %s cannot be claimed: %s (%s/%s)", name.id, error.strerror, folder, text)
        self._refused[text] = times.clock.monotonic() + REFUSED

    def _take_note(self, text: str) -> None:
        self._taken[text] = None
        if len(self._taken) > MOST_TAKEN:
            del self._taken[next(iter(self._taken))]

    def hold(self, name: Name, written: float | None) -> None:
        """Leave a job alone for a while, or until its file is heard of, as somebody is writing to it."""
        now = times.clock.monotonic()
        pause = SETTLE_BLIND
        if written is None:
            pause = HOLD if name.id in self._held else CLOSING
        hold = self._held.get(name.id) or Hold(now, now)
        if not hold.is_told and now - hold.since >= LONG_HELD:
            log.warning(
                "job %s: it does not run yet, as a program has been writing to its file for %.0f s",
                name.id,
                now - hold.since,
            )
            hold = hold._replace(is_told=True)
        self._held[name.id] = hold._replace(until=now + pause, written=written)

    def postpone(self, name: Name, seconds: float) -> None:
        """Leave a job alone for this long, or until its file is heard of."""
        now = times.clock.monotonic()
        self._held[name.id] = Hold(now + seconds, now)

    def let_go(self, name: Name) -> None:
        """Forget that a job was left alone: its file is whole."""
        self._held.pop(name.id, None)

    def settled(self, name: Name) -> float | None:
        """The last change of a file that has stood still since, if it was left alone for that."""
        hold = self._held.get(name.id)
        return hold.written if hold else None

    def _is_held(self, name: Name, path: str) -> bool:
        """Whether a job is to be left alone still: its file is asked where it lies, which wakes nobody."""
        hold = self._held.get(name.id)
        if hold is None:
            return False
        if hold.until > times.clock.monotonic():
            return True
        if hold.written is None and self._root.being_written(path):
            self.hold(name, None)
            return True
        return False

    def _promote(self, now: datetime) -> None:
        if not any(self._later.values()):
            return
        moment = stamp(now)
        for state, later in self._later.items():
            while later and later[0] <= moment:
                heapq.heappush(self._due[state], order.name_of_turn(heapq.heappop(later)))

    def _front(self) -> State | None:
        pending, failed = self._due[State.PENDING], self._due[State.FAILED]
        if pending and (not failed or pending[0] <= failed[0]):
            return State.PENDING
        return State.FAILED if failed else None

    @staticmethod
    def _pick(due: list[str]) -> str:
        """Any of the first few equals, so that workers do not race for the same name again."""
        near = [heapq.heappop(due)]
        for _ in range(random.randrange(SPREAD)):  # noqa: S311 - spreading, not secrecy
            if not due or due[0][:2] != near[0][:2]:
                break
            near.append(heapq.heappop(due))
        chosen = near.pop()
        for text in near:
            heapq.heappush(due, text)
        return chosen

    def doubt(self, now: datetime) -> None:
        """Check some names that say "later" against their content, which wins.

        A job without `run_at` is never late: its name may come from a clock that was ahead. One that was
        edited while no worker looked is found here too. Each is read once in ten minutes.
        """
        self._doubt(State.PENDING, now, lambda due, job: job.run_at is None or due - job.run_at > LEEWAY)
        self._doubt(State.FAILED, now, lambda _, job: _has_failed_after(now, job))

    def _doubt(self, state: State, now: datetime, is_wrong: Callable[[datetime, Job], bool]) -> None:
        later = self._later[state]
        often = 60 if len(later) <= DOUBTS else 600
        if times.clock.monotonic() - self._trusted_at > often:
            self._trusted.clear()
            self._overdue.clear()
            self._trusted_at = times.clock.monotonic()
        checked = 0
        for entry in later.copy() if len(later) <= DOUBTS else later:
            text = order.name_of_turn(entry)
            if text in self._trusted:
                continue
            checked += 1
            if checked > DOUBTS:
                break
            self._trusted.add(text)
            try:
                reading = jobfile.read(f"{self._root.folder(state)}/{text}")
            except (BadJob, OSError):
                self._trusted.discard(text)  # it may be in the middle of being saved
                continue
            name = split(text)
            if is_wrong(name.due_at, reading.job):
                self._overdue.add(text)  # a listing that comes before the claim says "later" again
                heapq.heappush(self._due[state], text)
            elif true_name(Claim.of(self._root, name, reading, state), now) is not None:
                self._misnamed.append(Place(state, text))


def _has_failed_after(now: datetime, job: Job) -> bool:
    """Whether a job's last run ended later than it is: the clock was set back since, and the wait is void."""
    at = job.history[-1].get("at") if job.history else None
    try:
        return at is not None and parse_moment(at) > now + LEEWAY
    except ValueError:
        return False


class Terms(NamedTuple):
    """On which a claimed file is taken for a job: who may have filed it, anybody where `trust` is None.

    `settled` is the time of a last change after which the file was seen to stand still.
    """

    trust: files.Trust | None = None
    settled: float | None = None


def confirm(
    root: Root, name: Name, source: State, now: datetime, terms: Terms | None = None
) -> Claim | Name | None:
    """Read what was claimed; None when it is no job, and has been put aside, or when it is gone.

    A name when it was filed again under that, as its content asks. Raises `BeingWritten` and
    `IdContested`, and the `OSError` of a disk that cannot be read now: the claim lasts then.
    """
    path = f"{root.folder(State.PROCESSING)}/{name}"
    try:
        reading = ready(root, path, _read_whole(root, name, now, terms or Terms()))
    except (BadJob, files.NotAFile, PermissionError) as error:
        given_away = isinstance(error, files.Untrusted) and root.gives_away
        bury(root, name, name.free(), why(error), _GIVEN_AWAY if given_away else None)
        return None
    except (FileNotFoundError, ClaimLost):
        return None
    claim = Claim.of(root, name, reading, source)
    right = true_name(claim, now)
    if right is None:
        return claim
    if right.id != name.id and not ids.take(root, right.id):
        raise IdContested(right)
    return file_again(root, name, source, right)


def file_again(root: Root, name: Name, source: State, right: Name) -> Name:
    """Undo a claim, under the name that the content asks for; returns the name that it got."""
    right = free_name(root, source, right)
    files.move(f"{root.folder(State.PROCESSING)}/{name}", f"{root.folder(source)}/{right}")
    return right


def _read_whole(root: Root, name: Name, now: datetime, terms: Terms) -> Record:
    """The record of a file that nobody is in the middle of saving: half of a command must never run.

    Raises `BeingWritten` for one that may not be whole, else as `record.read` does.
    """
    path = f"{root.folder(State.PROCESSING)}/{name}"
    if not root.is_shared:
        data = files.read_settled(path, files.MAX_WITH_HISTORY, terms.trust)
        if data is None:
            raise BeingWritten(name.id, None)
        return jobfile.parse(data)
    data, written = files.read_dated(path, files.MAX_WITH_HISTORY, terms.trust)
    is_open = terms.settled != written and may_be_open(written, now.timestamp())
    try:
        reading = jobfile.parse(data)
    except BadJob:
        if is_open:
            raise BeingWritten(name.id, written) from None
        raise
    if is_open and written - _written_by_us(reading.job) > OURS:
        raise BeingWritten(name.id, written)
    return reading


def may_be_open(written: float, now: float) -> bool:
    """Whether a file on a share changed so shortly ago that its writer may not be done."""
    return now - written < OURS


def _written_by_us(job: Job) -> float:
    """When the queue last wrote to a job's file, as far as the file tells."""
    moments = [job.created_at] if job.created_at else []
    at = job.history[-1].get("at") if job.history else None
    with contextlib.suppress(ValueError):  # a person may write anything there
        moments += [parse_moment(at)] if isinstance(at, str) else []
    return max((moment.timestamp() for moment in moments), default=float("-inf"))


def lost(root: Root, path: str) -> ClaimLost:
    """The error for a claim whose file is gone. Raises `SpoolAway` where the whole spool is."""
    root.require_reachable()
    return ClaimLost(id_in(path.rpartition("/")[2]))


def read(root: Root, path: str, trust: files.Trust | None = None) -> Record:
    """Read a claim's file. Raises as `jobfile.read` does, `ClaimLost` and `SpoolAway`."""
    try:
        return jobfile.read(path, trust)
    except FileNotFoundError as error:
        raise lost(root, path) from error


def read_ready(root: Root, path: str) -> Record:
    """Read a claim's file so that events can be added to it. Raises as `read` does."""
    return ready(root, path, read(root, path))


def ready(root: Root, path: str, reading: Record) -> Record:
    """The record of a claim whose layout takes further events, written again where it did not.

    Raises `BadJob`, and changes nothing, where that would not read the same.
    """
    if reading.columns is not None:
        return reading
    text = to_yaml(reading.job).encode()
    anew = jobfile.parse(text)
    write_anew(root, path, text)
    return anew


def note(root: Root, path: str, reading: Record, added: tuple[Event, ...], *, sync: bool = False) -> Record:
    """Add events to a claim's file, and return the record as it is then.

    Raises `ClaimLost` or `SpoolAway`. A file that may be read but not written to, such as a copy of
    a read-only one, is replaced by a copy that may be written to.
    """
    try:
        try:
            return jobfile.append(path, reading, added, sync=sync)
        except PermissionError:
            write_anew(root, path, files.read(path, files.MAX_WITH_HISTORY))
            return jobfile.append(path, reading, added, sync=sync)
    except FileNotFoundError as error:
        raise lost(root, path) from error


def put_back(root: Root, name: Name, source: State) -> Name | None:
    """Undo a claim that cannot be read now, as far as the disk lets us; recovery does what it does not.

    Returns the job's new name, None where it is not put back.
    """
    with contextlib.suppress(OSError):
        path = f"{root.folder(State.PROCESSING)}/{name}"
        # Two files hold the job where it was not written anew to the end: neither must leave here.
        if any(files.exists(half) for half in _halves(path)):
            return None
        back = free_name(root, source, name.later())
        if files.move(path, f"{root.folder(source)}/{back}"):
            return back
    return None


def true_name(claim: Claim, now: datetime) -> Name | None:
    """The name that the content asks for, None where the file has it already."""
    name, job = claim.name.free(), claim.job
    right = name
    if job.id is not None and job.id != name.id:
        right = right._replace(id=job.id)
    rank = name.rank if job.priority is None or name.rank == FIFO_RANK else rank_of(job.priority, fifo=False)
    if rank != name.rank:
        right = right._replace(rank=rank)
    if (due := _asked_due(claim, now)) is not None:
        right = right._replace(due=stamp(due))
    if right == name:
        return None
    # No name comes back to a directory it has left, even if the old priority does.
    return right if right.due != name.due else right._replace(due=name.later().due)


def _asked_due(claim: Claim, now: datetime) -> datetime | None:
    """The time for which a content asks that was written since the name was made; None where that stands."""
    job, due = claim.job, claim.name.due_at
    is_new = not job.history or job.history[-1].get("event") == RETRIED
    if job.run_at is None:
        # Nothing says that it is to wait: the line was taken out, or the clock that named it was ahead.
        is_late = claim.source is State.PENDING and is_new
        return now if is_late and due > now + timedelta(seconds=presence.TOLERANCE) else None
    if not is_new and job.run_at <= _last_moment(job):
        return None  # the last run had it; the name tells of the next try
    is_later = due - job.run_at > LEEWAY and due > now
    return job.run_at if due < job.run_at or is_later else None


def _last_moment(job: Job) -> datetime:
    """When the last event of a job was; never where it does not say."""
    try:
        return parse_moment(str(job.history[-1].get("at")))
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


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


def why(error: BadJob | OSError) -> str:
    """What is wrong with a file, in one line."""
    if isinstance(error, BadJob):
        return str(error)
    if isinstance(error, PermissionError):
        return "No permission to read it."
    if error.errno == errno.EFBIG:
        return "It would grow larger than its worker may make a file: see `ulimit -f`."
    text = error.strerror or str(error)
    return f"{text[0].upper()}{text[1:]}."


def bury(root: Root, name: Name, target: Name, reason: str, remedy: str | None = None) -> str:
    """Move a claim that cannot be a job to dead/, bytes untouched, with the reason beside it.

    `remedy` is what brings it back, where that is not told by what kind of file it is. Returns its
    path there. Where the claim is lost meanwhile, nothing is left of this.
    """
    dead = root.folder(State.DEAD)
    target = free_name(root, State.DEAD, target)
    remedy = remedy or _remedy(f"{root.folder(State.PROCESSING)}/{name}")
    unchanged = "unchanged" if remedy == RAN else "unchanged, and no worker runs it"
    text = f"{reason}\n\nThe file beside this one is {unchanged}. {remedy.format(target)}\n"
    beside = f"{dead}/{target}{jobs.REASON}"
    files.remove(beside)  # of a file that was here before under this name, and was moved on by hand
    files.create(beside, text.encode("utf-8", "replace"), root.file_mode)
    is_there = False
    try:
        is_there = files.move(f"{root.folder(State.PROCESSING)}/{name}", f"{dead}/{target}")
    finally:
        if not is_there:
            with contextlib.suppress(OSError):
                files.remove(beside)
    if is_there:
        log.warning("job %s: not run, and put aside in dead/: %s", target.id, reason)
    return f"{dead}/{target}"


def bury_unclaimed(root: Root, name: Name, source: State, owner: str) -> None:
    """Put a job aside that cannot be claimed, as the name of the claim is too long for the file system.

    Crash: it is claimed under a short id; recovery files it again under that, as its name was.
    """
    claim = name._replace(id=make_id()).owned(owner)
    if not files.move(f"{root.folder(source)}/{name}", f"{root.folder(State.PROCESSING)}/{claim}"):
        return
    reason = str(IdTooLong(name.id, SHORT_ID))
    try:
        try:
            bury(root, claim, name, reason, SHORTER_ID)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            bury(
                root,
                claim,
                name._replace(id=f"{name.id[: SHORT_ID - 5]}-{make_id()[:4]}"),
                reason,
                SHORTER_ID,
            )
    except OSError:
        with contextlib.suppress(OSError):
            files.move(f"{root.folder(State.PROCESSING)}/{claim}", f"{root.folder(source)}/{name}")
        raise
    log.error("job %s: put aside, see its reason in dead/", name.id)


def _remedy(path: str) -> str:
    """What makes a job of the file at `path`, as far as its kind tells."""
    try:
        facts: os.stat_result = files.kernel.lstat(path)
    except FileNotFoundError:
        return _MEND
    if stat.S_ISLNK(facts.st_mode):
        return _FOLLOW
    if not stat.S_ISREG(facts.st_mode):
        return _REPLACE
    return _COPY if facts.st_nlink > 1 else _MEND


def free_name(root: Root, state: State, name: Name) -> Name:
    """The name, moved on by microseconds until nothing in that directory bears it."""
    while files.exists(f"{root.folder(state)}/{name}"):
        name = name.later()
    return name


def write_anew(root: Root, path: str, text: bytes) -> None:
    """Put a text in the place of a claim's file.

    Crash: what is left is the new text under `.NAME.new`, the old one as `NAME` or `.NAME.old`.
    Recovery puts the old one back and drops the new one. Two files that hold one job must not come
    to lie in two directories, so none of these steps may be undone by a power cut while one before
    or after it is not: that would make two jobs of them. Raises `ClaimLost` or `SpoolAway`; an error
    before the old text has moved leaves the file as it was.
    """
    folder = path.rpartition("/")[0]
    new, old = _halves(path)
    try:
        files.create_like(new, text, path)
    except FileNotFoundError as error:
        raise lost(root, path) from error
    is_there = False
    try:
        files.sync_folder(folder)
        is_there = files.move(path, old)
    finally:
        if not is_there:
            with contextlib.suppress(OSError):
                files.remove(new)
    if not is_there:
        raise lost(root, path)
    files.move(new, path)
    files.sync_folder(folder)
    files.remove(old)
    files.sync_folder(folder)


def _halves(path: str) -> tuple[str, str]:
    """Where the new and the old text of a claim's file are while it is written anew."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.new", f"{folder}/.{name}.old"


def leftovers(root: Root) -> Iterable[tuple[str, str]]:
    """Dot files that a rewrite left in processing/: each with the claim's name it belongs to."""
    for text in root.texts_in(root.folder(State.PROCESSING)):
        if text.startswith(".") and text.endswith((".new", ".old")):
            yield text, text[1:-4]
