"""A disk that is full or gone: nothing is lost, it is said, and work goes on when it is back."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Job, Spool
from queuectl.cli import quick
from queuectl.errors import FiledAllTheSame, StorageTrouble, UnsafeSpool
from queuectl.job.model import State
from queuectl.spool.root import FOLDERS
from queuectl.system import files
from queuectl.times import utc_now
from queuectl.worker.stopping import ONCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Until, Workers

CANNOT_BE_USED = "The spool cannot be used"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool.create(tmp_path / "spool")
    made.root.config.write_text("poll_interval: 0.05\nbackoff_base: 0\n")
    return made


def names(spool: Spool, state: State) -> list[str]:
    return files.list_names(spool.root.folder(state))


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_worker_that_owes_an_outcome_to_a_spool_that_is_gone_says_so_and_ends_at_the_second_signal(
    spool: Spool, workers: Workers, until: Until, tmp_path: Path, comes_back: bool
) -> None:
    gate = tmp_path / "gate"
    spool.file({"id": "owed", "command": f"while ! test -e {gate}; do sleep 0.02; done; exit 7"})
    worker = workers.start()
    until(lambda: "owed: running" in workers.said(), "it runs")
    away = tmp_path / "away"
    spool.path.rename(away)
    gate.touch()
    until(lambda: "as soon as it can be: job owed (failed: exit status 7)" in workers.said(), "it tells what")
    worker.popen.send_signal(signal.SIGTERM)
    until(lambda: "asked to stop, but an outcome is not recorded yet: job owed" in workers.said(), "it hears")
    assert f"`kill {worker.pid}` ends it at once" in workers.said()
    heard = time.monotonic()
    until(lambda: time.monotonic() - heard > ONCE, "another signal is another request")
    assert worker.is_running
    if comes_back:
        away.rename(spool.path)
        assert worker.wait() == 0
    else:
        worker.popen.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert "job owed: its outcome is not recorded (failed: exit status 7)" in workers.said()
        away.rename(spool.path)
        workers.drain()
    found = spool.find("owed")
    assert found.state is not State.PROCESSING
    assert found.job
    assert [event["event"] for event in found.job.history][:2] == [
        "started",
        "failed" if comes_back else "lost",
    ]


class Closed:
    """System calls that may make nothing in logs/, or no file of one name there."""

    def __init__(self, forbidden: str) -> None:
        self._forbidden = forbidden

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if self._forbidden in path and flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return os.open(path, flags, mode)


def test_no_job_is_put_aside_because_there_can_be_no_logs(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.file(Job("true", id="mine"))
    with spool.member() as me:
        me.look(utc_now())
        claim = me.claim(utc_now())
        assert claim
        with monkeypatch.context() as patch:
            patch.setattr(files, "kernel", Closed("/logs/"))
            with pytest.raises(PermissionError):
                me.begin(claim)
        assert spool.find("mine").state is State.PROCESSING
        with monkeypatch.context() as patch:
            patch.setattr(files, "kernel", Closed("/logs/mine.1.err"))
            assert me.begin(claim) is None
        assert spool.find("mine").state is State.DEAD


class Unsynced:
    """System calls of which the sync of pending/ fails; `before` is called then."""

    def __init__(
        self, spool: Spool, before: Callable[[], object] = lambda: None, *, keeps: bool = False
    ) -> None:
        self._inode = os.stat(spool.root.folder(State.PENDING)).st_ino
        self._before = before
        self._keeps = keeps

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        if os.fstat(fd).st_ino == self._inode:
            self._before()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)

    def unlink(self, path: str) -> None:
        if self._keeps and path.endswith(".yaml"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.unlink(path)


@pytest.mark.parametrize("chosen", [None, "mine"])
def test_jobs_whose_directory_cannot_be_synced_are_taken_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "kernel", Unsynced(spool))
        with pytest.raises(StorageTrouble):
            list(spool.file_many([Job("true", id=chosen), "true", "true"]))
        option = [] if chosen is None else ["--id", chosen]
        assert (
            quick.run(["--spool", str(spool.path), "enqueue", *option, "true"]) == StorageTrouble.exit_status
        )
    assert not list(spool.list())
    assert spool.file(Job("true", id=chosen)) == (chosen or next(spool.list()).id)
    assert len(list(spool.list())) == 1


def test_a_job_that_cannot_be_taken_back_is_named_and_not_filed_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "kernel", Unsynced(spool, keeps=True))
        assert quick.run(["--spool", str(spool.path), "enqueue", "--id", "mine", "true"]) == 1
    (found,) = spool.list()
    assert found.id == "mine"
    with spool.member() as me:

        def claim() -> None:
            me.look(utc_now(), again=True)
            assert me.claim(utc_now())

        with monkeypatch.context() as patch:
            patch.setattr(files, "kernel", Unsynced(spool, claim))
            with pytest.raises(FiledAllTheSame, match="yours"):
                spool.file(Job("true", id="yours", priority=10))
        assert {found.id: found.state for found in spool.list()} == {
            "mine": State.PENDING,
            "yours": State.PROCESSING,
        }
        assert (spool.path / "ids" / "yours.id").exists(), "its id is still taken"


def test_a_spool_that_goes_away_is_waited_for_and_not_made_anew(
    spool: Spool, workers: Workers, until: Until, tmp_path: Path
) -> None:
    workers.start()
    until(lambda: "started" in workers.said(), "a worker is there")
    job_id = spool.file({"command": "true", "run_at": "2099-01-01T00:00:00Z"})
    away = tmp_path / "away"
    spool.path.rename(away)
    spool.path.mkdir(mode=0o700)  # as the directory is under a share that is not mounted
    until(lambda: CANNOT_BE_USED in workers.said(), "the worker says that the spool has gone")
    said = time.monotonic()
    until(lambda: time.monotonic() - said > 2.5, "it has looked again, as it does each second")
    assert list(spool.path.iterdir()) == []
    spool.path.rmdir()
    away.rename(spool.path)
    name = str(spool.find(job_id).name)
    due = name.replace("20990101", "20200101")
    text = (spool.path / "pending" / name).read_text().replace("2099", "2020")
    (spool.path / "pending" / name).unlink()
    (spool.path / "pending" / due).write_text(text)
    until(lambda: spool.find(job_id).state is State.DONE, "the job is run")


class Counting:
    """The system calls of the door to the disk, counted."""

    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return call(*arguments, **options)

        return counted


@pytest.mark.parametrize("act", ["file", "claim and complete"])
def test_a_job_costs_the_same_calls_whatever_waits_and_is_done(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    def cost() -> int:
        """The least of several: now and then a call belongs to no job, such as a look at the config."""
        return min(calls() for _ in range(5))

    def calls() -> int:
        counting = Counting()
        with spool.member() as me:
            me.look(utc_now())
            me.waiting.has_due(
                utc_now()
            )  # what took longer than a second to be filed is read once, lest it be edited
            with monkeypatch.context() as patch:
                patch.setattr(files, "kernel", counting)
                if act == "file":
                    spool.file("true")
                else:
                    claim = me.claim(utc_now())
                    assert claim
                    me.complete(claim, {"exit_code": 0}, utc_now())
        return counting.calls

    list(spool.file_many("true" for _ in range(10)))
    shallow = cost()
    list(spool.file_many("true" for _ in range(500)))
    with spool.member() as me:
        me.look(utc_now())
        for _ in range(100):
            claim = me.claim(utc_now())
            assert claim
            me.complete(claim, {"exit_code": 0}, utc_now())
    assert cost() == shallow


class Syncing:
    """System calls, noting what is synced, by its inode, and each rename."""

    def __init__(self) -> None:
        self.seen: list[int | str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        self.seen.append(os.fstat(fd).st_ino)
        os.fsync(fd)

    def rename(self, source: str, target: str) -> None:
        self.seen.append("rename")
        os.rename(source, target)


@pytest.mark.skipif(os.name != "posix", reason="directories are synced on POSIX systems")
@pytest.mark.parametrize("durability", ["full", "filed"])
def test_in_full_durability_an_outcome_is_on_disk_before_its_move_and_the_move_with_both_directories(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    spool.root.config.write_text(f"durability: {durability}\n")
    job_id = spool.file("true")
    with spool.member() as me:
        me.look(utc_now())
        claim = me.claim(utc_now())
        assert claim
        places = (claim.path, spool.root.folder(State.DONE), spool.root.folder(State.PROCESSING))
        file, *folders = (os.stat(place).st_ino for place in places)
        with monkeypatch.context() as patch:
            patch.setattr(files, "kernel", syncing := Syncing())
            me.complete(claim, {"exit_code": 0}, utc_now())
    assert syncing.seen == ([file, "rename", *folders] if durability == "full" else ["rename"])
    assert spool.find(job_id).state is State.DONE


@pytest.mark.parametrize("stranger", [".hidden", "README", "job.yaml~", "half.yaml.part", "a folder.yaml"])
def test_what_is_no_job_and_stays_costs_no_further_listing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    stays = spool.path / "pending" / stranger
    stays.mkdir() if stranger == "a folder.yaml" else stays.touch()
    listings = []

    class Listing(Counting):
        def listdir(self, folder: str) -> list[str]:
            listings.append(folder)
            return os.listdir(folder)

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    with spool.member() as me:
        monkeypatch.setattr(files, "kernel", Listing())
        me.look(utc_now())
    assert listings.count(spool.root.folder(State.PENDING)) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_a_spool_that_anybody_may_write_to_is_refused_with_the_chmod_that_mends_it(
    spool: Spool, folder: str
) -> None:
    place = spool.path / folder
    place.chmod(0o707)
    with pytest.raises(UnsafeSpool) as refusal:
        Spool(spool.path)
    assert refusal.value.remedy == f"Run `chmod o-w {place}`."
    place.chmod(0o705)
    Spool(spool.path)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_parent_in_which_others_could_put_another_spool_is_refused(open_place: Path) -> None:
    spool = Spool.create(open_place / "spool")
    open_place.chmod(0o777)
    with pytest.raises(UnsafeSpool, match="put another spool in its place"):
        Spool(spool.path)
    open_place.chmod(0o1777)
    Spool(spool.path)
