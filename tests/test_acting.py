"""What a person does to a job that waits: run it now, change its priority. The content wins over the name."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State
from queuectl.errors import BadJob, WrongState
from queuectl.spool import acts, changes, jobfile
from queuectl.spool.names import FIFO_RANK
from queuectl.system import files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Workers


def run_now(spool: Spool, job_id: str) -> Path:
    with acts.hand(spool.root, spool.clock()) as me:
        return Path(acts.run_now(me, spool.find(job_id), spool.clock()))


def set_priority(spool: Spool, job_id: str, priority: int) -> Path:
    with acts.hand(spool.root, spool.clock()) as me:
        found = spool.find(job_id)
        edit = partial(changes.edited, changes={"priority": priority})
        return Path(acts.change(me, found, acts.Change(edit, spool.settings(), lambda _: {}), spool.clock()))


def failed(spool: Spool, job_id: str) -> None:
    """Let a job fail once; its next try is far off."""
    spool.root.config.write_text("backoff_base: 200\n")
    spool.file({"id": job_id, "command": "exit 1", "priority": 2})
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        begun = me.begin(claim)
        assert begun is not None
        claim, attempt, (out, err) = begun
        claim = me.note(claim, me.started(attempt, None, spool.clock()))
        files.close(out, err)
        assert me.fail(claim, {"exit_code": 1}, spool.clock(), 0.0) is State.FAILED


def test_in_fifo_mode_a_job_that_is_retried_is_ordered_by_time_alone(spool: Spool) -> None:
    spool.root.config.write_text("scheduling_mode: fifo\n")
    for job_id, fields in {"urgent": {"priority": 10}, "plain": {}}.items():
        spool.file({"id": job_id, "command": "true", **fields})
        spool.cancel_waiting(job_id)
        spool.retry(job_id)
    assert [spool.find(job_id).name.rank for job_id in ("urgent", "plain")] == [FIFO_RANK] * 2


def test_a_scheduled_job_that_is_to_run_now_runs(
    spool: Spool, workers: Workers, problems: Callable[[Spool], list[str]]
) -> None:
    spool.file({"id": "later", "command": "true", "run_at": "2090-01-01T00:00:00Z"})
    run_now(spool, "later")
    assert spool.find("later").label(spool.clock()) == "pending"
    assert problems(spool) == []
    workers.drain()
    assert spool.find("later").state is State.DONE


def test_the_next_try_of_a_failed_job_comes_at_once_and_its_tries_go_on_counting(
    spool: Spool, workers: Workers
) -> None:
    failed(spool, "again")
    path = run_now(spool, "again")
    assert path.parent.name == "failed"
    workers.drain()
    found = spool.find("again")
    assert spool.view(found)["attempts"] == 2


def test_a_job_that_is_due_or_does_not_wait_is_not_run_now(spool: Spool, workers: Workers) -> None:
    spool.file({"id": "due", "command": "true"})
    before = spool.find("due").path
    with pytest.raises(WrongState):
        run_now(spool, "due")
    assert spool.find("due").path == before
    workers.drain()
    with pytest.raises(WrongState):
        run_now(spool, "due")
    with pytest.raises(WrongState):
        set_priority(spool, "due", 3)


def test_a_new_priority_is_in_the_file_and_in_the_name_and_the_job_overtakes(
    spool: Spool, workers: Workers, problems: Callable[[Spool], list[str]]
) -> None:
    spool.file({"id": "first", "command": "true"})
    spool.file({"id": "second", "command": "true"})
    path = set_priority(spool, "second", 10)
    assert path.name.startswith("00-")
    assert spool.find("second").job.priority == 10  # type: ignore[union-attr]
    assert problems(spool) == []
    assert [found.id for found in spool.list("pending")] == ["second", "first"]


def test_no_name_comes_back_to_the_directory_it_has_left(spool: Spool) -> None:
    spool.file({"id": "moves", "command": "true", "priority": 5})
    first = Path(spool.find("moves").path).name
    seen = [first, *(set_priority(spool, "moves", priority).name for priority in (7, 5, 5, 7, 5))]
    assert len(set(seen)) == len(seen)


def test_the_priority_of_a_failed_job_changes_where_it_is(spool: Spool) -> None:
    failed(spool, "again")
    due = spool.find("again").name.due_at
    path = set_priority(spool, "again", 9)
    assert (path.parent.name, path.name[:2]) == ("failed", "01")
    assert abs(spool.find("again").name.due_at - due) < timedelta(seconds=1)


def test_in_fifo_mode_a_job_ordered_by_time_alone_stays_so(
    spool: Spool, problems: Callable[[Spool], list[str]]
) -> None:
    spool.root.config.write_text("scheduling_mode: fifo\n")
    spool.file({"id": "one", "command": "true"})
    assert set_priority(spool, "one", 9).name.startswith("11-")
    spool.root.config.write_text("scheduling_mode: priority\n")
    spool.file({"id": "ranked", "command": "true"})
    spool.root.config.write_text("scheduling_mode: fifo\n")
    assert set_priority(spool, "ranked", 9).name.startswith("01-")  # it keeps its place before them
    spool.root.config.write_text("scheduling_mode: priority\n")
    assert set_priority(spool, "one", 8).name.startswith("02-")
    assert problems(spool) == []


def test_a_job_whose_file_cannot_be_read_is_put_back_as_it_was(spool: Spool) -> None:
    spool.file({"id": "torn", "command": "true", "run_at": "2090-01-01T00:00:00Z"})
    path = Path(spool.find("torn").path)
    path.write_text("command: [\n")
    with pytest.raises(BadJob):
        run_now(spool, "torn")
    assert spool.find("torn").state is State.PENDING
    assert Path(spool.find("torn").path).read_text() == "command: [\n"
    assert list((spool.path / "processing").iterdir()) == []


# ── the line that changes, and all the others ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("command: make\n", "command: make\npriority: 4\n"),
        ("command: make", "command: make\npriority: 4\n"),
        (
            "# mine\ncommand: make # why\npriority: 9  # urgent\n",
            "# mine\ncommand: make # why\npriority: 4  # urgent\n",
        ),
        ("'priority' : 3\ncommand: a\n", "priority: 4\ncommand: a\n"),
        ("command: |\n  priority: 9\nhistory:\n", "command: |\n  priority: 9\npriority: 4\nhistory:\n"),
        ("  command: make\n  history:\n", "  command: make\n  priority: 4\n  history:\n"),
    ],
)
def test_only_the_line_of_the_field_changes(before: str, after: str) -> None:
    assert changes.edited(before.encode(), {"priority": 4}).decode() == after


@pytest.mark.parametrize(
    "text",
    [
        '{"command": "make", "priority": 2}',
        "{command: make, priority: 2}\n",
        "priority:\n  2\ncommand: make\n",
        'command: "first\n\n  second"\npriority: 2\n...\n',
        'history:\n- {"event": "retried", "at": "2026-01-01T00:00:00Z"}\ncommand: make\n',
    ],
)
def test_any_layout_takes_the_change_and_nothing_else_of_the_job_changes(text: str) -> None:
    before = jobfile.parse(text.encode()).job
    after = jobfile.parse(changes.edited(text.encode(), {"priority": 4})).job
    assert after == before._replace(priority=4)


def test_the_history_stays_byte_for_byte(spool: Spool) -> None:
    failed(spool, "again")
    before = Path(spool.find("again").path).read_text()
    after = set_priority(spool, "again", 9).read_text()
    assert (
        re.split("^history:", after, flags=re.MULTILINE)[1]
        == re.split("^history:", before, flags=re.MULTILINE)[1]
    )
    assert after.replace("priority: 9", "priority: 2") == before
