"""`retry`, `cancel`, `wait`, `pause`, `dlq`, `prune` and `check`: what a person does to jobs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import is_gone
from tests.shell import Shell, has_two_sentences, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = 86400.0


def age(path: Path, seconds: float = 3600) -> None:
    """Let a file look as if it had been there for so long."""
    past = time.time() - seconds
    os.utime(path, (past, past), follow_symlinks=False)


def log(shell: Shell, name: str) -> Path:
    return shell.root / "logs" / name


def pid_in(shell: Shell, name: str) -> int:
    """The process that a command has written into a file."""
    path = shell.home / name
    return int(until(lambda: path.exists() and path.read_text().strip(), f"{name} is written"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A spool with a job that is done, one that waits for its next try, and two dead ones."""
    with Shell(tmp_path_factory.mktemp("model")) as shell:
        shell.make_spool()
        shell.file("echo fine", id="done")
        shell.file("exit 1", id="failed", backoff_base=9000)
        shell.file("exit 5", id="dead1", max_retries=0)
        shell.file("exit 6", id="dead2", max_retries=0)
        shell.drain()
        yield shell


@pytest.fixture
def ended(tmp_path: Path, model: Shell) -> Iterator[Shell]:
    """A copy of that spool, to be changed."""
    with Shell(tmp_path) as shell:
        yield shell.copy_spool(model)


# ── retry ─────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_a_dead_and_a_completed_job_go_back_to_pending(ended: Shell) -> None:
    said = ended("retry", "failed", "dead1", "done")
    assert [line.split()[0] for line in said.lines] == ["failed", "dead1", "done"]
    for job_id in ("failed", "dead1", "done"):
        assert ended.state(job_id) == "pending"
        assert ended("status", job_id, "--json").json["attempts"] == 0
    assert ended.state("dead2") == "dead"


def test_after_a_retry_a_job_has_all_its_tries_again(ended: Shell) -> None:
    ended("retry", "dead1")
    ended.drain()
    job = ended("status", "dead1", "--json").json
    assert (job["state"], job["attempts"]) == ("dead", 1)
    numbers = [event["attempt"] for event in job["history"] if event["event"] == "failed"]
    assert numbers == [1, 2]
    assert log(ended, "dead1.1.out").exists()
    assert log(ended, "dead1.2.out").exists()


def test_one_that_cannot_be_retried_does_not_hinder_the_others(ended: Shell) -> None:
    ended.file("true", id="waits", run_at="2036-01-01T00:00:00Z")
    said = ended("retry", "nobody", "waits", "dead1", "dead2", status=3)
    assert [line.split()[0] for line in said.lines] == ["dead1", "dead2"]
    assert len(said.err.splitlines()) == 2
    assert all(has_two_sentences(line) for line in said.err.splitlines())
    ended.refused("retry", "waits", status=1)


def test_retry_takes_a_prefix_and_wants_a_job(ended: Shell) -> None:
    ended.refused("retry", "dead", status=2)
    ended.refused("retry", status=2)
    ended("retry", "don")
    assert ended.state("done") == "pending"


# ── cancel ────────────────────────────────────────────────────────────────────────────────────


def test_waiting_jobs_are_cancelled_before_they_run(ended: Shell) -> None:
    ended.file("true", id="now")
    ended.file("true", id="later", run_at="2036-01-01T00:00:00Z")
    said = ended("cancel", "now", "later", "failed")
    assert [line.split()[0] for line in said.lines] == ["now", "later", "failed"]
    for job_id in ("now", "later", "failed"):
        assert ended.state(job_id) == "dead"
        assert "cancelled" in ended("status", job_id, "--json").json["error"]
    assert "cancelled" in ended("status", "now").out
    ended.drain()
    assert not log(ended, "now.1.err").exists()


def test_a_running_job_is_stopped_first(shell: Shell) -> None:
    shell.file("echo $$ > pid; sleep 600 & sleep 600", id="runs", cwd=str(shell.home))
    shell("worker", "start")
    pid = pid_in(shell, "pid")
    assert shell("cancel", "runs").out.startswith("runs ")
    assert shell.state("runs") == "dead"
    until(lambda: is_gone(pid), "its shell has ended")
    until(lambda: not [one for one in shell.processes() if one.name() == "sleep"], "its children have ended")
    assert "cancelled" in shell("status", "runs", "--json").json["error"]
    shell.file("true", id="next")
    shell("wait", "next")


def test_what_has_ended_cannot_be_cancelled(ended: Shell) -> None:
    ended.refused("cancel", "done", status=1)
    ended.refused("cancel", "dead1", status=1)
    assert (ended.state("done"), ended.state("dead1")) == ("done", "dead")
    ended.refused("cancel", status=2)


# ── wait ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("command", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)])
def test_wait_returns_the_jobs_own_exit_status(shell: Shell, command: str, status: int) -> None:
    shell.file(command, id="a", max_retries=0)
    waiter = shell.start("wait", "a")
    shell.drain()
    assert waiter.end() == status
    assert waiter.out == b""
    shell("wait", "a", status=status)


def test_wait_waits_for_the_last_try(shell: Shell) -> None:
    shell.file("test $QUEUECTL_ATTEMPT = 3", id="a", max_retries=2)
    waiter = shell.start("wait", "a")
    shell.drain()
    assert waiter.end() == 0
    assert shell("status", "a", "--json").json["attempts"] == 3


def test_of_many_wait_returns_0_if_all_did(ended: Shell) -> None:
    ended.file("true", id="more")
    ended.drain()
    ended("wait", "done", "more")
    ended("wait", "done", "dead1", "more", status=1)


def test_when_the_time_is_up_wait_returns_124(shell: Shell) -> None:
    shell.file("true", id="a")
    begun = time.monotonic()
    said = shell("wait", "a", "--timeout", "0.3", status=124)
    assert time.monotonic() - begun >= 0.3
    assert "a " in said.err
    shell("wait", "--all", "--timeout", "0", status=124)
    assert shell.state("a") == "pending"


def test_a_job_that_is_deleted_is_told_once_the_others_have_ended(shell: Shell) -> None:
    shell.file("true", id="a", run_at="2036-01-01T00:00:00Z")
    shell.file("true", id="b", run_at="2036-01-01T00:00:00Z")
    both = shell.terminal("wait", "a", "b")
    alone = shell.terminal("wait", "a")
    both.until("0/2")
    alone.until("0/1")
    path = shell.place("a")
    assert path is not None
    path.unlink()
    assert alone.end() == 3
    both.until("1/2")  # b is waited for still
    shell("cancel", "b")
    assert both.end() == 3
    assert "'a'" in both.text


def test_wait_for_all_means_those_that_wait_or_run(shell: Shell) -> None:
    shell("wait", "--all")
    shell.file("exit 1", id="dead", max_retries=0)
    shell.drain()
    shell.file("true", id="a")
    shell.file("true", id="b")
    waiter = shell.start("wait", "--all")
    shell.drain()
    assert waiter.end() == 0


def test_wait_wants_jobs_or_all_and_a_time_that_is_one(shell: Shell) -> None:
    shell.file("true", id="a")
    for arguments in ((), ("a", "--all"), ("a", "--timeout", "soon"), ("a", "--timeout", "-1")):
        shell.refused("wait", *arguments, status=2)


def test_wait_shows_a_progress_bar_on_a_terminal_and_ends_on_ctrl_c(shell: Shell) -> None:
    shell.file("true", id="a")
    shell.file("true", id="b", run_at="2036-01-01T00:00:00Z")
    terminal = shell.terminal("wait", "a", "b")
    terminal.until("0/2")
    shell.drain()
    terminal.until("1/2")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text


# ── pause, resume ─────────────────────────────────────────────────────────────────────────────


def test_while_paused_nothing_new_starts_and_what_runs_goes_on(shell: Shell) -> None:
    gate = shell.home / "gate"
    os.mkfifo(gate)
    shell.file(f"read x < {gate}", id="runs")
    shell("worker", "start")
    shell.reaches("runs", "processing")
    assert shell("pause").out == "paused\n"
    shell.file("true", id="waits")
    gate.write_text("go\n")
    shell.reaches("runs", "done")
    until(lambda: shell("worker", "status", "--json").json["state"] == "paused", "the worker knows")
    assert shell.state("waits") == "pending"
    shell("resume")
    shell.reaches("waits", "done")


def test_to_pause_or_resume_twice_is_nothing_wrong(shell: Shell) -> None:
    shell("pause")
    shell("pause")
    shell("resume")
    shell("resume")
    assert shell("status", "--json").json["attention"] == []


# ── dead letters ──────────────────────────────────────────────────────────────────────────────


def test_dead_jobs_are_listed_with_reason_and_command(ended: Shell) -> None:
    said = ended("dlq", "list")
    assert re.search(r"^dead1 .*exit status 5 .*exit 5$", said.out, re.MULTILINE), said.out
    assert re.search(r"^dead2 .*exit status 6 .*exit 6$", said.out, re.MULTILINE), said.out
    jobs = ended("dlq", "list", "--json").json_lines
    assert [(job["id"], job["state"], job["exit_code"]) for job in jobs] == [
        ("dead2", "dead", 6),
        ("dead1", "dead", 5),
    ]


def test_a_file_that_was_put_aside_is_listed_with_the_reason(shell: Shell) -> None:
    (shell.root / "pending" / "broken.yaml").write_text("comand: true\n")
    age(shell.root / "pending" / "broken.yaml")
    shell.drain()
    assert re.search(r"^broken .*'comand'.*'command'", shell("dlq", "list").out, re.MULTILINE)


def test_dead_jobs_are_retried_by_name_or_all(ended: Shell) -> None:
    ended("dlq", "retry", "dead1")
    assert (ended.state("dead1"), ended.state("dead2")) == ("pending", "dead")
    ended.refused("dlq", "retry", "done", status=1)
    assert ended.state("done") == "done"
    assert ended("dlq", "retry", "--all").out.startswith("dead2 ")
    assert ended.state("dead2") == "pending"
    ended("dlq", "retry", "--all")
    for arguments in ((), ("dead1", "--all")):
        ended.refused("dlq", "retry", *arguments, status=2)


def test_a_dead_file_that_is_no_job_does_not_hinder_the_others(ended: Shell) -> None:
    (ended.root / "dead" / "00-20260101T000000.000000Z-link.yaml").symlink_to("/etc/hostname")
    bad = ended.root / "dead" / "00-20260101T000000.000000Z-bad.yaml"
    bad.write_text("comand: make\n")
    said = ended("dlq", "retry", "--all", status=(1, 2))
    assert (ended.state("dead1"), ended.state("dead2")) == ("pending", "pending")
    assert (ended.state("link"), ended.state("bad")) == ("dead", "dead")
    assert len(said.err.splitlines()) == 2
    unknown = "The field 'comand' is unknown. Did you mean 'command'?"
    assert f"Error: Job bad cannot be read: {unknown} Its file is {bad};" in said.err
    assert "Error: Job link cannot be read: A symbolic link is not a job file. Its file is" in said.err
    assert "Job bad cannot be read" in ended.refused("retry", "bad", status=1)


def test_purge_deletes_dead_jobs_and_their_logs_and_frees_their_ids(ended: Shell) -> None:
    dry = ended("dlq", "purge", "--dry-run")
    assert sorted(dry.lines) == ["dead1", "dead2"]
    assert ended.state("dead1") == "dead"
    ended("dlq", "purge", "--yes")
    assert os.listdir(ended.root / "dead") == []
    assert not list((ended.root / "logs").glob("dead*"))
    assert (ended.state("done"), ended.state("failed")) == ("done", "failed")
    assert ended("enqueue", "--id", "dead1", "true").out == "dead1\n"


@pytest.mark.parametrize("command", ["dlq purge", "prune --older-than 0s"])
def test_what_destroys_asks_on_a_terminal(ended: Shell, command: str) -> None:
    for answer, status in (("n\n", 1), ("\n", 1), ("", 130)):
        terminal = ended.terminal(*command.split())
        terminal.until("?")
        terminal.type(answer)
        assert (terminal.end() if answer else terminal.interrupt_question()) == status
        assert (ended.state("dead1"), ended.state("dead2")) == ("dead", "dead")
    assert "2 jobs" in terminal.text or "3 jobs" in terminal.text
    unasked = ended.terminal(*command.split(), "--yes")
    assert unasked.end() == 0
    assert os.listdir(ended.root / "dead") == []


def test_a_yes_on_the_terminal_destroys(ended: Shell) -> None:
    terminal = ended.terminal("dlq", "purge")
    terminal.until("?")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert os.listdir(ended.root / "dead") == []


# ── prune ─────────────────────────────────────────────────────────────────────────────────────


def test_prune_deletes_what_ended_long_ago_and_its_logs(ended: Shell) -> None:
    ended.file("true", id="young")
    ended.drain()
    for job_id, days in (("done", 8), ("dead1", 8), ("dead2", 6)):
        path = ended.place(job_id)
        assert path is not None
        age(path, days * DAY)
    assert sorted(ended("prune", "--older-than", "7d", "--dry-run").lines) == ["dead1", "done"]
    assert ended.state("done") == "done"
    said = ended("prune", "--older-than", "7d", "--yes")
    assert "2 jobs" in said.err
    states = [ended.state(job_id) for job_id in ("done", "dead1", "dead2", "young", "failed")]
    assert states == [None, None, "dead", "done", "failed"]
    assert sorted({path.name.split(".")[0] for path in (ended.root / "logs").iterdir()}) == [
        "dead2",
        "failed",
        "young",
    ]


def test_prune_can_be_held_to_a_state(ended: Shell) -> None:
    ended("prune", "--older-than", "0s", "--state", "completed", "--yes")
    assert (ended.state("done"), ended.state("dead1")) == (None, "dead")
    ended("prune", "--older-than", "0s", "--state", "dead", "--yes")
    assert (ended.state("dead1"), ended.state("failed")) == (None, "failed")


def test_prune_never_touches_what_waits_or_runs_and_wants_an_age(ended: Shell) -> None:
    ended.file("true", id="waits")
    ended("prune", "--older-than", "0s", "--yes")
    assert (ended.state("waits"), ended.state("failed")) == ("pending", "failed")
    ended.refused("prune", status=2)
    ended.refused("prune", "--older-than", "long", status=2)
    ended.refused("prune", "--older-than", "7d", "--state", "pending", status=2)


def test_prune_wants_an_age_with_a_unit(ended: Shell) -> None:
    for text in ("7", "0", "1.5"):
        said = ended.refused("prune", "--older-than", text, "--yes", status=2)
        assert f"{text}d" in said
    assert (ended.state("done"), ended.state("dead1")) == ("done", "dead")


def test_the_question_names_the_age(ended: Shell) -> None:
    terminal = ended.terminal("prune", "--older-than", "0s", "--state", "completed")
    terminal.until("Delete 1 job that ended more than 0 s ago, and what they printed?")
    terminal.type("n\n")
    assert terminal.end() == 1


@pytest.mark.parametrize("command", ["dlq purge", "prune --older-than 0s"])
def test_where_nobody_can_be_asked_nothing_is_deleted_without_yes(ended: Shell, command: str) -> None:
    assert "--yes" in ended.refused(*command.split(), status=2)
    assert (ended.state("done"), ended.state("dead1"), ended.state("dead2")) == ("done", "dead", "dead")
    ended(*command.split(), "--yes")
    assert ended.state("dead1") is None
    assert ended(*command.split()).status == 0  # of nothing there is nothing to ask


# ── check ─────────────────────────────────────────────────────────────────────────────────────


def test_a_spool_in_order_has_nothing_to_check(ended: Shell) -> None:
    for path in ended.root.rglob("*"):
        age(path)
    said = ended("check")
    assert said.out == ""
    assert said.err.strip()
    assert ended("check", "--json").raw == b""
    ended("check", "--repair")


LEFTOVERS = {
    "pending/.10-20260101T000000.000000Z-x.yaml.tmp": "id: x\n",
    "logs/x.1.out": "",
    "ids/x.id": "",
    "logs/gone.1.out": "orphan",
    "logs/gone.1.err": "orphan",
    "dead/10-20260101T000000.000000Z-gone.yaml.reason.txt": "why",
    "workers/host-1-abcd.stop": "",
    "workers/job@host-1-abcd.cancel": "",
    "workers/host-1-abcd.lock": "",
}


def test_leftovers_are_reported_and_repair_clears_them(shell: Shell) -> None:
    shell.file("true", id="kept")
    for name, text in LEFTOVERS.items():
        (shell.root / name).write_text(text)
        age(shell.root / name)
    said = shell("check", status=1)
    for name in LEFTOVERS:
        assert str(shell.root / name) in said.out
    found = shell("check", "--json", status=1).json_lines
    assert {item["path"] for item in found} == {str(shell.root / name) for name in LEFTOVERS}
    assert all(item["problem"] and item["remedy"] for item in found)
    shell("check", "--repair")
    assert [name for name in LEFTOVERS if (shell.root / name).exists()] == []
    assert shell.state("kept") == "pending"
    shell("check")


def test_what_is_still_being_written_is_no_leftover(shell: Shell) -> None:
    """The draft of a job is young; the id that it will bear may have been taken a while ago."""
    shell.file("true", id="another")
    draft = shell.root / "pending" / ".10-20260101T000000.000000Z-x.yaml.tmp"
    taken = shell.root / "ids" / "x.id"
    draft.write_text("id: x\n")
    taken.write_text("")
    age(taken)
    shell("check", "--repair")
    assert draft.exists()
    assert taken.exists()


def test_the_id_of_a_job_that_was_deleted_by_hand_is_free_after_a_repair(shell: Shell) -> None:
    for command in ("true", "sleep 600"):
        shell("enqueue", "--id", "mine", command)
        if command == "true":
            shell.drain()
        path = shell.place("mine")
        assert path is not None
        path.unlink()
        for left in [*(shell.root / "logs").glob("mine.*"), shell.root / "ids" / "mine.id"]:
            age(left, 2)
        shell("check", "--repair")
    assert shell("enqueue", "--id", "mine", "true").out == "mine\n"


def test_an_id_that_was_taken_this_moment_is_kept_by_a_repair(shell: Shell) -> None:
    """A filing takes its id first. One that was taken long ago for no job is free again."""
    shell.file("true", id="another")
    abandoned, taken = (shell.root / "ids" / f"{job_id}.id" for job_id in ("abandoned", "mine"))
    for path in (abandoned, taken):
        path.write_text("")
    age(abandoned)
    age(taken, -3600)  # by the test's clock it stays young, however long the command takes to come up
    shell("check", "--repair")
    assert (abandoned.exists(), taken.exists()) == (False, True)


def test_repair_takes_a_dead_workers_job_back(shell: Shell) -> None:
    shell.file("echo $$ > pid; sleep 600", id="orphan", cwd=str(shell.home))
    shell("worker", "start")
    command = pid_in(shell, "pid")
    until(lambda: shell.fields("orphan").get("history"), "its start is noted")
    worker = shell("worker", "status", "--json").json
    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: shell.has_let_go(worker["name"]), "the worker has died")
    assert f"{worker['name']}" in shell("check", status=1).out
    assert shell.state("orphan") == "processing"
    shell("check", "--repair")
    assert shell.state("orphan") == "pending"
    assert is_gone(command)
    assert shell("status", "orphan", "--json").json["history"][-1]["event"] == "lost"
    assert shell("worker", "status", "--json").raw == b""
    shell("check")


def test_where_no_job_is_dead_a_retry_of_all_says_so(shell: Shell) -> None:
    said = shell("dlq", "retry", "--all")
    assert said.out == ""
    assert said.err == "No dead jobs.\n"


def test_what_only_a_person_can_mend_is_reported_and_left(shell: Shell) -> None:
    shell.file("true", id="twin")
    path = shell.place("twin")
    assert path is not None
    copy = path.with_name(path.name.replace(path.name[:2], "05", 1))
    shutil.copy(path, copy)
    strange = {
        shell.root / "pending" / "notes.txt": "no job",
        shell.root / "failed" / "10-20260101T000000.000000Z-torn.yaml": "id: [\n",
        shell.root / "stray": "no part of a spool",
    }
    for place, text in strange.items():
        place.write_text(text)
    said = shell("check", status=1)
    again = shell("check", "--repair", status=1)
    for place in strange:
        assert str(place) in said.out
        assert str(place) in again.out
        assert place.exists()
    assert re.search(rf"{re.escape(str(path.parent))}\S+twin\.yaml: .*\bid\b", said.out)
    assert path.exists()
    assert copy.exists()


def test_a_job_that_is_done_and_never_ran_is_reported(shell: Shell) -> None:
    shell.file("true", id="ran")
    shell.drain()
    for job_id in ("moved", "failed"):
        shell.file("false", id=job_id, max_retries=0)
    moved = shell.place("moved")
    assert moved is not None
    moved.rename(shell.root / "done" / moved.name)
    assert "nothing shows that it ever ran" in shell("check", status=1).out
    shell.drain()
    failed = shell.place("failed")
    assert failed is not None
    failed.rename(shell.root / "done" / failed.name)
    found = shell("check", "--repair", "--json", status=1).json_lines
    assert {item["path"].rpartition("-")[2]: item["problem"] for item in found} == {
        "moved.yaml": "it is in done/, and nothing shows that it ever ran",
        "failed.yaml": "it is in done/, and did not end with status 0",
    }


def test_a_job_that_is_done_and_lost_its_last_lines_is_in_order(shell: Shell) -> None:
    """As a power cut may leave it, which takes what was added, and neither the move nor the log."""
    shell.file("true", id="ran")
    whole = shell.place("ran")
    assert whole is not None
    filed = whole.read_bytes()
    shell.drain()
    done = shell.place("ran")
    assert done is not None
    done.write_bytes(filed)
    shell("check")


def test_check_reports_a_broken_config(shell: Shell) -> None:
    (shell.root / "config.yaml").write_text("max_retries: lots\n")
    assert re.search(r"config\.yaml.*max_retries", shell("check", status=1).out)
    assert re.search(r"config\.yaml.*max_retries", shell("check", "--repair", status=1).out)
