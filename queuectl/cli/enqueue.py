"""`queuectl enqueue`: jobs from arguments, standard input and files."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from queuectl import documents
from queuectl.cli import completion, options, printer
from queuectl.cli.commands import taking
from queuectl.cli.places import spool_or_new
from queuectl.errors import (
    BadDocument,
    BadJob,
    BadUsage,
    Completed,
    LongAgo,
    NotPrinted,
    OutputTrouble,
    QueueError,
)
from queuectl.job.fields import ALIASES, PARSERS, from_fields, no_mapping
from queuectl.pitfalls import missing_space
from queuectl.times import entered_moment, iso, utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from queuectl.api import Spool
    from queuectl.job.model import Job

EXAMPLES = """\b
Examples:
  queuectl enqueue "convert a.png b.jpg"               a shell command
  queuectl enqueue -- ffmpeg -i a.mov a.mp4            an argument list, no shell
  queuectl enqueue '{"id": "j1", "command": "echo hi"}'
  queuectl enqueue --id j2 --command "make" --priority 10 --delay 90s
  queuectl enqueue --file jobs.yaml
  ls *.wav | sed 's/.*/flac "&"/' | queuectl enqueue --lines -
"""


class _Enqueue(click.Command):
    """Separates the words of the command from the options before click parses the options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give click only the options."""
        if not ctx.resilient_parsing:
            with contextlib.suppress(options.Unread):  # click words the error
                line = ctx.meta["line"] = options.read(args)
                args = line.options
        return super().parse_args(ctx, args)


class Source(NamedTuple):
    """One job as it was given, unchecked: its fields, or the error instead of them.

    `place` is the file and line, "" for a job on the command line.
    """

    place: str
    fields: dict[str, Any] | None = None
    error: QueueError | None = None


@click.command("enqueue", cls=_Enqueue, epilog=EXAMPLES)
@click.argument("what", nargs=-1, shell_complete=completion.files)
@taking(*options.FIELDS, *options.RULES, *options.OTHERS)
@click.pass_context
def enqueue_command(
    ctx: click.Context,
    /,
    what: tuple[str, ...],
    command: str | None,
    files: tuple[str, ...],
    env: tuple[str, ...],
    after: tuple[str, ...],
    after_unfiled: bool,
    held: bool,
    lines: bool,
    again: bool,
    yes: bool,
    as_json: bool,
    **texts: str | None,
) -> int:
    """File jobs and print their ids, one per line.

    Each job is accepted or refused on its own: the good ones are filed, the others are listed on
    standard error, and the exit status is not 0.
    """
    del what  # the line has the command with its `--`
    said = {key: text for key, text in texts.items() if text is not None}
    flags = options.fields(said, env, lambda past: yes or _is_meant(past))
    if after:
        flags["after"] = options.after(after)
    sources = list(_sources(ctx.meta["line"], command, files, lines=lines))
    if len(sources) > 1 and "id" in said:
        raise BadUsage(
            "--id cannot be given to several jobs.", "Write the ids into the jobs, or leave it out."
        )
    if again:
        sources = [source._replace(fields=_undone(source.fields)) for source in sources]
    return _file(ctx, sources, flags, after_unfiled=after_unfiled, held=held, as_json=as_json)


def _is_meant(past: LongAgo) -> bool:
    """Ask whether a moment of long ago is meant; raises `BadUsage` without a terminal."""
    if not printer.can_ask():
        raise BadUsage(past.problem, f"{past.remedy} If it is meant, add --yes.")
    return printer.ask(f"{past.problem} Is it meant?")


def _undone(fields: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields of a record without `state`."""
    return fields and {name: value for name, value in fields.items() if name != "state"}


def _sources(
    line: options.Line, command: str | None, files: tuple[str, ...], *, lines: bool
) -> Iterator[Source]:
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
        yield Source("", {"command": options.in_utf8(command)})
    elif line.words and not piped:
        yield _argument(line)
    else:
        if not files and not piped and sys.stdin.isatty():
            raise BadUsage("There is no command.", "Write for example: queuectl enqueue 'echo hello'")
        for name in files or ("-",):
            text, place = _text(name)
            yield from _lines(text, place) if lines else _documents(text, place)


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
    place = "standard input" if name == "-" else name
    try:
        return documents.text_of(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()), place
    except BadDocument as error:
        raise error.at(place) from None
    except OSError as error:
        raise QueueError(
            f"{place} cannot be read: {error.strerror}.", "Name a file with jobs in it."
        ) from None


def _lines(text: str, place: str) -> Iterator[Source]:
    """One command per line; comments, blank lines and a CR at the end of a line are skipped."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield Source(f"{place}, line {number}", {"command": line.rstrip("\r")})


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


def _file(
    ctx: click.Context,
    sources: list[Source],
    flags: dict[str, Any],
    *,
    after_unfiled: bool,
    held: bool,
    as_json: bool,
) -> int:
    refused: list[tuple[str, QueueError]] = []
    jobs: list[Job] = []
    places: list[str] = []
    completed = 0
    for source in sources:
        try:
            jobs.append(_job(source, flags))
            places.append(source.place)
        except Completed:
            completed += 1
        except QueueError as error:
            refused.append((source.place, error))
    if len(sources) == 1 and refused:
        raise _placed(*refused[0])
    if completed:
        are = "1 job is" if completed == 1 else f"{completed:,} jobs are"
        printer.note(f"{are} completed already and not filed; --again files such jobs, too.")
    spool = spool_or_new(ctx)
    told: list[str] = []
    answers = spool.file_checked(jobs, after_unfiled=after_unfiled, held=held)
    try:
        with printer.progress("filing", len(jobs), least=printer.MANY) as advance:
            for place, job, filed in zip(places, jobs, answers, strict=False):
                if filed.error is None:
                    told.append(filed.id)
                else:
                    refused.append((place, filed.error))
                if not filed.is_new:
                    held_by = f"job {filed.id} has the unique key {job.unique!r}"
                    printer.note(f"{place}: {held_by}." if place else f"Nothing was filed: {held_by}.")
                advance(len(told))
    finally:
        try:
            _tell(spool, told, as_json=as_json)
        except OutputTrouble as error:
            printer.drop(1)
            raise NotPrinted(told, error) from None
    return _report(refused, len(told), len(sources))


def _tell(spool: Spool, told: list[str], *, as_json: bool) -> None:
    if not as_json:
        for job_id in told:
            printer.line(job_id)
        return
    from queuectl.spool import jobs
    from queuectl.view import lookup

    for job_id, answer in lookup.find_each(spool.root, told).items():
        # Race: a worker may have it by now.
        printer.as_json(spool.view(jobs.read(lookup.meant(answer)) or spool.find(job_id)))


def _placed(place: str, why: QueueError) -> QueueError:
    return why.at(place) if place else why


def _report(refused: list[tuple[str, QueueError]], filed: int, given: int) -> int:
    if not refused:
        return 0
    if given == 1:
        raise _placed(*refused[0])
    for place, why in refused:
        printer.note(f"{place}: {why}")
    printer.note(f"Filed {filed} of {given} jobs; {len(refused)} refused.")
    return 1


def _job(source: Source, flags: dict[str, Any]) -> Job:
    if source.error is not None:
        raise source.error
    fields = dict(source.fields or {})
    for older, name in ALIASES.items():
        if name in flags:
            fields.pop(older, None)
    if isinstance(fields.get("env"), dict) and "env" in flags:
        flags = flags | {"env": fields["env"] | flags["env"]}
    run_at = fields.get("run_at")
    if isinstance(run_at, str) and run_at.startswith("+"):
        fields["run_at"] = iso(entered_moment("run_at", run_at, utc_now()))
    fields |= flags
    listed = fields.pop("history", None) is not None  # it comes from `list --json`, as it was filed
    if fields.get("cwd") is None and not listed:
        fields["cwd"] = options.here()
    return from_fields(fields)
