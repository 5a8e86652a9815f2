"""When a worker lists the directories again: a rule over what the last listing took, and the time."""

from __future__ import annotations

import pytest

from queuectl.spool.waiting import PATIENCE, Listing, is_due


@pytest.mark.parametrize(
    ("cost", "age", "due"),
    [
        (0.001, 9.9, False),
        (0.001, 10.0, True),
        (1.0, 10.0, False),  # listing may take 5 % of the time at most
        (1.0, PATIENCE, True),
    ],
)
def test_a_listing_is_made_after_the_interval_or_later_where_it_takes_long(
    cost: float, age: float, due: bool
) -> None:
    assert is_due(Listing(100.0, cost), interval=10.0, now=100.0 + age) is due


def test_the_first_listing_is_due_at_once() -> None:
    assert is_due(Listing(float("-inf"), 0.0), interval=10.0, now=0.0)
