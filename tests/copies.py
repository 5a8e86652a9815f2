"""Processes that begin as copies of one that has imported `queuectl`: much cheaper than to start Python.

They are processes like any other: they get signals, hold locks, are killed and leave things behind.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
#: `__main__`: else each copy of a `pytest` that runs without xdist imports it.
_CONTEXT.set_forkserver_preload(["__main__", "tests.roles"])


class Copy:
    """One process, with the methods of a `subprocess.Popen`. Its standard input is empty unless given."""

    def __init__(
        self,
        begin: Callable[..., int],
        *args: Any,
        out: int,
        err: int,
        stdin: int | None = None,
        cwd: str | bytes | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Call `begin` in a new process with these streams; what it returns is the exit status."""
        place = os.fspath(cwd or os.getcwd())
        streams = {
            stream: _File(number) for stream, number in enumerate((stdin, out, err)) if number is not None
        }
        self._process = _CONTEXT.Process(
            target=_be, args=(begin, args, streams, place, dict(env or os.environ)), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end; returns the exit status, negative after a signal."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), seconds or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _File:
    """An open file that is handed to a process that is about to start."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (multiprocessing.reduction.DupFd(self._number),)


def _opened(duplicate: Any) -> int:
    number: int = duplicate.detach()
    return number


def _be(
    begin: Callable[..., int],
    args: tuple[Any, ...],
    streams: dict[int, int],
    place: str | bytes,
    env: dict[str, str],
) -> None:
    for stream, number in streams.items():
        os.dup2(number, stream)
        os.close(number)
    # Whether a stream is a terminal decides how Python buffers it.
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    raise SystemExit(begin(*args))
