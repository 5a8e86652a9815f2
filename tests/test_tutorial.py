"""The tutorial and the session of the README go as they are shown, pasted block by block."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from queuectl.cli import help as guide
from tests.shell import Shell

#: What differs from run to run, and what it becomes.
CHANCE = (
    (r"\d{8}T\d{6}\.\d{6}Z", "STAMP"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d{3})?Z", "TIME"),
    (r"\b[A-Za-z0-9-]+-\d+-[0-9a-f]{4}\b", "WORKER"),
    (r"(\b[\d.e-]+ (ms|s|min|h|d|MB)\b ?)+", "FIGURE "),
    (r"  +", " "),
)


def blocks(text: str) -> list[tuple[str, str]]:
    """The blocks of a page with their languages, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def without_chance(text: str) -> str:
    for pattern, word in CHANCE:
        text = re.sub(pattern, word, text)
    return text


def shown(shell: Shell, text: str) -> list[str]:
    """What a shell prints for each block of a page, pasted one after another."""
    typed = [block for language, block in blocks(text) if language in {"sh", "bash"}]
    script = "".join(f"{block}printf '\\x1e'\n" for block in typed)
    patient = script.replace("sleep 3\n", "until queuectl wait dropped 2> trouble; do sleep 0.1; done\n")
    ran = shell.script(patient.replace("/tmp/jobs", f"{shell.home}/jobs"), QUEUECTL_SPOOL=None)
    assert ran.returncode == 0, ran.stdout
    told = ran.stdout.replace(f"{shell.home}/jobs", "/tmp/jobs").replace(str(shell.home), "~")
    return told.split("\x1e")


def session() -> str:
    """The part of the README that is to be pasted."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    return readme.partition("## A first session\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("text", [guide.page("tutorial"), session()], ids=["tutorial", "README"])
def test_what_is_to_be_pasted_goes_as_it_is_shown(tmp_path: Path, text: str) -> None:
    with Shell(tmp_path) as shell:
        came = iter(shown(shell, text))
    told = ""
    for language, block in blocks(text):
        if language in {"sh", "bash"}:
            assert told == "", "what comes out is shown"
            told = next(came)
        elif language == "text":
            assert without_chance(told) == without_chance(block)
            told = ""
    assert told == ""
