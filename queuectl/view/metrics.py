"""The figures of a spool in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from queuectl.spool import requests
from queuectl.version import __version__
from queuectl.view.census import quantile
from queuectl.view.wording import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Any, TypeAlias

    from queuectl.spool.root import Root
    from queuectl.view.census import Census

#: The content type of this text.
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WORKER_STATES = ("idle", "busy", "paused", "stopping", "frozen", "dead")
_QUANTILES = (0.5, 0.9, 0.99)

Sample: TypeAlias = "tuple[Mapping[str, str], float]"


def text(root: Root, census: Census, workers: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """All figures in the text format. The census must have looked; `workers` are the current ones."""
    counts = census.counts(now)
    oldest = 0.0 if counts.oldest_due is None else max(0.0, (now - counts.oldest_due).total_seconds())
    states = Counter(worker["state"] for worker in workers)
    durations = census.durations()
    ended = [
        ({"outcome": word, "window": window}, census.ended_since(word, minutes))
        for word in ("completed", "failed")
        for window, minutes in (("1h", 60), ("1d", 24 * 60))
    ]
    runs = [
        ({"worker": worker["name"], "host": worker["host"]}, float(worker["jobs_done"]))
        for worker in workers
        if worker["state"] != "dead"
    ]
    quantiles = [
        ({"quantile": f"{share:g}"}, value)
        for share in _QUANTILES
        if (value := quantile(durations, share)) is not None
    ]
    families: list[tuple[str, str, str, Iterable[Sample]]] = [
        ("build_info", "gauge", "Always 1; the version of queuectl.", [({"version": __version__}, 1)]),
        (
            "jobs",
            "gauge",
            "Jobs in the spool, by state.",
            [({"state": word}, count) for word, count in counts.as_dict().items()],
        ),
        (
            "oldest_waiting_seconds",
            "gauge",
            "Since the first pending job was due; 0 if none.",
            [({}, oldest)],
        ),
        ("paused", "gauge", "Whether workers are held back.", [({}, float(requests.is_paused(root)))]),
        ("workers", "gauge", "Workers, by state.", [({"state": one}, states[one]) for one in WORKER_STATES]),
        ("worker_runs_total", "counter", "Runs ended by a worker since it started.", runs),
        (
            "runs_ended",
            "gauge",
            "Runs that ended in the last hour or day, by the files in done/, failed/ and dead/.",
            ended,
        ),
        (
            "run_duration_seconds",
            "gauge",
            "Duration of the last runs of the jobs that completed last, at most 200.",
            quantiles,
        ),
    ]
    return "".join(_family(*family) for family in families)


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP queuectl_{name} {meaning}", f"# TYPE queuectl_{name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(
            f"queuectl_{name}{{{inside}}} {value:.10g}" if inside else f"queuectl_{name} {value:.10g}"
        )
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return visible(value).replace("\\", r"\\").replace('"', r"\"")
