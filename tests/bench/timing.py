"""Sides measured in turn, and what comes of it: medians, percentiles, and ratios of pairs."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Target:
    """What is to be reached: of the ratio where there is one, else of the value."""

    number: float
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.number:g}"

    def is_met_by(self, value: float) -> bool:
        return value <= self.number if self.at_most else value >= self.number


def at_least(number: float) -> Target:
    return Target(number)


def at_most(number: float) -> Target:
    return Target(number, at_most=True)


@dataclass(frozen=True)
class Figure:
    """One line of the report: samples, and their ratios to samples of another side taken beside them."""

    subject: str
    unit: str
    samples: Sequence[float]
    against: str = ""
    ratios: Sequence[float] = ()
    target: Target | None = None
    share: float = 0.5
    note: str = ""

    @property
    def value(self) -> float:
        """The median, or the percentile that `share` asks for."""
        return quantile(self.samples, self.share)

    @property
    def ratio(self) -> float | None:
        """The median of the ratios of the pairs."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        ratio = self.ratio
        return None if self.target is None else self.target.is_met_by(self.value if ratio is None else ratio)


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below which `share` of them are, between neighbours where it falls between."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Samples of each side, taken A B C, A B C, …: what disturbs the machine disturbs all of them."""
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            samples[name].append(side())
    return samples


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The ratio of each pair that was measured in the same round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def settle() -> None:
    """Have on disk what was made ready: what is written back meanwhile takes the disk and these cores."""
    if os.name == "posix":
        os.sync()


def seconds(act: Callable[[], object]) -> float:
    """How long it takes, once what was written before is on disk."""
    settle()
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun
