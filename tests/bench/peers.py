"""Other queues that are installed: how each is filled and worked off, what it records and syncs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.place import Failed, environment, run, running, wait_for
from tests.bench.timing import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_COMMAND = ["sh", "-c", "true"]
_UNTIL_GONE = ["sh", "-c", 'while test -e "$0"; do sleep 0.05; done']
_PROGRAM = Path(__file__).with_name("python_peers.py")


@dataclass(frozen=True)
class Peer:
    """A queue. `drain` works off so many jobs in a folder with so many workers, and tells the seconds.

    `enqueue` is the command line that files a job, `variables` what it needs in its environment,
    `end` ends what that has left running.
    """

    name: str
    note: str
    drain: Callable[[Path, int, int], float]
    most_workers: int = 1000
    enqueue: tuple[str, ...] = ()
    variables: Callable[[Path], dict[str, str]] = lambda _: {}
    end: Callable[[Path], None] = lambda _: None


def installed(python: Path | None) -> list[Peer]:
    """Those that are found here; those in Python where they have an interpreter of their own."""
    by_program = [
        (
            "parallel",
            Peer("GNU parallel", "stdout, stderr, exit status, seconds in a log; syncs nothing", _parallel),
        ),
        (
            "tsp",
            Peer(
                "task-spooler",
                "stdout and stderr in one file, exit status, seconds in its server's memory; syncs nothing",
                _task_spooler,
                enqueue=("tsp",),
                variables=_task_spooler_variables,
                end=_end_task_spooler,
            ),
        ),
        (
            "nq",
            Peer(
                "nq",
                "stdout and stderr in one file, exit status; syncs nothing",
                _nq,
                most_workers=1,
                enqueue=("nq", "-q"),
                variables=_nq_variables,
                end=_end_nq,
            ),
        ),
    ]
    found = [peer for program, peer in by_program if shutil.which(program)]
    return found + (_in_python(python) if python is not None else [])


def outputs(folder: Path) -> int:
    return sum(name.endswith(".out") for name in os.listdir(folder))


def _expect(count: int, found: int, who: str) -> None:
    if found != count:
        raise Failed(f"{who} has run {found} of {count} jobs")


# ── xargs ─────────────────────────────────────────────────────────────────────────────────────

XARGS_NOTE = "stdout, stderr; syncs nothing"


def xargs(folder: Path, count: int, workers: int) -> float:
    """The bare loop that all are held against: the same commands, their streams to files, no more."""
    (folder / "numbers").write_text("".join(f"{number}\n" for number in range(count)))
    words = ["xargs", "-a", "numbers", "-P", str(workers), "-I{}", "sh", "-c", "true >{}.out 2>{}.err"]
    took = seconds(lambda: run(words, folder))
    _expect(count, outputs(folder), "xargs")
    return took


# ── GNU parallel, task-spooler, nq ────────────────────────────────────────────────────────────


def _parallel(folder: Path, count: int, workers: int) -> float:
    (folder / "numbers").write_text("".join(f"{number}\n" for number in range(count)))
    words = ["parallel", "-a", "numbers", "-j", str(workers), "--joblog", "log", "--results", "results"]
    (folder / "home").mkdir()
    home = {"HOME": str(folder / "home"), "PARALLEL_HOME": str(folder / "home")}
    took = seconds(lambda: run([*words, "sh", "-c", "true"], folder, home))
    _expect(count, len((folder / "log").read_text().splitlines()) - 1, "GNU parallel")
    return took


def _task_spooler_variables(folder: Path) -> dict[str, str]:
    # A path from the folder that its commands run in: that of a socket has room for 107 bytes.
    return {"TS_SOCKET": "socket", "TMPDIR": str(folder), "TS_MAXFINISHED": "100000"}


def _end_task_spooler(folder: Path) -> None:
    run(["tsp", "-K"], folder, _task_spooler_variables(folder))


def _task_spooler(folder: Path, count: int, workers: int) -> float:
    """Every job waits behind one that ends with a file; then as many slots are opened as workers."""
    variables = _task_spooler_variables(folder)

    def drain() -> None:
        hold.unlink()
        run(["tsp", "-S", str(workers)], folder, variables)
        run(["tsp", "-w"], folder, variables)

    with _held(folder) as hold:
        try:
            run(["tsp", "-n", *_UNTIL_GONE, str(hold)], folder, variables)
            for _ in range(count):
                run(["tsp", *_COMMAND], folder, variables)
            took = seconds(drain)
        finally:
            _end_task_spooler(folder)
    _expect(count, sum(name.startswith("ts-out") for name in os.listdir(folder)), "task-spooler")
    return took


def _nq_variables(folder: Path) -> dict[str, str]:
    return {"NQDIR": str(folder)}


def _end_nq(folder: Path) -> None:
    """Wait until it has nothing left to run: each job still renames its file when it ends."""
    run(["nq", "-w"], folder, _nq_variables(folder))


def _nq(folder: Path, count: int, _: int) -> float:
    variables = {"NQDIR": str(folder / "queue")}
    with _held(folder) as hold:
        run(["nq", "-q", *_UNTIL_GONE, str(hold)], folder, variables)
        for _ in range(count):
            run(["nq", "-q", *_COMMAND], folder, variables)
        hold.unlink()
        took = seconds(lambda: run(["nq", "-w"], folder, variables))
    # It waits for the jobs, and the last of them may yet have to write down its status.
    wait_for(lambda: _nq_ended(folder / "queue") == count + 1, "nq has run its jobs", within=10)
    return took


def _nq_ended(queue: Path) -> int:
    return sum("status 0" in path.read_text() for path in queue.iterdir() if path.name.startswith(","))


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """A file for as long as which nothing runs; it is gone afterwards, whatever happened."""
    hold = folder / "hold"
    hold.touch()
    try:
        yield hold
    finally:
        hold.unlink(missing_ok=True)


# ── in Python ─────────────────────────────────────────────────────────────────────────────────


def make_python(folder: Path) -> Path:
    """An environment with huey and rq; its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "huey", "rq"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return python


def _in_python(python: Path) -> list[Peer]:
    streams = "stdout, stderr, exit status"

    def huey(kind: str) -> Callable[[Path, int, int], float]:
        def drain(folder: Path, count: int, workers: int) -> float:
            return _drain_huey(python, kind, folder, count, workers)

        return drain

    def rq(worker: str) -> Callable[[Path, int, int], float]:
        def drain(folder: Path, count: int, workers: int) -> float:
            return _drain_rq(python, worker, folder, count, workers)

        return drain

    found = [
        Peer("huey, files", f"{streams}; syncs nothing", huey("huey-file")),
        Peer("huey, SQLite", f"{streams}; synchronous = off", huey("huey-sqlite")),
    ]
    if shutil.which("redis-server"):
        memory = f"{streams}, seconds in the memory of Redis; syncs nothing"
        found += [
            Peer("rq, no fork a job", memory, rq("rq.worker.SimpleWorker")),
            Peer("rq", memory, rq("rq.worker.Worker")),
        ]
    return found


def _drain_huey(python: Path, kind: str, folder: Path, count: int, workers: int) -> float:
    program = [str(python), str(_PROGRAM)]
    run([*program, "fill", kind, str(folder), str(count)], folder)
    took = seconds(lambda: _all_at_once([[*program, "work", kind, str(folder)]] * workers, folder))
    _expect(count, outputs(folder), kind)
    return took


def _drain_rq(python: Path, worker: str, folder: Path, count: int, workers: int) -> float:
    with _redis(folder) as port:
        run([str(python), str(_PROGRAM), "fill", "rq", str(port), str(count)], folder)
        url = f"redis://127.0.0.1:{port}"
        words = [str(python), "-m", "rq.cli", "worker", "--quiet", "--burst", "--worker-class", worker]
        path = {"PYTHONPATH": str(_PROGRAM.parent)}
        took = seconds(lambda: _all_at_once([[*words, "--url", url]] * workers, folder, path))
    _expect(count, outputs(folder), "rq")
    return took


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[int]:
    """A Redis on the loopback that keeps nothing on disk; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with running(words, folder):
        wait_for(lambda: _answers(port), "Redis answers", within=20)
        yield port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _all_at_once(commands: list[list[str]], folder: Path, more: dict[str, str] | None = None) -> None:
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(running(words, folder, more)) for words in commands]
        if any(child.wait(600) for child in started):
            raise Failed((folder / "running.log").read_text(errors="replace")[-2000:])
