"""How the command of a claim is started: with which variables, where, and by whom."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from queuectl.job.model import HERE
from queuectl.system import processes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.job.history import Event
    from queuectl.settings import Settings
    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root
    from queuectl.system.processes import Command


class Starter(Protocol):
    """What starts the commands of claims. A simulation hands in its own."""

    def start(
        self, claim: Claim, attempt: int, told: Mapping[str, str], logs: tuple[int, ...], values: Settings
    ) -> Command:
        """Start a command that finds the variables `told`.

        Raises `Cannot`, which fails the job, and `Lacking`, which is tried again.
        """

    def clear_up(self) -> None:
        """End what a reaped command has left behind."""

    def stop_remains(self, root: Root, name: Name, history: tuple[Event, ...]) -> None:
        """End what the command of a dead worker has left on this host: see `recovery.StopRemains`."""

    def stop_earlier(self, claim: Claim) -> None:
        """End what earlier runs of this claim's job have left on this host. Raises `StillRuns`."""


class Commands:
    """Starts the commands of one spool on this host, or by the launcher that the job or the config names."""

    def __init__(self, root: Root) -> None:
        self._identity = root.identity
        self._spool = processes.decoded(os.fsencode(root.text))
        self._inherited = dict(os.environb)
        self._home = processes.decoded(os.fsencode(processes.own_directory()))

    def start(
        self, claim: Claim, attempt: int, told: Mapping[str, str], logs: tuple[int, ...], values: Settings
    ) -> Command:
        """Start a command. Raises `Cannot` and `Lacking`, as `processes.start` does."""
        job = claim.job
        told = {
            **job.env,
            **told,
            "QUEUECTL_JOB_ID": claim.id,
            "QUEUECTL_ATTEMPT": str(attempt),
            "QUEUECTL_SPOOL": self._spool,
            "QUEUECTL_SPOOL_ID": self._identity,
        }
        if (values.launcher if job.launcher is None else job.launcher) == HERE:
            # A shell finds out by itself where it is. A list of words has no shell, and is told.
            told.setdefault("PWD", self._home if job.cwd is None else os.path.join(self._home, job.cwd))
            return processes.start(job.command, logs, job.cwd, self._environment(told))
        from queuectl.worker.launcher import GRACE, launch

        handed = launch(job, values, told)
        environment = self._environment({**told, GRACE: f"{values.stop_grace_seconds:g}"})
        if handed.lifeline:
            return processes.start_on_lifeline(handed.words, logs, environment)
        return processes.start(handed.words, logs, None, environment)

    def clear_up(self) -> None:
        """Kill and reap whatever a reaped command left outside its session."""
        processes.end_orphans()

    def stop_remains(self, root: Root, name: Name, history: tuple[Event, ...]) -> None:
        """End what the command of a dead worker has left on this host."""
        from queuectl.worker.remains import stop_remains  # and psutil, which few workers need

        stop_remains(root, name, history)

    def stop_earlier(self, claim: Claim) -> None:
        """End what earlier runs of this claim's job have left on this host."""
        from queuectl.worker.remains import stop_earlier  # and psutil, which few workers need

        stop_earlier(claim)

    def _environment(self, told: Mapping[str, str]) -> dict[bytes, bytes]:
        """The worker's own environment (encoded once for all), the job's, and the variables of the queue."""
        mine = {processes.encoded(name): processes.encoded(text) for name, text in told.items()}
        return self._inherited | mine
