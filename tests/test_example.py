"""spool_example/ is what its README.txt says, and a copy of it can be worked off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from queuectl import Spool, State, settings
from queuectl.spool import names
from queuectl.spool.root import FOLDERS
from queuectl.times import iso
from tests.shell import Shell

EXAMPLE = Path(__file__).parents[1] / "spool_example"
BEFORE = {
    "urgent-report": "pending",
    "two-words": "pending",
    "count-words": "pending",
    "comes-good": "pending",
    "ends-dead": "pending",
    "too-slow": "pending",
    "far-ahead": "scheduled",
    "second-try": "failed",
    "misspelt": "dead",
    "fetch-index": "dead",
    "backup-notes": "completed",
}
AFTER = {
    "urgent-report": ("completed", 1),
    "two-words": ("completed", 1),
    "count-words": ("completed", 1),
    "hello": ("completed", 1),
    "comes-good": ("completed", 3),
    "second-try": ("completed", 2),
    "backup-notes": ("completed", 1),
    "ends-dead": ("dead", 2),
    "too-slow": ("dead", 1),
    "fetch-index": ("dead", 2),
    "misspelt": ("dead", 0),
    "far-ahead": ("scheduled", 0),
}


def contents(folder: Path) -> dict[str, bytes]:
    """What a checkout holds: each file with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copied(target: Path) -> Path:
    """As `cp -r` and `chmod -R go=` do it: new times, private."""
    shutil.copytree(EXAMPLE, target, copy_function=shutil.copyfile)
    for folder, _, files in os.walk(target):
        Path(folder).chmod(0o700)
        for file in files:
            (Path(folder) / file).chmod(0o600)
    return target


def queuectl(spool: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "queuectl", "--spool", str(spool), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def states(spool: Spool) -> dict[str, tuple[str, int]]:
    views = [spool.view(found) for found in spool.list()]
    return {view["id"]: (view["state"], view["attempts"]) for view in views}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copied(tmp_path / "spool")


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = contents(EXAMPLE)
    spool = copied(tmp_path_factory.mktemp("example") / "spool")
    ended = queuectl(spool, "worker", "start", "--drain")
    assert ended.returncode == 0, ended.stderr
    assert contents(EXAMPLE) == before, "the example itself was changed"
    return spool


def test_its_config_is_the_one_that_init_writes() -> None:
    assert (EXAMPLE / settings.FILE).read_text() == settings.template()


def test_each_folder_of_a_spool_is_in_it_with_something_that_git_keeps() -> None:
    kept = {path.relative_to(EXAMPLE).parts[0] for path in EXAMPLE.rglob("*") if path.is_file()}
    assert kept >= set(FOLDERS)


def test_demo_makes_a_copy_and_names_it(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        said = shell("demo", env={"TMPDIR": str(tmp_path)})
        place = Path(said.lines[0].rpartition(" ")[2])
        assert place.parent == tmp_path
        assert {job: state for job, (state, _) in states(Spool(place)).items()} == BEFORE
        assert shell("--spool", place, "check").out == ""
        typed = [line.split()[1:] for line in said.lines if line.startswith("  queuectl ")]
        assert ["worker", "start", "--drain"] in typed
        for words in typed:
            shell("--spool", place, *words)
        assert states(Spool(place)) == AFTER


def test_demo_runs_its_copy_where_it_is_told_to_and_changes_no_other_spool(tmp_path: Path) -> None:
    with Shell(tmp_path) as shell:
        shell.make_spool()
        said = shell("--spool", tmp_path / "try", "demo", "--run")
        assert states(Spool(tmp_path / "try")) == AFTER
        assert "comes-good" in said.out
        assert list(shell.spool.list()) == []
        assert "is there already" in shell.refused("--spool", tmp_path / "try", "demo", status=1)


def test_each_job_has_a_name_that_agrees_with_its_content(copy: Path) -> None:
    spool = Spool(copy)
    for found in spool.list():
        if found.job is None:
            assert found.id == "misspelt"
            continue
        job = found.job
        assert job.id == found.id
        assert found.name.rank == names.rank_of(job.priority or 0, fifo=False)
        if found.state is State.FAILED:
            assert iso(found.name.due_at) == job.history[-1]["next_try"]
        else:
            assert found.name.due_at == (job.run_at or job.created_at)


def test_each_job_begins_with_a_comment() -> None:
    jobs = [path for state in State for path in (EXAMPLE / state).glob("*.yaml")]
    assert len(jobs) == len(BEFORE) + 1
    assert all(path.read_text().startswith("# ") for path in jobs)


def test_each_run_in_a_history_has_both_its_logs(copy: Path) -> None:
    for found in Spool(copy).list():
        for event in found.job.history if found.job else ():
            for stream in ("out", "err"):
                assert (EXAMPLE / "logs" / f"{found.id}.{event['attempt']}.{stream}").exists()


def test_its_readme_names_each_job() -> None:
    line = re.compile(r"^(?:\w+/)? +([a-z]+-?[a-z]+(?:\.yaml)?)  ", re.MULTILINE)
    named = set(line.findall((EXAMPLE / "README.txt").read_text()))
    assert named == {*BEFORE, "hello.yaml"}


def test_check_finds_nothing_in_a_fresh_copy(copy: Path) -> None:
    checked = queuectl(copy, "check")
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout


def test_a_fresh_copy_shows_jobs_in_each_state(copy: Path) -> None:
    assert {job: state for job, (state, _) in states(Spool(copy)).items()} == BEFORE


def test_draining_works_off_what_is_due_and_leaves_what_is_scheduled(drained: Path) -> None:
    assert states(Spool(drained)) == AFTER


def test_check_finds_nothing_after_draining(drained: Path) -> None:
    checked = queuectl(drained, "check")
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout


def test_the_most_urgent_job_runs_first_and_the_others_as_they_were_filed(drained: Path) -> None:
    started = [
        (event["at"], found.id)
        for found in Spool(drained).list()
        for event in (found.job.history if found.job else ())
        if event["event"] == "started" and event["at"] > "2025-06-03"
    ]
    first = [job for _, job in sorted(started)]
    assert first[:3] == ["urgent-report", "two-words", "count-words"]


@pytest.mark.parametrize(
    ("job", "run", "printed"),
    [
        ("two-words", 1, "two words\n$HOME is four letters here\n"),
        ("comes-good", 3, "this is run 3\n"),
        ("hello", 1, "hello from a dropped file\n"),
        ("too-slow", 1, "begun\n"),
        ("backup-notes", 1, "3 files saved\n"),
    ],
)
def test_what_jobs_printed_can_be_read_afterwards(drained: Path, job: str, run: int, printed: str) -> None:
    told = queuectl(drained, "output", "get", job, "--attempt", str(run), "--stdout")
    assert (told.returncode, told.stdout) == (0, printed)


def test_what_a_person_wrote_into_a_job_is_still_there_after_it_ran(drained: Path) -> None:
    ran = {found.id: Path(found.path) for found in Spool(drained).list()}
    for path in (*(EXAMPLE / "pending").glob("*.yaml"), *(EXAMPLE / "failed").glob("*.yaml")):
        name = names.parse(path.name)
        job = name.id if name else path.stem
        assert ran[job].read_bytes().startswith(path.read_bytes()), job
