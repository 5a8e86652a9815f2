"""Files that people and programs put into pending/: whole ones run, others are put aside or left alone."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.spool import holds, ids, jobs, requests
from queuectl.spool.names import FIFO_RANK, REASON
from queuectl.system import files
from queuectl.times import utc_now
from queuectl.view import census

if TYPE_CHECKING:
    from collections.abc import Callable

    from queuectl.spool.jobs import Found
    from tests.conftest import Evidence, StoppedClock, Until, Workers

    Ended = Callable[[str], Found]
    Problems = Callable[[Spool], list[str]]

pytestmark = pytest.mark.usefixtures("audited")


def pending(spool: Spool, name: str = "") -> Path:
    return Path(spool.root.folder(State.PENDING), name)


def in_dead(spool: Spool) -> dict[bytes, Path]:
    """The files in dead/ that are no reasons, by their names as the system has them."""
    folder = Path(spool.root.folder(State.DEAD))
    return {os.fsencode(one.name): one for one in folder.iterdir() if not one.name.endswith(REASON)}


def dead_file(spool: Spool, job_id: str) -> Path:
    return next(path for name, path in in_dead(spool).items() if name.endswith(f"-{job_id}.yaml".encode()))


def reason(path: Path) -> str:
    return Path(f"{path}{REASON}").read_text()


def is_in(spool: Spool, job_id: str, *states: State) -> bool:
    """Whether exactly one file bears this id, and lies in one of these directories."""
    found = jobs.names_of(spool.root, job_id)
    return len(found) == 1 and found[0].state in states


# ── whole files ───────────────────────────────────────────────────────────────────────────────


DROPPED = [
    ("resize.yaml", "command: {}\n", "resize"),
    ("short.yml", "command: {}", "short"),
    ("LOUD.YML", "command: {}\n", "LOUD"),
    ("plain.json", '{{"command": {}}}', "plain"),
    ("pretty.json", '{{\n  "command": {},\n  "priority": 3\n}}\n', "pretty"),
    ("flow.yaml", "{{command: {}}}", "flow"),
    ("ended.yaml", "---\ncommand: {}\n...\n", "ended"),
    ("mark.yaml", "\ufeffcommand: {}\r\npriority: 2\r\n", "mark"),
    ("other.yaml", "id: its-own\ncommand: {}\n", "its-own"),
    ("grüße an alle.yaml", "command: {}\n", "gr-e-an-alle"),
    ("-rf.yaml", "command: {}\n", "rf"),
    ("a\nb\x1b[31m.yaml", "command: {}\n", "a-b-31m"),
    ("y" * 250 + ".yaml", "command: {}\n", "y" * 80),
    ("indented.yaml", "  command: {}\n  priority: 4\n", "indented"),
]


def test_a_dropped_job_runs_once_under_its_own_id_or_its_file_s_name(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    for name, text, _ in DROPPED:
        pending(spool, name).write_text(text.format(json.dumps(evidence.command())), newline="")
    workers.drain()
    assert sorted(evidence.started()) == sorted(evidence.finished()) == sorted(row[2] for row in DROPPED)
    assert all(is_in(spool, job_id, State.DONE) for _, _, job_id in DROPPED)


def test_a_file_from_windows_runs_in_any_of_its_encodings(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    texts = ['{{"command": {}}}', "command: {}\r\npriority: 2\r\n", "command: {}"]
    for encoding, (number, text) in itertools.product(("utf-8", "utf-16-le", "utf-16-be"), enumerate(texts)):
        whole = "\ufeff" + text.format(json.dumps(evidence.command()))
        pending(spool, f"{encoding}-{number}.yaml").write_bytes(whole.encode(encoding))
    workers.drain()
    assert len(set(evidence.finished())) == len(evidence.finished()) == 9
    assert {found.state for found in spool.list()} == {State.DONE}


def test_a_dropped_record_of_a_job_that_was_done_is_put_aside_until_its_state_is_taken_out(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    command = f"command: {json.dumps(evidence.command())}\n"
    pending(spool, "old.yaml").write_text(f"{command}state: completed\nlocked_by: w1\n")
    workers.drain()
    assert evidence.started() == []
    aside = dead_file(spool, "old")
    assert "completed already" in reason(aside)
    aside.write_text(f"{command}locked_by: w1\n")
    aside.rename(pending(spool, aside.name))
    workers.drain()
    assert evidence.finished() == ["old"]


def test_a_name_that_is_not_utf_8_becomes_a_legal_id(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    name = os.path.join(os.fsencode(pending(spool)), b"caf\xe9.yaml")
    with open(name, "w") as file:
        file.write(f"command: {json.dumps(evidence.command())}\n")
    workers.drain()
    assert evidence.started() == ["caf"]


@pytest.mark.parametrize("way", ["cp", "mv", "an editor"])
def test_a_waiting_worker_takes_in_what_is_dropped(
    spool: Spool, workers: Workers, evidence: Evidence, tmp_path: Path, ended: Ended, until: Until, way: str
) -> None:
    workers.start()
    ended(spool.file("true"))
    source = tmp_path / "job.yaml"
    source.write_text(f"command: {json.dumps(evidence.command())}\n")
    target = pending(spool, "job.yaml")
    if way == "cp":
        shutil.copy(source, target)
    elif way == "mv":
        source.rename(target)
    else:
        (hidden := pending(spool, ".job.yaml.swp")).write_text(source.read_text())
        hidden.rename(target)
    until(lambda: evidence.finished() == ["job"], "it ran")


def test_two_files_of_one_name_get_two_ids(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until
) -> None:
    for name in ("job.yaml", "job.yml", "job.json"):
        pending(spool, name).write_text(json.dumps({"command": evidence.command()}))
    workers.drain(2)
    begun = evidence.started()
    assert len(set(begun)) == 3
    assert "job" in begun
    assert all(job_id.startswith("job") for job_id in begun)


def test_fields_of_a_dropped_job_decide_its_place_and_time(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    command = json.dumps(evidence.command())
    pending(spool, "late.yaml").write_text(f"command: {command}\nrun_at: 2999-01-01T00:00:00Z\n")
    pending(spool, "plain.yaml").write_text(f"command: {command}\npriority: 0\n")
    pending(spool, "urgent.yaml").write_text(f"command: {command}\npriority: 9\n")
    for name in os.listdir(spool.root.folder(State.PENDING)):
        os.utime(pending(spool, name), (1, 1))  # all have settled: they are taken in by one look
    workers.drain()
    assert evidence.started() == ["urgent", "plain"]
    assert spool.view(spool.find("late"))["state"] == "scheduled"


def test_in_fifo_mode_dropped_files_are_ordered_by_time_alone(spool: Spool, workers: Workers) -> None:
    with spool.root.config.open("a") as config:
        config.write("scheduling_mode: fifo\n")
    for job_id, more in {"urgent": "priority: 10\n", "plain": ""}.items():
        pending(spool, f"{job_id}.yaml").write_text(f"command: 'true'\n{more}")
    workers.drain()
    assert [spool.find(job_id).name.rank for job_id in ("urgent", "plain")] == [FIFO_RANK] * 2


# ── unfinished files ──────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_still_held_open_does_not_run(
    spool: Spool, workers: Workers, evidence: Evidence, ended: Ended, until: Until
) -> None:
    workers.start()
    with pending(spool, "slow.yaml").open("w") as file:
        file.write(f"command: {evidence.command('echo')}")
        file.flush()
        end = time.monotonic() + 1
        while time.monotonic() < end:  # five times as long as a file that nobody holds has to settle
            ended(spool.file("true"))
        assert os.path.exists(file.name)
        assert evidence.started() == []
        file.write("; true\n")
    until(lambda: evidence.finished() == ["slow"], "it ran when it was closed")


def test_a_waiting_job_that_an_editor_is_saving_is_not_run_by_halves(
    spool: Spool, workers: Workers, evidence: Evidence, ended: Ended, until: Until
) -> None:
    job_id = spool.file({"command": evidence.command(), "priority": 10})
    text = Path(spool.find(job_id).path).read_text()
    with Path(spool.find(job_id).path).open("r+") as file:
        workers.start()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            ended(spool.file("true"))
        assert evidence.started() == []
        file.write(text)
    until(lambda: evidence.finished() == [job_id], "it runs once it is saved")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells that a file is being written")
def test_a_job_whose_file_is_held_open_moves_no_more_and_is_claimed_once_its_closing_is_heard(
    spool: Spool, clock: StoppedClock
) -> None:
    job_id = spool.file("true")
    clock.sleep(1.0)  # it is due
    folder = spool.root.folder(State.PENDING)
    with spool.member() as me:
        with Path(spool.find(job_id).path).open("a"):
            me.look(utc_now())
            assert me.claim(utc_now()) is None
            for _ in range(3):
                clock.sleep(holds.HOLD)
                before = files.mark(folder)
                me.look(utc_now(), os.listdir(folder), again=True)
                assert me.claim(utc_now()) is None
                assert files.mark(folder) == before
        me.look(utc_now(), os.listdir(folder))
        claim = me.claim(utc_now())
        assert claim
        assert claim.id == job_id
        me.give_back(claim)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells that a file is being written")
def test_a_job_whose_file_was_held_open_is_looked_at_again_without_a_word(
    spool: Spool, clock: StoppedClock
) -> None:
    job_id = spool.file("true")
    clock.sleep(1.0)  # it is due
    with spool.member() as me:
        with Path(spool.find(job_id).path).open("a"):
            me.look(utc_now())
            assert me.claim(utc_now()) is None
            clock.sleep(holds.CLOSING)
            me.look(utc_now(), again=True)
            assert me.claim(utc_now()) is None
            due = me.waiting.next_due()
            assert due is not None
            assert due <= utc_now() + timedelta(seconds=holds.HOLD)
        assert me.claim(utc_now()) is None
        clock.sleep(holds.HOLD + 0.1)
        claim = me.claim(utc_now())
        assert claim
        me.give_back(claim)


def test_a_file_that_grows_byte_by_byte_runs_only_when_it_is_whole(spool: Spool, clock: StoppedClock) -> None:
    """Every beginning of this file from `touch` on is a job; nobody holds the file between two bytes."""
    text = "command: touch abcdefghijklmnopqrstuvwxyz"
    with spool.member() as me:
        for letter in text:
            with pending(spool, "growing.yaml").open("a") as file:
                file.write(letter)
            os.utime(file.name, (utc_now().timestamp(),) * 2)  # by the clock that all go by here
            me.look(utc_now(), again=True)
            assert me.claim(utc_now()) is None
            clock.passed += 0.05
        claim = None
        while claim is None:
            assert clock.passed < 60
            clock.passed += 0.05
            me.look(utc_now(), again=True)
            claim = me.claim(utc_now())
        assert claim.job.command == text.removeprefix("command: ")
        me.complete(claim, {"exit_code": 0}, utc_now())


@pytest.mark.parametrize(
    "name", [".hidden.yaml", "job.yaml~", "job.yaml.tmp", ".job.yaml.swp", "job.yaml.swp", "job.yaml.part"]
)
def test_unfinished_names_are_left_alone(
    spool: Spool, workers: Workers, evidence: Evidence, name: str
) -> None:
    text = f"command: {json.dumps(evidence.command())}\n"
    pending(spool, name).write_text(text)
    workers.drain()
    assert evidence.started() == []
    assert pending(spool, name).read_text() == text
    assert census.counts(census.listed(spool.root), utc_now()).strangers == ()


def test_other_names_are_left_alone_and_reported(
    spool: Spool, workers: Workers, evidence: Evidence, problems: Problems
) -> None:
    text = f"command: {json.dumps(evidence.command())}\n"
    names = ["job.txt", "job", "job.yaml.bak"]
    for name in names:
        pending(spool, name).write_text(text)
    pending(spool, "folder.yaml").mkdir()
    workers.drain()
    workers.stop()
    assert evidence.started() == []
    assert [pending(spool, name).read_text() for name in names] == [text] * 3
    assert set(census.counts(census.listed(spool.root), utc_now()).strangers) >= {
        f"pending/{name}" for name in names
    }
    assert {line.split(":")[0] for line in problems(spool)} == {
        f"pending/{name}" for name in [*names, "folder.yaml"]
    }
    for name in names:
        pending(spool, name).unlink()
    pending(spool, "folder.yaml").rmdir()


# ── files that cannot be jobs ─────────────────────────────────────────────────────────────────

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)
MERGE = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "only-a-comment": b"# nothing\n",
    "ten-megabytes": b"command: 'true'\n#" + b"x" * 10_000_000,
    "deep-flow": b"command: " + b"[" * 30_000,
    "deep-block": b"command: 'true'\nenv:\n" + b"".join(b" " * n + b"a:\n" for n in range(1, 200)),
    "deep-json": b'{"command": "true", "env": ' + b"[" * 30_000,
    "alias-bomb": f"command: 'true'\n{BOMB}".encode(),
    "merge-bomb": f"command: 'true'\n{MERGE}".encode(),
    "key-twice": b"command: 'true'\ncommand: 'false'\n",
    "key-twice-json": b'{"command": "true", "command": "false"}',
    "python-tag": b"command: !!python/object/apply:os.system ['true']\n",
    "plain-tag": b"command: !!str true\n",
    "zero-byte": b"command: 'true'\0\n",
    "escaped-nul": b'command: "a\\0b"\n',
    "utf-16-without-mark": "command: 'true'\n".encode("utf-16-le"),
    "utf-16-cut-short": "command: 'true'\n".encode("utf-16")[:-1],
    "completed-elsewhere": b"command: 'true'\nstate: completed\n",
    "latin-1": "command: echo grüß\n".encode("latin-1"),
    "two-documents": b"command: 'true'\n---\ncommand: 'true'\n",
    "a-list": b"- command: 'true'\n",
    "a-scalar": b"true\n",
    "no-command": b"priority: 5\n",
    "null-command": b"command:\n",
    "mapped-command": b"command: {sh: ls}\n",
    "empty-words": b"command: []\n",
    "nested-words": b"command: [ls, [x]]\n",
    "priority-11": b"command: 'true'\npriority: 11\n",
    "priority-1e3": b"command: 'true'\npriority: 1e3\n",
    "priority-017": b"command: 'true'\npriority: 017\n",
    "priority-no": b"command: 'true'\npriority: no\n",
    "negative-retries": b"command: 'true'\nmax_retries: -1\n",
    "sexagesimal-timeout": b"command: 'true'\ntimeout: 12:30:45\n",
    "bad-moment": b"command: 'true'\nrun_at: tomorrow\n",
    "listed-env": b"command: 'true'\nenv: [A=b]\n",
    "deep-env": b"command: 'true'\nenv: {A: {B: c}}\n",
    "bad-id": b"id: ../../etc/passwd\ncommand: 'true'\n",
    "unknown-field": b"command: 'true'\ncomand: 'true'\n",
    "bad-history": b"command: 'true'\nhistory: [1]\n",
    "not-yaml": b"command: 'true\n\tx: ]\n",
    "a-program": b"\x7fELF\x02\x01\x01\0\0\0" * 100,
}


def test_no_file_stops_the_queue_and_each_is_put_aside_with_its_reason(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, tmp_path: Path
) -> None:
    for _ in range(2):
        assert workers.start().name
    spool.wait(spool.file("true"), 10)
    good = [f"good-{n}" for n in range(100)]
    filed = spool.file_many({"id": job_id, "command": evidence.command()} for job_id in good)
    for data, name in zip(HOSTILE.values(), HOSTILE, strict=True):
        pending(spool, f"{name}.yaml").write_bytes(data)
        assert next(filed).error is None
    assert [one.error for one in filed if one.error] == []
    until(lambda: len(in_dead(spool)) == len(HOSTILE), "all are put aside")
    until(lambda: len(evidence.finished()) == 100, "all good jobs ran")
    assert sorted(evidence.started()) == sorted(good)
    assert {name: dead_file(spool, name).read_bytes() for name in HOSTILE} == HOSTILE
    reasons = {name: reason(dead_file(spool, name)) for name in HOSTILE}
    assert [name for name, text in reasons.items() if not text.splitlines()[0].strip()] == []
    assert [name for name, text in reasons.items() if not text.replace("\n", "").isprintable()] == []
    assert memory(workers) < 100_000


def memory(workers: Workers) -> int:
    """The most that any running worker has ever had in memory, in kB."""
    lines = [
        line
        for worker in workers.running()
        for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return max(int(line.split()[1]) for line in lines)


def symlink(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def dangling(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere.parent / "nothing")


def hard_link(path: Path, elsewhere: Path) -> None:
    path.hardlink_to(elsewhere)


def fifo(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def device(path: Path, elsewhere: Path) -> None:
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device needs root")


def unix_socket(path: Path, elsewhere: Path) -> None:
    near = elsewhere.parent / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(near))
    near.rename(path)


@pytest.mark.parametrize(
    "make", [symlink, dangling, hard_link, fifo, device, unix_socket], ids=lambda make: make.__name__
)
def test_what_is_not_a_plain_file_is_put_aside_unread(
    spool: Spool, workers: Workers, evidence: Evidence, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    outside = tmp_path / "outside.yaml"
    text = f"command: {json.dumps(evidence.command())}\n"
    outside.write_text(text)
    make(pending(spool, "trap.yaml"), outside)
    before = pending(spool, "trap.yaml").lstat()
    good = spool.file(evidence.command())
    workers.drain()
    assert evidence.started() == [good]
    assert outside.read_text() == text
    path = dead_file(spool, "trap")
    assert path.lstat().st_ino == before.st_ino
    assert reason(path)


def commands_of(text: str) -> list[str]:
    """What a reason proposes to type in dead/."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def type_in_dead(spool: Spool, command: str) -> None:
    """Do so, an hour after what was put aside had been."""
    for log in Path(spool.root.logs).iterdir():
        os.utime(log, (time.time() - 3600,) * 2)
    subprocess.run(["sh", "-c", command], cwd=spool.root.folder(State.DEAD), check=True)


@pytest.mark.parametrize(
    ("make", "advice"),
    [(symlink, "Copy the file that the link leads to"), (fifo, "delete this"), (hard_link, "A copy")],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_reason_says_what_makes_a_job_of_what_is_no_plain_file(
    spool: Spool,
    workers: Workers,
    evidence: Evidence,
    tmp_path: Path,
    problems_left: Problems,
    make: Callable[[Path, Path], None],
    advice: str,
) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(f"command: {json.dumps(evidence.command())}\n")
    make(pending(spool, "trap.yaml"), outside)
    workers.drain()
    text = reason(dead_file(spool, "trap"))
    assert advice in text
    assert "move it back" not in text
    for command in commands_of(text):
        type_in_dead(spool, command)
    if make is symlink:
        shutil.copy(outside, pending(spool))
    workers.drain()
    assert evidence.started() == {"symlink": ["outside"], "fifo": [], "hard_link": ["trap"]}[make.__name__]
    assert problems_left(spool) == []


def test_a_file_whose_id_is_taken_runs_once_it_is_moved_back_as_its_reason_says(
    spool: Spool, workers: Workers, evidence: Evidence, problems_left: Problems
) -> None:
    command = json.dumps(evidence.command())
    spool.file({"id": "mine", "command": "true"})
    pending(spool, "drop.yaml").write_text(f"id: Mine\ncommand: {command}\n")
    pending(spool, "10-20260101T000000.000000Z-renamed.yaml").write_text(f"id: MINE\ncommand: {command}\n")
    workers.drain()
    assert evidence.started() == []
    for number, job_id in enumerate(("drop", "renamed")):
        for path in [
            path for name, path in in_dead(spool).items() if name.endswith(f"-{job_id}.yaml".encode())
        ]:
            lines = path.read_text().splitlines(keepends=True)
            [move] = commands_of(reason(path))
            path.write_text("".join(line for line in lines if not line.startswith("id:")))
            type_in_dead(spool, move.replace("NEW-ID", f"other-{number}"))
    workers.drain()
    assert in_dead(spool) == {}
    assert len(evidence.started()) == 2
    assert problems_left(spool) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_put_aside(spool: Spool, workers: Workers) -> None:
    pending(spool, "locked.yaml").write_text("command: 'true'\n")
    pending(spool, "locked.yaml").chmod(0)
    workers.drain()
    assert "permission" in reason(dead_file(spool, "locked"))


def test_a_hostile_file_under_a_waiting_job_s_name_is_put_aside_by_whoever_claims_it(
    spool: Spool, workers: Workers, evidence: Evidence
) -> None:
    for number, data in enumerate(HOSTILE.values()):
        pending(spool, f"00-20260101T000000.000000Z-bad-{number}.yaml").write_bytes(data)
    good = spool.file({"command": evidence.command(), "priority": 0})
    workers.drain()
    assert evidence.started() == [good]
    found = [dead_file(spool, f"bad-{number}") for number in range(len(HOSTILE))]
    assert [path.read_bytes() for path in found] == list(HOSTILE.values())
    assert all(reason(path) for path in found)


def test_a_file_that_is_mended_and_moved_back_runs(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until, problems_left: Problems
) -> None:
    workers.start()
    command = json.dumps(evidence.command())
    pending(spool, "wrong.yaml").write_text(f"id: right\ncomand: {command}\n")
    until(lambda: is_in(spool, "wrong", State.DEAD), "it is put aside")
    path = dead_file(spool, "wrong")
    assert "comand" in reason(path)
    path.write_text(path.read_text().replace("comand", "command"))
    path.rename(pending(spool, path.name))
    until(lambda: is_in(spool, "right", State.DONE), "it ran")
    assert evidence.started() == ["right"]
    workers.stop()
    assert problems_left(spool) == []


def test_a_file_that_is_moved_back_as_it_was_is_put_aside_again(
    spool: Spool, workers: Workers, until: Until
) -> None:
    workers.start()
    pending(spool, "wrong.yaml").write_text("comand: x\n")
    until(lambda: is_in(spool, "wrong", State.DEAD), "it is put aside")
    path = dead_file(spool, "wrong")
    os.unlink(f"{path}{REASON}")
    path.rename(pending(spool, path.name))
    until(lambda: is_in(spool, "wrong", State.DEAD), "it is put aside again")
    again = dead_file(spool, "wrong")
    assert again.read_text() == "comand: x\n"
    assert "comand" in reason(again)


def test_a_drop_with_an_id_that_is_taken_is_put_aside_and_the_job_of_that_id_is_unharmed(
    spool: Spool, workers: Workers, evidence: Evidence, problems_left: Problems
) -> None:
    spool.file({"id": "backup", "command": evidence.command()})
    workers.drain()
    text = f"id: BACKUP\ncommand: {json.dumps(evidence.command())}\n"
    pending(spool, "another.yaml").write_text(text)
    workers.drain()
    assert evidence.started() == ["backup"]
    path = dead_file(spool, "another")
    assert path.read_text() == text
    assert "taken" in reason(path)
    path.write_text(text.replace("BACKUP", "backup-2"))
    path.rename(pending(spool, "again.yaml"))
    workers.drain()
    assert evidence.started() == ["backup", "backup-2"]
    assert problems_left(spool) == []


def test_a_copy_of_a_finished_job_s_file_is_put_aside_and_does_not_run_again(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until
) -> None:
    job_id = spool.file({"id": "once", "command": evidence.command()})
    workers.drain()
    done = spool.find(job_id).path
    shutil.copy(done, pending(spool, "copy.yaml"))
    workers.drain()
    assert evidence.started() == [job_id]
    assert "taken" in reason(dead_file(spool, "copy"))


def test_a_drop_in_a_paused_spool_waits(
    spool: Spool, workers: Workers, evidence: Evidence, until: Until
) -> None:
    requests.pause(spool.root, utc_now())
    pending(spool, "job.yaml").write_text(f"command: {json.dumps(evidence.command())}\n")
    workers.start()
    until(lambda: is_in(spool, "job", State.PENDING), "it is taken in")
    assert evidence.started() == []
    requests.resume(spool.root)
    until(lambda: evidence.finished() == ["job"], "it ran")


# ── nothing is waited for ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def sleepless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sleeps in this process fails."""

    def refuse(seconds: float) -> None:
        pytest.fail(f"slept for {seconds} s")

    monkeypatch.setattr(time, "sleep", refuse)


def drop_old(spool: Spool, name: str, text: str) -> None:
    pending(spool, name).write_text(text)
    os.utime(pending(spool, name), (1, 1))


@pytest.mark.parametrize(
    "way", ["ids freed by rm", "ids freed just now", "filed jobs under plain names", "edited ids"]
)
def test_dropped_files_whose_ids_are_taken_by_nobody_hold_no_job_up(
    spool: Spool, sleepless: None, way: str
) -> None:
    del sleepless
    ids = [f"job-{number}" for number in range(12)]
    for job_id in ids:
        spool.file({"id": job_id, "command": "true"})
        path = Path(spool.find(job_id).path)
        if way.startswith("ids freed"):
            path.unlink()
            drop_old(spool, f"drop-{job_id}.yaml", f"id: {job_id}\ncommand: true\n")
        elif way == "filed jobs under plain names":
            path.rename(pending(spool, f"{job_id}.yaml"))
            os.utime(pending(spool, f"{job_id}.yaml"), (1, 1))
        else:
            path.unlink()
            other = Path(spool.find(spool.file({"command": "true", "priority": 9})).path)
            other.write_text(f"id: {job_id}\ncommand: true\npriority: 9\n")
        if way != "ids freed just now":
            os.utime(f"{spool.root.ids}/{job_id}.id", (1, 1))
    urgent = spool.file({"command": "true", "priority": 10})
    ran: list[str] = []
    with spool.member() as me:

        def work() -> bool:
            me.look(utc_now(), again=True)
            while claim := me.claim(utc_now()):
                ran.append(claim.id)
                me.complete(claim, {"exit_code": 0}, utc_now())
            return len(ran) > 12

        work()
        assert ran[:1] == [urgent]
        end = time.monotonic() + 20
        while not work():
            assert time.monotonic() < end, ran
    assert sorted(ran[1:]) == sorted(ids)


def test_files_that_are_held_open_hold_no_job_up(spool: Spool, sleepless: None) -> None:
    del sleepless
    paths = [spool.find(spool.file({"command": "true", "priority": 9})).path for _ in range(30)]
    plain = spool.file("true")
    with contextlib.ExitStack() as stack, spool.member() as me:
        for path in paths:
            stack.enter_context(open(path, "a"))
        me.look(utc_now())
        claim = me.claim(utc_now())
        assert claim
        assert claim.id == plain
        me.give_back(claim)


def test_two_dropped_files_of_one_freed_id_become_one_job(spool: Spool, sleepless: None) -> None:
    del sleepless
    spool.file({"id": "mine", "command": "true"})
    Path(spool.find("mine").path).unlink()
    os.utime(f"{spool.root.ids}/mine.id", (1, 1))
    for name in ("one.yaml", "two.yaml"):
        drop_old(spool, name, "id: mine\ncommand: true\n")
    with spool.member() as me:
        end = time.monotonic() + 20
        while [name for name in os.listdir(pending(spool)) if name in {"one.yaml", "two.yaml"}]:
            me.look(utc_now(), again=True)
            assert time.monotonic() < end
    assert [found.id for found in spool.list("pending")] == ["mine"]
    (aside,) = spool.list("dead")
    assert "is taken" in reason(Path(aside.path))


# ── several workers judge one file ────────────────────────────────────────────────────────────


class Before:
    """System calls; the first rename to a path that holds `part` is preceded by what others do."""

    def __init__(self, part: str, meanwhile: Callable[[], object]) -> None:
        self._part, self._meanwhile = part, meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def rename(self, source: str, target: str) -> None:
        if self._part in target:
            self._part = "\0"
            self._meanwhile()
        os.rename(source, target)


def test_who_judges_a_file_that_another_worker_takes_in_meanwhile_leaves_no_id_behind(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.file({"id": "first", "command": "true"})
    drop_old(spool, "job.yaml", "command: true\n")
    other = pending(spool, "10-20260101T000000.000000Z-other.yaml")
    with spool.member() as me:
        monkeypatch.setattr(
            files, "kernel", Before("-job.yaml", lambda: pending(spool, "job.yaml").rename(other))
        )
        me.look(utc_now(), again=True)
    assert not ids.is_taken(spool.root, "job")
    assert sorted(found.id for found in spool.list("pending")) == ["first", "other"]


def test_a_file_waits_while_another_worker_may_be_taking_it_in_and_gets_another_id_after_that(
    spool: Spool,
) -> None:
    spool.file({"id": "first", "command": "true"})
    ids.reserve(spool.root, "job")
    drop_old(spool, "job.yaml", "command: true\n")
    with spool.member() as me:
        me.look(utc_now(), again=True)
        assert me.is_settling
        os.utime(ids.path_of(spool.root, "job"), (1, 1))
        me.look(utc_now(), again=True)
    assert any(found.id.startswith("job-") for found in spool.list("pending"))
    ids.drop(spool.root, "job")


def test_a_file_that_is_mended_while_it_is_put_aside_is_judged_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    spool.file({"id": "first", "command": "true"})
    drop_old(spool, "job.yaml", "comand: true\n")
    with spool.member() as me:
        mend = Before("/processing/", lambda: pending(spool, "job.yaml").write_text("command: true\n"))
        monkeypatch.setattr(files, "kernel", mend)
        me.look(utc_now(), again=True)
        assert in_dead(spool) == {}
        os.utime(pending(spool, "job.yaml"), (1, 1))

        def is_taken_in() -> bool:
            me.look(utc_now(), again=True)
            return not pending(spool, "job.yaml").exists()

        until(is_taken_in, "it is a job")
    assert {found.id for found in spool.list("pending")} == {"first", "job"}
