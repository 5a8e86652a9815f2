"""One job an id, whatever way another one comes by it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.errors import CutOff, IdTaken
from queuectl.spool import ids
from queuectl.spool.names import make_id
from queuectl.system import files
from queuectl.times import utc_now
from tests.conftest import make_old
from tests.test_checking import check, repair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import AtOnce, Until, Workers

FAR = "2099-01-01T00:00:00Z"


def bearing(spool: Spool, job_id: str) -> list[str]:
    """Every file that bears an id, in any case."""
    return [
        f"{state}/{text}"
        for state in State
        for text in os.listdir(spool.root.folder(state))
        if f"-{job_id.lower()}." in text.lower() or f"-{job_id.lower()}@" in text.lower()
        if text.endswith(".yaml")
    ]


def drop(spool: Spool, name: str, text: str) -> Path:
    path = spool.path / "pending" / name
    path.write_text(text)
    os.utime(path, (1, 1))
    return path


def look(spool: Spool, until: Until) -> None:
    """Take in all that was dropped."""
    with spool.member() as me:

        def are_taken_in() -> bool:
            me.look(utc_now(), again=True)
            return not me.is_settling

        until(are_taken_in, "all drops are taken in")


# ── ids that were made up ─────────────────────────────────────────────────────────────────────

DROPS: dict[str, Callable[[str], tuple[str, str]]] = {
    "file name": lambda job_id: (f"{job_id}.yaml", "command: 'true'\n"),
    "json": lambda job_id: (f"{job_id}.json", '{"command": "true"}'),
    "upper case": lambda job_id: (f"{job_id.upper()}.yaml", "command: 'true'\n"),
    "id inside": lambda job_id: ("other.yaml", f"id: {job_id}\ncommand: 'true'\n"),
    "upper case inside": lambda job_id: ("other.yaml", f"id: {job_id.upper()}\ncommand: 'true'\n"),
    "a name that sorts": lambda job_id: (
        "05-20260101T000000.000000Z-other.yaml",
        f"id: {job_id}\ncommand: 'true'\n",
    ),
}


def placed(spool: Spool, state: State, member: Any) -> str:
    """A job with a made id, in a state."""
    job_id = spool.file({"command": "true", "run_at": FAR} if state is State.PENDING else "true")
    if state is not State.PENDING:
        member.look(utc_now(), again=True)
        claim = member.claim(utc_now())
        if state is State.DONE:
            member.complete(claim, {"exit_code": 0}, utc_now())
        elif state in {State.FAILED, State.DEAD}:
            member.live.last = member.live.last._replace(
                max_retries=3 if state is State.FAILED else 0, backoff_base=9000.0, max_backoff_seconds=9000.0
            )
            member.fail(claim, {"exit_code": 1}, utc_now(), 0.0)
    return job_id


@pytest.mark.parametrize(
    ("state", "way"),
    [
        *((State.DONE, way) for way in DROPS),
        *((state, way) for state in State for way in ("json", "id inside") if state is not State.DONE),
    ],
)
def test_no_drop_comes_by_the_id_that_was_made_for_another_job(
    spool: Spool, workers: Workers, until: Until, way: str, state: State
) -> None:
    with spool.member() as member:
        job_id = placed(spool, state, member)
        before = bearing(spool, job_id)
        drop(spool, *DROPS[way](job_id))
        look(spool, until)
        workers.drain()
        assert bearing(spool, job_id) == before
        assert spool.find(job_id).state is state
    reason = list((spool.path / "dead").glob("*.reason.txt"))
    if ("name" in way and way != "a name that sorts") or way in {"json", "upper case"}:
        [other] = [
            found for found in spool.list() if found.id.startswith((f"{job_id}-", f"{job_id.upper()}-"))
        ]
        assert other.state is State.DONE
    else:
        assert "taken" in reason[0].read_text()


def test_an_id_of_the_same_form_is_free_where_no_job_has_it(
    spool: Spool, workers: Workers, until: Until
) -> None:
    """`backup123456` looks like one that was made up."""
    named, inside, filed = make_id(), make_id(), make_id()
    drop(spool, f"{named}.yaml", "command: 'true'\n")
    drop(spool, "x.yaml", f"id: {inside}\ncommand: 'true'\n")
    assert spool.file({"id": filed, "command": "true"}) == filed
    look(spool, until)
    workers.drain()
    assert {found.id for found in spool.list("done")} == {named, inside, filed}


def test_a_job_that_is_renamed_to_a_plain_name_keeps_its_made_id(
    spool: Spool, workers: Workers, until: Until
) -> None:
    job_id = spool.file("true")
    os.rename(spool.find(job_id).path, drop(spool, "mine.yaml", ""))
    look(spool, until)
    workers.drain()
    assert [found.id for found in spool.list()] == [job_id]


class Counting:
    """System calls, of which those that list a directory are counted."""

    def __init__(self) -> None:
        self.listings = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def listdir(self, folder: str) -> list[str]:
        self.listings += 1
        return os.listdir(folder)


def test_many_drops_of_that_form_are_looked_for_together(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    def listings(count: int) -> int:
        for _ in range(count):
            drop(spool, f"{make_id()}.yaml", "command: 'true'\n")
        with monkeypatch.context() as patch:
            patch.setattr(files, "kernel", counting := Counting())
            look(spool, until)
        return counting.listings

    spool.file({"id": "first", "command": "true"})
    assert listings(1) == listings(40)


def test_a_draft_has_its_id_already(spool: Spool, until: Until) -> None:
    """Whoever saw it may drop a file with that id before it is published."""
    job_id = make_id()
    (spool.path / "pending" / f".05-20260101T000000.000000Z-{job_id}.yaml.tmp").write_text("command: make\n")
    drop(spool, f"{job_id}.yaml", "command: 'true'\n")
    drop(spool, "x.yaml", f"id: {job_id}\ncommand: 'true'\n")
    with pytest.raises(IdTaken):
        spool.file({"id": job_id, "command": "true"})
    look(spool, until)
    assert bearing(spool, job_id) == []


def test_records_are_filed_again_with_few_listings(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`list --json` of another spool holds made ids: all are looked for in one look."""

    def listings(count: int) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(files, "kernel", counting := Counting())
            list(spool.file_many([{"id": make_id(), "command": "true"} for _ in range(count)]))
        return counting.listings

    spool.file({"id": "first", "command": "true"})
    assert listings(1) == listings(150)


# ── ids that somebody chose, and logs that are deleted ────────────────────────────────────────


def delete_logs(spool: Spool) -> None:
    for name in os.listdir(spool.root.logs):
        os.unlink(f"{spool.root.logs}/{name}")


@pytest.mark.parametrize("wipe", [delete_logs, lambda spool: shutil.rmtree(spool.root.logs)])
@pytest.mark.parametrize("state", [State.PENDING, State.DONE, State.DEAD])
def test_an_id_stays_taken_when_all_logs_are_deleted(
    spool: Spool, workers: Workers, until: Until, state: State, wipe: Callable[[Spool], None]
) -> None:
    command = "exit 1" if state is State.DEAD else "true"
    later = {"run_at": FAR} if state is State.PENDING else {}
    spool.file({"id": "mine", "command": command, "max_retries": 0, **later})
    drop(spool, "dropped.yaml", "command: 'true'\n")
    look(spool, until)
    workers.drain()
    wipe(spool)
    spool = Spool(spool.path)
    before = {job_id: bearing(spool, job_id) for job_id in ("mine", "dropped")}
    for job_id in before:
        with pytest.raises(IdTaken, match=f"queuectl status {job_id}"):
            spool.file({"id": job_id.upper(), "command": "true"})
    drop(spool, "mine.yaml", "command: 'true'\n")
    drop(spool, "x.yaml", "id: dropped\ncommand: 'true'\n")
    look(spool, until)
    workers.drain()
    assert {job_id: bearing(spool, job_id) for job_id in before} == before


def test_the_logs_of_a_running_job_may_be_deleted(
    spool: Spool, workers: Workers, until: Until, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    spool.file({"id": "mine", "command": f"while ! test -e {gate}; do sleep 0.02; done"})
    workers.start()
    until(lambda: spool.view(spool.find("mine"))["history"], "it runs")
    delete_logs(spool)
    with pytest.raises(IdTaken):
        spool.file({"id": "mine", "command": "true"})
    gate.touch()
    until(lambda: spool.find("mine").state is State.DONE, "it is done")
    assert len(bearing(spool, "mine")) == 1


def test_ids_are_made_of_the_jobs_there_are_where_the_folder_is_missing(spool: Spool) -> None:
    """As in a spool of an older version, or after `rm -r ids`."""
    for job_id in ("waits", "gone"):
        spool.file({"id": job_id, "command": "true"})
    made = spool.file("true")
    os.unlink(spool.find("gone").path)
    shutil.rmtree(spool.root.ids)
    with pytest.raises(IdTaken):
        spool.file({"id": "WAITS", "command": "true"})
    assert spool.file({"id": "gone", "command": "true"}) == "gone"
    assert ids.listed(spool.root) == {"waits", "gone"}
    with pytest.raises(IdTaken):
        spool.file({"id": made, "command": "true"})


def test_an_id_that_a_filing_has_taken_just_now_is_not_said_to_need_a_repair(spool: Spool) -> None:
    assert ids.reserve(spool.root, "slow")
    with pytest.raises(IdTaken, match="Unless it is being filed just now, `queuectl check --repair`"):
        spool.file({"id": "slow", "command": "true"})


def test_only_names_of_jobs_become_ids_where_the_folder_is_missing(spool: Spool) -> None:
    name = "05-20260101T000000.000000Z-bad.yaml"
    (spool.path / "dead" / name).write_text("command: [")
    (spool.path / "dead" / f"{name}.reason.txt").write_text("It is no YAML.\n")
    (spool.path / "done" / f"{name}.bak.yaml").mkdir()
    drop(spool, "a-report-of-the-whole-year-2025.yaml", "command: 'true'\n")
    assert spool.file({"id": "x1", "command": "true"}) == "x1"
    assert ids.listed(spool.root) == {"bad", "bad.yaml.bak", "x1"}


def test_an_id_that_only_a_file_beside_a_job_has_is_freed(spool: Spool) -> None:
    """Older versions took the names of reasons for ids."""
    spool.file({"id": "x1", "command": "true"})
    for name in ("05-20260101T000000.000000Z-bad.yaml", "05-20260101T000000.000000Z-bad.yaml.reason.txt"):
        (spool.path / "dead" / name).write_text("command: [")
    for job_id in ("bad", "bad.yaml.reason.txt"):
        assert ids.reserve(spool.root, job_id)
    make_old(spool)
    assert repair(spool) == []
    assert ids.listed(spool.root) == {"bad", "x1"}


def test_the_first_id_is_taken_once_by_many_at_once(spool: Spool, at_once: AtOnce) -> None:
    def file() -> bool:
        try:
            spool.file({"id": "mine", "command": "true"})
        except IdTaken:
            return False
        return True

    assert sorted(at_once([file] * 20)) == [False] * 19 + [True]
    assert len(bearing(spool, "mine")) == 1
    assert [name for name in os.listdir(spool.path) if name.startswith(".")] == []


def test_an_id_and_a_time_that_another_filing_has_at_work_are_refused_in_words(spool: Spool) -> None:
    job = {"id": "mine", "command": "true", "run_at": "2100-01-01T00:00:00Z"}
    draft = spool.root.path / "pending" / ".10-21000101T000000.000000Z-mine.yaml.tmp"
    draft.touch()
    with pytest.raises(IdTaken, match="check --repair"):
        spool.file(job)
    draft.unlink()
    first, second = spool.file_many([job, job])
    assert first.error is None
    assert isinstance(second.error, IdTaken)
    assert "`queuectl status mine`" in str(second.error)


def test_pruning_frees_an_id(spool: Spool, workers: Workers) -> None:
    from queuectl.spool import acts

    spool.file({"id": "mine", "command": "true"})
    workers.drain()
    assert list(acts.delete(spool.root, [spool.find("mine")])) == ["mine"]
    assert ids.listed(spool.root) == set()
    assert spool.file({"id": "mine", "command": "true"}) == "mine"


def test_ids_are_taken_again_where_all_their_files_were_deleted(spool: Spool, until: Until) -> None:
    spool.file({"id": "waits", "command": "true", "run_at": FAR})
    spool.file({"id": "dropped", "command": "true", "run_at": FAR})

    def empty() -> None:
        for name in os.listdir(spool.root.ids):
            os.unlink(f"{spool.root.ids}/{name}")

    empty()
    with pytest.raises(IdTaken):
        spool.file({"id": "WAITS", "command": "true"})
    empty()
    drop(spool, "x.yaml", "id: dropped\ncommand: 'true'\n")
    look(spool, until)
    assert len(bearing(spool, "dropped")) == 1
    assert [found.id for found in spool.list("dead")] == ["x"]


# ── files that a person copied or renamed ─────────────────────────────────────────────────────


def copy_without_id(spool: Spool, job_id: str, name: str) -> None:
    """Write a copy of a job to pending/, to run at once, that does not say what its id is."""
    lines = files.read(spool.find(job_id).path).decode().splitlines()
    kept = [line for line in lines if not line.startswith(("id:", "run_at:", "history:", "- {"))]
    (spool.path / "pending" / name).write_text("\n".join(kept) + "\n")


@pytest.mark.parametrize("state", [State.PENDING, State.FAILED, State.DEAD, State.DONE])
@pytest.mark.parametrize("is_made", [False, True])
def test_a_copy_that_names_no_id_gets_one_of_its_own(
    spool: Spool, workers: Workers, state: State, is_made: bool
) -> None:
    if is_made:
        with spool.member() as member:
            job_id = placed(spool, state, member)
    else:
        job_id = spool.file({"id": "mine", "command": "true", "run_at": FAR})
        name = os.path.basename(spool.find(job_id).path)
        os.rename(spool.find(job_id).path, spool.path / state / name)
    if state is State.DONE:
        (spool.path / "logs" / f"{job_id}.1.err").touch()
    [before] = bearing(spool, job_id)
    copy_without_id(spool, job_id, f"05-20260101T000000.000000Z-{job_id}.yaml")
    workers.drain()
    assert bearing(spool, job_id) == [before]
    [other] = [found for found in spool.list() if found.id != job_id]
    assert other.id.startswith(f"{job_id}-")
    assert other.state is State.DONE


def test_a_job_under_a_name_that_a_person_gave_it_shares_its_id_with_no_other(
    spool: Spool, workers: Workers
) -> None:
    for new in ("two", "three"):
        spool.file({"id": f"first-{new}", "command": "true"})
        copy_without_id(spool, f"first-{new}", f"05-20260101T000000.000000Z-{new}.yaml")
        os.unlink(spool.find(f"first-{new}").path)
    assert spool.file({"id": "two", "command": "true"}) == "two"
    workers.drain()
    assert {found.state for found in spool.list()} == {State.DONE}
    assert len({found.id for found in spool.list()}) == 3
    with pytest.raises(IdTaken):
        spool.file({"id": "three", "command": "true"})


def test_a_job_that_names_its_id_costs_no_listing_for_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.file({"id": "mine", "command": "true"})
    with spool.member() as member:
        member.look(utc_now(), again=True)
        monkeypatch.setattr(files, "kernel", counting := Counting())
        assert member.claim(utc_now()) is not None
        monkeypatch.undo()
    assert counting.listings == 0


# ── filings that are stopped ──────────────────────────────────────────────────────────────────


class Stopped:
    """System calls; the first one of a kind is preceded by what others do while the filing stands still."""

    def __init__(self, call: str, meanwhile: Callable[[], object]) -> None:
        self._call, self._meanwhile = call, meanwhile
        self._is_due = True

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name != self._call or not self._is_due:
            return real

        def call(*arguments: Any) -> Any:
            if self._is_due and (name != "open" or ".id" in str(arguments[0])):
                self._is_due = False
                files.kernel = os
                self._meanwhile()
            return real(*arguments)

        return call


@pytest.mark.parametrize("call", ["fsync", "rename", "close"])
def test_no_repair_frees_the_id_of_a_filing_that_is_stopped(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Ctrl-Z, a disk that hangs: two callers are never told the same id."""
    spool.file({"id": "first", "command": "true"})
    told: list[str] = []

    def meanwhile() -> None:
        make_old(spool)
        assert repair(spool) == []
        try:
            told.append(spool.file({"id": "mine", "command": "echo second"}))
        except IdTaken:
            told.append("refused")

    monkeypatch.setattr(files, "kernel", Stopped(call, meanwhile))
    try:
        told.append(spool.file({"id": "mine", "command": "echo first"}))
    except CutOff:
        told.append("cut off")
    assert told in (["refused", "mine"], ["mine", "cut off"])
    assert len(bearing(spool, "mine")) == 1
    assert ids.is_taken(spool.root, "mine")


def test_a_filing_whose_draft_is_gone_tells_no_id_and_frees_none(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.file({"id": "first", "command": "true"})

    def meanwhile() -> None:
        for draft in (spool.path / "pending").glob(".*.tmp"):
            draft.unlink()
        make_old(spool)
        assert repair(spool) == []
        assert spool.file({"id": "mine", "command": "echo second"}) == "mine"

    monkeypatch.setattr(files, "kernel", Stopped("rename", meanwhile))
    with pytest.raises(CutOff, match="File it again"):
        spool.file({"id": "mine", "command": "echo first"})
    [only] = bearing(spool, "mine")
    assert b"second" in (spool.path / only).read_bytes()
    with pytest.raises(IdTaken):
        spool.file({"id": "mine", "command": "true"})


def test_a_worker_that_stood_still_while_it_took_a_drop_in_makes_no_second_job(
    spool: Spool, workers: Workers, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    spool.file({"id": "first", "command": "true"})
    drop(spool, "x.yaml", "id: mine\ncommand: echo dropped\n")

    def meanwhile() -> None:
        make_old(spool)
        assert ids.free(spool.root, "mine", files.mark(ids.path_of(spool.root, "mine")))
        spool.file({"id": "mine", "command": "echo filed"})

    class AfterTaking(Stopped):
        def __getattr__(self, name: str) -> Any:
            call = super().__getattr__(name)
            if name != "rename":
                return call

            def rename(source: str, target: str) -> None:
                if target.endswith("-mine.yaml") and "/pending/" in target and self._is_due:
                    self._is_due = False
                    files.kernel = os
                    self._meanwhile()
                os.rename(source, target)

            return rename

    monkeypatch.setattr(files, "kernel", AfterTaking("nothing", meanwhile))
    look(spool, until)
    [only] = bearing(spool, "mine")
    assert b"filed" in (spool.path / only).read_bytes()
    workers.drain()
    [aside] = list(spool.list("dead"))
    assert b"dropped" in files.read(aside.path)


def test_only_one_of_those_who_judge_an_id_abandoned_frees_it(spool: Spool) -> None:
    spool.file({"id": "mine", "command": "true"})
    os.unlink(spool.find("mine").path)
    mark = files.mark(ids.path_of(spool.root, "mine"))
    assert ids.free(spool.root, "mine", mark)
    assert not ids.free(spool.root, "mine", mark)
    assert spool.file({"id": "mine", "command": "true"}) == "mine"
    assert not ids.free(spool.root, "mine", mark), "it is another one by now"
    assert ids.is_taken(spool.root, "mine")
    now = files.mark(ids.path_of(spool.root, "mine"))
    assert not ids.free(spool.root, "mine", now), "a job bears it"
    assert ids.is_taken(spool.root, "mine")
    assert [name for name in os.listdir(spool.root.ids) if name.startswith(".")] == []


def test_an_id_without_a_job_is_reported_and_freed(spool: Spool) -> None:
    spool.file({"id": "mine", "command": "true"})
    os.unlink(spool.find("mine").path)
    make_old(spool)
    [found] = check(spool)
    assert found.path == ids.path_of(spool.root, "mine")
    assert repair(spool) == []
    assert ids.listed(spool.root) == set()
