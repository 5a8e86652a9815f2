"""The order of jobs is told by names alone, and the same for any list as for one that is sorted."""

from __future__ import annotations

import random

import pytest

from queuectl.spool import order
from queuectl.spool.order import Sorted

MOMENT = "20260601T120000.000000Z"


def name(rank: int, day: int, job_id: str) -> str:
    return f"{rank:02}-202606{day:02}T120000.000000Z-{job_id}.yaml"


DUE = [name(0, 1, "urgent"), name(5, 1, "exactly-now"), name(10, 1, "last")]
LATER = [name(7, 2, "soon"), name(1, 3, "urgent-later"), name(5, 3, "usual-later")]


def test_due_jobs_run_by_rank_and_the_others_by_the_time_at_which_they_come_to_be_due() -> None:
    names = [*DUE, *LATER]
    random.shuffle(names)
    due, later = order.split(names, MOMENT)
    assert (sorted(due), sorted(later)) == (sorted(DUE), sorted(LATER))
    assert list(order.in_turn(due, later)) == [*DUE, *LATER]
    assert [sorted(order.before(due, one)) for one in DUE] == [[], DUE[:1], DUE[:2]]
    assert order.oldest(due) == DUE[0]


@pytest.mark.parametrize("count", [0, 1, 20, 40, None])
def test_the_order_is_the_same_however_many_are_asked_for(count: int | None) -> None:
    names = [name(random.randrange(12), random.randrange(1, 29), f"job-{n}") for n in range(60)]
    due, later = order.split(names, "20260615T000000.000000Z")
    assert list(order.in_turn(due, later, count)) == [*sorted(due), *sorted(later, key=order.turn)]


@pytest.mark.parametrize("count", [0, 1, 300])
def test_sorted_names_answer_as_any_list_does(count: int) -> None:
    names = [name(random.randrange(12), random.randrange(1, 29), f"job-{n}") for n in range(count)]
    moment = "20260615T120000.000000Z"
    due, later = order.split(names, moment)
    ordered = Sorted.at(sorted(names), moment)
    assert ordered.due == len(due)
    assert [*ordered.first(), *ordered.rest()] == list(order.in_turn(due, later))
    assert all(ordered.before(one) == len(order.before(due, one)) for one in names)
    assert ordered.oldest() == order.oldest(due)
