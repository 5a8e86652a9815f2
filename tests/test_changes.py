"""Fields of waiting jobs change as asked, and all else in their files stays: comments, history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool, State
from queuectl.errors import BadJob, WrongState
from queuectl.spool import changes, jobfile
from tests.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITTEN = """\
# mine ü
id: one   # the id
command: |
  make
  # no comment

priority: 5   # urgent ü
# about env
env:   # here
  A: b  # first
  # between
  C: "d"
  # after env
timeout_sec: 10 # limit
cwd: /tmp

# above the history
"""
HISTORY = 'history:\n- {"event": "retried", "at": "2026-01-01T00:00:00Z"}\n'


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        yield shell.make_spool()


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        ({"priority": 9}, "priority: 5 ", "priority: 9 "),
        ({"priority": None}, "priority: 5   # urgent", "# urgent"),
        ({"timeout": 7200.0}, "timeout_sec: 10 #", "timeout: 7200 #"),
        ({"cwd": None}, "cwd: /tmp\n", ""),
        ({"cwd": "/srv/a b"}, "cwd: /tmp", "cwd: /srv/a b"),
        ({"command": "a: b"}, "command: |\n  make\n  # no comment\n", 'command: "a: b"\n'),
        ({"env.A": "x: y"}, "A: b  #", 'A: "x: y"  #'),
        ({"env.C": None}, '  C: "d"\n', ""),
        ({"env.D": "e"}, '  C: "d"\n', '  C: "d"\n  D: e\n'),
        ({"max_retries": 1, "launcher": "srun"}, "history\n", "history\nmax_retries: 1\nlauncher: srun\n"),
        ({"after": {"b": "ok", "c": "any"}}, "history\n", "history\nafter: {b: ok, c: any}\n"),
    ],
)
@pytest.mark.parametrize("history", ["", HISTORY])
def test_a_change_touches_its_own_lines_alone(
    change: dict[str, Any], old: str, new: str, history: str
) -> None:
    head, tail = (WRITTEN, history)
    assert head.count(old) == 1
    before = (head + tail).encode()
    assert changes.edited(before, change).decode() == head.replace(old, new) + tail


@pytest.mark.parametrize(
    "text",
    [
        "command: make",
        "env: {A: b} # c\ncommand: make\n",
        "env:\n  A: |\n    one\n    two\n\ncommand: make\n",
        "env:\ncommand: make\n",
        "  command: make\n  env:\n    A: b\n  history:\n",
        "command: make\r\nenv:\r\n  A: b # c\r\npriority: 3\r\n",
        '{"command": "make", "env": {"A": "b"}}',
        'history:\n- {"event": "retried", "at": "2026-01-01T00:00:00Z"}\ncommand: make\n',
        'command: make\nhistory:\n- {"event": "retried", "at": "2026-01-01T00:00:00Z"}\n- {"ev',
    ],
)
def test_any_layout_takes_a_change_and_nothing_else_of_the_job_changes(text: str) -> None:
    before = jobfile.parse(text.encode()).job
    for change in ({"priority": 4, "env.Z": "1"}, {"env.A": None}, {"command": ("a", "b c")}):
        after = jobfile.parse(changes.edited(text.encode(), change)).job
        assert after == changes.changed(before, change)


def test_a_change_that_a_comment_does_not_survive_is_refused() -> None:
    text = b"command: make # why\n"
    with pytest.raises(BadJob, match="queuectl edit"):
        changes.edited(text, {"command": "one\ntwo"})


def test_set_changes_file_and_name_and_a_held_job_stays_held(shell: Shell, spool: Spool) -> None:
    del spool
    shell("enqueue", "--id", "one", "--hold", "echo one")
    shell("enqueue", "--id", "two", "echo two")
    said = shell("set", "one", "two", "priority=9", "max-retries=1", "env.MODE=a b", "timeout=10m").lines
    assert said == [
        f"{name}: priority=9, max-retries=1, env.MODE=a b, timeout=10m" for name in ("one", "two")
    ]
    one, two = (shell("status", name, "--json").json for name in ("one", "two"))
    assert (one["state"], two["state"]) == ("held", "pending")
    for job in (one, two):
        assert (job["priority"], job["max_retries"], job["env"], job["timeout"]) == (
            9,
            1,
            {"MODE": "a b"},
            600,
        )
        assert Path(job["path"]).name.startswith("01-")
    shell("set", "two", "run_at=+1h", "env.MODE=")
    two = shell("status", "two", "--json").json
    assert (two["state"], two["env"]) == ("scheduled", {"MODE": ""})
    shell("set", "two", "run_at=", "priority=", "cwd=")
    two = shell("status", "two", "--json").json
    assert (two["state"], two["priority"], "cwd" in two) == ("pending", 0, False)
    shell("worker", "start", "--drain")
    assert shell("status", "two", "--json").json["state"] == "completed"
    assert shell("check").status == 0


def test_set_refuses_what_is_wrong_before_anything_changes(shell: Shell) -> None:
    shell("enqueue", "--id", "one", "true")
    shell("enqueue", "--id", "gone", "true")
    shell("cancel", "gone")
    text = Path(shell("status", "one", "--json").json["path"]).read_text()
    for words, error in (
        (["priority=99"], "priority: '99' cannot be taken"),
        (["priority=3", "timeout=soon"], "timeout: 'soon' cannot be taken"),
        (["prioritty=3"], "Did you mean 'priority'?"),
        (["id=other"], "The field 'id' stays as it was filed"),
        (["history=x"], "The field 'history' stays"),
        (["command="], "A job needs a command"),
        (["run_at=tomorrow"], "'tomorrow' is no moment"),
        (["priority=1", "priority=2"], "priority is set twice"),
        (["=3"], "is not KEY=VALUE"),
        (["env.=3"], "names of variables"),
        ([], "Nothing to change"),
    ):
        assert error in shell.refused("set", "one", *words, status=2)
    assert "No job was named" in shell.refused("set", "priority=3", status=2)
    assert "no job or batch 'nope'" in shell.refused("set", "one", "after=nope", status=1)
    assert "would wait for itself: one -> one" in shell.refused("set", "one", "after=one", status=1)
    assert "Job gone is dead, not waiting" in shell.refused("set", "gone", "priority=3", status=1)
    assert Path(shell("status", "one", "--json").json["path"]).read_text() == text


def test_a_job_that_is_set_to_run_after_another_one_waits_for_it_and_may_be_let_go_at_once(
    spool: Spool,
) -> None:
    spool.file({"id": "build", "command": "true"})
    spool.file({"id": "ship", "command": "true"})
    spool.set("ship", {"after": "build"})
    assert spool.find("ship").name.parked == "after+build"
    spool.set("ship", {"priority": 3})
    assert spool.find("ship").name.parked == "after+build"
    spool.hold("ship")
    spool.release("ship")
    assert spool.find("ship").name.parked == "after+build"
    spool.set("ship", {"after": None})
    assert spool.find("ship").name.parked is None
    spool.set("ship", {"after": ["build"]})
    spool.release("ship", at_once=True)
    spool.hold("build")
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        assert claim.id == "ship"
        me.give_back(claim)
    with pytest.raises(WrongState, match="not held"):
        spool.release("ship", at_once=True)


def test_retry_changes_first_and_what_is_held_stays_held(shell: Shell, spool: Spool) -> None:
    shell("enqueue", "--id", "one", "--max-retries", "0", "sleep 9", "--timeout", "0.01")
    shell("worker", "start", "--drain")
    assert "cannot be taken" in shell.refused("retry", "one", "--set", "timeout=x", status=2)
    assert shell("status", "one", "--json").json["state"] == "dead"
    assert shell("retry", "one", "--set", "timeout=2h", "--set", "command=true").lines == ["one is pending"]
    shell("worker", "start", "--drain")
    assert shell("status", "one", "--json").json["state"] == "completed"
    spool.file({"id": "again", "command": "false"})
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        me.fail(claim, {"exit_code": 1}, spool.clock(), 0.0)
    spool.hold("again")
    spool.retry("again", {"priority": 4})
    found = spool.find("again")
    assert (found.state, found.name.parked, found.name.rank) == (State.PENDING, "held", 6)


def test_a_held_job_that_is_edited_by_hand_is_released_under_the_name_that_it_asks_for(spool: Spool) -> None:
    spool.file({"id": "one", "command": "true"})
    spool.hold("one")
    with open(spool.find("one").path, "r+", encoding="utf-8") as file:
        text = file.read().replace("created_at", "priority: 10\ncreated_at")
        file.seek(0)
        file.write(text)
    spool.release("one")
    found = spool.find("one")
    assert (found.name.rank, found.name.parked) == (0, None)
