"""What the words of a command line mean: a spool and a job id."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from queuectl.api import Spool
from queuectl.errors import BadUsage, QueueError
from queuectl.system import owners

if TYPE_CHECKING:
    import click


def place(where: str | None) -> str:
    """The directory of the spool: as said, as in the environment, or the user's own."""
    if where is not None:
        return absolute("--spool", where)
    said = os.environ.get("QUEUECTL_SPOOL")
    return absolute("QUEUECTL_SPOOL", said) if said else _own()


def absolute(name: str, path: str) -> str:
    """The absolute path of a directory that `name` says; raises `QueueError`."""
    if not path:
        raise BadUsage(f"{name} is empty.", "It takes the path of a directory.")
    try:
        return os.path.abspath(os.path.expanduser(path))
    except FileNotFoundError:
        raise QueueError(
            f"{name} is {path!r}, and the directory you are in, from which that counts, is gone.",
            "Write a path that begins with /, or cd to a directory that is there.",
        ) from None


def place_of(ctx: click.Context) -> str:
    """The directory of the spool of this command; completion asks where no command was called."""
    return place(ctx.find_root().params["where"])


def spool_of(ctx: click.Context) -> Spool:
    """The spool that this command works on; raises `NotASpool`."""
    return Spool(place_of(ctx))


def spool_or_new(ctx: click.Context) -> Spool:
    """The spool, made where nothing of that name exists yet but its parent does."""
    from queuectl.cli import printer

    path = place_of(ctx)
    if not os.path.exists(path):
        make_way_to_own(path)
        if os.path.isdir(os.path.dirname(path)):
            Spool.create(path)
            printer.note(f"Made a new spool: {path}")
    return Spool(path)


def make_way_to_own(path: str) -> None:
    """Make the directories above the user's own spool, if this is it: nobody has made them by hand."""
    if not os.environ.get("QUEUECTL_SPOOL") and path == _own():
        _make_folders(os.path.dirname(path))


def _make_folders(path: str) -> None:
    if not os.path.isdir(path):
        _make_folders(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            owners.make_folder(path)


def _own() -> str:
    import platformdirs

    try:
        folder = platformdirs.user_state_dir("queuectl")
    except RuntimeError:
        folder = "~"
    if folder.startswith("~"):  # what older versions leave as it is
        raise QueueError(
            "There is no home directory for a spool of your own: HOME is not set.",
            "Name a spool with --spool DIR or in QUEUECTL_SPOOL.",
        )
    return f"{folder}/spool"
