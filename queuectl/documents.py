"""Strict YAML and JSON: a text becomes a tree of text, or is refused with its line.

The tree is built from the events of the C parser. Anchors, aliases, tags, duplicate keys and deep nesting
are refused: no text can exhaust time or memory.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from functools import cache

from queuectl.errors import BadDocument, BadEncoding, HasNul
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias


MAX_DEPTH = 20
#: A tree of a document. Scalars stay text, as each field knows its type; a plain null is None.
Node: TypeAlias = "str | list[Node] | dict[str, Node] | None"
#: The plain scalars that mean null in YAML.
NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Document(NamedTuple):
    """One document, and where a further item of its last key can be appended.

    `indent` is the column of the top-level keys, or None if nothing can be appended (flow style, an end
    mark). `items` is the column of the dashes of the last key's block sequence. `is_open` means that the
    last key has no value. `line` is the first line, `item_lines` the first line of each item of a list.
    """

    tree: Node
    indent: int | None = None
    items: int | None = None
    last_key: str | None = None
    is_open: bool = False
    line: int | None = None
    item_lines: list[int | None] | None = None


#: Byte order marks of UTF-16 and UTF-32, as Notepad and PowerShell write them. UTF-8 has no such bytes.
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
#: For each wide encoding: where most bytes of Western text are NUL, and where few are.
#: A torn file has as many in both.
_NULS = {
    "UTF-16LE": (slice(1, None, 2), slice(0, None, 2)),
    "UTF-16BE": (slice(0, None, 2), slice(1, None, 2)),
    "UTF-32LE": (slice(2, None, 4), slice(0, None, 4)),
    "UTF-32BE": (slice(1, None, 4), slice(3, None, 4)),
}


def _unmarked(data: bytes) -> str | None:
    """The wide encoding that these bytes seem to be in; None for others."""
    for name, (nuls, others) in _NULS.items():
        if data[nuls].count(0) * 2 > len(data[nuls]) and data[others].count(0) * 4 < len(data[others]):
            return name
    return None


def text_of(data: bytes) -> str:
    """Decode bytes in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises `BadEncoding` for other encodings, and `HasNul` for a NUL.
    """
    if data in WIDE:  # only the mark has been written so far
        raise BadEncoding(0)
    # The mark of UTF-32 begins with that of UTF-16.
    wide = "utf-32" if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) else "utf-16"
    try:
        text = data.decode(wide if data.startswith(WIDE) else "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadEncoding(error.start, _unmarked(data)) from None
    if "\0" in text:
        likely = None if data.startswith(WIDE) else _unmarked(data)
        at = text.index("\0")
        raise HasNul(text.count("\n", 0, at) + 1) if likely is None else BadEncoding(at, likely)
    return text


def load(text: str) -> Document:
    """Read a text with exactly one document, JSON or YAML; raises `BadDocument`."""
    documents = load_all(text)
    if len(documents) != 1:
        if not documents:
            raise BadDocument("it is empty", remedy="Write at least `command: …`.")
        raise BadDocument(
            "it holds several documents", remedy="A file of several jobs is for `queuectl enqueue --file`."
        )
    return documents[0]


def load_all(text: str) -> list[Document]:
    """Read all documents of a text. A text that begins with a brace or bracket is tried as JSON first."""
    plain = _plain(text)
    if plain is not None:
        return plain
    if text.lstrip()[:1] in {"{", "["}:
        with contextlib.suppress(ValueError):
            return [Document(load_json(text))]
    return list(_load_yaml(text))


# A key and a value on one line of printable ASCII, plain or between double quotes without escapes; a comment.
_PAIR = (
    r'([a-z_][a-z_-]{0,98}): +(?:"([ !#-\[\]-~]*)"|([A-Za-z0-9_./](?:[!-9;-~]|:(?=[!-~])| +(?=[!"$-~]))*))'
)
_COMMENT = r"#[^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]*"
_PLAIN_LINE = rf"{_PAIR}(?: +{_COMMENT})?| *(?:{_COMMENT})?"


@cache
def _plain_line() -> re.Pattern[str]:
    return re.compile(_PLAIN_LINE)  # filing a job does not need it


def _plain(text: str) -> list[Document] | None:
    """Read what most job files and configs are: lines of `key: value` and comments, an open key as the last.

    None for all else, and for what YAML readers do not agree about. Importing one takes longer than filing
    a job.
    """
    lines = text.removesuffix("\n").split("\n")
    tree: dict[str, Node] = {}
    is_open = lines[-1][-1:] == ":" and lines[-1][:-1].isidentifier() and lines[-1].isascii()
    last = lines.pop()[:-1] if is_open else ""
    pairs = first = 0
    key = last
    for number, line in enumerate(lines, 1):
        if not line or (line[0] == "#" and line.isascii() and line.isprintable()):
            continue  # most configs hold nothing else, and need no pattern
        found = _plain_line().fullmatch(line)
        if found is None:
            return None
        if found[1] is not None:
            key, quoted, value = found.groups()
            tree[key] = quoted if value is None else None if value in NULLS else value
            first = first or number
            pairs += 1
    if is_open:
        tree[last] = None
    if len(tree) != pairs + is_open or not NULLS.isdisjoint(tree):
        return None
    if not tree:
        return []
    return [Document(tree, 0, last_key=last or key, is_open=is_open, line=first or len(lines) + 1)]


class Bare(str):
    """The text of a JSON number or truth value: fields of text refuse it."""

    __slots__ = ()
    __repr__ = str.__str__


def load_json(text: str) -> Node:
    """Read JSON; numbers and truth values become `Bare` text.

    Raises `json.JSONDecodeError` for invalid JSON, `BadDocument` for deep nesting and duplicate keys.
    """
    import json

    try:
        tree = json.loads(
            text, parse_int=Bare, parse_float=Bare, parse_constant=Bare, object_pairs_hook=_unique
        )
    except RecursionError:
        raise BadDocument(f"it is nested deeper than {MAX_DEPTH} levels") from None
    return _textual(tree, 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadDocument(f"the key {twice!r} stands twice")
    return mapping


def _textual(value: Any, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise BadDocument(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, bool):
        return Bare("true" if value else "false")
    if isinstance(value, dict):
        return {key: _textual(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_textual(item, depth + 1) for item in value]
    return value  # type: ignore[no-any-return]


def _load_yaml(text: str) -> list[Document]:
    """Build trees from the parser's events: refused parts never reach PyYAML's constructors."""
    import yaml

    parse = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = None
    found: list[Document] = []
    try:
        loader = parse(text)
        while True:
            event = loader.get_event()
            kind = type(event).__name__
            if kind == "StreamEndEvent" or event is None:
                return found
            if kind == "DocumentStartEvent":
                found.append(_document(loader))
    except yaml.YAMLError as error:
        raise _bad(text, error) from None
    finally:
        if loader is not None:
            loader.dispose()


def _bad(text: str, error: Any) -> BadDocument:
    from queuectl import pitfalls

    complaint = getattr(error, "problem", None) or getattr(error, "reason", None) or "bad YAML"
    place, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if place is None:
        return BadDocument(complaint)
    fault = pitfalls.fault(text, complaint, place.line, None if begun is None else begun.line)
    return BadDocument(fault.problem, fault.line, fault.remedy)


def _document(loader: Any) -> Document:
    event = loader.get_event()
    if type(event).__name__ != "MappingStartEvent" or event.flow_style:
        lines: list[int | None] = []
        tree = _node(loader, event, 1, lines)
        loader.get_event()
        return Document(tree, line=event.start_mark.line + 1, item_lines=lines)
    _refuse_extras(event)
    last: Any = None
    key = None
    tree = {}
    for key, last in _pairs(loader, 1):
        tree[key] = _node(loader, last, 2)
    block = type(last).__name__ == "SequenceStartEvent" and not last.flow_style
    ended = loader.get_event().explicit
    return Document(
        tree,
        indent=None if ended else event.start_mark.column,
        items=last.start_mark.column if block and not ended else None,
        last_key=key,
        is_open=type(last).__name__ == "ScalarEvent" and last.value == "" and last.implicit[0],
        line=event.start_mark.line + 1,
    )


class Span(NamedTuple):
    """Where a pair of a mapping stands in a text, and the pairs of its value.

    Offsets of characters: the start of the key, and the end of the value without what follows it, be it a
    comment or an empty line.
    """

    start: int
    end: int
    inside: dict[str, Span]


def spans(text: str) -> dict[str, Span]:
    """The pairs of the one document of a valid text, by key; none where it is no block mapping."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        while not isinstance(event := loader.get_event(), yaml.NodeEvent):
            pass
        return _end(loader, event, text)[1]
    finally:
        loader.dispose()


def _end(loader: Any, event: Any, text: str) -> tuple[int, dict[str, Span]]:
    """Where the node ends whose first event was just read, and the pairs in it if it is a block mapping."""
    kind = type(event).__name__
    end = len(text[: event.end_mark.index].rstrip("\r\n"))
    found: dict[str, Span] = {}
    if kind not in {"MappingStartEvent", "SequenceStartEvent"}:
        return end, found
    while type(item := loader.get_event()).__name__ not in {"MappingEndEvent", "SequenceEndEvent"}:
        inside: dict[str, Span] = {}
        if kind == "MappingStartEvent":
            value = loader.get_event()
            end, inside = _end(loader, value, text)
            found[item.value] = Span(item.start_mark.index, end, inside)
        else:
            end, _ = _end(loader, item, text)
    # The end of a block is found only behind the comments that follow it.
    return (item.end_mark.index, {}) if event.flow_style else (end, found)


def _pairs(loader: Any, depth: int) -> Any:
    """The keys of the mapping whose start event was just read, each with the first event of its value."""
    seen = set()
    while True:
        event = loader.get_event()
        if type(event).__name__ == "MappingEndEvent":
            return
        line = event.start_mark.line + 1
        key = _node(loader, event, depth + 1)
        if not isinstance(key, str):
            raise BadDocument("a key is not plain text", line)
        if key in seen:
            raise BadDocument(f"the key {key!r} stands twice", line)
        seen.add(key)
        yield key, loader.get_event()


def _node(loader: Any, event: Any, depth: int, lines: list[int | None] | None = None) -> Node:
    _refuse_extras(event)
    kind = type(event).__name__
    if depth > MAX_DEPTH:
        raise BadDocument(f"it is nested deeper than {MAX_DEPTH} levels", event.start_mark.line + 1)
    if kind == "ScalarEvent":
        return None if event.implicit[0] and event.value in NULLS else event.value
    if kind == "SequenceStartEvent":
        items: list[Node] = []
        while type(event := loader.get_event()).__name__ != "SequenceEndEvent":
            if lines is not None:
                lines.append(event.start_mark.line + 1)
            items.append(_node(loader, event, depth + 1))
        return items
    return {key: _node(loader, value, depth + 1) for key, value in _pairs(loader, depth)}


def _refuse_extras(event: Any) -> None:
    line = event.start_mark.line + 1
    remedy = "Put a text that begins with this sign in quotes."
    if type(event).__name__ == "AliasEvent":
        raise BadDocument("aliases (*name) are not taken", line, remedy)
    if getattr(event, "anchor", None) is not None:
        raise BadDocument("anchors (&name) are not taken", line, remedy)
    if getattr(event, "tag", None) is not None:
        raise BadDocument(f"tags ({event.tag}) are not taken", line, remedy)
