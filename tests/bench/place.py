"""Where a benchmark works: sizes, processes and what they use, and a pipe on which a command tells."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PATIENCE = 600.0
T = TypeVar("T")


class Failed(Exception):
    """A benchmark did not do what it measures."""


class Skipped(Exception):
    """A benchmark that cannot be run here, and why."""


def environment() -> dict[str, str]:
    """That of the children: as a user has it, with compiled modules and without settings of ours."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH")
    return {
        name: text
        for name, text in os.environ.items()
        if name not in unwanted and not name.startswith("QUEUECTL_")
    }


def _script() -> list[str]:
    script = Path(sys.executable).with_name("queuectl")
    return [str(script)] if script.exists() else [sys.executable, "-m", "queuectl"]


QUEUECTL = _script()


def spread(folder: Path) -> None:
    """Have ext4 put each folder that is made in this one where few files are or have just been."""
    if chattr := shutil.which("chattr"):
        subprocess.run([chattr, "+T", str(folder)], stderr=subprocess.DEVNULL, check=False)


@dataclass(frozen=True)
class Place:
    """A folder for all that a row makes, and how much of it is to be made."""

    folder: Path
    is_quick: bool
    python_peers: Path | None = None

    def size(self, full: int, quick: int) -> int:
        return quick if self.is_quick else full

    def new(self) -> Path:
        """A folder. It stays, with whatever is in it, until all has been measured.

        ext4 gives no inode out again soon after its file was deleted, and looks for another one by
        one: beside a round whose thousands of files were deleted, creating a file takes ten times as
        long (0.2 ms against 0.02).
        """
        return Path(tempfile.mkdtemp(dir=self.folder))


def run(words: list[str], where: Path, more: Mapping[str, str] | None = None) -> None:
    """Run a command to its end, what it says going to a file; raises `Failed` unless it ends with 0."""
    log = where / "said.log"
    with log.open("wb") as said:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=where,
            env={**environment(), **(more or {})},
            start_new_session=True,
        )
    with _ended(child):
        status = _wait(child)
    if status:
        raise Failed(f"{shlex.join(words)} ended with {status}:\n{log.read_text(errors='replace')[-2000:]}")


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the end. `Popen.wait` with a limit looks at growing intervals, of 50 ms in the end."""
    if hasattr(os, "pidfd_open"):
        ended = os.pidfd_open(child.pid)
        try:
            select.select([ended], [], [], PATIENCE)
        finally:
            os.close(ended)
    return child.wait(PATIENCE)


@contextlib.contextmanager
def running(
    words: list[str], where: Path, more: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to end afterwards, with all that it started; it logs to `running.log`."""
    with (where / "running.log").open("ab") as said:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=where,
            env={**environment(), **(more or {})},
            start_new_session=True,
        )
    with _ended(child):
        yield child


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if child.poll() is None:
            below = psutil.Process(child.pid).children(recursive=True)
            child.terminate()
            _, stubborn = psutil.wait_procs([psutil.Process(child.pid), *below], timeout=20)
            for process in stubborn:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        child.wait()


def wait_for(condition: Callable[[], T], what: str, *, every: float = 0.005, within: float = PATIENCE) -> T:
    """Wait until a condition holds, and return what it gave; raises `Failed` when it never does."""
    end = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > end:
            raise Failed(f"not within {within:g} s: {what}")
        time.sleep(every)
    return found


class Mark:
    """A pipe with a name: a command writes to it as its first act, and we look at the clock."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR)  # for writing, too: then no writer waits, and none ends it
        self.command = f"echo >{shlex.quote(str(path))}"

    def wait(self, within: float = PATIENCE) -> float:
        """The moment (of `time.perf_counter`) at which the next command has said that it runs."""
        if not select.select([self._pipe], [], [], within)[0]:
            raise Failed(f"no command has started within {within:g} s")
        moment = time.perf_counter()
        os.read(self._pipe, 1)
        return moment

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)


def family(pid: int) -> list[int]:
    """The process and those that it started and that are still there."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def need_proc() -> None:
    """Raises `Skipped` where the system does not tell what a process uses."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise Skipped("/proc/PID/smaps_rollup is not here")


def own_memory(pid: int) -> float:
    """Megabytes: what a process has to itself and its share of what it has with others (PSS)."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / 1024


def peak_memory(pid: int) -> float:
    """Megabytes: the most that a process has had in memory."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") / 1024


def _kilobytes(path: Path, key: str) -> float:
    """What a line of /proc says; nothing of a process that has just ended."""
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith(key)), 0.0)


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used, finer than the clock tick that `times` counts in."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
