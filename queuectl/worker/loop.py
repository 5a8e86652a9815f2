"""The worker: claim, run, record, until it is told to stop or, draining, nothing is left."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import time
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from queuectl import disk
from queuectl.errors import QueueError, StorageTrouble
from queuectl.job import Event, State, utc_now
from queuectl.spool import finishing
from queuectl.spool.bell import Bell, Wake
from queuectl.spool.claiming import Claim
from queuectl.spool.member import Member, seconds_until
from queuectl.spool.root import Root
from queuectl.worker import process
from queuectl.worker.keeper import Keeper
from queuectl.worker.process import Cannot, Command, Waited
from queuectl.worker.remains import stop_remains

log = logging.getLogger("queuectl")

#: An idle worker looks at the directories at least this often, in seconds, whatever rang.
IDLE = 2.0
#: The share of the lease after which a worker that cannot beat gives its job up.
GIVE_UP = 0.7


class Stop(Enum):
    """How soon a worker is to end."""

    NO = "no"
    AFTER_JOB = "after the job at hand"
    NOW = "now, giving the job back"


@dataclass(slots=True)
class _Run:
    """A command that runs, and what is still to be written down about it."""

    claim: Claim
    command: Command
    limit: float
    unwritten: tuple[Event, ...] = ()
    limit_end: float | None = None


class Worker:
    """One worker of one spool. `run` returns when it has been stopped or, draining, is done."""

    def __init__(self, root: Root, kind: str, *, drain: bool = False) -> None:
        self._root = root
        self._drain = drain
        self._control = Wake()
        self._ring = Wake()
        self._stop = Stop.NO
        self._stop_by: float | None = None
        self._trouble_said: str | None = None
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
        keeper = Keeper(self.member, self._control, self._ring)
        keeper.start()
        log.info("worker %s started", self.name)
        try:
            while not self._is_to_end(keeper):
                try:
                    if not self._step(bell, keeper):
                        break
                    self._trouble_said = None
                except OSError as error:
                    self._sit_out(error)
        finally:
            keeper.end()
            bell.close()
            with contextlib.suppress(OSError):
                self.member.leave()
            log.info("worker %s ended after %d jobs", self.name, self.member.done)

    def _is_to_end(self, keeper: Keeper) -> bool:
        if keeper.requests.stop and self._stop is Stop.NO:
            self._stop = Stop.AFTER_JOB
        return self._stop is not Stop.NO

    def _step(self, bell: Bell, keeper: Keeper) -> bool:
        """Look, claim and run one job, or wait for a ring; False when draining is done."""
        now = utc_now()
        member = self.member
        changed, keeper.changed = keeper.changed, False
        member.look(now, bell.names(), again=False)
        for told in member.recover(stop_remains, now):
            log.warning("%s", told)
        self._tell_settings()
        claim = None if keeper.requests.paused else member.claim(now)
        if claim is not None:
            self._work(claim, keeper)
            return True
        if changed:
            member.look(now, again=True)
            if member.has_due(now) and not keeper.requests.paused:
                return True
        if self._drain and not keeper.requests.paused and not member.is_settling:
            member.look(now, again=True)
            if not member.is_settling and not member.has_due(now):
                return False
            return True
        member.doubt(now)
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

    def _sit_out(self, error: OSError) -> None:
        """Wait until the spool can be used again; say so once."""
        if not StorageTrouble.explains(error) and not isinstance(error, FileNotFoundError):
            raise error
        text = str(StorageTrouble(error))
        if text != self._trouble_said:
            log.error("%s No new claims until then.", text)
            self._trouble_said = text
        while self._stop is Stop.NO:
            self._ring.wait(1.0)
            try:
                self._root.require()
                disk.probe(f"{self._root.workers}/.{self.name}.probe")
            except (OSError, QueueError):
                continue
            log.info("The spool can be used again.")
            return

    # ── one job ───────────────────────────────────────────────────────────────────────────

    def _work(self, claim: Claim, keeper: Keeper) -> None:
        began = utc_now()
        try:
            opened = self.member.begin(claim, began)
        except OSError:
            finishing.give_back(claim)
            raise
        if opened is None:
            log.error("job %s: put aside, another file has its id", claim.id)
            return
        claim, attempt, (out, err) = opened
        try:
            with out, err:
                command = process.start(
                    claim.job.command, out, err, claim.job.cwd, self._environment(claim, attempt)
                )
        except Cannot as error:
            self._could_not_start(claim, attempt, error, began)
            return
        run = _Run(claim, command, self._limit(claim))
        run.unwritten = self.member.started(claim, attempt, command.pid, began)
        log.info("job %s: run %d started (pid %d)", claim.id, attempt, command.pid)
        try:
            self._write(run)
            self._watch(run, keeper)
        except FileNotFoundError:
            log.error(
                "job %s: this worker was taken for dead; its run is stopped, nothing recorded", claim.id
            )
            self._put_down(run)

    def _environment(self, claim: Claim, attempt: int) -> dict[str, str]:
        return {
            **os.environ,
            **claim.job.env,
            "QUEUECTL_JOB_ID": claim.id,
            "QUEUECTL_ATTEMPT": str(attempt),
            "QUEUECTL_SPOOL": str(self._root.path),
            "QUEUECTL_WORKER": self.name,
        }

    def _limit(self, claim: Claim) -> float:
        own = claim.job.timeout
        return self.member.live.now().job_timeout_seconds if own is None else own

    def _could_not_start(self, claim: Claim, attempt: int, error: Cannot, began: datetime) -> None:
        facts = {"exit_code": error.exit_code, "seconds": 0.0, "error": str(error)}
        begun = self.member.started(claim, attempt, 0, began)
        claim = self._insist(
            lambda: claim.noted(*({k: v for k, v in e.items() if k != "pid"} for e in begun))
        )
        state = self._insist(lambda: self.member.fail(claim, facts, utc_now(), random.random()))  # noqa: S311
        log.warning("job %s: %s; it is %s", claim.id, error, state.label)

    def _write(self, run: _Run) -> None:
        """Add what is not in the file yet; a full disk leaves it for later."""
        if not run.unwritten:
            return
        try:
            run.claim = run.claim.noted(*run.unwritten)
            run.unwritten = ()
        except FileNotFoundError:
            raise
        except OSError as error:
            if not StorageTrouble.explains(error):
                raise

    def _watch(self, run: _Run, keeper: Keeper) -> None:
        """Wait for the end of a command, or for a reason to end it."""
        begun = time.monotonic()
        due = begun + run.limit if run.limit else None
        while True:
            if run.claim.id in keeper.requests.cancelled:
                ended = self._put_down(run)
                self._end(run, finishing.cancelled(run.claim, ended, utc_now()))
                return
            if self._is_to_give_back(keeper):
                ended = self._put_down(run)
                self._end(run, finishing.returned(run.claim, ended, utc_now(), "the worker was stopped"))
                return
            lease = self.member.live_lease
            if keeper.silence() > lease * GIVE_UP:
                # Others may take this job over after the lease: nothing of it may run by then.
                log.error("job %s: no sign of life could be given; its run is stopped", run.claim.id)
                ended = self._put_down(run)
                self._end(run, finishing.returned(run.claim, ended, utc_now(), "the spool was out of reach"))
                return
            now = time.monotonic()
            if due is not None and now >= due:
                ended = self._put_down(run)
                ended["error"] = f"it ran longer than its limit of {run.limit:g} s"
                self._fail(run, ended)
                return
            waits = [lease * GIVE_UP / 2]
            waits += [due - now] if due is not None else []
            waits += [self._stop_by - now] if self._stop_by is not None else []
            if run.command.wait(self._control, max(0.0, min(waits))) is Waited.EXITED:
                break
        ended = self._reap(run)
        if ended["exit_code"] == 0:
            state = self._end(run, None, ended)
            log.info("job %s: %s in %.3f s", run.claim.id, state.label, ended["seconds"])
            return
        how = f"killed by {ended['signal']}" if "signal" in ended else f"exit status {ended['exit_code']}"
        self._fail(run, ended | {"error": how})

    def _is_to_give_back(self, keeper: Keeper) -> bool:
        if keeper.requests.stop and self._stop_by is None and keeper.requests.limit is not None:
            self._stop_by = time.monotonic() + keeper.requests.limit
        late = self._stop_by is not None and time.monotonic() >= self._stop_by
        return late or self._stop is Stop.NOW

    def _put_down(self, run: _Run) -> dict[str, Any]:
        run.command.stop(self._control, self.member.live_grace)
        return self._reap(run)

    def _reap(self, run: _Run) -> dict[str, Any]:
        ended = run.command.reap()
        process.end_orphans()
        return ended.facts()

    def _fail(self, run: _Run, facts: dict[str, Any]) -> None:
        def record() -> State:
            self._flush(run)
            return self.member.fail(run.claim, facts, utc_now(), random.random())  # noqa: S311

        state = self._insist(record)
        log.warning("job %s: %s; it is %s", run.claim.id, facts["error"], state.label)

    def _end(self, run: _Run, outcome: Event | None, facts: dict[str, Any] | None = None) -> State:
        def record() -> State:
            self._flush(run)
            if outcome is None:
                return self.member.complete(run.claim, facts or {}, utc_now())
            return self.member.finish(run.claim, outcome)

        state = self._insist(record)
        if outcome is not None:
            log.warning("job %s: %s", run.claim.id, outcome.get("error"))
        return state

    def _flush(self, run: _Run) -> None:
        if run.unwritten:
            run.claim = run.claim.noted(*run.unwritten)
            run.unwritten = ()

    def _insist(self, record: Any) -> Any:
        """Record an outcome, however long the disk is full or away: the claim keeps it safe."""
        while True:
            try:
                return record()
            except FileNotFoundError:
                self._root.require()  # raises where the whole spool is gone rather than the claim
                raise
            except OSError as error:
                if not StorageTrouble.explains(error):
                    raise
                log.error("%s The outcome is recorded as soon as it can be.", StorageTrouble(error))
                self._ring.wait(1.0)
