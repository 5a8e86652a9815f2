"""The guide says what the code does: its tables, its examples and its code layout."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from queuectl import Spool, documents, settings
from queuectl.cli.main import app
from queuectl.errors import BadJob
from queuectl.job import fields, model
from queuectl.job.fields import from_fields
from tests.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text() for path in (ROOT / "queuectl" / "guide").glob("*.md")}


def section(topic: str, title: str) -> str:
    """The text below a heading of a page, up to the next heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGES[topic], re.MULTILINE | re.DOTALL)
    assert found, f"{topic}.md has no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each table row, heads and rules included."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])] for line in lines]


def tables(text: str) -> dict[str, list[str]]:
    """For each table by the first cell of its head: the first cells of its rows, without backticks."""
    found: dict[str, list[str]] = {}
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *body = rows(table)
        found[head[0].strip("`")] = [cells[0].strip("`") for cells in body]
    return found


def block(text: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no {language or 'plain'} block"
    return found[1]


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that can be typed, and the program itself, as it has options, too."""
    if not path:
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))
    elif path:
        yield path, command


def written_commands() -> dict[tuple[str, ...], set[str]]:
    """The commands of the guide with their options: a row that begins with `queuectl`, then its options."""
    found: dict[tuple[str, ...], set[str]] = {}
    known = {path for path, _ in commands(app)}
    options: set[str] = set()
    for first, *_ in rows(PAGES["commands"]):
        if first.startswith("`queuectl"):
            words = first.strip("`").split()[1:]
            path = max((tuple(words[:n]) for n in range(3) if tuple(words[:n]) in known), key=len)
            assert path or not words, f"there is no command {first}"
            options = found.setdefault(path, set())
        elif first.startswith("`-"):
            options |= set(re.findall(r"`(--?[a-zA-Z0-9][a-z-]*)", first))
    return found


def test_each_command_and_each_option_is_in_the_guide_and_no_other() -> None:
    real = {
        path: {name for option in command.params if isinstance(option, click.Option) for name in option.opts}
        for path, command in commands(app)
    }
    assert written_commands() == real


def test_the_config_table_is_that_of_the_settings() -> None:
    head, _, *body = rows(PAGES["config"].partition("\n## ")[0])
    assert head == ["key", "default", "meaning", "older names"]
    assert body == [
        [
            f"`{name}`",
            f"`{settings.shown(getattr(settings.DEFAULTS, name))}`",
            key.meaning,
            ", ".join(f"`{older}`" for older in key.older),
        ]
        for name, key in settings.KEYS.items()
    ]


def test_the_guide_says_of_each_setting_when_a_change_takes_effect() -> None:
    named = re.findall(
        r"`(\w+)`", " ".join(cells[1] for cells in rows(section("config", "When a change takes effect")))
    )
    assert set(named) == set(settings.KEYS)


@pytest.mark.parametrize("row", rows(section("jobs", "What goes wrong in YAML"))[2:], ids=lambda row: row[0])
def test_what_is_wrong_in_yaml_is_said_as_the_guide_has_it(row: list[str]) -> None:
    written, said, cure = row
    with pytest.raises(BadJob) as error:
        from_fields(documents.load(written.strip("`").replace("<tab>", "\t")).tree)
    assert said in str(error.value)
    if re.fullmatch(r"`command: '.*'`", cure):
        from_fields(documents.load(cure.strip("`")).tree)


def texts_in_the_code() -> str:
    """All text of the package's source, each text that is made of parts as one, `…` for what is filled in."""
    found = []
    for path in (ROOT / "queuectl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{[\w:,]+\}|%s|%d", "…", node.value))
    return "\n".join(found)


def test_each_message_that_is_explained_is_one_that_the_code_has() -> None:
    code = texts_in_the_code()
    firsts = [cells[0] for cells in rows(PAGES["troubleshooting"])]
    messages = [message for first in firsts for message in re.findall(r"`(.*?)`", first)]
    assert len(messages) > 30
    parts = {part.strip() for message in messages for part in re.split(r"…|\d+", message)}
    assert {part for part in parts if part not in code} == set()


def test_the_table_of_job_fields_is_that_of_the_parsers() -> None:
    _, _, *body = rows(section("jobs", "Fields"))
    assert [cells[0].strip("`") for cells in body] == list(fields.PARSERS)
    meanings = {cells[0].strip("`"): cells[2] for cells in body}
    for older, name in fields.ALIASES.items():
        assert f"`{older}`" in meanings[name]


def test_the_code_layout_says_of_each_room_what_it_says_itself() -> None:
    lines = re.findall(r"^(\S+) +(.*)$", block(section("inside", "Code layout"), ""), re.MULTILINE)
    package = ROOT / "queuectl"
    homes = {f"queuectl/{path.name}": path for path in package.glob("*.py")}
    homes |= {f"queuectl/{path.parent.name}/": path for path in package.glob("*/__init__.py")}
    texts = {name: ast.get_docstring(ast.parse(path.read_text())) for name, path in homes.items()}
    assert dict(lines) == {name: (text or "").partition("\n")[0] for name, text in texts.items()}


def test_each_state_stands_in_the_drawing() -> None:
    drawing = block(section("inside", "The life of a job"), "")
    for state in model.State:
        assert f"{state}/" in drawing


def test_the_folders_on_disk_are_those_that_init_makes(tmp_path: Path) -> None:
    made = Spool.create(tmp_path / "spool").path
    listed = re.findall(r"^  ([a-z.]+)/? ", block(section("inside", "What is on disk"), ""), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in made.iterdir())


def test_the_job_file_that_is_shown_is_a_job() -> None:
    from queuectl.spool import jobfile

    text = block(section("inside", "What is on disk"), "yaml")
    reading = jobfile.parse(text.encode())
    assert reading.job.id == "resize-42"
    assert [event["event"] for event in reading.job.history] == ["started", "failed"]
    assert set(reading.job.history[1]) <= set(tables(PAGES["json"])["an event of the history"])


def test_the_tests_that_the_promises_name_exist() -> None:
    promises = PAGES["guarantees"].partition("## Trials")[0]
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", promises)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}" in (ROOT / file).read_text(), (file, test)


def environment(**more: str) -> dict[str, str]:
    """The environment of a shell in which `queuectl` is this one."""
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "TZ": "UTC", **more}


def test_the_python_example_works(tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(block(PAGES["python"], "python"))
    ran = subprocess.run(
        [sys.executable, str(program)],
        env=environment(PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == "done"
    assert [found.state for found in Spool(tmp_path / "jobs").list()] == ["done"] * 5


def test_the_python_calls_that_are_listed_exist() -> None:
    calls = [cells[0] for cells in rows(PAGES["python"])[2:]]
    assert calls
    for call in calls:
        name = re.match(r"`[sS]pool\.(\w+)\(", call)
        assert name, call
        assert callable(getattr(Spool, name[1]))


def test_jobs_of_an_older_queue_are_taken_over_as_the_guide_has_it(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        shell.make_spool()
        with contextlib.closing(sqlite3.connect(shell.home / "old.db")) as old, old:
            columns = "id, command, state, attempts, locked_by, max_retries, timeout_seconds, updated_at"
            old.execute(f"CREATE TABLE jobs ({columns}, available_at, error_message)")
            old.executemany(
                "INSERT INTO jobs (id, command, state, attempts, locked_by, max_retries) "
                "VALUES (?, ?, ?, ?, ?, 5)",
                [
                    ("waits", "echo 'a b'", "pending", 0, None),
                    ("ran", "true", "completed", 1, None),
                    ("runs", "true", "processing", 2, "worker-1"),
                ],
            )
        ran = shell.script(block(section("migrating", "Take jobs over"), "sh"))
        assert ran.returncode == 0, ran.stdout
        assert "1 job is completed already" in ran.stdout
        shell.drain()
        taken = {job["id"]: (job["state"], job["max_retries"]) for job in shell("list", "--json").json_lines}
        assert taken == {"waits": ("completed", 5), "runs": ("completed", 5)}
        assert shell.script(block(section("migrating", "Take jobs over"), "sh")).returncode == 1


def test_each_command_that_is_typed_as_before_is_one(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        shell.make_spool().file("exit 1", id="job1", max_retries=0)
        shell.drain()
        for first, *_ in rows(section("migrating", "Commands"))[2:]:
            for line in re.findall(r"`(queuectl (?!webui)[^`]*)`", first):
                ran = shell.script(line.replace('"job1"', '"job2"'))
                assert ran.returncode == 0, (line, ran.stdout)


@pytest.fixture
def busy(tmp_path: Path) -> Spool:
    """A spool with a job of every kind that the JSON tables tell of."""
    spool = Spool.create(tmp_path / "spool")
    spool.file({"id": "first", "command": "true"})
    spool.file(
        {
            "id": "whole",
            "command": "echo hi",
            "cwd": "/",
            "env": {"A": "b"},
            "launcher": "env",
            "backoff_base": 1,
            "after": "first",
            "group": "gpu",
            "slots": 1,
            "unique": "k",
            "unique_for": "24h",
        }
    )
    spool.file({"id": "bad", "command": "kill -9 $$", "max_retries": 0})
    queuectl(spool, "worker", "start", "--drain")
    spool.file({"id": "waits", "command": "true"})
    return spool


def queuectl(spool: Spool, *words: str) -> str:
    command = [sys.executable, "-m", "queuectl", "--spool", str(spool.path), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_json_of_each_command_has_the_keys_that_are_documented(busy: Spool) -> None:
    documented = tables(PAGES["json"])
    job_keys = documented["queuectl status JOB_ID --json"]
    (overview,) = objects(queuectl(busy, "status", "--json"))
    (whole,) = objects(queuectl(busy, "status", "whole", "--json"))
    (waits,) = objects(queuectl(busy, "status", "waits", "--json"))
    (dead,) = objects(queuectl(busy, "dlq", "list", "--json"))
    (printed,) = objects(queuectl(busy, "output", "get", "whole", "--json"))
    with busy.member():
        (worker,) = objects(queuectl(busy, "worker", "status", "--json"))
    (group,) = objects(queuectl(busy, "group", "list", "--json"))
    assert list(group) == documented["queuectl group list --json"]
    assert list(overview) == documented["queuectl status --json"]
    assert list(whole) == job_keys
    own = {"cwd", "env", "launcher", "backoff_base", "after", "group", "slots", "unique", "unique_for"}
    assert list(waits) == [key for key in job_keys if key not in own]
    assert list(dead) == [*waits, *documented["queuectl dlq list --json"]]
    assert list(printed) == documented["queuectl output get JOB_ID --json"]
    assert list(worker) == documented["queuectl worker status --json"]
    assert objects(queuectl(busy, "list", "--state", "pending", "--json")) == [waits]
    told = {key for line in (whole, dead) for event in line["history"] for key in event}
    assert told <= set(documented["an event of the history"])


def test_what_is_said_of_states_in_json_is_what_the_code_says(busy: Spool) -> None:
    from queuectl.view import lookup

    (overview,) = objects(queuectl(busy, "status", "--json"))
    states = rows(PAGES["json"])
    counted = next(cells[1] for cells in states if cells[0] == "`counts`")
    assert re.findall(r"`(\w+)`", counted) == list(overview["counts"])
    listed = re.search(r"^- `--state STATE`: (.*)$", PAGES["commands"], re.MULTILINE)
    assert listed
    assert set(re.findall(r"`(\w+)`", listed[1])) == set(lookup.WORDS)
