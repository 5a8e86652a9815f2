"""Counts per minute as the bars of a chart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter


@dataclass(frozen=True, slots=True)
class Bar:
    """One span of time: when it starts, in local time, and how many runs ended in it."""

    start: str
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars from left to right, the last one still growing; the count at the top of the scale; the sums."""

    bars: tuple[Bar, ...]
    top: int
    completed: int
    failed: int


def lay_out(completed: Counter[int], failed: Counter[int], now: datetime, number: int, each: int) -> Chart:
    """The last `number` spans of `each` minutes. The counters have minutes since 1970 as keys."""
    end = int(now.timestamp()) // 60 // each + 1
    bars = []
    for index in range(end - number, end):
        span = range(index * each, (index + 1) * each)
        start = datetime.fromtimestamp(span[0] * 60, UTC).astimezone().strftime("%H:%M")
        bars.append(
            Bar(start, sum(completed[minute] for minute in span), sum(failed[minute] for minute in span))
        )
    top = _nice(max(bar.completed + bar.failed for bar in bars))
    return Chart(tuple(bars), top, sum(bar.completed for bar in bars), sum(bar.failed for bar in bars))


def _nice(most: int) -> int:
    """The next of 4, 10, 20, 40, 100, …, so that not every job changes the scale."""
    top = 4
    for factor in (2.5, 2, 2) * 12:
        if most <= top:
            break
        top = int(top * factor)
    return top
