"""The command line of `enqueue`: what is an option of ours, and what belongs to the command."""

from __future__ import annotations

import io
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.cli import main, options, quick
from queuectl.errors import BadUsage

if TYPE_CHECKING:
    from pathlib import Path


def command_of(*arguments: str) -> tuple[list[str], str | list[str]]:
    line = options.read(arguments)
    is_list = line.is_list or len(line.words) > 1
    return line.options, line.words if is_list else "".join(line.words)


@pytest.mark.parametrize(
    ("line", "said", "command"),
    [
        ("make", "", "make"),
        ("echo a b", "", ["echo", "a", "b"]),
        ("-p 5 make", "-p 5", "make"),
        ("-p5 --id=a make all", "-p5 --id=a", ["make", "all"]),
        ("-- ls -l", "", ["ls", "-l"]),
        ("-- ls", "", ["ls"]),
        ("-t 9 -- wget -t 5 http://x", "-t 9", ["wget", "-t", "5", "http://x"]),
        ("-- git checkout -- file", "", ["git", "checkout", "--", "file"]),
        ("--id -- -- ls", "--id --", ["ls"]),
        ("--command ls", "--command ls", ""),
        ("- --priority 3", "--priority 3", "-"),
        ("cat -", "", ["cat", "-"]),
        ("--lines --file x", "--lines --file x", ""),
    ],
)
def test_options_stand_before_the_first_word_of_the_command(
    line: str, said: str, command: str | list[str]
) -> None:
    assert command_of(*line.split(" ")) == (said.split(), command)


@pytest.mark.parametrize("command", ["wget -t 5 http://x", " make", '{"command":"x"}', "a\tb", "a\nb"])
def test_options_may_follow_a_command_in_quotes(command: str) -> None:
    assert command_of("-p", "3", command, "-t", "5", "--id=a") == (["-p", "3", "-t", "5", "--id=a"], command)


LATE = [
    ("wget -t 5 -e robots=off http://x", "-t"),
    ("ping -t 5 localhost", "-t"),
    ("mkdir -p 7", "-p"),
    ("ssh -p 10 host", "-p"),
    ("ls -l", "-l"),
    ("ls --lines", "--lines"),
    ("sleep -1", "-1"),
    ("git checkout -- file", "--"),
    ("echo a -n", "-n"),
    ("-p 5 wget --timeout=5 x", "--timeout=5"),
    ("make --priority 5", "--priority"),
    ("grep -h x", "-h"),
    ("tar --file x", "--file"),
]


@pytest.mark.parametrize(("line", "late"), LATE)
def test_an_option_after_the_first_word_is_refused_and_the_right_line_is_named(line: str, late: str) -> None:
    with pytest.raises(BadUsage) as refused:
        options.read(line.split(" "))
    assert refused.value.problem.startswith(f"{late!r} follows the first word")
    assert "quotes" in refused.value.remedy
    head, _, tail = line.partition("-p 5 ") if line.startswith("-p") else ("", "", line)
    ours = "-p 5 " if line != tail else ""
    assert f"`queuectl enqueue {ours}-- {tail}`" in refused.value.remedy, head


@pytest.mark.parametrize(
    "line", [["echo a", "echo b"], ["echo a", "b"], ["{}", "x"], ["-", "x"], ["a b", "--"]]
)
def test_nothing_may_follow_a_command_in_quotes_but_options(line: list[str]) -> None:
    with pytest.raises(BadUsage):
        options.read(line)


# ── both readers ──────────────────────────────────────────────────────────────────────────────


PLAIN = [
    ["true"],
    ["echo a b"],
    ["echo", "a", "b"],
    ["--", "ls", "-l"],
    ["-p5", "true"],
    ["-p", "5", "--timeout=9", "echo a", "--id=later"],
    ["echo a", "-e", "A=1", "--env", "B=-t", "--max-retries", "0"],
    ["--command", "ls -l"],
    ["-c", "-l"],
    ["--backoff-base=3", "--", "wget", "-t", "5"],
    ["--id", "a.1", "--cwd", "/", "cat", "-"],
    ["--priority", "1", "--priority", "2", "true"],
    ["--delay", "2h", "--id", "x", "true"],
]
OTHER = [
    [],
    ["--"],
    [""],
    ["-x", "true"],
    ["--priority"],
    ["-p=5", "true"],
    ["--no-such", "wget", "-t", "5"],
    ["true", "--"],
    ["-c", "a", "b"],
    ["-c", "a", "--", "b"],
    ["--json=1", "true"],
    ["-p", "11", "true"],
    ["-t", "soon", "true"],
    ["--delay", "1h", "--run-at", "+1h", "true"],
    *[line.split(" ") for line, _ in LATE],
]


def filed_by(root: Path, run: Any, arguments: list[str]) -> tuple[int | None, list[Any]]:
    spool = Spool.create(root)
    status = run(["--spool", str(root), "enqueue", *arguments])
    jobs = [found.job for found in spool.list()]
    told = [
        job._replace(
            id=job.id if any("id" in word for word in arguments) else None,
            created_at=None,
            run_at=job.run_at and job.run_at.replace(minute=0, second=0, microsecond=0),
        )
        for job in jobs
        if job
    ]
    return status, told


@pytest.mark.parametrize("arguments", PLAIN, ids=shlex.join)
def test_both_readers_of_a_plain_command_line_file_the_same(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fast = filed_by(tmp_path / "fast", quick.run, arguments)
    whole = filed_by(tmp_path / "whole", main.run, arguments)
    assert fast == whole
    assert fast[0] == 0
    assert len(fast[1]) == 1


@pytest.mark.parametrize("arguments", OTHER, ids=shlex.join)
def test_what_cannot_be_filed_is_left_to_the_reader_that_says_why(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))  # pytest's own may not be read
    assert filed_by(tmp_path / "fast", quick.run, arguments) == (None, [])
    status, jobs = filed_by(tmp_path / "whole", main.run, arguments)
    assert (status, jobs) == (2, [])
    assert "Error: " in capsys.readouterr().err
