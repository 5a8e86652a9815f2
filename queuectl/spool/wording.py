"""How durations, moments and foreign text are shown to people, on a terminal and in a browser alike."""

from __future__ import annotations

import contextlib
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_NICE = {"\n": "⏎", "\t": " ", "\r": "␍", "\x1b": "␛"}


def visible(text: str) -> str:
    """The text on one line, control characters shown as what they are, not obeyed."""
    return CONTROL.sub(lambda found: _NICE.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def escaped(text: str) -> str:
    r"""The same in characters that every font has: `\n`, `\x1b`."""
    return CONTROL.sub(lambda found: _ESCAPES.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def escaped_lines(text: str) -> str:
    """The same of a text whose lines stay lines, and whose tabs stay tabs."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def duration(seconds: float | None) -> str:
    """`0.42 s`, `12 s`, `3 min 20 s`, `5 h 10 min`, `2 d 3 h`."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds >= 0.001 else "0 s"
    whole = round(seconds)
    for small, big, size in (("s", "min", 60), ("min", "h", 3600), ("h", "d", 86400)):
        if whole < size * (60 if size < 3600 else 24) or size == 86400:
            if size == 60 and whole < 60:
                return f"{whole} s"
            unit = size // (60 if size <= 3600 else 24)
            return f"{whole // size} {big} {whole % size // unit} {small}"
    raise AssertionError("the last unit takes all")


def when(moment: datetime, now: datetime) -> str:
    """A moment as people place it: local time, and how far from now."""
    away, at = (moment - now).total_seconds(), local(moment)
    return f"{at} (in {duration(away)})" if away > 0 else f"{at} ({duration(-away)} ago)"


def local(moment: datetime) -> str:
    """A moment by this host's wall clock with its zone, as it can be entered: `2026-11-08 16:00:00+01:00`.

    In UTC at the end of all time, which it is not here yet.
    """
    with contextlib.suppress(OverflowError):
        moment = moment.astimezone()
    return moment.isoformat(" ", "seconds").replace("+00:00", "Z")
