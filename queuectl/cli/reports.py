"""`status`, `list`, `output`: what is there, and why it does not run."""

from __future__ import annotations

import codecs
import io
import re
import sys
import time
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, show
from queuectl.cli.groups import Group
from queuectl.cli.places import spool_of
from queuectl.errors import BadUsage, QueueError
from queuectl.job.history import last_attempt
from queuectl.job.model import State
from queuectl.spool import output, requests
from queuectl.times import duration, parse_moment, stamp, when
from queuectl.view import explain, lookup
from queuectl.view.attention import findings, worded
from queuectl.view.wording import visible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import Any

    from click.shell_completion import CompletionItem

    from queuectl.api import Spool
    from queuectl.spool.jobs import Found

LIVE = ("pending", "scheduled", "processing", "failed")


# ── status ────────────────────────────────────────────────────────────────────────────────────


@click.command(
    "status",
    epilog="\b\nExamples:\n  queuectl status            the whole queue\n"
    "  queuectl status resize-42  one job, and why it does not run\n"
    "  queuectl status --watch    redrawn until Ctrl-C",
)
@click.argument("job_id", required=False, shell_complete=completion.ids_in(*completion.ANY))
@click.option("--json", "as_json", is_flag=True, help="One JSON object and nothing else.")
@click.option("--watch", "-w", is_flag=True, help="Redraw until Ctrl-C.")
@click.pass_context
def status_command(ctx: click.Context, job_id: str | None, as_json: bool, watch: bool) -> None:
    """Show the whole queue, or one job."""
    spool = spool_of(ctx)
    if job_id is not None:
        found = spool.find(job_id)
        if as_json:
            show.as_json(spool.view(found))
        elif watch:
            show.watch(lambda: _job_text(spool, lookup.again(spool.root, found)))
        else:
            click.echo(_job_text(spool, found), nl=False)
    elif as_json:
        show.as_json(_overview(spool))
    elif watch:
        batch = _Batch()
        show.watch(lambda: _overview_text(_overview(spool), batch))
    else:
        click.echo(_overview_text(_overview(spool)), nl=False)


def _overview(spool: Spool) -> dict[str, Any]:
    root, now = spool.root, spool.clock()
    texts = lookup.listed(root)
    counts = lookup.counts(root, now, texts)
    known = explain.workers(spool.root, spool.live.now())
    oldest = None if counts.oldest_due is None else max(0.0, (now - counts.oldest_due).total_seconds())
    return {
        "counts": counts.as_dict(),
        "workers": explain.alive(known),
        "average_duration_seconds": lookup.average_duration(root, texts[State.DONE]),
        "oldest_pending_seconds": oldest,
        "spool": str(spool.path),
        "paused": requests.is_paused(root),
        "attention": [worded(one) for one in findings(spool.root, counts, known, now)],
    }


class _Batch:
    """What a watcher has seen since it began: how many are done, and how long the rest takes."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: int | None = None

    def line(self, counts: dict[str, int]) -> str:
        """`done 120 of 500, about 3 min left`."""
        ended = counts["completed"] + counts["dead"]
        if self._first is None:
            self._first = ended
        left = counts["pending"] + counts["processing"] + counts["failed"]
        gained = ended - self._first
        total = gained + left
        rate = gained / max(0.001, time.monotonic() - self._began)
        rest = f", about {duration(left / rate)} left" if rate > 0 and left else ""
        return f"done {gained} of {total} since this was opened{rest}"


def _overview_text(facts: dict[str, Any], batch: _Batch | None = None) -> str:
    lines = [f"spool      {visible(facts['spool'])}"]
    for word, count in facts["counts"].items():
        shown = f"{word:<11}{count:>11,}"
        lines.append(click.style(shown, fg=show.COLOURS[word]) if show.colour() and count else shown)
    lines.append(f"workers    {facts['workers']:>11,}")
    average, oldest = facts["average_duration_seconds"], facts["oldest_pending_seconds"]
    lines.append(f"average    {duration(average):>11}   of a completed job's last run")
    lines.append(f"oldest     {duration(oldest):>11}   since the first of those that wait was due")
    if batch is not None:
        lines.append(batch.line(facts["counts"]))
    lines += [f"! {visible(text)}" for text in facts["attention"]]
    return "\n".join(lines) + "\n"


def _job_text(spool: Spool, found: Found) -> str:
    now = spool.clock()
    view = spool.view(found)
    label = view["state"]
    state = click.style(label, fg=show.COLOURS.get(label)) if show.colour() else label
    job = found.job
    pairs: list[tuple[str, Any]] = [
        ("job", found.id),
        ("state", f"{state}: {visible(explain.why(spool.root, spool.live.now(), found, now))}"),
        ("command", visible(job.command_line) if job else "(the file cannot be read)"),
        ("priority", view["priority"]),
        ("filed", when(job.created_at, now) if job and job.created_at else None),
        ("due", when(found.name.due_at, now) if label in {"scheduled", "failed"} else None),
        ("runs", f"{view['attempts']}; at most {view['max_retries'] + 1} before it is dead"),
        ("limit", duration(view["timeout"]) if view["timeout"] else "none"),
        ("cwd", job.cwd if job else None),
        ("env", " ".join(f"{key}={value}" for key, value in job.env.items()) if job and job.env else None),
        ("file", found.path),
    ]
    width = 10
    lines = [
        f"{name:<{width}}{value if name == 'state' else visible(str(value))}"
        for name, value in pairs
        if value is not None
    ]
    runs = lookup.runs_of(job) if job else []
    if runs:
        lines.append("")
        lines.append(f"{'run':<5}{'outcome':<12}{'exit':<14}{'took':<14}{'cpu':<10}{'memory':<10}worker")
        lines += [_run_line(run, now) for run in runs]
        for stream in output.STREAMS:
            path = output.log_path(spool.root, found.id, runs[-1]["attempt"], stream)
            lines.append(f"std{stream:<7}{path}")
    return "\n".join(lines) + "\n"


def _run_line(run: dict[str, Any], now: datetime) -> str:
    outcome = run.get("outcome") or "running"
    took = run.get("seconds")
    if took is None and outcome == "running" and run.get("started_at"):
        took = (now - parse_moment(run["started_at"])).total_seconds()
    code = "" if run.get("exit_code") is None else str(run["exit_code"])
    if run.get("signal"):
        code = f"{code} {run['signal']}"
    memory = f"{run['max_rss_kb'] / 1024:.0f} MB" if run.get("max_rss_kb") else "-"
    cells = (
        f"{run['attempt']:<5}{outcome:<12}{code or '-':<14}{duration(took):<14}"
        f"{duration(run.get('cpu_seconds')):<10}{memory:<10}{run.get('worker', '')}"
    )
    error = run.get("error")
    return visible(cells) + (f"\n     {visible(error)}" if error else "")


# ── list ──────────────────────────────────────────────────────────────────────────────────────


@click.command(
    "list",
    epilog="\b\nExamples:\n  queuectl list --state pending --limit 20\n"
    "  queuectl list --state dead --json | queuectl -s OTHER enqueue -",
)
@click.option("--state", type=click.Choice(list(lookup.WORDS)), help="Only jobs in this state.")
@click.option("--limit", "-n", type=click.IntRange(min=0), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.option("--watch", "-w", is_flag=True, help="Redraw until Ctrl-C.")
@click.pass_context
def list_command(
    ctx: click.Context, state: str | None, limit: int | None, as_json: bool, watch: bool
) -> None:
    """List jobs in the order in which they run; completed ones newest first."""
    spool = spool_of(ctx)
    if as_json:
        for found in spool.list(state, limit):
            show.as_json(spool.view(found))
    elif watch:
        if not show.is_terminal():
            raise BadUsage("--watch wants a terminal.", "Leave it out in a pipe.")
        height = max(5, (limit or 1000))
        batch = _Batch()
        show.watch(lambda: _live_list(spool, state, min(height, show.console().height - 6), batch))
    else:
        rows = (_row(found, spool.clock()) for found in spool.list(state, limit))
        show.table(COLUMNS, rows, state_column=1, none="No jobs.")


COLUMNS = ("ID", "STATE", "PRI", "RUNS", "WHEN", "COMMAND")


def _live_list(spool: Spool, state: str | None, limit: int, batch: _Batch) -> Any:
    from rich.console import Group
    from rich.text import Text

    now = spool.clock()
    rows = [[visible(str(cell)) for cell in _row(found, now)] for found in spool.list(state, limit)]
    head = batch.line(lookup.counts(spool.root, now).as_dict())
    return Group(Text(head), show.rich_table(COLUMNS, rows, state_column=1))


def _row(found: Found, now: datetime) -> tuple[Any, ...]:
    label = found.label(now)
    job = found.job
    runs = last_attempt(job.history) if job else 0
    command = job.command_line if job else f"({found.unreadable})"
    priority = 10 - found.name.rank if found.name.rank <= 10 else "-"
    if job and job.priority is not None:
        priority = job.priority
    return found.id, label, priority, runs, _when(found, label, now), command


def _when(found: Found, label: str, now: datetime) -> str:
    if label in {"scheduled", "failed"} and found.name.due > stamp(now):
        return f"in {duration((found.name.due_at - now).total_seconds())}"
    if label in {"completed", "dead", "processing"} and found.job and found.job.history:
        at = found.job.history[-1].get("at")
        if isinstance(at, str):
            return f"{duration(max(0.0, (now - parse_moment(at)).total_seconds()))} ago"
    return f"{duration(max(0.0, (now - found.name.due_at).total_seconds()))} ago"


# ── output ────────────────────────────────────────────────────────────────────────────────────


def _complete_id(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A job that has not run has no output, but its output can be followed."""
    states = completion.ANY if ctx.params.get("follow") else completion.HAVE_RUN
    return completion.ids_in(*states)(ctx, parameter, incomplete)


def _output_options(command: Any) -> Any:
    for option in (
        click.option("--follow", "-f", is_flag=True, help="Go on until the job ends."),
        click.option("--stderr", "err", is_flag=True, help="Only standard error, byte for byte."),
        click.option("--stdout", "out", is_flag=True, help="Only standard output, byte for byte."),
        click.option("--attempt", "-a", type=click.IntRange(min=1), help="Which run; else the last."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object and nothing else."),
        click.argument("job_id", shell_complete=_complete_id),
    ):
        command = option(command)
    return command


@click.group("output", cls=Group)
def output_command() -> None:
    """What jobs printed."""


@output_command.command("get", epilog="\b\nExample:\n  queuectl output get resize-42 --stdout > result.txt")
@_output_options
@click.pass_context
def _get(ctx: click.Context, /, **options: Any) -> None:
    """Captured stdout and stderr, exit code and completion time of a run."""
    _print_output(spool_of(ctx), **options)


@click.command("logs", epilog="\b\nExample:\n  queuectl logs resize-42 --follow")
@_output_options
@click.pass_context
def logs_command(ctx: click.Context, /, **options: Any) -> None:
    """What a job printed: the short form of `output get`."""
    _print_output(spool_of(ctx), **options)


def _print_output(
    spool: Spool, job_id: str, attempt: int | None, *, as_json: bool, out: bool, err: bool, follow: bool
) -> None:
    found = spool.find(job_id)
    if as_json and follow:
        raise BadUsage("--json and --follow do not go together.", "Leave one of them out.")
    if follow:
        streams = [name for name, wanted in (("out", out), ("err", err)) if wanted]
        _follow(spool, found, streams or ["out", "err"], attempt)
        return
    runs = {run["attempt"]: run for run in lookup.runs_of(found.job)} if found.job else {}
    if not runs:
        raise QueueError(f"Job {found.id} has not run yet.", f"See `queuectl status {found.id}`.")
    number = attempt or max(runs)
    if number not in runs:
        raise QueueError(f"Job {found.id} has no run {number}.", f"Its last run is {max(runs)}.")
    run = runs[number]
    texts = {
        stream: (block for _, block in output.read_log(spool.root, found.id, number, stream))
        for stream in output.STREAMS
    }
    if as_json:
        whole = {f"std{s}": b"".join(text).decode("utf-8", "replace") for s, text in texts.items()}
        facts = {key: run.get(key) for key in ("exit_code", "signal", "error", "worker", "started_at")}
        show.as_json(
            {"id": found.id, "attempt": number, **whole, **facts, "completed_at": run.get("ended_at")}
        )
        return
    paper = _Paper()
    if out or err:
        for stream in [name for name, wanted in (("out", out), ("err", err)) if wanted]:
            paper.emit(stream, texts[stream])
        paper.finish()
        return
    ended = run.get("ended_at")
    print_head = f"run {number}: {run.get('outcome') or 'running'}"
    if run.get("exit_code") is not None:
        print_head += f", exit code {run['exit_code']}"
    show.line(print_head + (f", completed at {explain.clock(ended)}" if ended else ""))
    for stream in output.STREAMS:
        show.line(f"── std{stream} ──")
        paper.emit(stream, texts[stream])
        paper.finish()
        paper.end_line()


_BREAKS = re.compile(r"([\t\n])")


class _Paper:
    """Where the streams of runs are printed: byte for byte into a pipe or file, as text on a terminal.

    On a terminal control characters are shown and not obeyed, but for line ends, and tabs, which become
    spaces. A carriage return ends a line, so that each state of a progress bar has its own.
    """

    def __init__(self) -> None:
        self._is_terminal = show.is_terminal()
        self._decoders: dict[object, io.IncrementalNewlineDecoder] = {}
        self._last: object = None
        self._column = 0

    def emit(self, stream: object, blocks: Iterable[bytes]) -> None:
        """Print more of a stream; a character or line end may come in two parts."""
        sys.stdout.flush()
        for block in blocks:
            if self._is_terminal:
                self._print(stream, self._decoder(stream).decode(block))
            elif block:
                sys.stdout.buffer.write(block)
                self._column = 0 if block.endswith(b"\n") else 1
        sys.stdout.flush()

    def finish(self) -> None:
        """Print what of a character was left over; on a terminal begin a new line."""
        if self._is_terminal:
            for stream, decoder in self._decoders.items():
                self._print(stream, decoder.decode(b"", final=True))
            self._decoders.clear()
            self.end_line()

    def end_line(self) -> None:
        """Begin a new line if the last one is not ended."""
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


def _has_ended(found: Found, run: int | None) -> bool:
    runs = lookup.runs_of(found.job) if found.job else []
    return any(one["attempt"] == run and "outcome" in one for one in runs)


def _follow(spool: Spool, found: Found, streams: list[str], only: int | None) -> None:
    """Print what comes, run after run, until the job is done or dead; or one run to its end.

    Where another run begins, a line on standard error says so: what is piped stays what the job printed.
    """
    sent: dict[tuple[int, str], int] = {}
    paper = _Paper()
    run = only or (last_attempt(found.job.history) if found.job else 0)
    first = max(1, run)
    while True:
        ended = found.state in {State.DONE, State.DEAD} or _has_ended(found, only)
        last = only or max(run, last_attempt(found.job.history) if found.job else 0)
        # A log that is asked for before its run has begun would stay "not there" for a while on NFS.
        for number in range(max(first, run), last + 1):
            if number > max(first, run):
                paper.finish()
                show.note(f"── run {number} ──")
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
