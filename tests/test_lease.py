"""Asking whether anybody writes to a file must not end the one who asks."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from queuectl.system import files

if TYPE_CHECKING:
    from pathlib import Path

ASK = """
import sys
from queuectl.system import files as disk
print("ready", flush=True)
answers = {disk.being_written(sys.argv[1]) for _ in range(20_000)}
print(len(answers - {None}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="leases are of Linux")
def test_who_asks_lives_through_others_that_open_the_file_for_writing_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("command: true\n")
    if files.being_written(path) is None:
        pytest.skip("this file system grants no leases")
    asking = subprocess.Popen([sys.executable, "-c", ASK, str(path)], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    with asking.stdout:
        assert asking.stdout.readline() == "ready\n"
        while asking.poll() is None:
            with path.open("a"):
                pass
        assert asking.wait() == 0
        assert asking.stdout.read() in {"1\n", "2\n"}
