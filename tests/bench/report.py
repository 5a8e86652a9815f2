"""What was measured, as JSON for programs and as a Markdown table for people; and on what machine."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.bench.timing import Figure

_HEAD = ("benchmark", "measured", "value", "against", "ratio", "spread", "target", "records and syncs")


def machine(folder: Path) -> dict[str, Any]:
    """Where and when this was measured."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(folder),
        "python": platform.python_version(),
        "queuectl": metadata.version("queuectl"),
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _file_system(folder: Path) -> str:
    if shutil.which("df") is None:
        return ""
    said = subprocess.run(["df", "-PT", folder], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[-1].split()[1] if said else ""


def as_object(row: str, figure: Figure) -> dict[str, Any]:
    """A figure with all its samples."""
    return {
        "row": row,
        "subject": figure.subject,
        "unit": figure.unit,
        "statistic": _statistic(figure),
        "value": figure.value,
        "samples": list(figure.samples),
        "against": figure.against or None,
        "ratio": figure.ratio,
        "ratios": list(figure.ratios),
        "target": None if figure.target is None else str(figure.target),
        "is_met": figure.is_met,
        "note": figure.note,
    }


def _statistic(figure: Figure) -> str:
    return "median" if figure.share == 0.5 else f"{figure.share:.0%} quantile"


def table(measured: Iterable[tuple[str, Figure]]) -> str:
    """A Markdown table, a line a figure."""
    lines = [_line(_HEAD), _line("---" for _ in _HEAD)]
    lines += [line(row, figure) for row, figure in measured]
    return "\n".join(lines) + "\n"


def line(row: str, figure: Figure) -> str:
    """A figure as a line of the table."""
    spread = figure.ratios or figure.samples
    target = ""
    if figure.target is not None:
        target = f"{figure.target} {'reached' if figure.is_met else 'missed'}"
    cells = (
        row,
        figure.subject + ("" if figure.share == 0.5 else f", {_statistic(figure)}"),
        f"{_number(figure.value)} {figure.unit}",
        figure.against,
        "" if figure.ratio is None else _number(figure.ratio),
        f"{_number(min(spread))} to {_number(max(spread))}" if len(spread) > 1 else "",
        target,
        figure.note,
    )
    return _line(cells)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def head(facts: Mapping[str, Any]) -> str:
    """The machine in one line."""
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())
