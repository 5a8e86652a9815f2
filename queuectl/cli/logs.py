"""`output` and `logs`: what a job printed."""

from __future__ import annotations

import codecs
import io
import re
import sys
import time
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, printer
from queuectl.cli.commands import Group, on_spool, taking
from queuectl.cli.options import AS_JSON, Option
from queuectl.cli.selecting import require, selecting
from queuectl.errors import BadUsage, QueueError
from queuectl.job.history import last_attempt
from queuectl.job.model import State
from queuectl.spool import batches, jobs, output
from queuectl.view import explain, lookup
from queuectl.view.selection import LABELS, select
from queuectl.view.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from click.shell_completion import CompletionItem

    from queuectl.api import Spool
    from queuectl.spool.jobs import Found
    from queuectl.view.selection import Selection


def _complete_id(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer jobs that have run; with --follow all jobs."""
    states = completion.ANY if ctx.params.get("follow") else completion.HAVE_RUN
    return completion.ids_in(*states)(ctx, parameter, incomplete)


@click.group("output", cls=Group)
def output_command() -> None:
    """Show what jobs printed."""


_showing = taking(
    AS_JSON,
    Option(("--attempt", "-a"), "attempt", "N", "The number of the run; without it, the last.", least=1),
    Option(("--stdout",), "out", None, "Only standard output, byte for byte."),
    Option(("--stderr",), "err", None, "Only standard error, byte for byte."),
    Option(("--follow", "-f"), "follow", None, "Continue until the job ends."),
)


@output_command.on_spool("get", "queuectl output get resize-42 --stdout > result.txt")
@click.argument("job_id", shell_complete=_complete_id)
@_showing
def _output_get(
    spool: Spool, job_id: str, attempt: int | None, as_json: bool, out: bool, err: bool, follow: bool
) -> None:
    """Show stdout, stderr, exit code and completion time of a run."""
    show(spool, job_id, attempt, as_json, out, err, follow)


def show(
    spool: Spool, job_id: str, attempt: int | None, as_json: bool, out: bool, err: bool, follow: bool
) -> None:
    """Print the output of one job."""
    found = spool.find(job_id)
    streams = [stream for stream, is_wanted in (("out", out), ("err", err)) if is_wanted]
    if follow:
        if as_json:
            raise BadUsage("--json and --follow do not go together.", "Leave one of them out.")
        _follow(spool, found, streams or list(output.STREAMS), attempt)
        return
    runs = {run["attempt"]: run for run in lookup.runs_of(found.job)}
    if not runs:
        raise QueueError(f"Job {found.id} has not run yet.", f"See `queuectl status {found.id}`.")
    run = runs.get(attempt or max(runs))
    if run is None:
        raise QueueError(f"Job {found.id} has no run {attempt}.", f"Its last run is {max(runs)}.")

    def blocks(stream: str) -> Iterable[bytes]:
        return (block for _, block in output.read_log(spool.root, found.id, run["attempt"], stream))

    if as_json:
        _print_json(found.id, run, blocks)
    else:
        _print(run, streams, blocks)


@on_spool("logs", "queuectl logs resize-42 --follow", "queuectl logs sweep --state dead")
@selecting(_complete_id)
@_showing
def logs_command(
    spool: Spool,
    chosen: Selection,
    attempt: int | None,
    as_json: bool,
    out: bool,
    err: bool,
    follow: bool,
) -> None:
    """Show what a job printed in a run; of several jobs each line with the id before it."""
    require(chosen)
    selected = select(spool.root, chosen, LABELS, spool.clock())
    if selected.errors:
        raise selected.errors[0]
    if len(selected.found) == 1 and not batches.is_taken(spool.root, chosen.words[0] if chosen.words else ""):
        show(spool, selected.found[0].id, attempt, as_json, out, err, follow)
        return
    streams = [stream for stream, is_wanted in (("out", out), ("err", err)) if is_wanted]
    if as_json:
        for one in selected.found:
            if (reading := jobs.read(one)) and lookup.runs_of(reading.job):
                show(spool, one.id, attempt, True, out, err, follow)
        return
    log = _Together(spool, streams or list(output.STREAMS), attempt)
    log.look(sorted(selected.found, key=_number))
    while follow and not log.is_over:
        time.sleep(0.25)
        log.look(select(spool.root, chosen, LABELS, spool.clock()).found)


def _print_json(job_id: str, run: dict[str, Any], blocks: Callable[[str], Iterable[bytes]]) -> None:
    whole = {f"std{one}": b"".join(blocks(one)).decode("utf-8", "replace") for one in output.STREAMS}
    facts = {key: run.get(key) for key in ("exit_code", "signal", "error", "worker", "started_at")}
    head = {"id": job_id, "attempt": run["attempt"]}
    printer.as_json(head | whole | facts | {"completed_at": run.get("ended_at")})


def _print(run: dict[str, Any], streams: list[str], blocks: Callable[[str], Iterable[bytes]]) -> None:
    """Print these streams and nothing else or, if there are none, both with the facts of the run."""
    paper = _Paper()
    for stream in streams:
        paper.emit(stream, blocks(stream))
    if streams:
        paper.finish()
        return
    code, ended = run.get("exit_code"), run.get("ended_at")
    head = [f"run {run['attempt']}: {run.get('outcome') or 'running'}"]
    if code is not None:
        head.append(f"exit code {code}")
    if ended:
        head.append(f"completed at {explain.clock(ended)}")
    printer.line(", ".join(head))
    for stream in output.STREAMS:
        printer.line(f"── std{stream} ──")
        paper.emit(stream, blocks(stream))
        paper.finish()
        paper.end_line()


def _follow(spool: Spool, found: Found, streams: list[str], only: int | None) -> None:
    """Print the output of run after run until the job is done or dead, or of one run until its end.

    The beginning of another run is announced on standard error: standard output has only the job's bytes.
    """
    sent: dict[tuple[int, str], int] = {}
    paper = _Paper()
    run = only or max(1, _last_run(found))
    while True:
        runs = lookup.runs_of(found.job)
        ended = found.state in {State.DONE, State.DEAD}
        ended |= any(one["attempt"] == only and "outcome" in one for one in runs)
        last = only or max(run, _last_run(found))
        # An NFS client caches that a name does not exist: open no log before its run has begun.
        for number in range(run, last + 1) if runs else ():
            if number > run:
                paper.finish()
                printer.note(f"── run {number} ──")
            for stream in streams:
                at = sent.get((number, stream), 0)
                for place, block in output.read_log(spool.root, found.id, number, stream, at):
                    paper.emit((number, stream), [block])
                    sent[number, stream] = place
        run = last
        if ended:
            paper.finish()
            return
        time.sleep(0.1)
        found = lookup.again(spool.root, found)


def _number(found: Found) -> tuple[str, int]:
    """Where a job stands among others: members of a batch by their numbers."""
    name = batches.batch_of(found.id)
    return (found.id, 0) if name is None else (name, batches.number_of(found.id))


class _Together:
    """The output of many jobs: whole lines, each with the id of its job before it."""

    def __init__(self, spool: Spool, streams: list[str], only: int | None) -> None:
        self._spool = spool
        self._streams = streams
        self._only = only
        self._seen: set[tuple[State, str]] = set()
        self._at: dict[tuple[str, int, str], int] = {}
        self._rests: dict[tuple[str, int, str], bytes] = {}
        self.is_over = False

    def look(self, found: Iterable[Found]) -> None:
        """Print what is new. A job that does not run is read once under each of its names."""
        self.is_over = True
        for one in found:
            is_over = one.state in {State.DONE, State.DEAD}
            self.is_over &= is_over
            if one.state is State.PENDING or (one.state, str(one.name)) in self._seen:
                continue
            if (reading := jobs.read(one)) is None:
                self.is_over = False  # it moves just now
                continue
            for run in lookup.runs_of(reading.job):
                self._print(one.id, run)
            if one.state is not State.PROCESSING:
                self._seen.add((one.state, str(one.name)))

    def _print(self, job_id: str, run: dict[str, Any]) -> None:
        number = run["attempt"]
        if self._only not in {None, number}:
            return
        for stream in self._streams:
            key = (job_id, number, stream)
            for place, block in output.read_log(self._spool.root, *key, self._at.get(key, 0)):
                *lines, self._rests[key] = (self._rests.get(key, b"") + block).split(b"\n")
                self._at[key] = place
                self._print_lines(job_id, lines)
            if "outcome" in run and (rest := self._rests.pop(key, b"")):
                self._print_lines(job_id, [rest])

    def _print_lines(self, job_id: str, lines: list[bytes]) -> None:
        if printer.is_terminal():
            printer.lines(f"{job_id} | {line.decode('utf-8', 'replace')}" for line in lines)
            return
        sys.stdout.flush()
        for line in lines:
            sys.stdout.buffer.write(b"%s | %s\n" % (job_id.encode(), line))
        sys.stdout.flush()


def _last_run(found: Found) -> int:
    return last_attempt(found.job.history) if found.job else 0


_BREAKS = re.compile(r"([\t\n])")


class _Paper:
    """Prints the output of runs: byte for byte into a pipe or file, as text on a terminal.

    On a terminal control characters are shown as symbols, tabs become spaces, and a carriage return ends
    a line, so that each state of a progress bar has a line.
    """

    def __init__(self) -> None:
        self._is_terminal = printer.is_terminal()
        self._decoders: dict[object, io.IncrementalNewlineDecoder] = {}
        self._last: object = None
        self._column = 0

    def emit(self, stream: object, blocks: Iterable[bytes]) -> None:
        """Print more of a stream. A character or line end may be split between two calls."""
        sys.stdout.flush()
        for block in blocks:
            if self._is_terminal:
                self._print(stream, self._decoder(stream).decode(block))
            elif block:
                sys.stdout.buffer.write(block)
                self._column = 0 if block.endswith(b"\n") else 1
        sys.stdout.flush()

    def finish(self) -> None:
        """Print the rest of an incomplete character; on a terminal begin a new line."""
        if self._is_terminal:
            for stream, decoder in self._decoders.items():
                self._print(stream, decoder.decode(b"", final=True))
            self._decoders.clear()
            self.end_line()

    def end_line(self) -> None:
        """Begin a new line if the last one has no end."""
        if self._column:
            sys.stdout.write("\n")
            self._column = 0

    def _decoder(self, stream: object) -> io.IncrementalNewlineDecoder:
        if stream not in self._decoders:
            utf8 = codecs.getincrementaldecoder("utf-8")("replace")
            self._decoders[stream] = io.IncrementalNewlineDecoder(utf8, translate=True)
        return self._decoders[stream]

    def _print(self, stream: object, text: str) -> None:
        if not text:
            return
        if stream != self._last:
            self.end_line()
        self._last = stream
        for part in _BREAKS.split(text):
            shown = "\n" if part == "\n" else " " * (8 - self._column % 8) if part == "\t" else visible(part)
            self._column = 0 if part == "\n" else self._column + len(shown)
            sys.stdout.write(shown)
