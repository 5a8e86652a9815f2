"""`worker start`, `stop` and `status`: who does the work, and how they are told to end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from queuectl.times import utc_now
from tests.conftest import is_gone
from tests.shell import Shell, at_once, until

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9-]+-\d+-[0-9a-f]{4}")


@pytest.fixture
def gate(shell: Shell) -> Path:
    """Where a job that reads from it waits to be let go."""
    path = shell.home / "gate"
    os.mkfifo(path)
    return path


def workers(shell: Shell) -> dict[str, dict[str, Any]]:
    return {worker["name"]: worker for worker in shell("worker", "status", "--json").json_lines}


def ends(pids: list[int]) -> None:
    until(lambda: all(is_gone(pid) for pid in pids), f"{pids} end")


# ── detached ──────────────────────────────────────────────────────────────────────────────────


def test_detached_workers_print_their_names_and_work_on_after_the_command(shell: Shell) -> None:
    said = shell("worker", "start", "--count", "3")
    names = said.lines
    assert len(set(names)) == 3
    assert all(NAME.fullmatch(name) for name in names)
    assert said.err == ""
    alive = workers(shell)
    assert sorted(alive) == sorted(names)
    for worker in alive.values():
        process = psutil.Process(worker["pid"])
        assert os.getsid(worker["pid"]) == worker["pid"]  # no terminal's hang-up reaches it
        assert process.ppid() != os.getpid()
    job_id = shell("enqueue", "echo done").out.strip()
    shell("wait", job_id)
    ran_on = shell("status", job_id, "--json").json["worker"]
    assert ran_on in names
    log = shell.root / "logs" / f"worker@{ran_on}.log"
    until(lambda: re.search(rf"{job_id}.*completed", log.read_text()), "the worker's log tells of it")
    assert sorted(shell("worker", "stop").lines) == sorted(names)
    ends([worker["pid"] for worker in alive.values()])
    assert workers(shell) == {}


def test_a_detached_worker_survives_the_terminal_it_was_started_on(shell: Shell) -> None:
    terminal = shell.terminal("worker", "start")
    assert terminal.end() == 0
    terminal.type("\x03")
    (name,) = workers(shell)
    assert terminal.text.strip() == name
    job_id = shell("enqueue", "true").out.strip()
    shell("wait", job_id)


SMALL_LOG = """
import sys
from queuectl.worker import fleet, log
log.LOG_BYTES = 2000
sys.exit(fleet.main(sys.argv[1:]))
"""


def test_the_log_of_a_worker_that_lives_long_is_cut_to_its_newest_lines(shell: Shell) -> None:
    for number in range(60):
        shell.file("true", id=f"job-{number}")
    command = [sys.executable, "-c", SMALL_LOG, str(shell.root), "detached"]
    worker = subprocess.Popen(command, env=shell.environment, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    name = worker.stdout.readline().split()[1]
    shell("wait", "--all")
    shell("worker", "stop")
    assert worker.wait() == 0
    worker.stdout.close()
    log = (shell.root / "logs" / f"worker@{name}.log").read_text()
    assert len(log) < 2600
    assert all(name in line for line in log.splitlines())
    assert "job-59: completed" in log
    assert log.endswith("ended; runs: 60\n")


def test_prune_deletes_the_logs_of_workers_that_are_gone(shell: Shell) -> None:
    (gone,) = shell("worker", "start").lines
    (alive,) = shell("worker", "start").lines
    shell("worker", "stop", gone)
    logs = {name: shell.root / "logs" / f"worker@{name}.log" for name in (gone, alive)}
    for path in logs.values():
        os.utime(path, (0, 0))
    assert "1 log of workers that are gone" in shell("prune", "--older-than", "7d", "--dry-run").err
    shell("prune", "--older-than", "7d", "--state", "dead", "--yes")
    assert logs[gone].exists()
    shell.refused("prune", "--older-than", "7d", status=2)
    assert (
        "0 jobs and 1 log of workers that are gone deleted."
        in shell("prune", "--older-than", "7d", "--yes").err
    )
    assert [name for name, path in logs.items() if path.exists()] == [alive]


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_count_that_is_none_is_refused(shell: Shell, count: str) -> None:
    shell.refused("worker", "start", "--count", count, status=2)
    assert workers(shell) == {}


# ── staying ───────────────────────────────────────────────────────────────────────────────────


def test_a_foreground_worker_stays_and_logs_to_the_terminal(shell: Shell) -> None:
    terminal = shell.terminal("worker", "start", "--foreground")
    terminal.until("started")
    shell("enqueue", "--id", "shown", "true")
    terminal.until("shown: completed")
    (worker,) = workers(shell).values()
    assert worker["pid"] == terminal.popen.pid
    terminal.type("\x03")
    assert terminal.end() == 130
    assert workers(shell) == {}


@pytest.mark.parametrize("count", ["1", "2"])
def test_foreground_workers_end_on_sigterm_with_status_0(shell: Shell, gate: Path, count: str) -> None:
    shell.file(f"read x < {gate}", id="a")
    started = shell.start("worker", "start", "--foreground", "--count", count)
    shell.reaches("a", "processing")
    until(lambda: len(workers(shell)) == int(count), "all are there")
    pids = [worker["pid"] for worker in workers(shell).values()]
    os.kill(started.pid, signal.SIGTERM)
    until(lambda: len(workers(shell)) == 1, "only the one with a job is left")
    assert started.runs
    gate.write_text("go\n")
    assert started.end() == 0
    assert shell.state("a") == "done"
    ends(pids)
    assert started.out == b""


def test_ctrl_c_ends_several_foreground_workers_with_130(shell: Shell) -> None:
    terminal = shell.terminal("worker", "start", "--foreground", "--count", "2")
    until(lambda: len(workers(shell)) == 2, "both are there")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text
    assert workers(shell) == {}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 0)])
@pytest.mark.parametrize("count", ["1", "2"])
def test_whoever_asks_the_process_that_was_started_ends_all_workers_in_order(
    shell: Shell, gate: Path, count: str, number: signal.Signals, status: int
) -> None:
    shell.file(f"read x < {gate}", id="a")
    started = shell.start("worker", "start", "--foreground", "--count", count)
    shell.reaches("a", "processing")
    until(lambda: len(workers(shell)) == int(count), "all are there")
    os.kill(started.pid, number)
    until(lambda: [worker["state"] for worker in workers(shell).values()] in (["busy"], ["stopping"]), "one")
    gate.write_text("go\n")
    assert started.end() == status
    assert shell.state("a") == "done"
    assert workers(shell) == {}


def test_under_nohup_a_worker_does_not_heed_a_terminal_that_is_closed(shell: Shell) -> None:
    line = "trap '' HUP; exec \"$@\""
    command = [sys.executable, "-m", "queuectl", "worker", "start", "--foreground"]
    with subprocess.Popen(
        ["sh", "-c", line, "sh", *command], env=shell.environment, stderr=subprocess.PIPE
    ) as popen:
        until(lambda: workers(shell), "it is there")
        popen.send_signal(signal.SIGHUP)
        job_id = shell.file("true")
        shell.reaches(job_id, "done")
        popen.send_signal(signal.SIGTERM)
        assert popen.wait() == 0


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (40, "signal 40")])
def test_a_worker_that_is_killed_is_told_and_the_others_go_on(shell: Shell, number: int, name: str) -> None:
    started = shell.start("worker", "start", "--foreground", "--count", "2")
    until(lambda: len(workers(shell)) == 2, "both are there")
    victim, other = (worker["pid"] for worker in workers(shell).values())
    os.kill(victim, number)
    until(lambda: f"The worker with pid {victim} was ended by {name}; 1 go on." in started.err, "told")
    job_id = shell.file("true")
    shell.reaches(job_id, "done")
    assert not is_gone(other)
    os.kill(started.pid, signal.SIGTERM)
    assert started.end() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_workers_end_in_order_when_the_process_that_started_them_is_killed(shell: Shell, gate: Path) -> None:
    shell.file(f"read x < {gate}", id="a")
    started = shell.start("worker", "start", "--foreground", "--count", "2")
    shell.reaches("a", "processing")
    until(lambda: len(workers(shell)) == 2, "both are there")
    pids = [worker["pid"] for worker in workers(shell).values()]
    os.kill(started.pid, signal.SIGKILL)
    until(lambda: len(workers(shell)) == 1, "the idle one ends")
    gate.write_text("go\n")
    shell.reaches("a", "done")
    ends(pids)
    assert workers(shell) == {}


#: A command that gets Ctrl-C, as on a terminal, at the n-th thing that the interpreter does for it.
INTERRUPTED = """
import os, signal, sys
from queuectl.__main__ import main

left, me = int(sys.argv.pop(1)), os.getpid()

def count(*_):
    global left
    left -= 1
    if left == 0 and os.getpid() == me:
        os.killpg(0, signal.SIGINT)

sys.addaudithook(count)
main()
"""


@pytest.mark.parametrize("count", ["1", "3"])
def test_ctrl_c_at_any_moment_of_the_start_ends_it_without_a_traceback(shell: Shell, count: str) -> None:
    """An import, a file that is opened, a process that is made: some 1,500 things are done until it works.

    A worker that has started by then gets its Ctrl-C as it says so.
    """

    def interrupted(moment: int) -> tuple[int, int, bytes]:
        words = ["worker", "start", "--foreground", "--count", count]
        said, is_pressed = b"", False
        with subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, str(moment), *words],
            env=shell.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as popen:
            assert popen.stderr is not None
            for line in popen.stderr:
                said += line
                if b" started" in line and not is_pressed:
                    is_pressed = True
                    os.killpg(popen.pid, signal.SIGINT)
        return moment, popen.returncode, said

    ends = at_once(interrupted, range(1, 1600, 123 if count == "1" else 311))
    assert [end for end in ends if end[1] != 130] == []
    assert [end for end in ends if b"Exception" in end[2] or b"Traceback" in end[2]] == []
    assert workers(shell) == {}


FORGETFUL = """
import os, signal, sys, weakref
from queuectl.__main__ import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "filelock":
            sys.meta_path.remove(self)
            thing = set()
            seen = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
            del thing  # an error in the callback is told and forgotten

sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal can be held back here")
@pytest.mark.parametrize("count", ["1", "3"])
def test_ctrl_c_within_an_import_is_not_forgotten(shell: Shell, count: str) -> None:
    command = [sys.executable, "-c", FORGETFUL, "worker", "start", "--foreground", "--count", count]
    with subprocess.Popen(command, env=shell.environment, stderr=subprocess.PIPE) as popen:
        try:
            _, said = popen.communicate()
        finally:
            popen.kill()
    assert b"Exception" not in said, said
    assert popen.returncode == 130, said
    assert workers(shell) == {}


def test_a_draining_worker_ends_when_nothing_is_left_to_run_now(shell: Shell) -> None:
    shell.file("test $QUEUECTL_ATTEMPT = 2", id="twice")
    shell.file("true", id="later", run_at="2036-01-01T00:00:00Z")
    shell.file("false", id="tries-later", backoff_base=9000)
    said = shell("worker", "start", "--drain")
    assert said.raw == b""
    states = [shell.state(job_id) for job_id in ("twice", "later", "tries-later")]
    assert states == ["done", "pending", "failed"]
    assert workers(shell) == {}


def test_a_drain_says_which_jobs_it_leaves_until_when(shell: Shell) -> None:
    shell.file("true", id="later", run_at="2036-01-01T00:00:00Z")
    shell.file("false", id="tries-later", backoff_base=100)
    said = shell("worker", "start", "--drain").err
    assert "failed jobs left for their next try: 1, the first at " in said
    assert "`queuectl worker start --drain=retries` waits for them" in said
    assert "jobs left for the time they are scheduled for: 1, the first at 2036-01-01 " in said
    assert "`queuectl worker start --drain=all` waits for them" in said
    assert "left" not in shell("worker", "start", "--drain", env={"QUEUECTL_SPOOL": empty(shell)}).err


def empty(shell: Shell) -> str:
    """Another spool, without jobs."""
    shell("init", shell.home / "empty")
    return str(shell.home / "empty")


@pytest.mark.parametrize("until_what", ["retries", "all"])
@pytest.mark.parametrize("count", ["1", "2"])
def test_a_drain_waits_for_what_it_is_told_to(shell: Shell, until_what: str, count: str) -> None:
    shell.file("test $QUEUECTL_ATTEMPT = 2", id="twice", backoff_base=1)
    shell.file("true", id="soon", run_at=(utc_now() + timedelta(seconds=2)).isoformat())
    shell.file("false", id="ends-dead", backoff_base=1, max_retries=1)
    shell("worker", "start", f"--drain={until_what}", "--count", count)
    assert shell.state("twice") == "done"
    assert shell.state("ends-dead") == "dead"
    if until_what == "all":
        assert shell.state("soon") == "done"


@pytest.mark.parametrize("word", ["", "tomorrow", "Retries"])
def test_a_drain_until_something_unknown_is_refused(shell: Shell, word: str) -> None:
    shell.file("true", id="a")
    assert "retries" in shell.refused("worker", "start", f"--drain={word}", status=2)
    assert shell.state("a") == "pending"


def test_draining_takes_in_dropped_files(shell: Shell) -> None:
    (shell.root / "pending" / "dropped.yaml").write_text("command: echo dropped\n")
    shell.drain()
    assert shell("output", "get", "dropped", "--stdout").out == "dropped\n"


@pytest.mark.parametrize(
    "wrong",
    [("--count",), ("--count", "0"), ("-n", "1001"), ("--count", "two"), ("--no-such-option",), ("extra",)],
    ids=" ".join,
)
def test_workers_that_stay_are_started_without_click_and_what_is_wrong_is_refused_all_the_same(
    shell: Shell, wrong: tuple[str, ...]
) -> None:
    shell.file("true", id="a")
    for kind in ("--drain", "--foreground"):
        shell.refused("worker", "start", kind, *wrong, status=2)
    assert shell.state("a") == "pending"


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_worker_that_cannot_come_up_says_where_it_failed(shell: Shell, count: str) -> None:
    folder = shell.root / "workers"
    folder.chmod(0o500)
    said = shell.refused("worker", "start", "--drain", "--count", count, status=1, unprivileged=True)
    folder.chmod(0o700)
    assert str(folder) in said


def test_several_workers_drain_together(shell: Shell) -> None:
    meet = 'echo $QUEUECTL_WORKER >> met; i=0; while [ "$(sort -u met | wc -l)" -lt 2 ] && [ $i -lt 900 ]'
    for number in range(2):
        shell.file(f"{meet}; do sleep 0.02; i=$((i+1)); done", id=f"a{number}", cwd=str(shell.home))
    shell("worker", "start", "--drain", "--count", "2")
    assert len(set((shell.home / "met").read_text().split())) == 2
    assert [shell.state(f"a{number}") for number in range(2)] == ["done", "done"]
    assert workers(shell) == {}


# ── stop ──────────────────────────────────────────────────────────────────────────────────────


def test_stop_lets_the_job_at_hand_finish(shell: Shell, gate: Path) -> None:
    shell.file(f"read x < {gate}", id="at-hand")
    name = shell("worker", "start").out.strip()
    shell.reaches("at-hand", "processing")
    for number in range(100):
        shell.file("sleep 0.1", id=f"next{number:02}")
    stopping = shell.start("worker", "stop")
    until(lambda: workers(shell)[name]["state"] == "stopping", "it has been asked")
    assert stopping.runs
    gate.write_text("go\n")
    assert stopping.end() == 0
    assert stopping.out.decode() == f"{name}\n"
    assert (shell.state("at-hand"), shell.state("next99")) == ("done", "pending")
    assert os.listdir(shell.root / "processing") == []


def test_past_the_timeout_the_job_is_stopped_and_goes_back(shell: Shell) -> None:
    shell.file("echo $$ > pid; sleep 600", id="long", cwd=str(shell.home), max_retries=0)
    name = shell("worker", "start").out.strip()
    pid = int(until(lambda: (shell.home / "pid").exists() and (shell.home / "pid").read_text(), "it runs"))
    begun = time.monotonic()
    assert shell("worker", "stop", "--timeout", "0.3").out == f"{name}\n"
    assert time.monotonic() - begun >= 0.3
    assert shell.state("long") == "pending"
    ends([pid])
    assert shell.fields("long")["history"][-1]["event"] == "returned"
    (shell.home / "pid").unlink()
    shell("worker", "start")
    until((shell.home / "pid").exists, "it runs again, though it has no retries")


def test_one_worker_can_be_stopped_by_name(shell: Shell) -> None:
    first, second = shell("worker", "start", "--count", "2").lines
    assert shell("worker", "stop", second).out == f"{second}\n"
    assert list(workers(shell)) == [first]
    assert "'nobody'" in shell.refused("worker", "stop", "nobody", status=1)
    shell.refused("worker", "stop", "--timeout", "soon", status=2)
    assert list(workers(shell)) == [first]


def test_to_stop_where_nobody_works_is_nothing_wrong(shell: Shell) -> None:
    said = shell("worker", "stop")
    assert said.out == ""
    assert "No worker" in said.err


def test_a_stop_that_is_interrupted_ends_with_130(shell: Shell, gate: Path) -> None:
    shell.file(f"read x < {gate}", id="a")
    name = shell("worker", "start").out.strip()
    shell.reaches("a", "processing")
    terminal = shell.terminal("worker", "stop")
    until(lambda: workers(shell)[name]["state"] == "stopping", "it has heard")
    terminal.type("\x03")
    assert terminal.end() == 130
    gate.write_text("go\n")
    shell.reaches("a", "done")
    until(lambda: workers(shell) == {}, "it stops all the same")


# ── status ────────────────────────────────────────────────────────────────────────────────────


def test_status_tells_of_each_worker_all_there_is(shell: Shell, gate: Path) -> None:
    shell.file("true", id="quick", priority=10)
    shell.file(f"read x < {gate}", id="long")
    name = shell("worker", "start").out.strip()
    shell.reaches("long", "processing")
    until(lambda: workers(shell)[name]["state"] == "busy", "it is at work")
    worker = workers(shell)[name]
    assert (worker["name"], worker["host"], worker["job"]) == (name, socket.gethostname(), "long")
    assert psutil.pid_exists(worker["pid"])
    for moment in ("since", "last_heartbeat"):
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", worker[moment])
    head, line = shell("worker", "status").lines
    assert len(re.split(r"\s{2,}", head)) == 9
    told = re.split(r"\s{2,}", line)
    assert told[:5] == [name, socket.gethostname(), str(worker["pid"]), "busy", "long"]
    assert all(re.fullmatch(r"\S+ \w+ ago", text) for text in told[5:7])
    gate.write_text("go\n")
    until(lambda: workers(shell)[name]["state"] == "idle", "it is idle again")
    assert workers(shell)[name]["job"] is None


def test_status_counts_the_jobs_that_are_done(shell: Shell) -> None:
    shell("config", "set", "lock_lease_seconds", "10")  # a beat comes five times a lease
    name = shell("worker", "start").out.strip()
    for number in range(3):
        shell.file("true", id=f"a{number}")
    for number in range(3):
        shell.reaches(f"a{number}", "done")
    until(lambda: workers(shell)[name]["jobs_done"] == 3, "the next beat tells it")


def test_a_dead_worker_is_told_as_dead_until_it_is_cleared(shell: Shell) -> None:
    name = shell("worker", "start").out.strip()
    pid = workers(shell)[name]["pid"]
    os.kill(pid, signal.SIGKILL)
    ends([pid])
    until(lambda: shell.has_let_go(name), "the worker has died")
    assert workers(shell)[name]["state"] == "dead"
    assert shell("status", "--json").json["workers"] == 0
    assert "No worker" in shell("worker", "stop").err


def test_without_workers_a_terminal_says_so(shell: Shell) -> None:
    terminal = shell.terminal("worker", "status")
    assert terminal.end() == 0
    assert "No workers" in terminal.text
    assert shell("worker", "status", "--json").raw == b""


# ── where ─────────────────────────────────────────────────────────────────────────────────────


def test_start_makes_a_spool_where_none_is_and_says_so(homeless: Shell) -> None:
    said = homeless("worker", "start", "--drain")
    assert str(homeless.root) in said.err
    assert (homeless.root / "config.yaml").is_file()


def test_start_never_takes_a_directory_without_config_for_a_spool(homeless: Shell) -> None:
    homeless.root.mkdir()
    for kind in ((), ("--foreground",), ("--drain", "--count", "2")):
        assert "queuectl init" in homeless.refused("worker", "start", *kind, status=1)
    assert list(homeless.root.iterdir()) == []


@pytest.mark.parametrize("command", ["stop", "status"])
def test_other_commands_make_no_spool(homeless: Shell, command: str) -> None:
    assert "queuectl init" in homeless.refused("worker", command, status=1)
    assert not homeless.root.exists()


def test_who_starts_a_worker_on_a_paused_queue_is_told_that_it_will_wait(shell: Shell) -> None:
    assert "paused" not in shell("worker", "start").err
    shell("pause")
    assert "queuectl resume" in shell("worker", "start").err
