"""`edit`: a job in an editor does not start, what a person wrote is never lost, and what is wrong is told."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State
from queuectl.spool import parking
from tests.shell import Shell, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StoppedClock

QUEUECTL = f"{shlex.quote(sys.executable)} -m queuectl"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        shell.make_spool()
        shell("enqueue", "--id", "one", "--priority", "3", "echo one")
        yield shell


@pytest.fixture
def spool(shell: Shell) -> Spool:
    return Spool(shell.root)


def editor(shell: Shell, *lines: str) -> dict[str, str | None]:
    """The environment of a person whose editor is a script: the file to edit is its last argument.

    With a LANG the command has a process of its own, which looks for TMPDIR.
    """
    script = shell.home / "my editor"
    script.write_text("\n".join(["#!/bin/sh", 'for file; do :; done; echo "$@" >> args', *lines]))
    script.chmod(0o700)
    return {"VISUAL": f"{shlex.quote(str(script))} --wait", "TMPDIR": str(shell.home), "LANG": "C.UTF-8"}


def copies(shell: Shell) -> list[Path]:
    return list(shell.home.glob("queuectl-edit-*"))


def text_of(spool: Spool) -> str:
    return Path(spool.find("one").path).read_text()


def test_what_is_saved_counts_and_all_else_stays(shell: Shell, spool: Spool) -> None:
    path = Path(spool.find("one").path)
    path.write_text(path.read_text().replace("priority: 3", "# mine\npriority: 3 # why"))
    env = editor(shell, "! grep -q history: $file || exit 9", "sed -i 's/priority: 3/priority: 9/' $file")
    assert shell("edit", "one", env=env).lines == ["one is changed"]
    found = spool.find("one")
    assert (found.name.rank, found.name.parked, found.state) == (1, None, State.PENDING)
    assert "# mine\npriority: 9 # why\n" in text_of(spool)
    assert (shell.home / "args").read_text().startswith("--wait /")
    assert copies(shell) == []
    shell("worker", "start", "--drain")
    assert spool.find("one").state is State.DONE


def test_an_editor_that_is_not_set_or_not_there_is_said_before_anything_changes(
    shell: Shell, spool: Spool
) -> None:
    before = spool.find("one").path
    none = {"VISUAL": None, "EDITOR": " "}
    assert "No editor is set" in shell.refused("edit", "one", env=none, status=1)
    missing = {"VISUAL": "", "EDITOR": "no-such-editor -w"}
    assert "'no-such-editor', which $EDITOR names" in shell.refused("edit", "one", env=missing, status=1)
    assert "cannot be read" in shell.refused("edit", "one", env={"VISUAL": "vi 'x"}, status=1)
    assert spool.find("one").path == before


@pytest.mark.parametrize("lines", [["true"], ["rm $file"], ["touch $file"]])
def test_an_editor_that_saves_nothing_changes_nothing(shell: Shell, spool: Spool, lines: list[str]) -> None:
    before = text_of(spool)
    assert "Nothing was changed" in shell("edit", "one", env=editor(shell, *lines)).err
    assert text_of(spool) == before
    assert spool.find("one").name.parked is None
    assert copies(shell) == []


@pytest.mark.parametrize(
    ("lines", "error", "status"),
    [
        (["echo 'priority: 99' > $file"], "priority: '99' cannot be taken", 2),
        (["echo 'command: [' > $file"], "", 2),
        (["printf '\\377\\376x' > $file"], "", 2),
        (["> $file"], "", 2),
        (["sed -i 's/id: one/id: two/' $file"], "The id 'one' stays as it was filed", 2),
        (["echo 'history: []' >> $file"], "stands twice", 2),
        (["echo 'after: nope' >> $file"], "no job or batch 'nope'", 2),
        (["echo 'after: one' >> $file"], "would wait for itself", 2),
        (["echo x >> $file; exit 3"], "The editor ended with exit status 3", 1),
    ],
)
def test_rubbish_is_refused_and_kept_for_the_person(
    shell: Shell, spool: Spool, lines: list[str], error: str, status: int
) -> None:
    before = text_of(spool)
    said = shell("edit", "one", env=editor(shell, *lines), status=status)
    assert error in said.err
    (folder,) = copies(shell)
    assert f"What you wrote is kept in {folder}/one.yaml" in said.err
    assert (folder.stat().st_mode & 0o777, text_of(spool)) == (0o700, before)
    assert spool.find("one").name.parked is None


def test_on_a_terminal_a_mistake_can_be_corrected_or_dropped(shell: Shell, spool: Spool) -> None:
    lines = ["if grep -q 'priority: 99' $file", "then sed -i 's/priority: 99/priority: 9/' $file"]
    env = editor(shell, *lines, "else sed -i 's/priority: 3/priority: 99/' $file; fi")
    terminal = shell.terminal("edit", "one", env=env)
    terminal.until("Edit it again?")
    terminal.type("n\n")
    assert terminal.end() == 0
    assert "priority: '99' cannot be taken" in terminal.text
    assert (spool.find("one").name.rank, spool.find("one").name.parked) == (7, None)
    terminal = shell.terminal("edit", "one", env=env)
    terminal.until("Edit it again?")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert spool.find("one").name.rank == 1
    assert copies(shell) == []


def test_a_job_that_somebody_changes_meanwhile_keeps_that_and_the_text_is_kept_too(
    shell: Shell, spool: Spool
) -> None:
    pending = shlex.quote(spool.root.folder(State.PENDING))
    env = editor(shell, f"sed -i 's/priority: 3/priority: 5/' {pending}/*", "echo 'timeout: 5' >> $file")
    said = shell("edit", "one", env=env, status=1)
    assert "Job one was changed by somebody else" in said.err
    assert "timeout: 5" in (copies(shell)[0] / "one.yaml").read_text()
    assert "priority: 5" in text_of(spool)
    assert spool.find("one").name.parked is None


def test_a_job_that_is_gone_by_the_end_of_the_edit_is_left_where_it_is(shell: Shell, spool: Spool) -> None:
    env = editor(shell, "echo 'timeout: 5' >> $file", f"{QUEUECTL} hold one; {QUEUECTL} cancel one")
    assert "Job one is dead by now" in shell("edit", "one", env=env, status=1).err
    assert len(copies(shell)) == 1
    assert spool.find("one").state is State.DEAD


def test_a_hold_during_the_edit_is_kept_and_so_is_what_a_job_waited_for_before(
    shell: Shell, spool: Spool
) -> None:
    env = editor(shell, f"{QUEUECTL} hold one", "sed -i 's/priority: 3/priority: 9/' $file")
    assert shell("edit", "one", env=env).lines[-1] == "one is changed"
    assert (spool.find("one").name.rank, spool.find("one").name.parked) == (1, "held")
    env = editor(shell, "echo 'timeout: 5' >> $file")
    shell("edit", "one", env=env)
    assert spool.find("one").name.parked == "held"
    shell("enqueue", "--id", "two", "--after", "one", "true")
    shell("edit", "two", env=env)
    assert spool.find("two").name.parked == "after+one"
    shell("edit", "two", env=editor(shell, "sed -i '/^after/d' $file"))
    assert spool.find("two").name.parked is None


def test_a_second_editor_and_every_other_change_are_refused_and_no_worker_starts_it(
    shell: Shell, spool: Spool
) -> None:
    others = [f"{QUEUECTL} {words} 2>> said" for words in ("edit one", "set one priority=1", "release one")]
    env = editor(shell, "echo 'timeout: 5' >> $file", f"{QUEUECTL} worker start --drain", *others, "exit 0")
    assert shell("edit", "one", env=env).status == 0
    said = (shell.home / "said").read_text()
    assert said.count("Job one is in an editor of") == 3
    assert "queuectl hold one" in said
    assert (spool.find("one").state, spool.find("one").name.parked) == (State.PENDING, None)


def test_a_killed_edit_leaves_the_job_parked_and_says_how_to_go_on(shell: Shell, spool: Spool) -> None:
    env = editor(shell, "touch open; while test -e open; do sleep 0.05; done")
    shell.environment |= {name: text or "" for name, text in env.items()}
    started = shell.start("edit", "one")
    until((shell.home / "open").exists, "the editor is open")
    os.kill(started.pid, 9)
    started.end()
    (shell.home / "open").unlink()
    shell("worker", "start", "--drain")
    told = shell("status", "one").out
    assert re.search(r"in an editor of \S+ \(`queuectl hold one`", told), told
    assert spool.find("one").state is State.PENDING
    shell("hold", "one")
    shell("release", "one")
    shell("worker", "start", "--drain")
    assert spool.find("one").state is State.DONE


def test_what_does_not_wait_is_not_edited(shell: Shell) -> None:
    shell("cancel", "one")
    assert "dead, not waiting" in shell.refused("edit", "one", env=editor(shell, "true"), status=1)
    assert "nope" in shell.refused("edit", "nope", env=editor(shell, "true"), status=3)


def test_check_names_a_job_that_has_been_in_an_editor_for_a_day(
    shell: Shell, spool: Spool, clock: StoppedClock
) -> None:
    parking.edit(spool.root, spool.find("one"), "ann")
    assert shell("check").status == 0
    clock.passed = 86_500.0
    said = shell("check", status=1).out
    assert "it has been in an editor of ann for more than a day" in said
    assert "`queuectl hold one`, then `queuectl release one`" in said
