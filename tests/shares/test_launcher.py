"""Jobs that another engine runs: output, exit status, time limit and cancel go through it."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl import Spool, State
from queuectl.errors import BadJob
from queuectl.spool import requests
from tests.conftest import wait_until
from tests.shares import served
from tests.shares.slurm import slurm, why_not_slurm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from queuectl.spool.jobs import Found
    from tests.conftest import Workers

BARE = f"env --ignore-environment --chdir=/ PATH={os.defpath}"
ODD = 'it\'s "so" $HOME; `x` \\ * {id}\nüñ'


@pytest.fixture(scope="module")
def by_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An ssh command to this host, by a daemon of one's own on the loopback."""
    if reason := served.why_not_ssh():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("ssh")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.makedirs("/run/sshd", exist_ok=True)
    config = served.sshd_config(folder, port, "127.0.0.1")
    words = [served.sshd(), "-D", "-e", "-f", str(config)]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(words, stderr=log)
    wait_until(lambda: b"listening" in (folder / "log").read_bytes(), "sshd listens")
    options = [word for option in served.ssh_options(folder) for word in ("-o", option)]
    yield shlex.join(["ssh", *options, "-p", str(port), "root@127.0.0.1"])
    for process in psutil.Process(daemon.pid).children(recursive=True):
        process.kill()
    daemon.kill()
    daemon.wait()


@pytest.fixture(scope="module")
def by_srun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A prefix that hands a command to a Slurm of one node, this one."""
    if reason := why_not_slurm():
        pytest.skip(reason)
    with slurm(tmp_path_factory.mktemp("slurm")) as srun:
        yield srun


@pytest.fixture(params=["ssh", "srun", "env"])
def prefix(request: pytest.FixtureRequest) -> str:
    """A launcher; `env` stands for one that passes neither directory nor variables on, as containers do."""
    return BARE if request.param == "env" else str(request.getfixturevalue(f"by_{request.param}"))


@pytest.fixture
def spool(prefix: str, tmp_path: Path) -> Spool:
    spool = Spool.create(tmp_path / "spool")
    spool.root.config.write_text(
        "poll_interval: 0.05\nbackoff_base: 0\nbackoff_jitter: 0\nstop_grace_seconds: 10\n"
        f"launcher: '{prefix.replace(chr(39), chr(39) * 2)}'\n"
    )
    return spool


def printed(spool: Spool, job_id: str, attempt: int = 1) -> str:
    return (spool.path / "logs" / f"{job_id}.{attempt}.out").read_text()


def outcome(found: Found) -> dict[str, Any]:
    assert found.job
    return dict(found.job.history[-1])


def test_words_variables_directory_output_and_exit_status_go_through(
    spool: Spool, workers: Workers, tmp_path: Path
) -> None:
    shown = 'printf "%s|" "$PWD" "$QUEUECTL_JOB_ID" "$QUEUECTL_ATTEMPT" "$ODD"; echo oops >&2; exit 7'
    here = tmp_path / "it's here"
    here.mkdir()
    spool.file({"id": "a", "command": shown, "cwd": str(here), "env": {"ODD": ODD}, "max_retries": 1})
    spool.file({"id": "b", "command": ["printf", "%s|", ODD, "", "last"], "cwd": "/"})
    spool.file({"id": "c", "command": "true", "cwd": "/nowhere", "max_retries": 0})
    workers.drain()
    assert printed(spool, "a") == f"{here}|a|1|{ODD}|"
    assert printed(spool, "a", 2) == f"{here}|a|2|{ODD}|"
    assert "oops" in (spool.path / "logs/a.1.err").read_text()
    assert outcome(spool.find("a"))["exit_code"] == 7
    assert (spool.find("b").state, printed(spool, "b")) == (State.DONE, f"{ODD}||last|")
    assert outcome(spool.find("c"))["exit_code"] == 126


@pytest.fixture
def marks() -> list[str]:
    """Numbers of seconds by which the sleep of one test is told from that of all others."""
    return [f"4711.{os.getpid()}{number}" for number in range(3)]


def running(mark: str) -> list[int]:
    """The pids of all processes, whoever started them, that sleep for so long."""
    live = [one for one in psutil.process_iter(["cmdline", "status"]) if one.info["status"] != "zombie"]
    return [one.pid for one in live if one.info["cmdline"] == ["sleep", mark]]


def test_a_time_limit_and_a_cancel_end_the_command_at_the_other_end(
    spool: Spool, workers: Workers, ended: Callable[[str], Found], marks: list[str]
) -> None:
    spool.file(
        {"id": "late", "command": f"sleep {marks[0]}; true", "timeout": 2, "max_retries": 0, "cwd": "/"}
    )
    spool.file({"id": "long", "command": f"sleep {marks[1]}; true", "cwd": "/"})
    workers.start()
    assert "longer than its limit" in outcome(ended("late"))["error"]
    assert running(marks[0]) == []
    wait_until(lambda: running(marks[1]), "the other one runs")
    requests.to_cancel(spool.root, spool.find("long").name)
    assert outcome(ended("long"))["event"] == "cancelled"
    wait_until(lambda: not running(marks[1]), "it is ended", 20)


def test_a_worker_that_is_killed_leaves_nothing_at_the_other_end(
    spool: Spool, workers: Workers, ended: Callable[[str], Found], marks: list[str]
) -> None:
    spool.file({"id": "orphan", "command": f"sleep {marks[2]}; true", "cwd": "/", "max_retries": 0})
    worker = workers.start()
    wait_until(lambda: running(marks[2]), "it runs")
    worker.kill()
    workers.start()
    assert outcome(ended("orphan"))["event"] == "lost"
    wait_until(lambda: not running(marks[2]), "it is ended", 40)


@pytest.mark.parametrize("prefix", ["env FROM={id}-{attempt}"])
def test_a_job_may_name_a_launcher_of_its_own_or_none(spool: Spool, workers: Workers) -> None:
    tell = 'echo "$FROM"'
    spool.file({"id": "a", "command": tell})
    spool.file({"id": "b", "command": tell, "launcher": "env 'FROM=its own' sh -c {command}"})
    spool.file({"id": "c", "command": tell, "launcher": "none"})
    spool.file({"id": "d", "command": tell, "launcher": "/nowhere/engine", "max_retries": 0})
    workers.drain()
    assert [printed(spool, job_id) for job_id in "abc"] == ["a-1\n", "its own\n", "\n"]
    assert outcome(spool.find("d"))["exit_code"] == 127
    assert spool.view(spool.find("b"))["launcher"] == "env 'FROM=its own' sh -c {command}"


@pytest.mark.parametrize("text", ["", "  ", "srun 'x", ["srun"], "x" * 5000])
@pytest.mark.parametrize("prefix", ["env"])
def test_what_is_no_launcher_is_refused(spool: Spool, text: object) -> None:
    with pytest.raises(BadJob, match="launcher"):
        spool.file({"command": "true", "launcher": text})
