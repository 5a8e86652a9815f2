"""One directory, served to several machines: by sshfs, or as a GlusterFS volume."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.shares.network import SERVER, Machine, Network, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: What each kind of share needs: programs, and the Debian packages that bring them.
NEEDS = {
    "sshfs": (("sshfs", "sshd", "ssh-keygen"), "sshfs openssh-server"),
    "glusterfs": (("glusterd", "gluster", "glusterfs"), "glusterfs-server"),
}
_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def why_not(kind: str) -> str | None:
    """Why this kind of share cannot be had here, in words."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not there"
    return _missing(kind)


def why_not_ssh() -> str | None:
    """Why there can be no sshd of one's own here, in words."""
    return "it logs in as root" if os.geteuid() else _missing("sshfs")


def _missing(kind: str) -> str | None:
    programs, packages = NEEDS[kind]
    missing = [program for program in programs if shutil.which(program, path=_SEARCHED) is None]
    return f"{', '.join(missing)} not installed: apt-get install {packages}" if missing else None


@dataclass(frozen=True)
class Share:
    """A directory that a server exports and that any machine can mount, with options or none."""

    net: Network
    kind: str
    export: Path
    mount: Callable[[Machine, str], None]
    serve: Callable[[], None]
    stop: Callable[[], None]

    def restart(self) -> None:
        """Let the server's daemons die and start again, as when it is booted anew."""
        self.stop()
        self.serve()


def serve(kind: str, net: Network) -> Share:
    """Start serving."""
    export = net.folder / "export"
    export.mkdir(exist_ok=True)
    made = {"sshfs": _by_ssh, "glusterfs": _by_gluster}[kind](net, export)
    made.serve()
    return made


# ── sshfs ─────────────────────────────────────────────────────────────────────────────────────


def sshd() -> str:
    """Where the daemon is; it wants to be called by its whole path."""
    found = shutil.which("sshd", path=_SEARCHED)
    assert found
    return found


def sshd_config(folder: Path, port: int = 22, address: str = SERVER) -> Path:
    """Keys and a configuration for a daemon of one's own; the client's key is `folder`/key."""
    for name in ("host", "key"):
        if not (folder / name).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress {address}\nPort {port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nSubsystem sftp internal-sftp\nMaxStartups 100\nUseDNS no\n"
    )
    return config


def ssh_options(folder: Path) -> list[str]:
    """The `-o` values with which a client trusts that daemon and no other."""
    return [
        f"IdentityFile={folder}/key",
        f"UserKnownHostsFile={folder}/known_hosts",
        "StrictHostKeyChecking=no",
        "LogLevel=ERROR",
        "BatchMode=yes",
    ]


def _by_ssh(net: Network, export: Path) -> Share:
    config = sshd_config(net.folder)

    def start() -> None:
        net.server.run("mkdir", "-p", "/run/sshd")
        net.server.start(sshd(), "-D", "-e", "-f", config)
        wait_for(lambda: ":22 " in net.server.run("ss", "-ltn"), "sshd listens")

    def mount(machine: Machine, options: str) -> None:
        known = ",".join([*ssh_options(net.folder), *filter(None, [options])])
        machine.run("sshfs", f"root@{SERVER}:{export}", machine.place, "-o", known)

    def stop() -> None:
        _kill(net.server, "sshd")

    return Share(net, "sshfs", export, mount, start, stop)


# ── GlusterFS ─────────────────────────────────────────────────────────────────────────────────


def _by_gluster(net: Network, export: Path) -> Share:
    glusterd = shutil.which("glusterd", path=_SEARCHED)
    assert glusterd
    state = net.folder / "glusterd"
    state.mkdir(exist_ok=True)
    folders = "/run/gluster /var/lib/glusterd /var/log/glusterfs"
    net.server.run("sh", "-c", f"mkdir -p {folders} && mount --bind {state} /var/lib/glusterd")
    net.server.run("mount", "-t", "tmpfs", "tmpfs", "/var/log/glusterfs")

    def start() -> None:
        net.server.run(glusterd, "-p", "/run/glusterd.pid")
        gluster = ("gluster", "--mode=script", "volume")
        wait_for(lambda: net.server.run("gluster", "pool", "list", status=None), "glusterd answers")
        if "share" not in net.server.run(*gluster, "list", status=None):
            net.server.run(*gluster, "create", "share", f"{SERVER}:{export}", "force")
            net.server.run(*gluster, "set", "share", "network.ping-timeout", "10")
            net.server.run(*gluster, "start", "share")
        wait_for(lambda: " Y " in net.server.run(*gluster, "status", "share", status=None), "the brick is up")

    def mount(machine: Machine, options: str) -> None:
        machine.run("sh", "-c", "mount -t tmpfs tmpfs /var/log/glusterfs && mount -t tmpfs tmpfs /run")
        words = ["-o", options] if options else []
        machine.run("mount", "-t", "glusterfs", *words, f"{SERVER}:/share", machine.place)

    def stop() -> None:
        _kill(net.server, "gluster")

    return Share(net, "glusterfs", export, mount, start, stop)


def _kill(machine: Machine, word: str) -> None:
    for pid in machine.running(word):
        with contextlib.suppress(ProcessLookupError):  # the end of one is that of another
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not machine.running(word), f"no {word} runs")
