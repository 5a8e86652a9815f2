"""Requests that mean harm or make no sense: each has an answer, with every header that protects."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from queuectl.spool import requests
from queuectl.web.guard import HEADERS, local_path
from tests.web.conftest import TOKEN, Serve, Server
from tests.web.wire import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl import Spool

LONG = "9" * 5000
TARGETS = (
    *("/%09/evil.example", "/%09//evil.example/x", "/x%09//evil.example", "//evil.example/"),
    *("///evil.example", "/\\evil.example", "/%5c%5cevil.example", "/%2f%2fevil.example"),
    *("/.//evil.example", "/;//evil.example"),
    *("/%", "/%zz", "/%ff%fe", "/%00", "/%ed%a0%80", "/jobs/%0d%0aSet-Cookie:a=b", "/jobs/" + "a" * 4000),
    *(f"/jobs/one/output/{LONG}/out", f"/jobs/one/error/{LONG}", "/jobs/one/output/-1/out", "/jobs//file"),
    *("/jobs/one/output/%D9%A3/out", "/jobs/one/error/1.5", "/jobs/..%2f..%2fconfig.yaml/file"),
    *("/?" + "a=b&" * 2000, "/?%00=%00&%ff", "/jobs?page=" + LONG, "/jobs?page=-1", "/jobs?q=%ff%00"),
    *("/?;=&&=;", "/live?page=//evil.example", "/live?page=%09", "/live?page=" + "x" * 5000),
    *("/live?page=/jobs&shown=%00", "/static/..%2fapp.py", "/static/", "/static/%00.css"),
    *("/static/" + "a" * 3000 + ".css", "/.json", "//.json", "http://evil.example/", "http://[", "*"),
    *("jobs", "/#", "/?#", "/new/", "/jobs/one/", "/dead?reason=%ff"),
)
ORIGINS = (
    *("http://[", "http://[::1", "http://]", "//", "", " ", "null", "file://", "http://"),
    *("https://evil.example", "http://{host}.evil.example", "http://{host}@evil.example"),
    *("http://evil.example@{host}", "http://{host}/", "http://{host}, http://evil.example"),
    *("ftp://{host}", "http://{host}\t", "\xff\xfe", "http://" + "a" * 3000),
)
HOSTS = (
    "[",
    "]",
    "[::1",
    "evil.example",
    "127.0.0.1:x",
    "127.0.0.1:999999",
    "localhost/x",
    "localhost#",
    "\xff",
    "::1",
)
BODIES = (
    *(b"command=%ff", b"command=\xff\xfe", b"%ed%a0%80=%ed%a0%80", b"=&&;;=", b"%", b"a" * 300_000),
    *(b"csrf=%00", b"&".join(b"a=b" for _ in range(3000)), b"only=%00&sure=yes"),
    *(b"id=" + b"x" * 9999, b'{"command": "true"}'),
    *(b"back=//evil.example", b"back=%09//evil.example", b"back=%5c%5cevil.example&csrf=1", b""),
)
KINDS = (
    *("", "text/plain", "application/json", "multipart/form-data"),
    *("application/x-www-form-urlencoded; charset=x",),
    *("application/x-www-form-urlencoded", "a" * 5000, "\xff", ";;;"),
)
METHODS = ("BREW", "get", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "G" * 900, "PRI")
NO_HTTP = (
    *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", b"GET\r\n\r\n"),
    *(b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
    *(b"GET /\t HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n"),
    *(b"GET / HTTP/1.1\r\nHost: localhost\r\nA\x00: b\r\n\r\n",),
    *(b"GET / HTTP/1.1\r\nHost: localhost\r\n a\r\n\r\n",),
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
)


def request(
    server: Server, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    sent = {"Host": server.host, "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def hostile(server: Server, known: dict[str, str]) -> Iterator[bytes]:
    yield from with_odd_addresses(server, known)
    yield from with_odd_heads(server, known)
    yield from NO_HTTP


def with_odd_addresses(server: Server, known: dict[str, str]) -> Iterator[bytes]:
    own = {**server.own, **known}
    for target in TARGETS:
        if not target.startswith("/live?"):  # a stream does not end
            yield request(server, "GET", target, headers=known)
        yield request(server, "HEAD", target, headers=known)
        yield request(server, "POST", target, b"a=b", own)
    for path in ("/pause", "/dead/retry", "/dead/delete", "/login", "/new", "/jobs/one/set"):
        for body in BODIES:
            yield request(server, "POST", path, body, own)


def with_odd_heads(server: Server, known: dict[str, str]) -> Iterator[bytes]:
    own = {**server.own, **known}
    for origin in ORIGINS:
        for method in ("GET", "POST"):
            yield request(
                server, method, "/pause", headers={**own, "Origin": origin.format(host=server.host)}
            )
    for host in HOSTS:
        yield request(server, "GET", "/", headers={**known, "Host": host})
    for kind in KINDS:
        yield request(server, "POST", "/pause", b"a=b", {**own, "Content-Type": kind})
    for method in METHODS:
        yield request(server, method, "/jobs", headers=known)
    cookies = "; ".join(f"cookie-{number}=%7b{number}%7d" for number in range(900))
    yield request(server, "GET", "/", headers={**known, "cookie": cookies})
    yield request(server, "GET", "/", headers={**known, "Accept": "application/json" * 200})
    for text in ("Bearer", "Bearer ", "Basic YTpi", "\xff", "bearer x y"):
        yield request(server, "GET", "/", headers={"Authorization": text})


@pytest.mark.parametrize("who", ["everybody", "a stranger", "a program", "a browser"])
def test_each_hostile_request_is_answered_with_all_headers_and_leads_nowhere(
    serve: Serve, spool: Spool, who: str
) -> None:
    server = serve() if who == "everybody" else serve("--token", TOKEN, "--allow-submit")
    known = {}
    if who == "a program":
        known = {"Authorization": f"Bearer {TOKEN}"}
    elif who == "a browser":
        known = {"Cookie": server.cookie}
    for data in hostile(server, known):
        got = say(server, data)
        assert 200 <= got.status < 500, (data[:300], got)
        assert {name: got.headers.get(name) for name in HEADERS} == HEADERS, (data[:300], got)
        where = got.headers.get("location", "/")
        assert where == local_path(where), (data[:300], where)
    assert not requests.is_paused(spool.root) or who == "a program"
    assert [found.id for found in spool.list()] == []


@pytest.mark.parametrize(
    "asked",
    [
        *(
            "/%09/evil.example",
            "/%09//evil.example",
            "/%09x//evil.example",
            "//evil.example",
            "/\\evil.example",
        ),
        *("/%5c/evil.example", "/.//evil.example", "/%2e/%2fevil.example", "///evil.example/%0d%0aa:b"),
    ],
)
def test_the_token_in_an_address_is_taken_out_without_leaving_this_host(serve: Serve, asked: str) -> None:
    server = serve("--token", TOKEN)
    where = say(server, request(server, "GET", f"{asked}?token={TOKEN}&a=b")).headers["location"]
    assert where.startswith("/")
    assert where.endswith("?a=b")
    assert not where.startswith(("//", "/\\"))
    assert not set("\t\r\n\\ ") & set(where)


@pytest.mark.parametrize(
    ("back", "where"),
    [
        ("/jobs?state=dead&q=a%20b", "/jobs?state=dead&q=a%20b"),
        ("", "/"),
        ("\t//evil.example", "/evil.example"),
        ("/\t/evil.example", "/evil.example"),
        ("/\n\\\t/evil.example", "/evil.example"),
        ("/x\t//evil.example", "/x//evil.example"),
        (" //evil.example", "/evil.example"),
        ("https://evil.example/", "/https://evil.example/"),
        ("/a?b#c", "/a?b%23c"),
        ("/é?ü=\\", "/%C3%A9?%C3%BC=%5C"),
        ("?", "/"),
    ],
)
def test_a_local_path_never_leads_to_another_host(back: str, where: str) -> None:
    assert local_path(back) == where
    assert local_path(where) == where


def test_a_form_that_is_not_utf_8_is_refused_and_files_nothing(serve: Serve, spool: Spool) -> None:
    server = serve("--token", TOKEN, "--allow-submit")
    bearer = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"command=echo+%ff", b"command=echo \xff", b"command=echo+%ed%a0%80"):
        answer = server.ask("/new", "POST", body, bearer)
        assert answer.status == 400
        assert "UTF-8" in answer.text
    assert server.ask("/new", "POST", "command=echo+é".encode(), bearer).status == 303
    assert [found.job.command for found in spool.list() if found.job] == ["echo é"]


def test_a_client_may_leave_in_the_middle_of_a_form(server: Server) -> None:
    from tests.web.wire import connect

    body = urlencode({"csrf": "0" * 64}).encode()
    for cut in (0, 1, len(body) - 1):
        with connect(server) as line:
            own = server.own
            data = request(server, "POST", "/pause", body, own)
            line.sendall(data[: len(data) - len(body) + cut])
    assert server.ask("/healthz").status == 200  # the fixture checks its log at the end
