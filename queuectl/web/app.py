"""The routes: from an address to a page, its JSON twin, a stream, a file, or an action."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import os
from collections import defaultdict
from contextlib import suppress
from importlib import resources
from itertools import chain
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote

from anyio import to_thread
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from queuectl.errors import QueueError, StorageTrouble
from queuectl.spool import metrics, output, wording
from queuectl.web import actions, live, pages, rendering
from queuectl.web.actions import Form, Question, Said
from queuectl.web.guard import Guard, Rules, local_path
from queuectl.web.pages import Page, Query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from queuectl.web.dashboard import Dashboard

log = logging.getLogger("queuectl")

MAX_FORM = 256 * 1024
FORM_SECONDS = 10.0
_HIDDEN = Markup('<input type="hidden" name="csrf" value="{}"><input type="hidden" name="back" value="{}">')
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def build(dashboard: Dashboard, rules: Rules, closing: asyncio.Event) -> ASGIApp:
    """The application; `closing` ends its streams."""
    routes = Routes(dashboard, rules, closing)
    made = Starlette(
        routes=[
            Route("/healthz", routes.healthz),
            Route("/metrics", routes.metrics),
            Route("/live", routes.live),
            Route("/login", routes.login, methods=["POST"]),
            Route("/static/{name}", routes.static),
            Route("/jobs/{job_id}/output/{attempt:int}/{stream}", routes.output),
            Route("/new", routes.new),
            Route("/{path:path}", routes.act, methods=["POST"]),
            Route("/{path:path}", routes.page),
        ],
        exception_handlers={
            HTTPException: routes.on_http_error,
            QueueError: routes.on_refusal,
            OSError: routes.on_trouble,
            Exception: routes.on_fault,
        },
    )
    return Guard(made, rules)


class Routes:
    """What answers each address."""

    def __init__(self, dashboard: Dashboard, rules: Rules, closing: asyncio.Event) -> None:
        self._dashboard = dashboard
        self._rules = rules
        self._closing = closing

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def page(self, request: Request) -> Response:
        """Any page, or the JSON of it."""
        path, twin = self._split(request)
        page = pages.find(self._dashboard, path, Query.parse(request.url.query))
        if twin:
            return Response(rendering.as_json(page), page.status, media_type="application/json")
        return self._shown(request, page)

    def _split(self, request: Request) -> tuple[str, bool]:
        """The path of the page, and whether its JSON is wanted."""
        path = request.url.path
        accepts = request.headers.get("accept", "")
        head, _, last = path.rpartition("/")
        if last.endswith(".json") and not (head == "/jobs" and self._dashboard.find(last)):
            stem = path.removesuffix(".json")
            return ("/" if stem == "/overview" else stem), True
        return path, "application/json" in accepts and "text/html" not in accepts

    def _shown(self, request: Request, page: Page) -> Response:
        response = Response(
            rendering.whole(page, self._frame(request)), page.status, media_type="text/html; charset=utf-8"
        )
        if self._flash in request.cookies:
            response.delete_cookie(self._flash, httponly=True, samesite="strict")
        return response

    def _frame(self, request: Request, back: str = "") -> dict[str, Any]:
        """What the page says of itself: its address, and in each form that and the proof that it is ours."""
        path, query = request.url.path, request.url.query
        if path == "/live":
            asked = Query.parse(query).text("page")
            path, _, query = asked.partition("?")
        here = local_path(f"{path}?{query}" if query else path)
        twin = "/overview.json" if path == "/" else f"{path}.json"
        return {
            "here": here,
            "section": "/" + path.split("/")[1] if path.startswith("/") else "/",
            "json_here": local_path(f"{twin}?{query}" if query else twin)
            if path.split("/")[1:2] != ["new"]
            else "",
            "said": self._read_flash(request),
            "token": _HIDDEN.format(self._rules.csrf, back or here),
        }

    def live(self, request: Request) -> Response:
        """The stream of what changes on a page."""
        path, _, query = Query.parse(request.url.query).text("page").partition("?")
        frame = self._frame(request)
        events = live.stream(self._dashboard, path, Query.parse(query), frame, self._closing)
        return StreamingResponse(events, media_type="text/event-stream")

    def output(self, request: Request) -> Response:
        """All that a run printed, as a file to keep: no browser shows it."""
        values = request.path_params
        found = self._dashboard.find(values["job_id"])
        if found is None or values["stream"] not in output.STREAMS or values["attempt"] > 10**9:
            raise HTTPException(404)
        root = self._dashboard.spool.root
        blocks = (block for _, block in output.read_log(root, found.id, values["attempt"], values["stream"]))
        first = next(blocks, None)  # what is no log that may be read is said before the answer begins
        if first is None:
            raise HTTPException(404)
        name = f"{found.id}.{values['attempt']}.{values['stream']}.txt"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(
            chain([first], blocks), media_type="application/octet-stream", headers=headers
        )

    def metrics(self, _: Request) -> Response:
        """The figures for Prometheus."""
        board = self._dashboard
        text = metrics.text(board.spool.root, board.look(1.0), board.workers(), board.spool.clock())
        return PlainTextResponse(text, media_type=metrics.MEDIA_TYPE)

    def healthz(self, _: Request) -> Response:
        """Whether this server runs and reaches its spool; it tells nothing else."""
        self._dashboard.spool.root.require()
        return PlainTextResponse("ok\n")

    def static(self, request: Request) -> Response:
        """A file of our own."""
        name = PurePosixPath(request.path_params["name"])
        known = {item.name: item for item in resources.files("queuectl.web").joinpath("static").iterdir()}
        if name.suffix not in _TYPES or str(name) not in known:
            raise HTTPException(404)
        return Response(known[str(name)].read_bytes(), media_type=_TYPES[name.suffix])

    def new(self, request: Request) -> Response:
        """The form for a new job, where this server takes any."""
        if not self._dashboard.allow_submit or self._dashboard.read_only:
            raise HTTPException(404)
        return self._shown(request, pages.new(self._dashboard, Query()))

    # ── acting ───────────────────────────────────────────────────────────────────────────────

    async def login(self, request: Request) -> Response:
        """Take the token from a form, for the cookie."""
        form = await _form(request)
        back = local_path(form.one("back") or "/")
        if not self._rules.is_token(form.one("token").strip()):
            body = rendering.login({"wrong": True, "again": False, "back": back})
            return Response(body, 403, media_type="text/html; charset=utf-8")
        return RedirectResponse(back, 303, {"set-cookie": self._rules.set_cookie()})

    async def act(self, request: Request) -> Response:
        """Do what a button says, then go back to the page with its result."""
        form = await _form(request)
        return await to_thread.run_sync(self._acted, request, form)

    def _acted(self, request: Request, form: Form) -> Response:
        if self._dashboard.read_only:
            raise QueueError("This dashboard is read only.", "Use the command line.")
        if not hmac.compare_digest(form.one("csrf").encode(), self._rules.csrf.encode()):
            raise QueueError("This page is out of date.", "Open it again, and press the button there.")
        try:
            done = self._do(request.url.path, form)
        except QueueError as error:
            if request.url.path == "/new":
                typed = Query({name: form.one(name) for name in form.values})
                return self._shown(request, pages.new(self._dashboard, typed, str(error)))
            done = Said(str(error), bad=True)
        if done is None:
            raise HTTPException(404)
        if isinstance(done, Question):
            back = local_path(form.one("back") or "/")
            fields = [(name, value) for name, value in form.again() if name != "back"]
            asked: dict[str, Any] = {"action": local_path(request.url.path), "fields": fields, "back": back}
            page = pages.question(
                self._dashboard, {"question": done.question, "answer": done.answer, **asked}
            )
            return Response(
                rendering.whole(page, self._frame(request, back)), media_type="text/html; charset=utf-8"
            )
        return self._back(form, done)

    def _do(self, path: str, form: Form) -> Said | Question | None:
        board = self._dashboard
        match [unquote(word) for word in path.split("/")[1:]]:
            case ["jobs", job_id, what]:
                return actions.on_job(board, job_id, what, form)
            case ["dead", what]:
                return actions.on_dead(board, what, form)
            case ["workers", name, "stop"]:
                return actions.stop_worker(board, name, form)
            case ["pause" | "resume" as what]:
                return actions.pause(board, resume=what == "resume")
            case ["new"] if board.allow_submit:
                return actions.submit(board, form)
        return None

    def _back(self, form: Form, said: Said) -> Response:
        """A redirect to the page of the button, which then shows the sentence once."""
        where = local_path(form.one("back") or "/")
        if said.to and (where.startswith("/jobs/") or said.to.startswith("/jobs/")):
            where = said.to
        self._dashboard.look(1.0)
        response = RedirectResponse(where, 303)
        text = base64.urlsafe_b64encode(
            json.dumps({"text": said.text[:1000], "bad": said.bad}).encode()
        ).decode()
        sealed = f"{text}.{self._rules.sign('said', text)}"
        response.set_cookie(self._flash, sealed, max_age=30, httponly=True, samesite="strict")
        return response

    @property
    def _flash(self) -> str:
        return f"{self._rules.cookie}-said"

    def _read_flash(self, request: Request) -> dict[str, Any] | None:
        text, _, seal = request.cookies.get(self._flash, "").partition(".")
        if not text or not hmac.compare_digest(seal.encode(), self._rules.sign("said", text).encode()):
            return None
        with suppress(binascii.Error, ValueError):
            said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text))
            return said
        return None

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────

    def on_http_error(self, request: Request, error: Exception) -> Response:
        """No such page, no such method, a form that is too large or too slow."""
        assert isinstance(error, HTTPException)
        problem, remedy = _PROBLEMS.get(error.status_code, (error.detail, "Go back, and try again."))
        return self._refused(request, problem, remedy, error.status_code)

    def on_refusal(self, request: Request, error: Exception) -> Response:
        """The queue says no."""
        assert isinstance(error, QueueError)
        status = {3: 404, 75: 503}.get(error.exit_status, 400)
        return self._refused(request, error.problem, error.remedy, status)

    def on_trouble(self, request: Request, error: Exception) -> Response:
        """The disk says no."""
        assert isinstance(error, OSError)
        trouble = StorageTrouble(error)
        return self._refused(request, trouble.problem, trouble.remedy, 503)

    def on_fault(self, request: Request, error: Exception) -> Response:
        """A fault of ours: told where the server was started, as the command line tells its own."""
        debug = bool(os.environ.get("QUEUECTL_DEBUG"))
        told = f"{type(error).__name__}: {wording.visible(str(error))}"
        log.error("This is a fault of queuectl: %s (%s)", told, request.url.path, exc_info=debug and error)
        return PlainTextResponse(f"This is a fault of queuectl.\n{told}\n", 500)

    def _refused(self, request: Request, problem: str, remedy: str, status: int) -> Response:
        plain = request.url.path in {
            "/healthz",
            "/metrics",
            "/live",
        } or "text/html" not in request.headers.get("accept", "")
        if not plain:
            with suppress(OSError):
                return self._shown(request, pages.refusal(self._dashboard, problem, remedy, status))
        return PlainTextResponse(f"{problem}\n{remedy}\n", status)


_PROBLEMS = {
    404: ("There is nothing under this address.", "See the overview."),
    405: ("That cannot be done here.", "Use the buttons of the page."),
    408: ("The form came too slowly.", "Try again."),
    413: ("The form is too large.", "Put a long command into a script."),
    415: ("That is not a form.", "Use the buttons of the page."),
}


async def _form(request: Request) -> Form:
    """The fields of a form; raises `HTTPException` for one too large, too slow, or of another type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415)
    body = b""
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for block in request.stream():
                body += block
                if len(body) > MAX_FORM:
                    raise HTTPException(413)
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=2000)
    except TimeoutError:
        raise HTTPException(408) from None
    except ValueError:
        raise HTTPException(413) from None
    values: dict[str, list[str]] = defaultdict(list)
    for name, value in pairs:
        values[name].append(value.replace("\r\n", "\n"))
    return Form(dict(values))
