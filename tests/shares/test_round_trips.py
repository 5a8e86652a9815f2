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
#: What a server may be asked. A close comes beside it, and so does what the kernel answers by itself:
#: leases, and of a file that is open its size and that nothing follows.
ASKED = re.compile(r"\d+\s+(open|openat|rename|unlink|mkdir|l?stat|newfstatat|read|write|getdents64|fsync)\(")
KNOWN = re.compile(r', "", ')

# Makes a local directory pass for a share: what a worker does on one is decided by the mount alone. How long
# a command takes that the tracer holds up tells nothing; so the second word tells what is brisk.
AS_ON_A_SHARE = """
import sys
from queuectl.system.medium import Medium
from queuectl.worker import fleet, loop
Medium.is_shared = True
loop.BRISK = float(sys.argv[2])
sys.exit(fleet.main([sys.argv[1], "drain"]))
"""


def traced(spool: Spool, log: Path, brisk: float) -> Counter[str]:
    """The system calls of a draining worker that name the spool or a file in it that is open."""
    words = ["strace", "-f", "-y", "-qq", "-e", "trace=file,desc", "-o", str(log)]
    subprocess.run(
        [*words, sys.executable, "-c", AS_ON_A_SHARE, str(spool.path), f"{brisk}"], check=True, timeout=100
    )
    lines = [line for line in log.read_text(errors="replace").splitlines() if str(spool.path) in line]
    return Counter(found[1] for line in lines if (found := ASKED.match(line)) and not KNOWN.search(line))


@pytest.mark.skipif(shutil.which("strace") is None, reason="not installed: apt-get install strace")
@pytest.mark.parametrize(("brisk", "command", "most"), [(60.0, ":", 9), (0.02, "sleep 0.05", 11)])
def test_a_job_costs_less_than_a_dozen_file_operations(
    spool: Spool, tmp_path: Path, brisk: float, command: str, most: int
) -> None:
    assert Root(spool.path).medium.hears_all
    spool.root.config.write_text("poll_interval: 3600\nlock_lease_seconds: 3600\n")
    counted = []
    for number, jobs in enumerate((FEW, MANY)):
        for _ in spool.file_many(command for _ in range(jobs)):
            pass
        counted.append(traced(spool, tmp_path / f"trace{number}", brisk))
    each = {name: (counted[1][name] - counted[0][name]) / (MANY - FEW) for name in sorted(counted[1])}
    shown = ", ".join(f"{name} {times:.1f}" for name, times in each.items() if times >= 0.05)
    print(f"file operations a job: {sum(each.values()):.1f} ({shown})")
    assert 0 < sum(each.values()) < most + 0.5, shown
