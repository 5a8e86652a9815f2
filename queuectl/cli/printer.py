"""The one module that prints: lines, tables, progress bars and JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from functools import partial
from io import TextIOWrapper
from itertools import islice
from typing import TYPE_CHECKING, cast

import click

from queuectl.errors import BadUsage, OutputTrouble
from queuectl.view.wording import CONTROL, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TextIO

#: Fewer items than this are done before anyone could read a progress bar.
MANY = 20
#: Rows of a table that get the same column widths: in a pipe, and on a terminal.
_LINES, _SCREENS = 100, 1000
COLOURS = {
    "pending": "cyan",
    "scheduled": "blue",
    "processing": "yellow",
    "completed": "green",
    "failed": "magenta",
    "dead": "red",
}


@contextlib.contextmanager
def output() -> Iterator[None]:
    """Make standard output raise `OutputTrouble`, so that its full disk is not taken for the spool's.

    Characters that its encoding lacks are written as escapes.
    """
    if isinstance(sys.stdout, TextIOWrapper) and not is_utf8():
        sys.stdout.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stdout(cast("TextIO", _Output(sys.stdout))):
        yield
        sys.stdout.flush()


def drop(stream: int) -> None:
    """Discard buffered text of standard output (1) or error (2): else Python fails on it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


class _Output:
    """A stream of text or bytes whose errors are `OutputTrouble`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        if name == "buffer":
            return _Output(found)
        return partial(_named, found) if name in {"write", "flush"} else found


def _named(call: Callable[..., Any], *some: str | bytes) -> Any:
    try:
        return call(*some)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputTrouble(error.errno, error.strerror) from None


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def notes_are_read() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def count(number: int, what: str) -> str:
    """A number of things, such as `1 job` and `2,000 jobs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def as_json(value: Any) -> None:
    """Print a JSON value on one line."""
    text = json.dumps(value, ensure_ascii=False)
    click.echo(text if is_utf8() and not CONTROL.search(text) else json.dumps(value))


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print rows as CSV, with a first line of names; what a row has besides these columns is left out."""
    import csv

    writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def is_utf8() -> bool:
    """Whether standard output can encode every character."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def line(text: str = "") -> None:
    """Print a line on standard output, with control characters made visible."""
    click.echo(visible(text))


def lines(texts: Iterable[str]) -> None:
    """Print lines as `line` does."""
    for one in texts:
        line(one)


def text(made: str) -> None:
    """Print lines with colours; the caller has made their parts visible."""
    click.echo(made, nl=False)


def note(text: str) -> None:
    """Print a line for people on standard error."""
    try:
        click.echo(visible(text), err=True)
    except OSError:  # a full disk under standard error stops no command
        drop(2)


def console() -> Any:
    """Rich's console for standard output; it honours NO_COLOR and the terminal's width."""
    from rich.console import Console

    return Console(highlight=False)


#: In a pipe a column is padded to at most this many characters: one long cell swells no other row.
_WIDEST = 200


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, wraps: bool = False, none: str = ""
) -> None:
    """A table: coloured on a terminal, where its last column is cut or wraps, plain columns in a pipe.

    The first rows are shown before the last ones are known. A column grows where a later cell is wider.
    On a terminal the text `none` is said instead of a table without rows.
    """
    shown = ([visible("" if cell is None else str(cell)) for cell in row] for row in rows)
    if is_terminal():
        for lot in _lots(shown, _SCREENS):
            if lot or not none:
                console().print(rich_table(columns, lot, wraps=wraps))
            else:
                note(none)
        return
    widths = [len(name) for name in columns[:-1]]
    head = [list(columns)]
    for lot in _lots(shown, _LINES):
        for index, width in enumerate(widths):
            widths[index] = min(_WIDEST, max([width, *(len(row[index]) for row in lot)]))
        padded = [
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
            for row in [*head, *lot]
        ]
        click.echo("\n".join("  ".join(row).rstrip() for row in padded))  # it flushes after each call
        head = []


def _lots(rows: Iterable[list[str]], size: int) -> Iterator[list[list[str]]]:
    """The rows in lots, the first of which may be empty."""
    left = iter(rows)
    lot = list(islice(left, size))
    yield lot
    while lot := list(islice(left, size)):
        yield lot


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, wraps: bool = False) -> Any:
    """The table for a terminal: too wide a one loses from its widest columns first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )

    # Rich takes the same share from all columns that may not wrap, whatever they need.
    def cut(text: str) -> Text:
        return Text(text, no_wrap=True, overflow="ellipsis" if is_utf8() else "crop")

    for name in columns:
        made.add_column(cut(name))
    for row in rows:
        cells = [cut(cell) for cell in row]
        if wraps:
            cells[-1] = Text(row[-1])
        if "STATE" in columns:
            state = columns.index("STATE")
            cells[state].stylize(COLOURS.get(row[state], ""))
        made.add_row(*cells)
    return made


def coloured(text: str, state: str | None = None) -> str:
    """A text, by default the name of a state, in the colour of a state; plain where there are no colours."""
    is_plain = not is_terminal() or os.environ.get("NO_COLOR")
    return text if is_plain else click.style(text, fg=COLOURS.get(state or text))


@contextlib.contextmanager
def progress(what: str, total: int, *, least: int = 1) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error if that is a terminal; yields a function of the number done."""
    if total < least or not notes_are_read():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # What is printed meanwhile goes to standard output, and not where the bar is.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def show(draw: Callable[[], Any], *, watch: bool) -> None:
    """Print what `draw` returns; to `watch` it on a terminal, draw it again twice a second until Ctrl-C."""
    if not watch or not is_terminal():
        text(draw())
        return
    from rich.live import Live
    from rich.text import Text

    def drawn() -> Any:
        made = draw()
        return Text.from_ansi(made) if isinstance(made, str) else made  # never read as markup

    with Live(drawn(), console=console(), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(0.5)
            live.update(drawn(), refresh=True)


def sure(question: str, yes: bool) -> bool:
    """Whether to go on with a deletion; raises `BadUsage` without a terminal to ask on."""
    if yes:
        return True
    if not can_ask():
        raise BadUsage(
            f"{question} There is no terminal to ask on, so nothing was done.",
            "Add --yes to go on, or --dry-run to see what would be deleted.",
        )
    return ask(question)


def can_ask() -> bool:
    """Whether a person can read a question and answer it."""
    return sys.stdin.isatty() and notes_are_read()


def ask(question: str) -> bool:
    """Ask a yes-or-no question on the terminal."""
    return click.confirm(visible(question), err=True)
