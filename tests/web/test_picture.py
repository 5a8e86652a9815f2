"""The picture of the dashboard in the README is made here, of a queue at work."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

    from queuectl import Spool
    from tests.conftest import Workers
    from tests.web.conftest import Server

PICTURE = Path(__file__).parents[2] / "queuectl" / "guide" / "dashboard.png"
WIDTH, HEIGHT = 1200, 520

pytestmark = pytest.mark.browser


def test_the_picture_shows_a_queue_at_work(
    browser: Browser,
    server: Server,
    spool: Spool,
    workers: Workers,
    dead: Callable[..., str],
    shots: Path | None,
) -> None:
    """With $QUEUECTL_SHOTS the picture is written there, as dashboard.png."""
    for number in range(1, 13):
        spool.file({"id": f"resize-{number}", "command": f"sleep 0.0{number}; echo resized {number}"})
    workers.drain()
    for number, path in enumerate((spool.path / "done").iterdir()):
        os.utime(path, (time.time() - number * 270,) * 2)  # the bars show an hour
    dead("import-customers", "./import customers.csv", "exit status 2")
    spool.file({"id": "nightly-backup", "command": "./backup", "run_at": "2090-01-01T02:30:00Z"})
    spool.file({"id": "encode-film", "command": "sleep 600", "priority": 9})
    for number in (13, 14, 15):
        spool.file({"id": f"resize-{number}", "command": f"echo resized {number}"})
    workers.start()
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    page = context.new_page()
    page.goto(server.origin)
    expect(page.locator("#live")).to_have_text("live")
    expect(page.get_by_role("link", name="encode-film").first).to_be_visible()
    expect(page.get_by_role("link", name="import-customers").first).to_be_visible()
    taken = page.screenshot()
    context.close()
    if shots:
        (shots / PICTURE.name).write_bytes(taken)
    assert struct.unpack(">II", PICTURE.read_bytes()[16:24]) == (WIDTH, HEIGHT)
