"""Machines of one's own: namespaces with a host name, processes, mounts and a link that can be cut.

A machine is a process; when it is killed the kernel ends all that ran in it and takes its mounts and
its link away. Nothing of it is seen by, or left in, the system that the tests run on.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
SERVER = "10.213.0.1"
# /dev/shm: libfaketime puts a lock there that bears a pid, and the pids of all machines begin alike.
_BOOT = "mount -t tmpfs tmpfs /dev/shm && hostname $0 && ip link set lo up && echo up"
_STAY = f"{_BOOT} && while :; do sleep 3600 & wait $!; done"
_TOOLS = ("ip", "nsenter", "setpriv", "unshare")


def why_not() -> str | None:
    """Why there can be no machines here, in words."""
    if sys.platform != "linux" or os.geteuid():
        return "namespaces of one's own need Linux and root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (iproute2, util-linux)"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], capture_output=True, check=False)
    return f"no namespaces: {tried.stderr.decode().strip()}" if tried.returncode else None


def wait_for(condition: object, what: str, seconds: float = 30.0) -> object:
    """Wait until calling `condition` gives something true."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return found


@dataclass
class Machine:
    """One machine. `place` is where it mounts the share: the same path on each, as on a real site."""

    name: str
    place: Path
    log: Path
    queue: str = "spool"
    _popen: subprocess.Popen[bytes] = field(init=False)
    pid: int = field(init=False)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.boot()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def boot(self) -> None:
        """Start the machine: processes, mounts, host name and network of its own."""
        spaces = ("--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--net", "--mount")
        self._popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *spaces, "sh", "-c", _STAY, self.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._popen.stdout is not None
        with self._popen.stdout as said:
            assert said.readline() == b"up\n", f"{self.name} does not start"
        children = Path(f"/proc/{self._popen.pid}/task/{self._popen.pid}/children").read_text()
        self.pid = int(children.split()[0])

    def kill(self) -> None:
        """Cut the power: everything that ran here is gone at once, nothing says good-bye."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        for popen in (self._popen, *self._started):
            popen.wait()

    def _inside(self, words: tuple[str | Path, ...]) -> list[str]:
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-n", "-p", "--wd=/"]
        return [*enter, *map(str, words)]

    def run(self, *words: str | Path, status: int | None = 0, seconds: float = 600.0) -> str:
        """Run a command here to its end; returns what it printed on standard output."""
        done = subprocess.run(
            self._inside(words), stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
        said = done.stdout.decode("utf-8", "replace")
        if status is not None:
            assert done.returncode == status, (words, done.returncode, said, done.stderr.decode())
        return said

    def start(self, *words: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command here; it ends with the machine at the latest."""
        with self.log.open("ab") as log:
            popen = subprocess.Popen(
                self._inside(("env", *(f"{name}={text}" for name, text in (env or {}).items()), *words)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started.append(popen)
        return popen

    @property
    def spool(self) -> Path:
        """Where the queue lies on the share."""
        return self.place / self.queue

    def queuectl_words(self, *words: str | Path) -> str:
        """The command line of `queuectl` on the share as this machine sees it, for a shell."""
        return shlex.join([sys.executable, "-m", "queuectl", "-s", *map(str, (self.spool, *words))])

    def queuectl(self, *words: str | Path, status: int | None = 0) -> str:
        """Run `queuectl` here to its end; returns what it printed on standard output."""
        return self.run("sh", "-c", self.queuectl_words(*words), status=status)

    def worker(
        self, kind: str = "foreground", env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a worker here."""
        return self.start(sys.executable, "-m", "queuectl.worker", self.spool, kind, env=env)

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def cut(self) -> None:
        """Pull the cable out."""
        self.run("ip", "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Put the cable in again."""
        self.run("ip", "link", "set", "eth0", "up")

    def pids(self) -> list[int]:
        """The pids, as the outside sees them, of all processes that run here."""
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/ns/pid") == mine:
                        found.append(int(entry))
        return found

    def running(self, word: str) -> list[int]:
        """The pids of the processes here whose command line holds a word."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found


@dataclass
class Network:
    """A server and the machines that are linked to it."""

    folder: Path
    server: Machine
    count: int = 0

    @contextlib.contextmanager
    def machine(self, name: str, log: Path) -> Iterator[Machine]:
        """A further machine, linked to the server; all that it did is over at the end."""
        place = self.folder / "mnt"
        place.mkdir(exist_ok=True)
        with Machine(name, place, log) as made:
            self.link(made)
            yield made

    def link(self, machine: Machine) -> None:
        """Lay the cable from a machine that has just been booted to the server's switch."""
        self.count += 1
        port = f"port{self.count}"
        outside = ["nsenter", "-t", str(self.server.pid), "-n", "ip", "link"]
        far = ["type", "veth", "peer", "name", "eth0", "netns", str(machine.pid)]
        subprocess.run([*outside, "add", port, *far], check=True)
        subprocess.run([*outside, "set", port, "master", "switch", "up"], check=True)
        address = f"10.213.0.{10 + self.count}/24"
        machine.run("sh", "-c", f"ip address add {address} dev eth0 && ip link set eth0 up")


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A server without any service, and nothing linked to it yet; all of it is gone at the end."""
    with Machine("server", folder, folder / "server.log") as server:
        # A bridge without an address of its own takes the lowest of its ports': with a further machine
        # that may become another one, and those that know the old one reach it no more.
        server.run(
            "sh",
            "-c",
            "ip link add switch address 02:00:00:00:00:01 type bridge && "
            f"ip address add {SERVER}/24 dev switch && ip link set switch up && mount -t tmpfs tmpfs /run",
        )
        yield Network(folder, server)
