"""Many jobs from one line: the values, the commands that are made of them, and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.system import files
from tests.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.conftest import StoppedClock

ODD = [
    b"a b.jpg",
    b"it's.jpg",
    b"$(touch x).jpg",
    b"-dash",
    b"new\nline",
    b"\xff\xfe.jpg",
    b"caf\xc3\xa9.jpg",
]


def commands(shell: Shell) -> list[object]:
    return [job["command"] for job in shell.jobs()]


def test_odd_names_arrive_byte_for_byte_and_nothing_of_them_is_run(shell: Shell, tmp_path: Path) -> None:
    for name in ODD:
        (tmp_path / os.fsdecode(name)).write_bytes(b"content of " + name)
    shell("enqueue", "--cwd", tmp_path, "--each", "cat ./{} > out.{#}", "--", *ODD)
    words = [r'printf %s "$1$QUEUECTL_VALUE" >"env.$QUEUECTL_INDEX"', "_", "{}"]
    (tmp_path / "list").write_bytes(b"".join(name + b"\0" for name in ODD))
    shell("enqueue", "--cwd", tmp_path, "-0", "--values", tmp_path / "list", "--", "sh", "-c", *words)
    shell.drain()
    for number, name in enumerate(ODD, 1):
        assert (tmp_path / f"out.{number}").read_bytes() == b"content of " + name
        assert (tmp_path / f"env.{number}").read_bytes() == name + name
    assert not (tmp_path / "x").exists()


def test_values_come_from_standard_input(shell: Shell) -> None:
    assert len(shell("enqueue", "--each", "wc {}", "-", stdin="a b\nc\n").lines) == 2
    assert commands(shell) == ["wc 'a b'", "wc c"]
    shell("enqueue", "--each", "wc {}", "-0", "-", stdin="d\ne\0")
    assert commands(shell)[2:] == ["wc 'd\ne'"]


def test_values_come_from_combinations_rows_and_numbers(shell: Shell, tmp_path: Path) -> None:
    shell("enqueue", "--each", "train {lr} {seed}", "--with", "lr=0.1,0.01", "--with", "seed=1..2")
    assert commands(shell) == ["train 0.1 1", "train 0.1 2", "train 0.01 1", "train 0.01 2"]
    (tmp_path / "f.csv").write_text("name,age\nAnn,3\nBob,4\n")
    shell("enqueue", "--csv", tmp_path / "f.csv", "--", "greet", "{name}", "{2}")
    assert commands(shell)[4:] == [["greet", "Ann", "3"], ["greet", "Bob", "4"]]
    shell("enqueue", "--array", "1-5:2", "process $QUEUECTL_VALUE")
    jobs = shell.jobs()[6:]
    assert [job["env"] for job in jobs] == [
        {"QUEUECTL_VALUE": value, "QUEUECTL_INDEX": index}
        for value, index in (("1", "1"), ("3", "2"), ("5", "3"))
    ]


def test_flags_hold_for_every_job(shell: Shell) -> None:
    shell("enqueue", "-p", "7", "-e", "MODE=fast", "--hold", "--each", "echo {}", "--", "a", "b")
    assert [(job["priority"], job["env"]["MODE"]) for job in shell.jobs()] == [(7, "fast")] * 2
    assert shell("status", "--json").json["counts"]["held"] == 2


def test_an_array_may_say_how_many_run_at_once(shell: Shell) -> None:
    shell(
        "enqueue", "--batch", "lim", "--array", "1-4%2", "test $QUEUECTL_SLOT -le 2 -a $QUEUECTL_VALUE -gt 0"
    )
    assert {job["group"] for job in shell.jobs()} == {"lim"}
    (group,) = shell("group", "list", "--json").json_lines
    assert (group["group"], group["slots"]) == ("lim", 2)
    shell.drain()
    shell("wait", "lim")
    refused = [["--batch", "Big"], ["--group", "x"]]
    shell("group", "set", "gpu", "--slots", "3")
    for words in [*refused, ["--batch", "gpu"]]:
        shell.refused("enqueue", *words, "--array", "1-4%2", "echo $QUEUECTL_VALUE", status=(1, 2))
    assert shell.jobs() == []


def test_a_dry_run_shows_the_commands_and_files_nothing(shell: Shell) -> None:
    said = shell("enqueue", "--dry-run", "--each", "convert {} {.}.png", "--", "a b.jpg", "c.jpg")
    assert said.lines == ["convert 'a b.jpg' 'a b'.png", "convert c.jpg c.png"]
    assert "2 jobs would be filed" in said.err
    assert shell("enqueue", "--dry-run", "make all").lines == ["make all"]
    assert shell.jobs() == []


@pytest.mark.parametrize(
    "line",
    [
        ["--each", "wc", "--", "a"],
        ["--each", "wc {}", "--"],
        ["--each", "wc {}"],
        ["--each", "", "--", "a"],
        ["--each", "wc {}", "--command", "x {}", "--", "a"],
        ["--each", "wc '{}'", "--", "a"],
        ["--each", "wc {}", "-", "a"],
        ["--each", "wc {}", "a", "--hold"],
        ["--each", "wc {}", "--hold", "-x"],
        ["--each", "wc {}", "--array", "1-3", "--", "a"],
        ["--each", "wc {}", "--lines"],
        ["--each", "wc {}", "--id", "x", "--", "a", "b"],
        ["--each", "wc {b}", "--with", "a=1,2"],
        ["--with", "a=1,2"],
        ["--array", "3-1", "echo {}"],
        ["--values", "/nowhere", "echo {}"],
        ["-0", "echo x"],
        ["--each", "wc {}", "--id", "x", "--", "a"],
        ["--each", "wc {}", "--resume", "--", "a"],
        ["--each", "wc {}", "--batch", "a.1", "--", "a"],
        ["--each", "wc {}", "--batch", "-a", "--", "a"],
        ["--each", "wc {}", "--batch", "x" * 99, "--", "a"],
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_filed(shell: Shell, line: list[str]) -> None:
    shell.refused("enqueue", *line, status=(1, 2))
    assert shell.jobs() == []


# ── names ─────────────────────────────────────────────────────────────────────────────────────


def ids_of(shell: Shell) -> list[str]:
    return sorted(job["id"] for job in shell.jobs())


def test_the_jobs_of_a_batch_bear_its_name_and_a_number(shell: Shell) -> None:
    said = shell("enqueue", "--batch", "Sweep", "--each", "echo {}", "--", "a", "b")
    assert said.lines == ["Sweep.1", "Sweep.2"]
    assert "Batch Sweep: 2 jobs filed" in said.err
    said = shell("enqueue", "--each", "echo {}", "--", "a", "b")
    name = said.lines[0].removesuffix(".1")
    assert said.lines == [f"{name}.1", f"{name}.2"]
    assert f"Batch {name}: 2 jobs filed" in said.err


def test_lines_and_documents_may_be_a_batch(shell: Shell) -> None:
    assert shell("enqueue", "--batch", "a", "--lines", "-", stdin="make x\n\nmake y\n").lines == [
        "a.1",
        "a.2",
    ]
    assert shell("enqueue", "--batch", "b", "-", stdin="command: x\n---\ncommand: y\n").lines == [
        "b.1",
        "b.2",
    ]
    said = shell.refused("enqueue", "--batch", "c", "-", stdin="{command: x, id: x}", status=(1, 2))
    assert "has the id 'x'" in said


def test_a_batch_with_a_job_that_cannot_be_is_refused_as_a_whole(shell: Shell) -> None:
    said = shell("enqueue", "--batch", "a", "-", stdin="command: x\n---\ncmd: y\n", status=1)
    assert "line 3" in said.err
    assert "Filed 0 of 2 jobs" in said.err
    assert shell("enqueue", "--batch", "a", "--lines", "-", stdin="x\n").lines == ["a.1"], "the name is free"


def test_batches_and_jobs_share_their_names(shell: Shell) -> None:
    shell("enqueue", "--batch", "sweep", "--each", "echo {}", "--", "a")
    shell("enqueue", "--id", "build", "make")
    shell("enqueue", "--id", "lint.3", "make")
    batch = ["--each", "echo {}", "--", "a"]
    for name in ("sweep", "SWEEP", "build", "Build", "lint", "LINT"):
        said = shell.refused("enqueue", "--batch", name, *batch, status=1)
        assert "is taken" in said
    for job_id in ("sweep", "Sweep", "sweep.1"):
        assert "is taken" in shell.refused("enqueue", "--id", job_id, "x", status=1)
    shell.spool.root.path.joinpath("pending", "sweep.yaml").write_text("command: echo dropped\n")
    shell.drain()
    done = [job["id"] for job in shell("list", "--json", "--state", "done").json_lines]
    assert any(job_id.startswith("sweep-") for job_id in done)


def test_of_a_batch_that_is_held_nobody_knows_when_it_ends(shell: Shell) -> None:
    shell("enqueue", "--hold", "--batch", "night", "--array", "1-2", "echo {}")
    assert (
        "left       unknown: those that are left are held, or wait for others" in shell("status", "night").out
    )
    assert shell("status", "night", "--json").json["seconds_left"] is None
    shell("cancel", "night")
    assert "left       nothing" in shell("status", "night").out


def test_a_made_id_is_no_name_for_a_batch(shell: Shell) -> None:
    job_id = shell("enqueue", "x").out.strip()
    assert "is taken" in shell.refused("enqueue", "--batch", job_id, "--each", "y {}", "--", "a", status=1)


# ── what a crash leaves ───────────────────────────────────────────────────────────────────────

LINE = ["--batch", "sweep", "--each", "echo {}", "--", *"abcdefg"]


class Dying:
    """The system calls of a process that dies at the n-th one that changes something."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in {"open", "write", "rename", "unlink", "fsync", "close"}:
            return found

        def dying(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                os._exit(9)
            return found(*arguments, **options)

        return dying


def die_while_filing(shell: Shell, calls: int) -> bool:
    """File the batch in a process that dies after so many calls; whether it died."""
    child = os.fork()
    if not child:
        files.kernel = Dying(calls)
        shell("enqueue", *LINE)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_resume_files_what_a_crash_has_left_out_whenever_it_came(tmp_path: Path, clock: StoppedClock) -> None:
    for calls in (*range(40), *range(40, 1000, 9)):
        folder = tmp_path / str(calls)
        folder.mkdir()
        with Shell(folder) as shell:
            shell.make_spool()
            died = die_while_filing(shell, calls)
            shell("enqueue", "--resume", *LINE)
            assert ids_of(shell) == [f"sweep.{number}" for number in range(1, 8)]
            assert shell("enqueue", "--resume", *LINE).lines == [], "it is whole"
            assert shell("check").lines == []
        if not died:
            return
    pytest.fail("it never came to its end")


def test_two_that_resume_at_once_file_no_job_twice(
    shell: Shell, tmp_path: Path, at_once: Callable[[Sequence[Callable[[], Any]]], list[Any]]
) -> None:
    die_while_filing(shell, 120)
    lots = at_once([lambda: shell("enqueue", "--resume", *LINE).lines] * 4)
    assert sorted(ids_of(shell)) == [f"sweep.{number}" for number in range(1, 8)]
    told = [job_id for lot in lots for job_id in lot]
    assert len(told) == len(set(told))


def test_resume_begins_a_batch_that_never_began(shell: Shell) -> None:
    assert len(shell("enqueue", "--resume", *LINE).lines) == 7


def test_resume_wants_the_same_jobs(shell: Shell) -> None:
    shell("enqueue", *LINE)
    assert "has 7 jobs, and this line makes 8" in shell.refused("enqueue", "--resume", *LINE, "h", status=1)
    assert "other commands" in shell.refused("enqueue", "--resume", *LINE[:-1], "h", status=1)


def test_resume_runs_no_job_again_that_was_deleted_after_its_end(shell: Shell) -> None:
    shell("enqueue", *LINE)
    shell.drain()
    shell("prune", "sweep.1", "sweep.2", "--yes")
    assert shell("enqueue", "--resume", *LINE).lines == []
    assert shell.jobs() == []
