"""The worker: claim, run, record, until it is told to stop or, draining, nothing is left.

`Worker.step` does one bounded thing and returns what to wait for. `Worker.run` is the shell around it: it
waits, and it has the threads that beat and that guard the command.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import ClaimLost, Lacking, QueueError
from queuectl.spool import finishing
from queuectl.spool.output import Curb
from queuectl.spool.wake import Bell, Wake
from queuectl.system import files, processes
from queuectl.system.processes import Cannot, Streams
from queuectl.times import utc_now
from queuectl.worker import stopping
from queuectl.worker.commands import Commands
from queuectl.worker.drain import Drain
from queuectl.worker.keeper import Keeper
from queuectl.worker.ledger import Ledger
from queuectl.worker.member import Member, seconds_until
from queuectl.worker.run import Run
from queuectl.worker.silence import DOUBT, IN_ORDER
from queuectl.worker.stopping import (
    LINGER,
    Act,
    Cause,
    Facts,
    Stop,
    Stopping,
    Why,
    cause_of_end,
    next_act,
    reason_to_end,
)
from queuectl.worker.threads import Guard, Looks
from queuectl.worker.trouble import Trouble, Warnings, beyond_one_file, full_disk, may_pass, why_unusable
from queuectl.worker.waits import DONE, GO_ON, On, Wait

if TYPE_CHECKING:
    from datetime import datetime
    from threading import Thread
    from typing import Any

    from queuectl.job.history import Event
    from queuectl.job.model import State
    from queuectl.spool.claims import Claim
    from queuectl.spool.root import Root
    from queuectl.spool.waiting import Waiting
    from queuectl.system.processes import Command
    from queuectl.worker.commands import Starter

log = logging.getLogger("queuectl")

#: The start of a run that takes no longer than this, in seconds, is written together with its end.
BRISK = 0.02
#: The log reports that a job runs after this many seconds; of a shorter run it reports the end only.
TELL = 0.5
#: An idle worker looks at the directories at least this often, in seconds, whatever rang.
IDLE = 2.0
#: Seconds between looks while a dropped file settles, or while nothing may be claimed for lack of a beat.
SOON = 0.05
#: Seconds between two tries while the disk is in trouble.
TRY_AGAIN = 1.0
#: After this many files that turn out to be no jobs, requests are heard again.
AT_ONCE = 20


class Worker:
    """One worker of one spool. `run` returns when it has been stopped or, draining, is done.

    Without `run` a program calls `enter`, then `step` until it returns `DONE`, then `leave`.
    """

    def __init__(
        self,
        root: Root,
        kind: str,
        *,
        awaited: frozenset[State] | None = None,
        listed: Waiting | None = None,
        starter: Starter | None = None,
    ) -> None:
        """Without `awaited` it runs until it is stopped. With it, it drains: it ends once nothing is left.

        Jobs that are due later are left, except for those of the states in `awaited`. `listed` are the
        names that wait, where they have just been listed.
        """
        self._root = root
        self._kind = kind
        self._drain = None if awaited is None else Drain(awaited)
        self._control = Wake()
        self.bell = Bell(root, Wake())
        self._starter = Commands(root) if starter is None else starter
        self._stop = Stop()
        self._trouble = Trouble()
        self._run: Run | None = None
        self._warnings = Warnings()
        self.member = Member.join(root, kind, utc_now(), listed)
        self.keeper: Keeper
        self._ledger: Ledger

    @property
    def name(self) -> str:
        """The owner's name that its claims bear."""
        return self.member.name

    @property
    def command(self) -> Command | None:
        """The command that runs."""
        run = self._run
        return run.command if run is not None else None

    def ask_to_stop(self) -> None:
        """Finish the job at hand and end; asked again, give it back. Safe in a signal handler."""
        if self._stop.ask(times.clock.monotonic()):
            self._control.ring()
            self.bell.ring()

    # ── the shell ─────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Work the spool off, with real waiting."""
        processes.adopt_orphans()
        if self._drain is None:
            self.bell.hang()
        processes.keep_descriptors()
        try:
            self.enter()
            while self._serve():
                log.error("worker %s was taken for dead; it goes on under a new name", self.name)
                self.member = Member.join(self._root, self._kind, utc_now())
                self.enter()
        finally:
            self.close()

    def _serve(self) -> bool:
        """Work under one name; True when others took its owner for dead meanwhile."""
        looks = Looks(self.keeper, self.member, self.bell)
        guard = Guard(self.keeper, lambda: self.command)
        try:
            self._begin(looks)
            if self._root.medium.is_remote:
                self._begin(guard)
            while (wait := self.step()).on is not On.END:
                self._wait(wait)
        finally:
            self._end_command()
            guard.end()
            looks.end()
            self.leave()
        return self.keeper.buried and not self._stop.is_asked

    def _wait(self, wait: Wait) -> None:
        command = self.command
        if wait.on is On.COMMAND and command is not None:
            command.wait(self._control, wait.seconds)
        elif wait.on is On.RING:
            self.bell.wait(wait.seconds)
        elif wait.on is not On.NOTHING:
            self._control.wait(wait.seconds)

    def _begin(self, thread: Thread) -> None:
        """Start a thread, however long the system has no room for one; nothing is claimed before."""
        while not self._is_to_end():
            try:
                thread.start()
            except RuntimeError as error:
                self._tell_trouble(Lacking(errno.EAGAIN, str(error)))
                self._control.wait(TRY_AGAIN)
            else:
                return

    def _end_command(self) -> None:
        """Leave no command behind where a step failed in a way that nobody foresaw."""
        if (run := self._run) is not None and run.command is not None:
            run.command.kill()
            while not run.command.has_ended():
                times.clock.sleep(LINGER)
            self._reap(run, run.command)

    # ── the loop ──────────────────────────────────────────────────────────────────────────

    def enter(self) -> None:
        """Begin to work under the member's name: what was asked before, such as a pause, holds at once."""
        self.keeper = Keeper(self.member, self._control, self.bell)
        self._ledger = Ledger(self.member)
        medium = self._root.medium
        share = f" on a share ({medium.filesystem}): it looks every poll_interval"
        log.info("worker %s started%s", self.name, "" if medium.hears_all else share)
        with contextlib.suppress(OSError, QueueError):  # the keeper looks again
            self.keeper.look()

    def step(self) -> Wait:
        """Do one bounded thing; returns what to wait for before the next step."""
        try:
            if self._run is not None:
                return self._attend(self._run)
            return self._next()
        except OSError as error:
            return self._meet(error)

    def leave(self) -> None:
        """Go. Where a claim is left the description stays: the next taker learns from it where it ran."""
        for run in self._ledger.left:
            if run.claim.unwritten:
                fate = f"is not recorded ({run.in_words()}); the run counts as lost"
            else:
                fate = f"is in its file ({run.in_words()}); the next worker makes its move"
            log.error("job %s: its outcome %s", run.claim.id, fate)
        if self._ledger.is_empty and not self._ledger.left:
            with contextlib.suppress(OSError):  # others clear away what is left of it
                self.member.leave()
        log.info("worker %s ended; runs: %d", self.name, self.member.done)

    def close(self) -> None:
        """Give the descriptors back; no step follows."""
        self.bell.close()
        self._control.close()

    def _next(self) -> Wait:
        """Pay what is owed, then run the next job, or wait for one."""
        ledger, member = self._ledger, self.member
        ledger.record()  # nothing is run until the outcome of the run before is on the disk
        if not self._is_to_end():
            if self._trouble.lasts and (trouble := why_unusable(self._root, self.name)) is not None:
                self._tell_trouble(trouble)
                return Wait(On.CONTROL, TRY_AGAIN)  # not for new jobs: each would be one more try
            self.keeper.hear(at_once=True)
        if self._is_to_end():
            ledger.pay()
            return DONE
        ledger.pay_stuck()
        self.keeper.silence.has_lapsed = False  # no claim is held that others may have taken over
        if member.is_to_recover:
            ledger.pay()  # else the claim would be taken for one that was left
            for told in member.recover(self._starter.stop_remains, member.now(), ledger.stuck):
                log.warning("%s", told)
        claim = self._claim()
        if claim is not None:
            return self._start(claim)
        self._trouble.ends()
        if not ledger.is_empty:
            ledger.pay()
            return GO_ON
        return self._idle() if self._drain is None else self._drained(self._drain)

    def _claim(self) -> Claim | None:
        """Look at what there is, and claim the next job."""
        member, now = self.member, self.member.now()
        member.look(now, self.bell.names(), self.bell.edited())
        self._warnings.tell(member)
        return None if self._is_held() else member.claim(now, AT_ONCE)

    def _is_held(self) -> bool:
        """Whether nothing may be claimed now: a person wants it so, or this worker is cut off."""
        return self.keeper.requests.paused or self.keeper.is_silent()

    def _is_to_end(self) -> bool:
        """Whether this worker was asked to stop, by a signal or by a file, or is taken for dead."""
        if self.keeper.requests.stop:
            self._stop.hear(self.keeper.requests.limit, times.clock.monotonic())
        return self._stop.is_asked or self.keeper.buried

    def _has_due(self, now: datetime) -> bool:
        """Whether something may be claimed now, by another look where a directory has changed."""
        if self._is_held():
            return False
        if not self.member.has_due(now) and self.keeper.changed:
            self.keeper.changed = False
            self.member.look(now, again=True)
        return self.member.has_due(now)  # so many were no jobs that requests are heard first

    def _idle(self) -> Wait:
        """There was nothing to claim: wait for a ring."""
        member, now = self.member, self.member.now()
        if self._has_due(now):
            return GO_ON
        member.doubt(now)
        if member.has_due(now) and not self._is_held():
            return GO_ON
        longest = SOON if member.is_settling or self.keeper.is_silent() else IDLE
        return Wait(On.RING, seconds_until(member.next_due(), now, longest))

    def _drained(self, drain: Drain) -> Wait:
        """There was nothing to claim: end if nothing is left, else look again soon."""
        member, now = self.member, self.member.now()
        if self._has_due(now):
            return GO_ON
        if self._is_held() or member.is_settling:
            return self._idle()
        if member.is_drained(now, drain.awaited):
            drain.tell_left(member, now)
            return DONE
        patience, due = drain.patience(), member.next_due(drain.awaited)
        drain.tell(member.doubts)
        return Wait(On.RING, patience if due is None else seconds_until(due, now, IDLE))

    def _meet(self, error: OSError) -> Wait:
        """Take trouble with the disk in. Raises any other error.

        At a second signal the worker ends with what it owes; a limit to stop is no reason to forget it.
        """
        may_end = may_pass(error) or isinstance(error, FileNotFoundError)
        if not may_end and why_unusable(self._root, self.name) is None:
            raise error
        is_to_end = self._is_to_end()
        self._tell_trouble(error)
        if self._run is None and self._stop.is_urgent:
            return DONE
        return GO_ON if is_to_end and self._ledger.is_empty else Wait(On.CONTROL, TRY_AGAIN)

    def _tell_trouble(self, error: OSError) -> None:
        is_stopping = self._stop.is_asked and not self._stop.is_urgent
        self._trouble.tell(error, self._ledger.in_words(), is_stopping=is_stopping)

    # ── one job ───────────────────────────────────────────────────────────────────────────

    def _start(self, claim: Claim) -> Wait:
        """Start the command of a claim, unless it has to be put aside. One that cannot start has failed."""
        if self._drain is not None:
            self._drain.has_found()
        member, began = self.member, self.member.now()
        try:
            opened = member.begin(claim)
        except OSError:
            self._ledger.give_back(claim)
            raise
        if opened is None:
            return GO_ON
        claim, attempt, logs = opened
        if self.keeper.is_silent() or self.keeper.buried:
            # Race: the share was away just then, or this process stood still, and others may have
            # taken this worker for dead.
            files.close(*logs)
            self._ledger.give_back(claim)
            return GO_ON
        values = member.live.last
        try:
            command = self._starter.start(claim, attempt, self.name, Streams(*logs), values)
        except Lacking:
            files.close(*logs)
            self._ledger.give_back(claim, attempt)
            raise
        except Cannot as error:
            files.close(*logs)
            failed = Run(claim.adding(member.started(attempt, None, began)), None)
            return self._fail(failed, {"exit_code": error.exit_code, "seconds": 0.0, "error": str(error)})
        run = self._run = Run(claim.adding(member.started(attempt, command.pid, began)), command)
        run.logs = logs
        run.limit = values.job_timeout_seconds if claim.job.timeout is None else claim.job.timeout
        if values.max_output_bytes:
            run.curb = Curb(self._root, claim.id, attempt, logs, values.max_output_bytes)
        self._trouble.ends()
        self._pay_meanwhile()
        return Wait(On.COMMAND, min(BRISK, run.limit) if run.limit else BRISK)

    def _attend(self, run: Run) -> Wait:
        """Look after a run: take in the end of its command, or end it where there is a reason."""
        command, now = run.command, times.clock.monotonic()
        if command is None:
            return self._conclude(run)
        if run.stopping is not None:
            return self._stop_on(run, command, run.stopping)
        if command.has_ended() and not command.was_cut_off:
            return self._close(run, command)
        is_lost = self.keeper.buried or not self._is_recorded(run, command)
        self._is_to_end()
        facts = Facts(
            is_lost=is_lost,
            is_cancelled=run.claim.stem in self.keeper.requests.cancelled,
            is_to_give_back=self._stop.seconds_left(now) <= 0,
            is_cut_off=self.keeper.is_cut_off() or command.was_cut_off,
            seconds=now - command.began,
            limit=run.limit,
        )
        if (why := reason_to_end(facts)) is not None:
            return self._put_down(run, command, why)
        if not run.is_told and facts.seconds >= TELL:
            log.info("job %s: running (pid %d)", run.claim.id, command.pid)
            run.is_told = True
        self._pay_meanwhile()
        waits = [self.keeper.lease * DOUBT / 2 if run.is_told else TELL, self._stop.seconds_left(now)]
        waits += [run.limit - facts.seconds] if run.limit else []
        waits += [] if self._ledger.is_empty else [TRY_AGAIN]
        return Wait(On.COMMAND, min(waits))

    def _pay_meanwhile(self) -> None:
        if (trouble := self._ledger.pay_if_possible()) is not None:
            self._tell_trouble(trouble)

    def _is_recorded(self, run: Run, command: Command) -> bool:
        """Write the start of a run that is not brisk; False where its claim was lost.

        What the disk or the file does not take is written with the end.
        """
        if run.is_recorded:
            return True
        run.is_recorded = True
        self.keeper.curb = run.curb
        run.claim = run.claim.recording(spool=self._root.identity, process=command.identity())
        try:
            self._ledger.write(run)
        except ClaimLost:
            return False
        except OSError as error:
            if not may_pass(error) and beyond_one_file(error, self._root, self.name) is not None:
                raise
        return True

    def _put_down(self, run: Run, command: Command, why: Why) -> Wait:
        """Ask a command to end. It is killed after its grace."""
        if why is Why.LOST:
            log.error("job %s: the claim was lost; its run is stopped and not recorded", run.claim.id)
        grace = self.member.live_grace
        if why is Why.OUT_OF_REACH:
            grace = min(grace, self.keeper.lease * IN_ORDER)
        run.stopping = Stopping(why, times.clock.monotonic() + command.ask_to_end(grace))
        return self._stop_on(run, command, run.stopping)

    def _stop_on(self, run: Run, command: Command, its: Stopping) -> Wait:
        """See to it that a command ends that was asked to."""
        now = times.clock.monotonic()
        act = next_act(its, now, has_ended=command.has_ended())
        if act is Act.KILL:
            command.kill()
            run.stopping = its = its.killed(now)
        if act in {Act.KILL, Act.WAIT}:
            return Wait(On.COMMAND, its.kill_at - now)
        if act is Act.LINGER and command.has_company():
            return Wait(On.CONTROL, LINGER)
        facts = self._reap(run, command)
        if its.why is Why.LOST:
            self._run = None
            return GO_ON
        if its.why is Why.OVERDUE:
            return self._fail(run, facts | {"error": f"{its.why.value} of {run.limit:g} s"})
        ending = finishing.cancelled if its.why is Why.CANCELLED else finishing.returned
        return self._owe(run, ending(run.claim, facts | {"error": its.why.value}, self.member.now()))

    def _close(self, run: Run, command: Command) -> Wait:
        """Take in how a command ended by itself, or by a signal that this worker was sent, too."""
        if self.keeper.was_late(command.began):
            command.look_back()
        facts = self._reap(run, command)
        if facts["exit_code"] == 0:
            return self._owe(run, finishing.completed(run.claim, facts, self.member.now()))
        run.ended = facts, times.clock.monotonic()
        return self._conclude(run)

    def _conclude(self, run: Run) -> Wait:
        """Find out why a command ended without success; of a signal, a request to stop may follow."""
        assert run.ended is not None  # it has
        (facts, ended_at), now = run.ended, times.clock.monotonic()
        status = facts["exit_code"]
        if status in stopping.BY_THE_STOP:
            with contextlib.suppress(OSError):  # the keeper hears it later
                self.keeper.hear(at_once=True)
        cause = cause_of_end(
            status, now - ended_at, is_signalled=self._stop.is_signalled, is_asked=self._is_to_end()
        )
        if cause is Cause.OPEN:
            return Wait(On.CONTROL, ended_at + stopping.ONCE - now)
        if cause is Cause.STOP:
            stopped = facts | {"error": Why.STOPPED.value}
            return self._owe(run, finishing.returned(run.claim, stopped, self.member.now()))
        how = f"killed by {facts['signal']}" if "signal" in facts else f"exit status {status}"
        if (trouble := full_disk(self._root, self.name)) is not None:
            # Its own writes may have failed. Nothing is claimed from here on until the disk takes a block.
            self._tell_trouble(trouble)
            given_back = facts | {"error": f"{how}, while the disk was full"}
            return self._owe(run, finishing.returned(run.claim, given_back, self.member.now()))
        return self._fail(run, facts | {"error": how})

    def _reap(self, run: Run, command: Command) -> dict[str, Any]:
        ended = command.reap()
        run.command = None
        self._starter.clear_up()
        self.keeper.curb = None
        if run.curb is not None and run.curb.end():
            log.warning("job %s: it printed more than max_output_bytes; the middle is dropped", run.claim.id)
        files.close(*run.logs)
        return ended.facts()

    def _fail(self, run: Run, facts: dict[str, Any]) -> Wait:
        values, luck = self.member.live.last, random.random()  # noqa: S311 - jitter, not secrecy
        return self._owe(run, finishing.failed(run.claim, facts, values, self.member.now(), luck))

    def _owe(self, run: Run, outcome: Event) -> Wait:
        """Record how a run ended. The move that follows is made while the next command runs."""
        self._run = None
        self._ledger.owe(run, outcome)
        self._ledger.record()
        return GO_ON
