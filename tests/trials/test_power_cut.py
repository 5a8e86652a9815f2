"""Power cuts of a real ext4: shut down at work, its journal replayed, what is left worked off."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State
from queuectl.errors import FiledAllTheSame, StorageTrouble
from tests.conftest import Evidence, Workers, places_in, problems_left_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: EXT4_IOC_SHUTDOWN, from the kernel's fs/ext4/ext4.h: no request reaches the device from then on.
SHUTDOWN = 0x8004587D
#: EXT4_GOING_FLAGS_NOLOGFLUSH: what the journal has not got yet is lost, as by a power cut.
NO_LOG_FLUSH = struct.pack("I", 2)


@dataclass
class Disk:
    """An ext4 in a file, on a loop device."""

    image: Path
    place: Path

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.place], check=True, capture_output=True)

    def restart(self) -> None:
        """Mount what has reached the device by the cut; journal and all, as after a reboot.

        The one that was shut down may live on in a mount namespace that others have made meanwhile.
        """
        left = self.image.with_name(f"{self.image.name}.")
        shutil.copyfile(self.image, left)
        subprocess.run(["umount", "-l", self.place], check=True, capture_output=True)
        self.image.unlink()
        self.image = left
        self.mount()

    def cut(self) -> None:
        import fcntl

        folder = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if sys.platform != "linux" or mkfs is None:
        pytest.skip("not installed: mkfs.ext4 (e2fsprogs)")
    disk = Disk(tmp_path / "image", tmp_path / "disk")
    disk.place.mkdir()
    with disk.image.open("wb") as image:
        image.truncate(64 << 20)
    subprocess.run([mkfs, "-q", disk.image], check=True)
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop mounts here: {error.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk.place], check=False, capture_output=True)


def new_spool(disk: Disk, durability: str) -> Spool:
    spool = Spool.create(disk.place / "spool")
    spool.root.config.write_text(f"durability: {durability}\npoll_interval: 0.05\nbackoff_base: 0\n")
    os.sync()
    return spool


def wait_for(told: list[str], enough: int) -> None:
    wait_until(lambda: len(told) > enough, f"{enough} are told")


def until_the_cut(act: Callable[[], object]) -> threading.Thread:
    """Do it again and again in a thread, until the disk takes no more."""

    def go_on() -> None:
        with contextlib.suppress(OSError, StorageTrouble, FiledAllTheSame):
            while True:
                act()

    thread = threading.Thread(target=go_on)
    thread.start()
    return thread


def test_what_was_told_is_there_after_the_power_of_a_real_disk_was_cut(
    disk: Disk,
    tmp_path: Path,
    size: Callable[[int, int], int],
    figure: Callable[[str, str], None],
) -> None:
    cuts, filed, again = size(3, 60), 0, 0
    for number in range(cuts):
        spool = new_spool(disk, "filed")
        evidence = Evidence(tmp_path / f"evidence{number}")
        command = evidence.command()
        told: list[str] = []
        workers = Workers(spool, tmp_path / f"log{number}")
        try:
            for _ in range(2):
                workers.start()

            def file(spool: Spool = spool, told: list[str] = told, command: str = command) -> None:
                told.append(spool.file(command))

            filing = [until_the_cut(file) for _ in range(2)]
            wait_for(told, random.randrange(20, 80))
            disk.cut()
            for thread in filing:
                thread.join()
        finally:
            workers.end()
        disk.restart()
        found = places_in(spool)
        assert {job_id for job_id in told if len(found[job_id]) != 1} == set()
        before = len(evidence.started())
        assert problems_left_in(spool) == []
        after = Workers(spool, tmp_path / f"log{number}-after")
        after.drain()
        assert set(places_in(spool)) >= set(told)
        assert {tuple(states) for states in places_in(spool).values()} == {(State.DONE,)}
        assert [line for line in evidence.lines() if line[3] == "overlap"] == []
        assert set(told) <= set(evidence.finished())
        assert problems_left_in(spool) == []
        filed, again = filed + len(told), again + len(evidence.started()) - before
        shutil.rmtree(spool.path)
    figure(
        "power cuts of an ext4 (EXT4_IOC_SHUTDOWN)",
        f"{cuts} cuts, {filed:,} jobs filed before them, none lost or doubled; {again:,} runs after them",
    )


def test_with_full_durability_an_outcome_that_was_recorded_is_there_after_a_real_power_cut(
    disk: Disk, size: Callable[[int, int], int], figure: Callable[[str, str], None]
) -> None:
    cuts, ended = size(6, 200), 0
    for _ in range(cuts):
        spool = new_spool(disk, "full")
        filed = [filed.id for filed in spool.file_many("true" for _ in range(40))]
        member = spool.member()
        told = []
        for _ in range(random.randrange(1, 20)):
            member.look(member.now())
            claim = member.claim(member.now())
            assert claim
            member.complete(claim, {"exit_code": 0}, member.now())
            told.append(claim.id)
        disk.cut()
        with contextlib.suppress(OSError):
            member.leave()
        disk.restart()
        found = places_in(spool)
        assert {job_id for job_id in filed if len(found[job_id]) != 1} == set()
        assert {job_id for job_id in told if found[job_id] != [State.DONE]} == set()
        for job_id in told:
            job = spool.find(job_id).job
            assert job
            assert [event["event"] for event in job.history] == ["completed"]
        ended += len(told)
        shutil.rmtree(spool.path)
    figure("power cuts with `durability: full`", f"{cuts} cuts, {ended:,} recorded outcomes, none lost")
