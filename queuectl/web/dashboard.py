"""What all requests share: the spool, what was last seen of it, and what this server allows."""

from __future__ import annotations

import time

from queuectl import disk, settings
from queuectl.job import ID, State
from queuectl.spool import explaining, finding
from queuectl.spool.census import Census, Watch
from queuectl.spool.finding import Found
from queuectl.spool.letters import DeadLetters
from queuectl.spool.presence import Onlooker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from queuectl.settings import Settings
    from queuectl.spool.names import Name
    from queuectl.spool.spool import Spool

#: A page waits so long for a fresh look at the directories; then it shows the last one.
PATIENCE = 0.1
#: Seconds that may go into reading reasons of dead letters for one page.
READING = 0.1
#: On a share, workers are looked at no more often than every so many seconds.
SHARED = 2.0


class Dashboard:
    """One spool, looked at by many; it keeps nothing that the directories do not tell."""

    def __init__(self, spool: Spool, *, read_only: bool = False, allow_submit: bool = False) -> None:
        self.spool = spool
        self.read_only = read_only
        self.allow_submit = allow_submit
        self.watch = Watch(Census(spool.root))
        self.letters = DeadLetters(spool.root)
        #: The settings, read again when the file has changed.
        self.live = settings.Live(spool.path)
        self.onlooker = Onlooker(spool.root)
        self._workers: list[dict[str, Any]] = []
        self._workers_at = float("-inf")

    def close(self, seconds: float | None = None) -> None:
        """Look no more; a look under way is waited for, so many seconds at most."""
        self.watch.close(seconds)

    def settings(self) -> Settings:
        """The values in force; those last known where config.yaml is broken."""
        return self.live.now()

    def look(self, seconds: float = PATIENCE) -> Census:
        """The census, as fresh as can be had in so many seconds."""
        return self.watch.fresh(seconds)

    def workers(self) -> list[dict[str, Any]]:
        """Every worker: who it is, whether it lives, what it does. A share is not asked for each page."""
        clock = time.monotonic()
        if not self.spool.root.is_shared or clock - self._workers_at > SHARED:
            self._workers = explaining.workers(self.spool, self.onlooker)
            self._workers_at = clock
        return self._workers

    def find(self, job_id: str) -> Found | None:
        """The job of exactly this id, read; None where there is none. The id may be any text."""
        if not ID.fullmatch(job_id):
            return None
        for _ in range(3):
            for found in self._seen(job_id):
                if (reading := finding.read(found)) is not None:
                    return reading
            # One filed this moment, or at the moment of a move, is in no listing.
            present = [found for found in finding.names_of(self.spool.root, job_id) if found.id == job_id]
            for found in present:
                if (reading := finding.read(found)) is not None:
                    return reading
            if not present:
                return None
        return None

    def _seen(self, job_id: str) -> Iterator[Found]:
        """Where it was seen last and, as it moves on under the same name, where it goes from there."""
        for state, text in self.look().lookup(job_id):
            name = finding.name_in(state, text)
            if name is not None:
                yield self._at(state, name)
                if state is State.PROCESSING:
                    for next_state in (State.DONE, State.DEAD):
                        yield self._at(next_state, name.free())

    def _at(self, state: State, name: Name) -> Found:
        return Found(state, name, f"{self.spool.root.folder(state)}/{name}")

    def read_names(self, state: State, names: Iterable[str]) -> Iterator[Found]:
        """The jobs in these files; those that have moved meanwhile are passed over."""
        for text in names:
            name = finding.name_in(state, text)
            reading = finding.read(self._at(state, name)) if name else None
            if reading is not None:
                yield reading

    def dead_names(self) -> tuple[list[str], int]:
        """The file names of the dead, newest first, and of how many the reasons have not been read yet."""
        names = self.look().listing(State.DEAD).names[::-1]
        return names, self.letters.learn(names, READING)

    def file_text(self, found: Found) -> str | None:
        """The file as it is; None where it has moved or is none that can be read."""
        try:
            return disk.read(found.path, disk.MAX_WITH_HISTORY).decode("utf-8", "replace")
        except OSError:
            return None
