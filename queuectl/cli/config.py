"""`config`: read and change the settings of a spool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from queuectl import documents, settings
from queuectl.cli import printer
from queuectl.cli.commands import Group, examples, taking, with_spool
from queuectl.cli.options import AS_JSON
from queuectl.errors import BadDocument, BadSetting, BrokenConfig
from queuectl.spool import safety
from queuectl.system import drafts

if TYPE_CHECKING:
    from queuectl.api import Spool
    from queuectl.spool.root import Root


@click.group("config", cls=Group)
def config_command() -> None:
    """Show and change the settings in config.yaml. Running workers use a change at once."""


def _complete_key(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in settings.KEYS if name.startswith(incomplete.replace("-", "_"))]


KEY = click.argument("key", shell_complete=_complete_key)


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


@config_command.on_spool("get", "queuectl config get max-retries")
@KEY
def _get(spool: Spool, key: str) -> None:
    """Print the value in force."""
    name = settings.key_name(key)
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


@config_command.command("set", cls=_Values, epilog=examples("queuectl config set max-retries 5"))
@with_spool
@KEY
@click.argument("value")
def _set(spool: Spool, key: str, value: str) -> None:
    """Set a key; comments in the file stay."""
    name = settings.key_name(key)
    if value.strip() in documents.NULLS:
        raise BadSetting(
            f"{name}: {value!r} is no value. It means: {settings.KEYS[name].meaning}.",
            f"To go back to the default, run `queuectl config unset {name}`.",
        )
    known = settings.parse_value(name, value)
    doubt, text = settings.doubt(name, known), settings.shown(known)
    if name == "trusted_users" and known != settings.NOBODY:
        safety.refuse_trust(spool.root)
    _change(spool.root, name, text)
    printer.line(f"{name}: {text}")
    if doubt:
        printer.note(doubt)


@config_command.on_spool("unset", "queuectl config unset max-retries")
@KEY
def _unset(spool: Spool, key: str) -> None:
    """Go back to the default."""
    name = settings.key_name(key)
    _change(spool.root, name, None)
    printer.line(f"{name}: {settings.shown(getattr(settings.DEFAULTS, name))} (the default)")


@taking(AS_JSON)
def _list(spool: Spool, as_json: bool) -> None:
    """Show each key: value, default and meaning."""
    values = spool.settings()
    rows = [
        (name, getattr(values, name), getattr(settings.DEFAULTS, name), key.meaning)
        for name, key in settings.KEYS.items()
    ]
    if as_json:
        for row in rows:
            printer.as_json(dict(zip(("key", "value", "default", "meaning"), row, strict=True)))
        return
    shown = [
        (name, settings.shown(one), settings.shown(other), meaning) for name, one, other, meaning in rows
    ]
    printer.table(("KEY", "VALUE", "DEFAULT", "MEANING"), shown, wraps=True)


for _name in ("list", "show"):
    config_command.on_spool(_name, f"queuectl config {_name}")(_list)
