"""The jobs that wait, as one worker knows them: one listing, many tries, one rename that one worker wins.

pending/N, failed/N   ->  processing/N@OWNER     the claim; `claiming` reads it then
"""

from __future__ import annotations

import errno
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from queuectl import times
from queuectl.errors import BadJob, SpoolAway
from queuectl.job.model import State
from queuectl.spool import aside, jobfile, jobs, names, order
from queuectl.spool.claiming import LEEWAY, has_failed_after, true_name
from queuectl.spool.edits import FIRST, Edits, Place
from queuectl.spool.holds import Holds
from queuectl.spool.names import Kind, Name, classify, parse, split
from queuectl.system import files
from queuectl.times import stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from queuectl.job.model import Job
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")

#: A worker that has just lost a race takes any of this many equals instead of the next.
SPREAD = 32
#: A listing may be this many times as old as it took to make: listing costs 5 % at most.
PATIENCE = 20
#: It is never older than this, in seconds: a share that was away while it was listed is not slow.
OLDEST = 30.0
#: A job whose file alone cannot be moved (an immutable one) is passed over for this many seconds.
REFUSED = 5.0
#: How many of the names that were claimed last are remembered, lest one be claimed twice.
MOST_TAKEN = 10_000
#: How many scheduled names are checked against their content in one idle look.
DOUBTS = 200
#: A scheduled name is checked again after this many seconds: where there are few of them, or many.
OFTEN, SELDOM = 60, 600


class Listing(NamedTuple):
    """When the directories were last listed (monotonic), and how many seconds that took."""

    at: float
    cost: float


class Doubts:
    """Names that say "later" and may be wrong: a clock was ahead, or the file was edited unseen."""

    def __init__(self) -> None:
        self._trusted: set[str] = set()
        self._trusted_at = 0.0
        self.overdue: set[str] = set()

    def trust_again(self, text: str) -> None:
        """Check this name at the next look."""
        self._trusted.discard(text)

    def to_check(self, later: Iterable[str], count: int) -> list[str]:
        """Some of the `count` names that are not due; each comes once in `OFTEN` or `SELDOM` seconds."""
        now = times.clock.monotonic()
        if now - self._trusted_at > (OFTEN if count <= DOUBTS else SELDOM):
            self._trusted.clear()
            self.overdue.clear()
            self._trusted_at = now
        checked = []
        for text in later:
            if text not in self._trusted:
                checked.append(text)
                if len(checked) == DOUBTS:
                    break
        self._trusted.update(checked)
        return checked


class Slots(Protocol):
    """What is asked before a job of a group is claimed; `rules.groups` has the answers."""

    def is_open(self, group: str) -> bool:
        """Whether to try for a job of this group now, "" for jobs without one."""

    def take(self, claim: Name, now: datetime) -> bool:
        """Take the slots that the job needs; False where it cannot run now."""

    def give_back(self, claim: Name) -> None:
        """Give back the slots of a job that was not claimed after all."""


class Waiting:
    """The names that wait, as last listed, the most urgent first. One per worker."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._lineup = order.Lineup()
        self._doubts = Doubts()
        self._listing = Listing(float("-inf"), 0.0)
        self._is_crowded = False
        self._refused: dict[str, float] = {}
        self._taken: dict[str, None] = {}
        self._gone: dict[str, float] = {}
        self._misnamed: list[Place] = []
        self._slots: Slots | None = None
        self.edits = Edits(root)
        self.holds = Holds(root)
        self.strangers: list[str] = []
        self.parked: dict[State, list[str]] = {}

    @property
    def cost(self) -> float:
        """Seconds that the last listing took."""
        return self._listing.cost

    def is_stale(self, interval: float) -> bool:
        """Whether it is time to list again: after `interval`, or later where listing takes long."""
        return is_due(self._listing, interval, times.clock.monotonic())

    def relist(self, now: datetime) -> None:
        """List the directories: they are the truth, and events are hints."""
        begun = times.clock.monotonic()
        moment = stamp(now)
        self._forget_gone(begun)
        for state in jobs.WAITING:
            texts = self.root.texts_in(self.root.folder(state))
            texts, self.parked[state] = names.split_parked(state, texts)
            odd = names.odd(state, texts)
            if odd or self._gone or self._refused:
                refused = [text for text, until in self._refused.items() if until > begun]
                passed_over = {*odd, *self._gone, *refused}
                texts = [text for text in texts if text not in passed_over]
            due, later = order.split(texts, moment)
            if overdue := self._doubts.overdue:
                due += [text for text in later if text in overdue]
                later = [text for text in later if text not in overdue]
            self._lineup.fill(state, due, later)
            if state is State.PENDING:
                self.strangers = odd
        self.edits.compare(Place(state, text) for state, text in self._lineup.first(FIRST))
        ended = times.clock.monotonic()
        self._listing = Listing(ended, ended - begun)

    def _forget_gone(self, clock: float) -> None:
        """Pass over names that were lost for as long as a share may list them from its cache.

        A local disk tells the truth: there a name that is listed again was put back by hand.
        """
        if self._gone:
            kept = self.root.medium.lists_gone_for
            self._gone = {text: at for text, at in self._gone.items() if clock - at < kept}

    def hear(self, texts: Iterable[str]) -> None:
        """Take in names of pending/ from events; they may be gone, or known already."""
        for text in texts:
            self._doubts.trust_again(text)
            if self.holds and (name := parse(text)):
                self.holds.hear(name)
            if classify(State.PENDING, text) is not Kind.JOB:
                self.strangers.append(text)
            elif not text.endswith(names.PARKED):
                self.expect(State.PENDING, text)

    def expect(self, state: State, text: str) -> None:
        """Take in a name that is known to be there; it is due when its time has come."""
        self._lineup.add(state, text)

    def next_due(self, states: Iterable[State] = jobs.WAITING) -> datetime | None:
        """When the next of those that are not due yet will be."""
        return jobs.parse_due(self._lineup.next_due(states))

    def later(self, state: State) -> int:
        """How many of a state are not due yet."""
        return self._lineup.count_later(state)

    def later_groups(self, state: State) -> Iterator[str]:
        """The group of each job of a state that is not due yet, "" for those without one."""
        return map(names.group_in, self._lineup.later(state))

    def names(self) -> Iterator[str]:
        """The names of the last listing, and those that came since, without parked ones; in no order."""
        return self._lineup.names()

    def has_due(self, now: datetime) -> bool:
        """Whether any listed job may run now, or its edited content asks for another name."""
        self._read_edited(now)
        return self._lineup.promote(stamp(now)) or bool(self._misnamed)

    def _read_edited(self, now: datetime) -> None:
        """Read the files that may have been edited: those that ask for another name are claimed first."""
        for place in self.edits.take():
            try:
                reading = jobfile.read(f"{self.root.folder(place.state)}/{place.text}")
            except (BadJob, OSError):
                continue  # it has moved, or cannot be read now: the claim finds out
            if true_name(split(place.text), reading.job, place.state, now) is not None:
                self._misnamed.append(place)

    def take(self, owner: str, now: datetime) -> tuple[Name, State] | None:
        """Claim the most urgent job that may run, by rename; None when none is left.

        A job whose edited content asks for another name comes first, to be given that name.
        """
        self.has_due(now)
        lost, raced, crowded = False, False, self._is_crowded
        self._is_crowded = False
        processing = self.root.folder(State.PROCESSING)
        while (place := self._next(raced=raced)) is not None:
            state, text, is_misnamed = place
            source = f"{self.root.folder(state)}/{text}"
            # A look costs a tenth of a rename that is lost; on a share both cost a round trip.
            looked = crowded and not self.root.medium.is_remote
            if looked and not files.exists(source):
                self._is_crowded = True
                continue
            name = split(text)
            if (left := self.holds.left(name, source)) is not None:
                self._lineup.add(state, text, stamp(now + timedelta(seconds=left)))
                continue
            mine = name.owned(owner)
            target = f"{processing}/{mine}"
            # Race: a name that was both listed and heard stands here twice. While its claim lasts, a
            # second rename would seem to be won again. The claim's own name shows that it is not.
            if text in self._taken and files.exists(target):
                continue
            if not is_misnamed and not self._is_admitted(mine, state, now):
                continue
            try:
                if files.move(source, target):
                    self._remember(text)
                    return mine, state
            except OSError as error:
                if error.errno not in {errno.EPERM, errno.ENAMETOOLONG}:
                    raise
                self._pass_over(name, state, owner, error)
                self.not_claimed(mine)
                continue
            if not lost and not files.exists(processing):  # not to another: there is nowhere to claim it into
                raise SpoolAway(processing)
            lost = crowded = self._is_crowded = True
            raced = looked or self.root.medium.is_remote
            self.not_claimed(mine)
            self._gone[text] = times.clock.monotonic()
        return None

    def admit_by(self, slots: Slots) -> None:
        """Ask this before a job of a group is claimed."""
        self._slots = slots
        self._lineup.is_open = slots.is_open

    def due_groups(self) -> list[str]:
        """The groups that have due jobs, whether they are open or not."""
        return self._lineup.due_groups()

    def _is_admitted(self, claim: Name, state: State, now: datetime) -> bool:
        """Whether a job has the slots that it needs. If not, it keeps its turn, unless it holds up nobody."""
        if claim.group is None or self._slots is None or self._slots.take(claim, now):
            return True
        text = str(claim.free())
        if self._slots.is_open(claim.group):
            self._refused[text] = times.clock.monotonic() + REFUSED  # it wants more slots than there are
        else:
            self._lineup.add_due(state, text)
        return False

    def not_claimed(self, claim: Name) -> None:
        """Give back what a job has that was not claimed after all, or that cannot be run."""
        if claim.group is not None and self._slots is not None:
            self._slots.give_back(claim)

    def _next(self, *, raced: bool) -> tuple[State, str, bool] | None:
        """The next name to claim, and whether its content asks for another: such a job needs no slots yet."""
        if self._misnamed:
            return (*self._misnamed.pop(), True)
        first = self._lineup.pop(SPREAD if raced else 1)
        return None if first is None else (*first, False)

    def _pass_over(self, name: Name, state: State, owner: str, error: OSError) -> None:
        """Put a job aside whose claim's name would be too long; pass over one that cannot be moved.

        Raises `OSError` where the directory is the cause: then all its jobs meet the same.
        """
        if error.errno == errno.ENAMETOOLONG:
            aside.bury_unclaimed(self.root, name, state, owner)
            return
        folder, text = self.root.folder(state), str(name)
        files.probe(f"{folder}/.{owner}.probe")
        if text not in self._refused:
            log.warning("job %s cannot be claimed: %s (%s/%s)", name.id, error.strerror, folder, text)
        self._refused[text] = times.clock.monotonic() + REFUSED

    def _remember(self, text: str) -> None:
        self._taken[text] = None
        if len(self._taken) > MOST_TAKEN:
            del self._taken[next(iter(self._taken))]

    def doubt(self, now: datetime) -> None:
        """Check some names that say "later" against their content, which wins.

        A job without `run_at` is never late: its name may come from a clock that was ahead. A file that
        was edited while no worker looked is found here too.
        """
        self._doubt(State.PENDING, now, lambda due, job: job.run_at is None or due - job.run_at > LEEWAY)
        self._doubt(State.FAILED, now, lambda _, job: has_failed_after(now, job))

    def _doubt(self, state: State, now: datetime, is_wrong: Callable[[datetime, Job], bool]) -> None:
        for text in self._doubts.to_check(self._lineup.later(state), self.later(state)):
            try:
                reading = jobfile.read(f"{self.root.folder(state)}/{text}")
            except (BadJob, OSError):
                self._doubts.trust_again(text)  # it may be in the middle of being saved
                continue
            name = split(text)
            if is_wrong(name.due_at, reading.job):
                self._doubts.overdue.add(text)  # a listing before the claim would say "later" again
                self._lineup.add_due(state, text)
            elif true_name(name, reading.job, state, now) is not None:
                self._misnamed.append(Place(state, text))


def is_due(last: Listing, interval: float, now: float) -> bool:
    """Whether the next listing is due: after `interval`, or later if the last one took long (`PATIENCE`)."""
    return now - last.at >= max(interval, min(PATIENCE * last.cost, OLDEST))
