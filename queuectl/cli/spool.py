"""`init`, `check`, `version`, `completion`: the directory as a whole, and the command itself."""

from __future__ import annotations

from pathlib import Path

import click

from queuectl import __version__
from queuectl.cli import show
from queuectl.cli.places import spool_of
from queuectl.errors import QueueError
from queuectl.spool.spool import Spool


@click.command(
    "init",
    epilog="\b\nExamples:\n  queuectl init jobs\n  mkdir jobs; chgrp devs jobs; queuectl init --shared jobs",
)
@click.argument("where", metavar="[DIR]", required=False)
@click.option("--shared", is_flag=True, help="For all users of the group that the directory has.")
@click.pass_context
def init_command(ctx: click.Context, where: str | None, shared: bool) -> None:
    """Make a spool, with a config.yaml that explains each key; private unless it is shared."""
    path = Path(where or ctx.obj).absolute()
    if where is None and not path.parent.exists() and ctx.find_root().params.get("where") is None:
        path.parent.mkdir(parents=True)
    known = (path / "config.yaml").exists()
    spool = Spool.create(path, shared=shared)
    whose = f", shared by the group {spool.root.group}" if shared else ""
    show.line(f"{spool.path} {'was a spool already' if known else 'is a new spool'}{whose}")


@click.command("check", epilog="\b\nExamples:\n  queuectl check\n  queuectl check --repair")
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a finding.")
@click.pass_context
def check_command(ctx: click.Context, repair: bool, as_json: bool) -> int:
    """Read the whole spool; report, or mend, what does not belong. Exit status 1 if anything is left."""
    from queuectl import settings
    from queuectl.spool import checking
    from queuectl.spool.presence import Onlooker

    spool = spool_of(ctx)
    onlooker = Onlooker(spool.root)
    try:
        values = spool.settings()
    except QueueError:
        values = settings.DEFAULTS
    if repair:
        from queuectl.worker.remains import stop_remains

        found = checking.repair(spool.root, onlooker, values, stop_remains, spool.clock())
    else:
        found = list(checking.check(spool.root, onlooker, values.lock_lease_seconds, spool.clock()))
    for item in found:
        if as_json:
            show.as_json({"path": item.path, "problem": item.problem, "remedy": item.remedy})
        else:
            show.line(f"{item.path}: {item.problem}. {item.remedy}")
    if not as_json:
        left = "left to mend by hand" if repair else "found"
        show.note(f"{len(found)} {left}." if found else "Everything is in its place.")
    return 1 if found else 0


@click.command("version", epilog="\b\nExample:\n  queuectl version")
def version_command() -> None:
    """Print the version."""
    click.echo(f"queuectl {__version__}")


@click.command(
    "completion",
    epilog="\b\nExamples:\n  queuectl completion bash > ~/.local/share/bash-completion/completions/queuectl\n"
    "  queuectl completion zsh  > ~/.zfunc/_queuectl\n"
    "  queuectl completion fish > ~/.config/fish/completions/queuectl.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell; it completes job ids, too."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise QueueError(f"There is no completion for {shell}.", "Use bash, zsh or fish.")
    root = ctx.find_root().command
    click.echo(made(root, {}, "queuectl", "_QUEUECTL_COMPLETE").source())
