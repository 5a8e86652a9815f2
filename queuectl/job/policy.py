"""The retry policy: when to try again and when to give up."""

from __future__ import annotations

from typing import NamedTuple


class Policy(NamedTuple):
    """The retry policy of one job. All waits are in seconds."""

    max_retries: int
    backoff_base: float
    max_backoff: float
    retry_delay: float
    jitter: float

    def gives_up(self, runs: int) -> bool:
        """Whether a job that has failed `runs` times is out of retries (3 retries: 4 runs)."""
        return runs > self.max_retries

    def wait(self, retry: int, luck: float) -> float:
        """Seconds before retry number `retry` (from 1): base ** retry, at most `max_backoff`.

        `retry_delay` is added, then the sum grows by the share `luck` (0 to 1) times `jitter`.
        """
        try:
            backoff = min(self.backoff_base**retry, self.max_backoff)
        except OverflowError:
            backoff = self.max_backoff
        return (backoff + self.retry_delay) * (1 + self.jitter * luck)
