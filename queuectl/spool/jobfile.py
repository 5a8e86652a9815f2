"""The job file: read whole, one line appended for each event, and nothing else is changed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from queuectl import documents
from queuectl.errors import BadJob
from queuectl.job.fields import from_fields
from queuectl.job.history import Event, events
from queuectl.job.layout import event_line
from queuectl.system import files, users

if TYPE_CHECKING:
    from collections.abc import Iterable

    from queuectl.job.model import Job

#: What stands between the fields and the events of a file that the queue has written to.
HEADING = "\nhistory:\n"
_HEADING_BYTES = HEADING.encode()
_BEGUN = re.compile(rb"^[ ]*['\"]?history['\"]?[ \t]*:", re.MULTILINE)
_TORN = re.compile(r"[ ]*(-[ ]?|-[ ]\{.*)", re.DOTALL)


class Record(NamedTuple):
    """A job as its file gives it, and how to append an event to the file.

    `columns` holds the column of the top-level keys and, where the history has begun, that of its dashes;
    None where the layout takes no further event. `keep` is the length to cut the file to first, where a
    crash cut the last line short.
    """

    job: Job
    columns: tuple[int, int | None] | None
    heading: bool
    newline: bool
    keep: int | None

    def addition(self, added: Iterable[Event]) -> bytes:
        """The bytes that add these events to the end of the file. Needs `columns`."""
        assert self.columns is not None
        indent, dashes = self.columns
        column = indent if dashes is None else dashes
        start = "\n" if self.newline else ""
        start += f"{' ' * indent}history:\n" if self.heading else ""
        return (start + "".join([event_line(event, column) for event in added])).encode()


def parse(data: bytes) -> Record:
    """Read a job file; raises `BadJob` (or `BadDocument`) with what is wrong in it."""
    if len(data) > files.MAX_BYTES and data.find(_HEADING_BYTES, 0, files.MAX_BYTES) < 0:
        raise BadJob(f"It has {len(data):,} bytes, more than the {files.MAX_BYTES:,} that a job may have.")
    if data.startswith(documents.WIDE):
        # Events are UTF-8, so none can be appended to a file in UTF-16.
        return parse(documents.text_of(data).encode())._replace(columns=None, keep=None)
    text, keep = _whole(data)
    head, heading, tail = text.rpartition(HEADING)
    history = _event_lines(tail) if heading else None
    if history is None:
        if len(data) > files.MAX_BYTES:
            raise BadJob(f"It has {len(data):,} bytes, and its history is not one line an event.")
        document = documents.load(text)
        job = from_fields(document.tree)
        columns = _columns(document)
    else:
        document = documents.load(head + heading)
        job = from_fields(document.tree)
        job = job._replace(history=history) if history else job
        columns = None if document.indent is None else (document.indent, 0 if history else None)
    named = isinstance(document.tree, dict) and "history" in document.tree
    return Record(job, columns, not named, bool(text) and not text.endswith("\n"), keep)


def _columns(document: documents.Document) -> tuple[int, int | None] | None:
    tree = document.tree
    if document.indent is None or not isinstance(tree, dict):
        return None
    if "history" not in tree or (document.last_key == "history" and document.is_open):
        return document.indent, None
    if document.last_key == "history" and document.items is not None:
        return document.indent, document.items
    return None


def _whole(data: bytes) -> tuple[str, int | None]:
    """The text without a last line that a crash cut short, and the length that is left of it."""
    body = data
    begun = _BEGUN.search(data)
    if begun and (zero := data.find(b"\0", begun.end())) >= 0:
        body = data[:zero]
    if body.endswith(b"\n") or not body:
        return documents.text_of(body), None if body is data else len(body)
    cut = body.rfind(b"\n") + 1
    last = body[cut:]
    if cut and (_is_torn(last, began=begun is not None) or body is not data):
        return documents.text_of(body[:cut]), cut
    return documents.text_of(body), None


def _is_torn(last: bytes, *, began: bool) -> bool:
    line = last.decode("utf-8", "replace")
    if not began:
        return "history:".startswith(line.lstrip(" "))
    if not _TORN.fullmatch(line):
        return False
    try:
        json.loads(line.strip()[1:])
    except (ValueError, RecursionError):
        return True
    return False


def _event_lines(tail: str) -> tuple[Event, ...] | None:
    if not tail:
        return ()
    lines = tail.removesuffix("\n").split("\n")
    if not all(line.startswith("- {") and line.endswith("}") for line in lines):
        return None
    try:
        found = [json.loads(line[2:]) for line in lines]
    except (ValueError, RecursionError):
        return None
    try:
        return events(found)
    except ValueError as error:
        raise BadJob(f"history: this is not {error}.") from None


def read(path: str, trust: users.Trust | None = None) -> Record:
    """Read the job file at `path`; raises `BadJob`, `files.NotAFile` or `OSError`."""
    return parse(files.read(path, files.MAX_WITH_HISTORY, trust))


def append(path: str, record: Record, added: tuple[Event, ...], *, sync: bool = False) -> Record:
    """Add events to the file, and return the record as it is then.

    Raises `FileNotFoundError` when the file was moved meanwhile.
    """
    files.append(path, record.addition(added), keep=record.keep, sync=sync)
    job = record.job._replace(history=(*record.job.history, *added))
    indent, dashes = record.columns or (0, None)
    return Record(job, (indent, indent if dashes is None else dashes), False, False, None)
