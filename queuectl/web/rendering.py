"""From the facts of a page to HTML, or to JSON."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from queuectl import times
from queuectl.times import parse_moment
from queuectl.view import wording
from queuectl.web.actions import MANY, question, question_of_many
from queuectl.web.pages.frame import address
from queuectl.web.pages.job import LIMITS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from queuectl.web.pages.frame import Page

_TICKED = re.compile(r"`([^`]*)`")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("queuectl.web"), autoescape=True, trim_blocks=True, auto_reload=False
    )
    made.filters |= {
        "address": lambda path, values, **more: address(path, {**values, **more}),
        "ago": ago,
        "bytes": size,
        "coded": coded,
        "duration": times.duration,
        "key": key,
        "since": lambda text, now: times.duration(max(0, int(_seconds(text, now)))),
        "lines": wording.escaped_lines,
        "local": local,
        "num": lambda number: f"{number:,}",
        "shortened": wording.shortened,
        "visible": wording.escaped,
    }
    made.globals |= {
        "limits": LIMITS,
        "many": MANY,
        "question": question,
        "question_of_many": question_of_many,
    }
    return made


def coded(text: str) -> Markup:
    """A sentence with text between backticks as code."""
    return Markup(_TICKED.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped above


def ago(text: str, now: str) -> str:
    """The distance of a time from now in whole seconds, as `page.js` words it: `in 3 min 0 s`, `12 s ago`."""
    seconds = _seconds(text, now)
    if seconds < -0.5:
        return f"in {times.duration(int(-seconds))}"
    return "just now" if seconds < 1 else f"{times.duration(int(seconds))} ago"


def key(text: str) -> str:
    """A valid element id for any text, always the same for the same text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _seconds(text: str, now: str) -> float:
    return (parse_moment(now) - parse_moment(text)).total_seconds()


def local(text: str) -> str:
    """A time in the zone of this host, with the zone."""
    return times.local(parse_moment(text))


def size(number: float) -> str:
    """`512 B`, `3.2 kB`, `64 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def compile_all() -> None:
    """Compile all templates, so that the first page does not wait for it."""
    for name in _environment().list_templates():
        _environment().get_template(name)


def whole(page: Page, frame: Mapping[str, Any]) -> bytes:
    """The page as a document."""
    return _rendered("base.html", page, frame)


def part(name: str, page: Page, frame: Mapping[str, Any]) -> str:
    """One part of the page, as the document contains it."""
    return _rendered(f"parts/{name}.html", page, frame).decode()


def login(frame: Mapping[str, Any]) -> bytes:
    """The page that asks for the token."""
    return _environment().get_template("login.html").render(**frame).encode("utf-8", "replace")


def _rendered(template: str, page: Page, frame: Mapping[str, Any]) -> bytes:
    made = _environment().get_template(template).render({**page.facts, **frame, "view": page})
    return made.encode("utf-8", "replace")


def as_json(page: Page) -> bytes:
    """The facts of the page, as its JSON twin."""
    text = json.dumps(page.facts)
    if "NaN" in text or "Infinity" in text:  # a history may contain them, JSON must not
        text = json.dumps(json.loads(text, parse_constant=lambda _: None))
    return text.encode()
