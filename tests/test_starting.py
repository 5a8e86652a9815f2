"""Starting commands: what they get from the worker, and what happens around and between them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.spool import descriptions, jobs, output
from queuectl.spool.names import Name
from queuectl.spool.wake import Wake
from queuectl.system import files, processes
from queuectl.times import stamp, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.history import Event
    from queuectl.spool.jobs import Found
    from tests.conftest import Until, Workers

    Ended = Callable[[str], Found]
    History = Callable[[str], tuple[Event, ...]]

pytestmark = pytest.mark.usefixtures("audited")


def printed(spool: Spool, job_id: str, stream: str = "out") -> str:
    return Path(output.log_path(spool.root, job_id, 1, stream)).read_text(errors="surrogateescape")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the descriptors")
def test_a_command_has_three_descriptors_whatever_its_worker_has(
    spool: Spool, workers: Workers, tmp_path: Path, ended: Ended
) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        workers.start_inside(pass_fds=[file.fileno()])
    job_id = spool.file({"command": ["ls", "-l", "/proc/self/fd"]})
    ended(job_id)
    shown = [line.partition(":")[2].split() for line in printed(spool, job_id).splitlines()[1:]]
    own = [words for words in shown if not words[-1].startswith("/proc/")]
    assert [words[1] for words in own] == ["0", "1", "2"]
    assert own[0][-1] == os.devnull


def test_a_command_heeds_the_signals_that_its_worker_ignores(
    spool: Spool, workers: Workers, history: History
) -> None:
    """As under nohup, or in the background of a shell script."""
    ignored = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT]
    ids = [spool.file({"command": f"kill -{number:d} $$", "max_retries": 0}) for number in ignored]
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        worker = workers.start_inside(kind="drain")
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
    assert worker.wait() == 0
    assert [history(job_id)[-1]["signal"] for job_id in ids] == [number.name for number in ignored]


def test_a_program_is_looked_for_in_the_path_of_its_job(
    spool: Spool, workers: Workers, tmp_path: Path, history: History
) -> None:
    for folder, mode in (("first", 0o600), ("second", 0o700)):
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "my-own-program"
        program.write_text(f"#!/bin/sh\necho {folder}\n")
        program.chmod(mode)
    path = f"{tmp_path}/none:{tmp_path}/first:{tmp_path}/second:/bin:/usr/bin"
    found = spool.file({"command": ["my-own-program"], "env": {"PATH": path}})
    locked = spool.file(
        {"command": ["my-own-program"], "env": {"PATH": f"{tmp_path}/first"}, "max_retries": 0}
    )
    missing = spool.file({"command": ["my-own-program"], "max_retries": 0})
    workers.drain()
    assert printed(spool, found) == "second\n"
    assert history(locked)[-1]["error"] == f"permission denied: {tmp_path}/first/my-own-program"
    assert history(missing)[-1]["error"] == "command not found: my-own-program"


def test_a_job_without_a_directory_runs_in_the_worker_s_whatever_ran_before(
    spool: Spool, workers: Workers, tmp_path: Path
) -> None:
    elsewhere = spool.file({"command": "pwd", "cwd": str(tmp_path)})
    here = spool.file("pwd")
    nowhere = spool.file({"command": "pwd", "cwd": "/no/such/place", "max_retries": 0})
    again = spool.file("pwd")
    workers.drain()
    assert printed(spool, elsewhere) == f"{tmp_path}\n"
    assert printed(spool, here) == printed(spool, again) == f"{os.getcwd()}\n"
    assert spool.find(nowhere).state is State.DEAD


def test_a_command_is_watched_although_its_worker_cannot_go_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    streams = tuple(os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY, 0o600) for name in "oe")
    here, wake = os.getcwd(), Wake()

    def refuse(_: int) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def run(cwd: Path | None) -> str:
        where = None if cwd is None else str(cwd)
        command = processes.start(f"pwd >{told}", streams, where, dict(os.environb))
        command.wait(wake, 10)
        assert command.has_ended()
        assert command.reap().exit_code == 0
        return told.read_text().strip()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchdir", refuse)
        assert run(tmp_path) == str(tmp_path)
        assert os.getcwd() == "/", "nobody is kept from unmounting the job's directory"
        with pytest.raises(processes.Cannot, match="the worker's own directory: Permission denied"):
            run(None)
    assert run(None) == here == os.getcwd()
    wake.close()
    for fd in streams:
        os.close(fd)


def test_a_program_beside_the_directory_of_its_job_is_found_from_there(
    spool: Spool, workers: Workers, tmp_path: Path
) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho from here\n")
    (tmp_path / "tool").chmod(0o700)
    job_id = spool.file({"command": ["./tool"], "cwd": str(tmp_path)})
    workers.drain()
    assert printed(spool, job_id) == "from here\n"


def test_files_that_are_no_jobs_keep_no_worker_from_watching_a_command(
    spool: Spool, workers: Workers, history: History
) -> None:
    spool.file("true")
    late = spool.file({"command": "sleep 30", "timeout": 1, "max_retries": 0})
    bad = [Name(10, stamp(utc_now()), f"bad{number}") for number in range(300)]
    for name in bad:
        (spool.path / "pending" / str(name)).write_text("comand: x\n")
    workers.drain()
    assert history(late)[-1]["error"] == "it ran longer than its limit of 1 s"
    assert len(files.list_names(spool.root.folder(State.DEAD))) == 2 * len(bad) + 1


def test_what_is_no_job_is_put_aside_although_dead_has_been_deleted(
    spool: Spool, workers: Workers, until: Until
) -> None:
    workers.start()
    until(lambda: descriptions.described(spool.root), "a worker is there")
    (spool.path / "dead").rmdir()
    name = Name(0, stamp(utc_now()), "bad")
    (spool.path / "pending" / str(name)).write_text("comand: x\n")
    until(lambda: list(spool.path.glob("dead/*-bad.yaml")), "it is put aside")


def test_what_is_no_job_costs_no_further_listing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        name = Name(0, stamp(utc_now()), f"bad{number}")
        (spool.path / "pending" / str(name)).write_text("comand: x\n")
    edited = spool.file({"command": "true", "priority": 10})
    path = Path(spool.find(edited).path)
    path.write_text(path.read_text().replace("priority: 10", "priority: 9"))
    listed = []

    class Listing:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def listdir(self, folder: str) -> list[str]:
            listed.append(folder)
            return os.listdir(folder)

    with spool.member() as me:
        me.look(utc_now())
        monkeypatch.setattr(files, "kernel", Listing())
        assert me.claim(utc_now(), 5) is None
        claim = me.claim(utc_now())
        assert claim
        assert (claim.id, claim.name.rank) == (edited, 1)
        assert listed == []
        me.give_back(claim)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_spool_whose_path_is_no_text_is_worked_off(tmp_path: Path) -> None:
    spool = Spool.create(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    job_id = spool.file('printf %s "$QUEUECTL_SPOOL"')
    subprocess.run(
        [sys.executable, "-m", "queuectl.worker", str(spool.path), "drain"], check=True, capture_output=True
    )
    assert os.fsencode(printed(spool, job_id)) == os.fsencode(spool.path)


def test_a_worker_that_is_killed_costs_the_jobs_after_its_own_no_try(
    spool: Spool, workers: Workers, history: History
) -> None:
    for _ in range(20):
        spool.file("true")
    killer = spool.file({"command": "kill -9 $PPID; sleep 1", "max_retries": 0})
    others = [spool.file("true") for _ in range(20)]
    assert workers.start("drain").wait() == -9
    workers.drain()
    assert spool.find(killer).state is State.DEAD
    for other in others:
        assert [event["event"] for event in history(other)] == ["started", "completed"]


def test_the_outcomes_of_all_that_ran_are_recorded_by_the_time_the_worker_has_ended(
    spool: Spool, workers: Workers, until: Until
) -> None:
    ids = [spool.file("true") for _ in range(30)]
    worker = workers.start()
    until(lambda: jobs.names_in(spool.root, State.DONE), "some are done")
    worker.popen.terminate()
    assert worker.wait() == 0
    assert jobs.names_in(spool.root, State.PROCESSING) == []
    states = {spool.find(job_id).state for job_id in ids}
    assert states <= {State.DONE, State.PENDING}


def test_a_drain_has_the_last_long_jobs_run_side_by_side(spool: Spool, tmp_path: Path, ended: Ended) -> None:
    """Neither of two workers holds a job that it does not run, and neither ends before the other has both."""
    for _ in range(4):
        spool.file("true")
    one, other = tmp_path / "one", tmp_path / "other"
    wait = "for _ in $(seq 500); do test -e {} && exit; sleep 0.02; done; exit 1"
    ids = [
        spool.file({"command": f"touch {mine}; {wait.format(its)}", "max_retries": 0})
        for mine, its in ((one, other), (other, one))
    ]
    words = ["worker", "start", "--drain", "--count", "2"]
    command = [sys.executable, "-m", "queuectl", "--spool", str(spool.path), *words]
    subprocess.run(command, check=True, capture_output=True)
    assert {ended(job_id).state for job_id in ids} == {State.DONE}


#: Drains a spool before its keeper looks for the first time, which on a busy machine may be too soon.
SHORT_DRAIN = """
import sys
from queuectl.worker import fleet, keeper
keeper.Keeper.rest = lambda _: 3600
sys.exit(fleet.main([sys.argv[1], "drain"]))
"""


def test_a_short_drain_does_not_begin_to_listen(spool: Spool) -> None:
    """What it would have to import takes as long as some twenty jobs."""
    for command in ("true", "sleep 0.05", "true"):
        spool.file(command)
    drained = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", SHORT_DRAIN, str(spool.path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "filelock" in drained.stderr
    assert "watchdog" not in drained.stderr
