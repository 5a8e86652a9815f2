"""Many jobs from one line: the values, the commands that are made of them, and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.shell import Shell

ODD = [
    b"a b.jpg",
    b"it's.jpg",
    b"$(touch x).jpg",
    b"-dash",
    b"new\nline",
    b"\xff\xfe.jpg",
    b"caf\xc3\xa9.jpg",
]


def commands(shell: Shell) -> list[object]:
    return [job["command"] for job in shell.jobs()]


def test_odd_names_arrive_byte_for_byte_and_nothing_of_them_is_run(shell: Shell, tmp_path: Path) -> None:
    for name in ODD:
        (tmp_path / os.fsdecode(name)).write_bytes(b"content of " + name)
    shell("enqueue", "--cwd", tmp_path, "--each", "cat ./{} > out.{#}", "--", *ODD)
    words = [r'printf %s "$1$QUEUECTL_VALUE" >"env.$QUEUECTL_INDEX"', "_", "{}"]
    (tmp_path / "list").write_bytes(b"".join(name + b"\0" for name in ODD))
    shell("enqueue", "--cwd", tmp_path, "-0", "--values", tmp_path / "list", "--", "sh", "-c", *words)
    shell.drain()
    for number, name in enumerate(ODD, 1):
        assert (tmp_path / f"out.{number}").read_bytes() == b"content of " + name
        assert (tmp_path / f"env.{number}").read_bytes() == name + name
    assert not (tmp_path / "x").exists()


def test_values_come_from_standard_input(shell: Shell) -> None:
    assert len(shell("enqueue", "--each", "wc {}", "-", stdin="a b\nc\n").lines) == 2
    assert commands(shell) == ["wc 'a b'", "wc c"]
    shell("enqueue", "--each", "wc {}", "-0", "-", stdin="d\ne\0")
    assert commands(shell)[2:] == ["wc 'd\ne'"]


def test_values_come_from_combinations_rows_and_numbers(shell: Shell, tmp_path: Path) -> None:
    shell("enqueue", "--each", "train {lr} {seed}", "--with", "lr=0.1,0.01", "--with", "seed=1..2")
    assert commands(shell) == ["train 0.1 1", "train 0.1 2", "train 0.01 1", "train 0.01 2"]
    (tmp_path / "f.csv").write_text("name,age\nAnn,3\nBob,4\n")
    shell("enqueue", "--csv", tmp_path / "f.csv", "--", "greet", "{name}", "{2}")
    assert commands(shell)[4:] == [["greet", "Ann", "3"], ["greet", "Bob", "4"]]
    shell("enqueue", "--array", "1-5:2", "process $QUEUECTL_VALUE")
    jobs = shell.jobs()[6:]
    assert [job["env"] for job in jobs] == [
        {"QUEUECTL_VALUE": value, "QUEUECTL_INDEX": index}
        for value, index in (("1", "1"), ("3", "2"), ("5", "3"))
    ]


def test_flags_hold_for_every_job(shell: Shell) -> None:
    shell("enqueue", "-p", "7", "-e", "MODE=fast", "--hold", "--each", "echo {}", "--", "a", "b")
    assert [(job["priority"], job["env"]["MODE"]) for job in shell.jobs()] == [(7, "fast")] * 2
    assert shell("status", "--json").json["counts"]["held"] == 2


def test_a_dry_run_shows_the_commands_and_files_nothing(shell: Shell) -> None:
    said = shell("enqueue", "--dry-run", "--each", "convert {} {.}.png", "--", "a b.jpg", "c.jpg")
    assert said.lines == ["convert 'a b.jpg' 'a b'.png", "convert c.jpg c.png"]
    assert "2 jobs would be filed" in said.err
    assert shell("enqueue", "--dry-run", "make all").lines == ["make all"]
    assert shell.jobs() == []


@pytest.mark.parametrize(
    "line",
    [
        ["--each", "wc", "--", "a"],
        ["--each", "wc {}", "--"],
        ["--each", "wc {}"],
        ["--each", "", "--", "a"],
        ["--each", "wc {}", "--command", "x {}", "--", "a"],
        ["--each", "wc '{}'", "--", "a"],
        ["--each", "wc {}", "-", "a"],
        ["--each", "wc {}", "a", "--hold"],
        ["--each", "wc {}", "--hold", "-x"],
        ["--each", "wc {}", "--array", "1-3", "--", "a"],
        ["--each", "wc {}", "--lines"],
        ["--each", "wc {}", "--id", "x", "--", "a", "b"],
        ["--each", "wc {b}", "--with", "a=1,2"],
        ["--with", "a=1,2"],
        ["--array", "3-1", "echo {}"],
        ["--values", "/nowhere", "echo {}"],
        ["-0", "echo x"],
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_filed(shell: Shell, line: list[str]) -> None:
    shell.refused("enqueue", *line, status=(1, 2))
    assert shell.jobs() == []
