"""Groups: jobs that share slots, of which each job needs some to run. A slot is a token in `groups/NAME/`.

    groups/gpu/cuda0.STAMP          a free slot of the group gpu
    groups/gpu/cuda0.STAMP@OWNER    the slot of a job that OWNER runs, which finds `cuda0` in QUEUECTL_SLOT
    groups/gpu/3.gone               the slot 3 is no more: it goes once no job has it
    groups/gpu/paused               no job of the group is started

Order: take the slots, claim the job; at the end record the outcome, move the job, give the slots back. A
crash anywhere leaves a token with a dead owner.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, BadUsage
from queuectl.job.model import GROUP, State
from queuectl.spool import tokens
from queuectl.spool.names import make_id
from queuectl.spool.root import GROUPS, make_folder
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.errors import QueueError
    from queuectl.job.model import Job
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root
    from queuectl.spool.tokens import Token

log = logging.getLogger("queuectl")

#: A file of this name in the directory of a group holds all its jobs.
PAUSED = "paused"
#: What is added to the name of a slot that is no more.
GONE = ".gone"
#: A worker that lost a race for slots leaves the group alone for a random time between these, in seconds.
SHORTEST, LONGEST = 0.1, 1.0
#: Seconds between looks at a full group where a look costs no round trip.
SOON = 0.15
#: The slot of a group that nobody has set up.
ONE = "1"
#: A slot that is renamed each time is not written to after this many tries.
_TRIES = 20
#: What the system says of a directory that cannot be used, or not yet.
REFUSALS = (FileNotFoundError, NotADirectoryError, PermissionError)


def folder_of(root: Root, group: str) -> str:
    """The directory of a group."""
    return f"{root.text}/{GROUPS}/{group}"


class Slots:
    """The slots that one worker holds, by its claims, and the groups that it leaves alone for now.

    With `only` the worker takes jobs of this group alone.
    """

    def __init__(self, root: Root, owner: str, only: str | None = None) -> None:
        self._root = root
        self._owner = owner
        self.only = only
        self._rests = tokens.Rests()
        #: Until when (monotonic) no job of a group can be started here.
        self._closed: dict[str, float] = {}
        self._paused: set[str] = set()
        #: Groups whose directories are there.
        self._known: set[str] = set()
        self._held: dict[Name, list[Token]] = {}
        #: Groups in which an error may have left a token of this owner that no claim needs.
        self._unsure: set[str] = set()
        self._last = datetime.min.replace(tzinfo=UTC)

    def is_open(self, group: str) -> bool:
        """Whether to try for a job of this group now, "" for jobs without one. Asks nothing of the disk."""
        return self.takes(group) and times.clock.monotonic() >= self._closed.get(group, 0.0)

    def takes(self, group: str) -> bool:
        """Whether this worker takes jobs of a group at all."""
        return self.only is None or group == self.only

    def opens_in(self) -> float | None:
        """Seconds until the next closed group may have a free slot; None if no group is closed."""
        now = times.clock.monotonic()
        self._closed = {group: at for group, at in self._closed.items() if at > now}
        return min((at - now for at in self._closed.values()), default=None)

    def may_open(self, group: str) -> bool:
        """Whether the slots of a group will come back without a person."""
        return self.takes(group) and group not in self._paused

    def take(self, claim: Name, now: datetime) -> bool:
        """Take the slots that the job of a claim needs, before the claim is made.

        False where the group has none for it now, and is closed; or where the job wants more than the group
        has: then the group stays open, as that job holds up nobody.
        """
        group = claim.group or ""
        folder = folder_of(self._root, group)
        try:
            seen = self._look(group, now)
            (self._paused.add if seen.is_paused else self._paused.discard)(group)
            if not seen.is_paused and seen.size < claim.slots:
                return False
            rests = self._rests.left(folder, seen.free, now)
            free = [token for token, rest in rests.items() if not rest]
            if seen.is_paused or len(free) - seen.excess < claim.slots:
                self._close(group, LONGEST if seen.is_paused else self._until_next(rests.values()))
                return False
            self._unsure.add(group)
            # Two tokens of one name must not get the same stamp, taken or given back: no name comes back.
            self._last = max(now, self._last + timedelta(microseconds=2))
            taken = tokens.take(self._root, folder, free[: claim.slots], self._owner, self._last)
        except REFUSALS as error:
            self._refuse(group, error)
            return False
        self._unsure.discard(group)
        if not taken:
            self._close(group, random.uniform(SHORTEST, LONGEST))  # noqa: S311 - spreading, not secrecy
            return False
        self._held[claim] = taken
        return True

    def holds(self, claim: Name) -> bool:
        """Whether a claim has the slots that it needs."""
        return claim.group is None or claim in self._held

    def names(self, claim: Name) -> list[str]:
        """The names of the slots that a claim holds."""
        return [token.name for token in self._held.get(claim, ())]

    def give_back(self, claim: Name, started: datetime | None = None) -> None:
        """Give back the slots of a claim, which rest from when its command was started. Never raises.

        What the disk does not take now is done at the next look.
        """
        if not (taken := self._held.pop(claim, [])):
            return
        group = claim.group or ""
        self._unsure.add(group)
        try:
            for token in taken:
                tokens.release(folder_of(self._root, group), token, started)
        except OSError:
            return
        self._unsure.discard(group)
        self._closed.pop(group, None)

    def doubt(self) -> None:
        """Compare slots with claims at the next look: a share may report a rename that was not made."""
        self._unsure |= self._known

    def tidy(self, now: datetime) -> None:
        """Give back the slots of claims that are gone: the job was put aside, or the claim was lost."""
        processing = self._root.folder(State.PROCESSING)
        for claim in [one for one in self._held if not files.exists(f"{processing}/{one}")]:
            self.give_back(claim)
        for group in sorted(self._unsure):
            try:
                self._look(group, now)
            except REFUSALS as error:
                self._refuse(group, error)
            self._unsure.discard(group)

    def _look(self, group: str, now: datetime) -> Seen:
        """The slots of a group. Any that this worker has without a claim is given back, as if just used."""
        if group not in self._known:
            require(self._root, group)
            self._known.add(group)
        seen = look(self._root, group)
        needed = {token for some in self._held.values() for token in some}
        left = [token for token in seen.slots if token.owner == self._owner and token not in needed]
        for token in left:
            tokens.release(folder_of(self._root, group), token, now)
        return look(self._root, group) if left else seen

    def _until_next(self, rests: Iterable[float]) -> float:
        """For how long to leave a group alone that has too few free slots."""
        often = LONGEST if self._root.medium.is_remote else SOON
        return min([often, *(rest for rest in rests if rest)])

    def _close(self, group: str, seconds: float) -> None:
        self._closed[group] = times.clock.monotonic() + seconds

    def _refuse(self, group: str, error: OSError) -> None:
        """Start no job of a group whose directory cannot be used: that must hold up no other job."""
        self._known.discard(group)
        self._close(group, LONGEST)
        if isinstance(error, FileNotFoundError):
            return  # somebody has removed it: it is made again
        if group not in self._paused:
            log.warning("group %s: %s (%s)", group, error.strerror, folder_of(self._root, group))
        self._paused.add(group)


class Seen(NamedTuple):
    """A group as one listing shows it: its slots, one a name, and the names of those that are no more."""

    is_paused: bool
    slots: list[Token]
    gone: frozenset[str]

    @property
    def size(self) -> int:
        """How many slots it has."""
        return sum(token.name not in self.gone for token in self.slots)

    @property
    def free(self) -> list[Token]:
        """The slots that no job has; some may rest."""
        return [token for token in self.slots if token.owner is None and token.name not in self.gone]

    @property
    def taken(self) -> list[Token]:
        """The slots that a job has, also those that are to go."""
        return [token for token in self.slots if token.owner is not None]

    @property
    def excess(self) -> int:
        """How many slots that are to go have a job still: as many free ones must not be taken."""
        return sum(token.name in self.gone for token in self.taken)


def require(root: Root, group: str) -> str:
    """The directory of a group. Where there is none it is made, with one slot.

    Raises `NotADirectoryError` for anything else under its name: a link could lead anywhere.
    """
    folder = folder_of(root, group)
    # Not by its name: a share remembers for long that a name was not there.
    if GROUPS not in root.texts_in(root.text) or group not in root.texts_in(f"{root.text}/{GROUPS}"):
        make(root, group)
    if not files.is_folder(folder):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    return folder


def look(root: Root, group: str) -> Seen:
    """A group as it is now. Raises `FileNotFoundError` where it has no directory."""
    folder = folder_of(root, group)
    seen = seen_in(root.texts_in(folder))
    spent = [token for token in seen.slots if token.owner is None and token.name in seen.gone]
    for token in spent:
        # Crash: a mark that stays without its slot does no harm, and `check --repair` removes it.
        if files.remove(f"{folder}/{token}"):
            files.remove(f"{folder}/{token.name}{GONE}")
    return seen._replace(slots=[token for token in seen.slots if token not in spent])


def seen_in(texts: Iterable[str]) -> Seen:
    """A group whose directory holds these names."""
    texts = list(texts)
    slots = tokens.valid(tokens.among(texts))
    gone = frozenset(text.removesuffix(GONE) for text in texts if text.endswith(GONE))
    return Seen(PAUSED in texts, slots, gone)


def glance(root: Root, group: str) -> Seen:
    """A group as it is now, for onlookers: nothing is made or changed."""
    folder = folder_of(root, group)
    return seen_in(root.texts_in(folder)) if files.is_folder(folder) else seen_in([ONE])


def refusals(root: Root, lot: Iterable[Job]) -> dict[str, QueueError]:
    """For the ids of jobs that are to be filed, why they are refused: they want more slots than there are."""
    jobs = [job for job in lot if job.group is not None]
    sizes = {group: glance(root, group).size for group in {job.group or "" for job in jobs}}
    refused: dict[str, QueueError] = {}
    for job in jobs:
        group, wanted = job.group or "", job.slots or 1
        if wanted > sizes[group]:
            refused[job.id or ""] = BadJob(
                f"slots: it wants {wanted}, and the group {group} has {sizes[group]}.",
                f"Ask for fewer, or run `queuectl group set {group} --slots {wanted}` first.",
            )
    return refused


def set_up(root: Root, group: str, count: int | None, rest: float | None) -> None:
    """Give a group the slots 1 to `count`, which rest for so many seconds after each use.

    None leaves that as it is. Slots that have other names stay. One that is to go and has a job goes once the
    job has ended, and until then holds up as many other jobs.
    """
    folder = require(root, group)
    for _ in range(2 if count is not None else 0):  # a listing may miss a slot that is renamed just then
        there = {token.name for token in look(root, group).slots}
        numbered = {name for name in there if name.isdecimal()}
        wanted = set(map(str, range(1, (count or 0) + 1)))
        for name in wanted:
            files.remove(f"{folder}/{name}{GONE}")
        for name in wanted - there:
            _create(root, f"{folder}/{name}")
        for name in numbered - wanted:
            _create(root, f"{folder}/{name}{GONE}")
    seen = look(root, group)
    if rest is None:
        rest = max((tokens.rest_of(folder, token) for token in seen.slots), default=0.0)
    left = {token.name for token in seen.slots}
    for _ in range(_TRIES):
        for token in [token for token in look(root, group).slots if token.name in left]:
            if tokens.set_rest(folder, token, rest):
                left.discard(token.name)


def pause(root: Root, group: str) -> None:
    """Start no job of a group until `resume`."""
    _create(root, f"{require(root, group)}/{PAUSED}")


def resume(root: Root, group: str) -> bool:
    """Let jobs of a group be started again; False if it was not paused."""
    return files.remove(f"{folder_of(root, group)}/{PAUSED}")


def _create(root: Root, path: str) -> None:
    with contextlib.suppress(FileExistsError):  # another command has just made it
        files.create(path, mode=root.file_mode)


def make(root: Root, group: str) -> None:
    """Make the directory of a group with one slot, whole: under a dot name first. Another may be faster."""
    root.require_reachable()
    mode = files.kernel.stat(root.text).st_mode
    above = f"{root.text}/{GROUPS}"
    if GROUPS not in files.list_names(root.text):
        make_folder(above, mode)
    draft = f"{above}/.{group}.{make_id()}"
    make_folder(draft, mode)
    files.create(f"{draft}/{ONE}", mode=root.file_mode)
    try:
        files.kernel.rename(draft, f"{above}/{group}")
    except OSError:
        remove_draft(draft)
        if group not in root.texts_in(above):
            raise


def remove_draft(draft: str) -> None:
    """Remove a directory that did not become a group."""
    files.remove(f"{draft}/{ONE}")
    files.kernel.rmdir(draft)


def is_name(text: str) -> bool:
    """Whether a group may have this name."""
    return re.fullmatch(GROUP, text, re.ASCII) is not None


def checked(text: str) -> str:
    """The name of a group as a person gives it. Raises `BadUsage` for one that no group may have."""
    if not is_name(text):
        raise BadUsage(
            f"{text!r} is no name of a group.",
            "It takes 1 to 24 of a-z, 0-9, '_' and '-', a letter or digit first, and not 'held'.",
        )
    return text


def is_mark(text: str) -> bool:
    """Whether a file of this name in the directory of a group says something about the group."""
    return text == PAUSED or (
        text.endswith(GONE) and tokens.NAME.fullmatch(text.removesuffix(GONE)) is not None
    )
