"""Groups of commands; an unknown command is answered with the command that was probably meant."""

from __future__ import annotations

import click

from queuectl.errors import BadUsage, nearest

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
        "--help": ["help", "man", "?"],
    },
    "worker": {
        "worker start": ["run", "add", "launch", "restart"],
        "worker stop": ["kill", "quit", "rm", "remove", "shutdown"],
        "worker status": ["list", "ls", "ps", "show", "info"],
    },
    "dlq": {"dlq list": ["ls", "show", "status"], "dlq retry": ["requeue", "rerun", "restart"]},
    "config": {"config list": ["ls", "all"], "config unset": ["reset", "rm", "remove", "delete"]},
    "output": {"output get": ["show", "cat", "logs", "log", "print"]},
}


class Group(click.Group):
    """A group that suggests a command for an unknown word."""

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
