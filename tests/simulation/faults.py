"""What goes wrong: death, SIGSTOP, failing calls, a full disk, clocks, hosts cut off, and lost power."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from tests.simulation.worker import employ

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.commands import Run
    from tests.simulation.world import Machine, Process, World

#: A fault on a host; the number chooses the rest.
Fault = "Callable[[World, Machine, int], None]"


def _victim(machine: Machine, number: int) -> Process | None:
    return machine.processes[number % len(machine.processes)] if machine.processes else None


def _kill(world: World, machine: Machine, number: int) -> None:
    """A process dies some calls later; where it is a worker, another one may begin."""
    if process := _victim(machine, number):
        process.dies_in = 1 + number % 97
        if process.what == "worker" and number % 3:
            employ(world, machine, 1.0 + number % 5)


def _freeze(world: World, machine: Machine, number: int) -> None:
    if process := _victim(machine, number):
        process.stop(world.time, [1.5, 4.2, 7.5, 15.0][number % 4])


def _fail(world: World, machine: Machine, number: int) -> None:
    if process := _victim(machine, number):
        process.fails_in = 1 + number % 53, [errno.EIO, errno.ENOSPC, errno.EIO, errno.ESTALE][number % 4]


def _full(world: World, machine: Machine, number: int) -> None:
    world.disk.free = number % 300
    world.at(world.time + 2.0 + number % 6, lambda: setattr(world.disk, "free", 1 << 40))


def _clock(world: World, machine: Machine, number: int) -> None:
    offset = [-3600.0, 3600.0, -30.0, 30.0, 86400.0 * 365][number % 5]
    machine.set_clock(world.time, offset, [0.0, 0.0, 1.5, -0.5][number % 4])


def cut_off(world: World, machine: Machine, seconds: float) -> None:
    """Let a host not reach the share for some seconds."""
    machine.mount.is_cut_off = True
    machine.heals_at = max(machine.heals_at, world.time + seconds)
    world.at(machine.heals_at, lambda: machine.mount.heal() if world.time >= machine.heals_at else None)


def _cut(world: World, machine: Machine, number: int) -> None:
    cut_off(world, machine, [0.8, 3.0, 5.4, 7.5, 12.0][number % 5])


def _cut_in_a_call(world: World, machine: Machine, number: int) -> None:
    """The host is cut off while one of its processes is in a system call, which hangs then."""
    if process := _victim(machine, number):
        process.at_call = 1 + number % 53, lambda: _cut(world, machine, number)


def cut_off_in_a_run(world: World, calls: int, seconds: float) -> None:
    """Cut off the host that starts the next command, in the n-th call after the start: the call hangs."""

    def happens(run: Run) -> None:
        run.process.at_call = calls, lambda: cut_off(world, run.machine, seconds)

    world.at_run = happens


def _cut_in_a_run(world: World, machine: Machine, number: int) -> None:
    cut_off_in_a_run(world, 1 + number % 5, 12.0)


def restart(world: World, seconds: float) -> None:
    """The server is away for a while, and has lost what it had not on its disk: the end of its journal.

    Clients send again what they have not closed where closing makes it safe, so nothing is lost there.
    """
    for each in world.machines:
        cut_off(world, each, seconds)
    if world.disk.may_lose_power and not world.share.close_syncs:
        world.disk.cut_power(world.luck)
        world.kernel.reopen()
        world.auditor.lost_power()


def _restart(world: World, machine: Machine, number: int) -> None:
    restart(world, 0.5 + number % 5)


def _reboot(world: World, machine: Machine, number: int) -> None:
    world.reboot(machine)
    employ(world, machine, 2.0)


def _power(world: World, machine: Machine, number: int) -> None:
    """A host and its own disk lose their power."""
    world.reboot(machine)
    world.disk.cut_power(world.luck)
    world.auditor.lost_power()
    employ(world, machine, 2.0)


FAULTS: dict[str, Callable[[World, Machine, int], None]] = {
    "kill": _kill,
    "freeze": _freeze,
    "fail": _fail,
    "full": _full,
    "clock": _clock,
    "cut": _cut,
    "cut in a call": _cut_in_a_call,
    "cut in a run": _cut_in_a_run,
    "restart": _restart,
    "reboot": _reboot,
    "power": _power,
}
#: What may happen to a local disk, and to a share, the likelier the more often it stands here.
_ANYWHERE = ["kill", "kill", "kill", "freeze", "fail", "fail", "full"]
ALONE = [*_ANYWHERE, "power"]
TOGETHER = [*_ANYWHERE, "clock", "clock", "cut", "cut in a call", "cut in a call", "restart", "reboot"]
#: The faults after which content or names may be gone.
LOSING = frozenset({"power", "restart", "reboot"})
