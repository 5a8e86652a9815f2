"""The command `queuectl`: finds each subcommand where it is used, turns errors into words."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from queuectl.cli import completion, show
from queuectl.cli.groups import Group
from queuectl.errors import OutputTrouble, QueueError, StorageTrouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Where each command is. A module is imported when its command is used: starting is part of the speed.
COMMANDS = {
    "enqueue": "enqueue",
    "status": "reports",
    "list": "reports",
    "output": "reports",
    "logs": "reports",
    "retry": "jobs",
    "cancel": "jobs",
    "wait": "jobs",
    "dlq": "jobs",
    "prune": "jobs",
    "worker": "worker",
    "pause": "worker",
    "resume": "worker",
    "webui": "web",
    "metrics": "web",
    "config": "config",
    "init": "spool",
    "check": "spool",
    "completion": "spool",
    "version": "spool",
}


class Lazy(Group):
    """Knows its commands by name and imports them when asked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one that is asked for."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"queuectl.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from queuectl import __version__

        click.echo(f"queuectl {__version__}")
        ctx.exit()


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: queuectl enqueue 'echo hello' && queuectl worker start --drain",
)
@click.option(
    "--spool",
    "-s",
    "where",
    metavar="DIR",
    shell_complete=completion.folders,
    help="The spool. Else $QUEUECTL_SPOOL, else your own in the state directory.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
def app(where: str | None) -> None:
    """A job queue of shell commands that needs no database and no server.

    Each job is a YAML file; the directory it lies in is its state.
    """
    del where  # what needs it takes it from the context


def run(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit status. No traceback leaves it."""
    try:
        result = _invoke(arguments)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told, or raised again
        return told(error)
    return result if isinstance(result, int) else 0


def told(error: BaseException) -> int:  # noqa: C901, PLR0911 - one branch an error
    """Tell a person why a command ended; returns the exit status. Raises what is nobody's to read."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            show.note("Interrupted.")
            return 130
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return error.exit_code
        case click.ClickException():
            return _say(*_usage(error))
        case QueueError():
            return _say(error.problem, error.remedy, error.exit_status)
        case BrokenPipeError():
            # The reader has gone (`| head -1`): there is nobody to tell.
            show.drop(1)
            return 0
        case OutputTrouble():
            show.drop(1)
            return _say(
                f"Standard output cannot be written to: {error.strerror}.",
                "The spool is not to blame: make room where the output goes, or send it elsewhere.",
                1,
            )
        case OSError():
            if StorageTrouble.explains(error):
                trouble = StorageTrouble(error)
                return _say(trouble.problem, trouble.remedy, trouble.exit_status)
            place_ = f"{error.filename}: " if error.filename else ""
            return _say(f"{place_}{error.strerror or error}.", _access(error), 1)
        case Exception() if not os.environ.get("QUEUECTL_DEBUG"):
            return _say(
                f"This is a fault of queuectl: {type(error).__name__}: {error}.",
                "Run it again with QUEUECTL_DEBUG=1 and report what it prints.",
                1,
            )
    raise error


def _invoke(arguments: list[str] | None) -> Any:
    if "_QUEUECTL_COMPLETE" in os.environ:
        return app.main(args=arguments, prog_name="queuectl", standalone_mode=False)
    words = sys.argv[1:] if arguments is None else arguments
    # Not `app.main`: that answers a reader that has gone with an exit status of 1.
    with show.output(), app.make_context("queuectl", words) as context:
        try:
            return app.invoke(context)
        except click.BadOptionUsage as error:  # where a value is missing, click does not say of what
            if error.ctx is None and context.invoked_subcommand:
                error.ctx = click.Context(app, context, context.invoked_subcommand)
            raise


def _access(error: OSError) -> str:
    """What helps where a path cannot be used: most often it belongs to somebody else, such as root."""
    from queuectl.system.files import user_name

    with contextlib.suppress(OSError):
        if isinstance(error, PermissionError) and error.filename and os.name == "posix":
            owner = os.lstat(error.filename).st_uid
            if owner != os.geteuid():
                command = f"sudo chown {os.geteuid()} {shlex.quote(os.fsdecode(error.filename))}"
                return f"It belongs to {user_name(owner)}; if it should be yours, run `{command}`."
    return "Check that path and its permissions."


def _usage(error: click.ClickException) -> tuple[str, str, int]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "queuectl"
    if isinstance(error, click.NoSuchOption):
        close = [f"`{option}`" for option in _meant(error.option_name, error.possibilities or [])]
        guess = f"Did you mean {' or '.join(close)}? " if close else ""
        return f"No such option {error.option_name!r}.", f"{guess}See `{path} --help`.", error.exit_code
    # click's word for what it takes is one of programmers.
    message = error.format_message().replace("a valid integer range", "a whole number in its range")
    return message, f"See `{path} --help`.", error.exit_code


def _meant(name: str, options: Sequence[str]) -> list[str]:
    """The options that a name is the beginning or a misspelling of; click's own guess is wider."""
    import difflib

    close = difflib.get_close_matches(name, options, cutoff=0.75)
    return [option for option in options if option in close or option.startswith(name)]


def _say(problem: str, remedy: str, status: int) -> int:
    show.note(f"Error: {problem}")
    if remedy:
        show.note(remedy)
    return status
