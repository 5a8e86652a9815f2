"""The worker: claim, run, record, until it is told to stop or, draining, nothing is left."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
from enum import Enum
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import ClaimLost, Lacking, QueueError, StorageTrouble
from queuectl.job.history import FAILED, Event
from queuectl.job.model import HERE, State
from queuectl.spool import aside, claiming, finishing, output, presence
from queuectl.spool.output import Curb
from queuectl.spool.root import mend
from queuectl.spool.wake import Bell, Wake
from queuectl.system import files, processes
from queuectl.system.processes import Cannot, Command, Streams, Waited
from queuectl.times import utc_now, when
from queuectl.worker.keeper import GIVE_UP, IN_ORDER, Guard, Keeper
from queuectl.worker.member import Member, seconds_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from threading import Thread
    from typing import Any, TypeVar

    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root
    from queuectl.spool.waiting import Waiting

    T = TypeVar("T")

log = logging.getLogger("queuectl")

#: An idle worker looks at the directories at least this often, in seconds, whatever rang.
IDLE = 2.0

#: Seconds between looks of a draining worker that has found nothing, while others may give jobs back:
#: few at first, as most of them have just begun their last.
SHORT, LONG = 0.001, 0.02

#: Seconds after which the log tells that a job runs; of shorter ones it tells the end alone.
TELL = 0.5
#: The start of a run that takes no longer than this, in seconds, is written together with its end.
BRISK = 0.02

#: So many files that turn out to be no jobs are put aside before requests are heard again.
AT_ONCE = 20

#: Requests to stop that come within so many seconds are one; so are a request and the end of a
#: command that is sent the same signal.
ONCE = 0.5

#: What a drain leaves, in words, and what would have waited for it.
_LATER = (
    (State.FAILED, "failed jobs left for their next try", "queuectl worker start --drain=retries"),
    (State.PENDING, "jobs left for the time they are scheduled for", "queuectl worker start --drain=all"),
)

#: Seconds from one try to the next to record an outcome whose file cannot be changed.
STUCK = 2.0

OUT_OF_REACH = "the spool was out of reach, or its worker stood still, for too long"
STOPPED = "the worker was stopped"

#: The statuses of a command that ends by what a service manager or a terminal sends to all processes
#: of a service: SIGHUP, SIGINT, SIGTERM. A shell reports 128 + the signal's number, as we do.
BY_THE_STOP = frozenset({129, 130, 143})


class Stop(Enum):
    """How soon a worker is to end."""

    NO = "no"
    AFTER_JOB = "after the job at hand"
    NOW = "now, giving the job back"


class _InHaste(Exception):
    """Raised where a worker is told to end at once while the disk takes nothing: what is owed stays owed."""


class _Run:
    """One run of a claimed job, and its command, None once it has been reaped.

    `unsure` after an error: some of what is unwritten may be in the file all the same.
    """

    __slots__ = ("claim", "command", "curb", "limit", "logs", "outcome", "unsure")

    def __init__(self, claim: Claim, command: Command | None) -> None:
        self.claim = claim
        self.command = command
        self.unsure = False
        self.limit = 0.0
        self.logs: tuple[int, ...] = ()
        self.outcome: Event | None = None
        self.curb: Curb | None = None

    def in_words(self) -> str:
        """How it ended."""
        assert self.outcome is not None  # it has
        error = self.outcome.get("error")
        return f"{self.outcome['event']}: {error}" if error else str(self.outcome["event"])

    def ends_as(self, outcome: Event) -> None:
        """Note how it ended; what is written last."""
        self.outcome = outcome
        self.claim = self.claim.adding(outcome)


class Worker:
    """One worker of one spool. `run` returns when it has been stopped or, draining, is done.

    Between two commands it does no more than it must: the file of a run is moved to where its outcome
    sends it while the next command runs.
    """

    def __init__(
        self,
        root: Root,
        kind: str,
        *,
        drain: bool = False,
        awaited: frozenset[State] = frozenset(),
        listed: Waiting | None = None,
    ) -> None:
        """A worker that drains waits for jobs of the `awaited` states that are due later."""
        self._root = root
        self._drain = drain
        self._awaited = awaited
        self._doubts_said: tuple[str, ...] = ()
        self._control = Wake()
        self._ring = Wake()
        self._stop = Stop.NO
        self._asked = float("-inf")
        self._stop_by: float | None = None
        self._limit_heard: float | None = None
        self._trouble_said: str | None = None
        self._settings_said: str | None = None
        self._clock_said = False
        self._kind = kind
        self._keeper: Keeper  # of the name that it works under
        self._guard: Guard | None = None
        self._owed: list[_Run] = []  # oldest first
        self._stuck: list[_Run] = []  # those whose files alone do not take it
        self._stuck_until = 0.0
        self._is_hasty = False
        self._has_told_stop = False
        self._owed_said = ""
        self._patience = SHORT
        self._spool = processes.decoded(os.fsencode(root.text))
        self._inherited = dict(os.environb) if os.name == "posix" else {}
        self._home = processes.decoded(os.fsencode(processes.own_directory()))
        self.member = Member.join(root, kind, utc_now(), listed)

    @property
    def name(self) -> str:
        """The owner's name that its claims bear."""
        return self.member.name

    def ask_to_stop(self) -> None:
        """Finish the job at hand and end; asked again, give it back. Safe in a signal handler.

        What comes within `ONCE` is one request: a signal may come from a terminal and from a parent.
        """
        now = times.clock.monotonic()
        if now - self._asked < ONCE:
            return
        self._asked = now
        self._stop = Stop.AFTER_JOB if self._stop is Stop.NO else Stop.NOW
        self._control.ring()
        self._ring.ring()

    def run(self) -> None:
        """Work the spool off."""
        processes.adopt_orphans()
        bell = Bell(self._root, self._ring)
        if not self._drain:
            bell.hang()
        processes.keep_descriptors()
        try:
            while self._serve(bell):
                log.error("worker %s was taken for dead; it goes on under a new name", self.name)
                self.member = Member.join(self._root, self._kind, utc_now())
        finally:
            bell.close()

    def _serve(self, bell: Bell) -> bool:
        """Work under one name; True when others took its owner for dead meanwhile."""
        keeper = self._keeper = Keeper(self.member, self._control, bell)
        log.info("worker %s started%s", self.name, self._where())
        try:
            with contextlib.suppress(OSError, QueueError):
                keeper.look()  # what was asked before we came, such as a pause, holds from the start
            self._begin(keeper)
            if self._root.medium.is_remote:
                self._guard = Guard(keeper)
                self._begin(self._guard)
            while not self._is_to_end(keeper) and not keeper.buried:
                try:
                    if not self._step(bell, keeper):
                        break
                    self._tell_relief()
                except OSError as error:
                    self._sit_out(error)
        except _InHaste:
            pass  # what is owed is told at the end
        finally:
            with contextlib.suppress(OSError, _InHaste):
                self._pay()
            if self._guard is not None:
                self._guard.end()
            keeper.end()
            self._leave()
            log.info("worker %s ended; runs: %d", self.name, self.member.done)
        return keeper.buried and self._stop is Stop.NO

    def _begin(self, thread: Thread) -> None:
        """Start a thread, however long the system has no room for one; nothing is claimed before."""
        while not self._is_to_end(self._keeper):
            try:
                thread.start()
            except RuntimeError as error:
                self._sit_out(Lacking(errno.EAGAIN, str(error)))
            else:
                return

    def _leave(self) -> None:
        """Go. Where a claim is left its description stays: by that the next taker knows where it ran."""
        left = [*self._owed, *self._stuck]
        for run in left:
            log.error(
                "job %s: its outcome is not recorded (%s); the run counts as lost",
                run.claim.id,
                run.in_words(),
            )
        if not self._is_hasty and not left:
            with contextlib.suppress(OSError):
                self.member.leave()

    def _where(self) -> str:
        medium = self._root.medium
        return "" if medium.hears_all else f" on a share ({medium.filesystem}): it looks every poll_interval"

    def _is_to_end(self, keeper: Keeper) -> bool:
        """Whether anybody has asked this worker to stop, by a signal or by a file."""
        if keeper.requests.stop and self._stop is Stop.NO:
            self._stop = Stop.AFTER_JOB
        return self._stop is not Stop.NO

    def _step(self, bell: Bell, keeper: Keeper) -> bool:
        """Run one job, or wait for a ring; False when draining is done."""
        keeper.hear(at_once=True)
        self._pay_stuck()
        keeper.has_lapsed = False  # no claim is held that others may have taken over
        if self._owed and self._owed[0].claim.unwritten:
            self._pay()  # nothing is run until the outcome of the run before is on the disk
        self._recover()
        claim = self._claim(bell, keeper)
        if claim is not None:
            self._patience = SHORT
            self._work(claim, keeper)
            return True
        if self._owed:
            self._pay()
            return True
        return self._idle(keeper)

    def _recover(self) -> None:
        """Take up, now and then, what dead workers left. Each claim of ours would be taken for such."""
        if self.member.is_to_recover:
            self._pay()
            mine = frozenset(str(run.claim.name) for run in self._stuck)
            for told in self.member.recover(_stop_remains, self.member.now(), mine):
                log.warning("%s", told)

    def _claim(self, bell: Bell, keeper: Keeper) -> Claim | None:
        """Look at what there is, and claim the next job."""
        member = self.member
        now = member.now()
        member.look(now, bell.names(), bell.edited())
        self._tell_settings()
        return None if self._is_held(keeper) else member.claim(now, AT_ONCE)

    @staticmethod
    def _is_held(keeper: Keeper) -> bool:
        """Whether nothing may be claimed now: by the will of a person, or as this worker is cut off."""
        return keeper.requests.paused or keeper.is_silent()

    def _idle(self, keeper: Keeper) -> bool:
        """There was nothing to claim: look again, wait for a ring; False when draining is done."""
        member = self.member
        now = member.now()
        held = self._is_held(keeper)
        if member.has_due(now) and not held:
            return True  # so many were no jobs that it is time to hear what is asked
        if keeper.changed:
            keeper.changed = False
            member.look(now, again=True)
            if member.has_due(now) and not held:
                return True
        if self._drain and not held and not member.is_settling:
            if member.is_drained(now, self._awaited):
                self._tell_left(now)
                return False
            self._ring.wait(self._until_due(now))
            return True
        member.doubt(now)
        if member.has_due(now) and not held:
            return True
        longest = 0.05 if member.is_settling or keeper.is_silent() else IDLE
        self._ring.wait(seconds_until(member.next_due(), now, longest))
        return True

    def _until_due(self, now: datetime) -> float:
        """Seconds that a drain waits before it looks again.

        What is left may be held by an editor, or just have come: then it looks soon.
        """
        self._patience = min(2 * self._patience, LONG)
        due = self.member.next_due(self._awaited)
        if self.member.doubts != self._doubts_said:
            self._doubts_said = self.member.doubts
            for doubt in self._doubts_said:
                log.warning("%s", doubt)
        return self._patience if due is None else seconds_until(due, now, IDLE)

    def _tell_left(self, now: datetime) -> None:
        """Say which jobs a drain leaves because they are due later."""
        for state, what, command in _LATER:
            count, due = self.member.later(state)
            if count and due is not None:
                first = when(due, now)
                log.info("%s: %d, the first at %s; `%s` waits for them", what, count, first, command)

    def _tell_settings(self) -> None:
        trouble = self.member.live.trouble
        if trouble and trouble != self._settings_said:
            log.warning("%s", trouble)
        self._settings_said = trouble
        wrong = self.member.presence.is_clock_wrong()
        if wrong and not self._clock_said:
            log.warning("%s", presence.clock_warning(self.member.presence.clock_offset or 0.0, "this host"))
        self._clock_said = wrong

    def _sit_out(self, error: OSError) -> None:
        """Wait until the spool can be used again; say so once."""
        if not (_may_pass(error) or isinstance(error, FileNotFoundError)):
            raise error
        self._tell_trouble(error)
        while not self._is_to_end(self._keeper):
            self._control.wait(1.0)  # not for new jobs: each of them would be one more try
            if self._is_usable():
                return

    def _tell_relief(self) -> None:
        if self._trouble_said is not None:
            log.info("Work goes on.")
            self._trouble_said = None

    def _is_usable(self) -> bool:
        try:
            self._root.require()
            mend(self._root)
            for folder in (self._root.workers, self._root.logs, self._root.folder(State.PROCESSING)):
                files.probe(f"{folder}/.{self.name}.probe")
        except (OSError, QueueError):
            return False
        return True

    # ── one job ───────────────────────────────────────────────────────────────────────────

    def _work(self, claim: Claim, keeper: Keeper) -> None:
        """Run a claimed job to its end; its outcome is owed then."""
        run = self._start(claim, keeper)
        if run is None or run.command is None:
            return
        try:
            self._try_to_pay()
            first = min(BRISK, run.limit) if run.limit else BRISK
            ended = run.command.wait(self._control, first) is Waited.EXITED and not run.command.was_cut_off
            if not ended:
                keeper.watch_output(run.curb)
                run.claim = run.claim.recording(
                    spool=self._root.identity, process=processes.identity(run.command.pid)
                )
                self._write(run)
                ended = self._watch(run, run.command, keeper)
            if ended:
                if keeper.was_late(run.command.began):
                    run.command.look_back()
                self._close(run, keeper)
        except ClaimLost:
            log.error("job %s: the claim was lost; its run is stopped and not recorded", claim.id)
        finally:
            keeper.watch_output(None)
            if run.command is not None:
                self._put_down(run, self.member.live_grace)

    def _start(self, claim: Claim, keeper: Keeper) -> _Run | None:
        """Start the command of a claim; None where it was put aside. One that cannot start has failed."""
        began = self.member.now()
        try:
            opened = self.member.begin(claim)
        except OSError:
            self._give_back(claim)
            raise
        if opened is None:
            return None
        claim, attempt, (out, err) = opened
        job = claim.job
        if keeper.is_silent() or keeper.buried:
            # Race: the share was away just then, or this process stood still, and others may have
            # taken this worker for dead.
            files.close(out, err)
            self._give_back(claim)
            return None
        try:
            command = self._spawn(claim, attempt, Streams(out, err))
        except Lacking:
            files.close(out, err)
            self._insist(lambda: output.withdraw_logs(self._root, claim.id, attempt))
            self._give_back(claim)
            raise
        except BaseException as error:
            files.close(out, err)
            if not isinstance(error, Cannot):
                raise
            run = _Run(claim.adding(self.member.started(attempt, None, began)), None)
            self._fail(run, {"exit_code": error.exit_code, "seconds": 0.0, "error": str(error)})
            return run
        if self._guard is not None:
            self._guard.command = command
        values = self.member.live.last
        run = _Run(claim.adding(self.member.started(attempt, command.pid, began)), command)
        run.logs = (out, err)
        run.limit = values.job_timeout_seconds if job.timeout is None else job.timeout
        if values.max_output_bytes:
            run.curb = Curb(self._root, claim.id, attempt, run.logs, values.max_output_bytes)
        return run

    def _give_back(self, claim: Claim) -> None:
        """Give a claim back whose command was not started, however long the disk is away.

        Where only its file is refused, the claim is given back by the next recovery that can.
        """
        try:
            self._insist(lambda: self.member.give_back(claim))
        except ClaimLost:
            pass  # somebody took us for dead, and it over
        except OSError as error:
            log.error("job %s: it cannot be given back: %s", claim.id, error.strerror)

    def _spawn(self, claim: Claim, attempt: int, streams: Streams) -> Command:
        """Start a job's command here, or hand it to the launcher that the job or the config names."""
        job = claim.job
        told = {
            **job.env,
            "QUEUECTL_JOB_ID": claim.id,
            "QUEUECTL_ATTEMPT": str(attempt),
            "QUEUECTL_SPOOL": self._spool,
            "QUEUECTL_WORKER": self.name,
            "QUEUECTL_SPOOL_ID": self._root.identity,
        }
        values = self.member.live.last
        if (values.launcher if job.launcher is None else job.launcher) == HERE:
            # A shell finds out for itself where it is. A list of words has none, and is told.
            told.setdefault("PWD", self._home if job.cwd is None else os.path.join(self._home, job.cwd))
            return processes.start(job.command, streams, job.cwd, self._environment(told))
        from queuectl.worker.launcher import GRACE, launch

        handed = launch(job, values, told)
        environment = self._environment({**told, GRACE: f"{values.stop_grace_seconds:g}"})
        if handed.lifeline:
            return processes.start_on_lifeline(handed.words, streams, environment)
        return processes.start(handed.words, streams, None, environment)

    def _environment(self, told: Mapping[str, str]) -> dict[Any, Any]:
        """The worker's own environment (encoded once for all), the job's, and what we tell it."""
        if os.name != "posix":
            return {**os.environ, **told}
        mine = {processes.encoded(name): processes.encoded(text) for name, text in told.items()}
        return self._inherited | mine

    def _write(self, run: _Run) -> None:
        """Add what is not in the file yet; what the disk or the file does not take is left for later."""
        try:
            self._note(run)
        except OSError as error:
            if not (_may_pass(error) or self._is_of_one_file(error)):
                raise

    def _note(self, run: _Run) -> None:
        note = self.member.note_again if run.unsure else self.member.note
        run.unsure = True
        run.claim = note(run.claim)
        run.unsure = False

    def _watch(self, run: _Run, command: Command, keeper: Keeper) -> bool:
        """Wait for the end of a command, or for a reason to end it; False when it has been ended for one."""
        begun = command.began
        due = begun + run.limit if run.limit else None
        told = False
        while True:
            if keeper.buried:
                raise ClaimLost(run.claim.id)
            if keeper.requests.cancelled and run.claim.stem in keeper.requests.cancelled:
                self._give_up(run, "cancelled")
                return False
            if self._is_to_give_back(keeper):
                self._give_up(run, STOPPED)
                return False
            if keeper.is_cut_off() or command.was_cut_off:
                # Others may take this job over after the lease: nothing of it may run by then.
                self._give_up(run, OUT_OF_REACH)
                return False
            now = times.clock.monotonic()
            if due is not None and now >= due:
                ended = self._put_down(run, self.member.live_grace)
                ended["error"] = f"it ran longer than its limit of {run.limit:g} s"
                self._fail(run, ended)
                return False
            if not told and now >= begun + TELL:
                log.info("job %s: running (pid %d)", run.claim.id, command.pid)
                told = True
            waits = [keeper.lease * GIVE_UP / 2 if told else TELL]
            waits += [due - now] if due is not None else []
            waits += [self._stop_by - now] if self._stop_by is not None else []
            waits += [1.0] if self._owed else []
            waited = command.wait(self._control, max(0.0, min(waits)))
            if waited is Waited.EXITED and not command.was_cut_off:
                return True
            self._try_to_pay()

    def _close(self, run: _Run, keeper: Keeper) -> None:
        """Take up how a command ended by itself, or by a signal that this worker was sent, too."""
        ended = self._reap(run)
        if ended["exit_code"] == 0:
            self._owe(run, finishing.completed(run.claim, ended, self.member.now()))
            return
        if self._is_of_the_stop(ended["exit_code"], keeper):
            self._owe(run, finishing.returned(run.claim, ended | {"error": STOPPED}, self.member.now()))
            return
        how = f"killed by {ended['signal']}" if "signal" in ended else f"exit status {ended['exit_code']}"
        self._fail(run, ended | {"error": how})

    def _is_of_the_stop(self, status: int, keeper: Keeper) -> bool:
        """Whether a command that did not succeed ended because this worker is to stop.

        Race: of a signal that is sent to both either may notice first. A command that ends by one
        may have to wait for ours; one that has a status of its own for it is as quick as the signal.
        """
        ended = times.clock.monotonic()
        if status not in BY_THE_STOP:
            return ended - self._asked < ONCE
        while not self._is_to_end(keeper) and (left := ended + ONCE - times.clock.monotonic()) > 0:
            self._control.wait(left)
        return self._is_to_end(keeper)

    def _is_to_give_back(self, keeper: Keeper) -> bool:
        limit = keeper.requests.limit
        if limit is not None and limit != self._limit_heard:
            self._limit_heard = limit
            end = times.clock.monotonic() + limit
            self._stop_by = end if self._stop_by is None else min(end, self._stop_by)
        late = self._stop_by is not None and times.clock.monotonic() >= self._stop_by
        return late or self._stop is Stop.NOW

    def _give_up(self, run: _Run, why: str) -> None:
        """Stop the command: for good if a person cancelled the job, else for another worker to run."""
        grace = self.member.live_grace
        if why == OUT_OF_REACH:
            grace = min(grace, self.member.live_lease * IN_ORDER)
        facts = self._put_down(run, grace) | {"error": why}
        ending = finishing.cancelled if why == "cancelled" else finishing.returned
        self._owe(run, ending(run.claim, facts, self.member.now()))

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
        processes.end_orphans()
        if run.curb is not None and run.curb.end():
            log.warning("job %s: it printed more than max_output_bytes; the middle is dropped", run.claim.id)
        files.close(*run.logs)
        return ended.facts()

    def _fail(self, run: _Run, facts: dict[str, Any]) -> None:
        luck = random.random()  # noqa: S311 - jitter, not secrecy
        values = self.member.live.last
        self._owe(run, finishing.failed(run.claim, facts, values, self.member.now(), luck))

    # ── what is owed to the disk ──────────────────────────────────────────────────────────

    def _owe(self, run: _Run, outcome: Event) -> None:
        """Record how a run ended. The move that follows is made while the next command runs.

        Crash: what is recorded is finished by whoever finds it, so a death costs one run and not two.
        """
        run.ends_as(outcome)
        self._owed.append(run)
        while len(self._owed) > 1:
            self._pay()
        with contextlib.suppress(ClaimLost):  # the claim was lost, which is told with the move
            self._write(run)

    def _pay(self) -> None:
        """Record the outcome that was owed first, however long the disk is away."""
        with contextlib.suppress(ClaimLost):  # the claim was lost, which has been told
            self._insist(self._record)

    def _try_to_pay(self) -> None:
        """Record the outcome that is owed, if the disk takes it now; the command at hand goes on."""
        try:
            self._record()
        except ClaimLost:
            pass  # it has been told
        except OSError as error:
            if not _may_pass(error):
                raise
            self._tell_trouble(error)

    def _record(self) -> None:
        """Add what is owed to the job's file, then make its move; each is done once."""
        if not self._owed:
            return
        run = self._owed[0]
        try:
            if run.claim.unwritten:
                self._note(run)
            assert run.outcome is not None  # it is owed
            state = self.member.settle(run.claim, run.outcome)
        except ClaimLost:
            del self._owed[0]
            log.error("job %s: the claim was lost; its outcome is not recorded", run.claim.id)
            raise
        except OSError as error:
            if not self._is_of_one_file(error):
                raise
            del self._owed[0]
            self._put_aside(run, error)
            return
        del self._owed[0]
        self._tell(run, run.outcome, state)

    def _put_aside(self, run: _Run, error: OSError) -> None:
        """Put a run's job aside whose file does not take the outcome; one that cannot be moved stays ours."""
        reason = f"Its outcome could not be written to its file ({error.strerror}): {run.in_words()}."
        try:
            aside.bury(self._root, run.claim.name, run.claim.name.free(), reason, aside.RAN)
        except OSError as why:
            if run not in self._stuck:
                log.error(
                    "job %s: its outcome is recorded as soon as its file can be changed (%s): %s",
                    run.claim.id,
                    why.strerror,
                    run.claim.path,
                )
                self._stuck.append(run)
        else:
            log.error("job %s: put aside, see its reason in dead/", run.claim.id)

    def _pay_stuck(self) -> None:
        """Try again, now and then, to record the outcomes whose files could not be changed."""
        if not self._stuck or times.clock.monotonic() < self._stuck_until:
            return
        self._stuck_until = times.clock.monotonic() + STUCK
        for run in self._stuck.copy():
            self._owed.insert(0, run)
            self._try_to_pay()
            if run in self._owed:
                self._owed.remove(run)  # the disk is in trouble: later
            elif not files.exists(run.claim.path):
                self._stuck.remove(run)

    def _tell(self, run: _Run, outcome: Event, state: State) -> None:
        job_id, error = run.claim.id, outcome.get("error")
        if state is State.DONE:
            log.info("job %s: completed in %.3f s", job_id, outcome["seconds"])
        elif outcome["event"] == FAILED:
            log.warning("job %s: %s; it is %s", job_id, error, state.label)
        else:
            log.warning("job %s: %s; its run is stopped", job_id, error)

    def _insist(self, act: Callable[[], T]) -> T:
        """Do it, however long the disk is full or away: until then the claim keeps the job safe.

        Raises `ClaimLost`, the `OSError` that only this file meets, and `_InHaste` at a second signal:
        a limit to stop is no reason to forget an outcome.
        """
        while True:
            try:
                return act()
            except OSError as error:
                if self._is_of_one_file(error):
                    raise
                self._is_to_end(self._keeper)
                self._tell_trouble(error)
                if self._stop is Stop.NOW:
                    self._is_hasty = True
                    raise _InHaste from error
                self._ring.wait(1.0)

    def _is_of_one_file(self, error: OSError) -> bool:
        """Whether only the file at hand is refused: it is immutable, say, or too large for `ulimit -f`.

        SFTP has no word for a full disk, so that EPERM may mean the disk: then others are refused, too.
        """
        if error.errno in claiming.OF_ONE_FILE:
            return True
        may_be_gone = isinstance(error, FileNotFoundError)
        return not (may_be_gone or StorageTrouble.explains(error)) and self._is_usable()

    def _tell_trouble(self, error: OSError) -> None:
        """Say once what is wrong with the disk, what is owed to it, and what a request to stop waits for."""
        owed = ", ".join(f"job {run.claim.id} ({run.in_words()})" for run in self._owed)
        text = str(StorageTrouble(error))
        then = (
            f"The outcome is recorded as soon as it can be: {owed}." if owed else "No new claims until then."
        )
        if text != self._trouble_said:
            log.error("%s %s", text, then)
        elif owed and owed != self._owed_said:
            log.error("%s", then)
        self._trouble_said, self._owed_said = text, owed
        if owed and self._stop is Stop.AFTER_JOB and not self._has_told_stop:
            self._has_told_stop = True
            log.warning(
                "asked to stop, but an outcome is not recorded yet: %s. This worker ends once it is; "
                "`kill %d` ends it at once, and the run counts as lost.",
                owed,
                files.kernel.getpid(),
            )


def _stop_remains(root: Root, name: Name, history: tuple[Event, ...]) -> None:
    from queuectl.worker.remains import stop_remains  # and psutil, which few workers need

    stop_remains(root, name, history)


def _may_pass(error: OSError) -> bool:
    """Whether the same may work later: SFTP has no word for a full disk, sshfs says EPERM."""
    return StorageTrouble.explains(error) or isinstance(error, PermissionError)
