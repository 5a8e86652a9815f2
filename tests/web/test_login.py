"""The token: what is shown without it, what is accepted for it, and how often it may be tried."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

import queuectl
from queuectl.web import login
from queuectl.web.guard import HEADERS, Rules
from queuectl.web.login import Lock, client_of, pause
from tests.web.conftest import FORM, TOKEN, Answer, Serve, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl import Spool

PATHS = (
    *("/", "/overview.json", "/jobs", "/jobs.json", "/jobs/secret-job", "/jobs/secret-job.json"),
    *("/jobs?q=secret", "/jobs/secret-job/output/1/out", "/jobs/secret-job/file"),
    *("/jobs/secret-job/error/0", "/jobs/secret-job/retry", "/dead", "/dead/retry", "/workers"),
    *("/workers/x/stop", "/config", "/new", "/pause", "/resume", "/metrics", "/live", "/live?page=/"),
    *("/login", "/login/", "/LOGIN", "/logout", "/healthz", "/healthz/", "/static", "/static/"),
    *("/static/nothing.css", "/static/style.css", "/static/page.js", "/static/icon.svg"),
    *("/static/..%2fapp.py", "/static/%2e%2e/login", "/%2flogin", "//login", "/nowhere", "/.json"),
    *("/%00", "/%ff", "/jobs/%2e%2e", "/?a=b"),
)
ASKING = (
    *(("GET", "text/html"), ("GET", "application/json"), ("HEAD", "*/*"), ("PUT", "*/*")),
    *(("POST", "text/html"), ("POST", "application/json")),
)


def answers(server: Server, headers: dict[str, str]) -> Iterator[tuple[str, Answer]]:
    """The answer of every path to every method, for a browser and for a program."""
    own = server.own
    for path in PATHS:
        for method, accept in ASKING:
            body = b"sure=yes&scope=all&command=true" if method == "POST" else None
            yield f"{method} {path}", server.ask(path, method, body, {"Accept": accept, **own, **headers})


def test_no_answer_without_the_token_reveals_anything_of_the_spool(closed: Server, spool: Spool) -> None:
    spool.file({"id": "secret-job", "command": "echo secret-command", "run_at": "2090-01-01T00:00:00Z"})
    inside = closed.ask("/", headers={"Cookie": closed.cookie})
    secrets = [str(spool.path), queuectl.__version__, inside.csrf, "secret-command"]
    secrets += ['class="pill', "data-live", 'name="csrf"', "max_retries", TOKEN]
    statuses: dict[str, set[int]] = {}
    for who in ({}, {"Cookie": f"queuectl-{closed.port}={'0' * 64}"}, {"Authorization": "Bearer wrong"}):
        for what, answer in answers(closed, who):
            told = answer.text + repr(answer.headers)
            # The path may come back, as the page to show after the login.
            assert [secret for secret in secrets if secret in told] == [], (what, told)
            assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, what
            statuses.setdefault(what, set()).add(answer.status)
    assert statuses["GET /"] == statuses["POST /pause"] == statuses["GET /metrics"] == {401}
    assert statuses["GET /static/nothing.css"] <= {401, 404}
    assert statuses["GET /static/style.css"] == statuses["GET /healthz"] == {200, 401}  # 401: a wrong Bearer
    assert [found.id for found in spool.list()] == ["secret-job"]


def test_the_health_check_reveals_no_path(closed: Server, spool: Spool) -> None:
    spool.path.rename(spool.path.with_name("away"))
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
        answer = closed.ask("/healthz", headers=headers)
        assert (answer.status, answer.text) == (503, "The spool is out of reach.\n")


# ── the cookie ────────────────────────────────────────────────────────────────────────────────


def test_nobody_makes_the_cookie_without_the_servers_secret(closed: Server) -> None:
    name, _, right = closed.cookie.partition("=")
    guesses = [right[:-1], right.upper(), right + "0", "", TOKEN, "0" * 64]
    for key in (b"", TOKEN.encode(), b"queuectl dashboard"):
        texts = (
            b"",
            b"queuectl dashboard",
            b"pass\n",
            f"pass\n{TOKEN}".encode(),
            b"form\n",
            TOKEN.encode(),
        )
        guesses += [hmac.new(key, text, hashlib.sha256).hexdigest() for text in texts]
    for guess in guesses:
        assert closed.ask("/", headers={"Cookie": f"{name}={guess}"}).status == 401, guess
    assert closed.ask("/", headers={"Cookie": f"{name}={right}"}).status == 200


def test_each_proof_is_good_for_one_thing_one_server_and_one_token() -> None:
    one, other = Rules(1, TOKEN), Rules(1, TOKEN)
    assert one.pass_ != other.pass_
    assert one.csrf != other.csrf
    assert one.sign("said", "a") != one.sign("said", "b")
    assert one.sign("said", "") != one.csrf
    assert Rules(1, TOKEN, secret=one.secret).pass_ == one.pass_
    assert Rules(1, TOKEN + "x", secret=one.secret).pass_ != one.pass_
    assert len({one.pass_, one.csrf, one.sign("said")}) == 3
    assert not Rules(1).is_pass(Rules(1).pass_)
    assert not Rules(1).is_token("")


def test_the_proof_of_a_form_is_no_cookie_and_the_cookie_is_no_proof(closed: Server) -> None:
    cookie = closed.cookie
    name, _, right = cookie.partition("=")
    csrf = closed.ask("/", headers={"Cookie": cookie}).csrf
    assert closed.ask("/", headers={"Cookie": f"{name}={csrf}"}).status == 401
    own = {"Origin": closed.origin, "Cookie": cookie, **FORM}
    for proof in (right, TOKEN, csrf[:-1], csrf + "0", csrf.upper()):
        assert closed.ask("/pause", "POST", urlencode({"csrf": proof}).encode(), own).status == 400, proof
    assert closed.ask("/pause", "POST", urlencode({"csrf": csrf}).encode(), own).status == 303


def test_cookies_of_other_programs_keep_nobody_out(closed: Server) -> None:
    own = closed.cookie
    name = own.partition("=")[0]
    others = (
        'prefs={"a":1}',
        "a[b]=1",
        "=",
        "",
        ";;",
        'x="',
        "é=ü",
        "a b=c",
        "$Version=1",
        f"{name}",
        f"{name}=x",
    )
    for other in others:
        for text in (f"{other}; {own}", f"{own}; {other}", f"{other};{own};{other}"):
            assert closed.ask("/", headers={"Cookie": text}).status == 200, text
        assert closed.ask("/", headers={"Cookie": other}).status == 401
    many = "; ".join(f"program-{number}={'x' * 100}" for number in range(200))
    assert closed.ask("/", headers={"Cookie": f"{many}; {own}"}).status == 200


def test_a_program_that_shows_the_token_may_press_every_button(closed: Server, spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    bearer = {"Authorization": f"Bearer {TOKEN}", **FORM}
    assert closed.ask("/pause", "POST", b"", bearer).status == 303
    assert (spool.path / "workers" / "paused").exists()
    told = closed.ask("/jobs/one/cancel", "POST", b"", {**bearer, "Accept": "application/json"})
    assert (told.status, "Cancel one?" in told.text) == (409, True)
    told = closed.ask("/jobs/one/cancel", "POST", b"sure=yes", {**bearer, "Accept": "application/json"})
    assert (told.status, "one was cancelled" in told.text) == (200, True)
    assert str(spool.find("one").state) == "dead"


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Bearer", "Basic YTpi", f"Basic {TOKEN}", TOKEN, "bearer"]
)
def test_a_program_without_the_right_token_is_refused(closed: Server, spool: Spool, header: str) -> None:
    for origin in ({}, {"Origin": closed.origin}):
        status = closed.ask("/pause", "POST", b"", {"Authorization": header, **origin, **FORM}).status
        assert status in {401, 403}
    assert not (spool.path / "workers" / "paused").exists()


def test_a_bearer_proves_nothing_to_a_server_without_a_token(server: Server, spool: Spool) -> None:
    for token in ("x", TOKEN):
        headers = {"Authorization": f"Bearer {token}", **FORM}
        assert server.ask("/pause", "POST", b"", headers).status in {400, 403}
    assert not (spool.path / "workers" / "paused").exists()


def test_a_bearer_from_another_site_is_refused(closed: Server, spool: Spool) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example", **FORM}
    assert closed.ask("/pause", "POST", b"", headers).status == 403
    assert not (spool.path / "workers" / "paused").exists()


# ── how often ─────────────────────────────────────────────────────────────────────────────────


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lock(clock: Clock) -> Lock:
    return Lock(Rules(5000, TOKEN), clock)


def test_a_person_may_mistype_the_token_and_a_program_may_not_guess_it() -> None:
    assert 3 <= login.FREE <= 10
    assert login.FREE < login.FREE_IN_ALL <= 1000
    assert login.MOST_IN_ALL <= 30 <= login.MOST


def test_pauses_grow_from_none_to_the_longest() -> None:
    assert [pause(wrong, 3, 20) for wrong in range(10)] == [0, 0, 0, 1, 2, 4, 8, 16, 20, 20]
    assert pause(10**9, 5, 300) == 300


def test_each_further_wrong_token_costs_a_longer_pause(lock: Lock, clock: Clock) -> None:
    for number in range(login.FREE):
        assert lock.try_("a", f"wrong-{number}") == login.Verdict(False)
    waits = []
    for number in range(12):
        verdict = lock.try_("a", TOKEN)  # the right token is not compared either: a guess learns nothing
        assert not verdict.is_right
        waits.append(verdict.wait)
        clock.now += verdict.wait
        assert lock.try_("a", f"again-{number}") == login.Verdict(False)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    clock.now += 300
    assert lock.try_("a", TOKEN).is_right


def test_a_client_that_guesses_locks_no_other_out(lock: Lock) -> None:
    for number in range(login.FREE):
        lock.try_("a", f"wrong-{number}")
    assert lock.try_("a", TOKEN).wait
    assert lock.try_("b", TOKEN).is_right


def test_a_page_or_program_that_repeats_a_wrong_token_counts_once(lock: Lock) -> None:
    for _ in range(100):
        assert lock.try_("a", "the old token") == login.Verdict(False)
    assert lock.try_("a", TOKEN).is_right


def test_many_clients_that_guess_share_a_short_pause(lock: Lock, clock: Clock) -> None:
    for number in range(login.FREE_IN_ALL):
        assert lock.try_(f"host-{number}", f"wrong-{number}").wait == 0
    waits = []
    for number in range(8):
        waits.append(lock.try_(f"new-{number}", TOKEN).wait)
        clock.now += waits[-1]
        lock.try_(f"new-{number}", "wrong")
    assert waits == [1, 2, 4, 8, 10, 10, 10, 10]


def test_wrong_tokens_are_forgotten_after_a_while(lock: Lock, clock: Clock) -> None:
    for number in range(login.FREE):
        lock.try_("a", f"wrong-{number}")
    clock.now += login.FORGOTTEN
    assert lock.try_("a", "one more") == login.Verdict(False)
    assert lock.try_("a", TOKEN).is_right


def test_no_number_of_clients_fills_the_memory(lock: Lock, clock: Clock) -> None:
    for number in range(login.CLIENTS + 50):
        clock.now += login.MOST_IN_ALL
        lock.try_(f"host-{number}", "wrong")
    assert len(lock._tries) <= login.CLIENTS  # noqa: SLF001 - nobody else asks for it
    assert lock.try_("b", TOKEN).wait  # the count of all is never dropped


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2:3:4:5", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("no address", "no address", True),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same


@pytest.mark.parametrize("way", ["form", "address", "header"])
def test_guessing_is_slowed_down_and_logged(serve: Serve, way: str) -> None:
    server = serve("--token", TOKEN)

    def guess(token: str) -> Answer:
        if way == "form":
            own = server.own
            return server.ask("/login", "POST", urlencode({"token": token, "back": "/jobs"}).encode(), own)
        if way == "address":
            return server.ask(f"/?{urlencode({'token': token})}")
        return server.ask("/", headers={"Authorization": f"Bearer {token}"})

    statuses = [guess(f"wrong-guess-{number}").status for number in range(login.FREE)]
    assert set(statuses) <= {401, 403}
    refused = guess(TOKEN)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "set-cookie" not in refused.headers
    err = server.end()
    assert len(re.findall(r"A wrong token came from 127\.0\.0\.1 \(number \d", err)) == login.FREE
    assert "wrong-guess" not in err
    assert TOKEN not in err


def test_a_visitor_who_is_logged_in_is_not_slowed_down_by_guesses(serve: Serve) -> None:
    server = serve("--token", TOKEN)
    cookie = server.cookie
    for number in range(login.FREE):
        server.ask("/", headers={"Authorization": f"Bearer wrong-{number}"})
    assert server.ask("/", headers={"Authorization": f"Bearer {TOKEN}"}).status == 429
    assert server.ask("/jobs", headers={"Cookie": cookie}).status == 200
