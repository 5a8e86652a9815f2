"""Commands as values: how long one takes, how it ends, and whether it heeds SIGTERM.

`sim SECONDS CODES [stubborn] end` takes some seconds and ends with a status, one a run. The last word
shows that the file was read whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from queuectl.system.processes import Ended

if TYPE_CHECKING:
    from collections.abc import Mapping

    from queuectl.job.history import Event
    from queuectl.settings import Settings
    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root
    from tests.simulation.doors import Wake
    from tests.simulation.world import Machine, Process, Thread, World

SIGTERM, SIGKILL = 143, 137


@dataclass(eq=False)
class Run:
    """One run of a command. It goes on when its worker dies."""

    job_id: str
    attempt: int
    text: str
    #: The name of the claim's file.
    claim: str
    process: Process
    began: float
    ends: float
    code: int
    is_stubborn: bool
    #: The group of the job and the slots that the command was told of.
    group: str | None = None
    slots: frozenset[str] = frozenset()
    was_stopped: bool = False
    waiter: Thread | None = None

    @property
    def machine(self) -> Machine:
        """The host that it runs on."""
        return self.process.machine

    def is_running(self, now: float) -> bool:
        """Whether it has not ended."""
        return now < self.ends

    def end(self, world: World, code: int) -> None:
        """End it now by a signal."""
        if self.is_running(world.time):
            self.was_stopped, self.code, self.ends = True, code, world.time
            if self.waiter is not None:
                world.wake(self.waiter)


class Command:
    """The product's handle on a run: what `system.processes.Command` is to a process."""

    lifeline = None

    def __init__(self, world: World, run: Run, pid: int, began: float) -> None:
        self.pid = pid
        self.began = began
        self.was_cut_off = False
        self._world = world
        self._run = run
        self._seconds: float | None = None

    def identity(self) -> str:
        return f"{self._run.machine.name}.{self._run.machine.boots}/{self.pid}"

    def has_ended(self) -> bool:
        return not self._run.is_running(self._world.time)

    def wait(self, wake: Wake, seconds: float | None) -> None:
        if self.has_ended():
            return
        left = self._run.ends - self._world.time + 1e-6
        if not wake.was_rung:
            wake.waiter = self._run.waiter = getcurrent()
            self._world.pause(left if seconds is None else min(left, seconds))
            wake.waiter = self._run.waiter = None
        if not self.has_ended():
            wake.hush()

    def ask_to_end(self, grace: float) -> float:
        self._signal(SIGTERM)
        return grace

    def kill(self) -> None:
        self._signal(SIGKILL)

    def cut_off(self, *, at_once: bool) -> None:
        self.was_cut_off = True
        self._signal(SIGKILL if at_once else SIGTERM)

    def _signal(self, code: int) -> None:
        self._world.require_alive()
        if code == SIGKILL or not self._run.is_stubborn:
            self._run.end(self._world, code)

    def has_company(self) -> bool:
        return False

    def look_back(self) -> None:
        self._seconds = self._run.ends - self._run.began

    def reap(self) -> Ended:
        self._world.require_alive()
        assert self.has_ended(), "a command is reaped before it has ended"
        seconds = self._world.time - self._run.began if self._seconds is None else self._seconds
        name = {SIGTERM: "SIGTERM", SIGKILL: "SIGKILL"}.get(self._run.code) if self._run.was_stopped else None
        return Ended(self._run.code, name, seconds, 0.0, 0)


class Starter:
    """Starts commands as values: what `worker.commands.Commands` is to real ones."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(
        self, claim: Claim, attempt: int, told: Mapping[str, str], logs: tuple[int, ...], values: Settings
    ) -> Any:
        del logs, values
        world = self._world
        process, clock = world.current, world.monotonic()
        process.machine.last_pid += 1
        text = str(claim.job.command)
        seconds, codes, is_stubborn = _meaning(text)
        number = len(world.runs.get(claim.id, ()))
        code = codes[min(number, len(codes) - 1)]
        run = Run(
            claim.id,
            attempt,
            text,
            str(claim.name),
            process,
            world.time,
            world.time + seconds,
            code,
            is_stubborn,
            claim.name.group,
            frozenset(filter(None, told.get("QUEUECTL_SLOT", "").split(","))),
        )
        world.begin(run)
        return Command(world, run, process.machine.last_pid, clock)

    def clear_up(self) -> None:
        """A command as a value leaves nothing behind."""

    def stop_earlier(self, claim: Claim) -> None:
        """End the runs of a job that go on on this host while its claim is a new one."""
        self.stop_remains(claim.root, claim.name, claim.job.history)

    def stop_remains(self, root: Root, name: Name, history: tuple[Event, ...]) -> None:
        """End the runs of a job that a dead worker left on this host."""
        del root, history
        world = self._world
        for run in world.running(name.id, world.current.machine):
            world.say(world.current, f"ends what is left of {name.id}")
            run.end(world, SIGKILL)


def _meaning(text: str) -> tuple[float, list[int], bool]:
    """The seconds, the status of each run, and whether it ignores SIGTERM; any other text is not found."""
    try:
        _, seconds, codes, *rest = text.split()
        return float(seconds), [int(code) for code in codes.split(",")], "stubborn" in rest
    except ValueError:
        return 0.01, [127], False
