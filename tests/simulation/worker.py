"""A simulated worker: the product's member, in the order of the product's loop, without real commands."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from greenlet import getcurrent

from queuectl import times
from queuectl.errors import ClaimLost, QueueError
from queuectl.job.history import CANCELLED, COMPLETED, RETURNED
from queuectl.spool import descriptions, finishing, liveness, requests
from queuectl.system import files
from queuectl.worker.member import Member
from tests.simulation.world import Process, Run, Thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from queuectl.job.history import Event
    from queuectl.spool.claims import Claim
    from queuectl.spool.names import Name
    from queuectl.spool.root import Root
    from tests.simulation.world import Machine, World

    T = TypeVar("T")

#: Shares of the lease after which nothing is begun, and the command at hand is stopped.
SILENT, CUT_OFF = 0.7, 0.8
#: Seconds after which a run's start is written to its file.
BRISK = 2.0
GRACE = 1.0


def stopping(world: World) -> Callable[[Root, Name, tuple[Event, ...]], None]:
    """What ends the rest of a dead worker's command, as far as it runs on the same host."""

    def stop_remains(root: Root, name: Name, history: tuple[Event, ...]) -> None:
        del root, history
        for run in world.running(name.id, world.current.machine):
            run.stop(world.time, 0.0)
            world.say(world.current, f"ends what is left of {name.id}")

    return stop_remains


class Worker:
    """One worker process: its main thread, its keeper and its guard."""

    def __init__(self, world: World, machine: Machine, delay: float = 0.0) -> None:
        self._world = world
        self._run: Run | None = None
        self._owed: tuple[Claim, Event] | None = None
        self._stop_remains = stopping(world)
        self.is_to_stop = False
        self._heard: list[str] = []
        self._idler: Thread | None = None
        world.listeners.append(self)
        self.process: Process = world.start(machine, "worker", self._main, delay)

    def hear(self, text: str) -> None:
        """Hear of a name in pending/ at once."""
        if not self.process.is_dead:
            self._heard.append(text)
            if self._idler is not None:
                idler, self._idler = self._idler, None
                self._world.wake(idler)

    def _main(self) -> None:
        while True:
            self._is_buried = self._has_lapsed = False
            self._requests = requests.Requests()
            begun = times.clock.awake()
            self._member = self._insist(self._join)
            self._beaten = begun
            name = self._member.name
            self._world.say(self.process, f"works as {name}")
            self._world.thread(self.process, partial(self._keep, name))
            if self._member.root.medium.is_shared:
                self._world.thread(self.process, partial(self._guard, name))
            self._serve()
            if not self._is_buried:
                with contextlib.suppress(OSError):
                    self._pay()
                    self._member.leave()
                    self._member.name = ""
                return

    def _join(self) -> Member:
        return Member.join(self._world.root(), descriptions.DETACHED, times.utc_now())

    def _insist(self, act: Callable[[], T]) -> T:
        while True:
            try:
                return act()
            except OSError:
                times.clock.sleep(1.0)

    # ── beside the worker ─────────────────────────────────────────────────────────────────

    @property
    def _lease(self) -> float:
        return self._member.live.last.lock_lease_seconds

    def _silence(self) -> float:
        return times.clock.awake() - self._beaten

    def _is_silent(self) -> bool:
        return self._has_lapsed or self._silence() > self._lease * SILENT

    def _is_cut_off(self) -> bool:
        return self._member.root.medium.is_shared and (
            self._has_lapsed or self._silence() > self._lease * CUT_OFF
        )

    def _keep(self, name: str) -> None:
        watched = float("-inf")
        while self._member.name == name and not self._is_buried:
            try:
                if self._silence() >= liveness.beats_every(self._lease):
                    self._beat()
                self._requests = requests.requests_to(self._member.root, name)
                if times.clock.monotonic() - watched >= liveness.looks_every(self._lease):
                    watched = times.clock.monotonic()
                    self._member.others.watch()
            except (OSError, QueueError):
                pass
            times.clock.sleep(2.0)

    def _beat(self) -> None:
        begun = times.clock.awake()
        root = self._member.root
        try:
            self._member.beat(self._member.now())
        except FileNotFoundError:
            if f"{self._member.name}.yaml" in root.texts_in(root.workers):
                raise
            self._is_buried = True
            return
        self._has_lapsed |= root.medium.is_shared and self._silence() >= self._lease
        self._beaten = begun

    def _guard(self, name: str) -> None:
        while self._member.name == name and not self._is_buried:
            run = self._run
            if run is not None and self._is_cut_off():
                run.stop(self._world.time, 0.0)
            times.clock.sleep(1.0)

    # ── the loop ──────────────────────────────────────────────────────────────────────────

    def _serve(self) -> None:
        while not self._is_buried and not self.is_to_stop:
            try:
                self._step()
            except OSError as problem:
                self._world.say(self.process, f"sits out {problem}")
                times.clock.sleep(1.0)

    def _step(self) -> None:
        member = self._member
        self._has_lapsed = False
        if self._owed and (self._owed[0].unwritten or self._world.luck.random() < 0.5):
            self._pay()
        if member.others.is_recovery_due():
            self._pay()
            for told in member.recover(self._stop_remains, member.now()):
                self._world.say(self.process, told)
        now = member.now()
        heard, self._heard = self._heard, []
        member.look(now, heard)
        claim = None if self._requests.paused or self._is_silent() else member.claim(now, 20)
        if claim is not None:
            self._work(claim)
            return
        self._pay()
        member.waiting.doubt(now)
        pause = 0.3 if member.is_settling else 2.0
        due = member.waiting.next_due()
        if due is not None:
            pause = min(pause, max(0.05, (due - now).total_seconds()))
        if not self._heard:
            self._idler = getcurrent()
            times.clock.sleep(pause)
            self._idler = None

    def _work(self, claim: Claim) -> None:
        member = self._member
        began = member.now()
        try:
            opened = member.begin(claim)
        except OSError:
            self._give_back(claim)
            raise
        if opened is None:
            return
        claim, attempt, logs = opened
        if self._is_silent() or self._is_buried:
            files.close(*logs)
            self._give_back(claim)
            return
        run = self._run = self._command(claim, attempt)
        self._world.begin(run)
        claim = claim.adding(member.started(attempt, 1, began))
        try:
            self._watch(claim, run)
        except ClaimLost:
            self._world.say(self.process, f"has lost {claim.id}")
        finally:
            self._run = None
            if not self.process.is_dead:
                run.stop(self._world.time, 0.0)
                files.close(*logs)

    def _command(self, claim: Claim, attempt: int) -> Run:
        """The command as a value: `sim SECONDS CODES [stubborn]`, a code for each run."""
        words = [*str(claim.job.command).split(), "", "", ""]
        number = len(self._world.runs.get(claim.id, ()))
        try:
            codes = [int(code) for code in words[2].split(",")]
            seconds = float(words[1])
        except ValueError:
            codes, seconds = [127], 0.01
        now = self._world.time
        return Run(
            claim.id,
            attempt,
            self.process.machine,
            now,
            now + seconds,
            codes[min(number, len(codes) - 1)],
            words[3] == "stubborn",
        )

    def _watch(self, claim: Claim, run: Run) -> None:
        member, world = self._member, self._world
        is_unsure = False
        while run.is_running(world.time):
            if self._is_buried:
                run.stop(world.time, GRACE)
                raise ClaimLost(claim.id)
            if claim.stem in self._requests.cancelled:
                self._end_run(run)
                self._owe(
                    claim,
                    finishing.outcome(CANCELLED, claim, {"error": "cancelled"}, member.now()),
                    is_unsure,
                )
                return
            if self._is_cut_off():
                self._end_run(run)
                break
            if claim.unwritten and world.time - run.began >= BRISK:
                try:
                    claim = (claim.noted_again if is_unsure else claim.noted)()
                    is_unsure = False
                except OSError:
                    is_unsure = True
                with contextlib.suppress(OSError):
                    self._pay()
            times.clock.sleep(min(1.0, max(0.001, run.ends - world.time)))
        facts: dict[str, Any] = {"exit_code": run.code, "seconds": 0.0}
        if run.was_stopped:
            outcome = finishing.outcome(RETURNED, claim, {"error": "cut off"}, member.now())
        elif run.code == 0:
            outcome = finishing.outcome(COMPLETED, claim, facts, member.now())
        else:
            outcome = finishing.failed(claim, facts, member.live.last, member.now(), 0.5)
        self._owe(claim, outcome, is_unsure)

    def _end_run(self, run: Run) -> None:
        run.stop(self._world.time, GRACE)
        while run.is_running(self._world.time):
            times.clock.sleep(run.ends - self._world.time)

    # ── what is owed to the disk ──────────────────────────────────────────────────────────

    def _owe(self, claim: Claim, outcome: Event, is_unsure: bool) -> None:
        """Record an outcome; its move is made later, as the product does."""
        self._pay()
        claim = claim.adding(outcome)
        if not is_unsure and self._world.luck.random() < 0.3:
            with contextlib.suppress(ClaimLost):
                try:
                    self._member.end(claim._replace(unwritten=claim.unwritten[:-1]), outcome)
                except OSError:
                    self._owed = claim, outcome
                    self._pay(is_unsure=True)
            return
        try:
            claim = (claim.noted_again if is_unsure else claim.noted)()
        except ClaimLost:
            return
        except OSError:
            self._owed = claim, outcome
            self._pay(is_unsure=True)
            return
        self._owed = claim, outcome

    def _pay(self, *, is_unsure: bool = False) -> None:
        """Record what is owed and make its move, however long that takes."""
        while self._owed:
            claim, outcome = self._owed
            try:
                if claim.unwritten:
                    claim = (claim.noted_again if is_unsure else claim.noted)()
                    self._owed = claim, outcome
                self._member.settle(claim, outcome)
            except ClaimLost:
                self._world.say(self.process, f"has lost {claim.id} with its outcome")
            except OSError:
                is_unsure = True
                times.clock.sleep(1.0)
                continue
            self._owed = None

    def _give_back(self, claim: Claim) -> None:
        with contextlib.suppress(ClaimLost):
            self._insist(lambda: self._member.give_back(claim))
