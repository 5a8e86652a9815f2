"""Many hosts in one thread: true time, a scheduler, processes and their threads, and what runs.

A process is one or more greenlets. Each goes on until its next system call or sleep; then the one
whose time comes first goes on. How long a call takes is drawn from the seed, and so is the order.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import traceback
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

from queuectl.spool.root import FOLDERS, Root
from tests.simulation.auditor import Auditor, Violation
from tests.simulation.doors import EPOCH
from tests.simulation.files import Disk, Inode, error
from tests.simulation.kernel import Kernel, Mount

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from datetime import datetime

    from tests.simulation.commands import Run
    from tests.simulation.doors import SimulatedEar
    from tests.simulation.shares import Share
    from tests.simulation.worker import Worker

SPOOL = "/spool"
#: Where schedules differ in this, one call in so many takes seconds: the disk, the net or the process stalls.
_STALLS = 400
#: A call or a stop that takes longer than this, in seconds, hinders a process.
_LONG = 0.3


class Ended(BaseException):
    """Unwinds the greenlets of a process that has died. It can do nothing more."""


class Thread(greenlet):
    """One thread of a process."""

    def __init__(self, process: Process, act: Callable[[], None], hub: greenlet) -> None:
        super().__init__(parent=hub)
        self.process = process
        self.turn = 0
        self._act = act

    def run(self) -> None:
        """Act until the end, or until the process dies."""
        with contextlib.suppress(Ended):
            self._act()


class Machine:
    """A host: its clock, its view of the disk, and its processes."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.mount = Mount(world.disk, world.share, world.luck, lambda: world.time)
        #: Seconds by which the wall clock is ahead, and by which it gains each second since then.
        self.offset, self.drift, self.drifts_since = 0.0, 0.0, 0.0
        self.clock_was_set = False
        self.boots = 1
        self.booted_at = 0.0
        #: What the monotonic clock shows when the host starts: each host counts from another second.
        self.counts_from = world.luck.uniform(1.0, 1e6)
        self.heals_at = 0.0
        self.last_pid = 100
        self.processes: list[Process] = []

    def wall_time(self, time: float) -> float:
        """What the wall clock shows, in seconds since true time began."""
        return time + self.offset + (time - self.drifts_since) * self.drift

    def set_clock(self, time: float, offset: float, drift: float = 0.0) -> None:
        """Set the wall clock, and how much it gains each second."""
        self.offset, self.drift, self.drifts_since = offset, drift, time
        self.clock_was_set = True


class Process:
    """A simulated process. `dies_in` and `fails_in` count system calls, None for never."""

    def __init__(self, machine: Machine, what: str) -> None:
        machine.last_pid += 1
        self.machine = machine
        self.pid = machine.last_pid
        self.what = what
        self.is_dead = False
        self.is_to_stop = False
        #: Whether its worker ends by itself once nothing is left to run now.
        self.drains = False
        #: The name under which a request in the spool asks its worker to stop.
        self.asked_as: str | None = None
        self.worker: Worker | None = None
        self.stopped_until = 0.0
        #: Until when something outside held it up: a call that took long or failed, SIGSTOP, a host cut off.
        self.hindered_until = float("-inf")
        self.dies_in: int | None = None
        self.fails_in: tuple[int, int] | None = None
        #: What happens at a system call, that many from now.
        self.at_call: tuple[int, Callable[[], None]] | None = None
        self.threads: list[Thread] = []
        self.main: Thread | None = None

    def __str__(self) -> str:
        return f"{self.machine.name}/{self.what}-{self.pid}"

    def is_to_end(self) -> bool:
        """Whether its worker was asked to stop, and has not taken another name since."""
        if self.is_to_stop or self.worker is None or self.asked_as != self.worker.name:
            return self.is_to_stop
        return self.machine.mount.disk.find(f"{SPOOL}/workers/{self.asked_as}.stop") is not None

    def is_to_stay(self) -> bool:
        """Whether it is a worker that goes on until it is asked to stop."""
        return self.what == "worker" and not self.drains and not self.is_to_end()

    def stop(self, now: float, seconds: float) -> None:
        """SIGSTOP now, and SIGCONT after these seconds."""
        self.stopped_until = max(self.stopped_until, now + seconds)
        self.is_hindered(self.stopped_until)

    def is_hindered(self, until: float) -> None:
        """Note that something outside holds it up until then."""
        self.hindered_until = max(self.hindered_until, until)

    def was_free_since(self, moment: float) -> bool:
        """Whether nothing outside has held it up since then."""
        return self.hindered_until < moment and not self.machine.mount.is_cut_off


@dataclass
class World:
    """The hosts, the disk that they share, true time, and whoever acts."""

    luck: random.Random
    share: Share
    traces: bool = False
    #: Whether calls stall now and then.
    is_rough: bool = True
    time: float = 0.0
    operations: int = 0
    machines: list[Machine] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        begun, tick = EPOCH.timestamp(), max(1, int(self.share.tick * 1e9))
        self.disk = Disk(lambda: int((begun + self.time) * 1e9), tick)
        self.disk.names_are_safe = self.share.names_are_safe
        self.disk.has_journal = self.share.kind != "ext4"
        self.auditor = Auditor(self)
        self.kernel = Kernel(self)
        self.locked: dict[Inode, Process] = {}
        self.ears: list[SimulatedEar] = []
        self.disk.on_names = self._changed
        #: What happens when the next command starts.
        self.at_run: Callable[[Run], None] | None = None
        self._hub = getcurrent()
        self._queue: list[tuple[float, int, Thread | Callable[[], None]]] = []
        self._turn = 0
        self._end = 0.0
        self._base = 0.001 if self.share.kind == "ext4" else 0.01
        if self.traces:
            from tests.simulation.tracing import trace

            trace(self)

    # ── who acts ──────────────────────────────────────────────────────────────────────────

    @property
    def current(self) -> Process:
        """The process that makes the call."""
        process: Process = getcurrent().process
        return process

    @property
    def actor(self) -> Process | None:
        """The same, None where nobody makes a call."""
        return getattr(getcurrent(), "process", None)

    def true_time(self, time: float | None = None) -> datetime:
        """True time, now or at a moment."""
        return EPOCH + timedelta(seconds=self.time if time is None else time)

    @property
    def processes(self) -> list[Process]:
        """All processes that live."""
        return [process for machine in self.machines for process in machine.processes]

    def machine(self, name: str) -> Machine:
        """Add a host."""
        made = Machine(self, name)
        self.machines.append(made)
        return made

    def root(self) -> Root:
        """The spool as a process opens it."""
        root = Root(SPOOL)
        root.medium.filesystem = self.share.kind
        root.identity = "simulated"
        return root

    def start(self, machine: Machine, what: str, act: Callable[[], None], delay: float = 0.0) -> Process:
        """Start a process."""
        process = Process(machine, what)
        machine.processes.append(process)
        process.main = self.thread(process, act, delay)
        return process

    def thread(self, process: Process, act: Callable[[], None], delay: float = 0.0) -> Thread:
        """Start one more thread of a process. The process ends with its first one."""
        made = Thread(process, act, self._hub)
        process.threads.append(made)
        self._push(self.time + delay, made)
        return made

    def at(self, time: float, act: Callable[[], None]) -> None:
        """Let something happen at a moment, whoever runs."""
        self._push(time, act)

    def _push(self, time: float, what: Thread | Callable[[], None]) -> None:
        self._turn += 1
        if isinstance(what, Thread):
            what.turn = self._turn
        heapq.heappush(self._queue, (time, self._turn, what))

    def wake(self, thread: Thread) -> None:
        """Let a thread that sleeps go on within a millisecond."""
        if not thread.dead:
            self._push(self.time + self.luck.random() * 0.001, thread)

    def kill(self, process: Process) -> None:
        """End a process now: SIGKILL. Its command goes on."""
        process.is_dead = True
        if process.main is not None and not process.main.dead:
            process.is_hindered(self.time)
            self.say(process, "dies")
        for thread in process.threads:
            if thread and not thread.dead:
                thread.throw(Ended)
        self.kernel.drop(process)
        self.ears = [ear for ear in self.ears if ear.process is not process]
        if process in process.machine.processes:
            process.machine.processes.remove(process)

    def reboot(self, machine: Machine) -> None:
        """End all that runs on a host, as it loses its power."""
        if self.share.kind != "ext4" and self.disk.may_lose_power:
            self.kernel.lose_unflushed(machine)
        for process in machine.processes.copy():
            self.kill(process)
        for runs in self.runs.values():
            for run in runs:
                if run.machine is machine and run.is_running(self.time):
                    run.ends, run.was_stopped = self.time, True
        machine.boots += 1
        machine.booted_at = self.time
        machine.mount.forget()

    def run_until(self, end: float, is_enough: Callable[[], bool] | None = None) -> None:
        """Let everybody go on until a moment, or until it is enough, which is asked after each call."""
        self._end = end if is_enough is None else self.time
        queue = self._queue
        while queue and queue[0][0] <= end:
            at, turn, what = heapq.heappop(queue)
            self.time = max(self.time, at)
            if not isinstance(what, Thread):
                what()
                continue
            process = what.process
            if process.is_dead or what.dead or what.turn != turn:
                continue
            if process.stopped_until > self.time:
                self._push(process.stopped_until, what)
                continue
            try:
                what.switch()
            except Violation:
                raise
            except Exception as problem:
                text = "".join(traceback.format_exception(problem))
                raise Violation(f"{process} met an error that it does not handle:\n{text}") from problem
            if process.dies_in == 0 or (process.main is not None and process.main.dead):
                self.kill(process)
            elif what.dead:
                process.threads.remove(what)
            if is_enough is not None and is_enough():
                return
        self.time = max(self.time, end)

    def close(self) -> None:
        """Abandon everybody."""
        for process in self.processes:
            self.kill(process)

    def require_alive(self) -> None:
        """Let a process that has died do nothing more."""
        if self.current.is_dead:
            raise Ended

    def monotonic(self) -> float:
        """The monotonic clock of the host that asks."""
        machine = self.current.machine
        return machine.counts_from + self.time - machine.booted_at

    def pause(self, seconds: float) -> None:
        """Let the others go on for this long."""
        thread = getcurrent()
        process = thread.process
        if process.is_dead:
            raise Ended
        until = self.time + seconds
        queue = self._queue
        if until <= self._end and (not queue or until < queue[0][0]) and process.stopped_until <= until:
            self.time = until  # nobody else would act before
            return
        self._push(until, thread)
        self._hub.switch()
        if process.is_dead:
            raise Ended

    def step(self, call: str, path: str) -> Mount:
        """Let the scheduler have its say before a system call; returns the mount of the process."""
        process = self.current
        self.operations += 1
        luck = self.luck.random
        cost = luck() * luck() * self._base
        if self.is_rough and luck() * _STALLS < 1:
            cost += luck() * luck() * 5.0
            if cost > _LONG:
                process.is_hindered(self.time + cost)
        if process.dies_in is not None:
            process.dies_in -= 1
            if process.dies_in <= 0:
                process.dies_in = 0
                self._hub.switch()
                raise Ended
        if process.at_call is not None:
            left, happens = process.at_call
            process.at_call = (left - 1, happens) if left > 1 else None
            if left <= 1:
                happens()
        self.pause(cost)
        mount = process.machine.mount
        while mount.is_cut_off:
            self._wait(process, call, path)
        if process.fails_in is not None:
            left, number = process.fails_in
            process.fails_in = (left - 1, number) if left > 1 else None
            if left <= 1:
                self.say(process, f"{call} {path} fails")
                process.is_hindered(self.time)
                raise error(number, path)
        return mount

    def _wait(self, process: Process, call: str, path: str) -> None:
        """Hang until the server is reached again, or until the mount gives up."""
        left = process.machine.heals_at - self.time
        if self.luck.random() < 0.3:
            self.pause(min(left, self.luck.uniform(1, 20)))
            process.is_hindered(self.time)
            if process.machine.mount.is_cut_off:
                self.say(process, f"{call} {path}: EIO, cut off")
                raise error(errno.EIO, path)
            return
        self.pause(max(left, 0.001))
        process.is_hindered(self.time)

    # ── what is watched ───────────────────────────────────────────────────────────────────

    def _changed(self, source: str | None, target: str | None) -> None:
        """Hear of a change of names, and let the workers of the host hear of a file that was moved in."""
        self.auditor.moved(source, target)
        if source and target:
            self._report(target, is_moved=True)

    def closed(self, inode: Inode) -> None:
        """Hear that a file was closed that had been open for writing."""
        if inode.path:
            self._report(inode.path, is_moved=False)

    def _report(self, path: str, *, is_moved: bool) -> None:
        if not self.ears or not path.startswith(("/spool/pending/", "/spool/failed/")):
            return
        if self.actor is None:
            return
        machine = self.current.machine
        _, _, folder, name = path.split("/")
        for ear in self.ears:
            if ear.process.machine is machine:
                ear.note(folder, name, is_moved=is_moved)

    def wrote(self, inode: Inode) -> None:
        """Hear of each change of a file's content by a process."""
        self.auditor.wrote(self.current, inode)

    def say(self, who: object, text: str) -> None:
        """Add a line to the trace."""
        if self.traces:
            self.trace.append(f"{self.time:10.4f}  {who!s:24} {text}")

    # ── commands ──────────────────────────────────────────────────────────────────────────

    def begin(self, run: Run) -> None:
        """Start a command."""
        self.auditor.begins(run)
        self.runs.setdefault(run.job_id, []).append(run)
        if self.at_run is not None:
            happens, self.at_run = self.at_run, None
            happens(run)
        self.say(run.process, f"runs {run.job_id} attempt {run.attempt}, {run.ends - run.began:.2f} s")

    def running(self, job_id: str, machine: Machine | None = None) -> list[Run]:
        """The runs of a job that have not ended, on one host or on all."""
        return [
            run
            for run in self.runs.get(job_id, ())
            if (machine is None or run.machine is machine) and run.is_running(self.time)
        ]

    def make_spool(self, config: str) -> None:
        """Make the spool, safe from any power cut."""
        self.disk.make(SPOOL, 0o700, is_folder=True)
        for name in FOLDERS:
            self.disk.make(f"{SPOOL}/{name}", 0o700, is_folder=True)
        self.disk.make(f"{SPOOL}/groups", 0o700, is_folder=True)
        self.disk.make(f"{SPOOL}/groups/pair", 0o700, is_folder=True)
        for name in ("one", "two"):
            self.disk.make(f"{SPOOL}/groups/pair/{name}", 0o600)
        self.disk.make("/elsewhere", 0o700, is_folder=True)
        self.disk.write(self.disk.make(f"{SPOOL}/config.yaml", 0o600), config.encode(), 0)
        self.disk.make_all_safe()
