"""The command line as people use it: the real command, in a pipe or on a terminal, in a home of its own."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

import psutil
import pytest
import yaml

from queuectl import Spool
from queuectl.cli import main, quick
from tests.copies import Copy
from tests.roles import be_a_command, be_a_command_on_a_terminal, be_a_program_on_a_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

A = TypeVar("A")
T = TypeVar("T")
FAST = "poll_interval: 0.05\nbackoff_base: 0\nbackoff_jitter: 0\nstop_grace_seconds: 0.1\n"
#: A wait for something that should come at once fails after this. So long, for a machine that is busy.
SECONDS = 60.0
_ONE_AT_A_TIME = threading.Lock()
SGR = re.compile(r"\x1b\[[\d;]*m")
_ESCAPES = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_TWO_SENTENCES = re.compile(r"Error: \S.*?([.?!)]\s|\n)\s*\S.*", re.DOTALL)
_COMMAND = [sys.executable, "-m", "queuectl"]
_START = "os.execv(sys.executable, [sys.executable, '-m', 'queuectl', *sys.argv[1:]])"
# Without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH the mode of a file counts for root, too.
_UNPRIVILEGED = (
    f"import ctypes, os, sys; [ctypes.CDLL(None).prctl(24, one, 0, 0, 0) for one in (1, 2)]; {_START}"
)


def until(condition: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """Wait for a condition and return what made it true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return found


def at_once(run: Callable[[A], T], cases: Iterable[A]) -> list[T]:
    """Do the same with each case, several at a time: most of a command is the start of Python."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(run, cases))


#: Commands that start processes.
_STARTERS = {"start", "demo", "webui", "web"}
#: Variables that Python reads as it starts.
_AT_START = {"TZ", "LANG", "LC_ALL", "PYTHONIOENCODING"}


def _runs_here(arguments: Iterable[str | Path | bytes], env: Mapping[str, str | None] | None) -> bool:
    return not (_STARTERS & {*map(os.fsdecode, arguments)} or _AT_START & {*(env or {})})


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def controls_in(shown: str) -> set[str]:
    """The control characters in what a terminal was sent, but for line ends and our own colours."""
    return set(_CONTROLS.findall(SGR.sub("", shown).replace("\r\n", "\n")))


def has_two_sentences(error: str) -> bool:
    """Whether this says what is wrong, and then what to do."""
    return _TWO_SENTENCES.fullmatch(error.strip()) is not None


@dataclass(frozen=True)
class Said:
    """How one command ended, and what it wrote."""

    arguments: tuple[str | Path | bytes, ...]
    status: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        """The one JSON value that is all of standard output."""
        return json.loads(self.raw)

    @property
    def json_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw.split(b"\n") if line]


class Started:
    """A command that runs in the background, its streams in files."""

    def __init__(self, popen: Copy, out: Path, err: Path) -> None:
        self.popen = popen
        self._out, self._err = out, err

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def out(self) -> bytes:
        return self._out.read_bytes()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def runs(self) -> bool:
        return self.popen.poll() is None

    def end(self, seconds: float = SECONDS) -> int:
        """Wait for its end; returns the exit status."""
        return self.popen.wait(seconds)


class Terminal:
    """A command on a pseudo-terminal: what it was sent, and a keyboard."""

    def __init__(self, popen: Copy, master: int, out: Path | None) -> None:
        self.popen = popen
        self._master = master
        self._raw = bytearray()
        self._out = out

    @property
    def sent(self) -> str:
        """All that the terminal got, escape sequences and all."""
        return self._raw.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """What can be read of it."""
        return _ESCAPES.sub("", self.sent).replace("\r\n", "\n")

    @property
    def redirected(self) -> bytes:
        """What went to standard output where that was no terminal."""
        assert self._out is not None
        return self._out.read_bytes()

    def until(self, words: str, seconds: float = SECONDS) -> None:
        """Read until these words have been shown."""
        end = time.monotonic() + seconds
        while words not in self.text:
            if not self._read(0.05) or time.monotonic() > end:
                pytest.fail(f"not shown: {words!r} in {self.sent!r}")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def interrupt_question(self) -> int:
        """Press Ctrl-C until the command ends; one that falls just before Python reads is not heard."""

        def has_ended() -> bool:
            self.type("\x03")
            end = time.monotonic() + 1
            while time.monotonic() < end:
                if not self._read(0.05):
                    return True
            return False

        until(has_ended, "it has ended")
        return self.end()

    def end(self, seconds: float = SECONDS) -> int:
        """Read to the end; returns the exit status."""
        end = time.monotonic() + seconds
        while self._read(0.05):
            if time.monotonic() > end:
                pytest.fail(f"not ended within {seconds:g} s: {self.sent!r}")
        return self.popen.wait(seconds)

    def _read(self, seconds: float) -> bool:
        """Take what has come; False once nothing more can come."""
        gone = self.popen.poll() is not None
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return not gone
        try:
            block = os.read(self._master, 1 << 16)
        except OSError:  # Linux: the last one on the other side has closed it
            return False
        self._raw += block
        return bool(block)

    def close(self) -> None:
        os.close(self._master)


class Shell:
    """Runs `queuectl` with a home and a spool of its own; leaves no process behind."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.root = folder / "spool"
        self._started: list[Copy] = []
        self._terminals: list[Terminal] = []
        self._may_leave = False
        kept = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        self.environment = kept | {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "xterm-256color",
            "QUEUECTL_SPOOL": str(self.root),
        }

    def __enter__(self) -> Self:
        return self

    # ── running the command ──────────────────────────────────────────────────────────────────

    def __call__(
        self,
        *arguments: str | Path | bytes,
        stdin: str | bytes = b"",
        cwd: Path | bytes | None = None,
        env: Mapping[str, str | None] | None = None,
        status: int | tuple[int, ...] = 0,
        unprivileged: bool = False,
    ) -> Said:
        """Run one command line to its end: with this status (or one of these), never with a traceback.

        It runs in this process where it can: a new one takes ten times as long. A command that starts
        processes, waits, or needs other rights has a process of its own.
        """
        if not unprivileged and _runs_here(arguments, env):
            said = self._run_here(arguments, stdin, cwd, env)
        else:
            said = self._run_apart(arguments, stdin, cwd, env, unprivileged=unprivileged)
        assert "Traceback" not in said.err, said
        assert "fault of queuectl" not in said.err, said
        assert said.status in (status if isinstance(status, tuple) else (status,)), said
        return said

    def _run_apart(
        self,
        arguments: tuple[str | Path | bytes, ...],
        stdin: str | bytes,
        cwd: Path | bytes | None,
        env: Mapping[str, str | None] | None,
        *,
        unprivileged: bool,
    ) -> Said:
        self._may_leave |= "start" in arguments
        if not (stdin or env or unprivileged):
            return self._run_copy(arguments, cwd)
        command = [sys.executable, "-ISc", _UNPRIVILEGED] if unprivileged else _COMMAND
        done = subprocess.run(
            [*command, *arguments],
            input=_bytes(stdin),
            capture_output=True,
            cwd=cwd or self.home,
            env=self._env(env),
            check=False,
        )
        return Said(arguments, done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))

    def _run_copy(self, arguments: tuple[str | Path | bytes, ...], cwd: Path | bytes | None) -> Said:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            status = self._copy(arguments, out, err, cwd).wait()
            for stream in (out, err):
                stream.seek(0)
            return Said(arguments, status, out.read(), err.read().decode("utf-8", "replace"))

    def _copy(
        self,
        arguments: Sequence[str | Path | bytes],
        out: IO[bytes],
        err: IO[bytes],
        cwd: Path | bytes | None = None,
    ) -> Copy:
        words = [os.fspath(word) for word in arguments]
        streams = {"out": out.fileno(), "err": err.fileno()}
        return Copy(be_a_command, words, **streams, cwd=cwd or self.home, env=self._env(None))

    def refused(
        self,
        *arguments: str | Path | bytes,
        status: int | tuple[int, ...],
        stdin: str | bytes = b"",
        cwd: Path | bytes | None = None,
        env: Mapping[str, str | None] | None = None,
        unprivileged: bool = False,
    ) -> str:
        """Run a command line that cannot be done; returns its two sentences."""
        said = self(*arguments, stdin=stdin, cwd=cwd, env=env, status=status, unprivileged=unprivileged)
        assert said.raw == b"", said
        assert has_two_sentences(said.err), said
        return said.err

    def _run_here(
        self,
        arguments: tuple[str | Path | bytes, ...],
        stdin: str | bytes,
        cwd: Path | bytes | None,
        env: Mapping[str, str | None] | None,
    ) -> Said:
        words = [os.fsdecode(word) for word in arguments]
        streams = {"stdin": io.BytesIO(_bytes(stdin)), "stdout": io.BytesIO(), "stderr": io.BytesIO()}
        with _ONE_AT_A_TIME, pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - set(mine := self._env(env)):
                patch.delenv(name)
            for name, text in mine.items():
                patch.setenv(name, text)
            patch.chdir(os.fsdecode(cwd or self.home))
            for name, stream in streams.items():
                wrapped = io.TextIOWrapper(stream, "utf-8", "surrogateescape", write_through=True)
                patch.setattr(sys, name, wrapped)
            patch.setattr(logging.root, "handlers", [])  # a warning goes to standard error
            status = quick.run(words)
            if status is None:
                try:
                    status = main.run(words)
                except SystemExit as end:  # as click ends a completion
                    status = int(end.code or 0)
            raw, err = streams["stdout"].getvalue(), streams["stderr"].getvalue()
        return Said(arguments, status, raw, err.decode("utf-8", "replace"))

    def script(self, text: str, **env: str | None) -> subprocess.CompletedProcess[str]:
        """Run a script of bash in the home, to its end or to the first command that fails."""
        self._may_leave = True
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.home,
            env=self._env(env),
            text=True,
            check=False,
        )

    def start(self, *arguments: str | Path) -> Started:
        """Run a command line in the background."""
        out, err = (self.home.parent / f"{len(self._started)}.{name}" for name in ("out", "err"))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            popen = self._copy(arguments, out_file, err_file)
        self._started.append(popen)
        return Started(popen, out, err)

    def terminal(
        self,
        *arguments: str | Path,
        env: Mapping[str, str | None] | None = None,
        stdin: Path | None = None,
        redirected: bool = False,
        columns: int = 140,
    ) -> Terminal:
        """Run a command line on a terminal; standard input or output may be a file instead."""
        begin, words = be_a_command_on_a_terminal, list(arguments)
        if _AT_START & {*(env or {})}:
            begin, words = be_a_program_on_a_terminal, [*_COMMAND, *arguments]
        return self._on_terminal(begin, words, env, stdin, redirected=redirected, columns=columns)

    def program(self, *command: str) -> Terminal:
        """Run another program on a terminal, in this home."""
        begin = be_a_program_on_a_terminal
        return self._on_terminal(begin, command, None, None, redirected=False, columns=140)

    def _on_terminal(
        self,
        begin: Callable[[list[str | bytes]], int],
        words: Sequence[str | Path],
        env: Mapping[str, str | None] | None,
        stdin: Path | None,
        *,
        redirected: bool,
        columns: int,
    ) -> Terminal:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        out = self.home.parent / f"{len(self._started)}.out" if redirected else None
        with contextlib.ExitStack() as stack:
            popen = Copy(
                begin,
                [os.fspath(word) for word in words],
                stdin=stack.enter_context(stdin.open("rb")).fileno() if stdin else slave,
                out=stack.enter_context(out.open("wb")).fileno() if out else slave,
                err=slave,
                cwd=self.home,
                env=self._env(env),
            )
        os.close(slave)
        self._started.append(popen)
        terminal = Terminal(popen, master, out)
        self._terminals.append(terminal)
        return terminal

    def _env(self, changed: Mapping[str, str | None] | None) -> dict[str, str]:
        both: dict[str, str | None] = {**self.environment, **(changed or {})}
        return {name: value for name, value in both.items() if value is not None}

    # ── the spool ────────────────────────────────────────────────────────────────────────────

    def make_spool(self) -> Self:
        """Make the spool, with settings that let no test wait."""
        Spool.create(self.root)
        (self.root / "config.yaml").write_text(FAST)
        return self

    def copy_spool(self, other: Shell) -> Self:
        """Have the spool of another shell as it stands: it is no more than a directory."""
        shutil.copytree(other.root, self.root, symlinks=True)
        return self

    @property
    def spool(self) -> Spool:
        return Spool(self.root)

    def file(self, command: str | list[str], **fields: Any) -> str:
        """File a job that a test needs but is not about."""
        return self.spool.file({"command": command, **fields})

    def place(self, job_id: str) -> Path | None:
        """The file of a job; None at the moment of a move."""
        pattern = re.compile(rf"\d\d-[^-]+-{re.escape(job_id)}(@[\w-]+)?\.yaml")
        for folder in ("pending", "processing", "failed", "dead", "done"):
            for name in os.listdir(self.root / folder):
                if pattern.fullmatch(name):
                    return self.root / folder / name
        return None

    def state(self, job_id: str) -> str | None:
        """The directory in which a job lies."""
        path = self.place(job_id)
        return path.parent.name if path else None

    def fields(self, job_id: str) -> dict[str, Any]:
        """What a job's file says to any YAML reader."""
        path = self.place(job_id)
        assert path is not None, f"no job {job_id}"
        tree: dict[str, Any] = yaml.safe_load(path.read_text())
        return tree

    def jobs(self, root: Path | None = None) -> list[dict[str, Any]]:
        """What all waiting jobs' files say, in the order of their names."""
        folder = (root or self.root) / "pending"
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        return [yaml.safe_load((folder / name).read_text()) for name in names]

    def reaches(self, job_id: str, state: str) -> None:
        """Wait until a job lies in a directory."""
        until(lambda: self.state(job_id) == state, f"{job_id} is in {state}/")

    def drain(self) -> None:
        """Have a worker run everything that may run now."""
        self("worker", "start", "--drain")

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    def __exit__(self, *_: object) -> None:
        for popen in self._started:
            if popen.poll() is None:
                popen.kill()
            popen.wait()
        for terminal in self._terminals:
            terminal.close()
        if self._may_leave or self._started:
            self._end_what_is_left()

    def processes(self) -> list[psutil.Process]:
        """Every process that a command of this shell has started and left running."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("HOME") == str(self.home):
                    found.append(process)
        return [process for process in found if process.is_running()]

    def has_let_go(self, worker: str) -> bool:
        """Whether nobody holds a worker's lock. A process with threads is a zombie before it lets go."""
        with open(f"{self.root}/workers/{worker}.lock", "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def _end_what_is_left(self) -> None:
        def none_is_left() -> bool:
            left = self.processes()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return not left

        until(none_is_left, "every process of this shell has ended")


def readable_by_others() -> bool:
    """Whether another user can start this Python with these modules."""
    return (
        subprocess.run(
            ["setpriv", "--reuid=61001", "--clear-groups", sys.executable, "-c", "import queuectl, yaml"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            cwd="/",
            check=False,
        ).returncode
        == 0
    )
