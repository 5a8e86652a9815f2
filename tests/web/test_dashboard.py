"""The state that all requests share, tested without a server: where a job is, and what pages cost."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from queuectl.times import utc_now
from queuectl.view.census import Watch
from queuectl.web import chart
from queuectl.web.dashboard import Dashboard
from queuectl.web.pages.dead import page as dead_page
from queuectl.web.pages.frame import Query
from queuectl.web.pages.job import page as job_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl import Spool
    from tests.conftest import Counting, Workers


@pytest.fixture
def dashboard(spool: Spool) -> Iterator[Dashboard]:
    with closing(Dashboard(spool)) as made:
        yield made


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a\0b", "-a", "é", "a" * 101, "a\n"])
def test_no_text_that_cannot_be_an_id_is_looked_for(spool: Spool, dashboard: Dashboard, job_id: str) -> None:
    spool.path.rename(spool.path.with_name("away"))
    assert dashboard.find(job_id) is None
    with pytest.raises(FileNotFoundError):
        dashboard.find("good")


def test_a_job_is_found_wherever_it_has_gone_since_it_was_seen(
    spool: Spool, dashboard: Dashboard, workers: Workers
) -> None:
    for index in range(5):
        spool.file({"id": f"job-{index}", "command": "true"})
        assert dashboard.find(f"job-{index}")
    workers.drain()
    states = [found.state.label for index in range(5) if (found := dashboard.find(f"job-{index}"))]
    assert states == ["completed"] * 5
    assert dashboard.find("job") is None  # the beginning of an id is not enough


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("q=a+b&q=c", "q", "a b"),
        ("q=%F0%9F", "q", "\ufffd"),
        ("=&&;", "q", ""),
        ("&".join(["a=b"] * 99), "a", ""),
    ],
)
def test_any_query_can_be_read(text: str, name: str, value: str) -> None:
    assert Query.parse(text).text(name) == value


@pytest.mark.parametrize(
    ("most", "top"), [(0, 4), (4, 4), (5, 10), (11, 20), (21, 40), (99, 100), (8400, 10_000)]
)
def test_the_scale_of_a_chart_is_a_round_number_above_its_bars(most: int, top: int) -> None:
    from collections import Counter

    now = utc_now()
    minute = int(now.timestamp()) // 60
    made = chart.lay_out(Counter({minute: most, minute - 60: 7}), Counter({minute: 0}), now, 60, 1)
    assert (made.top, made.completed, len(made.bars)) == (top, most, 60)
    assert [bar.completed for bar in made.bars[:-1]] == [0] * 59


def test_a_page_of_many_dead_letters_is_made_before_all_have_been_read(
    dashboard: Dashboard, dead: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from queuectl.web import dashboard as module

    for index in range(4):
        dead(f"job-{index}")
    monkeypatch.setattr(module, "READING", -1.0)
    assert dead_page(dashboard, Query()).facts["unread"] >= 3
    monkeypatch.setattr(module, "READING", 60.0)
    facts = dead_page(dashboard, Query()).facts
    assert (facts["unread"], [group["count"] for group in facts["groups"]]) == (0, [4])


def put_dead(spool: Spool, first: int, number: int) -> None:
    for index in range(first, first + number):
        name = f"10-20260101T000000.{index:06d}Z-job-{index}.yaml"
        event = f'{{"event": "failed", "attempt": 1, "error": "error {index}"}}'
        (spool.path / "dead" / name).write_text(f"id: job-{index}\ncommand: 'true'\nhistory:\n- {event}\n")


@pytest.fixture
def threads_alternate() -> Iterator[None]:
    """Threads take turns as often as possible, so that they interrupt each other anywhere."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_many_readers_of_dead_letters_do_not_disturb_each_other(
    spool: Spool, dashboard: Dashboard, threads_alternate: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from queuectl.web import dashboard as module

    monkeypatch.setattr(module, "READING", 0.002)  # so that some are always left to read
    put_dead(spool, 0, 1500)
    begin = threading.Barrier(8)

    def look() -> None:
        begin.wait()
        for _ in range(30):
            dead_page(dashboard, Query.parse("q=job"))

    with ThreadPoolExecutor(7) as pool:
        looking = [pool.submit(look) for _ in range(7)]
        begin.wait()
        for round_ in range(20):  # more go than come, so that known ones are forgotten
            for path in sorted((spool.path / "dead").iterdir())[:60]:
                path.unlink()
            put_dead(spool, 1500 + 20 * round_, 20)
        for one in looking:
            one.result()
    dashboard.watch.census.look(patient=False)
    assert dashboard.dead_letters(60, 60).unread == 0


def test_dead_letters_are_immutable(spool: Spool, dashboard: Dashboard) -> None:
    put_dead(spool, 0, 20)
    dashboard.look(60)
    letters = dashboard.dead_letters(60, 60)
    names, groups = list(letters.matching(None, "")), letters.groups()
    assert len(names) == 20
    for path in sorted((spool.path / "dead").iterdir())[:15]:
        path.unlink()
    dashboard.look(60)
    assert len(dashboard.dead_letters(60, 60).names) == 5
    assert list(letters.matching(None, "")) == names
    assert letters.groups() == groups


def test_the_page_of_a_job_lists_no_directory_that_was_listed_lately(
    spool: Spool, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "EVERY", 1000.0)
    monkeypatch.setattr(Watch, "LATELY", 1000.0)
    spool.file({"id": "shown", "command": "true"})
    with closing(Dashboard(spool)) as dashboard:
        dashboard.look(30)
        for _ in range(3):
            spool.file("true")  # so that the directory has changed
            counting.listed.clear()
            assert job_page(dashboard, "shown", Query()).status == 200
            assert set(counting.listed) <= {"processing", "workers"}
        spool.cancel_waiting("shown")
        assert job_page(dashboard, "shown", Query()).facts["job"]["state"] == "dead"
