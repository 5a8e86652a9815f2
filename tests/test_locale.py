"""Commands, variables and file names come out in UTF-8, whatever the locale of whoever files or runs them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.shell import Shell

WORDS = "日本€ äöü"
#: What Python takes for ASCII throughout.
PLAIN = {"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a program in it, none of whose names are ASCII."""
    folder = tmp_path / "größe"
    folder.mkdir()
    program = folder / "zähle"
    program.write_text('#!/bin/sh\nprintf "%s" "$1"\n')
    program.chmod(0o755)
    return folder


def output(shell: Shell, job_id: str) -> str:
    assert shell.state(job_id) == "done", shell.fields(job_id)
    return (shell.root / "logs" / f"{job_id}.1.out").read_text()


@pytest.mark.parametrize("filed_in", ["C.UTF-8", "C"])
def test_a_worker_in_any_locale_hands_a_command_its_text_in_utf_8(
    shell: Shell, place: Path, filed_in: str
) -> None:
    env = PLAIN if filed_in == "C" else None
    shell("enqueue", "--id", "shell", "--env", f"NAME={WORDS}", f'printf "%s|%s" "$NAME" "{WORDS}"', env=env)
    shell("enqueue", "--id", "list", "--cwd", place, "--", "./zähle", WORDS, env=env)
    shell("enqueue", "--id", "here", "pwd", cwd=place, env=env)
    shell("enqueue", "--id", "json", f'{{"command": "printf %s \\"{WORDS}\\""}}', env=env)
    shell.file(["zähle", WORDS], id="path", env={"PATH": str(place)})
    shell("worker", "start", "--drain", env=PLAIN)
    assert output(shell, "shell") == f"{WORDS}|{WORDS}"
    assert output(shell, "list") == output(shell, "json") == output(shell, "path") == WORDS
    assert output(shell, "here") == f"{place}\n"


def test_what_cannot_be_started_is_told_in_any_locale(shell: Shell) -> None:
    shell.file(["gibt-es-nicht-ü"], id="program", max_retries=0)
    shell.file("true", id="place", cwd="/gibt-es-nicht-ü", max_retries=0)
    shell("worker", "start", "--drain", env=PLAIN)
    assert shell.fields("program")["history"][-1]["error"] == "command not found: gibt-es-nicht-ü"
    assert shell.fields("place")["history"][-1]["error"] == "no such directory: /gibt-es-nicht-ü"
    assert "gibt-es-nicht-" in shell("dlq", "list", env=PLAIN).out


def test_words_that_are_no_utf_8_are_refused_in_a_locale_without_them(shell: Shell) -> None:
    shell.refused("enqueue", os.fsencode("echo ") + b"\xe9", status=2, env=PLAIN)
