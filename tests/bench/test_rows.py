"""Each benchmark runs, measures something and leaves nothing behind; how fast anything is, no test says."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.bench.__main__ import ROWS
from tests.bench.timing import Figure, at_least, at_most, in_turn, quantile, ratios

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process uses")
@pytest.mark.parametrize("row", ROWS)
def test_each_benchmark_measures_and_leaves_nothing_behind(row: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    result = tmp_path / "result.json"
    words = [sys.executable, "-m", "tests.bench", "--quick", "--dir", str(work), "--json", str(result), row]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    written = json.loads(result.read_text())
    assert written["failures"] == {}
    assert {figure["row"] for figure in written["figures"]} == {row}
    for figure in written["figures"]:
        numbers = [*figure["samples"], *figure["ratios"], figure["value"]]
        assert all(math.isfinite(number) and number >= 0 for number in numbers), figure
        assert figure["subject"] in ran.stdout
    assert list(work.iterdir()) == []
    assert working_below(work) == []


def working_below(folder: Path) -> list[str]:
    """The processes, other than this one, that have the folder in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        words = process.info["cmdline"] or []
        if process.info["pid"] != os.getpid() and any(str(folder) in word for word in words):
            found.append(" ".join(words))
    return found


def test_a_row_that_does_not_exist_is_refused_with_those_that_do() -> None:
    words = [sys.executable, "-m", "tests.bench", "nonsense"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 2
    assert all(row in ran.stderr for row in ROWS)


def test_sides_take_turns_and_ratios_are_those_of_one_round() -> None:
    order: list[str] = []

    def side(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop(0)

    ours, theirs = [2.0, 40.0], [1.0, 10.0]
    took = in_turn({"a": lambda: side("a", ours), "b": lambda: side("b", theirs)}, 2)
    assert order == ["a", "b", "a", "b"]
    assert ratios(took["a"], took["b"]) == [2.0, 4.0]


def test_a_figure_s_target_is_one_of_its_ratio_or_else_of_its_value() -> None:
    assert Figure("x", "s", [1.0, 2.0, 9.0], target=at_most(2)).is_met is True
    assert Figure("x", "s", [1.0, 2.0, 9.0], target=at_least(3)).is_met is False
    assert Figure("x", "s", [1.0], against="y", ratios=[5.0], target=at_most(2)).is_met is False
    assert Figure("x", "s", [1.0]).is_met is None


def test_a_quantile_lies_between_its_neighbours() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([0.0, 10.0], 0.25) == 2.5
    assert quantile([7.0], 0.99) == 7.0
