"""A person with a browser: finds why a job failed, runs it again, and sees it happen without reloading."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import expect

from queuectl import Spool, State
from queuectl.spool import jobs, requests
from tests.web.conftest import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Response, Route

    from tests.conftest import Workers
    from tests.web.conftest import Serve, Server


PAGES = ("/", "/jobs", "/jobs/bad", "/jobs/good", "/dead", "/workers", "/config")


def state(spool: Spool, job_id: str) -> str:
    return str(spool.find(job_id).state)


@pytest.fixture
def busy(spool: Spool, workers: Workers, dead: Callable[..., str]) -> Spool:
    spool.file({"id": "good", "command": "echo fine"})
    workers.drain()
    dead("bad", "pg_dump shop", "exit status 2")
    dead("worse", "sync", "no route to host")
    spool.file({"id": "waits", "command": "make report", "priority": 3})
    spool.file({"id": "late", "command": "make nightly", "run_at": "2090-01-01T00:00:00Z"})
    return spool


def test_each_page_is_whole_in_light_and_dark_on_a_desk_and_on_a_phone(
    browser: Browser, server: Server, busy: Spool, shots: Path | None
) -> None:
    assert busy
    faults: list[str] = []
    for scheme in ("light", "dark"):
        for width in (1280, 380):
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
            page = context.new_page()
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on(
                "console", lambda message: faults.append(message.text) if message.type == "error" else None
            )
            for path in PAGES:
                page.goto(server.origin + path)
                expect(page.locator("#live")).to_have_text("live")
                expect(page.locator("h1")).to_have_count(1)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
                ink, paper = page.evaluate(
                    "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
                )
                assert (
                    sum(map(int, re.findall(r"\d+", ink)[:3])) > sum(map(int, re.findall(r"\d+", paper)[:3]))
                ) == (scheme == "dark")
                if shots:
                    name = path.strip("/").replace("/", "-") or "overview"
                    (shots / f"{name}.{scheme}.{width}.png").write_bytes(page.screenshot(full_page=True))
            context.close()
    assert faults == []


def test_a_newcomer_finds_why_a_job_failed_and_runs_it_again(page: Page, server: Server, busy: Spool) -> None:
    page.goto(server.origin)
    expect(page.locator(".health")).to_contain_text("Nothing runs: 1 job waits and no worker is alive")
    page.get_by_role("link", name=re.compile("Dead letters")).first.click()
    page.get_by_role("link", name="exit status 2").first.click()
    page.get_by_role("link", name="bad").first.click()
    expect(page.locator(".standing")).to_have_text("Exit status 2.")
    expect(page.locator("pre.output").first).to_contain_text("it went wrong")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".said")).to_have_text("bad is pending again; its attempts count from 1.")
    assert state(busy, "bad") == "pending"


def test_an_open_page_follows_without_reloading(
    page: Page, server: Server, spool: Spool, workers: Workers
) -> None:
    page.goto(server.origin)
    page.evaluate("window.untouched = true")
    expect(page.locator("#news")).to_have_text("")
    expect(page.locator(".card.s-completed .figure")).to_have_text("0")
    spool.file({"id": "appears", "command": "true"})
    workers.drain()
    expect(page.locator(".card.s-completed .figure")).to_have_text("1")
    expect(page.locator("#news")).to_contain_text("All done")  # read out by a screen reader
    assert page.evaluate("window.untouched")


def test_output_appears_as_it_is_printed(
    page: Page, server: Server, spool: Spool, workers: Workers, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    spool.file(
        {"id": "talks", "command": f"echo first; while ! [ -e {go} ]; do sleep 0.05; done; echo second"}
    )
    workers.start()
    page.goto(f"{server.origin}/jobs/talks")
    expect(page.locator(".part-job-output pre")).to_have_text("first\n")
    expect(page.locator(".part-job-head .badge")).to_have_text("processing")
    go.touch()
    expect(page.locator(".part-job-output pre")).to_have_text("first\nsecond\n")
    expect(page.locator(".part-job-head .badge")).to_have_text("completed")


def test_a_selection_and_the_focus_survive_an_update(
    page: Page, server: Server, busy: Spool, dead: Callable[..., str]
) -> None:
    assert busy
    page.goto(f"{server.origin}/dead")
    page.get_by_label("Select worse").check()
    page.get_by_role("button", name="Retry bad").focus()
    page.mouse.move(0, 0)
    dead("another")
    expect(page.get_by_label("Select another")).to_be_visible()
    expect(page.get_by_label("Select worse")).to_be_checked()
    expect(page.get_by_role("button", name="Retry bad")).to_be_focused()


def test_a_page_says_that_the_server_is_away_and_goes_on_when_it_is_back(
    page: Page, serve: Serve, spool: Spool
) -> None:
    server = serve()
    page.goto(server.origin)
    expect(page.locator("#live")).to_have_text("live")
    assert server.interrupt() == 130
    expect(page.locator("#live")).to_have_text("offline")
    spool.file({"id": "meanwhile", "command": "true"})
    serve("--port", str(server.port))
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator(".card.s-pending .figure")).to_have_text("1")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".said")).to_contain_text("Paused")


def test_a_hidden_tab_asks_for_nothing_and_catches_up_when_it_is_seen(
    page: Page, server: Server, spool: Spool
) -> None:
    page.goto(server.origin)
    expect(page.locator("#live")).to_have_text("live")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide % "true")
    expect(page.locator("#live")).to_have_text("paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    spool.file("true")
    page.wait_for_timeout(2500)
    assert asked == []
    expect(page.locator(".card.s-pending .figure")).to_have_text("0")
    page.evaluate(hide % "false")
    expect(page.locator(".card.s-pending .figure")).to_have_text("1")
    expect(page.locator("#live")).to_have_text("live")


def test_a_destructive_button_asks_in_a_dialog(page: Page, server: Server, busy: Spool) -> None:
    page.goto(f"{server.origin}/jobs/waits")
    page.get_by_role("button", name="Cancel waits").click()
    expect(page.locator("dialog")).to_contain_text("Cancel waits?")
    page.get_by_role("button", name="No", exact=True).click()
    expect(page.locator("dialog")).not_to_be_visible()
    assert state(busy, "waits") == "pending"
    page.get_by_role("button", name="Cancel waits").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator(".said")).to_contain_text("waits was cancelled")
    page.get_by_role("button", name="Delete waits").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator(".said")).to_contain_text("waits is deleted")
    assert not jobs.names_of(busy.root, "waits")


def test_the_result_of_a_button_is_shown_although_the_stream_shows_its_effect_first(
    page: Page, server: Server, busy: Spool
) -> None:
    """The job is deleted at once; the form is answered after the stream of the page has ended."""
    ended: list[str] = []
    page.on("requestfinished", lambda request: ended.append(request.url))
    page.on("requestfailed", lambda request: ended.append(request.url))

    def answer_late(route: Route) -> None:
        answer = route.fetch(max_redirects=0)
        page.context.clear_cookies(name=re.compile("said"))  # the browser must not have it before the answer
        while not any("/live" in url for url in ended):
            page.wait_for_timeout(20)
        with contextlib.suppress(PlaywrightError):  # the page did not wait for it
            route.fulfill(response=answer)

    page.goto(f"{server.origin}/jobs/bad")
    expect(page.locator("#live")).to_have_text("live")
    page.route("**/delete", answer_late)
    page.get_by_role("button", name="Delete bad").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator(".said")).to_contain_text("bad is deleted")
    assert not jobs.names_of(busy.root, "bad")


def test_a_confirmation_counts_although_the_page_was_updated_meanwhile(
    page: Page, server: Server, busy: Spool, dead: Callable[..., str]
) -> None:
    page.goto(f"{server.origin}/dead")
    expect(page.locator("#live")).to_have_text("live")
    page.get_by_label("Select bad").check()
    page.get_by_role("button", name="Delete selected").click()
    expect(page.locator("dialog")).to_be_visible()
    dead("news")
    next_ticks(page)
    page.get_by_role("button", name="Yes").click()
    expect(page.locator(".said")).to_have_text("Deleted 1 job.")
    assert not jobs.names_of(busy.root, "bad")


def test_dead_letters_by_row_by_choice_and_all(
    page: Page, server: Server, busy: Spool, dead: Callable[..., str]
) -> None:
    for index in range(3):
        dead(f"more-{index}")
    page.goto(f"{server.origin}/dead")
    page.get_by_role("button", name="Retry bad").click()
    expect(page.locator(".said")).to_contain_text("bad is pending again")
    page.get_by_label("Select more-1").check()
    page.get_by_role("button", name="Delete selected").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator(".said")).to_have_text("Deleted 1 job.")
    page.locator(".groups").get_by_role("button", name="Retry all 2").click()
    expect(page.locator(".said")).to_have_text("Retried 2 jobs.")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Retry selected").click()
    expect(page.locator(".said")).to_have_text("Retried 1 job.")
    expect(page.locator(".part-letters")).to_contain_text("nothing needs a person")
    assert jobs.names_in(busy.root, State.DEAD) == []


def test_time_and_priority_are_changed_from_the_page(page: Page, server: Server, busy: Spool) -> None:
    page.goto(f"{server.origin}/jobs/late")
    page.get_by_label("Priority").select_option("8")
    page.get_by_role("button", name="Change").click()
    expect(page.locator(".said")).to_have_text("late is changed: priority 8.")
    page.get_by_role("button", name="Run now").click()
    expect(page.locator(".said")).to_have_text("late may run now.")
    expect(page.locator(".part-job-file")).to_contain_text("priority: 8")
    assert next(found.id for found in busy.list("pending")) == "late"


def test_a_choice_survives_an_update(page: Page, server: Server, busy: Spool) -> None:
    page.goto(f"{server.origin}/jobs/late")
    page.get_by_label("Priority").select_option("8")
    requests.pause(busy.root, busy.clock())
    expect(page.locator(".part-job-head")).to_contain_text("The queue is paused")
    expect(page.get_by_label("Priority")).to_have_value("8")


def test_pause_resume_and_stopping_a_worker(
    page: Page, server: Server, spool: Spool, workers: Workers
) -> None:
    worker = workers.start()
    assert worker.name
    page.goto(f"{server.origin}/workers")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".said")).to_contain_text("Paused")
    expect(page.locator(".badge.w-paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".said")).to_contain_text("Resumed")
    assert not requests.is_paused(spool.root)
    page.get_by_role("button", name=f"Stop {worker.name}").click()
    page.get_by_role("button", name="Yes").click()
    assert worker.wait() == 0
    expect(page.locator(".part-workers")).to_contain_text("No workers")


def test_a_visitor_with_the_token_files_a_job_from_the_page(page: Page, serve: Serve, spool: Spool) -> None:
    server = serve("--allow-submit", "--token", TOKEN)
    page.goto(f"{server.origin}/new")
    expect(page.locator("h1")).to_have_text("This dashboard needs its token")
    page.goto(server.printed)
    assert page.url == f"{server.origin}/"
    page.get_by_role("link", name="New job").click()
    page.get_by_label("Command").fill("echo from the page")
    page.get_by_label("Priority").fill("99")
    page.get_by_role("button", name="File the job").click()
    expect(page.locator(".said")).to_contain_text("priority")
    page.get_by_label("Priority").fill("9")
    page.get_by_role("button", name="File the job").click()
    expect(page.locator(".said")).to_contain_text("is filed")
    assert [found.job.command for found in spool.list() if found.job] == ["echo from the page"]


def test_the_token_is_typed_into_the_page(page: Page, serve: Serve) -> None:
    server = serve("--token", TOKEN)
    page.goto(f"{server.origin}/config")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.locator(".said")).to_have_text("This is not the token.")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    expect(page.locator("h1")).to_have_text("Config")


def test_the_keyboard_alone_is_enough(page: Page, server: Server, busy: Spool) -> None:
    assert busy
    page.goto(f"{server.origin}/jobs")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("pg_dump")
    page.keyboard.press("Enter")
    expect(page.locator("table.rows tbody tr")).to_have_count(1)
    assert page.url.endswith("q=pg_dump&state=")


def test_the_theme_is_kept(page: Page, server: Server) -> None:
    page.goto(server.origin)
    page.get_by_role("button", name="Switch between light and dark").click()
    page.goto(f"{server.origin}/jobs")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_without_javascript_every_page_and_every_button_works(
    browser: Browser, server: Server, busy: Spool
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for path in PAGES:
        page.goto(server.origin + path)
        expect(page.locator("h1")).to_have_count(1)
        expect(page.locator("#live")).not_to_be_visible()
    page.goto(f"{server.origin}/dead?reason=exit+status+2")
    page.get_by_label("Select bad").check()
    page.get_by_role("button", name="Delete selected").click()
    expect(page.locator("h1")).to_have_text("Delete 1 job and what they printed?")
    page.get_by_role("button", name="Delete them").click()
    expect(page.locator(".said")).to_have_text("Deleted 1 job.")
    page.goto(f"{server.origin}/jobs/waits")
    page.get_by_role("button", name="Cancel waits").click()
    page.get_by_role("link", name="No, go back").click()
    assert page.url == f"{server.origin}/jobs/waits"
    page.get_by_role("button", name="Cancel waits").click()
    page.get_by_role("button", name="Cancel it").click()
    expect(page.locator(".said")).to_contain_text("was cancelled")
    assert state(busy, "waits") == "dead"
    context.close()


def test_hostile_output_is_text(page: Page, server: Server, spool: Spool, dead: Callable[..., str]) -> None:
    evil = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    dead("evil", f"echo {evil}", evil)
    (spool.path / "logs" / "evil.1.out").write_bytes(f"{evil}\x1b[31m\r\x07".encode() + b"\xff\n")
    for path in ("/", "/jobs", "/dead", "/jobs/evil"):
        page.goto(server.origin + path)
        expect(page.locator("#live")).to_have_text("live")
        expect(page.locator("main img, main script")).to_have_count(0)
    assert "owned" not in page.title()
    expect(page.locator("pre.output").last).to_have_text(f"{evil}\\x1b[31m\\r\\x07�\n")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Serves a page from another site; returns its address."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()

        def put(body: str) -> str:
            # A new name for each page: the server compares times in whole seconds.
            name = f"page{len(list(folder.iterdir()))}.html"
            (folder / name).write_text(body)
            return f"http://localhost:{other.server_port}/{name}"

        yield put
        other.shutdown()


def test_another_site_can_neither_press_a_button_nor_show_the_page_in_a_frame(
    browser: Browser, server: Server, busy: Spool, elsewhere: Callable[[str], str]
) -> None:
    csrf = server.ask("/").csrf
    fields = f'<input type="hidden" name="csrf" value="{csrf}"><button>win</button>'
    form = f'<form method="post" action="{server.origin}/pause">{fields}</form>'
    frame = f'<iframe src="{server.origin}/jobs"></iframe><img src="{server.origin}/static/icon.svg">'
    context = browser.new_context()
    page = context.new_page()
    seen: dict[str, int] = {}

    def note(answer: Response) -> None:
        if answer.url.startswith(server.origin):
            seen[answer.url.removeprefix(server.origin)] = answer.status

    page.on("response", note)
    page.goto(elsewhere(form + frame))
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="win").click()
    expect(page.locator("body")).to_contain_text("The request comes from another site.")
    assert {"/jobs", "/pause"} <= set(seen)
    assert set(seen.values()) == {403}
    assert not requests.is_paused(busy.root)
    page.goto(elsewhere(f'<a href="{server.origin}/jobs">a link in a chat</a>'))
    page.get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("Jobs")
    context.close()


# ── rows under the pointer ────────────────────────────────────────────────────────────────────

#: Remembers every place of a row while the page is updated.
PLACES = """id => {
    window.places = new Set();
    const look = () => {
        const row = document.getElementById(id);
        window.places.add(row ? Math.round(row.getBoundingClientRect().top) : "gone");
        requestAnimationFrame(look);
    };
    look();
}"""


def next_ticks(page: Page, number: int = 3) -> None:
    """Wait for some ticks of a second stream of the page; its own stream has had as many by then."""
    page.evaluate(
        """number => new Promise((done) => {
            const line = new EventSource(document.body.dataset.live);
            let ticks = 0;
            line.addEventListener("tick", () => {
                ticks += 1;
                if (ticks === number) { line.close(); done(); }
            });
        })""",
        number,
    )


@pytest.mark.parametrize(
    ("path", "row"), [("/dead", "dead-worse"), ("/", "failure-worse"), ("/jobs?state=dead", "row-worse")]
)
def test_rows_stay_under_the_pointer_and_new_ones_come_when_it_leaves(
    page: Page, server: Server, busy: Spool, dead: Callable[..., str], path: str, row: str
) -> None:
    page.goto(server.origin + path)
    expect(page.locator("#live")).to_have_text("live")
    page.locator(f"#{row}").hover()
    page.evaluate(PLACES, row)
    dead("another")
    finding_bad = busy.find("bad").path
    (busy.path / "dead" / finding_bad.rpartition("/")[2]).unlink()
    expect(page.locator("#held")).to_be_visible()
    next_ticks(page)
    assert page.evaluate("[...window.places].length") == 1, page.evaluate("[...window.places]")
    new = page.locator(f"#{row.replace('worse', 'another')}")
    expect(new).to_have_count(0)
    page.mouse.move(0, 0)
    expect(new).to_be_visible()
    expect(page.locator("#held")).to_be_hidden()
    expect(page.locator(f"#{row.replace('worse', 'bad')}")).to_have_count(0)


def test_a_button_shows_new_rows_at_once(
    page: Page, server: Server, busy: Spool, dead: Callable[..., str]
) -> None:
    assert busy
    page.goto(f"{server.origin}/dead")
    page.get_by_label("Select worse").check()
    dead("another")
    expect(page.locator("#held")).to_be_visible()
    # A real click moves the pointer off the row, and the page may show the rows before the click arrives.
    page.get_by_role("button", name="Show them").dispatch_event("click")
    expect(page.get_by_label("Select another")).to_be_visible()
    expect(page.get_by_label("Select worse")).to_be_checked()
    expect(page.locator("#held")).to_be_hidden()


def test_a_row_under_the_pointer_is_updated_in_place(
    page: Page, server: Server, spool: Spool, workers: Workers
) -> None:
    spool.file({"id": "one", "command": "sleep 600"})
    page.goto(f"{server.origin}/jobs")
    page.locator("#row-one").hover()
    workers.start()
    expect(page.locator("#row-one .badge")).to_have_text("processing")


def test_a_row_with_the_focus_does_not_move_when_rows_come_above_it(
    page: Page, server: Server, busy: Spool, dead: Callable[..., str]
) -> None:
    assert busy
    page.goto(f"{server.origin}/dead")
    expect(page.locator("#live")).to_have_text("live")
    page.get_by_role("button", name="Retry bad").focus()
    page.evaluate(PLACES, "dead-bad")
    for number in range(3):
        dead(f"another-{number}")
    expect(page.locator("#dead-another-2")).to_be_attached()
    next_ticks(page)
    tops = page.evaluate("[...window.places]")
    assert max(tops) - min(tops) <= 1, tops
    expect(page.get_by_role("button", name="Retry bad")).to_be_focused()


def test_the_question_before_many_are_retried_names_their_number(
    page: Page, server: Server, spool: Spool
) -> None:
    for index in range(12):
        name = f"10-20260101T000000.{index:06d}Z-job-{index}.yaml"
        (spool.path / "dead" / name).write_text(f"id: job-{index}\ncommand: 'true'\n")
    page.goto(f"{server.origin}/dead")
    page.locator(".selection").get_by_role("button", name="Retry all 12").click()
    expect(page.locator("dialog")).to_contain_text("Retry 12 jobs?")
    page.get_by_role("button", name="No", exact=True).click()
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Retry selected").click()
    expect(page.locator("dialog")).to_contain_text("Retry 12 jobs?")
    page.get_by_role("button", name="No", exact=True).click()
    page.get_by_role("button", name="Delete selected").click()
    expect(page.locator("dialog")).to_contain_text("Delete 12 jobs and what they printed?")
    page.get_by_role("button", name="No", exact=True).click()
    assert len(jobs.names_in(spool.root, State.DEAD)) == 12
    page.locator(".selection").get_by_role("button", name="Retry all 12").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.locator(".said")).to_have_text("Retried 12 jobs.")
    assert jobs.names_in(spool.root, State.DEAD) == []


def test_a_half_filled_form_is_not_replaced(page: Page, serve: Serve, spool: Spool) -> None:
    server = serve("--allow-submit", "--token", TOKEN)
    page.goto(server.printed)
    page.goto(f"{server.origin}/new")
    page.get_by_label("Command").fill("half a comm")
    next_ticks(page)
    expect(page.get_by_label("Command")).to_have_value("half a comm")
    expect(page.locator("#live")).to_have_text("live")
