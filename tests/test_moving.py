"""`move`: a job goes to another spool whole or stays, and a crash anywhere loses nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.errors import FiledAllTheSame, QueueError, WrongState
from queuectl.spool import acts, moving, parking
from queuectl.spool.onlooker import Onlooker
from queuectl.system import files
from queuectl.view import audit
from tests.conftest import history_of, problems_in
from tests.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        yield shell.make_spool()


@pytest.fixture
def there(new_spool: Callable[[str], Spool]) -> Spool:
    return new_spool("there")


def ids_in(spool: Spool) -> dict[str, str]:
    return {found.id: found.label(spool.clock()) for found in spool.list()}


def test_a_job_is_filed_there_and_cancelled_here(shell: Shell, there: Spool, spool: Spool) -> None:
    del spool
    shell("enqueue", "--id", "one", "--priority", "9", "--env", "A=b", "echo one")
    shell("enqueue", "--id", "two", "--hold", "true")
    to = ["--to", str(there.path)]
    assert shell("move", "one", "two", *to).lines == [f"{one} is in {there.path}" for one in ("one", "two")]
    assert ids_in(there) == {"one": "pending", "two": "held"}
    job = there.find("one").job
    assert job is not None
    assert (job.priority, job.env, job.history) == (9, {"A": "b"}, ())
    assert job.moved_from == f"{shell.root}/one"
    here = Spool(shell.root)
    assert ids_in(here) == {"one": "dead", "two": "dead"}
    assert [event["event"] for event in history_of(here.find("one"))] == ["moving", "moved"]
    assert f"moved to {there.path}" in shell("status", "one").out
    assert f"(`queuectl -s {there.path} status one` shows it)" in shell("status", "one").out
    assert shell("move", "one", *to).lines == [f"one is in {there.path}"]
    assert f"was moved to {there.path}, and would run twice" in shell.refused("retry", "one", status=1)
    assert "would run twice" in shell.refused("dlq", "retry", "--all", status=1)
    assert ids_in(here) == {"one": "dead", "two": "dead"}
    assert problems_in(here) == problems_in(there) == []


def test_a_job_is_moved_back_once_its_id_is_free(spool: Spool, there: Spool, shell: Shell) -> None:
    spool.file({"id": "one", "command": "true"})
    spool.move("one", there)
    with pytest.raises(QueueError, match="Job one came from there") as raised:
        there.move("one", spool)
    assert raised.value.remedy == f"`queuectl -s {spool.path} prune one` frees the id."
    assert ids_in(there) == {"one": "pending"}
    shell("-s", str(spool.path), "prune", "one", "--yes")
    there.move("one", spool)
    assert ids_in(spool) == {"one": "pending"}
    assert ids_in(there) == {"one": "dead"}


def test_what_cannot_be_moved_is_refused_and_stays_as_it_was(
    shell: Shell, there: Spool, tmp_path: Path
) -> None:
    shell("enqueue", "--id", "one", "--hold", "true")
    shell("enqueue", "--id", "gone", "true")
    shell("enqueue", "--id", "ship", "--after", "one", "true")
    shell("cancel", "gone")
    there.file({"id": "one", "command": "another"})
    to = str(there.path)
    assert "The id 'one' is taken" in shell.refused("move", "one", "--to", to, status=1)
    assert "no job or batch 'one'" not in shell.refused("move", "gone", "--to", to, status=1)
    assert "is not a spool" in shell.refused("move", "one", "--to", str(tmp_path), status=1)
    assert "is the spool where the jobs are" in shell.refused(
        "move", "one", "--to", str(shell.root), status=2
    )
    assert "waits for itself" not in shell.refused("move", "nope", "--to", to, status=3)
    here = Spool(shell.root)
    assert ids_in(here) == {"one": "held", "ship": "blocked", "gone": "dead"}
    assert ids_in(there) == {"one": "pending"}
    there.cancel_waiting("one")
    shutil.rmtree(there.root.folder(State.DEAD))
    there.root.config.unlink()
    assert "is not a spool" in shell.refused("move", "one", "--to", to, status=1)
    assert here.find("one").name.parked == "held"


def test_a_dependency_that_is_not_there_keeps_a_job_here(spool: Spool, there: Spool) -> None:
    spool.file({"id": "build", "command": "true"})
    spool.file({"id": "ship", "command": "true", "after": "build"})
    with pytest.raises(QueueError, match="no job or batch 'build'"):
        spool.move("ship", there)
    assert spool.find("ship").name.parked == "after+build"
    spool.move("build", there)
    assert spool.move("ship", there).endswith("-ship.yaml.after+build.held")
    spool.file({"id": "later", "command": "true", "after": {"build": "any"}} | {"id": "later"})
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        assert claim.id == "later"
        me.give_back(claim)


def test_a_key_that_another_job_has_there_keeps_a_job_here(spool: Spool, there: Spool) -> None:
    spool.file({"id": "one", "command": "true", "unique": "nightly"})
    there.file({"id": "two", "command": "true", "unique": "nightly"})
    with pytest.raises(QueueError, match="The key 'nightly' is job two's"):
        spool.move("one", there)
    assert ids_in(spool) == {"one": "pending"}
    there.cancel_waiting("two")
    spool.move("one", there)
    assert ids_in(there) == {"one": "pending", "two": "dead"}


class Killed(BaseException):
    """The process is killed before a call: nothing of it runs any more."""


class Deadly:
    """The system's calls, of which the one that `number` counts down to, and all after it, are not made."""

    def __init__(self, number: int) -> None:
        self.left = number
        self._opened: list[int] = []

    def end(self) -> None:
        """Close what a process that was killed had open."""
        for fd in self._opened:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in {"rename", "open", "write", "unlink", "fsync", "close", "link"}:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            made = found(*arguments, **options)
            if name == "open":
                self._opened.append(made)
            elif name == "close":
                self._opened.remove(*arguments)
            return made

        return call


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("held", [False, True])
def test_a_kill_before_any_call_of_a_move_loses_nothing_and_the_same_again_finishes_it(
    new_spool: Callable[[str], Spool], monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    number, is_over = 0, False
    while not is_over:
        here, there = new_spool(f"here-{number}"), new_spool(f"there-{number}")
        list(here.file_many([{"id": "one", "command": "true", "unique": "key"}], held=held))
        with acts.hand(here.root, here.clock()) as me:
            target = there.target()
            deadly = Deadly(number)
            with monkeypatch.context() as patch:
                patch.setattr(files, "kernel", deadly)
                try:
                    moving.move(me, here.find("one"), target, here.clock())
                    is_over = True
                except Killed:
                    deadly.end()
        with here.member() as worker:  # the claim's owner has left: it is dead
            worker.recover(lambda *_: None, here.clock())
            worker.look(here.clock(), again=True)
            claim = worker.claim(here.clock())
            is_there = any(found.id == "one" for found in there.list())
            if claim is not None:
                assert not held
                assert not is_there
                worker.give_back(claim)
        place = here.find("one")
        if place.name.parked == "moving":
            assert any(f"queuectl move one --to {there.path}` finishes it" in one for one in sentences(here))
            for act in (here.release, here.hold, here.cancel_waiting):
                with pytest.raises(WrongState, match="on its way to another spool"):
                    act("one")
        here.move("one", there)
        assert there.find("one").name.parked == ("held" if held else None)
        assert ids_in(here) == {"one": "dead"}
        assert len(ids_in(there)) == 1
        number += 1
    assert number > 15


def sentences(spool: Spool) -> list[str]:
    return [one.sentence for one in audit.check(spool.root, Onlooker(spool.root), 1, spool.clock())]


@pytest.mark.parametrize("part", ["", "pending", "ids"])
def test_where_the_other_spool_fails_the_job_waits_here_as_before(
    spool: Spool, there: Spool, part: str
) -> None:
    there.file({"id": "another", "command": "true"})
    spool.file({"id": "one", "command": "true"})
    parking.hold(spool.root, spool.find("one"))
    target = there.target()
    shutil.rmtree(there.path / part)
    if part:
        (there.path / part).touch()
    with acts.hand(spool.root, spool.clock()) as me, pytest.raises(QueueError):
        moving.move(me, spool.find("one"), target, spool.clock())
    assert spool.find("one").name.parked == "held"


def test_a_job_that_may_be_there_stays_on_its_way(spool: Spool, there: Spool) -> None:
    spool.file({"id": "one", "command": "true"})

    def fails(*_: Any) -> Any:
        raise FiledAllTheSame(["one"], OSError(5, "broken"))

    with acts.hand(spool.root, spool.clock()) as me, pytest.raises(FiledAllTheSame):
        moving.move(me, spool.find("one"), there.target()._replace(file=fails), spool.clock())
    assert spool.find("one").name.parked == "moving"
    with pytest.raises(QueueError, match="on its way to"):
        spool.move("one", Spool.create(there.path.with_name("third")))
    spool.move("one", there)
    assert ids_in(there) == {"one": "pending"}
