"""How much time is left: pure functions over what was measured, so that a guess is never more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: So many ends at least are needed for a rate, and at least so many of the last ones make it.
FEWEST, RECENT = 3, 20


def rate(ends: Sequence[float], now: float) -> float | None:
    """Jobs that end per second lately; None where too few have ended. `ends` are moments in order.

    The later half counts, as what was slow or fast at the start says little about the rest. The time since
    the last end counts, too: where nothing ends any more the rate falls.
    """
    if len(ends) < FEWEST:
        return None
    recent = ends[-max(RECENT, len(ends) // 2) :]
    return (len(recent) - 1) / max(now - recent[0], 1e-3)


def of_batch(ends: Sequence[float], left: int, now: float, last_due: float) -> float | None:
    """Seconds until the jobs that are left have ended; None while nothing can be said.

    `last_due` is when the last of them is due, in the past for jobs that are due.
    """
    if not left:
        return 0.0
    speed = rate(ends, now)
    return None if speed is None else max(left / speed, last_due - now)


def of_queue(waiting: int, running: int, average: float | None, workers: int) -> float | None:
    """Seconds until all jobs have run that are due or run, half a job each for those that run.

    None where nobody works, or no job has been measured.
    """
    if not waiting + running:
        return 0.0
    if average is None or not workers:
        return None
    return average * max((waiting + running / 2) / workers, 0.5)
