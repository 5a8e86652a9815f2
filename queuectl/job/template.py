"""A command with marks such as `{}`, and the command that values make of it.

    {}    the value                     {/}   its file name
    {.}   without its ending            {//}  its directory
    {/.}  its file name without ending  {#}   the number of the job, from 1
    {lr}  the value of the name or column `lr`       {2}  that of the second

In the text of a shell command a value is quoted where it stands, so that the shell takes it as it is and runs
nothing of it. In an argument list it stands as it is. Other braces stay.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import BadUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

#: The variables in which a command finds the value of its job, and its number from 1.
VALUE, INDEX = "QUEUECTL_VALUE", "QUEUECTL_INDEX"

_MARK = re.compile(r"\{(\.|/|//|/\.|#|\d{1,4}|[A-Za-z_][A-Za-z0-9_.-]*|)\}")
_PARTS: Mapping[str, Callable[[str], str]] = {
    "": lambda value: value,
    ".": lambda value: os.path.splitext(value)[0],
    "/": os.path.basename,
    "//": lambda value: os.path.dirname(value) or ".",
    "/.": lambda value: os.path.splitext(os.path.basename(value))[0],
}


class Row(NamedTuple):
    """The values of one job, each by its name, and the number of the job, from 1.

    Bytes that are not UTF-8 are surrogates, as Python has them in names of files.
    """

    number: int
    values: Mapping[str, str]

    @property
    def value(self) -> str:
        """What the command finds in `QUEUECTL_VALUE`: the only value, or all of them separated by spaces."""
        return " ".join(self.values.values())


class _Mark(NamedTuple):
    """A mark in the text of a shell command, and whether it stands between double quotes."""

    start: int
    end: int
    name: str
    is_quoted: bool


class Template:
    """A command, text for the shell or a list of words, with marks for the named values of a `Row`."""

    def __init__(self, command: str | Sequence[str], names: Sequence[str]) -> None:
        """`names` are those of the values, in order; `{}` and its kin stand for the value if there is one.

        Raises `BadUsage` for a mark where the shell might run a part of a value.
        """
        self._command = command
        self._names = {name: name for name in names} | {
            str(number): name for number, name in enumerate(names, 1) if str(number) not in names
        }
        self._is_single = len(names) == 1
        if isinstance(command, str):
            self._marks = list(self._marks_in_shell(command))
            _refuse_expanded(command)
        else:
            self._refuse_scripts(command)

    @property
    def uses_values(self) -> bool:
        """Whether a mark or a variable of the values is in the command."""
        words = [self._command] if isinstance(self._command, str) else self._command
        return any(
            VALUE in word or INDEX in word or any(self._is_known(mark[1]) for mark in _MARK.finditer(word))
            for word in words
        )

    def _is_known(self, name: str) -> bool:
        return name == "#" or name in self._names or (name in _PARTS and self._is_single)

    def unknown(self) -> list[str]:
        """Names in braces that no value has. Those between single quotes do not count: awk has them, too."""
        if isinstance(self._command, str):
            found = [
                mark[1]
                for at, context in _braces(self._command)
                if context != _SINGLE and (mark := _MARK.match(self._command, at))
            ]
        else:
            found = [mark[1] for word in self._command for mark in _MARK.finditer(word)]
        return [name for name in found if name not in _PARTS and not self._is_known(name)]

    def fields(self, row: Row) -> dict[str, Any]:
        """The command for these values, and the variables in which it finds them, as fields of a job.

        A list of words stays a list, unless a value has bytes that are not UTF-8, which a job's file cannot
        hold: then the command is text for a shell that makes these bytes.
        """
        command, value = self._filled(row), row.value
        if is_text(value):
            return {"command": command, "env": {VALUE: value, INDEX: str(row.number)}}
        text = command if isinstance(command, str) else f"exec {' '.join(map(quoted, command))}"
        return {"command": f"export {VALUE}={quoted(value)}\n{text}", "env": {INDEX: str(row.number)}}

    def _filled(self, row: Row) -> str | list[str]:
        if isinstance(self._command, str):
            return self._in_shell(row)
        return [
            _MARK.sub(lambda mark: self._text(mark[1], row) if self._is_known(mark[1]) else mark[0], word)
            for word in self._command
        ]

    def _in_shell(self, row: Row) -> str:
        text, parts, at = str(self._command), [], 0
        for mark in self._marks:
            value = quoted(self._text(mark.name, row))
            parts += [text[at : mark.start], f'"{value}"' if mark.is_quoted else value]
            at = mark.end
        return "".join((*parts, text[at:]))

    def _text(self, name: str, row: Row) -> str:
        if name == "#":
            return str(row.number)
        if name in _PARTS:
            return _PARTS[name](row.value)
        return row.values[self._names[name]]

    def _refuse_scripts(self, words: Sequence[str]) -> None:
        """Raise `BadUsage` for a mark in a word that another shell or an interpreter reads as a script."""
        for at, word in enumerate(words):
            found = next((mark for mark in _MARK.finditer(word) if self._is_known(mark[1])), None)
            if found is not None and _is_script(words[:at]):
                raise _refusal(found[0], _IN_SCRIPT)

    def _marks_in_shell(self, text: str) -> Iterator[_Mark]:
        """The marks in a shell command, in order. Raises `BadUsage` where quoting cannot protect a value."""
        odd = next((why for found, why in _ODD.items() if re.search(found, text)), "")
        for at, context in _braces(text):
            mark = _MARK.match(text, at)
            if mark is None or not self._is_known(mark[1]):
                continue
            if odd or context not in {"", '"'}:
                raise _refusal(mark[0], odd or context)
            yield _Mark(at, mark.end(), mark[1], context == '"')


_TOKEN = re.compile(r"\\.|\$\(\(|\$\(|\$\{|\$'|\(\(|=\(|<<<|<<|.", re.DOTALL)
_CLOSES = {'"': '"', "(": ")", "+": ")", "{": "}"}
_SINGLE = "between single quotes"
_BEFORE_COMMENT = frozenset({"", *" \t\n;|&()"})
_UNSAFE = {"{": "in ${…}", "+": "in arithmetic"}
#: What makes shells differ from each other, or the rest of a text doubtful, outside quotes and in `${…}`.
_DOUBTFUL = {
    "$'": "after $'",
    "<<": "in or after a here-document",
    "=(": "in or after an array",
    "`": "between or after backquotes",
}
_IN_SCRIPT, _EVAL = "in a script within the command", "in a command with `eval`"
#: Commands in which no place is safe: a `)` of `case` closes nothing, and `eval` reads a text twice.
_ODD = {
    r"(?s)\bcase\b.*\(|\(.*\bcase\b": "in a command with `case` and parentheses",
    r"(?:^|[\s;&|(])eval\s": _EVAL,
}
#: What to do where the variable would be no safer, or differently.
_REMEDIES = {
    _IN_SCRIPT: f'Put the script between single quotes, with "${VALUE}" in it.',
    _UNSAFE["+"]: "Compute it in the program that runs, or rewrite the command.",
    _DOUBTFUL["`"]: "Write $(…) instead of backquotes.",
    _EVAL: "Leave `eval` out.",
}
_VARIABLE = re.compile(rf"\$(?:\{{{VALUE}[^}}]*\}}|{VALUE}\b)")
_INTERPRETER = re.compile(r"(?:.*/)?(?:\w*sh|busybox|python[\d.]*|perl|ruby|node|php)")


def _is_script(words: Sequence[str]) -> bool:
    """Whether the next word is a script for another shell or an interpreter, as in `sh -c "…"`."""
    is_option = bool(words) and re.fullmatch(r"-\w*[ceEr]", words[-1]) is not None
    return is_option and any(map(_INTERPRETER.fullmatch, words[:-1]))


def _braces(text: str) -> Iterator[tuple[int, str]]:
    """Where each `{` of a shell command stands: its place, and `"` between double quotes, "" in no quotes.

    Anything else says, for a person, why a value cannot be protected there. Nothing after a part that shells
    read in different ways counts as read with certainty.
    """
    opened: list[_Opened] = []
    at, uncertain = 0, ""
    while at < len(text):
        within = opened[-1].piece if opened else ""
        token = _TOKEN.match(text, at)
        assert token is not None
        begun, at = at, token.end()
        # `find` returns -1 for "not there", which modulo the length is the end of the text.
        match token[0]:
            case "{":
                is_script = any(_begins_script(text, one) for one in (*opened, _Opened("", begun)))
                unsafe = uncertain or _UNSAFE.get(within) or (_IN_SCRIPT if is_script else "")
                yield begun, unsafe or within.replace("(", "")
            case "'" | '"' if within == "{":
                uncertain = "after a quote in ${…}"
            case "'" if within != '"':
                end = text.find("'", at) % (len(text) + 1)
                yield from ((place, uncertain or _SINGLE) for place in range(at, end) if text[place] == "{")
                at = end + 1
            case "#" if within in {"", "("} and text[begun - 1 : begun] in _BEFORE_COMMENT:
                at = text.find("\n", at) % (len(text) + 1)
            case "`":
                uncertain = _DOUBTFUL["`"]
            case "$'" | "<<" | "=(" if within != '"':
                uncertain = _DOUBTFUL[token[0]]
            case piece if piece == _CLOSES.get(within):
                opened.pop()
            case piece:
                opened += (_Opened(one, begun) for one in _opening(within, piece))


def _refuse_expanded(text: str) -> None:
    """Raise `BadUsage` where the shell writes the value of the variable into a script: `sh -c "… $V"`."""
    probe = _VARIABLE.sub(f"{{{VALUE}}}", text)
    for at, context in _braces(probe):
        is_variable = probe.startswith(VALUE, at + 1)
        if is_variable and context == _IN_SCRIPT:
            raise _refusal(f"${VALUE}", context)


class _Opened(NamedTuple):
    """A quotation or a bracket that is open: a key of `_CLOSES`, and where it begins."""

    piece: str
    at: int


def _opening(within: str, piece: str) -> str:
    """What a piece opens where `within` is open: keys of `_CLOSES`."""
    if piece == "$((" or (piece == "((" and within != '"'):
        return "++"  # arithmetic, each bracket of it
    if piece == "$(":
        return "("
    if piece == "(" and within in {"", "(", "+"}:
        return within or "("
    return piece[-1] if piece in {'"', "${"} else ""


def _begins_script(text: str, opened: _Opened) -> bool:
    """Whether a quotation, or a mark outside of any, stands in a word that is a script."""
    if opened.piece not in {"", '"'}:
        return False
    before = re.sub(r"(?s)\\.|'[^']*'|\"[^\"]*\"", "x", text[: opened.at])
    return _is_script(re.sub(r"\S+\Z", "", before).split())


def _refusal(mark: str, where: str) -> BadUsage:
    return BadUsage(
        f"{mark} stands {where}, where the shell might run a part of a value.",
        _REMEDIES.get(where, f'Write "${VALUE}" there, or rewrite the command.'),
    )


def is_text(value: str) -> bool:
    """Whether a value is all UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def quoted(value: str) -> str:
    """A value as one word of a POSIX shell, which is the value byte for byte.

    Bytes that are not UTF-8 are printed by the shell, as the text of a command cannot hold them.
    """
    if is_text(value):
        return shlex.quote(value)
    parts = re.split("([\udc80-\udcff]+)", value)
    return "".join(_printed(part) if not is_text(part) else shlex.quote(part) for part in parts if part)


def _printed(part: str) -> str:
    octal = "".join(f"\\{ord(char) - 0xDC00:03o}" for char in part)
    return f"\"$(printf '{octal}')\""
