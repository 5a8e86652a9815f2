"""The words and options by which commands select jobs, the same for every command."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from queuectl.errors import BadUsage
from queuectl.times import entered_duration, is_bare_number
from queuectl.view.lookup import WORDS
from queuectl.view.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from queuectl.api import Spool
    from queuectl.cli.completion import Complete


def selecting(complete: Complete, words: Iterable[str] = WORDS) -> Callable[[Any], Any]:
    """Give a command `chosen`, a `Selection`, from its arguments and options.

    `complete` completes its arguments, and `words` are what `--state` takes.
    """

    def given(function: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(function)
        def run(
            spool: Spool,
            /,
            job_ids: tuple[str, ...],
            states: tuple[str, ...],
            groups: tuple[str, ...],
            batches: tuple[str, ...],
            globs: tuple[str, ...],
            exit_codes: tuple[int, ...],
            older_than: str | None,
            **others: Any,
        ) -> object:
            chosen = Selection(
                (*job_ids, *batches),
                frozenset("completed" if word == "done" else word for word in states),
                frozenset(groups),
                globs,
                frozenset(exit_codes),
                None if older_than is None else age(older_than),
            )
            return function(spool, chosen=chosen, **others)

        for option in reversed(_options(words)):
            option(run)
        return click.argument("job_ids", nargs=-1, shell_complete=complete)(run)

    return given


def _options(words: Iterable[str]) -> list[Callable[[Any], Any]]:
    choice = click.Choice(list(words))
    return [
        click.option("--state", "states", multiple=True, type=choice, help="Only jobs in this state."),
        click.option("--group", "groups", multiple=True, metavar="NAME", help="Only jobs of this group."),
        click.option("--batch", "batches", multiple=True, metavar="NAME", help="Only jobs of this batch."),
        click.option(
            "--match", "globs", multiple=True, metavar="GLOB", help="Only jobs whose ids are like 'resize-*'."
        ),
        click.option(
            "--exit-code",
            "exit_codes",
            multiple=True,
            type=int,
            metavar="N",
            help="Only jobs whose last run ended with this exit status.",
        ),
        click.option(
            "--older-than",
            metavar="AGE",
            help="Only jobs that ended, or last changed, longer ago: 7d, 12h, 30m.",
        ),
    ]


def age(text: str) -> float:
    """The seconds that `--older-than` names. Raises `BadUsage` where it has no unit."""
    seconds = entered_duration("--older-than", text)
    if is_bare_number(text):
        bare = text.strip()
        raise BadUsage(
            f"--older-than: {bare} has no unit.", f"Write {bare}d for days, {bare}h for hours or {bare}s."
        )
    return seconds


def require(chosen: Selection) -> None:
    """Raise `BadUsage` for a selection that names nothing: it would act on all jobs."""
    if chosen.is_empty:
        raise BadUsage(
            "No job was named.", "Name ids of jobs, a batch, or an option such as --state or --match."
        )
