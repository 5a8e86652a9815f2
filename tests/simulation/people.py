"""What people do to the spool while the workers work, each a process of its own."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from queuectl import settings, times
from queuectl.documents import Bare
from queuectl.errors import BadJob, FiledAllTheSame, JobMoved, QueueError
from queuectl.job.fields import from_fields
from queuectl.job.model import State
from queuectl.rules.gate import Gate
from queuectl.rules.release import release as free
from queuectl.rules.release import release_now
from queuectl.spool import acts, changes, filing, jobs, parking, requests
from queuectl.spool.cancellation import Cancelling
from queuectl.spool.names import HELD
from queuectl.spool.onlooker import Onlooker
from queuectl.system import drafts, files, logs
from queuectl.times import iso
from queuectl.view import audit
from tests.simulation.commands import Starter
from tests.simulation.doors import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from queuectl.spool.acts import Hand
    from queuectl.spool.jobs import Found
    from tests.simulation.world import Process, World


#: The unique key of all jobs that have one.
KEY = "k"


def _values(world: World) -> settings.Settings:
    return settings.load(world.root().text)


def file_unique(world: World, job_id: str, command: str, term: str) -> None:
    """`queuectl enqueue --unique KEY --unique-for TERM`; all such jobs have one key."""
    file(world, job_id, command, None, 0.0, {"unique": KEY, "unique_for": term})


def file_grouped(world: World, job_id: str, command: str, share: tuple[str, int]) -> None:
    """`queuectl enqueue --group GROUP --slots N`."""
    group, slots = share
    file(world, job_id, command, None, 0.0, {"group": group, "slots": Bare(str(slots))})


def touch_slot(world: World, at: int) -> None:
    """`touch groups/pair/SLOT` for a slot that the group has."""
    with contextlib.suppress(OSError):
        slot = f"/spool/groups/pair/{('one', 'two')[at % 2]}"
        world.kernel.close(world.kernel.open(slot, os.O_CREAT | os.O_WRONLY, 0o600))


def file_after(world: World, job_id: str, command: str, wanted: Mapping[str, str]) -> None:
    """`queuectl enqueue --after … --after-unfiled`."""
    file(world, job_id, command, None, 0.0, {"after": wanted})


def file(
    world: World,
    job_id: str | None,
    command: str,
    priority: int | None,
    delay: float,
    more: Mapping[str, str | Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """`queuectl enqueue`: what it prints is noted, and what it refuses."""
    auditor = world.auditor
    fields: dict[str, Any] = {"command": command, **more}
    if job_id is not None:
        fields["id"] = job_id
    if command.split()[2:3] == ["1"]:  # it fails whatever happens
        fields["max_retries"] = Bare("0")
    if priority is not None:
        fields["priority"] = Bare(str(priority))
    if delay:
        fields["run_at"] = iso(EPOCH + timedelta(seconds=world.time + delay))
    try:
        root = world.root()
        values = _values(world)
        gate = Gate(root, may_be_unfiled=True).judge
        for filed in filing.file_jobs(root, values, [from_fields(fields)], times.utc_now, gate):
            if not filed.is_new:
                auditor.told_of_holder(filed.id)
                auditor.refuse(job_id or "")
            elif filed.error is None:
                auditor.printed.add(filed.id)
                world.say(world.current, f"prints {filed.id}")
    except (QueueError, OSError) as problem:
        world.say(world.current, f"is told: {problem}")
        if job_id is not None and job_id.startswith("own-") and not isinstance(problem, FiledAllTheSame):
            auditor.refuse(job_id)


def drop(world: World, name: str, text: str, *, by_copy: bool) -> None:
    """`cp` or `mv` into pending/."""
    kernel, data = world.kernel, text.encode()
    target = f"/spool/pending/{name}"
    place = target if by_copy else f"/elsewhere/{name}"
    with contextlib.suppress(OSError):
        fd = kernel.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        for at in range(0, len(data), 16):
            kernel.write(fd, data[at : at + 16])
            if by_copy:
                times.clock.sleep(0.3)
        kernel.close(fd)
        if not by_copy:
            kernel.rename(place, target)


def edit(world: World, at: int, priority: int) -> None:
    """Change a waiting job's priority with an editor that writes in place."""
    found = _some(world, at, State.PENDING, State.FAILED)
    if found is None:
        return
    with contextlib.suppress(OSError, BadJob):
        fd = logs.open_update(found.path)
        kernel = world.kernel
        try:
            data = kernel.read(fd, 1 << 16)
            new = changes.edited(data, {"priority": priority})
            times.clock.sleep(0.2)
            kernel.lseek(fd, 0, os.SEEK_SET)
            kernel.ftruncate(fd, 0)
            times.clock.sleep(0.2)
            kernel.write(fd, new)
        finally:
            kernel.close(fd)


def _some(world: World, at: int, *states: State) -> Found | None:
    with contextlib.suppress(OSError):
        found = [one for state in states for one in jobs.found_in(world.root(), state)]
        return found[at % len(found)] if found else None
    return None


def move_back(world: World, at: int) -> None:
    """`mv dead/… pending/`, under the same name."""
    found = _some(world, at, State.DEAD)
    if found is not None:
        with contextlib.suppress(OSError):
            world.kernel.rename(found.path, found.path.replace("/dead/", "/pending/"))


def _by_hand(world: World, at: int, states: tuple[State, ...], act: Callable[[Hand, Found], object]) -> None:
    found = _some(world, at, *states)
    if found is None:
        return
    with contextlib.suppress(OSError, QueueError), acts.hand(world.root(), times.utc_now()) as me:
        act(me, found)


def retry(world: World, at: int) -> None:
    """`queuectl retry`."""
    _by_hand(
        world,
        at,
        (State.DEAD, State.FAILED),
        lambda me, found: acts.retry(me, found, _values(world), times.utc_now()),
    )


def hold(world: World, at: int) -> None:
    """`queuectl hold`."""
    found = _some(world, at, State.PENDING, State.FAILED)
    if found is not None:
        parking.hold(world.root(), found)


def release(world: World, at: int) -> None:
    """`queuectl release` of one of those that are held, now and then with `--now`."""
    held = _held(world)
    if held and at % 3:
        free(world.root(), held[at % len(held)], times.utc_now())
    elif held:
        with acts.hand(world.root(), times.utc_now()) as me:
            world.auditor.let_go.add(held[at % len(held)].id)
            release_now(me, held[at % len(held)], times.utc_now())


def park_by_hand(world: World, at: int) -> None:
    """`mv X X.held`, without a group, and back under the same name a moment later if `at` is odd."""
    found = _some(world, at, State.PENDING, State.FAILED)
    if found is not None and found.name.parked is None:
        parked = f"{found.path.rpartition('/')[0]}/{found.name._replace(parked=HELD)}"
        world.kernel.rename(found.path, parked)
        if at % 2:
            times.clock.sleep(0.5 + at % 4)
            world.kernel.rename(parked, found.path)


def release_all(world: World) -> None:
    """Let go whatever is held, again and again: somebody may still be about to hold a job."""
    end = times.clock.monotonic() + 100.0
    while times.clock.monotonic() < end:
        for found in _held(world):
            with contextlib.suppress(OSError, QueueError):
                free(world.root(), found, times.utc_now())
        times.clock.sleep(1.0)


def _held(world: World) -> list[Found]:
    with contextlib.suppress(OSError):
        waiting = [one for state in jobs.WAITING for one in jobs.found_in(world.root(), state)]
        return [one for one in waiting if one.name.parked == HELD]
    return []


def set_priority(world: World, at: int, priority: int) -> None:
    """`queuectl set ID priority=N`."""
    _by_hand(
        world,
        at,
        (State.PENDING, State.FAILED),
        lambda me, found: acts.change(
            me,
            found,
            acts.Change(
                lambda data: changes.edited(data, {"priority": priority}), _values(world), lambda _: {}
            ),
            times.utc_now(),
        ),
    )


def run_now(world: World, at: int) -> None:
    """`queuectl run-now`."""
    _by_hand(
        world,
        at,
        (State.PENDING, State.FAILED),
        lambda me, found: acts.run_now(me, found, times.utc_now()),
    )


def cancel(world: World, at: int) -> None:
    """`queuectl cancel`, with ten seconds of patience."""
    found = _some(world, at, State.PROCESSING, State.PENDING, State.FAILED)
    if found is None:
        return
    root = world.root()
    with contextlib.suppress(OSError, QueueError), acts.hand(root, times.utc_now()) as me:
        act = Cancelling(me, _values(world), Onlooker(root), Starter(world).stop_remains, times.utc_now)
        end = times.clock.monotonic() + 10.0
        try:
            while times.clock.monotonic() < end:
                now = jobs.names_of(root, found.id)
                if now:
                    with contextlib.suppress(JobMoved):
                        if act.act(now[0]) is not None:
                            return
                    act.take_over()
                    act.wait(now, end, lambda _: None)
                times.clock.sleep(0.5)
        finally:
            act.withdraw()


def pause(world: World, seconds: float) -> None:
    """`queuectl pause`, and `resume` later."""
    root = world.root()
    with contextlib.suppress(OSError):
        requests.pause(root, times.utc_now())
    times.clock.sleep(seconds)
    resume(world)


def resume(world: World) -> None:
    """`queuectl resume`, as often as it takes."""
    while True:
        try:
            requests.resume(world.root())
        except OSError:
            times.clock.sleep(1.0)
        else:
            return


def repair(world: World) -> None:
    """`queuectl check --repair`."""
    root = world.root()
    with contextlib.suppress(OSError, QueueError):
        values = _values(world)
        audit.repair(root, Onlooker(root), values, Starter(world).stop_remains, times.utc_now())


def configure(world: World, key: str, value: str) -> None:
    """`queuectl config set`."""

    def change(before: bytes) -> tuple[bytes, int]:
        return settings.edited(before.decode(), key, value).encode(), files.PRIVATE

    with contextlib.suppress(OSError, QueueError):
        drafts.rewrite(world.root().config, change)


def stop(world: World, process: Process, *, by_signal: bool) -> None:
    """`kill -TERM`, or `queuectl worker stop`."""
    if process.worker is None or process.is_dead:
        return
    if by_signal:
        process.is_to_stop = True
        process.worker.ask_to_stop()
    else:
        name = process.worker.name
        process.asked_as = name  # a share may report an error, and the request is there
        with contextlib.suppress(OSError):
            requests.to_stop(world.root(), [name], None)
