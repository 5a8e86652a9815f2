"""What is known of a world at each step. There the rules are asked; a broken one ends the schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from queuectl.job.model import State
from queuectl.spool.names import Name, name_in
from tests.simulation import rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.commands import Run
    from tests.simulation.files import Inode
    from tests.simulation.world import Process, World

_STATES = {f"/spool/{state}": state for state in State}


class Violation(Exception):
    """A promise that a schedule broke."""


class Place(NamedTuple):
    """Where a job's file is: its path, and what that says."""

    path: str
    state: State
    name: Name


class Move(NamedTuple):
    """A change of names that has just been made. `who` is None where the file system made it by itself."""

    who: Process | None
    source: str | None
    target: str | None
    before: Place | None
    after: Place | None


class Auditor:
    """Keeps account of jobs, owners, beats and requests, and asks the rules at each step."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._known: dict[str, Place | None] = {}
        #: The paths of each job by its id, and since when each has its file.
        self.places: dict[str, set[str]] = {}
        self.since: dict[str, float] = {}
        #: The paths that a job has left: on a share a worker passes such a name over for a while.
        self.left: set[str] = set()
        #: When each job was first there, and how it has ended so far: how, and until when it lay there.
        self.first: dict[str, float] = {}
        self.ended: dict[str, list[tuple[str | None, float]]] = {}
        #: The ids of jobs that a person has let start whatever they wait for.
        self.let_go: set[str] = set()
        #: Where each file came from under a job's name; None for a dropped file or a draft.
        self.sources: dict[str, Place | None] = {}
        #: The process behind each owner's name, and when the beat of each last reached the disk.
        self.owners: dict[str, Process] = {}
        self.beaten: dict[str, float] = {}
        #: When the last long silence of each ended: who has watched it may not know that yet.
        self.silent_until: dict[str, float] = {}
        #: Ids whose filing was answered with success, and those whose filing was refused.
        self.printed: set[str] = set()
        self.refused: set[str] = set()
        #: How often content or names were lost with the server's or the host's power.
        self.cuts, self.cut_at = 0, float("-inf")
        #: Ids whose reservations a power cut took: two files that people drop may get one of them.
        self.unreserved: set[str] = set()
        #: Each attempt that has begun, and when its claim was made.
        self.began: dict[tuple[str, int], float] = {}
        #: The unique key that each run has for as long as its job waits or runs.
        self.keys: dict[Run, str] = {}
        #: Requests in workers/ by their paths, and since when they are there.
        self.asked: dict[str, float] = {}
        #: Who changed each file from outside the queue, and when last: editors, `cp`.
        self.writers: dict[Inode, tuple[Process, float]] = {}
        #: Halves that nobody can tell from whole files: their writer was held up, or met a full disk, or its
        #: server lost a part of the draft, and whether its client says so at the next sync is not measured.
        self.torn: set[Inode] = set()

    def place(self, path: str | None) -> Place | None:
        """A job's file by its path; None for any other path."""
        if path is None:
            return None
        if path not in self._known:
            folder, _, text = path.rpartition("/")
            state = _STATES.get(folder)
            name = None if state is None else name_in(state, text)
            self._known[path] = None if state is None or name is None else Place(path, state, name)
        return self._known[path]

    def claim_of(self, run: Run) -> str | None:
        """The path of the claim that a run was begun under, while it lasts."""
        path = f"/spool/processing/{run.claim}"
        return path if path in self.places.get(run.job_id, ()) else None

    def claims_of(self, owner: str) -> list[str]:
        """The paths of the claims that an owner holds."""
        ending = f"@{owner}.yaml"
        return [path for paths in self.places.values() for path in paths if path.endswith(ending)]

    def waiting(self) -> Iterator[Place]:
        """The jobs that wait and are not parked."""
        for paths in self.places.values():
            for path in paths:
                place = self.place(path)
                is_waiting = place is not None and place.state in {State.PENDING, State.FAILED}
                if place is not None and is_waiting and place.name.parked is None:
                    yield place

    # ── what happens ──────────────────────────────────────────────────────────────────────

    def moved(self, source: str | None, target: str | None) -> None:
        """Hear of a change of names."""
        move = Move(self.world.actor, source, target, self.place(source), self.place(target))
        self._ask(rules.BEFORE_A_MOVE_COUNTS, move)
        now = self.world.time
        if move.before:
            self.places.get(move.before.name.id, set()).discard(move.before.path)
            self.left.add(move.before.path)
            if move.before.state in {State.DONE, State.DEAD} and (
                ends := self.ended.get(move.before.name.id)
            ):
                ends[-1] = ends[-1][0], now
        if move.after:
            self.places.setdefault(move.after.name.id, set()).add(move.after.path)
            self.since[move.after.path] = now
            self.sources[move.after.path] = move.before
            self.first.setdefault(move.after.name.id, now)
            if move.after.state in {State.DONE, State.DEAD}:
                how = rules.end_of(self, move.after)
                self.ended.setdefault(move.after.name.id, []).append((how, float("inf")))
        for path in (source, target):
            if path is not None and path.startswith("/spool/workers/"):
                self._note_presence(path, is_there=path == target)
        self._ask(rules.ON_MOVES, move)

    def _note_presence(self, path: str, *, is_there: bool) -> None:
        owner, _, ending = path[len("/spool/workers/") :].rpartition(".")
        if ending == "yaml" and is_there:
            self.owners[owner], self.beaten[owner] = self.world.current, self.world.time
        elif ending == "cancel" or path == rules.PAUSED:
            if is_there:
                self.asked[path] = self.world.time
            else:
                self._ask(rules.BEFORE_A_REQUEST_GOES, path)
                self.asked.pop(path, None)

    def wrote(self, process: Process, inode: Inode) -> None:
        """Hear of a change of content by a process."""
        if process.what in {"editor", "copier"}:
            self.writers[inode] = process, self.world.time
        else:
            self._ask(rules.ON_WRITES, (process, inode))
        self.arrived(inode)

    def arrived(self, inode: Inode) -> None:
        """Hear of bytes that reach the disk, late ones included: they may be a beat."""
        if inode.path and inode.path.startswith("/spool/workers/"):
            owner, now = inode.path[len("/spool/workers/") : -len(".yaml")], self.world.time
            if now - self.beaten.get(owner, now) > rules.LEASE / 2:
                self.silent_until[owner] = now
            self.beaten[owner] = now

    def begins(self, run: Run) -> None:
        """Hear of a command's start."""
        self._ask(rules.ON_STARTS, run)
        self.began[run.job_id, run.attempt] = self.since.get(
            f"/spool/processing/{run.claim}", self.world.time
        )

    def told_of_holder(self, job_id: str) -> None:
        """Hear that a person was told that this job has a unique key."""
        self._ask(rules.ON_CONFLICTS, job_id)

    def refuse(self, job_id: str) -> None:
        """Hear that a filing was refused: the job is not there, and never comes."""
        if self.places.get(job_id):
            raise Violation(f"job {job_id} was refused, and is there: {self.places[job_id]}")
        self.refused.add(job_id)

    def lost_power(self) -> None:
        """Look at what is left after content and names were lost."""
        self.cuts, self.cut_at = self.cuts + 1, self.world.time
        before, self.places = self.places, {}
        tree = self.world.disk.tree
        for state in State:
            for text in tree(f"/spool/{state}"):
                if place := self.place(f"/spool/{state}/{text}"):
                    job_id = place.name.id
                    self.places.setdefault(job_id, set()).add(place.path)
                    if place.path not in before.get(job_id, ()):
                        self.since[place.path] = self.cut_at
        drafts = (f"/spool/pending/{text}" for text in tree("/spool/pending") if text[0] == ".")
        self.torn.update(inode for path in drafts if (inode := self.world.disk.find(path)))
        here = {f"/spool/workers/{text}" for text in tree("/spool/workers")}
        self.asked = {path: at for path, at in self.asked.items() if path in here}
        if self.world.disk.find("/spool/ids"):
            self.unreserved |= self.places.keys() - {text[:-3] for text in tree("/spool/ids")}
        self._ask(rules.AFTER_A_CUT, None)

    def at_the_end(self) -> None:
        """Once all faults are over and time has passed."""
        self._ask(rules.AT_THE_END, None)

    def _ask(self, asked: tuple[Callable[..., str | None], ...], event: object) -> None:
        for rule in asked:
            if wrong := rule(self, event):
                raise Violation(f"{wrong} ({rule.__name__})")
