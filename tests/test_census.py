"""The census tells what the directories hold: the same as reading them all, at the price of a look."""

from __future__ import annotations

import os
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from queuectl import Spool, State
from queuectl.system import files
from queuectl.system.medium import Medium
from queuectl.view import census as census_module
from queuectl.view import metrics
from queuectl.view.census import Census, Counts, Watch, counts, listed, quantile
from queuectl.view.dead_letters import DeadLetters, kind_of, read_letter
from queuectl.view.workers import Worker
from queuectl.view.workers import workers as workers_of

if TYPE_CHECKING:
    from tests.conftest import Counting, StoppedClock, Until, Workers


@pytest.fixture
def census(spool: Spool) -> Census:
    return Census(spool.root)


def looked(census: Census) -> Census:
    census.look(patient=False)
    return census


def counted(spool: Spool) -> Counts:
    return counts(listed(spool.root), spool.clock())


def make_old(spool: Spool) -> None:
    """Let the directories have stood still for long enough to be believed."""
    for state in State:
        os.utime(spool.root.folder(state), (time.time() - 60,) * 2)


def finished(spool: Spool, number: int, ago: float = 0.0, state: State = State.DONE) -> None:
    """Put finished jobs there as if they had run."""
    for index in range(number):
        path = (
            Path(spool.root.folder(state))
            / f"10-20260101T000000.{index:06d}Z-{state.value}{ago:.0f}-{index}.yaml"
        )
        path.write_text("command: make\nhistory:\n")
        os.utime(path, (time.time() - ago,) * 2)


def test_it_counts_what_counting_every_file_counts(spool: Spool, census: Census, workers: Workers) -> None:
    for index in range(12):
        spool.file({"id": f"job-{index}", "command": "exit 1" if index % 3 else "true", "max_retries": 0})
    workers.drain()
    for index in range(5):
        spool.file({"id": f"new-{index}", "command": "true", "priority": str(index)})
        spool.file({"id": f"late-{index}", "command": "true", "run_at": "2090-01-01T00:00:00Z"})
    (spool.path / "pending" / "notes.txt").write_text("?")
    (spool.path / "dead" / "10-20260230T000000.000000Z-x.yaml.txt").write_text("?")
    assert looked(census).counts(spool.clock()) == counted(spool)
    assert census.is_whole


@pytest.mark.parametrize("word", ["pending", "scheduled", "processing", "failed", "dead", "completed"])
def test_its_order_is_that_of_list(spool: Spool, census: Census, workers: Workers, word: str) -> None:
    spool.root.config.write_text("backoff_base: 300\nmax_backoff_seconds: 9000\nmax_retries: 1\n")
    for index in range(6):
        spool.file({"id": f"a{index}", "command": "true" if index % 2 else "exit 1", "priority": f"{index}"})
        spool.file({"id": f"d{index}", "command": "exit 2", "max_retries": 0})
    workers.drain()
    for index in range(6):
        spool.file({"id": f"p{index}", "command": "true", "priority": f"{index % 3}"})
        year = 2090 - index
        spool.file(
            {
                "id": f"s{index}",
                "command": "true",
                "run_at": f"{year}-01-01T00:00:00Z",
                "priority": f"{index}",
            }
        )
    for place, state in enumerate((State.DONE, State.DEAD)):
        for index, name in enumerate(sorted(os.listdir(spool.root.folder(state)))):
            os.utime(f"{spool.root.folder(state)}/{name}", (1e9 + place + index * 7 % 11 / 100,) * 2)
    total, names = looked(census).in_order(word, spool.clock())
    shown = [str(found.name) for found in spool.list(word)]
    assert [name for _, name in names] == shown
    assert total == len(shown)


def test_a_directory_that_has_not_changed_is_not_listed_again(
    spool: Spool, census: Census, counting: Counting
) -> None:
    finished(spool, 30)
    make_old(spool)
    looked(census)
    counting.calls.clear()
    looked(census)
    assert dict(counting.calls) == {"lstat": len(State)}


def test_a_directory_that_changed_a_moment_ago_is_listed_again_though_its_mark_is_the_same(
    spool: Spool, census: Census, counting: Counting
) -> None:
    looked(census)
    counting.calls.clear()
    looked(census)
    assert counting.calls["listdir"] == len(State)


def test_on_a_share_a_directory_is_believed_once_it_has_stood_still_by_our_own_watch(
    spool: Spool, counting: Counting, monkeypatch: pytest.MonkeyPatch, clock: StoppedClock
) -> None:
    census = Census(spool.root)
    monkeypatch.setattr(Medium, "is_shared", True)
    make_old(spool)  # the clock of the share is behind

    def lists() -> int:
        counting.calls.clear()
        looked(census)
        return counting.calls["listdir"]

    assert (lists(), lists()) == (len(State), len(State))
    clock.sleep(census_module.PROVES)
    assert lists() == len(State)
    clock.sleep(0.1)
    assert (lists(), lists()) == (len(State), 0)


def test_only_files_that_were_not_seen_before_are_asked_when_they_ended(
    spool: Spool, census: Census, counting: Counting
) -> None:
    finished(spool, 40, 60)
    looked(census)
    finished(spool, 3)
    counting.calls.clear()
    looked(census)
    assert counting.calls["lstat"] == len(State) + 3
    assert counting.calls["open"] == 3  # for how long the last ones took


def test_of_many_finished_jobs_only_the_last_ones_are_read(
    spool: Spool, census: Census, counting: Counting
) -> None:
    finished(spool, census_module.SAMPLE + 40, 60)
    assert spool.root.medium.hears_all  # the list of mounts has been read
    counting.calls.clear()
    looked(census)
    assert counting.calls["open"] == census_module.SAMPLE


def test_a_directory_that_was_dear_to_list_is_left_alone_for_a_while(
    spool: Spool, census: Census, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def listdir(self, folder: str) -> list[str]:
            clock.sleep(0.1)
            return os.listdir(folder)

    monkeypatch.setattr(files, "kernel", Slow())
    census.look()
    for number in range(3):
        finished(spool, 1, 500 * number)
        census.look()
        assert census.counts(spool.clock()).completed == 0
    census.look(patient=False)
    assert census.counts(spool.clock()).completed == 3
    finished(spool, 1, 5000)
    clock.sleep(census_module.PATIENCE * 0.1)
    census.look()
    assert census.counts(spool.clock()).completed == 4


def test_runs_are_counted_by_the_minute_they_ended_and_stay_counted_when_their_files_go(
    spool: Spool, census: Census
) -> None:
    finished(spool, 4)
    finished(spool, 3, 2 * 3600)
    finished(spool, 2, 48 * 3600)
    finished(spool, 5, 60, State.DEAD)
    looked(census)
    assert (census.ended_since("completed", 60), census.ended_since("completed", 1440)) == (4, 7)
    assert (census.ended_since("failed", 60), census.ended_since("failed", 1440)) == (5, 5)
    for path in (spool.path / "done").iterdir():
        path.unlink()
    finished(spool, 1, 10)
    assert looked(census).counts(spool.clock()).completed == 1
    assert census.ended_since("completed", 60) == 5


def test_a_file_that_ends_earlier_than_those_before_it_finds_its_place(spool: Spool, census: Census) -> None:
    finished(spool, 2, 10)
    looked(census)
    finished(spool, 2, 500)
    looked(census)
    finished(spool, 1, 1)
    listing = looked(census).listing(State.DONE)
    assert list(listing.ends) == sorted(listing.ends)
    assert [name.partition("-done")[2] for name in listing.names] == [
        *("500-0.yaml", "500-1.yaml", "10-0.yaml", "10-1.yaml", "1-0.yaml")
    ]


def test_how_many_run_before_a_job_is_what_status_says(spool: Spool, census: Census) -> None:
    for index in range(9):
        spool.file({"id": f"job-{index}", "command": "true", "priority": f"{index % 3}"})
    now = spool.clock()
    looked(census)
    ahead = [census.before(str(found.name), now) for found in spool.list("pending")]
    assert ahead == list(range(9))


def test_the_oldest_that_waits_is_the_first_that_was_due_whatever_its_priority(
    spool: Spool, census: Census
) -> None:
    spool.file({"id": "old", "command": "true"})
    spool.file({"id": "urgent", "command": "true", "priority": 9})
    oldest = looked(census).counts(spool.clock()).first_due
    assert oldest is not None
    assert oldest.endswith("-old.yaml")


def test_a_watch_shows_what_is_there_at_the_time_of_asking(spool: Spool) -> None:
    with closing(Watch(Census(spool.root))) as watch:
        for number in range(1, 6):
            spool.file("true")
            assert watch.fresh(10).counts(spool.clock()).pending == number


def test_a_watch_says_so_when_the_spool_is_gone_and_goes_on_when_it_is_back(
    spool: Spool, until: Until
) -> None:
    spool.file("true")
    with closing(Watch(Census(spool.root))) as watch:
        watch.fresh(10)
        spool.path.rename(spool.path.with_name("away"))
        until(lambda: watch.fresh(1) and watch.trouble, "the trouble is seen")
        assert watch.census.counts(spool.clock()).pending == 1
        spool.path.with_name("away").rename(spool.path)
        until(lambda: watch.fresh(1) and not watch.trouble, "it is over")


def test_quantiles() -> None:
    assert quantile([], 0.5) is None
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 3.0, 4.0, 4.0]


# ── for Prometheus ────────────────────────────────────────────────────────────────────────────


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type in {"gauge", "counter"} for family in families)
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def test_metrics_are_what_a_parser_reads_and_what_status_tells(
    spool: Spool, census: Census, workers: Workers
) -> None:
    spool.file({"id": "good", "command": "sleep 0.05"})
    spool.file({"id": "bad", "command": "exit 1", "max_retries": 0})
    workers.drain()
    spool.file({"id": "waits", "command": "true"})
    with spool.member():
        found = samples(
            metrics.text(spool.root, looked(census), workers_of(spool.root, spool.live.now()), spool.clock())
        )
    told = {name: dict(labels) | {"": value} for (name, labels), value in found.items()}
    assert {"queuectl_jobs", "queuectl_oldest_waiting_seconds", "queuectl_run_duration_seconds"} <= set(told)
    told_counts = {state: found["queuectl_jobs", (("state", state),)] for state in counted(spool).as_dict()}
    assert told_counts == counted(spool).as_dict()
    assert found["queuectl_workers", (("state", "idle"),)] == 1
    assert found["queuectl_runs_ended", (("outcome", "completed"), ("window", "1h"))] == 1
    assert found["queuectl_runs_ended", (("outcome", "failed"), ("window", "1d"))] == 1
    assert found["queuectl_run_duration_seconds", (("quantile", "0.5"),)] >= 0.05
    assert 0 <= found["queuectl_oldest_waiting_seconds", ()] < 60


def test_a_hostile_host_name_is_one_label(spool: Spool, census: Census) -> None:
    worker = Worker("w", 'a"} 1\nqueuectl_up 5\\', 1, "drain", "idle", None, "", "", "", 0.0, None, 2, None)
    found = samples(metrics.text(spool.root, looked(census), [worker], spool.clock()))
    assert not any(name == "queuectl_up" for name, _ in found)
    (labels,) = [dict(labels) for name, labels in found if name == "queuectl_worker_runs_total"]
    assert labels["worker"] == "w"


# ── dead letters ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("exit status 1", "exit status 2", False),
        ("its worker web1-42-9f3c died while it ran", "its worker db-7-0a1b died while it ran", True),
        ("The id 'a' is taken by another job.", "The id 'b' is taken by another job.", True),
        (
            "Another file has the same id: /q/done/x.yaml.",
            "Another file has the same id: /q/dead/y.yaml.",
            True,
        ),
        ("it ran longer than its limit of 5 s", "killed by SIGKILL", False),
    ],
)
def test_reasons_are_of_a_kind_when_only_names_differ(one: str, other: str, same: bool) -> None:
    assert (kind_of(one) == kind_of(other)) is same


def test_dead_letters_are_grouped_and_each_is_read_once(
    spool: Spool, workers: Workers, counting: Counting
) -> None:
    for index in range(6):
        spool.file({"id": f"job-{index}", "command": f"exit {1 + index % 2}", "max_retries": 0})
    spool.file({"id": "slow", "command": "sleep 9", "timeout": "0.1", "max_retries": 0})
    workers.drain()
    names = os.listdir(spool.root.folder(State.DEAD))
    letters = DeadLetters().learn(names, 60, partial(read_letter, spool.root))
    assert letters.unread == 0
    assert [(kind, len(names)) for kind, names in letters.groups()][-1][1] == 1
    assert {kind: len(names) for kind, names in letters.groups()} == {
        "exit status 1": 3,
        "exit status 2": 3,
        "it ran longer than its limit of 0.1 s": 1,
    }
    assert len(list(letters.matching("exit status 1", "JOB-2"))) == 1
    counting.calls.clear()
    assert letters.learn(names, 60, partial(read_letter, spool.root)) == letters
    assert counting.calls["open"] == 0


def test_letters_that_could_not_be_read_in_time_are_told(spool: Spool) -> None:
    finished(spool, 9, state=State.DEAD)
    names = os.listdir(spool.root.folder(State.DEAD))
    letters = DeadLetters().learn(names, -1.0, partial(read_letter, spool.root))
    assert letters.unread > 0
    assert letters.learn(names, 60, partial(read_letter, spool.root)).unread == 0
