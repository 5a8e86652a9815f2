"""Where the jobs of `enqueue` come from: arguments, standard input, files, and values for a template."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from queuectl import documents
from queuectl.cli import options, values
from queuectl.errors import BadDocument, BadJob, BadUsage, QueueError
from queuectl.job.fields import ALIASES, PARSERS, no_mapping
from queuectl.job.template import Template
from queuectl.pitfalls import missing_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from queuectl.cli.values import Values


#: The options that give values, or the command for them.
OF_VALUES = frozenset({"each", "values", "csv", "array"})


class Source(NamedTuple):
    """One job as it was given, unchecked: its fields, or the error instead of them.

    `place` is the file and line, "" for a job on the command line.
    """

    place: str
    fields: dict[str, Any] | None = None
    error: QueueError | None = None


class Given(NamedTuple):
    """The jobs of one command line: how many, and a function that gives them from the start each time.

    At most `at_once` of them run at a time, as many as there are workers if it is None.
    """

    total: int
    sources: Callable[[], Iterator[Source]]
    at_once: int | None = None

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Given:
        """Jobs that are all in memory."""
        return cls(len(sources), lambda: iter(sources))


def of_jobs(line: options.Line, command: str | None, files: tuple[str, ...], *, lines: bool) -> Given:
    """The jobs of a command line without values. Raises `BadUsage`."""
    piped = (line.words == ["-"] and not line.is_list) or (not line.words and "-" in files)
    given = [bool(line.words) and not piped, command is not None, bool(files) or piped]
    if line.is_list and not line.words:
        raise BadUsage("Nothing follows `--`.", "Write the program and its arguments after it.")
    if lines and any(given[:2]):
        raise BadUsage(
            "--lines reads commands from a file or standard input, and there is another command.",
            "Leave one of them out; name a file with --file.",
        )
    if sum(given) > 1:
        raise BadUsage(
            "A command was given in more than one way.",
            "Give it once: as an argument, after `--`, with --command, with --file or on standard input.",
        )
    if command is not None:
        return Given.of([Source("", {"command": options.in_utf8(command)})])
    if line.words and not piped:
        return Given.of([_argument(line)])
    if not files and not piped and sys.stdin.isatty():
        raise BadUsage("There is no command.", "Write for example: queuectl enqueue 'echo hello'")
    texts = [_text(name) for name in files or ("-",)]
    if not lines:
        return Given.of([source for text, place in texts for source in _documents(text, place)])

    def commands() -> Iterator[Source]:
        return chain.from_iterable(_lines(text, place) for text, place in texts)

    return Given(sum(1 for _ in commands()), commands)


def of_values(
    line: options.Line, command: str | None, said: Mapping[str, str], combined: Sequence[str], *, by_nul: bool
) -> Given | None:
    """The jobs that values make of a template; None for a command line without values. Raises `BadUsage`.

    `said` are the texts of the options in `OF_VALUES`, `combined` those of `--with`.
    """
    if not said and not combined:
        if by_nul:
            raise BadUsage("-0 is for values that are read.", "Add --each COMMAND, or leave it out.")
        return None
    if "each" in said and command is not None:
        raise BadUsage("--each and --command both give the command.", "Leave one of them out.")
    template = said.get("each", command)
    words = line.words if template is not None else []
    made = [_read_values(name, said[name], by_nul=by_nul) for name in ("values", "csv") if name in said]
    at_once = None
    if "array" in said:
        array, at_once = values.of_array(said["array"])
        made.append(array)
    if combined:
        made.append(values.of_combinations(list(map(options.exact, combined))))
    if words == ["-"] and not line.is_list:
        made.append(_read_values("values", "-", by_nul=by_nul))
    elif words or not made:
        made.append(values.of_words(list(map(options.exact, words))))
    if len(made) > 1:
        raise BadUsage(
            "Values were given in more than one way.",
            "Give them once: as arguments, `-`, --values, --with, --csv or --array.",
        )
    return _filled(_template(line, template), made[0])._replace(at_once=at_once)


def _template(line: options.Line, text: str | None) -> str | list[str]:
    """The command that values are put into: after --each or --command, or the words of the command line."""
    if text is not None:
        text = options.in_utf8(text)
    elif line.is_list or len(line.words) > 1:
        return line.words
    else:
        text = "".join(line.words)
    if not text.strip():
        raise BadUsage("There is no command.", "Write for example: queuectl enqueue --each 'wc {}' -- *.txt")
    return text


def _read_values(option: str, text: str, *, by_nul: bool) -> Values:
    data, place = _bytes(text)
    if option == "csv":
        try:
            return values.of_csv(documents.text_of(data), place)
        except BadDocument as error:
            raise error.at(place) from None
    return values.of_text(data, by_nul=by_nul)


def _filled(command: str | list[str], given: Values) -> Given:
    template = Template(command, given.names)
    values.refuse_unused(template, given)
    total = sum(1 for _ in given)
    if not total:
        raise BadUsage(
            "There is no value, so there is no job.", "Write values after `--`, or `-` to read them."
        )
    return Given(total, lambda: (Source(f"value {row.number}", template.fields(row)) for row in given))


def _argument(line: options.Line) -> Source:
    if line.is_list:
        return Source("", {"command": line.words})
    if len(line.words) > 1:
        _refuse_bare_json(",".join(line.words))
        return Source("", {"command": line.words})
    text = line.words[0]
    if text.startswith("'{") and text.endswith("}'"):  # cmd leaves these quotes
        text = text[1:-1]
    if text.lstrip().startswith("[") and _is_json(text):
        raise BadUsage(
            "This is a JSON list; an argument is one JSON object, or a shell command.",
            "Pipe a list of jobs into `queuectl enqueue -`; put the words of a command after `--`.",
        )
    if text.lstrip().startswith("{"):
        # As cmd and older PowerShells need it, and some manuals print it.
        is_escaped = text.lstrip("{ ").startswith('\\"')
        try:
            return _source("", documents.load_json(text.replace('\\"', '"') if is_escaped else text))
        except json.JSONDecodeError as error:
            _refuse_bare_json(text)
            inside = text.lstrip()[1:]
            # `{ echo hi; }` is a group of the shell, whose brace stands alone.
            if not inside[:1].isspace() or inside.lstrip()[:1] in {'"', "}", "'"}:
                raise BadUsage(
                    f"This is not JSON: {error.msg} at character {error.pos}.",
                    "Correct it; if it is a shell command, put it after --command.",
                ) from None
        except BadDocument as error:
            raise BadUsage(error.problem, error.remedy) from None
    return Source("", {"command": text})


def _refuse_bare_json(text: str) -> None:
    """Raise `BadUsage` for a JSON object whose quotes the shell has taken: `{id:j1,command:echo hi}`."""
    names = "|".join([*PARSERS, *ALIASES])
    bare = text.strip().removeprefix("{").removesuffix("}")
    before, *parts = re.split(rf"(?:^|,)\s*({names})\s*:\s*", bare)
    if before or not parts:
        return
    fields = {
        name: int(value) if value.isdecimal() and name not in {"id", "command"} else value
        for name, value in zip(parts[::2], parts[1::2], strict=True)
    }
    raise BadUsage(
        f"This JSON has lost its quotes on the way through the shell: {text}",
        f"Put it in single quotes: queuectl enqueue {shlex.quote(json.dumps(fields))}",
    )


def _is_json(text: str) -> bool:
    try:
        documents.load_json(text)
    except json.JSONDecodeError:
        return False
    except BadDocument:  # JSON, though refused
        return True
    return True


def _text(name: str) -> tuple[str, str]:
    data, place = _bytes(name)
    try:
        return documents.text_of(data), place
    except BadDocument as error:
        raise error.at(place) from None


def _bytes(name: str) -> tuple[bytes, str]:
    place = "standard input" if name == "-" else name
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes(), place
    except OSError as error:
        raise QueueError(
            f"{place} cannot be read: {error.strerror}.", "Name a file that can be read."
        ) from None


def _lines(text: str, place: str) -> Iterator[Source]:
    """One command per line; comments, blank lines and a CR at the end of a line are skipped."""
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield Source(f"{place}, line {number}", {"command": line.removesuffix("\n").rstrip("\r")})


def _documents(text: str, place: str) -> Iterator[Source]:
    """One job, a list of jobs, JSON lines, or several YAML documents."""
    if text.lstrip()[:1] == "{" and "\n" in text.strip():
        try:
            tree = documents.load_json(text)
        except json.JSONDecodeError:
            yield from _json_lines(text, place)
            return
        except BadDocument as error:
            yield Source(place, error=error)
            return
        yield _source(place, tree)
        return
    try:
        found = documents.load_all(text)
    except BadDocument as error:
        if any(line.startswith("{") for line in text.split("\n")[1:]):
            yield from _json_lines(text, place)
        else:
            yield Source(place, error=error)
        return
    jobs = [pair for document in found for pair in _jobs_in(document)]
    if not jobs:
        yield Source(place, error=BadJob("There is no job in it.", "Write at least `command: …`."))
    for number, (line, job) in enumerate(jobs, 1):
        where = f"{place}, job {number}" if line is None else f"{place}, line {line}"
        yield _source(place if len(jobs) == 1 else where, job)


def _jobs_in(document: documents.Document) -> list[tuple[int | None, documents.Node]]:
    if not isinstance(document.tree, list):
        return [(document.line, document.tree)]
    lines = document.item_lines or [None] * len(document.tree)
    return list(zip(lines, document.tree, strict=True))


def _json_lines(text: str, place: str) -> Iterator[Source]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{place}, line {number}"
        try:
            yield _source(where, documents.load_json(line))
        except json.JSONDecodeError as error:
            yield Source(where, error=BadJob(f"It is not JSON: {error.msg} at character {error.pos}."))
        except BadDocument as error:
            yield Source(where, error=error)


def _source(place: str, tree: documents.Node) -> Source:
    if isinstance(tree, dict):
        return Source(place, dict(tree))
    if isinstance(tree, str) and missing_space(tree) is None:
        error = BadJob("It is plain text, not a job.", "Use --lines for one command per line.")
        return Source(place, error=error)
    return Source(place, error=no_mapping(tree))
