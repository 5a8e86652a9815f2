"""From a job to the YAML text of its file."""

from __future__ import annotations

import re
from functools import cache

from queuectl.job.model import ENDINGS
from queuectl.times import iso

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from queuectl.job.history import Event
    from queuectl.job.model import Job


_PLAIN_STARTS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./~(")
_LINES = r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]*"
# What YAML readers take for something else than text. Only what begins like a number needs a pattern.
_WORDS = frozenset(["~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan"])
_NUMBER_STARTS = frozenset("0123456789.")
_NUMBER = r"[\d.][\d_.:eExXa-fA-F+-]*|\d{4}-\d\d?-\d\d?.*"


def scalar(text: str) -> str:
    """A text as a YAML scalar on one line, plain if every YAML reader reads it as this text."""
    plain = (
        text[:1] in _PLAIN_STARTS
        and text.isprintable()
        and ": " not in text
        and " #" not in text
        and not text.endswith((":", " "))
        and text.lower() not in _WORDS
        and not (text[:1] in _NUMBER_STARTS and re.fullmatch(_NUMBER, text))
    )
    return text if plain else quoted(text)


def quoted(text: str) -> str:
    """A text between double quotes, with unprintable characters escaped."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _json(text)


def _block(text: str) -> str:
    """A text of several lines as a literal block, which people can read and edit."""
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
    """The text of a job's file: block YAML that ends with the history, so that events can be appended."""
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
    term = job.unique_for
    texts = {
        "launcher": job.launcher and scalar(job.launcher),
        "after": job.after and after(job.after),
        "group": job.group and scalar(job.group),
        "slots": job.slots and number(job.slots),
        "unique": job.unique and scalar(job.unique),
        "unique_for": term if term is None or isinstance(term, str) else number(term),
        "moved_from": job.moved_from and scalar(job.moved_from),
        "created_at": job.created_at and iso(job.created_at),
    }
    lines += [f"{name}: {text}" for name, text in texts.items() if text]
    lines.append("history:")
    return "\n".join(lines) + "\n" + "".join(map(event_line, job.history))


def after(wanted: Mapping[str, str]) -> str:
    """What a job runs after, in the shortest form of its field."""
    if any(ending != ENDINGS[0] for ending in wanted.values()):
        return f"{{{', '.join(f'{scalar(job_id)}: {ending}' for job_id, ending in wanted.items())}}}"
    ids = [scalar(job_id) for job_id in wanted]
    return ids[0] if len(ids) == 1 else f"[{', '.join(ids)}]"


def number(value: float) -> str:
    """A number with at most six decimals and no exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def event_line(event: Event, column: int = 0) -> str:
    """The line for one event that is appended to the file."""
    return f"{' ' * column}- {_json(event)}\n"


def _json(value: Any) -> str:
    """A value as JSON that is YAML, too: characters that JSON allows and YAML does not are escaped."""
    text = _encoder()(value)
    if text.isascii() and "\x7f" not in text:
        return text
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text
    )


@cache
def _encoder() -> Callable[[Any], str]:
    import json  # filing most jobs does not need it

    return json.JSONEncoder(ensure_ascii=False).encode
