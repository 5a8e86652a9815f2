"""`config`: read and change the settings of a spool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl import documents, settings
from queuectl.cli import printer
from queuectl.cli.groups import Group
from queuectl.cli.places import spool_of
from queuectl.errors import BadDocument, BadSetting, BrokenConfig
from queuectl.spool import safety
from queuectl.system import drafts

if TYPE_CHECKING:
    from queuectl.spool.root import Root


@click.group("config", cls=Group)
def config_command() -> None:
    """Show and change the settings in config.yaml. Running workers use a change at once."""


def _complete_key(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in settings.KEYS if name.startswith(incomplete.replace("-", "_"))]


key_argument = click.argument("key", shell_complete=_complete_key)


def _change(root: Root, name: str, text: str | None) -> None:
    """Set one key, or unset it with None, in the current text of the file."""

    def change(before: bytes) -> tuple[bytes, int]:
        try:
            after = settings.edited(documents.text_of(before), name, text)
        except (BadDocument, BadSetting) as error:
            raise BrokenConfig(str(root.config), error.problem, error.remedy) from None
        values = settings.Settings(**settings.read(after).values)
        return after.encode(), safety.guarded_mode(root, values)

    drafts.rewrite(root.config, change)


@config_command.command("get", epilog="\b\nExample:\n  queuectl config get max-retries")
@key_argument
@click.pass_context
def _get(ctx: click.Context, key: str) -> None:
    """Print the value in force."""
    name = settings.key_name(key)
    spool = spool_of(ctx)
    _, broken = settings.readable(spool.path)
    if broken is not None and broken.hides(name):
        raise broken
    printer.line(settings.shown(getattr(spool.settings(), name)))


class _Values(click.Command):
    """Reads a negative number as a value, so that the error is about the value, not about an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `--` before a negative number."""
        at = next((n for n, word in enumerate(args) if word[:1] == "-" and word[1:2].isdigit()), len(args))
        return super().parse_args(ctx, args if "--" in args else [*args[:at], "--", *args[at:]])


@config_command.command("set", cls=_Values, epilog="\b\nExample:\n  queuectl config set max-retries 5")
@key_argument
@click.argument("value")
@click.pass_context
def _set(ctx: click.Context, key: str, value: str) -> None:
    """Set a key; comments in the file stay."""
    name = settings.key_name(key)
    if value.strip() in documents.NULLS:
        raise BadSetting(
            f"{name}: {value!r} is no value. It means: {settings.KEYS[name].meaning}.",
            f"To go back to the default, run `queuectl config unset {name}`.",
        )
    known = settings.parse_value(name, value)
    doubt = settings.doubt(name, known)
    text = settings.shown(known)
    root = spool_of(ctx).root
    if name == "trusted_users" and known != settings.NOBODY:
        safety.refuse_trust(root)
    _change(root, name, text)
    printer.line(f"{name}: {text}")
    if doubt:
        printer.note(doubt)


@config_command.command("unset", epilog="\b\nExample:\n  queuectl config unset max-retries")
@key_argument
@click.pass_context
def _unset(ctx: click.Context, key: str) -> None:
    """Go back to the default."""
    name = settings.key_name(key)
    _change(spool_of(ctx).root, name, None)
    printer.line(f"{name}: {settings.shown(getattr(settings.DEFAULTS, name))} (the default)")


def _list(ctx: click.Context, as_json: bool) -> None:
    values = spool_of(ctx).settings()
    rows = []
    for name, key in settings.KEYS.items():
        value, default = getattr(values, name), getattr(settings.DEFAULTS, name)
        if as_json:
            printer.as_json({"key": name, "value": value, "default": default, "meaning": key.meaning})
        else:
            rows.append((name, settings.shown(value), settings.shown(default), key.meaning))
    if not as_json:
        printer.table(("KEY", "VALUE", "DEFAULT", "MEANING"), rows, wraps=True)


for _name in ("list", "show"):
    config_command.command(
        _name,
        help="Show each key: value, default and meaning.",
        epilog=f"\b\nExample:\n  queuectl config {_name}",
    )(
        click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")(
            click.pass_context(_list)
        )
    )
