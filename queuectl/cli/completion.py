"""Shell completion: ids of jobs in the states that a command takes, workers, paths; `completion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from queuectl.cli.places import spool_of
from queuectl.errors import QueueError
from queuectl.job.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from queuectl.spool.root import Root

    Complete: TypeAlias = "Callable[[click.Context, click.Parameter, str], list[CompletionItem]]"

#: States of jobs, by what a command does.
ANY = tuple(State)
LIVE = (State.PENDING, State.FAILED, State.PROCESSING)
HAVE_RUN = (State.FAILED, State.PROCESSING, State.DONE, State.DEAD)
MAY_RUN_AGAIN = (State.FAILED, State.DONE, State.DEAD)
#: At most this many names are offered; of more, their common beginnings.
OFFERED = 200


def ids_in(*states: State) -> Complete:
    """Completes the ids of jobs in these states, and their batches, without those that are named already."""

    def names(root: Root) -> Iterable[str]:
        from queuectl.spool import batches, jobs

        for state in states:
            for name in jobs.names_in(root, state):
                yield name.id
                if batch := batches.batch_of(name.id):
                    yield batch

    return _one_of(names)


def _live_workers(root: Root) -> Iterable[str]:
    from queuectl.spool import descriptions
    from queuectl.spool.onlooker import Onlooker

    onlooker = Onlooker(root)
    return (name for name in descriptions.described(root) if onlooker.is_alive(name, float("inf")))


def _one_of(names: Callable[[Root], Iterable[str]]) -> Complete:
    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        named = ctx.params.get(parameter.name or "") or ()
        try:
            found = {name for name in names(spool_of(ctx).root) if name.startswith(incomplete)}
        except (QueueError, OSError):  # a message would garble the prompt
            return []
        return [CompletionItem(name) for name in _offered(sorted(found.difference(named)))]

    return complete


def _offered(names: list[str]) -> list[str]:
    """The sorted names; of too many, their beginnings: the shell completes the common part."""
    if len(names) <= OFFERED:
        return names
    pairs = zip(names[0], names[-1], strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if one != other), len(names[0]))
    return sorted({name[: same + 1] for name in names})


live_workers = _one_of(_live_workers)


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the names of files."""
    return [CompletionItem(incomplete, type="file")]


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the names of directories."""
    return [CompletionItem(incomplete, type="dir")]


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
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "queuectl", "_QUEUECTL_COMPLETE").source())
