"""Dead owners of jobs, and those that never answer: every command says the same, and none waits for them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl import State
from queuectl.spool.descriptions import Description
from queuectl.spool.liveness import Standing
from queuectl.spool.onlooker import Onlooker
from queuectl.spool.recovery import StillRuns
from queuectl.system import files, host
from queuectl.times import utc_now
from queuectl.view import audit
from tests.shell import Shell, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from queuectl import Spool

#: A process namespace and a host name of their own: what a container is to the queue.
CONTAINER = ["unshare", "--uts", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]
LEASE, HOUR = 1, 3600


def may_contain() -> bool:
    tried = [*CONTAINER, "hostname box"]
    return shutil.which("unshare") is not None and not subprocess.call(tried, stderr=subprocess.DEVNULL)


needs_containers = pytest.mark.skipif(not may_contain(), reason="process namespaces cannot be made here")


@pytest.fixture
def contain(shell: Shell) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Runs a shell script in a container; the worker in it is started by `$WORKER KIND`."""
    started: list[subprocess.Popen[bytes]] = []
    environment = shell.environment | {"WORKER": f"{sys.executable} -m queuectl.worker {shell.root}"}

    def run(script: str) -> subprocess.Popen[bytes]:
        command = [*CONTAINER, f"hostname box; {script}"]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        return started[-1]

    yield run
    for one in started:
        one.kill()
        one.wait()


def lease(shell: Shell, seconds: float) -> None:
    with shell.root.joinpath("config.yaml").open("a") as config:
        config.write(f"lock_lease_seconds: {seconds}\n")


def workers(shell: Shell) -> dict[str, dict[str, Any]]:
    return {worker["name"]: worker for worker in shell("worker", "status", "--json").json_lines}


#: Runs on the second try; the first stays until it is ended.
LONG = "test $QUEUECTL_ATTEMPT = 2 || sleep 600"


def a_destroyed_container(shell: Shell, contain: Callable[[str], subprocess.Popen[bytes]]) -> str:
    """A worker at work whose container is gone with all that ran in it."""
    shell.file(LONG, id="long")
    container = contain("exec $WORKER foreground")
    shell.reaches("long", "processing")
    until(lambda: "started" in str(shell.fields("long").get("history")), "its start is written down")
    (name,) = workers(shell)
    container.kill()
    container.wait()
    until(lambda: shell.has_let_go(name), "its processes have ended")
    return name


def a_silent_host(shell: Shell) -> str:
    """A worker at work on another host that reached this directory over the network, and is gone."""
    lease(shell, LEASE)
    shell.file(LONG, id="long")
    started = shell.start("worker", "start", "--foreground")
    shell.reaches("long", "processing")
    until(lambda: "started" in str(shell.fields("long").get("history")), "its start is written down")
    (name,) = workers(shell)
    os.kill(started.pid, signal.SIGKILL)
    started.end()
    for process in shell.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    description = shell.root / "workers" / f"{name}.yaml"
    text = re.sub("^(place|host): .*$", r"\1: elsewhere", description.read_text(), flags=re.MULTILINE)
    description.write_text(text)
    description.with_suffix(".lock").unlink()
    os.utime(description, (1e9, 1e9))
    return name


@pytest.fixture(params=[pytest.param("container", marks=needs_containers), "host"])
def dead(request: pytest.FixtureRequest, shell: Shell) -> str:
    """The name of a dead worker that holds the job `long`."""
    if request.param == "host":
        return a_silent_host(shell)
    return a_destroyed_container(shell, request.getfixturevalue("contain"))


# ── the dead ──────────────────────────────────────────────────────────────────────────────────


def test_whoever_looks_says_that_it_is_dead(shell: Shell, dead: str) -> None:
    assert workers(shell)[dead]["state"] == "dead"
    assert f"its worker {dead} died" in shell("status", "long").out
    assert "1 died at work" in shell("status").out
    said = shell("check", status=1).out
    assert f"its worker {dead} is dead" in said
    assert f"{dead}.yaml: this worker is dead" in said


@pytest.mark.parametrize(("option", "named"), [((), False), (("--timeout", "1"), True)])
def test_nobody_waits_for_it_to_stop(shell: Shell, dead: str, option: tuple[str, ...], named: bool) -> None:
    said = shell("worker", "stop", *option, *([dead] if named else []))
    assert said.out == ""
    assert f"{dead} is dead" in said.err
    assert "check --repair" in said.err


def test_its_job_is_cancelled(shell: Shell, dead: str) -> None:
    assert shell("cancel", "long").out == "long is dead (cancelled after its run was lost)\n"
    lost, cancelled = shell.fields("long")["history"][-2:]
    assert (lost["event"], cancelled["event"]) == ("lost", "cancelled")
    assert cancelled["error"] == "cancelled after its run was lost"
    assert dead not in workers(shell)


def test_its_job_is_cancelled_though_the_lost_run_was_its_last_try(shell: Shell, dead: str) -> None:
    with shell.root.joinpath("config.yaml").open("a") as config:
        config.write("max_retries: 0\n")
    assert shell("cancel", "long").out == "long is dead (cancelled after its run was lost)\n"
    assert dead not in workers(shell)


def test_a_repair_files_its_job_again(shell: Shell, dead: str) -> None:
    shell("check", "--repair")
    assert shell.state("long") in {"pending", "failed"}
    assert dead not in workers(shell)
    assert shell("check").out == ""


def test_a_drain_runs_its_job(shell: Shell, dead: str) -> None:
    shell.drain()
    assert shell.state("long") == "done"
    assert dead not in workers(shell)


def test_who_waits_for_its_job_is_told(shell: Shell, dead: str) -> None:
    waiter = shell.start("wait", "long")
    until(lambda: f"long: its worker {dead} is dead" in waiter.err, "it is told of the dead")
    until(lambda: "No worker is alive" in waiter.err, "it is told that nobody is left")
    assert waiter.err.count("check --repair") == 1


def test_a_repair_says_what_it_watches_and_takes_nothing_of_a_worker_that_beats_after_all(
    shell: Shell,
) -> None:
    name = a_silent_host(shell)
    spool, told = shell.spool, []
    description = shell.root / "workers" / f"{name}.yaml"
    onlooker = Onlooker(spool.root)

    def beat(text: str) -> None:
        told.append(text)
        description.write_text(description.read_text().replace('"count": ', '"count": 1'))

    onlooker.settle([name], HOUR, beat)
    assert len(told) == 1
    assert name in told[0]
    assert onlooker.judge(name, HOUR).standing is Standing.ALIVE


# ── what a repair cannot end ───────────────────────────────────────────────────────────────────


def a_killed_worker(shell: Shell) -> Path:
    """The claim that a worker has left on this host; its command still runs."""
    shell.file("sleep 600", id="long")
    started = shell.start("worker", "start", "--foreground")
    shell.reaches("long", "processing")
    until(lambda: "started" in str(shell.fields("long").get("history")), "its start is written down")
    os.kill(started.pid, signal.SIGKILL)
    started.end()
    (claim,) = shell.root.glob("processing/*.yaml")
    return claim


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a spool to another user")
def test_a_repair_by_root_names_the_user_who_can_take_a_job_over(shell: Shell) -> None:
    claim = a_killed_worker(shell)
    for path in [shell.root, *shell.root.rglob("*")]:
        os.chown(path, 54321, 54321)
    command = f"`sudo -u '#54321' queuectl -s {shell.root} check --repair`"
    said = shell("check", "--repair", status=1).out
    assert f"{claim}: its worker" in said
    assert "could not take the job over: it was filed by user 54321" in said
    assert command in said
    assert "files it again" not in said
    assert "`--repair` clears it (" not in said
    refusal = shell("cancel", "long", status=1).err
    assert "it was filed by user 54321" in refusal
    assert command in refusal
    assert shell.state("long") == "processing"


def test_a_process_that_cannot_be_ended_is_named(spool: Spool) -> None:
    spool.file({"id": "long", "command": "true"})
    with spool.member() as dead:
        dead.look(utc_now())
        claim = dead.claim(utc_now())
        assert claim is not None
        opened = dead.begin(claim)
        assert opened is not None
        files.close(*opened[2])

    def still_runs(*_: object) -> None:
        raise StillRuns(4321)

    found = audit.repair(spool.root, Onlooker(spool.root), spool.settings(), still_runs, spool.clock())
    (one,) = [one for one in found if one.path.startswith(spool.root.folder(State.PROCESSING))]
    assert "process 4321 of its command still runs" in one.problem
    assert "`ps -fp 4321`" in one.remedy


# ── containers on one disk ────────────────────────────────────────────────────────────────────


@needs_containers
def test_a_busy_worker_takes_up_what_another_container_left_after_the_job_at_hand(
    shell: Shell, contain: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    """The first container may be destroyed at any time: no beat has to be watched for as long as a lease."""
    gate = shell.home / "gate"
    os.mkfifo(gate)
    shell.file(f"read x < {gate}", id="at-hand", priority=10)
    contain("exec $WORKER foreground")
    shell.reaches("at-hand", "processing")
    name = a_destroyed_container_beside(shell, contain)
    gate.write_text("go\n")
    shell.reaches("long", "done")
    assert name not in workers(shell)


def a_destroyed_container_beside(shell: Shell, contain: Callable[[str], subprocess.Popen[bytes]]) -> str:
    before = set(workers(shell))
    shell.file(LONG, id="long")
    container = contain("exec $WORKER foreground")
    shell.reaches("long", "processing")
    (name,) = set(workers(shell)) - before
    container.kill()
    container.wait()
    until(lambda: shell.has_let_go(name), "its processes have ended")
    return name


@needs_containers
def test_a_command_that_outlives_its_worker_in_another_container_is_not_run_beside_it(
    shell: Shell, contain: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    lease(shell, LEASE)
    shell.file(LONG, id="long")
    container = contain("$WORKER foreground & wait; sleep 600")
    shell.reaches("long", "processing")
    until(lambda: "started" in str(shell.fields("long").get("history")), "its start is written down")
    (name,) = workers(shell)
    (worker,) = [one for one in shell.processes() if "queuectl.worker" in " ".join(one.cmdline()[:3])]
    worker.kill()
    until(lambda: workers(shell)[name]["state"] == "dead", "its worker is dead")
    # A third container sees nothing of the second one's processes.
    log = shell.home / "log"
    assert contain(f"$WORKER drain 2> {log}").wait() == 0
    assert "its command still runs in another container" in log.read_text()
    assert shell.state("long") == "processing"
    container.kill()
    container.wait()
    assert contain("$WORKER drain").wait() == 0
    assert shell.state("long") == "done"


# ── those that do not answer ──────────────────────────────────────────────────────────────────


@pytest.fixture
def frozen(shell: Shell) -> Iterator[str]:
    """The name of a worker that was stopped by SIGSTOP while it runs the job `long`."""
    lease(shell, LEASE)
    shell.file(LONG, id="long")
    started = shell.start("worker", "start", "--foreground")
    shell.reaches("long", "processing")
    (name,) = workers(shell)
    os.kill(started.pid, signal.SIGSTOP)
    yield name
    os.kill(started.pid, signal.SIGCONT)


def test_a_worker_that_stands_still_is_called_frozen_and_not_waited_for(shell: Shell, frozen: str) -> None:
    until(lambda: workers(shell)[frozen]["state"] == "frozen", "it is seen to stand still")
    assert "kill -CONT" in shell("status").out
    said = shell("worker", "stop", status=1)
    assert f"{frozen} has not stopped: its process is there, but gave no sign of life" in said.err
    assert "`kill -CONT" in said.err
    assert "kill -CONT" in shell("cancel", "long", status=1).err
    assert shell("check").out == ""
    assert shell.state("long") == "processing"


@pytest.mark.parametrize(
    ("kernel", "where"),
    [
        (host.kernel_id(), "on web1"),
        ("another-boot/pid:[1]", "on web1"),
        (host.kernel_id().split("/")[0] + "/pid:[1]", "inside its container web1 (another process namespace"),
    ],
    ids=["here", "on another host", "in a container of this host"],
)
def test_the_pid_of_a_worker_is_given_with_the_place_where_it_is_the_workers(kernel: str, where: str) -> None:
    one = Description("web1-1-9f3c", "web1", 1, "detached", f"{kernel}/42", "", 1, "", 0, None)
    assert f"`kill -CONT 1` {where}" in one.how_to_wake
    assert f"end it {where}" in one.how_to_end


def test_a_worker_that_dies_while_it_is_asked_to_stop_is_not_waited_for(shell: Shell) -> None:
    shell.file(LONG, id="long")
    worker = shell.start("worker", "start", "--foreground")
    shell.reaches("long", "processing")
    (name,) = workers(shell)
    stopping = shell.start("worker", "stop")
    until(lambda: workers(shell)[name]["state"] == "stopping", "it has been asked")
    os.kill(worker.pid, signal.SIGKILL)
    worker.end()
    assert stopping.end() == 1
    assert f"{name} has not stopped: its process has ended" in stopping.err


@pytest.mark.parametrize("named", [False, True])
def test_a_program_that_joined_is_named_and_not_waited_for(shell: Shell, spool: Spool, named: bool) -> None:
    root = str(spool.path)
    with spool.member() as me:
        said = shell("--spool", root, "worker", "stop", *([me.name] if named else []), status=1)
        assert f"{me.name} is a Python program" in said.err
        assert f"`kill {os.getpid()}`" in said.err
        assert not list((spool.path / "workers").glob("*.stop"))
        job_id = spool.file("true")
        me.look(utc_now(), again=True)
        claim = me.claim(utc_now())
        assert claim
        said = shell("--spool", root, "cancel", job_id, status=1)
        assert f"`kill {os.getpid()}`" in said.err
        assert not list((spool.path / "workers").glob("*.cancel"))
        me.give_back(claim)


def test_workers_beside_a_program_stop_all_the_same(shell: Shell) -> None:
    name = shell("worker", "start").out.strip()
    with shell.spool.member() as me:
        said = shell("worker", "stop", status=1)
    assert said.out == f"{name}\n"
    assert me.name in said.err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets root do without its privileges")
def test_a_worker_whose_lock_may_not_be_asked_is_judged_by_its_beats(shell: Shell) -> None:
    """That of root in a user's spool, say."""
    name = shell("worker", "start").out.strip()
    (shell.root / "workers" / f"{name}.lock").chmod(0)
    (worker,) = shell("worker", "status", "--json", unprivileged=True).json_lines
    assert worker["state"] == "idle"
    assert shell("check", unprivileged=True).out == ""
    shell("worker", "stop")
