"""Whether an owner is alive: the one judgement, with clocks of the test's own."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl.spool.liveness import Facts, Standing, beats_every, confirmation, judge

LEASE = 300.0
YOUNG, OLD = LEASE - 1, LEASE
CONFIRMED = confirmation(LEASE)


@pytest.mark.parametrize(
    ("facts", "standing"),
    [
        # A lock on a local disk decides at once, whatever the beats say.
        (Facts(is_locked=False, age=0.0), Standing.DEAD),
        (Facts(is_locked=True, age=YOUNG), Standing.ALIVE),
        (Facts(is_locked=True, age=OLD, watched=10 * LEASE), Standing.FROZEN),
        (Facts(is_described=False, is_locked=False), Standing.DEAD),
        (Facts(is_described=False, is_locked=True), Standing.ALIVE),
        # So does a process that has gone, seen from where it ran.
        (Facts(runs=False, age=0.0), Standing.DEAD),
        (Facts(runs=True, age=YOUNG), Standing.ALIVE),
        # Elsewhere the beats tell: people are told of a silence at once, a takeover waits for the watching.
        (Facts(age=YOUNG), Standing.ALIVE),
        (Facts(age=OLD), Standing.SILENT),
        (Facts(age=OLD, age_by_hosts=OLD, watched=CONFIRMED - 1), Standing.SILENT),
        (Facts(age=OLD, age_by_hosts=OLD, watched=CONFIRMED), Standing.DEAD),
        # Ages of which one may be that of a clock that was set prove nothing.
        (Facts(age=OLD, age_by_hosts=YOUNG, watched=CONFIRMED), Standing.SILENT),
        (Facts(age=YOUNG, age_by_hosts=OLD, watched=CONFIRMED), Standing.ALIVE),
        (Facts(age=OLD, watched=LEASE - 1), Standing.SILENT),
        # Watching for the lease proves it whatever the clocks say.
        (Facts(age=OLD, watched=LEASE), Standing.DEAD),
        (Facts(age=0.0, watched=LEASE), Standing.DEAD),
        (Facts(watched=LEASE), Standing.DEAD),
        # A share may show a claim before its owner.
        (Facts(is_described=False, watched=LEASE - 1), Standing.UNKNOWN),
        (Facts(is_described=False, watched=LEASE), Standing.DEAD),
    ],
)
def test_what_one_look_tells_decides_the_standing(facts: Facts, standing: Standing) -> None:
    assert judge(facts, LEASE).standing is standing


@pytest.mark.parametrize("standing", Standing)
def test_what_people_are_told_is_dead_is_what_is_taken_over_in_the_end(standing: Standing) -> None:
    """No command calls an owner dead that another one, having watched it, leaves alone."""
    facts = {
        Standing.ALIVE: Facts(age=YOUNG),
        Standing.FROZEN: Facts(is_locked=True, age=OLD),
        Standing.UNKNOWN: Facts(is_described=False),
        Standing.SILENT: Facts(age=OLD),
        Standing.DEAD: Facts(runs=False),
    }[standing]
    verdict = judge(facts, LEASE)
    assert verdict.standing is standing
    later = judge(facts._replace(watched=facts.watched + verdict.open_for), LEASE)
    if verdict.is_dead or verdict.is_open:
        assert later.standing is Standing.DEAD
        assert verdict.open_for <= LEASE
    if standing is Standing.FROZEN:
        assert verdict.may_answer
        assert not later.may_answer


@pytest.mark.parametrize("lease", [1.0, 3.0, 300.0, 86400.0])
def test_watching_a_silent_owner_takes_a_part_of_the_lease_and_several_beats(lease: float) -> None:
    facts = Facts(age=lease, age_by_hosts=lease)
    assert 2 * beats_every(lease) < judge(facts, lease).open_for < lease
    assert judge(facts, lease).open_for <= 30


class Clocks(NamedTuple):
    """A clock of the share, one of the owner's host and one of the observer's; one of them is set once."""

    which: int
    at: float
    by: float

    def read(self, which: int, moment: float) -> float:
        offset = (0.0, 500.0, -500.0)[which]
        return 1e9 + offset + moment + (self.by if which == self.which and moment >= self.at else 0.0)


SHARE, OWNER, OBSERVER = range(3)
LOOK = 2.0


@settings(deadline=None)
@given(
    which=st.sampled_from([SHARE, OWNER, OBSERVER]),
    at=st.floats(0, 2000),
    by=st.floats(-1e7, 1e7),
    last=st.floats(0, 1000),
    begins=st.floats(0, 2000),
)
def test_a_clock_that_is_set_makes_nobody_dead_before_the_lease(
    which: int, at: float, by: float, last: float, begins: float
) -> None:
    """An owner beats until it is cut off; an observer that begins to look at any time never takes it for
    dead earlier than a lease after the last beat, and does so at the latest after a lease of looks."""
    clocks = Clocks(which, at, by)
    beats = [last - number * beats_every(LEASE) for number in range(200)][::-1]
    # A beat bears the clock's difference that was found at the beat before.
    offsets = {
        beat: clocks.read(OWNER, before) - clocks.read(SHARE, before) for before, beat in pairwise(beats)
    }
    moment, seen, since = begins, None, begins
    while True:
        beat = max((one for one in beats if one <= moment), default=beats[1])
        if beat != seen:
            seen, since = beat, moment
        written = clocks.read(SHARE, beat)
        facts = Facts(
            age=max(0.0, clocks.read(SHARE, moment) - written),
            age_by_hosts=clocks.read(OBSERVER, moment) - (written + offsets.get(beat, 0.0)),
            watched=moment - since,
        )
        if judge(facts, LEASE).standing is Standing.DEAD:
            break
        assert moment - max(begins, last) <= LEASE + LOOK, "it is never taken over"
        moment += LOOK
    assert moment - last >= LEASE - 1e-6  # what rounding takes
