"""A claim: the job that one owner may run, and its file in processing/ for as long as the claim lasts.

An event is appended by path, without creating a file: a lost claim leaves nothing to append to.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from queuectl.errors import BadJob, ClaimLost
from queuectl.job.history import STARTED, Event
from queuectl.job.layout import to_yaml
from queuectl.job.model import Job, State
from queuectl.spool import jobfile
from queuectl.spool.jobs import free_name
from queuectl.spool.names import Name, id_in
from queuectl.system import files, users

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from queuectl.spool.jobfile import Record
    from queuectl.spool.root import Root


class Claim(NamedTuple):
    """A job that this owner, and nobody else, may run: its file and its content."""

    root: Root
    name: Name
    record: Record
    source: State
    #: Where the file is for as long as the claim lasts.
    path: str
    #: Events that are still to be appended to the file.
    unwritten: tuple[Event, ...] = ()

    @classmethod
    def of(cls, root: Root, name: Name, record: Record, source: State) -> Claim:
        """The claim of this name."""
        return cls(root, name, record, source, f"{root.folder(State.PROCESSING)}/{name}")

    @property
    def id(self) -> str:
        """The job's id."""
        return self.name.id

    @property
    def stem(self) -> str:
        """The file's name without its ending. It is unique among all claims, ever."""
        return str(self.name).removesuffix(".yaml")

    @property
    def owner(self) -> str:
        """The worker whose claim it is."""
        assert self.name.owner is not None
        return self.name.owner

    @property
    def job(self) -> Job:
        """The job to run."""
        return self.record.job

    @property
    def history(self) -> tuple[Event, ...]:
        """The history as it will be once all is written."""
        return (*self.job.history, *self.unwritten)

    def adding(self, *events: Event) -> Claim:
        """The claim with events to be appended to its file later."""
        return Claim(*self[:5], (*self.unwritten, *events))

    def recording(self, **facts: Any) -> Claim:
        """The claim with facts added to its start event, if that is still to be appended."""
        if not self.unwritten or self.unwritten[0].get("event") != STARTED:
            return self
        return self._replace(unwritten=({**self.unwritten[0], **facts}, *self.unwritten[1:]))

    def noted(self, *added: Event, sync: bool = False) -> Claim:
        """The claim after its unwritten events, and then these, were appended to its file.

        Raises `ClaimLost` or `SpoolAway`. A file that may be read but not written to, such as a copy of
        a read-only one, is replaced by a copy that may be written to.
        """
        events = (*self.unwritten, *added)
        try:
            try:
                record = jobfile.append(self.path, self.record, events, sync=sync)
            except PermissionError:
                write_anew(self.root, self.path, files.read(self.path, files.MAX_WITH_HISTORY))
                record = jobfile.append(self.path, self.record, events, sync=sync)
        except FileNotFoundError as error:
            raise lost(self.root, self.path) from error
        return self._replace(record=record, unwritten=())

    def noted_again(self, *, sync: bool = False) -> Claim:
        """The same after an error: append only the events that the file does not end with already."""
        try:
            record = read(self.root, self.path)
        except (BadJob, files.NotAFile) as error:  # something else has taken its place
            raise ClaimLost(self.id) from error
        history, added = record.job.history, self.unwritten
        there = next(n for n in range(len(added), -1, -1) if history[len(history) - n :] == added[:n])
        claim = self._replace(record=record, unwritten=added[there:])
        return claim.noted(sync=sync) if claim.unwritten else claim


def lost(root: Root, path: str) -> ClaimLost:
    """The error for a claim whose file is gone. Raises `SpoolAway` where the whole spool is."""
    root.require_reachable()
    return ClaimLost(id_in(path.rpartition("/")[2]))


def read(root: Root, path: str, trust: users.Trust | None = None) -> Record:
    """Read a claim's file. Raises as `jobfile.read` does, `ClaimLost` and `SpoolAway`."""
    try:
        return jobfile.read(path, trust)
    except FileNotFoundError as error:
        raise lost(root, path) from error


def read_ready(root: Root, path: str) -> Record:
    """Read a claim's file so that events can be added to it. Raises as `read` does."""
    return ready(root, path, read(root, path))


def ready(root: Root, path: str, record: Record) -> Record:
    """The record of a claim whose layout takes further events, written again where it did not.

    Raises `BadJob`, and changes nothing, where that would not read the same.
    """
    if record.columns is not None:
        return record
    text = to_yaml(record.job).encode()
    laid_out = jobfile.parse(text)
    write_anew(root, path, text)
    return laid_out


def put_back(root: Root, name: Name, source: State) -> Name | None:
    """Undo a claim that cannot be read now. Returns the job's new name.

    None where the disk does not allow that: recovery does it later. The reason of a job that was parked
    behind another one must be whole, as it was before the claim.
    """
    with contextlib.suppress(OSError):
        path = f"{root.folder(State.PROCESSING)}/{name}"
        # A rewrite that was cut off leaves two files with the job: neither may leave this directory.
        if any(files.exists(half) for half in _halves(path)):
            return None
        back = free_name(root, source, name.later())
        if files.move(path, f"{root.folder(source)}/{back}"):
            return back
    return None


def write_anew(root: Root, path: str, text: bytes) -> None:
    """Replace a claim's file by one with this text.

    Crash: the new text is left as `.NAME.new`, the old one as `NAME` or `.NAME.old`. Recovery puts the
    old one back and deletes the new one. Two files with one job must not end up in two directories,
    so each step is synced before the next: a power cut must not undo one and keep another.
    Raises `ClaimLost` or `SpoolAway`. An error before the old text has moved leaves the file as it was.
    """
    folder = path.rpartition("/")[0]
    new, old = _halves(path)
    try:
        users.create_like(new, text, path)
    except FileNotFoundError as error:
        raise lost(root, path) from error
    is_there = False
    try:
        files.sync_folder(folder)
        is_there = files.move(path, old)
    finally:
        if not is_there:
            with contextlib.suppress(OSError):
                files.remove(new)
    if not is_there:
        raise lost(root, path)
    files.move(new, path)
    files.sync_folder(folder)
    files.remove(old)
    files.sync_folder(folder)


def _halves(path: str) -> tuple[str, str]:
    """Where the new and the old text of a claim's file are during a rewrite."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.new", f"{folder}/.{name}.old"


def leftovers(root: Root) -> Iterable[tuple[str, str]]:
    """The dot files that a rewrite left in processing/, each with the name of its claim."""
    for text in root.texts_in(root.folder(State.PROCESSING)):
        if text.startswith(".") and text.endswith((".new", ".old")):
            yield text, text[1:-4]
