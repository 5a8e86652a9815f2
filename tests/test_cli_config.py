"""`init` and `config`: making a spool, and its settings one key at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.shell import Shell, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# As documented: each key with its default.
DEFAULTS = {
    "scheduling_mode": "priority",
    "priority": 0,
    "job_timeout_seconds": 3600,
    "max_retries": 3,
    "backoff_base": 2,
    "max_backoff_seconds": 300,
    "retry_delay": 0,
    "backoff_jitter": 0.1,
    "lock_lease_seconds": 300,
    "poll_interval": 1.0,
    "durability": "filed",
}
OTHERS = {
    "scheduling_mode": "fifo",
    "priority": 10,
    "job_timeout_seconds": 0,
    "max_retries": 0,
    "backoff_base": 1.5,
    "max_backoff_seconds": 60,
    "retry_delay": 2,
    "backoff_jitter": 0,
    "lock_lease_seconds": 30,
    "poll_interval": 0.2,
    "durability": "full",
}
OLDER = {
    "timeout": "job_timeout_seconds",
    "command_timeout": "job_timeout_seconds",
    "max-retries": "max_retries",
    "backoff-base": "backoff_base",
}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell whose spool has not been made yet."""
    with Shell(tmp_path) as shell:
        yield shell


@pytest.fixture
def made(shell: Shell) -> Shell:
    return shell.make_spool()


def config(shell: Shell) -> Path:
    return shell.root / "config.yaml"


# ── init ──────────────────────────────────────────────────────────────────────────────────────


def test_init_makes_a_private_spool_whose_config_explains_each_key(shell: Shell) -> None:
    assert str(shell.root) in shell("init").out
    assert sorted(path.name for path in shell.root.iterdir() if path.is_dir()) == [
        "dead",
        "done",
        "failed",
        "logs",
        "pending",
        "processing",
        "workers",
    ]
    assert shell.root.stat().st_mode & 0o077 == 0
    text = config(shell).read_text()
    for key, default in DEFAULTS.items():
        shown = default if isinstance(default, str) else f"{default:g}"
        assert re.search(rf"^# .*\w.*\n(# )?{key}: {shown}$", text, re.MULTILINE), key
    assert yaml.safe_load(text) in (None, DEFAULTS)


def test_init_takes_a_directory_by_name_and_an_empty_one(shell: Shell) -> None:
    shell("init", "jobs")
    assert (shell.home / "jobs" / "config.yaml").is_file()
    (shell.home / "empty").mkdir()
    shell("-s", "empty", "init")
    assert (shell.home / "empty" / "config.yaml").is_file()
    assert not shell.root.exists()


def test_init_again_changes_nothing(made: Shell) -> None:
    job_id = made.file("true")
    config(made).write_text("priority: 4  # ours\n")
    assert str(made.root) in made("init").out
    assert config(made).read_text() == "priority: 4  # ours\n"
    assert made.state(job_id) == "pending"


def test_init_refuses_what_can_be_no_spool(shell: Shell) -> None:
    full = shell.home / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("")
    file = shell.home / "file"
    file.write_text("")
    for where in (full, file, shell.home / "missing" / "deeper"):
        assert str(where).removesuffix("/deeper") in shell.refused("init", where, status=1)
    assert [path.name for path in full.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", ["status", "list", "config list", "check", "pause", "wait --all"])
def test_without_a_spool_commands_say_queuectl_init_and_make_none(shell: Shell, command: str) -> None:
    assert "queuectl init" in shell.refused(*command.split(), status=1)
    assert not shell.root.exists()


def test_a_directory_without_config_may_be_a_share_that_is_not_mounted(shell: Shell) -> None:
    shell.root.mkdir()
    error = shell.refused("status", status=1)
    assert f"queuectl init {shell.root}" in error
    assert "config.yaml" in error
    assert list(shell.root.iterdir()) == []


def test_a_file_in_the_place_of_a_spool_is_told_as_such(made: Shell) -> None:
    for command in ("status", "enqueue true"):
        error = made.refused("-s", config(made), *command.split(), status=1)
        assert f"{config(made)} is not a directory" in error
        assert "--spool" in error


def test_a_spool_that_others_may_write_to_is_refused_with_the_chmod_that_mends_it(made: Shell) -> None:
    made.root.chmod(0o777)
    error = made.refused("status", status=1)
    assert f"chmod o-w {made.root}" in error
    made.root.chmod(0o700)
    made("status")


# ── get, set, unset, list ─────────────────────────────────────────────────────────────────────


def test_list_and_show_give_value_default_and_meaning_of_each_key(made: Shell) -> None:
    config(made).write_text("max-retries: 7\n")
    facts = {fact["key"]: fact for fact in made("config", "list", "--json").json_lines}
    assert {key: facts[key]["default"] for key in DEFAULTS} == DEFAULTS
    assert {key: facts[key]["value"] for key in DEFAULTS} == DEFAULTS | {"max_retries": 7}
    said = made("config", "list")
    for key, fact in facts.items():
        assert fact["meaning"]
        assert re.search(rf"^{key} .*{re.escape(fact['meaning'])}$", said.out, re.MULTILINE)
    assert re.search(r"^max_retries +7 +3 ", said.out, re.MULTILINE)
    assert made("config", "show").out == said.out


def test_on_a_terminal_the_settings_are_a_table(made: Shell) -> None:
    terminal = made.terminal("config", "list")
    assert terminal.end() == 0
    assert all(re.search(rf"^ *{key} ", terminal.text, re.MULTILINE) for key in DEFAULTS)


def test_on_a_narrow_terminal_the_meaning_of_a_setting_wraps_and_nothing_is_lost(made: Shell) -> None:
    terminal = made.terminal("config", "list", columns=80)
    assert terminal.end() == 0
    words = terminal.text.split()
    for fact in made("config", "list", "--json").json_lines:
        assert {fact["key"], *fact["meaning"].split()} <= set(words), fact["key"]
    assert max(map(len, terminal.text.splitlines())) <= 80
    assert re.search(r"^job_timeout_seconds +3600 +3600 +time limit", terminal.text, re.MULTILINE)


def test_what_is_set_can_be_got_and_unset(shell: Shell) -> None:
    shell("init")
    before = config(shell).read_text()
    for key, value in OTHERS.items():
        shell("config", "set", key, str(value))
    assert yaml.safe_load(config(shell).read_text()) == OTHERS
    assert values(shell).items() >= OTHERS.items()
    assert shell("config", "get", "scheduling-mode").out == "fifo\n"
    assert shell("config", "get", "backoff_base").out == "1.5\n"
    for key in OTHERS:
        shell("config", "unset", key)
    assert config(shell).read_text() == before
    assert values(shell).items() >= DEFAULTS.items()


def values(shell: Shell) -> dict[str, object]:
    return {fact["key"]: fact["value"] for fact in shell("config", "list", "--json").json_lines}


@pytest.mark.parametrize("older", list(OLDER))
def test_older_names_mean_the_same_key(made: Shell, older: str) -> None:
    made("config", "set", older, "8")
    assert made("config", "get", older).out == "8\n"
    assert yaml.safe_load(config(made).read_text())[OLDER[older]] == 8


def test_comments_and_order_survive_a_change(made: Shell) -> None:
    config(made).write_text(
        "# Ours since spring.\npriority: 2  # the middle\n\n"
        "# retries\nmax-retries: 5 # enough\nretry_delay: 1\n"
    )
    made("config", "set", "max_retries", "6")
    made("config", "set", "priority", "3")
    made("config", "set", "poll_interval", "0.5")
    made("config", "unset", "retry_delay")
    assert config(made).read_text() == (
        "# Ours since spring.\npriority: 3  # the middle\n\n"
        "# retries\nmax_retries: 6 # enough\npoll_interval: 0.5\n"
    )


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("scheduling_mode", "lifo", ["priority", "fifo"]),
        ("durability", "yes", ["filed", "full", "none"]),
        ("priority", "11", ["0", "10"]),
        ("priority", "high", ["0", "10"]),
        ("max_retries", "-1", ["0"]),
        ("max_retries", "1.5", ["whole number"]),
        ("timeout", "soon", ["number"]),
        ("backoff_jitter", "2", ["0", "1"]),
        ("poll_interval", "0", ["0.05"]),
    ],
)
def test_a_wrong_value_is_refused_with_the_allowed_ones(
    made: Shell, key: str, value: str, allowed: list[str]
) -> None:
    before = config(made).read_text()
    error = made.refused("config", "set", "--", key, value, status=2)
    assert all(re.search(rf"\b{word}\b", error) for word in allowed), error
    assert config(made).read_text() == before


def test_a_value_below_zero_is_refused_as_a_value(made: Shell) -> None:
    for value in ("-1", "-5h"):
        error = made.refused("config", "set", "max_retries", value, status=2)
        assert f"max_retries: '{value}' is not a whole number from 0" in error
    assert "Usage: queuectl config set" in made("config", "set", "-h").out


def test_users_that_nobody_knows_are_refused_and_numbers_are_taken(made: Shell) -> None:
    before = config(made).read_text()
    error = made.refused("config", "set", "trusted_users", "root,nobody-of-that-name", status=2)
    assert "'nobody-of-that-name'" in error
    assert config(made).read_text() == before
    made("config", "set", "trusted_users", "root 4294967")
    assert made("config", "get", "trusted_users").out == "root,4294967\n"
    made("config", "set", "trusted_users", "none")


def test_a_launcher_that_is_not_on_this_host_is_taken_with_a_warning(made: Shell) -> None:
    said = made("config", "set", "launcher", "no-such-engine --ntasks=1")
    assert "'no-such-engine'" in said.err
    assert made("config", "get", "launcher").out == "no-such-engine --ntasks=1\n"
    for known in ("env A=b", "none"):
        assert made("config", "set", "launcher", known).err == ""


@pytest.mark.parametrize("command", ["get {}", "set {} 1", "unset {}"])
def test_a_wrong_key_is_refused_with_the_nearest(made: Shell, command: str) -> None:
    before = config(made).read_text()
    assert "max_retries" in made.refused("config", *command.format("max_retrys").split(), status=2)
    assert "scheduling_mode" in made.refused("config", *command.format("qqq").split(), status=2)
    assert config(made).read_text() == before


# ── in force ──────────────────────────────────────────────────────────────────────────────────


def test_a_change_holds_for_the_jobs_that_start_from_then_on(made: Shell) -> None:
    made("worker", "start")
    made("config", "set", "max_retries", "0")
    made.file("exit 1", id="a")
    made.reaches("a", "dead")
    assert made("status", "a", "--json").json["attempts"] == 1


def test_fifo_orders_jobs_by_time_alone(made: Shell) -> None:
    made("enqueue", "--id", "queued", "--priority", "1", "echo queued >> order")
    made("config", "set", "scheduling-mode", "fifo")
    made("enqueue", "--id", "early", "--priority", "0", "echo early >> order")
    made("enqueue", "--id", "late", "--priority", "10", "echo late >> order")
    assert [job["id"] for job in made("list", "--json").json_lines] == ["queued", "early", "late"]
    made.drain()
    assert (made.home / "order").read_text().split() == ["queued", "early", "late"]


def test_a_broken_file_stops_no_worker_and_is_told(made: Shell) -> None:
    name = made("worker", "start").out.strip()
    made.file("true", id="before")
    made.reaches("before", "done")
    config(made).write_text(config(made).read_text() + "max_retries: lots\n")
    (made.root / "pending" / "dropped.yaml").write_text("command: 'true'\n")
    made.reaches("dropped", "done")
    log = made.root / "logs" / f"worker@{name}.log"
    until(lambda: re.search(r"max_retries.*last good", log.read_text()), "the worker says so")
    assert "max_retries" in made("status").out
    config(made).write_text("max_retries: 0\n")
    made.file("exit 1", id="after")
    made.reaches("after", "dead")


BROKEN = {
    "a value": b"max_retries: lots\n",
    "a key": b"max_retrys: 1\n",
    "twice": b"timeout: 1\njob_timeout_seconds: 2\n",
    "yaml": b"max_retries: [\n",
    "list": b"- 1\n",
    "bytes": b"\xff\xfe\n",
}


UNREADABLE = ("yaml", "list", "bytes")


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_file_is_told_in_words_and_left_as_it_is(made: Shell, kind: str) -> None:
    config(made).write_bytes(BROKEN[kind])
    assert made("status").out.count("config.yaml") == 1
    [line] = made("check", status=1).lines
    assert line.count("config.yaml") == 1
    assert ".." not in line.removeprefix(str(made.root))
    if kind in UNREADABLE:
        for command in ("config get priority", "config set priority 1", "config unset priority"):
            assert "config.yaml" in made.refused(*command.split(), status=1), command
    assert config(made).read_bytes() == BROKEN[kind]


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_file_disables_nothing_and_is_warned_of_once(made: Shell, kind: str) -> None:
    made.file("exit 1", id="dead", max_retries=0)
    made.drain()
    made.file("true", id="waiting")
    config(made).write_bytes(BROKEN[kind])
    commands = ["enqueue --id new true", "cancel waiting", "retry dead", "config list", "metrics"]
    for command in commands:
        assert made(*command.split()).err.count("config.yaml") == (command != "metrics"), command
    made("worker", "start")
    made.reaches("new", "done")
    assert made("worker", "stop", "--timeout", "5").err.count("config.yaml") == 1
    assert made("list").err == ""
    assert config(made).read_bytes() == BROKEN[kind]


def test_a_value_that_cannot_be_read_is_refused_and_can_be_set(made: Shell) -> None:
    config(made).write_text("max_retries: lots  # ours\npriority: 4\n")
    assert "max_retries" in made.refused("config", "get", "max_retries", status=1)
    assert made("config", "get", "priority").out == "4\n"
    made("config", "set", "priority", "5")
    assert config(made).read_text() == "max_retries: lots  # ours\npriority: 5\n"
    made("config", "set", "max_retries", "7")
    assert config(made).read_text() == "max_retries: 7  # ours\npriority: 5\n"
    assert made("config", "get", "max_retries").err == ""


@pytest.mark.parametrize("null", ["null", "Null", "NULL", "~", ""])
def test_a_null_is_no_value_and_the_refusal_names_unset(made: Shell, null: str) -> None:
    config(made).write_text("max_retries: 7\nlauncher: srun\n")
    for key in ("max_retries", "launcher", "trusted_users"):
        assert f"queuectl config unset {key}" in made.refused("config", "set", key, null, status=2)
    assert config(made).read_text() == "max_retries: 7\nlauncher: srun\n"


@pytest.mark.parametrize("launcher", ["true", "srun -n 1", "12", "env A='b: c' # d"])
def test_a_value_that_yaml_would_take_for_another_is_written_between_quotes(
    made: Shell, launcher: str
) -> None:
    made("config", "set", "launcher", launcher)
    assert made("config", "get", "launcher").out == f"{launcher}\n"
    assert yaml.safe_load(config(made).read_text())["launcher"] == launcher


def test_values_that_are_set_at_once_are_all_set(made: Shell) -> None:
    made("config", "set", "launcher", "true")
    commands = [("set", key, str(value)) for key, value in OTHERS.items()] + [("unset", "launcher")] * 9
    assert [one.end() for one in [made.start("config", *words) for words in commands]] == [0] * 20
    listed = {row["key"]: row["value"] for row in made("config", "list", "--json").json_lines}
    assert {key: listed[key] for key in OTHERS} == OTHERS
    assert listed["launcher"] == "none"
    assert [path.name for path in made.root.iterdir() if path.name.startswith(".")] == []


def test_a_broken_file_does_not_hide_the_jobs(made: Shell) -> None:
    made.file("true", id="a")
    config(made).write_text("max_retries: lots\n")
    assert made("status", "a", "--json").json["state"] == "pending"
    assert "no worker is alive" in made("status", "a").out
    assert made("list", "--json").json["id"] == "a"
    assert len(made("list").lines) == 2


def test_a_config_that_is_no_file_is_told_in_words(made: Shell) -> None:
    config(made).unlink()
    config(made).mkdir()
    for command in ("config list", "enqueue true"):
        assert "config.yaml" in made.refused(*command.split(), status=1)
    assert "config.yaml" in made("status").out
