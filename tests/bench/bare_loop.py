"""The least that a worker in Python does for a job, for each of so many processes; no promise is kept.

`python bare_loop.py SPOOL WORKERS`: rename, read the YAML, start the command with its streams in files,
reap it, append its outcome, rename.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml


def work(spool: Path) -> None:
    """Do all jobs of pending/ that no other process is faster to claim."""
    for name in sorted(os.listdir(spool / "pending")):
        claim = f"{spool}/processing/{name}@{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{spool}/pending/{name}", claim)
            run(spool, claim)
            os.rename(claim, f"{spool}/done/{name}")


def run(spool: Path, claim: str) -> None:
    """Run the command of a claimed job and add its outcome to the file."""
    with open(claim) as file:
        job = yaml.load(file, yaml.CSafeLoader)
    logs = f"{spool}/logs/{job['id']}.1"
    with open(f"{logs}.out", "xb") as out, open(f"{logs}.err", "xb") as err:
        child = subprocess.Popen(["sh", "-c", job["command"]], stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    outcome = {"exit_code": child.returncode, "cpu": used.ru_utime, "rss": used.ru_maxrss}
    with open(claim, "a") as file:
        file.write(f"- {json.dumps(outcome)}\n")


if __name__ == "__main__":
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    children = []
    for _ in range(count):
        if child := os.fork():
            children.append(child)
        else:
            work(folder)
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
