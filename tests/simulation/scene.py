"""A schedule written by hand: hosts, workers and people as a test asks for them.

    with Scene("nfs") as scene:
        one, two = scene.host("one"), scene.host("two")
        scene.worker(one)
        job = scene.file(one, "sim 15 0 end")
        scene.until(lambda: scene.running(job))
        scene.cut_off(one, seconds=20)
        scene.worker(two)
        scene.settle()
        assert scene.state(job) is State.DONE

A command is `sim SECONDS CODES [stubborn] end`. Time passes in `run`, `until`, `act`, `file` and `settle`
alone; each raises `Violation` at the step that breaks a promise. A share is one of `shares.PROFILES` or made
with `shares.Share`. The lease is `rules.LEASE`.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Self

from queuectl.job.model import State
from queuectl.spool import jobfile
from tests.simulation import doors, faults, people
from tests.simulation.plan import CONFIG, PATIENCE, calm, is_quiet
from tests.simulation.shares import PROFILES
from tests.simulation.worker import employ
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from queuectl.job.history import Event
    from tests.simulation.commands import Run
    from tests.simulation.shares import Share
    from tests.simulation.world import Machine, Process


class Scene:
    """A world that a test directs. `seed` draws how long each call takes, and so the order of all calls."""

    def __init__(self, share: Share | str = "local", seed: int = 0, *, may_lose_power: bool = False) -> None:
        given = PROFILES[share] if isinstance(share, str) else share
        self.world = World(random.Random(seed), given, is_rough=False)
        self.world.disk.may_lose_power = may_lose_power
        self._doors = doors.open_to(self.world)

    def __enter__(self) -> Self:
        self._doors.__enter__()
        self.world.make_spool(CONFIG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._doors.__exit__(kind, error, trace)

    # ── who is there ──────────────────────────────────────────────────────────────────────

    def host(self, name: str) -> Machine:
        """Add a host."""
        return self.world.machine(name)

    def worker(self, host: Machine, *, drains: bool = False) -> Process:
        """Start a worker on a host."""
        return employ(self.world, host, awaited=frozenset() if drains else None)

    def act(self, host: Machine, does: Callable[..., None], *given: object) -> None:
        """Let somebody on a host do something to its end: `does` gets the world, as those of `people` do."""
        process = self.world.start(host, "person", partial(does, self.world, *given))
        self.until(lambda: process.is_dead)

    def file(self, host: Machine, command: str, job_id: str = "job", priority: int | None = None) -> str:
        """`queuectl enqueue`, again where the share reports an error; returns the id."""
        while job_id not in self.world.auditor.printed:
            self.act(host, people.file, job_id, command, priority, 0.0)
        return job_id

    # ── time ──────────────────────────────────────────────────────────────────────────────

    def run(self, seconds: float) -> None:
        """Let everybody go on for some seconds."""
        self.world.run_until(self.world.time + seconds)

    def until(self, is_so: Callable[[], object], most: float = 300.0) -> None:
        """Let everybody go on, a call at a time, until something is so; an `AssertionError` after `most`."""
        if not is_so():
            self.world.run_until(self.world.time + most, lambda: bool(is_so()))
        assert is_so(), f"it is not so after {most} seconds"

    def settle(self) -> None:
        """End all faults, let everybody go on until nothing waits or runs, and ask what must hold then."""
        calm(self.world)
        end = self.world.time + PATIENCE
        while self.world.time < end and not is_quiet(self.world):
            self.run(1.0)
        self.world.auditor.at_the_end()

    # ── what goes wrong ───────────────────────────────────────────────────────────────────

    def cut_off(self, host: Machine, seconds: float) -> None:
        """Let a host not reach the share."""
        faults.cut_off(self.world, host, seconds)

    def cut_off_in_a_run(self, calls: int, seconds: float) -> None:
        """Cut off the host that starts the next command, in the n-th call after the start."""
        faults.cut_off_in_a_run(self.world, calls, seconds)

    def stop(self, process: Process, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after some seconds."""
        process.stop(self.world.time, seconds)

    def kill(self, process: Process, calls: int = 0) -> None:
        """SIGKILL, at once or at the n-th system call from now."""
        if calls:
            process.dies_in = calls
        else:
            self.world.kill(process)

    def lose_power(self, host: Machine) -> None:
        """Cut the power of a host: a local disk and unflushed writes lose what was not synced."""
        self.world.reboot(host)
        if self.world.share.kind == "ext4":
            self.world.disk.cut_power(self.world.luck)
            self.world.auditor.lost_power()

    def restart_server(self) -> None:
        """Let the server lose its power, and be back after a second."""
        faults.restart(self.world, 1.0)

    # ── what there is ─────────────────────────────────────────────────────────────────────

    def state(self, job_id: str) -> State:
        """Where the file of a job is."""
        (path,) = self.world.auditor.places[job_id]
        return State(path.split("/")[2])

    def history(self, job_id: str) -> tuple[Event, ...]:
        """The events in the file of a job."""
        (path,) = self.world.auditor.places[job_id]
        inode = self.world.disk.find(path)
        assert inode is not None
        return jobfile.parse(inode.data).job.history

    def runs(self, job_id: str) -> list[Run]:
        """The runs of a job, the first first."""
        return self.world.runs.get(job_id, [])

    def running(self, job_id: str) -> list[Run]:
        """Those that have not ended."""
        return self.world.running(job_id)
