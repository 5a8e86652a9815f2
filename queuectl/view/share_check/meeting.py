"""How two runs meet: a directory in which each leaves files for the other."""

from __future__ import annotations

import contextlib
import errno
import json
import re
from typing import TYPE_CHECKING

from queuectl import times
from queuectl.errors import QueueError
from queuectl.spool.root import Root
from queuectl.system import files, host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

FOLDER = ".queuectl-check"
#: Seconds between looks for the other run's next file.
LOOK = 0.02
#: A run that takes longer than this many seconds for one step is gone.
STEP = 60.0
#: After this many seconds the user reads what the run waits for.
TELL = 5.0
#: A run tries for this many seconds to make its seat while the directory comes and goes.
SEATING = 5.0
#: Files that are this many seconds older than a run's own were left by a run that was killed.
LEFT = 3600.0
_OF_A_RUN = re.compile(r"\.?[A-Za-z0-9-]+-\d+-[0-9a-f]{4}\.", re.ASCII)


class Ended(Exception):
    """The run is over: nobody waits for it."""


class Pulse:
    """The call to the share that is under way, and since when; the share has answered all earlier ones."""

    def __init__(self) -> None:
        self.at = ""
        self.since = times.clock.monotonic()
        self.is_ended = False

    def beat(self, at: str) -> None:
        """Note the next call; raises `Ended` once nobody waits for the run."""
        if self.is_ended:
            raise Ended
        self.at, self.since = at, times.clock.monotonic()

    def silence(self) -> float:
        """Seconds since the share last answered."""
        return times.clock.monotonic() - self.since


class Table:
    """The directory in which two runs meet. A file there appears complete, under the name of its run."""

    def __init__(self, path: str, tell: Callable[[str], None], pulse: Pulse) -> None:
        self.path = path
        self.pulse = pulse
        self._tell = tell
        self._root = Root(path)
        self.me = f"{host.host_name()}-{files.kernel.getpid()}-{files.kernel.urandom(2).hex()}"
        self.other = ""
        self.silent: list[str] = []
        self.ended = [self.me]

    @classmethod
    def at(
        cls, place: Path, tell: Callable[[str], None] = lambda _: None, pulse: Pulse | None = None
    ) -> Table:
        """Take a seat: a file that keeps a run which leaves just then from removing the directory."""
        if what := "a link" if place.is_symlink() else "a file" if place.is_file() else None:
            raise QueueError(f"{place} is {what}, where a directory was to be made.", "Delete it.")
        table = cls(str(place), tell, pulse or Pulse())
        end = times.clock.monotonic() + SEATING
        while True:
            try:
                place.mkdir(exist_ok=True)
                files.create(f"{place}/.{table.me}.seat")
            except OSError as error:
                # If two make a directory at once, GlusterFS makes none and tells both that it exists.
                is_late = times.clock.monotonic() > end
                if is_late or error.errno not in {errno.ENOENT, errno.EEXIST, errno.ENODATA}:
                    raise
                times.clock.sleep(LOOK)
            else:
                return table

    @property
    def is_first(self) -> bool:
        """Whether this run does what only one of the two may do."""
        return self.me < self.other

    def common(self, what: str) -> str:
        """The path of a file that both runs use."""
        return f"{self.path}/{min(self.me, self.other)}.{what}"

    def put(self, step: str, facts: object) -> None:
        """Announce a step, with facts for the other run."""
        self.pulse.beat("create and rename a file")
        hidden = f"{self.path}/.{self.me}.new"
        files.create(hidden, json.dumps(facts).encode())
        files.move(hidden, f"{self.path}/{self.me}.{step}")

    def find_other(self, patience: float) -> bool:
        """Wait for another run that answers; `silent` then holds those that did not."""
        end = times.clock.monotonic() + patience
        met: set[str] = set()
        while True:
            names = self.names()
            hellos = [text for text in names if text.endswith(".hello") and _OF_A_RUN.match(text)]
            others = {text.removesuffix(".hello") for text in hellos} - {self.me}
            for name in others - met:
                self.put(f"meets-{name}", None)
            met |= others
            answered = [name for name in others if f"{name}.meets-{self.me}" in names]
            if len(answered) > 1:
                raise QueueError(
                    "More than two runs check this directory at once.", "Let two of them do it, alone."
                )
            if answered:
                self.other = answered[0]
                return True
            if times.clock.monotonic() > end:
                self.silent = sorted(others)
                return False
            times.clock.sleep(LOOK)

    def names(self) -> list[str]:
        """The names in the directory."""
        self.pulse.beat("list the directory")
        return self._root.texts_in(self.path)

    def wait(self, step: str) -> float:
        """Wait until the other run announces a step; returns the seconds that this took."""
        begun = times.clock.monotonic()
        is_told = False
        while f"{self.other}.{step}" not in (names := self.names()):
            passed = times.clock.monotonic() - begun
            if f"{self.other}.hello" not in names or passed > STEP:
                self.ended.append(self.other)
                raise self.stuck()
            if passed > TELL and not is_told:
                is_told = True
                self._tell(f"Waiting for {self.other} to come to its step `{step}`, for {STEP:g} s at most.")
            times.clock.sleep(LOOK)
        return times.clock.monotonic() - begun

    def stuck(self) -> QueueError:
        """The error for a run whose partner has gone away."""
        return QueueError(f"The run on the other host ({self.other}) does not go on.", "Start both again.")

    def get(self, step: str) -> Any:
        """Wait until the other run announces a step; returns its facts."""
        self.wait(step)
        return json.loads(files.read(f"{self.path}/{self.other}.{step}"))

    def clear(self) -> None:
        """Remove the files of the runs in `ended`, and files that others left long ago."""
        with contextlib.suppress(OSError):
            of_ended = tuple(f"{hidden}{name}." for name in self.ended for hidden in ("", "."))
            now = files.modified(f"{self.path}/.{self.me}.seat")[0]
            for text in self._root.texts_in(self.path):
                if text.startswith(of_ended) or self._is_left(text, now):
                    files.remove(f"{self.path}/{text}")

    def _is_left(self, text: str, now: float) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return bool(_OF_A_RUN.match(text)) and now - files.modified(f"{self.path}/{text}")[0] > LEFT
        return False
