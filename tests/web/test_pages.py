"""The content of the pages and of their JSON; everything in the spool is shown as text."""

from __future__ import annotations

import html
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from queuectl import Spool, State
from queuectl.spool import members
from queuectl.spool.batches import Batch
from queuectl.times import iso
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Until, Workers
    from tests.web.conftest import Server

EVIL = "</code></pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\u202e"


def facts(server: Server, path: str) -> dict[str, Any]:
    answer = server.ask(path)
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = json.loads(answer.body)
    return found


def words(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def finished(spool: Spool, number: int) -> None:
    for index in range(number):
        name = f"10-20260101T000000.{index:06d}Z-old-{index:04d}.yaml"
        path = Path(spool.root.folder(State.DONE)) / name
        draft = path.with_name(f".{name}.tmp")  # a look between the two would take the wrong time
        draft.write_text(f"id: old-{index:04d}\ncommand: make {index}\nhistory:\n")
        os.utime(draft, (time.time() - 5000 + index,) * 2)
        draft.rename(path)


def test_an_empty_spool_says_what_to_do_first(server: Server) -> None:
    for path in ("/", "/jobs", "/workers"):
        assert "queuectl" in words(server.ask(path).text)
    assert "queuectl enqueue" in words(server.ask("/jobs").text)
    assert "queuectl worker start" in words(server.ask("/workers").text)
    assert "nothing needs a person" in words(server.ask("/dead").text)


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda _: None, "The queue is empty."),
        (lambda spool: spool.file("true"), "Nothing runs: 1 job waits and no worker is alive."),
        (lambda spool: finished(spool, 2), "All done: nothing runs and nothing waits."),
        (lambda spool: (spool.path / "workers" / "paused").touch(), "Paused: nothing new is started"),
    ],
)
def test_the_overview_says_in_one_sentence_how_it_stands(
    server: Server, spool: Spool, prepare: Callable[[Spool], None], sentence: str
) -> None:
    prepare(spool)
    assert sentence in facts(server, "/overview.json")["health"]["sentence"]
    assert sentence in words(server.ask("/").text)


def test_the_overview_shows_counts_bars_failures_and_the_oldest(
    server: Server, spool: Spool, workers: Workers, dead: Callable[..., str]
) -> None:
    spool.file({"id": "good", "command": "true"})
    workers.drain()
    dead("bad", error="disk full")
    spool.file({"id": "oldest", "command": "true"})
    spool.file({"id": "newer", "command": "true", "priority": 9})
    told = facts(server, "/overview.json")
    assert told["counts"] == {
        "pending": 2,
        "scheduled": 0,
        "held": 0,
        "blocked": 0,
        "processing": 0,
        "completed": 1,
        "failed": 0,
        "dead": 1,
    }
    for chart in told["charts"].values():
        assert (chart["completed"], chart["failed"]) == (1, 1)
        assert sum(bar["completed"] for bar in chart["bars"]) == 1
        assert chart["bars"][-1]["failed"] + chart["bars"][-2]["failed"] == 1
    assert told["oldest"]["id"] == "oldest"
    assert [(job["id"], job["reason"]) for job in told["failures"]] == [("bad", "disk full")]
    page = words(server.ask("/").text)
    assert "disk full" in page
    assert "1 completed" in page


def test_pages_of_jobs_hold_fifty_and_lead_to_one_another(server: Server, spool: Spool, until: Until) -> None:
    finished(spool, 120)
    until(lambda: facts(server, "/jobs.json?state=completed")["total"] == 120, "all are counted")
    seen = []
    for number in (1, 2, 3):
        told = facts(server, f"/jobs.json?state=completed&page={number}")
        seen += [job["id"] for job in told["jobs"]]
        assert (told["pages"], told["more"]) == (3, number < 3)
    assert seen == [f"old-{index:04d}" for index in reversed(range(120))]
    page = server.ask("/jobs?state=completed&page=2").text
    assert page.count('<tr id="row-') == 50
    assert 'rel="prev"' in page
    assert 'rel="next" href="/jobs?state=completed&amp;page=3"' in page
    assert "There is no page 9" in words(server.ask("/jobs?state=completed&page=9").text)


def test_jobs_that_wait_stand_in_the_order_in_which_they_run(server: Server, spool: Spool) -> None:
    for index in range(6):
        spool.file({"id": f"job-{index}", "command": "true", "priority": str(index % 3)})
    shown = [job["id"] for job in facts(server, "/jobs.json?state=pending")["jobs"]]
    assert shown == [found.id for found in spool.list("pending")]


@pytest.mark.parametrize(
    ("words_", "found"),
    [
        ("alpha", ["alpha-1"]),
        ("CONVERT", ["beta-2"]),
        ("a", ["alpha-1", "beta-2"]),
        ("nowhere", []),
        ("%", []),
        ("..", []),
    ],
)
def test_a_filter_finds_ids_and_commands(server: Server, spool: Spool, words_: str, found: list[str]) -> None:
    spool.file({"id": "alpha-1", "command": "true"})
    spool.file({"id": "beta-2", "command": "convert it"})
    shown = facts(server, f"/jobs.json?state=pending&q={words_.replace('%', '%25')}")
    assert [job["id"] for job in shown["jobs"]] == found


def test_a_filter_finds_errors(server: Server, dead: Callable[..., str]) -> None:
    dead("one", error="no space left")
    dead("two", error="refused")
    assert [job["id"] for job in facts(server, "/jobs.json?q=space+left")["jobs"]] == ["one"]


def test_the_search_finds_every_text_that_a_row_shows(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one", command="pg_dump shop", error="no space left")  # its output is "it went wrong"
    (spool.path / "dead" / "10-20260101T000000.000000Z-broken.yaml").write_text("command: [")
    put_aside = "10-20260101T000000.000000Z-aside.yaml"
    (spool.path / "dead" / put_aside).write_text("id: aside\ncommand: 'true'\n")
    (spool.path / "dead" / f"{put_aside}.reason.txt").write_text("The id 'aside' is taken.\n")
    dead("odd", error="a\ttab and a\nline")
    for path in ("/jobs.json?q=", "/jobs.json?state=dead&q=", "/dead.json?q="):
        for text, job_id in (
            *(("went wrong", "one"), ("NO SPACE", "one"), ("pg_dump", "one"), ("is taken", "aside")),
            *(("moved here by hand", ""), ("\\ttab and a\\nline", "odd")),
        ):
            found = [job["id"] for job in facts(server, path + quote(text))["jobs"]]
            assert (job_id in found) if job_id else not found, (path, text, found)
    shown = facts(server, "/jobs.json?state=dead")["jobs"]
    for job in shown:
        for part in ("command_line", "reason", "last_words", "id"):
            if job[part]:
                for path in ("/jobs.json?q=", "/dead.json?q="):
                    found = [one["id"] for one in facts(server, path + quote(job[part]))["jobs"]]
                    assert job["id"] in found, (path, part, job[part])


def test_a_long_error_is_cut_on_pages_and_whole_behind_a_link(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    error = "<&\"'" * 100_000 + " the end"
    dead("one", error=error)
    for path in ("/jobs/one", "/jobs", "/dead", "/"):
        assert len(server.ask(path).body) < 250_000, path
    for path in ("/overview.json", "/jobs.json", "/dead.json"):
        assert len(server.ask(path).body) < 40_000, path
    page = server.ask("/jobs/one").text
    for link in ("/jobs/one/error/0", "/jobs/one/error/1", "/jobs/one/file"):
        assert f'href="{link}"' in page
    for number in (0, 1):
        whole = server.ask(f"/jobs/one/error/{number}")
        assert whole.text == error
        assert "attachment" in whole.headers["content-disposition"]
    assert server.ask("/jobs/one/file").body == Path(spool.find("one").path).read_bytes()
    for path in ("/jobs/one/error/2", "/jobs/two/error/0", "/jobs/two/file", "/jobs/one/error/x"):
        assert server.ask(path).status == 404, path


def test_a_short_error_needs_no_link(server: Server, dead: Callable[..., str]) -> None:
    dead("one")
    assert "/error/" not in server.ask("/jobs/one").text
    assert "whole file" not in words(server.ask("/jobs/one").text).partition("The file")[2]


@pytest.mark.parametrize(
    "query", ["state=x", "page=0", "page=-1", "page=9999999999", "page=<b>", "state=dead&q=" + "%F0" * 99]
)
def test_a_query_that_makes_no_sense_is_still_a_page(server: Server, query: str) -> None:
    assert server.ask(f"/jobs?{query}").status == 200


def test_the_page_of_a_job_shows_why_it_died_its_output_and_its_file(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one", error="disk full")
    page = server.ask("/jobs/one")
    text = words(page.text)
    assert "Disk full." in text
    assert "it went wrong" in text
    assert (
        html.escape(Path(spool.find("one").path).read_text(), quote=True).replace("&quot;", "&#34;")
        in page.text
    )
    told = facts(server, "/jobs/one.json")
    assert told["output"]["err"] == {"size": 14, "shown": 14, "text": "it went wrong\n"}
    assert [(run["attempt"], run["outcome"], run["exit_code"]) for run in told["runs"]] == [(1, "failed", 7)]
    assert server.ask("/jobs/one/output/1/err").body == b"it went wrong\n"
    assert "attachment" in server.ask("/jobs/one/output/1/err").headers["content-disposition"]


@pytest.mark.parametrize(
    "path", ["/jobs/one/output/2/err", "/jobs/one/output/1/log", "/jobs/two/output/1/out"]
)
def test_absent_output_is_not_found(server: Server, dead: Callable[..., str], path: str) -> None:
    dead("one")
    assert server.ask(path).status == 404


def test_a_log_that_is_a_link_is_not_followed(server: Server, spool: Spool, dead: Callable[..., str]) -> None:
    dead("one")
    log = spool.path / "logs" / "one.1.err"
    log.unlink()
    log.symlink_to("/etc/passwd")
    for path in ("/jobs/one", "/jobs/one/output/1/err"):
        assert b"root:" not in server.ask(path).body


def test_the_end_of_a_long_output_is_shown(server: Server, spool: Spool, dead: Callable[..., str]) -> None:
    dead("one")
    (spool.path / "logs" / "one.1.out").write_text("".join(f"line {number}\n" for number in range(50_000)))
    told = facts(server, "/jobs/one.json")["output"]["out"]
    assert told["shown"] == 64 * 1024
    assert told["text"].endswith("line 49999\n")
    assert told["text"].startswith("line ")
    assert len(server.ask("/jobs/one").body) < 200_000


def test_a_job_that_waits_says_why(server: Server, spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    spool.file({"id": "two", "command": "true"})
    spool.file({"id": "late", "command": "true", "run_at": "2090-01-01T00:00:00Z"})
    assert "1 job before it" in facts(server, "/jobs/two.json")["why"]
    assert "No worker is alive" in words(server.ask("/jobs/one").text)
    assert "due at 2090-01-0" in facts(server, "/jobs/late.json")["why"].lower()


def test_a_job_whose_id_ends_in_json_has_a_page(server: Server, spool: Spool) -> None:
    spool.file({"id": "report.json", "command": "true"})
    spool.file({"id": "report", "command": "true"})
    assert "<h1" in server.ask("/jobs/report.json").text
    assert facts(server, "/jobs/report.json.json")["job"]["id"] == "report.json"
    asked = server.ask("/jobs/report", headers={"Accept": "application/json"})
    assert json.loads(asked.body)["job"]["id"] == "report"


def test_dead_letters_are_grouped_by_reason(server: Server, dead: Callable[..., str]) -> None:
    for index in range(3):
        dead(f"a-{index}", error="no route to host")
    dead("b", error="disk full")
    told = facts(server, "/dead.json")
    assert [(group["reason"], group["count"]) for group in told["groups"]] == [
        ("no route to host", 3),
        ("disk full", 1),
    ]
    assert {job["last_words"] for job in told["jobs"]} == {"it went wrong"}
    assert "it went wrong" in words(server.ask("/").text)
    one = facts(server, "/dead.json?reason=disk+full")
    assert [job["id"] for job in one["jobs"]] == ["b"]
    assert "Retry all 3" in words(server.ask("/dead").text)


def test_the_page_of_workers_shows_host_pid_job_and_beat(
    server: Server, spool: Spool, workers: Workers, until: Until
) -> None:
    spool.file({"id": "one", "command": "sleep 600"})
    worker = workers.start()
    until(lambda: [one["job"] for one in facts(server, "/workers.json")["workers"]] == ["one"], "it works")
    (told,) = facts(server, "/workers.json")["workers"]
    assert (told["pid"], told["state"]) == (worker.pid, "busy")
    page = words(server.ask("/workers").text)
    for word in (worker.name, told["host"], str(worker.pid), "one", "busy"):
        assert word in page


def test_the_page_of_settings_shows_value_default_and_meaning(server: Server, spool: Spool) -> None:
    spool.root.config.write_text("max_retries: 8\n")
    told = {key["key"]: key for key in facts(server, "/config.json")["keys"]}
    assert (told["max_retries"]["value"], told["max_retries"]["default"]) == (8, 3)
    assert "tries after the first one" in words(server.ask("/config").text)
    spool.root.config.write_text("max_retries: lots\n")
    assert "lots" in words(server.ask("/config").text)


def test_metrics_and_health(server: Server, spool: Spool) -> None:
    spool.file("true")
    answer = server.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {sample.labels["state"]: sample.value for sample in found["queuectl_jobs"].samples}["pending"] == 1
    assert server.ask("/healthz").body == b"ok\n"


# ── hostile spools ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hostile(spool: Spool) -> Spool:
    """A spool in which every text is an attack on the page."""
    spool.file({"id": "command", "command": f"echo {EVIL}", "env": {f"X{EVIL[:9]}": EVIL}, "cwd": f"/{EVIL}"})
    start = {"event": "started", "attempt": 1, "at": "0001-01-01", "worker": EVIL, EVIL: EVIL}
    event = start | {"event": EVIL, "signal": EVIL, "error": EVIL}
    name = "10-20260101T000000.000000Z-history.yaml"
    lines = f"command: true\nhistory:\n- {json.dumps(start)}\n- {json.dumps(event)}\n"
    (spool.path / "dead" / name.replace("history", "refused")).write_text(
        f"command: true\nhistory:\n- {json.dumps(start | {'at': EVIL})}\n"
    )
    (spool.path / "dead" / name).write_text(lines)
    (spool.path / "dead" / "10-20260101T000000.000000Z-reason.yaml").write_text(EVIL)
    (spool.path / "dead" / "10-20260101T000000.000000Z-reason.yaml.reason.txt").write_text(EVIL)
    nan = '- {"event": "completed", "attempt": 1, "at": "9999-12-31", "seconds": NaN, "note": 1e999}'
    (spool.path / "done" / "10-20260101T000000.000000Z-nan.yaml").write_text(
        f"command: true\nhistory:\n{nan}\n"
    )
    (spool.path / "failed" / "10-20260231T000000.000000Z-february.yaml").write_text("command: true\n")
    (spool.path / "processing" / "10-20260101T000000.000000Z-run@w-1-abcd.yaml").write_text(lines)
    (spool.path / "pending" / "10-20260101T000000.000000Z-link.yaml").symlink_to("/etc/passwd")
    os.mkfifo(spool.path / "dead" / "10-20260101T000000.000000Z-fifo.yaml")
    (spool.path / "done" / "10-20260101T000000.000000Z-folder.yaml").mkdir()
    os.close(os.open(os.fsencode(spool.path) + b"/pending/<script>\xff\n\x1b.txt", os.O_CREAT | os.O_WRONLY))
    facts_ = {"name": EVIL, "host": EVIL, "pid": "7", "kind": EVIL, "place": "p"}
    facts_["started_at"] = "2026-01-01T00:00:00Z"
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in facts_.items())
    beat = json.dumps({"count": 1, "at": "0001-01-01", "jobs_done": 3})
    (spool.path / "workers" / "<b>x.yaml").write_text(f"{head}beat: {beat}\n")
    for stream in ("out", "err"):
        (spool.path / "logs" / f"history.1.{stream}").write_bytes(EVIL.encode() + b"\xff\x00\r\x07")
    return spool


def test_nothing_in_a_spool_becomes_markup_or_a_control_character_on_a_page(
    server: Server, hostile: Spool
) -> None:
    assert hostile.clock()
    pages = ["/", "/jobs", "/dead", "/workers", "/config", "/jobs?q=echo", f"/jobs?q={'%3Cscript%3E'}"]
    pages += [
        f"/jobs/{name}"
        for name in ("command", "history", "refused", "reason", "nan", "run", "link", "fifo", "folder")
    ]
    for path in [*pages, "/dead?reason=%3Cimg%20src%3Dx%3E"]:
        page = server.ask(path, headers={"Accept": "text/html"})
        assert page.status in {200, 404}, (path, page)
        for bad in ("<script>alert", "<img", "<b>", "onerror=alert(2)>", "root:"):
            assert bad not in page.text, (path, bad)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page.text), path
        twin = server.ask(path, headers={"Accept": "application/json"})
        json.loads(twin.body, parse_constant=pytest.fail)


def test_a_broken_history_is_shown_as_unreadable(server: Server, hostile: Spool) -> None:
    told = facts(server, "/jobs/refused.json")
    assert told["job"]["command_line"].startswith("(it cannot be read: history: this is not a list of events")
    assert told["job"]["ended_at"] is None
    assert told["runs"] == []
    assert told["now"] <= iso(hostile.clock())


def test_the_page_of_a_job_shows_what_it_waits_for_and_what_waits_for_it(
    server: Server, spool: Spool
) -> None:
    spool.file({"id": "build", "command": "true"})
    spool.file({"id": "ship", "command": "true", "after": {"build": "any"}})
    told = facts(server, "/jobs/ship.json")
    assert told["after"] == [{"id": "build", "wanted": "any", "end": "has not ended"}]
    assert "Runs after build (any), which has not ended" in words(server.ask("/jobs/ship").text)
    assert "Waits for it ship" in words(server.ask("/jobs/build").text)


# ── batches ───────────────────────────────────────────────────────────────────────────────────


def test_a_batch_has_a_page_with_its_counts_failures_and_jobs(
    server: Server, spool: Spool, workers: Workers
) -> None:
    members.reserve(spool.root, Batch("sweep", 3, "0"))
    commands = ["true", "exit 7", "true"]
    jobs = [{"id": f"sweep.{n}", "command": one, "max_retries": 0} for n, one in enumerate(commands, 1)]
    assert all(filed.error is None for filed in spool.file_many([*jobs, "echo other"]))
    members.finish(spool.root, "sweep")
    waiting = facts(server, "/batches/sweep.json")["batch"]
    assert (waiting["counts"]["pending"], waiting["seconds_left"]) == (3, None)
    assert "unknown: no worker is alive" in words(server.ask("/batches/sweep").text)
    workers.drain()

    def ended() -> dict[str, Any] | None:
        told = facts(server, "/batches/sweep.json")
        return told if told["batch"]["ended"] == 3 and len(told["jobs"]) == 3 else None

    told = wait_until(ended, "the page shows the end")
    assert told
    assert {job["id"] for job in told["jobs"]} == {"sweep.1", "sweep.2", "sweep.3"}
    assert told["batch"]["failures"] == [{"reason": "exit status 7", "number": 1, "ids": ["sweep.2"]}]
    page = words(server.ask("/batches/sweep").text)
    assert "3 of 3 have ended" in page
    assert "queuectl retry sweep" in page
    assert "batch sweep" in words(server.ask("/jobs/sweep.2").text)
    assert "sweep" in words(server.ask("/batches").text)
    assert server.ask("/batches/other").status == 404
    assert server.ask("/batches/" + quote(EVIL)).status == 404


def test_without_batches_the_page_says_how_to_file_one(server: Server) -> None:
    assert "--each" in words(server.ask("/batches").text)
