"""Many hosts in one thread: true time, a scheduler, processes, and the doors of the product.

A process is one or more greenlets. Each goes on until its next system call or sleep; then the one
whose time comes first goes on. How long a call takes is drawn from the seed, and so is the order.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import random
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from greenlet import getcurrent, greenlet

from queuectl import times
from queuectl.spool.root import FOLDERS, Root
from queuectl.system import files, host, locks
from tests.simulation.auditor import Auditor, Violation
from tests.simulation.files import Disk, Inode, Share, error
from tests.simulation.kernel import Kernel, Mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPOOL = "/spool"
_PENDING = "/spool/pending/"
#: When true time begins.
EPOCH = datetime(2026, 11, 22, 4, 27, tzinfo=UTC)
#: One call in so many takes seconds instead of milliseconds: the disk, the net or the process stalls.
_STALLS = 400
_TRACED = ["open", "close", "write", "read", "ftruncate", "fsync", "fstat", "lstat", "stat", "listdir"]
_TRACED += ["mkdir", "rmdir", "unlink", "rename", "replace", "chmod"]


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


class Listener(Protocol):
    """A process that hears of names in pending/ while it lives."""

    process: Process

    def hear(self, text: str) -> None:
        """Hear of a name."""


class Machine:
    """A host: its clock, its view of the disk, and its processes."""

    def __init__(self, world: World, name: str, share: Share) -> None:
        self.name = name
        self.mount = Mount(world.disk, share, world.luck, lambda: world.time)
        self.offset = 0.0
        #: Seconds by which the wall clock gains on true time each second, and since when.
        self.drift, self.drifts_since = 0.0, 0.0
        self.boots = 1
        self.booted_at = 0.0
        self.heals_at = 0.0
        self.last_pid = 100
        self.processes: list[Process] = []


class Process:
    """A simulated process. `dies_in` and `fails_in` count system calls, None for never."""

    def __init__(self, machine: Machine, what: str) -> None:
        machine.last_pid += 1
        self.machine = machine
        self.pid = machine.last_pid
        self.what = what
        self.is_dead = False
        self.stopped_until = 0.0
        self.dies_in: int | None = None
        self.fails_in: tuple[int, int] | None = None
        self.threads: list[Thread] = []

    def __str__(self) -> str:
        return f"{self.machine.name}/{self.what}-{self.pid}"


@dataclass(eq=False)
class Run:
    """One run of a command. It lives on when its worker dies."""

    job_id: str
    attempt: int
    machine: Machine
    began: float
    ends: float
    code: int
    is_stubborn: bool
    was_stopped: bool = False

    def is_running(self, now: float) -> bool:
        """Whether it has not ended."""
        return now < self.ends

    def stop(self, now: float, grace: float) -> None:
        """Send SIGTERM and, after the grace, SIGKILL."""
        if self.is_running(now):
            self.was_stopped = True
            self.ends = min(self.ends, now + (grace if self.is_stubborn else 0.0))


@dataclass
class World:
    """The hosts, the disk that they share, true time, and whoever acts."""

    luck: random.Random
    share: Share
    traces: bool = False
    time: float = 0.0
    operations: int = 0
    machines: list[Machine] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)
    #: Whether faults may still be drawn at a call.
    is_rough: bool = True

    def __post_init__(self) -> None:
        begun, tick = EPOCH.timestamp(), max(1, int(self.share.tick * 1e9))
        self.disk = Disk(lambda: int((begun + self.time) * 1e9), tick)
        self.disk.names_are_safe = self.share.names_are_safe
        self.auditor = Auditor(self)
        self.kernel = Kernel(self)
        self.locked: dict[Inode, Process] = {}
        self.listeners: list[Listener] = []
        self.disk.on_names = self._changed
        self._hub = getcurrent()
        self._queue: list[tuple[float, int, Thread | Callable[[], None]]] = []
        self._turn = 0
        self._end = 0.0
        self._base = 0.001 if self.share.kind == "ext4" else 0.01
        if self.traces:
            _trace(self)

    # ── who acts ──────────────────────────────────────────────────────────────────────────

    @property
    def current(self) -> Process:
        """The process that makes the call."""
        process: Process = getcurrent().process
        return process

    def machine(self, name: str) -> Machine:
        """Add a host."""
        made = Machine(self, name, self.share)
        self.machines.append(made)
        return made

    def root(self) -> Root:
        """The spool as a process opens it."""
        root = Root(SPOOL)
        root.medium.filesystem = self.share.kind
        return root

    def start(self, machine: Machine, what: str, act: Callable[[], None], delay: float = 0.0) -> Process:
        """Start a process."""
        process = Process(machine, what)
        machine.processes.append(process)
        self.thread(process, act, delay)
        return process

    def thread(self, process: Process, act: Callable[[], None], delay: float = 0.0) -> None:
        """Start one more thread of a process."""
        made = Thread(process, act, self._hub)
        process.threads.append(made)
        self._push(self.time + delay, made)

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

    def _changed(self, inode: Inode, source: str | None, target: str | None) -> None:
        """Hear of a change of names; a name that comes to pending/ is an event for workers of the host."""
        self.auditor.names(inode, source, target)
        if target and target.startswith(_PENDING) and target[len(_PENDING)] != ".":
            machine = self.current.machine
            for listener in self.listeners:
                if listener.process.machine is machine:
                    listener.hear(target[len(_PENDING) :])

    def kill(self, process: Process) -> None:
        """End a process now: SIGKILL. Its command goes on."""
        process.is_dead = True
        self.say(process, "dies")
        for thread in process.threads:
            if thread and not thread.dead:
                thread.throw(Ended)
        self.kernel.drop(process)
        if process in process.machine.processes:
            process.machine.processes.remove(process)

    def reboot(self, machine: Machine) -> None:
        """End all that runs on a host."""
        for process in machine.processes.copy():
            self.kill(process)
        for runs in self.runs.values():
            for run in runs:
                if run.machine is machine and run.is_running(self.time):
                    run.ends, run.was_stopped = self.time, True
        machine.boots += 1
        machine.booted_at = self.time
        machine.mount.forget()

    def run_until(self, end: float) -> None:
        """Let everybody go on until a moment."""
        self._end = end
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
            if process.dies_in == 0:
                self.kill(process)
            if what.dead:
                process.threads.remove(what)
                if not process.threads and not process.is_dead:
                    process.is_dead = True
                    self.kernel.drop(process)
                    process.machine.processes.remove(process)
        self.time = max(self.time, end)

    def close(self) -> None:
        """Abandon everybody."""
        for machine in self.machines:
            for process in machine.processes.copy():
                self.kill(process)

    def pause(self, seconds: float) -> None:
        """Let the others go on for this long."""
        thread = getcurrent()
        process = thread.process
        if process.is_dead:
            raise Ended
        until = self.time + seconds
        queue = self._queue
        if until <= self._end and (not queue or until < queue[0][0]):
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
            cost += luck() * luck() * 8.0
        if process.dies_in is not None:
            process.dies_in -= 1
            if process.dies_in <= 0:
                process.dies_in = 0
                self._hub.switch()
                raise Ended
        self.pause(cost)
        mount = process.machine.mount
        while mount.is_cut_off:
            self._wait(process, call, path)
        if process.fails_in is not None:
            left, number = process.fails_in
            process.fails_in = (left - 1, number) if left > 1 else None
            if left <= 1:
                self.say(process, f"{call} {path} fails")
                raise error(number, path)
        return mount

    def _wait(self, process: Process, call: str, path: str) -> None:
        """Hang until the server is reached again, or until the mount gives up."""
        left = process.machine.heals_at - self.time
        if self.luck.random() < 0.3:
            self.pause(min(left, self.luck.uniform(1, 20)))
            if process.machine.mount.is_cut_off:
                self.say(process, f"{call} {path}: EIO, cut off")
                raise error(errno.EIO, path)
            return
        self.pause(max(left, 0.001))

    # ── what is watched ───────────────────────────────────────────────────────────────────

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
        self.auditor.begins(self.current, run)
        self.runs.setdefault(run.job_id, []).append(run)
        self.say(self.current, f"runs {run.job_id} attempt {run.attempt}, {run.ends - run.began:.2f} s")

    def running(self, job_id: str, machine: Machine) -> list[Run]:
        """The runs of a job on a host that have not ended."""
        return [
            run for run in self.runs.get(job_id, ()) if run.machine is machine and run.is_running(self.time)
        ]

    # ── the doors ─────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def doors(self) -> Iterator[None]:
        """Put the simulation behind the product's doors."""
        here: Any = _Here(self)
        lock: Any = _Locks(self)
        clock: Any = _Clock(self)
        module: Any = files
        before = files.kernel, host.here, locks.system, times.clock
        module.kernel, host.here, locks.system, times.clock = self.kernel, here, lock, clock
        state = random.getstate()
        random.seed(self.luck.random())
        try:
            yield
        finally:
            self.close()
            module.kernel, host.here, locks.system, times.clock = before
            random.setstate(state)

    def make_spool(self, config: str) -> None:
        """Make the spool, safe from any power cut."""
        self.disk.make(SPOOL, 0o700, is_folder=True)
        for name in FOLDERS:
            self.disk.make(f"{SPOOL}/{name}", 0o700, is_folder=True)
        self.disk.make("/elsewhere", 0o700, is_folder=True)
        self.disk.write(self.disk.make(f"{SPOOL}/config.yaml", 0o600), config.encode(), 0)
        self.disk.make_all_safe()


class _Clock(times.Clock):
    """The clocks of the host on which the process runs that asks."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        time, machine = self._world.time, self._world.current.machine
        gain = (time - machine.drifts_since) * machine.drift
        return EPOCH + timedelta(seconds=time + machine.offset + gain)

    def monotonic(self) -> float:
        return 1000.0 + self._world.time

    awake = monotonic

    def sleep(self, seconds: float) -> None:
        self._world.pause(seconds)


class _Here(host.Host):
    """The host on which the process runs that asks."""

    def __init__(self, world: World) -> None:
        self._world = world

    def full_name(self) -> str:
        return self._world.current.machine.name

    def kernel_id(self) -> str:
        machine = self._world.current.machine
        return f"{machine.name}.{machine.boots}/pid"

    def booted_at(self) -> float:
        machine = self._world.current.machine
        return EPOCH.timestamp() + machine.booted_at + machine.offset

    def runs(self, pid: int) -> bool:
        return any(one.pid == pid for one in self._world.current.machine.processes)


class _Lock:
    def __init__(self, world: World, inode: Inode, owner: Process) -> None:
        self._world, self._inode, self._owner = world, inode, owner

    def release(self) -> None:
        """Let others take it."""
        if not self._owner.is_dead and self._world.locked.get(self._inode) is self._owner:
            del self._world.locked[self._inode]


class _Locks(locks.Locks):
    """Locks on files, each held by one process until it releases it or dies."""

    def __init__(self, world: World) -> None:
        self._world = world

    def take(self, path: str, mode: int) -> Any:
        world = self._world
        world.step("lock", path)
        inode = world.disk.find(path) or world.disk.make(path, mode)
        holder = world.locked.get(inode)
        if holder is not None and not holder.is_dead:
            return None
        world.locked[inode] = world.current
        return _Lock(world, inode, world.current)


def _trace(world: World) -> None:
    """Write down each call with its result."""

    def traced(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **named: Any) -> Any:
            opened = world.kernel.opened(arguments[0]) if isinstance(arguments[0], int) else None
            shown = " ".join(map(str, (opened or arguments[0], *arguments[1:2])))[:160]
            shown = shown.replace(SPOOL + "/", "")
            who = world.current
            try:
                result = call(*arguments, **named)
            except OSError as problem:
                world.say(who, f"{name:9} {shown} = {errno.errorcode.get(problem.errno or 0, '?')}")
                raise
            brief = "" if hasattr(result, "st_size") or result is None else f" = {str(result)[:300]}"
            world.say(who, f"{name:9} {shown}{brief}")
            return result

        return made

    for name in _TRACED:
        setattr(world.kernel, name, traced(name, getattr(world.kernel, name)))
