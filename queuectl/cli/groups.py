"""Groups of commands, which answer a name that is none of theirs with those that are."""

from __future__ import annotations

import click

from queuectl.errors import BadUsage, nearest


class Group(click.Group):
    """A group whose refusal of an unknown command names the nearest one, or all of them."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; raises `BadUsage` where there is none of that name."""
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args and args[0] not in known and not args[0].startswith("-"):
            whose = f"`{ctx.command_path}` has" if ctx.parent else "There is"
            raise BadUsage(f"{whose} no command {args[0]!r}.", nearest(args[0], known))
        return super().resolve_command(ctx, args)
