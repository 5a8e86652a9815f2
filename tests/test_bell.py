"""The bell: what is heard of files in pending/, from when on, and how often."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from queuectl.job.model import State
from queuectl.spool.wake import Bell, Wake
from tests.conftest import PATIENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from queuectl import Spool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell of closed files")


@pytest.fixture
def wake() -> Iterator[Wake]:
    with contextlib.closing(Wake()) as made:
        yield made


@pytest.fixture
def bell(spool: Spool, wake: Wake) -> Iterator[Bell]:
    with contextlib.closing(Bell(spool.root, wake)) as made:
        yield made


def waiting(spool: Spool) -> set[str]:
    return set(os.listdir(spool.root.folder(State.PENDING)))


def test_what_is_filed_from_the_moment_it_hangs_is_heard(spool: Spool, bell: Bell, wake: Wake) -> None:
    spool.file("true")
    before = waiting(spool)
    assert bell.hang()
    spool.file("true")
    assert wake.wait(PATIENT)
    assert set(bell.names()) == waiting(spool) - before
    assert bell.names() == []


def test_what_is_moved_in_is_heard(spool: Spool, bell: Bell, wake: Wake) -> None:
    outside = spool.path / "job.yaml"
    outside.write_text("command: make\n")
    bell.hang()
    outside.rename(spool.path / "pending" / "mine.yaml")
    assert wake.wait(PATIENT)
    assert bell.names() == ["mine.yaml"]


def test_it_is_hung_once_and_leaves_nothing_in_the_folder(spool: Spool, bell: Bell) -> None:
    assert bell.hang()
    assert not bell.hang()
    assert waiting(spool) == set()


def test_who_is_busy_is_disturbed_once_by_many_and_told_of_all(spool: Spool, wake: Wake) -> None:
    with contextlib.closing(Bell(spool.root, wake, rest=60.0)) as bell:
        bell.hang()
        spool.file("true")
        assert wake.wait(PATIENT)
        for _ in range(100):
            spool.file("true")
        assert not wake.wait(0.3)  # the names of the first ring have not been taken yet
        heard = set(bell.names())
        while len(heard) < 101:
            assert wake.wait(PATIENT)
            heard |= set(bell.names())
        assert heard == waiting(spool)


def test_names_that_nobody_takes_are_rung_again(spool: Spool, bell: Bell, wake: Wake) -> None:
    """A worker that runs a long job takes no names, and the kernel keeps a limited number of them."""
    bell.hang()
    for _ in range(2):
        spool.file("true")
        assert wake.wait(PATIENT)
    assert set(bell.names()) == waiting(spool)


def test_it_ends_at_once_while_it_rests(spool: Spool, wake: Wake) -> None:
    from watchdog.observers.inotify_c import InotifyFD

    bell = Bell(spool.root, wake, rest=60.0)
    bell.hang()
    spool.file("true")
    assert wake.wait(PATIENT)
    bell.close()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, InotifyFD)]
