"""How long until the next try, and when to give up: arithmetic on a policy."""

from __future__ import annotations

from typing import NamedTuple


class Policy(NamedTuple):
    """How failures of one job are met. All waits are in seconds."""

    max_retries: int
    backoff_base: float
    max_backoff: float
    retry_delay: float
    jitter: float

    def gives_up(self, runs: int) -> bool:
        """Whether a job that has failed `runs` times is out of tries (3 retries: 4 runs)."""
        return runs > self.max_retries

    def wait(self, retry: int, luck: float) -> float:
        """Seconds before the `retry`-th retry (from 1): base ** retry, at most the longest wait.

        `retry_delay` is added, then the whole is lengthened by `luck` (0 to 1) times the jitter.
        """
        try:
            backoff = min(self.backoff_base**retry, self.max_backoff)
        except OverflowError:
            backoff = self.max_backoff
        return (backoff + self.retry_delay) * (1 + self.jitter * luck)
