"""The auditor: reads the whole spool and reports, or mends, whatever does not belong."""

from __future__ import annotations

import contextlib
import shlex
from collections import defaultdict
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from queuectl import settings, times
from queuectl.errors import BadJob, BrokenConfig
from queuectl.job.history import OUTCOMES, destination, last_attempt
from queuectl.job.model import Job, State
from queuectl.spool import (
    aside,
    claiming,
    claims,
    ids,
    jobfile,
    jobs,
    output,
    recovery,
    reservations,
)
from queuectl.spool.names import REASON, Kind, Name, classify, id_in, name_in, parse, parse_claim, split
from queuectl.spool.presence import Onlooker, described
from queuectl.spool.requests import PAUSED
from queuectl.spool.root import FOLDERS, IDS, Root
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from queuectl.spool.liveness import Verdict

#: Dot files of a writer that is still at work are younger than this many seconds.
FRESH = 60.0
#: Seconds after which a draft is nobody's where the system cannot tell whether it is open.
STALLED = 3600.0
#: Seconds between the two looks that must agree: what a move leaves for moments is gone by then.
AGAIN = 0.1


class Finding(NamedTuple):
    """One thing that does not belong: where, what is wrong, what to do, and what does it.

    Without `mend` it is for a person, or for the recovery that precedes every repair.
    """

    path: str
    problem: str
    remedy: str
    mend: Callable[[], object] | None = None


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
    second = {(one.path, one.problem): one for one in _look(root, onlooker, lease, now, paths.__contains__)}
    return [second[key] for one in first if (key := (one.path, one.problem)) in second]


def _look(
    root: Root, onlooker: Onlooker, lease: float, now: datetime, is_to_read: Callable[[str], bool]
) -> Iterator[Finding]:
    """One look at all names, and at the content of those job files that are to be read."""
    yield from _config(root)
    yield from _strays(root)
    verdict_on = cache(lambda owner: onlooker.judge(owner, lease))
    known: dict[str, list[str]] = defaultdict(list)
    for state in State:
        yield from _names(root, state, known)
    for places in known.values():
        yield from _duplicates(places)
        for path in places:
            if is_to_read(path):
                yield from _job(root, path, verdict_on, now)
    yield from _reasons(root, set(known))
    yield from _left_behind(root, set(known))
    yield from _workers(root, verdict_on)


def _duplicates(places: list[str]) -> Iterator[Finding]:
    """Files that bear one id. What runs is left where it is, and nothing is to be deleted unseen."""
    first, *others = sorted(places, key=lambda path: f"/{State.PROCESSING}/" not in path)
    for path in others:
        yield Finding(
            path,
            f"its id is also that of {first}",
            f"Look at both and move one of them out of the spool: `mv {shlex.quote(path)} ~/`.",
        )


def _config(root: Root) -> Iterator[Finding]:
    try:
        settings.load(root.text)
    except BrokenConfig as error:
        problem = f"{error.why[:1].lower()}{error.why[1:]}".rstrip(".")
        yield Finding(str(root.config), problem, f"{error.remedy} Workers keep the last good values.")
    except OSError as error:
        yield Finding(str(root.config), f"it cannot be read: {error.strerror}", "Mend it by hand.")


def _strays(root: Root) -> Iterator[Finding]:
    for text in files.list_names(root.text):
        if text not in {*FOLDERS, IDS, settings.FILE} and not text.startswith("."):
            if text.upper().startswith("README"):
                continue
            yield Finding(f"{root.text}/{text}", "it is no part of a spool", "Move it elsewhere by hand.")


def _names(root: Root, state: State, known: dict[str, list[str]]) -> Iterator[Finding]:
    """Files that are no jobs; the paths of those that are come into `known` under their ids."""
    folder = root.folder(state)
    for text in root.texts_in(folder):
        name = name_in(state, text)
        if name is None:
            yield from _no_job(root, state, text, f"{folder}/{text}")
        else:
            known[name.id.lower()].append(f"{folder}/{text}")


def _job(root: Root, path: str, verdict_on: Callable[[str], Verdict], now: datetime) -> Iterator[Finding]:
    folder, _, text = path.rpartition("/")
    state = State(folder.rpartition("/")[2])
    name = parse_claim(text) or split(text)
    verdict = verdict_on(name.owner) if state is State.PROCESSING and name.owner else None
    if verdict is not None and verdict.is_dead:
        remedy = f"`--repair` files it again ({verdict.why})."
        yield Finding(path, f"its worker {name.owner} is dead", remedy)
    elif state is not State.DEAD:
        yield from _content(root, state, name, path, now)


def _content(root: Root, state: State, name: Name, path: str, now: datetime) -> Iterator[Finding]:
    try:
        reading = jobfile.read(path)
    except FileNotFoundError:
        return
    except (BadJob, files.NotAFile, PermissionError) as error:
        yield Finding(path, f"it cannot be read: {aside.why(error).rstrip('.')}", "Mend it by hand.")
        return
    if state in {State.PENDING, State.FAILED}:
        claim = claims.Claim.of(root, name, reading, state)
        right = claiming.true_name(claim, now)
        if right:
            yield Finding(
                path,
                f"its content asks for the name {right}",
                "A worker or `--repair` files it again under that name.",
                lambda: files.move(path, f"{root.folder(state)}/{jobs.free_name(root, state, right)}"),
            )
    if state is State.DONE:
        yield from _done(root, name, reading.job, path)


def _done(root: Root, name: Name, job: Job, path: str) -> Iterator[Finding]:
    # A power cut may take the last lines of a job that is done, and leave its move and its logs.
    last = job.history[-1] if job.history else {}
    if last.get("event") in OUTCOMES and destination(last) is not State.DONE:
        yield Finding(path, "it is in done/, and did not end with status 0", "Move it to pending/ by hand.")
    elif not last_attempt(job.history) and not output.was_begun(root, name.id, 1):
        yield Finding(
            path,
            "it is in done/, and nothing shows that it ever ran",
            "Move it to pending/ by hand, or prune it.",
        )


def _no_job(root: Root, state: State, text: str, path: str) -> Iterator[Finding]:
    kind = classify(state, text)
    if kind is Kind.UNFINISHED:
        yield from _unfinished(root, state, text, path)
    elif kind is Kind.DROP:
        if files.is_folder(path):
            yield Finding(path, "a directory is not a job", "Move it elsewhere by hand.")
        elif _age(path) > FRESH:
            yield Finding(path, "no worker has taken it in yet", "Start one: `queuectl worker start`.")
    elif state is State.PROCESSING and parse(text):
        yield Finding(path, "a job that no worker has claimed", "Move it to pending/ by hand.")
    elif kind is Kind.STRANGER:
        yield Finding(path, "its name is not that of a job", "Rename it to NAME.yaml, or move it elsewhere.")


def _unfinished(root: Root, state: State, text: str, path: str) -> Iterator[Finding]:
    if text[:1] != "." or _age(path) <= FRESH:
        return
    if text.endswith(".tmp"):
        if _may_be_filed(root, path):
            return
        yield Finding(path, "a filing that was cut off left it", "`--repair` deletes it.", _removal(path))
    elif state is State.PROCESSING and text.endswith((".old", ".new")):
        yield Finding(path, "a rewrite that was cut off left it", "`--repair` mends it.")


def _may_be_filed(root: Root, path: str) -> bool:
    """Whether the filing that made this draft may go on: it may have been stopped, or the disk hang.

    It holds its draft open until it publishes it. Where that cannot be told, an old one is nobody's.
    """
    is_open = root.medium.being_written(path)
    return _age(path) <= STALLED if is_open is None else is_open


def _age(path: str) -> float:
    try:
        return times.clock.now().timestamp() - files.mark(path).mtime_ns / 1e9
    except FileNotFoundError:
        return 0.0


def _removal(path: str) -> Callable[[], object]:
    return lambda: files.remove(path)


def _reasons(root: Root, known: set[str]) -> Iterator[Finding]:
    """Reasons of jobs that are nowhere; that of a job that was mended and moved on tells no lie."""
    for text in root.texts_in(root.folder(State.DEAD)):
        name = parse(text.removesuffix(REASON)) if text.endswith(REASON) else None
        if name is not None and name.id.lower() not in known:
            path = f"{root.folder(State.DEAD)}/{text}"
            yield Finding(path, "its job has gone", "`--repair` deletes it.", _removal(path))


def _left_behind(root: Root, known: set[str]) -> Iterator[Finding]:
    """The logs and the ids of jobs that are nowhere."""
    owners = {text: output.owner_of_log(text) for text in root.texts_in(root.logs)}
    orphans = {text: owner[0] for text, owner in owners.items() if owner and owner[0] not in known}
    unknown = reservations.listed(root) - known
    borne = _borne(root) if orphans or unknown else set()
    for text, job_id in orphans.items():
        path = f"{root.logs}/{text}"
        if job_id not in borne and _age(path) > ids.FILING_TAKES and not root.medium.being_written(path):
            yield Finding(path, "no job has its id", "`--repair` deletes it.", _removal(path))
    for job_id in sorted(unknown - borne):
        # Race: who takes a dropped file in takes its id just before the file bears it.
        mark = reservations.mark(root, job_id)
        path = reservations.path_of(root, job_id)
        if mark is not None and _age(path) > ids.FILING_TAKES:
            mend = partial(ids.free, root, job_id, mark)
            yield Finding(path, "no job has this id", "`--repair` frees it.", mend)


def _borne(root: Root) -> set[str]:
    """The ids, in lower case, that any name bears, also while it is written; not what was cut off then.

    Race: a job may move from a directory not yet listed to one just listed. Two looks that are short
    find it, the one that reads each job may not.
    """
    return {
        id_in(text).lower()
        for _ in range(2)
        for state in State
        for text in root.texts_in(root.folder(state))
        if not (text.startswith(".") and any(_unfinished(root, state, text, f"{root.folder(state)}/{text}")))
    }


def _workers(root: Root, verdict_on: Callable[[str], Verdict]) -> Iterator[Finding]:
    known = set(described(root))
    for owner in known:
        verdict = verdict_on(owner)
        if verdict.is_dead:
            remedy = f"`--repair` clears it ({verdict.why})."
            yield Finding(f"{root.workers}/{owner}.yaml", "this worker is dead", remedy)
    for text in root.texts_in(root.workers):
        stem, _, ending = text.rpartition(".")
        path = f"{root.workers}/{text}"
        if text.startswith(".") and ending not in {"probe", "probe~", "tmp"}:
            continue
        if text == PAUSED or (ending == "yaml" and stem in known) or _age(path) < FRESH:
            continue
        if ending in {"lock", "stop"} and stem in known:
            continue
        if ending == "cancel" and stem.rpartition("@")[2] in known:
            continue
        yield Finding(path, "it belongs to no live worker", "`--repair` deletes it.", _removal(path))


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
    recovery.by_hand(root, onlooker, values, stop_remains, now)
    left = []
    for finding_ in check(root, onlooker, values.lock_lease_seconds, now):
        if finding_.mend is None:
            left.append(finding_)
        else:
            with contextlib.suppress(FileNotFoundError):
                finding_.mend()
    return left
