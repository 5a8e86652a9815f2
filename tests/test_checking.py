"""What `check` reports, and what it must not report: spools that change while it looks."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.spool import presence
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.view import audit
from queuectl.worker.remains import stop_remains
from tests.conftest import make_old

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.view.wording import Finding
    from tests.conftest import Until, Workers


def check(spool: Spool) -> list[Finding]:
    return audit.check(spool.root, Onlooker(spool.root), 1, spool.clock())


def repair(spool: Spool) -> list[Finding]:
    onlooker, now = Onlooker(spool.root), spool.clock()
    return audit.repair(spool.root, onlooker, spool.settings(), stop_remains, now)


class Meanwhile:
    """System calls, with something that happens right after a directory was listed for the first time."""

    def __init__(self, folder: str, act: Callable[[], object]) -> None:
        self._folder, self._act = folder, act
        self._is_due = True

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def listdir(self, folder: str) -> list[str]:
        names = os.listdir(folder)
        if folder == self._folder and self._is_due:
            self._is_due = False
            self._act()
        return names


@pytest.mark.parametrize("to", [State.PROCESSING, State.DONE, State.FAILED, State.DEAD])
@pytest.mark.parametrize("by", [State.PENDING, State.DEAD])
def test_a_job_that_moves_while_the_spool_is_looked_at_is_no_finding(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, to: State, by: State
) -> None:
    """It is seen twice where it moves ahead of the look, and nowhere where it moves behind it."""
    job_id = spool.file({"id": "moving", "command": "true"})
    name = os.path.basename(spool.find(job_id).path)
    owner = presence.join(spool.root, "test", spool.clock())
    after = name.replace(".yaml", f"@{owner.name}.yaml") if to is State.PROCESSING else name
    paths = [f"{spool.root.folder(State.PENDING)}/{name}", f"{spool.root.folder(to)}/{after}"]
    if by is State.DEAD:
        os.rename(*paths)
        paths.reverse()
    monkeypatch.setattr(files, "kernel", Meanwhile(spool.root.folder(by), lambda: os.rename(*paths)))
    found = check(spool)
    monkeypatch.undo()
    owner.leave()
    assert not os.path.exists(paths[0])
    assert [one for one in found if "nothing shows that it ever ran" not in one.problem] == []


def test_a_spool_that_is_at_work_is_in_order(spool: Spool, workers: Workers) -> None:
    list(spool.file_many(["sleep 0.01"] * 150))
    started = [workers.start("drain") for _ in range(2)]
    while any(worker.is_running for worker in started):
        assert check(spool) == []
    assert {found.state for found in spool.list()} == {State.DONE}


def test_the_advice_on_two_files_of_one_id_deletes_neither_and_leaves_what_runs(
    spool: Spool, workers: Workers, until: Until
) -> None:
    job_id = spool.file("sleep 60")
    workers.start()
    until(lambda: spool.find(job_id).state is State.PROCESSING, "it runs")
    copy = f"{spool.root.folder(State.PENDING)}/10-20260101T000000.000000Z-{job_id}.yaml"
    with open(copy, "wb") as file:
        file.write(f"id: {job_id}\ncommand: 'true'\n".encode())
    [found] = check(spool)
    assert (found.path, found.mend) == (copy, None)
    assert f"also that of {spool.find(job_id).path}" in found.problem
    assert f"`mv {copy} ~/`" in found.remedy
    assert not re.search(r"\brm\b|delete", found.remedy, re.IGNORECASE)


@pytest.mark.parametrize(
    "place",
    [
        "done/stray.yaml",
        "failed/stray.json",
        "dead/a stray's.txt",
        "processing/10-20260101T000000.000000Z-stray.yaml",
        "processing/stray.yml",
        "pending/stray",
    ],
)
def test_the_command_in_the_advice_on_a_stray_makes_it_a_job(
    spool: Spool, workers: Workers, place: str
) -> None:
    (spool.path / place).write_text("command: 'true'\n")
    [found] = check(spool)
    subprocess.run(["/bin/sh", "-c", found.remedy.split("`")[1]], check=True)
    make_old(spool)
    workers.drain()
    assert [one.state for one in spool.list()] == [State.DONE]
    assert check(spool) == []


def test_a_stray_directory_is_not_to_become_a_job(spool: Spool) -> None:
    for state in State:
        (spool.path / state / "x.yaml").mkdir()
    assert {found.problem for found in check(spool)} == {"a directory is not a job"}


def test_the_draft_of_a_filing_that_was_stopped_is_left_alone(spool: Spool) -> None:
    """Ctrl-Z, or a disk that hangs: it may go on after hours."""
    draft = f"{spool.root.folder(State.PENDING)}/.05-20260101T000000.000000Z-half.yaml.tmp"
    with open(draft, "w") as file:
        file.write("command: 'tr")
        file.flush()
        make_old(spool)
        assert check(spool) == repair(spool) == []
        assert os.path.exists(draft)
    make_old(spool)
    assert [found.path for found in check(spool)] == [draft]
    assert repair(spool) == []
    assert not os.path.exists(draft)


def test_a_repair_gives_no_file_the_id_of_another_job(spool: Spool) -> None:
    spool.file({"id": "mine", "command": "true"})
    path = f"{spool.root.folder(State.PENDING)}/05-20260101T000000.000000Z-other.yaml"
    with open(path, "w") as file:
        file.write("id: mine\ncommand: 'false'\n")
    repair(spool)
    assert [found.id for found in spool.list()] == ["other", "mine"]
