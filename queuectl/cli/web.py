"""`webui` and `metrics`: the queue in a browser, and for Prometheus."""

from __future__ import annotations

import os
import secrets
import sys
from typing import TYPE_CHECKING

import click

from queuectl.cli import printer
from queuectl.cli.commands import examples, on_spool
from queuectl.cli.places import spool_of
from queuectl.errors import BadUsage, QueueError

if TYPE_CHECKING:
    from queuectl.api import Spool

LEAST = 16
GENERATED = "generated"


@click.command(
    "webui",
    epilog=examples(
        "queuectl webui --open",
        "queuectl webui --port 8080 --read-only",
        "QUEUECTL_TOKEN=$(openssl rand -hex 16) queuectl webui --host 0.0.0.0",
    ),
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; others want a token.")
@click.option(
    "--port", "-p", type=click.IntRange(0, 65535), default=5000, show_default=True, help="0 is any."
)
@click.option("--open", "-o", "open_", is_flag=True, help="Open it in the browser.")
@click.option("--read-only", is_flag=True, help="Show everything, change nothing.")
@click.option("--allow-submit", is_flag=True, help="Let jobs be filed from the page; wants a token.")
@click.option(
    "--token",
    is_flag=False,
    flag_value=GENERATED,
    metavar="[TEXT]",
    help="The token that visitors need; without it, $QUEUECTL_TOKEN. Without TEXT one is made up.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Another name that this host is asked for by.",
)
@click.pass_context
def webui_command(
    ctx: click.Context,
    host: str,
    port: int,
    open_: bool,
    read_only: bool,
    allow_submit: bool,
    token: str | None,
    names: tuple[str, ...],
) -> None:
    """Serve the dashboard until Ctrl-C."""
    try:
        from queuectl.web.guard import is_loopback
        from queuectl.web.server import Options, Server
        from queuectl.worker.remains import stop_remains
    except ModuleNotFoundError as error:
        raise _missing(error) from None

    token = _token(token, needed=allow_submit and not read_only)
    if token is None and not is_loopback(host):
        raise BadUsage(
            f"{host} can be reached from other hosts, and there is no token.",
            "Say --token to have one made up, or set QUEUECTL_TOKEN.",
        )
    server = Server(spool_of(ctx), Options(host, port, token, names, read_only, allow_submit), stop_remains)
    printer.line(server.address)
    printer.note("Ctrl-C ends it.")
    sys.stdout.flush()
    if open_:
        server.open_browser()
    server.serve()


def _token(said: str | None, *, needed: bool) -> str | None:
    token = said or os.environ.get("QUEUECTL_TOKEN") or (GENERATED if needed else None)
    if token == GENERATED:
        return secrets.token_urlsafe(24)
    if token is not None and (len(token) < LEAST or not token.isascii() or not token.isprintable()):
        raise BadUsage(
            f"The token is not at least {LEAST} printable ASCII characters.",
            "Say --token without one to have it made up.",
        )
    return token


def _missing(error: ModuleNotFoundError) -> QueueError:
    """What installs the extra, for this very Python: a name alone could be anybody's package."""
    from importlib import metadata

    wanted = [
        text.partition(";")[0].strip()
        for text in metadata.requires("queuectl") or []
        if "extra ==" in text and "web" in text.partition("extra ==")[2]
    ]
    command = " ".join([sys.executable, "-m pip install", *(f"'{text}'" for text in wanted)])
    return QueueError(f"The dashboard needs {error.name}, which is not installed.", f"Run: {command}")


@on_spool("metrics", "queuectl metrics > /var/lib/node_exporter/queuectl.prom")
def metrics_command(spool: Spool) -> None:
    """Print the figures as Prometheus reads them, for a node exporter's text file."""
    from queuectl.view import metrics
    from queuectl.view.census import Census
    from queuectl.view.workers import workers

    census = Census(spool.root)
    census.look(patient=False)
    known = workers(spool.root, spool.live.now())
    printer.text(metrics.text(spool.root, census, known, spool.clock()))
