"""Death between any two system calls: no job is lost, none is doubled, and the next worker mends all."""

from __future__ import annotations

import itertools
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.trials.scenes import DEADLY, POINTS, Scene, drain, ends_of, faults_of, survives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from queuectl import Spool


class Deadly:
    """The system calls of the queue, of which the n-th is the last thing that this process does.

    `how` says whether it dies before that call, after it, or, where the call writes, half way.
    """

    def __init__(self, n: int, how: str) -> None:
        self._n = n
        self._how = how
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._count += 1
            if self._count < self._n:
                return real(*arguments, **named)
            if self._how == "after":
                real(*arguments, **named)
            elif self._how == "half way" and name == "write":
                descriptor, data = arguments
                os.write(descriptor, data[: len(data) // 2])
            os._exit(DEADLY)

        return call


def ways(size: Callable[[int, int], int]) -> Iterator[tuple[int, str]]:
    """Where to die, and how: quickly at every second call, or in full at each in each way."""
    hows = ("before", "after", "half way")[: size(1, 3)]
    return ((n, how) for n in itertools.count(1, size(2, 1)) for how in hows)


@pytest.mark.parametrize("point", POINTS)
def test_death_before_any_system_call_loses_no_job_and_doubles_none(
    new_spool: Callable[[str], Spool],
    tmp_path: Path,
    size: Callable[[int, int], int],
    figure: Callable[[str, str], None],
    point: str,
) -> None:
    before, action = POINTS[point]
    faults: dict[str, object] = {}
    tried = 0
    for n, how in ways(size):
        way = how.replace(" ", "-")
        scene = Scene(new_spool(f"spool-{n}-{way}"), tmp_path / f"told-{n}-{way}")
        before(scene)
        came_to_its_end = survives(partial(action, scene), Deadly(n, how))
        assert survives(partial(drain, scene))
        tried += 1
        if fault := faults_of(scene, scene.promised(), ends_of(action)):
            faults[f"{how} call {n}"] = fault
        if came_to_its_end and how == "before":
            break
    assert n > 5
    assert faults == {}
    figure(f"death while {point}", f"{tried} deaths, all audited clean")
