"""Lays out counts per minute as the bars of an SVG."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter

WIDTH, HEIGHT = 720, 120


@dataclass(frozen=True, slots=True)
class Bar:
    """One span of time: the runs that ended in it, and the place of its two parts."""

    start: str
    x: float
    width: float
    completed: int
    failed: int
    completed_y: float
    completed_height: float
    failed_y: float
    failed_height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars from left to right, the last one still growing, and the count at the top of the scale."""

    bars: tuple[Bar, ...]
    top: int
    completed: int
    failed: int
    minutes: int
    minutes_each: int
    ticks: tuple[tuple[float, str], ...]


def lay_out(completed: Counter[int], failed: Counter[int], now: datetime, minutes: int, each: int) -> Chart:
    """The chart of the last `minutes`, `each` of them a bar. Counters have minutes since 1970 as keys."""
    last = int(now.timestamp()) // 60 // each
    number = minutes // each
    first = last - number + 1
    stretches = []
    for index in range(first, last + 1):
        span = range(index * each, (index + 1) * each)
        stretches.append((sum(completed[minute] for minute in span), sum(failed[minute] for minute in span)))
    top = _nice(max((good + bad for good, bad in stretches), default=0))
    step = WIDTH / number
    bars = []
    for place, (good, bad) in enumerate(stretches):
        good_height, bad_height = HEIGHT * good / top, HEIGHT * bad / top
        bars.append(
            Bar(
                start=_local((first + place) * each),
                x=round(place * step + step * 0.1, 2),
                width=round(step * 0.8, 2),
                completed=good,
                failed=bad,
                completed_y=round(HEIGHT - good_height, 2),
                completed_height=round(good_height, 2),
                failed_y=round(HEIGHT - good_height - bad_height, 2),
                failed_height=round(bad_height, 2),
            )
        )
    quarter = number // 4
    ticks = tuple((round(place * step, 2), bars[place].start) for place in range(0, number, quarter))
    totals = sum(good for good, _ in stretches), sum(bad for _, bad in stretches)
    return Chart(tuple(bars), top, *totals, minutes, each, ticks)


def _local(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).astimezone().strftime("%H:%M")


def _nice(most: int) -> int:
    """The next of 4, 10, 20, 40, 100, …, so that not every job changes the scale."""
    top = 4
    for factor in (2.5, 2, 2) * 12:
        if most <= top:
            break
        top = int(top * factor)
    return top
