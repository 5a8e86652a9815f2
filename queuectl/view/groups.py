"""Groups as onlookers see them: their slots, who has them, and how many jobs wait."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from queuectl.job.model import State
from queuectl.rules import groups as rules
from queuectl.spool import jobs, tokens
from queuectl.spool.names import group_in, is_sortable, parse_claim

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from queuectl.spool.root import Root


class Group(NamedTuple):
    """One group. `workers` has the worker that has each slot which is in use, by the name of the slot.

    `resting` slots are free, and none of them can be taken yet.
    """

    group: str
    paused: bool
    slots: int
    in_use: int
    resting: int
    running: int
    waiting: int
    rest_seconds: float
    workers: dict[str, str]


def groups(root: Root, now: datetime) -> tuple[Group, ...]:
    """All groups that have a directory or a job, by name."""
    waiting = [text for state in jobs.WAITING for text in root.texts_in(root.folder(state))]
    running = root.texts_in(root.folder(State.PROCESSING))
    return among(root, waiting, running, now)


def among(root: Root, waiting: Iterable[str], running: Iterable[str], now: datetime) -> tuple[Group, ...]:
    """The same from listings: the names of jobs that wait, and of those that run."""
    waits = Counter(group_in(text) for text in waiting if "+" in text and is_sortable(text))
    runs = Counter(
        name.group for text in running if "+" in text and (name := parse_claim(text)) and name.group
    )
    names = {folder.rpartition("/")[2] for folder in tokens.folders(root)} | waits.keys() | runs.keys()
    known = sorted(filter(rules.is_name, names))
    return tuple(one(root, name, waits[name], runs[name], now) for name in known)


def paused(root: Root) -> list[str]:
    """The groups of which no job is started, by name."""
    names = [folder.rpartition("/")[2] for folder in tokens.folders(root)]
    return sorted(name for name in names if rules.is_name(name) and rules.glance(root, name).is_paused)


def one(root: Root, name: str, waiting: int, running: int, now: datetime) -> Group:
    """A group with so many jobs that wait and that run."""
    seen, folder = rules.glance(root, name), rules.folder_of(root, name)
    rests = tokens.Rests().left(folder, seen.free, now)
    return Group(
        group=name,
        paused=seen.is_paused,
        slots=seen.size,
        in_use=len(seen.taken),
        resting=sum(rest > 0 for rest in rests.values()),
        running=running,
        waiting=waiting,
        rest_seconds=max((tokens.rest_of(folder, token) for token in seen.slots), default=0.0),
        workers={token.name: token.owner or "" for token in seen.taken},
    )
