"""A worker process: the product's worker with its threads, kept running as a service manager does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import QueueError
from queuectl.spool import descriptions
from queuectl.worker import loop
from queuectl.worker.trouble import may_pass
from tests.simulation.auditor import Violation
from tests.simulation.commands import Starter

if TYPE_CHECKING:
    from threading import Thread

    from queuectl.job.model import State
    from queuectl.worker.waits import Wait
    from tests.simulation.world import Machine, Process, World

#: The processor time of a step in seconds, and how many steps a second show a worker that waits for nothing.
STEP, SPINNING = 1e-4, 2000


class Worker(loop.Worker):
    """The product's worker; its threads are those of the simulation."""

    def __init__(self, world: World, awaited: frozenset[State] | None) -> None:
        self._world = world
        self._second, self._steps = 0, 0
        kind = descriptions.DETACHED if awaited is None else descriptions.DRAIN
        super().__init__(world.root(), kind, awaited=awaited, starter=Starter(world))

    def step(self) -> Wait:
        world = self._world
        world.pause(STEP)
        if int(world.time) != self._second:
            self._second, self._steps = int(world.time), 0
        self._steps += 1
        if self._steps > SPINNING:
            raise Violation(f"{world.current} steps {SPINNING} times in a second: it spins")
        return super().step()

    def _begin(self, thread: Thread) -> None:
        self._world.thread(self._world.current, thread.run)


def employ(
    world: World, machine: Machine, delay: float = 0.0, awaited: frozenset[State] | None = None
) -> Process:
    """Start a worker on a host. With `awaited` it drains."""

    def main() -> None:
        while not process.is_to_stop:
            try:
                worker = process.worker = Worker(world, awaited)
                world.say(process, f"works as {worker.name}")
                if process.is_to_stop:
                    worker.ask_to_stop()
                worker.run()
            except (OSError, QueueError) as problem:
                if isinstance(problem, OSError) and not may_pass(problem):
                    raise
                world.say(process, f"fails: {problem}")
                times.clock.sleep(1.0)
            else:
                return

    process = world.start(machine, "worker", main, delay)
    process.drains = awaited is not None
    return process
