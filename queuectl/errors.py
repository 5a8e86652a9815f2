"""Every way in which the queue refuses: each error takes data and writes its own two sentences."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import Self


class QueueError(Exception):
    """What is wrong (`problem`) and what to do about it (`remedy`), each one sentence.

    `exit_status` is what the command line returns: 1 it could not be done, 2 wrong usage,
    3 no such job, 75 the spool is full, read-only or out of reach.
    """

    exit_status = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy

    def at(self, place: str) -> Self:
        """The same error with the file, or other place, that it is about named first."""
        self.problem = f"{place}: {self.problem}"
        self.args = (f"{self.problem} {self.remedy}".strip(),)
        return self


class BadJob(QueueError):
    """A job that cannot be taken as it stands; `field` names the place, where there is one."""

    exit_status = 2

    def __init__(self, problem: str, remedy: str = "", *, field: str | None = None) -> None:
        super().__init__(problem, remedy)
        self.field = field


class BadDocument(BadJob):
    """A text that is not the YAML or JSON that the queue reads; `line` counts from 1."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        place = "" if line is None else f" (line {line})"
        super().__init__(f"It cannot be read as YAML: {problem}{place}.", "Mend the text.")
        self.line = line


class BadEncoding(BadDocument):
    """Bytes that are no text in an encoding that the queue reads; `byte` counts from 0."""

    def __init__(self, byte: int) -> None:
        super().__init__("")
        BadJob.__init__(
            self,
            f"It is not text in UTF-8, nor in UTF-16 with its mark (byte {byte}).",
            "Convert it, for example with `iconv -f ISO-8859-1 -t UTF-8`.",
        )


class UnreadableJob(BadJob):
    """A job whose file has to be mended before anything can be done with it; nothing was changed."""

    def __init__(self, job_id: str, path: str, why: str) -> None:
        super().__init__(f"Job {job_id} cannot be read: {why}", f"Mend {path}, then try again.")


class Completed(BadJob):
    """A record of another queue, or of this one, that says of itself that it has been done."""

    def __init__(self) -> None:
        super().__init__(
            "Its field `state` says that it is completed already.",
            "Take that field out to have it run again.",
            field="state",
        )


class BadSetting(QueueError):
    """A key or a value that config.yaml may not hold."""

    exit_status = 2


class BrokenConfig(BadSetting):
    """Something in config.yaml cannot be read, `why` says what; running workers keep the last good values.

    `keys` are those whose value is not known; `""` among them stands for all.
    """

    exit_status = 1

    def __init__(self, path: str, why: str, remedy: str, keys: Iterable[str] = ("",)) -> None:
        super().__init__(f"{path}: {why}", remedy)
        self.why = why
        self.keys = frozenset(keys)

    def hides(self, name: str) -> bool:
        """Whether the value of this key is not known."""
        return not self.keys.isdisjoint({name, ""})


class BadUsage(QueueError):
    """Options or arguments that do not go together."""

    exit_status = 2


class LongAgo(BadUsage):
    """A moment that was entered for `name` and is more than a day ago: perhaps a slip of the keys."""

    def __init__(self, name: str, text: str, moment: datetime, days: int) -> None:
        super().__init__(
            f"{name}: {text!r} was {days:,} d ago.",
            f"Correct it; without {name} the job runs as soon as it can.",
        )
        self.moment = moment


class IdTaken(QueueError):
    """Another job has this id already, perhaps in another case; or none that is there (`holder` None)."""

    def __init__(self, job_id: str, holder: str | None) -> None:
        if holder is None:
            super().__init__(
                f"The id {job_id!r} is taken, though no job has it.",
                "Choose another one; if its job was deleted by hand, `queuectl check --repair` frees it.",
            )
        else:
            case = "" if holder == job_id else f" by {holder!r}: case makes no difference"
            super().__init__(
                f"The id {job_id!r} is taken{case}.",
                f"Choose another one, or see `queuectl status {holder}`.",
            )
        self.job_id = job_id
        self.holder = holder


class IdTooLong(BadJob):
    """An id with which some file name of the job would be longer than the file system takes."""

    def __init__(self, job_id: str, longest: int) -> None:
        super().__init__(
            f"The id {job_id!r} has {len(job_id)} characters: the names of its files would be too long "
            "for this file system.",
            f"Choose an id of at most {longest}.",
            field="id",
        )


class NoSuchJob(QueueError):
    """No file in the spool bears this id."""

    exit_status = 3

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"There is no job {job_id!r} in this spool.", "See `queuectl list` for those there are."
        )
        self.job_id = job_id


class Moving(QueueError):
    """A job that had moved on each time something was to be done with it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} moves too fast to be caught.", "Try again.")


class JobMoved(QueueError):
    """The job's file is not where it was found: somebody moved it meanwhile. Nothing was changed.

    The caller finds the job where it is now, and decides again.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} has moved meanwhile.", f"See `queuectl status {job_id}`.")
        self.job_id = job_id


class ClaimLost(QueueError):
    """The claim's file is gone though the spool is there: somebody took its owner for dead.

    The job belongs to somebody else by now. Its command must not run on, and nothing is recorded.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"The claim of job {job_id} is lost: somebody else has taken the job over.",
            f"See `queuectl status {job_id}`.",
        )
        self.job_id = job_id


class AmbiguousId(QueueError):
    """A prefix that several ids begin with."""

    exit_status = 2

    def __init__(self, prefix: str, some: list[str]) -> None:
        super().__init__(
            f"{prefix!r} is the beginning of several ids: {', '.join(some)}.", "Type more of it."
        )


class WrongState(QueueError):
    """The job is not where this could be done to it; nothing was changed."""

    def __init__(self, job_id: str, state: str, wanted: str, remedy: str = "") -> None:
        super().__init__(f"Job {job_id} is {state}, not {wanted}.", remedy)


class NotASpool(QueueError):
    """No directory, or one without config.yaml: perhaps a share that is not mounted."""

    def __init__(self, root: str) -> None:
        what = "has no config.yaml, so it is not a spool"
        remedy = f"If it is on a share, mount the share; to make a spool there, run `queuectl init {root}`."
        if _holds_something(root):
            remedy = "Name a spool with --spool or in QUEUECTL_SPOOL, or make one, `queuectl init DIR`."
        if not os.path.exists(root):
            what = "does not exist"
        elif not os.path.isdir(root):
            what, remedy = "is not a directory", "A spool is one: name it with --spool or in QUEUECTL_SPOOL."
        super().__init__(f"{root} {what}.", remedy)


def _holds_something(folder: str) -> bool:
    """Whether `queuectl init` would refuse this directory."""
    try:
        return bool(os.listdir(folder))
    except OSError:
        return False


class NotMounted(QueueError):
    """A new spool would be hidden: it would lie below a mount point of a file system that is not mounted."""

    def __init__(self, path: str, point: str) -> None:
        import shlex  # few errors need it

        super().__init__(
            f"{path} would be hidden: /etc/fstab has a mount for {point}, which is not mounted now.",
            f"Run `mount {shlex.quote(point)}`, then try again.",
        )


class UnsafeSpool(QueueError):
    """Somebody else could put jobs into this spool and so run commands as its owner."""

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"{place} {problem}.", remedy)


class GivenAway(QueueError):
    """A mount gives what root files to another user, whose jobs no worker of root runs."""

    def __init__(self, place: str, user: str, remedy: str) -> None:
        super().__init__(
            f"What root files in {place} belongs to {user} there, and no worker of root runs it.", remedy
        )


#: A lack of memory or of open files, whatever the call; EAGAIN is one of processes where one is started.
LACKS = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class Lacking(OSError):
    """The system has no room for another process or thread just now: no job and no disk is to blame."""


class StorageTrouble(QueueError):
    """The disk under the spool is full, read-only or out of reach; the same call may work later.

    A system that has no room for another process, thread or open file is told in the same way.
    """

    exit_status = 75

    # EAGAIN, ECONNABORTED, EREMCHG and ENETRESET come from an SMB client that was cut off from its server,
    # EKEYEXPIRED from an NFS client whose Kerberos ticket has run out.
    ERRNOS = frozenset(
        getattr(errno, name)
        for name in [
            "ENOSPC",
            "EDQUOT",
            "EROFS",
            "EIO",
            "ESTALE",
            "ENOTCONN",
            "ENODATA",
            "ENODEV",
            "ENXIO",
            "ETIMEDOUT",
            "EHOSTDOWN",
            "EHOSTUNREACH",
            "ECONNREFUSED",
            "ECONNRESET",
            "ENETDOWN",
            "ENETUNREACH",
            "ESHUTDOWN",
            "EAGAIN",
            "ECONNABORTED",
            "EREMCHG",
            "ENETRESET",
            "EKEYEXPIRED",
            "EREMOTEIO",
            "EMFILE",
            "ENFILE",
            "ENOMEM",
            "ENOLCK",
            "EBUSY",
        ]
        if hasattr(errno, name)
    )

    def __init__(self, error: OSError) -> None:
        what = error.strerror or str(error)
        if isinstance(error, Lacking) or error.errno in LACKS:
            problem = f"This system has no room for another process or open file: {what}."
            remedy = "Nothing was lost; try again when there is room, or see `ulimit -a`."
        else:
            place = f" at {error.filename}" if error.filename else ""
            problem = f"The spool cannot be used{place}: {what}."
            remedy = "Nothing was lost; try again when the disk is back."
        super().__init__(problem, remedy)
        self.errno = error.errno

    @classmethod
    def explains(cls, error: OSError) -> bool:
        """Whether `error` tells of the storage rather than of a wrong name or permission."""
        return error.errno in cls.ERRNOS


class SpoolAway(OSError):
    """The spool, or a directory of it, is not there, as if its share were not mounted.

    A missing file proves nothing then. `StorageTrouble` explains it; the same call may work later.
    """

    def __init__(self, path: str) -> None:
        super().__init__(errno.ENODEV, "the spool is out of reach: its directory is not there", path)


class CutOff(QueueError):
    """The draft of a job was deleted before it was published: its filing had been stopped for long."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"The job for {path} was not filed: its draft was deleted meanwhile, as if its filing had died.",
            "File it again.",
        )
        self.path = path


class FiledAllTheSame(QueueError):
    """The disk failed after jobs had got their names, and they could not be taken back."""

    def __init__(self, job_ids: list[str], error: OSError) -> None:
        super().__init__(
            f"{', '.join(job_ids)}: filed, though not safe from a power cut: {error.strerror or error}.",
            "Look with `queuectl list` before you file it again.",
        )


class NotPrinted(QueueError):
    """The jobs are filed, and standard output does not take their ids."""

    def __init__(self, job_ids: list[str], error: OSError) -> None:
        some = ", ".join(job_ids[:3]) + (" and others" if len(job_ids) > 3 else "")
        super().__init__(
            f"The id cannot be printed of {some}: {error.strerror}.",
            "The jobs are filed all the same; see `queuectl list`.",
        )


class OutputTrouble(OSError):
    """Standard output does not take what is printed; the spool has no part in it."""


#: Commands that delete: nobody is led to one by a slip of the keys.
DELETING = frozenset({"prune", "purge"})


def nearest(word: str, known: list[str]) -> str:
    """`known` in words, or the one name that `word` is a misspelling or the beginning of."""
    import difflib  # only an error needs it

    harmless = [name for name in known if name not in DELETING]
    close = difflib.get_close_matches(word, harmless, n=1, cutoff=0.75)
    if not close and len(word) >= 3:
        begun = [name for name in harmless if name.startswith(word)]
        close = begun if len(begun) == 1 else []
    return f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(known)}."
