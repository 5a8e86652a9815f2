"""The events of a job: their kinds, their checks, and what follows from them."""

from __future__ import annotations

from queuectl.job.model import State
from queuectl.times import parse_moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from typing import Any, TypeAlias


Event: TypeAlias = "Mapping[str, Any]"
# The kinds of events. Each of the second line ends a claim.
STARTED, RETRIED, READY, MOVING = "started", "retried", "ready", "moving"
COMPLETED, FAILED, CANCELLED, LOST, RETURNED = "completed", "failed", "cancelled", "lost", "returned"
#: The outcome of a job that was moved to another spool.
MOVED = "moved"
OUTCOMES = frozenset({COMPLETED, FAILED, CANCELLED, LOST, RETURNED, MOVED})


def _is_moment(value: Any) -> bool:
    try:
        parse_moment(value)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return value is None or (isinstance(value, int) and abs(value) < 10**9)


def _is_amount(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value < 10**12)


#: The checked fields of an event. An event may have others.
_EVENT: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "event": (_is_text, "text"),
    "attempt": (lambda value: isinstance(value, int) and 0 < value < 10**9, "a whole number"),
    "at": (_is_moment, "a moment"),
    "worker": (_is_text, "text"),
    "pid": (_is_whole, "a whole number"),
    "exit_code": (_is_whole, "a whole number"),
    "signal": (_is_text, "text"),
    "seconds": (_is_amount, "a number"),
    "cpu_seconds": (_is_amount, "a number"),
    "max_rss_kb": (_is_amount, "a number"),
    "error": (_is_text, "text"),
    "next_try": (_is_moment, "a moment"),
}
_ANYTHING = (lambda _: True, "")
_TEXT_KEYS = frozenset(key for key, (_, kind) in _EVENT.items() if kind in {"text", "a moment"})


def events(value: Any) -> tuple[Event, ...]:
    """Check the types of a history; raises `ValueError` with the expected type."""
    if not isinstance(value, list) or not all(isinstance(event, dict) for event in value):
        raise ValueError("a list of events")
    history = tuple({key: _untext(key, item) for key, item in event.items()} for event in value)
    for event in history:
        for key, item in event.items():
            is_right, kind = _EVENT.get(key, _ANYTHING)
            if not is_right(item):
                raise ValueError(f"a list of events in which {key} is {kind}")
    return history


def _untext(key: str, value: Any) -> Any:
    """Turn text into a number: a history that another YAML program has rewritten is read as text."""
    if key in _TEXT_KEYS or not isinstance(value, str):
        return value
    import json

    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def last_attempt(history: Sequence[Event]) -> int:
    """The number of the latest run, 0 before the first. A retry does not reset it."""
    return max([number for event in history if isinstance(number := event.get("attempt"), int)], default=0)


def last_start(history: Sequence[Event]) -> datetime | None:
    """When the command of the latest run was started, if the history says so."""
    at = next((event.get("at") for event in reversed(history) if event.get("event") == STARTED), None)
    try:
        return parse_moment(str(at))
    except ValueError:  # nothing says so, or a person wrote it
        return None


def since_retry(history: Sequence[Event]) -> Sequence[Event]:
    """The events after the last retry by a person."""
    for index in range(len(history) - 1, -1, -1):
        if history[index].get("event") == RETRIED:
            return history[index + 1 :]
    return history


def attempts(history: Sequence[Event]) -> int:
    """The number of runs since the last retry by a person."""
    return len({event["attempt"] for event in since_retry(history) if "attempt" in event})


def failures(history: Sequence[Event]) -> int:
    """The number of runs that failed or were lost since the last retry by a person."""
    return len(
        {event.get("attempt") for event in since_retry(history) if event.get("event") in {FAILED, LOST}}
    )


def destination(outcome: Event) -> State:
    """The state that a claim with this outcome moves to."""
    kind = outcome.get("event")
    if kind == COMPLETED:
        return State.DONE
    if kind == RETURNED:
        return State.PENDING
    if kind in {FAILED, LOST} and outcome.get("next_try"):
        return State.FAILED if kind == FAILED else State.PENDING
    return State.DEAD


def has_run_unseen(history: Sequence[Event]) -> bool:
    """Whether another than its worker recorded the end of a run: nobody may have ended its command."""
    began = {event.get("attempt"): event.get("worker") for event in history if event.get("event") == STARTED}
    return any(
        event.get("worker") != began.get(event.get("attempt"))
        for event in history
        if event.get("event") in OUTCOMES
    )


def outcome_by(history: Sequence[Event], owner: str) -> Event | None:
    """The last event, if it is an outcome that this owner recorded."""
    last = history[-1] if history else {}
    return last if last.get("event") in OUTCOMES and last.get("worker") == owner else None


def when_cancelled(history: Sequence[Event]) -> str:
    """How a job that waits is cancelled, in words: whether it ever ran, and how its last run ended."""
    if not last_attempt(history):
        return "cancelled before it ran"
    ending = {LOST: "after its run was lost", RETURNED: "after its run was given back"}
    return f"cancelled {ending.get(history[-1].get('event', ''), 'before it ran again')}"


def moved_to(history: Sequence[Event]) -> str | None:
    """The spool that the job was moved to and is in now; None where it was not moved."""
    last = history[-1] if history else {}
    return str(last.get("to")) if last.get("event") == MOVED else None


def moved_by_hand(history: Sequence[Event]) -> bool:
    """Whether a person moved a pending job there: its last outcome leads to another state."""
    last = history[-1] if history else {}
    return last.get("event") in OUTCOMES and destination(last) is not State.PENDING
