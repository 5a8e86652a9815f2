"""Each recipe of the guide does what it says, pasted into a shell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from queuectl.cli import help as guide
from tests.shell import Shell
from tests.test_tutorial import blocks

if TYPE_CHECKING:
    from pathlib import Path

PAGE = guide.page("recipes")
RECIPES: dict[str, str] = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
WORKER = "queuectl worker start > /dev/null\n"
DRAIN = "queuectl worker start --drain=retries\n"
ALL_DONE = DRAIN + 'test "$(queuectl list --json | grep -vc \'"state": "completed"\')" = 0\n'
#: Programs that a recipe calls and this system may not have. Each does what the recipe relies on.
PROGRAMS = {
    "convert": 'cat < "$1" > "$2"',
    "curl": "echo fetched > data.zip",
    "mail": 'echo "$*" >> ~/mail; cat >> ~/mail',
    "make": 'echo "make $*"',
    "systemctl": 'echo "systemctl $*" >> ~/called',
    "loginctl": 'echo "loginctl $*" >> ~/called',
    "pip": 'echo "pip $*" >> ~/called',
    "ssh": 'shift 3; exec sh -c "$*"',
    "srun": 'echo "srun $1 $2" >> ~/called; shift 2; exec "$@"',
    "docker": 'echo "docker $*" >> ~/called; shift 4; exec "$@"',
}
OWN = {
    "train": 'echo "0.$4 $*"',
    "backup": "touch backed-up",
    "import": "echo no such table >&2; exit 1",
    "deploy": "echo deployed > deployed",
    "report": "echo reported",
    "import-customers": "echo imported",
}
#: What stands before each recipe, and what is true after it.
AROUND: dict[str, tuple[str, str]] = {
    "Convert many files, whatever their names": (
        WORKER + "for name in \"it's\" 'a b' '$HOME' '-x;y'; do echo picture > \"./$name.png\"; done",
        "for name in \"it's\" 'a b' '$HOME' '-x;y'; do test -s \"./$name.jpg\"; done",
    ),
    "File thousands of jobs at once": (
        "touch -- a.log \"it's.log\" '-o.log' $'two\\nlines.log'",
        ALL_DONE + "test $(ls -b -- *.log.gz | wc -l) = 4; test $(wc -l < ids) = 4",
    ),
    "Try every combination of parameters": (
        WORKER,
        "test $(ls result-*.txt | wc -l) = 6; test $(wc -l < sweep.csv) = 7",
    ),
    "Let another program drop jobs": (
        WORKER + "echo bytes > upload-17.bin",
        "until test -s upload-17.size; do sleep 0.1; done; test $(cat upload-17.size) = 6",
    ),
    "Never run one thing twice at once": ("", "test $(queuectl list --json | wc -l) = 1\n" + ALL_DONE),
    "Let a job file further jobs": (
        "echo one two > start; echo two start > one; echo one > two",
        DRAIN + 'test "$(queuectl list --json | grep -c \'"state": "completed"\')" = 3',
    ),
    "Run something tonight": ("", "test $(queuectl list --state scheduled --json | wc -l) = 2"),
    "Run something every night, with cron": ("", ALL_DONE + "test -e backed-up"),
    "Run steps one after another": (WORKER, "grep -qx 'there are 100' report.txt"),
    "Split the work, and join the results": (
        "seq 100 -1 1 > input.txt\n" + WORKER,
        "sort input.txt | cmp - output.txt",
    ),
    "Clean up, or raise the alarm, when a job has ended": (
        "touch data.csv.lock",
        DRAIN + 'test ! -e data.csv.lock; grep -q "the import failed" ~/mail; grep -q "no such table" ~/mail',
    ),
    "Let an urgent job go first": (
        "queuectl enqueue --id slow-report --priority 5 ./report",
        "test $(queuectl list --json | head -1 | grep -c hotfix) = 1\n" + ALL_DONE,
    ),
    "Wait for a job in a script": (WORKER, ""),
    "Be told when all is done": (
        "export USER=me; queuectl enqueue ./report; " + WORKER,
        "grep -q 'all is well' ~/mail",
    ),
    "Limit how many jobs run at once": ("", "queuectl wait --all; test -s data.zip"),
    "Give each job a GPU of its own": ("", "queuectl wait --all; test $(ls result-* | wc -l) = 8"),
    "Start no more than ten jobs a minute": (
        "",
        "queuectl wait --all; test $(queuectl list --state completed --json | wc -l) = 3",
    ),
    "Stop a job that takes too long": (
        "",
        ALL_DONE + "test $(queuectl config get job_timeout_seconds) = 14400",
    ),
    "Limit the memory of a job": (WORKER, "queuectl logs --stderr big | grep -q MemoryError"),
    "Be patient with a flaky service": ("", ALL_DONE + "test -s data.zip"),
    "Run what failed again, with more time": (
        (
            "queuectl enqueue --id a --max-retries 0 'test -e mended || exit 7'\n"
            f"queuectl enqueue --id b --max-retries 0 'exit 8'\n{DRAIN}touch mended"
        ),
        (
            f"{DRAIN}queuectl status a --json | grep -q '\"timeout\": 7200'\n"
            "test $(queuectl list --state dead --json | wc -l) = 1"
        ),
    ),
    "Go on where the last run stopped": ("", ALL_DONE + "seq 5 | cmp - done.txt"),
    "Follow what jobs print": (WORKER + "queuectl enqueue --id build 'echo built'", ""),
    "Keep a maintenance window free": ("queuectl enqueue 'sleep 1'\n" + WORKER, ALL_DONE),
    "Hold some jobs back": ("queuectl enqueue --id nightly-import ./report", ALL_DONE + "test -s deployed"),
    "Start workers at boot": (
        "",
        (
            "grep -q 'enable --now queuectl@1 queuectl@2' ~/called\n"
            "line=$(sed -n s/ExecStart=//p ~/.config/systemd/user/queuectl@.service)\n"
            "$line & worker=$!\n"
            "queuectl wait $(queuectl enqueue true)\n"
            "kill $worker; wait $worker"
        ),
    ),
    "Work a queue off in CI, or from cron": ("", ALL_DONE),
    "Delete what is old": (
        (f"queuectl enqueue --id old true\n{DRAIN}touch -d '60 days ago' $QUEUECTL_SPOOL/done/*"),
        "test $(queuectl list --json | wc -l) = 0; test $(queuectl config get max_output_bytes) = 1000000",
    ),
    "Make a backup of a queue": (
        "queuectl enqueue --id kept true",
        "queuectl --spool restored status kept",
    ),
    "Take waiting jobs to another queue": (
        "queuectl enqueue --id one true; queuectl enqueue --id two --priority 3 true",
        (
            "test $(queuectl --spool other list --state pending --json | wc -l) = 2\n"
            "test $(queuectl list --state pending --json | wc -l) = 0"
        ),
    ),
    "Upgrade queuectl": (WORKER, "test $(queuectl worker status --json | wc -l) = 2"),
    "Watch the queue with Prometheus": ("", "grep -q '^queuectl_' queuectl.prom"),
    "Take the results to a spreadsheet or to pandas": (
        f"queuectl enqueue --id one 'echo 1, 2'\nqueuectl enqueue --id two true\n{DRAIN}",
        'test $(wc -l < jobs.csv) = 3; test $(wc -l < runs.csv) = 3; grep -q "\\"echo 1, 2\\"" jobs.csv',
    ),
    "Share a queue with a group of users": ("", ALL_DONE),
    "Run jobs on another host, through ssh": (
        "",
        ALL_DONE + 'test "$(queuectl logs --stdout far)" = "$(uname -n)"',
    ),
    "Hand jobs to Slurm": ("", ALL_DONE + "test -s where; grep -q 'srun --ntasks=1 --mem=2G' ~/called"),
    "Run jobs in containers": ("", ALL_DONE + "grep -q 'docker run --rm --init python:3-slim' ~/called"),
}


def test_there_is_a_check_for_each_recipe() -> None:
    assert list(AROUND) == list(RECIPES)
    assert len(RECIPES) >= 20


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_does_what_it_says(tmp_path: Path, title: str) -> None:
    before, after = AROUND[title]
    recipe = "".join(text for language, text in blocks(RECIPES[title]) if language == "sh")
    assert recipe
    with Shell(tmp_path) as shell:
        shell.make_spool()
        for folder, programs in ((shell.home / "bin", PROGRAMS), (shell.home, OWN)):
            folder.mkdir(exist_ok=True)
            for name, text in programs.items():
                (folder / name).write_text(f"#!/bin/sh\n{text}\n")
                (folder / name).chmod(0o755)
        ran = shell.script(f"PATH=$HOME/bin:$PATH\n{before}\n{recipe}\n{after}")
    assert ran.returncode == 0, ran.stdout
