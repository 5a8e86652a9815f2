"""The auditor reads the whole spool, and reports or mends everything that does not belong there."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import Counter, defaultdict
from functools import cache, partial
from typing import TYPE_CHECKING

from queuectl import settings, times
from queuectl.errors import BadJob
from queuectl.job.history import OUTCOMES, destination, last_attempt
from queuectl.job.model import State
from queuectl.rules import groups
from queuectl.spool import (
    aside,
    batches,
    claiming,
    ids,
    jobfile,
    jobs,
    keys,
    members,
    moving,
    names,
    output,
    recovery,
    tokens,
)
from queuectl.spool.descriptions import described
from queuectl.spool.names import name_in
from queuectl.spool.requests import PAUSED
from queuectl.spool.root import FOLDERS, GROUPS, ON_DEMAND, Root
from queuectl.system import files
from queuectl.view import explain
from queuectl.view.wording import Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from queuectl.job.model import Job
    from queuectl.spool.liveness import Verdict
    from queuectl.spool.names import Name
    from queuectl.spool.onlooker import Onlooker

#: A dot file younger than this many seconds may be a writer's that is still at work.
FRESH = 60.0
#: A draft older than this many seconds is abandoned, where the system cannot tell whether it is open.
STALLED = 3600.0
#: A job that has been in an editor for longer than this many seconds may be forgotten.
LONG_IN_EDITOR = 86_400.0
#: Seconds between the two looks that must agree: a move that was under way is over by then.
AGAIN = 0.1


def check(root: Root, onlooker: Onlooker, lease: float, now: datetime) -> list[Finding]:
    """Every finding that two looks at the spool agree on; changes nothing.

    Race: jobs move and workers come and go while a look goes on, so one look may find a job twice, or
    nowhere. Whatever looks wrong is looked at again, with new listings, before it is reported.
    """
    first = list(_look(root, onlooker, lease, now, lambda _: True))
    if not first:
        return []
    times.clock.sleep(AGAIN)
    paths = {one.path for one in first}
    second = {(one.path, one.kind): one for one in _look(root, onlooker, lease, now, paths.__contains__)}
    return [second[key] for one in first if (key := (one.path, one.kind)) in second]


def repair(
    root: Root,
    onlooker: Onlooker,
    values: settings.Settings,
    stop_remains: recovery.StopRemains,
    now: datetime,
) -> list[Finding]:
    """Recover what dead workers left, then mend what can be mended; returns what is left.

    A silent owner is left alone unless this onlooker has watched it: see `Onlooker.settle`.
    """
    recovered = recovery.by_hand(root, onlooker, values, stop_remains, now)
    left = []
    with root.medium.listing_anew():  # an old listing lacks jobs whose logs and ids must stay
        for found in check(root, onlooker, values.lock_lease_seconds, now):
            if found.mend is None:
                left.append(_explained(found, recovered))
            else:
                with contextlib.suppress(FileNotFoundError):  # it has gone meanwhile
                    found.mend()
    return left


def _explained(found: Finding, recovered: recovery.Recovered) -> Finding:
    """A finding that a repair has left, with the reason why a dead worker's claim had to stay."""
    name = found.path.rpartition("/")[2]
    if found.kind is Kind.DEAD_OWNER and (one := recovered.left.get(name)) is not None:
        facts = {"owner": found.facts["owner"], "why": one.why, "remedy": one.remedy}
        return found._replace(kind=Kind.LEFT_CLAIM, facts=facts)
    if found.kind is Kind.DEAD_WORKER and name.removesuffix(".yaml") in recovered.kept:
        return found._replace(kind=Kind.KEPT_WORKER)
    return found


def _look(
    root: Root, onlooker: Onlooker, lease: float, now: datetime, is_to_read: Callable[[str], bool]
) -> Iterator[Finding]:
    """One look at all names, and at the content of those job files that are to be read."""
    yield from _spool(root)
    verdict_on = cache(lambda owner: onlooker.judge(owner, lease))
    known: dict[str, list[str]] = defaultdict(list)
    for state in State:
        folder = root.folder(state)
        for text in root.texts_in(folder):
            name = name_in(state, text)
            if name is None:
                yield from _no_job(root, state, text, f"{folder}/{text}")
            else:
                known[name.id.lower()].append(f"{folder}/{text}")
    for places in known.values():
        # What runs stays where it is; a person looks at both before moving one.
        first, *others = sorted(places, key=lambda path: f"/{State.PROCESSING}/" not in path)
        yield from (Finding(Kind.SAME_ID, {"other": first}, path) for path in others)
        for path in places:
            if is_to_read(path):
                yield from _job(root, path, verdict_on, now)
    yield from _left_behind(root, set(known))
    yield from _batches(root, set(known))
    yield from _workers(root, verdict_on)
    yield from _groups(root, verdict_on)


def _spool(root: Root) -> Iterator[Finding]:
    """The settings, the directories, and what lies beside them."""
    try:
        yield from explain.config(root)
    except OSError as error:
        yield Finding(Kind.UNREADABLE, {"why": error.strerror}, str(root.config))
    for name in (*FOLDERS, *ON_DEMAND) if _is_writable(root.text) else ():
        path = f"{root.text}/{name}"
        if files.exists(path) and not _is_writable(path):
            yield Finding(Kind.NOT_WRITABLE, path=path)
    for text in files.list_names(root.text):
        if text not in {*FOLDERS, *ON_DEMAND, settings.FILE} and not text.upper().startswith((".", "README")):
            yield Finding(Kind.NOT_OF_A_SPOOL, path=f"{root.text}/{text}")
    for path in keys.strangers(root):
        if not path.rpartition("/")[2].startswith("."):
            yield Finding(Kind.NOT_OF_A_SPOOL, path=path)
        elif _age(path) > FRESH:
            yield Finding(Kind.DRAFT, path=path, mend=partial(files.kernel.rmdir, path))


def _is_writable(folder: str) -> bool:
    return bool(files.kernel.access(folder, os.W_OK | os.X_OK))


def _job(root: Root, path: str, verdict_on: Callable[[str], Verdict], now: datetime) -> Iterator[Finding]:
    folder, _, text = path.rpartition("/")
    state = State(folder.rpartition("/")[2])
    name = names.parse_claim(text) or names.parse_parked(text) or names.split(text)
    if name.owner and (verdict := verdict_on(name.owner)).is_dead:
        yield Finding(Kind.DEAD_OWNER, {"owner": name.owner, "why": verdict.why}, path)
        return
    if state is State.DEAD:
        return
    try:
        record = jobfile.read(path)
    except FileNotFoundError:
        return
    except (BadJob, files.NotAFile, PermissionError) as error:
        yield Finding(Kind.UNREADABLE, {"why": aside.why(error).rstrip(".")}, path)
        return
    if state in jobs.WAITING:
        yield from _parked(root, name, path, record.job)
        if right := claiming.true_name(name, record.job, state, now):
            yield Finding(Kind.MISNAMED, {"right": right}, path, partial(_rename, root, state, path, right))
    elif state is State.DONE:
        # A power cut may take the last lines of a job that is done, and leave its move and its logs.
        history = record.job.history
        if history and history[-1].get("event") in OUTCOMES and destination(history[-1]) is not State.DONE:
            yield Finding(Kind.UNSUCCESSFUL, path=path)
        elif not last_attempt(history) and not output.was_begun(root, name.id, 1):
            yield Finding(Kind.NEVER_RUN, path=path)


def _parked(root: Root, name: Name, path: str, job: Job) -> Iterator[Finding]:
    """A job that a person has parked and may have forgotten, or whose name says what its content does not."""
    reason, _, whom = (name.parked or "").partition("+")
    if reason == names.AFTER and whom.lower() not in map(str.lower, job.after):
        state = State(path.split("/")[-2])
        mend = partial(_rename, root, state, path, name.later().unparked())
        yield Finding(Kind.MISPARKED, {"pointer": whom}, path, mend)
    if reason == names.EDIT:
        since = files.kernel.lstat(path).st_ctime  # a rename changes no other time
        if times.clock.now().timestamp() - since > LONG_IN_EDITOR:
            yield Finding(Kind.LONG_IN_EDITOR, {"user": whom, "id": name.id}, path)
    elif reason == names.MOVING:
        to = shlex.quote(str(moving.begun(job.history).get("to", "DIR")))
        held = shlex.quote(path.removesuffix(f".{names.MOVING}{names.PARKED}") + names.PARKED)
        yield Finding(Kind.LEFT_MOVING, {"id": name.id, "to": to, "held": held}, path)


def _rename(root: Root, state: State, path: str, right: Name) -> None:
    is_new = names.id_in(path.rpartition("/")[2]) != right.id
    if is_new and not ids.take(root, right.id):
        return  # another job has the id: the worker that claims this one puts it aside
    if not files.move(path, f"{root.folder(state)}/{jobs.free_name(root, state, right)}") and is_new:
        ids.release(root, [right.id])


def _no_job(root: Root, state: State, text: str, path: str) -> Iterator[Finding]:
    kind = names.classify(state, text)
    if kind is names.Kind.UNFINISHED:
        yield from _unfinished(root, state, text, path)
    elif files.is_folder(path):
        yield Finding(Kind.FOLDER, path=path)
    elif kind is names.Kind.DROP:
        if _age(path) > FRESH:
            yield Finding(Kind.DROP, path=path)
    elif state is State.PROCESSING and names.parse(text):
        yield Finding(Kind.UNCLAIMED, path=path)
    elif kind is names.Kind.STRANGER:
        yield Finding(Kind.STRANGER, path=path)


def _unfinished(root: Root, state: State, text: str, path: str) -> Iterator[Finding]:
    if text[:1] != "." or _age(path) <= FRESH:
        return
    if text.endswith((".tmp", ".probe")):
        # A filing holds its draft open until it publishes it: its process may be stopped, or the disk hang.
        is_open = root.medium.being_written(path)
        if not (_age(path) <= STALLED if is_open is None else is_open):
            yield _to_delete(Kind.DRAFT, path)
    elif state is State.PROCESSING and text.endswith((".old", ".new")):
        yield Finding(Kind.REWRITE, path=path)


def _age(path: str) -> float:
    try:
        return times.clock.now().timestamp() - files.mark(path).mtime_ns / 1e9
    except FileNotFoundError:
        return 0.0


def _to_delete(kind: Kind, path: str) -> Finding:
    return Finding(kind, path=path, mend=lambda: files.remove(path))


def _left_behind(root: Root, known: set[str]) -> Iterator[Finding]:
    """The reasons, the logs, the ids and the unique keys of jobs that are nowhere.

    The reason of a job that was mended and moved back may stay.
    """
    dead = root.folder(State.DEAD)
    for text in root.texts_in(dead):
        name = names.parse(text.removesuffix(names.REASON)) if text.endswith(names.REASON) else None
        if name is not None and name.id.lower() not in known:
            yield _to_delete(Kind.REASON, f"{dead}/{text}")
    owners = {text: output.owner_of_log(text) for text in root.texts_in(root.logs)}
    orphans = {text: owner[0] for text, owner in owners.items() if owner and owner[0] not in known}
    unknown = ids.listed(root) - known
    unheld = [now for now in keys.all_of(root) if not (now.holder and now.holder.job_id.lower() in known)]
    borne = _borne(root) if orphans or unknown or unheld else set()
    for text, job_id in orphans.items():
        path = f"{root.logs}/{text}"
        if job_id not in borne and _age(path) > ids.FILING_TAKES and not root.medium.being_written(path):
            yield _to_delete(Kind.LOG, path)
    for job_id in sorted(unknown - borne):
        # Race: a worker that takes in a dropped file takes its id just before it renames the file.
        mark = ids.mark(root, job_id)
        path = ids.path_of(root, job_id)
        if mark is not None and _age(path) > ids.FILING_TAKES:
            yield Finding(Kind.ID, path=path, mend=partial(ids.free, root, job_id, mark))
    for now in unheld:
        path = now.holder.path if now.holder else now.folder
        if not (now.holder and now.holder.job_id.lower() in borne) and _age(path) > FRESH:
            yield Finding(Kind.KEY, path=now.folder, mend=partial(keys.forget, now))


def _batches(root: Root, known: set[str]) -> Iterator[Finding]:
    """Batches of which no job is left, and those whose filing was cut off."""
    for name in members.spent(root):
        yield _to_delete(Kind.BATCH, batches.path_of(root, name))
    half = [one for name in batches.names(root) if (one := batches.read(root, name)) and not one.is_filed]
    filed = Counter(batches.batch_of(job_id) for job_id in known) if half else Counter[str | None]()
    for batch in half:
        path = batches.path_of(root, batch.name)
        if _age(path) > FRESH:
            facts = {"filed": filed[batch.name.lower()], "size": batch.size, "name": batch.name}
            yield Finding(Kind.HALF_FILED, facts, path)


def _borne(root: Root) -> set[str]:
    """The ids, in lower case, in the names of jobs and of drafts that may still be filed.

    Race: a job may move from a directory not yet listed to one just listed. Two quick looks find it; the
    slow one that reads each job may not.
    """
    return {
        names.id_in(text).lower()
        for _ in range(2)
        for state in State
        for text in root.texts_in(root.folder(state))
        if name_in(state, text) is not None
        or (text[:1] == "." and not any(_unfinished(root, state, text, f"{root.folder(state)}/{text}")))
    }


def _workers(root: Root, verdict_on: Callable[[str], Verdict]) -> Iterator[Finding]:
    known = set(described(root))
    for owner in known:
        if (verdict := verdict_on(owner)).is_dead:
            yield Finding(Kind.DEAD_WORKER, {"why": verdict.why}, f"{root.workers}/{owner}.yaml")
    for text in root.texts_in(root.workers):
        stem, _, ending = text.rpartition(".")
        path = f"{root.workers}/{text}"
        is_known = (
            text == PAUSED
            or (ending in {"yaml", "lock", "stop"} and stem in known)
            or (ending == "cancel" and stem.rpartition("@")[2] in known)
            or (text.startswith(".") and ending not in {"probe", "probe~", "tmp"})
        )
        if not is_known and _age(path) >= FRESH:
            yield _to_delete(Kind.LEFT_BY_WORKER, path)


def _groups(root: Root, verdict_on: Callable[[str], Verdict]) -> Iterator[Finding]:
    """The slots of dead workers, those that are there twice, and what is no group or slot."""
    above = f"{root.text}/{GROUPS}"
    for text in root.texts_in(above) if files.is_folder(above) else ():
        folder = f"{above}/{text}"
        if text[:1] == ".":
            if _age(folder) > FRESH:
                yield Finding(Kind.DRAFT, path=folder, mend=partial(groups.remove_draft, folder))
        elif not (groups.is_name(text) and files.is_folder(folder)):
            yield Finding(Kind.NO_GROUP, path=folder)
        else:
            yield from _slots(folder, root.texts_in(folder), verdict_on)


def _slots(folder: str, texts: list[str], verdict_on: Callable[[str], Verdict]) -> Iterator[Finding]:
    seen = groups.seen_in(texts)
    for token in tokens.among(texts):
        path = f"{folder}/{token}"
        if token.owner and (verdict := verdict_on(token.owner)).is_dead:
            yield Finding(Kind.DEAD_SLOT, {"owner": token.owner, "why": verdict.why}, path)
        elif token not in seen.slots and token.owner is None:
            yield _to_delete(Kind.SAME_SLOT, path)
    for name in seen.gone - {token.name for token in seen.slots}:
        yield _to_delete(Kind.GONE_SLOT, f"{folder}/{name}{groups.GONE}")
    for text in texts:
        if tokens.parse(text) is None and not text.startswith(".") and not groups.is_mark(text):
            yield Finding(Kind.NO_SLOT, path=f"{folder}/{text}")
