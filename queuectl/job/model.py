"""What a job is: its fields, its states, and the moves between them."""

from __future__ import annotations

import re
from enum import StrEnum
from types import MappingProxyType

from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from queuectl.job.history import Event


class State(StrEnum):
    """The state of a job; the value is the name of its directory."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def label(self) -> str:
        """The word in output: `completed` for done."""
        return "completed" if self is State.DONE else self.value


#: All allowed moves.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.PROCESSING, State.DEAD}),
    State.FAILED: frozenset({State.PROCESSING, State.DEAD, State.PENDING}),
    State.PROCESSING: frozenset({State.DONE, State.FAILED, State.DEAD, State.PENDING}),
    State.DONE: frozenset({State.PENDING}),
    State.DEAD: frozenset({State.PENDING}),
}
#: The pattern of an id.
ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
#: The name of a group of jobs that share slots. `held` has a meaning of its own in file names.
GROUP = r"(?!held(?![a-z0-9_-]))[a-z0-9][a-z0-9_-]{0,23}"
MOST_SLOTS = 999
#: The most jobs that one job may wait for; more are one batch.
MOST_AFTER = 1000
MAX_COMMAND = 48 * 1024
MAX_LAUNCHER = 4096
#: How a job may have to end before another that runs after it: with success, in any way, failed for good.
ENDINGS = ("ok", "any", "failed")
#: For how long a job holds its unique key: until it has ended, or until it starts.
ACTIVE, UNSTARTED = "active", "waiting"
#: The launcher of jobs that run on the worker's host.
HERE = "none"
URGENT = 10


def is_id(text: str) -> bool:
    """Whether a job may have this id."""
    return re.fullmatch(ID, text) is not None


class Job(NamedTuple):
    """A command and how to run it. For None the settings apply when it runs."""

    command: str | tuple[str, ...]
    id: str | None = None
    priority: int | None = None
    run_at: datetime | None = None
    max_retries: int | None = None
    timeout: float | None = None
    backoff_base: float | None = None
    cwd: str | None = None
    env: Mapping[str, str] = MappingProxyType({})
    launcher: str | None = None
    #: The ids or batches that it runs after, each with the ending that it wants: a word of `ENDINGS`.
    after: Mapping[str, str] = MappingProxyType({})
    #: The group of whose slots it needs some to run, and how many; None stands for one.
    group: str | None = None
    slots: int | None = None
    #: Of the jobs with the same key, one waits or runs.
    unique: str | None = None
    #: `ACTIVE` (as for None), `UNSTARTED`, or the seconds from the filing for which the key is taken.
    unique_for: str | float | None = None
    #: The spool and the id of the job that was moved here.
    moved_from: str | None = None
    created_at: datetime | None = None
    history: tuple[Event, ...] = ()

    @property
    def command_line(self) -> str:
        """The command in shell syntax."""
        if isinstance(self.command, str):
            return self.command
        import shlex

        return shlex.join(self.command)
