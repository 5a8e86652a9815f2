"""When a file counts as whole where nothing tells of its writers, and what is said of one that never does."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import settings
from queuectl.job.model import State
from queuectl.spool import dropping, holds
from queuectl.spool.holds import OURS
from queuectl.system import files
from queuectl.system.medium import SETTLE_UNWATCHED, Medium
from queuectl.times import utc_now
from queuectl.view import census, explain, lookup
from queuectl.view.wording import Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl import Spool
    from queuectl.worker.member import Member
    from tests.conftest import StoppedClock, Until


def only(folder: str) -> Path:
    (name,) = os.listdir(folder)
    return Path(folder, name)


@pytest.fixture
def on_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share whose client refuses every lease, as those of servers without delegations and oplocks do."""
    monkeypatch.setattr(Medium, "is_shared", True)
    if sys.platform == "linux":
        import fcntl

        ask = fcntl.fcntl

        def refused(fd: int, what: int, argument: int = 0) -> int:
            if what == fcntl.F_SETLEASE:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return ask(fd, what, argument)

        monkeypatch.setattr(fcntl, "fcntl", refused)


@pytest.fixture
def member(spool: Spool) -> Iterator[Member]:
    with spool.member() as member:
        yield member


def claims(member: Member) -> list[str]:
    """The ids of all jobs that can be claimed now; they are given back."""
    member.look(utc_now(), again=True)
    found = []
    while (claim := member.claim(utc_now())) is not None:
        found.append(claim)
    for one in found:
        member.give_back(one)
    return [one.id for one in found]


def write(path: Path, text: str, age: float) -> None:
    """Give a file a content that was written this many seconds ago."""
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))


@pytest.mark.usefixtures("on_share")
def test_a_job_runs_at_once_on_a_share_that_grants_no_leases(spool: Spool, member: Member) -> None:
    job_id = spool.file("true")
    assert claims(member) == [job_id]


@pytest.mark.usefixtures("on_share")
def test_a_dropped_file_is_taken_in_on_a_share_that_grants_no_leases(
    spool: Spool, member: Member, until: Until
) -> None:
    Path(spool.root.folder(State.PENDING), "drop.yaml").write_text("command: true\n")
    until(lambda: claims(member) == ["drop"], "it is a job")


@pytest.mark.usefixtures("on_share")
def test_a_changed_config_holds_on_a_share_that_grants_no_leases(spool: Spool, until: Until) -> None:
    spool.root.config.write_text("poll_interval: 0.05\n")
    live = settings.Live(spool.root.text, spool.root.medium)
    assert live.now().max_retries == settings.DEFAULTS.max_retries
    spool.root.config.write_text("poll_interval: 0.05\nmax_retries: 7\n")
    until(lambda: live.now().max_retries == 7, "the new value holds")


@pytest.mark.usefixtures("on_share")
def test_a_python_program_takes_a_changed_config_in_on_a_share_that_grants_no_leases(
    spool: Spool, until: Until
) -> None:
    spool.root.config.write_text("poll_interval: 0.05\n")
    assert spool.live.now().max_retries == settings.DEFAULTS.max_retries
    spool.root.config.write_text("poll_interval: 0.05\nmax_retries: 7\n")
    until(lambda: spool.live.now().max_retries == 7, "the new value holds")


@pytest.mark.usefixtures("on_share")
def test_a_config_that_an_editor_has_just_emptied_does_not_hold_on_a_share(
    spool: Spool, clock: StoppedClock
) -> None:
    spool.root.config.write_text("poll_interval: 0.05\nmax_retries: 7\n")
    live = settings.Live(spool.root.text, spool.root.medium)
    assert live.now().max_retries == 7
    spool.root.config.write_text("")
    clock.sleep(0.06)
    assert live.now().max_retries == 7


@pytest.mark.usefixtures("on_share")
@pytest.mark.parametrize("text", ["command: rm -rf /srv", "command: [", ""])
def test_a_job_that_was_changed_moments_ago_waits_until_it_has_stood_still(
    spool: Spool, member: Member, clock: StoppedClock, text: str
) -> None:
    job_id = spool.file("true")
    clock.sleep(1.0)  # it is due
    write(only(spool.root.folder(State.PENDING)), text, age=0)
    assert claims(member) == []
    assert lookup.find(spool.root, job_id).state is State.PENDING
    path = only(spool.root.folder(State.PENDING))
    write(path, "command: rm -rf /srv/tmp/x\n", age=0.5)
    assert claims(member) == []
    clock.sleep(SETTLE_UNWATCHED / 2)
    assert claims(member) == []
    clock.sleep(holds.OURS)
    assert claims(member) == [job_id]


@pytest.mark.usefixtures("on_share")
def test_a_job_that_was_changed_long_ago_runs_at_once_on_a_share(spool: Spool, member: Member) -> None:
    job_id = spool.file("true")
    write(only(spool.root.folder(State.PENDING)), "command: echo\n", age=OURS + 1)
    assert claims(member) == [job_id]


@pytest.mark.usefixtures("on_share")
def test_a_retry_is_not_held_up_on_a_share_by_what_the_queue_itself_wrote(
    spool: Spool, member: Member
) -> None:
    job_id = spool.file({"command": "true", "created_at": utc_now() - timedelta(hours=1)})
    then = time.time() - 3600
    os.utime(only(spool.root.folder(State.PENDING)), (then, then))
    member.look(utc_now(), again=True)
    claim = member.claim(utc_now())
    assert claim
    spool.root.config.write_text("backoff_base: 0\nbackoff_jitter: 0\n")
    member.fail(claim, {"exit_code": 1}, utc_now(), 0.0)
    assert claims(member) == [job_id]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells that a file is being written")
def test_a_job_whose_file_stays_open_for_writing_is_reported_once_in_the_log_and_by_status(
    spool: Spool, clock: StoppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = spool.file("true")
    clock.sleep(1.0)  # it is due
    path = only(spool.root.folder(State.PENDING))
    with path.open("a"), caplog.at_level(logging.WARNING), spool.member() as member:
        for _ in range(3):
            assert claims(member) == []
            clock.sleep(holds.LONG_HELD - 1)
        assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
            f"job {job_id}: it does not run yet"
        ]
        (held,) = [one for one in attention(spool) if one.kind is Kind.HELD]
        assert held.facts["file"] == str(only(spool.root.folder(State.PENDING)))
        assert held.sentence.startswith(f"Job {job_id} waits for a program that is writing")
    assert Kind.HELD not in {one.kind for one in attention(spool)}


def attention(spool: Spool) -> list[Finding]:
    counts = census.counts(census.listed(spool.root), utc_now())
    return list(explain.attention(spool.root, counts, [], utc_now()))


@pytest.mark.usefixtures("on_share")
def test_a_dropped_file_that_never_stands_still_is_reported_once(
    spool: Spool, member: Member, clock: StoppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(spool.root.folder(State.PENDING), "grows.yaml")
    with caplog.at_level(logging.WARNING):
        for number in range(4):
            path.write_text(f"command: {'x' * number}\n")
            assert claims(member) == []
            clock.sleep(dropping.LONG / 2)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "pending/grows.yaml is not taken in yet"
    ]


@pytest.mark.usefixtures("on_share")
def test_a_dropped_file_that_may_not_be_opened_is_put_aside_on_a_share(
    spool: Spool, member: Member, until: Until
) -> None:
    drop = Path(spool.root.folder(State.PENDING), "link.yaml")
    drop.symlink_to(spool.root.config)
    until(lambda: claims(member) == [] and not os.path.lexists(drop), "it is put aside")
    assert any(files.list_names(spool.root.folder(State.DEAD)))
