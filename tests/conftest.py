"""What the whole-system tests share: a private spool, real workers, waiting by condition, an audit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import hypothesis
import psutil
import pytest

from queuectl import Spool, State, times
from queuectl.job.history import Event, last_attempt
from queuectl.spool import descriptions, jobs, requests
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.view import audit
from queuectl.worker import log as worker_log
from queuectl.worker.loop import Worker
from queuectl.worker.remains import stop_remains
from tests.copies import Copy
from tests.roles import be_a_worker
from tests.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from multiprocessing.context import ForkProcess
    from pathlib import Path

    from queuectl.spool.jobs import Found

FAST = "poll_interval: 0.05\nbackoff_base: 0\nbackoff_jitter: 0\n"
#: A wait for something that should come at once fails after this. So long, for a machine that is busy.
PATIENT = 60.0
T = TypeVar("T")


class Until(Protocol):
    """Waits for a condition and returns what made it true; fails after so many seconds."""

    def __call__(self, condition: Callable[[], T], what: str, seconds: float = PATIENT) -> T: ...


def wait_until(condition: Callable[[], T], what: str, seconds: float = PATIENT) -> T:
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)
    return found


@pytest.fixture
def until() -> Until:
    return wait_until


@pytest.fixture
def size() -> Callable[[int, int], int]:
    """Picks the quick figure, or the full one where QUEUECTL_TRIALS=full is set."""
    return lambda quick, thorough: thorough if is_full() else quick


# ── a report of what was measured ─────────────────────────────────────────────────────────────

REPORT = "trials-report.md"
#: Seconds that a trial may take in its full form, and that a test of a group may take in the quick one.
PATIENCE, PATIENCE_QUICK = 4 * 3600, 300


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Notes what a trial has measured, for the report of a full run."""
    return lambda trial, text: request.node.user_properties.append(("figure", (trial, text)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """After a full run: write the table of its figures."""
    reports = [report for report in terminalreporter.stats.get("passed", []) if report.when == "call"]
    rows = sorted(
        tuple(value) for report in reports for name, value in report.user_properties if name == "figure"
    )
    if rows and is_full():
        lines = ["| trial | figure |", "| --- | --- |", *(f"| {trial} | {text} |" for trial, text in rows)]
        with open(REPORT, "w", encoding="utf-8") as report:
            report.write("\n".join(lines) + "\n")
        terminalreporter.write_line(f"The figures are in {REPORT}.")


def is_full() -> bool:
    return os.environ.get("QUEUECTL_TRIALS") == "full"


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many workers as there are cores: most of a test is waiting for processes."""
    return 2 * (os.cpu_count() or 1)


# How long an example takes says nothing on a busy machine, and no example is kept from one run to the next.
hypothesis.settings.register_profile("tests", deadline=None, database=None)
hypothesis.settings.load_profile("tests")


def pytest_configure() -> None:
    """Let the tests' children start with signals as usual, also under `nohup` and `trap '' INT`.

    A program that is started inherits an ignored signal, but not a handler. With a handler that does
    nothing pytest itself goes on ignoring the signal.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


#: Directories whose tests form a group of that name, which `pytest` alone does not run.
GROUPS = ("trials", "shares", "bench")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of each group. A full trial may take hours and has its own deadlines."""
    for item in items:
        if (group := item.path.parent.name) in GROUPS:
            item.add_marker(group)
            item.add_marker(pytest.mark.timeout(PATIENCE_QUICK))
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
        if is_full():
            item.add_marker(pytest.mark.timeout(PATIENCE), append=False)


@pytest.fixture
def new_spool(tmp_path: Path) -> Callable[[str], Spool]:
    """Makes further spools with fast settings."""

    def make(name: str) -> Spool:
        spool = Spool.create(tmp_path / name)
        spool.root.config.write_text(FAST)
        return spool

    return make


@pytest.fixture
def open_place(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that every user of the machine can come to, safe from all but root.

    What leads there stays open: tests that run beside this one may be on their way.
    """
    root = tmp_path_factory.getbasetemp()
    while root.name.startswith(("pytest-", "popen-")):
        root = root.parent
    for parent in [tmp_path, *tmp_path.parents]:
        if parent == root:
            break
        parent.chmod(parent.stat().st_mode | 0o011)
    return tmp_path


@pytest.fixture(autouse=True)
def threads_left() -> Iterator[None]:
    """A thread that outlives its test works on in the next one, and its calls are counted there."""
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(5)  # one that has been told to end may take a moment
    names = sorted(thread.name for thread in left if thread.is_alive())
    assert not names, f"threads outlived the test: {names}"


@pytest.fixture
def spool(new_spool: Callable[[str], Spool]) -> Spool:
    return new_spool("spool")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """The command line, with a spool."""
    with Shell(tmp_path) as shell:
        yield shell.make_spool()


@pytest.fixture
def homeless(tmp_path: Path) -> Iterator[Shell]:
    """The command line; its spool has not been made yet."""
    with Shell(tmp_path) as shell:
        yield shell


class StoppedClock(times.Clock):
    """A clock of the test's own: time passes when the test says so."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.set_by = timedelta()  # by how much somebody has set the wall clock
        self._begun = super().now()

    def now(self) -> datetime:
        return self._begun + timedelta(seconds=self.passed) + self.set_by

    def monotonic(self) -> float:
        return self.passed

    def awake(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    stopped = StoppedClock()
    monkeypatch.setattr(times, "clock", stopped)
    return stopped


class Counting:
    """Counts the system calls of `disk` by name, and the listings by the name of the directory."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.listed: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if not callable(found):
            return found

        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            if name == "listdir":
                self.listed[os.path.basename(arguments[0])] += 1
            return found(*arguments, **options)

        return counted


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    kernel = Counting()
    monkeypatch.setattr(files, "kernel", kernel)
    return kernel


# ── real workers ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Process:
    """One worker process that a test started."""

    popen: subprocess.Popen[bytes] | Copy
    spool: Spool

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    @property
    def name(self) -> str:
        """The owner's name that its claims bear."""

        def described() -> str | None:
            names = descriptions.described(self.spool.root)
            return next((name for name in names if f"-{self.pid}-" in name), None)

        return wait_until(described, f"worker {self.pid} describes itself") or ""

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def wait(self, seconds: float = PATIENT) -> int:
        return self.popen.wait(seconds)


ON_A_SHARE = "Medium.is_shared = True"


def commands_of(spool: Spool) -> list[psutil.Process]:
    """Every live process on this machine that a job of this spool started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            inside = process.environ().get("QUEUECTL_SPOOL") == str(spool.path)
            if inside and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Workers:
    """Starts worker processes of one spool; whatever happens, none of them outlives the test."""

    def __init__(self, spool: Spool, log: Path) -> None:
        self.spool = spool
        self.log = log
        self.started: list[Process] = []
        self._forked: list[int] = []

    def start(self, kind: str = "foreground", *, changes: str = "") -> Process:
        """Start one; `changes` is a program that first changes how it is made."""
        with self.log.open("ab") as log:
            number = log.fileno()
            copy = Copy(be_a_worker, [str(self.spool.path), kind], changes, out=number, err=number)
        return self._started(copy)

    def start_inside(self, *words: str, kind: str = "foreground", pass_fds: Sequence[int] = ()) -> Process:
        """Start one as a program of its own; `words` are a program that becomes it."""
        arguments = [*words, sys.executable, "-m", "queuectl.worker", str(self.spool.path), kind]
        with self.log.open("ab") as log:
            popen = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=pass_fds
            )
        return self._started(popen)

    def _started(self, popen: subprocess.Popen[bytes] | Copy) -> Process:
        self.started.append(Process(popen, self.spool))
        return self.started[-1]

    def fork(self, change: Callable[[], object]) -> None:
        """Start one in a copy of this process, which first changes how that calls the system."""
        if child := os.fork():
            self._forked.append(child)
            return
        try:
            change()
            worker = Worker(self.spool.root, "foreground")
            signal.signal(signal.SIGTERM, lambda *_: worker.ask_to_stop())
            with self.log.open("a") as log:
                worker_log.to_stream(log, worker.name)
                worker.run()
        finally:
            os._exit(0)

    def drain(self, count: int = 1, seconds: float = PATIENT) -> None:
        """Have workers run everything that may run now, and end."""
        assert [process.wait(seconds) for process in [self.start("drain") for _ in range(count)]] == [
            0
        ] * count

    def running(self) -> list[Process]:
        return [process for process in self.started if process.is_running]

    def refill(self, count: int) -> None:
        """Start as many workers as are missing."""
        for _ in range(count - len(self.running())):
            self.start()

    def stop(self) -> None:
        """Ask all to stop after the job at hand, and wait for them.

        One that was taken for dead meanwhile goes on under another name, and is asked again.
        """
        running, asked = self.running(), set[str]()

        def have_ended() -> bool:
            left = [f"-{process.pid}-" for process in running if process.is_running]
            described = descriptions.described(self.spool.root)
            new = {name for name in described if any(pid in name for pid in left)} - asked
            requests.to_stop(self.spool.root, new, None)
            asked.update(new)
            return not left

        wait_until(have_ended, "all workers have stopped")
        assert [process.wait() for process in running] == [0] * len(running)

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def end(self) -> None:
        for worker in self.running():
            worker.kill()
        for child in self._forked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        for command in (left := commands_of(self.spool)):
            with contextlib.suppress(psutil.NoSuchProcess):
                command.kill()
        psutil.wait_procs(left, timeout=5)


@pytest.fixture
def workers(spool: Spool, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(spool, tmp_path / "workers.log")
    yield workers
    workers.end()
    print(workers.said())


@pytest.fixture
def ended(spool: Spool) -> Callable[[str], Found]:
    """Waits until a job is done or dead."""

    def wait(job_id: str) -> Found:
        found = spool.wait(job_id, PATIENT)
        assert found, f"{job_id} is still {spool.find(job_id)}"
        return found

    return wait


def history_of(found: Found) -> tuple[Event, ...]:
    assert found.job, found
    return found.job.history


def kinds(history: Iterable[Event]) -> list[str]:
    """The words of events."""
    return [event["event"] for event in history]


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it waited for or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def history(spool: Spool) -> Callable[[str], tuple[Event, ...]]:
    """What a job's file tells of its runs."""
    return lambda job_id: history_of(spool.find(job_id))


# ── what really ran ───────────────────────────────────────────────────────────────────────────


class Evidence:
    """What jobs did, told by their commands in a file, so that the queue need not be asked.

    Each run holds a lock of its job's own for as long as any of its processes lives: a second
    run that meets the lock has overlapped the first.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.path = folder / "runs"
        self.path.touch()

    def command(self, body: str = ":") -> str:
        """A shell command that runs `body` and leaves evidence of when."""
        tell = f'echo "$QUEUECTL_JOB_ID $QUEUECTL_ATTEMPT $$ %s" >> {self.path}'
        return "; ".join(
            (
                f'exec 9>>"{self.folder}/$QUEUECTL_JOB_ID.lock"',
                # A share that is away just then may not take what a program closes as its output.
                f"flock -n 9 > /dev/null 2>&1 || {tell % 'overlap'}",
                tell % "start",
                body,
                tell % "end",
            )
        )

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()]

    def started(self, job_id: str | None = None) -> list[str]:
        """The ids of the runs that began, in their order."""
        begun = [line[0] for line in self.lines() if line[3] == "start"]
        return begun if job_id is None else [one for one in begun if one == job_id]

    def finished(self) -> list[str]:
        return [line[0] for line in self.lines() if line[3] == "end"]

    def pids(self, job_id: str) -> list[int]:
        return [int(line[2]) for line in self.lines() if line[0] == job_id and line[3] == "start"]

    def faults(self, spool: Spool) -> list[str]:
        """Runs that overlapped, were not recorded, or are claimed but never happened."""
        found = [f"{line[0]}: run {line[1]} overlaps" for line in self.lines() if line[3] == "overlap"]
        runs, ends = defaultdict(list), set(self.finished())
        for line in self.lines():
            if line[3] == "start":
                runs[line[0]].append(int(line[1]))
        for job in spool.list():
            numbers = runs.pop(job.id, [])
            recorded = last_attempt(job.job.history) if job.job else 0
            if len(set(numbers)) != len(numbers) or len(numbers) > recorded:
                found.append(f"{job.id}: runs {numbers}, recorded {recorded}")
            if numbers and job.state is State.DONE and job.id not in ends:
                found.append(f"{job.id}: done, but its command never came to its end")
        return found + [f"{job_id}: ran, but no job has this id" for job_id in runs]


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(tmp_path / "evidence")


# ── the audit ─────────────────────────────────────────────────────────────────────────────────


def make_old(spool: Spool) -> None:
    """Let every file look an hour old: to the auditor nothing is somebody's work in progress."""
    past = time.time() - 3600
    for folder, _, names in os.walk(os.fsencode(spool.path)):
        for name in names:
            os.utime(os.path.join(folder, name), (past, past), follow_symlinks=False)


def problems_in(spool: Spool) -> list[str]:
    """Everything that the auditor finds, as `FOLDER/NAME: what is wrong`."""
    make_old(spool)
    findings = audit.check(spool.root, Onlooker(spool.root), 1, spool.clock())
    return [f"{os.path.relpath(one.path, spool.path)}: {one.problem}" for one in findings]


@pytest.fixture
def problems() -> Callable[[Spool], list[str]]:
    return problems_in


@pytest.fixture
def problems_left() -> Callable[[Spool], list[str]]:
    """Everything that the auditor finds after `check --repair` has mended what it can."""
    return problems_left_in


def problems_left_in(spool: Spool) -> list[str]:
    make_old(spool)
    root, values = spool.root, spool.settings()
    audit.repair(root, Onlooker(root), values, stop_remains, spool.clock())
    return problems_in(spool)


@pytest.fixture
def places() -> Callable[[Spool], dict[str, list[State]]]:
    """Each id, with every directory in which a file bears it."""
    return places_in


def places_in(spool: Spool) -> dict[str, list[State]]:
    found: dict[str, list[State]] = defaultdict(list)
    for state in State:
        for name in jobs.names_in(spool.root, state):
            found[name.id].append(state)
    return found


@pytest.fixture
def audited(spool: Spool, workers: Workers, evidence: Evidence) -> Iterator[None]:
    """At the end: the workers stop when asked, nothing of a job still runs, and the audit is clean."""
    yield
    workers.stop()
    assert commands_of(spool) == []
    assert problems_in(spool) == []
    assert evidence.faults(spool) == []
    assert {job_id: found for job_id, found in places_in(spool).items() if len(found) != 1} == {}


# ── many at once ──────────────────────────────────────────────────────────────────────────────


class AtOnce(Protocol):
    """Runs actions in processes of their own, all let go at one moment; returns their results."""

    def __call__(self, actions: Sequence[Callable[[], Any]]) -> list[Any]: ...


@pytest.fixture
def at_once() -> Iterator[AtOnce]:
    context = multiprocessing.get_context("fork")
    children: list[ForkProcess] = []

    def run(actions: Sequence[Callable[[], Any]]) -> list[Any]:
        gate = context.Barrier(len(actions))

        def child(action: Callable[[], Any], answer: Any) -> None:
            random.seed()
            gate.wait()
            answer.send(action())

        ears = []
        for action in actions:
            ear, mouth = context.Pipe(duplex=False)
            process = context.Process(target=child, args=(action, mouth))
            process.start()
            mouth.close()
            children.append(process)
            ears.append(ear)
        answers, patience = [], PATIENCE if is_full() else 60
        for ear in ears:
            with ear:
                assert ear.poll(patience), f"no answer within {patience} s"
                answers.append(ear.recv())  # EOFError: it raised, and its traceback is on stderr
        for process in children:
            process.join(10)
        return answers

    yield run
    for process in children:
        if process.is_alive():
            process.kill()
        process.join()
