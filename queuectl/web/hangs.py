"""A disk may hang. Each call to the spool runs in its own thread and is awaited for a limited time."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from queuectl.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: This many calls run at once; further ones wait for a place.
PLACES = 40
#: A page is waited for this many seconds, an action (which may wait itself) this many.
LOOKING, ACTING = 5.0, 20.0


class Hangs(QueueError):
    """The spool has not answered in time; the call goes on in its thread."""

    exit_status = 75

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The spool has not answered for {seconds:.0f} s.",
            "See whether its disk or share can be reached. What was asked for may still be done: look first.",
        )


class Threads:
    """Threads for calls to the spool. A call that never returns does not keep the process alive."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = asyncio.Semaphore(places)

    async def call(self, act: Callable[[], T]) -> T:
        """Run `act` in a thread; it keeps its place until it returns."""
        async with self._places:
            done: Future[T] = Future()
            done.set_running_or_notify_cancel()
            threading.Thread(target=_run, args=(act, done), daemon=True, name="page").start()
            return await asyncio.wrap_future(done)

    async def within(self, seconds: float, act: Callable[[], T]) -> T:
        """The result of `act`. Raises `Hangs` after `seconds`; `act` then goes on, and its result is lost."""
        calling = asyncio.ensure_future(self.call(act))
        if not (await asyncio.wait([calling], timeout=seconds))[0]:
            calling.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise Hangs(seconds)
        return calling.result()


def _run(act: Callable[[], T], done: Future[T]) -> None:
    try:
        done.set_result(act())
    except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
        done.set_exception(error)
