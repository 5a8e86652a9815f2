"""The benchmarks as one command: `python -m tests.bench [--quick] [--json FILE] [ROW …]`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import acting, draining, filing, looking, peers, report, waking
from tests.bench.place import Failed, Place, Skipped, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.timing import Figure

ROWS: dict[str, Callable[[Place], Iterator[Figure]]] = {
    "drain": draining.drain,
    "drain-full": draining.drain_full,
    "drain-peers": draining.drain_peers,
    "beside-many": draining.beside_many,
    "beside-parked": draining.beside_parked,
    "million": draining.million,
    "filing": filing.filing,
    "enqueue": filing.enqueue,
    "enqueue-at-depth": filing.enqueue_at_depth,
    "start": waking.start,
    "dropped": waking.dropped,
    "idle": waking.idle,
    "status": looking.status,
    "list": looking.listing,
    "status-job": looking.status_job,
    "first-row": looking.first_row,
    "many": acting.many,
    "wait-all": acting.wait_all,
    "producers": filing.producers,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure queuectl and its peers."
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"all, or some of: {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that each row runs, no more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each sample here")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table here, too")
    parser.add_argument("--dir", type=Path, help="work below this directory: its file system is measured")
    parser.add_argument(
        "--python-peers", action="store_true", help="install huey and rq into an environment for this run"
    )
    chosen = parser.parse_args()
    if unknown := [row for row in chosen.rows if row not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}; the rows are {', '.join(ROWS)}")
    return chosen


def _measure(row: str, place: Place) -> tuple[list[Figure], str]:
    """The figures of a row, and why there are none or not all of them."""
    figures = []
    try:
        for figure in ROWS[row](place):
            figures.append(figure)
            sys.stderr.write(f"{report.line(row, figure)}\n")
    except Skipped as reason:
        sys.stderr.write(f"{row}: not measured: {reason}\n")
    except Failed as reason:
        sys.stderr.write(f"{row}: failed: {reason}\n")
        return figures, str(reason)
    return figures, ""


def main() -> int:
    """Run the chosen rows; 1 when any of them failed."""
    chosen = _arguments()
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    with tempfile.TemporaryDirectory(prefix="bench-", dir=chosen.dir) as text:
        folder = Path(text)
        spread(folder)
        facts = report.machine(folder)
        python = peers.make_python(folder / "python") if chosen.python_peers else None
        place = Place(folder, chosen.quick, python)
        measured, failures = [], {}
        for row in chosen.rows or ROWS:
            figures, failure = _measure(row, place)
            measured += [(row, figure) for figure in figures]
            if failure:
                failures[row] = failure
    shown = f"{report.head(facts)}\n\n{report.table(measured)}"
    sys.stdout.write(shown)
    if chosen.table:
        chosen.table.write_text(shown)
    if chosen.json:
        objects = [report.as_object(row, figure) for row, figure in measured]
        whole = {"machine": facts, "is_quick": chosen.quick, "figures": objects, "failures": failures}
        chosen.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
