"""What the buttons do. Each returns a sentence, or a question before it destroys something."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import BadUsage, JobMoved, NoSuchJob, QueueError, StorageTrouble, WrongState
from queuectl.job.model import State
from queuectl.rules.release import release, release_now
from queuectl.spool import acts, changes, descriptions, jobs, parking, requests
from queuectl.spool.cancellation import Cancelling
from queuectl.spool.names import parse
from queuectl.times import duration, entered_moment, iso
from queuectl.view import dependencies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from queuectl.spool.jobs import Found
    from queuectl.web.dashboard import Dashboard

#: A button waits this many seconds for its work; the work goes on without it.
PATIENCE = 3.0
#: Retrying more dead jobs than this at once needs a confirmation.
MANY = 10
_FIELDS = ("command", "id", "priority", "run_at", "max_retries", "timeout", "cwd", "unique")

#: The fields of a waiting job that may be changed here, where nobody may say what runs.
_CHANGED = ("priority", "run_at", "max_retries", "timeout")


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
        """The fields to send again with the answer to a question."""
        own = {"csrf", "back", "sure", "number"}
        return [(name, value) for name, values in self.values.items() if name not in own for value in values]


@dataclass(frozen=True, slots=True)
class Said:
    """The result in a sentence; `to` is the page to show in place of the page of the button."""

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


# ── one job ───────────────────────────────────────────────────────────────────────────────────


def on_job(dashboard: Dashboard, job_id: str, what: str, form: Form) -> Said | Question | None:
    """Act on one job; None if `what` is not an action."""
    if what not in _ON_JOB:
        return None
    for _ in range(jobs.TRIES):
        found = dashboard.find(job_id)
        if found is None:
            raise NoSuchJob(job_id)
        if what in {"cancel", "delete"} and not form.is_sure:
            return question(what, found.id, found.state.label)
        with suppress(JobMoved):  # Race: it has moved; look where it is now
            return _ON_JOB[what](dashboard, found, form)
    raise JobMoved(job_id)


def question(what: str, job_id: str, state: str) -> Question:
    """The question before one job is deleted or cancelled."""
    if what == "delete":
        return Question(f"Delete {job_id} and what it printed?", "Delete it")
    stops = " Its command is stopped." if state == "processing" else ""
    return Question(f"Cancel {job_id}?{stops}", "Cancel it")


def _retry(dashboard: Dashboard, found: Found, _: Form) -> Said:
    now = dashboard.spool.clock()
    with acts.hand(dashboard.spool.root, now) as me:
        acts.retry(me, found, dashboard.settings(), now)
    return Said(f"{found.id} is pending again; its attempts count from 1.")


def _run_now(dashboard: Dashboard, found: Found, _: Form) -> Said:
    now = dashboard.spool.clock()
    with acts.hand(dashboard.spool.root, now) as me:
        acts.run_now(me, found, now)
    return Said(f"{found.id} may run now.")


def _hold(dashboard: Dashboard, found: Found, _: Form) -> Said:
    dashboard.spool.refuse_older_workers()
    parking.hold(dashboard.spool.root, found)
    return Said(f"{found.id} is held until it is released.")


def _release(dashboard: Dashboard, found: Found, _: Form) -> Said:
    now = dashboard.spool.clock()
    return Said(f"{found.id} is {release(dashboard.spool.root, found, now).label(now)}.")


def _free(dashboard: Dashboard, found: Found, _: Form) -> Said:
    now = dashboard.spool.clock()
    with acts.hand(dashboard.spool.root, now) as me:
        release_now(me, found, now)
    return Said(f"{found.id} waits for no other job any more.")


def _set(dashboard: Dashboard, found: Found, form: Form) -> Said:
    """Change the fields that are filled in. None of them is part of what the job runs."""
    spool = dashboard.spool
    given = {name: text for name in _CHANGED if (text := form.one(name).strip())}
    if given.get("priority") == str(spool.view(found)["priority"]):
        del given["priority"]  # the page fills it in
    if not given:
        raise BadUsage("No field was filled in.", "Fill in what is to change.")
    if "run_at" in given:
        given["run_at"] = iso(entered_moment("run_at", given["run_at"], spool.clock()))
    how = spool.change(partial(changes.edited, changes=changes.checked(given)))
    now = spool.clock()
    with acts.hand(spool.root, now) as me:
        acts.change(me, found, how, now)
    return Said(f"{found.id} is changed: {', '.join(f'{name} {text}' for name, text in given.items())}.")


def _delete(dashboard: Dashboard, found: Found, form: Form) -> Said:
    if found.state not in {State.DONE, State.DEAD}:
        raise WrongState(found.id, found.state.label, "completed or dead", "Cancel it first.")
    if dependencies.is_needed(found, dependencies.needed(dashboard.spool.root)):
        remedy = "Cancel those first, or release them now."
        raise QueueError(f"Job {found.id} is not deleted, as others wait for it.", remedy)
    if not list(acts.delete(dashboard.spool.root, [found])):
        raise JobMoved(found.id)
    its_page_is_gone = form.one("back").startswith("/jobs/")
    return Said(f"{found.id} is deleted.", to="/jobs" if its_page_is_gone else None)


def _cancel(dashboard: Dashboard, found: Found, _: Form) -> Said:
    """Cancel a job in any state, as the command line does; its worker has `PATIENCE` seconds to answer."""
    spool, job_id = dashboard.spool, found.id
    end = times.clock.monotonic() + PATIENCE
    with acts.hand(spool.root, spool.clock()) as me:
        cancelling = Cancelling(
            me, dashboard.settings(), dashboard.onlooker, dashboard.stop_remains, spool.clock
        )
        while (now := dashboard.find(job_id)) is not None:
            with suppress(JobMoved):  # Race: it has moved; look where it is now
                if how := cancelling.act(now):
                    cancelling.withdraw()
                    return Said(f"{job_id} was {how}.")
            for owner, verdict in cancelling.undecided():
                raise QueueError(
                    f"Perhaps {owner}, the worker of {job_id}, is dead: {verdict.why}.",
                    f"Cancel it again in {duration(verdict.open_for)}.",
                )
            cancelling.take_over()
            if times.clock.monotonic() > end:
                return Said(f"{now.name.owner} was asked to stop {job_id}; it has not answered yet.")
            cancelling.wait([now], end, lambda _: None)
    raise NoSuchJob(job_id)


_ON_JOB: Mapping[str, Callable[[Dashboard, Found, Form], Said]] = {
    "retry": _retry,
    "run": _run_now,
    "hold": _hold,
    "release": _release,
    "free": _free,
    "set": _set,
    "cancel": _cancel,
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
    number = len(names)
    if not names:
        return Said("Nothing was selected.", bad=True)
    if (what == "delete" or number > MANY) and not form.is_sure_of(number):
        return question_of_many(what, number)
    dead = [found for text in names if (found := dashboard.place(State.DEAD, text))]
    if what == "retry":
        return _in_background(_retried(dashboard, dead), "Retried", number)
    return _in_background(_deleted(dashboard, dead), "Deleted", number)


def question_of_many(what: str, number: int) -> Question:
    """The question before a number of jobs is deleted or retried."""
    if what == "delete":
        return Question(f"Delete {_jobs(number)} and what they printed?", "Delete them", number)
    return Question(f"Retry {_jobs(number)}? All of them run again.", "Retry them", number)


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


def _retried(dashboard: Dashboard, dead: list[Found]) -> Iterator[str]:
    """Retry each job. Yields what kept it from being retried, "" if nothing did."""
    spool, values = dashboard.spool, dashboard.settings()
    with acts.hand(spool.root, spool.clock()) as me:
        for found in dead:
            try:
                acts.retry(me, found, values, spool.clock())
            except JobMoved:
                continue  # Race: another person or worker was faster
            except (QueueError, OSError) as error:
                yield _told(error)
            else:
                yield ""


def _deleted(dashboard: Dashboard, dead: list[Found]) -> Iterator[str]:
    """Delete each job and its output, unless others wait for it. Yields "" for each, else why not."""
    root = dashboard.spool.root
    needed = dependencies.needed(root)
    kept = {one.path for one in dead if dependencies.is_needed(one, needed)}
    yield from (f"{one.id}: others wait for it" for one in dead if one.path in kept)
    for _ in acts.delete(root, [one for one in dead if one.path not in kept]):
        yield ""


def _in_background(steps: Iterator[str], word: str, number: int) -> Said:
    """Take the steps in a thread, which may outlive the request; wait at most `PATIENCE` seconds."""
    results: list[str] = []

    def work() -> None:
        try:
            results.extend(steps)
        except (QueueError, OSError) as error:
            results.append(_told(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    done = results.count("")
    if thread.is_alive():
        return Said(f"{word} {done:,} of {_jobs(number)} so far; the rest follows.")
    text, trouble = f"{word} {_jobs(done)}.", [result for result in results if result]
    if trouble:
        text += f" {len(trouble):,} could not be: {trouble[0]}"
    return Said(text, bad=bool(trouble))


def _told(error: QueueError | OSError) -> str:
    if isinstance(error, OSError) and StorageTrouble.explains(error):
        return str(StorageTrouble(error))
    return str(error)


# ── the queue ─────────────────────────────────────────────────────────────────────────────────


def pause(dashboard: Dashboard) -> Said:
    """Pause the queue."""
    requests.pause(dashboard.spool.root, dashboard.spool.clock())
    return Said("Paused: nothing new is started; what runs goes on.")


def resume(dashboard: Dashboard) -> Said:
    """Resume the queue."""
    was_paused = requests.resume(dashboard.spool.root)
    return Said("Resumed: workers start jobs again." if was_paused else "It was not paused.")


def pause_group(dashboard: Dashboard, group: str) -> Said:
    """Pause a group."""
    dashboard.spool.pause_group(group)
    return Said(f"{group} is paused: none of its jobs is started; what runs goes on.")


def resume_group(dashboard: Dashboard, group: str) -> Said:
    """Resume a group."""
    was_paused = dashboard.spool.resume_group(group)
    return Said(f"{group} is resumed." if was_paused else f"{group} was not paused.")


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
    (filed,) = dashboard.spool.file_many([fields])
    if filed.error:
        raise filed.error
    told = "is filed" if filed.is_new else f"has the key {fields['unique']!r}: nothing was filed"
    return Said(f"{filed.id} {told}.", to=f"/jobs/{filed.id}")
