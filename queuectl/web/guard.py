"""Who may ask: the host that is asked for, where the question comes from, and the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from queuectl.web import rendering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Sent with every answer. No script, style or address but our own; shown in no frame; kept by no cache.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with `no-referrer` the Origin of our own forms would be `null`
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
MAX_ADDRESS, MAX_HEAD = 8 * 1024, 16 * 1024
#: Shown to those who have no token; they tell nothing of the spool.
_OPEN = re.compile(r"/healthz|/static/[a-z.]+|/login")
_NAME = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d{1,5})?|([A-Za-z0-9._-]+)(?::\d{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this host's own, seen from nowhere else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Rules:
    """What a request must say. `names` are further names of this host, for when others may come.

    The secret is new with each start, so that a page of an earlier one can do nothing.
    """

    port: int
    token: str | None = None
    names: frozenset[str] = frozenset()
    any_address: bool = False
    secret: bytes = field(default_factory=lambda: os.urandom(32))

    def knows(self, host: str) -> bool:
        """Whether a Host header means us. A name that somebody else's DNS points here does not."""
        match = _NAME.fullmatch(host)
        if match is None:
            return False
        name = (match[1] or match[2]).lower()
        return is_loopback(name) or name in self.names or (self.any_address and _is_address(name))

    def sign(self, purpose: str, text: str = "") -> str:
        """What nobody can tell without the secret."""
        return hmac.new(self.secret, f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()

    @property
    def csrf(self) -> str:
        """What every form of ours bears."""
        return self.sign("form")

    @property
    def cookie(self) -> str:
        """The name of the cookie; browsers keep one jar for all ports of a host."""
        return f"queuectl-{self.port}"

    @property
    def pass_(self) -> str:
        """The value of the cookie: it proves the token, and does not tell it."""
        key = (self.token or "").encode()
        return hmac.new(key, b"queuectl dashboard", hashlib.sha256).hexdigest()

    def is_token(self, text: str) -> bool:
        """Whether this is the token, told in constant time."""
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    def set_cookie(self) -> str:
        """The header that hands the cookie out."""
        return f"{self.cookie}={self.pass_}; Path=/; HttpOnly; SameSite=Strict"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def local_path(text: str) -> str:
    """A path on this very host, whatever was asked for: never another host's address."""
    parts = urlsplit("/" + text.lstrip("/\\"))
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    return f"{path}?{quote(parts.query, safe='/%:@!$()*+,;=~-._?&')}" if parts.query else path


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    text: str


class Guard:
    """Stands before the whole application: every route, every method, every kind of file."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSocket is offered
        headers = _Headers(scope)
        refusal = self._refusal(scope["method"], scope["raw_path"] + scope["query_string"], headers)
        if refusal is not None:
            await _answer(send, refusal.status, refusal.text.encode())
        elif not await self._exchanged(scope, send) and (
            await self._is_known(scope, headers) or not await self._ask_for_token(scope, headers, send)
        ):
            await self._app(scope, receive, _with_headers(send))

    def _refusal(  # noqa: PLR0911 - one return a reason
        self, method: str, path: bytes, headers: _Headers
    ) -> _Refusal | None:
        host = headers.all("host")
        if len(host) != 1 or not self._rules.knows(host[0]):
            return _Refusal(
                421, "This is not a name of this host.\nAsk for the address that `queuectl webui` printed.\n"
            )
        if len(path) > MAX_ADDRESS or headers.size > MAX_HEAD:
            return _Refusal(431, "The request is too long.\nAsk for less.\n")
        if method not in {"GET", "HEAD", "POST"}:
            return _Refusal(405, "There is no such method here.\nUse GET or POST.\n")
        elsewhere = _Refusal(403, "The request comes from another site.\nOpen the dashboard itself.\n")
        if any(urlsplit(origin).netloc != host[0] for origin in headers.all("origin")):
            return elsewhere
        if headers.one("sec-fetch-site") in {"cross-site", "same-site"} and not headers.is_visit(method):
            return elsewhere
        if method == "POST" and not headers.all("origin") and not headers.bearer:
            return _Refusal(
                403, "A form must say where it comes from.\nUse a browser, or the command line.\n"
            )
        return None

    async def _exchanged(self, scope: Scope, send: Send) -> bool:
        """Take the token out of the address bar: for a cookie, and a redirect to the same page."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in pairs if name == "token"]
        if scope["method"] != "GET" or not given or self._rules.token is None:
            return False
        if not self._rules.is_token(given[0]):
            body = rendering.login({"wrong": True, "again": False, "back": local_path(scope["path"])})
            await _answer(send, 403, body, {"content-type": "text/html; charset=utf-8"})
            return True
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        where = local_path(f"{scope['path']}?{rest}" if rest else scope["path"])
        await _answer(send, 303, b"", {"location": where, "set-cookie": self._rules.set_cookie()})
        return True

    async def _is_known(self, scope: Scope, headers: _Headers) -> bool:
        if self._rules.token is None or _OPEN.fullmatch(scope["path"]):
            return True
        if headers.bearer:
            return self._rules.is_token(headers.bearer)
        given = headers.cookie(self._rules.cookie)
        return hmac.compare_digest(given.encode(), self._rules.pass_.encode())

    async def _ask_for_token(self, scope: Scope, headers: _Headers, send: Send) -> bool:
        """Answer with the page that asks for it.

        A strict cookie is not sent with a visit that a link elsewhere led to; so that page then
        asks for itself once more, from here.
        """
        again = headers.one("sec-fetch-site") in {"cross-site", "same-site"}
        query = scope["query_string"].decode("latin-1")
        back = local_path(f"{scope['path']}?{query}" if query else scope["path"])
        body = rendering.login({"wrong": False, "again": again, "back": back})
        await _answer(send, 401, body, {"content-type": "text/html; charset=utf-8"})
        return True


class _Headers:
    def __init__(self, scope: Scope) -> None:
        self._pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]

    def one(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    @property
    def size(self) -> int:
        """The characters in all names and values."""
        return sum(len(name) + len(value) for name, value in self._pairs)

    @property
    def bearer(self) -> str:
        kind, _, token = self.one("authorization").partition(" ")
        return token.strip() if kind.lower() == "bearer" else ""

    def cookie(self, name: str) -> str:
        for text in self.all("cookie"):
            try:
                jar = SimpleCookie(text)
            except CookieError:
                continue
            if name in jar:
                return jar[name].value
        return ""

    def is_visit(self, method: str) -> bool:
        """Whether a person follows a link to a page: it is shown, and its reader learns nothing."""
        return (
            method == "GET"
            and self.one("sec-fetch-mode") == "navigate"
            and self.one("sec-fetch-dest") == "document"
        )


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name, value) for name, value in message["headers"] if name.decode() not in HEADERS]
            message = {**message, "headers": own + _encoded(HEADERS)}
        await send(message)

    return sending


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    own: dict[str, Any] = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body))}
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": _encoded({**HEADERS, **own, **(headers or {})}),
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
