"""`status`, `list`, `output` and `logs`: what is there, and why a job does not run."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.shell import SGR, Shell, Started, at_once, controls_in, until

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTS = {
    "pending": 2,
    "scheduled": 2,
    "held": 0,
    "blocked": 0,
    "processing": 1,
    "completed": 2,
    "failed": 1,
    "dead": 1,
}
# In the order in which they run, the completed ones newest first.
IDS = {
    "processing": ["running"],
    "pending": ["waiting-urgent", "waiting-plain"],
    "scheduled": ["later-plain", "later-urgent"],
    "failed": ["failing"],
    "dead": ["hopeless"],
    "completed": ["second", "first"],
    "done": ["second", "first"],
}
EVERY_FIELD = {
    *("id", "state", "command", "priority", "run_at", "attempts", "max_retries"),
    *("exit_code", "error", "worker", "created_at", "path", "history"),
}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A spool with jobs in every state and a worker at work; these tests change nothing in it."""
    with Shell(tmp_path_factory.mktemp("busy")) as shell:
        shell.make_spool()
        shell.file("echo one", id="first")
        shell.file(["printf", "%s", "a b"], id="second")
        shell.file("exit 3", id="failing", backoff_base=200, max_retries=9)
        shell.file("echo why >&2; exit 4", id="hopeless", max_retries=0)
        shell.drain()
        shell.file("sleep 600", id="running", max_retries=0)
        shell("worker", "start")
        until(lambda: len(shell.fields("running").get("history") or []) == 1, "the job runs")
        shell.file("echo plain", id="waiting-plain")
        shell.file("echo urgent", id="waiting-urgent", priority=9, cwd="/", env={"MODE": "fast"})
        shell.file("echo later", id="later-urgent", priority=10, run_at="2037-01-01T00:00:00Z")
        shell.file("echo later", id="later-plain", run_at="2036-01-01T00:00:00Z")
        yield shell


# ── the whole queue ───────────────────────────────────────────────────────────────────────────


def test_status_as_json_is_one_object_with_every_figure(busy: Shell) -> None:
    said = busy("status", "--json")
    facts = said.json
    assert len(said.lines) == 1
    assert facts["counts"] == COUNTS
    assert facts["workers"] == 1
    assert facts["average_duration_seconds"] >= 0
    assert facts["oldest_pending_seconds"] > 0
    assert facts["spool"] == str(busy.root)


def test_status_tells_every_figure_and_what_needs_attention(busy: Shell) -> None:
    said = busy("status")
    for word, count in {**COUNTS, "workers": 1}.items():
        assert re.search(rf"^{word}\s+{count}$", said.out, re.MULTILINE), said.out
    assert re.search(r"^average.*\d (s|min)\b", said.out, re.MULTILINE)
    assert re.search(r"^oldest.*\d (s|min)\b", said.out, re.MULTILINE)
    assert str(busy.root) in said.out
    assert "queuectl dlq list" in said.out


def test_an_empty_queue_has_no_average_and_nothing_that_waits(shell: Shell) -> None:
    facts = shell("status", "--json").json
    assert set(facts["counts"].values()) == {0}
    assert (facts["average_duration_seconds"], facts["oldest_pending_seconds"]) == (None, None)
    assert facts["workers"] == 0
    assert "!" not in shell("status").out


def test_status_says_what_needs_attention(shell: Shell) -> None:
    shell.file("true")
    shell("pause")
    (shell.root / "pending" / "notes.txt").write_text("?")
    (shell.root / "config.yaml").write_text("max_retries: lots\n")
    out = shell("status").out
    for words in ("queuectl resume", "queuectl worker start", "notes.txt", "max_retries"):
        assert words in out, out


JOB = "05-20260101T000000.000000Z-stray.yaml"
STRAYS = {
    "pending": ["05-20260101T000000.000000Z-x@me.yaml.txt", "notes.txt"],
    "processing": ["plain.yaml", JOB, "a@b.yaml", "05-20260231T000000.000000Z-x@me.yaml", "x.reason.txt"],
    "done": [
        "plain.yaml",
        "05-20260231T000000.000000Z-x.yaml",
        "xx-20260101T000000.000000Z-x.yaml",
        "README",
    ],
    "failed": ["plain.yaml", "05-20260101T000000.000000Z-x@me.yaml", JOB.removesuffix("yaml") + "yml"],
    "dead": ["plain.yaml", "05-20260101T000000.000000Z--x.yaml", "x.json"],
}


def test_what_is_no_job_is_counted_nowhere_and_named_by_status_and_check(shell: Shell) -> None:
    for job_id, command in {"good": "true", "bad": "exit 1"}.items():
        shell.file(command, id=job_id, max_retries=0)
    shell.drain()
    shell.file("true", id="waiting")
    counts = shell("status", "--json").json["counts"]
    for folder, names in STRAYS.items():
        for name in names:
            (shell.root / folder / name).write_text("command: 'true'\n")
    assert shell("status", "--json").json["counts"] == counts
    assert [job["id"] for job in shell("list", "--json").json_lines] == ["waiting", "bad", "good"]
    many = sum(map(len, STRAYS.values()))
    assert f"{many} files or folders that are no jobs are left alone" in shell("status").out
    checked = shell("check", status=1).out
    for folder, names in STRAYS.items():
        for name in names:
            assert f"{folder}/{name}: " in checked


# ── one job ───────────────────────────────────────────────────────────────────────────────────


def test_a_job_as_json_has_every_field(busy: Shell) -> None:
    job = busy("status", "waiting-urgent", "--json").json
    assert job.keys() >= EVERY_FIELD
    assert (job["id"], job["state"], job["command"]) == ("waiting-urgent", "pending", "echo urgent")
    assert (job["priority"], job["attempts"], job["max_retries"]) == (9, 0, 3)
    assert (job["exit_code"], job["error"], job["worker"], job["history"]) == (None, None, None, [])
    assert job["path"] == str(busy.place("waiting-urgent"))
    assert job["run_at"] == job["created_at"]


def test_a_job_that_has_run_tells_its_history(busy: Shell) -> None:
    job = busy("status", "hopeless", "--json").json
    assert (job["state"], job["attempts"], job["exit_code"]) == ("dead", 1, 4)
    assert job["worker"]
    assert "4" in job["error"]
    assert [event["event"] for event in job["history"]] == ["started", "failed"]
    done = busy("status", "second", "--json").json
    assert (done["state"], done["exit_code"], done["command"]) == ("completed", 0, ["printf", "%s", "a b"])


@pytest.mark.parametrize(
    ("job_id", "words"),
    [
        ("first", [r"completed", r"command\s+echo one$"]),
        ("second", [r"command\s+printf %s 'a b'$"]),
        ("failing", [r"failed", r"next try at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", r"\bin \d+ (s|min)\b"]),
        ("hopeless", [r"dead", r"exit status 4", r"queuectl retry hopeless"]),
        ("running", [r"processing", r"running on \S+-\d+-\w+ since \d{4}-"]),
        ("waiting-plain", [r"pending", r"\b1 job before it"]),
        ("waiting-urgent", [r"pending", r"\b0 jobs before it", r"priority\s+9$", r"MODE=fast", r"cwd\s+/$"]),
        ("later-plain", [r"scheduled", r"due at 2036-01-01 00:00:00Z"]),
    ],
)
def test_a_job_says_in_words_how_it_stands(busy: Shell, job_id: str, words: list[str]) -> None:
    out = busy("status", job_id).out
    for pattern in [*words, re.escape(str(busy.place(job_id)))]:
        assert re.search(pattern, out, re.MULTILINE), out


def test_each_run_tells_exit_code_duration_memory_and_worker(shell: Shell) -> None:
    shell.file("test $QUEUECTL_ATTEMPT = 2 || exit 5", id="a")
    shell.drain()
    runs = [event for event in shell.fields("a")["history"] if event["event"] != "started"]
    out = shell("status", "a").out
    for number, word, code in ((1, "failed", 5), (2, "completed", 0)):
        worker = re.escape(runs[number - 1]["worker"])
        line = rf"^{number}\s+{word}\s+{code}\s+[\d.]+ s\s.*\d+ MB\s+{worker}$"
        assert re.search(line, out, re.MULTILINE), out


def test_a_waiting_job_tells_that_the_queue_is_paused_or_nobody_works(shell: Shell) -> None:
    for number in range(4):
        shell.file("true", id=f"job{number}")
    out = shell("status", "job3").out
    assert re.search(r"no worker is alive.*queuectl worker start", out)
    assert "3 jobs before it" in out
    assert "paused" not in out
    shell("pause")
    assert re.search(r"paused.*queuectl resume", shell("status", "job3").out)


def test_a_waiting_job_tells_that_its_file_is_open_for_writing(shell: Shell) -> None:
    shell.file("true", id="held")
    path = shell.place("held")
    assert path is not None
    with path.open("a"):
        assert "a program has its file open for writing; 0 jobs before it" in shell("status", "held").out
    assert "open for writing" not in shell("status", "held").out


def test_a_job_that_was_put_aside_names_the_file_that_tells_what_helps(shell: Shell) -> None:
    shell.file("true", id="a")
    (shell.root / "pending" / "again.yaml").write_text("id: a\ncommand: 'true'\n")
    shell.drain()
    out = shell("status", "again").out
    assert "The id 'a' is taken" in out
    assert "queuectl retry" not in out
    assert ". (" not in out
    assert f"what helps is told in {shell.place('again')}.reason.txt" in out


def test_a_file_that_cannot_be_read_is_told_with_the_reason(shell: Shell) -> None:
    (shell.root / "dead" / "10-20260101T000000.000000Z-broken.yaml").write_text("id: [\n")
    assert "cannot be read" in shell("status", "broken").out
    assert shell("status", "broken", "--json").json["command"] is None
    assert "broken" in shell("list").out


# ── by a prefix ───────────────────────────────────────────────────────────────────────────────


def test_a_prefix_of_one_id_is_enough(busy: Shell) -> None:
    assert busy("status", "hop", "--json").json["id"] == "hopeless"
    assert busy("output", "get", "f", "--stdout", status=2).raw == b""
    assert busy("output", "get", "fi", "--stdout").out == "one\n"
    assert busy("logs", "fir", "--stdout").out == "one\n"


def test_a_prefix_of_several_ids_is_refused_and_they_are_named(busy: Shell) -> None:
    error = busy.refused("status", "waiting", status=2)
    assert "waiting-plain" in error
    assert "waiting-urgent" in error


def test_a_whole_id_wins_over_longer_ones(shell: Shell) -> None:
    shell.file("true", id="job")
    shell.file("true", id="job-2")
    assert shell("status", "job", "--json").json["id"] == "job"


@pytest.mark.parametrize("command", ["status", "output get", "logs", "retry", "cancel", "wait", "dlq retry"])
def test_an_id_that_no_job_has_is_status_3(busy: Shell, command: str) -> None:
    assert "'nobody'" in busy.refused(*command.split(), "nobody", status=3)


# ── the list ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", list(IDS))
def test_a_state_is_listed_in_its_order(busy: Shell, state: str) -> None:
    jobs = busy("list", "--state", state, "--json").json_lines
    assert [job["id"] for job in jobs] == IDS[state]
    assert {job["state"] for job in jobs} == {"completed" if state == "done" else state}


def test_without_a_state_all_are_listed_in_the_order_they_run(busy: Shell) -> None:
    said = busy("list", "--json")
    ids = [job["id"] for job in said.json_lines]
    assert sorted(ids) == sorted(id_ for state, some in IDS.items() if state != "done" for id_ in some)
    waiting = [id_ for id_ in ids if id_.startswith(("running", "waiting", "later"))]
    assert waiting == ["running", "waiting-urgent", "waiting-plain", "later-plain", "later-urgent"]
    assert [id_ for id_ in ids if id_ in {"first", "second"}] == ["second", "first"]
    assert all(job.keys() >= EVERY_FIELD for job in said.json_lines)


def test_a_limit_keeps_the_first(busy: Shell) -> None:
    assert [job["id"] for job in busy("list", "--limit", "1", "--json").json_lines] == ["running"]
    jobs = busy("list", "--state", "done", "--limit", "1", "--json").json_lines
    assert [job["id"] for job in jobs] == ["second"]


def test_the_object_of_a_list_is_that_of_status(busy: Shell) -> None:
    jobs = busy("list", "--state", "failed", "--json").json_lines
    assert jobs == [busy("status", "failing", "--json").json]


def test_a_piped_list_is_plain_columns(busy: Shell) -> None:
    said = busy("list")
    assert controls_in(said.out) == set()
    assert "\x1b" not in said.out
    assert said.out.isascii()
    rows = {line.split()[0]: line.split() for line in said.lines}
    assert rows["hopeless"][1] == "dead"
    assert rows["waiting-urgent"][1:3] == ["pending", "9"]
    assert rows["later-plain"][1] == "scheduled"
    starts = {line.index("echo") for line in said.lines if line.startswith("waiting")}
    assert len(starts) == 1


def test_wrong_states_and_limits_are_refused(busy: Shell) -> None:
    assert "scheduled" in busy.refused("list", "--state", "sleeping", status=2)
    busy.refused("list", "--limit", "few", status=2)


def test_nothing_to_list_is_nothing_wrong(shell: Shell) -> None:
    assert shell("list", "--json").raw == b""
    assert len(shell("list").lines) == 1
    assert shell("dlq", "list", "--json").raw == b""


# ── on a terminal ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", ["list", "status", "status failing", "dlq list", "worker status"])
def test_colour_is_for_terminals_and_no_color_is_honoured(busy: Shell, command: str) -> None:
    colours = re.compile(r"\x1b\[(?:\d+;)*(?:[34]\d|9\d)(?:;\d+)*m")
    coloured = busy.terminal(*command.split())
    assert coloured.end() == 0
    if command not in {"dlq list", "worker status"}:
        assert colours.search(coloured.sent)
    assert SGR.search(coloured.sent)
    plain = busy.terminal(*command.split(), env={"NO_COLOR": "1"})
    assert plain.end() == 0
    assert not colours.search(plain.sent)
    assert "\x1b" not in busy(*command.split()).out


def test_a_list_on_a_terminal_is_a_table_with_each_job_on_a_line(busy: Shell) -> None:
    terminal = busy.terminal("list")
    assert terminal.end() == 0
    lines = terminal.text.splitlines()
    for ids in IDS.values():
        for job_id in ids:
            assert len([line for line in lines if re.match(rf"\s*{job_id}\b(?!-)", line)]) == 1


def test_a_long_command_does_not_break_the_table(shell: Shell) -> None:
    shell.file("echo " + "x" * 500, id="long")
    terminal = shell.terminal("list")
    assert terminal.end() == 0
    assert max(len(line) for line in terminal.text.splitlines()) <= 140
    assert re.search(r"^long  pending  0    0     [\d.]+ s ago  echo x+…$", terminal.text, re.MULTILINE)
    assert "x" * 500 in shell("list").out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_an_encoding_does_not_have_is_shown_some_other_way(shell: Shell, encoding: str) -> None:
    shell.file("echo \u2192 " + "x" * 500, id="arrow")
    shell.drain()
    env = {"PYTHONIOENCODING": encoding}
    for command in ("list", "status arrow", "logs arrow", "dlq list"):
        assert "fault" not in shell(*command.split(), env=env).err
    terminal = shell.terminal("list", env=env)
    assert terminal.end() == 0
    assert re.search(r"^arrow +\|completed +\|.*echo \S+ x+$", terminal.text, re.MULTILINE)


def test_an_empty_list_says_so_on_a_terminal(shell: Shell) -> None:
    terminal = shell.terminal("list")
    assert terminal.end() == 0
    assert "No jobs" in terminal.text


@pytest.mark.parametrize("command", ["status", "list"])
def test_watch_redraws_until_ctrl_c(shell: Shell, command: str) -> None:
    for number in range(3):
        shell.file("true", id=f"job{number}")
    terminal = shell.terminal(command, "--watch")
    terminal.until("done 0 of 3")
    shell.drain()
    terminal.until("done 3 of 3")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "\x1b[?25h" in terminal.sent  # the cursor is back
    assert "Traceback" not in terminal.text


def test_watch_tells_the_time_that_is_left(shell: Shell) -> None:
    shell.file("true", id="a")
    shell.file("sleep 600", id="b")
    terminal = shell.terminal("status", "--watch")
    terminal.until("done 0 of 2")
    shell("worker", "start")
    shell.reaches("b", "processing")
    terminal.until("done 1 of 2")
    terminal.until("left")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert re.search(r"done 1 of 2.*about \d.* left", terminal.text)


def test_one_job_can_be_watched_whatever_its_command_says(shell: Shell) -> None:
    shell.file("echo '[/bold] [red]x[/red]'", id="a")
    terminal = shell.terminal("status", "a", "--watch")
    terminal.until("no worker is alive")
    shell.drain()
    terminal.until("completed")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "[/bold] [red]x[/red]" in terminal.text


def test_watching_in_a_pipe_ends_or_is_refused(shell: Shell) -> None:
    shell.file("true", id="a")
    assert "\x1b" not in shell("status", "--watch").out
    shell.refused("list", "--watch", status=2)


# ── what jobs printed ─────────────────────────────────────────────────────────────────────────

BYTES = bytes(range(256)) * 40


@pytest.fixture
def printed(shell: Shell) -> Shell:
    """A job that fails once, and prints other bytes each time."""
    (shell.home / "bytes").write_bytes(BYTES)
    command = "cat bytes; printf 'err %s' $QUEUECTL_ATTEMPT >&2; test $QUEUECTL_ATTEMPT = 2 || exit 9"
    shell.file(command, id="a", cwd=str(shell.home))
    shell.drain()
    return shell


def test_output_is_byte_exact_when_redirected(printed: Shell) -> None:
    assert printed("output", "get", "a", "--stdout").raw == BYTES
    assert printed("output", "get", "a", "--stderr").raw == b"err 2"
    assert printed("logs", "a", "--stdout").raw == BYTES
    assert BYTES in printed("output", "get", "a").raw
    terminal = printed.terminal("output", "get", "a", "--stdout", redirected=True)
    assert terminal.end() == 0
    assert terminal.redirected == BYTES


def test_an_attempt_of_its_own_can_be_shown(printed: Shell) -> None:
    assert printed("output", "get", "a", "--attempt", "1", "--stderr").out == "err 1"
    assert printed("logs", "a", "--attempt", "2", "--stderr").out == "err 2"
    printed.refused("output", "get", "a", "--attempt", "3", status=1)
    printed.refused("output", "get", "a", "--attempt", "0", status=2)


def test_output_tells_streams_exit_code_and_completion_time(printed: Shell) -> None:
    text = printed("output", "get", "a", "--attempt", "1").raw.decode("utf-8", "replace")
    assert re.search(r"exit code 9\b.*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text)
    assert "err 1" in text
    found = printed("output", "get", "a", "--json").json
    assert (found["id"], found["attempt"], found["exit_code"], found["stderr"]) == ("a", 2, 0, "err 2")
    assert found["stdout"] == BYTES.decode("utf-8", "replace")
    assert re.match(r"\d{4}-\d\d-\d\dT", found["completed_at"])
    assert printed("logs", "a", "--json").json == found


def test_a_job_that_has_not_run_has_no_output(shell: Shell) -> None:
    shell.file("true", id="a")
    assert "has not run" in shell.refused("output", "get", "a", status=1)


def started_when(shell: Shell, follower: Started, words: bytes) -> None:
    until(lambda: words in follower.out, f"{words!r} is followed")
    assert follower.runs, follower.err


def test_following_prints_what_comes_until_the_job_ends(shell: Shell) -> None:
    gate = shell.home / "gate"
    os.mkfifo(gate)
    shell.file(f"printf 'one\\r\\377'; read x < {gate}; printf two; printf err >&2", id="a")
    follower = shell.start("output", "get", "a", "--follow", "--stdout")
    shell("worker", "start")
    started_when(shell, follower, b"one\r\xff")
    gate.write_text("go\n")
    assert follower.end() == 0
    assert follower.out == b"one\r\xfftwo"
    assert follower.err == ""
    assert b"err" in shell("logs", "a", "--follow").raw


def test_following_loses_nothing_between_two_runs(shell: Shell) -> None:
    shell.file("sleep 0.4; echo end of run $QUEUECTL_ATTEMPT; exit 1", id="a", max_retries=1)
    follower = shell.start("logs", "a", "--follow", "--stdout")
    shell.drain()
    assert follower.end() == 0
    assert follower.out == b"end of run 1\nend of run 2\n"
    assert follower.err == "── run 2 ──\n"


def test_following_on_a_terminal_begins_each_further_run_on_a_line_of_its_own(shell: Shell) -> None:
    gate = shell.home / "gate"
    os.mkfifo(gate)
    first = f"[ $QUEUECTL_ATTEMPT != 1 ] || read x < {gate}"
    shell.file(f"printf 'end of run '$QUEUECTL_ATTEMPT; {first}; exit 1", id="a", max_retries=2)
    started = shell.start("worker", "start", "--drain")
    terminal = shell.terminal("logs", "a", "--follow", "--stdout")
    terminal.until("end of run 1")
    gate.write_text("go\n")
    assert (terminal.end(), started.end()) == (0, 0)
    assert terminal.text == "end of run 1\n── run 2 ──\nend of run 2\n── run 3 ──\nend of run 3\n"


def test_following_on_a_terminal_shows_characters_tabs_and_progress_as_they_were_meant(shell: Shell) -> None:
    gate = shell.home / "gate"
    os.mkfifo(gate)
    bar = (
        r"printf '\tgr\303'; read x < {0}; printf '\274n\r\n10 %%\r20 %%\r'; read x < {0}; printf '30 %%\303'"
    )
    shell.file(bar.format(gate), id="a")
    shell("worker", "start")
    terminal = shell.terminal("logs", "a", "--follow", "--stdout")
    terminal.until(8 * " " + "gr")
    gate.write_text("go\n")
    terminal.until("20 %")
    gate.write_text("go\n")
    assert terminal.end() == 0
    assert terminal.text == f"{8 * ' '}grün\n10 %\n20 %\n30 %\ufffd\n"


def test_each_stream_begins_on_a_line_of_its_own(shell: Shell) -> None:
    shell.file("printf out; printf err >&2", id="a")
    shell.drain()
    assert shell("logs", "a").lines[1:] == ["── stdout ──", "out", "── stderr ──", "err"]
    terminal = shell.terminal("logs", "a")
    assert terminal.end() == 0
    assert terminal.text.endswith("── stdout ──\nout\n── stderr ──\nerr\n")


def test_a_long_error_is_cut_for_people_and_whole_in_json(shell: Shell) -> None:
    error = "long " * 100_000 + "end"
    for job_id in ("one", "two", "three"):
        shell.file("exit 4", id=job_id, max_retries=0)
    shell.drain()
    path = shell.place("one")
    assert path is not None
    path.write_text(path.read_text().replace("exit status 4", error))
    assert len(shell("dlq", "list").out) < 3_000
    assert len(shell("status", "one").out) < 5_000
    assert "queuectl retry one" in shell("status", "one").out
    assert shell("status", "one", "--json").json["error"] == error


def test_a_job_that_a_person_put_into_done_has_no_exit_status(shell: Shell) -> None:
    shell.file("true", id="a")
    path = shell.place("a")
    assert path is not None
    path.rename(shell.root / "done" / path.name)
    assert "completed: nothing is recorded of its end\n" in shell("status", "a").out


def test_a_folder_among_the_waiting_is_told_as_left_alone(shell: Shell) -> None:
    (shell.root / "pending" / "folder.yaml").mkdir()
    assert "1 file or folder that is no job is left alone (pending/folder.yaml)" in shell("status").out
    (shell.root / "pending" / "notes.txt").write_text("")
    (shell.root / "pending" / "drop.yaml").write_text("command: true\n")
    out = shell("status").out
    assert re.search(
        r"2 files or folders that are no jobs are left alone \(.*pending/folder\.yaml.*check", out
    )
    assert "1 dropped in pending/, not taken in by a worker yet (drop.yaml)" in out


def test_following_ends_on_ctrl_c(shell: Shell) -> None:
    shell.file("echo ready; sleep 600", id="a")
    shell("worker", "start")
    terminal = shell.terminal("logs", "a", "--follow")
    terminal.until("ready")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text


def test_json_and_following_do_not_go_together(busy: Shell) -> None:
    busy.refused("logs", "first", "--follow", "--json", status=2)


# ── nothing of a stranger's commands a terminal ───────────────────────────────────────────────

HOSTILE = "\x1b]0;mine\x07\x1b[2J\x1b[31;5m\x08\x9b31m\u202e\r\t"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A spool in which commands, outputs and file names want to rule the terminal; only looked at."""
    with Shell(tmp_path_factory.mktemp("hostile")) as shell:
        yield made_hostile(shell.make_spool())


def made_hostile(shell: Shell) -> Shell:
    shell.file(f"printf '%s' '{HOSTILE}'; printf '%s' '{HOSTILE}' >&2", id="ran", env={"E": HOSTILE})
    shell.file([f"no-such-{HOSTILE}"], id="dead", max_retries=0, cwd="/")
    shell.drain()
    shell.file(f"echo {HOSTILE}", id="waiting", cwd=f"/{HOSTILE}", env={HOSTILE: HOSTILE})
    (shell.root / "pending" / f"{HOSTILE}.txt").write_text("?")
    (shell.root / "dead" / "10-20260101T000000.000000Z-odd.yaml").write_text(f'"{HOSTILE[:5]}": 1\n')
    told = {"attempt": 1, "at": MOMENT, "worker": HOSTILE, "error": HOSTILE, "signal": HOSTILE}
    past = "".join(f"- {json.dumps({'event': kind} | told)}\n" for kind in ("started", HOSTILE))
    for place in ("done/{}told", "dead/{}buried", "failed/{}tried", "processing/{}runs@web-1-abcd"):
        path = shell.root / f"{place.format('10-20260101T000000.000000Z-')}.yaml"
        path.write_text(f"command: 'true'\nhistory:\n{past}")
    (shell.root / "dead" / "10-20260101T000000.000000Z-buried.yaml.reason.txt").write_text(HOSTILE * 2)
    for name in ("web-1-abcd", HOSTILE):
        facts = {"name": HOSTILE, "host": HOSTILE, "pid": "7", "kind": HOSTILE, "place": HOSTILE}
        facts["started_at"] = MOMENT
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in facts.items()]
        beat = json.dumps({"count": 1, "at": MOMENT, "jobs_done": 1, "clock_offset": 99})
        (shell.root / "workers" / f"{name}.yaml").write_text(f"{''.join(lines)}beat: {beat}\n")
    with (shell.root / "config.yaml").open("a") as config:
        config.write(f"launcher: {json.dumps(f'echo {HOSTILE}')}\n")
    return shell


MOMENT = "2026-01-01T00:00:00Z"
LOOKS = [
    "list",
    "status",
    "status ran",
    "status dead",
    "status waiting",
    "status odd",
    "status told",
    "status buried",
    "status tried",
    "status runs",
    "output get told",
    "dlq list",
    "check",
    "worker status",
    "config list",
    "config get launcher",
    "prune --older-than 0s --dry-run",
    "metrics",
    "list --json",
    "status --json",
    "output get ran --json",
    "worker status --json",
    "config list --json",
]


#: Those that a terminal is shown in another way than a pipe is.
ON_TERMINAL = [
    *("list", "status", "status dead", "status odd", "dlq list", "worker status", "config list"),
    *("output get told", "output get ran", "logs ran --stdout", "logs ran --follow"),
]


@pytest.mark.parametrize("command", ON_TERMINAL)
def test_nothing_raw_reaches_a_terminal(hostile: Shell, command: str) -> None:
    terminal = hostile.terminal(*command.split())
    assert terminal.end() in {0, 1}
    assert controls_in(terminal.sent) == set()
    assert "\x1b[31;5m" not in terminal.sent
    assert "fault of queuectl" not in terminal.sent
    assert terminal.text.strip()


def test_nothing_raw_comes_through_a_pipe_but_what_jobs_printed(hostile: Shell) -> None:
    for said in at_once(lambda command: hostile(*command.split(), status=(0, 1)), LOOKS):
        assert controls_in(said.out) == set(), said
        assert controls_in(said.err) == set(), said
        assert said.out.strip(), said
        for line in said.lines if "--json" in said.arguments else ():
            json.loads(line, parse_constant=pytest.fail)


def described(facts: dict[str, Any]) -> str:
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in facts.items())


@pytest.mark.parametrize(
    "wrong", [{"started_at": HOSTILE}, {"host": ["x"]}, {"kind": {"a": "b"}}, {"clock_offset": float("nan")}]
)
def test_a_description_that_no_worker_wrote_is_none(shell: Shell, wrong: dict[str, Any]) -> None:
    shell.make_spool()
    beat = {"count": 1, "at": MOMENT, "jobs_done": 1, "clock_offset": 1}
    facts = {"host": "web", "pid": "7", "kind": "drain", "place": "here", "started_at": MOMENT, "beat": beat}
    path = shell.root / "workers" / "web-7-abcd.yaml"
    path.write_text(described(facts))
    assert "web-7-abcd" in shell("worker", "status").out
    path.write_text(described(facts | wrong | {"beat": beat | wrong}))
    assert shell("worker", "status", "--json").lines == []
    assert "this worker is dead" in shell("check", status=1).out


def test_the_end_of_all_time_has_not_come_anywhere(shell: Shell) -> None:
    shell.make_spool().file("true", id="never", run_at="9999-12-31T23:59:59Z")
    said = shell("status", "never", env={"TZ": "Asia/Tokyo"})
    assert "due at 9999-12-31 23:59:59Z" in said.out


def test_what_is_typed_comes_back_harmless_in_errors(hostile: Shell) -> None:
    odd = HOSTILE.replace("\t", "")
    for arguments in (
        ("status", odd),
        (odd,),
        ("list", f"--{odd}"),
        ("config", "get", odd),
        ("-s", odd, "list"),
    ):
        terminal = hostile.terminal(*arguments)
        assert terminal.end() in {1, 2, 3}
        assert controls_in(terminal.sent) == set(), arguments
        assert "\x1b[31;5m" not in terminal.sent


def test_json_in_a_pipe_gives_the_text_back_exactly(hostile: Shell) -> None:
    assert json.loads(hostile("status", "waiting", "--json").raw)["command"] == f"echo {HOSTILE}"
