"""`check --share` on one host: what is measured alone, what two runs on one mount say, what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.errors import QueueError
from queuectl.system import files
from queuectl.view import share_check
from queuectl.view.share_check import meeting, trial
from queuectl.view.share_check.report import judged as report_on
from tests.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StoppedClock, Until


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        yield shell


def silent(_: str) -> None:
    pass


def test_alone_it_says_that_it_waits_and_then_what_can_be_measured_alone(
    shell: Shell, tmp_path: Path
) -> None:
    said = shell("check", "--share", tmp_path, "--timeout", "0.1")
    assert said.err.startswith("Waiting for `queuectl check --share")
    assert "No other host came" in said.out
    assert "clock offset" in said.out
    assert not (tmp_path / meeting.FOLDER).exists()
    report = shell("check", "--share", tmp_path, "--timeout", "0.1", "--json").json
    assert (report["verdict"], report["together"]) == ("unknown", None)


def test_two_runs_on_one_mount_say_that_they_prove_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: share_check.check(tmp_path, 20, silent), range(2)))
    for report in reports:
        assert report.together
        assert report.together.same_mount
        assert (report.together.claimed_twice, report.together.claims_lost) == (0, 0)
        assert report.together.created_twice == 0
        assert report.verdict == "unknown"
    assert not (tmp_path / meeting.FOLDER).exists()


def test_a_run_that_was_killed_is_not_taken_for_another_host_and_is_named(tmp_path: Path) -> None:
    dead = meeting.Table(tmp_path / meeting.FOLDER).sit()
    dead.put("hello", None)
    report = share_check.check(tmp_path, 0.1, silent)
    assert report.together is None
    assert f"{dead.me} did not answer" in report.remarks[-1]
    left = tmp_path / meeting.FOLDER / f"{dead.me}.hello"
    assert left.exists()
    old = time.time() - meeting.LEFT - 60
    os.utime(left, (old, old))
    os.utime(tmp_path / meeting.FOLDER / f".{dead.me}.seat", (old, old))
    share_check.check(tmp_path, 0.1, silent)
    assert not (tmp_path / meeting.FOLDER).exists()


def test_what_is_not_of_a_run_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / meeting.FOLDER
    place.mkdir()
    odd = ["passwd", "x\x1b[31m-1-abcd.hello", "-1-abcd.hello"]
    for name in odd:
        (place / name).touch()
        os.utime(place / name, (0, 0))
    assert "No other host came" in share_check.check(tmp_path, 0.1, silent).remarks[-1]
    assert sorted(os.listdir(place)) == sorted(odd)


def test_a_link_in_the_place_of_the_directory_is_refused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / meeting.FOLDER).symlink_to(tmp_path / "victim")
    assert "is a link" in shell.refused("check", "--share", tmp_path, "--timeout", "0.1", status=1)


def test_a_file_in_the_place_of_the_directory_is_refused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / meeting.FOLDER).write_text("mine")
    assert "is a file" in shell.refused("check", "--share", tmp_path, "--timeout", "0.1", status=1)
    assert (tmp_path / meeting.FOLDER).read_text() == "mine"


#: On a clock that a sleep moves on at once, any patience is over in a moment.
FOR_EVER = 1e9


@pytest.mark.parametrize("politely", [True, False])
def test_the_other_going_away_in_the_middle_is_said(
    tmp_path: Path, clock: StoppedClock, politely: bool
) -> None:
    other = meeting.Table(tmp_path / meeting.FOLDER).sit()
    other.put("hello", {"place": "x"})
    with ThreadPoolExecutor(1) as pool:
        told: Queue[str] = Queue()
        checking = pool.submit(share_check.check, tmp_path, FOR_EVER, told.put)
        assert other.find_other(FOR_EVER)
        assert "Waiting" in told.get()
        assert "There it is" in told.get()
        if politely:
            other.clear()
        with pytest.raises(QueueError, match="does not go on"):
            checking.result()
    assert not (tmp_path / meeting.FOLDER).exists()


def test_a_third_run_does_not_touch_what_two_are_at(tmp_path: Path) -> None:
    place = tmp_path / meeting.FOLDER
    pair = meeting.Table(place).sit(), meeting.Table(place).sit()
    for one in pair:
        one.put("hello", {"place": "x"})
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda one: one.find_other(20), pair)) == [True, True]
    before = sorted(os.listdir(place))
    report = share_check.check(tmp_path, 0.1, silent)
    assert (report.verdict, report.together) == ("unknown", None)
    assert "try it out with each other" in report.remarks[-1]
    assert sorted(os.listdir(place)) == before


def test_of_three_runs_at_once_none_comes_to_a_false_verdict(shell: Shell, tmp_path: Path) -> None:
    runs = [shell.start("check", "--share", tmp_path, "--json", "--timeout", "2") for _ in range(3)]
    for run in runs:
        status = run.popen.wait()
        out, err = run.out, run.err
        assert "Traceback" not in err
        if status == 0:
            assert json.loads(out)["verdict"] == "unknown"
        else:
            assert "More than two runs" in err or "does not go on" in err, (status, out, err)
    assert not (tmp_path / meeting.FOLDER).exists()


@pytest.mark.parametrize(
    ("changed", "verdict", "words"),
    [
        ({}, "safe", ""),
        ({"claimed_twice": 1}, "unsafe", "a job would run twice or never"),
        ({"claims_lost": 1}, "unsafe", "a job would run twice or never"),
        ({"created_twice": 1}, "unsafe", "an id could be taken twice"),
        ({"seen_after": 20.0}, "safe", "dir_cache=no"),
        ({"change_seen_after": None}, "safe", "lock_lease_seconds"),
        ({"other_clock_offset": -300.0}, "safe", "The clock of other is 300.0 s behind the share's"),
        ({"same_mount": True}, "unknown", "on another host"),
        ({"stale_listings": 1}, "unsafe", "an idle worker may not see a job"),
    ],
)
def test_what_is_measured_isjudged_in_words(
    tmp_path: Path, changed: dict[str, object], verdict: str, words: str
) -> None:
    alone = trial.Alone("here", "fuse.sshfs", 0.0)
    fine = trial.Together("other", False, 0.0, 0.01, 0.0, 0, 0, 0)
    report = report_on(tmp_path, alone, fine._replace(**changed))  # type: ignore[arg-type]
    assert report.verdict == verdict
    assert words in " ".join(report.remarks)
    assert bool(report.remarks) is bool(words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lease": False}, "A lease is refused though nobody has the file open"),
        ({"lease": None}, ""),
        ({"syncs_folders": False}, "a power cut of the server may undo a rename"),
        ({"owner": "nobody"}, "belongs to nobody"),
        ({"keeps_modes": False}, ""),
        ({"keeps_modes": False, "is_private": False}, "file_mode=0600,dir_mode=0700"),
        ({"filesystem": "cifs"}, "-o nolease"),
    ],
)
def test_what_one_host_finds_out_alone_is_judged_in_words(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    alone = trial.Alone("here", "fuse.sshfs", 0.0)._replace(**changed)  # type: ignore[arg-type]
    fine = trial.Together("other", False, 0.0, 0.01, 0.0, 0, 0, 0)
    report = report_on(tmp_path, alone, fine)
    assert report.verdict == "safe"
    assert words in " ".join(report.remarks)
    assert bool(report.remarks) is bool(words)


class Hanging:
    """System calls of which those on a directory hang until `answer` is set."""

    def __init__(self) -> None:
        self.answer = Event()
        self.asked = Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def listdir(self, folder: str) -> list[str]:
        self.asked.set()
        self.answer.wait(60)
        return os.listdir(folder)


def test_a_share_that_does_not_answer_ends_the_check_and_what_hangs_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: StoppedClock
) -> None:
    kernel = Hanging()
    monkeypatch.setattr(files, "kernel", kernel)

    def pass_time() -> None:
        kernel.asked.wait()
        clock.sleep(share_check.HANGS + 1)

    waiter = Thread(target=pass_time)
    waiter.start()
    try:
        with pytest.raises(QueueError, match=r"it hangs in `list the directory`"):
            share_check.check(tmp_path, 20, silent)
    finally:
        kernel.answer.set()
        waiter.join()


#: Also where the tests run with SIGINT ignored.
INTERRUPTIBLE = """
import signal, sys
from queuectl.cli.main import run
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(run(sys.argv[1:]))
"""


def test_an_interrupted_check_leaves_nothing(tmp_path: Path, until: Until) -> None:
    words = ["check", "--share", str(tmp_path), "--timeout", "60"]
    run = subprocess.Popen([sys.executable, "-c", INTERRUPTIBLE, *words], stderr=subprocess.PIPE)
    until(lambda: list(tmp_path.glob(f"{meeting.FOLDER}/*.hello")), "it is there")
    run.send_signal(signal.SIGINT)
    assert run.communicate()[1].endswith(b"Interrupted.\n")
    assert run.returncode == 130
    assert not (tmp_path / meeting.FOLDER).exists()


@pytest.mark.usefixtures("clock")
def test_what_the_other_run_is_waited_for_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    one, other = (
        meeting.Table(tmp_path / meeting.FOLDER, told.append).sit(),
        meeting.Table(tmp_path / meeting.FOLDER).sit(),
    )
    other.put("hello")
    one.other = other.me
    with pytest.raises(QueueError, match="does not go on"):
        one.get("ready")
    assert told == [f"Waiting for {other.me} to come to its step `ready`, for 60 s at most."]
