"""Durations, moments, file-name stamps and clocks: read and written in one place."""

from __future__ import annotations

import contextlib
import re
import time
from datetime import UTC, datetime, timedelta

from queuectl.errors import BadUsage, LongAgo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import tzinfo


# `re` compiles these when they are first used: most commands need none.
_PART = r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)"
_NUMBER = r"\d+(?:\.\d+)?"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LONGEST = 100 * 365 * 86400.0
#: The accepted forms, for error messages.
DURATION = "a time such as 90s, 10m, 1h30m or 7d"
MOMENT = "a moment such as 2026-11-08T15:00:00Z"
_MOMENT = r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d[\d:.,]*)?|\d{8}T\d{4,6}(?:[.,]\d+)?)\s*(Z|[+-]\d\d(?::?\d\d)?)?"
#: Seconds or milliseconds since 1970, from 2001 to 2286; `date` writes an @ before them.
_EPOCH = r"@?(\d{10}(?:\.\d+)?|\d{13})"
_AWAKE = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: An entered moment that is further in the past than this may be a slip of the keys.
_LONG_AGO = timedelta(days=1)


class NoSuchTime(ValueError):
    """A local time that does not exist, because clocks are put forward then."""


class Clock:
    """The clocks of this host. A simulation puts its own object in the place of `clock`."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets. It may stop while the host sleeps."""
        return time.monotonic()

    def awake(self) -> float:
        """Seconds of a clock that nobody sets and that goes on while the host sleeps, where there is one."""
        return time.clock_gettime(_AWAKE)

    def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""
        time.sleep(seconds)


#: The clock that everything asks. Read it as `times.clock` at each call.
clock = Clock()


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return clock.now()


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
    """The moment of a stamp in a file name."""
    return datetime.fromisoformat(f"{text[:8]}T{text[9:]}")


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `1.5h`, `1h30m`, `3 min 20 s`, `2d`, `1w` or `250ms`; raises `ValueError`."""
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
    """Whether a duration is a number without a unit, which means seconds."""
    return re.fullmatch(_NUMBER, text.strip()) is not None


def parse_moment(text: str, zone: tzinfo | None = UTC) -> datetime:
    """A moment in ISO 8601, or as seconds or milliseconds since 1970.

    `zone` applies to a text that names none; None is the local time of this host. Raises `ValueError`, for
    a local time that the clock skips in spring its kind `NoSuchTime`. Of a local time that comes twice in
    autumn the first is taken.
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
    written = datetime.fromisoformat(text)
    try:
        if written.tzinfo is not None:
            return written.astimezone(UTC)
        moment = written.replace(tzinfo=zone).astimezone(UTC)
        if zone is not UTC and moment.astimezone(zone).replace(tzinfo=None) != written:
            raise NoSuchTime(MOMENT)
    except (OverflowError, OSError):
        raise ValueError(MOMENT) from None
    return moment


def entered_moment(name: str, text: str, now: datetime) -> datetime:
    """The moment that a person entered for `name`: in local time, with a zone, or `+10m` from now.

    Raises `BadUsage`; where the moment is more than a day ago, its kind `LongAgo`.
    """
    text = text.strip()
    if not text:
        raise BadUsage(f"{name} is empty.", f"It takes {MOMENT}, or +10m.")
    if text.startswith("+"):
        return now + timedelta(seconds=entered_duration(name, text[1:]))
    try:
        moment = parse_moment(text, None)
    except NoSuchTime:
        raise BadUsage(
            f"{name}: the local time {text!r} does not exist: clocks are put forward then.",
            "Write an hour earlier or later, or the moment in UTC with a Z behind it.",
        ) from None
    except ValueError:
        raise BadUsage(f"{name}: {text!r} is no moment.", _instead(name, text)) from None
    if now - moment > _LONG_AGO:
        raise LongAgo(name, text, moment, (now - moment).days)
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


def shifted(moment: datetime) -> datetime:
    """The moment one microsecond later: a job that returns to a directory needs a new name."""
    try:
        return moment + timedelta(microseconds=1)
    except OverflowError:  # the last possible moment: any other name will do
        return moment - timedelta(days=1)


def duration(seconds: float | None) -> str:
    """`0.42 s`, `12 s`, `3 min 20 s`, `5 h 10 min`, `2 d 3 h`; a whole number shows no part of a second."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if 0.001 <= seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def when(moment: datetime, now: datetime) -> str:
    """A moment in local time and its distance from now: `2026-11-08 16:00:00Z (in 3 min 0 s)`."""
    away, at = (moment - now).total_seconds(), local(moment)
    return f"{at} (in {duration(away)})" if away > 0 else f"{at} ({duration(-away)} ago)"


def local(moment: datetime) -> str:
    """A moment in this host's local time with its zone, as it can be entered: `2026-11-08 16:00:00+01:00`.

    A moment that is out of range in local time is written in UTC.
    """
    with contextlib.suppress(OverflowError):
        moment = moment.astimezone()
    return moment.isoformat(" ", "seconds").replace("+00:00", "Z")
