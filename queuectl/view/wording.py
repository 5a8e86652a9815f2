"""Text from outside, made safe to show on a terminal or in a browser."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_NICE = {"\n": "⏎", "\t": " ", "\r": "␍", "\x1b": "␛"}
#: Characters of an error in lists, tables and sentences. The job's file and `--json` have the whole error.
ERROR_SHOWN = 1000


def shortened(text: str, most: int = ERROR_SHOWN) -> str:
    """The first `most` characters, and an ellipsis where more follow."""
    return text if len(text) <= most else f"{text[:most]}…"


def visible(text: str) -> str:
    """The text on one line, with control characters shown as symbols or numbers."""
    return CONTROL.sub(lambda found: _NICE.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def escaped(text: str) -> str:
    r"""The text on one line, with control characters as escapes in ASCII: `\n`, `\x1b`."""
    return CONTROL.sub(lambda found: _ESCAPES.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def escaped_lines(text: str) -> str:
    """Like `escaped`, with line ends and tabs kept."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))
