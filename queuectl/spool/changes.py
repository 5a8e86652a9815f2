"""Changes of fields in the text of a job file, as a person would make them: all else stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import documents
from queuectl.errors import BadJob, nearest
from queuectl.job.fields import ALIASES, PARSERS, field
from queuectl.job.layout import to_yaml
from queuectl.job.model import Job
from queuectl.spool import jobfile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from queuectl.documents import Span

#: What precedes the name of a variable in the key of a change.
ENV = "env."
#: Fields that nobody changes once the job is filed.
FIXED = frozenset({"id", "moved_from", "created_at", "history"})
#: What every field has that a file does not give.
_DEFAULTS = Job("")


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Changes whose values are text, lists and mappings as in a job file, with their true values.

    A key is a field or `env.NAME`, and None takes it out. Raises `BadJob`.
    """
    found = {}
    for key, value in given.items():
        name = ALIASES.get(key, key)
        if key.startswith(ENV):
            variable = key.removeprefix(ENV)
            found[key] = None if value is None else field("env", {variable: value})[variable]
        elif name in FIXED:
            raise BadJob(f"The field {key!r} stays as it was filed.", "Leave it out.")
        elif name not in PARSERS:
            raise BadJob(f"The field {key!r} is unknown.", nearest(key, [*PARSERS.keys() - FIXED, *ALIASES]))
        elif value is None and name == "command":
            raise BadJob("A job needs a command.", "Write `command=…`.")
        else:
            found[name] = None if value is None else field(key, value)
    return found


def changed(job: Job, changes: Mapping[str, Any]) -> Job:
    """The job with these values. A key is a field or `env.NAME`; None takes the field out."""
    env = dict(job.env)
    fields = {}
    for key, value in changes.items():
        if not key.startswith(ENV):
            fields[key] = getattr(_DEFAULTS, key) if value is None else value
        elif value is None:
            env.pop(key.removeprefix(ENV), None)
        else:
            env[key.removeprefix(ENV)] = value
    return job._replace(**{"env": env, **fields})


def edited(data: bytes, changes: Mapping[str, Any]) -> bytes:
    """The bytes of a job file after these changes, of which `changed` makes the job.

    The value of a field that is there is replaced, and other fields are added above the history. So every
    comment stays. A file in flow style is laid out again. Raises `BadJob` where a comment could not stay.
    """
    job = jobfile.parse(data).job
    wanted = changed(job, changes)
    head, history = split(documents.text_of(data))
    spans = documents.spans(head)
    if not spans:
        return to_yaml(wanted).encode()
    keys = dict.fromkeys("env" if key.startswith(ENV) else key for key in changes)
    for start, end, text in sorted(_edits(head, spans, keys, job, wanted), reverse=True):
        head = head[:start] + text + head[end:]
    new = f"{head}{history}".encode()
    try:
        if jobfile.parse(new).job == wanted:
            return new
    except BadJob:
        pass
    if "#" in head:
        raise BadJob("The layout of its file does not allow that.", "Change it with `queuectl edit`.")
    return to_yaml(wanted).encode()


def split(text: str) -> tuple[str, str]:
    """The fields of a job file, and its history from the line `history:` on, "" where there is none."""
    head, heading, history = text.rpartition(jobfile.HEADING)
    return (f"{head}\n", f"{heading[1:]}{history}") if heading else (history, "")


def _edits(
    head: str, spans: Mapping[str, Span], keys: Mapping[str, None], job: Job, wanted: Job
) -> Iterator[tuple[int, int, str]]:
    """What is to stand in the place of which part of the text."""
    indent = " " * _column(head, min(span.start for span in spans.values()))
    added = ""
    for key in keys:
        lines = _lines(key, wanted).replace("\n", f"\n{indent}")
        names = [key, *(alias for alias, name in ALIASES.items() if name == key)]
        span = next((spans[name] for name in names if name in spans), None)
        if span is None:
            added += f"{indent}{lines}\n" if lines else ""
        elif key == "env" and span.inside:
            yield from _in_env(head, span, job.env, wanted.env)
        else:
            yield _replacing(head, span, lines)
    if added:
        at = spans["history"].start - len(indent) if "history" in spans else len(head)
        yield at, at, added if head[:at].endswith("\n") or not at else f"\n{added}"


def _in_env(
    head: str, span: Span, before: Mapping[str, str], env: Mapping[str, str]
) -> Iterator[tuple[int, int, str]]:
    """The same for the variables in a block."""
    indent = " " * _column(head, min(one.start for one in span.inside.values()))
    for name in [name for name in before if env.get(name) != before[name]]:
        one = span.inside[name]
        yield _replacing(head, one, _variable(name, env[name]) if name in env else "")
    added = "".join(f"\n{indent}{_variable(name, env[name])}" for name in env if name not in span.inside)
    if added:
        at = span.end + len((head[span.end :] + "\n").partition("\n")[0])
        yield at, at, added


def _replacing(head: str, span: Span, lines: str) -> tuple[int, int, str]:
    """The pair as these lines; without any it is taken out, with its line if no comment stands there."""
    start, end = span.start, span.end
    if lines:
        return start, end, lines
    rest = head[end:].partition("\n")[0]
    if rest.strip():
        return start, end + len(rest) - len(rest.lstrip()), ""
    return start - _column(head, start), end + len(rest) + 1, ""


def _column(text: str, at: int) -> int:
    return at - text.rfind("\n", 0, at) - 1


def _lines(key: str, job: Job) -> str:
    """The lines of a field as the queue lays them out; "" for one that the job does not have."""
    text = to_yaml(_DEFAULTS._replace(**{key: getattr(job, key)}))
    span = documents.spans(text).get(key)
    return "" if span is None else text[span.start : span.end]


def _variable(name: str, value: str) -> str:
    text = to_yaml(Job("", env={name: value}))
    span = documents.spans(text)["env"].inside[name]
    return text[span.start : span.end]
