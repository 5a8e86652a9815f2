"""Runs in an environment that has huey and rq: fills one of their queues, or works it off.

    python_peers.py fill QUEUE PLACE COUNT
    python_peers.py work QUEUE PLACE

QUEUE is `huey-file` or `huey-sqlite`, and PLACE a folder; or it is `rq`, and PLACE the port of a Redis.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def run_true(out: str, err: str) -> int:
    """The job: the same command as everywhere, its streams to files, its exit status the result."""
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        command = ["sh", "-c", "true"]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, check=True
        ).returncode


def _huey(kind: str, place: str) -> Any:
    made: Any = import_module("huey")
    if kind == "huey-file":
        return made.FileHuey(path=f"{place}/huey")
    return made.SqliteHuey(filename=f"{place}/huey.db")


def _files(number: int) -> tuple[str, str]:
    return f"{Path.cwd()}/{number}.out", f"{Path.cwd()}/{number}.err"


def fill(kind: str, place: str, count: int) -> None:
    if kind == "rq":
        rq: Any = import_module("rq")
        redis: Any = import_module("redis")
        queue = rq.Queue(connection=redis.Redis(port=int(place)))
        prepare = queue.prepare_data
        queue.enqueue_many([prepare("python_peers.run_true", _files(number)) for number in range(count)])
        return
    task = _huey(kind, place).task()(run_true)
    for number in range(count):
        task(*_files(number))


def work(kind: str, place: str) -> None:
    """One worker, as lean as the library has it: no scheduler, no pause between jobs."""
    huey = _huey(kind, place)
    huey.task()(run_true)
    while (task := huey.dequeue()) is not None:
        huey.execute(task)


if __name__ == "__main__":
    action, *words = sys.argv[1:]
    if action == "fill":
        fill(words[0], words[1], int(words[2]))
    else:
        work(*words)
