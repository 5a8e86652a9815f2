"""A job, its states and transitions, and its history: values and decisions, no disk."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from queuectl.errors import BadJob, BadUsage, Completed, nearest
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import tzinfo
    from typing import Any, TypeAlias


class State(StrEnum):
    """Where a job is; the value is the name of the directory that holds it."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def label(self) -> str:
        """The word that people and programs are shown: `completed` for done."""
        return "completed" if self is State.DONE else self.value


#: Every move there is. Whatever is not here is refused.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.PROCESSING, State.DEAD}),
    State.FAILED: frozenset({State.PROCESSING, State.DEAD, State.PENDING}),
    State.PROCESSING: frozenset({State.DONE, State.FAILED, State.DEAD, State.PENDING}),
    State.DONE: frozenset({State.PENDING}),
    State.DEAD: frozenset({State.PENDING}),
}

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_COMMAND = 48 * 1024
MAX_LAUNCHER = 4096
#: The launcher that says: run it here.
HERE = "none"
URGENT = 10

Event: TypeAlias = "Mapping[str, Any]"

# The events of a history. The first two begin something, the others end a claim.
STARTED, RETRIED = "started", "retried"
COMPLETED, FAILED, CANCELLED, LOST, RETURNED = "completed", "failed", "cancelled", "lost", "returned"
OUTCOMES = frozenset({COMPLETED, FAILED, CANCELLED, LOST, RETURNED})


class Job(NamedTuple):
    """What to run and how. None means: not said, the settings decide when it runs."""

    command: str | tuple[str, ...]
    id: str | None = None
    priority: int | None = None
    run_at: datetime | None = None
    max_retries: int | None = None
    timeout: float | None = None
    backoff_base: float | None = None
    cwd: str | None = None
    env: Mapping[str, str] = MappingProxyType({})
    launcher: str | None = None
    created_at: datetime | None = None
    history: tuple[Event, ...] = ()

    @property
    def command_line(self) -> str:
        """The command as one would type it into a shell."""
        if isinstance(self.command, str):
            return self.command
        import shlex

        return shlex.join(self.command)


# ── time as text ──────────────────────────────────────────────────────────────────────────────

# Patterns that few commands need are compiled when they are used, and kept by `re`.
_PART = r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)"
_NUMBER = r"\d+(?:\.\d+)?"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LONGEST = 100 * 365 * 86400.0
#: What a duration and a moment may look like, in words.
DURATION = "a time such as 90s, 10m, 1h30m or 7d"
MOMENT = "a moment such as 2026-11-08T15:00:00Z"
_MOMENT = r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d[\d:.,]*)?|\d{8}T\d{4,6}(?:[.,]\d+)?)\s*(Z|[+-]\d\d(?::?\d\d)?)?"
#: Seconds or milliseconds since 1970, from 2001 to 2286; `date` writes an @ before them.
_EPOCH = r"@?(\d{10}(?:\.\d+)?|\d{13})"
#: A person who enters an earlier moment than this may have meant another year.
_LONG_AGO = timedelta(days=1)


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """`2026-11-22T04:27:00.123456Z`, always with six digits: text order is time order."""
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % _parts(moment)  # noqa: UP031 - takes half the time


def stamp(moment: datetime) -> str:
    """`20261122T042700.123456Z`, the form in file names."""
    return "%04d%02d%02dT%02d%02d%02d.%06dZ" % _parts(moment)  # noqa: UP031 - as above


def _parts(moment: datetime) -> tuple[int, ...]:
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond


def from_stamp(text: str) -> datetime:
    """The moment that a file name tells."""
    return datetime.fromisoformat(f"{text[:8]}T{text[9:]}")


def parse_duration(text: str) -> float:
    """Seconds, from `90`, `90s`, `1.5h`, `1h30m`, `3 min 20 s`, `2d`, `1w`, `250ms`. Raises `ValueError`."""
    text = text.strip()
    if is_bare_number(text):
        seconds = float(text)
    elif re.fullmatch(rf"{_PART}(?:\s*{_PART})*", text):
        seconds = sum(float(count) * _SECONDS[unit] for count, unit in re.findall(_PART, text))
    else:
        raise ValueError(DURATION)
    if seconds > LONGEST:
        raise ValueError(DURATION)
    return seconds


def is_bare_number(text: str) -> bool:
    """Whether a duration is written without a unit, and so is seconds."""
    return re.fullmatch(_NUMBER, text.strip()) is not None


def parse_moment(text: str, zone: tzinfo | None = UTC) -> datetime:
    """A moment in ISO 8601, or as seconds or milliseconds since 1970; raises `ValueError`.

    `zone` is the one of a text that names none; None stands for the local time of this host.
    """
    if text[4:5] + text[10:11] != "-T":  # else it is what `iso` writes, or as simple
        text = text.strip()
        if epoch := re.fullmatch(_EPOCH, text):
            number = epoch[1]
            is_milliseconds = len(number) == 13 and "." not in number
            return datetime.fromtimestamp(float(number) / (1000 if is_milliseconds else 1), UTC)
        found = re.fullmatch(_MOMENT, text)
        if found is None:  # Python takes 1796010112000 for a day in 1796
            raise ValueError(MOMENT)
        text = found[1] + (found[2] or "")
    moment = datetime.fromisoformat(text)
    try:
        if moment.tzinfo is None and zone is not None:
            return moment.replace(tzinfo=zone).astimezone(UTC)
        return moment.astimezone(UTC)
    except (OverflowError, OSError):
        raise ValueError(MOMENT) from None


def entered_moment(name: str, text: str, now: datetime) -> datetime:
    """The moment that a person entered for `name`: in local time, with a zone, or `+10m` from now.

    Raises `BadUsage`, also for a moment that has long passed.
    """
    text = text.strip()
    if not text:
        raise BadUsage(f"{name} is empty.", f"It takes {MOMENT}, or +10m.")
    if text.startswith("+"):
        return now + timedelta(seconds=entered_duration(name, text[1:]))
    try:
        moment = parse_moment(text, None)
    except ValueError:
        raise BadUsage(f"{name}: {text!r} is no moment.", _instead(name, text)) from None
    if now - moment > _LONG_AGO:
        raise BadUsage(
            f"{name}: {text!r} was {(now - moment).days:,} d ago.",
            f"Correct it; without {name} the job runs as soon as it can.",
        )
    return moment


def _instead(name: str, text: str) -> str:
    try:
        parse_duration(text)
    except ValueError:
        return f"It takes {MOMENT}, the same without Z in local time, or +10m from now."
    length = f"{text}s" if is_bare_number(text) else text
    return f"For {length} from now write {name} +{length}."


def entered_duration(name: str, text: str) -> float:
    """The seconds that a person entered for `name`; raises `BadUsage`."""
    if not text.strip():
        raise BadUsage(f"{name} is empty.", f"It takes {DURATION}.")
    try:
        return parse_duration(text)
    except ValueError:
        raise BadUsage(f"{name}: {text!r} is no length of time.", f"It takes {DURATION}.") from None


# ── from fields to a job ──────────────────────────────────────────────────────────────────────


def _text(value: Any) -> str:
    # A number or truth value of JSON comes as a kind of str. YAML needs no quotes: there `true` is text.
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
    if not isinstance(value, str) or not ID.fullmatch(value):
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
            raise ValueError(f"names of variables, and {name!r} is none")
        _text(name)
        if text is not None and not isinstance(text, str):
            raise ValueError("a mapping of names to text")
    return {name: _text("" if text is None else str(text)) for name, text in value.items()}


def launcher(value: Any) -> str:
    """The command prefix of an engine that runs jobs elsewhere, as a shell would split it; or `none`."""
    import shlex

    text = _text(value).strip()
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words or len(text) > MAX_LAUNCHER:
        raise ValueError("the words of a command such as `srun --ntasks=1`, quoted as in a shell, or none")
    return text


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


#: What people and programs read off an event, each with what it must be. More may stand there.
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
    """A history, checked: each event a mapping, its moments moments, its numbers numbers, its texts text.

    Raises `ValueError` with what it should have been.
    """
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
    """A history that a YAML program has laid out anew comes back as text; make it numbers again."""
    if key in _TEXT_KEYS or not isinstance(value, str):
        return value
    import json

    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


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
    "created_at": _moment,
    "history": events,
}
ALIASES = {"timeout_sec": "timeout", "timeout_seconds": "timeout", "available_at": "run_at"}
#: What `list --json` shows beside the fields of a job, and what other queues note of the past; taken,
#: and of no effect.
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


def from_fields(tree: Any) -> Job:
    """Build a job from a mapping of text, lists and mappings; raises `BadJob`.

    A null counts as not said. An unknown field, a wrong type, or a value out of bounds is refused, and
    so is, by `Completed`, a record of a job that has been done.
    """
    if not isinstance(tree, dict):
        raise BadJob("It is not a mapping of fields.", "Write at least `command: …`.")
    if isinstance(state := tree.get("state"), str) and state.lower() in _COMPLETED:
        raise Completed
    values: dict[str, Any] = {}
    for key, raw in tree.items():
        name = ALIASES.get(key, str(key))
        parse = PARSERS.get(name)
        if parse is None:
            if key in SHOWN_ONLY:
                continue
            raise BadJob(f"The field {key!r} is unknown.", nearest(key, [*PARSERS, *ALIASES]), field=key)
        if raw is None:
            continue
        if name in values:
            raise BadJob(f"{key!r} says again what {name!r} says.", "Keep one.", field=key)
        try:
            values[name] = parse(raw)
        except ValueError as error:
            raise BadJob(f"{key}: {_shown(raw)} cannot be taken.", f"It takes {error}.", field=key) from None
    if "command" not in values:
        raise BadJob("It has no command.", "Write `command: …`.", field="command")
    return Job(**values)


def _shown(value: Any) -> str:
    import json

    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "…"


# ── from a job to text ────────────────────────────────────────────────────────────────────────

_PLAIN_STARTS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./~(")
_LINES = r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]*"
_OTHER_TYPES = re.compile(
    r"[\d.+-][\d_.:eExXa-fA-F+-]*|\d{4}-\d\d?-\d\d?.*|~|null|true|false|yes|no|on|off|y|n|\.inf|\.nan",
    re.IGNORECASE,
)


def scalar(text: str) -> str:
    """A text as one YAML scalar on one line, plain where no YAML reader can take it otherwise."""
    plain = (
        text[:1] in _PLAIN_STARTS
        and text.isprintable()
        and ": " not in text
        and " #" not in text
        and not text.endswith((":", " "))
        and not _OTHER_TYPES.fullmatch(text)
    )
    return text if plain else quoted(text)


def quoted(text: str) -> str:
    """A text between double quotes, with every character escaped that does not print."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _escaped(_to_json(text))


def _block(text: str) -> str:
    """A command of several lines as a literal block, readable and editable as it is."""
    if "\n" not in text:
        return scalar(text)
    lines = text.removesuffix("\n").split("\n")
    legible = (
        re.fullmatch(_LINES, text)
        and lines[0]
        and not lines[0].startswith((" ", "\t"))
        and all(line and not line.isspace() for line in lines[-1:])
        and "\t" not in {line[:1] for line in lines}
    )
    if len(lines) == 1 or not legible:
        return scalar(text)
    chomp = "|" if text.endswith("\n") else "|-"
    return "\n".join([chomp, *(f"  {line}" if line else "" for line in lines)])


_NUMBERS = ("priority", "max_retries", "timeout", "backoff_base")


def to_yaml(job: Job) -> str:
    """The file of a job: block YAML that ends with its history, ready for an event to be added."""
    lines = [f"id: {scalar(job.id)}"] if job.id else []
    if isinstance(job.command, str):
        lines.append(f"command: {_block(job.command)}")
    else:
        lines.append(f"command: [{', '.join(quoted(word) for word in job.command)}]")
    numbers = zip(_NUMBERS, (job.priority, job.max_retries, job.timeout, job.backoff_base), strict=True)
    lines += [f"{name}: {number(value)}" for name, value in numbers if value is not None]
    if job.run_at is not None:
        lines.append(f"run_at: {iso(job.run_at)}")
    if job.cwd is not None:
        lines.append(f"cwd: {scalar(job.cwd)}")
    if job.env:
        lines.append("env:")
        lines.extend(f"  {scalar(name)}: {scalar(value)}" for name, value in job.env.items())
    if job.launcher is not None:
        lines.append(f"launcher: {scalar(job.launcher)}")
    if job.created_at is not None:
        lines.append(f"created_at: {iso(job.created_at)}")
    lines.append("history:")
    return "\n".join(lines) + "\n" + "".join(map(event_line, job.history))


def number(value: float) -> str:
    """A number as people write it: to the microsecond, never with an exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def event_line(event: Event, column: int = 0) -> str:
    """One event as the one line that is added to the file."""
    return f"{' ' * column}- {_escaped(_to_json(event))}\n"


def _to_json(value: Any) -> str:
    return _encoder()(value)


@cache
def _encoder() -> Callable[[Any], str]:
    import json  # which most jobs are filed without

    return json.JSONEncoder(ensure_ascii=False).encode


def _escaped(text: str) -> str:
    """The text with what JSON leaves as it is and YAML does not take."""
    if text.isascii() and "\x7f" not in text:
        return text
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text
    )


# ── history ───────────────────────────────────────────────────────────────────────────────────


def last_attempt(history: Sequence[Event]) -> int:
    """The number of the latest run, 0 before the first; numbers never start over."""
    return max((number for event in history if isinstance(number := event.get("attempt"), int)), default=0)


def since_retry(history: Sequence[Event]) -> Sequence[Event]:
    """The events after a person last gave the job its tries anew."""
    for index in range(len(history) - 1, -1, -1):
        if history[index].get("event") == RETRIED:
            return history[index + 1 :]
    return history


def attempts(history: Sequence[Event]) -> int:
    """Runs so far, counted anew after a retry."""
    return len({event["attempt"] for event in since_retry(history) if "attempt" in event})


def failures(history: Sequence[Event]) -> int:
    """Runs that count against the retries: those that failed or were lost since the last retry."""
    return len(
        {event.get("attempt") for event in since_retry(history) if event.get("event") in {FAILED, LOST}}
    )


def destination(outcome: Event) -> State:
    """Where the claim that ended so has to go."""
    kind = outcome.get("event")
    if kind == COMPLETED:
        return State.DONE
    if kind == RETURNED:
        return State.PENDING
    if kind in {FAILED, LOST} and outcome.get("next_try"):
        return State.FAILED if kind == FAILED else State.PENDING
    return State.DEAD


def outcome_by(history: Sequence[Event], owner: str) -> Event | None:
    """The outcome that this owner recorded last, if nothing came after it."""
    last = history[-1] if history else {}
    return last if last.get("event") in OUTCOMES and last.get("worker") == owner else None


def moved_by_hand(history: Sequence[Event]) -> bool:
    """Whether a person put the job back to pending, which the history does not tell of."""
    last = history[-1] if history else {}
    return last.get("event") in OUTCOMES and destination(last) is not State.PENDING


def shifted(moment: datetime) -> datetime:
    """One microsecond on: the next name for a job that returns to a directory it has left."""
    try:
        return moment + timedelta(microseconds=1)
    except OverflowError:  # the last moment there is: any other name does
        return moment - timedelta(days=1)
