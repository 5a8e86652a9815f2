"""The stream that keeps an open page true: every second, the parts of it that have changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time

from anyio import to_thread

from queuectl.job import iso
from queuectl.web import pages, rendering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Any

    from queuectl.web.dashboard import Dashboard
    from queuectl.web.pages import Page, Query

EVERY = 1.0
#: A page is made again after this many times the seconds that making it took.
PATIENCE = 10
#: The words inside change by themselves, and the page's script changes them.
_TIME = re.compile(r"(<time [^>]*>)[^<]*</time>")


async def stream(
    dashboard: Dashboard, path: str, query: Query, frame: Mapping[str, Any], closing: asyncio.Event
) -> AsyncIterator[bytes]:
    """Server-sent events: `part` with the id and HTML of each part that differs from the last one sent.

    `tick` tells the server's time, and that the line is alive; `reload` that the page is another one.
    """
    sent: dict[str, str] = {}
    first: str | None = None
    yield b"retry: 2000\n\n"
    while not closing.is_set():
        begun = time.monotonic()
        try:
            page = await to_thread.run_sync(pages.find, dashboard, path, query)
            changed = await to_thread.run_sync(_changed, page, frame, sent)
        except OSError as error:
            yield _event("trouble", {"text": str(error)})
        else:
            first = first or page.name
            if page.name != first:
                yield _event("reload", {})
                return
            for name, html in changed:
                yield _event("part", {"name": name, "html": html})
        again = time.monotonic() + max(EVERY, PATIENCE * (time.monotonic() - begun))
        while time.monotonic() < again and not closing.is_set():
            yield _event("tick", {"now": iso(dashboard.spool.clock())})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), EVERY)


def _changed(page: Page, frame: Mapping[str, Any], sent: dict[str, str]) -> list[tuple[str, str]]:
    told = []
    for name in ("nav", *page.parts):
        if name in page.still:
            continue
        html = rendering.part(name, page, frame)
        lasting = _TIME.sub(r"\1", html)
        if sent.get(name) != lasting:
            sent[name] = lasting
            told.append((name, html))
    return told


def _event(name: str, data: Mapping[str, str]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
