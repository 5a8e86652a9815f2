"""A Slurm of one node, this one: munge, slurmctld and slurmd on the loopback, all of it gone at the end."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil

from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sinfo")
_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def why_not_slurm() -> str | None:
    """Why there can be no Slurm here, in words."""
    if sys.platform != "linux" or os.geteuid():
        return "slurmd needs Linux and root"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_SEARCHED) is None]
    return f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge" if missing else None


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _end_steps(config: Path) -> None:
    """A step outlives its daemons: that is how Slurm survives an update."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("SLURM_CONF") == str(config):
                process.kill()


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[str]:
    """Start it; gives the words that hand a command to it and wait."""
    controller, node = _free_ports(2)
    host = socket.gethostname().split(".")[0]
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o755)
    munge = folder / "munge/socket"
    config = folder / "slurm.conf"
    config.write_text(
        f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n"
        f"SlurmctldPort={controller}\nSlurmdPort={node}\nAuthType=auth/munge\nCredType=cred/munge\n"
        f"AuthInfo=socket={munge}\nStateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n"
        f"SlurmctldPidFile={folder}/ctld.pid\nSlurmdPidFile={folder}/d.pid\nProctrackType=proctrack/pgid\n"
        "TaskPlugin=task/none\nSelectType=select/linear\nReturnToService=2\nSwitchType=switch/none\n"
        f"SchedulerParameters=sched_interval=1\nKillWait=1\nNodeName={host} NodeAddr=127.0.0.1 CPUs=1\n"
        f"PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"
    )
    environment = {**os.environ, "SLURM_CONF": str(config), "PATH": _SEARCHED}
    # munged wants every directory above its files safe from others, which a temporary place is not.
    keyed = ("munged", "-F", "--force", f"--key-file={folder}/munge.key", f"--socket={munge}")
    own = (f"--log-file={folder}/munge.log", f"--pid-file={folder}/m.pid", f"--seed-file={folder}/seed")
    daemons = []
    with (folder / "log").open("ab") as log:

        def start(*words: str) -> None:
            daemons.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))

        def answers(*words: str, what: str) -> bool:
            said = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            return what in said.stdout

        try:
            start(*keyed, *own)
            wait_until(munge.exists, "munged listens", 20)
            start("slurmctld", "-D", "-f", str(config))
            start("slurmd", "-D", "-f", str(config), "-N", host)
            wait_until(lambda: answers("sinfo", "-h", "-o", "%T", what="idle"), "the node is idle", 40)
            yield shlex.join(["env", f"SLURM_CONF={config}", "srun", "--quiet", "--ntasks=1"])
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(10)
                daemon.kill()
                daemon.wait()
            _end_steps(config)
            print((folder / "log").read_text(errors="replace")[-3000:])
