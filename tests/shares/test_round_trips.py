"""What a job costs on a share: file operations in the spool, counted by the kernel's own tracer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from queuectl.spool.root import Root

if TYPE_CHECKING:
    from pathlib import Path

    from queuectl import Spool

#: Jobs in the shorter run and in the longer one: the difference is the jobs' own, without the start.
FEW, MANY = 10, 60
DOZEN = 12

# Makes a local directory pass for a share: what a worker does on one is decided by the mount alone.
AS_ON_A_SHARE = """
import sys
from queuectl.spool.root import Root
Root.is_shared = True
from queuectl.worker.fleet import main
sys.exit(main([sys.argv[1], "drain"]))
"""


def traced(spool: Spool, log: Path) -> Counter[str]:
    """The system calls of a draining worker that name the spool or a file in it that is open."""
    words = ["strace", "-f", "-y", "-qq", "-e", "trace=file,desc", "-o", str(log)]
    subprocess.run([*words, sys.executable, "-c", AS_ON_A_SHARE, str(spool.path)], check=True, timeout=100)
    calls: Counter[str] = Counter()
    command = set()
    for line in log.read_text(errors="replace").splitlines():
        pid, _, call = line.partition(" ")
        if "execve(" in call and "/bin/sh" in call:
            command.add(pid)
        name = re.match(r"\s*(\w+)\(", call)
        if name and str(spool.path) in call and pid not in command:
            calls[name[1]] += 1
    return calls


@pytest.mark.skipif(shutil.which("strace") is None, reason="not installed: apt-get install strace")
def test_a_job_costs_no_more_than_a_dozen_file_operations(spool: Spool, tmp_path: Path) -> None:
    assert not Root(spool.path).is_shared
    spool.root.config.write_text("poll_interval: 3600\nlock_lease_seconds: 3600\n")
    counted = []
    for number, jobs in enumerate((FEW, MANY)):
        for _ in spool.file_many(":" for _ in range(jobs)):
            pass
        counted.append(traced(spool, tmp_path / f"trace{number}"))
    each = {name: (counted[1][name] - counted[0][name]) / (MANY - FEW) for name in sorted(counted[1])}
    shown = ", ".join(f"{name} {times:.1f}" for name, times in each.items() if times >= 0.05)
    print(f"file operations a job: {sum(each.values()):.1f} ({shown})")
    asked = sum(times for name, times in each.items() if name not in {"close", "lseek", "fcntl", "dup2"})
    assert 0 < asked <= DOZEN, shown
