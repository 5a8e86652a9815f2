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


def _status(error: BaseException) -> int:
    """Print why a command ended; returns the exit status. With QUEUECTL_DEBUG an unknown error is raised."""
    import click

    from queuectl.cli import printer

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort) or is_interrupt(error):
        printer.note("Interrupted.")
        return 130
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return error.exit_code
    if isinstance(error, BrokenPipeError | OutputTrouble):
        printer.drop(1)
        if isinstance(error, BrokenPipeError):  # the reader of standard output has gone, as in `| head -1`
            return 0
    told = _told(error)
    if told is None:
        raise error
    printer.note(f"Error: {told.problem}")
    if told.remedy:
        printer.note(told.remedy)
    return error.exit_code if isinstance(error, click.ClickException) else told.exit_status


def _told(error: BaseException) -> QueueError | None:
    """The error in words; None for one of Python's that is to be raised."""
    import click

    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, QueueError):
        return error
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, Exception) and not os.environ.get("QUEUECTL_DEBUG"):
        return QueueError(
            f"This is a fault of queuectl: {type(error).__name__}: {error}.",
            "Run it again with QUEUECTL_DEBUG=1 and report what it prints.",
        )
    return None


def _of_system(error: OSError) -> QueueError:
    if isinstance(error, OutputTrouble):
        return QueueError(
            f"Standard output cannot be written to: {error.strerror}.",
            "The spool is not to blame: make room where the output goes, or send it elsewhere.",
        )
    if error.errno == errno.EFBIG:
        return QueueError(
            "A file of the spool would grow larger than this shell lets a file be.",
            "See `ulimit -f`; run `ulimit -f unlimited`, then try again.",
        )
    if StorageTrouble.explains(error):
        return StorageTrouble(error)
    if not error.filename:
        return QueueError(
            f"{error.strerror or error}.", "Try again; `ulimit -a` shows the limits of this shell."
        )
    return QueueError(f"{error.filename}: {error.strerror or error}.", _access(error))


def _access(error: OSError) -> str:
    """What to do about a path that cannot be used: most often another user, such as root, owns it."""
    from queuectl.system import users

    with contextlib.suppress(OSError):  # then nothing is known of it
        if isinstance(error, PermissionError) and users.HAVE_MODES:
            owner = os.lstat(error.filename).st_uid
            if owner != os.geteuid():
                import shlex  # few errors need it

                command = f"sudo chown {os.geteuid()} {shlex.quote(os.fsdecode(error.filename))}"
                return f"It belongs to {users.user_name(owner)}; if it should be yours, run `{command}`."
    return "Check that path and its permissions."


def _usage(error: click.ClickException) -> QueueError:
    from click import NoSuchOption

    context = getattr(error, "ctx", None)
    remedy = f"See `{context.command_path if context else 'queuectl'} --help`."
    if isinstance(error, NoSuchOption):
        close = [f"`{option}`" for option in _meant(error.option_name, error.possibilities or [])]
        guess = f"Did you mean {' or '.join(close)}? " if close else ""
        return QueueError(f"No such option {error.option_name!r}.", guess + remedy)
    # click speaks of integers, which is a word of programmers.
    problem = error.format_message().replace("a valid integer range", "a whole number in its range")
    return QueueError(problem, remedy)


def _meant(name: str, options: Sequence[str]) -> list[str]:
    """The options that `name` begins or misspells; click itself suggests more distant ones."""
    import difflib

    close = difflib.get_close_matches(name, options, cutoff=0.75)
    return [option for option in options if option in close or option.startswith(name)]
