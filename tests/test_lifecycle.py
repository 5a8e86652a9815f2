"""A job's way through the spool, with real workers: what runs, when, how it is stopped and recorded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.spool import descriptions, output, requests
from queuectl.times import utc_now
from tests.conftest import is_gone, kinds

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.job.history import Event
    from queuectl.spool.jobs import Found
    from tests.conftest import Evidence, Until, Workers

    History = Callable[[str], tuple[Event, ...]]
    Ended = Callable[[str], Found]

pytestmark = pytest.mark.usefixtures("audited")


def printed(spool: Spool, job_id: str, stream: str = "out", attempt: int = 1) -> str:
    return Path(output.log_path(spool.root, job_id, attempt, stream)).read_text()


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


# ── one run ───────────────────────────────────────────────────────────────────────────────────


def test_a_job_runs_once_and_is_done(spool: Spool, workers: Workers, evidence: Evidence) -> None:
    job_id = spool.file(evidence.command())
    workers.drain(2)
    assert spool.find(job_id).state is State.DONE
    assert evidence.started() == [job_id]


def test_a_waiting_worker_starts_a_job_as_soon_as_it_is_filed(
    spool: Spool, workers: Workers, ended: Ended
) -> None:
    """It is told of the file: its next listing comes in an hour."""
    spool.root.config.write_text("poll_interval: 3600\n")
    ended_first = spool.file("true")
    workers.start()
    ended(ended_first)
    ended(spool.file("true"))


def test_what_a_run_printed_and_how_it_ended_is_recorded(
    spool: Spool, workers: Workers, history: History
) -> None:
    job_id = spool.file({"command": "echo seen; echo wrong >&2; sleep 0.2; exit 7", "max_retries": 0})
    begun = time.monotonic()
    workers.drain()
    longest = time.monotonic() - begun
    started, failed = history(job_id)
    assert printed(spool, job_id) == "seen\n"
    assert printed(spool, job_id, "err") == "wrong\n"
    assert (started["event"], started["attempt"]) == ("started", 1)
    assert (failed["event"], failed["exit_code"]) == ("failed", 7)
    assert failed["worker"] == started["worker"]
    assert 0.2 <= failed["seconds"] <= longest
    assert "7" in failed["error"]


def test_ten_megabytes_of_output_are_kept_whole(spool: Spool, workers: Workers) -> None:
    job_id = spool.file("yes | head -c 10000000")
    workers.drain()
    assert os.stat(output.log_path(spool.root, job_id, 1, "out")).st_size == 10_000_000


def test_a_list_of_words_runs_without_a_shell(spool: Spool, workers: Workers) -> None:
    words = ["", "two words", "$HOME", "*", "a;b", "'", '"', "\n", "ü", "-"]
    job_id = spool.file({"command": [*python("import sys; print(sys.argv[1:])"), *words]})
    workers.drain()
    assert printed(spool, job_id) == f"{words}\n"


def test_a_command_of_several_lines_is_one_script(spool: Spool, workers: Workers) -> None:
    job_id = spool.file("for i in 1 2\ndo\n  echo $i\ndone\necho '# no comment'\n")
    workers.drain()
    assert printed(spool, job_id) == "1\n2\n# no comment\n"


def test_directory_and_environment_are_those_the_job_asks_for(
    spool: Spool, workers: Workers, tmp_path: Path
) -> None:
    place = tmp_path / "a place"
    place.mkdir()
    program = "import json, os; print(json.dumps({**os.environ, 'cwd': os.getcwd()}))"
    env = {"GREETING": "grüß gott", "EMPTY": "", "QUEUECTL_JOB_ID": "forged"}
    job_id = spool.file({"id": "Mine", "command": python(program), "cwd": str(place), "env": env})
    workers.drain()
    seen = json.loads(printed(spool, job_id))
    assert seen["cwd"] == str(place)
    assert (seen["GREETING"], seen["EMPTY"]) == ("grüß gott", "")
    assert seen["PATH"] == os.environ["PATH"]
    assert seen["QUEUECTL_JOB_ID"] == "Mine"
    assert seen["QUEUECTL_ATTEMPT"] == "1"
    assert seen["QUEUECTL_SPOOL"] == str(spool.path)
    found = spool.find(job_id).job
    assert found
    assert seen["QUEUECTL_WORKER"] == found.history[0]["worker"]


def test_standard_input_is_empty(spool: Spool, workers: Workers) -> None:
    job_id = spool.file("readlink /proc/self/fd/0; cat; echo end")
    workers.drain()
    assert printed(spool, job_id) == f"{os.devnull}\nend\n"


def test_a_job_holds_no_descriptor_of_its_worker(spool: Spool, workers: Workers) -> None:
    job_id = spool.file({"command": ["ls", "-l", "/proc/self/fd"]})
    workers.drain()
    held = re.findall(r" (\d+) -> (\S+)", printed(spool, job_id))
    assert {number for number, target in held if not target.startswith("/proc/")} == {"0", "1", "2"}


def test_exit_codes_are_recorded_as_they_are(spool: Spool, workers: Workers, history: History) -> None:
    statuses = [0, 1, 2, 77, 126, 127, 128, 130, 255]
    ids = {spool.file({"command": f"exit {status}", "max_retries": 0}): status for status in statuses}
    workers.drain()
    for job_id, status in ids.items():
        assert history(job_id)[-1]["exit_code"] == status
        assert spool.find(job_id).state is (State.DEAD if status else State.DONE)


def test_a_job_killed_by_a_signal_has_failed_with_its_name(
    spool: Spool, workers: Workers, history: History
) -> None:
    numbers = [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT, signal.SIGHUP]
    ids = {spool.file({"command": f"kill -{n:d} $$", "max_retries": 0}): n for n in numbers}
    workers.drain()
    for job_id, number in ids.items():
        last = history(job_id)[-1]
        assert (last["signal"], last["exit_code"]) == (number.name, 128 + number)


def test_commands_that_cannot_start_are_told_apart(spool: Spool, workers: Workers, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program\n")
    cases: dict[str, tuple[dict[str, Any], int, str]] = {
        "missing": ({"command": ["/no/such/program"]}, 127, "command not found: /no/such/program"),
        "nowhere": ({"command": "true", "cwd": "/no/such/place"}, 126, "no such directory: /no/such/place"),
        "locked": ({"command": [str(plain)]}, 126, f"permission denied: {plain}"),
        "unknown": ({"command": "no-such-program-at-all"}, 127, "exit status 127"),
    }
    for job_id, (fields, _, _) in cases.items():
        spool.file({"id": job_id, "max_retries": 0} | fields)
    workers.drain()
    for job_id, (_, status, error) in cases.items():
        shown = spool.view(spool.find(job_id))
        assert (shown["state"], shown["exit_code"], shown["error"]) == ("dead", status, error)


# ── stopping a command with all that it started ───────────────────────────────────────────────

DAEMON = "( setsid sh -c 'echo $$ >> {pids}; trap \"\" TERM HUP; while :; do sleep 1; done' & ) &"
TWICE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), file=open(sys.argv[1], "a"), flush=True)
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
STUBBORN = {
    "plain": "sleep 60",
    "ignores SIGTERM": "trap '' TERM; while :; do sleep 1; done",
    "its children ignore SIGTERM": "sh -c \"trap '' TERM; while :; do sleep 1; done\" & wait",
    "left a daemon": f"{DAEMON} sleep 60",
    "left a daemon that forked twice": f"{shlex.join(python(TWICE))} {{pids}}",
    "is stopped": "kill -STOP $$; sleep 60",
}


@pytest.mark.parametrize("kind", STUBBORN)
def test_the_time_limit_stops_the_whole_process_tree(
    spool: Spool, workers: Workers, history: History, tmp_path: Path, kind: str
) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    command = f"echo $$ >> {pids}; {STUBBORN[kind].format(pids=str(pids))}"
    job_id = spool.file({"command": command, "timeout": 0.6, "max_retries": 0})
    workers.drain()
    last = history(job_id)[-1]
    assert "limit of 0.6 s" in last["error"]
    assert last["seconds"] >= 0.6
    noted = [int(line) for line in pids.read_text().split()]
    assert len(noted) == (2 if "daemon" in kind else 1)
    assert [pid for pid in noted if not is_gone(pid)] == []


def test_what_a_stopped_command_started_has_the_grace_to_clean_up(
    spool: Spool, workers: Workers, tmp_path: Path
) -> None:
    """The shell that leads the command dies of SIGTERM at once; its child needs a moment."""
    with spool.root.config.open("a") as config:
        config.write("stop_grace_seconds: 5\n")
    cleaned = tmp_path / "cleaned"
    child = f"trap 'sleep 0.3; echo yes > {cleaned}; exit' TERM; while :; do sleep 0.05; done"
    spool.file({"command": f"sh -c {shlex.quote(child)}; true", "timeout": 0.5, "max_retries": 0})
    workers.drain()
    assert cleaned.exists()
    assert cleaned.read_text() == "yes\n"


def test_a_finished_job_leaves_nothing_running_in_the_background(
    spool: Spool, workers: Workers, tmp_path: Path, until: Until, ended: Ended
) -> None:
    pids = tmp_path / "pids"
    both = f"while [ $(wc -l < {pids}) -lt 2 ]; do :; done"
    command = f"sleep 60 & echo $! >> {pids}; {DAEMON.format(pids=pids)} {both}"
    workers.start()
    assert ended(spool.file(command)).state is State.DONE
    until(lambda: all(is_gone(int(pid)) for pid in pids.read_text().split()), "what it left behind is ended")


def test_a_background_child_that_holds_the_output_does_not_hold_up_the_job(
    spool: Spool, workers: Workers, history: History
) -> None:
    job_id = spool.file("sleep 3600 & echo told")
    workers.drain()
    assert history(job_id)[-1]["event"] == "completed"
    assert printed(spool, job_id) == "told\n"


# ── retries ───────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_always_fails_is_dead_after_its_retries(
    spool: Spool, workers: Workers, evidence: Evidence, ended: Ended
) -> None:
    job_id = spool.file({"command": evidence.command() + "; exit 3", "max_retries": 2})
    workers.start()
    assert ended(job_id).state is State.DEAD
    shown = spool.view(spool.find(job_id))
    assert (shown["attempts"], shown["exit_code"]) == (3, 3)
    assert evidence.started() == [job_id] * 3


def test_a_job_that_fails_twice_and_then_succeeds_is_done(
    spool: Spool, workers: Workers, ended: Ended, history: History
) -> None:
    job_id = spool.file('echo try $QUEUECTL_ATTEMPT; test "$QUEUECTL_ATTEMPT" = 3')
    workers.start()
    assert ended(job_id).state is State.DONE
    assert kinds(history(job_id)) == ["started", "failed"] * 2 + ["started", "completed"]
    assert [printed(spool, job_id, attempt=n) for n in (1, 2, 3)] == ["try 1\n", "try 2\n", "try 3\n"]


def test_a_retry_waits_for_its_backoff(
    spool: Spool, workers: Workers, ended: Ended, history: History
) -> None:
    job_id = spool.file({"command": "false", "max_retries": 1, "backoff_base": 0.7})
    workers.start()
    ended(job_id)
    events = history(job_id)
    moments = [time.mktime(time.strptime(e["at"][:19], "%Y-%m-%dT%H:%M:%S")) for e in events]
    waited = (
        moments[2] + float(f"0{events[2]['at'][19:-1]}") - moments[1] - float(f"0{events[1]['at'][19:-1]}")
    )
    assert kinds(events) == ["started", "failed"] * 2
    assert waited >= 0.7


def test_a_dead_job_moved_back_by_hand_has_all_its_tries_again(
    spool: Spool, workers: Workers, ended: Ended, until: Until
) -> None:
    job_id = spool.file({"command": "false", "max_retries": 1})
    workers.start()
    dead = ended(job_id)
    assert dead.state is State.DEAD
    os.rename(dead.path, spool.root.folder(State.PENDING) + "/" + os.path.basename(dead.path))
    until(lambda: len(history_now(spool, job_id)) == 9, "it fails twice again")
    again = ended(job_id)
    assert again.state is State.DEAD
    assert spool.view(again)["attempts"] == 2
    assert kinds(history_now(spool, job_id)) == [
        *["started", "failed"] * 2,
        "retried",
        *["started", "failed"] * 2,
    ]


def history_now(spool: Spool, job_id: str) -> tuple[Event, ...]:
    found = spool.find(job_id)
    return found.job.history if found.job else ()


def test_retry_gives_a_dead_job_its_tries_anew(
    spool: Spool, workers: Workers, ended: Ended, tmp_path: Path
) -> None:
    wanted = tmp_path / "wanted"
    job_id = spool.file({"command": f"cat {wanted}", "max_retries": 0})
    workers.start()
    assert ended(job_id).state is State.DEAD
    wanted.write_text("here\n")
    spool.retry(job_id)
    assert ended(job_id).state is State.DONE
    assert printed(spool, job_id, attempt=2) == "here\n"


# ── order ─────────────────────────────────────────────────────────────────────────────────────


def test_urgent_jobs_run_first_and_equals_in_the_order_they_were_filed(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    plan = [(f"job-{number}-{priority}", priority) for number in range(4) for priority in (0, 10, 5)]
    for job_id, priority in plan:
        spool.file({"id": job_id, "command": evidence.command(), "priority": priority})
    workers.drain()
    expected = [job_id for wanted in (10, 5, 0) for job_id, priority in plan if priority == wanted]
    assert evidence.started() == expected


def test_in_fifo_mode_jobs_run_in_the_order_they_were_filed(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    with spool.root.config.open("a") as config:
        config.write("scheduling_mode: fifo\n")
    ids = [spool.file({"command": evidence.command(), "priority": n * 5}) for n in (0, 2, 1, 0, 2)]
    workers.drain()
    assert evidence.started() == ids


def test_an_urgent_job_filed_during_a_drain_starts_next(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until
) -> None:
    """The worker hears of it: it lists anew far later."""
    spool.root.config.write_text("poll_interval: 3600\n")
    others = [spool.file(evidence.command("sleep 0.2")) for _ in range(20)]
    worker = workers.start("drain")
    until(lambda: len(evidence.started()) == 8, "some have run")
    urgent = spool.file({"command": evidence.command(), "priority": 10})
    assert worker.wait() == 0
    place = evidence.started().index(urgent)
    assert place < len(others), "it was found when nothing else was left"
    assert evidence.started() == [*others[:place], urgent, *others[place:]]


def test_a_scheduled_job_waits_for_its_time(
    spool: Spool, workers: Workers, evidence: Evidence, ended: Ended
) -> None:
    moment = utc_now() + timedelta(seconds=1)
    later = spool.file({"command": f"date +%s.%N; {evidence.command()}", "run_at": moment.isoformat()})
    never = spool.file({"command": "true", "run_at": (moment + timedelta(days=1)).isoformat()})
    workers.start()
    ended(spool.file("true"))
    ended(later)
    assert float(printed(spool, later)) >= moment.timestamp()
    assert spool.view(spool.find(never))["state"] == "scheduled"


def test_draining_leaves_what_is_not_due(spool: Spool, workers: Workers) -> None:
    job_id = spool.file({"command": "true", "run_at": (utc_now() + timedelta(hours=1)).isoformat()})
    workers.drain()
    assert spool.find(job_id).state is State.PENDING


# ── pause, stop, cancel ───────────────────────────────────────────────────────────────────────


def test_a_paused_spool_starts_nothing_until_it_is_resumed(
    spool: Spool, workers: Workers, evidence: Evidence, tmp_path: Path, until: Until, ended: Ended
) -> None:
    gate = tmp_path / "gate"
    running = spool.file(evidence.command(f"while ! test -e {gate}; do sleep 0.02; done"))
    worker = workers.start()
    until(lambda: evidence.started() == [running], "the first job runs")
    requests.pause(spool.root, utc_now())
    waiting = spool.file(evidence.command())
    until_heard(worker.name, spool, until)
    gate.touch()
    assert ended(running).state is State.DONE
    until_heard(worker.name, spool, until)
    assert evidence.started() == [running]
    assert spool.find(waiting).state is State.PENDING
    assert requests.resume(spool.root)
    assert ended(waiting).state is State.DONE


def test_a_worker_that_starts_in_a_paused_spool_starts_nothing(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until
) -> None:
    requests.pause(spool.root, utc_now())
    for _ in range(3):
        spool.file(evidence.command())
    worker = workers.start()
    until_heard(worker.name, spool, until)
    assert evidence.started() == []


def until_heard(name: str, spool: Spool, until: Until) -> None:
    """Wait as long as a worker may take to hear of a request: it looks more than six times a second."""
    end = time.monotonic() + 0.6
    until(
        lambda: time.monotonic() > end and name in descriptions.described(spool.root), "the worker lives on"
    )


def test_a_waiting_job_that_is_cancelled_never_runs(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    kept, cancelled = spool.file(evidence.command()), spool.file(evidence.command())
    spool.cancel_waiting(cancelled)
    workers.drain()
    assert evidence.started() == [kept]
    shown = spool.view(spool.find(cancelled))
    assert (shown["state"], shown["attempts"]) == ("dead", 0)
    assert "cancelled" in shown["error"]


def test_a_running_job_that_is_cancelled_is_stopped_and_dead(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, ended: Ended, history: History
) -> None:
    job_id = spool.file(evidence.command("sleep 60"))
    workers.start()
    until(lambda: evidence.started() == [job_id], "it runs")
    requests.to_cancel(spool.root, spool.find(job_id).name)
    assert ended(job_id).state is State.DEAD
    assert kinds(history(job_id)) == ["started", "cancelled"]
    assert all(is_gone(pid) for pid in evidence.pids(job_id))
    assert ended(spool.file("true")).state is State.DONE


def test_a_job_that_was_cancelled_may_be_retried_on_the_same_worker(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, ended: Ended, history: History
) -> None:
    job_id = spool.file(evidence.command("test $QUEUECTL_ATTEMPT = 2 || sleep 60"))
    workers.start()
    until(lambda: evidence.started() == [job_id], "it runs")
    requests.to_cancel(spool.root, spool.find(job_id).name)
    assert ended(job_id).state is State.DEAD
    spool.retry(job_id)
    assert ended(job_id).state is State.DONE
    assert kinds(history(job_id)) == ["started", "cancelled", "retried", "started", "completed"]


def test_a_cancellation_that_came_too_late_does_not_stop_a_later_run(
    spool: Spool, workers: Workers, evidence: Evidence, tmp_path: Path, until: Until, ended: Ended
) -> None:
    gate = tmp_path / "gate"
    body = f"test $QUEUECTL_ATTEMPT = 1 || until test -e {gate}; do sleep 0.02; done"
    job_id = spool.file(evidence.command(body))
    worker = workers.start()
    claim = ended(job_id).name.owned(worker.name)
    request = requests.to_cancel(spool.root, claim)
    spool.retry(job_id)
    until(lambda: len(evidence.started(job_id)) == 2, "it runs again")
    until_heard(worker.name, spool, until)
    assert os.path.exists(request), "it has been there all the time"
    gate.touch()
    assert ended(job_id).state is State.DONE
    assert evidence.finished() == [job_id] * 2


def test_a_worker_asked_to_stop_finishes_the_job_at_hand(
    spool: Spool, workers: Workers, evidence: Evidence, tmp_path: Path, until: Until
) -> None:
    gate = tmp_path / "gate"
    running = spool.file(evidence.command(f"while ! test -e {gate}; do sleep 0.02; done"))
    waiting = spool.file(evidence.command())
    worker = workers.start()
    until(lambda: evidence.started() == [running], "the first job runs")
    requests.to_stop(spool.root, [worker.name], None)
    until_heard(worker.name, spool, until)
    gate.touch()
    assert worker.wait() == 0
    assert spool.find(running).state is State.DONE
    assert spool.find(waiting).state is State.PENDING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_gets_a_signal_finishes_the_job_and_at_the_second_gives_it_back(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History, number: signal.Signals
) -> None:
    job_id = spool.file(evidence.command("test $QUEUECTL_ATTEMPT = 2 || sleep 60"))
    worker = workers.start()
    until(lambda: evidence.started() == [job_id], "it runs")
    worker.popen.send_signal(number)
    until_heard(worker.name, spool, until)
    assert spool.find(job_id).state is State.PROCESSING
    while worker.is_running:  # on a busy machine the first may be heard so late that both are one request
        worker.popen.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(1)
    assert worker.wait() == (130 if number is signal.SIGINT else 0)
    assert spool.find(job_id).state is State.PENDING
    assert all(is_gone(pid) for pid in evidence.pids(job_id))
    workers.drain()
    assert kinds(history(job_id)) == ["started", "returned", "started", "completed"]


def test_a_worker_stopped_with_a_limit_gives_the_job_back_when_it_has_passed(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, history: History
) -> None:
    job_id = spool.file(
        {"command": evidence.command("test $QUEUECTL_ATTEMPT = 2 || sleep 60"), "max_retries": 0}
    )
    worker = workers.start()
    until(lambda: evidence.started() == [job_id], "it runs")
    begun = time.monotonic()
    requests.to_stop(spool.root, [worker.name], 0.7)
    assert worker.wait() == 0
    assert time.monotonic() - begun >= 0.7
    assert spool.find(job_id).state is State.PENDING
    workers.drain()
    assert spool.find(job_id).state is State.DONE
    assert kinds(history(job_id)) == ["started", "returned", "started", "completed"]


# ── settings while workers run ────────────────────────────────────────────────────────────────


def test_a_worker_takes_up_settings_that_are_edited_and_keeps_the_last_good_ones(
    spool: Spool, workers: Workers, ended: Ended
) -> None:
    workers.start()
    assert ended(spool.file("true")).state is State.DONE
    good = spool.root.config.read_text()
    spool.root.config.write_text(good + "job_timeout_seconds: 0.3\nmax_retries: 0\n")
    limited = spool.file("sleep 60")
    assert "limit of 0.3 s" in str(spool.view(ended(limited))["error"])
    filed = [spool.file("sleep 60"), spool.file("true")]
    spool.root.config.write_text("job_timeout_seconds: [broken\n")
    assert [ended(job_id).state for job_id in filed] == [State.DEAD, State.DONE]
    assert "last good values" in workers.said()
    spool.root.config.write_text(good)
    assert ended(spool.file("sleep 0.5")).state is State.DONE


# ── what a person does with files ─────────────────────────────────────────────────────────────


def test_a_waiting_file_moved_to_dead_by_hand_is_not_run(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    kept, moved = spool.file(evidence.command()), spool.file(evidence.command())
    path = spool.find(moved).path
    os.rename(path, f"{spool.root.folder(State.DEAD)}/{os.path.basename(path)}")
    workers.drain()
    assert evidence.started() == [kept]
    assert spool.find(moved).state is State.DEAD


def test_a_waiting_file_that_is_deleted_is_not_run(
    spool: Spool, workers: Workers, evidence: Evidence, tmp_path: Path, until: Until
) -> None:
    gate = tmp_path / "gate"
    first = spool.file(evidence.command(f"while ! test -e {gate}; do sleep 0.02; done"))
    removed, last = spool.file("echo never"), spool.file(evidence.command())
    workers.start()
    until(lambda: evidence.started() == [first], "the first job runs")
    os.unlink(spool.find(removed).path)
    gate.touch()
    until(lambda: evidence.finished() == [first, last], "the others ran")


def test_a_running_file_that_is_deleted_does_not_come_back(
    spool: Spool, workers: Workers, evidence: Evidence, tmp_path: Path, until: Until, ended: Ended
) -> None:
    gate = tmp_path / "gate"
    kept = f"while ! test -e {gate}; do sleep 0.02; done; echo ran >> {tmp_path}/ran"
    removed = spool.file(kept)
    workers.start()
    until(lambda: "started" in history_kinds(spool, removed), "it runs")
    os.unlink(spool.find(removed).path)
    gate.touch()
    assert ended(spool.file(evidence.command())).state is State.DONE
    assert [found.id for found in spool.list() if found.id == removed] == []
    for path in output.logs_of(spool.root, {removed})[removed]:
        os.unlink(path)  # else the audit finds what belongs to no job


def history_kinds(spool: Spool, job_id: str) -> list[str]:
    return kinds(history_now(spool, job_id))


def test_a_waiting_file_whose_priority_is_edited_runs_in_its_new_turn(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    first, second, third = (
        spool.file({"id": word, "command": evidence.command(), "priority": 5}) for word in ("a", "b", "c")
    )
    edit(spool, third, "priority: 5", "priority: 9")
    edit(spool, first, "priority: 5", "priority: 1")
    workers.drain()
    assert set(evidence.started()) == {first, second, third}
    assert evidence.started().index(second) < evidence.started().index(first)
    assert [spool.find(job_id).name.rank for job_id in (first, second, third)] == [9, 5, 1]


def edit(spool: Spool, job_id: str, old: str, new: str) -> None:
    path = Path(spool.find(job_id).path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_waiting_file_that_is_put_off_by_hand_waits(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    moment = utc_now() + timedelta(days=2)
    job_id = spool.file(evidence.command())
    edit(spool, job_id, "created_at:", f"run_at: {moment.isoformat()}\ncreated_at:")
    workers.drain()
    assert evidence.started() == []
    found = spool.find(job_id)
    assert (found.state, found.name.due_at) == (State.PENDING, moment)


def test_a_scheduled_file_that_is_edited_to_run_earlier_runs(
    spool: Spool, workers: Workers, ended: Ended, evidence: Evidence
) -> None:
    job_id = spool.file({"command": evidence.command(), "run_at": "2999-01-01T00:00:00Z"})
    workers.start()
    ended(spool.file("true"))
    edit(spool, job_id, "2999-01-01", "2001-01-01")
    assert ended(job_id).state is State.DONE


def test_a_person_s_comments_and_order_survive_a_run(
    spool: Spool, workers: Workers, ended: Ended, until: Until
) -> None:
    text = "# why this exists\npriority: 7   # urgent\ncommand: 'true' # nothing\n\nid: kept\n"
    Path(spool.root.folder(State.PENDING), "mine.yaml").write_text(text)
    workers.start()
    until(lambda: any(job.id == "kept" for job in spool.list()), "it is taken in")
    after = Path(ended("kept").path).read_text()
    assert after.startswith(text)
    assert after.removeprefix(text).startswith("history:\n- {")
