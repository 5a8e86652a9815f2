"""Slow clients: each has limited time and a limited number of connections, and keeps nobody else out."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl.web.server import IN_ALL, PER_CLIENT, PROMPT, READ_SECONDS, REQUEST_SECONDS, Place, to_give_up
from tests.web.wire import answer, connect, received, wait_for_the_end

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from queuectl import Spool
    from tests.conftest import Until
    from tests.web.conftest import Serve, Server

HOST = b"Host: localhost\r\n"
GOOD = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
FORM = b"Origin: http://localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
POST = b"POST /pause HTTP/1.1\r\n" + HOST + FORM
QUICK = "import queuectl.web.server as s; s.REQUEST_SECONDS = s.READ_SECONDS = 0.5; s.PROMPT = 0.0"


@pytest.fixture
def hasty(serve: Serve) -> Server:
    """A server that waits half a second for a client."""
    return serve(first=QUICK)


def trickle(line: socket.socket, data: bytes) -> None:
    """Send byte after byte until the server hangs up."""
    line.settimeout(0.05)
    for number in range(10_000):
        try:
            line.sendall(data[number : number + 1] or b"x")
            if not received(line):
                return
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            return
    pytest.fail("the server takes byte after byte for ever")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: loc", id="half a head"),
        pytest.param(POST + b"Content-Length: 90\r\n\r\ncsrf=", id="half a form"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\ncsrf=\r\n", id="a form without end"),
        pytest.param(GOOD.replace(b"\r\n\r\n", b"\r\nContent-Length: 90\r\n\r\n"), id="half a body, unread"),
    ],
)
@pytest.mark.parametrize("after", [b"", GOOD], ids=["at once", "after a good request"])
def test_the_server_hangs_up_on_a_client_that_does_not_finish_its_request(
    hasty: Server, data: bytes, after: bytes
) -> None:
    with connect(hasty) as line:
        if after:
            line.sendall(after)
            assert answer(line).status == 200
        line.sendall(data)
        wait_for_the_end(line)


@pytest.mark.parametrize("after", [b"", GOOD], ids=["at once", "after a good request"])
@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nX: ", POST + b"Content-Length: 99999\r\n\r\n"], ids=["head", "form"]
)
def test_the_server_hangs_up_on_a_client_that_sends_byte_after_byte(
    hasty: Server, data: bytes, after: bytes
) -> None:
    with connect(hasty) as line:
        if after:
            line.sendall(after)
            assert answer(line).status == 200
        trickle(line, data)


def test_the_server_hangs_up_on_a_client_that_does_not_read_a_long_answer(
    hasty: Server, spool: Spool, dead: Callable[..., str], until: Until
) -> None:
    dead("one")
    size = 64 * 1024 * 1024
    with (spool.path / "logs" / "one.1.out").open("wb") as log:
        log.write(b"x" * size)
    with connect(hasty) as line:
        line.sendall(b"GET /jobs/one/output/1/out HTTP/1.1\r\n" + HOST + b"\r\n")
        assert line.recv(1)
        process = psutil.Process(hasty.popen.pid)
        port = line.getsockname()[1]
        until(
            lambda: port not in {one.raddr.port for one in process.net_connections() if one.raddr},
            "the server hangs up",
        )
        assert len(wait_for_the_end(line)) < size


def test_a_client_that_reads_gets_all_of_a_long_answer(
    hasty: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    size = 16 * 1024 * 1024
    (spool.path / "logs" / "one.1.out").write_bytes(b"x" * size)
    with connect(hasty) as line:
        line.sendall(b"GET /jobs/one/output/1/out HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert len(wait_for_the_end(line)) > size


def test_a_stream_may_take_longer_than_a_request(hasty: Server) -> None:
    with connect(hasty) as line:
        line.sendall(b"GET /live?page=/ HTTP/1.1\r\n" + HOST + b"\r\n")
        got = b""
        while got.count(b"event: tick") < 3:  # longer than a request may take
            block = received(line)
            assert block, "the stream has ended"
            got += block


@pytest.mark.parametrize(
    "path", [b"/live", b"/live?page=/jobs", b"/jobs/one/output/1/err", b"/jobs/one/file", b"/", b"/metrics"]
)
def test_the_answer_to_head_ends_and_keeps_the_connection(
    server: Server, dead: Callable[..., str], path: bytes
) -> None:
    dead("one")
    with connect(server) as line:
        for _ in range(2):  # the connection takes a second request
            line.sendall(b"HEAD " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            assert answer(line, is_head=True).status == 200
        line.sendall(GOOD)
        got = answer(line)
        assert (got.status, got.body) == (200, b"ok\n")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: loc", id="slow heads"),
        pytest.param(GOOD + b"GET / HTTP/1.1\r\nX: ", id="slow heads after a good request"),
        pytest.param(POST + b"Content-Length: 90\r\n\r\ncsrf=", id="slow forms"),
        pytest.param(b"GET /live?page=/ HTTP/1.1\r\n" + HOST + b"\r\n", id="streams"),
    ],
)
def test_slow_clients_do_not_keep_others_out(serve: Serve, data: bytes) -> None:
    server = serve(first="import queuectl.web.server as s; s.PER_CLIENT = 8")
    with ExitStack() as stack:
        lines = [stack.enter_context(connect(server)) for _ in range(20)]
        for line in lines:
            try:
                line.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                continue  # the server has ended it already
        for _ in range(5):
            assert server.ask("/healthz").status == 200
        assert server.ask("/").status == 200


def test_the_times_that_clients_have_are_short_but_long_enough_for_people() -> None:
    assert 5 <= REQUEST_SECONDS <= 30
    assert 10 <= READ_SECONDS <= 60
    assert 50 <= PER_CLIENT < IN_ALL <= 500


def places(text: str, *, client: str = "a") -> list[Place]:
    """A place a letter: s has owed a request for long, n for a moment; b is being answered."""
    since = {"s": 100.0, "n": 1000.0, "b": 200.0}
    return [Place(client, letter in "sn", since[letter] + at / 1e6) for at, letter in enumerate(text)]


@pytest.mark.parametrize(
    ("all_", "goes"),
    [
        (places("n"), None),
        (places("b" * PER_CLIENT), None),
        (places("b" * PER_CLIENT + "n"), 0),
        (places("b" * 40 + "s" * 10 + "b" * (PER_CLIENT - 50) + "n"), 40),
        (places("b" + "n" * PER_CLIENT), 0),
        (places("s" * PER_CLIENT) + places("n" * 50, client="b"), None),
        (places("b" * PER_CLIENT + "n") + places("s" * 50, client="b"), 0),
        (places("b" * 3, client="b") + [Place(f"c{at}", False, 150.0) for at in range(IN_ALL - 3)], None),
        (places("b" * 3, client="b") + [Place(f"c{at}", False, 150.0) for at in range(IN_ALL - 2)], 0),
    ],
)
def test_the_slowest_connection_of_the_client_with_most_of_them_ends(
    all_: list[Place], goes: int | None
) -> None:
    assert to_give_up(all_, 1000.0 + PROMPT / 2) == goes
