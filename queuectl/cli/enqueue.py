"""`queuectl enqueue`: from whatever was typed, piped or written into a file to jobs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from queuectl import disk
from queuectl.cli import options, show
from queuectl.cli.places import spool_or_new
from queuectl.errors import BadDocument, BadJob, BadUsage, OutputTrouble, QueueError
from queuectl.job import ALIASES, Job, from_fields
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from queuectl.spool.spool import Spool

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
    """Notes whether the words after `--` are an argument list."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split at the first `--`: what follows is one command, word by word."""
        if "--" in args:
            at = args.index("--")
            ctx.meta["words"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


class Source(NamedTuple):
    """One job as it was given, not judged yet: its fields, or why there are none, and its place."""

    place: str
    fields: dict[str, Any] | None = None
    error: QueueError | None = None


@click.command("enqueue", cls=_Enqueue, epilog=EXAMPLES)
@click.argument("what", nargs=-1)
@click.option("--id", "job_id", metavar="ID", help="Its id; else a short one is made.")
@click.option("--command", "-c", metavar="COMMAND", help="The shell command.")
@click.option("--priority", "-p", metavar="0..10", help="10 is the most urgent.")
@click.option("--max-retries", metavar="N", help="Tries after the first one.")
@click.option("--timeout", "-t", metavar="SECONDS", help="Time limit (also 90s, 10m, 2h); 0 = none.")
@click.option("--backoff-base", metavar="N", help="The n-th retry waits N ** n seconds.")
@click.option("--run-at", metavar="WHEN", help="2026-11-08T15:00:00Z, or +10m from now.")
@click.option("--delay", metavar="TIME", help="So long from now: 90s, 10m, 2h, 1d.")
@click.option("--cwd", metavar="DIR", help="Where it runs; else where you are now.")
@click.option("--env", "-e", "env", metavar="K=V", multiple=True, help="A variable; may be repeated.")
@click.option("--file", "-f", "files", metavar="FILE", multiple=True, help="JSON, JSON lines or YAML.")
@click.option("--lines", is_flag=True, help="One shell command a line, from FILE or standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a job instead of its id.")
@click.pass_context
def enqueue_command(
    ctx: click.Context,
    /,
    what: tuple[str, ...],
    job_id: str | None,
    command: str | None,
    files: tuple[str, ...],
    run_at: str | None,
    delay: str | None,
    cwd: str | None,
    env: tuple[str, ...],
    lines: bool,
    as_json: bool,
    **plain: str | None,
) -> int:
    """File jobs; prints the id of each, one a line.

    Each job is accepted or rejected for itself: the good ones are in, the others are named on
    standard error and the exit status is not 0.
    """
    named = {"id": job_id} | plain
    said = {key: value for key, value in named.items() if value is not None}
    flags = options.fields(said, run_at, delay, cwd, env)
    sources = list(_sources(what, ctx.meta.get("words"), command, files, lines=lines))
    if len(sources) > 1 and job_id is not None:
        raise BadUsage("--id cannot be given to several jobs.", "Write an id into each of them.")
    return _file(ctx, sources, flags, as_json=as_json)


def _sources(
    what: tuple[str, ...],
    words: list[str] | None,
    command: str | None,
    files: tuple[str, ...],
    *,
    lines: bool,
) -> Iterator[Source]:
    piped = what == ("-",) or (not what and "-" in files)
    given = [bool(words), command is not None, bool(what) and not piped, bool(files) or piped]
    if words is not None and not words:
        raise BadUsage("Nothing follows `--`.", "Write the program and its arguments after it.")
    if lines and any(given[:3]):
        raise BadUsage(
            "--lines reads commands from a file or standard input, and one was given beside it.",
            "Leave one of them out; a file is named with --file.",
        )
    if sum(given) > 1:
        raise BadUsage(
            "A command was given in more than one way.",
            "Give it once: as an argument, after `--`, with --command, with --file or on standard input.",
        )
    if words:
        yield Source("the command", {"command": list(words)})
    elif command is not None:
        yield Source("--command", {"command": command})
    elif what and not piped:
        yield _argument(what)
    else:
        if not files and not piped and sys.stdin.isatty():
            raise BadUsage("There is no command.", "Write for example: queuectl enqueue 'echo hello'")
        for name in files or ("-",):
            text, place = _text(name)
            yield from _lines(text, place) if lines else _documents(text, place)


def _argument(what: tuple[str, ...]) -> Source:
    if len(what) > 1:
        return Source("the command", {"command": list(what)})
    text = what[0]
    if text.lstrip().startswith("[") and _is_json(text):
        raise BadUsage(
            "This is a JSON list; an argument is one JSON object, or a shell command.",
            "Pipe a list of jobs into `queuectl enqueue -`; put the words of a command after `--`.",
        )
    if text.lstrip().startswith("{"):
        try:
            return _source("the JSON object", disk.load_json(text))
        except json.JSONDecodeError as error:
            inside = text.lstrip()[1:]
            # `{ echo hi; }` is a group of the shell, whose brace stands alone.
            if not inside[:1].isspace() or inside.lstrip()[:1] in {'"', "}", "'"}:
                raise BadUsage(
                    f"This is not JSON: {error.msg} at character {error.pos}.",
                    "Mend it; if it is a shell command, put it after --command.",
                ) from None
        except BadDocument as error:
            raise BadUsage(error.problem, error.remedy) from None
    return Source("the command", {"command": text})


def _is_json(text: str) -> bool:
    try:
        disk.load_json(text)
    except json.JSONDecodeError:
        return False
    except BadDocument:  # but nothing that can be taken
        return True
    return True


def _text(name: str) -> tuple[str, str]:
    if name == "-":
        return disk.text_of(sys.stdin.buffer.read()), "standard input"
    try:
        return disk.text_of(Path(name).read_bytes()), name
    except OSError as error:
        raise QueueError(
            f"{name} cannot be read: {error.strerror}.", "Name a file with jobs in it."
        ) from None


def _lines(text: str, place: str) -> Iterator[Source]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield Source(f"{place}, line {number}", {"command": line})


def _documents(text: str, place: str) -> Iterator[Source]:
    """One job, a list of jobs, JSON lines, or several YAML documents."""
    if text.lstrip()[:1] == "{" and "\n" in text.strip():
        try:
            tree = disk.load_json(text)
        except json.JSONDecodeError:
            yield from _json_lines(text, place)
            return
        except BadDocument as error:
            yield Source(place, error=error)
            return
        yield _source(place, tree)
        return
    try:
        documents = disk.load_all(text)
    except BadDocument as error:
        if any(line.startswith("{") for line in text.split("\n")[1:]):
            yield from _json_lines(text, place)
        else:
            yield Source(place, error=error)
        return
    jobs = [pair for document in documents for pair in _jobs_in(document)]
    if not jobs:
        yield Source(place, error=BadJob("There is no job in it.", "Write at least `command: …`."))
    for number, (line, job) in enumerate(jobs, 1):
        where = f"{place}, job {number}" if line is None else f"{place}, line {line}"
        yield _source(place if len(jobs) == 1 else where, job)


def _jobs_in(document: disk.Document) -> list[tuple[int | None, disk.Node]]:
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
            yield _source(where, disk.load_json(line))
        except json.JSONDecodeError as error:
            yield Source(where, error=BadJob(f"It is not JSON: {error.msg} at character {error.pos}."))
        except BadDocument as error:
            yield Source(where, error=error)


def _source(place: str, tree: disk.Node) -> Source:
    if isinstance(tree, str):
        return Source(
            place, error=BadJob("It is plain text, not a job.", "Say --lines for one command a line.")
        )
    if not isinstance(tree, dict):
        return Source(place, error=BadJob("It is not a mapping of fields.", "Write at least `command: …`."))
    return Source(place, dict(tree))


def _file(ctx: click.Context, sources: list[Source], flags: dict[str, Any], *, as_json: bool) -> int:
    refused: list[tuple[str, QueueError]] = []
    jobs: list[Job] = []
    places: list[str] = []
    for source in sources:
        try:
            jobs.append(_job(source, flags))
            places.append(source.place)
        except QueueError as error:
            refused.append((source.place, error))
    if len(sources) == 1 and refused:
        raise refused[0][1]
    spool = spool_or_new(ctx)
    told: list[str] = []
    try:
        with show.progress("filing", len(jobs), least=show.MANY) as advance:
            for place, filed in zip(places, spool.file_many(jobs), strict=False):
                if filed.error is None:
                    told.append(filed.id)
                else:
                    refused.append((place, filed.error))
                advance(len(told))
    finally:
        try:
            _tell(spool, told, as_json=as_json)
        except OutputTrouble as error:
            show.drop(1)
            raise QueueError(
                f"The ids cannot be printed: {error.strerror}.",
                "The jobs are filed all the same; see `queuectl list`.",
            ) from None
    return _report(refused, len(told), len(sources))


def _tell(spool: Spool, told: list[str], *, as_json: bool) -> None:
    for job_id in told:
        if as_json:
            show.as_json(spool.view(spool.find(job_id)))
        else:
            click.echo(job_id)


def _report(refused: list[tuple[str, QueueError]], filed: int, given: int) -> int:
    if not refused:
        return 0
    if given == 1:
        raise refused[0][1]
    for place, why in refused:
        show.note(f"{place}: {why}")
    show.note(f"Filed {filed} of {given} jobs; {len(refused)} refused.")
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
        fields |= options.times(run_at, None)
    fields |= flags
    listed = fields.pop("history", None) is not None  # it comes from `list --json`, as it was filed
    if fields.get("cwd") is None and not listed:
        fields["cwd"] = options.here()
    return from_fields(fields)
