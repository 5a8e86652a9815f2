"""Edits by hand of jobs that wait: they count once they are saved."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State
from queuectl.job.layout import scalar
from queuectl.spool.edits import Edits, Place, was_edited
from queuectl.spool.onlooker import Onlooker
from queuectl.spool.order import smallest
from queuectl.spool.wake import Bell, Wake
from queuectl.system import files
from queuectl.times import iso, stamp, utc_now
from queuectl.view import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Evidence, StoppedClock, Until, Workers

HOUR = timedelta(hours=1)
LATER = iso(utc_now() + HOUR)


def in_place(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def by_a_new_file(path: str, text: str) -> None:
    """As vim does: the old one becomes a backup."""
    os.rename(path, f"{path}~")
    in_place(path, text)
    os.unlink(f"{path}~")


def by_renaming(path: str, text: str) -> None:
    """As `sed -i` does."""
    folder = os.path.dirname(path)
    in_place(f"{folder}/sedA1b2C3", text)
    os.rename(f"{folder}/sedA1b2C3", path)


WAYS = [in_place, by_a_new_file, by_renaming]
every_way = pytest.mark.parametrize("save", WAYS)


def edit(spool: Spool, job_id: str, save: Callable[[str, str], None], **fields: object) -> str:
    """Set fields of a job by hand, those that are None taken out; returns the file's name."""
    path = spool.find(job_id).path
    lines = files.read(path).decode().splitlines()
    kept = [line for line in lines if line.partition(":")[0] not in fields]
    kept[1:1] = [f"{key}: {value}" for key, value in fields.items() if value is not None]
    save(path, "\n".join(kept) + "\n")
    return os.path.basename(path)


# ── what asks to be read ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changed", "before", "is_edited"),
    [
        (0.001, None, False),  # it was filed
        (-3600.0, None, False),  # it was filed to run later
        (3.0, None, True),
        (0.001, 0.001, False),
        (3.0, 3.0, False),
        (0.002, 0.001, True),
        (-3600.0, 0.001, True),
    ],
)
def test_a_file_was_edited_if_it_changed_since_it_was_seen_or_filed(
    changed: float, before: float | None, is_edited: bool
) -> None:
    filed = utc_now()
    place = Place(State.PENDING, f"10-{stamp(filed)}-x.yaml")

    def mark(seconds: float) -> files.Mark:
        return files.Mark(round((filed.timestamp() + seconds) * 1e9), 30, 7)

    assert was_edited(place, mark(changed), None if before is None else mark(before)) == is_edited


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
def test_the_first_of_a_heap_come_in_their_order(count: int) -> None:
    heap = [f"{number:03}" for number in range(60)]  # sorted: a heap, too
    assert list(smallest(heap, count)) == heap[:count]
    assert list(smallest(["1", "5", "2", "9", "6", "3"], count)) == ["1", "2", "3", "5", "6", "9"][:count]


@pytest.fixture
def bell(spool: Spool) -> Iterator[Bell]:
    with contextlib.closing(Wake()) as wake, contextlib.closing(Bell(spool.root, wake)) as made:
        made.hang()
        yield made


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell of closed files")
@every_way
@pytest.mark.parametrize("state", [State.PENDING, State.FAILED])
def test_an_edit_is_heard_and_what_the_queue_does_itself_is_not(
    spool: Spool, bell: Bell, until: Until, save: Callable[[str, str], None], state: State
) -> None:
    job_id = spool.file("exit 1")
    with spool.member() as me:
        me.look(utc_now(), again=True)
        claim = me.claim(utc_now())
        assert claim
        if state is State.FAILED:
            me.fail(claim, {"exit_code": 1}, utc_now() - HOUR, 0.5)
    if state is State.PENDING:
        job_id = spool.file("exit 1")
    assert bell.edited() == []
    name = edit(spool, job_id, save, priority=3)
    last = spool.file("true")  # what comes after it has been heard, so it has been heard, too
    until(lambda: any(last in text for text in bell.names()), "the last one is heard")
    assert set(bell.edited()) == {Place(state, name)}


# ── an edited job is the next ─────────────────────────────────────────────────────────────────


@every_way
@pytest.mark.parametrize("is_told", [True, False])
def test_of_many_listed_jobs_the_one_that_was_made_urgent_is_claimed_next(
    spool: Spool, save: Callable[[str, str], None], is_told: bool, clock: StoppedClock
) -> None:
    """By an event, or by the next listing where there was none.

    On the clock of the test no listing takes so long that the next one compares no files.
    """
    *_, chosen, _ = list(spool.file_many(["true"] * 150))
    clock.sleep(1.0)  # what was filed is due
    with spool.member() as me:
        me.look(utc_now(), again=True)
        assert me.claim(utc_now())
        name = edit(spool, chosen.id, save, priority=9)
        if is_told:
            me.look(utc_now(), [], [Place(State.PENDING, name)])
        else:
            assert not me.is_drained(utc_now())  # which lists, however short ago it was listed
        claim = me.claim(utc_now())
        assert claim
        assert (claim.id, claim.name.rank) == (chosen.id, 1)


def test_files_are_compared_again_soon_after_a_comparison_that_hung(
    spool: Spool, clock: StoppedClock
) -> None:
    place = Place(State.PENDING, os.path.basename(spool.find(spool.file("true")).path))
    edits = Edits(spool.root)

    def hang() -> Iterator[Place]:
        clock.sleep(60.0)
        yield place

    edits.compare([place])
    edits.compare(hang())
    in_place(f"{spool.root.folder(State.PENDING)}/{place.text}", "command: echo edited, and longer\n")
    clock.sleep(31.0)
    edits.compare([place])
    assert list(edits.take()) == [place]


@pytest.mark.parametrize(("save", "kind"), [*((save, "foreground") for save in WAYS), (WAYS[0], "drain")])
def test_a_busy_worker_takes_up_an_edit_long_before_the_turn_that_the_job_had(
    spool: Spool, workers: Workers, evidence: Evidence, tmp_path: Path, until: Until,
    save: Callable[[str, str], None], kind: str,
) -> None:  # fmt: skip
    gate = tmp_path / "gate"
    command = evidence.command()
    first = spool.file(evidence.command(f"while ! test -e {gate}; do sleep 0.02; done"))
    ids = [spool.file(command) for _ in range(40)]
    later = spool.file({"command": command, "run_at": LATER})
    workers.start(kind)
    until(lambda: evidence.started() == [first], "the first job runs")
    edit(spool, ids[-1], save, priority=7)
    edit(spool, later, save, priority=8, run_at=None)
    edit(spool, ids[20], save, run_at=LATER)
    gate.touch()
    until(lambda: len(evidence.finished()) == 41, "all that may run now ran")
    order = evidence.started()
    assert max(order.index(ids[-1]), order.index(later)) < order.index(ids[19])
    assert spool.view(spool.find(ids[20]))["state"] == "scheduled"


@every_way
def test_an_idle_worker_takes_up_an_edit_of_when_a_job_is_to_run(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, save: Callable[[str, str], None]
) -> None:
    lowered, without = (spool.file({"command": evidence.command(), "run_at": LATER}) for _ in range(2))
    spool.file(evidence.command())
    workers.start()
    until(lambda: len(evidence.finished()) == 1, "the worker is idle")
    edit(spool, lowered, save, run_at=iso(utc_now()))
    edit(spool, without, save, run_at=None)
    until(lambda: set(evidence.finished()) >= {lowered, without}, "both ran")


# ── jobs that failed ──────────────────────────────────────────────────────────────────────────


def failed(spool: Spool, count: int) -> list[str]:
    """Jobs that failed, to be tried again in an hour."""
    spool.root.config.write_text("poll_interval: 0.05\nbackoff_base: 3600\nmax_backoff_seconds: 3600\n")
    ids = [spool.file("true") for _ in range(count)]
    with spool.member() as me:
        me.look(utc_now(), again=True)
        while (claim := me.claim(utc_now())) is not None:
            me.fail(claim, {"exit_code": 1}, utc_now(), 0.0)
    return ids


@every_way
def test_an_edit_of_a_failed_job_changes_its_turn(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, save: Callable[[str, str], None]
) -> None:
    waits, sooner, postponed = failed(spool, 3)
    workers.start()
    edit(spool, sooner, save, command=scalar(evidence.command()), run_at=iso(utc_now()))
    until(lambda: evidence.finished() == [sooner], "it was tried again at once")
    edit(spool, postponed, save, run_at=(day := iso(utc_now() + 24 * HOUR)))
    until(lambda: spool.view(spool.find(postponed))["run_at"] == day, "it has a new name")
    edit(spool, waits, save, priority=7)
    until(lambda: spool.find(waits).name.rank == 3, "it has a new rank")
    assert {spool.find(job_id).state for job_id in (waits, postponed)} == {State.FAILED}


def test_the_time_at_which_a_job_first_ran_puts_off_no_retry(spool: Spool) -> None:
    """And `check` finds nothing wrong with it."""
    spool.root.config.write_text("backoff_base: 3600\nmax_backoff_seconds: 3600\n")
    job_id = spool.file({"command": "true", "run_at": iso(utc_now() - HOUR)})
    with spool.member() as me:
        me.look(utc_now(), again=True)
        claim = me.claim(utc_now())
        assert claim
        me.fail(claim, {"exit_code": 1}, utc_now(), 0.0)
        before = spool.find(job_id).path
        me.look(utc_now(), again=True)
        assert me.claim(utc_now()) is None
        assert spool.find(job_id).path == before
    assert audit.check(spool.root, Onlooker(spool.root), 1, utc_now()) == []


def test_check_reports_and_mends_the_name_of_a_job_that_was_edited(spool: Spool) -> None:
    [job_id] = failed(spool, 1)
    edit(spool, job_id, in_place, priority=7)
    [found] = audit.check(spool.root, Onlooker(spool.root), 1, utc_now())
    assert "asks for the name 03-" in found.problem
    assert found.mend
    found.mend()
    assert spool.find(job_id).name.rank == 3
