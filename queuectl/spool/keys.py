"""Unique keys: of the jobs that have a key, one holds it. The files in keys/KEY/ say which.

keys/KEY/7 is made exclusively      the key is the job's that its text names: `ID active`
its job has ended                   the key is free, as derived from where the job's file is
keys/KEY/8 is made exclusively      the next job has it

The highest number counts. Numbers are never renamed and never used again, so a stale listing does no harm:
the server refuses a number that is there. Those below the highest are deleted once they are a day old.

Crash: a number may be left empty, or name a job that was never filed. While it is younger than a filing
takes, nobody knows. After that it counts no more: of an empty one the number before it decides.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import BadJob, KeyTaken
from queuectl.job.history import attempts
from queuectl.job.layout import number
from queuectl.job.model import ACTIVE, UNSTARTED, State, is_id
from queuectl.spool import jobs
from queuectl.spool.ids import FILING_TAKES
from queuectl.spool.names import id_in, make_id
from queuectl.spool.root import KEYS, make_folder
from queuectl.system import files
from queuectl.times import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from queuectl.errors import QueueError
    from queuectl.job.model import Job
    from queuectl.spool.jobs import Found
    from queuectl.spool.root import Root

#: Seconds until a key is looked at again of which it cannot be said who holds it.
AGAIN = 0.05
#: Seconds for which a draft counts as one at work where the system cannot tell whether it is open.
_DRAFT_TAKES = 60.0
#: Seconds after which a number that counts no more is deleted. A slow host may still look for it before.
_KEPT = 86400.0
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")
#: Names of devices on Windows, where no file may be called so.
_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
_ENDED = (State.DEAD, State.DONE)
#: The directory of a key.
_FOLDER = re.compile(rf"{_PLAIN.pattern}|=[0-9a-f]{{40}}")
_NUMBER = re.compile(r"[1-9]\d*", re.ASCII)


class Wish(NamedTuple):
    """The key that is to be a job's, and for how long: `ACTIVE`, `UNSTARTED`, or a number of seconds."""

    key: str
    term: str
    job_id: str

    @classmethod
    def of(cls, job: Job, job_id: str) -> Wish:
        """The wish of a job that has a key."""
        term = job.unique_for or ACTIVE
        return cls(job.unique or "", term if isinstance(term, str) else number(term), job_id)

    @property
    def is_timed(self) -> bool:
        """Whether the key is taken for some seconds, whatever becomes of the job."""
        return self.term not in {ACTIVE, UNSTARTED}


class Holder(NamedTuple):
    """What a number says: the job that it gives the key to, for how long, and when (seconds since 1970).

    `job_id` is "" where the text is not written yet, or never will be.
    """

    path: str
    job_id: str
    term: str
    since: float

    @property
    def seconds(self) -> float | None:
        """For how long the key is taken; None where that depends on the job."""
        return None if self.term in {ACTIVE, UNSTARTED} else float(self.term)

    def is_of(self, job_id: str) -> bool:
        """Whether it names this job."""
        return self.job_id.lower() == job_id.lower()


class Standing(NamedTuple):
    """One key now: its directory, the numbers in it in order, and what the highest says that names a job.

    `unwritten` is the highest number if that names none: it is being written, or a crash left it so.
    """

    folder: str
    numbers: list[int]
    holder: Holder | None = None
    unwritten: Holder | None = None

    @property
    def next(self) -> int:
        """The number that gives the key to another job."""
        return self.numbers[-1] + 1 if self.numbers else 1


def folder_of(root: Root, key: str) -> str:
    """The directory of a key. A key that is not a plain file name everywhere is hashed."""
    if _PLAIN.fullmatch(key) and not _DEVICE.fullmatch(key):
        return f"{root.keys}/{key}"
    import hashlib

    return f"{root.keys}/={hashlib.sha256(key.encode()).hexdigest()[:40]}"


def standing(root: Root, folder: str) -> Standing:
    """How the key of this directory stands. Raises `BadJob` where the directory cannot be used."""
    try:
        texts = root.texts_in(folder)
        if not files.is_folder(folder):  # a link could lead anywhere
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    except FileNotFoundError:
        texts = []
    except (NotADirectoryError, PermissionError) as error:
        raise _unusable(error) from None
    numbers = sorted(int(text) for text in texts if _NUMBER.fullmatch(text))
    unwritten = None
    for one in reversed(numbers):
        try:
            found = read(f"{folder}/{one}")
        except FileNotFoundError:
            continue  # a share may list what is gone
        if found.job_id:
            return Standing(folder, numbers, found, unwritten)
        unwritten = unwritten or found
    return Standing(folder, numbers, None, unwritten)


def _unusable(error: OSError) -> BadJob:
    """The refusal of a job whose key nobody can have: that must hold up no other job."""
    return BadJob(
        f"No job can have its unique key: {error.filename}: {error.strerror}.",
        "Mend or move away what is there, then file or retry the job.",
    )


def read(path: str) -> Holder:
    """What a number says. Raises `FileNotFoundError`."""
    try:
        data, since = files.read_dated(path)
    except (files.NotAFile, PermissionError):  # it says nothing, as if a crash had left it empty
        return Holder(path, "", ACTIVE, 0.0)
    job_id, _, term = data.decode("utf-8", "replace").strip().partition(" ")
    is_term = term in {ACTIVE, UNSTARTED} or re.fullmatch(r"\d[\d.e+]*", term)
    return Holder(path, job_id, term, since) if is_term and is_id(job_id) else Holder(path, "", ACTIVE, since)


def all_of(root: Root) -> Iterator[Standing]:
    """How each key stands that a job ever had."""
    for text in _listed(root, root.keys):
        if _FOLDER.fullmatch(text) and files.is_folder(f"{root.keys}/{text}"):
            yield standing(root, f"{root.keys}/{text}")


def strangers(root: Root) -> Iterator[str]:
    """The paths of what lies in keys/ and is no part of a key, drafts of directories included."""
    for text in _listed(root, root.keys):
        path = f"{root.keys}/{text}"
        if not (_FOLDER.fullmatch(text) and files.is_folder(path)):
            yield path
        else:
            yield from (f"{path}/{inner}" for inner in _listed(root, path) if not _NUMBER.fullmatch(inner))


def _listed(root: Root, folder: str) -> list[str]:
    """The names in a directory that may not be there, in order."""
    try:
        return sorted(root.texts_in(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_named_by_any(now: Standing, job_id: str) -> bool:
    """Whether any number that is left names this job."""
    for one in reversed(now.numbers):
        with contextlib.suppress(FileNotFoundError):  # it is old, and was deleted just now
            if read(f"{now.folder}/{one}").is_of(job_id):
                return True
    return False


def forget(now: Standing) -> None:
    """Delete a key that nobody holds."""
    for one in now.numbers:
        files.remove(f"{now.folder}/{one}")
    with contextlib.suppress(OSError):  # somebody has taken the key meanwhile
        files.kernel.rmdir(now.folder)


def free_of(root: Root, key: str, job_id: str) -> None:
    """Delete a key if the job that had it last is this one, whose file has just been deleted."""
    with contextlib.suppress(BadJob):  # then nobody has it
        now = standing(root, folder_of(root, key))
        if now.holder is not None and now.holder.is_of(job_id):
            forget(now)


def take_all(root: Root, wishes: Sequence[Wish]) -> list[str | QueueError]:
    """Take a key for each of these jobs, as `Keys.take` does.

    Waits for those of which nobody can tell yet, for about as long as a filing takes.
    """
    keys = Keys(root)
    answers: dict[int, str | QueueError] = {}
    while left := [at for at in range(len(wishes)) if at not in answers]:
        tried = zip(left, keys.take([wishes[at] for at in left]), strict=True)
        answers |= {at: answer for at, answer in tried if not isinstance(answer, float)}
        if len(answers) < len(wishes):
            times.clock.sleep(AGAIN)
    return [answers[at] for at in range(len(wishes))]


class Verdict(Enum):
    """Whether the job that a number names has the key."""

    HELD = "it has"
    FREE = "it has not, or no more"
    OPEN = "nobody can tell yet"


class Facts(NamedTuple):
    """What a look shows of the job that a number names.

    `age` is for how many seconds the number has been there. `state` is None where the job is nowhere, and
    `is_being_filed` says whether it has a draft. `is_over` says that the seconds of its term are.
    """

    age: float
    state: State | None
    is_being_filed: bool = False
    has_run: bool = False
    is_over: bool = False


def verdict(term: str, facts: Facts) -> Verdict:
    """Whether a job that was given a key for this term has it."""
    if facts.is_over:
        return Verdict.FREE
    if facts.state is None:
        if facts.age < FILING_TAKES:
            return Verdict.OPEN
        return Verdict.HELD if facts.is_being_filed else Verdict.FREE
    has_ended = facts.state in _ENDED or (term == UNSTARTED and facts.has_run)
    return Verdict.FREE if has_ended and term in {ACTIVE, UNSTARTED} else Verdict.HELD


class Keys:
    """The keys as one process sees them: it remembers since when it has seen each doubtful number."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._since: dict[str, float] = {}

    def take(self, wishes: Sequence[Wish]) -> list[str | QueueError | float]:
        """Take a key for each of these jobs; the caller has the job, or its draft.

        For each the path of the number that was made. Else `KeyTaken`, another error where nobody can have
        the key, or the seconds after which to ask again, as nobody can tell yet who has it.
        """
        known: dict[str, Standing | BadJob] = {}
        for key in {wish.key for wish in wishes}:
            try:
                known[key] = standing(self._root, folder_of(self._root, key))
            except BadJob as error:
                known[key] = error
        holders = [now.holder for now in known.values() if isinstance(now, Standing)]
        verdicts = self._judge([one for one in holders if one is not None])
        answers: list[str | QueueError | float] = []
        for wish in wishes:
            now = known[wish.key]
            if isinstance(now, BadJob):
                answers.append(now)
                continue
            taken = AGAIN if self._is_open(now) else self._take(wish, now, verdicts)
            if isinstance(taken, Holder):  # for the next job with this key
                known[wish.key] = Standing(now.folder, [*now.numbers, now.next], taken)
                verdicts[taken.path] = Verdict.HELD
                answers.append(taken.path)
            else:
                answers.append(taken)
        return answers

    def _is_open(self, now: Standing) -> bool:
        """Whether the highest number may still come to name a job."""
        if now.unwritten is None:
            return False
        if self._age(now.unwritten, times.clock.now().timestamp()) < FILING_TAKES:
            return True
        del self._since[now.unwritten.path]
        return False

    def _take(
        self, wish: Wish, now: Standing, verdicts: Mapping[str, Verdict]
    ) -> Holder | QueueError | float:
        if (holder := now.holder) is not None and not holder.is_of(wish.job_id):
            if verdicts[holder.path] is Verdict.OPEN:
                return AGAIN
            if verdicts[holder.path] is Verdict.HELD:
                return KeyTaken(wish.key, holder.job_id, _end_of(holder))
        mine = Holder(f"{now.folder}/{now.next}", wish.job_id, wish.term, times.clock.now().timestamp())
        try:
            return mine if _make(self._root, now, mine) else AGAIN  # a listing may be old
        except BadJob as error:
            return error

    def _judge(self, holders: Sequence[Holder]) -> dict[str, Verdict]:
        """Which of these have their keys, by path; one look at the directories serves all."""
        if not holders:
            return {}
        root, now = self._root, times.clock.now().timestamp()
        ages = {one.path: self._age(one, now) for one in holders}
        wanted = {one.job_id.lower() for one in holders}
        waiting = root.texts_in(root.folder(State.PENDING))
        drafts = {id_in(text).lower(): text for text in waiting if text[:1] == "."}
        # Most holders ended long ago. done/ and dead/ are listed only where absence proves nothing.
        is_whole = any(one.seconds is not None or ages[one.path] < FILING_TAKES for one in holders)
        with root.medium.listing_anew():  # an old listing lacks a job that has the key
            found = _found(root, wanted, (*jobs.WAITING, *_ENDED) if is_whole else jobs.WAITING)
        verdicts = {}
        for one in holders:
            job_id = one.job_id.lower()
            facts = Facts(
                ages[one.path],
                found[job_id].state if job_id in found else None,
                is_being_filed=job_id in drafts and self._is_at_work(drafts[job_id], now),
                has_run=one.term == UNSTARTED and job_id in found and _has_run(found[job_id]),
                # A clock that was set back holds a key no longer than twice its time.
                is_over=one.seconds is not None and abs(now - one.since) >= one.seconds,
            )
            verdicts[one.path] = verdict(one.term, facts)
            if verdicts[one.path] is not Verdict.OPEN:
                del self._since[one.path]
        return verdicts

    def _age(self, one: Holder, now: float) -> float:
        """For how many seconds a number has been there. The clock that dates it may be another's, or set."""
        clock = times.clock.monotonic()
        known = clock - self._since.setdefault(one.path, clock)
        return known if self._root.medium.has_own_clock else max(known, now - one.since)

    def _is_at_work(self, draft: str, now: float) -> bool:
        """Whether the filing of a draft goes on. If it was only stopped, its job is put aside later."""
        path = f"{self._root.folder(State.PENDING)}/{draft}"
        is_open = self._root.medium.being_written(path)
        if is_open is not None:
            return is_open
        try:
            return abs(now - files.modified(path)) < _DRAFT_TAKES
        except FileNotFoundError:
            return False


def _has_run(found: Found) -> bool:
    """Whether a job has started since its filing or retry, as its history says."""
    reading = jobs.read(found)
    return reading is not None and reading.job is not None and bool(attempts(reading.job.history))


def _end_of(holder: Holder) -> str:
    """When a key is free again, in words."""
    if holder.seconds is not None:
        return f"{duration(holder.seconds)} after that job was filed"
    return "once that job has ended" if holder.term == ACTIVE else "once that job has started"


def _found(root: Root, wanted: AbstractSet[str], states: Sequence[State]) -> dict[str, Found]:
    """Where the jobs of these ids, in lower case, are. A place where one waits or runs is preferred.

    Race: one look may miss a job that moves. Two looks do not.
    """
    found: dict[str, Found] = {}
    for _ in range(2):
        for state, texts in jobs.look(root, states):
            for one in jobs.bearing(root, state, texts, wanted):
                if state not in _ENDED or one.id.lower() not in found:
                    found[one.id.lower()] = one
        if wanted <= found.keys():
            break
    return found


def _make(root: Root, now: Standing, mine: Holder) -> bool:
    """Make the next number of a key; False where another one was faster. Raises `BadJob`."""
    text = f"{mine.job_id} {mine.term}\n".encode()
    try:
        for _ in range(files.INSIST):
            try:
                files.create(mine.path, text, root.file_mode)
            except FileExistsError:
                return False
            except FileNotFoundError:
                _make_folders(root, now.folder)
            else:
                _forget_old(now)
                return True
    except PermissionError as error:
        raise _unusable(error) from error
    raise _unusable(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), now.folder))


def _forget_old(now: Standing) -> None:
    """Delete the numbers that count no more and are old; they come first."""
    for one in now.numbers:
        path = f"{now.folder}/{one}"
        try:
            if times.clock.now().timestamp() - files.modified(path) < _KEPT:
                return
        except FileNotFoundError:
            continue  # another one was faster
        files.remove(path)


def _make_folders(root: Root, folder: str) -> None:
    """Make keys/ and the directory of a key in it, each under a dot name first: it appears with its mode."""
    root.require_reachable()
    mode = files.kernel.stat(root.text).st_mode
    if KEYS not in root.texts_in(root.text):
        _make_folder(root, root.text, root.keys, mode)
        files.sync_folder(root.text)
    _make_folder(root, root.keys, folder, mode)


def _make_folder(root: Root, above: str, path: str, mode: int) -> None:
    name = path.rpartition("/")[2]
    draft = f"{above}/.{name}.{make_id()}"
    make_folder(draft, mode)
    try:
        files.kernel.rename(draft, path)
    except OSError:
        files.kernel.rmdir(draft)
        if name not in root.texts_in(above):
            raise
