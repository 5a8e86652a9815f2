"""Runs the dashboard: the socket, the limits for connections, the end."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
import webbrowser
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from queuectl.errors import BadUsage, QueueError
from queuectl.web import rendering
from queuectl.web.app import build
from queuectl.web.dashboard import Dashboard, leave_remains
from queuectl.web.guard import HEADERS, MAX_HEAD, Rules, is_loopback
from queuectl.web.login import client_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from queuectl.api import Spool
    from queuectl.spool.recovery import StopRemains

#: Seconds within which a client must have sent a whole request, from the end of the answer before it.
REQUEST_SECONDS = 15.0
#: Seconds that a client may pause while it reads an answer.
READ_SECONDS = 30.0
#: The most connections: of one client, and of all.
PER_CLIENT, IN_ALL = 100, 300
#: A prompt client sends a request within this many seconds.
PROMPT = 1.0
#: Seconds that answers under way have once the server ends.
GRACE = 1


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    host: str = "127.0.0.1"
    port: int = 5000
    token: str | None = None
    names: tuple[str, ...] = ()
    read_only: bool = False
    allow_submit: bool = False


class _Connection(H11Protocol):
    """Limits what uvicorn does not: the time of a request, of reading an answer, and the connections.

    The server hangs up on a client that takes too long. A connection beyond the limit ends the one
    that has kept the server waiting longest, so that no slow client keeps others out.
    """

    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request; beyond the limit another connection ends."""
        super().connection_made(transport)
        self._wait_for_a_request()
        all_ = [one for one in self.connections if isinstance(one, _Connection)]
        if (place := to_give_up([one.place for one in all_], self.loop.time())) is not None:
            all_[place].hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    @property
    def place(self) -> Place:
        """The facts that `to_give_up` compares."""
        return Place(client_of(self.client[0] if self.client else ""), self._is_owed_a_request, self._since)

    def hang_up(self) -> None:
        """End at once; data that the client has not read is lost."""
        self.connections.discard(self)
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait_for_a_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give a client that reads slowly `READ_SECONDS`."""
        super().pause_writing()
        self._stalled = self.loop.call_later(READ_SECONDS, self.hang_up)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, with the headers of every answer."""
        head = {**HEADERS, "content-type": "text/plain; charset=utf-8", "connection": "close"}
        lines = [f"{name}: {value}" for name, value in {**head, "content-length": len(msg) + 1}.items()]
        if not (self.cycle and self.cycle.response_started and not self.cycle.response_complete):
            self.transport.write("\r\n".join(["HTTP/1.1 400 Bad Request", *lines, "", f"{msg}\n"]).encode())
        self.transport.close()

    @property
    def _is_owed_a_request(self) -> bool:
        """Whether the server still waits for a whole request."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _wait_for_a_request(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._hang_up_if_owed)

    def _hang_up_if_owed(self) -> None:
        if self._is_owed_a_request:
            self.hang_up()


class Place(NamedTuple):
    """A connection in the choice of which must end: its client, and since when it owes a request."""

    client: str
    is_owed_a_request: bool
    since: float


def to_give_up(places: Sequence[Place], now: float) -> int | None:
    """The connection that must end, None below the limits.

    It belongs to the client that has most: the one that has owed a request for longest or, if all
    requests came promptly, the oldest. A page reopens a stream that ends like this.
    """
    client, most = max(Counter(place.client for place in places).items(), key=lambda item: item[1])
    if most <= PER_CLIENT and len(places) <= IN_ALL:
        return None
    own = [number for number, place in enumerate(places) if place.client == client]
    slow = [
        number for number in own if places[number].is_owed_a_request and now - places[number].since > PROMPT
    ]
    return min(slow or own, key=lambda number: places[number].since)


class Server:
    """One dashboard on one socket. It listens once it is made; `serve` answers until Ctrl-C."""

    def __init__(self, spool: Spool, options: Options, stop_remains: StopRemains = leave_remains) -> None:
        self._socket = listen(options.host, options.port)
        rendering.compile_all()
        self.port: int = self._socket.getsockname()[1]
        self._options = options
        self._dashboard = Dashboard(
            spool,
            read_only=options.read_only,
            allow_submit=options.allow_submit,
            stop_remains=stop_remains,
        )
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
        """The address for a browser, with the token if there is one."""
        host = self._options.host
        shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104 - compared
        place = f"[{shown}]" if ":" in shown else shown
        token = f"?token={quote(self._options.token)}" if self._options.token else ""
        return f"http://{place}:{self.port}/{token}"

    def open_browser(self) -> None:
        """Open the page in the user's browser."""
        threading.Thread(target=webbrowser.open, args=(self.address,), daemon=True).start()

    def serve(self) -> None:
        """Answer until SIGINT or SIGTERM; streams end at once. Raises `KeyboardInterrupt` after SIGINT."""
        closing = asyncio.Event()
        config = uvicorn.Config(
            build(self._dashboard, self._rules, closing),
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            headers=list(HEADERS.items()),
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD,
            timeout_graceful_shutdown=GRACE,
        )
        # asyncio warns about each write to a client that has gone.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        try:
            _Ending(config, closing).run(sockets=[self._socket])
        finally:
            self._dashboard.close(GRACE)


class _Ending(uvicorn.Server):
    """Ends the streams on a signal, as it would wait for them."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the server and its streams."""
        super().handle_exit(sig, frame)
        self._closing.set()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises `QueueError` with the reason if there is none."""
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
        return QueueError(f"You may not use port {port}.", "Choose one above 1023 with --port.")
    return QueueError(f"{host} port {port} cannot be used: {error.strerror}.", "Use an address of this host.")
