"""Running the dashboard: the socket, what is printed, and the end."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import webbrowser
from dataclasses import dataclass
from urllib.parse import quote

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from queuectl.errors import BadUsage, QueueError
from queuectl.web import rendering
from queuectl.web.app import build
from queuectl.web.dashboard import Dashboard
from queuectl.web.guard import Rules, is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from queuectl.spool.spool import Spool

#: Seconds within which a connection must have sent the head of its first request.
HEAD_SECONDS = 10.0
MAX_HEAD = 16 * 1024
MAX_CONNECTIONS = 300
#: Seconds that answers under way have once the server is told to end.
GRACE = 1


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    host: str = "127.0.0.1"
    port: int = 5000
    token: str | None = None
    names: tuple[str, ...] = ()
    read_only: bool = False
    allow_submit: bool = False


class _Impatient(H11Protocol):
    """Hangs up on who connects and says nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and look after a while whether a request has come."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._hang_up_if_silent)

    def _hang_up_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class Server:
    """One dashboard on one socket. Made, it listens; `serve` answers until Ctrl-C."""

    def __init__(self, spool: Spool, options: Options) -> None:
        self._socket = listen(options.host, options.port)
        rendering.compile_all()
        self.port: int = self._socket.getsockname()[1]
        self._options = options
        self._dashboard = Dashboard(spool, read_only=options.read_only, allow_submit=options.allow_submit)
        own = {options.host.lower(), socket.gethostname().lower(), *(name.lower() for name in options.names)}
        public = not is_loopback(options.host)
        self._rules = Rules(
            port=self.port,
            token=options.token,
            names=frozenset(own) if public else frozenset(name.lower() for name in options.names),
            any_address=public,
        )

    @property
    def address(self) -> str:
        """What to open in a browser, with the token where one is needed."""
        host = self._options.host
        shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104 - compared
        place = f"[{shown}]" if ":" in shown else shown
        token = f"?token={quote(self._options.token)}" if self._options.token else ""
        return f"http://{place}:{self.port}/{token}"

    def open_browser(self) -> None:
        """Open the page in the browser of who started this, as soon as it answers."""
        threading.Thread(target=webbrowser.open, args=(self.address,), daemon=True).start()

    def serve(self) -> None:
        """Answer until SIGINT or SIGTERM; streams end at once. Raises `KeyboardInterrupt` after SIGINT."""
        closing = asyncio.Event()
        config = uvicorn.Config(
            build(self._dashboard, self._rules, closing),
            http=_Impatient,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEAD,
            timeout_graceful_shutdown=GRACE,
        )
        try:
            _Ending(config, closing).run(sockets=[self._socket])
        finally:
            self._dashboard.close(GRACE)


class _Ending(uvicorn.Server):
    """Tells the streams that it ends, as it would wait for them."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End on a signal."""
        super().handle_exit(sig, frame)
        self._closing.set()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises `QueueError` with what is in the way."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise BadUsage(f"There is no host {host!r}.", "Use 127.0.0.1, or an address of this host.") from None
    family, kind, protocol, _, where = found[0]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(where)
        made.listen(128)
    except OSError as error:
        made.close()
        raise _refusal(error, host, port) from None
    return made


def _refusal(error: OSError, host: str, port: int) -> QueueError:
    if error.errno == errno.EADDRINUSE:
        return QueueError(f"Port {port} is taken.", "Choose another one with --port; 0 takes any free one.")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return QueueError(f"Port {port} is not for you.", "Choose one above 1023 with --port.")
    return QueueError(f"{host} port {port} cannot be used: {error.strerror}.", "Use an address of this host.")
