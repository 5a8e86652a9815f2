"""The stream that keeps an open page up to date: each second, the parts that have changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.times import iso
from queuectl.web import hangs, pages, rendering
from queuectl.web.hangs import Hangs
from queuectl.web.pages.frame import AWAY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Any

    from queuectl.web.dashboard import Dashboard
    from queuectl.web.hangs import Threads
    from queuectl.web.pages.frame import Page, Query

EVERY = 1.0
#: The pause between two pages is this many times the seconds that making one took.
PATIENCE = 10
#: The page's script keeps the words in these elements up to date.
_TIME = re.compile(r"(<time [^>]*>)[^<]*</time>")


@dataclass(frozen=True, slots=True)
class Shown:
    """The page on a screen: its address, its name ("" if unknown) and its frame."""

    path: str
    query: Query
    name: str
    frame: Mapping[str, Any]


async def stream(
    dashboard: Dashboard, shown: Shown, closing: asyncio.Event, threads: Threads
) -> AsyncIterator[bytes]:
    """Server-sent events: `part` with the id and HTML of each part that differs from the last one sent.

    `tick` holds the time of the server and, in `trouble`, why the page may be old ("" if it is not).
    `reload` means that the address has another page now: a job is gone, or the spool is back.
    """
    sent: dict[str, str] = {}
    name, trouble = shown.name, ""
    yield b"retry: 2000\n\n"
    while not closing.is_set():
        begun = times.clock.monotonic()
        making = asyncio.ensure_future(threads.call(partial(_made, dashboard, shown, sent)))
        while not (await asyncio.wait([making], timeout=EVERY))[0]:
            if (silence := times.clock.monotonic() - begun) > hangs.LOOKING:
                trouble = Hangs(silence).problem
            yield _tick(dashboard, trouble)
        page, changed = making.result()
        name = name or (page.name if page.name != AWAY else "")
        if page.name not in {name, AWAY}:
            yield _event("reload", {})
            return
        trouble = page.facts["trouble"]
        for part, html in changed if page.name == name else []:
            yield _event("part", {"name": part, "html": html})
        again = times.clock.monotonic() + max(EVERY, PATIENCE * (times.clock.monotonic() - begun))
        while times.clock.monotonic() < again and not closing.is_set():
            yield _tick(dashboard, trouble)
            with contextlib.suppress(TimeoutError):  # the common end: it is time for the next tick
                await asyncio.wait_for(closing.wait(), EVERY)


def _made(dashboard: Dashboard, shown: Shown, sent: dict[str, str]) -> tuple[Page, list[tuple[str, str]]]:
    """The page now, and the parts that differ from `sent`, which then holds them."""
    page = pages.find(dashboard, shown.path, shown.query)
    if shown.name not in {"", page.name}:
        return page, []
    changed = []
    for name in ("nav", *page.parts):
        if name in page.still:
            continue
        html = rendering.part(name, page, shown.frame)
        bare = _TIME.sub(r"\1", html)
        if sent.get(name) != bare:
            sent[name] = bare
            changed.append((name, html))
    return page, changed


def _tick(dashboard: Dashboard, trouble: str) -> bytes:
    return _event("tick", {"now": iso(dashboard.spool.clock()), "trouble": trouble})


def _event(name: str, data: Mapping[str, str]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
