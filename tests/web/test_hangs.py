"""A disk that does not answer: every address is answered all the same, and works again when it is back."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from queuectl.web.hangs import Hangs, Threads
from tests.web.test_away import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from queuectl import Spool
    from tests.web.conftest import Serve, Server

#: While a fifo exists, each call on the spool opens it, and so blocks until the fifo has a writer.
HANGING = """
import os
from queuectl.system import files
from queuectl.web import hangs

class Hanging:
    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in {{"open", "stat", "lstat", "scandir", "listdir", "rename", "link", "unlink"}}:
            return real
        def call(*args, **more):
            if os.path.exists({gate!r}):
                os.close(os.open({gate!r}, os.O_RDONLY))
            return real(*args, **more)
        return call

files.kernel = Hanging()
hangs.LOOKING = hangs.ACTING = 0.5
"""


class Disk:
    """Hangs from `hang` to `release`."""

    def __init__(self, gate: Path) -> None:
        self._gate = gate
        self._held: int | None = None

    def hang(self) -> None:
        os.mkfifo(self._gate)

    def release(self) -> None:
        if self._gate.exists():
            self._held = os.open(self._gate, os.O_RDWR)  # a writer: no open blocks now
            self._gate.unlink()

    def close(self) -> None:
        self.release()
        if self._held is not None:
            os.close(self._held)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with closing(Disk(tmp_path / "gate")) as made:
        yield made


@pytest.fixture
def server(serve: Serve, disk: Disk, tmp_path: Path) -> Server:
    return serve(first=HANGING.format(gate=str(tmp_path / "gate")))


def test_every_page_says_that_the_disk_does_not_answer_and_works_again_afterwards(
    server: Server, disk: Disk, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    assert server.ask("/").status == 200
    disk.hang()
    for path in ("/", "/jobs", "/jobs/one", "/dead", "/workers", "/config", "/jobs/one/file", "/nowhere/one"):
        got = server.ask(path, headers={"Accept": "text/html"})
        assert got.status == 503, path
        assert "The spool is out of reach" in got.text
        assert "The spool has not answered for" in got.text
        assert str(spool.path) in got.text
    for path in ("/metrics", "/healthz", "/overview.json"):
        assert server.ask(path).status == 503, path
    assert server.ask("/static/style.css").status == 200
    disk.release()
    assert server.ask("/jobs/one").status == 200
    assert server.ask("/healthz").status == 200


def test_a_button_says_that_the_disk_does_not_answer(
    server: Server, disk: Disk, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    csrf = server.ask("/").csrf
    own = server.own
    disk.hang()
    got = server.ask("/jobs/one/retry", "POST", f"csrf={csrf}&back=/jobs".encode(), own)
    assert got.status == 503
    assert "may still be done" in got.text


def test_more_pages_than_threads_hang_and_each_is_answered(server: Server, disk: Disk) -> None:
    assert server.ask("/").status == 200
    disk.hang()
    with closing(Stream(server, "page=/jobs&shown=jobs").line):
        with ThreadPoolExecutor(60) as asking:
            assert {got.status for got in asking.map(server.ask, ["/jobs"] * 60)} == {503}
        assert server.ask("/").status == 503
    disk.release()
    assert server.ask("/").status == 200


def test_ctrl_c_ends_a_server_whose_disk_hangs(server: Server, disk: Disk) -> None:
    disk.hang()
    assert server.ask("/").status == 503
    assert server.interrupt() == 130


def in_a_loop(calls: Coroutine[object, object, object]) -> None:
    """Run a coroutine in its own thread: this one may hold the loop of the browser."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, calls).result()


def test_a_late_call_keeps_its_place_until_it_returns() -> None:
    gate, order = threading.Event(), []

    async def calls() -> None:
        threads = Threads(1)
        with pytest.raises(Hangs):
            await threads.within(0.01, gate.wait)
        with pytest.raises(Hangs):  # it waits for a place
            await threads.within(0.01, lambda: order.append("second"))
        assert order == []
        gate.set()
        await threads.call(lambda: order.append("third"))

    in_a_loop(calls())
    assert order == ["second", "third"]


def test_the_error_of_a_call_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise TimeoutError(110, "Connection timed out")  # of the disk, which does answer

    with pytest.raises(TimeoutError):
        in_a_loop(Threads().within(10, fail))
