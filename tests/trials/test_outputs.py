"""Commands that print without end, or nothing that can be read: kept as configured, and never held up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State
from queuectl.spool import output, requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.spool.jobs import Found
    from tests.conftest import Evidence, Until, Workers

    Ended = Callable[[str], Found]
    Figure = Callable[[str, str], None]

NOTICE = b" bytes were dropped here"


def curb(spool: Spool, limit: int) -> None:
    with spool.root.config.open("a") as config:
        config.write(f"max_output_bytes: {limit}\n")


def log_of(spool: Spool, job_id: str, stream: str = "out") -> Path:
    return Path(output.log_path(spool.root, job_id, 1, stream))


def shown(spool: Spool, job_id: str) -> bytes:
    """What `queuectl logs --stdout` prints into a pipe."""
    command = [sys.executable, "-m", "queuectl", "-s", str(spool.path), "logs", job_id, "--stdout"]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def beginning(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return file.read(length)


def disk_used(path: Path) -> int:
    return path.stat().st_blocks * 512


def memory_of(pid: int) -> int:
    """The most that a process has ever had in memory, in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.skipif(sys.platform != "linux", reason="blocks are given back on Linux alone")
def test_a_command_that_prints_without_end_fills_no_disk_and_no_memory(
    spool: Spool,
    workers: Workers,
    ended: Ended,
    until: Until,
    size: Callable[[int, int], int],
    figure: Figure,
) -> None:
    limit, seconds = 1_000_000, size(1, 10)
    curb(spool, limit)
    worker = workers.start()
    ended(spool.file("true"))
    before = memory_of(worker.pid)
    job_id = spool.file({"command": ["yes", "line"]})
    log = log_of(spool, job_id)
    until(lambda: log.exists() and log.stat().st_size > 10 * limit, "it prints")
    until(lambda: NOTICE in beginning(log, limit), "the middle is dropped")
    most, written, end = 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most, written = max(most, disk_used(log)), max(written, log.stat().st_size)
        time.sleep(0.02)
    while_it_runs = shown(spool, job_id)
    assert b"\0" not in while_it_runs
    assert NOTICE + b" so far]" in while_it_runs
    assert while_it_runs.endswith((b"line\n", b"lin", b"li", b"l", b"line"))
    requests.to_cancel(spool.root, spool.find(job_id).name)
    assert ended(job_id).state is State.DEAD
    kept = log.read_bytes()
    head, notice, tail = kept.partition(b"\n[queuectl: ")
    assert len(head) == limit // 2
    assert len(kept) < limit + 200
    assert notice
    dropped = int(tail.split(b" ")[0].replace(b",", b""))
    assert dropped + limit >= written
    assert set(head.split(b"\n")[:-1]) == {b"line"}
    assert shown(spool, job_id) == kept
    assert most < written
    assert memory_of(worker.pid) - before < 10_000
    figure(
        "`yes` past the limit",
        f"{written / 1e9:.1f} GB in {seconds} s; at most {most / 1e6:.0f} MB on the disk, "
        f"{len(kept):,} bytes kept of a limit of {limit:,}",
    )


def test_what_a_command_prints_past_its_own_streams_is_curbed_once_it_is_seen(
    spool: Spool, workers: Workers, ended: Ended
) -> None:
    curb(spool, 1000)
    workers.start()
    job_id = spool.file(
        "head -c 300000 /dev/zero | tr '\\0' x > /dev/stdout; sleep 1; echo END >> /dev/stdout"
    )
    assert ended(job_id).state is State.DONE
    kept = log_of(spool, job_id).read_bytes()
    assert NOTICE in kept
    assert kept.endswith(b"END\n")
    assert len(kept) < 1200


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("without a newline", "head -c 100000000 /dev/zero | tr '\\0' x"),
        ("binary", "head -c 100000000 /dev/urandom"),
        ("zeros", "head -c 100000000 /dev/zero"),
    ],
)
def test_a_hundred_megabytes_are_kept_whole_below_the_limit_and_curbed_above_it(
    spool: Spool, workers: Workers, ended: Ended, what: str, command: str
) -> None:
    curb(spool, 0)
    worker = workers.start()
    whole = spool.file(f"{command} | tee {spool.path.parent}/copy")
    assert ended(whole).state is State.DONE
    assert log_of(spool, whole).stat().st_size == 100_000_000
    assert shown(spool, whole) == (spool.path.parent / "copy").read_bytes()
    text = spool.root.config.read_text()
    spool.root.config.write_text(text.replace("max_output_bytes: 0", "max_output_bytes: 100000"))
    os.utime(spool.root.config)
    curbed = spool.file(f"sleep 0.5; {command}; echo END; echo ERROR >&2")
    assert ended(curbed).state is State.DONE
    kept = log_of(spool, curbed).read_bytes()
    assert NOTICE in kept
    assert kept.endswith(b"END\n")
    assert len(kept) < 100_200
    assert log_of(spool, curbed, "err").read_bytes() == b"ERROR\n"
    assert memory_of(worker.pid) < 100_000


def test_an_output_that_is_no_longer_than_the_limit_is_not_touched(
    spool: Spool, workers: Workers, ended: Ended
) -> None:
    curb(spool, 1000)
    workers.start()
    for length in (999, 1000):
        job_id = spool.file(f"head -c {length} /dev/zero | tr '\\0' x")
        ended(job_id)
        assert log_of(spool, job_id).read_bytes() == b"x" * length
    job_id = spool.file("head -c 1500 /dev/zero | tr '\\0' x")
    ended(job_id)
    kept = log_of(spool, job_id).read_bytes()
    assert kept.count(b"x") == 1000
    assert b"[queuectl: 500 bytes were dropped here]" in kept


def test_one_who_follows_a_curbed_output_sees_its_head_what_was_dropped_and_its_end(
    spool: Spool, workers: Workers, until: Until
) -> None:
    curb(spool, 200_000)
    workers.start()
    job_id = spool.file("echo HEAD; sleep 0.5; head -c 90000000 /dev/zero | tr '\\0' x; sleep 0.5; echo END")
    until(lambda: log_of(spool, job_id).exists(), "it runs")
    command = [
        sys.executable,
        "-m",
        "queuectl",
        "-s",
        str(spool.path),
        "logs",
        job_id,
        "--follow",
        "--stdout",
    ]
    followed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert followed.startswith(b"HEAD\n")
    assert followed.endswith(b"END\n")
    assert b"\0" not in followed


def test_where_no_blocks_can_be_given_back_the_head_is_kept_and_the_command_goes_on(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from queuectl.system import logs

    monkeypatch.setattr(logs, "punch", lambda *_: False)
    log = log_of(spool, "a")
    log_of(spool, "a", "err").touch()
    held = output.Curb(spool.root, "a", 1, (), 1000)
    with log.open("ab", buffering=0) as command:
        for letter in b"abc":
            command.write(bytes([letter]) * 100_000)
            held.look()
        command.write(b"END")
    assert held.end()
    kept = log.read_bytes()
    assert kept.startswith(b"a" * 500 + b"\n[queuectl: 299,500 bytes were dropped here]")
    assert kept.endswith(b"\nEND")


@pytest.mark.skipif(sys.platform != "linux", reason="blocks are given back on Linux alone")
def test_who_reads_an_output_while_its_command_ends_reads_on_behind_what_was_dropped(spool: Spool) -> None:
    log = log_of(spool, "a")
    log_of(spool, "a", "err").touch()
    held = output.Curb(spool.root, "a", 1, (), 1000)
    with log.open("ab", buffering=0) as command:
        command.write(b"a" * 500 + b"b" * 500_000)
        held.look()
        command.write(b"c" * 500)
        portions = output.read_log(spool.root, "a", 1, "out")
        read = next(portions)[1]
        command.write(b"d" * 496 + b"END\n")
        assert held.end()
        read += b"".join(block for _, block in portions)
    so_far, last = NOTICE + b" so far]", NOTICE + b"]"
    assert read.count(so_far) == read.count(last) == 1
    assert read.startswith(b"a" * 500)
    assert read.endswith(b"d" * 496 + b"END\n")
    assert b"\0" not in read


@pytest.mark.parametrize("count", [5, 499, 10**12])
def test_who_reads_an_output_that_is_cut_by_somebody_else_comes_to_an_end(spool: Spool, count: int) -> None:
    log = log_of(spool, "a")
    log.write_bytes(b"x" * 3_000_000)
    portions = output.read_log(spool.root, "a", 1, "out")
    assert next(portions)[1].strip(b"x") == b""
    forged = f"\n[queuectl: {count:,} bytes were dropped here]".ljust(79) + "\n"
    log.write_bytes(b"h" * 500 + forged.encode() + b"t" * 500)
    assert sum(len(block) for _, block in portions) <= log.stat().st_size


@pytest.mark.usefixtures("audited")
def test_every_exit_status_and_every_signal_is_told(
    spool: Spool, workers: Workers, evidence: Evidence, ended: Ended, size: Callable[[int, int], int]
) -> None:
    import signal

    statuses = range(0, 256, size(16, 1))
    numbers = [
        number for number in signal.valid_signals() if number not in {17, 18, 19, 20, 21, 22, 23, 28, 32, 33}
    ]
    for status in statuses:
        spool.file({"id": f"status-{status}", "command": f"exit {status}", "max_retries": 0})
    for number in numbers:
        spool.file({"id": f"signal-{int(number)}", "command": f"kill -{int(number)} $$", "max_retries": 0})
    workers.drain()
    told = {status: spool.view(spool.find(f"status-{status}"))["exit_code"] for status in statuses}
    assert told == {status: status for status in statuses}
    told = {int(one): spool.view(spool.find(f"signal-{int(one)}"))["exit_code"] for one in numbers}
    assert told == {int(number): 128 + int(number) for number in numbers}
