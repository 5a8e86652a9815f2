"""What commands are made of: the spool they get, the options that several have, and groups of them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion
from queuectl.cli.places import spool_of
from queuectl.errors import BadUsage, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from queuectl.cli.options import Option
    from queuectl.job.model import State

#: For each group, its commands and the words that users of other programs type for them.
HABITS = {
    "": {
        "worker start": ["run", "start", "work", "launch", "process"],
        "worker stop": ["stop", "quit", "shutdown"],
        "worker status": ["ps", "workers"],
        "enqueue": ["add", "submit", "push", "put", "queue", "schedule", "new", "exec"],
        "list": ["ls", "jobs", "ll"],
        "status": ["show", "info", "inspect", "stats", "st", "describe"],
        "status --watch": ["top", "watch", "monitor"],
        "logs": ["log", "cat"],
        "logs --follow": ["tail", "follow"],
        "cancel": ["kill", "rm", "abort", "remove", "delete", "del"],
        "retry": ["rerun", "requeue", "redo", "restart"],
        "resume": ["unpause", "continue"],
        "dlq list": ["dead", "failed"],
        "config list": ["settings", "conf"],
        "webui": ["web", "ui", "dashboard", "serve", "gui"],
        "check": ["fsck", "doctor", "verify"],
        "init": ["create", "setup"],
        "help": ["man", "manual", "guide", "docs", "?"],
    },
    "worker": {
        "worker start": ["run", "add", "launch", "restart"],
        "worker stop": ["kill", "quit", "rm", "remove", "shutdown"],
        "worker status": ["list", "ls", "ps", "show", "info"],
    },
    "group": {
        "group list": ["ls", "show", "status", "ps"],
        "group set": ["add", "create", "new", "edit", "limit"],
        "group pause": ["stop", "hold"],
        "group resume": ["unpause", "continue", "start", "release"],
    },
    "dlq": {"dlq list": ["ls", "show", "status"], "dlq retry": ["requeue", "rerun", "restart"]},
    "config": {"config list": ["ls", "all"], "config unset": ["reset", "rm", "remove", "delete"]},
    "output": {"output get": ["show", "cat", "logs", "log", "print"]},
}

_COMPLETED = {"DIR": completion.folders, "FILE": completion.files}


def taking(*rows: Option) -> Callable[[Any], Any]:
    """Give a command these options, in their order."""

    def given(command: Any) -> Any:
        for row in reversed(rows):
            command = click.option(
                *row.names,
                row.key,
                metavar=row.value,
                type=None if row.least is None else click.IntRange(row.least),
                is_flag=True if row.value is None else None,  # False would let its value be left out
                multiple=row.repeats,
                help=row.help,
                shell_complete=_COMPLETED.get(row.value or ""),
            )(command)
        return command

    return given


def jobs_argument(*states: State, required: bool = False) -> Callable[[Any], Any]:
    """The argument of a command that takes the ids of jobs in these states."""
    return click.argument("job_ids", nargs=-1, required=required, shell_complete=completion.ids_in(*states))


def jobs_or_all(job_ids: Sequence[str], everything: bool) -> None:
    """Raise `BadUsage` unless either jobs or --all were given."""
    if bool(job_ids) == everything:
        raise BadUsage(
            "Jobs and --all were both given." if everything else "No job was named.",
            "Name the ids of jobs, or say --all.",
        )


def examples(*lines: str) -> str:
    """The examples at the end of a command's help."""
    return "\n".join(["\b\nExamples:" if len(lines) > 1 else "\b\nExample:", *(f"  {one}" for one in lines)])


class Group(click.Group):
    """A group that suggests a command for an unknown word."""

    def on_spool(self, name: str, *lines: str) -> Callable[[Callable[..., object]], click.Command]:
        """Make a command of a function of the opened spool and the options; `lines` are its examples."""
        return lambda function: self.command(name, epilog=examples(*lines))(with_spool(function))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; raises `BadUsage` for an unknown one."""
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args and args[0] not in known and not args[0].startswith("-"):
            whose = f"`{ctx.command_path}` has" if ctx.parent else "There is"
            group = ctx.command.name or "" if ctx.parent else ""
            raise BadUsage(f"{whose} no command {args[0]!r}.", _meant(group, args[0], known))
        return super().resolve_command(ctx, args)


def _meant(group: str, word: str, known: list[str]) -> str:
    habits = HABITS.get(group, {})
    meant = next((command for command, words in habits.items() if word.lower() in words), None)
    return nearest(word, known) if meant is None else f"Did you mean `queuectl {meant}`?"


def on_spool(name: str, *lines: str) -> Callable[[Callable[..., object]], click.Command]:
    """As `Group.on_spool`, for a command of no group."""
    return lambda function: click.command(name, epilog=examples(*lines))(with_spool(function))


def with_spool(function: Callable[..., object]) -> Callable[..., object]:
    """The function with the spool of the command line as its first argument."""

    @click.pass_context
    @functools.wraps(function)
    def run(ctx: click.Context, /, **options: Any) -> object:
        return function(spool_of(ctx), **options)

    return run
