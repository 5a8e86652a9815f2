"""What the buttons do. Each returns a sentence, or a question before it destroys something."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from queuectl.errors import BadUsage, JobMoved, NoSuchJob, QueueError, StorageTrouble, WrongState
from queuectl.job.model import State
from queuectl.spool import acts, descriptions, jobs, requests
from queuectl.spool.cancellation import Cancelling
from queuectl.spool.jobs import Found
from queuectl.spool.names import parse
from queuectl.times import duration, entered_moment, iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from queuectl.settings import Settings
    from queuectl.spool.acts import Hand
    from queuectl.web.dashboard import Dashboard

#: A button waits this many seconds for its work; the work goes on without it.
PATIENCE = 3.0
#: Retrying more dead jobs than this at once needs a confirmation.
MANY = 10
_FIELDS = ("command", "id", "priority", "run_at", "max_retries", "timeout", "cwd")


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form: each name with its values."""

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def one(self, name: str) -> str:
        """The first value of a name, "" if there is none."""
        found = self.values.get(name)
        return found[0] if found else ""

    @property
    def is_sure(self) -> bool:
        """Whether the person has confirmed."""
        return self.one("sure") == "yes"

    def is_sure_of(self, number: int) -> bool:
        """Whether the person has confirmed, for this number of jobs if the question named one."""
        return self.is_sure and self.one("number") in {"", str(number)}

    def again(self) -> list[tuple[str, str]]:
        """All fields but those of the answer, to be sent again with it."""
        return [
            (name, value)
            for name, values in self.values.items()
            for value in values
            if name not in {"csrf", "sure", "number"}
        ]


@dataclass(frozen=True, slots=True)
class Said:
    """The result in a sentence; `to` is the page to show if the page of the button no longer exists."""

    text: str
    bad: bool = False
    to: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """The question before something is destroyed or many jobs are changed.

    `answer` is the label of the button that confirms. The form repeats the `number` of jobs in the
    question, as there may be more by then.
    """

    question: str
    answer: str
    number: int | None = None


def on_job(dashboard: Dashboard, job_id: str, what: str, form: Form) -> Said | Question | None:
    """Act on one job; None if `what` is not an action."""
    if what not in {*_ON_JOB, "cancel"}:
        return None
    if what in {"cancel", "delete"} and not form.is_sure:
        found = dashboard.find(job_id)
        if found is None:
            raise NoSuchJob(job_id)
        if what == "delete":
            return Question(f"Delete {found.id} and what it printed?", "Delete it")
        stops = " Its command is stopped." if found.state is State.PROCESSING else ""
        return Question(f"Cancel {found.id}?{stops}", "Cancel it")
    if what == "cancel":
        return _cancel(dashboard, job_id)
    for _ in range(jobs.TRIES):
        found = dashboard.find(job_id)
        if found is None:
            raise NoSuchJob(job_id)
        try:
            return _ON_JOB[what](dashboard, found, form)
        except JobMoved:  # Race: it has moved; look where it is now
            continue
    raise JobMoved(job_id)


def _retry(dashboard: Dashboard, found: Found, _: Form) -> Said:
    spool = dashboard.spool
    with acts.hand(spool.root, spool.clock()) as me:
        acts.retry(me, found, dashboard.settings(), spool.clock())
    return Said(f"{found.id} is pending again; its attempts count from 1.")


def _run_now(dashboard: Dashboard, found: Found, _: Form) -> Said:
    now = dashboard.spool.clock()
    with acts.hand(dashboard.spool.root, now) as me:
        acts.run_now(me, found, now)
    return Said(f"{found.id} may run now.")


def _set_priority(dashboard: Dashboard, found: Found, form: Form) -> Said:
    text = form.one("priority")
    if text not in {str(number) for number in range(11)}:
        raise BadUsage(f"{text!r} is not a priority.", "Use a whole number from 0 to 10.")
    spool = dashboard.spool
    with acts.hand(spool.root, spool.clock()) as me:
        acts.set_priority(me, found, int(text), dashboard.settings(), spool.clock())
    return Said(f"{found.id} has priority {text}.")


def _delete(dashboard: Dashboard, found: Found, _: Form) -> Said:
    if found.state not in {State.DONE, State.DEAD}:
        raise WrongState(found.id, found.state.label, "completed or dead", "Cancel it first.")
    if not list(acts.delete(dashboard.spool.root, [found])):
        raise JobMoved(found.id)
    return Said(f"{found.id} is deleted.", to="/jobs")


def _cancel(dashboard: Dashboard, job_id: str) -> Said:
    """Cancel a job in any state, as the command line does; its worker has `PATIENCE` seconds to answer."""
    spool, values = dashboard.spool, dashboard.settings()
    end = time.monotonic() + PATIENCE
    with acts.hand(spool.root, spool.clock()) as me:
        cancelling = Cancelling(me, values, dashboard.onlooker, dashboard.stop_remains, spool.clock)
        while (found := dashboard.find(job_id)) is not None:
            with suppress(JobMoved):  # Race: it has moved; look where it is now
                if how := cancelling.act(found):
                    cancelling.withdraw()
                    return Said(f"{found.id} was {how}.")
            for owner, verdict in cancelling.undecided():
                raise QueueError(
                    f"Perhaps {owner}, the worker of {found.id}, is dead: {verdict.why}.",
                    f"Cancel it again in {duration(verdict.open_for)}.",
                )
            cancelling.take_over()
            if time.monotonic() > end:
                return Said(f"{found.name.owner} was asked to stop {found.id}; it has not answered yet.")
            cancelling.wait([found], end, lambda _: None)
    raise NoSuchJob(job_id)


_ON_JOB: Mapping[str, Callable[[Dashboard, Found, Form], Said]] = {
    "retry": _retry,
    "run": _run_now,
    "priority": _set_priority,
    "delete": _delete,
}


# ── many dead letters ─────────────────────────────────────────────────────────────────────────


def on_dead(dashboard: Dashboard, what: str, form: Form) -> Said | Question | None:
    """Retry or delete one dead letter, those chosen, or all that match."""
    if what not in {"retry", "delete"}:
        return None
    if only := form.one("only"):
        return on_job(dashboard, only, what, form)
    names = _chosen(dashboard, form)
    if not names:
        return Said("Nothing was selected.", bad=True)
    number, many = len(names), _jobs(len(names))
    if what == "delete" and not form.is_sure_of(number):
        return Question(f"Delete {many} and what they printed?", "Delete them", number)
    if number > MANY and not form.is_sure_of(number):
        return Question(f"Retry {many}? All of them run again.", "Retry them", number)
    folder = dashboard.spool.root.folder(State.DEAD)
    dead = [Found(State.DEAD, name, f"{folder}/{name}") for name in map(parse, names) if name]
    batch = _Batch(dashboard, dead)
    return batch.run(batch.retry if what == "retry" else batch.delete, many)


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number:,} jobs"


def _chosen(dashboard: Dashboard, form: Form) -> list[str]:
    if form.one("scope") == "all":
        kind = form.one("reason") if "reason" in form.values else None
        letters = dashboard.dead_letters(float("inf"), patience=PATIENCE)
        return list(letters.matching(kind, form.one("q").strip()))
    wanted = set(form.values.get("id", ()))
    names = dashboard.look(PATIENCE).listing(State.DEAD).names
    return [text for text in names if (name := parse(text)) and name.id in wanted]


class _Batch:
    """One action on many dead letters, in a thread that may outlive the request."""

    def __init__(self, dashboard: Dashboard, found: list[Found]) -> None:
        self._dashboard = dashboard
        self._found = found
        self.done = 0
        self.trouble: list[str] = []

    def retry(self) -> None:
        """Move each job back to pending."""
        spool, values = self._dashboard.spool, self._dashboard.settings()
        try:
            with acts.hand(spool.root, spool.clock()) as me:
                for found in self._found:
                    self._retry(me, found, values)
        except OSError as error:
            self.trouble.append(_told(error))

    def _retry(self, me: Hand, found: Found, values: Settings) -> None:
        try:
            acts.retry(me, found, values, self._dashboard.spool.clock())
            self.done += 1
        except JobMoved:
            pass  # Race: another person or worker was faster
        except QueueError as error:
            self.trouble.append(str(error))
        except OSError as error:
            self.trouble.append(_told(error))

    def delete(self) -> None:
        """Delete each job and its output."""
        try:
            for _ in acts.delete(self._dashboard.spool.root, self._found):
                self.done += 1
        except OSError as error:
            self.trouble.append(_told(error))

    def run(self, act: Callable[[], None], many: str) -> Said:
        """Start, wait at most `PATIENCE` seconds, and return how far it has come."""
        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        word = "Retried" if act == self.retry else "Deleted"
        if thread.is_alive():
            return Said(f"{word} {self.done:,} of {many} so far; the rest follows.")
        text = f"{word} {_jobs(self.done)}."
        if self.trouble:
            text += f" {len(self.trouble):,} could not be: {self.trouble[0]}"
        return Said(text, bad=bool(self.trouble))


def _told(error: OSError) -> str:
    return str(StorageTrouble(error) if StorageTrouble.explains(error) else error)


# ── the queue ─────────────────────────────────────────────────────────────────────────────────


def pause(dashboard: Dashboard, *, resume: bool) -> Said:
    """Pause the queue, or resume it."""
    root = dashboard.spool.root
    if resume:
        was = requests.resume(root)
        return Said("Resumed: workers start jobs again." if was else "It was not paused.")
    requests.pause(root, dashboard.spool.clock())
    return Said("Paused: nothing new is started; what runs goes on.")


def stop_worker(dashboard: Dashboard, name: str, form: Form) -> Said | Question:
    """Ask a worker to end after its current job."""
    worker = {one.name: one for one in descriptions.members(dashboard.spool.root)}.get(name)
    if worker is None:
        raise QueueError(f"There is no worker {name!r}.", "It may have ended.")
    if not worker.hears:
        raise QueueError(f"{name} cannot be asked to stop.", f"It {worker.how_to_end}")
    verdict = dashboard.onlooker.judge(name, dashboard.settings().lock_lease_seconds)
    if verdict.is_dead:
        raise QueueError(f"{name} is dead: {verdict.why}.", "The next worker takes over its job.")
    if not form.is_sure:
        return Question(f"Stop {name}? It finishes its current job, then ends.", "Stop it")
    requests.to_stop(dashboard.spool.root, [name], None)
    return Said(f"{name} was asked to stop after its current job.")


def submit(dashboard: Dashboard, form: Form) -> Said:
    """File a new job from the filled fields; raises `BadJob`, `BadUsage` or `IdTaken`."""
    fields: dict[str, Any] = {name: form.one(name).strip() for name in _FIELDS if form.one(name).strip()}
    if "run_at" in fields:
        fields["run_at"] = iso(entered_moment("run_at", fields["run_at"], dashboard.spool.clock()))
    job_id = dashboard.spool.file(fields)
    return Said(f"{job_id} is filed.", to=f"/jobs/{job_id}")
