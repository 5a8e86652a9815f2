"""Jobs of a state, or all, and the search among them."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.spool.names import ID_AT
from queuectl.view import lookup
from queuectl.view.dead_letters import command_of, last_words
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look
from queuectl.web.pages.rows import MEANINGS, ROWS, STATES, id_in, reason, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from queuectl.job.model import State
    from queuectl.web.dashboard import Dashboard

#: Seconds that a search may spend reading jobs.
SEARCH = 0.2


def page(dashboard: Dashboard, query: Query) -> Page:
    """A page of the jobs in a state, or of all, that match a text."""
    look = Look.take(dashboard)
    word = query.text("state") if query.text("state") in lookup.WORDS else ""
    word = "completed" if word == "done" else word
    words, number = query.text("q"), query.number("page")
    total: int | None
    total, names = _names(look, word)
    searched = None
    if words:
        search = _Search(look, words)
        places = list(islice(search.among(names), (number - 1) * ROWS, number * ROWS + 1))
        more, searched = len(places) > ROWS, {"jobs": search.read, "all": search.has_read_all}
        total = None
    else:
        places = list(islice(names, (number - 1) * ROWS, number * ROWS))
        more = total is not None and total > number * ROWS
    shown = [entry for state, name in places[:ROWS] for entry in rows(look, state, [name])]
    facts = look.frame | {
        "state": word,
        "states": STATES,
        "meanings": MEANINGS,
        "q": words,
        "page": number,
        "pages": None if total is None else max(1, -(-total // ROWS)),
        "total": total,
        "more": more,
        "searched": searched,
        "filters": {"state": word, "q": words},
        "jobs": shown,
    }
    title = f"{word.capitalize()} jobs" if word else "Jobs"
    return Page("jobs", title, ("filter", "tabs", "jobs"), facts, still=("filter",))


def _names(look: Look, word: str) -> tuple[int, Iterator[tuple[State, str]]]:
    total, parts = 0, []
    for each in (word,) if word else STATES:
        count, names = look.census.in_order(each, look.now)
        total += count
        parts.append(names)
    return total, chain.from_iterable(parts)


class _Search:
    """Finds a text in all ids and, for at most `SEARCH` seconds, in commands and errors.

    `read` counts the jobs that it has read; it compares ids without reading.
    """

    def __init__(self, look: Look, words: str) -> None:
        self._look = look
        self._words = words.lower()
        self._end = times.clock.monotonic() + SEARCH
        self.read = 0
        self.has_read_all = True

    def among(self, names: Iterable[tuple[State, str]]) -> Iterator[tuple[State, str]]:
        """The jobs that match, in their order."""
        for state, name in names:
            if self._words in name[ID_AT:].lower() and self._words in id_in(state, name).lower():
                yield state, name
            elif not self.has_read_all:
                continue
            elif times.clock.monotonic() > self._end:
                self.has_read_all = False
            elif self._words in self._text(state, name):
                yield state, name

    def _text(self, state: State, name: str) -> str:
        """The text that a row shows of the job, in lower case."""
        self.read += 1
        found = next(self._look.dashboard.read_names(state, [name]), None)
        if found is None:
            return ""
        words = last_words(self._look.dashboard.spool.root, found)
        return f"{command_of(found)}\n{reason(found)}\n{words}".lower()
