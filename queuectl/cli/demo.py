"""`demo`: a copy of the example spool to look at and to work off."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import click

from queuectl.cli import printer
from queuectl.cli.commands import examples
from queuectl.cli.places import absolute
from queuectl.errors import QueueError

_PACKAGE = Path(__file__).parents[1]
#: In the installed package, and in a checkout.
_EXAMPLES = (_PACKAGE / "spool_example", _PACKAGE.parent / "spool_example")


@click.command("demo", epilog=examples("queuectl demo --run", "queuectl --spool try demo"))
@click.option("--run", "is_run", is_flag=True, help="Show the copy, work it off, and show it again.")
@click.pass_context
def demo_command(ctx: click.Context, is_run: bool) -> int:
    """Copy the example spool to a place of its own, which is named; with --run, work it off."""
    place = _copied(ctx.find_root().params["where"])
    printer.line(f"A copy of the example spool: {place}")
    if is_run:
        for words in (["list"], ["worker", "start", "--drain"], ["list"]):
            if status := _shown(place, words):
                return status
    typed = ["status ends-dead", "logs comes-good", "status"]
    if not is_run:
        typed = ["list", "worker start --drain", "list", *typed]
    printer.line()
    printer.line("Go on with:" if is_run else "Try:")
    printer.line(f"  export QUEUECTL_SPOOL={shlex.quote(place)}")
    printer.lines(f"  queuectl {words}" for words in typed)
    printer.line(f"Delete it with: rm -r {shlex.quote(place)}")
    return 0


def _copied(where: str | None) -> str:
    """Copy the example to --spool, or to a new temporary directory; returns the path."""
    place = Path(tempfile.mkdtemp(prefix="queuectl-demo-") if where is None else absolute("--spool", where))
    if where is not None:
        try:
            place.mkdir()
        except FileExistsError:
            raise QueueError(f"{place} is there already.", "Name a directory that is not there.") from None
    source = next(path for path in _EXAMPLES if path.is_dir())
    shutil.copytree(source, place, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for folder, _, files in os.walk(place):
        Path(folder).chmod(0o700)
        for file in files:
            (Path(folder) / file).chmod(0o600)
    return str(place)


def _shown(place: str, words: list[str]) -> int:
    """Run a command as if it were typed; returns its exit status."""
    from queuectl.cli.main import run

    printer.line()
    printer.line(f"$ queuectl {shlex.join(words)}")
    return run(["--spool", place, *words])
