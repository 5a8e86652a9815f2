"""The errors of the queue: each says in two sentences what is wrong and what to do.

An error has a type of its own where somebody catches it or several places raise it.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import Self


class QueueError(Exception):
    """An error with one sentence for what is wrong (`problem`) and one for what to do (`remedy`).

    The command line exits with `exit_status`: 1 it could not be done, 2 wrong usage, 3 no such job,
    75 the spool is full, read-only or out of reach.
    """

    exit_status = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy

    def at(self, place: str) -> Self:
        """Put a file or another place in front of the problem; returns the error itself."""
        self.problem = f"{place}: {self.problem}"
        self.args = (f"{self.problem} {self.remedy}".strip(),)
        return self


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C or caused by it.

    Python 3.11 reports Ctrl-C in a class body, as in an import, as a `RuntimeError` with Ctrl-C as its cause.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__
    return False


class BadJob(QueueError):
    """A job that is refused."""

    exit_status = 2


class BadDocument(BadJob):
    """A text that is not valid YAML or JSON, or uses a part of YAML that is refused; `line` counts from 1."""

    def __init__(self, problem: str, line: int | None = None, remedy: str = "Correct the text.") -> None:
        place = "" if line is None else f" (line {line})"
        super().__init__(f"The YAML or JSON is wrong: {problem}{place}.", remedy)


class HasNul(BadDocument):
    """A text with a NUL character, which no command and no path can hold."""

    def __init__(self, line: int) -> None:
        BadJob.__init__(self, f"It holds a NUL character (line {line}).", "Remove that character.")


class BadEncoding(BadDocument):
    """Bytes in an encoding other than UTF-8 and marked UTF-16 or UTF-32.

    `byte` is the first wrong one and counts from 0; `likely` is the encoding that the bytes seem to be in.
    """

    def __init__(self, byte: int, likely: str | None = None) -> None:
        if likely is None:
            problem = f"It is not text in UTF-8, nor in UTF-16 with its mark (byte {byte})."
            remedy = "Convert it, for example with `iconv -f ISO-8859-1 -t UTF-8`."
        else:
            problem = f"It seems to be text in {likely} without a byte order mark; UTF-8 is expected."
            remedy = f"Convert it with `iconv -f {likely} -t UTF-8`."
        BadJob.__init__(self, problem, remedy)


class Completed(BadJob):
    """A record from this queue or another whose `state` says that the job is completed."""

    def __init__(self) -> None:
        super().__init__(
            "Its field `state` says that it is completed already.",
            "Remove that field to run the job again.",
        )


class BadSetting(QueueError):
    """A key or a value that config.yaml may not have."""

    exit_status = 2


class BrokenConfig(BadSetting):
    """config.yaml, or a part of it, cannot be read, for the reason `why`.

    `keys` are the keys whose values are unknown; `""` stands for all of them.
    """

    exit_status = 1

    def __init__(self, path: str, why: str, remedy: str, keys: Iterable[str] = ("",)) -> None:
        super().__init__(f"{path}: {why}", remedy)
        self.why = why
        self.keys = frozenset(keys)

    def hides(self, name: str) -> bool:
        """Whether the value of this key is unknown."""
        return not self.keys.isdisjoint({name, ""})


class BadUsage(QueueError):
    """Options or arguments that are wrong or exclude each other."""

    exit_status = 2


class LongAgo(BadUsage):
    """A moment that was entered for `name` and is more than a day ago: perhaps a slip of the keys."""

    def __init__(self, name: str, text: str, moment: datetime, days: int) -> None:
        super().__init__(
            f"{name}: {text!r} was {days:,} d ago.",
            f"Correct it; without {name} the job runs as soon as it can.",
        )
        self.moment = moment


class CannotRun(QueueError):
    """The job waits for others, and one of these ended otherwise than it asks."""

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(
            f"Job {job_id} cannot run: {why}.",
            f"Retry that one; `queuectl release --now {job_id}` runs it all the same.",
        )


class IdTaken(QueueError):
    """The id is in use, perhaps in other case, by the job `holder`; None if that job no longer exists."""

    def __init__(self, job_id: str, holder: str | None) -> None:
        if holder is None:
            super().__init__(
                f"The id {job_id!r} is taken, though no job has it.",
                "Choose another one. Unless it is being filed just now, `queuectl check --repair` frees it.",
            )
        else:
            case = "" if holder == job_id else f" by {holder!r}: case makes no difference"
            super().__init__(
                f"The id {job_id!r} is taken{case}.",
                f"Choose another one, or see `queuectl status {holder}`.",
            )


class KeyTaken(QueueError):
    """A job's unique key is that of the job `holder`. `end` says when it is free again, in words."""

    def __init__(self, key: str, holder: str, end: str) -> None:
        super().__init__(
            f"The unique key {key!r} is held by job {holder}.",
            f"It is free again {end}; see `queuectl status {holder}`.",
        )
        self.key = key
        self.holder = holder


class IdTooLong(BadJob):
    """An id that makes a file name of the job longer than the file system allows."""

    def __init__(self, job_id: str, longest: int) -> None:
        super().__init__(
            f"The id {job_id!r} has {len(job_id)} characters: the names of its files would be too long "
            "for this file system.",
            f"Choose an id of at most {longest}.",
        )


class NoSuchJob(QueueError):
    """No job in the spool has this id."""

    exit_status = 3

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"There is no job {job_id!r} in this spool.", "See `queuectl list` for the jobs it has."
        )


class JobMoved(QueueError):
    """The job's file is not where it was found: somebody moved it meanwhile. Nothing was changed.

    The caller finds the job where it is now, and decides again; after several tries it gives up.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} moves too fast to be caught.", "Try again.")


class ClaimLost(QueueError):
    """The claim's file is gone though the spool is there: somebody took its owner for dead.

    The job belongs to somebody else by now. Its command must not run on, and nothing is recorded.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"The claim of job {job_id} is lost: somebody else has taken the job over.",
            f"See `queuectl status {job_id}`.",
        )


class WrongState(QueueError):
    """The job is in a state that does not allow this; nothing was changed."""

    def __init__(self, job_id: str, state: str, wanted: str, remedy: str = "") -> None:
        super().__init__(f"Job {job_id} is {state}, not {wanted}.", remedy)


class NotASpool(QueueError):
    """The path is no directory, or one without config.yaml: perhaps a share that is not mounted."""

    def __init__(self, root: str) -> None:
        what = "has no config.yaml, so it is not a spool"
        remedy = f"If it is on a share, mount the share; to make a spool there, run `queuectl init {root}`."
        if not os.path.exists(root):
            what = "does not exist"
        elif not os.path.isdir(root):
            what = "is not a directory"
            remedy = "Name the directory of a spool with --spool or in QUEUECTL_SPOOL."
        elif _holds_something(root):
            remedy = "Name a spool with --spool or in QUEUECTL_SPOOL, or make one, `queuectl init DIR`."
        super().__init__(f"{root} {what}.", remedy)


def _holds_something(folder: str) -> bool:
    """Whether `queuectl init` would refuse this directory."""
    try:
        return bool(os.listdir(folder))
    except OSError:
        return False


class UnsafeSpool(QueueError):
    """Another user can write to this spool, and so could run commands as its owner."""


#: Out of memory or file descriptors. EAGAIN means out of processes, only where one is started.
LACKS = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class Lacking(OSError):
    """The system cannot start another process or thread now. This is no fault of a job or the disk."""


class StorageTrouble(QueueError):
    """The disk under the spool is full, read-only or out of reach; the same call may work later.

    A system that is out of memory, processes or file descriptors is reported so, too.
    """

    exit_status = 75

    # SMB clients report a lost server as EAGAIN, ECONNABORTED, EREMCHG or ENETRESET; NFS clients report an
    # expired Kerberos ticket as EKEYEXPIRED.
    _NAMES = """
        ENOSPC EDQUOT EROFS EIO ESTALE ENOTCONN ENODATA ENODEV ENXIO ETIMEDOUT EHOSTDOWN EHOSTUNREACH
        ECONNREFUSED ECONNRESET ENETDOWN ENETUNREACH ESHUTDOWN EAGAIN ECONNABORTED EREMCHG ENETRESET
        EKEYEXPIRED EREMOTEIO EMFILE ENFILE ENOMEM ENOLCK EBUSY
    """
    #: Those of these errors that this system has.
    ERRNOS = frozenset(getattr(errno, name, 0) for name in _NAMES.split()) - {0}

    def __init__(self, error: OSError) -> None:
        what = error.strerror or str(error)
        if isinstance(error, Lacking) or error.errno in LACKS:
            problem = f"This system has no room for another process or open file: {what}."
            remedy = "Nothing was lost; try again when there is room, or see `ulimit -a`."
        else:
            place = f" at {error.filename}" if error.filename else ""
            problem = f"The spool cannot be used{place}: {what}."
            remedy = "Nothing was lost; try again when the disk is back."
            if isinstance(error, PermissionError) and error.filename:
                import shlex  # few errors need it

                path = shlex.quote(str(error.filename))
                remedy = f"Nothing was lost; see what forbids it: `ls -ld {path}; lsattr -d {path}`."
        super().__init__(problem, remedy)

    @classmethod
    def explains(cls, error: OSError) -> bool:
        """Whether `error` is about the storage, not about a wrong name or permission."""
        return error.errno in cls.ERRNOS


class SpoolAway(OSError):
    """The spool, or a directory of it, is not there, as if its share were not mounted.

    A missing file proves nothing then. `StorageTrouble` explains it; the same call may work later.
    """

    def __init__(self, path: str) -> None:
        super().__init__(errno.ENODEV, "the spool is out of reach: its directory is not there", path)


class CutOff(QueueError):
    """The draft of a job was deleted before it was published, as its process stood still for long."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"The job for {path} was not filed: its draft was taken for abandoned and deleted.",
            "File it again.",
        )
        self.path = path


class FiledAllTheSame(QueueError):
    """The disk failed after jobs were published, and they could not be withdrawn."""

    def __init__(self, job_ids: list[str], error: OSError) -> None:
        super().__init__(
            f"{', '.join(job_ids)}: filed, though not safe from a power cut: {error.strerror or error}.",
            "See `queuectl list` before you file it again.",
        )


class NotPrinted(QueueError):
    """The jobs are filed, and standard output does not take their ids."""

    def __init__(self, job_ids: list[str], error: OSError) -> None:
        some = ", ".join(job_ids[:3]) + (" and others" if len(job_ids) > 3 else "")
        what, filed = ("id", "job is") if len(job_ids) == 1 else ("ids", "jobs are")
        super().__init__(
            f"The {what} {some} cannot be printed: {error.strerror}.", f"The {filed} filed all the same."
        )


class OutputTrouble(OSError):
    """Standard output cannot be written to; the spool is not the cause."""


#: Commands that delete: a misspelled command never suggests one.
DELETING = frozenset({"prune", "purge"})


def nearest(word: str, known: list[str]) -> str:
    """A sentence with the known name that `word` misspells or begins, else with all known names."""
    import difflib  # needed only for an error

    harmless = [name for name in known if name not in DELETING]
    close = difflib.get_close_matches(word, harmless, n=1, cutoff=0.75)
    if not close and len(word) >= 3:
        begun = [name for name in harmless if name.startswith(word)]
        close = begun if len(begun) == 1 else []
    return f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(known)}."
