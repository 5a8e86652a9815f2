"""Finding one job, listing jobs in order, and counting them."""

from __future__ import annotations

import heapq
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import BadJob, BadUsage, JobMoved, NoSuchJob, QueueError
from queuectl.job.history import LOST, OUTCOMES, STARTED, Event, attempts, moved_by_hand
from queuectl.job.model import Job, State
from queuectl.spool import jobfile, order, reservations
from queuectl.spool.jobs import (
    ORDER,
    SCHEDULED,
    TRIES,
    WAITING,
    Found,
    look,
    parse_due,
    places,
    read,
)
from queuectl.spool.names import (
    DUE,
    ID_AT,
    REASON,
    Kind,
    classify,
    is_made_id,
    name_in,
    odd,
    parse,
    priority_of,
)
from queuectl.system import files
from queuectl.times import iso, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import Any

    from queuectl.settings import Settings
    from queuectl.spool.root import Root


#: The words that `list --state` takes, and the state of each.
WORDS = {
    "pending": State.PENDING,
    SCHEDULED: State.PENDING,
    "processing": State.PROCESSING,
    "completed": State.DONE,
    "done": State.DONE,
    "failed": State.FAILED,
    "dead": State.DEAD,
}
#: How many ids the error for an ambiguous beginning names.
_SOME = 5


def find(root: Root, word: str) -> Found:
    """The job with this id, or with the only id that begins so; read.

    Raises `NoSuchJob`, `BadUsage` for the beginning of several ids, and `JobMoved` for a job that moved
    before each try to read it.
    """
    for _ in range(TRIES):
        if (reading := read(locate(root, word))) is not None:
            return reading
    raise JobMoved(word)


def again(root: Root, found: Found) -> Found:
    """The same job as it is now, read where it was seen last if it is still there. Raises as `find` does."""
    # A share may answer from its cache for a name that is gone.
    reading = read(found) if root.medium.answers_truly else None
    return reading or find(root, found.id)


def locate(root: Root, word: str) -> Found:
    """The job that `find` finds, not read. Raises `NoSuchJob` or `BadUsage`."""
    return meant(find_each(root, [word])[word])


def meant(answer: Found | QueueError) -> Found:
    """The job in an answer of `find_each`. Raises the answer if it is an error."""
    if isinstance(answer, QueueError):
        raise answer
    return answer


def find_each(root: Root, words: Iterable[str]) -> dict[str, Found | QueueError]:
    """For each word the job that it names, not read, or the error that says why there is none."""
    words = list(dict.fromkeys(words))
    found, last = places(root, words)
    parts = [word for word in words if word not in found]
    near = _beginning(last, parts)
    return {word: found[word] if word in found else _meant(root, word, near[word]) for word in words}


def _beginning(looked: list[tuple[State, list[str]]], words: list[str]) -> dict[str, dict[str, State]]:
    """For each word the file names in a look whose ids begin with it."""
    near: dict[str, dict[str, State]] = {word: {} for word in words}
    for length in {len(word) for word in words}:
        end = ID_AT + length
        for state, texts in looked:
            for text in texts:
                if (word := text[ID_AT:end]) in near:
                    near[word][text] = state
    return near


def _meant(root: Root, word: str, near: dict[str, State]) -> Found | QueueError:
    """The job that a word means, of the file names whose ids begin with it."""
    # Race: the job with exactly this id may be missed as it moves. No other job may stand in for it.
    if is_made_id(word) or reservations.is_taken(root, word):
        return NoSuchJob(word)
    some: dict[str, Found] = {}
    for text in sorted(near, key=lambda text: text[ID_AT:]):
        name = name_in(near[text], text)
        if name is not None and name.id.startswith(word):
            some[name.id] = Found(near[text], name, f"{root.folder(near[text])}/{text}")
            if len(some) > _SOME:
                break
    if len(some) == 1:
        return next(iter(some.values()))
    if not some:
        return NoSuchJob(word)
    return BadUsage(
        f"{word!r} is the beginning of several ids: {', '.join(list(some)[:_SOME])}.",
        "Type more characters of the id.",
    )


def listing(root: Root, now: datetime, word: str | None = None, limit: int | None = None) -> Iterator[Found]:
    """Jobs, read: running ones, waiting ones in run order, then dead and completed ones, newest first.

    Each job comes once. A job that moves meanwhile comes at the end, if it still fits the word.
    """
    asked = _Asked(word, limit, now)
    shown: set[str] = set()
    moved: dict[str, None] = {}
    for found in chain(_all_in_order(root, asked), _wherever(root, moved)):
        if found.id in shown:
            continue
        if (reading := read(found)) is None:
            moved[found.id] = None
        elif asked.fits(reading):
            yield reading
            shown.add(found.id)
        if len(shown) == limit:
            return


class _Asked(NamedTuple):
    """Which jobs a listing is to show."""

    word: str | None
    limit: int | None
    now: datetime

    @property
    def states(self) -> tuple[State, ...]:
        if self.limit == 0:
            return ()
        return ORDER if self.word is None else (WORDS[self.word],)

    def fits(self, found: Found) -> bool:
        """Whether a job fits, in the state that it has by now."""
        has_label = self.word not in {"pending", SCHEDULED} or found.label(self.now) == self.word
        return found.state in self.states and has_label

    def in_order(self, folder: str, state: State, texts: list[str]) -> Iterable[str]:
        """The names in the directory of a state, in the order in which they are shown."""
        if state in WAITING:
            due, later = order.split(texts, stamp(self.now))
            due, later = [] if self.word == SCHEDULED else due, [] if self.word == "pending" else later
            return order.in_turn(due, later, self.limit)
        return sorted(texts) if state is State.PROCESSING else _newest_first(folder, state, texts, self.limit)


def _all_in_order(root: Root, asked: _Asked) -> Iterator[Found]:
    seen = _snapshot(root, asked.states) if asked.states else {}
    for state in asked.states:
        folder = root.folder(state)
        for text in asked.in_order(folder, state, seen[state]):
            if (name := name_in(state, text)) is not None:
                yield Found(state, name, f"{folder}/{text}")


def _snapshot(root: Root, states: Iterable[State]) -> dict[State, list[str]]:
    """The names in the directories of these states, from one look. A job that moves may appear twice."""
    passing: dict[str, None] = {}
    texts: dict[State, list[str]] = {}
    for state, names in look(root, [state for state in states if state is not State.PROCESSING]):
        if state is State.PROCESSING:
            passing.update(dict.fromkeys(names))
        else:
            texts[state] = names
    return texts | {State.PROCESSING: list(passing)}


def _newest_first(folder: str, state: State, texts: list[str], limit: int | None) -> list[str]:
    """The names of jobs, the last written first; `limit` of them and a few more."""
    passed_over = set(odd(state, texts))
    dated = []
    for text in texts:
        if text not in passed_over:
            try:
                dated.append((files.mark(f"{folder}/{text}").mtime_ns, text))
            except FileNotFoundError:  # it has moved, and is found at the end
                dated.append((0, text))
    newest = sorted(dated, reverse=True) if limit is None else heapq.nlargest(limit + 16, dated)
    return [text for _, text in newest]


def _wherever(root: Root, job_ids: Mapping[str, None]) -> Iterator[Found]:
    """The jobs with these ids, found by one look once the first is asked for."""
    yield from places(root, job_ids).found.values()


def exit_of(history: tuple[Event, ...]) -> Event:
    """The last outcome of a run, or an empty event."""
    return next((event for event in reversed(history) if event.get("event") in OUTCOMES), {})


def view(found: Found, settings: Settings, now: datetime) -> dict[str, Any]:
    """A job as the documented JSON object. The job's own fields can be filed again as they are."""
    job = found.job
    history = job.history if job else ()
    outcome = exit_of(history)
    started = next((event for event in reversed(history) if event.get("event") == STARTED), {})
    command = None if job is None else job.command
    error = found.unreadable or outcome.get("error")
    priority = job.priority if job and job.priority is not None else None
    shown: dict[str, Any] = {
        "id": found.id,
        "state": found.label(now),
        "command": list(command) if isinstance(command, tuple) else command,
        "priority": priority_of(found.name.rank, settings.priority) if priority is None else priority,
        "run_at": iso(found.name.due_at),
        "attempts": attempts(history),
        "max_retries": _or(job and job.max_retries, settings.max_retries),
        "timeout": _or(job and job.timeout, settings.job_timeout_seconds),
        "exit_code": outcome.get("exit_code"),
        "error": error,
        "worker": found.name.owner or outcome.get("worker") or started.get("worker"),
        "created_at": iso(job.created_at) if job and job.created_at else None,
        "path": found.path,
    }
    if job:
        extra = {
            "cwd": job.cwd,
            "env": dict(job.env) or None,
            "launcher": job.launcher,
            "backoff_base": job.backoff_base,
        }
        shown |= {key: value for key, value in extra.items() if value is not None}
    return shown | {"history": [dict(event) for event in history]}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def reason_for(found: Found) -> str:
    """Why a dead job is dead, in words."""
    try:
        text = files.read(found.path + REASON).decode("utf-8", "replace")
        return text.splitlines()[0] if text else ""
    except OSError:
        pass
    if found.job is None:
        return found.unreadable
    last = found.job.history[-1] if found.job.history else {}
    if last.get("event") not in OUTCOMES or not moved_by_hand(found.job.history):
        return "moved here by hand"
    return str(last.get("error") or last.get("event"))


def to_report(state: State, others: Iterable[str]) -> list[str]:
    """Those of the names that are no jobs that a person should see: drops to be taken in, and strangers."""
    return [text for text in others if classify(state, text) in {Kind.DROP, Kind.STRANGER}]


class Counts(NamedTuple):
    """How many jobs each state has, and other facts from the names alone."""

    pending: int
    scheduled: int
    processing: int
    completed: int
    failed: int
    dead: int
    first_due: str | None
    strangers: tuple[str, ...]

    @property
    def oldest_due(self) -> datetime | None:
        """When the job that has waited longest became due."""
        return parse_due(self.first_due[DUE]) if self.first_due else None

    def as_dict(self) -> dict[str, int]:
        """One entry for each state, as `status --json` prints it."""
        return {
            word: getattr(self, word)
            for word in ("pending", "scheduled", "processing", "completed", "failed", "dead")
        }


def listed(root: Root) -> dict[State, list[str]]:
    """The names in the directory of each state."""
    return {state: root.texts_in(root.folder(state)) for state in State}


def counts(root: Root, now: datetime, texts: dict[State, list[str]] | None = None) -> Counts:
    """Count the jobs from `texts`, or from one listing of each directory; no file is read."""
    moment = stamp(now)
    texts = texts or listed(root)
    others = {state: odd(state, texts[state]) for state in State}
    passed_over = set(others[State.PENDING])
    waiting = [text for text in texts[State.PENDING] if text not in passed_over]
    due, later = order.split(waiting, moment)
    tally = {state: len(texts[state]) - len(others[state]) for state in State}
    return Counts(
        pending=len(due),
        scheduled=len(later),
        processing=tally[State.PROCESSING],
        completed=tally[State.DONE],
        failed=tally[State.FAILED],
        dead=tally[State.DEAD],
        first_due=order.oldest(due),
        strangers=tuple(
            f"{state.value}/{text}" for state in State for text in to_report(state, others[state])
        ),
    )


def average_duration(root: Root, names: list[str], sample: int = 200) -> float | None:
    """Mean seconds of the last runs of completed jobs: of all, or of an even sample of `sample` jobs.

    `names` are those in done/.
    """
    seconds = []
    for text in sorted(names[:: max(1, len(names) // sample)]):
        if parse(text) is None:
            continue
        try:
            history = jobfile.read(f"{root.folder(State.DONE)}/{text}").job.history
        except (BadJob, OSError):
            continue
        run = exit_of(history).get("seconds")
        if isinstance(run, int | float):
            seconds.append(float(run))
    return sum(seconds) / len(seconds) if seconds else None


def runs_of(job: Job) -> list[dict[str, Any]]:
    """One entry for each run: its start joined with its outcome."""
    found: dict[int, dict[str, Any]] = {}
    for event in job.history:
        number = event.get("attempt")
        if not isinstance(number, int):
            continue
        run = found.setdefault(number, {"attempt": number})
        if event.get("event") == STARTED:
            run |= {"started_at": event.get("at"), "worker": event.get("worker"), "pid": event.get("pid")}
        else:
            own = {"event", "at", "worker"} if event.get("event") == LOST else {"event", "at"}
            run |= {key: value for key, value in event.items() if key not in own}
            run |= {"outcome": event.get("event"), "ended_at": event.get("at")}
    return list(found.values())
