"""Who may make a worker run something, and what a file may do to those who read it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State, settings
from queuectl.errors import BadSetting, ClaimLost, QueueError, UnsafeSpool
from queuectl.rules.groups import Slots
from queuectl.rules.start import Start
from queuectl.spool import claiming, claims, descriptions, ids, output, requests
from queuectl.spool.names import REASON, Name
from queuectl.spool.root import FOLDERS
from queuectl.spool.waiting import Waiting
from queuectl.system import files, host, logs
from queuectl.times import utc_now
from tests.shell import readable_by_others

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Evidence, Until, Workers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="users and modes are POSIX")
as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="being several users needs root")

ALICE, BOB, MALLORY, GROUP = 61001, 61002, 61003, 61000


def mode_of(path: Path | str) -> int:
    return os.lstat(path).st_mode & 0o7777


def state_of(spool: Spool, job_id: str) -> str:
    """Where a job is, and what is said of it if it is dead."""
    found = spool.find(job_id)
    reason = Path(found.path + REASON)
    return f"{found.state}: {reason.read_text().splitlines()[0]}" if reason.exists() else str(found.state)


# ── a spool for a group ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def shared(open_place: Path) -> Spool:
    place = open_place / "shared"
    place.mkdir()
    os.chown(place, -1, GROUP)
    Spool.create(place, shared=True)
    (place / "config.yaml").write_text("poll_interval: 0.05\nbackoff_base: 0\nmax_retries: 0\n")
    return Spool(place)


def run_as(uid: int, program: str, *, groups: tuple[int, ...] = (GROUP,)) -> str:
    """Run a Python program as another user with the umask most have; returns what it printed."""
    ids = [f"--reuid={uid}", f"--regid={uid}", f"--groups={','.join(map(str, groups))}"]
    ran = subprocess.run(
        ["setpriv", *ids, sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/"},
        capture_output=True,
        umask=0o022,
        cwd="/",
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


FILE = "from queuectl import Spool; print(Spool({path!r}).file({job!r}))"
DRAIN = (
    "from queuectl import Spool; from queuectl.worker.loop import Worker; "
    "Worker(Spool({path!r}).root, 'drain', awaited=frozenset()).run()"
)


def file_as(uid: int, spool: Spool, job_id: str, **fields: object) -> str:
    job = {"id": job_id, "command": "echo $(id -u)", **fields}
    return run_as(uid, FILE.format(path=str(spool.path), job=job))


def drain_as(uid: int, spool: Spool) -> None:
    run_as(uid, DRAIN.format(path=str(spool.path)))


def printed(spool: Spool, job_id: str, attempt: int = 1) -> str:
    return Path(output.log_path(spool.root, job_id, attempt, "out")).read_text().strip()


@as_root
def test_a_private_spool_and_all_in_it_are_closed_to_others(spool: Spool) -> None:
    spool.file({"id": "a", "command": "true"})
    with spool.member():
        requests.pause(spool.root, utc_now())
        kinds = {mode_of(path) for path in [spool.path, *spool.path.rglob("*")] if path.is_dir()}
        files = {mode_of(path) for path in spool.path.rglob("*") if path.is_file()}
    assert kinds == {0o700}
    assert files == {0o600}


@as_root
def test_users_of_one_group_file_work_cancel_and_look(shared: Spool) -> None:
    if not readable_by_others():
        pytest.skip("other users cannot read this installation")
    assert {mode_of(path) for path in [shared.path, *(shared.path / name for name in FOLDERS)]} == {0o2770}
    file_as(ALICE, shared, "first")
    file_as(ALICE, shared, "second", priority=0)
    file_as(ALICE, shared, "third", run_at="2999-01-01T00:00:00Z")
    assert mode_of(shared.find("first").path) == 0o660
    run_as(BOB, f"from queuectl import Spool; Spool({str(shared.path)!r}).cancel_waiting('second')")
    run_as(BOB, f"from queuectl import Spool; Spool({str(shared.path)!r}).cancel_waiting('third')")
    drain_as(BOB, shared)
    assert {job_id: str(shared.find(job_id).state) for job_id in ("first", "second", "third")} == {
        "first": "done",
        "second": "dead",
        "third": "dead",
    }
    assert printed(shared, "first") == str(BOB)
    run_as(ALICE, f"from queuectl import Spool; Spool({str(shared.path)!r}).retry('second')")
    seen = run_as(
        ALICE, f"from queuectl import Spool; print(*[j.id for j in Spool({str(shared.path)!r}).list()])"
    )
    assert sorted(seen.split()) == ["first", "second", "third"]
    written = {path for path in shared.path.rglob("*") if path.is_file() and path.name != "config.yaml"}
    assert {mode_of(path) for path in written} == {0o660}
    assert {path.stat().st_gid for path in written} == {GROUP}


KILLED = "import os\nif os.fork() == 0:\n    {drain}\nelse:\n    os.wait()"
REPAIR = (
    "from queuectl import Spool; from queuectl.view import audit; "
    "from queuectl.spool.onlooker import Onlooker; from queuectl.worker.remains import stop_remains; "
    "spool = Spool({path!r}); "
    "found = audit.repair(spool.root, Onlooker(spool.root), spool.settings(), stop_remains, spool.clock()); "
    "print(*(one.sentence for one in found), sep='\\n')"
)


@as_root
def test_a_repair_names_the_user_who_can_end_what_a_dead_worker_left(shared: Spool) -> None:
    if not readable_by_others():
        pytest.skip("other users cannot read this installation")
    recorded = f"until grep -q starte[d] {shared.path}/processing/*; do sleep 0.02; done"
    file_as(ALICE, shared, "left", command=f"echo $$; {recorded}; kill -9 $PPID; exec sleep 60")
    run_as(ALICE, KILLED.format(drain=DRAIN.format(path=str(shared.path))))
    pid = int(printed(shared, "left"))
    try:
        said = run_as(BOB, REPAIR.format(path=str(shared.path)))
    finally:
        os.kill(pid, signal.SIGKILL)
    assert f"could not take the job over: process {pid} of its command still runs" in said
    assert f"`sudo -u '#{ALICE}' queuectl -s {shared.path} check --repair`" in said
    assert "files it again" not in said
    assert shared.find("left").state is State.PROCESSING


SERVE = (
    "from queuectl import Spool; from queuectl.worker.loop import Worker; "
    "Worker(Spool({path!r}).root, 'foreground').run()"
)
SEE = (
    "from queuectl import Spool; from queuectl.view.workers import workers; spool = Spool({path!r}); "
    "print(*(one.state for one in workers(spool.root, spool.live.now())))"
)
STOP = (
    "from queuectl import Spool; from queuectl.spool import descriptions, requests; "
    "root = Spool({path!r}).root; requests.to_stop(root, descriptions.described(root), None)"
)


@as_root
def test_who_shares_a_spool_sees_the_workers_of_others_and_stops_them(shared: Spool, until: Until) -> None:
    if not readable_by_others():
        pytest.skip("other users cannot read this installation")
    path = str(shared.path)
    with ThreadPoolExecutor() as pool:
        serving = pool.submit(run_as, ALICE, SERVE.format(path=path))
        until(lambda: descriptions.described(shared.root), "Alice's worker is there")
        try:
            assert run_as(BOB, SEE.format(path=path)) == "idle"
        finally:
            run_as(BOB, STOP.format(path=path))
            serving.result(20)


@as_root
def test_one_who_is_not_in_the_group_gets_nowhere(shared: Spool) -> None:
    if not readable_by_others():
        pytest.skip("other users cannot read this installation")
    with pytest.raises(AssertionError, match="PermissionError"):
        run_as(MALLORY, FILE.format(path=str(shared.path), job={"command": "true"}), groups=(MALLORY,))


@as_root
def test_a_spool_that_is_there_becomes_shared_with_all_that_is_in_it(open_place: Path) -> None:
    spool = Spool.create(open_place / "spool")
    spool.file({"id": "a", "command": "true"})
    os.chown(spool.path, -1, GROUP)
    Spool.create(spool.path, shared=True)
    parts: list[Path | str] = [
        spool.path / "config.yaml",
        spool.find("a").path,
        spool.path / "ids",
        ids.path_of(spool.root, "a"),
    ]
    config = 0o640 if os.geteuid() == 0 else 0o660  # it says whose jobs a worker of root runs
    assert [mode_of(path) for path in parts] == [config, 0o660, 0o2770, 0o660]
    assert {os.stat(path).st_gid for path in parts} == {GROUP}
    Spool.create(spool.path)
    assert mode_of(spool.path) == 0o2770


# ── a worker of root ──────────────────────────────────────────────────────────────────────────


def drop_as(uid: int, spool: Spool, name: str, evidence: Evidence, mode: int = 0o644) -> None:
    path = Path(spool.root.folder(State.PENDING), f"{name}.yaml")
    path.write_text(f"command: {json.dumps(evidence.command())}\n")
    os.chown(path, uid, -1)
    path.chmod(mode)


@as_root
@pytest.mark.parametrize("private", [True, False], ids=["private", "shared"])
def test_a_worker_of_root_takes_only_what_root_and_those_it_trusts_filed(
    spool: Spool, shared: Spool, tmp_path: Path, evidence: Evidence, private: bool
) -> None:
    from tests.conftest import Workers

    here = spool if private else shared
    with here.root.config.open("a") as config:
        config.write(f"trusted_users: {ALICE}\n")
    for name, uid in {"roots": 0, "alices": ALICE, "bobs": BOB}.items():
        drop_as(uid, here, name, evidence)
    drop_as(ALICE, here, "alices-and-anybodys", evidence, 0o664)
    workers = Workers(here, tmp_path / "log")
    workers.drain()
    states = {name: state_of(here, name) for name in ("roots", "alices", "bobs", "alices-and-anybodys")}
    assert states.pop("roots") == states.pop("alices") == "done"
    assert states.pop("bobs").startswith(
        f"dead: It was filed by user {BOB}, who is not among the trusted_users"
    )
    if private:  # nobody but root comes as far as the file
        assert states.pop("alices-and-anybodys") == "done"
    else:
        assert states.pop("alices-and-anybodys").startswith("dead: Others than its owner may write to it")
    assert "bobs" not in evidence.started()


@as_root
def test_what_a_stranger_filed_stays_his_when_root_has_it_written_anew(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    path = Path(spool.root.folder(State.PENDING), "05-20260101T000000.000000Z-his.yaml")
    path.write_text(json.dumps({"command": evidence.command()}))
    os.chown(path, BOB, -1)
    for _ in range(2):
        workers.drain()
        assert spool.find("his").state is State.DEAD
        spool.retry("his")  # has JSON written anew, as an event is added
    workers.drain()
    assert state_of(spool, "his").startswith("dead: It was filed by")
    assert evidence.started() == []


@as_root
def test_nobody_but_root_can_say_whom_root_trusts(spool: Spool, workers: Workers, evidence: Evidence) -> None:
    with spool.root.config.open("a") as config:
        config.write(f"trusted_users: {BOB}\n")
    os.chown(spool.root.config, BOB, -1)
    with pytest.raises(BadSetting, match="others than root may write to it"):
        settings.load(spool.path)
    os.chown(spool.path, BOB, -1)
    drop_as(BOB, spool, "bobs", evidence)
    workers.drain()
    assert evidence.started() == []
    assert state_of(spool, "bobs").startswith("dead: It was filed by")


@as_root
def test_root_kills_no_process_that_only_a_strangers_file_names(spool: Spool, workers: Workers) -> None:
    victim = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        claim = Path(
            spool.root.folder(State.PROCESSING),
            f"05-20260101T000000.000000Z-x@{host.host_name()}-1-abcd.yaml",
        )
        event = {"event": "started", "attempt": 1, "at": "2999-01-01T00:00:00Z", "pid": victim.pid}
        event |= {"spool": spool.root.identity, "process": host.identity(victim.pid)}
        claim.write_text(f"command: 'true'\nhistory:\n- {json.dumps(event)}\n")
        os.chown(claim, BOB, -1)
        workers.drain()
        assert victim.poll() is None
        assert claim.exists()
    finally:
        victim.kill()
        victim.wait()


# ── root in the spool of a user ───────────────────────────────────────────────────────────────


def as_roots(path: Path, *arguments: str, status: int = 0) -> str:
    """Run a command as root; returns what it said on either stream."""
    done = subprocess.run(
        [sys.executable, "-m", "queuectl", "-s", str(path), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        text=True,
        check=False,
    )
    assert done.returncode == status, done
    return done.stdout + done.stderr


def owners(path: Path) -> dict[str, int]:
    """The users to whom what is in a directory belongs, if they are not Alice."""
    found = {str(one.relative_to(path)): one.lstat().st_uid for one in (path, *path.rglob("*"))}
    return {name: uid for name, uid in found.items() if uid != ALICE}


@pytest.fixture(params=["private", "shared"])
def alices(open_place: Path, request: pytest.FixtureRequest, until: Until) -> Iterator[Path]:
    """A spool that Alice has made."""
    if not readable_by_others():
        pytest.skip("other users cannot read this installation")
    place = open_place / "alices"
    place.mkdir()
    os.chown(place, ALICE, GROUP)
    shared = request.param == "shared"
    run_as(ALICE, f"from queuectl import Spool; Spool.create({str(place)!r}, shared={shared})")
    assert owners(place) == {}
    yield place
    root = Spool(place).root
    requests.to_stop(root, descriptions.described(root), None)
    until(lambda: not descriptions.described(root), "no worker is left, whatever the test has met")


BY_ROOT = [
    "enqueue echo one",
    "enqueue --id two echo two",
    "enqueue --id three exit 3",
    "cancel three",
    "retry three",
    "cancel three",
    "dlq retry --all",
    "pause",
    "resume",
    "config set max_retries 0",
    "config set poll_interval 0.05",
    "config unset poll_interval",
    "check --repair",
    "check",
    "status",
    "worker status",
    "worker stop",
    "prune --older-than 7d --yes",
    "init",
]


@as_root
def test_whatever_root_does_in_a_users_spool_belongs_to_that_user(alices: Path) -> None:
    for command in BY_ROOT:
        as_roots(alices, *command.split())
        assert owners(alices) == {}, command
    drain_as(ALICE, Spool(alices))
    states = {found.id: found.state for found in Spool(alices).list()}
    assert states.pop("two") is State.DONE
    assert states.pop("three") is State.DEAD
    assert list(states.values()) == [State.DONE]
    assert (
        run_as(ALICE, f"from queuectl import Spool; print(Spool({str(alices)!r}).settings().max_retries)")
        == "0"
    )


@as_root
def test_a_folder_or_config_that_root_makes_anew_belongs_to_the_user(alices: Path) -> None:
    (alices / "failed").rmdir()
    mode = mode_of(alices / "dead")
    as_roots(alices, "status")
    assert (owners(alices), mode_of(alices / "failed")) == ({}, mode)


@as_root
def test_a_spool_that_root_makes_in_a_users_directory_is_the_users(open_place: Path) -> None:
    home = open_place / "home"
    home.mkdir()
    os.chown(home, ALICE, ALICE)
    for command in ("init", "enqueue true"):
        as_roots(home / command[:4], *command.split())
    assert owners(home) == {}


@as_root
def test_a_worker_of_root_that_would_run_nothing_is_refused(alices: Path) -> None:
    for flags in ([], ["--drain"], ["--count", "2", "--drain"]):
        assert f"belongs to user {ALICE}" in as_roots(alices, "worker", "start", *flags, status=1)
    assert "chown root" in as_roots(alices, "config", "set", "trusted_users", str(ALICE), status=2)
    assert owners(alices) == {}


@as_root
def test_a_worker_of_root_that_trusts_the_user_leaves_files_of_the_user(alices: Path) -> None:
    config = alices / "config.yaml"
    os.chown(config, 0, -1)
    config.chmod(0o644)
    as_roots(alices, "config", "set", "trusted_users", str(ALICE))
    file_as(ALICE, Spool(alices), "hers")
    as_roots(alices, "enqueue", "--id", "roots", "id -u")
    as_roots(alices, "worker", "start", "--drain")
    (name,) = as_roots(alices, "worker", "start").split()
    assert set(owners(alices)) == {"config.yaml"}
    as_roots(alices, "worker", "stop", name)
    assert {job_id: state_of(Spool(alices), job_id) for job_id in ("hers", "roots")} == {
        "hers": "done",
        "roots": "done",
    }
    assert set(owners(alices)) == {"config.yaml"}
    text = f"from queuectl.settings import load; print(load({str(alices)!r}).trusted_users)"
    assert run_as(ALICE, text) == str(ALICE)


@as_root
def test_a_file_that_is_roots_is_told_with_what_gives_it_back(alices: Path) -> None:
    config = alices / "config.yaml"
    config.chmod(0o600)
    os.chown(config, 0, 0)
    program = (
        f"from queuectl.cli.main import run; run(['-s', {str(alices)!r}, 'config', 'set', 'priority', '1'])"
    )
    said = run_as(ALICE, f"import sys; sys.stderr = sys.stdout; {program}")
    assert f"It belongs to root; if it should be yours, run `sudo chown {ALICE} {config}`." in said


@as_root
def test_root_gives_away_no_file_that_it_has_not_made(alices: Path) -> None:
    precious = alices.parent / "precious"
    precious.write_text("root's\n")
    log = alices / "logs" / "worker@x.log"
    log.hardlink_to(precious)
    with pytest.raises(files.NotAFile):
        logs.open_append(log)
    Spool(alices)
    with pytest.raises(files.NotAFile):
        logs.open_append(log)
    assert precious.stat().st_uid == 0


# ── spools that others could write to ─────────────────────────────────────────────────────────


def refusal(spool: Spool) -> str:
    with pytest.raises(UnsafeSpool) as refused:
        Spool(spool.path)
    return str(refused.value)


@as_root
@pytest.mark.parametrize("name", ["", *FOLDERS, "config.yaml"])
def test_each_part_that_others_may_write_to_is_refused_with_what_mends_it(spool: Spool, name: str) -> None:
    place = spool.path / name
    sound = mode_of(place)
    place.chmod(sound | 0o002)
    assert refusal(spool) == f"{place} may be written to by anybody. Run `chmod o-w {place}`."
    place.chmod(sound | 0o020)
    os.chown(place, -1, GROUP)
    assert refusal(spool) == f"{place} may be written to by its group. Run `chmod g-w {place}`."
    place.chmod(sound)
    Spool(spool.path)
    if name:
        os.chown(place, BOB, -1)
        assert refusal(spool) == f"{place} belongs to user {BOB}. Run `chown -h root {place}`."


@as_root
@pytest.mark.parametrize("name", [*FOLDERS, "config.yaml"])
def test_a_part_that_is_a_link_is_refused(spool: Spool, tmp_path: Path, name: str) -> None:
    place = spool.path / name
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refusal(spool)


@as_root
def test_a_way_to_the_spool_that_others_could_change_is_refused(open_place: Path) -> None:
    parent = open_place / "parent"
    parent.mkdir(mode=0o755)
    spool = Spool.create(parent / "spool")
    swap = "who could put another spool in its place"
    parent.chmod(0o775)
    os.chown(parent, -1, GROUP)
    assert refusal(spool) == f"{parent} may be written to by its group, {swap}. Run `chmod g-w {parent}`."
    parent.chmod(0o1775)
    Spool(spool.path)
    parent.chmod(0o755)
    os.chown(parent, BOB, -1)
    assert refusal(spool) == f"{parent} belongs to user {BOB}, {swap}. Run `chown -h root {parent}`."


@as_root
def test_a_link_to_the_spool_is_followed_where_nobody_else_could_change_it(open_place: Path) -> None:
    spool = Spool.create(open_place / "spool")
    link = open_place / "link"
    link.symlink_to(spool.path)
    assert Spool(link).path == link
    os.chown(link, MALLORY, -1, follow_symlinks=False)
    with pytest.raises(UnsafeSpool, match="link belongs to user"):
        Spool(link)
    os.chown(link, 0, -1, follow_symlinks=False)
    target = open_place / "open" / "spool"
    target.parent.mkdir()
    spool.path.rename(target)
    link.unlink()
    link.symlink_to(target)
    target.parent.chmod(0o777)
    with pytest.raises(UnsafeSpool, match="open may be written to by anybody"):
        Spool(link)


# ── a link swapped in and out between check and read ──────────────────────────────────────────


def read_config(spool: Spool) -> bytes:
    try:
        return repr(settings.load(spool.path)).encode()
    except (BadSetting, FileNotFoundError) as error:
        return str(error).encode()


def read_log(spool: Spool) -> bytes:
    return b"".join(block for _, block in output.read_log(spool.root, "a", 1, "out"))


def read_description(spool: Spool) -> bytes:
    return repr(descriptions.describe(spool.root, "me-1-abcd")).encode()


def read_request(spool: Spool) -> bytes:
    return repr(requests.requests_to(spool.root, "me-1-abcd")).encode()


def read_reason(spool: Spool) -> bytes:
    from queuectl.view.lookup import reason_for

    return reason_for(spool.find("b")).encode()


def read_job(spool: Spool) -> bytes:
    found = spool.find("b")
    return repr(found.job).encode() + found.unreadable.encode()


NAME = "05-20260101T000000.000000Z-b.yaml"
READS: dict[str, tuple[str, Callable[[Spool], bytes]]] = {
    "config.yaml": ("config.yaml", read_config),
    "an output": ("logs/a.1.out", read_log),
    "a worker's description": ("workers/me-1-abcd.yaml", read_description),
    "a request": ("workers/me-1-abcd.stop", read_request),
    "a reason": (f"dead/{NAME}.reason.txt", read_reason),
    "a job": (f"dead/{NAME}", read_job),
}
SECRET = 987654
HARMLESS = {"config.yaml": "max_retries: 1\n", "a request": "1\n"}
MOMENT = "2026-01-01T00:00:00Z"
BEAT = f'{{"count": 1, "at": "{MOMENT}", "jobs_done": 1}}'
DESCRIPTION = f"host: x\npid: {{}}\nkind: x\nplace: x\nstarted_at: {MOMENT}\nbeat: {BEAT}\n"
HARMLESS["a worker's description"] = DESCRIPTION.replace("{}", "1")
SECRETS = {
    "config.yaml": f"max_retries: {SECRET}\n",
    "a request": f"{SECRET}\n",
    "a worker's description": DESCRIPTION.replace("{}", str(SECRET)),
}


@pytest.fixture
def swapping() -> Iterator[Callable[[list[Path], str, Path], None]]:
    """Starts a process that makes these names a file with this text and a link in turns."""
    children = []

    def swap(places: list[Path], text: str, target: Path) -> None:
        fresh = target.with_name("fresh")
        for number in itertools.count():
            if number % 2:
                fresh.symlink_to(target)
            else:
                fresh.write_text(text)
            fresh.rename(places[number // 2 % len(places)])

    def start(places: list[Path], text: str, target: Path) -> None:
        child = get_context("fork").Process(target=swap, args=(places, text, target))
        child.start()
        children.append(child)

    yield start
    for child in children:
        assert child.is_alive()
        child.kill()
        child.join()


@pytest.mark.parametrize("what", READS)
def test_a_link_that_is_swapped_in_and_out_is_never_read_through(
    spool: Spool,
    tmp_path: Path,
    size: Callable[[int, int], int],
    swapping: Callable[[list[Path], str, Path], None],
    figure: Callable[[str, str], None],
    what: str,
) -> None:
    name, read = READS[what]
    if name.startswith("dead/"):
        (spool.path / "dead" / NAME).write_text("command: 'true'\n")
    secret = tmp_path / "secret"
    secret.write_text(SECRETS.get(what, f"command: '{SECRET}'\n"))
    swapping([spool.path / name], HARMLESS.get(what, "command: 'true'\n"), secret)
    seen: set[bytes] = set()
    rounds = 0
    while rounds < size(300, 10_000) or len(seen) < 2:
        seen.add(outcome(partial(read, spool)))
        rounds += 1
    assert not [text for text in seen if str(SECRET).encode() in text]
    assert len(seen) > 1, f"the reader met nothing but {seen}"
    figure(f"a link swapped in and out for {what}", f"{rounds:,} reads, 0 of the target")


def outcome(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (QueueError, OSError) as error:
        return type(error).__name__.encode()


def test_a_worker_never_runs_what_a_swapped_link_leads_to(
    spool: Spool,
    tmp_path: Path,
    size: Callable[[int, int], int],
    swapping: Callable[[list[Path], str, Path], None],
) -> None:
    """What was claimed is a link and a file in turns; it is confirmed as one or put aside as the other."""
    secret = tmp_path / "secret.yaml"
    secret.write_text(f"command: '{SECRET}'\n")
    name = Name(5, "20260101T000000.000000Z", "b", "me-1-abcd")
    swapping([Path(spool.root.folder(State.PROCESSING), str(name))], "command: harmless\n", secret)
    waiting, abandoned = Waiting(spool.root), ids.Abandoned(spool.root)
    rules = Start(spool.root, spool.live, Slots(spool.root, "me-1-abcd"))
    claimant = claiming.Claimant("me-1-abcd", spool.live, waiting, abandoned, rules.ask)
    claimed: list[object] = []
    rounds = 0
    while rounds < size(300, 10_000) or len(set(claimed)) < 2:
        claim = None
        with contextlib.suppress(ClaimLost):  # it has just been put aside, and not been swapped in again
            claim = claimant.confirmed(name, State.PENDING, utc_now())
        claimed.append(claim.job.command if isinstance(claim, claims.Claim) else claim)
        rounds += 1
        for text in files.list_names(spool.root.folder(State.DEAD)):
            files.remove(f"{spool.root.folder(State.DEAD)}/{text}")
    assert set(claimed) == {"harmless", None}


# ── files that may be read and not be written to ──────────────────────────────────────────────

UNPRIVILEGED = (
    "import ctypes, sys; [ctypes.CDLL(None).prctl(24, one, 0, 0, 0) for one in (1, 2)]; "
    "from queuectl.worker.fleet import main; sys.exit(main(sys.argv[1:]))"
)


def drain_without_privilege(spool: Spool, tmp_path: Path) -> None:
    """A worker for which the modes of files count, be it started by root."""
    ran = subprocess.run(
        [
            "setpriv",
            "--inh-caps=-all",
            "--bounding-set=-all",
            sys.executable,
            "-c",
            UNPRIVILEGED,
            spool.path,
            "drain",
        ]
        if os.geteuid() == 0
        else [sys.executable, "-c", UNPRIVILEGED, spool.path, "drain"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("text", ["command: {}\n", '{{"command": {}}}'], ids=["yaml", "json"])
def test_a_job_that_was_copied_from_a_read_only_file_runs(
    spool: Spool, tmp_path: Path, evidence: Evidence, text: str, problems: Callable[[Spool], list[str]]
) -> None:
    path = Path(spool.root.folder(State.PENDING), "copied.yaml")
    path.write_text(text.format(json.dumps(evidence.command())))
    path.chmod(0o444)
    drain_without_privilege(spool, tmp_path)
    assert evidence.finished() == ["copied"]
    assert spool.find("copied").state is State.DONE
    assert problems(spool) == []


def test_a_job_that_may_not_be_read_is_put_aside(spool: Spool, tmp_path: Path, evidence: Evidence) -> None:
    path = Path(spool.root.folder(State.PENDING), "locked.yaml")
    path.write_text("command: 'true'\n")
    path.chmod(0)
    good = spool.file(evidence.command())
    drain_without_privilege(spool, tmp_path)
    assert evidence.finished() == [good]
    assert state_of(spool, "locked") == "dead: No permission to read it."


@pytest.mark.parametrize("when", ["as it begins", "later"])
@pytest.mark.parametrize("other", ["a link", "a fifo", "a directory", "no job", "nothing"])
def test_a_running_job_whose_file_is_made_something_else_harms_no_other(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, other: str, when: str, tmp_path: Path
) -> None:
    job_id = spool.file(evidence.command("sleep 1"))
    workers.start()
    until(lambda: evidence.started() == [job_id], "it runs")
    if when == "later":  # its start is in the file then, and its end is not
        until(lambda: "running (pid" in workers.said(), "it is told")
    path = Path(spool.find(job_id).path)
    path.rename(tmp_path / "away")
    if other == "a link":
        path.symlink_to(tmp_path / "away")
    elif other == "a fifo":
        os.mkfifo(path)
    elif other == "a directory":
        path.mkdir()
    elif other == "no job":
        path.write_text("[")
    good = spool.file(evidence.command())
    until(lambda: good in evidence.finished(), "the next one runs")
    assert "completed" not in (tmp_path / "away").read_text()
    workers.stop()
