"""`queuectl help`: each page of the guide is found by its topic, and each word where it stands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from queuectl.cli import help as guide
from tests.shell import Shell, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = sorted(path.stem for path in guide.GUIDE.glob("*.md") if path.stem != "README")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        yield shell


def test_each_page_is_a_topic_with_a_line_of_its_own(shell: Shell) -> None:
    listed = re.findall(r"^  (\w+) +(\S.*)$", shell("help").out, re.MULTILINE)
    assert sorted(topic for topic, _ in listed) == PAGES
    assert all(says for _, says in listed)


@pytest.mark.parametrize("topic", PAGES)
def test_a_page_in_a_pipe_is_its_text(shell: Shell, topic: str) -> None:
    assert shell("help", topic).raw == (guide.GUIDE / f"{topic}.md").read_bytes()


def test_a_page_on_a_terminal_is_rendered_and_paged(shell: Shell) -> None:
    seen = shell.home / "seen"
    pager = shell.home / "pager"
    pager.write_text(f"#!/bin/sh\ntee {seen}\n")
    pager.chmod(0o755)
    terminal = shell.terminal("help", "config", env={"PAGER": str(pager)}, columns=90)
    assert terminal.end() == 0
    assert "Settings" in terminal.text
    assert "| ---" not in terminal.text
    assert max(map(len, terminal.text.splitlines())) <= 90
    assert until(seen.exists, "the page was paged")


def test_a_rendered_page_is_plain_where_colours_are_not_wanted(shell: Shell) -> None:
    terminal = shell.terminal("help", "python", env={"PAGER": "cat", "NO_COLOR": "1"})
    assert terminal.end() == 0
    assert not re.search(r"\x1b\[[\d;]*3\dm", terminal.sent)


@pytest.mark.parametrize("command", ["enqueue", "worker start", "dlq", "dlq list", "help"])
def test_the_name_of_a_command_shows_its_help(shell: Shell, command: str) -> None:
    assert shell("help", *command.split()).out == shell(*command.split(), "--help").out


@pytest.mark.parametrize(
    ("words", "topics"),
    [
        ("backoff_base", {"jobs", "config", "json"}),
        ("BACKOFF_BASE", {"jobs", "config", "json"}),
        ("--max-retries", {"commands"}),
        ("unix windows", {"jobs"}),
        ("srun", {"launchers"}),
        ("spool.wait", {"python"}),
        ("GPUs", {"recipes"}),
    ],
)
def test_a_word_is_found_where_it_stands(shell: Shell, words: str, topics: set[str]) -> None:
    said = shell("help", *words.split())
    found = {line.partition(":")[0] for line in said.lines}
    assert topics <= found
    for line in said.lines:
        assert line.partition(":")[0] in PAGES
    (shown,) = re.findall(r"`queuectl (help .*)`", said.err)
    assert shown == f"help {said.lines[0].partition(':')[0]} {words}"
    around = shell(*shown.split()).out.casefold()
    assert all(word.casefold().removesuffix("s") in around for word in words.split())


def test_a_word_after_a_topic_shows_the_sections_about_it(shell: Shell) -> None:
    shown = shell("help", "recipes", "GPU").out
    assert re.findall(r"^## (.*)$", shown, re.MULTILINE) == ["Give each job a GPU of its own"]
    assert shown in guide.page("recipes")
    assert "`queuectl help recipes`" in shell.refused("help", "recipes", "xyzzy", status=1)


def test_each_call_of_help_that_the_guide_names_shows_something(shell: Shell) -> None:
    said = {line for topic in PAGES for line in re.findall(r"`queuectl help ([a-z ]+)`", guide.page(topic))}
    assert len(said) > 5
    for words in said:
        assert shell("help", *words.split()).out


def test_headings_are_found_before_text(shell: Shell) -> None:
    assert shell("help", "dropping files").lines[0] == "jobs: Dropping files"


def test_what_the_guide_does_not_speak_of_is_answered_with_its_topics(shell: Shell) -> None:
    assert "`queuectl help`" in shell.refused("help", "xyzzy", status=1)
    assert "`queuectl help troubleshooting`" in shell.refused("help", "troubleshoting", status=1)


def test_each_section_is_found_once_and_its_contents_and_outputs_are_not(shell: Shell) -> None:
    found = [line.partition(": ") for line in shell("help", "completed").lines]
    sections = [(topic, rest.partition(": ")[0]) for topic, _, rest in found]
    assert len(set(sections)) == len(sections)
    assert "tutorial" not in {topic for topic, _ in sections}, "the tutorial only prints this word"
    assert not any("](" in line for line in shell("help", "gpus").lines)
