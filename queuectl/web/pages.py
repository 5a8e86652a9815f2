"""What each page shows: facts from the spool, for a template and for its JSON twin alike."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode

from queuectl import __version__, settings
from queuectl.errors import NotASpool, QueueError, StorageTrouble
from queuectl.job.history import OUTCOMES, last_attempt
from queuectl.job.model import State
from queuectl.spool import output
from queuectl.spool.names import ID_AT, name_in
from queuectl.times import iso, parse_moment, stamp
from queuectl.view import attention, explain, lookup
from queuectl.view.census import quantile
from queuectl.view.dead_letters import command_of, last_words
from queuectl.view.wording import escaped
from queuectl.web import chart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import Any

    from queuectl.spool.jobs import Found
    from queuectl.view.census import Census
    from queuectl.web.dashboard import Dashboard

ROWS = 50
#: Of each stream so many bytes are shown, the last ones.
TAIL = 64 * 1024
#: Of a text a page shows this many characters; a link leads to the whole.
LIMITS = {"error": 1000, "run": 300, "command": 16_000, "file": 32_000}
#: The name of the page that stands for any other while the spool is out of reach.
AWAY = "away"
#: Seconds that may go into reading jobs in search of a text.
SEARCH = 0.2
STATES = ("processing", "pending", "scheduled", "failed", "dead", "completed")
MEANINGS = {
    "processing": "running now",
    "pending": "waiting for a worker",
    "scheduled": "due later",
    "failed": "to be tried again",
    "completed": "ended with status 0",
    "dead": "needs a person",
}


@dataclass(frozen=True, slots=True)
class Query:
    """The part of an address after its path: the first value of each name."""

    values: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Query:
        """From `state=dead&page=2`."""
        try:
            pairs = parse_qs(text, max_num_fields=50, errors="replace")
        except ValueError:
            return cls()
        return cls({key: found[0][:4000] for key, found in pairs.items()})

    def text(self, name: str) -> str:
        """The value of a name, without spaces around it; "" where it has none."""
        return self.values.get(name, "").strip()

    def number(self, name: str, default: int = 1) -> int:
        """A value as a whole number from 1 on, however wrong it is."""
        text = self.text(name)
        return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else default


@dataclass(frozen=True, slots=True)
class Page:
    """One page: the parts it is made of, in order, and the facts they show.

    Those in `still` are not replaced while the page is open: somebody may be typing there.
    """

    name: str
    title: str
    parts: tuple[str, ...]
    facts: dict[str, Any]
    still: tuple[str, ...] = ()
    status: int = 200

    @property
    def lives_as(self) -> str:
        """The name by which the stream knows it, "" for a form: its address alone does not give it."""
        return "" if self.name in {"new", "sure"} else self.name


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the spool, on which all facts of a page rest."""

    dashboard: Dashboard
    census: Census
    now: datetime
    counts: lookup.Counts
    workers: list[dict[str, Any]]
    paused: bool
    trouble: str = ""

    @classmethod
    def take(cls, dashboard: Dashboard, census: Census | None = None) -> Look:
        """Look now, at the directories unless a census is given. Raises `OSError` where the spool is away."""
        dashboard.settings()  # without its config.yaml it is no spool, whatever else is there
        census, now = census or dashboard.look(), dashboard.spool.clock()
        paused, workers = dashboard.is_paused(), dashboard.workers()
        error = dashboard.watch.trouble
        trouble = _what_is_wrong(dashboard, error).problem if error else ""
        return cls(dashboard, census, now, census.counts(now), workers, paused, trouble)

    @classmethod
    def remembered(cls, dashboard: Dashboard, trouble: str) -> Look:
        """What was seen last; nothing is asked of the disk."""
        census, now = dashboard.watch.census, dashboard.spool.clock()
        counts, workers = census.counts(now), dashboard.last_workers()
        return cls(dashboard, census, now, counts, workers, dashboard.was_paused, trouble)

    @classmethod
    def at_hand(cls, dashboard: Dashboard) -> Look:
        """A look now or, where the spool is out of reach, the last one."""
        try:
            return cls.take(dashboard)
        except (OSError, NotASpool) as error:
            return cls.remembered(dashboard, _what_is_wrong(dashboard, error).problem)

    @property
    def frame(self) -> dict[str, Any]:
        """What stands around every page."""
        living = explain.alive(self.workers)
        return {
            "now": iso(self.now),
            "spool": escaped(str(self.dashboard.spool.path)),
            "version": __version__,
            "counts": self.counts.as_dict(),
            "workers_alive": living,
            "workers_busy": sum(worker["state"] in {"busy", "stopping"} for worker in self.workers),
            "paused": self.paused,
            "read_only": self.dashboard.read_only,
            "allow_submit": self.dashboard.takes_jobs,
            "counting": not self.census.is_whole,
            "trouble": escaped(self.trouble),
        }


# ── rows ──────────────────────────────────────────────────────────────────────────────────────


def row(look: Look, found: Found) -> dict[str, Any]:
    """A job as `status --json` shows it, and what a table shows beside that."""
    view = lookup.view(found, look.dashboard.settings(), look.now)
    history = found.job.history if found.job else ()
    runs = lookup.runs_of(found.job) if found.job else []
    last = runs[-1] if runs else {}
    ended = history[-1].get("at") if history and history[-1].get("event") in OUTCOMES else None
    line, reason = command_of(found), _reason(found)
    waits = found.state in {State.PENDING, State.FAILED}
    return view | {
        "command_line": line,
        "runs": last_attempt(history),
        "started_at": _moment(last.get("started_at")),
        "ended_at": _moment(ended),
        "seconds": _number(last.get("seconds")),
        "due_at": iso(found.name.due_at),
        "is_due": found.name.due <= stamp(look.now),
        "reason": reason or None,
        "last_words": last_words(look.dashboard.spool.root, found) or None,
        "can": _possible(look, found.state, waits=waits),
        "file_name": str(found.name),
    }


def _reason(found: Found) -> str:
    """Why a job is dead, or what its last run ended with."""
    if found.state is State.DEAD:
        return escaped(lookup.reason_for(found))
    error = lookup.exit_of(found.job.history).get("error") if found.job else found.unreadable
    return escaped(str(error or ""))


def _number(value: Any) -> float | None:
    """A figure of a history, None where somebody wrote something else there."""
    good = isinstance(value, int | float) and math.isfinite(value) and abs(value) < 10**12
    return float(value) if good else None


def _moment(value: Any) -> str | None:
    """A moment of a history, None where somebody wrote something else there."""
    try:
        return iso(parse_moment(value)) if value else None
    except (ValueError, OverflowError, TypeError):
        return None


def _possible(look: Look, state: State, *, waits: bool) -> list[str]:
    if look.dashboard.read_only:
        return []
    can = []
    if state in {State.FAILED, State.DEAD, State.DONE}:
        can.append("retry")
    if waits or state is State.PROCESSING:
        can.append("cancel")
    if waits:
        can += ["run", "priority"]
    if state in {State.DEAD, State.DONE}:
        can.append("delete")
    return can


def _rows(look: Look, state: State, names: Iterable[str]) -> list[dict[str, Any]]:
    return [row(look, found) for found in look.dashboard.read_names(state, names)]


# ── overview ──────────────────────────────────────────────────────────────────────────────────


def overview(dashboard: Dashboard, _: Query) -> Page:
    """How the queue is, in one sentence and on one screen."""
    look = Look.take(dashboard)
    durations = look.census.durations()
    completed, failed = look.census.minutes("completed"), look.census.minutes("failed")
    oldest = look.census.oldest(look.now)
    facts = (
        look.frame
        | {
            "health": health(look),
            "attention": [
                escaped(attention.worded(one))
                for one in attention.findings(dashboard.spool.root, look.counts, look.workers, look.now)
                if one.kind != "dead-jobs"  # the page has dead letters of its own
            ],
            "meanings": MEANINGS,
            "charts": {
                "hour": asdict(chart.lay_out(completed, failed, look.now, 60, 1)),
                "day": asdict(chart.lay_out(completed, failed, look.now, 24 * 60, 20)),
            },
            "typical_seconds": quantile(durations, 0.5),
            "slow_seconds": quantile(durations, 0.9),
            "oldest": next(iter(_rows(look, State.PENDING, [oldest] if oldest else [])), None),
            "running": _rows(look, State.PROCESSING, look.census.listing(State.PROCESSING).names[:8]),
            "failures": _last_failures(look, 8),
        }
    )
    return Page("overview", "Overview", ("health", "counts", "charts", "running", "failures"), facts)


def health(look: Look) -> dict[str, str]:  # noqa: PLR0911 - one return a sentence
    """`level` is ok, note or alarm; `sentence` says how it stands, and what that comes from."""
    counts, living = look.counts, explain.alive(look.workers)
    waits = counts.pending + counts.failed
    dead = f"{counts.dead:,} dead {'job needs' if counts.dead == 1 else 'jobs need'} a person"
    running = f"{counts.processing:,} running, {counts.pending:,} waiting"
    if look.trouble:
        return {"level": "alarm", "sentence": "The spool is out of reach; these are the last figures."}
    if not look.census.is_whole:
        return {"level": "note", "sentence": "Still counting what is in the spool."}
    if look.paused:
        return {"level": "note", "sentence": f"Paused: nothing new is started ({running})."}
    if waits and not living:
        what = "1 job waits" if waits == 1 else f"{waits:,} jobs wait"
        return {"level": "alarm", "sentence": f"Nothing runs: {what} and no worker is alive."}
    if any(worker["state"] == "dead" for worker in look.workers):
        return {"level": "alarm", "sentence": f"A worker died at work; {running}."}
    if counts.dead:
        return {"level": "note", "sentence": f"{dead}; otherwise all goes on ({running})."}
    if not sum(counts.as_dict().values()):
        return {"level": "ok", "sentence": "The queue is empty."}
    if not waits and not counts.processing:
        later = f"; {counts.scheduled:,} scheduled" if counts.scheduled else ""
        return {"level": "ok", "sentence": f"All done: nothing runs and nothing waits{later}."}
    return {"level": "ok", "sentence": f"All is well: {running}."}


def _last_failures(look: Look, number: int) -> list[dict[str, Any]]:
    newest = []
    for state in (State.DEAD, State.FAILED):
        listing = look.census.listing(state)
        pairs = list(zip(listing.ends, listing.names, strict=False))[-number:]
        newest += [(end, name, state) for end, name in pairs]
    chosen = sorted(newest, reverse=True)[:number]
    return [entry for _, name, state in chosen for entry in _rows(look, state, [name])]


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────


def jobs_page(dashboard: Dashboard, query: Query) -> Page:
    """Jobs of a state, or all, those that fit a text; a page of them."""
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
        more, searched = len(places) > ROWS, asdict(search.read)
        total = None
    else:
        places = list(islice(names, (number - 1) * ROWS, number * ROWS))
        more = total is not None and total > number * ROWS
    rows = [entry for state, name in places[:ROWS] for entry in _rows(look, state, [name])]
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
        "jobs": rows,
    }
    title = f"{word.capitalize()} jobs" if word else "Jobs"
    return Page("jobs", title, ("filter", "tabs", "jobs"), facts, still=("filter",))


def _names(look: Look, word: str) -> tuple[int, Iterator[tuple[State, str]]]:
    total, parts = 0, []
    for each in (word,) if word else STATES:
        count, names = look.census.in_order(each, look.now)
        total += count
        parts.append((lookup.WORDS[each], names))
    return total, ((state, name) for state, names in parts for name in names)


@dataclass(slots=True)
class _Read:
    """How far a search has read the jobs themselves; ids are searched in all."""

    jobs: int = 0
    all: bool = True


class _Search:
    """Finds a text in ids, commands and errors: ids of all jobs, the rest for as long as is allowed."""

    def __init__(self, look: Look, words: str) -> None:
        self._look = look
        self._words = words.lower()
        self._end = time.monotonic() + SEARCH
        self.read = _Read()

    def among(self, names: Iterable[tuple[State, str]]) -> Iterator[tuple[State, str]]:
        """Those that fit, in their order."""
        for state, name in names:
            if self._words in name[ID_AT:].lower() and self._words in _id(state, name).lower():
                yield state, name
            elif not self.read.all:
                continue
            elif time.monotonic() > self._end:
                self.read.all = False
            elif self._words in self._text(state, name):
                yield state, name

    def _text(self, state: State, name: str) -> str:
        """What a row shows of the job."""
        self.read.jobs += 1
        found = next(self._look.dashboard.read_names(state, [name]), None)
        if found is None:
            return ""
        words = last_words(self._look.dashboard.spool.root, found)
        return f"{command_of(found)}\n{_reason(found)}\n{words}".lower()


# ── one job ───────────────────────────────────────────────────────────────────────────────────


def job(dashboard: Dashboard, job_id: str, query: Query) -> Page:
    """One job: how it stands and why, its runs, what it printed, its file."""
    found = dashboard.find(job_id)
    if found is None:
        return missing(dashboard, f"There is no job {job_id!r} in this spool.")
    look = Look.take(dashboard, dashboard.lately())
    runs = lookup.runs_of(found.job) if found.job else []
    numbers = [run["attempt"] for run in runs]
    number = query.number("run", numbers[-1] if numbers else 1)
    number = number if number in numbers else (numbers[-1] if numbers else 0)
    file = dashboard.file_bytes(found)
    facts = look.frame | {
        "job": row(look, found),
        "why": escaped(_why(look, found)),
        "runs": _timeline(runs, look.now),
        "run": number,
        "latest": not numbers or number == numbers[-1],
        "output": {stream: tail(dashboard, found.id, number, stream) for stream in output.STREAMS}
        if number
        else {},
        "file": None if file is None else file.decode("utf-8", "replace"),
        "state_meaning": MEANINGS[found.label(look.now)],
    }
    return Page("job", found.id, ("job-head", "job-runs", "job-output", "job-facts", "job-file"), facts)


def _why(look: Look, found: Found) -> str:
    before = look.census.before
    text = explain.why(
        look.dashboard.spool.root,
        look.dashboard.spool.live.now(),
        found,
        look.now,
        lambda: before(str(found.name), look.now),
    )
    return text.partition(" (`queuectl retry")[0] if found.state is State.DEAD else text


def _timeline(runs: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """The runs, newest first, each with its share of the longest one's time."""
    told = []
    for run in runs:
        begun, seconds = _moment(run.get("started_at")), _number(run.get("seconds"))
        if seconds is None and begun and not run.get("outcome"):
            seconds = max(0.0, (now - parse_moment(begun)).total_seconds())
        words = {key: escaped(value) for key, value in run.items() if isinstance(value, str)}
        figures = {key: _number(run.get(key)) for key in ("cpu_seconds", "max_rss_kb")}
        outcome = words.get("outcome") or "running"
        told.append(run | words | figures | {"started_at": begun, "seconds": seconds, "outcome": outcome})
    longest = max((run["seconds"] or 0.0 for run in told), default=0.0) or 1.0
    return [run | {"share": round(100 * (run["seconds"] or 0.0) / longest, 1)} for run in reversed(told)]


def tail(dashboard: Dashboard, job_id: str, attempt: int, stream: str) -> dict[str, Any]:
    """The end of what a run printed: at most `TAIL` bytes, from the start of a line where there is one.

    `trouble` says why it cannot be read; the rest of the page stands.
    """
    told: dict[str, Any] = {"size": 0, "shown": 0, "text": ""}
    try:
        size, data = output.tail(dashboard.spool.root, job_id, attempt, stream, TAIL)
    except OSError as error:
        return told | {"trouble": escaped(error.strerror or str(error))}
    text = data.decode("utf-8", "replace")
    if size > len(data):
        text = text.partition("\n")[2] or text
    return told | {"size": size, "shown": len(data), "text": text}


def error_of(found: Found, attempt: int) -> str:
    """The whole error of a run, "" where it has none; of run 0, why the job is dead."""
    if attempt == 0:
        return _reason(found)
    runs = lookup.runs_of(found.job) if found.job else []
    return next((str(run.get("error") or "") for run in runs if run["attempt"] == attempt), "")


# ── dead letters ──────────────────────────────────────────────────────────────────────────────


def dead(dashboard: Dashboard, query: Query) -> Page:
    """Dead letters by reason; those of one reason, or that fit a text, a page of them."""
    look = Look.take(dashboard)
    letters = dashboard.dead_letters()
    words, number = query.text("q"), query.number("page")
    kind = query.values.get("reason")
    groups = letters.groups(words)
    fitting = list(letters.matching(kind, words))
    facts = look.frame | {
        "groups": [
            {"reason": group.kind, "count": len(group.names), "newest": _id(State.DEAD, group.names[0])}
            for group in groups[:ROWS]
        ],
        "more_groups": max(0, len(groups) - ROWS),
        "reason": kind,
        "q": words,
        "page": number,
        "pages": max(1, -(-len(fitting) // ROWS)),
        "total": len(fitting),
        "more": len(fitting) > number * ROWS,
        "unread": letters.unread,
        "filters": {"reason": kind, "q": words},
        "jobs": _rows(look, State.DEAD, fitting[(number - 1) * ROWS : number * ROWS]),
    }
    return Page("dead", "Dead letters", ("filter-dead", "groups", "letters"), facts, still=("filter-dead",))


def _id(state: State, text: str) -> str:
    name = name_in(state, text)
    return name.id if name else ""


# ── workers, config, and the rest ─────────────────────────────────────────────────────────────


def workers(dashboard: Dashboard, _: Query) -> Page:
    """Every worker: where it is, what it does, and its last sign of life."""
    look = Look.take(dashboard)
    moments = ("since", "started_at", "last_heartbeat")
    told = [
        worker
        | {key: _moment(worker[key]) for key in moments}
        | {"beat_at": iso(look.now - timedelta(seconds=worker["beat_age_seconds"]))}
        for worker in look.workers
    ]
    return Page("workers", "Workers", ("workers",), look.frame | {"workers": told})


def config(dashboard: Dashboard, _: Query) -> Page:
    """Every key: its value, default and meaning."""
    look = Look.take(dashboard)
    values = dashboard.settings()
    keys = [
        {
            "key": name,
            "value": getattr(values, name),
            "shown": settings.shown(getattr(values, name)),
            "default": getattr(settings.DEFAULTS, name),
            "shown_default": settings.shown(getattr(settings.DEFAULTS, name)),
            "meaning": key.meaning,
        }
        for name, key in settings.KEYS.items()
    ]
    path = escaped(str(dashboard.spool.root.config))
    broken = escaped(dashboard.live.trouble or "")
    return Page("config", "Config", ("config",), look.frame | {"keys": keys, "path": path, "broken": broken})


def new(dashboard: Dashboard, typed: Query, problem: str = "") -> Page:
    """The form for a new job, with what was typed so far and what is wrong with it."""
    facts = Look.at_hand(dashboard).frame | {"typed": dict(typed.values), "problem": escaped(problem)}
    return Page("new", "New job", ("new",), facts, still=("new",), status=400 if problem else 200)


def question(dashboard: Dashboard, asked: Mapping[str, Any]) -> Page:
    """Asks before something is destroyed; `asked` holds the question and the form that answers it."""
    facts = Look.at_hand(dashboard).frame | dict(asked)
    return Page("sure", "Are you sure?", ("sure",), facts, still=("sure",))


def missing(dashboard: Dashboard, problem: str) -> Page:
    """Nothing is there under this address."""
    return refusal(dashboard, problem, "It may have been deleted, or never been there.", 404)


def refusal(dashboard: Dashboard, problem: str, remedy: str, status: int) -> Page:
    """What is wrong, and what to do."""
    facts = Look.at_hand(dashboard).frame | {"problem": escaped(problem), "remedy": escaped(remedy)}
    return Page("error", "Not possible", ("error",), facts, still=("error",), status=status)


def away(dashboard: Dashboard, error: OSError | NotASpool) -> Page:
    """What stands for any page while the spool is out of reach; the page itself comes when it is back."""
    return out_of_reach(dashboard, _what_is_wrong(dashboard, error))


def out_of_reach(dashboard: Dashboard, told: QueueError) -> Page:
    """The same where what is wrong is known; the disk is not asked for anything."""
    frame = Look.remembered(dashboard, told.problem).frame
    facts = frame | {"problem": escaped(told.problem), "remedy": escaped(told.remedy)}
    return Page(AWAY, "The spool is away", (AWAY,), facts, status=503)


def _what_is_wrong(dashboard: Dashboard, error: OSError | NotASpool) -> QueueError:
    """That the spool has gone where it has; otherwise what the disk said."""
    try:
        dashboard.spool.root.require()
    except NotASpool as missing_:
        return missing_
    except OSError as worse:
        return StorageTrouble(worse)
    return StorageTrouble(error) if isinstance(error, OSError) else error


PAGES: Mapping[str, Callable[[Dashboard, Query], Page]] = {
    "/": overview,
    "/jobs": jobs_page,
    "/dead": dead,
    "/workers": workers,
    "/config": config,
}


def find(dashboard: Dashboard, path: str, query: Query) -> Page:
    """The page under a path, without what its address says of JSON; `away` while the spool is."""
    try:
        return _found(dashboard, path, query)
    except (OSError, NotASpool) as error:
        return away(dashboard, error)


def _found(dashboard: Dashboard, path: str, query: Query) -> Page:
    if path in PAGES:
        return PAGES[path](dashboard, query)
    head, _, job_id = path.rpartition("/")
    if head == "/jobs":
        return job(dashboard, job_id, query)
    return missing(dashboard, f"There is no page {path!r}.")


def address(path: str, values: Mapping[str, Any]) -> str:
    """A path with a query of those values that are not empty."""
    kept = {key: value for key, value in values.items() if value not in {None, ""}}
    return f"{path}?{urlencode(kept)}" if kept else path
