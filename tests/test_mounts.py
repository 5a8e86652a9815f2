"""A mount that makes owner and modes up, as SMB does: what is refused, what mends it, and what is left."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from queuectl import Spool
from queuectl.cli import main
from queuectl.errors import QueueError, UnsafeSpool
from queuectl.job.model import State
from queuectl.spool import safety
from queuectl.spool.root import FOLDERS
from queuectl.system import files, mounts, users

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts are read as Linux tells them")

OWN = f"uid={users.user_name(os.geteuid())},gid={users.group_name(os.getegid())}"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Makes the system tell that a directory is such a mount."""

    def mount(kind: str, options: str) -> Path:
        device = tmp_path.stat().st_dev
        told = tmp_path / "mountinfo"
        told.write_text(
            f"36 35 {os.major(device)}:{os.minor(device)} / /x rw - {kind} //server/x {options}\n"
        )
        monkeypatch.setattr(mounts, "MOUNTS", str(told))
        return tmp_path

    return mount


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """Makes /etc/fstab name a mount point, and the system say that these are mounted."""

    def tell(named: Path, mounted: str = "") -> None:
        point = str(named).replace(" ", "\\040")
        for name, text in (
            ("FSTAB", f"# {point}2\nserver:/x {point} nfs4 noauto 0 0\n"),
            ("MOUNTS", mounted),
        ):
            (tmp_path / name).write_text(text)
            monkeypatch.setattr(mounts, name, str(tmp_path / name))

    return tell


@pytest.mark.parametrize("below", ["", "spool", "team/spool"])
@pytest.mark.parametrize("command", ["init DIR", "-s DIR enqueue true", "-s DIR worker start --drain"])
def test_no_spool_is_made_where_a_mount_of_fstab_will_hide_it(
    tmp_path: Path,
    tables: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    below: str,
    command: str,
) -> None:
    point = tmp_path / "the share"
    place = point / below
    place.parent.mkdir(parents=True, exist_ok=True)
    point.mkdir(exist_ok=True)
    tables(point)
    words = [str(place) if word == "DIR" else word for word in command.split()]
    assert main.run(words) == 1
    said = capsys.readouterr().err
    if below or command == "init DIR":
        assert f"{place} would be hidden: /etc/fstab has a mount for {point}, which is not mounted" in said
        assert f"Run `mount '{point}'`, then try again." in said
    assert not (place / "config.yaml").exists()


def test_a_spool_is_made_on_what_is_mounted_and_beside_what_is_not(
    tmp_path: Path, tables: Callable[..., None]
) -> None:
    point = tmp_path / "share"
    point.mkdir()
    (tmp_path / "link").symlink_to(point)
    tables(point, f"36 35 0:55 / {point} rw - nfs4 server:/x rw\n")
    Spool.create(point / "spool")
    tables(point)
    Spool.create(tmp_path / "share2")
    assert Spool.create(point / "spool").path == point / "spool"  # it is there: nothing is made
    with pytest.raises(QueueError, match="would be hidden"):
        Spool.create(tmp_path / "link/other")


class Mapped:
    """System calls on a mount where every file has the mode that the mount names."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def chmod(self, *_: object) -> None:
        pass

    def fchmod(self, *_: object) -> None:
        pass

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        os.mkdir(path, mode)
        os.chmod(path, 0o707)


@pytest.mark.parametrize(
    ("kind", "options", "remedy"),
    [
        ("cifs", "rw,uid=0", f"mount it with `-o {OWN},file_mode=0600,dir_mode=0700`"),
        ("vfat", "rw", f"mount it with `-o {OWN},umask=077`"),
        ("cifs", "rw,posix", "chmod o-w"),
        ("nfs4", "rw", "chmod o-w"),
    ],
)
def test_the_refusal_names_what_can_mend_the_modes_of_a_mount(
    mounted: Callable[[str, str], Path], kind: str, options: str, remedy: str
) -> None:
    spool = Spool.create(mounted(kind, options) / "spool")
    (spool.path / "pending").chmod(0o707)
    with pytest.raises(UnsafeSpool) as refusal:
        Spool(spool.path)
    assert remedy in refusal.value.remedy
    assert str(spool.path / "pending") in refusal.value.problem


def test_a_refused_init_leaves_nothing(
    mounted: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mounted("cifs", "rw")
    monkeypatch.setattr(files, "kernel", Mapped())
    with pytest.raises(UnsafeSpool, match="dir_mode=0700"):
        Spool.create(place / "spool")
    assert not (place / "spool").exists()


def test_a_refused_init_leaves_a_directory_as_it_was(
    mounted: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mounted("cifs", "rw") / "spool"
    place.mkdir(0o755)
    (place / FOLDERS[0]).mkdir()
    monkeypatch.setattr(files, "kernel", Mapped())
    with pytest.raises(UnsafeSpool):
        Spool.create(place)
    assert os.listdir(place) == [FOLDERS[0]]


def test_an_init_that_the_disk_refuses_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, *_: object) -> int:
            raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(files, "kernel", Full())
        with pytest.raises(OSError, match="No space"):
            Spool.create(tmp_path / "spool")
    assert not (tmp_path / "spool").exists()


# ── a mount that gives what root files to another user ────────────────────────────────────────


class Squashed:
    """System calls of root on a mount that gives each new file to another user."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        fd = os.open(path, flags, mode)
        if flags & os.O_CREAT:
            os.fchown(fd, self._uid, -1)
        return fd

    def fchown(self, *_: object) -> None:
        pass


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are given away")
ALICE, NOBODY = 4201, 65534


@as_root
@pytest.mark.parametrize(
    ("kind", "uid", "words"),
    [("nfs4", NOBODY, "no_root_squash"), ("nfs", ALICE, "no_root_squash"), ("cifs", ALICE, "uid=root")],
)
def test_filing_is_refused_where_no_worker_of_root_would_run_what_root_files(
    mounted: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, kind: str, uid: int, words: str
) -> None:
    monkeypatch.setattr(mounts, "on_block_device", lambda _: False)
    spool = Spool.create(mounted(kind, "rw") / "spool")
    with monkeypatch.context() as patch:
        patch.setattr(files, "kernel", Squashed(uid))
        with pytest.raises(QueueError, match=words):
            spool.file({"id": "mine", "command": "true"})
    assert os.listdir(spool.root.folder(State.PENDING)) == []
    assert spool.file({"id": "mine", "command": "true"}) == "mine"


@as_root
def test_filing_is_not_refused_where_the_owner_of_the_spool_gets_what_root_files(
    mounted: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Spool.create(mounted("cifs", "rw") / "spool").path
    os.chown(place, ALICE, -1)
    spool = Spool(place)
    monkeypatch.setattr(mounts, "on_block_device", lambda _: False)
    monkeypatch.setattr(files, "kernel", Squashed(ALICE))
    assert os.stat(spool.find(spool.file("true")).path).st_uid == ALICE
    with pytest.raises(QueueError, match="a worker of root does not run"):
        safety.refuse_idle_root(spool.root)


@as_root
def test_an_init_that_would_make_a_spool_of_nobody_is_refused_and_leaves_nothing(
    mounted: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mounted("nfs4", "rw")
    monkeypatch.setattr(mounts, "on_block_device", lambda _: False)
    monkeypatch.setattr(files, "kernel", Squashed(NOBODY))
    with pytest.raises(QueueError, match="no_root_squash"):
        Spool.create(place / "spool")
    assert not (place / "spool").exists()


@as_root
def test_a_worker_logs_that_it_puts_a_job_aside_and_why(spool: Spool, workers: Workers) -> None:
    job_id = spool.file("true")
    os.chown(spool.find(job_id).path, ALICE, -1)
    workers.drain()
    (told,) = [line for line in workers.said().splitlines() if job_id in line]
    assert f"job {job_id}: not run, and put aside in dead/: It was filed by user {ALICE}" in told
