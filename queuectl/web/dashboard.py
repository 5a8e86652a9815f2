"""What all requests share: the spool, the last look at it, and what this server allows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.job.model import State, is_id
from queuectl.spool import jobs, requests
from queuectl.spool.jobs import Found
from queuectl.spool.names import name_in
from queuectl.spool.onlooker import Onlooker
from queuectl.spool.recovery import StillRuns
from queuectl.system import files
from queuectl.view import dead_letters
from queuectl.view.census import Census, Watch
from queuectl.view.dead_letters import DeadLetters
from queuectl.view.standing import standing
from queuectl.view.workers import Worker, workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from queuectl.api import Spool
    from queuectl.settings import Settings
    from queuectl.spool.recovery import StopRemains
    from queuectl.view.standing import Standing

#: A page waits this many seconds for a fresh look at the directories; then it shows the last one.
PATIENCE = 0.1
#: One page may spend this many seconds reading the reasons of dead letters.
READING = 0.1
#: On a share, workers are looked at no more often than once in this many seconds.
SHARED = 2.0


def leave_remains(*_: object) -> None:
    """Leave the processes of a dead worker to the next worker: they may still run."""
    raise StillRuns(None)


class Dashboard:
    """One spool, for many readers. All that it remembers can be read again from the directories."""

    def __init__(
        self,
        spool: Spool,
        *,
        read_only: bool = False,
        allow_submit: bool = False,
        stop_remains: StopRemains = leave_remains,
    ) -> None:
        self.spool = spool
        #: Ends the remaining processes of a dead worker's command, if this process may.
        self.stop_remains = stop_remains
        self.read_only = read_only
        #: Whether jobs may be filed from the page.
        self.takes_jobs = allow_submit and not read_only
        self.watch = Watch(Census(spool.root))
        self.onlooker = Onlooker(spool.root)
        #: The dead jobs read so far: an immutable value that is replaced as a whole.
        self._letters = DeadLetters()
        #: The workers at the last look, and whether the queue was paused then.
        self.last_workers: list[Worker] = []
        self.was_paused = False
        self._workers_at = float("-inf")
        #: How batches stood when they were looked at, and until when that is good enough.
        self._standings: dict[str, tuple[float, Standing]] = {}

    def close(self, seconds: float | None = None) -> None:
        """Stop looking; waits at most `seconds` for a look under way."""
        self.watch.close(seconds)

    def settings(self) -> Settings:
        """The values in force; the last good ones if config.yaml is broken."""
        return self.spool.live.now()

    def look(self, seconds: float = PATIENCE) -> Census:
        """The census after a new look, or the last one if the look takes longer than `seconds`."""
        return self.watch.fresh(seconds)

    def lately(self) -> Census:
        """The census of the last second, which spares a further page listing all directories."""
        return self.watch.lately(PATIENCE)

    def workers(self) -> list[Worker]:
        """Every worker; on a share at most `SHARED` seconds old."""
        now = times.clock.monotonic()
        if not self.spool.root.medium.is_remote or now - self._workers_at > SHARED:
            self.last_workers = workers(self.spool.root, self.settings(), self.onlooker)
            self._workers_at = now
        return self.last_workers

    def is_paused(self) -> bool:
        """Whether the queue is paused now."""
        self.was_paused = requests.is_paused(self.spool.root)
        return self.was_paused

    def find(self, job_id: str) -> Found | None:
        """The job with exactly this id, read; None if there is none. The id may be any text."""
        if not is_id(job_id):
            return None
        for _ in range(jobs.TRIES):
            for state, text in self.lately().lookup(job_id):
                if (seen := next(self.read_names(state, [text]), None)) is not None:
                    return seen
            # Race: a job that has just been filed, or is moving, is in no listing.
            present = [found for found in jobs.names_of(self.spool.root, job_id) if found.id == job_id]
            for found in present:
                if (reading := self._read(found)) is not None:
                    return reading
            if not present:
                return None
        return None

    def standing(self, name: str) -> Standing | None:
        """How a batch stands; None where there is none. Looking takes at most a twentieth of the time."""
        begun = times.clock.monotonic()
        until, known = self._standings.get(name, (0.0, None))
        if known is not None and begun < until:
            return known
        found = standing(self.spool.root, name, self.settings(), self.spool.clock())
        if found is None:
            return None
        now = times.clock.monotonic()
        self._standings = {one: kept for one, kept in self._standings.items() if kept[0] > now}
        self._standings[name] = now + max(1.0, 20 * (now - begun)), found
        return found

    def place(self, state: State, text: str) -> Found | None:
        """The job, not read, in the file of this name; None if it is no name of a job."""
        name = name_in(state, text)
        return Found(state, name, f"{self.spool.root.folder(state)}/{name}") if name else None

    def _read(self, found: Found) -> Found | None:
        """The job; None if it has moved. A file that the disk refuses is a job that is unreadable."""
        try:
            return jobs.read(found)
        except OSError as error:
            self.spool.root.require()
            return found._replace(unreadable=error.strerror or str(error))

    def read_names(self, state: State, names: Iterable[str]) -> Iterator[Found]:
        """The jobs in these files; a job that has moved meanwhile is left out."""
        for text in names:
            found = self.place(state, text)
            if found and (reading := self._read(found)) is not None:
                yield reading

    def dead_letters(self, seconds: float | None = None, patience: float = PATIENCE) -> DeadLetters:
        """The dead jobs, newest first, with the reasons read within `seconds` (by default `READING`).

        Race: of two threads that read at once, the later one's value stays; what only the other one
        read is read again.
        """
        names = self.look(patience).listing(State.DEAD).names[::-1]
        seconds = READING if seconds is None else seconds
        read = partial(dead_letters.read_letter, self.spool.root)
        self._letters = letters = self._letters.learn(names, seconds, read)
        return letters

    def file_bytes(self, found: Found) -> bytes | None:
        """The bytes of the file; None if it has moved or cannot be read."""
        try:
            return files.read(found.path, files.MAX_WITH_HISTORY)
        except OSError:
            return None
