"""The words for people: a sentence for each kind of finding, and text from outside made safe to show."""

from __future__ import annotations

import re
import shlex
from enum import Enum, unique
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from queuectl.job.model import State
from queuectl.spool.names import DROPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_NICE = {"\n": "⏎", "\t": " ", "\r": "␍", "\x1b": "␛"}
#: Characters of an error in lists, tables and sentences. The job's file and `--json` have the whole error.
ERROR_SHOWN = 1000

_DELETED = "`--repair` deletes it."
_ELSEWHERE = "Move it out of the spool: `mv {quoted} ~/`."
_RUN = "To have it run: `mv -n {quoted} {pending}`."


@unique
class Kind(Enum):
    """What a person may have to know: what is the case and what to do, with the facts of a finding in braces.

    The facts `quoted` and `pending` are made of the finding's path. Commands are in backticks.
    """

    # of the queue, in `status` and on the dashboard
    PAUSED = ("Paused: no new job is started", "`queuectl resume` ends that.")
    SOME_PAUSED = (
        "Paused: no job of the group {group} is started",
        "`queuectl group resume {group}` ends that.",
    )
    NO_WORKER = ("No worker is alive", "`queuectl worker start` starts one.")
    FROZEN = (
        "Worker {name}: its process is there, but shows no sign of life",
        "If it is stopped, {how_to_wake} lets it go on.",
    )
    DIED = ("{number} died at work", "The next worker, or `queuectl check --repair`, clears up.")
    CLOCK = ("{warning}", "")
    DEAD_JOBS = ("{number} dead", "See `queuectl dlq list`.")
    TOO_WIDE = (
        "Job {id} wants {wanted} slots, and the group {group} has {size}",
        "`queuectl group set {group} --slots {wanted}`, or `queuectl set {id} slots={size}`.",
    )
    STUCK = ("{number:,} cannot run: {what}", "Retry that, or `queuectl cancel {first} --dependents`.")
    HELD = ("Job {job} waits for a program that is writing to its file, {file}", "")
    DROPPED = ("{number} dropped in pending/, not taken in by a worker yet ({first})", "")
    LEFT_ALONE = ("1 file or folder that is no job is left alone ({some})", "See `queuectl check`.")
    MANY_LEFT_ALONE = (
        "{number} files or folders that are no jobs are left alone ({some})",
        "See `queuectl check` for all of them.",
    )
    BAD_CONFIG = ("{why}", "{remedy} Workers keep the last good values.")
    # of jobs that are waited for
    OWNER_DEAD = (
        "{job}: its worker {name} is dead",
        "A live worker, or `queuectl check --repair`, takes it up.",
    )
    OWNER_FROZEN = ("{job}: its worker {name} stands still", "{how_to_wake} lets it go on.")
    # of one job: parts of the sentence in `status ID`
    QUEUE_PAUSED = ("the queue is paused", "`queuectl resume`")
    NOBODY_WORKS = ("no worker is alive", "`queuectl worker start`")
    PARKED_BY_HAND = ("a person holds it", "`queuectl release {id}` lets it run")
    IN_EDITOR = ("in an editor of {user}", "`queuectl hold {id}` takes it out of there")
    MOVING = (
        "on its way to another spool",
        "`queuectl move {id} --to DIR` with that spool ends it",
    )
    WAITS_FOR = ("waits for {what}", "")
    CANNOT_RUN = ("cannot run: {what}", "retry that job, or `queuectl release --now {id}`")
    GROUP_PAUSED = ("{group} is paused", "`queuectl group resume {group}`")
    WAITS_FOR_SLOT = ("waits for {what} of {group}: {used} of {size} in use{resting}", "")
    TOO_MANY_SLOTS = (
        "wants {wanted} slots, {group} has {size}",
        "`queuectl group set {group} --slots {wanted}`",
    )
    LATER = ("{what} at {when}", "")
    BROKEN = ("its file is broken: {why}", "")
    OPEN = ("a program has its file open for writing", "")
    AHEAD = ("{number:,} jobs before it", "")
    ONE_AHEAD = ("1 job before it", "")
    RUNS = ("running on {owner}{since}", "")
    LOST = (
        "its worker {owner} died ({why}); the next one, or `queuectl check --repair`, takes it up",
        "",
    )
    DONE = ("done, exit status {code}", "")
    ENDED = ("nothing is recorded of its end", "")
    DEAD = ("{why}", "`queuectl retry {id}` runs it again")
    IS_ELSEWHERE = ("{why}", "`queuectl -s {there} status {id}` shows it")
    DEAD_UNREAD = ("{why}", "mend {file}, then `queuectl retry {id}` runs it again")
    DEAD_EXPLAINED = ("{why}", "what helps is told in {file}.reason.txt")
    # of a file, in `check`
    UNREADABLE = ("it cannot be read: {why}", "Mend it by hand.")
    NOT_WRITABLE = (
        "this user may not write to this directory, so no job comes in or goes out",
        "See what forbids it: `ls -ld {quoted}; lsattr -d {quoted}`.",
    )
    NOT_OF_A_SPOOL = ("it is no part of a spool", _ELSEWHERE)
    SAME_ID = (
        "its id is also that of {other}",
        "Look at both and move one of them out of the spool: `mv {quoted} ~/`.",
    )
    DEAD_OWNER = ("its worker {owner} is dead", "`--repair` files it again ({why}).")
    LEFT_CLAIM = (
        "its worker {owner} is dead, and `--repair` could not take the job over: {why}",
        "{remedy} Until then the job waits.",
    )
    MISNAMED = (
        "its content asks for the name {right}",
        "A worker or `--repair` files it again under that name.",
    )
    LONG_IN_EDITOR = (
        "it has been in an editor of {user} for more than a day",
        "If nobody edits it any more: `queuectl hold {id}`, then `queuectl release {id}`.",
    )
    LEFT_MOVING = (
        "its way to another spool, {to}, was cut off",
        "`queuectl move {id} --to {to}` finishes it. Where that spool is gone: `mv -n {quoted} {held}`.",
    )
    MISPARKED = (
        "it is parked behind {pointer}, which it does not ask to wait for",
        "A worker or `--repair` lets it wait for what it asks for.",
    )
    UNSUCCESSFUL = ("it is in done/, and did not end with status 0", _RUN)
    NEVER_RUN = (
        "it is in done/, and nothing shows that it ever ran",
        f"{_RUN} Otherwise leave it to `queuectl prune`.",
    )
    FOLDER = ("a directory is not a job", _ELSEWHERE)
    DROP = ("no worker has taken it in yet", "Start one: `queuectl worker start`.")
    UNCLAIMED = ("a job that no worker has claimed", _RUN)
    STRANGER = ("its name is not that of a job", f"{_RUN} Otherwise: `mv {{quoted}} ~/`.")
    DRAFT = ("a filing that was cut off left it", _DELETED)
    REWRITE = ("a rewrite that was cut off left it", "`--repair` mends it.")
    REASON = ("its job has gone", _DELETED)
    LOG = ("no job has its id", _DELETED)
    BATCH = ("no job of this batch is left", _DELETED)
    HALF_FILED = (
        "{filed} of the {size} jobs of the batch {name} are filed",
        "The line that began it files the others, with `--batch {name} --resume`.",
    )
    ID = ("no job has this id", "`--repair` frees it.")
    KEY = ("the job that had this unique key last is gone", _DELETED)
    DEAD_WORKER = ("this worker is dead", "`--repair` clears it ({why}).")
    KEPT_WORKER = (
        "this worker is dead, and `--repair` could not take a job over from it",
        "`--repair` clears it once that is mended.",
    )
    NO_GROUP = ("it is no group: groups are directories, named in lower case", _ELSEWHERE)
    NO_SLOT = ("it is no slot of its group", _ELSEWHERE)
    DEAD_SLOT = ("the worker {owner} that had this slot is dead", "`--repair` frees it ({why}).")
    SAME_SLOT = ("its group has this slot already", _DELETED)
    GONE_SLOT = ("the slot that was to go has gone", _DELETED)
    LEFT_BY_WORKER = ("it belongs to no live worker", _DELETED)


class Finding(NamedTuple):
    """One thing that a person may have to know: its kind, the file that it is about, the facts of its words.

    `mend` repairs it. Without one it is for a person, or for the recovery that precedes every repair.
    """

    kind: Kind
    facts: Mapping[str, object] = MappingProxyType({})
    path: str = ""
    mend: Callable[[], object] | None = None

    @property
    def problem(self) -> str:
        """What is the case, without a full stop."""
        return self._filled(self.kind.value[0])

    @property
    def remedy(self) -> str:
        """What a person can do, "" if there is nothing to do."""
        return self._filled(self.kind.value[1])

    @property
    def sentence(self) -> str:
        """The file, what is the case, and what to do."""
        place = f"{self.path}: " if self.path else ""
        return f"{place}{self.problem}. {self.remedy}".rstrip()

    @property
    def clause(self) -> str:
        """What is the case, and in brackets what to do, as a part of a sentence."""
        return f"{self.problem} ({self.remedy})" if self.remedy else self.problem

    def _filled(self, text: str) -> str:
        folder, _, name = self.path.rpartition("/")
        ending = "" if name.lower().endswith(DROPPED) else ".yaml"
        pending = f"{folder.rpartition('/')[0]}/{State.PENDING}/{name}{ending}"
        return text.format(**self.facts, quoted=shlex.quote(self.path), pending=shlex.quote(pending))


def shortened(text: str, most: int = ERROR_SHOWN) -> str:
    """The first `most` characters, and an ellipsis where more follow."""
    return text if len(text) <= most else f"{text[:most]}…"


def visible(text: str) -> str:
    """The text on one line, with control characters shown as symbols or numbers."""
    return CONTROL.sub(lambda found: _NICE.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def escaped(text: str) -> str:
    r"""The text on one line, with control characters as escapes in ASCII: `\n`, `\x1b`."""
    return CONTROL.sub(lambda found: _ESCAPES.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def escaped_lines(text: str) -> str:
    """Like `escaped`, with line ends and tabs kept."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))
