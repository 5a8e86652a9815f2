"""How long until the next try, and when to give up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl.job.policy import Policy

quick = settings(max_examples=100, deadline=None, database=None)

PLAIN = Policy(max_retries=3, backoff_base=2.0, max_backoff=300.0, retry_delay=0.0, jitter=0.0)

policies = st.builds(
    Policy,
    max_retries=st.integers(0, 1_000_000),
    backoff_base=st.floats(0, 9999),
    max_backoff=st.floats(0, 365 * 86400),
    retry_delay=st.floats(0, 365 * 86400),
    jitter=st.floats(0, 1),
)


def test_three_retries_are_four_runs() -> None:
    assert [PLAIN.gives_up(runs) for runs in (1, 2, 3, 4, 5)] == [False, False, False, True, True]


def test_no_retries_are_one_run() -> None:
    assert PLAIN._replace(max_retries=0).gives_up(1)


def test_the_wait_is_the_base_to_the_number_of_the_retry() -> None:
    assert [PLAIN.wait(retry, 0.5) for retry in (1, 2, 3, 4)] == [2.0, 4.0, 8.0, 16.0]


def test_the_wait_grows_no_further_than_the_longest() -> None:
    assert [PLAIN.wait(retry, 0.5) for retry in (8, 9, 10, 1_000_000)] == [256.0, 300.0, 300.0, 300.0]


def test_a_wait_that_no_number_can_hold_is_the_longest() -> None:
    assert PLAIN._replace(backoff_base=9999.0).wait(1_000_000, 0.0) == 300.0


@pytest.mark.parametrize(("base", "waits"), [(0.0, [0.0, 0.0]), (1.0, [1.0, 1.0]), (0.5, [0.5, 0.25])])
def test_a_small_base_is_taken_as_it_is(base: float, waits: list[float]) -> None:
    policy = PLAIN._replace(backoff_base=base)
    assert [policy.wait(retry, 1.0) for retry in (1, 2)] == waits


def test_the_delay_is_added_to_every_wait_the_longest_too() -> None:
    policy = PLAIN._replace(retry_delay=5.0)
    assert [policy.wait(retry, 0.0) for retry in (1, 2, 20)] == [7.0, 9.0, 305.0]


def test_jitter_lengthens_the_whole_by_its_share_of_luck() -> None:
    policy = PLAIN._replace(retry_delay=6.0, jitter=0.5)
    assert [policy.wait(2, luck) for luck in (0.0, 0.5, 1.0)] == [10.0, 12.5, 15.0]


@quick
@given(policies, st.integers(1, 10_000), st.floats(0, 1))
def test_every_wait_is_between_the_delay_and_all_that_may_be_added(
    policy: Policy, retry: int, luck: float
) -> None:
    longest = (policy.max_backoff + policy.retry_delay) * (1 + policy.jitter)
    assert policy.retry_delay <= policy.wait(retry, luck) <= longest


@quick
@given(policies, st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_base_of_one_or_more_never_waits_shorter_for_a_later_retry(
    policy: Policy, one: int, other: int
) -> None:
    growing = policy._replace(backoff_base=max(1.0, policy.backoff_base))
    sooner, later = sorted((one, other))
    assert growing.wait(sooner, 0.0) <= growing.wait(later, 0.0)


@quick
@given(policies)
def test_giving_up_comes_once_and_for_good(policy: Policy) -> None:
    allowed = policy.max_retries + 1
    assert not policy.gives_up(allowed - 1)
    assert policy.gives_up(allowed)
    assert policy.gives_up(allowed + 1)
