"""What a dead worker left running is ended where it is proven to be its command's, and nothing else is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl import Spool, State
from queuectl.spool.root import Root
from queuectl.system import host
from queuectl.system import mounts as system_mounts
from queuectl.worker.remains import stop_earlier, stop_remains
from tests.conftest import kinds, problems_left_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl.job.history import Event
    from queuectl.spool.claims import Claim
    from tests.conftest import Until, Workers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no sessions")


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def has_ended(one: psutil.Process) -> bool:
    return not one.is_running() or one.status() == psutil.STATUS_ZOMBIE


# ── a worker that died before it had written down the start ───────────────────────────────────


@contextlib.contextmanager
def died_at_once(
    spool: Spool, way: Path, words: list[str]
) -> Iterator[tuple[Claim, subprocess.Popen[bytes]]]:
    """A claim, and what runs for it before that is written down; the worker reached the spool by this way."""
    spool.file("a job that its worker died of at once")
    with spool.member("test") as member:
        member.look(member.now())
        claim = member.claim(member.now())
        assert claim
        told = {
            "QUEUECTL_WORKER": claim.owner,
            "QUEUECTL_JOB_ID": claim.id,
            "QUEUECTL_SPOOL_ID": Root(way).identity,
        }
        with subprocess.Popen(
            words, env=os.environ | told, stdout=subprocess.PIPE, start_new_session=True
        ) as run:
            try:
                yield claim, run
            finally:
                run.kill()


def test_what_cleared_its_environment_is_found_by_its_session_before_the_start_is_written_down(
    spool: Spool,
) -> None:
    words = ["sh", "-c", "env -i sleep 60 & echo $!; wait"]
    with died_at_once(spool, spool.path, words) as (claim, run):
        assert run.stdout
        sleeper = psutil.Process(int(run.stdout.readline()))
        stop_remains(spool.root, claim.name)
        assert has_ended(sleeper)


def test_what_is_left_is_found_by_whatever_way_its_worker_reached_the_spool(
    spool: Spool, tmp_path: Path
) -> None:
    way = tmp_path / "way"
    way.symlink_to(spool.path)
    with died_at_once(spool, way, ["sleep", "60"]) as (claim, run):
        left = psutil.Process(run.pid)
        stop_remains(spool.root, claim.name)
        assert has_ended(left)


def test_a_run_under_another_claim_is_ended_before_the_job_runs_again(spool: Spool) -> None:
    with died_at_once(spool, spool.path, ["sleep", "60"]) as (claim, run):
        left = psutil.Process(run.pid)
        stop_earlier(claim._replace(name=claim.name.owned("another")))
        assert has_ended(left)


def test_what_is_just_being_started_is_found(spool: Spool) -> None:
    """The kernel lets go of a dead worker's files before it has noted the environment of the command.

    So many arguments keep it busy in between for some milliseconds.
    """
    with died_at_once(spool, spool.path, ["sleep", "60", *["0"] * 150_000]) as (claim, run):
        left = psutil.Process(run.pid)
        stop_remains(spool.root, claim.name)
        assert has_ended(left)


# ── a worker that was killed while its command ran ────────────────────────────────────────────


class Cut:
    """A job whose worker was killed in its first run, and what it had started: `pid` is the one watched."""

    def __init__(self, spool: Spool, workers: Workers, until: Until, folder: Path) -> None:
        self.spool = spool
        self._workers = workers
        self._until = until
        self._note = folder / "pid"

    def run(self, first: str, spool: Spool | None = None) -> int:
        """Kill the worker of a job that runs this first; `$NOTE` takes the number of a process of it."""
        command = f"if test $QUEUECTL_ATTEMPT = 1; then export NOTE={self._note}\n{first}\nsleep 60; fi"
        self.spool.file({"id": "job", "command": command})
        worker = (self._workers if spool is None else type(self._workers)(spool, self._workers.log)).start()
        self._until(lambda: self._note.exists() and self._note.read_text().endswith("\n"), "it runs")
        self._until(lambda: kinds(self.history()) == ["started"], "its start is written down")
        worker.kill()
        self.leader = self.history()[-1]["pid"]
        return int(self._note.read_text())

    def history(self) -> tuple[Event, ...]:
        found = self.spool.find("job")
        return found.job.history if found.job else ()

    def claim(self, spool: Spool) -> Path:
        (path,) = Path(spool.root.folder(State.PROCESSING)).glob("*.yaml")
        return path


@pytest.fixture
def cut(spool: Spool, workers: Workers, until: Until, tmp_path: Path) -> Iterator[Cut]:
    made = Cut(spool, workers, until, tmp_path)
    yield made
    with contextlib.suppress(AttributeError, ProcessLookupError):
        os.killpg(made.leader, signal.SIGKILL)
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def recover(spool: Spool) -> None:
    """What `check --repair` does."""
    assert problems_left_in(spool) == []


CLEARED = "env -i NOTE=$NOTE PATH=$PATH sh -c 'echo $$ > $NOTE; exec sleep 60'"
ITS_OWN = {
    "the command itself": "echo $$ > $NOTE; exec sleep 60",
    "in a session of its own": "setsid sh -c 'echo $$ > $NOTE; exec sleep 60' & wait",
    "a daemon": "setsid sh -c 'sh -c \"echo \\$\\$ > $NOTE; exec sleep 60\" & exit 0' >/dev/null 2>&1 &",
    "that cleared its environment": f"exec {CLEARED}",
    "that cleared its environment and closed its output": f"exec {CLEARED} >/dev/null 2>&1",
    "a child of it that cleared its environment": f"{CLEARED} >/dev/null 2>&1 & wait",
    "in a session of its own with a cleared environment": f"setsid {CLEARED} & wait",
}


@pytest.mark.parametrize("way", ITS_OWN)
def test_what_the_command_of_a_killed_worker_started_is_ended(cut: Cut, workers: Workers, way: str) -> None:
    pid = cut.run(ITS_OWN[way])
    workers.drain()
    assert not is_alive(pid)
    assert kinds(cut.history()) == ["started", "lost", "started", "completed"]


@pytest.mark.skipif(sys.platform != "linux", reason="an output is looked at on Linux alone")
def test_what_cleared_its_environment_is_found_after_the_leader_of_its_session_has_ended(
    cut: Cut, until: Until
) -> None:
    pid = cut.run(f"{CLEARED} & wait")
    os.kill(cut.leader, signal.SIGKILL)
    until(lambda: not is_alive(cut.leader), "the leader has ended")
    recover(cut.spool)
    assert not is_alive(pid)


@pytest.mark.parametrize("how", ["a worker", "check --repair"])
@pytest.mark.parametrize("logs", ["copied", "linked"])
def test_the_command_of_a_spool_lives_through_whatever_is_done_to_a_copy(
    cut: Cut, workers: Workers, tmp_path: Path, how: str, logs: str
) -> None:
    pid = cut.run("echo $$ > $NOTE; exec sleep 60")
    subprocess.run(["cp", "-a", cut.spool.path, tmp_path / "copy"], check=True)
    twin = Spool(tmp_path / "copy")
    if logs == "linked":
        subprocess.run(["cp", "-alf", f"{cut.spool.root.logs}/.", twin.root.logs], check=True)
    if how == "a worker":
        type(workers)(twin, workers.log).drain()
    else:
        recover(twin)
    assert os.listdir(twin.root.folder(State.PROCESSING)) == []
    assert is_alive(pid)
    recover(cut.spool)
    assert not is_alive(pid)


@pytest.mark.parametrize("link", ["a link", "a bind mount"])
@pytest.mark.parametrize("dies", ["there", "here"])
def test_what_is_left_is_found_by_another_path_to_the_spool(
    cut: Cut, workers: Workers, tmp_path: Path, link: str, dies: str
) -> None:
    way = tmp_path / "way"
    with bind_mount(cut.spool.path, way) if link == "a bind mount" else symlink(cut.spool.path, way):
        there = Spool(way)
        first = "setsid sh -c 'echo $$ > $NOTE; exec sleep 60' & wait"
        pid = cut.run(first, there if dies == "there" else None)
        type(workers)(cut.spool if dies == "there" else there, workers.log).drain()
        assert not is_alive(pid)
        assert kinds(cut.history()) == ["started", "lost", "started", "completed"]


@contextlib.contextmanager
def symlink(target: Path, way: Path) -> Iterator[None]:
    way.symlink_to(target)
    yield


@contextlib.contextmanager
def bind_mount(target: Path, way: Path) -> Iterator[None]:
    way.mkdir()
    if not shutil.which("mount") or subprocess.run(["mount", "--bind", target, way], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", way], check=True)


# ── which spool it is ─────────────────────────────────────────────────────────────────────────

SHARE = "srv:/exports/all"


@pytest.mark.skipif(sys.platform != "linux", reason="mounts are read as Linux tells them")
@pytest.mark.parametrize(
    ("mounts", "path", "identity"),
    [
        (["/ {tmp}/mnt SHARE"], "mnt/spool", f"{SHARE}/spool"),
        (["/ {tmp}/mnt SHARE"], "link/spool", f"{SHARE}/spool"),
        (["/ {tmp}/mnt SHARE"], "mnt/copy", f"{SHARE}/copy"),
        (["/ {tmp}/mnt SHARE", "/spool {tmp}/bound SHARE"], "bound", f"{SHARE}/spool"),
        (["/ {tmp}/mnt SHARE", "/ {tmp}/mnt/spool SHARE/spool"], "mnt/spool", f"{SHARE}/spool"),
        (["/ {tmp}/a\\040b SHARE"], "a b/spool", f"{SHARE}/spool"),
        (["/ / SHARE"], "mnt/spool", f"{SHARE}{{tmp}}/mnt/spool"),
    ],
)
def test_a_share_is_known_by_its_own_name_for_the_directory_by_whatever_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: list[str], path: str, identity: str
) -> None:
    """A remount changes device numbers, and sshfs the inodes as well."""
    for name in ("mnt/spool", "mnt/copy", "bound", "a b/spool"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("mnt")
    device = tmp_path.stat().st_dev
    number, told = f"{os.major(device)}:{os.minor(device)}", tmp_path / "mountinfo"
    lines = []
    for mount in mounts:
        root, point, source = mount.format(tmp=tmp_path).split(" ")
        lines.append(f"36 35 {number} {root} {point} rw - nfs4 {source.replace('SHARE', SHARE)} rw\n")
    told.write_text("".join(lines))
    monkeypatch.setattr(system_mounts, "MOUNTS", str(told))
    assert Root(tmp_path / path).identity == identity.format(tmp=tmp_path)


def test_a_local_spool_keeps_its_identity_when_it_is_moved_and_gives_a_copy_none_of_it(
    spool: Spool, tmp_path: Path
) -> None:
    known = spool.root.identity
    subprocess.run(["cp", "-a", spool.path, tmp_path / "copy"], check=True)
    spool.path.rename(tmp_path / "moved")
    (tmp_path / "copy").rename(spool.path)
    assert Root(tmp_path / "moved").identity == known != Root(spool.path).identity


# ── a number that belongs to a stranger by now ────────────────────────────────────────────────

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as sleeper:
        yield sleeper
        sleeper.kill()


def recorded(spool: Spool, pid: int) -> dict[str, object]:
    return {"pid": pid, "spool": spool.root.identity, "process": host.identity(pid)}


FORGED: dict[str, Callable[[Spool, int], dict[str, object]]] = {
    "an older version noted no more": lambda _, pid: {"pid": pid},
    "another boot": lambda spool, pid: (
        recorded(spool, pid) | {"process": f"{OTHER_BOOT}/{(host.identity(pid) or '').partition('/')[2]}"}
    ),
    "a namespace whose number was given out again": lambda spool, pid: (
        recorded(spool, pid) | {"process": f"{host.kernel_id()}/1"}
    ),
    "another spool": lambda spool, pid: recorded(spool, pid) | {"spool": "801#2"},
    "nothing of the kind": lambda spool, pid: recorded(spool, pid) | {"process": None},
}


def leave_claim(spool: Spool, facts: dict[str, object], at: str = "2999-01-01T00:00:00Z") -> None:
    """A claim whose worker has no description left, as in a backup without workers/."""
    event = {"event": "started", "attempt": 1, "at": at, "worker": "w", **facts}
    name = f"05-20260101T000000.000000Z-job@{host.host_name()}-1-abcd.yaml"
    path = Path(spool.root.folder(State.PROCESSING), name)
    path.write_text(f"command: 'true'\nhistory:\n- {json.dumps(event)}\n")
    path.chmod(0o600)
    Path(spool.root.logs, "job.1.err").touch()


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("its", ["number", "session"])
def test_a_number_that_belongs_to_a_stranger_by_now_ends_nothing(
    spool: Spool, stranger: subprocess.Popen[bytes], what: str, its: str
) -> None:
    if its == "number":
        leave_claim(spool, FORGED[what](spool, stranger.pid))
        recover(spool)
        assert stranger.poll() is None
        return
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout
        member = int(leader.stdout.readline())
        leave_claim(spool, FORGED[what](spool, leader.pid))
        leader.wait()
    try:
        recover(spool)
        assert is_alive(member)
    finally:
        os.kill(member, signal.SIGKILL)


def test_the_recorded_process_itself_is_ended(spool: Spool, stranger: subprocess.Popen[bytes]) -> None:
    """So the cases above show what they say."""
    leave_claim(spool, recorded(spool, stranger.pid))
    recover(spool)
    assert not is_alive(stranger.pid)


def test_who_reads_a_log_is_not_ended(cut: Cut, until: Until) -> None:
    cut.run("echo $$ > $NOTE; exec sleep 60")
    log = Path(cut.spool.root.logs, "job.1.out")
    with log.open("rb") as file, subprocess.Popen(["sleep", "60"], stdin=file, stdout=file) as reader:
        until(lambda: os.path.exists(f"/proc/{reader.pid}") or sys.platform != "linux", "it reads")
        recover(cut.spool)
        assert reader.poll() is None
        reader.kill()


def test_a_shell_from_which_somebody_adds_to_a_log_is_not_ended(cut: Cut) -> None:
    cut.run("echo $$ > $NOTE; exec sleep 60")
    log = Path(cut.spool.root.logs, "job.1.out")
    words = ["sh", "-c", f"sleep 60 >> {log} & echo; wait; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdout
        shell.stdout.readline()
        recover(cut.spool)
        assert shell.poll() is None
        os.killpg(shell.pid, signal.SIGKILL)


# ── a job that breaks its own file ────────────────────────────────────────────────────────────

BROKEN: dict[str, Callable[[Path], object]] = {
    "no YAML any more": lambda path: path.write_text("command: [\n"),
    "saved by an editor": lambda path: replace(path, "commnd: true\n"),
    "no permission": lambda path: path.chmod(0),
    "a directory": lambda path: instead(path).mkdir(),
    "a link": lambda path: instead(path).symlink_to("/dev/null"),
    "a second link": lambda path: os.link(path, path.parent.parent / "README"),
}


def instead(path: Path) -> Path:
    path.unlink()
    return path


def replace(path: Path, text: str) -> None:
    new = path.with_name(".new~")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize(
    ("broken", "how"),
    [
        *((broken, "check --repair") for broken in BROKEN),
        ("no YAML any more", "a worker"),
        ("a link", "a worker"),
    ],
)
def test_the_command_is_ended_before_a_claim_that_cannot_be_read_is_put_aside(
    cut: Cut, workers: Workers, broken: str, how: str
) -> None:
    if broken == "no permission" and os.geteuid() == 0:
        pytest.skip("root reads all the same")
    pid = cut.run("setsid sh -c 'echo $$ > $NOTE; exec sleep 60' & wait")
    BROKEN[broken](cut.claim(cut.spool))
    if how == "a worker":
        workers.drain()
    else:
        recover(cut.spool)
    assert not is_alive(pid)
    (reason,) = Path(cut.spool.root.folder(State.DEAD)).glob("*.reason.txt")
    said = reason.read_text()
    assert said.startswith("Its worker")
    assert "not run" not in said


# ── what a command is started with ────────────────────────────────────────────────────────────


@pytest.mark.skipif(not shutil.which("perl"), reason="no perl")
def test_a_command_has_no_signal_blocked_whatever_who_started_its_worker_had(
    spool: Spool, workers: Workers
) -> None:
    job_id = spool.file({"command": ["perl", "-e", 'alarm 1; sleep 30; print "no alarm"'], "max_retries": 0})
    blocked = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); "
    inside = [sys.executable, "-c", f"{blocked}os.execv(sys.argv[1], sys.argv[1:])"]
    assert workers.start_inside(*inside, kind="drain").wait() == 0
    found = spool.find(job_id)
    assert found.job
    assert found.job.history[-1]["signal"] == "SIGALRM"


def test_a_command_of_words_is_told_where_it_is(spool: Spool, workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    there = spool.file({"command": ["printenv", "PWD"], "cwd": str(tmp_path / "current")})
    nowhere = spool.file({"command": ["printenv", "PWD"]})
    its_own = spool.file({"command": ["printenv", "PWD"], "cwd": "/", "env": {"PWD": "/mine"}})
    inside = ["sh", "-c", 'cd /usr; PWD=/elsewhere exec "$@"', "sh"]
    assert workers.start_inside(*inside, kind="drain").wait() == 0
    said = {
        job_id: Path(spool.root.logs, f"{job_id}.1.out").read_text() for job_id in (there, nowhere, its_own)
    }
    assert said == {there: f"{tmp_path}/current\n", nowhere: "/usr\n", its_own: "/mine\n"}
