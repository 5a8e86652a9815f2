"""What people get wrong in YAML: a complaint of the parser becomes plain words and a cure."""

from __future__ import annotations

import re

from queuectl.tuples import NamedTuple

#: `field: value`, perhaps as an item of a list.
_PAIR = re.compile(r"\s*(?:- )?([^\s:#'\"\[{][^:#]*): +(\S.*)")
#: `field:value`, which is no field for want of a space.
_CLOSE = re.compile(r"\s*([a-z_]+):([^\s/].*)")
#: What a value without quotes cannot begin with.
_SIGNS = "*&!%@`,]}|>?-"
_UNFINISHED = frozenset({"could not find expected ':'", "found unexpected end of stream"})
_COLUMN = "Begin all fields in one column; put a text of several lines below `command: |`, indented."


class Fault(NamedTuple):
    """A fault in a text: what is wrong, what to do, and the line, which counts from 1."""

    problem: str
    remedy: str
    line: int


def fault(text: str, complaint: str, line: int, begun: int | None) -> Fault:
    """The fault that the YAML parser complained of, in plain words.

    `line` is where the parser gave up, and `begun` where it began to read what it did not understand; both
    count from 0.
    """
    if begun is not None and (complaint in _UNFINISHED or "expected ',' or" in complaint):
        line = begun
    lines = text.split("\n")
    at = lines[line] if line < len(lines) else ""
    return Fault(*_in_words(at, complaint), line + 1)


def missing_space(line: str) -> tuple[str, str] | None:
    """What is wrong with `field:value`, and what to do; None for other lines."""
    found = _CLOSE.match(line)
    return found and (f"a space is missing after `{found[1]}:`", f"Write `{found[1]}: {found[2]}`.")


def _in_words(line: str, complaint: str) -> tuple[str, str]:
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab indents the line", "Indent with spaces."
    found = _PAIR.fullmatch(line.rstrip())
    if found is not None:
        return _of_value(found[1], found[2], complaint)
    if close := missing_space(line):
        return close
    if complaint in _UNFINISHED or complaint == "did not find expected key":
        return "the line is no `field: value`, and belongs to no text above it", _COLUMN
    return complaint, "Correct the text."


def _of_value(field: str, value: str, complaint: str) -> tuple[str, str]:
    """What is wrong with a line `field: value`."""
    sign = value[0]
    if sign in "'\"":
        return _of_quotes(field, value, complaint)
    if sign in "[{" and "expected ',' or" in complaint:
        close = "]" if sign == "[" else "}"
        problem = f"the {sign!r} that begins the value of {field!r} has no {close!r}"
        return problem, f"Close it, or put the value in quotes if it is text: {_quoted(field, value)}"
    if sign in _SIGNS:
        return f"the value of {field!r} begins with {sign!r}, which YAML reads as a sign", _cure(field, value)
    if ": " in value or value.endswith(":"):
        return f"': ' in the value of {field!r} looks like another field", _cure(field, value)
    return "the line is not indented like the fields around it", _COLUMN


def _of_quotes(field: str, value: str, complaint: str) -> tuple[str, str]:
    if "unexpected end" in complaint:
        return f"the quote that begins the value of {field!r} does not end", "Write the quote at its end."
    if value[0] == '"' and "\\" in value:
        problem = f"in double quotes a backslash begins an escape, also in the value of {field!r}"
    else:
        problem = f"the quotes of the value of {field!r} end before the value does"
    return problem, _below(field)


def _cure(field: str, value: str) -> str:
    return _below(field) if "'" in value else f"Put the value in quotes: {_quoted(field, value)}"


def _below(field: str) -> str:
    return f"Write `{field}: |`, and the value below it, indented by two spaces."


def _quoted(field: str, value: str) -> str:
    doubled = value.replace("'", "''")
    return f"`{field}: '{doubled}'`."
