"""What all requests share, asked without a server between: where a job is, and what the pages cost."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from queuectl.job import utc_now
from queuectl.web import chart, pages
from queuectl.web.dashboard import Dashboard
from queuectl.web.pages import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl import Spool
    from tests.conftest import Workers


@pytest.fixture
def dashboard(spool: Spool) -> Iterator[Dashboard]:
    with closing(Dashboard(spool)) as made:
        yield made


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a\0b", "-a", "é", "a" * 101, "a\n"])
def test_an_id_that_is_none_is_not_looked_for(spool: Spool, dashboard: Dashboard, job_id: str) -> None:
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
    assert dashboard.find("job") is None  # the beginning of an id is none


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("q=a+b&q=c", "q", "a b"),
        ("q=%F0%9F", "q", "\ufffd"),
        ("=&&;", "q", ""),
        ("&".join(["a=b"] * 99), "a", ""),
    ],
)
def test_a_query_is_read_whatever_it_is(text: str, name: str, value: str) -> None:
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
    assert all(0 <= bar.completed_height <= chart.HEIGHT for bar in made.bars)


def test_a_page_of_many_dead_letters_is_made_before_all_have_been_read(
    dashboard: Dashboard, dead: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from queuectl.web import dashboard as module

    for index in range(4):
        dead(f"job-{index}")
    monkeypatch.setattr(module, "READING", -1.0)
    assert pages.dead(dashboard, Query()).facts["unread"] >= 3
    monkeypatch.setattr(module, "READING", 60.0)
    facts = pages.dead(dashboard, Query()).facts
    assert (facts["unread"], [group["count"] for group in facts["groups"]]) == (0, [4])
