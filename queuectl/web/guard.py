"""Who may ask: checks the host name, the origin and the token of each request."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from queuectl.web import rendering

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from queuectl.web.login import Lock, Verdict

#: Sent with every answer: only our own scripts, styles and addresses, no frame, no cache.
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
#: Limits in bytes. A browser sends the cookies of all programs on this host, which may be many.
MAX_ADDRESS, MAX_HEAD = 8 * 1024, 32 * 1024
METHODS = ("GET", "HEAD", "POST")
_NAME = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d{1,5})?|([A-Za-z0-9._-]+)(?::\d{1,5})?")
#: A browser drops these characters from an address.
_DROPPED = re.compile(r"[\x00-\x1f]")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is reachable from this host only."""
    address = address_in(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def address_in(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a text is, None if it is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Rules:
    """What a request must show. `names` are further names of this host, for servers that others may reach.

    The secret is new with each start, so pages and cookies of an earlier server are worthless.
    """

    port: int
    token: str | None = None
    names: frozenset[str] = frozenset()
    any_address: bool = False
    secret: bytes = field(default_factory=lambda: os.urandom(32))

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server; a foreign DNS name that points here does not."""
        match = _NAME.fullmatch(host)
        if match is None:
            return False
        name = (match[1] or match[2]).lower()
        return is_loopback(name) or name in self.names or (self.any_address and address_in(name) is not None)

    def sign(self, purpose: str, text: str = "") -> str:
        """A signature that only the holder of the secret can make."""
        return hmac.new(self.secret, f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()

    @property
    def csrf(self) -> str:
        """The proof that a form comes from one of our pages."""
        return self.sign("form")

    @property
    def cookie(self) -> str:
        """The name of the cookie; browsers keep one jar for all ports of a host."""
        return f"queuectl-{self.port}"

    @property
    def pass_(self) -> str:
        """The value of the cookie; knowing the token is not enough to make it."""
        return self.sign("pass", self.token or "")

    def is_token(self, text: str) -> bool:
        """Whether this is the token."""
        return self.token is not None and same(text, self.token)

    def is_pass(self, text: str) -> bool:
        """Whether this is the value of the cookie."""
        return self.token is not None and same(text, self.pass_)

    def set_cookie(self) -> str:
        """The value of the Set-Cookie header."""
        return f"{self.cookie}={self.pass_}; Path=/; HttpOnly; SameSite=Strict"


def same(text: str, secret: str) -> bool:
    """Whether the texts are the same, compared in constant time."""
    return hmac.compare_digest(text.encode(), secret.encode())


def local_path(text: str) -> str:
    """The text as a path on this host; it never leads to another host."""
    # A browser treats a backslash as a slash.
    path, mark, query = _DROPPED.sub("", text).lstrip(" /\\").partition("?")
    quoted = quote(path, safe="/%:@!$&'()*+,;=~-._", errors="replace")
    return f"/{quoted}{mark}{quote(query, safe='/%:@!$()*+,;=~-._?&', errors='replace')}".removesuffix("?")


def address_of(scope: Scope) -> str:
    """Path and query of a request as they were sent, not decoded."""
    raw, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return local_path(f"{raw}?{query}")


def own_cookies(headers: Headers, name: str) -> list[str]:
    """The values of one cookie; cookies of other programs on this host may hold anything and are ignored.

    Several cookies may have the name: another program can set one for a longer path, which comes first.
    """
    pairs = (chunk.partition("=") for text in headers.getlist("cookie") for chunk in text.split(";"))
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def is_by_token(scope: Scope) -> bool:
    """Whether the request itself carries the token, which no browser sends by itself."""
    return scope.get("queuectl.by_token", False) is True


def login_page(verdict: Verdict | None, back: str, *, again: bool = False) -> Response:
    """The page that asks for the token, before a try (`verdict` None) or after it."""
    wait = ceil(verdict.wait) if verdict else 0
    body = rendering.login({"wrong": verdict is not None, "wait": wait, "again": again, "back": back})
    status = 429 if wait else 403 if verdict else 401
    more = {"retry-after": str(wait)} if wait else {"www-authenticate": "Bearer"} if status == 401 else {}
    return Response(body, status, more, media_type="text/html; charset=utf-8")


def _refusal(status: int, problem: str, remedy: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{problem}\n{remedy}\n", status, headers)


class Guard:
    """Checks each request before any route. A request without the token reaches `door` only."""

    def __init__(self, app: ASGIApp, rules: Rules, lock: Lock, door: ASGIApp) -> None:
        self._app = app
        self._rules = rules
        self._lock = lock
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        headers = Headers(scope=scope)
        answer = self._refused(scope, headers) or self._exchanged(scope)
        await (answer or self._let_in(scope, headers))(scope, receive, send)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:  # noqa: PLR0911 - one return a reason
        method, hosts = scope["method"], headers.getlist("host")
        if len(hosts) != 1 or not self._rules.knows(hosts[0]):
            return _refusal(
                421,
                "This server does not have that host name.",
                "Open the address that `queuectl webui` printed.",
            )
        sizes = (len(name) + len(value) for name, value in scope["headers"])
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_ADDRESS or sum(sizes) > MAX_HEAD:
            return _refusal(431, "The request is too long.", "Ask for less.")
        if method not in METHODS:
            allowed = {"allow": ", ".join(METHODS)}
            return _refusal(405, "This method does not exist here.", "Use GET or POST.", allowed)
        if not scope["raw_path"].startswith(b"/"):
            return _refusal(400, "This is not a path of this host.", "Ask for one that begins with /.")
        elsewhere = _refusal(403, "The request comes from another site.", "Open the dashboard itself.")
        # Compared as text: an Origin that is not an address is not ours either.
        own = {f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")}
        if any(origin.lower() not in own for origin in headers.getlist("origin")):
            return elsewhere
        if _is_from_elsewhere(headers) and not _is_visit(method, headers):
            return elsewhere
        if method == "POST" and "origin" not in headers and _bearer(headers) is None:
            return _refusal(
                403, "A form must say where it comes from.", "Use a browser, or send the token as a Bearer."
            )
        return None

    def _exchanged(self, scope: Scope) -> Response | None:
        """Exchange a token in the address for a cookie and a redirect to the same page."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in pairs if name == "token"]
        if scope["method"] != "GET" or not given or self._rules.token is None:
            return None
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        where = local_path(f"{scope['raw_path'].decode('latin-1')}?{rest}")
        verdict = self._lock.try_(client(scope), given[0])
        if not verdict.is_right:
            return login_page(verdict, where)
        return RedirectResponse(where, 303, {"set-cookie": self._rules.set_cookie()})

    def _let_in(self, scope: Scope, headers: Headers) -> ASGIApp:
        """The application, the door, or the answer to a wrong token."""
        bearer = _bearer(headers)
        if self._rules.token is None:
            return self._app
        if bearer is not None:
            verdict = self._lock.try_(client(scope), bearer)
            if verdict.wait:
                wait = {"retry-after": str(ceil(verdict.wait))}
                return _refusal(429, "Too many wrong tokens came.", "Try again later.", wait)
            if not verdict.is_right:
                named = {"www-authenticate": 'Bearer error="invalid_token"'}
                return _refusal(401, "This is not the token.", "`queuectl webui` printed it.", named)
            scope["queuectl.by_token"] = True
            return self._app
        passes = own_cookies(headers, self._rules.cookie)
        return self._app if any(map(self._rules.is_pass, passes)) else self._door


def client(scope: Scope) -> str:
    """The address that a request came from."""
    return str(scope["client"][0]) if scope.get("client") else "an unknown address"


def _bearer(headers: Headers) -> str | None:
    """The Bearer token of a request, None if it has none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _is_from_elsewhere(headers: Headers) -> bool:
    return headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def _is_visit(method: str, headers: Headers) -> bool:
    """Whether a person follows a link from another site: that site learns nothing from it."""
    return (
        method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def ask_for_token(scope: Scope) -> Response:
    """The answer to a request without the token: the page that asks for it.

    A browser does not send a strict cookie when it follows a link from another site; the page then
    reloads itself once, from here.
    """
    if scope["method"] == "POST":
        return _refusal(401, "The dashboard needs its token.", "Log in, or send it as a Bearer.")
    back = "/" if scope["path"] == "/login" else address_of(scope)
    return login_page(None, back, again=_is_from_elsewhere(Headers(scope=scope)))
