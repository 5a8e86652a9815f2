"""The error boundary: an error becomes two sentences on standard error and an exit status.

click is imported only for an error: a plain `enqueue` runs without it.
"""

from __future__ import annotations

import contextlib
import errno
import os

from queuectl.errors import OutputTrouble, QueueError, StorageTrouble, is_interrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click


def status_of(command: Callable[[], object]) -> int:
    """The exit status of a command: what it returns, 0 where that is no number, or that of its error."""
    try:
        result = command()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - printed, or raised again
        return _status(error)
    return result if isinstance(result, int) else 0


def _status(error: BaseException) -> int:  # noqa: C901, PLR0911 - one branch an error
    """Print why a command ended; returns the exit status. With QUEUECTL_DEBUG an unknown error is raised."""
    import click

    from queuectl.cli import printer

    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case _ if isinstance(error, click.Abort) or is_interrupt(error):
            printer.note("Interrupted.")
            return 130
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return error.exit_code
        case click.ClickException():
            return _say(*_usage(error))
        case QueueError():
            return _say(error.problem, error.remedy, error.exit_status)
        case BrokenPipeError():
            # The reader of standard output has gone, as in `| head -1`.
            printer.drop(1)
            return 0
        case OutputTrouble():
            printer.drop(1)
            return _say(
                f"Standard output cannot be written to: {error.strerror}.",
                "The spool is not to blame: make room where the output goes, or send it elsewhere.",
                1,
            )
        case OSError(errno=errno.EFBIG):
            return _say(
                "A file of the spool would grow larger than this shell lets a file be.",
                "See `ulimit -f`; run `ulimit -f unlimited`, then try again.",
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


def _access(error: OSError) -> str:
    """What to do about a path that cannot be used: most often another user, such as root, owns it."""
    from queuectl.system import users

    with contextlib.suppress(OSError):
        if isinstance(error, PermissionError) and error.filename and users.HAVE_MODES:
            owner = os.lstat(error.filename).st_uid
            if owner != os.geteuid():
                import shlex  # few errors need it

                command = f"sudo chown {os.geteuid()} {shlex.quote(os.fsdecode(error.filename))}"
                return f"It belongs to {users.user_name(owner)}; if it should be yours, run `{command}`."
    if error.filename:
        return "Check that path and its permissions."
    return "Try again; `ulimit -a` shows the limits of this shell."


def _usage(error: click.ClickException) -> tuple[str, str, int]:
    from click import NoSuchOption

    context = getattr(error, "ctx", None)
    path = context.command_path if context else "queuectl"
    if isinstance(error, NoSuchOption):
        close = [f"`{option}`" for option in _meant(error.option_name, error.possibilities or [])]
        guess = f"Did you mean {' or '.join(close)}? " if close else ""
        return f"No such option {error.option_name!r}.", f"{guess}See `{path} --help`.", error.exit_code
    # click speaks of integers, which is a word of programmers.
    message = error.format_message().replace("a valid integer range", "a whole number in its range")
    return message, f"See `{path} --help`.", error.exit_code


def _meant(name: str, options: Sequence[str]) -> list[str]:
    """The options that `name` begins or misspells; click itself suggests more distant ones."""
    import difflib

    close = difflib.get_close_matches(name, options, cutoff=0.75)
    return [option for option in options if option in close or option.startswith(name)]


def _say(problem: str, remedy: str, status: int) -> int:
    from queuectl.cli import printer

    printer.note(f"Error: {problem}")
    if remedy:
        printer.note(remedy)
    return status
