"""Dead letters: grouped by why they died, each file read once."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from queuectl.job import State
from queuectl.spool import finding
from queuectl.spool.finding import Found
from queuectl.spool.names import parse
from queuectl.spool.wording import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from queuectl.spool.root import Root

_WORKER = re.compile(r"\b[A-Za-z0-9-]+-\d+-[0-9a-f]{4}\b")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PATH = re.compile(r"(?<![\w.])/\S+")


def kind_of(reason: str) -> str:
    """A reason without what differs from job to job: names of workers, quoted words, paths."""
    return escaped(_PATH.sub("…", _QUOTED.sub("'…'", _WORKER.sub("…", reason)))[:200]) or "(no reason)"


@dataclass(frozen=True, slots=True)
class Group:
    """Dead jobs with the same kind of reason; the names newest first."""

    kind: str
    names: tuple[str, ...]


class DeadLetters:
    """The reasons of dead jobs, remembered by file name: what lies in dead/ does not change there."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._reasons: dict[str, str] = {}
        self._kinds: dict[str, str] = {}

    def learn(self, names: Sequence[str], seconds: float) -> int:
        """Read the newest that are not known yet, for at most so long; returns how many are left."""
        known = self._reasons
        if len(known) > len(names):
            present = set(names)
            known = self._reasons = {name: why for name, why in known.items() if name in present}
        if len(known) == len(names):
            return 0
        end = time.monotonic() + seconds
        for done, name in enumerate(names):
            if name not in known:
                if time.monotonic() > end:
                    return len(names) - done
                known[name] = self._read(name)
        return 0

    def _read(self, text: str) -> str:
        name = parse(text)
        found = finding.read(Found(State.DEAD, name, self.path(text))) if name else None
        reason = finding.reason_for(found) if found else ""
        self._kinds.setdefault(reason, kind_of(reason))
        return reason

    def path(self, text: str) -> str:
        """Where the file of a dead job is."""
        return f"{self._root.folder(State.DEAD)}/{text}"

    def reason(self, text: str) -> str:
        """Why the job in this file died, "" where that has not been read."""
        return self._reasons.get(text, "")

    def matching(self, names: Iterable[str], kind: str | None, words: str) -> Iterator[str]:
        """Those of a kind, or of any, whose id or reason has these words in it."""
        words = words.lower()
        for name in names:
            reason = self._reasons.get(name)
            if reason is None or (kind is not None and self._kinds.get(reason) != kind):
                continue
            if not words or words in name.lower() or words in reason.lower():
                yield name

    def groups(self, names: Iterable[str], words: str = "") -> list[Group]:
        """All kinds of reasons, the most frequent first."""
        found: dict[str, list[str]] = {}
        for name in self.matching(names, None, words):
            found.setdefault(self._kinds[self._reasons[name]], []).append(name)
        return [
            Group(kind, tuple(members))
            for kind, members in sorted(found.items(), key=lambda item: -len(item[1]))
        ]
