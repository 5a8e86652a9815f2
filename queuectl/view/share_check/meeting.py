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
    from typing import Any, Self

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


class Table:
    """The directory in which two runs meet. A file there appears complete, under the name of its run.

    `call` is what the share is asked to do now; it has answered everything before. `is_left` is set once
    nobody waits for the run.
    """

    def __init__(self, place: Path, tell: Callable[[str], None] = lambda _: None) -> None:
        self.place = place
        self.path = str(place)
        self.tell = tell
        self.me = f"{host.host_name()}-{files.kernel.getpid()}-{files.kernel.urandom(2).hex()}"
        self.other = ""
        self.silent: list[str] = []
        self.ended = [self.me]
        self.call = ""
        self.is_left = False
        self._since = times.clock.monotonic()
        self._root = Root(place)

    def asks(self, call: str) -> None:
        """Note the next call to the share; raises `Ended` once nobody waits for the run."""
        if self.is_left:
            raise Ended
        self.call, self._since = call, times.clock.monotonic()

    def silence(self) -> float:
        """Seconds since the share last answered."""
        return times.clock.monotonic() - self._since

    def sit(self) -> Self:
        """Take a seat: a file that keeps a run which leaves just then from removing the directory."""
        if what := "a link" if self.place.is_symlink() else "a file" if self.place.is_file() else None:
            raise QueueError(f"{self.path} is {what}, where a directory was to be made.", "Delete it.")
        end = times.clock.monotonic() + SEATING
        while True:
            try:
                self.place.mkdir(exist_ok=True)
                files.create(f"{self.path}/.{self.me}.seat")
            except OSError as error:
                # If two make a directory at once, GlusterFS makes none and tells both that it exists.
                is_late = times.clock.monotonic() > end
                if is_late or error.errno not in {errno.ENOENT, errno.EEXIST, errno.ENODATA}:
                    raise
                times.clock.sleep(LOOK)
            else:
                return self

    @property
    def is_first(self) -> bool:
        """Whether this run does what only one of the two may do."""
        return self.me < self.other

    def common(self, what: str) -> str:
        """The path of a file that both runs use."""
        return f"{self.path}/{min(self.me, self.other)}.{what}"

    def put(self, step: str, facts: object = None) -> None:
        """Announce a step, with facts for the other run."""
        self.asks("create and rename a file")
        hidden = f"{self.path}/.{self.me}.new"
        files.create(hidden, json.dumps(facts).encode())
        files.move(hidden, f"{self.path}/{self.me}.{step}")

    def names(self) -> list[str]:
        """The names in the directory, listed as the queue lists its own."""
        self.asks("list the directory")
        return self._root.texts_in(self.path)

    def find_other(self, patience: float) -> bool:
        """Wait for another run that answers; `silent` then holds those that did not."""
        end = times.clock.monotonic() + patience
        met: set[str] = set()
        while True:
            names = self.names()
            hellos = [text for text in names if text.endswith(".hello") and _OF_A_RUN.match(text)]
            others = {text.removesuffix(".hello") for text in hellos} - {self.me}
            for name in others - met:
                self.put(f"meets-{name}")
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

    def get(self, step: str) -> Any:
        """Wait until the other run announces a step; returns its facts."""
        begun = times.clock.monotonic()
        is_told = False
        while f"{self.other}.{step}" not in (names := self.names()):
            passed = times.clock.monotonic() - begun
            if f"{self.other}.hello" not in names or passed > STEP:
                self.ended.append(self.other)
                raise self.stuck()
            if passed > TELL and not is_told:
                is_told = True
                self.tell(f"Waiting for {self.other} to come to its step `{step}`, for {STEP:g} s at most.")
            times.clock.sleep(LOOK)
        return json.loads(files.read(f"{self.path}/{self.other}.{step}"))

    def swap(self, step: str, facts: object = None) -> Any:
        """Announce a step and wait for the other run to do so; returns its facts."""
        self.put(step, facts)
        return self.get(step)

    def stuck(self) -> QueueError:
        """The error for a run whose partner has gone away."""
        return QueueError(f"The run on the other host ({self.other}) does not go on.", "Start both again.")

    def clear(self) -> None:
        """Remove the files of the runs in `ended`, and files that others left long ago."""
        with contextlib.suppress(OSError):  # the run has its own error by now
            now = files.modified(f"{self.path}/.{self.me}.seat")
            for text in self._root.texts_in(self.path):
                is_ours = text.removeprefix(".").startswith(tuple(f"{name}." for name in self.ended))
                if is_ours or self._is_left(text, now):
                    files.remove(f"{self.path}/{text}")

    def _is_left(self, text: str, now: float) -> bool:
        with contextlib.suppress(FileNotFoundError):  # another run clears it away, too
            return bool(_OF_A_RUN.match(text)) and now - files.modified(f"{self.path}/{text}") > LEFT
        return False
