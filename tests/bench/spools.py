"""Spools of any size, their job files written straight to where they belong, and workers on them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from queuectl import Job, Spool, State
from queuectl.job.layout import to_yaml
from queuectl.spool.names import HELD, Name, rank_of
from queuectl.times import stamp, utc_now
from tests.bench.place import QUEUECTL, Failed, run, running, wait_for

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from datetime import datetime

#: Ids as `queuectl` makes them up, told apart by their first letter: those measured, and the others.
MEASURED, OTHERS = "a", "b"
URGENT, USUAL, LAST = 10, 5, 0
PAST, FUTURE = timedelta(hours=-1), timedelta(days=300)


def make(where: Path, durability: str = "filed") -> Spool:
    where.parent.mkdir(exist_ok=True)
    spool = Spool.create(where)
    spool.root.config.write_text(f"durability: {durability}\n")
    return spool


def fill(
    spool: Spool,
    count: int,
    command: str = "true",
    *,
    series: str = MEASURED,
    priority: int = USUAL,
    due: timedelta = PAST,
    first: int = 0,
) -> None:
    """Put jobs into pending/ as if they had been filed one after the other, but unsynced."""
    moment = utc_now() + due
    sample = f"{series}{first:011}"
    job = Job(command, id=sample, priority=priority, run_at=moment if due > PAST else None, created_at=moment)
    name = Name(rank_of(priority, fifo=False), "", sample)
    _write(spool.root.folder(State.PENDING), to_yaml(job), name, moment, range(first, first + count))


def fill_parked(spool: Spool, count: int) -> None:
    """Put jobs into pending/ of which half are held, and half wait for the first of these."""
    half, moment = count // 2, utc_now() + PAST
    for first, wanted, parked in (
        (0, {}, HELD),
        (half, {f"{OTHERS}{0:011}": "ok"}, f"after+{OTHERS}{0:011}"),
    ):
        job_id = f"{OTHERS}{first:011}"
        text = to_yaml(Job("true", id=job_id, priority=URGENT, after=wanted, created_at=moment))
        sample = Name(rank_of(URGENT, fifo=False), "", job_id, parked=parked)
        _write(spool.root.folder(State.PENDING), text, sample, moment, range(first, first + half))


def fill_done(spool: Spool, count: int) -> None:
    """Put finished jobs into done/: as many copies of one that was run, under names of their own."""
    fill(spool, 1, series=OTHERS)
    drain(spool, 1)
    name = next(iter(os.listdir(spool.root.folder(State.DONE))))
    text = (spool.path / "done" / name).read_text()
    rank, _, rest = name.split("-", 2)
    sample = Name(int(rank), "", rest.removesuffix(".yaml"))
    _write(spool.root.folder(State.DONE), text, sample, utc_now() + PAST, range(1, count))


def _write(folder: str, text: str, sample: Name, moment: datetime, numbers: range) -> None:
    """Copies of a job file whose ids and moments go up by one."""
    before, _, after = text.partition(sample.id)
    for number in numbers:
        job_id = f"{sample.id[0]}{number:011}"
        due = moment + timedelta(microseconds=number)
        name = sample._replace(due=stamp(due), id=job_id)
        file = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(file, f"{before}{job_id}{after}".encode())
        os.close(file)


def forget(spool: Spool) -> None:
    """Put out of the way what has been run, and its logs: the next round finds the spool as this one did."""
    spent = Path(tempfile.mkdtemp(dir=spool.path.parent))
    for folder in (Path(spool.root.folder(State.DONE)), Path(spool.root.logs)):
        folder.rename(spent / folder.name)
        folder.mkdir(0o700)


def done(spool: Spool) -> int:
    return len(os.listdir(spool.root.folder(State.DONE)))


def drain(spool: Spool, workers: int) -> None:
    """`worker start --drain`, the whole process."""
    words = ["worker", "start", "--drain", "--count", str(workers)]
    run([*QUEUECTL, "--spool", str(spool.path), *words], spool.path.parent)


def expect_done(spool: Spool, count: int) -> None:
    if done(spool) != count:
        raise Failed(f"{done(spool)} of {count} jobs are done")


@contextlib.contextmanager
def working(spool: Spool, workers: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """Workers as children of one process; ended afterwards."""
    words = ["worker", "start", "--foreground", "--count", str(workers)]
    with running([*QUEUECTL, "--spool", str(spool.path), *words], spool.path.parent) as process:
        yield process


@contextlib.contextmanager
def idle_worker(spool: Spool) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that has run a job and found nothing more to do."""
    with working(spool) as process:
        job_id = spool.file("true")
        found = spool.wait(job_id, 30)
        if found is None:
            raise Failed("the worker runs nothing")
        wait_for(lambda: not os.listdir(spool.root.folder(State.PROCESSING)), "the worker is idle")
        yield process
