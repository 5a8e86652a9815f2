"""A schedule: who does what when, drawn from a seed, run with the auditor, and made shorter."""

from __future__ import annotations

import ast
import random
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import QueueError
from tests.simulation import doors, faults, people, rules
from tests.simulation.auditor import Violation
from tests.simulation.shares import PROFILES
from tests.simulation.worker import employ
from tests.simulation.world import Machine, World

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = "lock_lease_seconds: 6\npoll_interval: 2\nbackoff_base: 2\nmax_retries: 2\nmax_output_bytes: 0\n"
#: Seconds for which people act and faults happen, on a local disk and on a share, and the longest that
#: everything may take after that.
ROUGH_ALONE, ROUGH, PATIENCE = 7.0, 11.0, 200.0


class Happening(NamedTuple):
    """Something that happens at a moment: its kind, and numbers that choose the rest."""

    at: float
    kind: str
    host: int
    number: int
    text: str = ""


class Plan(NamedTuple):
    """A whole schedule. `luck` seeds what is drawn while it runs; where it is odd, calls may stall."""

    profile: str
    hosts: int
    workers: int
    luck: int
    happenings: tuple[Happening, ...]

    @property
    def rough(self) -> float:
        """Seconds for which people act and faults happen."""
        return ROUGH_ALONE if self.profile == "local" else ROUGH


def from_text(text: str) -> Plan:
    """A plan as `as_text` writes it."""
    profile, hosts, workers, luck, happenings = ast.literal_eval(text)
    return Plan(profile, hosts, workers, luck, tuple(Happening(*one) for one in happenings))


def as_text(plan: Plan) -> str:
    """A plan on one line, to be replayed or kept."""
    return repr((*plan[:4], tuple(tuple(one) for one in plan.happenings)))


_ACTS = [
    *["file"] * 3,
    "drop",
    "drop",
    "edit",
    "edit",
    "move",
    "retry",
    "priority",
    "now",
    "cancel",
    "cancel",
]
_ACTS += ["pause", "repair", "config", "stop", "drain"]
_CONFIGS = [("durability", "full"), ("scheduling_mode", "fifo"), ("max_retries", "0"), ("poll_interval", "1")]


def draw(seed: int, profile: str | None = None) -> Plan:
    """The schedule of a seed."""
    luck = random.Random(seed)
    name = profile or list(PROFILES)[seed % len(PROFILES)]
    rough = ROUGH_ALONE if name == "local" else ROUGH
    hosts = 1 if name == "local" else luck.choice([2, 2, 2, 2, 3, 3, 4])
    workers = luck.randint(2, 3) if hosts == 1 else hosts
    found = [
        _filing(luck, hosts, number, at=luck.uniform(0, rough / 4)) for number in range(luck.randint(2, 6))
    ]
    for number in range(luck.randint(0, 6)):
        kind = luck.choice(_ACTS)
        at = luck.uniform(0, rough)
        if kind == "file":
            found.append(_filing(luck, hosts, 10 + number, at))
        else:
            found.append(Happening(at, kind, luck.randrange(hosts), luck.randrange(1000), _command(luck)))
    kinds = faults.ALONE if name == "local" else faults.TOGETHER
    found += [
        Happening(luck.uniform(0, rough), luck.choice(kinds), luck.randrange(hosts), luck.randrange(1000))
        for _ in range(luck.randint(0, 4))
    ]
    (story,) = luck.choices(list(_STORIES), list(_STORIES.values()))
    found += story(luck, hosts, rough)
    found += _holds(random.Random(f"holds {seed}"), hosts, rough)
    found += _pipeline(random.Random(f"pipeline {seed}"), hosts, rough)
    return Plan(name, hosts, workers, luck.randrange(1 << 30), tuple(sorted(found)))


def _command(luck: random.Random) -> str:
    seconds = luck.choice([0.01, 0.01, 0.5, 1.5, 3.0, 9.0])
    codes = luck.choice(["0", "0", "0", "1,0", "1"])
    return f"sim {seconds} {codes}{luck.choice(['', '', ' stubborn'])} end"


def _filing(luck: random.Random, hosts: int, number: int, at: float) -> Happening:
    kind = luck.choice(["file made", "file own", "file own", "file same", "file later"])
    return Happening(at, kind, luck.randrange(hosts), number, _command(luck))


def _jobs_are_moved_back(luck: random.Random, hosts: int, rough: float) -> list[Happening]:
    """Jobs die, workers end, and a person moves the jobs back."""
    times = [luck.uniform(0.1, 0.3) * rough for _ in range(4)]
    return [
        *(
            Happening(at, "file own", luck.randrange(hosts), 30 + n, "sim 0.01 1 end")
            for n, at in enumerate(times)
        ),
        *(
            Happening(luck.uniform(0.3, 0.45) * rough, "stop", n % hosts, 3 * n)
            for n in range(max(2, hosts) - 1)
        ),
        *(Happening(luck.uniform(0.5, 0.75) * rough, "move", luck.randrange(hosts), n) for n in range(6)),
    ]


def _a_host_is_unseen(luck: random.Random, hosts: int, rough: float) -> list[Happening]:
    """A host cannot be seen for a while, and another one's clock is fast."""
    if hosts == 1:
        return _urgent_jobs_come_last(luck, hosts, rough)
    at = luck.uniform(3, 7)
    return [
        Happening(at - 2.5, "file own", 0, 40, "sim 12.0 0 end"),
        Happening(at - 1, "clock", 1, 2),
        Happening(at, "cut", 0, luck.choice([1, 1, 2])),
    ]


def _a_worker_hangs_in_a_run(luck: random.Random, hosts: int, rough: float) -> list[Happening]:
    """A host is cut off while its worker hangs in a call, and a command runs."""
    if hosts == 1:
        return _urgent_jobs_come_last(luck, hosts, rough)
    return [
        Happening(0.0, "cut in a run", 0, luck.randrange(1000)),
        Happening(luck.uniform(1, 2), "file own", 0, 41, "sim 12.0 0 end"),
    ]


def _urgent_jobs_come_last(_luck: random.Random, _hosts: int, _rough: float) -> list[Happening]:
    """Long jobs first, then urgent ones while all workers are busy."""
    return [
        *(Happening(0.5 + n / 10, "file own", 0, 50 + 2 * n, "sim 9.0 0 end") for n in range(4)),
        Happening(1.5, "file own", 0, 71, "sim 0.5 0 end"),
    ]


def _nothing_more(_luck: random.Random, _hosts: int, _rough: float) -> list[Happening]:
    return []


def _holds(luck: random.Random, hosts: int, rough: float) -> list[Happening]:
    """In one schedule of four: people who hold jobs, change them and let them go."""
    if luck.random() > 0.25:
        return []
    kinds = ["hold", "hold", "park", "release", "priority", "cancel", "retry"]
    return [
        Happening(
            luck.uniform(0.1, 0.9) * rough, luck.choice(kinds), luck.randrange(hosts), luck.randrange(1000)
        )
        for _ in range(luck.randint(3, 9))
    ]


def _jobs_share_slots(luck: random.Random, hosts: int, rough: float) -> list[Happening]:
    """Jobs share the slots of two groups, and workers die with slots in hand."""
    found = [
        Happening(luck.uniform(0, rough / 2), "file group", luck.randrange(hosts), 60 + n, _command(luck))
        for n in range(8)
    ]
    kinds = ("kill", "kill", "retry", "cancel", "drain", "touch slot", "touch slot")
    return found + [
        Happening(luck.uniform(2, rough), kind, luck.randrange(hosts), luck.randrange(1000)) for kind in kinds
    ]


def _jobs_have_one_key(luck: random.Random, hosts: int, rough: float) -> list[Happening]:
    """Jobs with one unique key are filed, dropped and brought back from everywhere."""
    kinds = [*["file unique"] * 6, *["drop unique"] * 2, "retry", "retry", "move", "move", "cancel"]
    texts = [f"sim {seconds} {codes} end" for seconds in (0.5, 2.0, 4.0) for codes in ("0", "1,0", "1")]
    return [
        Happening(luck.uniform(0, rough), kind, luck.randrange(hosts), 80 + n, luck.choice(texts))
        for n, kind in enumerate(kinds)
    ]


#: What rarely comes together by chance, and the part of all schedules in which it does.
_STORIES = {
    _jobs_are_moved_back: 15,
    _a_host_is_unseen: 10,
    _a_worker_hangs_in_a_run: 5,
    _urgent_jobs_come_last: 10,
    _nothing_more: 30,
    _jobs_share_slots: 15,
    _jobs_have_one_key: 15,
}


def _pipeline(luck: random.Random, hosts: int, rough: float) -> list[Happening]:
    """Jobs that wait for one another, filed in any order, of which some fail and are retried or cancelled."""
    if luck.random() > 0.2:
        return []
    found = [
        Happening(luck.uniform(0, rough / 2), "file after", luck.randrange(hosts), 110 + n, _command(luck))
        for n in range(luck.randint(2, 5))
    ]
    acts = luck.choices(["retry", "move", "cancel", "hold"], k=luck.randint(0, 4))
    return found + [
        Happening(luck.uniform(rough / 4, rough), act, luck.randrange(hosts), luck.randrange(1000))
        for act in acts
    ]


class Outcome(NamedTuple):
    """How a schedule ended: what it broke, None for nothing, its operations, and its trace."""

    broke: str | None
    operations: int
    trace: list[str]


def run(plan: Plan, *, traces: bool = False) -> Outcome:
    """Run a schedule."""
    world = World(random.Random(plan.luck), PROFILES[plan.profile], traces, is_rough=bool(plan.luck % 2))
    world.disk.may_lose_power = any(one.kind in faults.LOSING for one in plan.happenings)
    broke = None
    with doors.open_to(world):
        try:
            _run(world, plan)
        except Violation as problem:
            broke = str(problem)
            world.say("", f"VIOLATION: {broke}")
    return Outcome(broke, world.operations, world.trace)


def _run(world: World, plan: Plan) -> None:
    machines = [world.machine(f"host{number}") for number in range(plan.hosts)]
    world.make_spool(CONFIG)
    for number in range(plan.workers):
        employ(world, machines[number % plan.hosts], world.luck.uniform(0, 2))
    for one in plan.happenings:
        machine = machines[one.host % plan.hosts]
        world.at(one.at, partial(_happen, world, machine, one))
    world.run_until(plan.rough)
    calm(world)
    end = plan.rough + PATIENCE
    while world.time < end and not is_quiet(world):
        world.run_until(world.time + 1.0)
    world.auditor.at_the_end()


def calm(world: World) -> None:
    """End all faults. Whichever workers are left do the rest; only where there is none, one comes."""
    world.is_rough = False
    world.disk.free = 1 << 40
    for machine in world.machines:
        machine.mount.heal()
        machine.offset = machine.drift = 0.0
        for process in machine.processes:
            process.dies_in = process.fails_in = process.at_call = None
            process.stopped_until = min(process.stopped_until, world.time + 1)
    if not any(process.is_to_stay() for process in world.processes):
        employ(world, world.machines[0])
    world.start(world.machines[0], "person", partial(people.resume, world))
    world.start(world.machines[0], "person", partial(people.release_all, world))


def is_quiet(world: World) -> bool:
    """Whether no job waits or runs, and nobody who was asked to stop is still there."""
    tree = world.disk.tree
    waiting = [f"/spool/pending/{text}" for text in tree("/spool/pending") if not text.startswith(".")]
    if not all(rules.may_stay(world.auditor, path) for path in waiting):
        return False
    if any(process.is_to_end() for process in world.processes) or rules.slots_in_use(world):
        return False
    return not any(
        not text.endswith(".probe") for text in (*tree("/spool/processing"), *tree("/spool/failed"))
    )


def _happen(world: World, machine: Machine, one: Happening) -> None:
    world.say(machine.name, f"— {one.kind} {one.number} {one.text}")
    if (fault := faults.FAULTS.get(one.kind)) is not None:
        fault(world, machine, one.number)
    elif one.kind == "drain":
        employ(world, machine, awaited=frozenset())
    else:
        world.start(machine, _ROLES.get(one.kind, "person"), partial(_told, world, machine, one))


#: Who writes to files past the queue.
_ROLES = {"edit": "editor", "drop": "copier", "drop unique": "copier"}
#: The group of jobs, and how many of its slots each needs.
_SHARES = (("single", 1), ("pair", 1), ("pair", 1), ("pair", 2))
#: For how long jobs have a unique key.
_TERMS = ("active", "active", "active", "waiting", "3")


def _told(world: World, machine: Machine, one: Happening) -> None:
    """Act; what the disk or the queue refuses is told to the person, who leaves it at that."""
    try:
        _act(world, machine, one)
    except (OSError, QueueError) as problem:
        world.say(world.current, f"is told: {problem}")


def _act(world: World, machine: Machine, one: Happening) -> None:
    kind, number = one.kind, one.number
    if kind == "file unique":
        people.file_unique(world, f"own-{number}", one.text, _TERMS[number % len(_TERMS)])
    elif kind == "file group":
        people.file_grouped(world, f"own-{number}", one.text, _SHARES[number % len(_SHARES)])
    elif kind == "file after":  # each waits for the one before, and the second next for the first as well
        wanted = {f"own-{number - back}": _ENDINGS[number % 3] for back in (1, 3) if number - back >= 110}
        people.file_after(world, f"own-{number}", one.text, wanted)
    elif kind.startswith("file"):
        job_id = {"file made": None, "file same": "same"}.get(kind, f"own-{number}")
        delay = 2.0 + number % 7 if kind == "file later" else 0.0
        people.file(world, job_id, one.text, number % 11 if number % 2 else None, delay)
    elif kind.startswith("drop"):
        own = ["", "id: same\n", f"id: drop-{number}\n"][number % 3]
        key = f"unique: {people.KEY}\n" if kind == "drop unique" else ""
        text = f"{own}{key}command: {one.text}\n"
        people.drop(world, f"dropped {number}.yaml", text, by_copy=bool(number % 2))
    elif kind == "stop":
        here = [process for process in machine.processes if process.what == "worker"]
        if here:
            people.stop(world, here[number % len(here)], by_signal=bool(number % 2))
            if number % 3:
                employ(world, machine, 3.0)
    else:
        _ACT[kind](world, number)


_ENDINGS = ("ok", "any", "failed")
_ACT: dict[str, Callable[[World, int], None]] = {
    "hold": people.hold,
    "touch slot": people.touch_slot,
    "release": people.release,
    "park": people.park_by_hand,
    "edit": lambda world, number: people.edit(world, number, number % 11),
    "move": people.move_back,
    "retry": people.retry,
    "priority": lambda world, number: people.set_priority(world, number, number % 11),
    "now": people.run_now,
    "cancel": people.cancel,
    "pause": lambda world, number: people.pause(world, number % 15),
    "repair": lambda world, _: people.repair(world),
    "config": lambda world, number: people.configure(world, *_CONFIGS[number % len(_CONFIGS)]),
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
