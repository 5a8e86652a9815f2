"""Starting workers beside this process, and asking workers anywhere to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from queuectl.errors import QueueError
from queuectl.spool import presence
from queuectl.spool.root import Root, open_root
from queuectl.worker.loop import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DETACHED, FOREGROUND, DRAIN = "detached", "foreground", "drain"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _Line(logging.Formatter):
    """One line a record, with no control character in it."""

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub("?", super().format(record))


class _Reopened(logging.StreamHandler[TextIO]):
    """Opens its file anew where it takes no more: a share that was away leaves dead descriptors."""

    def __init__(self, stream: TextIO, reopen: Callable[[], None]) -> None:
        super().__init__(stream)
        self._reopen = reopen

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record) + self.terminator
        for _ in range(2):
            try:
                self.stream.write(text)
                self.stream.flush()
            except OSError:
                with contextlib.suppress(OSError):
                    self._reopen()
            else:
                return


def log_to(stream: TextIO, worker: str, reopen: Callable[[], None] = lambda: None) -> None:
    """Let this process's log go to a stream, the worker's name in every line."""
    handler = _Reopened(stream, reopen)
    handler.setFormatter(_Line(f"%(asctime)s {worker} %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def log_path(root: Root, worker: str) -> Path:
    """Where a detached worker's own log is."""
    return Path(f"{root.logs}/worker@{worker}.log")


def start_detached(root: Root, count: int) -> list[str]:
    """Start workers that outlive this process and its terminal; returns their names.

    Raises `QueueError` when one does not come up; those before it run on.
    """
    started = [
        subprocess.Popen(
            _command(root, DETACHED),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        for _ in range(count)
    ]
    names = []
    for child in started:
        assert child.stdout is not None
        with child.stdout:
            said = child.stdout.read()
        word, _, rest = said.partition(" ")
        if word != "ready":
            raise QueueError("A worker did not start.", said.strip() or "It said nothing.")
        names.append(rest.strip())
        child.returncode = 0  # it is meant to outlive us: nobody waits for it here
    return names


def _command(root: Root, kind: str) -> list[str]:
    return [sys.executable, "-m", "queuectl.worker", str(root.path), kind]


def run_here(root: Root, kind: str) -> int:
    """Be a worker in this process until it ends; returns 130 after Ctrl-C, else 0."""
    worker = Worker(root, kind, drain=kind == DRAIN)
    if kind == DETACHED:
        sys.stdout.write(f"ready {worker.name}\n")
        sys.stdout.flush()
        _log_to_file(root, worker.name)
        log_to(sys.stderr, worker.name, lambda: _log_to_file(root, worker.name))
    else:
        log_to(sys.stderr, worker.name)
    interrupted = []

    def on_signal(number: int, _: object) -> None:
        if number == signal.SIGINT:
            interrupted.append(number)
        worker.ask_to_stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    worker.run()
    return 130 if interrupted else 0


def _log_to_file(root: Root, name: str) -> None:
    """Let go of what we have from the one who started us; what this process says goes to its log."""
    descriptor = os.open(log_path(root, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def run_several(root: Root, kind: str, count: int) -> int:
    """Run `count` workers as children of this process until all have ended."""
    children = [subprocess.Popen(_command(root, kind)) for _ in range(count)]

    def pass_on(number: int, _: object) -> None:
        for child in children:
            if child.poll() is None and number != signal.SIGINT:  # the terminal sends SIGINT to all
                child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    return max(abs(child.wait()) for child in children)


def stop(
    root: Root, names: Iterable[str], limit: float | None, gone: Callable[[str], None], patience: float | None
) -> list[str]:
    """Ask workers to stop and wait until they have; returns those that did not within `patience`."""
    left = set(names)
    presence.ask_to_stop(root, left, limit)
    end = None if patience is None else time.monotonic() + patience
    while left and (end is None or time.monotonic() < end):
        for name in left - set(presence.described(root)):
            left.discard(name)
            gone(name)
        if left:
            time.sleep(0.05)
    return sorted(left)


def main(arguments: list[str]) -> int:
    """`python -m queuectl.worker SPOOL KIND`: how workers are started by `worker start`."""
    path, kind = arguments
    try:
        return run_here(open_root(Path(path)), kind)
    except QueueError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
