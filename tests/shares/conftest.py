"""A site: a server, a share, two machines on it, and the audit of what they did with one queue."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.job import OUTCOMES, State
from queuectl.spool.names import parse, parse_claim
from tests.conftest import Evidence, wait_until
from tests.shares import network, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.shares.network import Machine, Network
    from tests.shares.served import Share

#: Short, so that a test does not wait; longer than sshfs may hold a beat back in its cache here.
LEASE = 6
CONFIG = f"poll_interval: 0.2\nbackoff_base: 0\nbackoff_jitter: 0\nlock_lease_seconds: {LEASE}\n"
#: The mount options that the README asks for.
ASKED = {
    "sshfs": "dir_cache=no,reconnect,ServerAliveInterval=1,ServerAliveCountMax=3",
    "glusterfs": "",
}


@dataclass
class Site:
    """One queue on one share, and the machines that mount it."""

    net: Network
    share: Share
    alpha: Machine
    beta: Machine
    evidence: Evidence

    def command(self, body: str = ":") -> str:
        """A shell command that leaves evidence of its run, whatever machine it ran on."""
        return self.evidence.command(body)

    def file(self, machine: Machine, commands: list[str]) -> list[str]:
        """File many jobs from one machine; returns their ids."""
        lines = self.net.folder / "lines"
        lines.write_text("".join(f"{command}\n" for command in commands))
        return machine.queuectl("enqueue", "--lines", "--file", lines).split()

    def drain(self, *machines: Machine, seconds: float = 60.0) -> None:
        """Work off what waits with a worker on each of these machines."""
        started = [machine.worker("drain") for machine in machines]
        assert [worker.wait(seconds) for worker in started] == [0] * len(started)

    def names(self, state: State) -> list[str]:
        """What the server itself lists in a directory of the spool."""
        folder = self.share.export / "spool" / state.value
        return [path.name for path in folder.iterdir() if not path.name.startswith(".")]

    def where(self, job_id: str) -> list[State]:
        """The directories in which a job lies."""
        return [state for job, state in self._places() if job == job_id]

    def _places(self) -> list[tuple[str, State]]:
        found = []
        for state in State:
            for text in self.names(state):
                name = parse_claim(text) if state is State.PROCESSING else parse(text)
                if name is not None:
                    found.append((name.id, state))
        return found

    def reaches(self, job_id: str, state: State, seconds: float = 40.0) -> None:
        wait_until(lambda: self.where(job_id) == [state], f"{job_id} is in {state}/", seconds)

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Every job as a machine sees it that has just mounted the share and has nothing in a cache."""
        auditor = self.net.machine(f"auditor{self.net.count}")
        self.share.mount(auditor)
        auditor.queuectl("check", "--repair", status=None)
        assert auditor.queuectl("check") == ""
        return {job["id"]: job for job in map(json.loads, auditor.queuectl("list", "--json").splitlines())}

    def audit(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Each job in one directory, each run recorded once, nothing run that is not recorded."""
        assert sorted(job for job, _ in self._places()) == sorted(ids)
        jobs = self.jobs()
        assert sorted(jobs) == sorted(ids)
        runs = [(line[0], int(line[1])) for line in self.evidence.lines() if line[3] == "start"]
        assert [line for line in self.evidence.lines() if line[3] == "overlap"] == []
        assert len(set(runs)) == len(runs)
        for job_id, job in jobs.items():
            ends = [event["attempt"] for event in job["history"] if event["event"] in OUTCOMES]
            assert max(Counter(ends).values(), default=0) <= 1, job
            recorded = {event["attempt"] for event in job["history"] if "attempt" in event}
            assert {attempt for one, attempt in runs if one == job_id} <= recorded, job
        return jobs


@pytest.fixture(params=sorted(served.NEEDS))
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of share; a test that is about one of them alone says which."""
    reason = network.why_not() or served.why_not(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def options(kind: str) -> str:
    """What the share is mounted with."""
    return ASKED[kind]


@pytest.fixture
def site(kind: str, options: str, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "net"
    folder.mkdir()
    with network.network(folder) as net:
        share = served.serve(kind, net, options)
        alpha, beta = net.machine("alpha"), net.machine("beta")
        for machine in (alpha, beta):
            share.mount(machine)
        alpha.queuectl("init")
        alpha.run("sh", "-c", f"printf '{CONFIG}' > {alpha.place}/spool/config.yaml".replace("\n", "\\n"))
        try:
            yield Site(net, share, alpha, beta, Evidence(folder / "evidence"))
        finally:
            for machine in (net.server, alpha, beta):
                print(f"── {machine.name} ──\n{machine.said()}")
    shutil.rmtree(folder)  # before pytest would: what a share has left is no business of others
