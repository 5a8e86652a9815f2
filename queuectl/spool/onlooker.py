"""Judges whether the owners of claims live, by their locks, beats and processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import times
from queuectl.spool import liveness
from queuectl.spool.descriptions import Description, describe, described, path_of, place_of
from queuectl.spool.liveness import Facts, Standing, Verdict
from queuectl.spool.presence import lock_file
from queuectl.system import files, host, locks
from queuectl.system.host import host_name
from queuectl.times import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from queuectl.spool.root import Root

#: Seconds between two listings of workers/ on a share. Only descriptions that one has shown are opened.
_LISTING = 1.0
#: Seconds between two readings of the clock of a share. The monotonic clock counts on from the last one.
_CLOCK = 10.0


class Onlooker:
    """Collects the facts about owners and judges them by `liveness.judge`.

    On a local disk the lock tells at once whether its worker lives, also across process namespaces
    and containers: one kernel alone has the disk. On a share locks prove nothing, and no worker has
    one. There, and for a worker of another host that reaches this disk over the network, the beats are
    watched.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._medium = root.medium
        self._place = place_of(root)
        self._seen: dict[str, liveness.Seen] = {}
        self._listed: frozenset[str] = frozenset()
        self._listed_at = float("-inf")
        self._clock: tuple[float | None, float] = (None, float("-inf"))

    def _describe(self, owner: str) -> Description | None:
        """An owner's description. On a share only one that a listing has shown is opened."""
        if not self._medium.answers_truly:
            clock = times.clock.monotonic()
            if clock - self._listed_at > _LISTING:
                self._listed, self._listed_at = frozenset(described(self._root)), clock
            if owner not in self._listed:
                return None
        return describe(self._root, owner)

    def is_here(self, owner: str) -> bool:
        """Whether the owner runs on this kernel, so that this process can see its processes."""
        description = self._describe(owner)
        if description is None:
            return owner.startswith(f"{host_name()}-") and self._medium.locks_tell
        return description.place == self._place

    def is_alive(self, owner: str, lease: float) -> bool:
        """Whether the claims of this owner must be left alone."""
        return self.judge(owner, lease).standing is not Standing.DEAD

    def judge(self, owner: str, lease: float) -> Verdict:
        """Look at an owner once, and judge it by this look and the ones before."""
        return liveness.judge(self._look(owner, lease), lease)

    def _look(self, owner: str, lease: float) -> Facts:
        description = self._describe(owner)
        now = times.clock.monotonic()
        beat = description and description.beat
        seen = self._seen[owner] = liveness.seen(self._seen.get(owner), beat, now, lease)
        facts = Facts(
            is_described=description is not None,
            is_locked=self._locked(owner, description) if self._medium.locks_tell else None,
            watched=now - seen.since,
        )
        if description is None:
            return facts
        if not self._medium.locks_tell and description.place == self._place:
            facts = facts._replace(runs=host.here.runs(description.pid))
        try:
            beaten = files.modified(path_of(self._root, owner))
        except FileNotFoundError:  # it has just left, or is being buried
            return facts
        there, here = self._now(), times.clock.now().timestamp()
        # Where the share's clock cannot be asked, this process may not write, and takes nothing over.
        facts = facts._replace(age=max(0.0, (here if there is None else there) - beaten))
        if self._medium.has_own_clock and there is not None and description.clock_offset is not None:
            facts = facts._replace(age_by_hosts=here - (beaten + description.clock_offset))
        return facts

    def _now(self) -> float | None:
        """The time by the clock that dates the files. That of a share is read every `_CLOCK` seconds.

        None where it is unknown, as this process may not make a file there.
        """
        if not self._medium.has_own_clock:
            return times.clock.now().timestamp()
        told, at = self._clock
        if times.clock.monotonic() - at > _CLOCK:
            try:
                probe = f".{host_name()}-{files.kernel.getpid()}.probe"
                told = files.server_time(self._root.workers, probe)
            except OSError:
                told = None
            at = times.clock.monotonic()
            self._clock = told, at
        return None if told is None else told + times.clock.monotonic() - at

    def watch(self, lease: float) -> None:
        """Look at every worker that is judged by its beat. Call it every `liveness.looks_every(lease)`.

        On a local disk where all workers have locks this costs one listing.
        """
        names = set(self._root.texts_in(self._root.workers))
        for text in names:
            owner, _, ending = text.rpartition(".")
            if ending == "yaml" and (not self._medium.locks_tell or f"{owner}.lock" not in names):
                self.judge(owner, lease)

    def settle(self, owners: Iterable[str], lease: float, tell: Callable[[str], None]) -> None:
        """Watch owners until it is certain whether each is dead, for the lease at most.

        `tell` gets a sentence for each owner that has to be watched.
        """
        verdicts = {owner: self.judge(owner, lease) for owner in owners}
        for owner, verdict in verdicts.items():
            if verdict.is_open:
                tell(
                    f"Worker {owner}: {verdict.why}. It is watched for {duration(verdict.open_for)} "
                    "before anything of it is taken over."
                )
        while still := [owner for owner, verdict in verdicts.items() if verdict.is_open]:
            times.clock.sleep(min(liveness.GLANCE, max(verdicts[owner].open_for for owner in still)))
            verdicts |= {owner: self.judge(owner, lease) for owner in still}

    def _locked(self, owner: str, description: Description | None) -> bool | None:
        """Whether the owner's lock is held; None where only its beats show whether it lives.

        An owner over the network has no lock, and this user may not be allowed to open another user's.
        """
        path = lock_file(self._root, owner)
        if not files.exists(path):
            # A lock that a power cut or a person took away counts as free.
            is_local = description is None or self._is_of_this_disk(description)
            return False if is_local else None
        try:
            lock = locks.take(path, self._root.file_mode)
        except PermissionError:
            return None
        if lock is None:
            return True
        try:
            if describe(self._root, owner) is None:
                # Race: the owner left meanwhile, and `take` made this lock file.
                files.remove(path)
        finally:
            lock.release()
        return False

    def _is_of_this_disk(self, description: Description) -> bool:
        """Whether a worker without a lock had this local disk itself mounted, in this boot or an earlier one.

        A local disk may be exported: a worker that beats while this machine runs may be on another host.
        """
        place, mine = description.place.split("/"), self._place.split("/")
        if place[0] == mine[0]:
            return place[-1] == mine[-1]
        try:
            beaten = files.modified(path_of(self._root, description.name))
        except FileNotFoundError:
            return False
        return description.host == host.here.full_name() and beaten < host.here.booted_at()

    def bury(self, dead: Iterable[str]) -> list[str]:
        """Remove the files of dead workers that have no claim left from workers/; returns whose were there.

        Removes locks and requests of workers without a description, too: a crash leaves them while a
        worker leaves or is buried. On a share these stay, as only a lock could tell them from those of a
        worker that has just begun.
        """
        owners = set(dead)
        buried = [owner for owner in sorted(owners) if files.remove(path_of(self._root, owner))]
        names = set(self._root.texts_in(self._root.workers)) if owners or self._medium.locks_tell else set()
        for text in names:
            owner = _owner_of(text)
            may_be_orphan = self._medium.locks_tell and f"{owner}.yaml" not in names
            if owner and (owner in owners or (may_be_orphan and self._locked(owner, None) is False)):
                files.remove(f"{self._root.workers}/{text}")
        for owner in owners:
            self._seen.pop(owner, None)
        return buried


def _owner_of(text: str) -> str | None:
    """The worker to which a lock or a request in workers/ belongs; None for other files."""
    stem, _, ending = text.rpartition(".")
    return stem.rpartition("@")[2] if ending in {"lock", "stop", "cancel"} else None
