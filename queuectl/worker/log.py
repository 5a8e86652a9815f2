"""A worker's own log: one line a record, to a terminal or to its file in the spool."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from queuectl.spool import output
from queuectl.system import logs
from queuectl.times import local

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.spool.root import Root

#: A worker's file is cut to its newest half when it has grown longer than this.
LOG_BYTES = 8 * 1024 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _Line(logging.Formatter):
    """One line a record, no control characters: local time with its zone, worker, level, what happened."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        at = local(datetime.fromtimestamp(record.created, UTC))
        line = f"{at[:19]},{int(record.msecs):03}{at[19:]} {self._worker} {record.levelname} "
        line += record.getMessage()
        if record.exc_info:
            line += f" {self.formatException(record.exc_info)}"
        return _CONTROL.sub("?", line)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to a stream, and has `renew` mend what is behind it: after an error, and as the file grows.

    A share that was away leaves dead descriptors.
    """

    def __init__(self, stream: TextIO, renew: Callable[[], None]) -> None:
        super().__init__(stream)
        self._renew = renew
        self._written = 0

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + self.terminator
        self._written += len(line)
        try:
            self._write(line)
        except OSError:
            with contextlib.suppress(OSError):  # the worker meets the same trouble, and waits for its end
                self._renew()
                self._write(line)
        if self._written > LOG_BYTES // 4:
            self._written = 0
            with contextlib.suppress(OSError):  # a disk that fails is tried again after as many lines
                self._renew()

    def _write(self, line: str) -> None:
        self.stream.write(line)
        self.flush()


def to_stream(stream: TextIO, worker: str, renew: Callable[[], None] = lambda: None) -> None:
    """Let this process's log go to a stream, the worker's name in every line."""
    handler = _Handler(stream, renew)
    handler.setFormatter(_Line(worker))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # No line names a place in the code, a thread or a process: finding them out takes half of a line's time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - as Python's logging HOWTO says under "Optimization"


def to_file(root: Root, worker: str) -> None:
    """Let standard output and error of this process go to the worker's file; one that grew long is cut.

    The file is made where it is missing. Raises `OSError`.
    """
    path = output.worker_log_path(root, worker)
    with logs.open_append(path, root.file_mode) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logs.keep_newest_lines(path, LOG_BYTES)
