"""How a batch stands: counts, rate, time left, failures by their reasons, and the slowest runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from queuectl.job.model import State
from queuectl.spool import batches, jobs, requests
from queuectl.system import files
from queuectl.view import estimate, lookup
from queuectl.view.dead_letters import kind_of
from queuectl.view.workers import alive, workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from typing import Any

    from queuectl.settings import Settings
    from queuectl.spool.jobs import Found
    from queuectl.spool.root import Root

#: At most so many files of each state are read, evenly chosen, and so many of the slowest are named.
READ, SLOWEST = 2000, 5
#: How many ids stand beside a reason.
SOME = 5
_GOING = frozenset({"pending", jobs.SCHEDULED, "processing", "failed"})


class Failure(NamedTuple):
    """Jobs that failed in the same way: how many, and some of their ids."""

    reason: str
    number: int
    ids: tuple[str, ...]


class Standing(NamedTuple):
    """How a batch stands. `filed` of `size` members are in the spool; `rate` is ends per second lately.

    `seconds_left` is None where nothing can be said, for the reason `unknown`. Where more than `READ` members
    have ended, `failures`, `slowest` and `average` are of an even sample.
    """

    name: str
    size: int
    filed: int
    is_filed: bool
    counts: dict[str, int]
    rate: float | None
    seconds_left: float | None
    unknown: str
    average: float | None
    failures: tuple[Failure, ...]
    slowest: tuple[tuple[str, float], ...]
    #: Where its members lay, not read: running ones, waiting ones, then those that have ended.
    members: tuple[Found, ...]

    @property
    def ended(self) -> int:
        """How many members are completed or dead."""
        return self.counts.get("completed", 0) + self.counts.get("dead", 0)

    @property
    def attention(self) -> list[str]:
        """What a person should know and can do, in sentences."""
        found = []
        if self.filed < self.size and not self.is_filed:
            line = f"the line that began it, with --batch {self.name} --resume, files the others"
            found.append(f"{self.filed:,} of {self.size:,} are filed: {line}.")
        if self.counts.get("dead"):
            again = f"`queuectl retry {self.name}` runs them again"
            found.append(f"{self.counts['dead']:,} dead: {again}.")
        return found

    def as_dict(self) -> dict[str, Any]:
        """The documented JSON object of `status BATCH --json`."""
        return {
            "batch": self.name,
            "size": self.size,
            "filed": self.filed,
            "counts": self.counts,
            "ended_per_second": self.rate,
            "seconds_left": self.seconds_left,
            "average_duration_seconds": self.average,
            "failures": [one._asdict() for one in self.failures],
            "slowest": [{"id": job_id, "seconds": seconds} for job_id, seconds in self.slowest],
            "attention": self.attention,
        }


def standing(root: Root, name: str, values: Settings, now: datetime) -> Standing | None:
    """How a batch stands now, from one look at the directories; None where there is no such batch."""
    if not batches.is_taken(root, name):
        return None
    batch = batches.read(root, name)
    size = batches.size_of(root, name) or 0
    found = members(root, name)
    labels = Counter(one.label(now) for one in found)
    ended = [one for one in found if one.state in {State.DONE, State.DEAD}]
    ends = sorted(filter(None, map(_written, ended)))
    going = [one for one in found if one.label(now) in _GOING]
    last_due = max((one.name.due_at.timestamp() for one in going), default=0.0)
    unknown = _hindrance(root, values) if going else ""
    if not going and len(ended) < len(found):
        unknown = "those that are left are held, or wait for others"
    seconds = estimate.of_batch(ends, len(going), now.timestamp(), last_due)
    runs = _durations(one for one in _sample(ended) if one.state is State.DONE)
    return Standing(
        batch.name if batch else name,
        size,
        len(found),
        batch is not None and batch.is_filed,
        {label: labels[label] for label in lookup.WORDS if label != "done"},
        estimate.rate(ends, now.timestamp() if going else ends[-1] if ends else 0.0),
        None if unknown else seconds,
        unknown or ("too few have ended" if seconds is None else ""),
        sum(runs.values()) / len(runs) if runs else None,
        _failures(_sample([one for one in found if one.state in {State.FAILED, State.DEAD}])),
        tuple(sorted(runs.items(), key=lambda run: -run[1])[:SLOWEST]),
        tuple(sorted(found, key=lambda one: jobs.ORDER.index(one.state))),
    )


def members(root: Root, name: str) -> list[Found]:
    """The members of a batch, not read, in the order of their numbers."""
    wanted = name.lower()
    found = {
        one.id: one for one in jobs.everywhere(root) if (batches.batch_of(one.id) or "").lower() == wanted
    }
    return sorted(found.values(), key=lambda one: batches.number_of(one.id))


def _hindrance(root: Root, values: Settings) -> str:
    if requests.is_paused(root):
        return "the queue is paused"
    return "" if alive(workers(root, values)) else "no worker is alive"


def _written(found: Found) -> float:
    try:
        return files.modified(found.path)
    except FileNotFoundError:  # it has moved meanwhile
        return 0.0


def _sample(found: Sequence[Found]) -> Iterable[Found]:
    """At most `READ` of these, evenly chosen, read."""
    some = found[:: max(1, -(-len(found) // READ))]
    return [reading for one in some if (reading := jobs.read(one))]


def _durations(found: Iterable[Found]) -> dict[str, float]:
    seconds = {one.id: lookup.exit_of(one.job).get("seconds") for one in found}
    return {job_id: float(one) for job_id, one in seconds.items() if isinstance(one, int | float)}


def _failures(found: Iterable[Found]) -> tuple[Failure, ...]:
    """The reasons why jobs failed, the most frequent one first."""
    ids: dict[str, list[str]] = defaultdict(list)
    for one in found:
        ids[kind_of(_reason(one))].append(one.id)
    made = (Failure(reason, len(some), tuple(some[:SOME])) for reason, some in ids.items())
    return tuple(sorted(made, key=lambda one: -one.number))


def _reason(found: Found) -> str:
    if found.state is State.DEAD:
        return lookup.reason_for(found)
    return str(lookup.exit_of(found.job).get("error") or "failed")
