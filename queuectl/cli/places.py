"""Which spool a command uses, and where a new one is made."""

from __future__ import annotations

import contextlib
import os

from queuectl.api import Spool
from queuectl.errors import BadUsage, NotASpool, QueueError
from queuectl.system import users

TYPE_CHECKING = False
if TYPE_CHECKING:
    import click


def place(where: str | None) -> str:
    """The path of the spool: from --spool, from QUEUECTL_SPOOL, or the user's own."""
    if where is not None:
        return absolute("--spool", where)
    said = os.environ.get("QUEUECTL_SPOOL")
    return absolute("QUEUECTL_SPOOL", said) if said else _own()


def absolute(name: str, path: str) -> str:
    """The absolute path of a directory given as `name`; raises `QueueError`."""
    if not path:
        raise BadUsage(f"{name} is empty.", "It takes the path of a directory.")
    try:
        return os.path.abspath(os.path.expanduser(path))
    except FileNotFoundError:
        raise QueueError(
            f"{name} is {path!r}, a path relative to the directory you are in, which is gone.",
            "Write a path that begins with /, or change to another directory.",
        ) from None


def place_of(ctx: click.Context) -> str:
    """The path of the spool of this command line."""
    return place(ctx.find_root().params["where"])


def spool_of(ctx: click.Context) -> Spool:
    """Open the spool of this command line; raises `QueueError` if it is none."""
    path = place_of(ctx)
    try:
        return Spool(path)
    except NotASpool:
        if os.path.exists(path) or not _is_unnamed(ctx):
            raise
    raise QueueError(
        f"You have no queue yet: {path} does not exist.",
        "File a first job, which makes it: queuectl enqueue 'echo hello'. "
        "Or see an example: queuectl demo --run",
    )


def _is_unnamed(ctx: click.Context) -> bool:
    """Whether the spool is the user's own because none was named."""
    return ctx.find_root().params["where"] is None and not os.environ.get("QUEUECTL_SPOOL")


def spool_or_new(ctx: click.Context) -> Spool:
    """Open the spool; make it first if nothing has its name and its parent directory exists."""
    from queuectl.cli import printer

    path = place_of(ctx)
    if not os.path.exists(path):
        make_way_to_own(path)
        if os.path.isdir(os.path.dirname(path)):
            Spool.create(path)
            printer.note(f"Made a new spool: {path}")
    return Spool(path)


def make_way_to_own(path: str) -> None:
    """Make the directories above the user's own spool, if `path` is that."""
    if not os.environ.get("QUEUECTL_SPOOL") and path == _own():
        _make_folders(os.path.dirname(path))


def _make_folders(path: str) -> None:
    if not os.path.isdir(path):
        _make_folders(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):  # another command has just made it
            users.make_folder(path)


def _own() -> str:
    import platformdirs

    try:
        folder = platformdirs.user_state_dir("queuectl")
    except RuntimeError:
        folder = "~"
    if folder.startswith("~"):  # older versions of platformdirs
        raise QueueError(
            "There is no home directory for a spool of your own: HOME is not set.",
            "Name a spool with --spool DIR or in QUEUECTL_SPOOL.",
        )
    return f"{folder}/spool"
