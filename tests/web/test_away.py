"""A spool that goes away and comes back, and a disk that refuses one file: the pages say so."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from queuectl.system import files
from queuectl.web import pages
from queuectl.web.dashboard import Dashboard
from queuectl.web.guard import HEADERS
from queuectl.web.pages.frame import Query
from tests.web.wire import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from queuectl import Spool
    from tests.web.conftest import Serve, Server

PAGES = ("/", "/jobs", "/jobs?q=x", "/jobs/one", "/dead", "/workers", "/config", "/nowhere/one")


def away(path: Path) -> Path:
    return path.with_name(f"{path.name}-away")


def unmount(path: Path) -> None:
    """Leave an empty directory, as an unmounted share does."""
    path.rename(away(path))
    path.mkdir(mode=0o700)


def mount(path: Path) -> None:
    path.rmdir()
    away(path).rename(path)


@pytest.mark.parametrize("go", [lambda path: path.rename(away(path)), unmount], ids=["renamed", "unmounted"])
def test_every_page_says_in_the_dashboards_own_look_that_the_spool_is_away(
    server: Server, spool: Spool, dead: Callable[..., str], go: Callable[[Path], None]
) -> None:
    dead("one")
    assert server.ask("/").status == 200
    go(spool.path)
    for path in PAGES:
        got = server.ask(path, headers={"Accept": "text/html"})
        assert got.status == (404 if path.startswith("/nowhere") else 503), path
        assert {name: got.headers.get(name) for name in HEADERS} == HEADERS
        if got.status == 503:
            assert "The spool is out of reach" in got.text, path
            assert 'http-equiv="refresh"' in got.text  # so it also comes back without JavaScript
        assert str(spool.path) in got.text
        for part in ('<nav aria-label="Pages of the dashboard"', "/static/style.css", "<h1", "<footer"):
            assert part in got.text, path
        twin = server.ask(path, headers={"Accept": "application/json"})
        assert json.loads(twin.body)["problem"], path
    assert server.ask("/", headers={"Accept": "text/html"}).text.count('href="/dead">Dead letters') == 1
    assert server.ask("/metrics").status == 503


def test_a_button_leaves_nothing_while_the_spool_is_away(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    csrf = server.ask("/").csrf
    spool.path.rename(away(spool.path))
    own = {**server.own, "Accept": "text/html"}
    for path in (
        "/pause",
        "/resume",
        "/jobs/one/retry",
        "/jobs/one/cancel",
        "/dead/retry",
        "/workers/w/stop",
    ):
        answer = server.ask(path, "POST", f"csrf={csrf}&sure=yes&only=one&back=/jobs".encode(), own)
        assert answer.status in {303, 503}, (path, answer)
    assert not spool.path.exists()


def test_every_page_works_again_when_the_spool_is_back(server: Server, spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    for go, back in (
        (unmount, mount),
        (lambda path: path.rename(away(path)), lambda path: away(path).rename(path)),
    ):
        go(spool.path)
        assert server.ask("/jobs/one").status == 503
        back(spool.path)
        assert server.ask("/jobs/one").status == 200
        assert server.ask("/").status == 200


class Stream:
    """The events of `/live`, one after the other."""

    def __init__(self, server: Server, query: str) -> None:
        self.line = connect(server)
        self.line.sendall(f"GET /live?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._got = b""

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        while block := self.line.recv(65536):
            self._got += block
            for found in re.finditer(rb"event: (\w+)\ndata: (.*)\n\n", self._got):
                yield found[1].decode(), json.loads(found[2])
            self._got = self._got[self._got.rfind(b"\n\n") + 2 :] if b"\n\n" in self._got else self._got

    def until(self, name: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for found, data in self.events():
            if found == name and fits(data):
                return data
        raise AssertionError(f"the stream ended without {name}")


def test_each_tick_of_the_stream_says_whether_the_page_may_be_old(server: Server, spool: Spool) -> None:
    stream = Stream(server, "page=/jobs&shown=jobs")
    with closing(stream.line):
        stream.until("tick", lambda tick: tick["trouble"] == "")
        unmount(spool.path)
        stream.until("tick", lambda tick: str(spool.path) in tick["trouble"])
        mount(spool.path)
        spool.file({"id": "meanwhile", "command": "true"})
        stream.until("part", lambda part: "meanwhile" in part["html"])
        stream.until("tick", lambda tick: tick["trouble"] == "")


def test_a_directory_that_is_gone_is_trouble_though_the_page_can_be_made(
    server: Server, spool: Spool
) -> None:
    done = spool.path / "done"
    stream = Stream(server, "page=/config&shown=config")
    with closing(stream.line):
        stream.until("tick", lambda tick: tick["trouble"] == "")
        done.rename(away(done))
        stream.until("tick", lambda tick: "done" in tick["trouble"])
        assert 'class="trouble"' in server.ask("/config").text
        away(done).rename(done)
        stream.until("tick", lambda tick: tick["trouble"] == "")


def test_no_page_is_shown_while_config_yaml_is_missing(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    stream = Stream(server, "page=/workers&shown=workers")
    with closing(stream.line):
        stream.until("tick", lambda tick: tick["trouble"] == "")
        mark = spool.root.config
        mark.rename(away(mark))
        stream.until("tick", lambda tick: "config.yaml" in tick["trouble"])
        for path in ("/", "/jobs", "/jobs/one", "/dead", "/workers", "/config"):
            assert server.ask(path).status == 503, path
        away(mark).rename(mark)
        stream.until("tick", lambda tick: tick["trouble"] == "")


def test_the_page_about_an_absent_spool_reloads_when_the_spool_is_back(server: Server, spool: Spool) -> None:
    unmount(spool.path)
    stream = Stream(server, "page=/jobs&shown=away")
    with closing(stream.line):
        stream.until("tick", lambda tick: tick["trouble"] != "")
        mount(spool.path)
        stream.until("reload", lambda _: True)


# ── in a browser ──────────────────────────────────────────────────────────────────────────────


def test_an_open_page_says_that_the_spool_is_away_and_goes_on_when_it_is_back(
    page: Page, server: Server, spool: Spool
) -> None:
    spool.file({"id": "one", "command": "true"})
    page.goto(f"{server.origin}/jobs")
    page.evaluate("window.untouched = true")
    expect(page.locator("#live")).to_have_text("live")
    unmount(spool.path)
    expect(page.locator("#live")).to_have_text("no spool")
    expect(page.locator("#trouble")).to_contain_text("config.yaml")
    expect(page.locator("table.rows")).to_contain_text("one")  # the last rows stay
    mount(spool.path)
    spool.file({"id": "meanwhile", "command": "true"})
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#trouble")).to_be_hidden()
    expect(page.locator("table.rows")).to_contain_text("meanwhile")
    assert page.evaluate("window.untouched")


def test_the_page_about_an_absent_spool_becomes_the_page_asked_for(
    page: Page, server: Server, spool: Spool
) -> None:
    spool.file({"id": "one", "command": "true"})
    unmount(spool.path)
    page.goto(f"{server.origin}/jobs/one")
    expect(page.locator("h1")).to_contain_text("The spool is out of reach")
    expect(page.locator("#live")).to_have_text("no spool")
    mount(spool.path)
    expect(page.locator("h1")).to_contain_text("one")
    expect(page.locator("#live")).to_have_text("live")
    assert page.url == f"{server.origin}/jobs/one"


def test_a_page_asks_for_the_token_of_a_new_server(page: Page, serve: Serve) -> None:
    server = serve("--token", "first-token-of-all")
    page.goto(f"{server.printed}")
    expect(page.locator("#live")).to_have_text("live")
    assert server.interrupt() == 130
    expect(page.locator("#live")).to_have_text("offline")
    serve("--token", "another-token-then", "--port", str(server.port))
    expect(page.locator("h1")).to_have_text("This dashboard needs its token")


# ── a disk that refuses one file ──────────────────────────────────────────────────────────────


@pytest.fixture
def dashboard(spool: Spool) -> Iterator[Dashboard]:
    with closing(Dashboard(spool)) as made:
        yield made


class Refusing:
    """The kernel, on a disk that refuses paths with these words."""

    def __init__(self, real: Any, words: str) -> None:
        self._real = real
        self._words = words

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in {"open", "stat", "lstat", "scandir", "listdir"}:
            return real

        def call(path: Any, *args: Any, **more: Any) -> Any:
            if self._words in str(path):
                raise OSError(5, "Input/output error", str(path))
            return real(path, *args, **more)

        return call


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("logs/one.1.err", "it cannot be read: Input/output error"),
        ("logs/one.1.out", "it cannot be read: Input/output error"),
        ("-one.yaml", "it cannot be read: Input/output error"),
    ],
)
@pytest.mark.parametrize("path", ["/jobs/one", "/jobs", "/dead", "/", "/jobs?q=went"])
def test_a_file_that_the_disk_refuses_hides_no_page(
    dashboard: Dashboard,
    dead: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    told: str,
    path: str,
) -> None:
    from queuectl.web import rendering

    dead("one")
    dead("two")
    monkeypatch.setattr(files, "kernel", Refusing(files.kernel, words))
    where, _, query = path.partition("?")
    page = pages.find(dashboard, where, Query.parse(query))
    assert page.status == 200, page.facts
    frame = {"here": path, "section": "/", "json_here": "", "said": None, "token": ""}
    shown = rendering.whole(page, frame).decode()
    if path == "/jobs/one":
        assert told in shown
    elif "q=" not in path:
        assert "two" in shown
