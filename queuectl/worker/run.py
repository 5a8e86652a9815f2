"""One run of a claimed job: how its command starts, why it is ended, and what its end means."""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.errors import Lacking
from queuectl.job.history import CANCELLED, COMPLETED, FAILED, LOST, RETURNED, has_run_unseen
from queuectl.spool.output import Curb
from queuectl.spool.recovery import StillRuns
from queuectl.system import files
from queuectl.system.processes import Cannot
from queuectl.worker import stopping
from queuectl.worker.silence import DOUBT, IN_ORDER
from queuectl.worker.stopping import (
    BY_THE_STOP,
    LINGER,
    Act,
    Cause,
    Facts,
    Stopping,
    Why,
    cause_of_end,
    next_act,
    reason_to_end,
)
from queuectl.worker.trouble import full_disk
from queuectl.worker.waits import On, Wait

if TYPE_CHECKING:
    from typing import Any

    from queuectl.job.history import Event
    from queuectl.spool.claims import Claim
    from queuectl.system.processes import Command
    from queuectl.worker.commands import Starter
    from queuectl.worker.keeper import Keeper
    from queuectl.worker.ledger import Ledger
    from queuectl.worker.member import Member
    from queuectl.worker.stopping import Stop

log = logging.getLogger("queuectl")

#: The log reports that a job runs after this many seconds. For a shorter run it reports only the end.
TELL = 0.5

#: The kind of outcome that a command has which was ended for this reason.
_KINDS = {
    Why.LOST: LOST,
    Why.CANCELLED: CANCELLED,
    Why.STOPPED: RETURNED,
    Why.OUT_OF_REACH: RETURNED,
    Why.OVERDUE: FAILED,
}


class Ending(NamedTuple):
    """How a run ended: the kind of its outcome (see `job.history`), and what the history says of it.

    Nothing is recorded of a run that is `LOST`: its claim is another worker's. `trouble` is the error of a
    full disk, which may have made the command fail.
    """

    kind: str
    facts: dict[str, Any]
    trouble: OSError | None = None


def start(claim: Claim, member: Member, keeper: Keeper, ledger: Ledger, starter: Starter) -> Run | None:
    """Start the command of a claim. None if the claim was put aside or is given back.

    A command that cannot start has failed: the first step of its run says so. Raises `Lacking` where the
    system has no room for a command just now, and the `OSError` of a disk in trouble.
    """
    began = member.now()
    if not claim.root.medium.locks_tell and has_run_unseen(claim.job.history):
        # Race: its worker stood still while a host that cannot see this one took its job over.
        try:
            starter.stop_earlier(claim)
        except StillRuns as one:
            ledger.give_back(claim)
            raise Lacking(errno.EAGAIN, f"job {claim.id}: {one}") from None
    try:
        opened = member.begin(claim)
    except OSError:
        ledger.give_back(claim)
        raise
    if opened is None:
        return None
    claim, attempt, logs = opened
    if keeper.is_silent() or keeper.buried:
        # Race: the share was away just then, or this process stood still, and others may have taken this
        # worker for dead.
        files.close(*logs)
        ledger.give_back(claim)
        return None
    values = member.live.last
    try:
        command = starter.start(claim, attempt, member.told(claim), logs, values)
    except Lacking:
        files.close(*logs)
        ledger.give_back(claim, attempt)
        raise
    except Cannot as error:
        files.close(*logs)
        run = Run(claim.adding(member.started(attempt, None, began)), None, starter)
        facts = {"exit_code": error.exit_code, "seconds": 0.0, "error": str(error)}
        run.cannot_start = Ending(FAILED, facts)
        return run
    run = Run(claim.adding(member.started(attempt, command.pid, began)), command, starter)
    run.logs = logs
    run.limit = values.job_timeout_seconds if claim.job.timeout is None else claim.job.timeout
    if values.max_output_bytes:
        run.curb = Curb(claim.root, claim.id, attempt, logs, values.max_output_bytes)
    return run


class Run:
    """One run of a claimed job, made by `start`.

    `command` is None once it has been reaped, or if it could not be started. `ended` holds the facts of
    the end and its time while the cause is open. `unsure` means that a write to the job's file failed or
    is under way, so the file may already hold what `claim` lists as unwritten.
    """

    __slots__ = (
        "cannot_start", "claim", "command", "curb", "ended", "is_told", "limit", "logs", "outcome", "starter",
        "stopping", "unsure",
    )  # fmt: skip

    def __init__(self, claim: Claim, command: Command | None, starter: Starter) -> None:
        self.claim = claim
        self.command = command
        self.starter = starter
        self.cannot_start: Ending | None = None
        self.logs: tuple[int, ...] = ()
        self.curb: Curb | None = None
        #: Seconds that it may run; no limit is 0.
        self.limit = 0.0
        self.is_told = False
        self.stopping: Stopping | None = None
        self.ended: tuple[dict[str, Any], float] | None = None
        self.outcome: Event | None = None
        self.unsure = False

    @property
    def is_undisturbed(self) -> bool:
        """Whether its command runs, and nobody has asked it to end."""
        return self.command is not None and self.stopping is None

    def step(self, keeper: Keeper, stop: Stop, ledger: Ledger) -> Wait | Ending:
        """Do one bounded thing; returns what to wait for, or how the run ended."""
        command, now = self.command, times.clock.monotonic()
        if command is None:
            return self.cannot_start or self._conclude(keeper, stop)
        if self.stopping is None:
            if command.has_ended() and not command.was_cut_off:
                return self._take_end(command, keeper, stop)
            why = self._reason_to_end(command, now, keeper, stop, ledger)
            if why is None:
                return self._wait(now - command.began, keeper, stop.seconds_left(now))
            self.stopping = self._ask_to_end(command, why, keeper)
        return self._end(command, self.stopping, keeper)

    def _reason_to_end(
        self, command: Command, now: float, keeper: Keeper, stop: Stop, ledger: Ledger
    ) -> Why | None:
        is_lost = keeper.buried or (not self._is_recorded and not self._record(command, keeper, ledger))
        keeper.wants_end(stop)
        return reason_to_end(
            Facts(
                is_lost=is_lost,
                is_cancelled=self.claim.stem in keeper.requests.cancelled,
                is_to_give_back=stop.seconds_left(now) <= 0,
                is_cut_off=keeper.is_cut_off() or command.was_cut_off,
                seconds=now - command.began,
                limit=self.limit,
            )
        )

    @property
    def _is_recorded(self) -> bool:
        """Whether the worker has tried to write the start to the job's file."""
        return self.unsure or not self.claim.unwritten

    def _record(self, command: Command, keeper: Keeper, ledger: Ledger) -> bool:
        """The command is not brisk: write its start, and curb its output; False if the claim was lost."""
        keeper.curb = self.curb
        return ledger.record_start(self, command.identity())

    def _wait(self, seconds: float, keeper: Keeper, stop_in: float) -> Wait:
        """The command goes on: wait until a limit is reached or the next look is due."""
        if not self.is_told and seconds >= TELL:
            log.info("job %s: running (pid %d)", self.claim.id, self.command.pid if self.command else 0)
            self.is_told = True
        look = keeper.lease * DOUBT / 2 if self.is_told else TELL
        limit = self.limit - seconds if self.limit else look
        return Wait(On.COMMAND, min(look, stop_in, limit))

    def _ask_to_end(self, command: Command, why: Why, keeper: Keeper) -> Stopping:
        """Ask the command to end. It is killed after its grace."""
        if why is Why.LOST:
            log.error("job %s: the claim was lost; its run is stopped and not recorded", self.claim.id)
        grace = keeper.grace
        if why is Why.OUT_OF_REACH:
            grace = min(grace, keeper.lease * IN_ORDER)
        return Stopping(why, times.clock.monotonic() + command.ask_to_end(grace))

    def _end(self, command: Command, its: Stopping, keeper: Keeper) -> Wait | Ending:
        """Kill the command if it outlives its grace, then collect it."""
        now = times.clock.monotonic()
        act = next_act(its, now, has_ended=command.has_ended())
        if act is Act.KILL:
            command.kill()
            its = self.stopping = its.killed(now)
        if act in {Act.KILL, Act.WAIT}:
            return Wait(On.COMMAND, its.kill_at - now)
        if act is Act.LINGER and command.has_company():
            return Wait(On.CONTROL, LINGER)
        error = f"{its.why.value} of {self.limit:g} s" if its.why is Why.OVERDUE else its.why.value
        return Ending(_KINDS[its.why], self.reap(command, keeper) | {"error": error})

    def _take_end(self, command: Command, keeper: Keeper, stop: Stop) -> Wait | Ending:
        """The command ended by itself, or by a signal that went to its worker as well."""
        if keeper.silence.was_late(command.began):
            command.look_back()
        facts = self.reap(command, keeper)
        if facts["exit_code"] == 0:
            return Ending(COMPLETED, facts)
        self.ended = facts, times.clock.monotonic()
        return self._conclude(keeper, stop)

    def _conclude(self, keeper: Keeper, stop: Stop) -> Wait | Ending:
        """Find out why the command did not succeed. After a signal, a request to stop may follow."""
        assert self.ended is not None  # it has
        (facts, ended_at), now = self.ended, times.clock.monotonic()
        status = facts["exit_code"]
        if status in BY_THE_STOP:
            with contextlib.suppress(OSError):  # the keeper hears it later
                keeper.hear(at_once=True)
        is_asked = keeper.wants_end(stop)
        cause = cause_of_end(status, now - ended_at, is_signalled=stop.is_signalled, is_asked=is_asked)
        if cause is Cause.OPEN:
            return Wait(On.CONTROL, ended_at + stopping.ONCE - now)
        if cause is Cause.STOP:
            return Ending(RETURNED, facts | {"error": Why.STOPPED.value})
        how = f"killed by {facts['signal']}" if "signal" in facts else f"exit status {status}"
        if (trouble := full_disk(self.claim.root, self.claim.owner)) is not None:
            # Its own writes may have failed. Nothing is claimed from here on until the disk takes a block.
            return Ending(RETURNED, facts | {"error": f"{how}, while the disk was full"}, trouble)
        return Ending(FAILED, facts | {"error": how})

    def reap(self, command: Command, keeper: Keeper) -> dict[str, Any]:
        """Collect the exit status of a command that has ended, and end what it left behind."""
        ended = command.reap()
        self.command = None
        self.starter.clear_up()
        keeper.curb = None
        if self.curb is not None and self.curb.end():
            log.warning("job %s: it printed more than max_output_bytes; the middle is dropped", self.claim.id)
        files.close(*self.logs)
        return ended.facts()

    def in_words(self) -> str:
        """How it ended."""
        assert self.outcome is not None  # it has
        error = self.outcome.get("error")
        return f"{self.outcome['event']}: {error}" if error else str(self.outcome["event"])
