"""The command `queuectl`: each subcommand is imported when it is used."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from queuectl import __version__
from queuectl.cli import boundary, completion, printer
from queuectl.cli.commands import Group, examples

#: The commands by module, which is imported when one of them is used, for a fast start.
MODULES = {
    "enqueue": ["enqueue"],
    "reports": ["status", "list"],
    "logs": ["output", "logs"],
    "jobs": ["retry", "cancel", "wait", "dlq", "prune"],
    "parking": ["hold", "release", "set", "move"],
    "editing": ["edit"],
    "workers": ["worker", "pause", "resume"],
    "limits": ["group"],
    "web": ["webui", "metrics"],
    "config": ["config"],
    "spool": ["init", "check"],
    "completion": ["completion"],
    "demo": ["demo"],
    "help": ["help"],
    "main": ["version"],
}
#: What is said to somebody who types the name of the program alone.
FIRST_STEPS = (
    "First steps:",
    "  queuectl demo --run             an example queue, worked off before your eyes",
    "  queuectl enqueue 'echo hello'   file a job of your own; prints its id",
    "  queuectl worker start --drain   run what waits",
    "  queuectl list                   see what became of it",
    "  queuectl help tutorial          ten minutes, from the first job to the dashboard",
    "`queuectl --help` lists all commands, and `queuectl help` the pages of the guide.",
)


class Lazy(Group):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table."""
        del ctx
        return [name for names in MODULES.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        for module, names in MODULES.items():
            if cmd_name in names:
                command: click.Command = getattr(
                    import_module(f"queuectl.cli.{module}"), f"{cmd_name}_command"
                )
                return command
        return None


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The guide: queuectl help",
    invoke_without_command=True,
)
@click.option(
    "--spool",
    "-s",
    "where",
    metavar="DIR",
    shell_complete=completion.folders,
    help="The spool; without it, $QUEUECTL_SPOOL, or your own in the state directory.",
)
@click.version_option(
    __version__, "--version", "-V", message="queuectl %(version)s", help="Print the version."
)
@click.pass_context
def app(ctx: click.Context, where: str | None) -> None:
    """A job queue of shell commands that needs no database and no server.

    Each job is a YAML file; the directory it lies in is its state.
    """
    del where  # commands read it from the context
    if ctx.invoked_subcommand is None:
        printer.note(ctx.get_usage())
        for step in FIRST_STEPS:
            printer.note(step)
        ctx.exit(2)


@click.command("version", epilog=examples("queuectl version"))
def version_command() -> None:
    """Print the version."""
    printer.line(f"queuectl {__version__}")


def run(arguments: list[str] | None = None) -> int:
    """Run one command line; returns its exit status."""
    return boundary.status_of(lambda: _invoke(arguments))


def _invoke(arguments: list[str] | None) -> object:
    if "_QUEUECTL_COMPLETE" in os.environ:
        return app.main(args=arguments, prog_name="queuectl", standalone_mode=False)
    words = sys.argv[1:] if arguments is None else arguments
    # Not `app.main`: it exits with 1 when the reader of standard output has gone.
    with printer.output(), app.make_context("queuectl", words) as context:
        try:
            return app.invoke(context)
        except click.BadOptionUsage as error:  # click does not name the command
            if error.ctx is None and context.invoked_subcommand:
                error.ctx = click.Context(app, context, context.invoked_subcommand)
            raise
