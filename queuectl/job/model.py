"""What a job is: its fields, its states, and the moves between them."""

from __future__ import annotations

import re
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from queuectl.job.history import Event


class State(StrEnum):
    """Where a job is; the value is the name of the directory that holds it."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"

    @property
    def label(self) -> str:
        """The word that people and programs are shown: `completed` for done."""
        return "completed" if self is State.DONE else self.value


#: Every move there is. Whatever is not here is refused.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.PROCESSING, State.DEAD}),
    State.FAILED: frozenset({State.PROCESSING, State.DEAD, State.PENDING}),
    State.PROCESSING: frozenset({State.DONE, State.FAILED, State.DEAD, State.PENDING}),
    State.DONE: frozenset({State.PENDING}),
    State.DEAD: frozenset({State.PENDING}),
}
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_COMMAND = 48 * 1024
MAX_LAUNCHER = 4096
#: The launcher that says: run it here.
HERE = "none"
URGENT = 10


class Job(NamedTuple):
    """What to run and how. None means: not said, the settings decide when it runs."""

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
    created_at: datetime | None = None
    history: tuple[Event, ...] = ()

    @property
    def command_line(self) -> str:
        """The command as one would type it into a shell."""
        if isinstance(self.command, str):
            return self.command
        import shlex

        return shlex.join(self.command)
