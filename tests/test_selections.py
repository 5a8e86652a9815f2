"""Which jobs a command is for: ids, batches and filters, the same for every command."""

from __future__ import annotations

import csv
import io
import os
import time
from typing import TYPE_CHECKING

import pytest

from queuectl.view import estimate

if TYPE_CHECKING:
    from tests.shell import Shell


@pytest.fixture
def sweep(shell: Shell) -> Shell:
    """A batch of six that has run, two of which failed for good with 7, one with 9; and what others filed."""
    command = "echo out {}; test {} -lt 4 || exit 7; test {} != 3 || { echo bad >&2; exit 9; }"
    shell("enqueue", "--batch", "sweep", "--max-retries", "0", "--each", command, "--with", "i=1..5")
    shell("enqueue", "--id", "resize-1", "echo single")
    shell.drain()
    shell("enqueue", "--hold", "--id", "resize-2", "true")
    shell("enqueue", "--batch", "other", "--each", "true {}", "--", "a", "b")
    return shell


def meant(shell: Shell, command: str, *words: str) -> set[str]:
    """The ids that a command would act on."""
    return set(shell(command, *words, "--dry-run").lines)


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("retry sweep", "sweep.3 sweep.4 sweep.5"),
        ("retry SWEEP", "sweep.3 sweep.4 sweep.5"),
        ("retry sweep --exit-code 7", "sweep.4 sweep.5"),
        ("retry --state dead --exit-code 9", "sweep.3"),
        ("retry --exit-code 7 --exit-code 9 --match *.[34]", "sweep.3 sweep.4"),
        ("retry --batch sweep --state done", "sweep.1 sweep.2"),
        ("retry sweep.1", "sweep.1"),
        ("retry --older-than 1d --state dead", ""),
        ("retry --older-than 0s --state dead", "sweep.3 sweep.4 sweep.5"),
        ("cancel other resize-2", "other.1 other.2 resize-2"),
        ("cancel --match resize-*", "resize-2"),
        ("hold other", "other.1 other.2"),
        ("release --state held", "resize-2"),
        ("release --match *", "resize-2"),
        ("set other priority=3", "other.1 other.2"),
        ("wait sweep", "sweep.1 sweep.2 sweep.3 sweep.4 sweep.5"),
        ("wait --match *", "other.1 other.2 resize-2"),
        ("prune sweep", "sweep.1 sweep.2 sweep.3 sweep.4 sweep.5"),
        ("prune --state dead --older-than 0s", "sweep.3 sweep.4 sweep.5"),
    ],
)
def test_the_same_words_select_jobs_everywhere(sweep: Shell, line: str, ids: str) -> None:
    before = sorted(os.listdir(sweep.root / "pending"))
    assert meant(sweep, *line.split()) == set(ids.split())
    assert sorted(os.listdir(sweep.root / "pending")) == before


def test_a_command_acts_on_all_members(sweep: Shell) -> None:
    assert sweep("hold", "other").lines == ["other.1 is held", "other.2 is held"]
    assert sweep("release", "other").lines == ["other.1 is pending", "other.2 is pending"]
    sweep("set", "other", "priority=9")
    assert [sweep.fields(one)["priority"] for one in ("other.1", "other.2")] == [9, 9]
    assert len(sweep("cancel", "other").lines) == 2
    assert sweep("retry", "sweep", "--exit-code", "9", "--set", "timeout=2h").lines == ["sweep.3 is pending"]
    assert sweep.fields("sweep.3")["timeout"] == 7200


def test_wait_waits_for_all_members(sweep: Shell) -> None:
    assert sweep("wait", "sweep", status=1).lines == []
    assert sweep("wait", "other", "--timeout", "0", status=124).lines == []
    sweep.drain()
    sweep("wait", "other")


def test_a_selection_without_anything_is_refused(sweep: Shell) -> None:
    for command in ("retry", "cancel", "hold", "release", "logs"):
        assert "No job was named" in sweep.refused(command, status=2)
    assert "--older-than" in sweep.refused("prune", "--state", "dead", status=2)
    assert "no unit" in sweep.refused("retry", "--older-than", "7", status=2)
    assert "held" in sweep.refused("prune", "sweep", "resize-2", "--yes", status=1)
    sweep.refused("retry", "nothing", status=3)


def test_prune_takes_a_whole_batch_and_its_name(sweep: Shell) -> None:
    sweep("prune", "sweep", "--yes")
    assert [name for name in os.listdir(sweep.root / "logs") if name.startswith("sweep")] == []
    assert [job["id"] for job in sweep("list", "--json", "--state", "done").json_lines] == ["resize-1"]
    assert len(sweep("enqueue", "--batch", "sweep", "--each", "true {}", "--", "a").lines) == 1
    assert sweep("check").lines == []


def test_list_shows_a_selection(sweep: Shell) -> None:
    def listed(*words: str) -> list[str]:
        return [job["id"] for job in sweep("list", "--json", *words).json_lines]

    assert listed("sweep", "--state", "dead") == ["sweep.3", "sweep.4", "sweep.5"]
    assert listed("--match", "re*", "--state", "done", "--state", "held") == ["resize-2", "resize-1"]
    assert listed("--exit-code", "7", "--limit", "1")[0] in {"sweep.4", "sweep.5"}
    assert set(listed("--batch", "other")) == {"other.1", "other.2"}


def test_list_makes_rows_of_jobs_and_of_runs(sweep: Shell) -> None:
    sweep("retry", "sweep.3")
    sweep.drain()

    def rows(*words: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(sweep("list", "--csv", *words).out)))

    jobs = {row["id"]: row for row in rows()}
    assert len(jobs) == 9
    (one,) = rows("sweep.4")
    assert (one["batch"], one["state"], one["exit_code"], one["value"]) == ("sweep", "dead", "7", "4")
    assert float(one["seconds"]) >= 0
    assert one["command"].startswith("echo out 4;")
    assert [(row["attempt"], row["exit_code"]) for row in rows("sweep.3", "--runs")] == [
        ("1", "9"),
        ("2", "9"),
    ]
    objects = sweep("list", "sweep.3", "--runs", "--json").json_lines
    assert [(run["id"], run["attempt"]) for run in objects] == [("sweep.3", 1), ("sweep.3", 2)]
    sweep.refused("list", "--runs", status=2)
    sweep.refused("list", "--csv", "--json", status=2)


def test_logs_of_a_batch_have_the_id_before_each_line(sweep: Shell) -> None:
    lines = ["sweep.1 | out 1", "sweep.2 | out 2", "sweep.3 | out 3", "sweep.3 | bad", "sweep.4 | out 4"]
    assert sweep("logs", "sweep").lines == [*lines, "sweep.5 | out 5"]
    assert sweep("logs", "sweep", "--stderr").lines == ["sweep.3 | bad"]
    assert sweep("logs", "sweep", "--follow", "--state", "done").lines == lines[:2]
    assert [one["id"] for one in sweep("logs", "sweep", "--json", "--exit-code", "7").json_lines] == [
        "sweep.4",
        "sweep.5",
    ]


def test_logs_follow_a_batch_until_all_have_ended(shell: Shell) -> None:
    shell("enqueue", "--batch", "b", "--each", "echo begin {}; printf rest; test {} = x", "--", "x", "y")
    following = shell.start("logs", "b", "--follow")
    shell.drain()
    shell("cancel", "b", status=(0, 1))
    assert following.end() == 0
    lines = following.out.splitlines()
    assert lines.count(b"b.1 | begin x") == 1
    assert lines.count(b"b.2 | rest") >= 1


# ── a batch as one thing ──────────────────────────────────────────────────────────────────────


def test_status_of_a_batch_tells_counts_failures_and_the_slowest(sweep: Shell) -> None:
    facts = sweep("status", "sweep", "--json").json
    assert (facts["batch"], facts["size"], facts["filed"]) == ("sweep", 5, 5)
    assert (facts["counts"]["completed"], facts["counts"]["dead"]) == (2, 3)
    assert facts["failures"] == [
        {"reason": "exit status 7", "number": 2, "ids": ["sweep.4", "sweep.5"]},
        {"reason": "exit status 9", "number": 1, "ids": ["sweep.3"]},
    ]
    assert {run["id"] for run in facts["slowest"]} == {"sweep.1", "sweep.2"}
    assert facts["seconds_left"] == 0
    text = sweep("status", "sweep").out
    assert "5 of 5 have ended" in text
    assert "2 failures: exit status 7 (sweep.4, sweep.5)" in text
    assert "queuectl retry sweep" in text
    assert "unknown: no worker is alive" in sweep("status", "other").out


def test_status_of_a_half_filed_batch_says_how_to_file_the_rest(shell: Shell) -> None:
    shell("enqueue", "--batch", "half", "--each", "true {}", "--", "a", "b")
    path = shell.root / "logs" / "half.batch"
    path.write_text(path.read_text().replace("2 ", "5 ", 1).replace("filed\n", ""))
    assert "2 of 5 are filed" in shell("status", "half").out
    shell("cancel", "half")
    assert "Not all 5 jobs of batch half are filed" in shell("wait", "half", status=1).err
    os.utime(path, (time.time() - 100,) * 2)
    said = shell("check", status=1)
    assert "2 of the 5 jobs of the batch half are filed" in said.out
    assert "--resume" in said.out


def test_check_deletes_what_is_left_of_a_batch(shell: Shell) -> None:
    shell("enqueue", "--batch", "gone", "--each", "true {}", "--", "a")
    for path in (shell.root / "pending").iterdir():
        path.unlink()
    shell("check", status=1)
    shell("check", "--repair", status=(0, 1))
    assert not (shell.root / "logs" / "gone.batch").exists()


def test_shells_complete_the_names_of_batches(sweep: Shell) -> None:
    complete = {"_QUEUECTL_COMPLETE": "bash_complete", "COMP_WORDS": "queuectl hold ot", "COMP_CWORD": "2"}
    assert [line.partition(",")[2] for line in sweep(env=complete).lines] == ["other", "other.1", "other.2"]


# ── time left ─────────────────────────────────────────────────────────────────────────────────


def test_the_time_left_of_a_batch_follows_its_last_ends() -> None:
    steady = [float(second) for second in range(100)]
    assert estimate.of_batch(steady, 50, 99.0, 0.0) == pytest.approx(50, rel=0.05)
    slower = [*(one / 10 for one in range(100)), *(10.0 + 10 * one for one in range(100))]
    assert estimate.of_batch(slower, 10, 1000.0, 0.0) == pytest.approx(100, rel=0.05)


def test_a_batch_that_stands_still_takes_longer_and_longer() -> None:
    ends = [float(second) for second in range(30)]
    left = [estimate.of_batch(ends, 30, now, 0.0) or 0 for now in (30.0, 60.0, 300.0)]
    assert left == sorted(left)
    assert left[-1] > 5 * left[0]


def test_nothing_is_said_before_enough_have_ended() -> None:
    assert estimate.of_batch([1.0, 2.0], 5, 3.0, 0.0) is None
    assert estimate.of_batch([], 0, 3.0, 0.0) == 0


def test_a_job_that_is_due_later_is_waited_for() -> None:
    assert estimate.of_batch([1.0, 2.0, 3.0, 4.0], 1, 4.0, 1004.0) == 1000


def test_the_time_left_of_a_queue_follows_from_average_and_workers() -> None:
    assert estimate.of_queue(100, 4, 10.0, 4) == pytest.approx(255)
    assert estimate.of_queue(0, 1, 10.0, 4) == 5
    assert estimate.of_queue(0, 0, None, 0) == 0
    assert estimate.of_queue(5, 0, None, 1) is None
    assert estimate.of_queue(5, 0, 1.0, 0) is None
