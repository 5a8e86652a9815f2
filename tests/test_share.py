"""`check --share` on one host: what is measured alone, what two runs on one mount say, what is left."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from queuectl.errors import QueueError
from queuectl.spool import share
from tests.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    assert "clock of" in said.out
    assert not (tmp_path / share.FOLDER).exists()
    report = shell("check", "--share", tmp_path, "--timeout", "0.1", "--json").json
    assert (report["verdict"], report["together"]) == ("unknown", None)


def test_two_runs_on_one_mount_say_that_they_prove_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: share.check(tmp_path, 20, silent), range(2)))
    for report in reports:
        assert report.together
        assert report.together.same_mount
        assert (report.together.claimed_twice, report.together.claims_lost) == (0, 0)
        assert report.together.created_twice == 0
        assert report.together.lock_excludes is True
        assert report.verdict == "unknown"
    assert not (tmp_path / share.FOLDER).exists()


def test_what_a_dead_run_left_is_not_taken_for_another_host(tmp_path: Path) -> None:
    left = tmp_path / share.FOLDER / "gone-1-abcd.hello"
    left.parent.mkdir()
    left.write_text("null")
    old = time.time() - share.STEP - 60
    os.utime(left, (old, old))
    assert share.check(tmp_path, 0.1, silent).together is None


def test_the_other_going_away_in_the_middle_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "STEP", 0.2)
    place = tmp_path / share.FOLDER
    place.mkdir()
    (place / "other-1-abcd.hello").write_text('{"place": "x"}')
    with pytest.raises(QueueError, match="does not go on"):
        share.check(tmp_path, 5, silent)


@pytest.mark.parametrize(
    ("changed", "verdict", "words"),
    [
        ({}, "safe", ""),
        ({"claimed_twice": 1}, "unsafe", "a job would run twice or never"),
        ({"claims_lost": 1}, "unsafe", "a job would run twice or never"),
        ({"created_twice": 1}, "unsafe", "an id could be taken twice"),
        ({"lock_excludes": False}, "safe", "does not need it"),
        ({"seen_after": 20.0}, "safe", "dir_cache=no"),
        ({"change_seen_after": None}, "safe", "lock_lease_seconds"),
        ({"other_clock_offset": -300.0}, "safe", "The clock of other is 300.0 s behind the share's"),
        ({"same_mount": True}, "unknown", "on another host"),
    ],
)
def test_what_is_measured_isjudged_in_words(
    tmp_path: Path, changed: dict[str, object], verdict: str, words: str
) -> None:
    alone = share.Alone("here", "fuse.sshfs", 0.0, {})
    fine = share.Together("other", False, 0.0, 0.01, 0.0, 0.0, True, 0, 0, 0)
    report = share.judged(tmp_path, alone, fine._replace(**changed))  # type: ignore[arg-type]
    assert report.verdict == verdict
    assert words in " ".join(report.remarks)
    assert bool(report.remarks) is bool(words)
