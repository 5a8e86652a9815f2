"""What must hold after every step, whatever happened before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl.job.model import State
from queuectl.spool.names import Name, parse, parse_claim

if TYPE_CHECKING:
    from tests.simulation.files import Inode
    from tests.simulation.world import Process, Run, World

_STATES = {f"/spool/{state}/": state for state in State}


class Violation(Exception):
    """A promise that a schedule broke."""


class Auditor:
    """Keeps account of where each job is, and raises `Violation` at the step that breaks a promise."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, tuple[State, Name] | None] = {}
        self.places: dict[str, set[str]] = {}
        #: Ids whose filing was answered with success, and those that a person has deleted since.
        self.printed: set[str] = set()
        self.refused: set[str] = set()
        #: How often names were lost with the server's or the host's power.
        self.cuts = 0
        self._began: dict[tuple[str, int], int] = {}

    def job_at(self, path: str | None) -> tuple[State, Name] | None:
        """The state and the name of a job's file, None for any other path."""
        if path is None:
            return None
        if path not in self._known:
            folder, _, text = path.rpartition("/")
            state = _STATES.get(f"{folder}/")
            name = None
            if state is not None:
                name = parse_claim(text) if state is State.PROCESSING else parse(text)
            self._known[path] = None if state is None or name is None else (state, name)
        return self._known[path]

    def names(self, _: Inode, source: str | None, target: str | None) -> None:
        """Hear of a change of names: each id is in one directory, and nothing that was printed goes."""
        before, after = self.job_at(source), self.job_at(target)
        if source and before:
            self.places.get(before[1].id, set()).discard(source)
        if target and after:
            job_id = after[1].id
            here = self.places.setdefault(job_id, set())
            here.add(target)
            if len(here) > 1:
                raise Violation(f"job {job_id} is in two places: {sorted(here)}")
            if after[0] is State.DONE:
                self._ended_well(job_id)
        if before and target is None and before[1].id in self.printed:
            raise Violation(f"the file of job {before[1].id} is removed: {source}")

    def _ended_well(self, job_id: str) -> None:
        now = self._world.time
        if not any(
            run.code == 0 and not run.was_stopped and not run.is_running(now)
            for run in self._world.runs.get(job_id, ())
        ):
            raise Violation(f"job {job_id} comes to done/ and no run of it ended with status 0")

    def wrote(self, process: Process, inode: Inode) -> None:
        """Hear of a change of content: only who holds a claim changes a job's file."""
        found = self.job_at(inode.path)
        if found is None or process.what == "editor":
            return
        state, name = found
        if state is not State.PROCESSING:
            raise Violation(f"{process} writes to {inode.path}, which nobody holds")
        if not (name.owner or "").startswith(f"{process.machine.name}-{process.pid}-"):
            raise Violation(f"{process} writes to {inode.path}, which is another's")

    def begins(self, process: Process, run: Run) -> None:
        """Hear of a command's start: it is the only one here, of a new attempt, of a job that is held."""
        others = self._world.running(run.job_id, run.machine)
        if others:
            raise Violation(f"{process} runs job {run.job_id} while a run of it goes on on the same host")
        key = (run.job_id, run.attempt)
        if self._began.get(key) == self.cuts:
            raise Violation(f"{process} runs attempt {run.attempt} of job {run.job_id} for the second time")
        self._began[key] = self.cuts
        held = [path for path in self.places.get(run.job_id, ()) if "/processing/" in path]
        if not any(f"@{process.machine.name}-{process.pid}-" in path for path in held) and not self.cuts:
            where = sorted(self.places.get(run.job_id, ()))
            raise Violation(f"{process} runs job {run.job_id}, which is not its own: {where}")

    def refuse(self, job_id: str) -> None:
        """Hear that a filing was refused: the job is not there, and never comes."""
        if self.places.get(job_id):
            raise Violation(f"job {job_id} was refused, and is there: {self.places[job_id]}")
        self.refused.add(job_id)

    def lost_power(self) -> None:
        """Look at what is left after names were lost."""
        self.cuts += 1
        self.places = {}
        for state in State:
            for text in self._world.disk.tree(f"/spool/{state}"):
                path = f"/spool/{state}/{text}"
                if found := self.job_at(path):
                    here = self.places.setdefault(found[1].id, set())
                    here.add(path)
                    if len(here) > 1:
                        raise Violation(f"job {found[1].id} is in two places after a power cut: {here}")
        self._all_there()

    def _all_there(self) -> None:
        halves = {
            text[1:-4]
            for text in self._world.disk.tree("/spool/processing")
            if text.endswith((".old", ".new"))
        }
        rewritten = {name.id for name in map(parse_claim, halves) if name}
        for job_id in self.printed - rewritten:
            if not self.places.get(job_id):
                raise Violation(f"job {job_id}, whose id was printed, is nowhere")

    def at_the_end(self) -> None:
        """Once all faults are over and time has passed: nothing waits that could run, nothing is lost."""
        self._all_there()
        for job_id, paths in self.places.items():
            for path in paths:
                if not path.startswith(("/spool/done/", "/spool/dead/")):
                    raise Violation(f"job {job_id} never ends: it is still {path}")
        left = [text for text in self._world.disk.tree("/spool/pending") if not text.startswith(".")]
        if left:
            raise Violation(f"dropped files are not taken in: {left}")
        for job_id in self.refused:
            if self.places.get(job_id):
                raise Violation(f"job {job_id} was refused, and is there: {self.places[job_id]}")
