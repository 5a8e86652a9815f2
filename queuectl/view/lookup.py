"""Jobs as onlookers see them: one found by its id, all in order, and each as the documented JSON object."""

from __future__ import annotations

import heapq
from itertools import chain
from typing import TYPE_CHECKING

from queuectl.errors import BadUsage, JobMoved, NoSuchJob, QueueError
from queuectl.job.history import LOST, OUTCOMES, STARTED, Event, attempts, moved_by_hand
from queuectl.job.model import Job, State
from queuectl.spool import ids, order
from queuectl.spool.jobs import BLOCKED, HELD, ORDER, SCHEDULED, TRIES, WAITING, Found, look, places, read
from queuectl.spool.names import ID_AT, REASON, is_made_id, name_in, odd, priority_of, split_parked
from queuectl.system import files
from queuectl.times import iso, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from queuectl.settings import Settings
    from queuectl.spool.root import Root

#: The words that `list --state` takes, and the states of each.
WORDS = {
    "pending": (State.PENDING,),
    SCHEDULED: (State.PENDING,),
    HELD: WAITING,
    BLOCKED: WAITING,
    "processing": (State.PROCESSING,),
    "completed": (State.DONE,),
    "done": (State.DONE,),
    "failed": (State.FAILED,),
    "dead": (State.DEAD,),
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
    return {word: found[word] if word in found else _meant(root, word, last) for word in words}


def _meant(root: Root, word: str, looked: list[tuple[State, list[str]]]) -> Found | QueueError:
    """The job that a beginning of an id means, of those that one look has found."""
    # Race: the job with exactly this id may be missed as it moves. No other job may stand in for it.
    if is_made_id(word) or ids.is_taken(root, word):
        return NoSuchJob(word)
    end = ID_AT + len(word)
    near = [(text, state) for state, texts in looked for text in texts if text[ID_AT:end] == word]
    some: dict[str, Found] = {}
    for text, state in sorted(near, key=lambda one: one[0][ID_AT:]):
        name = name_in(state, text)
        if name is not None and name.id.startswith(word):
            some[name.id] = Found(state, name, f"{root.folder(state)}/{text}")
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
    states = () if limit == 0 else ORDER if word is None else WORDS[word]
    shown: set[str] = set()
    moved: dict[str, None] = {}
    for found in chain(_in_order(root, states, now, word, limit), _wherever(root, moved)):
        if found.id in shown:
            continue
        if (reading := read(found)) is None:
            moved[found.id] = None
        elif reading.state in states and word in {None, "done", reading.label(now)}:
            yield reading
            shown.add(found.id)
        if len(shown) == limit:
            return


def _in_order(
    root: Root, states: Sequence[State], now: datetime, word: str | None, limit: int | None
) -> Iterator[Found]:
    """The jobs in these states in the order in which they are shown, not read."""
    seen: dict[State, list[str]] = {}
    for state, texts in look(root, [state for state in states if state is not State.PROCESSING]):
        # processing/ is listed several times, and a job that moves may be in several directories
        seen[state] = list(dict.fromkeys(seen[state] + texts)) if state in seen else texts
    for state in states:
        folder = root.folder(state)
        names: Iterable[str]
        if state in WAITING:
            plain, parked = split_parked(state, seen[state])
            due, later = ([], []) if word in {HELD, BLOCKED} else order.split(plain, stamp(now))
            names = order.in_turn([] if word == SCHEDULED else due, [] if word == "pending" else later, limit)
            names = chain(names, sorted(parked) if word in {None, HELD, BLOCKED} else ())
        elif state is State.PROCESSING:
            names = sorted(seen[state])
        else:
            names = _newest_first(folder, state, seen[state], limit)
        for text in names:
            if (name := name_in(state, text)) is not None:
                yield Found(state, name, f"{folder}/{text}")


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


def exit_of(job: Job | None) -> Event:
    """The last outcome of a run, or an empty event."""
    history = job.history if job else ()
    return next((event for event in reversed(history) if event.get("event") in OUTCOMES), {})


def view(found: Found, settings: Settings, now: datetime) -> dict[str, Any]:
    """A job as the documented JSON object. The job's own fields can be filed again as they are."""
    job = found.job or Job("")
    outcome = exit_of(job)
    started = next((event for event in reversed(job.history) if event.get("event") == STARTED), {})
    shown: dict[str, Any] = {
        "id": found.id,
        "state": found.label(now),
        "command": list(job.command) if isinstance(job.command, tuple) else job.command,
        "priority": _or(job.priority, priority_of(found.name.rank, settings.priority)),
        "run_at": iso(found.name.due_at),
        "attempts": attempts(job.history),
        "max_retries": _or(job.max_retries, settings.max_retries),
        "timeout": _or(job.timeout, settings.job_timeout_seconds),
        "exit_code": outcome.get("exit_code"),
        "error": found.unreadable or outcome.get("error"),
        "worker": found.name.owner or outcome.get("worker") or started.get("worker"),
        "created_at": job.created_at and iso(job.created_at),
        "path": found.path,
    }
    if found.job is None:
        shown["command"] = None
    extra = {
        "cwd": job.cwd,
        "env": dict(job.env) or None,
        "launcher": job.launcher,
        "backoff_base": job.backoff_base,
        "after": dict(job.after) or None,
        "group": job.group,
        "slots": job.slots,
        "unique": job.unique,
        "unique_for": job.unique_for,
    }
    shown |= {key: value for key, value in extra.items() if value is not None}
    return shown | {"history": [dict(event) for event in job.history]}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def reason_for(found: Found) -> str:
    """Why a dead job is dead, in words."""
    try:
        text = files.read(found.path + REASON).decode("utf-8", "replace")
        return text.splitlines()[0] if text else ""
    except OSError:  # most often there is none
        pass
    if found.job is None:
        return found.unreadable
    if not moved_by_hand(found.job.history):
        return "moved here by hand"
    last = found.job.history[-1]
    return str(last.get("error") or last.get("event"))


def runs_of(job: Job | None) -> list[dict[str, Any]]:
    """One entry for each run: its start joined with its outcome."""
    found: dict[int, dict[str, Any]] = {}
    for event in job.history if job else ():
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


def started_at(job: Job | None) -> str | None:
    """When the last run started, if that is known."""
    runs = runs_of(job)
    return runs[-1].get("started_at") if runs else None
