"""The worker: claim, run, record, until it is asked to stop or, draining, nothing is left.

`Worker.step` does one bounded thing and returns what to wait for. `Worker.run` is the shell around it: it
waits, and it has the threads that beat and that guard the command. What happens to a claimed job is in
`run`; what is then owed to the disk is in `ledger`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import Lacking
from queuectl.job.history import FAILED, LOST
from queuectl.spool import finishing
from queuectl.spool.waiting import PATIENCE
from queuectl.spool.wake import Bell, Wake
from queuectl.system import processes
from queuectl.times import utc_now
from queuectl.worker.commands import Commands
from queuectl.worker.drain import Drain
from queuectl.worker.keeper import Guard, Keeper, Looks
from queuectl.worker.ledger import Ledger
from queuectl.worker.member import Member, seconds_until
from queuectl.worker.run import Ending, Run, start
from queuectl.worker.stopping import LINGER, Stop
from queuectl.worker.trouble import Trouble, may_pass, why_unusable
from queuectl.worker.waits import DONE, GO_ON, On, Wait

if TYPE_CHECKING:
    from datetime import datetime
    from threading import Thread

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
#: An idle worker looks at the directories at least this often, in seconds, whatever rang.
IDLE = 2.0
#: Seconds between looks while a dropped file settles, or while nothing may be claimed for lack of a beat.
SOON = 0.05
#: Seconds between looks of a draining worker while others may give jobs back or hold files open.
GIVEN_BACK = 0.02
#: The same while a job waits for one that another worker runs.
BEHIND = 0.2
#: Seconds between two tries while the disk is in trouble.
TRY_AGAIN = 1.0
#: After this many files that turn out to be no jobs, the worker listens to requests again.
AT_ONCE = 20


class Worker:
    """One worker of one spool. `run` returns when it has been stopped or, draining, is done.

    Without `run` a program calls `enter`, then `step` until it returns `DONE`, then `leave`.
    """

    def __init__(  # noqa: PLR0913 - callers name all but the first two
        self,
        root: Root,
        kind: str,
        *,
        awaited: frozenset[State] | None = None,
        only: str | None = None,
        listed: Waiting | None = None,
        starter: Starter | None = None,
    ) -> None:
        """Without `awaited` it runs until it is stopped. With it, it drains: it ends once nothing is left.

        Jobs that are due later are left, except for those of the states in `awaited`. `listed` are the
        names that wait, if they have just been listed. With `only` it takes jobs of this group alone.
        """
        self._kind = kind
        self._drain = None if awaited is None else Drain(awaited)
        self._control = Wake()
        self.bell = Bell(root, Wake())
        self._starter = Commands(root) if starter is None else starter
        self._stop = Stop()
        self._trouble = Trouble()
        self._run: Run | None = None
        self.member = Member.join(root, kind, utc_now(), listed, only)
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
                self.member = Member.join(
                    self.member.root, self._kind, utc_now(), only=self.member.slots.only
                )
                self.enter()
        finally:
            self.close()

    def _serve(self) -> bool:
        """Work under one name; True if others took this owner for dead meanwhile."""
        looks = Looks(self.keeper)
        guard = Guard(self.keeper, lambda: self.command)
        try:
            self._begin(looks)
            if self.member.root.medium.is_remote:
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
        """Start a thread. While the system has no room for one, wait and claim nothing."""
        while not self.keeper.wants_end(self._stop):
            try:
                thread.start()
            except RuntimeError as error:
                self._tell_trouble(Lacking(errno.EAGAIN, str(error)))
                self._control.wait(TRY_AGAIN)
            else:
                return

    def _end_command(self) -> None:
        """Leave no command behind after an error that `_meet` does not know."""
        if (run := self._run) is not None and run.command is not None:
            run.command.kill()
            while not run.command.has_ended():
                times.clock.sleep(LINGER)
            run.reap(run.command, self.keeper)

    # ── the loop ──────────────────────────────────────────────────────────────────────────

    def enter(self) -> None:
        """Begin to work under the member's name. An earlier request, such as a pause, holds at once."""
        self.keeper = Keeper(self.member, self._control, self.bell)
        self._ledger = Ledger(self.member)
        medium = self.member.root.medium
        share = f" on a share ({medium.filesystem}): it looks every poll_interval"
        log.info("worker %s started%s", self.name, "" if medium.hears_all else share)
        with contextlib.suppress(OSError):  # the keeper looks again
            self.keeper.look()

    def step(self) -> Wait:
        """Do one bounded thing; returns what to wait for before the next step."""
        try:
            return self._next() if self._run is None else self._attend(self._run)
        except OSError as error:
            return self._meet(error)

    def leave(self) -> None:
        """Go. If a claim is left, the description stays: it shows on which host the command ran."""
        self._ledger.tell_left()
        if self._ledger.is_empty:
            self.member.leave()
        log.info("worker %s ended; runs: %d", self.name, self.member.done)

    def close(self) -> None:
        """Give the descriptors back; no step follows."""
        self.bell.close()
        self._control.close()

    def _next(self) -> Wait:
        """Pay what is owed, then run the next job, or wait for one."""
        ledger, member, keeper = self._ledger, self.member, self.keeper
        ledger.record()  # nothing is run until the outcome of the run before is on the disk
        if not keeper.wants_end(self._stop):
            if self._trouble.lasts and (trouble := why_unusable(member.root, self.name)) is not None:
                self._tell_trouble(trouble)
                return Wait(On.CONTROL, TRY_AGAIN)  # not for new jobs: each would be one more try
            keeper.hear(at_once=True)
        if keeper.wants_end(self._stop):
            ledger.pay()
            return DONE
        ledger.pay_stuck()
        keeper.silence.has_lapsed = False  # no claim is held that others may have taken over
        if member.others.is_recovery_due():
            ledger.pay()  # else the claim would be taken for one that was left
            for told in member.recover(self._starter.stop_remains, member.now(), ledger.stuck):
                log.warning("%s", told)
        now = member.now()
        member.look(now, self.bell.names(), self.bell.edited())
        self._trouble.warn(member)
        claim = None if keeper.forbids_claims() else member.claim(now, AT_ONCE)
        if claim is not None:
            return self._start(claim)
        self._trouble.ends()
        if ledger.is_paying:
            ledger.pay()
            return GO_ON
        return self._idle() if self._drain is None else self._drained(self._drain)

    def _start(self, claim: Claim) -> Wait:
        """Start the command of a claim, and pay what is owed for the run before meanwhile."""
        run = self._run = start(claim, self.member, self.keeper, self._ledger, self._starter)
        if run is None or run.command is None:
            return GO_ON
        self._trouble.ends()
        self._pay_meanwhile()
        return Wait(On.COMMAND, min(BRISK, run.limit) if run.limit else BRISK)

    def _attend(self, run: Run) -> Wait:
        """Look after the run, and pay what is owed while its command goes on."""
        wait = run.step(self.keeper, self._stop, self._ledger)
        if isinstance(wait, Ending):
            return self._take(run, wait)
        if run.is_undisturbed:
            self._pay_meanwhile()
            if self._ledger.is_paying:
                return wait._replace(seconds=min(wait.seconds, TRY_AGAIN))
        return wait

    def _take(self, run: Run, ending: Ending) -> Wait:
        """Record how a run ended. The move that follows is made while the next command runs."""
        self._run = None
        if ending.trouble is not None:
            self._tell_trouble(ending.trouble)
        if ending.kind != LOST:
            self._ledger.owe(run, self._outcome(run.claim, ending))
            self._ledger.record()
            if run.claim.name.group is not None:
                self._ledger.pay()  # its slots are waited for
        return GO_ON

    def _outcome(self, claim: Claim, ending: Ending) -> Event:
        now = self.member.now()
        if ending.kind == FAILED:
            luck = random.random()  # noqa: S311 - jitter, not secrecy
            return finishing.failed(claim, ending.facts, self.member.live.last, now, luck)
        return finishing.outcome(ending.kind, claim, ending.facts, now)

    def _pay_meanwhile(self) -> None:
        if (trouble := self._ledger.pay_if_possible()) is not None:
            self._tell_trouble(trouble)

    def _has_due(self, now: datetime) -> bool:
        """Whether something may be claimed now, by another look where a directory has changed."""
        has_due = self.member.waiting.has_due(now)  # moves on what is due, whether or not it may be claimed
        if self.keeper.forbids_claims():
            return False
        if not has_due and self.keeper.changed:
            self.keeper.changed = False
            self.member.look(now, again=True)
        return self.member.waiting.has_due(now)

    def _idle(self) -> Wait:
        """Nothing can be claimed: wait for a ring."""
        member, now = self.member, self.member.now()
        if self._has_due(now):
            return GO_ON
        if member.dependents.is_busy:
            member.judge(now)
            return GO_ON
        member.waiting.doubt(now)
        if self._has_due(now):
            return GO_ON
        longest = SOON if member.is_settling or self.keeper.is_silent() else IDLE
        if (opens_in := member.slots.opens_in()) is not None:
            longest = min(longest, opens_in)
        return Wait(On.RING, seconds_until(member.waiting.next_due(), now, longest))

    def _drained(self, drain: Drain) -> Wait:
        """Nothing can be claimed: end if nothing is left, else look again soon."""
        member, now = self.member, self.member.now()
        if self._has_due(now):
            return GO_ON
        if self.keeper.forbids_claims() or member.is_settling or member.waits_for_slots:
            return self._idle()
        if member.dependents.is_busy:
            member.judge(now)
            return GO_ON
        if member.is_drained(now, drain.awaited):
            drain.tell_left(member, now)
            return DONE
        drain.tell(member.others.doubts)
        due = member.waiting.next_due(drain.awaited)
        longest = (
            max(BEHIND, PATIENCE * member.waiting.cost) if member.dependents.is_behind_a_run else GIVEN_BACK
        )
        return Wait(On.RING, longest if due is None else seconds_until(due, now, IDLE))

    def _meet(self, error: OSError) -> Wait:
        """Wait after trouble with the disk. Raises any other error.

        At a second signal the worker ends with what it owes. A limit to stop is no reason to forget it.
        """
        if not may_pass(error) and why_unusable(self.member.root, self.name) is None:
            raise error
        is_to_end = self.keeper.wants_end(self._stop)
        self._tell_trouble(error)
        if self._run is None and self._stop.is_urgent:
            return DONE
        return GO_ON if is_to_end and not self._ledger.is_paying else Wait(On.CONTROL, TRY_AGAIN)

    def _tell_trouble(self, error: OSError) -> None:
        is_stopping = self._stop.is_asked and not self._stop.is_urgent
        self._trouble.tell(error, self._ledger.in_words(), is_stopping=is_stopping)
