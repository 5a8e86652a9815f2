"""A system without room for a process, and files that it alone refuses: no other job waits or dies of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from queuectl import Spool, State
from queuectl.errors import BadJob, IdTooLong
from queuectl.spool import jobs
from queuectl.spool.names import AROUND_ID, REASON, SHORT_ID, SHORTEST_LIMIT, Name
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.times import utc_now
from queuectl.view import audit
from queuectl.view.wording import Finding, Kind
from queuectl.worker.remains import stop_remains

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.job.history import Event
    from tests.conftest import Evidence, Process, Until, Workers

#: Starts a worker in a process of its own that can start no command while a file is there.
Start = "Callable[[int], tuple[Path, Path]]"


@pytest.fixture
def start_without_room(tmp_path: Path, workers: Workers) -> Start:  # type: ignore[valid-type]
    switch, tries = tmp_path / "switch", tmp_path / "tries"
    spawn = os.posix_spawn

    def refuse(number: int, *arguments: Any, **options: Any) -> int:
        if switch.exists():
            with tries.open("a") as file:
                file.write("x")
            raise OSError(number, os.strerror(number))
        return spawn(*arguments, **options)

    def start(number: int) -> tuple[Path, Path]:
        tries.touch()
        workers.fork(lambda: setattr(os, "posix_spawn", partial(refuse, number)))
        return switch, tries

    return start


@pytest.mark.parametrize(
    "number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE], ids=errno.errorcode.get
)
@pytest.mark.parametrize("launcher", [None, "env"])
def test_a_lack_of_processes_is_no_job_s_fault_and_is_waited_for(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    until: Until,
    start_without_room: Callable[[int], tuple[Path, Path]],
    number: int,
    launcher: str | None,
) -> None:
    switch, tries = start_without_room(number)
    switch.touch()
    ids = [
        spool.file({"command": evidence.command(), "max_retries": 0, "launcher": launcher}) for _ in range(3)
    ]
    until(lambda: len(tries.read_text()) > 1, "it was tried again")
    assert not jobs.names_in(spool.root, State.DEAD)
    assert workers.said().count("no room for another process") == 1
    switch.unlink()
    until(lambda: len(jobs.names_in(spool.root, State.DONE)) == 3, "all are done")
    assert evidence.started() == ids
    for found in spool.list():
        assert found.job
        assert [(one["event"], one["attempt"]) for one in found.job.history] == [
            ("started", 1),
            ("completed", 1),
        ]
    assert workers.said().count("no room for another process") == 1


@pytest.mark.parametrize("number", [errno.E2BIG, errno.ENOEXEC], ids=errno.errorcode.get)
def test_what_is_wrong_with_the_command_is_the_job_s_fault(
    spool: Spool, until: Until, start_without_room: Callable[[int], tuple[Path, Path]], number: int
) -> None:
    switch, _ = start_without_room(number)
    switch.touch()
    spool.file({"id": "mine", "command": "true", "max_retries": 0})
    until(lambda: spool.find("mine").state is State.DEAD, "it is dead")


def test_a_worker_without_room_gives_its_job_to_others(
    spool: Spool,
    workers: Workers,
    until: Until,
    start_without_room: Callable[[int], tuple[Path, Path]],
) -> None:
    switch, tries = start_without_room(errno.EAGAIN)
    switch.touch()
    spool.file({"id": "mine", "command": "true"})
    until(tries.read_text, "it was tried")
    workers.start()
    until(lambda: spool.find("mine").state is State.DONE, "another worker runs it")


# ── files that only the system refuses ────────────────────────────────────────────────────────


def reason_of(spool: Spool, job_id: str) -> str:
    return Path(f"{spool.find(job_id).path}{REASON}").read_text()


def test_a_job_whose_file_may_not_grow_is_put_aside_and_the_others_run(
    spool: Spool, workers: Workers
) -> None:
    def large(job_id: str, command: str) -> None:
        spool.file({"id": job_id, "command": command, "env": {"PAD": "x" * 20_000}})

    large("brisk", "true")
    large("slow", "sleep 0.5; exit 3")
    flow = spool.path / "pending" / "flow.json"
    flow.write_text(f'{{"command": "true", "env": {{"PAD": "{"x" * 20_000}"}}}}')
    spool.file({"id": "small", "command": "true"})
    worker = workers.start_inside("sh", "-c", 'ulimit -f 20; exec "$@"', "sh", kind="drain")
    assert worker.wait() == 0
    states = {found.id: found.state for found in spool.list()}
    assert states == dict.fromkeys(("brisk", "slow", "flow"), State.DEAD) | {"small": State.DONE}
    assert "completed" in reason_of(spool, "brisk")
    assert "exit status 3" in reason_of(spool, "slow")
    assert "It was started" in reason_of(spool, "slow")
    assert "ulimit -f" in reason_of(spool, "flow")


@pytest.fixture
def make_immutable(tmp_path: Path) -> Iterator[Callable[[str | Path], None]]:
    """Keeps root, too, from changing a file; undone by `thaw`."""
    chattr = shutil.which("chattr")
    probe = tmp_path / "probe"
    probe.touch()
    if chattr is None or subprocess.run([chattr, "+i", probe], capture_output=True, check=False).returncode:
        pytest.skip("only some file systems have immutable files, for root")
    subprocess.run([chattr, "-i", probe], check=True)

    def make(path: str | Path) -> None:
        subprocess.run([chattr, "+i", path], check=True)

    yield make
    subprocess.run([chattr, "-R", "-f", "-i", tmp_path], check=False)


def check(spool: Spool) -> list[Finding]:
    return audit.check(spool.root, Onlooker(spool.root), 1, utc_now())


def thaw(folder: Path) -> None:
    subprocess.run(["chattr", "-R", "-i", folder], check=True)


def test_a_running_job_whose_file_becomes_immutable_is_recorded_once_it_can_be(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    until: Until,
    make_immutable: Callable[[str | Path], None],
    history: Callable[[str], tuple[Event, ...]],
    tmp_path: Path,
) -> None:
    workers.start()
    gate = tmp_path / "gate"
    stuck = spool.file(evidence.command(f"until test -e {gate}; do sleep 0.02; done"))
    until(lambda: evidence.started() == [stuck], "it runs")
    make_immutable(spool.find(stuck).path)
    gate.touch()
    later = spool.file(evidence.command())
    until(lambda: spool.find(later).state is State.DONE, "the next one runs")
    until(lambda: "as soon as its file can be changed" in workers.said(), "it is told")
    assert spool.find(stuck).state is State.PROCESSING
    thaw(spool.path / "processing")
    until(lambda: spool.find(stuck).state is State.DONE, "it is recorded")
    assert [event["event"] for event in history(stuck)] == ["started", "completed"]
    assert evidence.started() == [stuck, later]
    assert workers.said().count("as soon as its file can be changed") == 1


def test_files_that_cannot_be_moved_are_told_once_and_hold_nobody_up(
    spool: Spool, workers: Workers, make_immutable: Callable[[str | Path], None]
) -> None:
    spool.file({"id": "stuck", "command": "true", "priority": 10})
    make_immutable(spool.find("stuck").path)
    drop = spool.path / "pending" / "drop.yaml"
    drop.write_text("command: true\n")
    make_immutable(drop)
    spool.file({"id": "later", "command": "true"})
    worker = workers.start("drain")
    assert worker.wait() == 0
    assert spool.find("later").state is State.DONE
    assert spool.find("stuck").state is State.PENDING
    assert drop.exists()
    assert workers.said().count("cannot be claimed") == workers.said().count("cannot be taken in") == 1
    thaw(spool.path / "pending")
    workers.drain()
    assert {found.state for found in spool.list()} == {State.DONE}


def test_a_claim_of_a_dead_worker_that_cannot_be_changed_holds_nobody_up(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    until: Until,
    make_immutable: Callable[[str | Path], None],
) -> None:
    worker = workers.start()
    stuck = spool.file(evidence.command("sleep 30"))
    until(lambda: evidence.started() == [stuck], "it runs")
    until(lambda: "running (pid" in workers.said(), "it is written down")
    make_immutable(spool.find(stuck).path)
    worker.kill()
    later = spool.file({"command": "true"})
    workers.drain()
    assert spool.find(later).state is State.DONE
    assert "its file cannot be changed" in workers.said()
    path = spool.find(stuck).path
    left = audit.repair(spool.root, Onlooker(spool.root), spool.settings(), stop_remains, spool.clock())
    (claim,) = [one for one in left if one.path == path]
    assert f"could not take the job over: Operation not permitted: {path}" in claim.problem
    assert f"`lsattr -d {path}`" in claim.remedy
    assert f"`queuectl -s {spool.path} check --repair`" in claim.remedy
    thaw(spool.path / "processing")


def test_a_directory_that_takes_no_claim_of_a_dead_worker_is_named(
    spool: Spool, make_immutable: Callable[[str | Path], None]
) -> None:
    dead = "host-1-abcd"
    outcome = {"event": "completed", "attempt": 1, "at": "2026-01-01T00:00:00Z", "worker": dead}
    claim = spool.path / f"processing/05-20260101T000000.000000Z-stuck@{dead}.yaml"
    claim.write_text(f"command: 'true'\nhistory:\n- {json.dumps(outcome)}\n")
    done = spool.path / "done"
    make_immutable(done)
    left = audit.repair(spool.root, Onlooker(spool.root), spool.settings(), stop_remains, spool.clock())
    (finding,) = [one for one in left if one.path == str(claim)]
    assert f"could not take the job over: Operation not permitted: {done}" in finding.problem
    assert f"`lsattr -d {done}`" in finding.remedy
    thaw(done)
    audit.repair(spool.root, Onlooker(spool.root), spool.settings(), stop_remains, spool.clock())
    assert spool.find("stuck").state is State.DONE


@pytest.mark.parametrize("how", ["immutable", "mode 500"])
@pytest.mark.parametrize(
    ("command", "state"), [("true", State.DONE), ("exit 1", State.FAILED), ("exit 1", State.DEAD)]
)
def test_a_directory_that_takes_no_outcome_is_to_blame_and_not_the_job(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    until: Until,
    request: pytest.FixtureRequest,
    how: str,
    command: str,
    state: State,
) -> None:
    folder = spool.root.folder(state)
    tries = {"max_retries": 0} if state is State.DEAD else {"max_retries": 3, "backoff_base": 600}
    stuck = spool.file({"command": evidence.command(command), **tries})
    inside: list[str] = []
    if how == "immutable":
        request.getfixturevalue("make_immutable")(folder)
    else:
        os.chmod(folder, 0o500)
        if os.geteuid() == 0:
            inside = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    worker = workers.start_inside(*inside, kind="drain")
    until(lambda: folder in workers.said(), "it names the directory")
    later = spool.file({"command": "true"})
    if how == "immutable":
        assert [(one.kind, one.path) for one in check(spool)] == [(Kind.NOT_WRITABLE, folder)]
        thaw(Path(folder))
    else:
        os.chmod(folder, 0o700)
    assert worker.wait() == 0
    assert spool.find(stuck).state is state
    assert spool.find(later).state is State.DONE
    assert evidence.started() == [stuck]
    assert workers.said().count("cannot be used") == 1
    assert f"`ls -ld {folder}; lsattr -d {folder}`" in workers.said()
    assert "put aside" not in workers.said()


def ask_again(worker: Process) -> bool:
    """Ask a worker to stop, and whether it has: signals that follow each other closely count as one."""
    worker.popen.terminate()
    return not worker.is_running


def test_a_worker_that_ends_before_it_can_move_a_job_says_that_the_outcome_is_recorded(
    spool: Spool, workers: Workers, until: Until, make_immutable: Callable[[str | Path], None]
) -> None:
    folder = spool.path / "done"
    make_immutable(folder)
    spool.file({"id": "mine", "command": "true"})
    worker = workers.start()
    until(lambda: str(folder) in workers.said(), "it names the directory")
    worker.popen.terminate()
    until(lambda: "asked to stop" in workers.said(), "it waits")
    until(lambda: ask_again(worker), "it ends at once")
    assert "job mine: its outcome is in its file (completed)" in workers.said()
    assert "counts as lost" not in workers.said().rpartition("asked to stop")[2].partition("\n")[2]
    thaw(folder)
    workers.drain()
    assert spool.find("mine").state is State.DONE


# ── long names ────────────────────────────────────────────────────────────────────────────────


class ShortNames:
    """System calls on a file system whose names have 143 bytes at most, as those of eCryptfs."""

    def __init__(self, limit: int = SHORTEST_LIMIT) -> None:
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _check(self, *paths: str | Path) -> None:
        for path in paths:
            if len(os.path.basename(path)) > self._limit:
                self._refuse(path)

    @staticmethod
    def _refuse(path: str | Path) -> NoReturn:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._check(path)
        return os.open(path, flags, mode)

    def rename(self, source: str, target: str) -> None:
        self._check(source, target)
        os.rename(source, target)

    replace = rename


def test_the_longest_name_of_a_job_is_as_long_as_is_reckoned() -> None:
    owner = f"{'h' * 40}-{4194304}-{'f' * 4}"
    claim = Name(10, "20261122T042700.123456Z", "i" * SHORT_ID, owner)
    assert len(f".{claim}.new") == SHORT_ID + AROUND_ID == SHORTEST_LIMIT


def test_an_id_that_is_too_long_for_the_file_system_is_refused(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.file({"id": "y" * 100, "command": "true"})
    monkeypatch.setattr(files, "kernel", ShortNames())
    spool = Spool(spool.path)
    for length in (SHORT_ID + 1, 100):
        with pytest.raises(IdTooLong, match=f"has {length} characters"):
            spool.file({"id": "x" * length, "command": "true"})
    spool.file({"id": "x" * SHORT_ID, "command": "true"})
    assert sorted(len(found.id) for found in spool.list()) == [SHORT_ID, 100]
    assert len(os.listdir(spool.root.ids)) == 2


def test_a_file_system_without_room_for_the_names_of_a_queue_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "kernel", ShortNames(60))
    with pytest.raises(Exception, match="names have fewer than"):
        Spool.create(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_job_whose_parked_name_would_be_too_long_is_refused_or_put_aside(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "kernel", ShortNames())
    spool = Spool(spool.path)
    long, longer = "a" * (SHORT_ID - 2), "b" * SHORT_ID
    spool.file({"id": long, "command": "true"})
    spool.file({"id": "short", "command": "true", "after": long})
    with pytest.raises(BadJob, match="no room for 'aaaa"):
        spool.file({"id": longer, "command": "true", "after": long})
    (spool.path / "pending" / f"{longer}.yaml").write_text(f"command: true\nafter: {long}\n")
    os.utime(spool.path / "pending" / f"{longer}.yaml", (1, 1))
    with spool.member() as me:
        me.look(utc_now(), again=True)
        ran = [claim.id for _ in range(2) if (claim := me.claim(utc_now()))]
        assert ran == [long]
    assert "too long together" in Path(f"{spool.find(longer).path}{REASON}").read_text()


def test_a_job_that_cannot_be_claimed_for_its_long_name_is_put_aside(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.file({"id": "x" * 100, "command": "true", "priority": 9})
    spool.file({"id": "short", "command": "true"})
    (spool.path / "pending" / f"{'y' * 100}.yaml").write_text("command: true\n")
    os.utime(spool.path / "pending" / f"{'y' * 100}.yaml", (1, 1))
    with spool.member() as me, monkeypatch.context() as patch:
        patch.setattr(files, "kernel", ShortNames())
        ran = []
        for _ in range(5):
            me.look(utc_now(), again=True)
            while claim := me.claim(utc_now()):
                ran.append(claim.id)
                me.complete(claim, {"exit_code": 0}, utc_now())
        assert ran == ["short", "y" * SHORT_ID]
    found = spool.find("x" * 100)
    assert found.state is State.DEAD
    assert "too long for this file system" in reason_of(spool, "x" * 100)
    assert found.job == spool.find(found.id).job
