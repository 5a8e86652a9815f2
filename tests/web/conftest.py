"""Fixtures of the dashboard's tests: a real server on a real spool, a client for any request, Chromium."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

import pytest

from queuectl.system import files
from tests.copies import Copy
from tests.roles import be_a_dashboard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from queuectl import Spool
    from tests.conftest import Until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 15_000  # milliseconds: a machine may be busy
TOKEN = "a-token-that-only-tests-know"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Answer:
    """An answer: its status, headers in lower case, body and cookies."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cookies: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def csrf(self) -> str:
        """The proof in the forms of the page."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.text)
        assert found, self.text
        return found[1]


class Server:
    """A dashboard in its own process, on a free port."""

    def __init__(
        self, spool: Spool, *options: str, env: Mapping[str, str] | None = None, first: str = ""
    ) -> None:
        words = ["--spool", str(spool.path), "webui", "--port", "0", *options]
        read_out, out = os.pipe()
        err, self._err = tempfile.mkstemp(dir=spool.path.parent)
        self.popen = Copy(be_a_dashboard, words, first, out=out, err=err, env={**os.environ, **(env or {})})
        os.close(out)
        os.close(err)
        with open(read_out, encoding="utf-8") as printed:
            self.printed = printed.readline().strip()
        assert self.printed.startswith("http://"), self.end()
        self.port = urlsplit(self.printed).port or 0
        self.host = f"127.0.0.1:{self.port}"
        self.origin = f"http://{self.host}"

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, with exactly these headers beside the host."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Host": self.host, **(headers or {})}
        line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value:
                line.putheader(name, value)
        if body is not None:
            line.putheader("Content-Length", str(len(body)))
        line.endheaders(body)
        got = line.getresponse()
        cookies = got.headers.get_all("set-cookie") or []
        answer = Answer(
            got.status, {key.lower(): value for key, value in got.headers.items()}, got.read(), cookies
        )
        line.close()
        return answer

    def post(
        self, path: str, fields: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a form as a browser does from a page of the dashboard."""
        values = {"csrf": self.ask("/", headers=headers).csrf, **(fields or {})}
        return self.ask(path, "POST", urlencode(values, doseq=True).encode(), {**self.own, **(headers or {})})

    @property
    def own(self) -> dict[str, str]:
        """The headers of a form of this server."""
        return {"Origin": self.origin, **FORM}

    @property
    def cookie(self) -> str:
        """The cookie that the server exchanges for the token."""
        return self.ask(f"/?token={TOKEN}").cookies[0].partition(";")[0]

    def said(self, answer: Answer) -> str:
        """The sentence that the page after a button shows."""
        assert answer.status == 303, answer
        cookie = "; ".join(one.partition(";")[0] for one in answer.cookies)
        shown = self.ask(answer.headers["location"], headers={"Cookie": cookie, "Accept": "text/html"})
        found = re.search(r'<p class="said (?:good|bad)" role="status">(.*?)</p>', shown.text)
        return found[1] if found else ""

    def interrupt(self) -> int:
        """Press Ctrl-C, and wait for the end."""
        self.popen.send_signal(signal.SIGINT)
        return self.popen.wait(60)

    def end(self) -> str:
        """Kill it; returns what it wrote to standard error."""
        self.popen.kill()
        self.popen.wait()
        with open(self._err, encoding="utf-8") as err:
            return err.read()


class Serve(Protocol):
    """Starts a dashboard with these options; `first` is a program that sets its times and limits."""

    def __call__(self, *options: str, env: Mapping[str, str] | None = None, first: str = "") -> Server: ...


@pytest.fixture
def serve(spool: Spool) -> Iterator[Serve]:
    started: list[Server] = []

    def start(*options: str, env: Mapping[str, str] | None = None, first: str = "") -> Server:
        started.append(Server(spool, *options, env=env, first=first))
        return started[-1]

    yield start
    for server in started:
        err = server.end()
        assert "fault of queuectl" not in err, err
        assert "Traceback" not in err, err


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve()


@pytest.fixture
def closed(serve: Serve) -> Server:
    """A dashboard that needs the token."""
    return serve("--token", TOKEN)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. The fixture `page` checks that it asks no other host."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as player:
        made = player.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab in which no script fails and nothing is refused by the content security policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    faults: list[str] = []
    asked: set[str] = set()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.add(urlsplit(request.url).hostname or ""))
    yield page
    context.close()
    assert [fault for fault in faults if "Failed to load resource" not in fault] == []
    assert asked <= {"127.0.0.1", "localhost", ""}


@pytest.fixture
def dead(spool: Spool, until: Until) -> Callable[..., str]:
    """Files a job and moves it to dead/ with this error."""

    def make(job_id: str, command: str = "exit 7", error: str = "exit status 7") -> str:
        spool.file({"id": job_id, "command": command, "max_retries": 0, "priority": 10})
        with spool.member() as me:
            me.look(spool.clock(), again=True)
            claim = me.claim(spool.clock())
            assert claim is not None
            begun = me.begin(claim)
            assert begun is not None
            claim, attempt, (out, err) = begun
            claim = me.note(claim, me.started(attempt, None, spool.clock()))
            os.write(err, b"it went wrong\n")
            files.close(out, err)
            me.fail(claim, {"exit_code": 7, "seconds": 0.5, "error": error}, spool.clock(), 0.0)
        return job_id

    return make


@pytest.fixture
def shots() -> Path | None:
    """The directory for screenshots of the pages, from $QUEUECTL_SHOTS."""
    from pathlib import Path

    where = os.environ.get("QUEUECTL_SHOTS")
    return Path(where) if where else None
