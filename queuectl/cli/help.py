"""`help`: the pages of the guide, and a search through them."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from queuectl.cli import printer
from queuectl.cli.commands import examples
from queuectl.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from click.shell_completion import CompletionItem

GUIDE = Path(__file__).parents[1] / "guide"
#: The columns that a page takes of a wide terminal, and the characters of a place in a pipe.
_WIDEST, _LONGEST = 110, 200
#: A row of the contents: a topic and what its page says.
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_ROW = re.compile(r"^\| \[(\w+)\]\(\1\.md\) \| (.*) \|$", re.MULTILINE)


def topics() -> dict[str, str]:
    """Each topic of the guide, in order, with what its page says in a line."""
    return dict(_ROW.findall((GUIDE / "README.md").read_text(encoding="utf-8")))


def page(topic: str) -> str:
    """The page of a topic, in Markdown."""
    return (GUIDE / f"{topic}.md").read_text(encoding="utf-8")


class Place(NamedTuple):
    """A place in the guide: a heading, or a paragraph, list item, table row or line below `heading`."""

    topic: str
    heading: str
    text: str


def places(topic: str) -> Iterator[Place]:
    """The places of a page, from the top, without its contents and without what commands print."""
    heading = ""
    words: list[str] = []
    language = None
    for line in [*page(topic).splitlines(), ""]:
        is_fence = line.startswith("```")
        if words and (language is not None or is_fence or not line or line.startswith(("#", "|", "- "))):
            yield Place(topic, heading, _LINK.sub(r"\1", " ".join(words)))
            words = []
        if is_fence:
            language = line[3:] if language is None else None
        elif line.startswith("#") and language is None:
            heading = line.lstrip("# ")
            yield Place(topic, heading, "")
        elif line and language != "text" and not line.startswith("| ---") and "](#" not in line:
            words.append(line.strip("| "))


def search(words: Sequence[str]) -> list[Place]:
    """The first place of each section that holds each of the words; those in a heading first."""
    found: dict[tuple[str, str], Place] = {}
    for topic in topics():
        for place in places(topic):
            if _holds(place.text or place.heading, words):
                found.setdefault((topic, place.heading), place)
    return sorted(found.values(), key=lambda place: place.text != "")


def _holds(text: str, words: Sequence[str]) -> bool:
    """Whether a text has each of the words, in any case, in singular or plural."""
    folded = text.casefold()
    return all(word.casefold().removesuffix("s") in folded for word in words)


def sections(topic: str, words: Sequence[str]) -> str:
    """The sections of a page whose headings hold each of the words, else those whose text does."""
    parts = re.split(r"\n(?=## )", page(topic))
    for of in (lambda part: part.partition("\n")[0], str):
        found = [part for part in parts if _holds(of(part), words)]
        if found:
            return "\n\n".join(part.strip("\n") for part in found) + "\n"
    said = " ".join(words)
    raise QueueError(f"The page {topic!r} does not speak of {said!r}.", f"See `queuectl help {topic}`.")


def _topics_begun(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(topic, help=says) for topic, says in topics().items() if topic.startswith(incomplete)
    ]


@click.command(
    "help",
    context_settings={"ignore_unknown_options": True},  # `help --after` searches
    epilog=examples(
        "queuectl help               the topics",
        "queuectl help recipes       a page of the guide",
        "queuectl help recipes gpu   what that page says of a word",
        "queuectl help enqueue       a command and its options",
        "queuectl help max_retries   where the guide speaks of it",
    ),
)
@click.argument("words", metavar="[TOPIC [WORD] | COMMAND | WORD]", nargs=-1, shell_complete=_topics_begun)
@click.pass_context
def help_command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the guide: its topics, a page of it, or where it speaks of a word."""
    said = " ".join(words)
    if not words:
        _print_topics()
    elif said in topics():
        _print_page(page(said))
    elif (usage := _usage(ctx, words)) is not None:
        printer.lines(usage.splitlines())
    elif words[0] in topics():
        _print_page(sections(words[0], words[1:]))
    else:
        _print_places(words)


def _usage(ctx: click.Context, words: tuple[str, ...]) -> str | None:
    """The help of the command of this name; None if there is no such command."""
    root = ctx.find_root()
    command: click.Command | None = root.command
    context = click.Context(root.command, info_name="queuectl")
    for word in words:
        command = command.get_command(context, word) if isinstance(command, click.Group) else None
        if command is None:
            return None
        context = click.Context(command, context, word, **root.command.context_settings)
    return context.get_help()


def _print_topics() -> None:
    printer.line("The guide:")
    printer.lines(f"  {topic:<17}{says.replace('`', '')}" for topic, says in topics().items())
    printer.line("`queuectl help TOPIC` shows a page, and `queuectl help WORD` searches all of them.")
    printer.line("`queuectl help COMMAND` shows a command with its options.")


def _print_page(text: str) -> None:
    """Print Markdown: as it is in a pipe, rendered and paged on a terminal."""
    if not printer.is_terminal():
        click.echo(text, nl=False)
        return
    from rich.markdown import Markdown
    from rich.theme import Theme

    text = _LINK.sub(r"\1", text)  # a terminal follows no links within the guide
    console = printer.console()
    console.push_theme(Theme({"markdown.code": "bold cyan"}))  # its own is a black box on a light terminal
    with console.capture() as captured:
        console.print(Markdown(text, code_theme="ansi_dark"), width=min(console.width, _WIDEST))
    made = captured.get()
    if made.count("\n") < console.height:
        printer.text(made)
    else:
        click.echo_via_pager(made)


def _print_places(words: Sequence[str]) -> None:
    found, said = search(words), " ".join(words)
    if not found:
        close = get_close_matches(said, topics(), n=1)
        remedy = (
            f"Did you mean `queuectl help {close[0]}`?" if close else "See `queuectl help` for its topics."
        )
        raise QueueError(f"The guide does not speak of {said!r}.", remedy)
    width = printer.console().width if printer.is_terminal() else _LONGEST
    for place in found:
        printer.line(f"{place.topic}: {place.heading}{': ' if place.text else ''}{place.text}"[:width])
    many = "1 section" if len(found) == 1 else f"{len(found)} sections"
    printer.note(f"{many}. `queuectl help {found[0].topic} {said}` shows the first.")
