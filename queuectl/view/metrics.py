"""The figures of a spool in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from queuectl.spool import requests
from queuectl.version import __version__
from queuectl.view.census import DAY, quantile
from queuectl.view.wording import visible
from queuectl.view.workers import STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from queuectl.spool.root import Root
    from queuectl.view.census import Census
    from queuectl.view.workers import Worker

#: The content type of this text.
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Name, type and meaning of each family, in their order.
_FAMILIES = """\
build_info gauge Always 1; the version of queuectl.
jobs gauge Jobs in the spool, by state.
oldest_waiting_seconds gauge Since the first pending job was due; 0 if none.
paused gauge Whether workers are held back.
workers gauge Workers, by state.
worker_runs_total counter Runs ended by a worker since it started.
runs_ended gauge Runs that ended in the last hour or day, by the files in done/, failed/ and dead/.
run_duration_seconds gauge Duration of the last runs of the jobs that completed last, at most 200.
"""


def text(root: Root, census: Census, workers: Sequence[Worker], now: datetime) -> str:
    """All figures in the text format. The census must have looked; `workers` are the current ones."""
    samples: dict[str, list[str]] = {}
    for name, labels, value in _samples(root, census, workers, now):
        inside = ",".join(f'{key}="{_escaped(word)}"' for key, word in labels.items())
        shown = f"queuectl_{name}{{{inside}}}" if inside else f"queuectl_{name}"
        samples.setdefault(name, []).append(f"{shown} {value:.10g}\n")
    lines = []
    for family in _FAMILIES.splitlines():
        name, kind, meaning = family.split(" ", 2)
        lines += [f"# HELP queuectl_{name} {meaning}\n", f"# TYPE queuectl_{name} {kind}\n"]
        lines += samples.get(name, [])
    return "".join(lines)


def _samples(
    root: Root, census: Census, workers: Sequence[Worker], now: datetime
) -> Iterator[tuple[str, dict[str, str], float]]:
    """The figures: the name of the family, the labels, the value."""
    counts = census.counts(now)
    yield "build_info", {"version": __version__}, 1
    for word, count in counts.as_dict().items():
        yield "jobs", {"state": word}, count
    yield "oldest_waiting_seconds", {}, counts.oldest(now) or 0.0
    yield "paused", {}, requests.is_paused(root)
    states = Counter(worker.state for worker in workers)
    for state in STATES:
        yield "workers", {"state": state}, states[state]
    for worker in workers:
        if worker.lives:
            yield "worker_runs_total", {"worker": worker.name, "host": worker.host}, worker.jobs_done
    for word in ("completed", "failed"):
        for window, minutes in (("1h", 60), ("1d", DAY)):
            yield "runs_ended", {"outcome": word, "window": window}, census.ended_since(word, minutes)
    durations = census.durations()
    for share in (0.5, 0.9, 0.99):
        if (value := quantile(durations, share)) is not None:
            yield "run_duration_seconds", {"quantile": f"{share:g}"}, value


def _escaped(value: str) -> str:
    return visible(value).replace("\\", r"\\").replace('"', r"\"")
