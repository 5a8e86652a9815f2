"""A site: a server, a share, the machines on it, and the audit of what they did with one queue."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from queuectl.job.history import OUTCOMES
from queuectl.job.model import State
from queuectl.spool.names import parse, parse_claim
from tests.conftest import Evidence
from tests.shares import network, served
from tests.shares.network import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.shares.network import Machine
    from tests.shares.served import Share

#: For tests in which a machine is lost: short, so that they do not wait, but longer than a beat takes here.
SHORT = 6
#: For all others: no slowness of the host that they run on is to be taken for a death.
LONG = 60
CONFIG = "poll_interval: 0.2\\nbackoff_base: 0\\nbackoff_jitter: 0\\nlock_lease_seconds: %d\\n"
#: The mount options that the guide asks for.
ASKED = {
    "sshfs": "dir_cache=no,reconnect,ServerAliveInterval=1,ServerAliveCountMax=3",
    "glusterfs": "",
}


@dataclass
class Site:
    """One queue on one share, and the machines that mount it."""

    share: Share
    options: str
    folder: Path
    alpha: Machine
    beta: Machine
    evidence: Evidence
    _stack: contextlib.ExitStack

    def machine(self, name: str) -> Machine:
        """A further machine that has the share mounted and nothing in a cache."""
        made = self._stack.enter_context(self.share.net.machine(name, self.folder / f"{name}.log"))
        made.queue = self.alpha.queue
        self.share.mount(made, self.options)
        return made

    def boot(self, machine: Machine) -> None:
        """Start a machine that lost its power, up to the mount."""
        machine.boot()
        self.share.net.link(machine)
        self.share.mount(machine, self.options)

    def command(self, body: str = ":") -> str:
        """A shell command that leaves evidence of its run, whatever machine it ran on."""
        return self.evidence.command(body)

    def file(self, machine: Machine, commands: list[str]) -> list[str]:
        """File many jobs from one machine; returns their ids."""
        lines = self.folder / "lines"
        lines.write_text("".join(f"{command}\n" for command in commands))
        return machine.queuectl("enqueue", "--lines", "--file", lines).split()

    def drain(self, *machines: Machine, seconds: float = 60.0) -> None:
        """Work off what waits with a worker on each of these machines."""
        started = [machine.worker("drain") for machine in machines]
        assert [worker.wait(seconds) for worker in started] == [0] * len(started)

    def names(self, state: State) -> list[str]:
        """What the server itself lists in a directory of the spool."""
        folder = self.share.export / self.alpha.queue / state.value
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
        wait_for(lambda: self.where(job_id) == [state], f"{job_id} is in {state}/", seconds)

    def has_done(self, count: int, seconds: float = 60.0) -> None:
        wait_for(lambda: len(self.names(State.DONE)) >= count, f"{count} jobs are done", seconds)

    def workers(self, machine: Machine) -> list[str]:
        """The workers of a machine that are not known to be dead, as the server itself lists them."""
        folder = self.share.export / self.alpha.queue / "workers"
        return [path.stem for path in folder.glob(f"{machine.name}-*.yaml")]

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Every job as a machine sees it that has just mounted the share and has nothing in a cache."""
        auditor = self.machine("auditor")
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
def lease() -> int:
    """Seconds after which a silent worker is taken for dead."""
    return LONG


@pytest.fixture(scope="session")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Share]]:
    """One server of each kind that is asked for, with nothing mounted; all tests share it."""
    served_by: dict[str, Share] = {}
    with contextlib.ExitStack() as stack:

        def share(kind: str) -> Share:
            if kind not in served_by:
                folder = tmp_path_factory.mktemp("share")
                stack.callback(shutil.rmtree, folder)  # before pytest would: it holds odd things
                net = stack.enter_context(network.network(folder))
                served_by[kind] = served.serve(kind, net)
            return served_by[kind]

        yield share


@pytest.fixture
def site(
    kind: str, options: str, lease: int, shares: Callable[[str], Share], tmp_path: Path
) -> Iterator[Site]:
    """Two machines, just booted, and an empty queue."""
    share = shares(kind)
    with contextlib.ExitStack() as stack:
        alpha, beta = (
            stack.enter_context(share.net.machine(name, tmp_path / f"{name}.log"))
            for name in ("alpha", "beta")
        )
        alpha.queue = beta.queue = f"queue{share.net.count}"
        for machine in (alpha, beta):
            share.mount(machine, options)
        alpha.queuectl("init")
        alpha.run("sh", "-c", f"printf '{CONFIG % lease}' > {alpha.spool}/config.yaml")
        try:
            yield Site(share, options, tmp_path, alpha, beta, Evidence(tmp_path / "evidence"), stack)
        finally:
            own = (share.export / alpha.queue / "logs").glob("worker@*.log")
            for log in (share.net.server.log, *sorted(tmp_path.glob("*.log")), *sorted(own)):
                if log.exists():
                    print(f"── {log.stem} ──\n{log.read_text(errors='replace')[-20_000:]}")
