"""Every button, as a form is sent: what it does to the spool, and what the next page says."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl import Job, Spool, State
from queuectl.spool import jobs, parking, requests
from queuectl.view import lookup
from queuectl.web.actions import MANY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Until, Workers
    from tests.web.conftest import Serve, Server

SURE = {"sure": "yes"}


def states(spool: Spool) -> dict[str, str]:
    return {name.id: str(state) for state in State for name in jobs.names_in(spool.root, state)}


def test_a_dead_job_is_retried_and_the_page_before_says_so(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    answer = server.post("/jobs/one/retry", {"back": "/jobs?state=dead"})
    assert answer.headers["location"] == "/jobs?state=dead"
    assert server.said(answer) == "one is pending again; its attempts count from 1."
    assert states(spool) == {"one": "pending"}


def test_a_result_is_shown_once_and_nobody_can_make_one_up(server: Server, dead: Callable[..., str]) -> None:
    dead("one")
    answer = server.post("/jobs/one/retry")
    shown = server.ask("/", headers={"Cookie": answer.cookies[0].partition(";")[0]})
    assert "pending again" in shown.text
    assert any("Max-Age=0" in cookie for cookie in shown.cookies)
    name, _, value = answer.cookies[0].partition(";")[0].partition("=")
    for forged in (
        value[2:],
        value.replace(".", "."[:0]),
        "eyJ0ZXh0IjoiaGkiLCJiYWQiOmZhbHNlfQ==." + "0" * 64,
    ):
        assert 'class="said' not in server.ask("/", headers={"Cookie": f"{name}={forged}"}).text


@pytest.mark.parametrize("path", ["/jobs/one/delete", "/jobs/one/cancel", "/dead/delete", "/workers/W/stop"])
def test_a_destructive_button_asks_first_and_does_nothing_until_it_is_answered(
    server: Server, spool: Spool, dead: Callable[..., str], path: str
) -> None:
    dead("one")
    with spool.member("foreground") as me:
        answer = server.post(
            path.replace("W", me.name), {"scope": "all", "q": "<one>" if "dead" not in path else ""}
        )
        assert answer.status == 200
        assert 'name="sure" value="yes"' in answer.text
        assert states(spool) == {"one": "dead"}
        assert not requests.requests_to(spool.root, me.name).stop


def test_a_deleted_job_is_gone_with_what_it_printed(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    answer = server.post("/jobs/one/delete", {**SURE, "back": "/jobs/one"})
    assert answer.headers["location"] == "/jobs"
    assert states(spool) == {}
    assert list((spool.path / "logs").iterdir()) == []


def test_a_job_that_waits_or_runs_is_not_deleted(server: Server, spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    assert "Cancel it first" in server.said(server.post("/jobs/one/delete", SURE))
    assert states(spool) == {"one": "pending"}


def test_a_waiting_job_is_cancelled(server: Server, spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    assert "one was cancelled before it ran" in server.said(server.post("/jobs/one/cancel", SURE))
    assert states(spool) == {"one": "dead"}


def test_a_running_job_is_stopped(server: Server, spool: Spool, workers: Workers, until: Until) -> None:
    spool.file({"id": "one", "command": "sleep 600"})
    workers.start()
    until(lambda: states(spool) == {"one": "processing"}, "it runs")
    assert "one was cancelled while it ran" in server.said(server.post("/jobs/one/cancel", SURE))
    assert states(spool) == {"one": "dead"}
    assert not list((spool.path / "workers").glob("*.cancel"))


def test_run_now_and_other_fields(server: Server, spool: Spool) -> None:
    spool.file({"id": "one", "command": "true", "run_at": "2090-01-01T00:00:00Z"})
    answer = server.post("/jobs/one/set", {"priority": "9", "timeout": " 2h ", "command": "evil", "cwd": "/"})
    assert server.said(answer) == "one is changed: priority 9, timeout 2h."
    assert server.said(server.post("/jobs/one/run")) == "one may run now."
    job = spool.view(spool.find("one"))
    assert (job["priority"], job["timeout"], job["command"], "cwd" in job) == (9, 7200, "true", False)
    assert spool.find("one").label(spool.clock()) == "pending"
    assert "due already" in server.said(server.post("/jobs/one/run"))
    server.post("/jobs/one/set", {"run_at": "+1h", "priority": "9"})
    assert spool.find("one").label(spool.clock()) == "scheduled"


@pytest.mark.parametrize("priority", ["", "11", "-1", "1.5", "<b>", "9; rm"])
def test_a_wrong_priority_changes_nothing(server: Server, spool: Spool, priority: str) -> None:
    spool.file({"id": "one", "command": "true"})
    before = spool.find("one").path
    said = server.said(server.post("/jobs/one/set", {"priority": priority}))
    assert ("cannot be taken" if priority else "No field was filled in") in said
    assert spool.find("one").path == before


def test_a_job_is_held_and_released_and_the_page_has_the_button_for_it(server: Server, spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    spool.file({"id": "two", "command": "true", "after": "one"})

    def buttons(job_id: str) -> list[str]:
        return [
            what for what in ("hold", "release", "free", "set") if f"/jobs/{job_id}/{what}" in page(job_id)
        ]

    def page(job_id: str) -> str:
        return str(server.ask(f"/jobs/{job_id}").text)

    assert buttons("one") == ["hold", "set"]
    assert server.said(server.post("/jobs/one/hold")) == "one is held until it is released."
    assert buttons("one") == ["release", "set"]
    assert "A person holds it" in page("one")
    assert "/jobs/one/release" in server.ask("/jobs?state=held").text
    assert server.said(server.post("/jobs/one/release")) == "one is pending."
    assert "is pending, not held" in server.said(server.post("/jobs/one/release"))
    assert buttons("two") == ["hold", "free", "set"]
    assert server.said(server.post("/jobs/two/free")) == "two waits for no other job any more."
    assert buttons("two") == ["hold", "set"]
    parking.edit(spool.root, spool.find("one"), "ann")
    assert buttons("one") == ["hold"]
    assert "In an editor of ann" in page("one")
    assert "in an editor of ann" in server.said(server.post("/jobs/one/set", {"priority": "3"}))


def test_selected_dead_letters_are_retried(server: Server, spool: Spool, dead: Callable[..., str]) -> None:
    for index in range(4):
        dead(f"job-{index}")
    answer = server.post("/dead/retry", {"scope": "chosen", "id": ["job-1", "job-3", "nobody"]})
    assert server.said(answer) == "Retried 2 jobs."
    assert states(spool) == {"job-0": "dead", "job-1": "pending", "job-2": "dead", "job-3": "pending"}


def test_all_dead_letters_that_match_are_retried_or_deleted(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    for index in range(3):
        dead(f"a-{index}", error="no route to host")
        dead(f"b-{index}", error="disk full")
    fields = {"scope": "all", "reason": "no route to host", "q": "a-"}
    assert server.said(server.post("/dead/retry", fields)) == "Retried 3 jobs."
    assert server.said(server.post("/dead/delete", {**SURE, "scope": "all", "q": "b-2"})) == "Deleted 1 job."
    assert sorted(job_id for job_id, state in states(spool).items() if state == "dead") == ["b-0", "b-1"]


def test_one_dead_letter_is_retried_from_its_row(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    dead("two")
    server.post("/dead/retry", {"only": "one", "id": ["two"]})
    assert states(spool) == {"one": "pending", "two": "dead"}


def test_the_page_says_that_nothing_was_selected(
    server: Server, spool: Spool, dead: Callable[..., str]
) -> None:
    dead("one")
    assert server.said(server.post("/dead/retry", {"scope": "chosen"})) == "Nothing was selected."
    assert states(spool) == {"one": "dead"}


def test_pause_and_resume(server: Server, spool: Spool) -> None:
    assert "Paused" in server.said(server.post("/pause"))
    assert requests.is_paused(spool.root)
    assert "Paused" in server.ask("/").text
    assert "Resumed" in server.said(server.post("/resume"))
    assert not requests.is_paused(spool.root)


def test_a_worker_is_asked_to_stop_and_does(server: Server, spool: Spool, workers: Workers) -> None:
    worker = workers.start()
    assert "asked to stop" in server.said(server.post(f"/workers/{worker.name}/stop", SURE))
    assert worker.wait() == 0


@pytest.mark.parametrize("name", ["nobody", "..%2fconfig", "paused", "%00", "x%2fy"])
def test_no_unknown_worker_is_stopped(server: Server, spool: Spool, name: str) -> None:
    before = sorted(path.name for path in spool.path.rglob("*"))
    assert server.post(f"/workers/{name}/stop", SURE).status in {303, 404}
    assert sorted(path.name for path in spool.path.rglob("*")) == before


def test_a_read_only_dashboard_shows_everything_and_changes_nothing(
    serve: Serve, spool: Spool, dead: Callable[..., str]
) -> None:
    server = serve("--read-only", "--allow-submit", "--token", "0123456789abcdef")
    bearer = {"Authorization": "Bearer 0123456789abcdef"}
    dead("one")
    for path in ("/", "/jobs", "/jobs/one", "/dead", "/workers", "/config"):
        page = server.ask(path, headers=bearer)
        assert page.status == 200
        assert 'method="post"' not in page.text, path
    assert server.ask("/new", headers=bearer).status == 404
    for path in ("/pause", "/jobs/one/retry", "/dead/delete", "/new"):
        body = b"sure=yes&scope=all&command=true&csrf="
        headers = {**bearer, "Origin": server.origin, "Content-Type": "application/x-www-form-urlencoded"}
        answer = server.ask(path, "POST", body, headers)
        assert (answer.status, "read only" in answer.text) == (400, True), path
    assert states(spool) == {"one": "dead"}


def test_jobs_are_filed_from_the_page_only_where_that_is_allowed(
    server: Server, serve: Serve, spool: Spool
) -> None:
    assert server.ask("/new").status == 404
    assert server.post("/new", {"command": "true"}).status == 404
    assert states(spool) == {}
    allowed = serve("--allow-submit")
    assert "?token=" in allowed.printed
    bearer = {"Authorization": f"Bearer {allowed.printed.partition('?token=')[2]}"}
    fields = {"command": "echo a\r\necho b", "id": "mine", "priority": "7", "run_at": "+1h", "timeout": "5m"}
    answer = allowed.post("/new", fields, bearer)
    assert answer.headers["location"] == "/jobs/mine"
    job = spool.find("mine").job
    assert job is not None
    assert (job.command, job.priority, job.timeout) == ("echo a\necho b", 7, 300.0)
    assert spool.find("mine").label(spool.clock()) == "scheduled"
    again = allowed.post("/new", fields, bearer)
    assert again.status == 400
    assert "taken" in again.text
    assert "echo a" in again.text
    keyed = {"command": "true", "unique": "import 7"}
    for fields in ({**keyed, "id": "first"}, keyed):
        assert allowed.post("/new", fields, bearer).headers["location"] == "/jobs/first"
    assert "import 7" in allowed.ask("/jobs/first", headers=bearer).text
    assert len(states(spool)) == 2


def test_the_page_says_why_a_button_did_nothing(server: Server, spool: Spool, workers: Workers) -> None:
    spool.file({"id": "one", "command": "true"})
    workers.drain()
    assert "nothing to cancel" in server.said(server.post("/jobs/one/cancel", SURE))
    assert "no job" in server.said(server.post("/jobs/nobody/retry"))
    assert server.post("/jobs/one/explode").status == 404
    assert server.post("/explode").status == 404


def killed(spool: Spool, workers: Workers, until: Until, command: str = "sleep 600") -> psutil.Process:
    """File a job and kill its worker while it runs; returns the process of its command."""
    spool.file({"id": "one", "command": command})
    worker = workers.start()
    until(lambda: states(spool) == {"one": "processing"}, "it runs")
    until(lambda: any(run.get("pid") for run in lookup.runs_of(job_of(spool))), "its start is written down")
    pid = lookup.runs_of(job_of(spool))[-1]["pid"]
    process = psutil.Process(pid)
    worker.popen.kill()
    worker.popen.wait()
    return process


def job_of(spool: Spool) -> Job:
    found = spool.find("one")
    assert found.job is not None
    return found.job


def test_the_job_of_a_dead_worker_is_cancelled_and_its_processes_are_stopped(
    server: Server, spool: Spool, workers: Workers, until: Until
) -> None:
    process = killed(spool, workers, until)
    assert "one was cancelled after its run was lost" in server.said(server.post("/jobs/one/cancel", SURE))
    assert states(spool) == {"one": "dead"}
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "it is stopped")
    assert not list((spool.path / "workers").iterdir())


def test_the_dashboard_and_the_command_line_cancel_alike(
    server: Server, spool: Spool, workers: Workers, until: Until
) -> None:
    ways = []
    for number, way in enumerate(("dashboard", "command line")):
        killed(spool, workers, until)
        if way == "dashboard":
            server.post("/jobs/one/cancel", SURE)
        else:
            args = [sys.executable, "-m", "queuectl", "--spool", str(spool.path), "cancel", "one"]
            assert subprocess.run(args, check=False, capture_output=True).returncode == 0
        events = [(event["event"], event.get("error")) for event in job_of(spool).history]
        ways.append([(event, re.sub(r"\S+-\d+-\w{4}", "W", str(error))) for event, error in events])
        assert states(spool) == {"one": "dead"}, number
        assert server.post("/jobs/one/delete", SURE).status == 303
    assert ways[0] == ways[1]


def test_many_jobs_are_not_retried_without_a_question(server: Server, spool: Spool) -> None:
    for number in range(MANY + 1):
        put_dead(spool, f"job-{number:02}")
    names = sorted(states(spool))
    asked = server.post("/dead/retry", {"scope": "all"})
    assert (asked.status, f"Retry {MANY + 1} jobs?" in asked.text) == (200, True)
    asked = server.post("/dead/retry", {"scope": "chosen", "id": names})
    assert (asked.status, f"Retry {MANY + 1} jobs?" in asked.text) == (200, True)
    assert set(states(spool).values()) == {"dead"}
    some = server.post("/dead/retry", {"scope": "chosen", "id": names[:MANY]})
    assert server.said(some) == f"Retried {MANY} jobs."


def test_a_confirmation_counts_only_for_the_number_in_the_question(server: Server, spool: Spool) -> None:
    for number in range(MANY + 1):
        put_dead(spool, f"job-{number:02}")
    put_dead(spool, "one-more")
    for what in ("retry", "delete"):
        asked = server.post(f"/dead/{what}", {**SURE, "scope": "all", "number": str(MANY + 1)})
        assert (asked.status, f"{MANY + 2} jobs" in asked.text) == (200, True)
        assert f'name="number" value="{MANY + 2}"' in asked.text
    assert set(states(spool).values()) == {"dead"}
    answer = server.post("/dead/retry", {**SURE, "scope": "all", "number": str(MANY + 2)})
    assert server.said(answer) == f"Retried {MANY + 2} jobs."


def put_dead(spool: Spool, job_id: str) -> None:
    name = f"10-20260101T000000.000000Z-{job_id}.yaml"
    (spool.path / "dead" / name).write_text(f"id: {job_id}\ncommand: 'true'\n")


def test_a_group_is_shown_with_its_slots_and_paused_and_resumed(server: Server, spool: Spool) -> None:
    assert "Groups" not in server.ask("/").text
    spool.set_group("gpu", 2, 60.0)
    spool.file({"command": "true", "group": "gpu"})
    shown = server.ask("/").text
    assert "0 of 2" in shown
    assert 'action="/groups/gpu/pause"' in shown
    answer = server.post("/groups/gpu/pause")
    assert server.said(answer) == "gpu is paused: none of its jobs is started; what runs goes on."
    assert [one.paused for one in spool.groups()] == [True]
    assert 'action="/groups/gpu/resume"' in server.ask("/").text
    assert server.said(server.post("/groups/gpu/resume")) == "gpu is resumed."
    assert server.said(server.post("/groups/gpu/resume")) == "gpu was not paused."
    assert "no name of a group" in server.said(server.post("/groups/No%20Group/pause"))
