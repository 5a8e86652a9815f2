"""Commands for many jobs look all of them up at once, and what is interrupted between two is consistent."""

from __future__ import annotations

import array
import contextlib
import fcntl
import io
import os
import signal
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING

import pytest

from queuectl import QueueError, Spool, State
from queuectl.cli.lots import Lot
from queuectl.cli.main import run
from queuectl.errors import JobMoved, NoSuchJob
from queuectl.spool import acts, jobs
from queuectl.system import files
from queuectl.view import lookup
from queuectl.view.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import IO

    from tests.conftest import Counting, Until

STATES = [str(state) for state in State]


def command(spool: Spool, *words: str) -> tuple[int, str]:
    """One command line in this process: its exit status, and what it printed."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out):
        status = run(["--spool", str(spool.path), *words])
    out.flush()
    return status, out.buffer.getvalue().decode()


def ids(first: int, last: int) -> list[str]:
    return [f"job-{number}" for number in range(first, last)]


def file_all(spool: Spool, job_ids: list[str]) -> None:
    assert all(
        filed.error is None for filed in spool.file_many({"id": one, "command": "true"} for one in job_ids)
    )


def listings(counting: Counting, spool: Spool, *words: str) -> dict[str, int]:
    """How often a command lists each directory of jobs."""
    counting.listed.clear()
    status, _ = command(spool, *words)
    assert status == 0
    return {state: counting.listed[state] for state in STATES}


@pytest.mark.parametrize("words", [["cancel"], ["retry"], ["dlq", "retry"], ["dlq", "retry", "--all"]])
def test_many_jobs_are_looked_up_with_the_listings_of_one(
    spool: Spool, counting: Counting, words: list[str]
) -> None:
    file_all(spool, ids(0, 42))
    if words != ["cancel"]:
        command(spool, "cancel", *ids(0, 2 if "--all" in words else 42))
    few = listings(counting, spool, *words, *([] if "--all" in words else ids(0, 2)))
    if "--all" in words:
        command(spool, "cancel", *ids(2, 42))
    many = listings(counting, spool, *words, *([] if "--all" in words else ids(2, 42)))
    assert many == few
    assert max(count for state, count in many.items() if state != "processing") <= 1


def test_ids_that_are_nowhere_share_a_few_looks(spool: Spool, counting: Counting) -> None:
    file_all(spool, ids(0, 3))
    for missing in (["none"], [f"none-{number}" for number in range(50)]):
        counting.listed.clear()
        assert command(spool, "retry", *missing)[0] == NoSuchJob.exit_status
        assert max(counting.listed[state] for state in STATES if state != "processing") <= jobs.LOOKS


def test_jobs_that_have_moved_are_found_again_together(spool: Spool, counting: Counting) -> None:
    file_all(spool, ids(0, 30))
    lot = Lot.of(spool, Selection(tuple(ids(0, 30))))
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        for _ in range(20):
            claim = me.claim(spool.clock())
            assert claim is not None
            me.give_back(claim)  # under another name
    counting.listed.clear()
    with acts.hand(spool.root, spool.clock()) as hand:

        def cancel(found: jobs.Found) -> str:
            return acts.cancel_waiting(hand, found, spool.clock())[0]

        assert lot.do_all("cancelling", cancel) == 0
    assert len(jobs.names_in(spool.root, State.DEAD)) == 30
    assert counting.listed["pending"] == 1


def test_a_job_that_is_put_somewhere_else_each_time_is_said_to_move_and_not_to_be_missing(
    spool: Spool, capfd: pytest.CaptureFixture[str]
) -> None:
    file_all(spool, ["moves"])

    def act(found: jobs.Found) -> str:
        later = found.path.replace(str(found.name), str(found.name.later()))
        os.rename(found.path, later)
        raise JobMoved(found.id)

    assert Lot.of(spool, Selection(("moves",))).do_all("moving", act) == 1
    assert "moves too fast" in capfd.readouterr().err


class Mover:
    """Takes a job from pending/ to processing/ and back as fast as it can, as `give_back` does."""

    def __init__(self, spool: Spool, job_id: str) -> None:
        found = spool.find(job_id)
        claim = f"{spool.root.folder(State.PROCESSING)}/{found.name.owned('host-1-abcd')}"
        self._steps = [(found.path, claim), (claim, found.path)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            for step in self._steps:
                os.rename(*step)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_job_that_moves_all_the_time_is_never_missing_nor_taken_for_one_that_begins_like_it(
    spool: Spool,
) -> None:
    file_all(spool, ["job-1", "job-10"])
    with Mover(spool, "job-1"):
        told = {lookup.locate(spool.root, "job-1").id for _ in range(1000)}
    assert told == {"job-1"}


class Misses:
    """A kernel on which a job goes against the order of a look: out of what comes next into what is past."""

    def __init__(self, spool: Spool, job_id: str, times: int) -> None:
        self._folder = {state: spool.root.folder(state) for state in State}
        self._path = spool.find(job_id).path
        self._left = times

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def listdir(self, folder: str) -> list[str]:
        hidden = folder == self._folder[State.PENDING] and self._left > 0
        if not hidden:
            return os.listdir(folder)
        self._left -= 1
        claim = f"{self._folder[State.PROCESSING]}/moving"
        os.rename(self._path, claim)
        try:
            return os.listdir(folder)
        finally:
            os.rename(claim, self._path)


@pytest.mark.parametrize("times", [1, jobs.LOOKS - 1])
def test_a_job_that_is_given_back_during_a_look_is_found_by_the_next(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    file_all(spool, ["job-1", "job-10"])
    monkeypatch.setattr(files, "kernel", Misses(spool, "job-1", times))
    assert lookup.locate(spool.root, "job-1").id == "job-1"


def test_a_beginning_means_the_only_job_that_begins_so_whatever_stands_beside_it(spool: Spool) -> None:
    file_all(spool, ["build-1", "build-2", "test-1", "test"])
    answers = lookup.find_each(spool.root, ["build-1", "bui", "test", "test-", "no", "build-1@h"])
    said = {
        word: type(one).__name__ if isinstance(one, QueueError) else one.id for word, one in answers.items()
    }
    assert said == {
        "build-1": "build-1",
        "bui": "BadUsage",
        "test": "test",
        "test-": "test-1",
        "no": "NoSuchJob",
        "build-1@h": "NoSuchJob",
    }


# ── Ctrl-C ────────────────────────────────────────────────────────────────────────────────────


#: Also where the tests run with SIGINT ignored.
HEARING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from queuectl.__main__ import main; main()"
)


def test_ctrl_c_ends_between_two_jobs_and_what_was_told_is_what_was_done(
    spool: Spool,
    until: Until,
    problems: Callable[[Spool], list[str]],
    places: Callable[[Spool], dict[str, list[State]]],
) -> None:
    file_all(spool, ids(0, 500))
    words = [sys.executable, "-c", HEARING, "--spool", str(spool.path), "cancel", *ids(0, 500)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cancel:
        pipe = cancel.stdout
        assert pipe is not None
        try:
            room = fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)  # when it is full, the command waits
            until(lambda: waiting_in(pipe) > room - 100, "the pipe is full")
            cancel.send_signal(signal.SIGINT)
            out, said = cancel.communicate()
        finally:
            cancel.kill()
    told = {line.split()[0] for line in out.decode().splitlines()}
    assert cancel.returncode == 130
    assert said == b"Interrupted.\n"
    assert 3 <= len(told) < 500
    assert {name.id for name in jobs.names_in(spool.root, State.DEAD)} == told
    assert {job_id: found for job_id, found in places(spool).items() if len(found) != 1} == {}
    assert problems(spool) == []


def waiting_in(pipe: IO[bytes]) -> int:
    """How many bytes can be read from a pipe now."""
    answer = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, answer)
    return answer[0]


# ── long lists ────────────────────────────────────────────────────────────────────────────────


def test_the_first_rows_of_a_long_list_are_shown_before_the_last_jobs_are_read(
    spool: Spool, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_all(spool, ids(0, 400))
    read_by_then: list[int] = []
    rows: list[str] = []

    def echo(text: str) -> None:
        read_by_then.append(counting.calls["open"])
        rows.extend(text.splitlines())

    monkeypatch.setattr("click.echo", echo)
    counting.calls.clear()
    command(spool, "list")
    assert read_by_then[0] < 150
    assert [row.split()[0] for row in rows] == ["ID", *ids(0, 400)]


def test_a_list_shows_each_job_once_also_those_that_move_meanwhile(spool: Spool) -> None:
    file_all(spool, ids(0, 6))
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        for expected in ids(0, 2):
            claim = me.claim(spool.clock())
            assert claim is not None
            assert claim.id == expected
            me.complete(me.note(claim, me.started(1, None, spool.clock())), {"exit_code": 0}, spool.clock())
        listing = spool.list()
        shown = [next(listing).id]
        claim = me.claim(spool.clock())  # the one that is shown already
        assert claim is not None
        assert shown == [claim.id]
        spool.retry("job-0")  # back to where the list has been
        shown += [found.id for found in listing]
        me.give_back(claim)
    assert sorted(shown) == ids(0, 6)


def test_the_ids_of_jobs_just_filed_are_looked_up_together(
    spool: Spool, counting: Counting, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    lines.write_text("true\n" * 30)
    counting.listed.clear()
    status, said = command(spool, "enqueue", "--lines", "--file", str(lines), "--json")
    assert (status, said.count("\n")) == (0, 30)
    assert counting.listed["pending"] <= 1


# ── deleting, following ───────────────────────────────────────────────────────────────────────


def test_deleting_many_jobs_lists_their_logs_once_and_reads_none_of_them(
    spool: Spool, counting: Counting
) -> None:
    file_all(spool, ids(0, 30))
    command(spool, "cancel", *ids(0, 30))
    counting.listed.clear()
    with_reading = counting.calls["open"]
    assert command(spool, "dlq", "purge", "--yes")[0] == 0
    assert counting.listed["logs"] == counting.listed["dead"] == 1
    assert counting.calls["open"] - with_reading < 30
    assert os.listdir(spool.root.logs) == os.listdir(spool.root.folder(State.DEAD)) == []


def test_a_job_that_is_put_back_before_it_is_deleted_keeps_its_id(spool: Spool) -> None:
    file_all(spool, ids(0, 3))
    command(spool, "cancel", *ids(0, 3))
    deleting = acts.delete(spool.root, jobs.found_in(spool.root, State.DEAD))
    assert next(deleting) == "job-0"
    assert sorted(os.listdir(spool.root.ids)) == ["job-1.id", "job-2.id"]  # one after the other
    spool.retry("job-1")
    assert list(deleting) == ["job-2"]
    assert os.listdir(spool.root.ids) == ["job-1.id"]


def test_who_follows_a_job_that_stays_where_it_is_lists_nothing(spool: Spool, counting: Counting) -> None:
    file_all(spool, ["stays"])
    found = spool.find("stays")
    counting.listed.clear()
    for _ in range(5):
        found = lookup.again(spool.root, found)
    assert dict(counting.listed) == {}
    spool.cancel_waiting("stays")
    assert lookup.again(spool.root, found).state is State.DEAD
