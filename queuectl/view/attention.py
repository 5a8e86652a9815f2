"""What a person should look at: findings as data, and the sentence for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queuectl import settings
from queuectl.errors import BadSetting
from queuectl.job.model import State
from queuectl.spool import holds, presence, requests
from queuectl.spool.names import Kind, classify, parse
from queuectl.system import files
from queuectl.view import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from queuectl.spool.root import Root
    from queuectl.view.lookup import Counts

SENTENCES = {
    "paused": "Paused: no new job is started; `queuectl resume` ends that.",
    "no-worker": "No worker is alive; `queuectl worker start` starts one.",
    "frozen": "Worker {name}: its process is there, but shows no sign of life; if it is stopped, "
    "{how_to_wake} lets it go on.",
    "died": "{number} died at work: the next worker, or `queuectl check --repair`, takes over its jobs.",
    "dead-jobs": "{number} dead: see `queuectl dlq list`.",
    "held": "Job {job} waits for a program that is writing to its file, {path}.",
    "dropped": "{number} dropped in pending/, not taken in by a worker yet ({first}).",
    "stranger": "1 file or folder that is no job is left alone ({some}): see `queuectl check`.",
    "strangers": "{number} files or folders that are no jobs are left alone ({some}): see `queuectl check`.",
    "bad-config": "{problem} Workers keep the last good values.",
}


class Finding(NamedTuple):
    """One thing to look at: its kind, a key of the sentences above or `clock`, and what they name."""

    kind: str
    facts: Mapping[str, Any] = {}


def worded(finding: Finding) -> str:
    """The sentence for a finding, with commands in backticks."""
    if finding.kind == "clock":
        return presence.clock_warning(finding.facts["offset"], finding.facts["host"])
    return SENTENCES[finding.kind].format(**finding.facts)


def findings(
    root: Root, counts: Counts, workers: Sequence[dict[str, Any]], now: datetime
) -> Iterator[Finding]:
    """Everything that a person should look at; nothing if all is well. `workers` are `explain.workers`."""
    if requests.is_paused(root):
        yield Finding("paused")
    if (counts.pending or counts.failed) and not explain.alive(workers):
        yield Finding("no-worker")
    yield from _workers(workers)
    if counts.dead:
        yield Finding("dead-jobs", {"number": counts.dead})
    if counts.first_due:
        yield from _held(root, counts.first_due, now)
    yield from _strangers(root, counts.strangers)
    try:
        settings.load(root.text)
    except BadSetting as error:
        yield Finding("bad-config", {"problem": str(error)})


def _workers(workers: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """Workers that are frozen or dead, and hosts whose clock is wrong."""
    for worker in workers:
        if worker["state"] == "frozen":
            yield Finding("frozen", worker)
    living = [worker for worker in workers if explain.lives(worker)]
    if len(workers) > len(living):
        yield Finding("died", {"number": len(workers) - len(living)})
    clocks = {worker["host"]: worker["clock_offset_seconds"] or 0.0 for worker in living}
    for host, offset in sorted(clocks.items()):
        if abs(offset) > presence.TOLERANCE:
            yield Finding("clock", {"host": host, "offset": offset})


def _held(root: Root, text: str, now: datetime) -> Iterator[Finding]:
    """The job that has waited longest, if a program that writes to its file holds it up."""
    name = parse(text)
    if name is None or (now - name.due_at).total_seconds() < holds.LONG_HELD:
        return
    path = f"{root.folder(State.PENDING)}/{text}"
    try:
        if not root.medium.tells_writers:
            is_open = holds.may_be_open(files.mark(path).mtime_ns / 1e9, now.timestamp())
        else:
            is_open = root.medium.being_written(path) is True
    except FileNotFoundError:
        return
    if is_open:
        yield Finding("held", {"job": name.id, "path": path})


def _strangers(root: Root, texts: Sequence[str]) -> Iterator[Finding]:
    """Drops that no worker has taken in yet, and what is left alone."""
    drops = [text for text in texts if _is_drop(root, text)]
    if drops:
        yield Finding("dropped", {"number": len(drops), "first": drops[0].partition("/")[2]})
    known = set(drops)
    strange = [text for text in texts if text not in known]
    if strange:
        kind = "stranger" if len(strange) == 1 else "strangers"
        yield Finding(kind, {"number": len(strange), "some": ", ".join(strange[:3])})


def _is_drop(root: Root, text: str) -> bool:
    """Whether a worker will take this in as a job."""
    folder, _, name = text.partition("/")
    is_file = folder == State.PENDING and classify(State.PENDING, name) is Kind.DROP
    return is_file and not files.is_folder(f"{root.text}/{text}")
