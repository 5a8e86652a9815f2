"""Unique keys: of the jobs with one key, one waits or runs, whoever files, drops, moves or retries them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.errors import BadJob, KeyTaken
from queuectl.job.fields import from_fields
from queuectl.job.layout import to_yaml
from queuectl.job.model import ACTIVE, UNSTARTED
from queuectl.spool import acts, jobs, keys
from queuectl.spool.keys import Facts, Verdict, verdict
from queuectl.spool.onlooker import Onlooker
from queuectl.spool.root import IDS, KEYS
from queuectl.system import files
from queuectl.view import audit
from tests.shell import Shell, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from queuectl.spool.filing import Filed
    from queuectl.worker.member import Member

#: Older than a filing takes.
OLD = 10.0


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        yield shell.make_spool()


def file(spool: Spool, job_id: str | None = None, key: str = "k", **fields: object) -> Filed:
    given: Mapping[str, object] = {"command": "true", "max_retries": "0", "unique": key, **fields}
    (filed,) = spool.file_many([given if job_id is None else {**given, "id": job_id}])
    assert filed.error is None, filed.error
    return filed


def work(me: Member, spool: Spool, failing: frozenset[str] = frozenset()) -> list[str]:
    """Claim and end jobs until nothing is left to claim; those of these ids fail for good."""
    ran: list[str] = []
    me.relist(spool.clock())
    me.look(spool.clock())
    while (claim := me.claim(spool.clock())) is not None:
        ran.append(claim.id)
        claim = me.note(claim, me.started(1, None, spool.clock()))
        if claim.id in failing:
            me.fail(claim, {"exit_code": 1}, spool.clock(), 0.0)
        else:
            me.complete(claim, {"exit_code": 0}, spool.clock())
    return ran


def holders(spool: Spool, key: str = "k") -> dict[str, str]:
    """The text of each number of a key."""
    folder = keys.folder_of(spool.root, key)
    return {name: files.read(f"{folder}/{name}").decode() for name in sorted(os.listdir(folder))}


def age(spool: Spool, number: int, seconds: float = OLD, key: str = "k") -> None:
    path = f"{keys.folder_of(spool.root, key)}/{number}"
    then = files.modified(path) - seconds
    os.utime(path, (then, then))


def retry(spool: Spool, job_id: str) -> None:
    with acts.hand(spool.root, spool.clock()) as me:
        acts.retry(me, spool.find(job_id), spool.settings(), spool.clock())


# ── the judgement ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("term", [ACTIVE, UNSTARTED, "60"])
@pytest.mark.parametrize("state", [*State, None])
def test_who_waits_or_runs_has_its_key_and_who_has_ended_has_not(term: str, state: State | None) -> None:
    ended = state in {State.DONE, State.DEAD, None} and not (term == "60" and state is not None)
    assert verdict(term, Facts(OLD, state)) is (Verdict.FREE if ended else Verdict.HELD)


def test_a_key_that_is_for_the_wait_is_free_once_the_job_has_started() -> None:
    for state in (State.PENDING, State.FAILED, State.PROCESSING):
        assert verdict(UNSTARTED, Facts(OLD, state, has_run=True)) is Verdict.FREE
        assert verdict(ACTIVE, Facts(OLD, state, has_run=True)) is Verdict.HELD


def test_a_job_that_is_nowhere_has_its_key_for_as_long_as_a_filing_takes() -> None:
    assert verdict(ACTIVE, Facts(0.5, None)) is Verdict.OPEN
    assert verdict(ACTIVE, Facts(OLD, None)) is Verdict.FREE
    assert verdict(ACTIVE, Facts(OLD, None, is_being_filed=True)) is Verdict.HELD
    assert verdict("60", Facts(OLD, None)) is Verdict.FREE
    for state in (*State, None):
        assert verdict("60", Facts(0.0, state, is_over=True)) is Verdict.FREE


@pytest.mark.parametrize("key", ["Import", "a/b", "con", "com1", "..", "ü", "a" * 81, "a.b", "K"])
def test_a_key_that_is_no_plain_file_name_everywhere_is_hashed(spool: Spool, key: str) -> None:
    folder = keys.folder_of(spool.root, key).removeprefix(f"{spool.root.keys}/")
    assert folder.startswith("=")
    assert len(folder) == 41
    others = {key.lower(), key.upper()} - {key}
    assert folder not in {keys.folder_of(spool.root, other).rpartition("/")[2] for other in others}


def test_a_plain_key_is_its_own_directory(spool: Spool) -> None:
    assert keys.folder_of(spool.root, "import-7_b") == f"{spool.root.keys}/import-7_b"


# ── filing ────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_filed_while_another_job_with_the_key_waits_or_runs(spool: Spool) -> None:
    assert file(spool, "a") == ("a", None, True)
    assert file(spool, "b") == ("a", None, False)
    assert file(spool) == ("a", None, False)
    with spool.member() as me:
        me.relist(spool.clock())
        claim = me.claim(spool.clock())
        assert claim is not None
        assert file(spool, "b") == ("a", None, False)
        claim = me.note(claim, me.started(1, None, spool.clock()))
        me.complete(claim, {"exit_code": 0}, spool.clock())
    assert file(spool, "b") == ("b", None, True)
    assert holders(spool) == {"1": "a active\n", "2": "b active\n"}
    assert [found.id for found in spool.list()] == ["b", "a"]


def test_what_was_not_filed_leaves_its_id_free_and_no_draft(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b")
    assert [name for name in os.listdir(spool.path / "pending") if name.startswith(".")] == []
    assert not (spool.path / IDS / "b.id").exists()
    assert file(spool, "b", "other").is_new


def test_jobs_of_one_filing_with_one_key_are_filed_once(spool: Spool) -> None:
    filed = list(spool.file_many({"command": "true", "unique": key} for key in ("k", "k", "l", "k")))
    assert [one.is_new for one in filed] == [True, False, True, False]
    assert [one.id for one in filed] == [filed[0].id, filed[0].id, filed[2].id, filed[0].id]


def test_one_job_is_filed_again_under_the_id_of_a_deleted_one(spool: Spool) -> None:
    file(spool, "a")
    with spool.member() as me:
        work(me, spool)
    list(acts.delete(spool.root, [spool.find("a")]))
    assert not os.path.exists(keys.folder_of(spool.root, "k"))
    assert file(spool, "a").is_new


def test_a_key_until_the_start_is_free_while_the_job_runs(spool: Spool) -> None:
    file(spool, "a", unique_for="waiting")
    assert not file(spool, "b", unique_for="waiting").is_new
    with spool.member() as me:
        me.relist(spool.clock())
        claim = me.claim(spool.clock())
        assert claim is not None
        me.note(claim, me.started(1, None, spool.clock()))
        assert file(spool, "b", unique_for="waiting").is_new
        assert file(spool, "c", unique_for="waiting").id == "b"


def test_a_key_for_a_time_is_taken_for_that_time_whatever_becomes_of_the_job(spool: Spool) -> None:
    file(spool, "a", unique_for="1h")
    with spool.member() as me:
        assert work(me, spool) == ["a"]
        assert file(spool, "b", unique_for="1h") == ("a", None, False)
        age(spool, 1, 3601)
        assert file(spool, "b", unique_for="1h").is_new
        # Two hours may be queued: a job whose time is over before it starts runs all the same.
        age(spool, 2, 3601)
        assert file(spool, "c", unique_for="1h").is_new
        assert sorted(work(me, spool)) == ["b", "c"]


def test_a_clock_that_was_set_holds_a_key_for_no_longer_than_twice_its_time(spool: Spool) -> None:
    file(spool, "a", unique_for="1h")
    age(spool, 1, -3601)  # the clock was set back by more than an hour
    assert file(spool, "b").is_new
    age(spool, 2, -1e6)
    assert file(spool, "c").id == "b"  # it waits
    assert file(spool, "d", "other").is_new


@pytest.mark.parametrize("text", [b"", b"a", b"../x active\n", b"gone active\n", b"gone 60\n", b"\xff\xfe"])
def test_a_number_that_names_no_job_holds_its_key_as_a_filing_takes(spool: Spool, text: bytes) -> None:
    folder = spool.path / KEYS / "k"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "1").write_bytes(text)
    age(spool, 1)
    assert file(spool, "a").is_new
    assert (folder / "2").read_text() == "a active\n"


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_a_number_that_is_no_file_stops_nobody(spool: Spool, kind: str) -> None:
    file(spool, "a")
    path = f"{keys.folder_of(spool.root, 'k')}/5"
    if kind == "link":
        os.symlink("/etc/passwd", path)
    elif kind == "folder":
        os.mkdir(path)
    else:
        os.mkfifo(path)
    with spool.member() as me:
        assert work(me, spool) == ["a"]
    assert (spool.path / KEYS / "k" / "6").read_text() == "a active\n"


@pytest.mark.parametrize("kind", ["file", "link", "broken link"])
def test_a_key_whose_directory_is_none_is_refused_in_words_and_stops_no_worker(
    spool: Spool, tmp_path: Path, kind: str
) -> None:
    (spool.path / KEYS).mkdir(mode=0o700)
    if kind == "file":
        (spool.path / KEYS / "k").write_text("")
    else:
        if kind == "link":
            (tmp_path / "elsewhere").mkdir()
        (spool.path / KEYS / "k").symlink_to(tmp_path / "elsewhere")
    (filed,) = spool.file_many([{"command": "true", "unique": "k"}])
    assert isinstance(filed.error, BadJob)
    assert f"{spool.path}/keys/k" in str(filed.error)
    (spool.path / "pending" / "05-20261122T042700.123456Z-a.yaml").write_text("command: x\nunique: k\n")
    spool.file("true")
    with spool.member() as me:
        assert len(work(me, spool)) == 1
    assert spool.find("a").state is State.DEAD


def test_a_killed_filing_frees_its_key(spool: Spool) -> None:
    folder = spool.path / KEYS / "k"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "1").write_text("a active\n")
    (spool.path / "pending" / ".10-20261122T042700.123456Z-a.yaml.tmp").write_text("command: true\n")
    age(spool, 1)
    assert file(spool, "b").is_new  # nobody has the draft open


def test_a_filing_that_still_writes_has_its_key(spool: Spool) -> None:
    folder = spool.path / KEYS / "k"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "1").write_text("a active\n")
    age(spool, 1)
    with (spool.path / "pending" / ".10-20261122T042700.123456Z-a.yaml.tmp").open("w"):
        assert file(spool, "b") == ("a", None, False)


def test_old_numbers_that_count_no_more_are_deleted(spool: Spool) -> None:
    with spool.member() as me:
        for job_id in "abcd":
            assert file(spool, job_id).is_new
            work(me, spool)
    age(spool, 1, 90_000)
    age(spool, 2, 90_000)
    assert file(spool, "e").is_new
    assert list(holders(spool)) == ["3", "4", "5"]


def test_a_plain_job_makes_no_file_operation_more(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(keys.Keys, "take", lambda *_: called.append("take"))
    monkeypatch.setattr(keys, "standing", lambda *_: called.append("standing"))
    spool.file("true")
    with spool.member() as me:
        assert len(work(me, spool)) == 1
    assert not called
    assert not os.path.exists(spool.root.keys)


# ── before a job starts ───────────────────────────────────────────────────────────────────────


def test_a_job_that_was_put_into_pending_past_the_queue_starts_only_with_its_key(spool: Spool) -> None:
    file(spool, "z")
    name = "00-20261122T042700.123456Z-a.yaml"
    (spool.path / "pending" / name).write_text("command: true\nunique: k\n")
    with spool.member() as me:
        assert work(me, spool) == ["z"]
        found = spool.find("a")
        assert found.state is State.DEAD
        assert "held by job z" in (spool.path / "dead" / f"{name}.reason.txt").read_text()
        os.rename(found.path, spool.path / "pending" / name)
        assert work(me, spool) == ["a"]
    assert holders(spool)["2"] == "a active\n"


def test_a_dropped_file_takes_its_key_at_once_or_goes_to_dead(spool: Spool) -> None:
    with spool.member() as me:
        (spool.path / "pending" / "a.yaml").write_text("command: true\nunique: k\nrun_at: 2036-01-01\n")

        def has_come(job_id: str) -> bool:
            me.relist(spool.clock())
            me.look(spool.clock())
            return job_id in {found.id for found in spool.list()}

        until(lambda: has_come("a"), "it is taken in")
        assert file(spool, "b").id == "a"
        (spool.path / "pending" / "c.yaml").write_text("command: true\nunique: k\n")
        until(lambda: has_come("c"), "it is taken in")
        assert spool.find("c").state is State.DEAD
        assert "held by job a" in files.read(f"{spool.find('c').path}.reason.txt").decode()


def test_a_copy_of_a_job_file_does_not_run_beside_it(spool: Spool) -> None:
    file(spool, "a")
    source = spool.find("a").path
    text = (spool.path / source).read_text().replace("id: a\n", "")
    (spool.path / "pending" / "10-20261122T042700.123456Z-a2.yaml").write_text(text)
    shutil.copy(source, spool.path / "pending" / "05-20261122T042700.123456Z-a3.yaml")
    with spool.member() as me:
        me.relist(spool.clock())
        running = me.claim(spool.clock())
        assert running is not None
        assert me.claim(spool.clock()) is None
    assert sum(found.state is State.DEAD for found in jobs.everywhere(spool.root)) >= 1


def test_a_jobs_own_retries_never_ask_for_the_key(spool: Spool) -> None:
    file(spool, "a", unique_for="waiting", max_retries="1")
    with spool.member() as me:
        me.relist(spool.clock())
        claim = me.claim(spool.clock())
        assert claim is not None
        me.fail(me.note(claim, me.started(1, None, spool.clock())), {"exit_code": 1}, spool.clock(), 0.0)
        assert file(spool, "b", unique_for="waiting", run_at="2036-01-01").is_new
        assert work(me, spool) == ["a"]


def test_of_two_dead_jobs_with_one_key_one_is_retried_and_the_other_refused_in_words(spool: Spool) -> None:
    with spool.member() as me:
        for job_id in "ab":
            file(spool, job_id)
            work(me, spool, frozenset(job_id))
        retry(spool, "a")
        before = spool.find("b")
        with pytest.raises(KeyTaken, match="'k' is held by job a"):
            retry(spool, "b")
        after = spool.find("b")
        assert (after.state, after.job) == (before.state, before.job)
        assert work(me, spool) == ["a"]
        retry(spool, "b")
        assert work(me, spool) == ["b"]


def test_a_job_that_a_person_moves_back_needs_a_number_of_its_own(spool: Spool) -> None:
    """A filing may take it for ended at the same moment: its old number proves nothing."""
    file(spool, "a")
    with spool.member() as me:
        work(me, spool, frozenset("a"))
        path = spool.find("a").path
        os.rename(path, path.replace("/dead/", "/pending/"))
        assert work(me, spool) == ["a"]
    assert holders(spool) == {"1": "a active\n", "2": "a active\n"}


def test_a_waiting_job_that_is_given_another_key_or_none_has_its_old_one_no_more(shell: Shell) -> None:
    shell("enqueue", "--id", "a", "--unique", "old", "true")
    shell("set", "a", "unique=new")
    assert shell("enqueue", "--id", "b", "--unique", "old", "true").lines == ["b"]
    assert shell("enqueue", "--id", "c", "--unique", "new", "true").lines == ["a"]
    shell("set", "a", "unique=")
    assert shell("enqueue", "--id", "d", "--unique", "new", "true").lines == ["d"]
    assert "has the unique key 'old'" in shell("enqueue", "--unique", "old", "true").err
    assert shell("check").out == ""


def test_a_change_of_a_waiting_job_to_a_key_that_another_has_is_refused(shell: Shell) -> None:
    shell("enqueue", "--id", "a", "--unique", "k", "true")
    shell("enqueue", "--id", "b", "true")
    before = shell("status", "b", "--json").json
    said = shell("set", "b", "unique=k", status=1)
    assert "held by job a" in said.err
    after = shell("status", "b", "--json").json
    assert after["state"] == "pending"
    assert "unique" not in after
    assert after["command"] == before["command"]


# ── fields and words ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "fields",
    [
        {"unique": ""},
        {"unique": " "},
        {"unique": "a\nb"},
        {"unique": "x" * 1001},
        {"unique": ["a"]},
        {"unique_for": "active"},
        {"unique": "k", "unique_for": "soon"},
        {"unique": "k", "unique_for": "0"},
    ],
)
def test_a_key_or_time_that_means_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadJob, match="unique"):
        from_fields({"command": "true", **fields})


@pytest.mark.parametrize("term", [None, "active", "waiting", "24h"])
def test_the_fields_are_written_as_they_are_read(spool: Spool, term: str | None) -> None:
    given = {"command": "true", "unique": "a: b #1"} | ({} if term is None else {"unique_for": term})
    job = from_fields(given)
    (filed,) = spool.file_checked([job])
    assert spool.find(filed.id).job is not None
    read = spool.find(filed.id).job
    assert read is not None
    assert (read.unique, read.unique_for) == (job.unique, job.unique_for)
    assert ("unique_for" in to_yaml(job)) == (term is not None)


def test_the_command_prints_the_id_of_the_job_that_has_the_key(shell: Shell) -> None:
    first = shell("enqueue", "--unique", "import 7", "true")
    again = shell("enqueue", "--unique", "import 7", "true")
    assert (again.status, again.out) == (0, first.out)
    job_id = first.out.strip()
    assert again.err == f"Nothing was filed: job {job_id} has the unique key 'import 7'.\n"
    shown = shell("status", job_id)
    assert "unique    import 7 (while it waits or runs)" in shown.out
    assert shell("status", job_id, "--json").json["unique"] == "import 7"
    many = shell("enqueue", "-", stdin='{"command": "true", "unique": "import 7"}\n{"command": "true"}\n')
    assert many.status == 0
    assert many.lines[0] == job_id
    assert "line 1: job" in many.err


def test_a_key_for_several_jobs_is_refused_and_a_batch_says_which_member_it_lacks(shell: Shell) -> None:
    said = shell("enqueue", "--unique", "k", "--lines", "-", stdin="true\nfalse\n", status=2)
    assert "--unique gives several jobs one key" in said.err
    shell("enqueue", "--id", "other", "--unique", "k2", "true")
    jobs = '[{"command": "true", "unique": "k1"}, {"command": "true", "unique": "k2"}]'
    said = shell("enqueue", "--batch", "both", "-", stdin=jobs, status=1)
    assert "job other has the unique key 'k2'" in said.err
    assert "Filed 1 of 2 jobs; 1 refused." in said.err
    assert said.lines == ["both.1"]
    assert "--resume files the others" in said.err
    shell("cancel", "other")
    assert shell("enqueue", "--batch", "both", "--resume", "-", stdin=jobs).status == 0
    assert shell("status", "both.2", "--json").json["unique"] == "k2"


def test_a_refused_retry_says_who_has_the_key(shell: Shell) -> None:
    for job_id in "ab":
        shell("enqueue", "--id", job_id, "--unique", "k", "--max-retries", "0", "false")
        shell("cancel", job_id)
    assert shell("retry", "a").status == 0
    said = shell("retry", "b", status=1)
    assert "The unique key 'k' is held by job a. It is free again once that job has ended" in said.err


def test_fifty_processes_that_file_one_key_at_once_file_one_job(spool: Spool) -> None:
    program = (
        "import sys; from queuectl import Spool; spool = Spool(sys.argv[1]); sys.stdin.read()\n"
        "(filed,) = spool.file_many([{'command': 'true', 'unique': 'k'}]); print(filed.id, filed.is_new)"
    )
    command = [sys.executable, "-c", program, str(spool.path)]
    with contextlib.ExitStack() as stack:
        filers = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(50)
        ]
        for filer in filers:
            assert filer.stdin is not None
            filer.stdin.close()
        said = [filer.stdout.read().split() for filer in filers if filer.stdout is not None]
    assert {filer.returncode for filer in filers} == {0}
    assert sorted(is_new for _, is_new in said) == ["False"] * 49 + ["True"]
    (waiting,) = spool.list()
    assert {job_id for job_id, _ in said} == {waiting.id}


# ── the auditor ───────────────────────────────────────────────────────────────────────────────


def findings(spool: Spool) -> list[str]:
    found = audit.check(spool.root, Onlooker(spool.root), 300.0, spool.clock())
    return [f"{one.path.removeprefix(f'{spool.path}/')}: {one.problem}" for one in found]


def test_the_check_finds_keys_of_no_job_and_strays_and_a_repair_deletes_the_keys(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b", "other")
    assert findings(spool) == []
    os.unlink(spool.find("b").path)
    os.unlink(spool.path / IDS / "b.id")
    age(spool, 1, 3600, "other")
    (spool.path / KEYS / "note.txt").write_text("")
    (spool.path / KEYS / "k" / "note").write_text("")
    assert findings(spool) == [
        "keys/k/note: it is no part of a spool",
        "keys/note.txt: it is no part of a spool",
        "keys/other: the job that had this unique key last is gone",
    ]
    onlooker, now = Onlooker(spool.root), spool.clock()
    assert len(audit.repair(spool.root, onlooker, spool.settings(), lambda *_: None, now)) == 2
    assert sorted(os.listdir(spool.path / KEYS)) == ["k", "note.txt"]


def test_a_shared_spool_shares_its_keys(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "private")
    file(spool, "a")
    assert (spool.path / KEYS / "k").stat().st_mode & 0o7777 == spool.path.stat().st_mode & 0o7777
    spool = Spool.create(tmp_path / "private", shared=True)
    for path in (KEYS, f"{KEYS}/k"):
        assert (spool.path / path).stat().st_mode & 0o7770 == 0o2770
    assert (spool.path / KEYS / "k" / "1").stat().st_mode & 0o777 == 0o660
    file(spool, "b", "other")
    assert (spool.path / KEYS / "other").stat().st_mode & 0o7770 == 0o2770


def test_a_spool_whose_keys_anybody_may_change_is_refused(spool: Spool) -> None:
    file(spool, "a")
    (spool.path / KEYS).chmod(0o777)
    with pytest.raises(Exception, match="may be written to by anybody"):
        Spool(spool.path)


# ── crashes ───────────────────────────────────────────────────────────────────────────────────


class Deadly:
    """The system calls of the queue. The process ends before the n-th or, where it writes, half way."""

    def __init__(self, n: int) -> None:
        self._left = n

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left:
                return real(*arguments, **named)
            if name == "write":
                os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os._exit(9)

        return call


def dies(n: int, act: Callable[[], object]) -> bool:
    """Whether a process that does this dies at its n-th call; False if it was done before that."""
    if not (pid := os.fork()):
        try:
            files.kernel = Deadly(n)
            act()
            os._exit(0)
        finally:  # the test's own process goes on without this one
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, 9}
    return status == 9


def test_a_filing_that_dies_at_any_call_leaves_the_key_to_its_job_or_to_the_next(
    new_spool: Callable[[str], Spool],
) -> None:
    for n in itertools.count(1):
        spool = new_spool(f"spool{n}")
        has_died = dies(n, partial(file, spool, "a", run_at="2036-01-01"))
        if os.path.exists(path := f"{keys.folder_of(spool.root, 'k')}/1"):
            os.utime(path, (0, 0))
        told = file(spool, "b")
        waiting = [found.id for found in spool.list()]
        assert waiting == [told.id], n
        assert told.is_new == (told.id == "b"), n
        with spool.member() as me:
            assert work(me, spool) == (["b"] if told.is_new else [])
        if not has_died:
            assert not told.is_new
            return


def test_a_worker_that_dies_at_any_call_leaves_the_key_to_the_job_that_it_had_claimed(
    new_spool: Callable[[str], Spool],
) -> None:
    for n in itertools.count(1):
        spool = new_spool(f"spool{n}")
        file(spool, "a")
        with spool.member() as me:
            work(me, spool, frozenset("a"))
        found = spool.find("a")
        os.rename(found.path, found.path.replace("/dead/", "/pending/"))
        me = spool.member()
        me.relist(spool.clock())
        has_died = dies(n, partial(me.claim, me.now()))
        me.leave()
        assert file(spool, "b") == ("a", None, False), n
        if not has_died:
            return
        with spool.member() as me:
            me.recover(lambda *_: None, spool.clock())
            assert work(me, spool) == ["a"], n
