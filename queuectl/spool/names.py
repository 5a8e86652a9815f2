"""File names: they sort in run order, and the name of a claim says who runs the job.

    RANK-RUNAT-ID.yaml                     waits, or has ended
    RANK-RUNAT-ID+gpu=2.yaml               the same, for a job that needs two slots of the group gpu
    RANK-RUNAT-ID.yaml.held                parked: workers pass it over without reading it
    RANK-RUNAT-ID.yaml.after+build.held    parked for another reason than a person's `hold`
    RANK-RUNAT-ID+gpu=2.yaml.held          parked by a person's `mv`
    RANK-RUNAT-ID@OWNER.yaml               claimed
    RANK-RUNAT-ID+held@OWNER.yaml          claimed where it was parked, which a recovery restores

No id holds a `+`, so names are split there.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import cache

from queuectl.job.model import GROUP, ID, URGENT, State
from queuectl.system import files
from queuectl.times import from_stamp, shifted, stamp
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

FIFO_RANK = 11
_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
# The days of each month. Days that all months have come first, which is fastest.
_DAY = (
    r"(?:(?:[1-9]\d\d\d|0(?!000)\d\d\d)"
    r"(?:(?:0[1-9]|1[0-2])(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])(?:29|30)|(?:0[13578]|1[02])31)"
    rf"|(?!0000){_LEAP_YEAR}0229)"
)
STAMP = rf"{_DAY}T(?:[01]\d|2[0-3])[0-5]\d[0-5]\d\.\d{{6}}Z"
_JOB = rf"(\d\d)-({STAMP})-({ID})"
_GROUP = rf"{GROUP}(?:=[1-9]\d{{0,2}})?"
_SHAPE = rf"\d\d-{STAMP}-{ID}(?:\+{_GROUP})?\.yaml"
#: Who has a job in an editor. No longer, so that a claim's name fits into 255 bytes.
USER = r"[A-Za-z0-9._-]{1,20}"
#: The ending of parked names, and of a dropped file that is to be parked.
PARKED = ".held"
#: The reason of a job that a person holds.
HELD = "held"
#: The reason of a job that somebody has in an editor: `edit+USER`.
EDIT = "edit"
#: The reason of a job on its way to another spool.
MOVING = "moving"
#: The reason of a job that waits for another one: `after+ID`, in a claim's name without the id.
AFTER = "after"
#: Why a name is parked, besides a person's `hold`: the text between `.yaml.` and `.held`.
_REASON = rf"after\+{ID}|{EDIT}\+{USER}|{MOVING}|needs-limits"
_PARKED = rf"{_JOB}\.yaml(?:\.({_REASON}))?\.held"
#: The name of a job of a group that a person has parked with `mv`.
_PARKED_IN_GROUP = rf"{_JOB}\+({_GROUP})\.yaml\.held"
_CLAIMED = rf"{_JOB}(?:\+(?:({_GROUP})|(held)|(after|{_REASON})\.held))?@([A-Za-z0-9-]{{1,80}})\.yaml"
_ALL_PARKED = rf"(?:{_PARKED}/)*"
_ALL = rf"(?:{_SHAPE}/)*"  # not possessive: before Python 3.11.5 that takes what it should not (gh-106052)
#: How many names are matched at once.
_LOT = 1000
#: The states in which jobs may be parked.
PARKING = frozenset({State.PENDING, State.FAILED})
_UNFINISHED = ("~", ".tmp", ".swp", ".part")
#: Endings of the files in pending/ that a worker takes in as jobs.
DROPPED = (".yaml", ".yml", ".json")
#: What the name of a reason in dead/ adds to that of its job.
REASON = ".reason.txt"
#: Where RUNAT stands in a file name.
DUE = slice(3, 26)
#: Where in a file name the id begins.
ID_AT = 27
#: Bytes that the longest name of a job has besides the id: `.RANK-RUNAT-ID@HOST-PID-XXXX.yaml.new`.
AROUND_ID = 91
#: The shortest limit on file names that a queue accepts, in bytes (eCryptfs); an id has at most 52 there.
SHORTEST_LIMIT = 143
#: The longest id that fits anywhere.
SHORT_ID = SHORTEST_LIMIT - AROUND_ID
_FIRST, _REST = "abcdefghjkmnpqrstvwxyz", "0123456789abcdefghjkmnpqrstvwxyz"
_LETTERS = bytes(ord(_REST[byte % len(_REST)]) for byte in range(256))
_LENGTH = 12
_MADE = rf"[{_FIRST}][{_REST}]+"


class Name(NamedTuple):
    """The name of a job's file, in the forms that the module describes.

    `parked` is `HELD`, or the reason that the name gives, such as `after+build`. A claim's name has room
    for the reason but not for the id of `after`; the content has it.
    """

    rank: int
    due: str
    id: str
    owner: str | None = None
    group: str | None = None
    slots: int = 1
    parked: str | None = None

    def __str__(self) -> str:
        stem = f"{self.rank:02}-{self.due}-{self.id}"
        if self.owner:
            return f"{stem}{self._mark}@{self.owner}.yaml"
        if self.parked:
            return f"{stem}.yaml{'' if self.parked == HELD else f'.{self.parked}'}{PARKED}"
        return f"{stem}{self._mark}.yaml"

    @property
    def _mark(self) -> str:
        """What stands behind the id. A parked name leaves the group out: the content has it."""
        if self.parked:
            reason = AFTER if self.parked.startswith(f"{AFTER}+") else self.parked
            return f"+{HELD}" if reason == HELD else f"+{reason}{PARKED}"
        if self.group is None:
            return ""
        return f"+{self.group}" if self.slots == 1 else f"+{self.group}={self.slots}"

    def owned(self, owner: str) -> Name:
        """The name of the claim that `owner` makes on this job."""
        return Name(*self[:3], owner, *self[4:])

    def free(self) -> Name:
        """The name without an owner."""
        return Name(*self[:3], None, *self[4:])

    def unparked(self) -> Name:
        """The free name of a job that is not parked."""
        return self._replace(owner=None, parked=None)

    def grouped(self, group: str | None, slots: int | None) -> Name:
        """The name of a job of this group, or of none."""
        return self._replace(group=group, slots=slots or 1)

    def later(self) -> Name:
        """The free name one microsecond on: no name comes back to a directory it has left."""
        return self._replace(due=stamp(shifted(self.due_at)), owner=None)

    @property
    def due_at(self) -> datetime:
        """When the job may run, or when it was filed."""
        return from_stamp(self.due)


@cache
def _shape() -> re.Pattern[str]:
    return re.compile(_SHAPE, re.ASCII)  # filing a job does not need it


def is_sortable(text: str) -> bool:
    """Whether this is the name of a job that is not parked and not claimed."""
    return _shape().fullmatch(text) is not None


def parse(text: str) -> Name | None:
    """The parts of the name of a job that is not parked and not claimed; None for any other name."""
    return split(text) if is_sortable(text) else None


def split(text: str) -> Name:
    """The parts of a name that `is_sortable`."""
    job_id, _, group = text[ID_AT:-5].partition("+")
    if not group:
        return Name(int(text[:2]), text[DUE], job_id)
    group, _, slots = group.partition("=")
    return Name(int(text[:2]), text[DUE], job_id, None, group, int(slots or 1))


def split_parked(state: State, texts: list[str]) -> tuple[list[str], list[str]]:
    """The names in the directory of a state without those of parked jobs, and these."""
    parked = [text for text in texts if text.endswith(PARKED)]
    # Most often none is parked: a second pass over a million names costs a tenth of listing them.
    if not parked:
        return texts, parked
    others = [text for text in texts if not text.endswith(PARKED)]
    doubtful = _not_matching(_ALL_PARKED, parked) if state in PARKING else parked
    strange = {text for text in doubtful if name_in(state, text) is None}
    return [*others, *strange], [text for text in parked if text not in strange]


def group_in(text: str) -> str:
    """The group in the name of a waiting job; "" for a job without one."""
    return text.partition("+")[2].removesuffix(".yaml").partition("=")[0]


def parse_parked(text: str) -> Name | None:
    """The parts of a parked name, None for any other name."""
    if match := re.fullmatch(_PARKED, text, re.ASCII):
        return Name(int(match[1]), match[2], match[3], parked=match[4] or HELD)
    if match := re.fullmatch(_PARKED_IN_GROUP, text, re.ASCII):
        return split(text.removesuffix(PARKED))._replace(parked=HELD)
    return None


class Kind(Enum):
    """What a name in the directory of a state is."""

    JOB = "a job there, in processing/ a claim"
    DROP = "a file in pending/ that a worker takes in as a job"
    REASON = "the reason beside a job that was put aside in dead/"
    UNFINISHED = "somebody's unfinished work: a draft, a copy, an editor's file"
    STRANGER = "no part of the queue: it is left alone and reported"


def classify(state: State, text: str) -> Kind:
    """What a name in the directory of a state is; no file is read."""
    if name_in(state, text) is not None:
        return Kind.JOB
    if text[:1] == "." or text.endswith(_UNFINISHED):
        return Kind.UNFINISHED
    if state is State.PENDING and text.removesuffix(PARKED).lower().endswith(DROPPED):
        return Kind.DROP
    if state is State.DEAD and text.endswith(REASON):
        return Kind.REASON
    return Kind.STRANGER


def name_in(state: State, text: str) -> Name | None:
    """The parts of a job's file name in the directory of a state, None for any other name."""
    if state is State.PROCESSING:
        return parse_claim(text)
    name = parse(text)
    return parse_parked(text) if name is None and state in PARKING else name


def odd(state: State, texts: list[str]) -> list[str]:
    """Those names in the directory of a state that are not `Kind.JOB`.

    Many names are matched at once: of a million that takes half the time of as many calls. Parked names
    are jobs, too.
    """
    if state is State.PROCESSING:
        return [text for text in texts if parse_claim(text) is None]
    return [text for text in _not_matching(_ALL, texts) if name_in(state, text) is None]


def _not_matching(pattern: str, texts: list[str]) -> list[str]:
    """The texts of those lots of which not all match; the pattern is that of a whole lot."""
    found = []
    for first in range(0, len(texts), _LOT):
        lot = texts[first : first + _LOT]
        if not re.fullmatch(pattern, "/".join((*lot, "")), re.ASCII):  # no file name holds a slash
            found += lot
    return found


def parse_claim(text: str) -> Name | None:
    """The parts of a name in processing/, None for any other name."""
    match = re.fullmatch(_CLAIMED, text, re.ASCII)
    if match is None:
        return None
    rank, due, job_id, mark, held, reason, owner = match.groups()
    group, _, slots = (mark or "").partition("=")
    return Name(int(rank), due, job_id, owner, group or None, int(slots or 1), held or reason)


def id_in(text: str) -> str:
    """The id in the name of a job, parked, claimed or neither, or in the draft of one."""
    stem = text.removeprefix(".")[ID_AT:].removesuffix(".tmp")
    if stem.endswith(PARKED):
        return _id_in_parked(stem)
    head, at, _ = stem.partition("@")
    return (head if at else head.removesuffix(".yaml")).partition("+")[0]


def _id_in_parked(stem: str) -> str:
    """The id in a parked name without rank and due. An id may itself end in `.yaml` or `.moving`."""
    head, plus, mark = stem.removesuffix(PARKED).partition("+")
    if not plus and head.endswith(".yaml"):
        return head[: -len(".yaml")]
    if plus and re.fullmatch(rf"{_GROUP}\.yaml", mark, re.ASCII) and not head.endswith(f".yaml.{AFTER}"):
        return head
    return head.rpartition(".")[0].removesuffix(".yaml")


def rank_of(priority: int, *, fifo: bool) -> int:
    """The rank for a priority: 00 is the most urgent. In fifo mode every job comes after all ranked ones."""
    return FIFO_RANK if fifo else URGENT - priority


def priority_of(rank: int, default: int) -> int:
    """The priority that a rank stands for; `default` for the rank of fifo mode."""
    return URGENT - rank if 0 <= rank <= URGENT else default


def make_id() -> str:
    """A new short id: 59 random bits, a letter first.

    Among a million jobs the chance that any two have the same id is 1 in a million.
    """
    drawn: bytes = files.kernel.urandom(_LENGTH)
    return _FIRST[drawn[0] % len(_FIRST)] + drawn[1:].translate(_LETTERS).decode()


def is_made_id(job_id: str) -> bool:
    """Whether `make_id` could have made this id. Such ids are not reserved."""
    return len(job_id) == _LENGTH and re.fullmatch(_MADE, job_id) is not None


def id_from_file_name(text: str) -> str:
    """The id that the name of a dropped file suggests. It is always valid."""
    text = text.removesuffix(PARKED)
    stem = next((text[: -len(end)] for end in DROPPED if text.lower().endswith(end)), text)
    legal = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:80].rstrip("._-")
    return legal or make_id()
