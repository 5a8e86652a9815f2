"""The promises, a function each: it returns in words what breaks it, None where it holds.

Each takes what the auditor knows and what has just happened. A new rule is a function and its name in one of
the lists at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.errors import BadJob
from queuectl.job.history import CANCELLED, FAILED, LOST, OUTCOMES, STARTED
from queuectl.job.model import ACTIVE, State
from queuectl.spool import jobfile, liveness, tokens
from queuectl.spool.names import AFTER, FIFO_RANK, HELD, id_in, is_made_id, name_in, parse_claim, rank_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.auditor import Auditor, Move, Place
    from tests.simulation.commands import Run
    from tests.simulation.files import Inode
    from tests.simulation.world import Process, World

PAUSED = "/spool/workers/paused"
LEASE, POLL = 6.0, 2.0
#: How many slots each group has.
SLOTS = {"single": 1, "pair": 2}
#: Seconds within which a worker that nothing hinders hears a request, and within which two clocks that
#: nobody sets agree.
HEARS, AGREES = 6.0, 2.5


# ── each id in one place ──────────────────────────────────────────────────────────────────────


def each_id_is_in_one_directory(audit: Auditor, move: Move) -> str | None:
    job_id = move.after.name.id if move.after else None
    if job_id is None or job_id in audit.unreserved:
        return None
    if len(here := audit.places[job_id]) > 1:
        return f"job {job_id} is in two places: {sorted(here)}"
    return None


def nothing_printed_is_removed(audit: Auditor, move: Move) -> str | None:
    if move.before and move.target is None and move.before.name.id in audit.printed:
        return f"the file of job {move.before.name.id} is removed: {move.source}"
    return None


def no_id_is_in_two_places_after_a_cut(audit: Auditor, _: None) -> str | None:
    twice = {job_id: paths for job_id, paths in audit.places.items() if len(paths) > 1}
    return f"jobs are in two places after a power cut: {twice}" if twice else None


def nothing_printed_is_lost(audit: Auditor, _: None) -> str | None:
    halves = (text[1:-4] for text in audit.world.disk.tree("/spool/processing") if text[0] == ".")
    rewritten = {name.id for name in map(parse_claim, halves) if name}
    lost = {job_id for job_id in audit.printed - rewritten if not audit.places.get(job_id)}
    return f"jobs whose ids were printed are nowhere: {sorted(lost)}" if lost else None


def what_was_refused_is_not_there(audit: Auditor, _: None) -> str | None:
    there = {job_id: audit.places[job_id] for job_id in audit.refused if audit.places.get(job_id)}
    return f"jobs were refused, and are there: {there}" if there else None


# ── claims ────────────────────────────────────────────────────────────────────────────────────


def a_claim_bears_the_name_of_who_makes_it(audit: Auditor, move: Move) -> str | None:
    target = move.target or ""
    if move.source is None or not target.startswith("/spool/processing/") or target[18:19] == ".":
        return None
    if move.source.startswith("/spool/processing/."):  # a rewrite, or one that is undone
        return None
    owner = move.after.name.owner if move.after else None
    if owner is None or audit.owners.get(owner) is not move.who:
        return f"{move.who} makes the claim {target}"
    return None


def no_claim_is_forgotten(audit: Auditor, move: Move) -> str | None:
    """A claim that was made and never ran, while its worker makes another: it believed a wrong answer."""
    who, after = move.who, move.after
    if who is None or who.what != "worker" or not (move.before and after):
        return None
    if move.before.state is State.PROCESSING or after.state is not State.PROCESSING:
        return None
    for path in audit.claims_of(after.name.owner or ""):
        place = audit.place(path)
        if place is None or path == after.path or not who.was_free_since(audit.since[path]):
            continue
        runs = audit.world.runs.get(place.name.id, ())
        if audit.sources.get(path) and not any(path.endswith(f"/{run.claim}") for run in runs):
            return f"{who} claims {move.source} and has forgotten its claim {path}"
    return None


def a_live_worker_keeps_its_claims(audit: Auditor, move: Move) -> str | None:
    if move.before is None or move.before.state is not State.PROCESSING:
        return None
    return _is_robbed(audit, move.before.name.owner or "", move)


def a_live_worker_keeps_its_description(audit: Auditor, move: Move) -> str | None:
    if not move.source or not move.source.startswith("/spool/workers/") or not move.source.endswith(".yaml"):
        return None
    return _is_robbed(audit, move.source[len("/spool/workers/") : -len(".yaml")], move)


def _is_robbed(audit: Auditor, owner: str, move: Move) -> str | None:
    """An owner lives while its process does and, on a share, its beat reached the disk lately."""
    process, who = audit.owners.get(owner), move.who
    if process is None or process is who or process.is_dead or who is None or process.what != "worker":
        return None
    told = f"{who} takes {move.source} from {process}, which lives"
    if audit.world.share.kind == "ext4":
        return told
    now = audit.world.time
    recently = now - liveness.confirmation(LEASE) / 2
    was_silent = audit.silent_until.get(owner, float("-inf")) > now - HEARS
    if audit.beaten[owner] > recently and who.was_free_since(recently - LEASE) and not was_silent:
        return f"{told} and beat {now - audit.beaten[owner]:.1f} s ago"
    return None


def nothing_is_claimed_while_paused(audit: Auditor, move: Move) -> str | None:
    since, who = audit.asked.get(PAUSED), move.who
    if since is None or who is None or who.what != "worker" or not (move.before and move.after):
        return None
    if move.before.state is State.PROCESSING or move.after.state is not State.PROCESSING:
        return None
    if move.after.name.parked:
        return None  # it is released, not claimed
    if since < audit.world.time - _hearing(audit) and who.was_free_since(since):
        return f"{who} claims {move.source} {audit.world.time - since:.1f} s after a pause"
    return None


def _hearing(audit: Auditor) -> float:
    return HEARS + audit.world.share.stale_listing


def only_the_holder_writes(audit: Auditor, event: tuple[Process, Inode]) -> str | None:
    process, inode = event
    place = audit.place(inode.path)
    if place is None or not process.was_free_since(audit.world.time - 1.0):
        return None  # who was held up between an open and a write cannot know of a rename in between
    if place.state is not State.PROCESSING:
        return f"{process} writes to {inode.path}, which nobody holds"
    if audit.owners.get(place.name.owner or "") is not process:
        return f"{process} writes to {inode.path}, which is another's"
    return None


# ── runs ──────────────────────────────────────────────────────────────────────────────────────


def one_run_at_a_time_on_a_host(audit: Auditor, run: Run) -> str | None:
    """A server that lost its power may have forgotten the claim of a run: then nobody can see the run."""
    if any(other.began > audit.cut_at for other in audit.world.running(run.job_id, run.machine)):
        return f"{run.process} runs job {run.job_id} while a run of it goes on on the same host"
    return None


def two_hosts_run_a_job_only_where_one_cannot_be_seen(audit: Auditor, run: Run) -> str | None:
    """Nothing of a worker that is cut off runs once the lease is over; of one that is stopped it may."""
    for other in audit.world.running(run.job_id):
        process = other.process
        if process.is_dead or process.stopped_until > audit.world.time - LEASE or other.began <= audit.cut_at:
            continue
        return f"{run.process} runs job {run.job_id}, and {process}, which was not stopped, does so too"
    return None


def no_attempt_begins_twice(audit: Auditor, run: Run) -> str | None:
    """But where a power cut took the claim of the first run, and its log."""
    if audit.began.get((run.job_id, run.attempt), float("-inf")) > audit.cut_at:
        return f"{run.process} runs attempt {run.attempt} of job {run.job_id} for the second time"
    return None


def what_runs_is_held(audit: Auditor, run: Run) -> str | None:
    """A claim may be forgotten that was made before a power cut of the server."""
    made = audit.since.get(f"/spool/processing/{run.claim}", float("inf"))
    if audit.claim_of(run) is None and made > audit.cut_at:
        where = sorted(audit.places.get(run.job_id, ()))
        return f"{run.process} runs job {run.job_id}, which is not its own: {where}"
    return None


def only_whole_files_run(audit: Auditor, run: Run) -> str | None:
    """On a share a file counts as whole once it stands still; a power cut may halve what was not synced."""
    inode = audit.world.disk.find(audit.claim_of(run) or "")
    if run.text.endswith(" end") or inode is None or inode in audit.torn:
        return None
    writer, at = audit.writers.get(inode, (None, float("inf")))
    if at <= audit.cut_at or (writer is not None and not writer.was_free_since(at - LEASE)):
        audit.torn.add(inode)
        return None
    return f"{run.process} runs half of a file: {run.text!r}"


def no_group_runs_more_than_it_has_slots(audit: Auditor, run: Run) -> str | None:
    """But for a run that another host cannot see: its worker has died or stood still."""
    mine, world = audit.place(audit.claim_of(run)), audit.world
    if mine is None or mine.name.group is None or audit.cuts:
        return None
    taken = mine.name.slots
    for other in (other for runs in world.runs.values() for other in runs if other.is_running(world.time)):
        name, process = parse_claim(other.claim), other.process
        is_unseen = process.is_dead or process.stopped_until > world.time - LEASE
        if name and name.group == mine.name.group and not (is_unseen and world.share.kind != "ext4"):
            taken += name.slots
    if taken > SLOTS[mine.name.group]:
        return f"{run.process} runs {run.job_id}, and the group {mine.name.group} has {taken} slots in use"
    return None


def a_slot_is_free_once_its_run_has_been_ended(audit: Auditor, move: Move) -> str | None:
    """A power cut may bring back the claim and the slots of a run that has ended."""
    folder, _, text = (move.source or "").rpartition("/")
    token = tokens.parse(text) if folder.startswith("/spool/groups/") else None
    if token is None or token.owner is None or f"@{token.owner}" in (move.target or ""):
        return None
    group, ran = folder.rpartition("/")[2], audit.world.runs
    claims = [audit.place(path) for path in audit.claims_of(token.owner)]
    begun = [
        place.name.slots
        for place in claims
        if place and place.name.group == group
        for run in ran.get(place.name.id, ())
        if place.path.endswith(f"/{run.claim}")
        if run.is_running(audit.world.time) or run.began > audit.cut_at
    ]
    left = sum(one.owner == token.owner for one in tokens.among(audit.world.disk.tree(folder)))
    if sum(begun) > left:
        return f"{move.who} gives back {move.source}, whose owner has a claim in that group"
    return None


def a_run_is_under_the_name_that_its_content_asks_for(audit: Auditor, run: Run) -> str | None:
    path = audit.claim_of(run)
    if path is None or (inode := audit.world.disk.find(path)) is None or inode not in audit.writers:
        return None
    if audit.writers[inode][1] > audit.since[path] - AGREES or not audit.writers[inode][0].is_dead:
        return None  # it was edited after the claim
    try:
        priority = jobfile.parse(inode.data).job.priority
    except BadJob:
        return None
    place = audit.place(path)
    if priority is None or place is None or place.name.rank == FIFO_RANK:
        return None
    if place.name.rank != rank_of(priority, fifo=False):
        return f"{run.process} runs {path}, whose content says priority {priority}"
    return None


def no_run_begins_early(audit: Auditor, run: Run) -> str | None:
    path = audit.claim_of(run)
    place = audit.place(path)
    if place is None or any(machine.clock_was_set for machine in audit.world.machines):
        return None
    early = (place.name.due_at - audit.world.true_time()).total_seconds()
    return f"{run.process} runs {path} {early:.1f} s early" if early > AGREES else None


def an_urgent_job_is_not_passed_over(audit: Auditor, run: Run) -> str | None:
    """By what the worker could know: it lists every `poll_interval`."""
    path = audit.claim_of(run)
    mine, process, world = audit.place(path), run.process, audit.world
    if mine is None or path is None or process.hindered_until > 0 or run.machine.clock_was_set:
        return None
    known = audit.since[path] - 2 * POLL - world.share.stale_listing - AGREES
    for place in audit.waiting():
        if (
            place.name.group is None
            and place.name.rank < mine.name.rank
            and _is_due_since(audit, place, known)
        ):
            return f"{process} runs {path}, and {place.path} waits"
    return None


def _is_due_since(audit: Auditor, place: Place, moment: float) -> bool:
    world = audit.world
    inode = world.disk.find(place.path)
    if inode is None or inode in audit.writers or audit.since[place.path] > moment:
        return False
    if place.path in audit.left and world.share.kind != "ext4":
        return False  # a person has put it back under its name
    return place.name.due_at <= world.true_time(moment)


def one_job_of_a_unique_key_runs_at_a_time(audit: Auditor, run: Run) -> str | None:
    """A power cut may bring a job back that had ended, and its run with it."""
    inode = audit.world.disk.find(audit.claim_of(run) or "")
    try:
        job = jobfile.parse(inode.data).job if inode else None
    except BadJob:
        return None
    if job is None or job.unique is None or job.unique_for not in {None, ACTIVE} or audit.cuts:
        return None
    audit.keys[run] = job.unique
    for other, key in audit.keys.items():
        process = other.process
        if other.job_id == run.job_id or key != job.unique or not other.is_running(audit.world.time):
            continue
        if not process.is_dead and process.stopped_until <= audit.world.time - LEASE:
            return f"{run.process} runs job {run.job_id} while job {other.job_id} with its key runs"
    return None


def no_slot_has_two_jobs(audit: Auditor, run: Run) -> str | None:
    """On a share a command may outlive its worker's host, which nobody can see then."""
    world, is_alone = audit.world, audit.world.share.kind == "ext4"
    if run.group is None or audit.cuts:
        return None
    if not run.slots:
        return f"{run.process} runs job {run.job_id} of a group without a slot"
    for other in (one for runs in world.runs.values() for one in runs):
        shared = run.slots & other.slots if other.group == run.group else None
        if other is run or not shared or not other.is_running(world.time):
            continue
        is_unseen = other.process.is_dead or other.process.stopped_until > world.time - LEASE
        if is_alone or not is_unseen:
            return f"{run.process} runs job {run.job_id} in a slot of job {other.job_id}: {shared}"
    return None


def who_is_said_to_have_a_key_is_there(audit: Auditor, job_id: str) -> str | None:
    drafts = (id_in(text) for text in audit.world.disk.tree("/spool/pending") if text[0] == ".")
    if audit.places.get(job_id) or audit.cuts or job_id in drafts:
        return None
    return f"a person is told that job {job_id} has a key, and it is nowhere"


# ── holds ─────────────────────────────────────────────────────────────────────────────────────


def a_held_job_never_starts(audit: Auditor, run: Run) -> str | None:
    place = audit.place(audit.claim_of(run))
    return f"{run.process} runs {place.path}, which is parked" if place and place.name.parked else None


def only_a_person_ends_a_hold(_: Auditor, move: Move) -> str | None:
    before, after = move.before, move.after
    if before is None or after is None or before.name.parked != HELD or move.who is None:
        return None
    if move.who.what != "worker" or after.name.parked == HELD or after.state is State.DEAD:
        return None  # a cancellation that was recorded is finished by whoever finds it
    return f"{move.who} moves {move.source}, which a person holds, to {move.target}"


# ── how things end ────────────────────────────────────────────────────────────────────────────


# ── jobs after jobs ───────────────────────────────────────────────────────────────────────────

_WANTED: Mapping[str, frozenset[str | None]] = {
    "ok": frozenset({"ok"}),
    "failed": frozenset({"failed", None}),
    "any": frozenset({"ok", "failed", "cancelled", None}),
}


def end_of(audit: Auditor, place: Place) -> str | None:
    """How a job ended that lies there; None for one in dead/ whose file does not say."""
    if place.state is State.DONE:
        return "ok"
    inode = audit.world.disk.find(place.path)
    try:
        history = jobfile.parse(inode.data).job.history if inode else ()
    except BadJob:
        return None
    last = history[-1].get("event") if history else None
    return {CANCELLED: "cancelled", FAILED: "failed", LOST: "failed"}.get(last or "")


def no_job_starts_before_what_it_waits_for_has_ended(audit: Auditor, run: Run) -> str | None:
    """An ending counts that lasted until the job was filed, as far as a listing may be old."""
    inode = audit.world.disk.find(audit.claim_of(run) or "")
    if run.job_id in audit.let_go:
        return None
    try:
        wanted = jobfile.parse(inode.data).job.after if inode else {}
    except BadJob:
        return None
    known = audit.first.get(run.job_id, 0.0) - AGREES - audit.world.share.stale_listing
    for job_id, how in wanted.items():
        if not any(end in _WANTED[how] and until >= known for end, until in audit.ended.get(job_id, ())):
            return f"{run.process} runs {run.job_id}, which waits for {job_id}: {audit.ended.get(job_id)}"
    return None


def may_stay(audit: Auditor, path: str) -> bool:
    """Whether a job that is parked behind others has not what it waits for, as things are."""
    inode, place = audit.world.disk.find(path), audit.place(path)
    if inode is None or place is None or not (place.name.parked or "").startswith(AFTER):
        return False
    try:
        wanted = jobfile.parse(inode.data).job.after
    except BadJob:
        return False
    return not all(_is_met(audit, job_id, how) for job_id, how in wanted.items())


def _is_met(audit: Auditor, job_id: str, how: str) -> bool:
    places = [place for path in audit.places.get(job_id, ()) if (place := audit.place(path))]
    ends = [end_of(audit, place) for place in places if place.state in {State.DONE, State.DEAD}]
    return bool(ends) and ends[0] in _WANTED[how] - {None}


def done_means_that_a_run_ended_with_success(audit: Auditor, move: Move) -> str | None:
    if move.after is None or move.after.state is not State.DONE:
        return None
    now, runs = audit.world.time, audit.world.runs.get(move.after.name.id, ())
    if any(run.code == 0 and not run.was_stopped and not run.is_running(now) for run in runs):
        return None
    return f"job {move.after.name.id} comes to done/ and no run of it ended with status 0"


def a_request_to_cancel_is_heard(audit: Auditor, path: str) -> str | None:
    """It goes with who made it or with the worker. The run that it names has ended long before."""
    since, now = audit.asked.get(path), audit.world.time
    claim = path[len("/spool/workers/") : -len(".cancel")]
    if since is None or since > now - _hearing(audit) or path == PAUSED:
        return None
    for runs in audit.world.runs.values():
        for run in runs:
            is_meant = run.claim == f"{claim}.yaml" and run.is_running(now) and run.began < since
            if is_meant and not run.process.is_dead and run.process.was_free_since(since - LEASE):
                return f"{run.process} runs {claim}, which was to end {now - since:.1f} s ago"
    return None


def slots_in_use(world: World) -> list[str]:
    """The slots that somebody has."""
    folders = world.disk.find("/spool/groups")
    names = [name for name in folders.names or () if name[0] != "."] if folders else []
    return [text for name in names for text in world.disk.tree(f"/spool/groups/{name}") if "@" in text]


def every_slot_comes_back(audit: Auditor, _: None) -> str | None:
    left = slots_in_use(audit.world)
    return f"slots are in use, and no job has them: {left}" if left else None


def everything_ends(audit: Auditor, _: None) -> str | None:
    for job_id, paths in audit.places.items():
        for path in paths:
            if not path.startswith(("/spool/done/", "/spool/dead/")) and not may_stay(audit, path):
                return f"job {job_id} never ends: it is still {path}"
    there = [text for text in audit.world.disk.tree("/spool/pending") if not text.startswith(".")]
    left = [text for text in there if name_in(State.PENDING, text) is None]
    return f"dropped files are not taken in: {left}" if left else None


def an_attempt_has_one_outcome(audit: Auditor, _: None) -> str | None:
    """A power cut may take lines of a history that was written before."""
    for job_id, path in ((job_id, path) for job_id, paths in audit.places.items() for path in paths):
        if any(run.began <= audit.cut_at for run in audit.world.runs.get(job_id, ())):
            continue
        inode = audit.world.disk.find(path)
        if inode is None or inode in audit.writers:
            continue
        try:
            history = jobfile.parse(inode.data).job.history
        except BadJob:
            continue
        ended: set[object] = set()
        for event in history:
            kind, attempt = event.get("event"), event.get("attempt")
            if attempt is not None and kind in OUTCOMES | {STARTED} and attempt in ended:
                return f"{path} has an event of attempt {attempt} after its outcome: {history}"
            if kind in OUTCOMES:
                ended.add(attempt)
    return None


def what_belongs_to_a_job_stays(audit: Auditor, _: None) -> str | None:
    """The reservation of its id, and the log of each run. A power cut may take them."""
    if audit.cuts:
        return None
    find = audit.world.disk.find
    for job_id in audit.printed - audit.unreserved:
        if not is_made_id(job_id) and find(f"/spool/ids/{job_id}.id") is None:
            return f"the id {job_id} is free, and its job is there: {sorted(audit.places[job_id])}"
    for job_id, runs in audit.world.runs.items():
        for run in runs:
            if find(f"/spool/logs/{job_id}.{run.attempt}.err") is None:
                return f"the log of attempt {run.attempt} of {job_id} is gone: {sorted(audit.places[job_id])}"
    return None


def who_is_asked_to_stop_ends(audit: Auditor, _: None) -> str | None:
    left = [process for process in audit.world.processes if process.is_to_end()]
    return f"workers were asked to stop and have not ended: {', '.join(map(str, left))}" if left else None


BEFORE_A_MOVE_COUNTS = (nothing_is_claimed_while_paused,)
ON_MOVES = (
    each_id_is_in_one_directory,
    nothing_printed_is_removed,
    a_claim_bears_the_name_of_who_makes_it,
    no_claim_is_forgotten,
    a_live_worker_keeps_its_claims,
    a_live_worker_keeps_its_description,
    done_means_that_a_run_ended_with_success,
    only_a_person_ends_a_hold,
    a_slot_is_free_once_its_run_has_been_ended,
)
ON_WRITES = (only_the_holder_writes,)
ON_STARTS = (
    one_run_at_a_time_on_a_host,
    two_hosts_run_a_job_only_where_one_cannot_be_seen,
    no_attempt_begins_twice,
    what_runs_is_held,
    only_whole_files_run,
    no_group_runs_more_than_it_has_slots,
    a_run_is_under_the_name_that_its_content_asks_for,
    no_run_begins_early,
    an_urgent_job_is_not_passed_over,
    one_job_of_a_unique_key_runs_at_a_time,
    a_held_job_never_starts,
    no_slot_has_two_jobs,
    no_job_starts_before_what_it_waits_for_has_ended,
)
ON_CONFLICTS = (who_is_said_to_have_a_key_is_there,)
BEFORE_A_REQUEST_GOES = (a_request_to_cancel_is_heard,)
AFTER_A_CUT = (no_id_is_in_two_places_after_a_cut, nothing_printed_is_lost)
AT_THE_END = (
    nothing_printed_is_lost,
    everything_ends,
    every_slot_comes_back,
    what_was_refused_is_not_there,
    an_attempt_has_one_outcome,
    what_belongs_to_a_job_stays,
    who_is_asked_to_stop_ends,
)
