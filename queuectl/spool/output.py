"""The output of jobs: a file per attempt and stream.

A command writes to its files itself, past the worker, and is never held up. The middle of a file that
outgrows its limit is dropped while the command goes on:

    HEAD notice (hole) TAIL    while it runs: the blocks between are given back, the length stays
    HEAD notice TAIL           once it has ended
"""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING

from queuectl.system import files, logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from typing import BinaryIO

    from queuectl.spool.root import Root

STREAMS = ("out", "err")
_WORKER = "worker@"
_LOG = re.compile(r"(.+)\.(\d+)\.(out|err)")
_NOTICE = re.compile(rb"\n\[queuectl: ([\d,]+) bytes were dropped here( so far)?\] *\n")
_WIDTH = 80
#: Some file systems take no longer file: a longer log is cut to its head and grows again.
_LONGEST = 2**42
_BLOCK = 1 << 20
#: A shorter middle is kept: the disk frees no block for so few bytes, and the hole would read as data.
_LEAST = 1 << 16


def log_path(root: Root, job_id: str, attempt: int, stream: str) -> str:
    """The path of a stream of an attempt. Ids that differ only in case share it, so they are refused."""
    return f"{root.logs}/{job_id.lower()}.{attempt}.{stream}"


def worker_log_path(root: Root, worker: str) -> str:
    """The path of a detached worker's own log."""
    return f"{root.logs}/{_WORKER}{worker}.log"


def worker_logs(root: Root) -> dict[str, str]:
    """The paths of the workers' own logs by the names of the workers, whether they live or not."""
    names = [name for name in root.texts_in(root.logs) if name.startswith(_WORKER) and name.endswith(".log")]
    return {name[len(_WORKER) : -len(".log")]: f"{root.logs}/{name}" for name in names}


def open_logs(root: Root, job_id: str, attempt: int) -> tuple[int, int]:
    """New files for an attempt's stdout and stderr: their descriptors, to be closed by the caller.

    Raises `FileExistsError` where this attempt of this id has been begun before: the sign of a
    second file with the same id, or of a history that lost its last lines.
    """
    err = logs.open_new(log_path(root, job_id, attempt, "err"), root.file_mode)
    try:
        out = logs.open_log(log_path(root, job_id, attempt, "out"), root.file_mode)
    except BaseException:
        files.close(err)
        files.remove(log_path(root, job_id, attempt, "err"))  # it would say that the run was begun
        raise
    return out, err


def withdraw_logs(root: Root, job_id: str, attempt: int) -> None:
    """Remove the logs of an attempt whose command was never started; the first still takes the id."""
    files.remove(log_path(root, job_id, attempt, "err"))
    if attempt > 1:
        files.remove(log_path(root, job_id, attempt, "out"))


def was_begun(root: Root, job_id: str, attempt: int) -> bool:
    """Whether a command may have been started for this attempt."""
    return files.exists(log_path(root, job_id, attempt, "err"))


def last_begun(root: Root, job_id: str, attempt: int) -> int:
    """The last attempt that was begun, this one or one after it: a history may have lost its last lines."""
    while was_begun(root, job_id, attempt + 1):
        attempt += 1
    return attempt


def is_written(root: Root, job_id: str, attempt: int) -> bool:
    """Whether a process of this kernel, in whatever namespace, has a log of this attempt open.

    False on a share, where nobody can tell, and where the system does not.
    """
    paths = [log_path(root, job_id, attempt, stream) for stream in STREAMS]
    return any(map(root.medium.being_written, paths))


def owner_of_log(name: str) -> tuple[str, int] | None:
    """The id in lower case and the attempt in the name of a log; None for other files."""
    match = _LOG.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def logs_of(root: Root, job_ids: AbstractSet[str]) -> dict[str, list[str]]:
    """The paths of the logs of these jobs, by their ids in lower case, from one listing."""
    logs: dict[str, list[str]] = {}
    for name in root.texts_in(root.logs):
        owner = owner_of_log(name)
        if owner and owner[0] in job_ids:
            logs.setdefault(owner[0], []).append(f"{root.logs}/{name}")
    return logs


# ── output that outgrows its limit ────────────────────────────────────────────────────────────


def _notice(dropped: int, *, running: bool) -> bytes:
    text = f"\n[queuectl: {dropped:,} bytes were dropped here{' so far' if running else ''}]"
    return (text.ljust(_WIDTH - 1) + "\n").encode()


class Curb:
    """Holds the two files of one run to `limit` bytes each: the head, and the newest tail.

    `look` may be called by another thread while the command runs, `end` once it has ended; until
    then the descriptors that the command writes through, `logs`, stay open.
    """

    def __init__(self, root: Root, job_id: str, attempt: int, logs: tuple[int, ...], limit: int) -> None:
        self.limit = limit
        self._head = limit // 2
        self._logs = logs
        self._paths = [log_path(root, job_id, attempt, stream) for stream in STREAMS]
        self._was_cut = False
        #: Bytes that were cut off a file, whose length does not count them.
        self._forgotten: dict[str, int] = {}
        self._lock = threading.Lock()

    def look(self) -> None:
        """Drop the middle of what has grown too long; a disk that fails is tried again next time."""
        with self._lock, contextlib.suppress(OSError):
            for path in self._paths:
                if files.size(path) > self.limit + _WIDTH + _LEAST:
                    self._drop(path)

    def end(self) -> bool:
        """Close the gaps once the command has ended; whether anything was dropped.

        Output through another opening of the file counts only if `look` has seen it.
        """
        if not self._was_cut and all(logs.reached(fd) <= self.limit for fd in self._logs):
            return False
        with self._lock, contextlib.suppress(OSError):
            for path in self._paths:
                if files.size(path) > self.limit + 2 * _WIDTH:
                    self._close_gap(path)
        return self._was_cut

    def _drop(self, path: str) -> None:
        fd = logs.open_update(path)
        try:
            size = files.kernel.fstat(fd).st_size
            keep_from = size - (self.limit - self._head)
            hole = self._head + _WIDTH
            files.write_at(fd, _notice(keep_from - self._head, running=True), self._head)
            self._was_cut = True
            if size > _LONGEST or not logs.punch(fd, hole, keep_from):
                # The command goes on right behind the notice: there is no gap, as after the end of a run.
                dropped = size - self._head + self._forgotten.get(path, 0)
                files.write_at(fd, _notice(dropped, running=False), self._head)
                files.kernel.ftruncate(fd, hole)
                self._forgotten[path] = dropped - _WIDTH
        finally:
            files.kernel.close(fd)

    def _close_gap(self, path: str) -> None:
        fd = logs.open_update(path)
        try:
            size = files.kernel.fstat(fd).st_size
            source = size - (self.limit - self._head)
            dropped = source - self._head + self._forgotten.get(path, 0)
            target = self._head + _WIDTH
            while block := files.kernel.pread(fd, min(_BLOCK, size - source), source):
                files.write_at(fd, block, target)
                source, target = source + len(block), target + len(block)
            files.write_at(fd, _notice(dropped, running=False), self._head)
            files.kernel.ftruncate(fd, target)
            self._was_cut = True
        finally:
            files.kernel.close(fd)


def read_log(root: Root, job_id: str, attempt: int, stream: str, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """A stream from a place on, in portions, each with the place where the next one begins.

    A place counts the bytes that the command wrote. There are no portions where there is no such file.
    Raises `files.NotAFile` for anything but a regular file with one link.
    """
    try:
        log = files.open_read(log_path(root, job_id, attempt, stream))
    except FileNotFoundError:
        return
    with log:
        start, end = _gap(log)
        at = _place_now(log, at)
        if start < at < end:
            yield end, _notice(end - at, running=True)
            at = end
        closed = False
        while True:
            if start <= at < end:
                at = end
            log.seek(at)
            block = log.read(_BLOCK if at >= end else min(_BLOCK, start - at))
            if not block or b"\0" in block:
                # Race: the command may just have ended, and the gap been closed, as it is once.
                if not closed and log.seek(0, 2) < at + len(block):
                    closed, at, start, end = True, _place_now(log, at), 0, 0
                    continue
                if not block:
                    return
                # Race: it may have been dropped just before it was read.
                if (now := _gap(log)) != (start, end):
                    start, end = now
                    continue
            at += len(block)
            yield at, block


def tail(root: Root, job_id: str, attempt: int, stream: str, most: int) -> tuple[int, bytes]:
    """The length of a stream and at most `most` bytes of its end; (0, b"") where there is no such file."""
    try:
        size = files.size(log_path(root, job_id, attempt, stream))
    except FileNotFoundError:
        return 0, b""
    data = b""
    for _, block in read_log(root, job_id, attempt, stream, max(0, size - most)):
        data += block
        if len(data) >= most:  # the command goes on printing
            break
    return size, data[:most]


def _place_now(log: BinaryIO, at: int) -> int:
    """The position of a place in the file, once the gap before it has been closed."""
    size = log.seek(0, 2)
    head = (size - _WIDTH) // 2
    if at <= size or head < 0:
        return at
    log.seek(head)
    notice = _NOTICE.fullmatch(log.read(_WIDTH))
    dropped = int(notice[1].replace(b",", b"")) if notice else 0
    if dropped < _WIDTH:  # a line that the command wrote: so few bytes are never dropped
        return at
    place = at - dropped + _WIDTH
    return place if place >= head + _WIDTH else head  # more was dropped since, which the notice tells


def _gap(log: BinaryIO) -> tuple[int, int]:
    """The start and the end of the gap in the log of a command that runs; (0, 0) without one."""
    size = log.seek(0, 2)
    hole = logs.first_hole(log.fileno()) if size else 0
    if hole >= size:
        return 0, 0
    log.seek(max(0, hole - _BLOCK))
    before = log.read(hole - log.tell())
    found = [match for match in _NOTICE.finditer(before) if match[2]]
    if not found or before[found[-1].end() :].strip(b"\0"):
        return 0, 0
    start = hole - len(before) + found[-1].end()
    return start, start + int(found[-1][1].replace(b",", b"")) - _WIDTH
