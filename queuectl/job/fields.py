"""From a tree of text to a job: the one place that checks fields."""

from __future__ import annotations

import re

from queuectl.errors import BadDocument, BadJob, Completed, nearest
from queuectl.job.history import events
from queuectl.job.model import (
    ACTIVE,
    ENDINGS,
    GROUP,
    MAX_COMMAND,
    MAX_LAUNCHER,
    MOST_AFTER,
    MOST_SLOTS,
    UNSTARTED,
    URGENT,
    Job,
    is_id,
)
from queuectl.times import DURATION, MOMENT, parse_duration, parse_moment

#: Bytes of a unique key.
MOST_KEY = 1000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Any


def _text(value: Any) -> str:
    # JSON numbers and truth values are `Bare`, a kind of str. A plain `true` in YAML is text.
    if type(value) is not str:
        raise ValueError("text")
    if "\0" in value:
        raise ValueError("text without NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("text in UTF-8") from None
    return value


def _command(value: Any) -> str | tuple[str, ...]:
    command: str | tuple[str, ...]
    if type(value) is str and value.strip():
        command = _text(value)
        size = len(value.encode())
    elif isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        if not all(type(word) is str for word in value):
            raise ValueError("words between quotes, numbers too")
        command = tuple(_text(word) for word in value)
        size = sum(len(word.encode()) for word in command)
        if not command[0]:
            raise ValueError("a list that begins with the name of a program")
    else:
        raise ValueError("text for the shell, or a list of words to run without one")
    if size > MAX_COMMAND:
        raise ValueError(f"at most {MAX_COMMAND:,} bytes: put more into a script")
    return command


def _id(value: Any) -> str:
    if not isinstance(value, str) or not is_id(value):
        raise ValueError("1 to 100 of letters, digits, '.', '_' and '-', a letter or digit first")
    return str(value)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"0|[1-9]\d{0,8}", value):
            raise ValueError(f"a whole number from {low} to {high}")
        if not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def _seconds(value: Any) -> float:
    try:
        return parse_duration(value)
    except (TypeError, ValueError, AttributeError):
        raise ValueError(f"a number of seconds, or {DURATION}") from None


def _base(value: Any) -> float:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", value):
        raise ValueError("a number from 0 to 9999")
    return float(value)


def _moment(value: Any) -> datetime:
    try:
        return parse_moment(value)
    except (TypeError, ValueError, AttributeError):
        raise ValueError(MOMENT) from None


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a mapping of names to text")
    for name, text in value.items():
        if not name or "=" in name or len(name) > 255:
            raise ValueError(f"names of variables, which {name!r} is not")
        _text(name)
        if text is not None and not isinstance(text, str):
            raise ValueError("a mapping of names to text")
    return {name: _text("" if text is None else str(text)) for name, text in value.items()}


def launcher(value: Any) -> str:
    """A command prefix that hands jobs to another engine, in shell syntax; or `none`."""
    import shlex

    text = _text(value).strip()
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words or len(text) > MAX_LAUNCHER:
        raise ValueError("the words of a command such as `srun --ntasks=1`, quoted as in a shell, or none")
    return text


def _after(value: Any) -> dict[str, str]:
    """One id, a list of ids, or a mapping of ids to how each must end."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        ids = [_id(job_id) for job_id in value]
        value = dict.fromkeys(ids, ENDINGS[0])
        if len(value) < len(ids):
            raise ValueError("each id once")
    if not isinstance(value, dict):
        raise ValueError("an id, a list of ids, or ids with ok, any or failed, as in {build: ok, lint: any}")
    if len(value) > MOST_AFTER:
        raise ValueError(f"at most {MOST_AFTER:,} ids: name a batch")
    if len({str(job_id).lower() for job_id in value}) < len(value):
        raise ValueError("each id once, whatever its case")
    for ending in value.values():
        if ending not in ENDINGS:
            raise ValueError(f"ids with ok, any or failed, which {_shown(ending)} is not")
    return {_id(job_id): str(ending) for job_id, ending in value.items()}


def _key(value: Any) -> str:
    text = _text(value)
    if not text.strip() or not text.isprintable() or len(text.encode()) > MOST_KEY:
        raise ValueError(f"text of at most {MOST_KEY:,} bytes on one line")
    return text


def _held_for(value: Any) -> str | float:
    if isinstance(value, str) and value in {ACTIVE, UNSTARTED}:
        return str(value)
    try:
        seconds = _seconds(value)
    except ValueError:
        seconds = 0.0
    if not seconds:
        raise ValueError(f"{ACTIVE}, {UNSTARTED}, or a time such as 24h")
    return seconds


def _group(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(GROUP, value, re.ASCII):
        raise ValueError("1 to 24 of a-z, 0-9, '_' and '-', a letter or digit first, and not 'held'")
    return str(value)


PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "id": _id,
    "command": _command,
    "priority": _whole(0, URGENT),
    "run_at": _moment,
    "max_retries": _whole(0, 1_000_000),
    "timeout": _seconds,
    "backoff_base": _base,
    "cwd": _text,
    "env": _environment,
    "launcher": launcher,
    "after": _after,
    "group": _group,
    "slots": _whole(1, MOST_SLOTS),
    "unique": _key,
    "unique_for": _held_for,
    "moved_from": _text,
    "created_at": _moment,
    "history": events,
}
ALIASES = {"timeout_sec": "timeout", "timeout_seconds": "timeout", "available_at": "run_at"}
#: Fields of `list --json` and of other queues that describe the past: accepted and ignored.
SHOWN_ONLY = frozenset(
    [
        "state",
        "attempts",
        "exit_code",
        "error",
        "worker",
        "path",
        "next_try",
        "duration_seconds",
        "updated_at",
        "next_retry_at",
        "error_message",
        "locked_by",
        "locked_at",
    ]
)
_COMPLETED = frozenset({"completed", "done"})


def no_mapping(tree: Any) -> BadJob:
    """The error for a tree that is no mapping of fields."""
    from queuectl.pitfalls import missing_space  # filing a job does not need it

    if isinstance(tree, str) and (close := missing_space(tree)):
        return BadDocument(close[0], remedy=close[1])
    if isinstance(tree, str):
        return BadJob("It is plain text, not a job.", "Write `command: ` before a shell command.")
    if isinstance(tree, list):
        return BadJob("It is a list; a job is a mapping of fields.", "File a list with `enqueue --file`.")
    return BadJob("It is not a mapping of fields.", "Write at least `command: …`.")


def from_fields(tree: Any) -> Job:
    """Build a job from a mapping of text, lists and mappings; raises `BadJob`.

    A null is the same as no field. An unknown field, a wrong type or a value out of bounds is refused. A
    record whose `state` is completed raises `Completed`.
    """
    if not isinstance(tree, dict):
        raise no_mapping(tree)
    if isinstance(state := tree.get("state"), str) and state.lower() in _COMPLETED:
        raise Completed
    values: dict[str, Any] = {}
    for key, raw in tree.items():
        name = ALIASES.get(key, str(key))
        if name not in PARSERS:
            if key in SHOWN_ONLY:
                continue
            raise BadJob(f"The field {key!r} is unknown.", nearest(key, [*PARSERS, *ALIASES]))
        if raw is None:
            continue
        if name in values:
            raise BadJob(f"{key!r} says again what {name!r} says.", "Keep one.")
        values[name] = field(key, raw)
    if "command" not in values:
        raise BadJob("It has no command.", "Write `command: …`.")
    _refuse_alone(values, "unique_for", "unique")
    _refuse_alone(values, "slots", "group")
    return Job(**values)


def field(key: str, raw: Any) -> Any:
    """The value of the known field `key`, which may be an alias; raises `BadJob`."""
    try:
        return PARSERS[ALIASES.get(key, key)](raw)
    except ValueError as error:
        raise BadJob(f"{key}: {_shown(raw)} cannot be taken.", f"It takes {error}.") from None


def _refuse_alone(values: Mapping[str, Any], field: str, needed: str) -> None:
    if field in values and needed not in values:
        raise BadJob(f"{field} says nothing without {needed}.", f"Write `{needed}: …` too.")


def _shown(value: Any) -> str:
    import json

    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "…"
