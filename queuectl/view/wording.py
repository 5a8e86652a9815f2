"""How text of others is shown to people, on a terminal and in a browser alike."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_NICE = {"\n": "⏎", "\t": " ", "\r": "␍", "\x1b": "␛"}


def visible(text: str) -> str:
    """The text on one line, control characters shown as what they are, not obeyed."""
    return CONTROL.sub(lambda found: _NICE.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def escaped(text: str) -> str:
    r"""The same in characters that every font has: `\n`, `\x1b`."""
    return CONTROL.sub(lambda found: _ESCAPES.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def escaped_lines(text: str) -> str:
    """The same of a text whose lines stay lines, and whose tabs stay tabs."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))
