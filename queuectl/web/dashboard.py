"""What all requests share: the spool, what was last seen of it, and what this server allows."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from queuectl import settings
from queuectl.job.model import ID, State
from queuectl.spool import jobs, requests
from queuectl.spool.jobs import Found
from queuectl.spool.names import name_in
from queuectl.spool.onlooker import Onlooker
from queuectl.spool.recovery import StillRuns
from queuectl.system import files
from queuectl.view import dead_letters, explain
from queuectl.view.census import Census, Watch
from queuectl.view.dead_letters import DeadLetters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from queuectl.api import Spool
    from queuectl.settings import Settings
    from queuectl.spool.names import Name
    from queuectl.spool.recovery import StopRemains

#: A page waits so long for a fresh look at the directories; then it shows the last one.
PATIENCE = 0.1
#: Seconds that may go into reading reasons of dead letters for one page.
READING = 0.1
#: On a share, workers are looked at no more often than every so many seconds.
SHARED = 2.0


def leave_remains(*_: object) -> None:
    """Leave what a dead worker started to the next worker: it may still run."""
    raise StillRuns(None)


class Dashboard:
    """One spool, looked at by many; it keeps nothing that the directories do not tell."""

    def __init__(
        self,
        spool: Spool,
        *,
        read_only: bool = False,
        allow_submit: bool = False,
        stop_remains: StopRemains | None = None,
    ) -> None:
        self.spool = spool
        #: Ends what is left of the command of a dead worker, where this process may.
        self.stop_remains = stop_remains or leave_remains
        self.read_only = read_only
        self.allow_submit = allow_submit
        self.watch = Watch(Census(spool.root))
        #: What has been read of the dead jobs: a value, replaced as a whole.
        self._letters = DeadLetters()
        #: The settings, read again when the file has changed.
        self.live = settings.Live(spool.root.text, spool.root.medium)
        self.onlooker = Onlooker(spool.root)
        self._workers: list[dict[str, Any]] = []
        self._workers_at = float("-inf")
        #: Whether the queue was paused when that was last looked at.
        self.was_paused = False

    @property
    def takes_jobs(self) -> bool:
        """Whether jobs may be filed from the page."""
        return self.allow_submit and not self.read_only

    def close(self, seconds: float | None = None) -> None:
        """Look no more; a look under way is waited for, so many seconds at most."""
        self.watch.close(seconds)

    def settings(self) -> Settings:
        """The values in force; those last known where config.yaml is broken."""
        return self.live.now()

    def look(self, seconds: float = PATIENCE) -> Census:
        """The census, as fresh as can be had in so many seconds."""
        return self.watch.fresh(seconds)

    def lately(self) -> Census:
        """The census of the last second: one page more is no reason to list all directories."""
        return self.watch.lately(PATIENCE)

    def workers(self) -> list[dict[str, Any]]:
        """Every worker: who it is, whether it lives, what it does. A share is not asked for each page."""
        clock = time.monotonic()
        if not self.spool.root.medium.is_remote or clock - self._workers_at > SHARED:
            self._workers = explain.workers(self.spool.root, self.spool.live.now(), self.onlooker)
            self._workers_at = clock
        return self._workers

    def last_workers(self) -> list[dict[str, Any]]:
        """The workers as they were last seen; nothing is looked at."""
        return self._workers

    def is_paused(self) -> bool:
        """Whether claims are held back now."""
        self.was_paused = requests.is_paused(self.spool.root)
        return self.was_paused

    def find(self, job_id: str) -> Found | None:
        """The job of exactly this id, read; None where there is none. The id may be any text."""
        if not ID.fullmatch(job_id):
            return None
        for _ in range(3):
            for found in self._seen(job_id):
                if (reading := self._read(found)) is not None:
                    return reading
            # One filed this moment, or at the moment of a move, is in no listing.
            present = [found for found in jobs.names_of(self.spool.root, job_id) if found.id == job_id]
            for found in present:
                if (reading := self._read(found)) is not None:
                    return reading
            if not present:
                return None
        return None

    def _seen(self, job_id: str) -> Iterator[Found]:
        """Where it was seen last and, as it moves on under the same name, where it goes from there."""
        for state, text in self.lately().lookup(job_id):
            name = name_in(state, text)
            if name is not None:
                yield self._at(state, name)
                if state is State.PROCESSING:
                    for next_state in (State.DONE, State.DEAD):
                        yield self._at(next_state, name.free())

    def _at(self, state: State, name: Name) -> Found:
        return Found(state, name, f"{self.spool.root.folder(state)}/{name}")

    def _read(self, found: Found) -> Found | None:
        """The job; None where it has moved. One that the disk does not give hides no other one."""
        try:
            return jobs.read(found)
        except OSError as error:
            self.spool.root.require()
            return found._replace(unreadable=error.strerror or str(error))

    def read_names(self, state: State, names: Iterable[str]) -> Iterator[Found]:
        """The jobs in these files; those that have moved meanwhile are passed over."""
        for text in names:
            name = name_in(state, text)
            reading = self._read(self._at(state, name)) if name else None
            if reading is not None:
                yield reading

    def dead_letters(self, seconds: float | None = None, patience: float = PATIENCE) -> DeadLetters:
        """The dead jobs, newest first, and what could be read of them in `READING`, or so many seconds.

        Race: of two who read at once the later one's value stays; what the other one has read
        beside that is read again.
        """
        names = self.look(patience).listing(State.DEAD).names[::-1]
        root = self.spool.root
        self._letters = told = self._letters.learn(
            names, READING if seconds is None else seconds, partial(dead_letters.read_letter, root)
        )
        return told

    def file_bytes(self, found: Found) -> bytes | None:
        """The file as it is; None where it has moved or is none that can be read."""
        try:
            return files.read(found.path, files.MAX_WITH_HISTORY)
        except OSError:
            return None
