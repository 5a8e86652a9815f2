"""A disk that fails, once or for good, at any operation: nothing is lost, it is said, and work goes on."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import QueueError, Spool, State
from queuectl.errors import StorageTrouble
from queuectl.spool import descriptions, jobs
from queuectl.system import files
from tests.conftest import Workers
from tests.trials.scenes import DEADLY, POINTS, Scene, drain, ends_of, faults_of, survives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Evidence, Until

ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE]
CALLS = {"open", "write", "fsync", "rename", "replace", "unlink", "ftruncate", "listdir", "lstat"}
#: Reasons for which no system refuses these.
IMPOSSIBLE = {
    "lstat": {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE},
    "listdir": {errno.ENOSPC, errno.EDQUOT, errno.EROFS},
    "write": {errno.EROFS, errno.EMFILE},
    "fsync": {errno.EROFS, errno.EMFILE},
    "ftruncate": {errno.EROFS, errno.EMFILE},
    "rename": {errno.EMFILE},
    "unlink": {errno.ENOSPC, errno.EDQUOT, errno.EMFILE},
}


class Faulty:
    """The system calls of the queue, of which the n-th that may fail does so, once or from then on."""

    def __init__(self, n: int, number: int, *, for_good: bool) -> None:
        self._n = n
        self._number = number
        self._for_good = for_good
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS or self._number in IMPOSSIBLE.get(name, ()):
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self._count += 1
            if self._count == self._n or (self._for_good and self._count > self._n):
                raise OSError(self._number, os.strerror(self._number))
            return real(*arguments, **named)

        return call


def refused_in_words(action: Callable[[Scene], None], scene: Scene) -> None:
    """An action as the command line does it: what the disk refuses comes out as trouble of the disk."""
    try:
        action(scene)
    except QueueError:
        os._exit(DEADLY)
    except OSError as error:
        if not StorageTrouble.explains(error):
            raise
        os._exit(DEADLY)


def empty_jobs(spool: Spool) -> list[str]:
    """The names under which a worker would find a job of which nothing was written."""
    paths = [
        f"{spool.root.folder(state)}/{name}"
        for state in State
        for name in files.list_names(spool.root.folder(state))
        if not name.startswith(".")
    ]
    return [path for path in paths if not os.stat(path).st_size]


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("point", POINTS)
def test_an_operation_that_the_disk_refuses_loses_nothing_and_leaves_no_half(
    new_spool: Callable[[str], Spool],
    tmp_path: Path,
    size: Callable[[int, int], int],
    figure: Callable[[str, str], None],
    point: str,
    for_good: bool,
) -> None:
    before, action = POINTS[point]
    faults: dict[str, object] = {}
    tried = 0
    for n in range(1, 200, size(3, 1)):
        numbers = ERRORS if size(0, 1) else [ERRORS[n // 3 % len(ERRORS)]]
        all_ended = True
        for number in numbers:
            scene = Scene(new_spool(f"spool-{n}-{number}"), tmp_path / f"told-{n}-{number}")
            before(scene)
            kernel = Faulty(n, number, for_good=for_good)
            all_ended &= survives(partial(refused_in_words, action, scene), kernel)
            empty = empty_jobs(scene.spool)
            assert survives(partial(drain, scene))
            tried += 1
            fault = [*faults_of(scene, scene.promised(), ends_of(action)), *empty]
            if fault:
                faults[f"{errno.errorcode[number]} at operation {n}"] = fault
            shutil.rmtree(scene.spool.path)
        if all_ended and n > 40:
            break
    assert faults == {}
    how = "for good" if for_good else "once"
    figure(f"disk that fails {how} while {point}", f"{tried} faults, all audited clean")


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("point", ["filing", "filing under a chosen id", "filing several"])
def test_filing_that_the_disk_refuses_leaves_nothing_behind_and_can_be_repeated(
    new_spool: Callable[[str], Spool], tmp_path: Path, point: str, number: int
) -> None:
    _, action = POINTS[point]
    refusals = 0
    for n in range(1, 40):
        scene = Scene(new_spool(f"spool-{n}"), tmp_path / f"told-{n}")
        files.kernel = Faulty(n, number, for_good=False)
        try:
            action(scene)
        except StorageTrouble:
            refused = True
        else:
            refused = False
        finally:
            files.kernel = os
        refusals += refused
        if refused:
            left = [name for state in State for name in os.listdir(scene.spool.root.folder(state))]
            assert left == os.listdir(scene.spool.root.logs) == [], n
            action(scene)
            assert scene.promised()
    assert refusals > 1


# ── a worker whose disk fails ─────────────────────────────────────────────────────────────────


class Failing:
    """The system calls of the queue, refused for as long as a file is there; how often is noted.

    `creation` is not one of them, but each `open` that may make a file.
    """

    def __init__(self, calls: set[str], number: int, switch: Path, tries: Path) -> None:
        self._calls, self._number = calls, number
        self._switch, self._tries = switch, tries

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        creates = name == "open" and "creation" in self._calls
        if name not in self._calls and not creates:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            if os.path.exists(self._switch) and not (creates and not arguments[1] & os.O_CREAT):
                with open(self._tries, "a") as tries:
                    tries.write(f"{name}\n")
                raise OSError(self._number, os.strerror(self._number))
            return real(*arguments, **named)

        return call


Start = "Callable[[set[str], int], tuple[Path, Path]]"


@pytest.fixture
def start_failing(tmp_path: Path, workers: Workers) -> Start:  # type: ignore[valid-type]
    """Starts a worker in a process of its own, some of whose calls fail while a file is there."""

    def start(calls: set[str], number: int) -> tuple[Path, Path]:
        switch, tries = tmp_path / "switch", tmp_path / "tries"
        tries.touch()
        workers.fork(lambda: setattr(files, "kernel", Failing(calls, number, switch, tries)))
        return switch, tries

    return start


#: What an SMB client says while it is cut off from its server.
CUT_OFF = [errno.EAGAIN, errno.ECONNABORTED, errno.EREMCHG]
FAULTS = [
    *itertools.product(["open", "write", "rename", "open write rename fsync unlink"], ERRORS),
    *itertools.product(["open", "open write rename fsync unlink listdir"], CUT_OFF),
    *itertools.product(["creation"], [errno.ENOSPC, errno.EROFS]),
    ("open lstat", errno.ENODATA),  # GlusterFS, of what another host makes just then
]


@pytest.mark.parametrize(
    ("calls", "number"), FAULTS, ids=[f"{calls}-{errno.errorcode[number]}" for calls, number in FAULTS]
)
def test_a_worker_waits_for_its_disk_says_so_once_and_works_on(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    until: Until,
    start_failing: Callable[[set[str], int], tuple[Path, Path]],
    calls: str,
    number: int,
) -> None:
    """The disk fails while a job runs and others wait; each ends once, and is recorded once."""
    switch, tries = start_failing(set(calls.split()), number)
    first = spool.file(evidence.command("sleep 0.4"))
    until(lambda: evidence.started() == [first], "it runs")
    switch.touch()
    others = [spool.file(evidence.command()) for _ in range(3)]
    until(lambda: "Nothing was lost" in workers.said(), "the worker says what is wrong")
    begun = len(tries.read_text().split())
    time.sleep(1.5)
    assert len(tries.read_text().split()) - begun < 60, "a busy loop"
    assert workers.said().count("Nothing was lost") <= 2, workers.said()
    switch.unlink()
    until(lambda: len(jobs.names_in(spool.root, State.DONE)) == 4, "all are recorded")
    assert sorted(evidence.started()) == sorted(evidence.finished()) == sorted([first, *others])
    assert evidence.faults(spool) == []
    told = {event["event"] for found in spool.list() if found.job for event in found.job.history}
    assert told == {"started", "completed"}, "the trouble of the disk was taken for that of a job"


# ── the same by the kernel ────────────────────────────────────────────────────────────────────

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
INJECTED = {
    "no space for what is written": "write:error=ENOSPC:when=1+",
    "no space for a new file": "openat:error=ENOSPC:when=1+",
    "a read-only disk": "rename:error=EROFS:when=1+",
    "a stale handle": "rename,openat:error=ESTALE:when=1+",
    "an error of the disk, now and then": "write,rename,openat,unlink:error=EIO:when=1+3",
}


def stands_still(pid: int) -> bool:
    """Whether all threads of a process stay stopped, not only for a tracer that looks at a call."""
    for _ in range(5):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "stat").read_text().rpartition(") ")[2][0] not in "tT":
                return False
        time.sleep(0.01)
    return True


@needs_strace
@pytest.mark.parametrize("what", INJECTED)
def test_a_worker_outlives_what_the_kernel_refuses_it(
    spool: Spool, evidence: Evidence, workers: Workers, until: Until, what: str
) -> None:
    """The calls of the worker on its spool fail for a while, in the middle of a job, then no more."""
    worker = workers.start()
    assert worker.name
    job_id = spool.file(evidence.command("sleep 0.5"))
    until(lambda: evidence.started() == [job_id], "it runs")
    claim = until(lambda: jobs.names_in(spool.root, State.PROCESSING), "it is claimed")[0]
    places = [f"{spool.root.folder(State.PROCESSING)}/{claim}", spool.root.logs]
    places += [spool.root.folder(state) for state in State]
    with subprocess.Popen(
        ["strace", "-qq", "-f", "-p", str(worker.pid), "-e", f"inject={INJECTED[what]}"]
        + [f"--trace-path={place}" for place in places],
        stderr=subprocess.PIPE,
    ) as tracer:
        try:
            later = spool.file(evidence.command())
            time.sleep(1.5)
            assert worker.is_running
            # A tracer that leaves amid a call that it refuses makes an ENOSYS of it.
            worker.popen.send_signal(signal.SIGSTOP)
            until(partial(stands_still, worker.pid), "no call is under way")
        finally:
            tracer.terminate()
            worker.popen.send_signal(signal.SIGCONT)
        assert tracer.stderr
        assert b"(INJECTED)" in tracer.stderr.read()
    until(lambda: len(jobs.names_in(spool.root, State.DONE)) == 2, "both are recorded")
    assert sorted(evidence.finished()) == sorted([job_id, later])
    assert evidence.faults(spool) == []


# ── real disks ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own: ext4 in a file where loop devices can be had, else in memory."""
    place, image = tmp_path / "disk", tmp_path / "image"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    ways: list[list[str]] = [["-t", "tmpfs", "-o", "size=64m", "tmpfs"]]
    mkfs = shutil.which("mkfs.ext4")
    if mkfs and subprocess.run([mkfs, "-q", image], capture_output=True, check=False).returncode == 0:
        ways.insert(0, ["-o", "loop", str(image)])
    for way in ways:
        if subprocess.run(["mount", *way, place], capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=False)


@pytest.fixture
def there(own_disk: Path) -> Spool:
    made = Spool.create(own_disk / "spool")
    made.root.config.write_text("poll_interval: 0.05\nbackoff_base: 0\nmax_retries: 0\n")
    return made


@pytest.fixture
def workers_there(there: Spool, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(there, tmp_path / "workers.log")
    yield made
    made.end()
    print(made.said())


def command(spool: Spool, *words: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "queuectl", "-s", str(spool.path), *words]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=30)


def test_a_disk_that_an_output_fills_is_the_trouble_of_that_command_and_then_of_the_worker(
    there: Spool, workers_there: Workers, evidence: Evidence, until: Until
) -> None:
    """The command gets the error of its own write; its outcome is recorded once there is room."""
    with there.root.config.open("a") as config:
        config.write("max_output_bytes: 0\n")
    workers_there.start()
    status = evidence.folder / "status"
    greedy = there.file(evidence.command(f"head -c 500000000 /dev/zero; echo $? > {status}"))
    until(lambda: evidence.finished() == [greedy], "it ends")
    assert status.read_text().strip() != "0"
    refused = command(there, "enqueue", "x" * 10_000)
    assert (refused.returncode, refused.stdout) == (75, "")
    left = os.listdir(there.root.folder(State.PENDING))
    assert left == []
    os.truncate(f"{there.root.logs}/{greedy}.1.out", 0)
    until(lambda: there.find(greedy).state is State.DONE, "its outcome is recorded")
    later = there.file(evidence.command())
    until(lambda: there.find(later).state is State.DONE, "work goes on")
    assert evidence.faults(there) == []


@pytest.fixture
def make_read_only(own_disk: Path) -> Iterator[Callable[[], None]]:
    """Puts a read-only mount of the same disk over it; the kernel makes none so that is written to."""

    def mount() -> None:
        subprocess.run(["mount", "--bind", own_disk, own_disk], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", own_disk], check=True)

    yield mount
    if os.statvfs(own_disk).f_flag & os.ST_RDONLY:
        subprocess.run(["umount", "-l", own_disk], check=True)


def test_a_disk_that_turns_read_only_is_waited_for(
    there: Spool,
    workers_there: Workers,
    evidence: Evidence,
    own_disk: Path,
    until: Until,
    make_read_only: Callable[[], None],
) -> None:
    workers_there.start()
    first, later = [there.file(evidence.command(body)) for body in ("sleep 0.5", ":")]
    until(lambda: evidence.started() == [first], "it runs")
    make_read_only()
    until(lambda: "The spool cannot be used" in workers_there.said(), "the worker says what is wrong")
    until(lambda: evidence.finished() == [first], "the command goes on to its end")
    refused = command(there, "enqueue", "true")
    assert (refused.returncode, refused.stdout) == (75, "")
    assert "cannot be used" in refused.stderr
    assert evidence.started() == [first]
    subprocess.run(["umount", "-l", own_disk], check=True)
    until(lambda: len(jobs.names_in(there.root, State.DONE)) == 2, "both are recorded")
    assert evidence.started() == evidence.finished() == [first, later]
    assert evidence.faults(there) == []


def test_what_an_ext4_had_synced_when_it_failed_is_there_once_it_is_mounted_anew(
    there: Spool,
    workers_there: Workers,
    evidence: Evidence,
    own_disk: Path,
    until: Until,
    tmp_path: Path,
    problems_left: Callable[[Spool], list[str]],
) -> None:
    """The disk stops at once, as when the power is cut: what its journal has not taken is lost."""
    workers_there.start()
    ids = [
        there.file({"command": evidence.command(body), "max_retries": 1}) for body in (":", "sleep 1", ":")
    ]
    until(lambda: evidence.started() == ids[:2], "the second one runs")
    failed = subprocess.run(["mount", "-o", "remount,abort", own_disk], capture_output=True, check=False)
    if failed.returncode:
        pytest.skip("only an ext4 can be told to fail")
    assert command(there, "enqueue", "true").returncode == 75
    until(lambda: "The spool cannot be used" in workers_there.said(), "the worker says what is wrong")
    assert evidence.started() == ids[:2]
    workers_there.end()
    subprocess.run(["umount", own_disk], check=True)
    # The kernel goes on with the failed one where another namespace has it mounted still.
    shutil.copy(tmp_path / "image", tmp_path / "later")
    subprocess.run(["mount", "-o", "loop", tmp_path / "later", own_disk], check=True)
    assert {found.id for found in there.list()} == set(ids)
    workers_there.drain()
    assert {found.id: found.state for found in there.list()} == dict.fromkeys(ids, State.DONE)
    assert evidence.finished()[-1] == ids[2]
    assert problems_left(there) == []


def test_a_curbed_output_never_fills_the_disk(there: Spool, workers_there: Workers, until: Until) -> None:
    with there.root.config.open("a") as config:
        config.write("max_output_bytes: 100000\n")
    workers_there.start()
    # In three seconds more than the disk holds.
    slow = "while :; do head -c 2000000 /dev/zero || exit 3; sleep 0.05; done"
    job_id = there.file({"command": slow, "timeout": 5, "id": "greedy"})
    until(lambda: there.find(job_id).state is State.DEAD, "its time is up", seconds=20)
    assert "longer than its limit" in str(there.find(job_id).job)
    log = Path(f"{there.root.logs}/greedy.1.out").read_bytes()
    assert len(log) < 100_200
    assert b" bytes were dropped here]" in log


@pytest.fixture
def frozen(own_disk: Path) -> Iterator[Path]:
    """A disk that hangs: who writes to it sleeps until it is thawed, whatever signal comes."""
    freeze = shutil.which("fsfreeze", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if freeze is None or subprocess.run([freeze, "-f", own_disk], check=False).returncode:
        pytest.skip("freezing needs root, fsfreeze and a file system that can be frozen")
    yield own_disk
    subprocess.run([freeze, "-u", own_disk], check=False, capture_output=True)


def test_a_run_that_cannot_be_ended_is_waited_for_before_the_next(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, frozen: Path
) -> None:
    job_id = spool.file(evidence.command(f"test $QUEUECTL_ATTEMPT != 1 || : > {frozen}/file"))
    worker = workers.start()
    dead = worker.name
    until(evidence.started, "it runs")
    worker.kill()
    workers.start()
    until(lambda: "still runs" in workers.said(), "it was tried")
    workers.start()
    until(lambda: workers.said().count("still runs") == 2, "another one tried, too")
    assert evidence.started() == [job_id]
    assert dead in descriptions.described(spool.root), "by this the next taker knows where it ran"
    subprocess.run(["fsfreeze", "-u", frozen], check=True)
    until(lambda: evidence.finished() == [job_id], "it ran again")
