"""One look at the spool, on which all facts of a page rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl import __version__
from queuectl.errors import NotASpool, QueueError, StorageTrouble
from queuectl.times import iso
from queuectl.view.wording import escaped
from queuectl.view.workers import Worker, alive

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from queuectl.view.census import Census, Counts
    from queuectl.web.dashboard import Dashboard


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the spool, on which all facts of a page rest."""

    dashboard: Dashboard
    census: Census
    now: datetime
    counts: Counts
    workers: list[Worker]
    paused: bool
    trouble: str = ""

    @classmethod
    def take(cls, dashboard: Dashboard, census: Census | None = None) -> Look:
        """Look now. A given census spares listing the directories. Raises `OSError` if the spool is away."""
        dashboard.settings()  # raises if config.yaml is missing: then this is not a spool
        census, now = census or dashboard.look(), dashboard.spool.clock()
        paused, workers = dashboard.is_paused(), dashboard.workers()
        error = dashboard.watch.trouble
        trouble = what_is_wrong(dashboard, error).problem if error else ""
        return cls(dashboard, census, now, census.counts(now), workers, paused, trouble)

    @classmethod
    def remembered(cls, dashboard: Dashboard, trouble: str) -> Look:
        """The last look, without any access to the disk."""
        census, now = dashboard.watch.census, dashboard.spool.clock()
        counts, workers = census.counts(now), dashboard.last_workers
        return cls(dashboard, census, now, counts, workers, dashboard.was_paused, trouble)

    @classmethod
    def at_hand(cls, dashboard: Dashboard) -> Look:
        """A look now or, if the spool is out of reach, the last one."""
        try:
            return cls.take(dashboard)
        except (OSError, NotASpool) as error:
            return cls.remembered(dashboard, what_is_wrong(dashboard, error).problem)

    @property
    def frame(self) -> dict[str, Any]:
        """The facts that every page shows around its own."""
        living = alive(self.workers)
        return {
            "now": iso(self.now),
            "spool": escaped(str(self.dashboard.spool.path)),
            "version": __version__,
            "counts": self.counts.as_dict(),
            "workers_alive": living,
            "workers_busy": sum(worker.state in {"busy", "stopping"} for worker in self.workers),
            "paused": self.paused,
            "read_only": self.dashboard.read_only,
            "allow_submit": self.dashboard.takes_jobs,
            "counting": not self.census.is_whole,
            "trouble": escaped(self.trouble),
        }


def what_is_wrong(dashboard: Dashboard, error: OSError | NotASpool) -> QueueError:
    """That the spool is missing, if it is; otherwise what the disk reported."""
    try:
        dashboard.spool.root.require()
    except NotASpool as missing_:
        return missing_
    except OSError as worse:
        return StorageTrouble(worse)
    return StorageTrouble(error) if isinstance(error, OSError) else error
