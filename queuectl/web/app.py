"""The routes: from an address to a page, its JSON twin, a stream, a file, or an action."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from functools import partial
from importlib import resources
from itertools import chain
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

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
from queuectl.web.guard import Guard, address_of, local_path, own_cookies, same
from queuectl.web.hangs import Hangs, Threads
from queuectl.web.login import Lock
from queuectl.web.pages import forms, refusals
from queuectl.web.pages.frame import Query, whole_number
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
_PROBLEMS = {
    400: ("The form is not in UTF-8.", "Send it as UTF-8."),
    404: ("There is nothing under this address.", "See the overview."),
    405: ("This address does not allow that.", "Use the buttons of the page."),
    413: ("The form is too large.", "Put a long command into a script."),
    415: ("The request is not a form.", "Use the buttons of the page."),
}
#: The status of an answer to a refusal, by the exit status of the same refusal on the command line.
_STATUS = {3: 404, 75: 503}


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
        exception_handlers={HTTPException: on_refusal, Hangs: on_refusal, Exception: on_fault},
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
            Exception: on_fault,
            **dict.fromkeys((HTTPException, QueueError, OSError), routes.on_error),
        },
    )
    for made in (door, inside):
        made.router.redirect_slashes = False
    return inside


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

    async def static(self, request: Request) -> Response:
        """A file of the dashboard."""
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404)
        return Response(self._files[name], media_type=_TYPES[PurePosixPath(name).suffix])

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


async def on_refusal(_: Request, error: Exception) -> Response:
    """The problem and the remedy in two lines; neither reveals anything of the spool."""
    problem, remedy, status = _told(error)
    return PlainTextResponse(f"{problem}\n{remedy}\n", status)


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
        #: The cookie that holds the result of a button for the page that follows.
        self._result = f"{rules.cookie}-said"

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    def page(self, request: Request) -> Response:
        """Any page, or the JSON of it."""
        path = request.scope["path"]
        head, _, last = path.rpartition("/")
        is_twin = last.endswith(".json") and not (head == "/jobs" and self._dashboard.find(last))
        if is_twin:
            path = "/" if path == "/overview.json" else path.removesuffix(".json")
        page = pages.find(self._dashboard, path, _query(request))
        return _as_json(page) if is_twin or _is_for_a_program(request) else self._shown(request, page)

    def _shown(self, request: Request, page: Page, here: str = "") -> Response:
        frame = self._frame(request, here or address_of(request.scope))
        response = Response(rendering.whole(page, frame), page.status, media_type="text/html; charset=utf-8")
        if own_cookies(request.headers, self._result):
            response.delete_cookie(self._result, httponly=True, samesite="strict")
        return response

    def _frame(self, request: Request, here: str) -> dict[str, Any]:
        """Facts about the page itself: its address, the last result, and the hidden fields of its forms."""
        path, _, query = here.partition("?")
        twin = "/overview.json" if path == "/" else f"{path}.json"
        return {
            "here": here,
            "section": "/" + path.split("/")[1],
            "json_here": local_path(f"{twin}?{query}") if path != "/new" else "",
            "said": self._last_result(request),
            "token": _HIDDEN.format(self._rules.csrf, here),
        }

    async def live(self, request: Request) -> Response:
        """The stream of changes to a page."""
        asked = _query(request)
        here = local_path(asked.text("page"))
        path, _, query = here.partition("?")
        shown = live.Shown(unquote(path), Query.parse(query), asked.text("shown"), self._frame(request, here))
        events = live.stream(self._dashboard, shown, self._closing, self._threads)
        return _streamed(request, events, "text/event-stream")

    def output(self, request: Request) -> Response:
        """The whole output of a run, as a download."""
        found, attempt, stream = self._job(request), _attempt(request), request.path_params["stream"]
        if stream not in output.STREAMS:
            raise HTTPException(404)
        root = self._dashboard.spool.root
        blocks = (block for _, block in output.read_log(root, found.id, attempt, stream))
        first = next(blocks, None)  # an unreadable log is refused before the answer begins
        if first is None:
            raise HTTPException(404)
        return _download(request, f"{found.id}.{attempt}.{stream}.txt", chain([first], blocks))

    def error(self, request: Request) -> Response:
        """The whole error of a run, or of the job (0), as a download."""
        found = self._job(request)
        text = error_of(found, _attempt(request))
        if not text:
            raise HTTPException(404)
        return _download(request, f"{found.id}.error.txt", [text.encode("utf-8", "replace")])

    def file(self, request: Request) -> Response:
        """The file of a job, as a download."""
        found = self._job(request)
        data = self._dashboard.file_bytes(found)
        if data is None:
            raise HTTPException(404)
        return _download(request, f"{found.id}.yaml.txt", [data])

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
        if not self._dashboard.takes_jobs:
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
        return self._said(request, done, back)

    def _require_right(self, request: Request, form: Form) -> None:
        if self._dashboard.read_only:
            raise _NotAllowed("This dashboard is read only.", "Use the command line.")
        # A Bearer token needs no proof: no foreign page can make a browser send it.
        if not guard.is_by_token(request.scope) and not same(form.one("csrf"), self._rules.csrf):
            raise _NotAllowed("This page is out of date.", "Open it again, and press the button there.")

    def _do(self, path: str, form: Form) -> Said | Question | None:  # noqa: PLR0911 - one return an address
        board = self._dashboard
        match [unquote(word) for word in path.split("/")[1:]]:
            case ["jobs", job_id, what]:
                return actions.on_job(board, job_id, what, form)
            case ["dead", what]:
                return actions.on_dead(board, what, form)
            case ["workers", name, "stop"]:
                return actions.stop_worker(board, name, form)
            case ["groups", group, "pause"]:
                return actions.pause_group(board, group)
            case ["groups", group, "resume"]:
                return actions.resume_group(board, group)
            case ["pause"]:
                return actions.pause(board)
            case ["resume"]:
                return actions.resume(board)
            case ["new"] if board.takes_jobs:
                return actions.submit(board, form)
        return None

    def _asked(self, request: Request, form: Form, asked: Question, back: str) -> Response:
        if _is_for_a_program(request):
            return JSONResponse({"question": asked.question, "number": asked.number}, 409)
        page = forms.question(self._dashboard, asked, address_of(request.scope), form.again(), back)
        return self._shown(request, page, back)

    def _said(self, request: Request, said: Said, back: str) -> Response:
        """Redirect to the page of the button, which shows the sentence once."""
        if _is_for_a_program(request):
            return JSONResponse({"said": said.text, "bad": said.bad}, 409 if said.bad else 200)
        self._dashboard.look(1.0)
        response = RedirectResponse(said.to or back, 303)
        text = quote(f"{'bad' if said.bad else 'good'} {said.text[:1000]}", safe="", errors="replace")
        sealed = f"{text}.{self._rules.sign('said', text)}"
        response.set_cookie(self._result, sealed, max_age=30, httponly=True, samesite="strict")
        return response

    def _last_result(self, request: Request) -> dict[str, str] | None:
        for value in own_cookies(request.headers, self._result):
            text, _, seal = value.rpartition(".")
            if same(seal, self._rules.sign("said", text)):
                kind, _, sentence = unquote(text).partition(" ")
                return {"kind": kind, "text": sentence}
        return None

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────

    async def on_error(self, request: Request, error: Exception) -> Response:
        """The problem and the remedy: a page for a browser, JSON for a program, else two lines."""
        try:
            page = await self._threads.within(hangs.LOOKING, partial(self._refusal, error))
        except Hangs as hang:
            page = refusals.out_of_reach(self._dashboard, hang)
        if _is_for_a_program(request) or request.scope["path"].endswith(".json"):
            return _as_json(page)
        if "text/html" in request.headers.get("accept", ""):
            return self._shown(request, page)
        return PlainTextResponse(f"{page.facts['problem']}\n{page.facts['remedy']}\n", page.status)

    def _refusal(self, error: Exception) -> Page:
        if isinstance(error, Hangs):
            raise error
        if isinstance(error, OSError | NotASpool):
            return refusals.away(self._dashboard, error)
        return refusals.refusal(self._dashboard, *_told(error))


class _NotAllowed(QueueError):
    """The request may not change anything."""


def _told(error: Exception) -> tuple[str, str, int]:
    """The problem, the remedy and the status for a refusal."""
    if isinstance(error, QueueError):
        return error.problem, error.remedy, _STATUS.get(error.exit_status, 400)
    assert isinstance(error, HTTPException)
    return *_PROBLEMS[error.status_code], error.status_code


def _as_json(page: Page) -> Response:
    return Response(rendering.as_json(page), page.status, media_type="application/json")


def _query(request: Request) -> Query:
    return Query.parse(request.scope["query_string"].decode("latin-1"))


def _is_for_a_program(request: Request) -> bool:
    accepts = request.headers.get("accept", "")
    return "application/json" in accepts and "text/html" not in accepts


def _attempt(request: Request) -> int:
    """The number of a run in an address; raises `HTTPException` if it is not one."""
    number = whole_number(request.path_params["attempt"])
    if number is None:
        raise HTTPException(404)
    return number


def _streamed(request: Request, content: Any, kind: str, headers: dict[str, str] | None = None) -> Response:
    """The content in portions; a HEAD request makes none of it."""
    if request.method == "HEAD":
        return Response(headers=headers, media_type=kind)
    return StreamingResponse(content, headers=headers, media_type=kind)


def _download(request: Request, name: str, blocks: Iterable[bytes]) -> Response:
    """A file for a browser to keep, not to show as a page."""
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
