"""`queuectl enqueue`: every form, field and flag, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from tests.shell import Shell, at_once, has_two_sentences


def moment(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


# ── the forms ─────────────────────────────────────────────────────────────────────────────────


def test_a_bare_command_is_filed_and_its_id_alone_is_printed(shell: Shell) -> None:
    said = shell("enqueue", "echo hello")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,19}\n", said.out)
    assert said.err == ""
    assert [(job["id"], job["command"]) for job in shell.jobs()] == [(said.out.strip(), "echo hello")]


def test_words_after_two_dashes_run_without_a_shell(shell: Shell) -> None:
    words = ["printf", "%s|", "$HOME", "a  b", "--id", ";", "--"]
    job_id = shell("enqueue", "--priority", "4", "--", *words).out.strip()
    assert shell.fields(job_id)["command"] == words
    shell.drain()
    assert shell("output", "get", job_id, "--stdout").out == "$HOME|a  b|--id|;|--|"


def test_a_bare_command_is_run_by_the_shell(shell: Shell) -> None:
    job_id = shell("enqueue", "echo a b | tr a-z A-Z; exit 0").out.strip()
    shell.drain()
    assert shell("output", "get", job_id, "--stdout").out == "A B\n"


def test_a_json_object_is_a_job(shell: Shell) -> None:
    said = shell("enqueue", '{"id":"job1","command":"echo hi","max_retries":5}')
    assert said.out == "job1\n"
    fields = shell.fields("job1")
    assert (fields["command"], fields["max_retries"]) == ("echo hi", 5)


def test_a_json_object_may_begin_with_blanks(shell: Shell) -> None:
    assert shell("enqueue", ' \n{"id":"job1","command":"echo hi"}').out == "job1\n"
    assert shell.fields("job1")["command"] == "echo hi"


@pytest.mark.parametrize("command", ["{ echo hi; }", "[ -f x ] && echo y", "[[ a == b ]]", "true", "5"])
def test_a_shell_command_that_begins_like_json_is_none(shell: Shell, command: str) -> None:
    shell("enqueue", command)
    assert [job["command"] for job in shell.jobs()] == [command]


@pytest.mark.parametrize(
    "words",
    [
        [r"{\"id\":\"j1\",\"command\":\"echo hi\"}"],  # with backslashes, in single quotes
        [r'{ "id": "j1", "command": "echo hi" }'],
        ['\'{"id":"j1","command":"echo', "hi\"}'"],  # what cmd makes of it
        ['{"id":"j1","command":"echo', 'hi"}', "--max-retries", "3"],  # what PowerShell 5 makes of it
    ],
)
def test_json_as_it_is_typed_on_windows_is_understood(shell: Shell, words: list[str]) -> None:
    assert shell("enqueue", *words).out == "j1\n"
    assert shell("status", "j1", "--json").json["command"] == "echo hi"


@pytest.mark.parametrize(
    "words",
    [
        ["{id:j1,command:echo hi,max_retries:5}"],
        ["{id:j1,command:echo", "hi,max_retries:5}"],
        ["{id:", "j1,", "command:", "echo hi,", "max_retries:", "5}"],
        ["id:j1", "command:echo hi", "max_retries:5"],  # what bash makes of unquoted braces
        ["'{id:j1,command:echo", "hi,max_retries:5}'"],
    ],
)
def test_json_whose_quotes_the_shell_took_is_refused_with_the_line_to_type(
    shell: Shell, words: list[str]
) -> None:
    said = shell.refused("enqueue", *words, status=2)
    line = said.partition("single quotes: queuectl ")[2]
    assert shell(*shlex.split(line)).out == "j1\n"
    job = shell("status", "j1", "--json").json
    assert (job["command"], job["max_retries"]) == ("echo hi", 5)


@pytest.mark.parametrize("words", [["http://a:b", "c"], ["a:b", "id:c"], ["{ echo id:a; }"]])
def test_a_command_with_colons_is_no_json(shell: Shell, words: list[str]) -> None:
    shell("enqueue", *words)


def test_a_number_of_json_is_taken_where_it_can_only_mean_one_text(shell: Shell) -> None:
    shell("enqueue", '{"id": 5, "command": "true", "env": {"A": 1.50, "B": true}}')
    assert shell.fields("5")["env"] == {"A": "1.50", "B": "true"}


@pytest.mark.parametrize("kind", ["{}", "[{}]", "{}\n{}", "{}\n"])
def test_a_number_is_no_command_in_json_however_it_comes(shell: Shell, kind: str) -> None:
    path = shell.home / "jobs"
    path.write_text(kind.replace("{}", '{"command": 5}'))
    for source in ((), ("--file", path)):
        said = shell("enqueue", *source, stdin=path.read_bytes(), status=(1, 2))
        assert "command: 5 cannot be taken" in said.err
    assert shell.jobs() == []


def test_lists_and_lines_are_refused_with_the_way_to_say_them(shell: Shell) -> None:
    assert "enqueue -" in shell.refused("enqueue", "[]", status=2)
    assert "--file" in shell.refused("enqueue", "--lines", "jobs.txt", stdin="true\n", status=2)
    shell("enqueue", stdin='[{"id": "a", "command": "true"}]')
    shell("enqueue", "--command", "[]")
    assert sorted(job["command"] for job in shell.jobs()) == ["[]", "true"]


def test_flags_alone_make_a_job(shell: Shell) -> None:
    flags = ("--id", "hello", "--command", "echo hi", "--priority", "10", "--max-retries", "3")
    assert shell("enqueue", *flags).out == "hello\n"
    fields = shell.fields("hello")
    assert (fields["command"], fields["priority"], fields["max_retries"]) == ("echo hi", 10, 3)
    path = shell.place("hello")
    assert path is not None
    assert path.name.startswith("00-")


def test_flags_win_over_the_fields_of_json(shell: Shell) -> None:
    job = {"id": "old", "command": "echo", "priority": 1, "timeout_sec": 5, "env": {"A": "1", "B": "2"}}
    flags = ("--id", "new", "--priority", "7", "--timeout", "9", "--env", "B=3")
    assert shell("enqueue", *flags, json.dumps(job)).out == "new\n"
    fields = shell.fields("new")
    assert (fields["priority"], fields["timeout"], fields["env"]) == (7, 9, {"A": "1", "B": "3"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one.json", '{"id": "a", "command": "true"}'),
        ("one.yaml", "id: a\ncommand: true\n"),
        ("laid-out.json", '{\n  "id": "a",\n  "command": "true"\n}\n'),
        ("list.json", '[{"id": "a", "command": "true"}, {"id": "b", "command": "true"}]'),
        ("list.yaml", "- id: a\n  command: 'true'\n- {id: b, command: 'true'}\n"),
        ("documents.yaml", "id: a\ncommand: 'true'\n---\nid: b\ncommand: 'true'\n"),
        ("lines.json", '{"id": "a", "command": "true"}\n\n{"id": "b", "command": "true"}\n'),
    ],
)
def test_a_file_or_standard_input_holds_one_job_or_several(shell: Shell, name: str, text: str) -> None:
    path = shell.home / name
    path.write_text(text)
    wanted = "a\nb\n" if name.startswith(("list", "documents", "lines")) else "a\n"
    assert shell("enqueue", "--file", path).out == wanted
    assert [job["id"] for job in shell.jobs()] == wanted.split()
    other = shell.home / "other"
    assert shell("-s", other, "enqueue", stdin=text).out == wanted
    assert [str(job["command"]).lower() for job in shell.jobs(other)] == ["true"] * len(wanted.split())


def test_a_dash_means_standard_input(shell: Shell) -> None:
    assert shell("enqueue", "-", stdin='{"id":"j4","command":"echo hi"}').out == "j4\n"
    assert shell("enqueue", "--file", "-", stdin="id: j5\ncommand: echo hi\n").out == "j5\n"


def test_flags_hold_for_each_job_of_a_file(shell: Shell) -> None:
    shell("enqueue", "--priority", "6", "-", stdin='{"command":"a"}\n{"command":"b","priority":2}\n')
    assert [(job["command"], job["priority"]) for job in shell.jobs()] == [("a", 6), ("b", 6)]


def test_lines_are_shell_commands(shell: Shell) -> None:
    text = 'echo one | tr a-z A-Z\n\n  echo "two: {x}" # why\n[1, 2]\n'
    wanted = ["echo one | tr a-z A-Z", '  echo "two: {x}" # why', "[1, 2]"]
    ids = shell("enqueue", "--lines", "-", stdin=text).lines
    assert [shell.fields(job_id)["command"] for job_id in ids] == wanted
    path = shell.home / "cmds.txt"
    path.write_text(text)
    ids = shell("enqueue", "--lines", "--file", path).lines
    assert [shell.fields(job_id)["command"] for job_id in ids] == wanted


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_files_from_windows_are_taken_in_any_of_its_encodings(shell: Shell, encoding: str) -> None:
    commands = "\ufeff# what to do\r\nls\r\n\r\n  # done\r\necho é".encode(encoding)
    path = shell.home / "cmds.txt"
    path.write_bytes(commands)
    for said in (shell("enqueue", "--lines", "--file", path), shell("enqueue", "--lines", stdin=commands)):
        assert [shell.fields(job_id)["command"] for job_id in said.lines] == ["ls", "echo é"]
    jobs = '\ufeff{"id": "a", "command": "ls"}\r\n{"id": "b", "command": "echo é"}\r\n'.encode(encoding)
    assert shell("enqueue", stdin=jobs).lines == ["a", "b"]
    assert shell.fields("b")["command"] == "echo é"
    path.write_bytes("\ufeffid: c\r\ncommand: |\r\n  ls\r\n  date\r\n".encode(encoding))
    assert shell("enqueue", "--file", path).lines == ["c"]
    assert shell.fields("c")["command"] == "ls\ndate\n"


def test_a_file_in_another_encoding_is_named_with_what_converts_it(shell: Shell) -> None:
    path = shell.home / "old.txt"
    path.write_bytes("echo é\n".encode("latin-1"))
    said = shell.refused("enqueue", "--lines", "--file", path, status=2)
    assert f"{path}: It is not text in UTF-8" in said
    assert "iconv" in said
    assert "standard input: It is not" in shell.refused("enqueue", stdin=path.read_bytes(), status=2)


BREAKS = ("\f", "\v", "\x1c", "\x85", "\u2028")


def test_only_a_newline_ends_a_command(shell: Shell) -> None:
    commands = [f"printf %s 'x{one}y'" for one in BREAKS]
    ids = shell("enqueue", "--lines", "-", stdin="\n".join(commands)).lines
    assert [shell.fields(job_id)["command"] for job_id in ids] == commands


def test_only_a_newline_ends_a_json_line(shell: Shell) -> None:
    commands = [f"printf %s 'x{one}y'" for one in BREAKS]
    text = "\n".join(json.dumps({"command": command}, ensure_ascii=False) for command in commands)
    ids = shell("enqueue", stdin=text).lines
    assert [shell.fields(job_id)["command"] for job_id in ids] == commands


def test_bare_words_on_standard_input_are_no_job(shell: Shell) -> None:
    shell.refused("enqueue", stdin="make all\nmake install\n", status=2)
    assert shell.jobs() == []


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        (("--run-at", "+10m"), 600),
        (("--run-at", "+1.5h"), 5400),
        (("--delay", "90s"), 90),
        (("--delay", "2d"), 172800),
        (("--delay", "45"), 45),
    ],
)
def test_a_time_from_now_makes_a_job_wait(shell: Shell, flags: tuple[str, str], seconds: int) -> None:
    before = datetime.now(UTC)
    job_id = shell("enqueue", *flags, "true").out.strip()
    due = moment(shell.fields(job_id)["run_at"])
    assert before <= due - timedelta(seconds=seconds) <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["2036-11-08T15:00:00Z", "2036-11-08T16:00:00+01:00", "2036-11-08T15:00:00"])
def test_a_moment_makes_a_job_wait_until_then(shell: Shell, text: str) -> None:
    job_id = shell("enqueue", "--run-at", text, "true").out.strip()
    assert moment(shell.fields(job_id)["run_at"]) == datetime(2036, 11, 8, 15, tzinfo=UTC)
    path = shell.place(job_id)
    assert path is not None
    assert path.name == f"10-20361108T150000.000000Z-{job_id}.yaml"


def test_a_moment_without_a_zone_is_local_time_on_the_way_in_and_on_the_way_out(shell: Shell) -> None:
    berlin = {"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}
    for at, run in (("2036-11-08 16:00", shell), ("2036-11-08T15:00:00Z", shell)):
        job_id = run("enqueue", "--run-at", at, "true", env=berlin).out.strip()
        assert moment(shell.fields(job_id)["run_at"]) == datetime(2036, 11, 8, 15, tzinfo=UTC)
        assert "due at 2036-11-08 16:00:00+01:00 (in" in shell("status", job_id, env=berlin).out
        assert "due at 2036-11-08 15:00:00Z (in" in shell("status", job_id).out
        assert shell("status", job_id, "--json", env=berlin).json["run_at"] == "2036-11-08T15:00:00.000000Z"


def test_a_moment_without_a_zone_in_a_job_file_is_utc(shell: Shell) -> None:
    given = '{"id": "a", "command": "true", "run_at": "2036-11-08 15:00"}'
    shell("enqueue", given, env={"TZ": "CET-1"})
    assert moment(shell.fields("a")["run_at"]) == datetime(2036, 11, 8, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("flag", "text", "said"),
    [
        ("--run-at", "90s", "write --run-at +90s."),
        ("--run-at", "", "--run-at is empty."),
        ("--run-at", "17960101120000", "is no moment."),
        ("--run-at", "2001-01-01", "d ago."),
        ("--delay", "", "--delay is empty."),
        ("--delay", "soon", "'soon' is no length of time."),
    ],
)
def test_a_time_that_cannot_be_meant_is_refused(shell: Shell, flag: str, text: str, said: str) -> None:
    assert said in shell.refused("enqueue", flag, text, "true", status=2)
    assert shell.jobs() == []


@pytest.mark.parametrize(("answer", "status", "filed"), [("y\n", 0, 1), ("n\n", 2, 0), ("\n", 2, 0)])
def test_on_a_terminal_a_moment_in_the_far_past_asks_whether_it_is_meant(
    shell: Shell, answer: str, status: int, filed: int
) -> None:
    terminal = shell.terminal("enqueue", "--run-at", "2001-01-01T12:00Z", "true")
    terminal.until("'2001-01-01T12:00Z' was ")
    terminal.until("Is it meant?")
    terminal.type(answer)
    assert terminal.end() == status
    assert [job["run_at"] for job in shell.jobs()] == [datetime(2001, 1, 1, 12, tzinfo=UTC)] * filed


def test_a_moment_in_the_far_past_is_taken_unasked_with_yes(shell: Shell) -> None:
    assert "add --yes" in shell.refused("enqueue", "--run-at", "2001-01-01", "true", status=2)
    shell("enqueue", "--yes", "--run-at", "2001-01-01T12:00Z", "--id", "a", "true")
    assert moment(shell.fields("a")["run_at"]) == datetime(2001, 1, 1, 12, tzinfo=UTC)


def test_milliseconds_since_1970_are_that_moment(shell: Shell) -> None:
    shell("enqueue", "--id", "a", "--run-at", "4102444800000", "true")
    shell("enqueue", '{"id": "b", "command": "true", "run_at": 4102444800}')
    for job_id in ("a", "b"):
        assert moment(shell.fields(job_id)["run_at"]) == datetime(2100, 1, 1, tzinfo=UTC)


def test_a_time_from_now_is_taken_as_a_field_too(shell: Shell) -> None:
    before = datetime.now(UTC)
    job_id = shell("enqueue", '{"command": "true", "run_at": "+10m"}').out.strip()
    assert moment(shell.fields(job_id)["run_at"]) >= before + timedelta(seconds=600)


def test_cwd_and_env_and_the_place_of_filing_reach_the_command(shell: Shell) -> None:
    there = shell.home / "over there"
    there.mkdir()
    command = 'echo "$PWD $MODE $MORE"'
    own = shell("enqueue", "--cwd", "over there", "--env", "MODE=a=b", "-e", "MORE=é", command).out.strip()
    here = shell("enqueue", command, cwd=there).out.strip()
    shell.drain()
    assert shell("output", "get", own, "--stdout").out == f"{there} a=b é\n"
    assert shell("output", "get", here, "--stdout").out == f"{there}  \n"


def test_a_job_keeps_the_path_by_which_its_user_sees_the_directory(shell: Shell) -> None:
    releases = [shell.home / f"release-{number}" for number in (1, 2)]
    for one in releases:
        (one / "data").mkdir(parents=True)
    current = shell.home / "current"
    current.symlink_to(releases[0])
    seen = {"PWD": str(current)}
    jobs = [
        shell("enqueue", *flags, "pwd -P", cwd=current, env=seen).out.strip()
        for flags in ([], ["--cwd", "data"], ["--cwd", "."], ["--cwd", f"{current}/"], ["--json"])
    ]
    jobs[-1] = json.loads(jobs[-1])["id"]
    wanted = [current, current / "data", current, current, current]
    assert [shell.fields(job_id)["cwd"] for job_id in jobs] == [str(path) for path in wanted]
    up = shell("enqueue", "--cwd", "../release-2", "pwd -P", cwd=current, env=seen).out.strip()
    current.unlink()
    releases[0].rename(shell.home / "old")
    current.symlink_to(releases[1])
    shell.drain()
    ran = [shell("logs", job_id, "--stdout").out.strip() for job_id in [*jobs, up]]
    there = str(releases[1])
    assert ran == [there, f"{there}/data", there, there, there, there]


@pytest.mark.parametrize("pwd", ["/", "relative", "", "/no/such", "{}/../home", None])
def test_a_pwd_that_names_another_directory_is_passed_over(shell: Shell, pwd: str | None) -> None:
    said = pwd and pwd.format(shell.home)
    job_id = shell("enqueue", "true", env={"PWD": said}).out.strip()
    assert shell.fields(job_id)["cwd"] == str(shell.home)


def test_the_time_limit_ends_a_command(shell: Shell) -> None:
    job_id = shell("enqueue", "--timeout", "0.2", "--max-retries", "0", "sleep 600").out.strip()
    shell.drain()
    assert shell.state(job_id) == "dead"
    assert "limit of 0.2 s" in shell("status", job_id).out


def test_max_retries_bounds_the_runs(shell: Shell) -> None:
    job_id = shell("enqueue", "--max-retries", "2", "exit 3").out.strip()
    shell.drain()
    assert shell.state(job_id) == "dead"
    assert shell("status", job_id, "--json").json["attempts"] == 3


def test_priority_decides_what_runs_first_and_then_age(shell: Shell) -> None:
    order = shell.home / "order"
    for name, priority in (("low", "0"), ("first", "5"), ("second", "5"), ("urgent", "10")):
        shell("enqueue", "--priority", priority, f"echo {name} >> {order}")
    shell.drain()
    assert order.read_text().split() == ["urgent", "first", "second", "low"]


# ── the fields ────────────────────────────────────────────────────────────────────────────────


def test_every_field_is_taken(shell: Shell) -> None:
    fields: dict[str, Any] = {
        "id": "all.of_them-1",
        "command": ["echo", "x"],
        "priority": 3,
        "run_at": "2036-01-02T03:04:05Z",
        "max_retries": 0,
        "timeout": 0,
        "backoff_base": 1.5,
        "cwd": "/",
        "env": {"K": "V"},
    }
    assert shell("enqueue", stdin=yaml.safe_dump(fields)).out == "all.of_them-1\n"
    filed = shell.fields("all.of_them-1")
    assert {key: filed[key] for key in fields} == fields | {"run_at": moment("2036-01-02T03:04:05Z")}


@pytest.mark.parametrize("name", ["timeout", "timeout_sec", "timeout_seconds"])
def test_the_time_limit_has_three_names(shell: Shell, name: str) -> None:
    job_id = shell("enqueue", json.dumps({"command": "true", name: 7})).out.strip()
    assert shell("status", job_id, "--json").json["timeout"] == 7


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("priorty", "priority"),
        ("retries", "max_retries"),
        ("comand", "command"),
        ("timeout_secs", "timeout_sec"),
    ],
)
def test_an_unknown_field_is_refused_and_the_nearest_is_named(shell: Shell, field: str, meant: str) -> None:
    error = shell.refused("enqueue", json.dumps({"command": "true", field: "1"}), status=2)
    assert repr(field) in error
    assert re.search(rf"\b{meant}", error)
    assert shell.jobs() == []


def test_ids_that_no_file_name_can_bear_are_refused(shell: Shell) -> None:
    ids = ["", "-a", ".a", "a b", "a/b", "é", "a\n", "a" * 101, "../a"]
    text = "".join(json.dumps({"id": job_id, "command": "true"}) + "\n" for job_id in ids)
    said = shell("enqueue", stdin=text, status=1)
    assert [int(line) for line in re.findall(r"\bline (\d+): id\b", said.err)] == list(range(1, 10))
    shell.refused("enqueue", "--id", "a b", "true", status=2)
    assert said.out == ""
    assert shell.jobs() == []


def test_the_longest_id_is_taken(shell: Shell) -> None:
    job_id = "A" + "z9._-" * 19 + "abcd"
    assert shell("enqueue", "--id", job_id, "true").out == f"{job_id}\n"
    shell.drain()
    assert shell.state(job_id) == "done"


def test_a_taken_id_is_refused_wherever_the_job_is(shell: Shell) -> None:
    shell("enqueue", "--id", "mine", "echo first")
    assert "'mine'" in shell.refused("enqueue", "--id", "mine", "echo second", status=1)
    shell.refused("enqueue", "--id", "MINE", "echo second", status=1)
    assert [job["command"] for job in shell.jobs()] == ["echo first"]
    shell.drain()
    shell.refused("enqueue", "--id", "mine", "echo second", status=1)
    assert shell.jobs() == []


def test_an_id_that_is_taken_in_another_case_is_told_with_the_job_that_has_it(shell: Shell) -> None:
    shell("enqueue", "--id", "Mine", "true")
    assert "`queuectl status Mine`" in shell.refused("enqueue", "--id", "mINE", "true", status=1)
    text = '{"id": "a", "command": "true"}\n{"id": "A", "command": "true"}\n'
    assert "line 2: The id 'A' is taken by 'a'" in shell("enqueue", stdin=text, status=1).err
    assert shell.state("a") == "pending"


def test_an_id_whose_job_was_deleted_by_hand_is_told_with_what_frees_it(shell: Shell) -> None:
    shell("enqueue", "--id", "mine", "true")
    path = shell.place("mine")
    assert path is not None
    path.unlink()
    assert "queuectl check --repair" in shell.refused("enqueue", "--id", "mine", "true", status=1)


def test_an_id_goes_to_one_of_those_who_ask_at_once(shell: Shell) -> None:
    racers = [shell.start("enqueue", "--id", "one", f"echo {number}") for number in range(6)]
    assert sorted(racer.end() for racer in racers) == [0, 1, 1, 1, 1, 1]
    assert sorted(racer.out for racer in racers) == [b""] * 5 + [b"one\n"]
    assert len(shell.jobs()) == 1


# ── what is refused ───────────────────────────────────────────────────────────────────────────


WRONG: list[tuple[str, ...]] = [
    ("--priority", "11", "true"),
    ("--priority", "-1", "true"),
    ("--priority", "high", "true"),
    ("--max-retries", "1.5", "true"),
    ("--timeout", "soon", "true"),
    ("--backoff-base", "x", "true"),
    ("--run-at", "tomorrow", "true"),
    ("--delay", "-5s", "true"),
    ("--env", "MODE", "true"),
    ("--env", "=x", "true"),
    ("--run-at", "+1m", "--delay", "1m", "true"),
    ("--command", "true", "false"),
    ("--command", "true", "--", "false"),
    ("--",),
    ("",),
    ("   ",),
    ('{"id": "a"}',),
    ('{"command": "true"',),
    ('{"command": "true", "priority": true}',),
    ('{"command": "true", "command": "false"}',),
    ('{"command": []}',),
    ('{"command": "true", "env": ["A=1"]}',),
    ('{"command": "a\\u0000b"}',),
    ('{"command": 5}',),
    ('{"command": true}',),
    ('{"command": ["sleep", 5]}',),
    ('{"command": "true", "cwd": 7}',),
    ("{command: true}",),
    ("{}",),
    ("[]",),
    (" [1]",),
    ('[{"command": "true"}]',),
    ('["echo", "a"]',),
    (f"{'[' * 99}{']' * 99}",),
    ("--lines", "true"),
    ("--lines", "--command", "true"),
    ("--lines", "--", "true"),
    ("--no-such-option", "true"),
]


def test_wrong_usage_is_status_2_and_files_nothing(shell: Shell) -> None:
    errors = at_once(lambda arguments: shell.refused("enqueue", *arguments, status=2), WRONG)
    assert len(errors) == len(WRONG)
    assert shell.jobs() == []


def test_standard_input_without_a_job_is_refused(shell: Shell) -> None:
    shell.refused("enqueue", stdin="", status=2)
    shell.refused("enqueue", "-", stdin="id: [unclosed\n", status=2)
    shell.refused("enqueue", "-", stdin=b"command: \xff\n", status=2)
    assert shell.jobs() == []


def test_one_id_cannot_be_given_to_several_jobs(shell: Shell) -> None:
    text = '{"command":"a"}\n{"command":"b"}\n'
    shell.refused("enqueue", "--id", "x", stdin=text, status=2)
    assert shell.jobs() == []


def test_a_file_that_cannot_be_read_is_named(shell: Shell) -> None:
    secret = shell.home / "secret.json"
    secret.write_text('{"command": "true"}')
    secret.chmod(0)
    for path in (shell.home / "absent.json", shell.home, secret):
        assert str(path) in shell.refused("enqueue", "--file", path, status=1, unprivileged=True)
    assert shell.jobs() == []


def test_without_a_command_a_person_at_a_terminal_is_told_how(shell: Shell) -> None:
    terminal = shell.terminal("enqueue")
    assert terminal.end() == 2
    assert "queuectl enqueue" in terminal.text
    assert has_two_sentences(terminal.text)


# ── many at once ──────────────────────────────────────────────────────────────────────────────


def test_good_lines_are_in_and_bad_ones_are_named_with_line_and_reason(shell: Shell) -> None:
    shell.file("true", id="taken")
    text = textwrap.dedent("""\
        {"id": "a", "command": "true"}
        {"id": "b", "command": "true", "priority": 99}
        {"id": "c", "command":

        {"id": "taken", "command": "true"}
        ["true"]
        {"id": "d", "comand": "true"}
        {"id": "e", "command": "true"}
        """)
    said = shell("enqueue", "-", stdin=text, status=1)
    assert said.out == "a\ne\n"
    assert [job["id"] for job in shell.jobs()] == ["taken", "a", "e"]
    for line, reason in ((2, "priority"), (3, "JSON"), (5, "taken"), (6, "mapping"), (7, "'command'")):
        assert re.search(rf"\bline {line}\b.*{reason}", said.err), said.err
    assert re.search(r"\b2 of 7\b", said.err)


def test_the_first_line_may_be_the_bad_one(shell: Shell) -> None:
    said = shell("enqueue", "-", stdin='oops\n{"id": "b", "command": "true"}\n', status=1)
    assert said.out == "b\n"
    assert re.search(r"\bline 1\b", said.err)
    assert [job["id"] for job in shell.jobs()] == ["b"]


def test_a_bad_job_in_a_yaml_file_is_named_with_its_line(shell: Shell) -> None:
    path = shell.home / "jobs.yaml"
    path.write_text("- command: echo a\n- command: echo b\n  priority: 99\n- command: echo c\n")
    said = shell("enqueue", "--file", path, status=1)
    assert [job["command"] for job in shell.jobs()] == ["echo a", "echo c"]
    assert re.search(rf"{path}\W+line [23]\b.*priority", said.err), said.err


def test_a_bad_command_line_is_named_and_the_others_are_in(shell: Shell) -> None:
    said = shell("enqueue", "--lines", "-", stdin=f"echo a\n{'x' * 70_000}\necho c\n", status=1)
    assert [job["command"] for job in shell.jobs()] == ["echo a", "echo c"]
    assert len(said.lines) == 2
    assert re.search(r"\bline 2\b", said.err)


def test_many_jobs_show_progress_on_a_terminal_and_print_only_ids(shell: Shell) -> None:
    commands = shell.home / "cmds.txt"
    commands.write_text("true\n" * 300)
    terminal = shell.terminal("enqueue", "--lines", "--file", commands, redirected=True)
    assert terminal.end() == 0
    assert "/300" in terminal.text
    assert len(set(re.findall(rb"^[a-z0-9]{4,}$", terminal.redirected, re.MULTILINE))) == 300
    assert len(shell.jobs()) == 300


def test_on_a_terminal_the_ids_are_shown_too(shell: Shell) -> None:
    terminal = shell.terminal("enqueue", "--id", "shown", "true")
    assert terminal.end() == 0
    seen = [line.rpartition("\r")[2] for line in terminal.text.splitlines()]
    assert "shown" in seen, terminal.text


def test_a_pipe_sees_no_progress(shell: Shell) -> None:
    said = shell("enqueue", "--lines", "-", stdin="true\n" * 300)
    assert len(said.lines) == 300
    assert said.err == ""


# ── where to ──────────────────────────────────────────────────────────────────────────────────


def test_a_spool_is_made_where_its_parent_exists_and_that_is_said(homeless: Shell) -> None:
    said = homeless("enqueue", "--id", "a", "true")
    assert said.out == "a\n"
    assert str(homeless.root) in said.err
    assert (homeless.root / "config.yaml").is_file()
    assert homeless.state("a") == "pending"


def test_a_directory_without_config_is_never_taken_for_a_spool(homeless: Shell) -> None:
    homeless.root.mkdir()
    assert "queuectl init" in homeless.refused("enqueue", "true", status=1)
    assert list(homeless.root.iterdir()) == []


def test_no_spool_is_made_where_its_parent_is_missing(homeless: Shell) -> None:
    shutil.rmtree(homeless.root, ignore_errors=True)
    where = homeless.root / "deeper"
    assert "queuectl init" in homeless.refused("--spool", where, "enqueue", "true", status=1)
    assert not homeless.root.exists()


@pytest.mark.parametrize("command", ["status", "list", "worker status", "dlq list"])
def test_before_the_first_job_a_person_is_told_what_to_type(homeless: Shell, command: str) -> None:
    said = homeless.refused(*command.split(), status=1, env={"QUEUECTL_SPOOL": None})
    assert "mount" not in said
    typed = re.findall(r"queuectl (enqueue '[^']*'|demo --run)", said)
    assert len(typed) == 2
    homeless(*shlex.split(typed[0]), env={"QUEUECTL_SPOOL": None})
    homeless(*command.split(), env={"QUEUECTL_SPOOL": None})


def test_without_a_name_the_spool_is_the_users_own(homeless: Shell) -> None:
    said = homeless("enqueue", "--id", "a", "true", env={"QUEUECTL_SPOOL": None})
    made = list(homeless.home.rglob("config.yaml"))
    assert len(made) == 1
    assert str(made[0].parent) in said.err
    elsewhere = homeless.home / "state"
    homeless("enqueue", "true", env={"QUEUECTL_SPOOL": None, "XDG_STATE_HOME": str(elsewhere)})
    assert len(list(elsewhere.rglob("config.yaml"))) == 1


@pytest.mark.parametrize("option", ["--spool", "-s"])
def test_the_option_wins_over_the_environment(shell: Shell, option: str) -> None:
    other = shell.home / "other"
    shell(option, other, "enqueue", "true")
    assert len(shell.jobs(other)) == 1
    assert shell.jobs() == []


OLD_RECORDS = [
    {"id": "old1", "command": "echo 1", "state": "pending", "attempts": 0, "max_retries": 2, "priority": 5,
     "timeout_sec": 60, "created_at": "2025-11-08 10:00:00.123", "updated_at": "2025-11-08 10:00:00.123",
     "next_retry_at": None, "error_message": None, "locked_by": None, "locked_at": None},
    {"id": "old2", "command": "echo 2", "state": "failed", "attempts": 2, "next_retry_at": 1762596000.5,
     "error_message": "exit 1", "locked_by": "worker-1", "locked_at": "2025-11-08T10:00:00",
     "available_at": "2036-11-08T10:00:00"},
    {"id": "old3", "command": "echo 3", "state": "completed", "no_such_field": 5},
    {"id": "old4", "command": "echo 4", "state": "done"},
]  # fmt: skip


def test_records_of_older_queues_are_taken_and_what_is_completed_does_not_run_again(shell: Shell) -> None:
    lines = "".join(f"{json.dumps(record)}\n" for record in OLD_RECORDS)
    said = shell("enqueue", "-", stdin=lines)
    assert said.lines == ["old1", "old2"]
    assert "2 jobs are completed already and not filed; --again files such jobs, too." in said.err
    assert moment(shell.fields("old2")["run_at"]) == datetime(2036, 11, 8, 10, tzinfo=UTC)
    assert (shell.fields("old1")["timeout"], "state" in shell.fields("old1")) == (60, False)
    again = shell("enqueue", "--again", "-", stdin=f"{json.dumps(OLD_RECORDS[3])}\n")
    assert (again.lines, again.err) == (["old4"], "")
    one = shell("enqueue", json.dumps(OLD_RECORDS[2]))
    assert (one.out, "1 job is completed already" in one.err) == ("", True)
    assert "no_such_field" in shell.refused("enqueue", "--again", json.dumps(OLD_RECORDS[2]), status=2)


def test_a_listing_is_filed_into_another_spool_as_it_stands(shell: Shell) -> None:
    shell.file("echo a\u2028b", id="odd", env={"K": "v w"})
    shell.file(["printf", "%s", "x y"], id="words", priority=7, cwd="/", backoff_base=3, timeout=0)
    shell.file("true", id="later", run_at="2036-01-01T00:00:00Z", max_retries=0)
    shell.file("exit 1", id="ran", priority=10, max_retries=0)
    shell.drain()
    other = shell.home / "other"
    listed = shell("list", "--json")
    said = shell("-s", other, "enqueue", "--again", "-", stdin=listed.raw)
    assert said.lines == [job["id"] for job in listed.json_lines]
    kept = ("id", "command", "priority", "max_retries", "timeout", "cwd", "env", "backoff_base", "run_at")
    want = [{key: job.get(key) for key in kept} for job in listed.json_lines]
    have = [{key: job.get(key) for key in kept} for job in shell("-s", other, "list", "--json").json_lines]
    assert sorted(have, key=lambda job: str(job["id"])) == sorted(want, key=lambda job: str(job["id"]))


def test_json_prints_an_object_a_job(shell: Shell) -> None:
    said = shell("enqueue", "--json", "-", stdin='{"id":"a","command":"x"}\n{"id":"b","command":"y"}\n')
    assert [(job["id"], job["state"]) for job in said.json_lines] == [("a", "pending"), ("b", "pending")]


# ── odd bytes ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "arguments",
    [
        (b"echo \xff",),
        (b"--env", b"K=\xff", b"true"),
        (b"--cwd", b"/\xff", b"true"),
        (b"--id", b"\xff", b"true"),
        (b"--", b"echo", b"\xff"),
        (b'{"command": "\xff"}',),
    ],
)
def test_arguments_that_are_not_utf8_are_refused_in_words(shell: Shell, arguments: tuple[bytes, ...]) -> None:
    error = shell.refused("enqueue", *arguments, status=2)
    assert "codec" not in error
    assert shell.jobs() == []


def test_a_place_whose_name_is_not_utf8_is_refused_in_words(shell: Shell) -> None:
    odd = bytes(shell.home) + b"/\xff"
    os.mkdir(odd)
    shell.refused("enqueue", "true", cwd=odd, status=2)
    assert shell.jobs() == []
    assert shell("enqueue", "--id", "a", "--cwd", "/", "true", cwd=odd).out == "a\n"


PLAIN = [
    ["echo hello"],
    ["--", "ffmpeg", "-i", "a.mov", "a b.mp4"],
    ["echo", "two words"],
    ["--command", "echo hi", "--priority", "10", "--max-retries=3"],
    ["-c", "x", "-p", "0", "-t", "90s", "--backoff-base", "1.5", "-e", "A=b=c", "--env", "D="],
    ["--run-at", "2099-11-08T15:00:00Z", "--cwd", ".", "true"],
    ["sleep 0", "--timeout", "0", "-e", "A=1", "-e", "A=2"],
]
NOT_PLAIN = [
    ["--priority", "11", "true"],
    ["--priority"],
    ["--delay", "soon", "true"],
    ["--run-at", "+1m", "--delay", "1m", "true"],
    ["--env", "A", "true"],
    ["--command", "true", "false"],
    ["true", "--", "false"],
    ["--"],
    ["--no-such-option", "true"],
    ["{}"],
    [""],
]


@pytest.mark.parametrize("arguments", PLAIN, ids=" ".join)
def test_a_plain_command_line_files_what_any_other_would_file(shell: Shell, arguments: list[str]) -> None:
    """Plain ones are read without click, which `--json` is not."""
    shell.make_spool()
    quick = shell("enqueue", *arguments).lines[0]
    whole = shell("enqueue", "--json", *arguments).json["id"]
    own = {"id", "created_at"}
    first, second = ({k: v for k, v in shell.fields(one).items() if k not in own} for one in (quick, whole))
    assert first == second


@pytest.mark.parametrize("arguments", NOT_PLAIN, ids=" ".join)
def test_a_command_line_that_is_refused_files_nothing(shell: Shell, arguments: list[str]) -> None:
    shell.make_spool()
    shell.refused("enqueue", *arguments, status=2)
    assert shell.jobs() == []


def test_an_id_that_cannot_be_printed_is_told_with_the_job_filed(shell: Shell) -> None:
    shell.make_spool()
    done = subprocess.run(
        ["sh", "-c", f"exec {shlex.quote(sys.executable)} -m queuectl enqueue --id a true >/dev/full"],
        env=shell.environment,
        cwd=shell.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "Error: The id a cannot be printed: No space left on device.\nThe job is filed all the same.\n"
    )
    assert shell.state("a") == "pending"
