"""The tutorial goes as it is shown, pasted block by block."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from queuectl.cli import help as guide
from tests.shell import Shell

if TYPE_CHECKING:
    from pathlib import Path

#: What differs from run to run, and what it becomes.
CHANCE = (
    (r"\d{8}T\d{6}\.\d{6}Z", "STAMP"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d{3})?Z", "TIME"),
    (r"\b[A-Za-z0-9-]+-\d+-[0-9a-f]{4}\b", "WORKER"),
    (r"(\b[\d.e-]+ (ms|s|min|h|d|MB)\b ?)+", "FIGURE "),
    (r"  +", " "),
)


def blocks(topic: str) -> list[tuple[str, str]]:
    """The blocks of a page with their languages, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", guide.page(topic), re.MULTILINE | re.DOTALL)


def without_chance(text: str) -> str:
    for pattern, word in CHANCE:
        text = re.sub(pattern, word, text)
    return text


def shown(shell: Shell, typed: list[str]) -> list[str]:
    """What a shell prints for each of these blocks, pasted one after another."""
    script = "".join(f"{block}printf '\\x1e'\n" for block in typed)
    assert script.count("sleep 3\n") == 1
    patient = script.replace("sleep 3\n", "until queuectl wait dropped 2> trouble; do sleep 0.1; done\n")
    ran = shell.script(patient, QUEUECTL_SPOOL=None)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout.replace(str(shell.home), "~").split("\x1e")


def test_the_tutorial_goes_as_it_is_shown(tmp_path: Path) -> None:
    page = blocks("tutorial")
    with Shell(tmp_path) as shell:
        came = iter(shown(shell, [text for language, text in page if language == "sh"]))
    told = ""
    for language, text in page:
        if language == "sh":
            assert told == "", "what comes out is shown"
            told = next(came)
        elif language == "text":
            assert without_chance(told) == without_chance(text)
            told = ""
    assert told == ""
