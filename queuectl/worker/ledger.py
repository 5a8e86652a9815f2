"""The ledger: what a worker owes to the disk, and how it is paid.

A run that has ended owes its outcome, first as an event in the job's file, then as the move that ends
the claim. A claim whose command was not started is owed back.

Crash: a recovery makes the move for an outcome that is in the file. So a dead worker costs one run at most.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import ClaimLost
from queuectl.job.history import FAILED, Event
from queuectl.job.model import State
from queuectl.spool import aside, output
from queuectl.system import files
from queuectl.worker.trouble import beyond_one_file, may_pass

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.spool.claims import Claim
    from queuectl.worker.member import Member
    from queuectl.worker.run import Run

log = logging.getLogger("queuectl")

#: Seconds between tries to record an outcome whose file alone cannot be changed.
STUCK = 2.0


class Return(NamedTuple):
    """A claim that is owed back, and the attempt whose logs are to be withdrawn."""

    claim: Claim
    attempt: int | None


class Ledger:
    """What one worker owes, the oldest first. Its methods raise the `OSError` of a disk in trouble.

    Nothing is forgotten then: call them again later. A claim that others took over is dropped, and the log
    says so. If only the job's file refuses the outcome, the job goes to dead/. If the file cannot be moved
    either, the outcome is `stuck`: it is tried again for as long as the worker lives.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._owed: list[Run] = []
        self._returns: list[Return] = []
        self._stuck: list[Run] = []
        self._stuck_until = 0.0

    @property
    def is_paying(self) -> bool:
        """Whether an outcome waits for its move or a claim is to be given back, and the disk may take it."""
        return bool(self._owed or self._returns)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is owed, not even by a file that cannot be changed."""
        return not (self._owed or self._returns or self._stuck)

    @property
    def stuck(self) -> frozenset[str]:
        """The names of the claims that are kept because their files cannot be changed."""
        return frozenset(str(run.claim.name) for run in self._stuck)

    def in_words(self) -> str:
        """The outcomes that are owed."""
        return ", ".join(f"job {run.claim.id} ({run.in_words()})" for run in self._owed)

    def tell_left(self) -> None:
        """Report what becomes of the outcomes that are still owed when the worker ends."""
        for run in (*self._owed, *self._stuck):
            fate = f"is in its file ({run.in_words()}); the next worker makes its move"
            if run.claim.unwritten:
                fate = f"is not recorded ({run.in_words()}); the run counts as lost"
            log.error("job %s: its outcome %s", run.claim.id, fate)

    def owe(self, run: Run, outcome: Event) -> None:
        """Enter how a run ended."""
        run.outcome = outcome
        run.claim = run.claim.adding(outcome)
        self._owed.append(run)

    def give_back(self, claim: Claim, attempt: int | None = None) -> None:
        """Enter a claim whose command was not started, and give it back if the disk takes it now.

        With `attempt` the logs of that attempt are withdrawn first.
        """
        self._returns.append(Return(claim, attempt))
        try:
            self._give_back()
        except OSError as error:
            if not may_pass(error):
                raise

    def record(self) -> None:
        """Give claims back and write all outcomes. Only the move of the newest may be left."""
        if self._returns:
            self._give_back()
        while len(self._owed) > 1:
            self.pay()
        if self._owed and self._owed[0].claim.unwritten:
            self._settle_first(self._write)

    def pay(self) -> None:
        """Write the oldest outcome, unless that was done, and make its move."""
        if self._owed:
            self._settle_first(self._write_and_move)

    def pay_if_possible(self) -> OSError | None:
        """The same while a command runs; returns the trouble instead of raising it."""
        try:
            self.pay()
        except OSError as error:
            if not may_pass(error):
                raise
            return error
        return None

    def pay_stuck(self) -> None:
        """Try the outcomes again whose files could not be changed, every `STUCK` seconds."""
        if not self._stuck or times.clock.monotonic() < self._stuck_until:
            return
        self._stuck_until = times.clock.monotonic() + STUCK
        trouble = None
        for run in self._stuck.copy():
            self._owed.insert(0, run)
            trouble = self.pay_if_possible() or trouble
            if run in self._owed:
                self._owed.remove(run)  # the disk is in trouble: later
            elif not files.exists(run.claim.path):
                self._stuck.remove(run)
        if trouble is not None:
            raise trouble

    def record_start(self, run: Run, process: str | None) -> bool:
        """Write the start of a run that lasts, and which `process` it is; False if its claim was lost.

        What the disk or the file does not take now is written with the end.
        """
        run.claim = run.claim.recording(spool=self._member.root.identity, process=process)
        try:
            self._write(run)
        except ClaimLost:
            return False
        except OSError as error:
            if not may_pass(error) and self._beyond_one_file(error) is not None:
                raise
        return True

    def _write(self, run: Run) -> None:
        """Add what is unwritten to the job's file. Raises `ClaimLost` as well.

        After an error only what is missing is added: network file systems report errors for what they
        have written.
        """
        note = run.claim.noted_again if run.unsure else run.claim.noted
        run.unsure = True
        run.claim = note(sync=self._member.live.last.syncs)
        run.unsure = False

    def _beyond_one_file(self, error: OSError) -> OSError | None:
        return beyond_one_file(error, self._member.root, self._member.name)

    def _write_and_move(self, run: Run) -> None:
        if run.claim.unwritten:
            self._write(run)
        assert run.outcome is not None  # it is owed
        state = self._member.settle(run.claim, run.outcome)
        del self._owed[0]
        _tell(run, run.outcome, state)

    def _settle_first(self, act: Callable[[Run], None]) -> None:
        """Write or move the oldest outcome; drop it if its claim is lost or its file refuses the change."""
        run = self._owed[0]
        try:
            act(run)
        except ClaimLost:
            del self._owed[0]
            log.error("job %s: the claim was lost; its outcome is not recorded", run.claim.id)
        except OSError as error:
            if (trouble := self._beyond_one_file(error)) is not None:
                raise trouble from error
            del self._owed[0]
            self._put_aside(run, error)

    def _put_aside(self, run: Run, error: OSError) -> None:
        """Move a job to dead/ because its file refuses the outcome; one that cannot be moved is stuck."""
        reason = f"Its outcome could not be written to its file ({error.strerror}): {run.in_words()}."
        try:
            aside.bury(self._member.root, run.claim.name, run.claim.name.free(), reason, aside.RAN)
        except OSError as why:
            if run not in self._stuck:
                log.error(
                    "job %s: its outcome is recorded as soon as its file can be changed (%s): %s",
                    run.claim.id,
                    why.strerror,
                    run.claim.path,
                )
                self._stuck.append(run)

    def _give_back(self) -> None:
        """Give back the claims whose commands were not started.

        If only the job's file refuses to move, the next recovery that can gives the claim back.
        """
        while self._returns:
            claim, attempt = self._returns[0]
            try:
                if attempt is not None:
                    output.withdraw_logs(self._member.root, claim.id, attempt)
                self._member.give_back(claim)
            except ClaimLost:
                pass  # somebody took this worker for dead, and the job over
            except OSError as error:
                if (trouble := self._beyond_one_file(error)) is not None:
                    raise trouble from error
                log.error("job %s: it cannot be given back: %s", claim.id, error.strerror)
            del self._returns[0]


def _tell(run: Run, outcome: Event, state: State) -> None:
    job_id, error = run.claim.id, outcome.get("error")
    if state is State.DONE:
        log.info("job %s: completed in %.3f s", job_id, outcome["seconds"])
    elif outcome["event"] == FAILED:
        log.warning("job %s: %s; it is %s", job_id, error, state.label)
    else:
        log.warning("job %s: %s; its run is stopped", job_id, error)
