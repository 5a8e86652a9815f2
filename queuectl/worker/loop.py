"""The worker: claim, run, record, until it is told to stop or, draining, nothing is left."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from queuectl import disk
from queuectl.errors import QueueError, StorageTrouble
from queuectl.job import Event, State, utc_now
from queuectl.spool import finishing, presence
from queuectl.spool.bell import Bell, Wake
from queuectl.spool.member import Member, seconds_until
from queuectl.spool.root import filesystem, mend
from queuectl.worker import process
from queuectl.worker.keeper import GIVE_UP, IN_ORDER, Guard, Keeper
from queuectl.worker.process import Cannot, Command, Waited
from queuectl.worker.remains import stop_remains

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from queuectl.spool.claiming import Claim
    from queuectl.spool.root import Root

log = logging.getLogger("queuectl")
T = TypeVar("T")

#: An idle worker looks at the directories at least this often, in seconds, whatever rang.
IDLE = 2.0

#: Seconds after which the log tells that a job runs; of shorter ones it tells the end alone.
TELL = 0.5


OUT_OF_REACH = "the spool was out of reach"


class Stop(Enum):
    """How soon a worker is to end."""

    NO = "no"
    AFTER_JOB = "after the job at hand"
    NOW = "now, giving the job back"


@dataclass(slots=True)
class _Run:
    """A command, None once it has been reaped, and what is still to be written down about it.

    `unsure` after an error: some of it may be in the file all the same.
    """

    claim: Claim
    command: Command | None
    limit: float
    unwritten: tuple[Event, ...] = ()
    unsure: bool = False


class Worker:
    """One worker of one spool. `run` returns when it has been stopped or, draining, is done."""

    def __init__(self, root: Root, kind: str, *, drain: bool = False) -> None:
        self._root = root
        self._drain = drain
        self._control = Wake()
        self._ring = Wake()
        self._stop = Stop.NO
        self._stop_by: float | None = None
        self._limit_heard: float | None = None
        self._trouble_said: str | None = None
        self._clock_said = False
        self._kind = kind
        self._guard: Guard | None = None
        self._inherited = dict(os.environb) if os.name == "posix" else {}
        self.member = Member.join(root, kind, utc_now())

    @property
    def name(self) -> str:
        """The owner's name that its claims bear."""
        return self.member.name

    def ask_to_stop(self) -> None:
        """Finish the job at hand and end; asked again, give it back. Safe in a signal handler."""
        self._stop = Stop.AFTER_JOB if self._stop is Stop.NO else Stop.NOW
        self._control.ring()
        self._ring.ring()

    def run(self) -> None:
        """Work the spool off."""
        process.adopt_orphans()
        bell = Bell(self._root, self._ring)
        try:
            while self._serve(bell):
                log.error("worker %s was taken for dead; it goes on under a new name", self.name)
                self.member = Member.join(self._root, self._kind, utc_now())
        finally:
            bell.close()

    def _serve(self, bell: Bell) -> bool:
        """Work under one name; True when others took its owner for dead meanwhile."""
        keeper = Keeper(self.member, self._control, self._ring)
        log.info("worker %s started%s", self.name, self._where())
        try:
            with contextlib.suppress(OSError, QueueError):
                keeper.look()  # what was asked before we came, such as a pause, holds from the start
            keeper.start()
            if self._root.is_shared:
                self._guard = Guard(keeper)
                self._guard.start()
            while not self._is_to_end(keeper) and not keeper.buried:
                try:
                    if not self._step(bell, keeper):
                        break
                except OSError as error:
                    self._sit_out(error)
        finally:
            if self._guard is not None:
                self._guard.end()
            keeper.end()
            with contextlib.suppress(OSError):
                self.member.leave()
            log.info("worker %s ended; runs: %d", self.name, self.member.done)
        return keeper.buried and self._stop is Stop.NO

    def _where(self) -> str:
        if not self._root.is_shared:
            return ""
        return f" on a share ({filesystem(self._root.path)}): it looks every poll_interval"

    def _is_to_end(self, keeper: Keeper) -> bool:
        if keeper.requests.stop and self._stop is Stop.NO:
            self._stop = Stop.AFTER_JOB
        return self._stop is not Stop.NO

    def _step(self, bell: Bell, keeper: Keeper) -> bool:
        """Look, claim and run one job, or wait for a ring; False when draining is done."""
        member = self.member
        now = member.now()
        changed, keeper.changed = keeper.changed, False
        member.look(now, bell.names(), again=False)
        for told in member.recover(stop_remains, now):
            log.warning("%s", told)
        self._tell_settings()
        keeper.hear(at_once=True)
        claim = None if keeper.requests.paused else member.claim(now)
        if claim is not None:
            self._work(claim, keeper)
            return True
        if changed:
            member.look(now, again=True)
            if member.has_due(now) and not keeper.requests.paused:
                return True
        if self._drain and not keeper.requests.paused and not member.is_settling:
            if member.is_drained(now):
                return False
            self._ring.wait(0.02)  # what is left may be held by an editor, or just have come
            return True
        member.doubt()
        if member.has_due(now) and not keeper.requests.paused:
            return True
        longest = 0.05 if member.is_settling else IDLE
        self._ring.wait(seconds_until(member.next_due(), now, longest))
        return True

    def _tell_settings(self) -> None:
        trouble = self.member.live.trouble
        if trouble and trouble != self._trouble_said:
            log.warning("%s", trouble)
        self._trouble_said = trouble
        wrong = self.member.presence.is_clock_wrong()
        if wrong and not self._clock_said:
            log.warning("%s", presence.clock_warning(self.member.presence.clock_offset or 0.0, "this host"))
        self._clock_said = wrong

    def _sit_out(self, error: OSError) -> None:
        """Wait until the spool can be used again; say so once."""
        if not (StorageTrouble.explains(error) or isinstance(error, FileNotFoundError | PermissionError)):
            raise error
        text = str(StorageTrouble(error))
        if text != self._trouble_said:
            log.error("%s No new claims until then.", text)
            self._trouble_said = text
        while self._stop is Stop.NO:
            self._ring.wait(1.0)
            if self._is_usable():
                log.info("The spool can be used again.")
                self._trouble_said = None
                return

    def _is_usable(self) -> bool:
        try:
            self._root.require()
            mend(self._root)
            disk.probe(f"{self._root.workers}/.{self.name}.probe")
        except (OSError, QueueError):
            return False
        return True

    # ── one job ───────────────────────────────────────────────────────────────────────────

    def _work(self, claim: Claim, keeper: Keeper) -> None:
        began = self.member.now()
        try:
            opened = self.member.begin(claim)
        except OSError:
            self._insist(lambda: finishing.give_back(claim))
            raise
        if opened is None:
            log.error("job %s: put aside, see its reason in dead/", claim.id)
            return
        claim, attempt, (out, err) = opened
        try:
            with out, err:
                command = process.start(
                    claim.job.command, out, err, claim.job.cwd, self._environment(claim, attempt)
                )
        except Cannot as error:
            with contextlib.suppress(FileNotFoundError):  # the claim was lost: another one has it
                self._could_not_start(claim, attempt, error, began)
            return
        run = _Run(claim, command, self._limit(claim))
        run.unwritten = self.member.started(claim, attempt, command.pid, began)
        if self._guard is not None:
            self._guard.command = command
        try:
            self._write(run)
            self._watch(run, command, keeper)
        except FileNotFoundError:
            log.error("job %s: the claim was lost; its run is stopped and not recorded", claim.id)
        finally:
            if run.command is not None:
                self._put_down(run, self.member.live_grace)

    def _environment(self, claim: Claim, attempt: int) -> dict[Any, Any]:
        """The worker's own environment (encoded once for all), the job's, and what we tell it."""
        told = {
            **claim.job.env,
            "QUEUECTL_JOB_ID": claim.id,
            "QUEUECTL_ATTEMPT": str(attempt),
            "QUEUECTL_SPOOL": str(self._root.path),
            "QUEUECTL_WORKER": self.name,
        }
        if os.name != "posix":
            return {**os.environ, **told}
        return self._inherited | {os.fsencode(name): os.fsencode(text) for name, text in told.items()}

    def _limit(self, claim: Claim) -> float:
        own = claim.job.timeout
        return self.member.live.last.job_timeout_seconds if own is None else own

    def _could_not_start(self, claim: Claim, attempt: int, error: Cannot, began: datetime) -> None:
        begun = self.member.started(claim, attempt, None, began)
        facts = {"exit_code": error.exit_code, "seconds": 0.0, "error": str(error)}
        self._fail(_Run(claim, None, 0, begun), facts)

    def _write(self, run: _Run) -> None:
        """Add what is not in the file yet; a full disk leaves it for later."""
        if not run.unwritten:
            return
        try:
            self._note(run)
        except FileNotFoundError:
            raise
        except OSError as error:
            if not StorageTrouble.explains(error):
                raise

    def _note(self, run: _Run, *outcome: Event) -> Claim:
        note = self.member.note_again if run.unsure else self.member.note
        run.unsure = True
        run.claim = note(run.claim, *run.unwritten, *outcome)
        run.unwritten, run.unsure = (), False
        return run.claim

    def _watch(self, run: _Run, command: Command, keeper: Keeper) -> None:
        """Wait for the end of a command, or for a reason to end it."""
        begun = time.monotonic()
        due = begun + run.limit if run.limit else None
        told = False
        while True:
            if keeper.buried:
                raise FileNotFoundError(run.claim.path)
            if run.claim.stem in keeper.requests.cancelled:
                self._give_up(run, "cancelled")
                return
            if self._is_to_give_back(keeper):
                self._give_up(run, "the worker was stopped")
                return
            if keeper.is_cut_off() or command.was_cut_off:
                # Others may take this job over after the lease: nothing of it may run by then.
                self._give_up(run, OUT_OF_REACH)
                return
            now = time.monotonic()
            if due is not None and now >= due:
                ended = self._put_down(run, self.member.live_grace)
                ended["error"] = f"it ran longer than its limit of {run.limit:g} s"
                self._fail(run, ended)
                return
            if not told and now >= begun + TELL:
                log.info("job %s: running (pid %d)", run.claim.id, command.pid)
                told = True
            waits = [keeper.lease * GIVE_UP / 2 if told else TELL]
            waits += [due - now] if due is not None else []
            waits += [self._stop_by - now] if self._stop_by is not None else []
            if command.wait(self._control, max(0.0, min(waits))) is Waited.EXITED:
                break
        ended = self._reap(run)
        if ended["exit_code"] == 0:
            self._end(run, finishing.completed(run.claim.foreseen(*run.unwritten), ended, self.member.now()))
            log.info("job %s: completed in %.3f s", run.claim.id, ended["seconds"])
            return
        how = f"killed by {ended['signal']}" if "signal" in ended else f"exit status {ended['exit_code']}"
        self._fail(run, ended | {"error": how})

    def _is_to_give_back(self, keeper: Keeper) -> bool:
        limit = keeper.requests.limit
        if limit is not None and limit != self._limit_heard:
            self._limit_heard = limit
            end = time.monotonic() + limit
            self._stop_by = end if self._stop_by is None else min(end, self._stop_by)
        late = self._stop_by is not None and time.monotonic() >= self._stop_by
        return late or self._stop is Stop.NOW

    def _give_up(self, run: _Run, why: str) -> None:
        """Stop the command: for good if a person cancelled the job, else for another worker to run."""
        grace = self.member.live_grace
        if why == OUT_OF_REACH:
            grace = min(grace, self.member.live_lease * IN_ORDER)
        facts = self._put_down(run, grace) | {"error": why}
        claim = run.claim.foreseen(*run.unwritten)
        if why == "cancelled":
            self._end(run, finishing.cancelled(claim, facts, self.member.now()))
        else:
            self._end(run, finishing.returned(claim, facts, self.member.now()))
        log.warning("job %s: %s; its run is stopped", claim.id, why)

    def _put_down(self, run: _Run, grace: float) -> dict[str, Any]:
        assert run.command is not None  # a run is put down once
        run.command.stop(self._control, grace)
        return self._reap(run)

    def _reap(self, run: _Run) -> dict[str, Any]:
        assert run.command is not None  # and reaped once
        ended = run.command.reap()
        run.command = None
        if self._guard is not None:
            self._guard.command = None
        process.end_orphans()
        return ended.facts()

    def _fail(self, run: _Run, facts: dict[str, Any]) -> None:
        luck = random.random()  # noqa: S311 - jitter, not secrecy
        claim = run.claim.foreseen(*run.unwritten)
        state = self._end(run, finishing.failed(claim, facts, self.member.live.last, self.member.now(), luck))
        log.warning("job %s: %s; it is %s", claim.id, facts["error"], state.label)

    def _end(self, run: _Run, outcome: Event) -> State:
        """Record an outcome, then make its move; each is done once, however long the disk is away."""
        noted: Claim = self._insist(lambda: self._note(run, outcome))
        state: State = self._insist(lambda: self.member.settle(noted, outcome))
        return state

    def _insist(self, act: Callable[[], T]) -> T:
        """Do it, however long the disk is full or away: until then the claim keeps the job safe.

        Raises `FileNotFoundError` when the claim is lost while the spool is there.
        """
        while True:
            try:
                return act()
            except OSError as error:
                gone = isinstance(error, FileNotFoundError)
                if (gone and self._is_usable()) or not (gone or StorageTrouble.explains(error)):
                    raise
                text = str(StorageTrouble(error))
                if text != self._trouble_said:
                    log.error("%s The outcome is recorded as soon as it can be.", text)
                    self._trouble_said = text
                self._ring.wait(1.0)
