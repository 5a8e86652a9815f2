"""The auditor reads the whole spool, and reports or mends everything that does not belong there."""

from __future__ import annotations

import contextlib
import os
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
from queuectl.spool.descriptions import described
from queuectl.spool.names import (
    DROPPED,
    REASON,
    Kind,
    Name,
    classify,
    id_in,
    name_in,
    parse,
    parse_claim,
    split,
)
from queuectl.spool.requests import PAUSED
from queuectl.spool.root import FOLDERS, IDS, Root
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from queuectl.spool.liveness import Verdict
    from queuectl.spool.onlooker import Onlooker

#: A dot file younger than this many seconds may be a writer's that is still at work.
FRESH = 60.0
#: A draft older than this many seconds is abandoned, where the system cannot tell whether it is open.
STALLED = 3600.0
#: Seconds between the two looks that must agree: a move that was under way is over by then.
AGAIN = 0.1


_DELETED = "`--repair` deletes it."
_ELSEWHERE = "Move it out of the spool: `mv {quoted} ~/`."
_RUN = "To have it run: `mv -n {quoted} {pending}`."
#: What is wrong and what to do, for each kind of finding; in braces its facts, and its path for a shell.
SENTENCES = {
    "bad-config": ("{why}", "{remedy} Workers keep the last good values."),
    "unreadable-config": ("it cannot be read: {why}", "Mend it by hand."),
    "not-writable": (
        "this user may not write to this directory, so no job comes in or goes out",
        "See what forbids it: `ls -ld {quoted}; lsattr -d {quoted}`.",
    ),
    "not-of-a-spool": ("it is no part of a spool", _ELSEWHERE),
    "same-id": (
        "its id is also that of {other}",
        "Look at both and move one of them out of the spool: `mv {quoted} ~/`.",
    ),
    "dead-owner": ("its worker {owner} is dead", "`--repair` files it again ({why})."),
    "left-claim": (
        "its worker {owner} is dead, and `--repair` could not take the job over: {why}",
        "{remedy} Until then the job waits.",
    ),
    "unreadable-job": ("it cannot be read: {why}", "Mend it by hand."),
    "misnamed": (
        "its content asks for the name {right}",
        "A worker or `--repair` files it again under that name.",
    ),
    "done-without-success": (
        "it is in done/, and did not end with status 0",
        _RUN,
    ),
    "done-without-a-run": (
        "it is in done/, and nothing shows that it ever ran",
        f"{_RUN} Otherwise leave it to `queuectl prune`.",
    ),
    "folder": ("a directory is not a job", _ELSEWHERE),
    "drop": ("no worker has taken it in yet", "Start one: `queuectl worker start`."),
    "unclaimed": ("a job that no worker has claimed", _RUN),
    "stranger": ("its name is not that of a job", f"{_RUN} Otherwise: `mv {{quoted}} ~/`."),
    "draft": ("a filing that was cut off left it", _DELETED),
    "rewrite": ("a rewrite that was cut off left it", "`--repair` mends it."),
    "reason": ("its job has gone", _DELETED),
    "log": ("no job has its id", _DELETED),
    "id": ("no job has this id", "`--repair` frees it."),
    "dead-worker": ("this worker is dead", "`--repair` clears it ({why})."),
    "kept-worker": (
        "this worker is dead, and `--repair` could not take a job over from it",
        "`--repair` clears it once that is mended.",
    ),
    "left-by-worker": ("it belongs to no live worker", _DELETED),
}


class Finding(NamedTuple):
    """One thing that does not belong: its kind, a key of `SENTENCES`, where it is, and what they name.

    `mend` repairs it. Without one it is for a person, or for the recovery that precedes every repair.
    """

    kind: str
    path: str
    facts: Mapping[str, object] = {}
    mend: Callable[[], object] | None = None

    @property
    def problem(self) -> str:
        """What is wrong, in words."""
        return SENTENCES[self.kind][0].format(**self.facts, quoted=shlex.quote(self.path))

    @property
    def remedy(self) -> str:
        """What a person can do, in words."""
        return SENTENCES[self.kind][1].format(
            **self.facts, quoted=shlex.quote(self.path), pending=shlex.quote(self._in_pending)
        )

    @property
    def _in_pending(self) -> str:
        """Where a worker takes the file of this path in as a job."""
        folder, _, text = self.path.rpartition("/")
        is_job = text.lower().endswith(DROPPED)
        return f"{folder.rpartition('/')[0]}/{State.PENDING}/{text}{'' if is_job else '.yaml'}"


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


def _look(
    root: Root, onlooker: Onlooker, lease: float, now: datetime, is_to_read: Callable[[str], bool]
) -> Iterator[Finding]:
    """One look at all names, and at the content of those job files that are to be read."""
    yield from _config(root)
    yield from _not_writable(root)
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
    """Files with one id. What runs stays where it is; a person looks at both before moving one."""
    first, *others = sorted(places, key=lambda path: f"/{State.PROCESSING}/" not in path)
    for path in others:
        yield Finding("same-id", path, {"other": first})


def _config(root: Root) -> Iterator[Finding]:
    try:
        settings.load(root.text)
    except BrokenConfig as error:
        why = f"{error.why[:1].lower()}{error.why[1:]}".rstrip(".")
        yield Finding("bad-config", str(root.config), {"why": why, "remedy": error.remedy})
    except OSError as error:
        yield Finding("unreadable-config", str(root.config), {"why": error.strerror})


def _not_writable(root: Root) -> Iterator[Finding]:
    """Directories that take no file of a user who may write to the spool itself."""
    if _is_writable(root.text):
        for name in (*FOLDERS, IDS):
            path = f"{root.text}/{name}"
            if files.exists(path) and not _is_writable(path):
                yield Finding("not-writable", path)


def _is_writable(folder: str) -> bool:
    return bool(files.kernel.access(folder, os.W_OK | os.X_OK))


def _strays(root: Root) -> Iterator[Finding]:
    for text in files.list_names(root.text):
        if text not in {*FOLDERS, IDS, settings.FILE} and not text.startswith("."):
            if text.upper().startswith("README"):
                continue
            yield Finding("not-of-a-spool", f"{root.text}/{text}")


def _names(root: Root, state: State, known: dict[str, list[str]]) -> Iterator[Finding]:
    """Files that are no jobs; adds the paths of jobs to `known`, under their ids."""
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
        yield Finding("dead-owner", path, {"owner": name.owner, "why": verdict.why})
    elif state is not State.DEAD:
        yield from _content(root, state, name, path, now)


def _content(root: Root, state: State, name: Name, path: str, now: datetime) -> Iterator[Finding]:
    try:
        reading = jobfile.read(path)
    except FileNotFoundError:
        return
    except (BadJob, files.NotAFile, PermissionError) as error:
        yield Finding("unreadable-job", path, {"why": aside.why(error).rstrip(".")})
        return
    if state in {State.PENDING, State.FAILED}:
        claim = claims.Claim.of(root, name, reading, state)
        right = claiming.true_name(claim, now)
        if right:
            yield Finding(
                "misnamed",
                path,
                {"right": right},
                lambda: files.move(path, f"{root.folder(state)}/{jobs.free_name(root, state, right)}"),
            )
    if state is State.DONE:
        yield from _done(root, name, reading.job, path)


def _done(root: Root, name: Name, job: Job, path: str) -> Iterator[Finding]:
    # A power cut may take the last lines of a job that is done, and leave its move and its logs.
    last = job.history[-1] if job.history else {}
    if last.get("event") in OUTCOMES and destination(last) is not State.DONE:
        yield Finding("done-without-success", path)
    elif not last_attempt(job.history) and not output.was_begun(root, name.id, 1):
        yield Finding("done-without-a-run", path)


def _no_job(root: Root, state: State, text: str, path: str) -> Iterator[Finding]:
    kind = classify(state, text)
    if kind is Kind.UNFINISHED:
        yield from _unfinished(root, state, text, path)
    elif files.is_folder(path):
        yield Finding("folder", path)
    elif kind is Kind.DROP:
        if _age(path) > FRESH:
            yield Finding("drop", path)
    elif state is State.PROCESSING and parse(text):
        yield Finding("unclaimed", path)
    elif kind is Kind.STRANGER:
        yield Finding("stranger", path)


def _unfinished(root: Root, state: State, text: str, path: str) -> Iterator[Finding]:
    if text[:1] != "." or _age(path) <= FRESH:
        return
    if text.endswith(".tmp"):
        if _may_be_filed(root, path):
            return
        yield _to_delete("draft", path)
    elif state is State.PROCESSING and text.endswith((".old", ".new")):
        yield Finding("rewrite", path)


def _may_be_filed(root: Root, path: str) -> bool:
    """Whether the filing that made this draft may still go on: its process may be stopped, or the disk hang.

    A filing holds its draft open until it publishes it. Where the system cannot tell, an old draft is
    abandoned.
    """
    is_open = root.medium.being_written(path)
    return _age(path) <= STALLED if is_open is None else is_open


def _age(path: str) -> float:
    try:
        return times.clock.now().timestamp() - files.mark(path).mtime_ns / 1e9
    except FileNotFoundError:
        return 0.0


def _to_delete(kind: str, path: str) -> Finding:
    return Finding(kind, path, mend=lambda: files.remove(path))


def _reasons(root: Root, known: set[str]) -> Iterator[Finding]:
    """Reasons of jobs that are nowhere. The reason of a job that was mended and moved back may stay."""
    for text in root.texts_in(root.folder(State.DEAD)):
        name = parse(text.removesuffix(REASON)) if text.endswith(REASON) else None
        if name is not None and name.id.lower() not in known:
            path = f"{root.folder(State.DEAD)}/{text}"
            yield _to_delete("reason", path)


def _left_behind(root: Root, known: set[str]) -> Iterator[Finding]:
    """The logs and the ids of jobs that are nowhere."""
    owners = {text: output.owner_of_log(text) for text in root.texts_in(root.logs)}
    orphans = {text: owner[0] for text, owner in owners.items() if owner and owner[0] not in known}
    unknown = reservations.listed(root) - known
    borne = _borne(root) if orphans or unknown else set()
    for text, job_id in orphans.items():
        path = f"{root.logs}/{text}"
        if job_id not in borne and _age(path) > ids.FILING_TAKES and not root.medium.being_written(path):
            yield _to_delete("log", path)
    for job_id in sorted(unknown - borne):
        # Race: a worker that takes in a dropped file takes its id just before it renames the file.
        mark = reservations.mark(root, job_id)
        path = reservations.path_of(root, job_id)
        if mark is not None and _age(path) > ids.FILING_TAKES:
            yield Finding("id", path, mend=partial(ids.free, root, job_id, mark))


def _borne(root: Root) -> set[str]:
    """The ids, in lower case, in the names of jobs and of drafts that may still be filed.

    Race: a job may move from a directory not yet listed to one just listed. Two quick looks find it; the
    slow one that reads each job may not.
    """
    return {
        id_in(text).lower()
        for _ in range(2)
        for state in State
        for text in root.texts_in(root.folder(state))
        if name_in(state, text) is not None
        or (text[:1] == "." and not any(_unfinished(root, state, text, f"{root.folder(state)}/{text}")))
    }


def _workers(root: Root, verdict_on: Callable[[str], Verdict]) -> Iterator[Finding]:
    known = set(described(root))
    for owner in known:
        verdict = verdict_on(owner)
        if verdict.is_dead:
            yield Finding("dead-worker", f"{root.workers}/{owner}.yaml", {"why": verdict.why})
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
        yield _to_delete("left-by-worker", path)


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
    for found in check(root, onlooker, values.lock_lease_seconds, now):
        if found.mend is None:
            left.append(_explained(found, recovered))
        else:
            with contextlib.suppress(FileNotFoundError):
                found.mend()
    return left


def _explained(found: Finding, recovered: recovery.Recovered) -> Finding:
    """A finding that a repair has left, with the reason why a dead worker's claim had to stay."""
    name = found.path.rpartition("/")[2]
    if found.kind == "dead-owner" and (one := recovered.left.get(name)) is not None:
        facts = {"owner": found.facts["owner"], "why": one.why, "remedy": one.remedy}
        return Finding("left-claim", found.path, facts)
    if found.kind == "dead-worker" and name.removesuffix(".yaml") in recovered.kept:
        return Finding("kept-worker", found.path)
    return found
