"""The routes: from an address to a page, its JSON twin, a stream, a file, or an action."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import logging
import os
from collections import defaultdict
from contextlib import suppress
from functools import partial
from importlib import resources
from itertools import chain
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from queuectl.errors import NotASpool, QueueError, StorageTrouble
from queuectl.spool import output
from queuectl.view import metrics, wording
from queuectl.web import actions, guard, hangs, live, pages, rendering
from queuectl.web.actions import Form, Question, Said
from queuectl.web.guard import Guard, SecurityHeaders, address_of, local_path, own_cookies
from queuectl.web.hangs import Hangs, Threads
from queuectl.web.login import Lock
from queuectl.web.pages import forms, refusals
from queuectl.web.pages.frame import Query
from queuectl.web.pages.job import error_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Any

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from queuectl.spool.jobs import Found
    from queuectl.web.dashboard import Dashboard
    from queuectl.web.guard import Rules
    from queuectl.web.pages.frame import Page

log = logging.getLogger("queuectl")

MAX_FORM = 256 * 1024
_HIDDEN = Markup('<input type="hidden" name="csrf" value="{}"><input type="hidden" name="back" value="{}">')
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def build(dashboard: Dashboard, rules: Rules, closing: asyncio.Event) -> ASGIApp:
    """The application; `closing` ends its streams.

    A separate application, the door, answers requests that lack the token. It has no access to the
    spool, so it cannot reveal anything of it.
    """
    lock, threads = Lock(rules), Threads()
    entry = Entry(dashboard, rules, lock)
    routes = Routes(dashboard, rules, closing, threads)

    def looking(act: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that reads the spool: it raises `Hangs` if the spool does not answer in time."""

        async def endpoint(request: Request) -> Response:
            return await threads.within(hangs.LOOKING, partial(act, request))

        return endpoint

    public = [
        Route("/healthz", looking(entry.healthz)),
        Route("/static/{name}", entry.static),
        Route("/login", entry.login, methods=["POST"]),
    ]
    door = Starlette(
        routes=[*public, Route("/{path:path}", entry.ask, methods=["GET", "POST"])],
        exception_handlers={HTTPException: entry.on_http_error, Hangs: entry.on_hang, Exception: on_fault},
    )
    inside = Starlette(
        routes=[
            *public,
            Route("/metrics", looking(routes.metrics)),
            Route("/live", routes.live),
            Route("/jobs/{job_id}/output/{attempt}/{stream}", looking(routes.output)),
            Route("/jobs/{job_id}/error/{attempt}", looking(routes.error)),
            Route("/jobs/{job_id}/file", looking(routes.file)),
            Route("/new", looking(routes.new)),
            Route("/{path:path}", routes.act, methods=["POST"]),
            Route("/{path:path}", looking(routes.page)),
        ],
        middleware=[Middleware(Guard, rules=rules, lock=lock, door=door)],
        exception_handlers={
            HTTPException: routes.on_http_error,
            Hangs: routes.on_hang,
            QueueError: routes.on_refusal,
            NotASpool: routes.on_trouble,
            OSError: routes.on_trouble,
            Exception: on_fault,
        },
    )
    for made in (door, inside):
        made.router.redirect_slashes = False
    return SecurityHeaders(inside)


class Entry:
    """Answers everybody, with a token or without; it reveals nothing of the spool."""

    def __init__(self, dashboard: Dashboard, rules: Rules, lock: Lock) -> None:
        self._root = dashboard.spool.root
        self._rules = rules
        self._lock = lock
        folder = resources.files("queuectl.web").joinpath("static")
        self._files = {item.name: item.read_bytes() for item in folder.iterdir()}

    def healthz(self, _: Request) -> Response:
        """Whether this server runs and reaches its spool."""
        try:
            self._root.require()
        except (QueueError, OSError):
            return PlainTextResponse("The spool is out of reach.\n", 503)
        return PlainTextResponse("ok\n")

    async def on_hang(self, _: Request, __: Exception) -> Response:
        """The spool does not answer: no more is told to those without a token."""
        return PlainTextResponse("The spool is out of reach.\n", 503)

    async def static(self, request: Request) -> Response:
        """A file of the dashboard."""
        name = request.path_params["name"]
        kind = _TYPES.get(PurePosixPath(name).suffix)
        if kind is None or name not in self._files:
            raise HTTPException(404)
        return Response(self._files[name], media_type=kind)

    async def ask(self, request: Request) -> Response:
        """Ask for the token, at any address."""
        return guard.ask_for_token(request.scope)

    async def login(self, request: Request) -> Response:
        """Exchange the token in a form for the cookie."""
        form = await _form(request)
        back = local_path(form.one("back"))
        if self._rules.token is None:
            return RedirectResponse(back, 303)
        verdict = self._lock.try_(guard.client(request.scope), form.one("token").strip())
        if not verdict.is_right:
            return guard.login_page(verdict, back)
        return RedirectResponse(back, 303, {"set-cookie": self._rules.set_cookie()})

    async def on_http_error(self, _: Request, error: Exception) -> Response:
        """There is no such file, or the request is not a form."""
        assert isinstance(error, HTTPException)
        problem, remedy = _told(error)
        return PlainTextResponse(f"{problem}\n{remedy}\n", error.status_code)


def on_fault(request: Request, error: Exception) -> Response:
    """Log a fault of ours as the command line does; the client reads only that there is one."""
    debug = bool(os.environ.get("QUEUECTL_DEBUG"))
    told = f"{type(error).__name__}: {wording.visible(str(error))}"
    where = wording.visible(request.scope["path"])
    log.error("This is a fault of queuectl: %s (%s)", told, where, exc_info=debug and error)
    return PlainTextResponse(
        "This is a fault of queuectl.\nThe terminal of `queuectl webui` shows it.\n", 500
    )


class Routes:
    """Answers each address of the dashboard."""

    def __init__(self, dashboard: Dashboard, rules: Rules, closing: asyncio.Event, threads: Threads) -> None:
        self._dashboard = dashboard
        self._rules = rules
        self._closing = closing
        self._threads = threads

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def page(self, request: Request) -> Response:
        """Any page, or the JSON of it."""
        path, twin = self._split(request)
        page = pages.find(self._dashboard, path, _query(request))
        if twin:
            return Response(rendering.as_json(page), page.status, media_type="application/json")
        return self._shown(request, page)

    def _split(self, request: Request) -> tuple[str, bool]:
        """The path of the page, and whether the request is for its JSON."""
        path = request.scope["path"]
        head, _, last = path.rpartition("/")
        if last.endswith(".json") and not (head == "/jobs" and self._dashboard.find(last)):
            stem = path.removesuffix(".json")
            return ("/" if stem == "/overview" else stem), True
        return path, _is_for_a_program(request)

    def _shown(self, request: Request, page: Page) -> Response:
        response = Response(
            rendering.whole(page, self._frame(request)), page.status, media_type="text/html; charset=utf-8"
        )
        if own_cookies(request.headers, self._flash):
            response.delete_cookie(self._flash, httponly=True, samesite="strict")
        return response

    def _frame(self, request: Request, back: str = "") -> dict[str, Any]:
        """Facts about the page itself: its address, the last result, and the hidden fields of its forms."""
        here = address_of(request.scope)
        if request.scope["path"] == "/live":
            here = local_path(_query(request).text("page"))
        here = back or here
        path, _, query = here.partition("?")
        twin = "/overview.json" if path == "/" else f"{path}.json"
        return {
            "here": here,
            "section": "/" + path.split("/")[1],
            "json_here": local_path(f"{twin}?{query}") if path != "/new" else "",
            "said": self._read_flash(request),
            "token": _HIDDEN.format(self._rules.csrf, here),
        }

    async def live(self, request: Request) -> Response:
        """The stream of changes to a page."""
        asked = _query(request)
        path, _, query = local_path(asked.text("page")).partition("?")
        shown = live.Shown(unquote(path), Query.parse(query), asked.text("shown"), self._frame(request))
        events = live.stream(self._dashboard, shown, self._closing, self._threads)
        return _streamed(request, events, "text/event-stream")

    def output(self, request: Request) -> Response:
        """The whole output of a run, as a download."""
        values = request.path_params
        found, attempt = self._job(request), _attempt(request)
        if values["stream"] not in output.STREAMS:
            raise HTTPException(404)
        root = self._dashboard.spool.root
        blocks = (block for _, block in output.read_log(root, found.id, attempt, values["stream"]))
        first = next(blocks, None)  # an unreadable log is refused before the answer begins
        if first is None:
            raise HTTPException(404)
        return _kept(request, f"{found.id}.{attempt}.{values['stream']}.txt", chain([first], blocks))

    def error(self, request: Request) -> Response:
        """The whole error of a run, or of the job (0), as a download."""
        found, attempt = self._job(request), _attempt(request)
        text = error_of(found, attempt)
        if not text:
            raise HTTPException(404)
        return _kept(request, f"{found.id}.error.txt", [text.encode("utf-8", "replace")])

    def file(self, request: Request) -> Response:
        """The file of a job, as a download."""
        found = self._job(request)
        data = self._dashboard.file_bytes(found)
        if data is None:
            raise HTTPException(404)
        return _kept(request, f"{found.id}.yaml.txt", [data])

    def _job(self, request: Request) -> Found:
        found = self._dashboard.find(request.path_params["job_id"])
        if found is None:
            raise HTTPException(404)
        return found

    def metrics(self, _: Request) -> Response:
        """The figures for Prometheus."""
        board = self._dashboard
        text = metrics.text(board.spool.root, board.look(1.0), board.workers(), board.spool.clock())
        return PlainTextResponse(text, media_type=metrics.MEDIA_TYPE)

    def new(self, request: Request) -> Response:
        """The form for a new job, if this server accepts jobs."""
        if not self._dashboard.allow_submit or self._dashboard.read_only:
            raise HTTPException(404)
        return self._shown(request, forms.new(self._dashboard, Query()))

    # ── acting ───────────────────────────────────────────────────────────────────────────────

    async def act(self, request: Request) -> Response:
        """Do what a button says, then show its page again with the result."""
        form = await _form(request)
        return await self._threads.within(hangs.ACTING, partial(self._acted, request, form))

    def _acted(self, request: Request, form: Form) -> Response:
        path, back = request.scope["path"], local_path(form.one("back"))
        try:
            self._require_right(request, form)
            done = self._do(path, form)
        except QueueError as error:
            if path == "/new" and self._dashboard.takes_jobs:
                typed = Query({name: form.one(name) for name in form.values})
                return self._shown(request, forms.new(self._dashboard, typed, str(error)))
            if isinstance(error, _NotAllowed):
                raise
            done = Said(str(error), bad=True)
        except OSError as error:
            done = Said(str(StorageTrouble(error)), bad=True)
        if done is None:
            raise HTTPException(404)
        if isinstance(done, Question):
            return self._asked(request, form, done, back)
        return self._back(request, back, done)

    def _require_right(self, request: Request, form: Form) -> None:
        if self._dashboard.read_only:
            raise _NotAllowed("This dashboard is read only.", "Use the command line.")
        # A Bearer token needs no proof: no foreign page can make a browser send it.
        if not guard.is_by_token(request.scope) and not self._rules.is_csrf(form.one("csrf")):
            raise _NotAllowed("This page is out of date.", "Open it again, and press the button there.")

    def _asked(self, request: Request, form: Form, question: Question, back: str) -> Response:
        if _is_for_a_program(request):
            told = {"question": question.question, "number": question.number}
            return JSONResponse(told, 409)
        asked: dict[str, Any] = {
            "question": question.question,
            "answer": question.answer,
            "number": question.number,
            "action": address_of(request.scope),
            "fields": [(name, value) for name, value in form.again() if name != "back"],
            "back": back,
        }
        page = forms.question(self._dashboard, asked)
        return Response(
            rendering.whole(page, self._frame(request, back)), media_type="text/html; charset=utf-8"
        )

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

    def _back(self, request: Request, where: str, said: Said) -> Response:
        """Redirect to the page of the button, which shows the sentence once."""
        if _is_for_a_program(request):
            return JSONResponse({"said": said.text, "bad": said.bad}, 409 if said.bad else 200)
        if said.to and (where.startswith("/jobs/") or said.to.startswith("/jobs/")):
            where = said.to
        self._dashboard.look(1.0)
        response = RedirectResponse(where, 303)
        said_ = json.dumps({"text": said.text[:1000], "bad": said.bad}).encode()
        # The padding `=` would need quotes in a cookie.
        text = base64.urlsafe_b64encode(said_).decode().rstrip("=")
        sealed = f"{text}.{self._rules.sign('said', text)}"
        response.set_cookie(self._flash, sealed, max_age=30, httponly=True, samesite="strict")
        return response

    @property
    def _flash(self) -> str:
        return f"{self._rules.cookie}-said"

    def _read_flash(self, request: Request) -> dict[str, Any] | None:
        for value in own_cookies(request.headers, self._flash):
            text, _, seal = value.partition(".")
            if hmac.compare_digest(seal.encode(), self._rules.sign("said", text).encode()):
                with suppress(binascii.Error, ValueError):
                    said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
                    return said
        return None

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        """No such page, no such method, a form that is too large."""
        assert isinstance(error, HTTPException)
        told = *_told(error), error.status_code
        return await self._refused(request, lambda: refusals.refusal(self._dashboard, *told))

    async def on_refusal(self, request: Request, error: Exception) -> Response:
        """The queue refuses."""
        assert isinstance(error, QueueError)
        told = error.problem, error.remedy, {3: 404, 75: 503}.get(error.exit_status, 400)
        return await self._refused(request, lambda: refusals.refusal(self._dashboard, *told))

    async def on_trouble(self, request: Request, error: Exception) -> Response:
        """The disk fails."""
        assert isinstance(error, OSError | NotASpool)
        return await self._refused(request, lambda: refusals.away(self._dashboard, error))

    async def on_hang(self, request: Request, error: Exception) -> Response:
        """The disk does not answer; the page shows the last look, without any access to the disk."""
        assert isinstance(error, Hangs)
        return self._answered(request, refusals.out_of_reach(self._dashboard, error))

    async def _refused(self, request: Request, make: Callable[[], Page]) -> Response:
        try:
            page = await self._threads.within(hangs.LOOKING, make)
        except Hangs as error:
            return await self.on_hang(request, error)
        return self._answered(request, page)

    def _answered(self, request: Request, page: Page) -> Response:
        """The problem and the remedy: a page for a browser, JSON for a program, else two lines."""
        if _is_for_a_program(request) or request.scope["path"].endswith(".json"):
            return Response(rendering.as_json(page), page.status, media_type="application/json")
        if "text/html" in request.headers.get("accept", ""):
            return self._shown(request, page)
        return PlainTextResponse(f"{page.facts['problem']}\n{page.facts['remedy']}\n", page.status)


class _NotAllowed(QueueError):
    """The request may not change anything."""


_PROBLEMS = {
    400: ("The form is not in UTF-8.", "Send it as UTF-8."),
    404: ("There is nothing under this address.", "See the overview."),
    405: ("This address does not allow that.", "Use the buttons of the page."),
    413: ("The form is too large.", "Put a long command into a script."),
    415: ("The request is not a form.", "Use the buttons of the page."),
}


def _told(error: HTTPException) -> tuple[str, str]:
    return _PROBLEMS.get(error.status_code, (error.detail, "Go back, and try again."))


def _query(request: Request) -> Query:
    return Query.parse(request.scope["query_string"].decode("latin-1"))


def _is_for_a_program(request: Request) -> bool:
    accepts = request.headers.get("accept", "")
    return "application/json" in accepts and "text/html" not in accepts


def _attempt(request: Request) -> int:
    """The number of a run in an address; raises `HTTPException` if it is not one."""
    text = request.path_params["attempt"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(404)
    return int(text)


def _streamed(request: Request, content: Any, kind: str, headers: dict[str, str] | None = None) -> Response:
    """The content in portions; a HEAD request makes none of it."""
    if request.method == "HEAD":
        return Response(headers=headers, media_type=kind)
    return StreamingResponse(content, headers=headers, media_type=kind)


def _kept(request: Request, name: str, blocks: Iterable[bytes]) -> Response:
    """A download, which no browser shows as a page."""
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return _streamed(request, blocks, "application/octet-stream", headers)


async def _form(request: Request) -> Form:
    """The fields of a form; raises `HTTPException` if it is too large or of another type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415)
    body = b""
    try:
        async for block in request.stream():
            body += block
            if len(body) > MAX_FORM:
                raise HTTPException(413)
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=2000, errors="strict")
    except (UnicodeDecodeError, ClientDisconnect):
        raise HTTPException(400) from None
    except ValueError:
        raise HTTPException(413) from None
    values: dict[str, list[str]] = defaultdict(list)
    for name, value in pairs:
        values[name].append(value.replace("\r\n", "\n"))
    return Form(dict(values))
