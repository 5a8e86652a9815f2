"""What the words of a command line mean: a spool and a job id."""

from __future__ import annotations

import os

from queuectl.spool.spool import Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    import click


def place(where: str | None) -> str:
    """The directory of the spool: as said, as in the environment, or the user's own."""
    said = where or os.environ.get("QUEUECTL_SPOOL")
    return os.path.abspath(os.path.expanduser(said)) if said else _own()


def spool_of(ctx: click.Context) -> Spool:
    """The spool that this command works on; raises `NotASpool`."""
    return Spool(ctx.obj)


def spool_or_new(ctx: click.Context) -> Spool:
    """The spool, made where nothing of that name exists yet but its parent does."""
    from queuectl.cli import show

    path: str = ctx.obj
    if not os.path.exists(path):
        if ctx.find_root().params.get("where") is None and path == _own():
            os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isdir(os.path.dirname(path)):
            Spool.create(path)
            show.note(f"Made a new spool: {path}")
    return Spool(path)


def _own() -> str:
    import platformdirs

    return f"{platformdirs.user_state_dir('queuectl')}/spool"


def complete_id(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The ids that begin as typed so far."""
    from queuectl.errors import QueueError
    from queuectl.job import State
    from queuectl.spool import finding

    try:
        root = Spool(place(ctx.find_root().params.get("where"))).root
        names = [name.id for state in State for name in finding.names_in(root, state)]
    except (QueueError, OSError):
        return []
    return sorted(name for name in names if name.startswith(incomplete))[:200]
