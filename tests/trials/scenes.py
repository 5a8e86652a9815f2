"""What happens to a queue, one action at a time, each in a process of its own that a trial may harm."""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from queuectl import Spool, State
from queuectl.system import files
from queuectl.times import utc_now
from queuectl.worker.loop import Worker
from queuectl.worker.remains import stop_remains
from tests.conftest import places_in, problems_left_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.history import Event
    from queuectl.spool.claims import Claim


DEADLY = 9


def survives(action: Callable[[], object], kernel: object = os) -> bool:
    """Run an action in a process of its own, on this kernel; whether it came to its end."""
    child = os.fork()
    if child == 0:
        finish_child(action, kernel)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, DEADLY}, f"the process ended with {code}; its traceback is on stderr"
    return code == 0


def finish_child(action: Callable[[], object], kernel: object) -> NoReturn:
    code = 1
    try:
        files.kernel = kernel
        action()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is: this process must not return into pytest
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


@dataclass
class Scene:
    """A spool, and what is known of it before the deadly action.

    The commands leave marks beside it, which tell a whole command from one that was cut short.
    """

    spool: Spool
    told: Path
    ids: list[str] = field(default_factory=list)
    unnamed: int = 0

    def __post_init__(self) -> None:
        self.told.touch()
        self.marks.mkdir()

    @property
    def marks(self) -> Path:
        return self.told.with_name(f"{self.told.name}-marks")

    @property
    def command(self) -> str:
        """Whatever its beginning is cut off from does harm under another name."""
        return f"touch {self.marks}/$QUEUECTL_JOB_ID.$QUEUECTL_ATTEMPT.whole"

    def tell(self, job_id: str) -> None:
        """What printing an id is to a person: from here on the job must not be lost."""
        with self.told.open("a") as file:
            file.write(f"{job_id}\n")
        if (heard := getattr(files.kernel, "tell", None)) is not None:
            heard(job_id)

    def promised(self) -> set[str]:
        return set(self.ids) | set(self.told.read_text().split())


def claimed(scene: Scene, *, begun: bool = True) -> Claim:
    """A claim of a member that lives as long as this process."""
    member = scene.spool.member()
    now = utc_now()
    member.look(now)
    claim = member.claim(now)
    assert claim
    KEPT.append(member)
    if begun:
        begun_ = member.begin(claim)
        assert begun_
        claim, attempt, logs = begun_
        files.close(*logs)
        return claim.noted(member.started(attempt, 0, now))
    return claim


KEPT: list[Any] = []


def file_one(scene: Scene) -> None:
    scene.tell(scene.spool.file(scene.command))


def file_with_id(scene: Scene) -> None:
    scene.tell(scene.spool.file({"id": "chosen", "command": scene.command}))


def file_several(scene: Scene) -> None:
    jobs = [{"id": f"chosen-{n}", "command": scene.command} for n in range(3)]
    for filed in scene.spool.file_many(jobs):
        scene.tell(filed.id)


def claim_and_complete(scene: Scene) -> None:
    claim = claimed(scene)
    KEPT[-1].complete(claim, {"exit_code": 0, "seconds": 0.0}, utc_now())
    KEPT[-1].leave()


def claim_and_fail(scene: Scene) -> None:
    claim = claimed(scene)
    KEPT[-1].fail(claim, {"exit_code": 1, "seconds": 0.0, "error": "exit status 1"}, utc_now(), 0.0)
    KEPT[-1].leave()


def retry(scene: Scene) -> None:
    scene.spool.retry(scene.ids[0])


def cancel(scene: Scene) -> None:
    scene.spool.cancel_waiting(scene.ids[0])


def take_drop_in(scene: Scene) -> None:
    with scene.spool.member() as member:
        for _ in range(2):
            member.look(utc_now(), again=True)


def recover(scene: Scene) -> None:
    with scene.spool.member() as member:
        member.recover(stop_remains, utc_now())


def nothing_before(scene: Scene) -> None:
    """The scene begins with an empty spool."""


def waiting(scene: Scene) -> None:
    scene.ids.append(scene.spool.file({"id": "first", "command": scene.command}))


def dead(scene: Scene) -> None:
    waiting(scene)
    assert survives(lambda: end_as_dead(scene))


def end_as_dead(scene: Scene) -> None:
    claim = claimed(scene)
    KEPT[-1].end(
        claim,
        {"event": "failed", "attempt": 1, "at": "2026-01-01T00:00:00Z", "worker": claim.owner, "error": "e"},
    )
    KEPT[-1].leave()


def orphaned(scene: Scene) -> None:
    """A worker died while the command ran."""
    waiting(scene)
    assert not survives(lambda: (claimed(scene), os._exit(DEADLY)))


def orphaned_with_an_outcome(scene: Scene) -> None:
    """A worker died between recording the outcome and the move."""
    waiting(scene)

    def action() -> None:
        claim = claimed(scene)
        done = {
            "event": "completed",
            "attempt": 1,
            "at": "2026-01-01T00:00:00Z",
            "worker": claim.owner,
            "exit_code": 0,
        }
        claim.noted(done)
        os._exit(DEADLY)

    assert not survives(action)


def drop(scene: Scene, name: str, text: str, job_id: str | None = None) -> None:
    """Put a file into pending/ that has stood still for an hour; without an id it may be given any."""
    path = Path(scene.spool.root.folder(State.PENDING), name)
    path.write_text(text)
    long_ago = (utc_now() - timedelta(hours=1)).timestamp()
    os.utime(path, (long_ago, long_ago))
    if job_id is None:
        scene.unnamed += 1
    else:
        scene.ids.append(job_id)


def dropped(scene: Scene) -> None:
    drop(scene, "note.yml", f"command: {scene.command}\n")


def dropped_with_id(scene: Scene) -> None:
    drop(scene, "note.yaml", f"id: its-own\ncommand: {scene.command}\n", "its-own")


def dropped_twin(scene: Scene) -> None:
    """The name of the file suggests the id of a job that is there already."""
    scene.ids.append(scene.spool.file({"id": "note", "command": scene.command}))
    assert survives(partial(drain, scene))
    dropped(scene)


def dropped_json(scene: Scene) -> None:
    drop(scene, "note.json", json.dumps({"command": scene.command}))


def waiting_json(scene: Scene) -> None:
    """JSON under a name that sorts already is written anew by whoever claims it."""
    name = "05-20260101T000000.000000Z-json.yaml"
    drop(scene, name, json.dumps({"command": scene.command}), "json")


POINTS: dict[str, tuple[Callable[[Scene], None], Callable[[Scene], None]]] = {
    "filing": (nothing_before, file_one),
    "filing under a chosen id": (nothing_before, file_with_id),
    "filing several": (nothing_before, file_several),
    "claiming and completing": (waiting, claim_and_complete),
    "claiming and failing": (waiting, claim_and_fail),
    "retrying": (dead, retry),
    "cancelling": (waiting, cancel),
    "taking a drop in": (dropped, take_drop_in),
    "taking a drop in that has an id": (dropped_with_id, take_drop_in),
    "taking a drop in whose name is another job's id": (dropped_twin, take_drop_in),
    "taking JSON in": (dropped_json, take_drop_in),
    "claiming JSON": (waiting_json, claim_and_complete),
    "recovering a lost run": (orphaned, recover),
    "recovering an outcome": (orphaned_with_an_outcome, recover),
}


def ends_of(action: Callable[[Scene], None]) -> list[list[State]]:
    """Where a job may be after an action that was cut off, and a drain."""
    return [[State.DONE], [State.DEAD]] if action in {retry, cancel} else [[State.DONE]]


def faults_of(scene: Scene, promised: set[str], ends: list[list[State]]) -> list[str]:
    """What is wrong with a spool that has been drained after a process died."""
    spool = scene.spool
    told = {job_id: kinds_of(spool, job_id) for job_id in promised & set(places_in(spool))}
    faults = [
        f"{job_id} ran again: {kinds}" for job_id, kinds in told.items() if kinds.count("completed") > 1
    ]
    faults += [
        f"{job_id} is done, and that it ended is not recorded: {kinds}"
        for job_id, kinds in told.items()
        if places_in(spool)[job_id] == [State.DONE] and kinds[-1] != "completed"
    ]
    return faults + losses_of(scene, promised, ends)


def kinds_of(spool: Spool, job_id: str) -> list[str]:
    return [event["event"] for event in history_of(spool, job_id)]


def losses_of(scene: Scene, promised: set[str], ends: list[list[State]]) -> list[str]:
    """Jobs that are lost, doubled or half, and leftovers."""
    spool, found = scene.spool, places_in(scene.spool)
    faults = [f"{job_id} is in {found.get(job_id)}" for job_id in promised if found.get(job_id) not in ends]
    faults += [f"{job_id} is in {states}" for job_id, states in found.items() if len(states) > 1]
    faults += [f"half a command ran: {one.name}" for one in scene.marks.iterdir() if one.suffix != ".whole"]
    strangers = {job_id: states for job_id, states in found.items() if job_id not in promised}
    if scene.unnamed and list(strangers.values()) != [[State.DONE]] * scene.unnamed:
        faults.append(f"the drop has become {strangers}")
    return faults + problems_left_in(spool)


def history_of(spool: Spool, job_id: str) -> tuple[Event, ...]:
    job = spool.find(job_id).job
    return job.history if job else ()


def drain(scene: Scene) -> None:
    Worker(scene.spool.root, "drain", awaited=frozenset()).run()
