"""The description of a worker: `workers/NAME.yaml`, whose last line is its beat."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from queuectl import documents
from queuectl.errors import BadJob
from queuectl.job.layout import scalar
from queuectl.system import files, host
from queuectl.system.host import kernel_id
from queuectl.times import iso, parse_moment

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from queuectl.spool.root import Root

#: The version of the protocol that this program speaks. Version 1, which no description names, has no parked
#: names and no fields `after` and `unique`.
VERSION = 2
#: The kinds of workers that the command line starts. These read requests; a Python program does not.
DETACHED, FOREGROUND, DRAIN = "detached", "foreground", "drain"
_HEARS = frozenset({DETACHED, FOREGROUND, DRAIN})
#: The kind of a member that lives for one act of a person.
BY_HAND = "by hand"
#: Bytes of the line of the beat. They never change, so that a beat can be written in place.
_BEAT_WIDTH = 160
#: A clock offset of this many seconds or more was not written by a worker.
_NO_OFFSET = 1e12


class Description(NamedTuple):
    """What a worker has written about itself. `place` is as `place_of` returns it."""

    name: str
    host: str
    pid: int
    kind: str
    place: str
    started_at: str
    beat: int
    beat_at: str
    jobs_done: int
    clock_offset: float | None
    version: int = 1

    @property
    def hears(self) -> bool:
        """Whether the worker reads requests to stop and to cancel."""
        return self.kind in _HEARS

    @property
    def is_old(self) -> bool:
        """Whether it does not know all that a job may ask for."""
        return self.version < VERSION

    @property
    def how_to_end(self) -> str:
        """How to end a worker that reads no requests: the rest of a sentence about it."""
        return (
            f"is a Python program ({self.kind}), which hears no request: "
            f"end it {self._where} with `kill {self.pid}`."
        )

    @property
    def how_to_wake(self) -> str:
        """The command that lets a stopped worker go on, and where to run it: the subject of a sentence."""
        return f"`kill -CONT {self.pid}` {self._where}"

    @property
    def _where(self) -> str:
        """Where its pid is its own: in another process namespace the pid is that of a stranger."""
        theirs, ours = self.place.split("/"), kernel_id().split("/")
        if theirs[0] == ours[0] and theirs[1:2] != ours[1:2]:
            return f"inside its container {self.host} (another process namespace of this machine)"
        return f"on {self.host}"


def place_of(root: Root) -> str:
    """The kernel and mount of this process. Processes of one place see each other and their locks."""
    return f"{kernel_id()}/{files.kernel.stat(root.workers).st_dev}"


def path_of(root: Root, name: str) -> str:
    """The path of a worker's description."""
    return f"{root.workers}/{name}.yaml"


def head(root: Root, name: str, kind: str, now: datetime) -> bytes:
    """The lines of the description of this process, before the beat."""
    facts = {
        "name": name,
        "host": host.here.full_name(),
        "pid": str(files.kernel.getpid()),
        "kind": kind,
        "version": str(VERSION),
        "place": place_of(root),
        "started_at": iso(now),
    }
    return "".join(f"{key}: {scalar(text)}\n" for key, text in facts.items()).encode()


def beat_line(count: int, now: datetime, jobs_done: int, clock_offset: float | None) -> bytes:
    """The last line of a description. `clock_offset` is by how many seconds the host's clock is ahead."""
    beat: dict[str, Any] = {"count": count, "at": iso(now), "jobs_done": jobs_done}
    if clock_offset is not None:
        beat["clock_offset"] = round(clock_offset, 3)
    text = f"beat: {json.dumps(beat)}"
    return (text.ljust(_BEAT_WIDTH - 1) + "\n").encode()


def describe(root: Root, name: str) -> Description | None:
    """Read a worker's description; None where it is missing or broken."""
    try:
        # Read apart: as one document the parts need PyYAML, whose import takes as long as many jobs.
        text, _, last = documents.text_of(files.read(path_of(root, name))).rpartition("\nbeat: ")
        tree: Any = documents.load(f"{text}\n").tree
        beat: Any = documents.load_json(last)
        return Description(
            name=name,
            host=_text(tree["host"]),
            pid=int(tree["pid"]),
            kind=_text(tree["kind"]),
            place=_text(tree["place"]),
            started_at=_moment(tree["started_at"]),
            beat=int(beat["count"]),
            beat_at=_moment(beat["at"]),
            jobs_done=int(beat["jobs_done"]),
            clock_offset=_seconds(beat["clock_offset"]) if "clock_offset" in beat else None,
            version=int(tree.get("version", "1")),
        )
    except (FileNotFoundError, files.NotAFile, BadJob, KeyError, TypeError, ValueError, AttributeError):
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _moment(value: Any) -> str:
    parse_moment(text := _text(value))
    return text


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not abs(seconds) < _NO_OFFSET:
        raise ValueError(value)
    return seconds


def described(root: Root) -> list[str]:
    """The names of the workers that have a description, sorted."""
    return sorted(text[:-5] for text in root.texts_in(root.workers) if text.endswith(".yaml"))


def members(root: Root) -> list[Description]:
    """The descriptions of all workers and programs that joined, by name, without those `BY_HAND`."""
    found = (describe(root, name) for name in described(root))
    return [one for one in found if one is not None and one.kind != BY_HAND]
