"""YAML that people get wrong is answered with what is wrong in its line, and with what cures it."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl import documents, pitfalls
from queuectl.errors import BadDocument, BadJob
from queuectl.job.fields import from_fields


def refused(text: str) -> BadJob:
    with pytest.raises(BadJob) as error:
        from_fields(documents.load(text).tree)
    return error.value


@pytest.mark.parametrize(
    ("text", "problem", "line", "remedy"),
    [
        ("command: echo a: b\n", "': ' in the value of 'command'", 1, "command: 'echo a: b'"),
        ("id: x\ncommand: make all:\n", "': ' in the value of 'command'", 2, "command: 'make all:'"),
        ("command: echo 'a: b'\n", "': ' in the value of 'command'", 1, "`command: |`"),
        ("command: *.txt\n", "begins with '*'", 1, "command: '*.txt'"),
        ("command: %s\n", "begins with '%'", 1, "command: '%s'"),
        ("command: @home\n", "begins with '@'", 1, "command: '@home'"),
        ("command: `ls`\n", "begins with '`'", 1, "command: '`ls`'"),
        ("command: | echo\n", "begins with '|'", 1, "command: '| echo'"),
        ("command: > /dev/null\n", "begins with '>'", 1, "command: '> /dev/null'"),
        ("command: - a\n", "begins with '-'", 1, "command: '- a'"),
        ("command: &x y\n", "anchors (&name)", 1, "in quotes"),
        ("command: !x y\n", "tags (!x)", 1, "in quotes"),
        ("\tcommand: a\n", "a tab indents", 1, "with spaces"),
        ("env:\n\tA: b\ncommand: a\n", "a tab indents", 2, "with spaces"),
        ("command: [a, b\n", "'[' that begins the value of 'command' has no ']'", 1, "command: '[a, b'"),
        ("command: {a: b\nid: x\n", "'{' that begins the value of 'command' has no '}'", 1, "Close it"),
        ("command: 'it's'\n", "the quotes of the value of 'command' end before", 1, "`command: |`"),
        ('command: "a" b\n', "the quotes of the value of 'command' end before", 1, "`command: |`"),
        ('command: "C:\\Users"\n', "a backslash begins an escape", 1, "`command: |`"),
        ("command: 'a\nid: b\n", "the quote that begins the value of 'command' does not end", 1, "the quote"),
        ("command: |\necho hi\n", "no `field: value`", 2, "indented"),
        ("command: |\n  a\n b\n", "no `field: value`", 3, "indented"),
        ("id: a\n command: b\n", "not indented like", 2, "in one column"),
        ("id: a\ncommand:echo hi\n", "a space is missing after `command:`", 2, "`command: echo hi`"),
        ("command:echo hi\n", "a space is missing after `command:`", None, "`command: echo hi`"),
        ("command: a\n---\ncommand: b\n", "several documents", None, "`queuectl enqueue --file`"),
        ("- command: a\n", "a list", None, "`enqueue --file`"),
        ("echo hi\n", "plain text, not a job", None, "`command: `"),
        ("# nothing\n", "empty", None, "`command: …`"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_its_cure(
    text: str, problem: str, line: int | None, remedy: str
) -> None:
    error = refused(text)
    assert problem in error.problem
    assert re.findall(r"\(line (\d+)\)", error.problem) == ([] if line is None else [str(line)])
    assert remedy in error.remedy


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_a_line_that_is_offered_means_what_was_meant(value: str) -> None:
    value = value.strip()
    try:
        documents.load(f"command: {value}\n")
    except BadDocument as error:
        offered = re.search(r"`(command: '.*')`\.$", error.remedy)
        if offered:
            assert documents.load(offered[1]).tree == {"command": value}


@given(st.text("ab:'\"|>-*&[]{},# \t\n"))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadDocument):
        documents.load(text)


def test_a_complaint_about_a_line_that_is_not_there_is_passed_on() -> None:
    assert pitfalls.fault("a", "unexpected end", 7, None) == ("unexpected end", "Correct the text.", 8)
