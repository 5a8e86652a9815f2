"""`Spool`, the Python API of a queue, which the command line and the dashboard use, too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime

from queuectl import documents, settings, times
from queuectl.errors import CannotRun, JobMoved, NoSuchJob, QueueError, StorageTrouble
from queuectl.job.fields import from_fields
from queuectl.job.model import Job
from queuectl.spool import safety
from queuectl.spool.names import HELD
from queuectl.times import utc_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from queuectl.spool.acts import Change, Hand
    from queuectl.spool.filing import Filed, Gate
    from queuectl.spool.jobs import Found
    from queuectl.spool.moving import Target
    from queuectl.spool.root import Root
    from queuectl.view.groups import Group
    from queuectl.worker.member import Member


class Spool:
    """A spool directory. `Spool(path)` opens one; `Spool.create(path)` makes one.

    Raises `NotASpool` where there is no config.yaml, `UnsafeSpool` where others could write.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.root: Root = safety.open_root(path)
        self.clock = clock
        #: The settings, read again when config.yaml has changed.
        self.live = settings.Live(self.root.text, self.root.medium)
        self._warned: str | None = None

    @classmethod
    def create(cls, path: str | Path, *, shared: bool = False) -> Spool:
        """Make a spool, private to its owner or shared by its directory's group, and open it.

        An existing spool is opened, and becomes shared if `shared` is true. Raises `QueueError` below a
        mount point of /etc/fstab that is not mounted, and for a directory with other files.
        """
        import shlex

        from queuectl.spool import creation  # a plain `enqueue` makes no spool
        from queuectl.system import mounts

        place = os.path.abspath(path)
        if not os.path.exists(f"{place}/{settings.FILE}") and (point := mounts.unmounted_at(place)):
            raise QueueError(
                f"{place} would be hidden: /etc/fstab has a mount for {point}, which is not mounted now.",
                f"Run `mount {shlex.quote(point)}`, then try again.",
            )
        return cls(creation.create(path, creation.SHARED if shared else None).text)

    @property
    def path(self) -> Path:
        """The absolute path of the directory."""
        return self.root.path

    def settings(self) -> settings.Settings:
        """The settings in force. Invalid values have their defaults and are logged once as a warning.

        Raises `BrokenConfig` if config.yaml is not a regular file, and `PermissionError`.
        """
        values = self.live.now()
        if self.live.trouble is None or self.live.trouble == self._warned:
            return values
        settings.readable(self.root.text)
        import logging

        logging.getLogger("queuectl").warning("Warning: %s", self.live.trouble)
        self._warned = self.live.trouble
        return values

    def file(self, job: Job | str | Mapping[str, object]) -> str:
        """File one job (a `Job`, a shell command, or a mapping of fields); returns its id.

        While another job has its unique key, nothing is filed and the id of that job is returned.
        The job is synced to disk when this returns, unless `durability` is none. `IdTaken`, `BadJob` and
        `StorageTrouble` mean that nothing was filed. `FiledAllTheSame` means that the last sync failed
        and the job could not be withdrawn.
        """
        (filed,) = self.file_many([job])
        if filed.error:
            raise filed.error
        return filed.id

    def file_many(
        self,
        jobs: Iterable[Job | str | Mapping[str, object]],
        *,
        after_unfiled: bool = False,
        held: bool = False,
    ) -> Iterator[Filed]:
        """File jobs in order, with one sync for many; yields a `Filed` for each once it is on disk.

        A job may wait for ids that nobody has filed yet if `after_unfiled` is true. If `held` is true no
        job starts before its `release`.
        """
        return self.file_checked(map(_job, jobs), after_unfiled=after_unfiled, held=held)

    def file_checked(
        self, jobs: Iterable[Job], *, after_unfiled: bool = False, held: bool = False
    ) -> Iterator[Filed]:
        """File jobs that `from_fields` has made, as `file_many` does."""
        from queuectl.spool.filing import file_jobs

        try:
            values = self.settings()
        except OSError as error:
            if StorageTrouble.explains(error):
                raise StorageTrouble(error) from error
            raise

        rules = self._gate(after_unfiled=after_unfiled)

        def gate(lot: list[Job]) -> Mapping[str, str | QueueError]:
            judged = rules(lot)
            if not held:
                return judged
            self.refuse_older_workers()
            refused = {job_id: why for job_id, why in judged.items() if isinstance(why, QueueError)}
            return {job.id or "": HELD for job in lot} | refused

        return file_jobs(self.root, values, jobs, self.clock, gate)

    def _gate(self, *, after_unfiled: bool = False) -> Gate:
        """What asks the rules about the lots of jobs that one call files: see `filing.Gate`."""
        asked: list[Any] = []

        def judge(lot: list[Job]) -> Mapping[str, str | QueueError]:
            if any(job.after or job.group or job.unique for job in lot):
                self.refuse_older_workers()
            if not any(job.after or job.group for job in lot):
                return {}
            if not asked:
                from queuectl.rules import gate  # most jobs wait for none

                asked.append(gate.Gate(self.root, may_be_unfiled=after_unfiled))
            answer: Mapping[str, str | QueueError] = asked[0].judge(lot)
            return answer

        return judge

    def refuse_older_workers(self) -> None:
        """Raise `QueueError` while a live worker is of a version that knows no parked jobs and no `after`.

        It would report such jobs as strangers, or put them aside.
        """
        from queuectl.spool import descriptions
        from queuectl.spool.onlooker import Onlooker

        onlooker, lease = Onlooker(self.root), self.live.now().lock_lease_seconds
        for one in descriptions.members(self.root):
            if one.is_old and onlooker.is_alive(one.name, lease):
                raise QueueError(
                    f"Worker {one.name} is of an older version, which does not know such jobs.",
                    f"Stop it first: `queuectl worker stop {one.name}`."
                    if one.hears
                    else f"It {one.how_to_end}",
                )

    def refuse_unknown(self, changing: Mapping[str, Any]) -> None:
        """Raise `QueueError` for changes of fields that a live worker of an older version does not know."""
        if not {"after", "group", "slots", "unique", "unique_for"}.isdisjoint(changing):
            self.refuse_older_workers()

    def find(self, job_id: str) -> Found:
        """The job with this id or unique prefix of an id; raises `NoSuchJob` or `BadUsage`."""
        from queuectl.view import lookup

        return lookup.find(self.root, job_id)

    def list(self, state: str | None = None, limit: int | None = None) -> Iterator[Found]:
        """Jobs in run order, completed ones newest first; `state` is a word of `list --state`."""
        from queuectl.view import lookup

        return lookup.listing(self.root, self.clock(), state, limit)

    def dependents(self, job_id: str) -> Sequence[Found]:
        """The jobs that wait for this one, in run order: those that are parked, read."""
        from queuectl.view import dependencies

        return dependencies.direct(self.root, self.find(job_id).id)

    def view(self, found: Found) -> dict[str, Any]:
        """A job as the JSON object of `status JOB_ID --json`."""
        from queuectl.view import lookup

        return lookup.view(found, self.live.now(), self.clock())  # a broken config.yaml hides no job

    def wait(self, job_id: str, timeout: float | None = None) -> Found | None:
        """Wait until a job is done or dead and return it; None after `timeout` seconds.

        Raises `NoSuchJob`, also if the job is deleted meanwhile, and `CannotRun` where it waits for a job
        that ended otherwise than it asks.
        """
        from queuectl.spool import jobs
        from queuectl.view import lookup
        from queuectl.view.dependencies import Hopeless
        from queuectl.view.endings import Ends

        end = None if timeout is None else times.clock.monotonic() + timeout
        found = lookup.locate(self.root, job_id)
        hopeless = Hopeless(self.root)
        while True:
            ends = Ends(self.root, [found])
            for _ in ends.looks(end):
                for blamed, why in hopeless.among(ends.left.values()).items():
                    raise CannotRun(blamed, str(why))
            if ends.gone:
                raise NoSuchJob(found.id)
            if ends.left:
                return None
            (ended,) = ends.ended.values()
            if reading := jobs.read(ended):
                return reading
            found = lookup.locate(self.root, found.id)  # it was put back just then

    def retry(self, job_id: str, changes: Mapping[str, object] | None = None) -> str:
        """Move a failed, dead or completed job to pending, changed as `set` does; returns its path."""
        from queuectl.spool import acts
        from queuectl.spool.changes import checked

        values, changing = self.settings(), checked(_fields(changes or {}))
        self.refuse_unknown(changing)
        return self._act(job_id, lambda me, found: acts.retry(me, found, values, self.clock(), changing))

    def hold(self, job_id: str) -> str:
        """Let no worker start a waiting job before its `release`; returns its path."""
        from queuectl.spool import parking

        self.refuse_older_workers()
        return self._try(job_id, lambda found: parking.hold(self.root, found).path)

    def release(self, job_id: str, *, at_once: bool = False) -> str:
        """Let workers start a held job; returns its path.

        It goes on to wait for the jobs that it is to run after, unless it is released `at_once`.
        """
        from queuectl.rules.release import release, release_now

        if at_once:
            return self._act(job_id, lambda me, found: release_now(me, found, self.clock()))
        return self._try(job_id, lambda found: release(self.root, found, self.clock()).path)

    def set(self, job_id: str, changes: Mapping[str, object]) -> str:
        """Change fields of a waiting job, such as `{"priority": 9, "env.MODE": "fast"}`; returns its path.

        None takes a field out. All else in its file stays, comments too. Raises `BadJob` for a wrong value,
        `WrongState` for a job that does not wait; nothing is changed then.
        """
        from queuectl.spool import acts
        from queuectl.spool.changes import checked, edited

        changing = checked(_fields(changes))
        self.refuse_unknown(changing)
        how = self.change(lambda data: edited(data, changing))
        return self._act(job_id, lambda me, found: acts.change(me, found, how, self.clock()))

    def move(self, job_id: str, to: Spool) -> str:
        """Move a waiting job to another spool, or finish a move that a crash cut off; returns its path there.

        Raises `WrongState` for a job that does not wait, and the error of the other spool. The job waits here
        as before then.
        """
        from queuectl.spool import moving
        from queuectl.view import lookup

        self.refuse_older_workers()
        there = to.target()

        def move(me: Hand, found: Found) -> str:
            moving.move(me, found, there, self.clock())
            return found.id

        return lookup.locate(to.root, self._act(job_id, move)).path

    def target(self) -> Target:
        """The spool as one that jobs are moved to."""
        from queuectl.spool.moving import Target

        def file(job: Job, held: bool) -> Filed:
            (filed,) = self.file_checked([job], held=held)
            return filed

        return Target(self.root, self.settings(), file)

    def change(self, edit: Callable[[bytes], bytes]) -> Change:
        """The change that gives a job's file the content that `edit` makes of it, for `acts.change`."""
        from queuectl.spool import acts

        return acts.Change(edit, self.settings(), self._gate())

    def cancel_waiting(self, job_id: str) -> str:
        """Move a waiting job to dead as cancelled; raises `WrongState` for others."""
        from queuectl.spool import acts

        return self._act(job_id, lambda me, found: acts.cancel_waiting(me, found, self.clock())[0])

    def _act(self, job_id: str, act: Callable[[Hand, Found], str]) -> str:
        from queuectl.spool import acts

        with acts.hand(self.root, self.clock()) as me:
            return self._try(job_id, lambda found: act(me, found))

    def _try(self, job_id: str, act: Callable[[Found], str]) -> str:
        from queuectl.spool import jobs
        from queuectl.view import lookup

        for _ in range(jobs.TRIES):
            found = lookup.locate(self.root, job_id)
            try:
                return act(found)
            except JobMoved:  # it moved meanwhile: look where it is now
                continue
        raise JobMoved(job_id)

    def groups(self) -> tuple[Group, ...]:
        """The groups of jobs that share slots, by name, as they are now."""
        from queuectl.view import groups

        return groups.groups(self.root, self.clock())

    def set_group(self, group: str, slots: int | None = None, rest: float | None = None) -> None:
        """Make or change a group of numbered slots. Each slot rests for `rest` seconds after a start."""
        from queuectl.rules import groups

        groups.set_up(self.root, groups.checked(group), slots, rest)

    def pause_group(self, group: str) -> None:
        """Start no job of a group until `resume_group`."""
        from queuectl.rules import groups

        groups.pause(self.root, groups.checked(group))

    def resume_group(self, group: str) -> bool:
        """Let jobs of a group be started again; False if it was not paused."""
        from queuectl.rules import groups

        return groups.resume(self.root, groups.checked(group))

    def member(self, kind: str = "program") -> Member:
        """Join the workers of this spool: `with spool.member() as me: claim = me.claim(…)`."""
        from queuectl.worker.member import Member

        return Member.join(self.root, kind, self.clock())


def _job(job: Job | str | Mapping[str, object]) -> Job:
    """The job, checked field by field like one from a file."""
    if isinstance(job, str):
        return from_fields({"command": job})
    return from_fields(_textual(job._asdict() if isinstance(job, Job) else job))


def _fields(changes: Mapping[str, object]) -> dict[str, documents.Node]:
    """Changes as a job file would have them."""
    return {key: _textual(value) for key, value in changes.items()}


def _textual(value: object) -> documents.Node:
    """A Python value as the tree of text that a job file gives: `from_fields` takes nothing else."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return documents.Bare(str(value).lower())  # True as JSON has it
    if isinstance(value, Mapping):
        return {str(key): _textual(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_textual(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
