"""The dashboard can start commands: a request without the right gets nothing, on any route, by any method."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from queuectl.web.guard import HEADERS, Rules, is_loopback, local_path
from tests.web.conftest import FORM, TOKEN, Server
from tests.web.wire import connect

if TYPE_CHECKING:
    from queuectl import Spool

ROUTES = (
    *("/", "/jobs", "/jobs/one", "/jobs/one.json", "/jobs/one/output/1/out", "/dead", "/workers", "/config"),
    *("/live?page=/", "/metrics", "/healthz", "/static/style.css", "/static/page.js", "/new", "/nowhere"),
)
ACTIONS = (
    *("/pause", "/resume", "/jobs/one/retry", "/jobs/one/cancel", "/jobs/one/delete", "/jobs/one/run"),
    *("/jobs/one/set", "/dead/retry", "/dead/delete", "/workers/w/stop", "/new", "/login"),
)


# ── the host name ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost@evil", "[::2]"]
)
def test_no_route_answers_for_a_foreign_host_name(server: Server, host: str) -> None:
    for path in ROUTES:
        answer = server.ask(path, headers={"Host": host})
        assert answer.status in {400, 421}, (path, answer)
        assert b"queuectl</a>" not in answer.body
    for path in ACTIONS:
        assert server.ask(path, "POST", b"", {"Host": host, **FORM}).status in {400, 421}, path


def test_a_request_with_two_host_headers_is_refused(server: Server) -> None:
    with connect(server) as line:
        line.sendall(f"GET / HTTP/1.1\r\nHost: {server.host}\r\nHost: evil.example\r\n\r\n".encode())
        assert line.recv(4096).split(b" ")[1] in {b"400", b"421"}


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "localhost:8080", "[::1]:5000", "LOCALHOST", "127.1.2.3"]
)
def test_the_names_of_this_host_are_answered_with_any_port_as_ssh_forwards_them(
    server: Server, host: str
) -> None:
    assert server.ask("/", headers={"Host": host}).status == 200


def test_only_a_server_that_others_may_reach_knows_addresses_and_further_names() -> None:
    inside, outside = Rules(5000), Rules(5000, TOKEN, frozenset({"queue.lan"}), any_address=True)
    assert not inside.knows("192.168.1.5:5000")
    assert outside.knows("192.168.1.5:5000")
    assert outside.knows("queue.lan")
    assert not outside.knows("evil.example")
    assert [is_loopback(name) for name in ("::1", "127.0.0.9", "0.0.0.0", "example.org")] == [
        *(True, True, False, False)
    ]


# ── other sites ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "file://"]
)
def test_other_origins_are_refused_whatever_the_method(server: Server, method: str, origin: str) -> None:
    for path in (*ROUTES, *ACTIONS):
        body = b"" if method == "POST" else None
        assert server.ask(path, method, body, {"Origin": origin, **FORM}).status == 403, path


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_can_embed_and_fetch_nothing(server: Server, site: str) -> None:
    for dest, mode in (
        ("iframe", "navigate"),
        ("image", "no-cors"),
        ("empty", "cors"),
        ("script", "no-cors"),
    ):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest, "Sec-Fetch-Mode": mode}
        for path in ROUTES:
            assert server.ask(path, headers=headers).status == 403, (path, dest)


def test_a_link_on_another_site_is_followed_but_a_form_there_is_refused(server: Server) -> None:
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}
    assert server.ask("/jobs", headers=visit).status == 200
    assert server.ask("/pause", "POST", b"", {**visit, **FORM, "Origin": "http://evil.example"}).status == 403
    assert server.ask("/pause", "POST", b"", {**visit, **FORM}).status == 403


def test_no_get_changes_anything(server: Server, spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    before = sorted(path.name for path in spool.path.rglob("*"))
    for path in ACTIONS:
        for method in ("GET", "HEAD"):
            assert server.ask(f"{path}?sure=yes&csrf={server.ask('/').csrf}", method).status in {404, 405}, (
                path
            )
    assert sorted(path.name for path in spool.path.rglob("*")) == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    assert server.ask("/jobs/one", method).status in {400, 405}


def test_a_form_without_the_pages_own_proof_does_nothing(server: Server, spool: Spool) -> None:
    own = server.own
    for path in ACTIONS:
        if path != "/login":
            for csrf in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
                assert server.ask(path, "POST", urlencode(csrf).encode(), own).status == 400, path
    assert not (spool.path / "workers" / "paused").exists()


def test_a_form_that_does_not_say_where_it_comes_from_is_refused(server: Server, spool: Spool) -> None:
    csrf = server.ask("/").csrf
    assert server.ask("/pause", "POST", urlencode({"csrf": csrf}).encode(), FORM).status == 403
    assert not (spool.path / "workers" / "paused").exists()


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data; boundary=x", ""])
def test_only_a_plain_form_is_a_form(server: Server, kind: str) -> None:
    headers = {"Origin": server.origin, "Content-Type": kind}
    assert server.ask("/pause", "POST", f"csrf={server.ask('/').csrf}".encode(), headers).status == 415


# ── the token ─────────────────────────────────────────────────────────────────────────────────


def test_the_printed_address_is_exchanged_for_a_strict_cookie_and_leaves_the_address_bar(
    closed: Server,
) -> None:
    assert closed.printed == f"{closed.origin}/?token={TOKEN}"
    answer = closed.ask(f"/jobs?state=dead&token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/jobs?state=dead")
    (cookie,) = answer.cookies
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie
    assert closed.ask("/jobs", headers={"Cookie": cookie.partition(";")[0]}).status == 200


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é", "%00"])
def test_a_wrong_token_opens_nothing(closed: Server, token: str) -> None:
    assert closed.ask(f"/?{urlencode({'token': token})}").status in {401, 403}
    assert closed.ask("/", headers={"Authorization": f"Bearer {token}".strip()}).status == 401
    name = f"queuectl-{closed.port}"
    assert closed.ask("/", headers={"Cookie": f"{name}={token}"}).status == 401
    assert closed.ask("/", headers={"Cookie": f"{name}={TOKEN}"}).status == 401


def test_the_token_may_be_typed_into_the_page_and_leads_back_to_where_one_was(closed: Server) -> None:
    own = closed.own
    fields = {"token": TOKEN, "back": "/jobs?state=dead"}
    answer = closed.ask("/login", "POST", urlencode(fields).encode(), own)
    assert (answer.status, answer.headers["location"]) == (303, "/jobs?state=dead")
    assert answer.cookies[0].startswith(f"queuectl-{closed.port}=")


def test_a_page_reached_from_another_site_reloads_itself_once(closed: Server) -> None:
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}
    assert 'http-equiv="refresh"' in closed.ask("/jobs", headers=visit).text
    assert 'http-equiv="refresh"' not in closed.ask("/jobs").text


@pytest.mark.parametrize(
    "asked",
    ["//evil.example/x", "/\\evil.example", "https://evil.example", "///evil.example?q=1", "/a\r\nb: c"],
)
def test_no_redirect_leads_to_another_host(closed: Server, asked: str) -> None:
    assert local_path(asked).startswith("/")
    assert not local_path(asked).startswith(("//", "/\\"))
    assert not set("\r\n\\") & set(local_path(asked))
    own = closed.own
    fields = urlencode({"token": TOKEN, "back": asked}).encode()
    assert closed.ask("/login", "POST", fields, own).headers["location"] == local_path(asked)


# ── answers and limits ───────────────────────────────────────────────────────────────────────


def test_every_answer_forbids_frames_foreign_scripts_sniffing_and_caches(server: Server) -> None:
    for path in (*ROUTES, "/jobs/%00", "/live?page=/jobs"):
        if not path.startswith("/live"):
            headers = server.ask(path).headers
            assert {name: headers.get(name) for name in HEADERS} == HEADERS, path
    refused = server.ask("/", headers={"Host": "evil.example"}).headers
    assert {name: refused.get(name) for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["content-security-policy"]
    assert "server" not in server.ask("/").headers


def test_the_security_policy_is_as_strict_as_it_can_be() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert {name: value for name, value in HEADERS.items() if name != "content-security-policy"} == {
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }


def test_no_script_and_no_other_site_gets_a_cookie(closed: Server) -> None:
    given = closed.ask(f"/?token={TOKEN}").cookies
    cookie = given[0].partition(";")[0]
    flash = closed.post("/pause", headers={"Cookie": cookie}).cookies
    own = closed.own
    typed = closed.ask("/login", "POST", urlencode({"token": TOKEN}).encode(), own).cookies
    gone = closed.ask("/", headers={"Cookie": f"{cookie}; {flash[0].partition(';')[0]}"}).cookies
    for cookies in (given, flash, typed, gone):
        (one,) = cookies
        assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in one.split(";")}


def test_a_form_of_another_site_is_refused_whatever_origin_it_names(server: Server, spool: Spool) -> None:
    visit = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Origin": server.origin, **FORM}
    body = urlencode({"csrf": server.ask("/").csrf}).encode()
    for site in ("cross-site", "same-site"):
        assert server.ask("/pause", "POST", body, {**visit, "Sec-Fetch-Site": site}).status == 403
    assert not (spool.path / "workers" / "paused").exists()
    assert server.ask("/pause", "POST", body, {**visit, "Sec-Fetch-Site": "same-origin"}).status == 303


@pytest.mark.parametrize(
    "job_id",
    [
        *("..%2f..%2fconfig.yaml", "%2e%2e", "..", "a%00b", "*", "-x", "x%0d%0aSet-Cookie:%20a=b", "a" * 101),
        *("%ff", "one%2foutput", "~", "a@b", ".hidden", "%252e%252e", "a b", "<script>"),
    ],
)
def test_a_wrong_id_finds_nothing(server: Server, spool: Spool, job_id: str) -> None:
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}.json", f"/jobs/{job_id}/output/1/out"):
        answer = server.ask(path.replace(" ", "%20"))
        assert answer.status == 404, (path, answer)
        assert b"max_retries" not in answer.body
        assert "set-cookie" not in answer.headers
    assert server.post(f"/jobs/{job_id}/retry".replace(" ", "%20")).status in {303, 404}


@pytest.mark.parametrize("path", ["/static/..%2fapp.py", "/static/../guard.py", "/static/%2e%2e", "/static/"])
def test_the_files_of_the_page_are_all_that_is_served(server: Server, path: str) -> None:
    answer = server.ask(path)
    assert answer.status == 404
    assert b"import" not in answer.body


def test_a_body_that_is_too_large_is_not_read(server: Server) -> None:
    headers = server.own
    assert server.ask("/pause", "POST", b"a=" + b"x" * 300_000, headers).status == 413
    assert server.ask("/pause", "POST", b"&".join(b"a=b" for _ in range(5000)), headers).status == 413


def test_a_head_that_is_too_large_is_refused(server: Server) -> None:
    assert server.ask("/?" + "x" * 40_000).status == 431
    assert server.ask("/", headers={"X-Long": "x" * 40_000}).status in {400, 431}
    assert server.ask("/").status == 200
