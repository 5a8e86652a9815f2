"""A schedule: who does what when, drawn from a seed, run with the auditor, and made shorter."""

from __future__ import annotations

import errno
import random
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from queuectl.errors import QueueError
from tests.simulation import people
from tests.simulation.auditor import Violation
from tests.simulation.files import PROFILES
from tests.simulation.worker import Worker
from tests.simulation.world import Machine, World

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = "lock_lease_seconds: 20\npoll_interval: 2\nbackoff_base: 2\nmax_retries: 2\n"
#: Seconds for which people act and faults happen, and the longest that everything may take after that.
ROUGH, PATIENCE = 40.0, 400.0


class Happening(NamedTuple):
    """Something that happens at a moment: its kind, and numbers that choose the rest."""

    at: float
    kind: str
    host: int
    number: int
    text: str = ""


class Plan(NamedTuple):
    """A whole schedule. `luck` seeds what is drawn while it runs."""

    profile: str
    hosts: int
    workers: int
    luck: int
    happenings: tuple[Happening, ...]


_ACTS = [*["file"] * 3, "drop", "edit", "move", "retry", "priority", "now", "cancel", "pause", "repair"]
_FAULTS = ["kill", "kill", "kill", "freeze", "fail", "fail", "full", "stop"]
_ALONE = [*_FAULTS, "power"]
_TOGETHER = [*_FAULTS, "clock", "clock", "cut", "cut", "restart", "reboot"]


def draw(seed: int, profile: str | None = None) -> Plan:
    """The schedule of a seed."""
    luck = random.Random(seed)
    name = profile or list(PROFILES)[seed % len(PROFILES)]
    hosts = 1 if name == "local" else luck.randint(2, 3)
    workers = luck.randint(2, 3) if hosts == 1 else hosts
    found = [_filing(luck, hosts, number, at=luck.uniform(0, 10)) for number in range(luck.randint(2, 6))]
    for number in range(luck.randint(0, 6)):
        kind = luck.choice(_ACTS)
        at = luck.uniform(0, ROUGH)
        if kind == "file":
            found.append(_filing(luck, hosts, 10 + number, at))
        else:
            found.append(Happening(at, kind, luck.randrange(hosts), luck.randrange(1000), _command(luck)))
    faults = _ALONE if name == "local" else _TOGETHER
    found += [
        Happening(luck.uniform(0, ROUGH), luck.choice(faults), luck.randrange(hosts), luck.randrange(1000))
        for _ in range(luck.randint(0, 4))
    ]
    found += _story(luck, hosts)
    return Plan(name, hosts, workers, luck.randrange(1 << 30), tuple(sorted(found)))


def _command(luck: random.Random) -> str:
    seconds, codes = luck.choice([0.01, 0.5, 3.0, 3.0, 12.0, 30.0]), luck.choice(["0", "0", "0", "1,0", "1"])
    return f"sim {seconds} {codes}{luck.choice(['', '', ' stubborn'])}"


def _filing(luck: random.Random, hosts: int, number: int, at: float) -> Happening:
    kind = luck.choice(["file made", "file own", "file own", "file same", "file later"])
    return Happening(at, kind, luck.randrange(hosts), number, _command(luck))


def _story(luck: random.Random, hosts: int) -> list[Happening]:
    """Now and then, what rarely comes together by chance."""
    if (chance := luck.random()) < 0.15:  # jobs die, workers end, and a person moves the jobs back
        times = [luck.uniform(3, 12) for _ in range(4)]
        return [
            *(
                Happening(at, "file own", luck.randrange(hosts), 30 + n, "sim 0.01 1")
                for n, at in enumerate(times)
            ),
            *(Happening(luck.uniform(13, 18), "stop", luck.randrange(hosts), 3 * n) for n in range(2)),
            *(Happening(luck.uniform(22, 30), "move", luck.randrange(hosts), n) for n in range(6)),
        ]
    if chance < 0.25 and hosts > 1:  # a host cannot be seen for a while, and another one's clock is fast
        at = luck.uniform(8, 20)
        return [
            Happening(at - 5, "file own", 0, 40, "sim 30.0 0"),
            Happening(at - 2, "clock", 1, 2),
            Happening(at, "cut", 0, luck.choice([1, 1, 2])),
        ]
    return []


class Outcome(NamedTuple):
    """How a schedule ended: what it broke, None for nothing, its operations, and its trace."""

    broke: str | None
    operations: int
    trace: list[str]


def run(plan: Plan, *, traces: bool = False) -> Outcome:
    """Run a schedule."""
    world = World(random.Random(plan.luck), PROFILES[plan.profile], traces)
    world.disk.may_lose_power = plan.profile in {"local", "smb"} and any(
        one.kind in {"power", "restart"} for one in plan.happenings
    )
    broke = None
    with world.doors():
        try:
            _run(world, plan)
        except Violation as problem:
            broke = str(problem)
            world.say("", f"VIOLATION: {broke}")
    return Outcome(broke, world.operations, world.trace)


def _run(world: World, plan: Plan) -> None:
    machines = [world.machine(f"host{number}") for number in range(plan.hosts)]
    world.make_spool(CONFIG)
    workers = [
        Worker(world, machines[number % plan.hosts], world.luck.uniform(0, 2))
        for number in range(plan.workers)
    ]
    for one in plan.happenings:
        machine = machines[one.host % plan.hosts]
        world.at(one.at, partial(_happen, world, workers, machine, one))
    world.run_until(ROUGH)
    _calm(world, workers)
    end = ROUGH + PATIENCE
    while world.time < end and not _is_quiet(world):
        world.run_until(world.time + 5.0)
    world.auditor.at_the_end()


def _calm(world: World, workers: list[Worker]) -> None:
    """End all faults; there is a worker on each host."""
    world.is_rough = False
    world.disk.free = 1 << 40
    for machine in world.machines:
        machine.mount.heal()
        machine.offset = machine.drift = 0.0
        for process in machine.processes:
            process.dies_in = process.fails_in = None
            process.stopped_until = min(process.stopped_until, world.time + 1)
        if not any(one.process in machine.processes and not one.is_to_stop for one in workers):
            workers.append(Worker(world, machine))
    if world.disk.find("/spool/workers/paused"):
        world.disk.unlink("/spool/workers/paused")


def _is_quiet(world: World) -> bool:
    tree = world.disk.tree
    if any(not text.startswith(".") for text in tree("/spool/pending")):
        return False
    return not tree("/spool/processing") and not tree("/spool/failed")


def _happen(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    world.say(machine.name, f"— {one.kind} {one.number} {one.text}")
    if (fault := _FAULT.get(one.kind)) is not None:
        fault(world, workers, machine, one)
    else:
        world.start(machine, _ROLES.get(one.kind, "person"), partial(_told, world, one))


_ROLES = {"edit": "editor"}


def _told(world: World, one: Happening) -> None:
    """Act; what the disk or the queue refuses is told to the person, who leaves it at that."""
    try:
        _act(world, one)
    except (OSError, QueueError) as problem:
        world.say(world.current, f"is told: {problem}")


def _act(world: World, one: Happening) -> None:
    kind, number = one.kind, one.number
    if kind.startswith("file"):
        job_id = {"file made": None, "file same": "same"}.get(kind, f"own-{number}")
        delay = 5.0 + number % 7 if kind == "file later" else 0.0
        people.file(world, job_id, one.text, number % 11 if number % 2 else None, delay)
    elif kind == "drop":
        own = ["", "id: same\n", f"id: drop-{number}\n"][number % 3]
        by_copy = world.share.kind == "ext4" and bool(number % 2)
        people.drop(world, f"dropped {number}.yaml", f"{own}command: {one.text}\n", by_copy=by_copy)
    elif kind == "edit":
        if world.share.kind == "ext4":
            people.edit(world, number, number % 11)
    else:
        _ACT[kind](world, number)


_ACT: dict[str, Callable[[World, int], None]] = {
    "move": people.move_back,
    "retry": people.retry,
    "priority": lambda world, number: people.set_priority(world, number, number % 11),
    "now": people.run_now,
    "cancel": people.cancel,
    "pause": lambda world, number: people.pause(world, number % 10),
    "repair": lambda world, _: people.repair(world),
}


def _victim(machine: Machine, number: int) -> Any:
    return machine.processes[number % len(machine.processes)] if machine.processes else None


def _kill(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    """A process dies some calls later; where it is a worker, another one begins."""
    if process := _victim(machine, one.number):
        process.dies_in = 1 + one.number % 37
        if process.what == "worker" and one.number % 3:
            workers.append(Worker(world, machine, 1.0 + one.number % 5))


def _freeze(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    if process := _victim(machine, one.number):
        process.stopped_until = world.time + [3.0, 15.0, 25.0, 60.0][one.number % 4]


def _fail(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    if process := _victim(machine, one.number):
        number = [errno.EIO, errno.ENOSPC, errno.EIO, errno.ESTALE][one.number % 4]
        process.fails_in = 1 + one.number % 23, number


def _full(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    world.disk.free = one.number % 300
    world.at(world.time + 5.0 + one.number % 10, lambda: setattr(world.disk, "free", 1 << 40))


def _stop(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    here = [worker for worker in workers if worker.process in machine.processes]
    if here:
        here[one.number % len(here)].is_to_stop = True
        if one.number % 3:
            workers.append(Worker(world, machine, 3.0))


def _clock(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    machine.offset = [-3600.0, 3600.0, -30.0, 30.0, 86400.0 * 365][one.number % 5]
    machine.drift, machine.drifts_since = [0.0, 0.0, 1.5, -0.5][one.number % 4], world.time


def _cut(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    seconds = [2.0, 10.0, 18.0, 25.0, 45.0][one.number % 5]
    machine.mount.is_cut_off = True
    machine.heals_at = world.time + seconds
    world.at(machine.heals_at, machine.mount.heal)


def _restart(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    """The server is away for a while, and has lost what it had not on its disk."""
    for each in world.machines:
        each.mount.is_cut_off = True
        each.heals_at = world.time + 3.0 + one.number % 9
        world.at(each.heals_at, each.mount.heal)
    if world.disk.may_lose_power:
        world.disk.cut_power(world.luck, has_journal=True)
        world.auditor.lost_power()


def _reboot(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    world.reboot(machine)
    workers.append(Worker(world, machine, 2.0))


def _power(world: World, workers: list[Worker], machine: Machine, one: Happening) -> None:
    world.reboot(machine)
    world.disk.cut_power(world.luck)
    world.auditor.lost_power()
    workers.append(Worker(world, machine, 2.0))


_FAULT: dict[str, Callable[[World, list[Worker], Machine, Happening], None]] = {
    "kill": _kill,
    "freeze": _freeze,
    "fail": _fail,
    "full": _full,
    "stop": _stop,
    "clock": _clock,
    "cut": _cut,
    "restart": _restart,
    "reboot": _reboot,
    "power": _power,
}


def shrink(plan: Plan, tries: int = 12) -> Plan:
    """A plan with as few happenings and workers as still break something, with whatever luck."""
    is_shorter = True
    while is_shorter:
        is_shorter = False
        for at in range(len(plan.happenings) - 1, -1, -1):
            less = plan._replace(happenings=plan.happenings[:at] + plan.happenings[at + 1 :])
            for luck in [plan.luck, *range(tries)]:
                if run(less._replace(luck=luck)).broke:
                    plan, is_shorter = less._replace(luck=luck), True
                    break
    return plan
