"""Which jobs a command is for: ids and batches, or filters that all must hold, the same for every command."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import QueueError
from queuectl.job.model import State
from queuectl.spool import batches, jobs
from queuectl.system import files
from queuectl.view import lookup

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from queuectl.spool.jobs import Found
    from queuectl.spool.root import Root

#: Every label that a job may have.
LABELS = frozenset(word for word in lookup.WORDS if word != "done")


class Selection(NamedTuple):
    """`words` are ids, beginnings of ids, and batches; without any all jobs are meant.

    Each other field that is not empty is a filter: the job has one of these labels, groups and exit statuses,
    its id is like one of these patterns of a shell, and its file is at least `age` seconds old.
    """

    words: tuple[str, ...] = ()
    labels: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    globs: tuple[str, ...] = ()
    exit_codes: frozenset[int] = frozenset()
    age: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether neither jobs nor filters were given."""
        return self == Selection()

    def admits(self, found: Found, labels: Collection[str], now: datetime) -> bool:
        """Whether all filters hold. `labels` are the usual ones, for a selection that names none."""
        return (
            found.label(now) in (self.labels or labels)
            and (not self.globs or any(fnmatchcase(found.id, glob) for glob in self.globs))
            and (self.age is None or _written(found) <= now.timestamp() - self.age)
            and self._admits_content(found)
        )

    def _admits_content(self, found: Found) -> bool:
        """Whether the filters hold for which the file may have to be read."""
        if not self.groups and not self.exit_codes:
            return True
        reading = found if found.job else jobs.read(found)
        job = reading.job if reading else None
        if job is None or (self.groups and job.group not in self.groups):
            return False
        return not self.exit_codes or lookup.exit_of(job).get("exit_code") in self.exit_codes


def _written(found: Found) -> float:
    try:
        return files.mark(found.path).mtime_ns / 1e9
    except FileNotFoundError:  # it has moved, and so changed, meanwhile
        return inf


class Selected(NamedTuple):
    """The jobs of a selection, not read, and the errors with single words of it."""

    found: list[Found]
    errors: list[QueueError]


def select(root: Root, chosen: Selection, usual: Collection[str], now: datetime) -> Selected:
    """Find the jobs of a selection: named ones in their order, then the others in run order.

    `usual` are the labels of members of batches, and of all jobs, that the command is for; a job that is
    named by its id may have any. Looks at each directory once, unless an id is missing.
    """
    names = [word for word in chosen.words if batches.is_taken(root, word)]
    found: dict[str, Found] = {}
    errors: list[QueueError] = []
    for answer in lookup.find_each(root, [word for word in chosen.words if word not in names]).values():
        if isinstance(answer, QueueError):
            errors.append(answer)
        elif chosen.admits(answer, LABELS, now):
            found[answer.id] = answer
    if names or not chosen.words:
        members = _members(root, names, chosen.labels or usual)
        others = [one for one in members if one.id not in found and chosen.admits(one, usual, now)]
        found |= {one.id: one for one in sorted(others, key=_turn)}
    return Selected(list(found.values()), errors)


def _members(root: Root, names: list[str], labels: Collection[str]) -> Iterator[Found]:
    """All jobs, or the members of these batches, in the directories where jobs with these labels may be."""
    states = {state for label in labels for state in lookup.WORDS[label]}
    wanted = {name.lower() for name in names}
    for one in jobs.everywhere(root, states - {State.PROCESSING}):
        if not wanted or (batches.batch_of(one.id) or "").lower() in wanted:
            yield one


def _turn(found: Found) -> tuple[int, str]:
    return jobs.ORDER.index(found.state), str(found.name)


def listed(root: Root, chosen: Selection, now: datetime, limit: int | None) -> Iterator[Found]:
    """The jobs of a selection, read, in the order of `lookup.listing`. Raises an error with a word of it."""
    if chosen.words:
        selected = select(root, chosen, LABELS, now)
        if selected.errors:
            raise selected.errors[0]
        yield from islice((one for found in selected.found if (one := jobs.read(found))), limit)
        return
    word = next(iter(chosen.labels)) if len(chosen.labels) == 1 else None
    is_filtered = chosen._replace(labels=frozenset()) != Selection() or len(chosen.labels) > 1
    found = lookup.listing(root, now, word, None if is_filtered else limit)
    yield from islice((one for one in found if chosen.admits(one, LABELS, now)), limit)
