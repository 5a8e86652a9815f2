"""Limits wrong tokens: a few are free, then each costs a longer pause."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.web.guard import address_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.web.guard import Rules

log = logging.getLogger("queuectl")

#: This many wrong tokens are free: of one client, and of all clients together.
FREE, FREE_IN_ALL = 5, 100
#: The longest pause in seconds. The common one is short, so that a stranger cannot lock others out.
MOST, MOST_IN_ALL = 300.0, 10.0
#: A count starts again after this many seconds without a wrong token.
FORGOTTEN = 900.0
#: The last clients that are remembered, and the last tokens of each.
CLIENTS, TOKENS = 1000, 32
EVERYBODY = "everybody"


def pause(wrong: int, free: int, most: float) -> float:
    """Seconds until the next try after this many wrong tokens."""
    return 0.0 if wrong < free else min(most, 2.0 ** min(wrong - free, 30))


def client_of(address: str) -> str:
    """The client behind an address: for IPv6 its /64 network, which one client has as a whole."""
    found = address_in(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a try. With `wait`, the seconds that are left, the token was not compared."""

    is_right: bool
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class _Tries:
    """The wrong tokens of one client: how many, when the last one came, and digests of the last ones."""

    wrong: int
    at: float
    seen: tuple[bytes, ...] = ()


class Lock:
    """Compares tokens and counts wrong ones. Only the event loop uses it."""

    def __init__(self, rules: Rules, clock: Callable[[], float] | None = None) -> None:
        self._rules = rules
        self._clock = clock or times.clock.monotonic
        self._tries: dict[str, _Tries] = {}

    def try_(self, address: str, token: str) -> Verdict:
        """Try a token. A repeated wrong token counts once, as pages and programs repeat themselves."""
        client, now = client_of(address), self._clock()
        mine, all_ = self._tries_of(client, now), self._tries_of(EVERYBODY, now)
        wait = max(
            mine.at + pause(mine.wrong, FREE, MOST) - now,
            all_.at + pause(all_.wrong, FREE_IN_ALL, MOST_IN_ALL) - now,
        )
        if wait > 0:
            return Verdict(False, wait)
        if self._rules.is_token(token):
            return Verdict(True)
        digest = hashlib.sha256(token.encode()).digest()[:8]
        if digest not in mine.seen:
            self._note(client, _Tries(mine.wrong + 1, now, (*mine.seen, digest)[-TOKENS:]))
            self._note(EVERYBODY, _Tries(all_.wrong + 1, now))
            left = pause(mine.wrong + 1, FREE, MOST)
            then = f"; the next try counts in {left:.0f} s" if left else ""
            log.warning("A wrong token came from %s (number %d%s).", address, mine.wrong + 1, then)
        return Verdict(False)

    def _tries_of(self, client: str, now: float) -> _Tries:
        found = self._tries.get(client)
        return found if found and now - found.at < FORGOTTEN else _Tries(0, now)

    def _note(self, client: str, tries: _Tries) -> None:
        self._tries.pop(client, None)  # the dict is ordered by the last try
        self._tries[client] = tries
        if len(self._tries) > CLIENTS:
            del self._tries[next(name for name in self._tries if name != EVERYBODY)]
