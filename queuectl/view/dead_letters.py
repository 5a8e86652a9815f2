"""Dead letters by reason; each file is read once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.job.history import last_attempt
from queuectl.job.model import State
from queuectl.spool import jobs, output
from queuectl.spool.jobs import Found
from queuectl.spool.names import parse
from queuectl.view import lookup
from queuectl.view.wording import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from queuectl.spool.root import Root

_WORKER = re.compile(r"\b[A-Za-z0-9-]+-\d+-[0-9a-f]{4}\b")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PATH = re.compile(r"(?<![\w.])/\S+")
#: The search knows this many characters of a command and of a reason.
_KNOWN = 500


def kind_of(reason: str) -> str:
    """A reason without the parts that differ from job to job: worker names, quoted words, paths."""
    start = reason[:2000]
    return escaped(_PATH.sub("…", _QUOTED.sub("'…'", _WORKER.sub("…", start)))[:200]) or "(no reason)"


class Letter(NamedTuple):
    """Why a job died: the kind of its reason, and the text for the search, in lower case."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead jobs of one listing, newest first, and the letters read so far. It is immutable."""

    names: Sequence[str] = ()
    letters: Mapping[str, Letter] = field(default_factory=dict)

    @property
    def unread(self) -> int:
        """The number of letters that have not been read yet."""
        return len(self.names) - len(self.letters)

    def learn(
        self, names: Sequence[str], seconds: float, read: Callable[[str], Letter | None]
    ) -> DeadLetters:
        """The letters of a newer listing: the known ones, and those that `read` gives within `seconds`."""
        known = {name: self.letters[name] for name in names if name in self.letters}
        end = times.clock.monotonic() + seconds
        for name in names if len(known) < len(names) else ():
            if name not in known:
                if times.clock.monotonic() > end:
                    break
                if (letter := read(name)) is not None:
                    known[name] = letter
        return DeadLetters(names, known)

    def matching(self, kind: str | None, words: str) -> Iterator[str]:
        """The names of letters of a kind (or of any) that contain these words in the name or the text."""
        words = words.lower()
        for name in self.names:
            letter = self.letters.get(name)
            if letter is None or (kind is not None and letter.kind != kind):
                continue
            if not words or words in name.lower() or words in letter.text:
                yield name

    def groups(self, words: str = "") -> list[tuple[str, list[str]]]:
        """Each kind of reason with the names of its letters, newest first; the most frequent kind first."""
        found: dict[str, list[str]] = {}
        for name in self.matching(None, words):
            found.setdefault(self.letters[name].kind, []).append(name)
        return sorted(found.items(), key=lambda item: -len(item[1]))


def read_letter(root: Root, text: str) -> Letter | None:
    """Read a dead job's file; None if it is gone or the disk refuses it."""
    name = parse(text)
    try:
        found = jobs.read(Found(State.DEAD, name, f"{root.folder(State.DEAD)}/{text}")) if name else None
    except OSError:
        return None
    if found is None:
        return None
    reason = lookup.reason_for(found)
    shown = (escaped(reason[:_KNOWN]), command_of(found)[:_KNOWN], last_words(root, found))
    return Letter(kind_of(reason), "\n".join(shown).lower())


def command_of(found: Found) -> str:
    """The command as it is shown or, if the file cannot be read, the reason."""
    return escaped(found.job.command_line if found.job else f"(it cannot be read: {found.unreadable})")


#: The last line is searched in this many bytes at the end of standard error.
_LAST_WORDS = 1024


def last_words(root: Root, found: Found) -> str:
    """The last line that a failed run printed to standard error, which often says more than its status."""
    attempt = last_attempt(found.job.history) if found.job else 0
    if not attempt or found.state not in {State.FAILED, State.DEAD}:
        return ""
    try:
        _, data = output.tail(root, found.id, attempt, "err", _LAST_WORDS)
    except OSError:
        return ""
    lines = data.decode("utf-8", "replace").rstrip().splitlines()
    return escaped(lines[-1].strip()) if lines else ""
