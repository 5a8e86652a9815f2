"""What holds for every command: help, exit statuses, errors in words, pipes, interrupts, completion."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

import queuectl
from queuectl.cli import boundary
from queuectl.cli import commands as command_parts
from queuectl.cli.main import app
from tests.shell import Shell, at_once, has_two_sentences, readable_by_others, until

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = """\
enqueue
status
list
output get
logs
retry
cancel
wait
pause
resume
dlq list
dlq retry
dlq purge
prune
check
worker start
worker stop
worker status
config get
config set
config unset
config list
config show
init
demo
help
version
completion
""".splitlines()
GROUPS = ["", "output", "dlq", "worker", "config"]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A spool of which every listing and every output is longer than a pipe holds; only looked at."""
    with Shell(tmp_path_factory.mktemp("long")) as shell:
        shell.make_spool()
        (shell.home / "words").write_text("word\n" * 200_000)
        shell.file("cat words", id="big", cwd=str(shell.home))
        shell.drain()
        for folder in ("pending", "dead"):
            for number in range(300):
                name = f"10-20260101T000000.{number:06}Z-{folder}{number}.yaml"
                (shell.root / folder / name).write_text(f"command: echo {'x' * 900}\n")
        yield shell


# ── help and version ──────────────────────────────────────────────────────────────────────────


def test_every_command_has_help_with_an_example(shell: Shell) -> None:
    helps = at_once(lambda command: shell(*command.split(), "-h"), COMMANDS)
    without = []
    for command, said in zip(COMMANDS, helps, strict=True):
        usage, *rest = said.lines
        assert usage.startswith(f"Usage: queuectl {command}")
        assert said.err == ""
        if not any(re.match(rf"\s+.*\bqueuectl {command}\b", line) for line in rest):
            without.append(command)
    assert without == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_its_commands_and_says_so_without_one(shell: Shell, group: str) -> None:
    long = shell(*group.split(), "--help")
    assert shell(*group.split(), "-h").out == long.out
    below = [
        command.removeprefix(group).split()[0]
        for command in COMMANDS
        if command.startswith(group) and command != group
    ]
    for name in below:
        assert re.search(rf"^ +{name}\b", long.out, re.MULTILINE), name
    bare = shell(*group.split(), status=2)
    assert long.out.splitlines()[0] in (bare.out + bare.err).splitlines()


def test_the_name_of_the_program_alone_is_answered_with_first_steps_that_work(shell: Shell) -> None:
    steps = re.findall(r"^  queuectl (.*?)   ", shell(status=2).err, re.MULTILINE)
    assert len(steps) == 5
    for step in steps:
        shell(*shlex.split(step), env={"TMPDIR": str(shell.home)})


def test_the_version_is_the_packages(shell: Shell) -> None:
    for arguments in (("--version",), ("-V",), ("version",)):
        assert shell(*arguments).out == f"queuectl {queuectl.__version__}\n"


def test_the_installed_script_is_the_same_command(shell: Shell) -> None:
    script = shutil.which("queuectl", path=shell.environment["PATH"])
    assert script
    done = subprocess.run([script, "list"], env=shell.environment, capture_output=True, check=True)
    assert done.stdout == shell("list").raw


# ── errors ────────────────────────────────────────────────────────────────────────────────────


WRONG = [
    "sttaus",
    "status --colour",
    "status a b",
    "list --limit",
    "output got a",
    "output get",
    "worker start extra",
    "dlq lost",
    "config set priority",
    "config sett priority 1",
    "completion tcsh",
    "check --mend",
    "prune --older-than",
    "pause now",
    "--spool",
    "--no-such",
]


def test_wrong_usage_is_status_2_in_two_sentences(shell: Shell) -> None:
    errors = at_once(lambda command: shell.refused(*command.split(), status=2), WRONG)
    assert len(errors) == len(WRONG)
    assert "paused" not in os.listdir(shell.root / "workers")


@pytest.mark.parametrize(
    ("command", "option"), [("enqueue", "--delay"), ("list", "--limit"), ("prune", "--older-than")]
)
def test_an_option_without_its_value_is_answered_with_the_help_of_its_command(
    shell: Shell, command: str, option: str
) -> None:
    assert f"`queuectl {command} --help`" in shell.refused(command, option, status=2)


def test_a_mistyped_command_is_answered_with_the_nearest(shell: Shell) -> None:
    assert "'status'" in shell.refused("sttaus", status=2)
    assert "'start'" in shell.refused("worker", "strat", status=2)
    assert "Did you mean `--state`?" in shell.refused("list", "--stat", "dead", status=2)
    assert "Did you mean" not in shell.refused("list", "--time", "dead", status=2)


UNKNOWN = (
    "run start set get edit prun purge Prune stop x; dlq prune; dlq purg; worker purge; config edit; "
    "config redis"
)


def test_no_command_that_deletes_or_does_something_else_is_suggested(shell: Shell) -> None:
    lines = [*UNKNOWN.partition(";")[0].split(), *UNKNOWN.split("; ")[1:], "config get redis"]
    for said in at_once(lambda line: shell.refused(*line.split(), status=2), lines):
        meant = said.partition("Did you mean ")[2]
        assert not re.search(r"prune|purge|wait|'status'|max_retries|config set", meant), said


HABITS = """\
run: worker start
start: worker start
stop: worker stop
ls: list
add: enqueue
submit: enqueue
rm: cancel
kill: cancel
ps: worker status
tail: logs --follow
man: help
worker ls: worker status
worker run: worker start
dlq ls: dlq list
config reset: config unset
output show: output get
"""


def test_what_people_are_used_to_type_is_answered_with_the_command_that_does_it(shell: Shell) -> None:
    pairs = [line.split(": ") for line in HABITS.splitlines()]
    for said, (_, command) in zip(
        at_once(lambda pair: shell.refused(*pair[0].split(), status=2), pairs), pairs, strict=True
    ):
        assert f"Did you mean `queuectl {command}`?" in said


def test_each_habit_names_a_command_that_there_is_and_none_that_is_one() -> None:
    with app.make_context("queuectl", ["version"]) as context:
        for group, habits in command_parts.HABITS.items():
            inside = app.get_command(context, group) if group else app
            assert isinstance(inside, click.Group)
            known = set(inside.list_commands(context))
            for command, words in habits.items():
                assert not known & set(words)
                where: click.Command | None = app
                for part in command.split():
                    if not part.startswith("--"):
                        assert isinstance(where, click.Group)
                        where = where.get_command(context, part)
                        assert where is not None, command


def test_what_is_no_command_of_a_group_is_answered_with_those_that_are(shell: Shell) -> None:
    assert "get, list, set, show, unset" in shell.refused("config", "max_retries", status=2)
    assert "get" in shell.refused("output", "a-job", status=2)


@pytest.mark.parametrize("text", [b"\xff", b"a\x1b[2J", "é\u202e".encode(), b"%s%n{}", b"x" * 5000, b"''"])
def test_odd_arguments_are_answered_in_words(shell: Shell, text: bytes) -> None:
    shell.refused("status", text, status=3)
    shell.refused("config", "set", "priority", text, status=2)
    shell.refused(b"-s", text, "list", status=1)


def test_a_spool_whose_name_is_not_utf8_is_used_or_refused_in_words(shell: Shell) -> None:
    where = os.fsencode(shell.home) + b"/odd-\xff"
    made = shell("-s", where, "init")
    assert made.err == ""
    for command in ("enqueue --id a true", "status", "status a", "list", "check"):
        shell(b"-s", where, *command.split())
    assert b"odd-" in shell("-s", where, "status", "--json").raw


def test_a_directory_that_is_gone_is_answered_in_words(shell: Shell) -> None:
    gone = shell.home / "gone"
    gone.mkdir()
    here = "env -u QUEUECTL_SPOOL "
    for start, arguments, status in (
        ("", "list", 0),
        ("", "enqueue --cwd / true", 0),
        ("", "enqueue true", 1),
        ("", "enqueue --cwd x true", 1),
        ("", "--spool rel list", 1),
        (here, "-s rel enqueue --cwd / true", 1),
        ("env QUEUECTL_SPOOL=rel ", "status", 1),
        ("env QUEUECTL_SPOOL=rel ", "enqueue --cwd / true", 1),
        ("", "init rel", 1),
    ):
        inside = f"cd {gone} && rmdir {gone} && exec {start}{shlex.quote(sys.executable)} -m queuectl"
        done = subprocess.run(
            ["sh", "-c", f"{inside} {arguments}"],
            env=shell.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done
        assert status == 0 or (has_two_sentences(done.stderr) and "gone" in done.stderr), done
        assert "rel" not in arguments + start or "'rel'" in done.stderr
        gone.mkdir()
    assert len(shell.jobs()) == 1


def test_what_is_no_spool_is_not_told_to_become_one_where_that_would_be_refused(shell: Shell) -> None:
    place = shell.home / "notes"
    place.mkdir()
    assert f"queuectl init {place}" in shell.refused("-s", place, "status", status=1)
    (place / "todo.txt").write_text("")
    assert f"queuectl init {place}" not in shell.refused("-s", place, "status", status=1)


def test_the_file_that_holds_no_job_is_named(shell: Shell) -> None:
    path = shell.home / "empty.yaml"
    path.write_text("")
    assert f"{path}: There is no job in it." in shell.refused("enqueue", "--file", path, status=2)
    assert "standard input: There is no job in it." in shell.refused("enqueue", status=2)
    path.write_text("comand: x\n")
    assert f"{path}: The field 'comand' is unknown." in shell.refused("enqueue", "--file", path, status=2)
    assert "Error: The field 'comand'" in shell.refused("enqueue", '{"comand": "x"}', status=2)


def test_an_empty_spool_option_names_no_spool(shell: Shell) -> None:
    assert "--spool is empty" in shell.refused("--spool", "", "enqueue", "true", status=2)
    assert shell.jobs() == []
    assert shell("list", env={"QUEUECTL_SPOOL": ""}, status=1).err != ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a user whom the system does not know")
def test_a_user_without_a_home_is_told_to_name_a_spool(shell: Shell) -> None:
    if not readable_by_others():
        pytest.skip("another user cannot start this Python")
    nobody = ["setpriv", "--reuid", "54321", "--clear-groups", sys.executable, "-m", "queuectl"]
    environment = {k: v for k, v in shell.environment.items() if k not in {"HOME", "QUEUECTL_SPOOL"}}
    for arguments, status in ((["status"], 1), (["enqueue", "true"], 1), (["init"], 1), (["version"], 0)):
        done = subprocess.run(
            [*nobody, *arguments], env=environment, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done
        if status:
            assert has_two_sentences(done.stderr), done
            assert "--spool" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "sideways"],
        ["x", "drain", "1", "No Group"],
        ["x", "drain", "1", "gpu", "2"],
        ["x", "drain", "0"],
    ],
)
def test_the_workers_own_module_says_which_command_starts_it(shell: Shell, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "queuectl.worker", *arguments]
    done = subprocess.run(
        command, env=shell.environment, cwd=shell.home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "`queuectl worker start`" in done.stderr


def test_a_file_that_ulimit_keeps_small_is_no_matter_of_permissions(shell: Shell) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    shell.make_spool()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        said = [
            shell.refused("enqueue", *options, "true", status=1)
            for options in ([], ["--id", "a"], ["--yes", "--id", "b"])
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for one in said:
        assert "`ulimit -f unlimited`" in one
        assert "permission" not in one
    assert shell.jobs() == []


def test_what_may_not_be_read_is_named(shell: Shell) -> None:
    shell.file("true", id="secret")
    path = shell.place("secret")
    assert path is not None
    path.chmod(0)
    assert "secret" in shell("list", unprivileged=True).out
    assert "cannot be read" in shell("status", "secret", unprivileged=True).out
    (shell.root / "pending").chmod(0)
    for command in ("list", "status", "enqueue true", "check", "wait --all"):
        error = shell.refused(*command.split(), unprivileged=True, status=1)
        assert str(shell.root / "pending") in error
    (shell.root / "pending").chmod(0o700)
    (shell.root / "config.yaml").chmod(0)
    assert "config.yaml" in shell.refused("enqueue", "true", unprivileged=True, status=1)


def test_a_spool_that_is_a_file_is_told_in_words(shell: Shell) -> None:
    path = shell.home / "file"
    path.write_text("")
    for command in ("list", "enqueue true", "worker start"):
        shell.refused("-s", path, *command.split(), status=1)


def mounts_can_be_made() -> bool:
    trial = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and not subprocess.call(trial, stderr=subprocess.DEVNULL)


def mounted(shell: Shell, mount: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line where this has been mounted, in a namespace of its own."""
    python = shlex.quote(sys.executable)
    script = f"{mount.format(shlex.quote(str(shell.root)), python)} && exec {python} -m queuectl {command}"
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env=shell.environment,
        cwd=shell.home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not mounts_can_be_made(), reason="no right to mount, not even in a namespace of its own")
def test_a_read_only_spool_is_status_75(shell: Shell) -> None:
    shell.file("exit 1", id="dead", max_retries=0)
    shell.drain()
    read_only = "mount --bind {0} {0} && mount -o remount,bind,ro {0}"
    for command in (
        *("enqueue true", "pause", "retry dead", "config set priority 1"),
        *("worker start", "worker start --drain", "worker start --foreground --count 1"),
    ):
        done = mounted(shell, read_only, command)
        assert (done.returncode, done.stdout) == (75, ""), done
        assert has_two_sentences(done.stderr)
    assert mounted(shell, read_only, "status dead").returncode == 0


@pytest.mark.skipif(not mounts_can_be_made(), reason="no right to mount, not even in a namespace of its own")
def test_a_full_spool_is_status_75(shell: Shell) -> None:
    (shell.home / "big").write_text(f"echo {'x' * 30_000}\n" * 4)
    mount = "mount -t tmpfs -o size=40k,mode=700 none {0} && {1} -m queuectl init > /dev/null"
    done = mounted(shell, mount, "enqueue --lines --file big")
    assert (done.returncode, done.stdout) == (75, ""), done
    assert has_two_sentences(done.stderr)


# ── pipes and interrupts ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", ["list", "list --json", "logs big --stdout", "logs big --follow", "-h"])
def test_a_reader_that_goes_away_ends_a_command_quietly(long: Shell, command: str) -> None:
    status = long.home / "status"
    done = subprocess.run(
        ["sh", "-c", f"({shlex.quote(sys.executable)} -m queuectl {command}; echo $? > {status}) | head -1"],
        env=long.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert status.read_text() == "0\n"


full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")


def on_full_device(shell: Shell, command: str, stream: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a command line one of whose streams is a full disk."""
    return redirected(shell, command, f"{stream}> /dev/full")


def redirected(shell: Shell, command: str, how: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with its streams as the shell makes them."""
    return subprocess.run(
        ["sh", "-c", f"exec {shlex.quote(sys.executable)} -m queuectl {command} {how}"],
        env=shell.environment,
        cwd=shell.home,
        capture_output=True,
        text=True,
        check=False,
    )


@full_device
@pytest.mark.parametrize("command", ["list", "list --json", "logs big --stdout", "-h"])
def test_a_full_standard_output_is_not_told_as_trouble_of_the_spool(long: Shell, command: str) -> None:
    done = on_full_device(long, command)
    assert (done.returncode, has_two_sentences(done.stderr)) == (1, True), done
    assert "Standard output cannot be written to: No space left on device." in done.stderr


@full_device
@pytest.mark.parametrize("option", ["", "--json", "--file job.json"])
def test_where_ids_cannot_be_printed_it_is_told_that_the_jobs_are_filed(shell: Shell, option: str) -> None:
    (shell.home / "job.json").write_text('{"command": "true"}')
    done = on_full_device(shell, f"enqueue {option} {'' if 'file' in option else 'true'}")
    assert (done.returncode, has_two_sentences(done.stderr)) == (1, True), done
    assert "filed all the same" in done.stderr
    assert len(shell.jobs()) == 1


@full_device
def test_a_full_standard_error_changes_nothing_else(shell: Shell) -> None:
    assert on_full_device(shell, "status nobody", 2).returncode == 3
    other = shell.home / "other"
    assert on_full_device(shell, f"-s {other} enqueue --id a true", 2).stdout == "a\n"


def test_without_standard_error_a_command_does_what_it_does(shell: Shell) -> None:
    job_id = shell.file("true")
    for arguments, status in ((f"wait {job_id} --timeout 0", 124), ("worker stop", 0), ("status nobody", 3)):
        line = f"exec {shlex.quote(sys.executable)} -m queuectl {arguments} 2>&-"
        assert subprocess.call(["sh", "-c", line], env=shell.environment) == status, arguments


@pytest.mark.parametrize(("closed", "count"), [(">&-", "1"), ("2>&-", "1"), ("<&- >&- 2>&-", "2")])
def test_without_standard_streams_a_worker_runs_what_there_is(shell: Shell, closed: str, count: str) -> None:
    job_id = shell.file("echo out; echo err >&2; read line || echo end")
    assert redirected(shell, f"worker start --drain --count {count}", closed).returncode == 0
    assert shell("logs", job_id, "--stdout").out == "out\nend\n"
    assert shell("logs", job_id, "--stderr").out == "err\n"


@pytest.mark.parametrize("command", ["list --json", "logs big --stdout", "dlq list"])
def test_without_standard_output_a_command_does_what_it_does(long: Shell, command: str) -> None:
    done = redirected(long, command, ">&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_standard_output_a_job_is_filed_all_the_same(shell: Shell) -> None:
    done = redirected(shell, "enqueue --id a true", ">&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert shell.state("a") == "pending"


class _Interrupted:
    """Ctrl-C while the body of a class runs; Python 3.11 makes it the cause of a RuntimeError."""

    def __set_name__(self, *_: object) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_in_the_body_of_a_class_is_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert boundary.status_of(lambda: type("Imported", (), {"name": _Interrupted()})) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_an_interrupt_while_the_command_is_imported_is_status_130(shell: Shell) -> None:
    finder = """
import sys
from queuectl.__main__ import main

class Interrupted:
    def __set_name__(self, *_): raise KeyboardInterrupt

class Finder:
    def find_spec(self, name, *_):
        if name == "queuectl.cli.quick":
            type("Imported", (), {"name": Interrupted()})

sys.meta_path.insert(0, Finder())
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", finder],
        env=shell.environment,
        cwd=shell.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_an_interrupt_is_status_130_and_files_nothing(shell: Shell) -> None:
    pipe = shell.home / "pipe"
    os.mkfifo(pipe)

    def open_for_writing() -> int | None:
        with contextlib.suppress(OSError):  # ENXIO: nobody reads yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return None

    started = shell.start("enqueue", "--file", pipe)
    writer = until(open_for_writing, "the command reads the file") or 0
    os.write(writer, b"command: echo hi\n")
    os.kill(started.pid, signal.SIGINT)
    os.close(writer)
    assert started.end() == 130
    assert started.out == b""
    assert "Traceback" not in started.err
    assert shell.jobs() == []


# ── completion ────────────────────────────────────────────────────────────────────────────────


def completed(shell: Shell, line: str, kind: str = "bash") -> set[str]:
    """What a shell is offered for the last word of this line."""
    words = line.split(" ")
    env = {
        "_QUEUECTL_COMPLETE": f"{kind}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": words[-1] if kind == "fish" else str(len(words) - 1),
    }
    said = shell(env=env)
    assert said.err == ""
    return {text.partition(",")[2].partition("\t")[0] for text in said.lines if text}


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("status", "waits later failed done dead"),
        ("output get", "failed done dead"),
        ("logs", "failed done dead"),
        ("logs --follow", "waits later failed done dead"),
        ("retry", "failed done dead"),
        ("retry job-done", "failed dead"),
        ("cancel", "waits later failed"),
        ("wait", "waits later failed"),
        ("wait job-later --timeout 3", "waits failed"),
        ("dlq retry", "dead"),
    ],
)
def test_ids_are_completed_that_the_command_takes(states: Shell, command: str, wanted: str) -> None:
    assert completed(states, f"queuectl {command} job") == {f"job-{word}" for word in wanted.split()}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A spool with a job in each state but processing; only looked at."""
    with Shell(tmp_path_factory.mktemp("states")) as shell:
        shell.make_spool()
        shell.file("true", id="job-done")
        shell.file("exit 1", id="job-dead", max_retries=0)
        shell.file("exit 1", id="job-failed", backoff_base=9000)
        shell.drain()
        shell.file("true", id="job-waits")
        shell.file("true", id="job-later", run_at="2036-01-01T00:00:00Z")
        shell.file("true", id="other")
        yield shell


def test_ids_of_the_spool_that_is_meant_are_completed(states: Shell) -> None:
    assert completed(states, "queuectl status oth") == {"other"}
    assert completed(states, f"queuectl --spool {states.home} status job") == set()


def test_of_too_many_ids_their_beginnings_are_offered(shell: Shell) -> None:
    for number in range(210):
        shell.file("true", id=f"job-{number:03}")
    assert completed(shell, "queuectl cancel jo") == {"job-0", "job-1", "job-2"}
    assert completed(shell, "queuectl cancel job-20") == {f"job-{number}" for number in range(200, 210)}


def test_workers_that_live_are_completed(shell: Shell) -> None:
    first, second = (shell("worker", "start").out.strip() for _ in range(2))
    assert completed(shell, "queuectl worker stop ") == {first, second}
    assert completed(shell, f"queuectl worker stop {first} ") == {second}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("enqueue --file jo", "file"),
        ("enqueue -f jo", "file"),
        ("enqueue jo", "file"),
        ("enqueue --cwd jo", "dir"),
        ("--spool jo", "dir"),
        ("-s jo", "dir"),
        ("init jo", "dir"),
        ("check --share jo", "dir"),
    ],
)
def test_files_and_directories_are_completed_by_the_shell(shell: Shell, line: str, kind: str) -> None:
    words = f"queuectl {line}"
    env = {
        "_QUEUECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    assert shell(env=env).out == f"{kind},jo\n"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("queuectl wor", {"worker"}),
        ("queuectl worker st", {"start", "stop", "status"}),
        ("queuectl list --st", {"--state"}),
        ("queuectl list --state de", {"dead"}),
        ("queuectl config get max", {"max_retries", "max_backoff_seconds", "max_output_bytes"}),
        ("queuectl config set poll", {"poll_interval"}),
        ("queuectl completion z", {"zsh"}),
        ("queuectl nonsense a", set()),
    ],
)
def test_commands_options_and_keys_are_completed(shell: Shell, line: str, wanted: set[str]) -> None:
    assert completed(shell, line) == wanted


def test_nothing_is_completed_where_there_is_no_spool(shell: Shell) -> None:
    assert completed(shell, "queuectl -s /nowhere status a") == set()


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_the_command(shell: Shell, kind: str) -> None:
    said = shell("completion", kind)
    assert said.err == ""
    assert f"_QUEUECTL_COMPLETE={kind}_complete" in said.out
    program = shutil.which(kind)
    if program:
        arguments = [program, "--no-execute" if kind == "fish" else "-n"]
        subprocess.run(arguments, input=said.raw, check=True, env=shell.environment)


#: How each shell is started without anybody's settings, and made ready for the script.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source ./script"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; source ./script"),
    "fish": (["fish", "--no-config", "-i"], "source ./script"),
}


@pytest.mark.parametrize("kind", SHELLS)
def test_each_shell_completes_ids_and_files_as_they_are_typed(shell: Shell, kind: str) -> None:
    if shutil.which(kind) is None:
        pytest.skip(f"{kind} is not installed")
    command, ready = SHELLS[kind]
    shell.file("true", id="job-waits")
    (shell.home / "script").write_text(shell("completion", kind).out)
    (shell.home / "tasks.yaml").write_text("command: true\n")
    (shell.home / "taskfolder").mkdir()
    terminal = shell.program(*command)
    terminal.type(f"{ready}; printf '%s ' is; echo ready\n")
    terminal.until("is ready")
    for typed, wanted in (
        ("cancel jo", "cancel job-waits"),
        ("enqueue --file tasks", "enqueue --file tasks.yaml"),
        ("--spool taskf", "--spool taskfolder"),
        ("init taskf", "init taskfolder"),
    ):
        terminal.type(f"queuectl {typed}\t")
        terminal.until(f"queuectl {wanted}")
        terminal.type("\x15")
    terminal.type("exit\n")
    terminal.end()
