"""A disk that is full: what is refused takes no effect and leaves nothing, and says so."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.errors import StorageTrouble
from queuectl.spool import descriptions, jobs, requests
from queuectl.system import files
from queuectl.times import utc_now
from queuectl.web import actions
from queuectl.web.actions import Form
from queuectl.web.dashboard import Dashboard
from tests.shell import FAST, Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Evidence, Until, Workers

WHOLE = "command: true\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds little."""
    place = tmp_path / "small"
    place.mkdir()
    options = "size=1m,nr_inodes=200,mode=700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def spool(small_disk: Path) -> Spool:
    made = Spool.create(small_disk / "spool")
    made.root.config.write_text(FAST)
    return made


@pytest.fixture
def shell(tmp_path: Path, spool: Spool) -> Iterator[Shell]:
    with Shell(tmp_path) as made:
        made.root = spool.path
        made.environment["QUEUECTL_SPOOL"] = str(spool.path)
        yield made


@pytest.fixture
def dashboard(spool: Spool) -> Iterator[Dashboard]:
    made = Dashboard(spool)
    yield made
    made.close(10)


def _use_up_files(place: Path) -> None:
    while True:
        try:
            (place / f"filler-{uuid.uuid4()}").touch()
        except OSError:
            return


def _use_up_blocks(place: Path) -> None:
    with (place / f"filler-{uuid.uuid4()}").open("ab", buffering=0) as filler:
        while True:
            try:
                filler.write(b"x" * 1024)
            except OSError:
                return


@pytest.fixture(params=[_use_up_files, _use_up_blocks], ids=["no file fits", "no byte fits"])
def fill(request: pytest.FixtureRequest, small_disk: Path) -> Callable[[], None]:
    return lambda: request.param(small_disk)


def make_room(place: Path) -> None:
    for filler in place.glob("filler-*"):
        filler.unlink()


def contents(place: Path) -> dict[str, bytes]:
    """Every file and directory of a spool, with what is in it."""
    found: dict[str, bytes] = {}
    for folder, folders, names in os.walk(place):
        found |= {f"{folder}/{name}/": b"" for name in folders}
        for name in names:
            with open(f"{folder}/{name}", "rb") as file:
                found[f"{folder}/{name}"] = file.read()
    return found


def dead(spool: Spool, *job_ids: str) -> None:
    for job_id in job_ids:
        spool.file({"id": job_id, "command": "true"})
        spool.cancel_waiting(job_id)


REFUSED = [
    ["pause"],
    ["worker", "start"],
    ["worker", "start", "--count", "2"],
    ["worker", "start", "--drain"],
    ["worker", "stop", "--timeout", "5"],
    ["cancel", "waiting"],
    ["retry", "dead-1"],
    ["dlq", "retry", "--all"],
    ["config", "set", "max-retries", "7"],
    ["config", "unset", "backoff-base"],
    ["check", "--repair"],
    ["enqueue", "--id", "mine", "true"],
    ["enqueue", "true"],
]


def test_what_a_full_disk_refuses_takes_no_effect_and_leaves_nothing(
    spool: Spool, shell: Shell, fill: Callable[[], None]
) -> None:
    dead(spool, "dead-1", "dead-2")
    spool.file({"id": "waiting", "command": "true"})
    with spool.member("foreground"):
        fill()
        before = contents(spool.path)
        for words in REFUSED:
            assert "cannot be used" in shell(*words, status=75).err
            assert contents(spool.path) == before, words


def test_a_request_to_stop_without_a_limit_is_refused_where_no_file_fits(
    spool: Spool, shell: Shell, small_disk: Path
) -> None:
    with spool.member("foreground"):
        _use_up_files(small_disk)
        before = contents(spool.path)
        shell("worker", "stop", status=75)
        assert contents(spool.path) == before


@pytest.mark.parametrize("how", ["delete", "purge", "prune"])
def test_what_makes_room_works_on_a_full_disk(
    spool: Spool, shell: Shell, dashboard: Dashboard, fill: Callable[[], None], how: str
) -> None:
    dead(spool, "dead-1", "dead-2")
    fill()
    if how == "delete":
        actions.on_dead(dashboard, "delete", Form({"id": ["dead-1", "dead-2"], "sure": ["yes"]}))
    else:
        shell(*(["dlq", "purge", "--yes"] if how == "purge" else ["prune", "--older-than", "0s", "--yes"]))
    assert not list(spool.list())
    assert os.listdir(spool.root.logs) == []


def test_a_second_request_to_stop_that_is_refused_leaves_the_first_as_it_was(
    spool: Spool, fill: Callable[[], None]
) -> None:
    with spool.member("foreground") as one, spool.member("foreground") as other:
        requests.to_stop(spool.root, [one.name], 60)
        fill()
        with pytest.raises(OSError, match="No space left"):
            requests.to_stop(spool.root, [other.name, one.name], 5)
        assert requests.requests_to(spool.root, one.name).limit == 60
        assert not requests.requests_to(spool.root, other.name).stop


def test_several_retries_that_a_full_disk_refuses_name_what_is_left(
    spool: Spool, shell: Shell, fill: Callable[[], None]
) -> None:
    dead(spool, "a", "b", "c")
    fill()
    said = shell("retry", "a", "b", "c", status=75).err
    assert "cannot be used" in said
    assert "Left as they were: a b c" in said


@pytest.mark.parametrize("what", ["retry", "cancel", "run", "set"])
def test_a_button_that_a_full_disk_refuses_takes_no_effect_and_leaves_nothing(
    spool: Spool, dashboard: Dashboard, fill: Callable[[], None], what: str
) -> None:
    dead(spool, "dead")
    spool.file({"id": "waiting", "command": "true", "run_at": "2099-01-01T00:00:00Z"})
    fill()
    before = contents(spool.path)
    job_id = "dead" if what == "retry" else "waiting"
    with pytest.raises(OSError, match="No space left"):
        actions.on_job(dashboard, job_id, what, Form({"priority": ["9"], "sure": ["yes"]}))
    assert contents(spool.path) == before


def test_the_buttons_of_the_queue_take_no_effect_on_a_full_disk(
    spool: Spool, dashboard: Dashboard, small_disk: Path
) -> None:
    dead(spool, "dead")
    with spool.member("foreground") as me:
        _use_up_files(small_disk)
        before = contents(spool.path)
        with pytest.raises(OSError, match="No space left"):
            actions.pause(dashboard)
        with pytest.raises(OSError, match="No space left"):
            actions.stop_worker(dashboard, me.name, Form({"sure": ["yes"]}))
        with pytest.raises(StorageTrouble):
            actions.submit(dashboard, Form({"command": ["true"]}))
        said = actions.on_dead(dashboard, "retry", Form({"id": ["dead"]}))
        assert isinstance(said, actions.Said)
        assert "1 could not be: The spool cannot be used" in said.text
        assert contents(spool.path) == before


@pytest.mark.parametrize("is_there", [False, True], ids=["a new directory", "an empty directory"])
def test_a_spool_that_a_full_disk_refuses_leaves_no_directory(
    shell: Shell, small_disk: Path, fill: Callable[[], None], is_there: bool
) -> None:
    place = small_disk / "another"
    if is_there:
        place.mkdir(mode=0o750)
    fill()
    before = contents(small_disk)
    shell("init", place, status=75)
    assert contents(small_disk) == before
    if is_there:
        assert place.stat().st_mode & 0o777 == 0o750
    make_room(small_disk)
    shell("init", place)


DROPS = {
    "a good one": ("pipe.yaml", WHOLE),
    "one with an id": ("pipe.yaml", "id: mine\ncommand: true\n"),
    "one that is laid out anew": ("pipe.json", '{"command": "true"}'),
    "one that cannot be a job": ("pipe.yaml", "comand: true\n"),
    "one whose id is taken": ("pipe.yaml", "id: waiting\ncommand: true\n"),
}


@pytest.mark.parametrize("drop", DROPS)
def test_a_drop_that_cannot_be_taken_in_keeps_its_name_and_takes_no_id(
    spool: Spool, small_disk: Path, fill: Callable[[], None], drop: str
) -> None:
    name, text = DROPS[drop]
    spool.file({"id": "waiting", "command": "true", "run_at": "2099-01-01T00:00:00Z"})
    os.utime(spool.path / "ids" / "waiting.id", (1, 1))  # no other worker is at work with this id
    with spool.member() as me:
        me.look(utc_now())
        path = spool.path / "pending" / name
        path.write_text(text)
        os.utime(path, (1, 1))
        fill()
        before = contents(spool.path)
        for _ in range(3):
            with contextlib.suppress(OSError):
                me.look(utc_now(), [name])
            assert not path.exists() or contents(spool.path) == before
        make_room(small_disk)
        me.look(utc_now(), [name])
        assert not path.exists()
        (found,) = [one for one in spool.list() if one.id != "waiting"]
        assert found.id == ("mine" if "mine" in text else "pipe")
        assert found.state is (State.PENDING if drop in list(DROPS)[:3] else State.DEAD)


def test_a_worker_on_a_full_disk_does_not_say_that_it_died(
    spool: Spool, small_disk: Path, workers: Workers, until: Until
) -> None:
    workers.start()
    until(lambda: descriptions.described(spool.root), "a worker is there")
    requests.pause(spool.root, utc_now())
    spool.file({"id": "mine", "command": "true"})
    (spool.path / "pending" / "pipe.yaml").write_text("command: true\n")
    _use_up_files(small_disk)
    files.remove(f"{spool.root.workers}/{requests.PAUSED}")
    _use_up_files(small_disk)
    until(lambda: "cannot be used" in workers.said(), "it says that the disk is full")
    make_room(small_disk)
    until(lambda: len(jobs.names_in(spool.root, State.DONE)) == 2, "both are done")
    assert {found.id for found in spool.list()} == {"mine", "pipe"}
    assert "died" not in workers.said()
    assert os.listdir(spool.root.folder(State.PENDING)) == []


def test_a_run_that_fails_while_the_disk_is_full_uses_up_no_try_and_ends_the_claims(
    spool: Spool, tmp_path: Path, small_disk: Path, workers: Workers, until: Until
) -> None:
    go = tmp_path / "go"
    for number in range(5):
        spool.file({"command": f"until [ -e {go} ]; do sleep 0.02; done; echo {number}", "max_retries": 0})
    workers.start()
    until(lambda: "running (pid" in workers.said(), "the first runs")
    _use_up_blocks(small_disk)
    go.touch()
    until(lambda: "No space left" in workers.said(), "it says that the disk is full")
    make_room(small_disk)
    until(lambda: len(jobs.names_in(spool.root, State.DONE)) == 5, "all are done")
    assert workers.said().count("cannot be used") == 1
    runs = [event["event"] for found in spool.list() if found.job for event in found.job.history]
    assert runs.count("completed") == 5
    assert runs.count("returned") == 1
    assert "failed" not in runs


# ── workers meanwhile ──

CANNOT_BE_USED = "The spool cannot be used"


def names(spool: Spool, state: State) -> list[str]:
    return files.list_names(spool.root.folder(state))


def names_after(spool: Spool, act: Callable[[], object]) -> str:
    """The name that has come to pending/ by this."""
    before = set(names(spool, State.PENDING))
    act()
    (name,) = set(names(spool, State.PENDING)) - before
    return name


def test_a_full_disk_stops_claiming_and_refuses_filing_until_there_is_room(
    small_disk: Path, spool: Spool, workers: Workers, until: Until
) -> None:
    workers.start()
    until(lambda: descriptions.described(spool.root), "a worker is there")
    requests.pause(spool.root, utc_now())
    job_id = spool.file({"id": "kept", "command": "true"})
    _use_up_files(small_disk)
    requests.resume(spool.root)
    _use_up_files(small_disk)
    until(lambda: CANNOT_BE_USED in workers.said(), "the worker says that the disk is full")
    with pytest.raises(StorageTrouble):
        spool.file({"id": "refused", "command": "true"})
    waiting = names(spool, State.PENDING) + names(spool, State.PROCESSING)
    assert [name for name in waiting if "kept" in name]
    assert not [name for name in waiting if "refused" in name]
    make_room(small_disk)
    until(lambda: spool.find(job_id).state is State.DONE, "the job is run")
    assert spool.file({"id": "refused", "command": "true"}) == "refused"
    until(lambda: spool.find("refused").state is State.DONE, "the other is run")


def test_of_what_ran_on_a_full_disk_no_more_than_one_outcome_is_owed(
    small_disk: Path, spool: Spool, workers: Workers, evidence: Evidence, until: Until
) -> None:
    def padded(size: int) -> dict[str, Any]:
        return {"command": evidence.command(), "env": {"PAD": "x" * size}}

    sample = spool.path / "pending" / names_after(spool, lambda: spool.file(padded(1)))
    pad = 1 + 4060 - sample.stat().st_size  # an outcome takes the file over the end of its page
    sample.unlink()
    workers.start()
    until(lambda: descriptions.described(spool.root), "a worker is there")
    requests.pause(spool.root, utc_now())
    ids = [spool.file(padded(pad)) for _ in range(5)]
    _use_up_blocks(small_disk)
    files.remove(f"{spool.root.workers}/{requests.PAUSED}")
    until(lambda: "The outcome is recorded as soon as it can be" in workers.said(), "it tells what is owed")
    recorded = [found for found in spool.list() if found.job and len(found.job.history) > 1]
    assert len(evidence.started()) == len(recorded) + 1 < len(ids)
    make_room(small_disk)
    until(lambda: len(names(spool, State.DONE)) == len(ids), "all are recorded")
    assert sorted(evidence.started()) == sorted(ids)


def test_a_request_to_stop_is_heard_while_the_disk_is_full(
    small_disk: Path, spool: Spool, workers: Workers, until: Until
) -> None:
    worker = workers.start()
    assert worker.name
    request = small_disk / "request"  # there may be no room for a new file
    request.touch()
    requests.pause(spool.root, utc_now())
    job_id = spool.file("true")
    _use_up_files(small_disk)
    requests.resume(spool.root)
    _use_up_files(small_disk)
    until(lambda: CANNOT_BE_USED in workers.said(), "the worker says that the disk is full")
    request.rename(spool.path / "workers" / f"{worker.name}.stop")
    assert worker.wait() == 0
    assert spool.find(job_id).state is State.PENDING
