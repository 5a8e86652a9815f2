"""What stands behind the product's doors while a simulation runs: clocks, the host, locks, threads, rings."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from queuectl import times
from queuectl.spool import output
from queuectl.spool import wake as wakes
from queuectl.spool.events import Ear
from queuectl.system import files, host, locks
from queuectl.worker import keeper, loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from queuectl.spool.edits import Place
    from queuectl.spool.root import Root
    from tests.simulation.files import Inode
    from tests.simulation.world import Process, Thread, World

#: When true time begins.
EPOCH = datetime(2026, 11, 22, 4, 27, tzinfo=UTC)


@contextlib.contextmanager
def open_to(world: World) -> Iterator[None]:
    """Put a world behind the doors."""
    made = {
        (files, "kernel"): world.kernel,
        (host, "here"): _Here(world),
        (locks, "system"): _Locks(world),
        (times, "clock"): _Clock(world),
        (loop, "processes"): _Processes(),
        (keeper, "keep_descriptors"): lambda: None,
        (loop, "Wake"): lambda: Wake(world),
        (loop, "Bell"): lambda root, wake: _Bell(world, root, wake),
        **{(module, "threading"): _Threading(world) for module in (keeper, output, wakes)},
    }
    before = {(module, name): getattr(module, name) for module, name in made}
    state = random.getstate()
    random.seed(world.luck.random())
    try:
        for (module, name), stand_in in made.items():
            setattr(module, name, stand_in)
        yield
    finally:
        world.close()
        for (module, name), real in before.items():
            setattr(module, name, real)
        random.setstate(state)


class _Clock(times.Clock):
    """The clocks of the host on which the process runs that asks."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        machine = self._world.current.machine
        return EPOCH + timedelta(seconds=machine.wall_time(self._world.time))

    def monotonic(self) -> float:
        return self._world.monotonic()

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


class _Processes:
    """What a worker asks of the system at its start."""

    def adopt_orphans(self) -> None:
        """No command leaves any."""

    def keep_descriptors(self) -> None:
        """No command inherits any."""


class Wake:
    """A ring that one thread waits for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.was_rung = False
        self.waiter: Thread | None = None

    def ring(self) -> None:
        self.was_rung = True
        if self.waiter is not None:
            self._world.wake(self.waiter)

    def wait(self, seconds: float) -> bool:
        if not self.was_rung:
            self.waiter = getcurrent()
            self._world.pause(seconds)
            self.waiter = None
        was_rung = self.was_rung
        self.hush()
        return was_rung

    def hush(self) -> None:
        self.was_rung = False

    def close(self) -> None:
        """It holds no descriptors."""


class _Bell(wakes.Bell):
    """The product's bell, with an ear in the simulated system."""

    def __init__(self, world: World, root: Root, wake: Any) -> None:
        super().__init__(root, wake)
        self._world = world

    def _listen(self) -> None:
        self._ear = SimulatedEar(self._world, self.heard)

    def close(self) -> None:
        if self._ear is not None:
            self._world.ears.remove(self._ear)


class SimulatedEar(Ear):
    """The product's ear; the simulated kernel calls `closed` and `moved_in` where inotify would report it."""

    def __init__(self, world: World, tell: Any) -> None:
        self._tell = tell
        self._names: list[str] = []
        self._edited: list[Place] = []
        self._drafts: set[str] = set()
        self._is_saved = False
        self._rings = Wake(world)
        self.process = world.current
        world.ears.append(self)
        world.thread(self.process, self._hear)

    def note(self, folder: str, name: str, *, is_moved: bool) -> None:
        """Take an event in: a file was closed after writing, or moved here."""
        if folder == "pending":
            self._in_pending(name, is_moved=is_moved)
        else:
            self._in_failed(name, is_moved=is_moved)
        if self._names or self._edited:
            self._rings.ring()

    def _hear(self) -> None:
        while True:
            self._rings.wait(1e6)
            names, self._names = self._names, []
            edited, self._edited = self._edited, []
            self._tell(names, edited)


class _Threading:
    """Stands in for the module `threading`: what threads of one simulated process share."""

    def __init__(self, world: World) -> None:
        self._world = world

    def Event(self) -> _Event:  # noqa: N802 - as the module has it
        return _Event(self._world)

    def Lock(self) -> _Mutex:  # noqa: N802 - as the module has it
        return _Mutex(self._world)


class _Event:
    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False
        self._waiters: list[Thread] = []

    def set(self) -> None:
        self._is_set = True
        for thread in self._waiters:
            self._world.wake(thread)

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float = 1e6) -> bool:
        if not self._is_set:
            thread = getcurrent()
            self._waiters.append(thread)
            self._world.pause(seconds)
            self._waiters.remove(thread)
        return self._is_set


class _Mutex:
    def __init__(self, world: World) -> None:
        self._world = world
        self._holder: Thread | None = None
        self._waiters: list[Thread] = []

    def __enter__(self) -> None:
        thread = getcurrent()
        while self._holder is not None:
            self._waiters.append(thread)
            self._world.pause(1e6)
            self._waiters.remove(thread)
        self._holder = thread

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder = None
        if self._waiters:
            self._world.wake(self._waiters[0])
