"""What one run is given and what is recorded of it: its logs, its time limit, its next try."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl import Spool, State
from queuectl.spool import output
from queuectl.system import files
from queuectl.times import parse_moment, utc_now

if TYPE_CHECKING:
    from queuectl.job.history import Event
    from queuectl.spool.claims import Claim
    from queuectl.worker.member import Member
    from tests.conftest import Evidence, Until, Workers

pytestmark = pytest.mark.usefixtures("audited")


def set_(spool: Spool, *lines: str) -> None:
    with spool.root.config.open("a") as config:
        config.write("".join(f"{line}\n" for line in lines))


def log(spool: Spool, job_id: str, attempt: int, stream: str) -> Path:
    return Path(output.log_path(spool.root, job_id, attempt, stream))


def test_a_run_without_a_time_limit_of_its_own_choice_outlives_that_of_the_config(
    spool: Spool, workers: Workers
) -> None:
    set_(spool, "job_timeout_seconds: 0.2", "max_retries: 0")
    unlimited = spool.file({"command": "sleep 1", "timeout": 0})
    usual = spool.file("sleep 60")
    workers.drain()
    assert spool.find(unlimited).state is State.DONE
    assert spool.find(usual).state is State.DEAD


@pytest.mark.parametrize("stream", output.STREAMS)
def test_each_stream_is_curbed(spool: Spool, workers: Workers, stream: str) -> None:
    """Of what comes between two looks the middle is dropped once the command has ended."""
    set_(spool, "max_output_bytes: 1000")
    to = "2" if stream == "err" else "1"
    job_id = spool.file(f"yes | head -c 1000000 >&{to}; echo last >&{to}")
    workers.drain()
    kept = log(spool, job_id, 1, stream).read_bytes()
    assert len(kept) < 2000
    assert b"bytes were dropped here" in kept
    assert kept.endswith(b"last\n")


def test_the_log_of_an_attempt_that_was_begun_is_not_used_again(spool: Spool, workers: Workers) -> None:
    """A power cut may take the last lines of a history, but the log says that the command may have run."""
    job_id = spool.file("echo again")
    log(spool, job_id, 1, "out").write_text("first\n")
    log(spool, job_id, 1, "err").write_text("what it said\n")
    workers.drain()
    assert log(spool, job_id, 1, "out").read_text() == "first\n"
    assert log(spool, job_id, 1, "err").read_text() == "what it said\n"
    assert log(spool, job_id, 2, "out").read_text() == "again\n"


def test_jobs_that_fail_together_are_not_tried_again_together(spool: Spool, workers: Workers) -> None:
    spool.root.config.write_text("backoff_base: 100\nbackoff_jitter: 1\n")
    ids = [spool.file("false") for _ in range(5)]
    workers.drain()
    found = [spool.find(job_id).job for job_id in ids]
    waits = [wait(job.history[-1]) for job in found if job]
    assert len(set(waits)) == len(ids)
    assert all(100 <= seconds <= 200 for seconds in waits)


def wait(failure: Event) -> float:
    """Seconds from a failure to its next try."""
    return (parse_moment(failure["next_try"]) - parse_moment(failure["at"])).total_seconds()


def claimed(me: Member) -> Claim:
    me.look(utc_now(), again=True)
    claim = me.claim(utc_now())
    assert claim
    return claim


#: Stands still right before it opens the log of its first run; somebody must wake it up.
STANDS_STILL = """
import os, signal
from queuectl.system import files
class Kernel:
    stood = False
    def __getattr__(self, name):
        return getattr(os, name)
    def open(self, path, flags, *mode):
        if not Kernel.stood and flags & os.O_CREAT and str(path).endswith('.1.err'):
            Kernel.stood = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return os.open(path, flags, *mode)
files.kernel = Kernel()
Medium.is_shared = True
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only here a process that stands still is told")
def test_a_worker_that_was_cut_off_gives_back_what_it_has_claimed_and_not_started(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until
) -> None:
    """After so long others may have taken the job over: nothing of it may be started."""
    lease = 1
    set_(spool, f"lock_lease_seconds: {lease}")
    job_id = spool.file(evidence.command())
    worker = workers.start(changes=STANDS_STILL)
    process = psutil.Process(worker.pid)
    until(lambda: process.status() == psutil.STATUS_STOPPED, "it stands still")
    stopped = time.monotonic()
    until(lambda: time.monotonic() - stopped > 1.5 * lease, "the lease is over")
    worker.popen.send_signal(signal.SIGCONT)
    until(lambda: spool.find(job_id).state is State.DONE, "it is run after all")
    assert [line[1] for line in evidence.lines() if line[3] == "start"] == ["2"], (
        "its claim of before is void"
    )


def test_an_attempt_whose_log_is_there_is_skipped_by_a_program_that_claims(spool: Spool) -> None:
    job_id = spool.file("true")
    log(spool, job_id, 1, "err").touch()
    with spool.member() as me:
        begun = me.begin(claimed(me))
        assert begun
        claim, attempt, logs = begun
        files.close(*logs)
        assert attempt == 2
        me.complete(claim, {"exit_code": 0}, utc_now())
    assert os.listdir(spool.root.folder(State.PROCESSING)) == []
