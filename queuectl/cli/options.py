"""The table of options, which click and the fast reader of `enqueue` share, and the fields that they set."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta

from queuectl.errors import BadUsage, LongAgo, QueueError
from queuectl.job.model import ENDINGS
from queuectl.times import entered_duration, entered_moment, iso, utc_now
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any


class Option(NamedTuple):
    """One option. `key` is the job field or parameter that it sets; `value` is None for a flag.

    Shells complete paths for a value named DIR or FILE. A number is `least` or more.
    """

    names: tuple[str, ...]
    key: str
    value: str | None
    help: str
    repeats: bool = False
    least: int | None = None


#: Options that set a field of the job in `enqueue`.
FIELDS = (
    Option(("--id",), "id", "ID", "The id; without it, a short one is made up."),
    Option(("--command", "-c"), "command", "COMMAND", "The shell command."),
    Option(("--priority", "-p"), "priority", "0..10", "10 is the most urgent."),
    Option(("--max-retries",), "max_retries", "N", "How often a failed job is tried again."),
    Option(("--timeout", "-t"), "timeout", "SECONDS", "Time limit (also 90s, 10m, 2h); 0 = none."),
    Option(("--backoff-base",), "backoff_base", "N", "Retry number n waits N ** n seconds."),
    Option(
        ("--run-at",), "run_at", "WHEN", "2026-11-08T15:00 in local time, the same with Z in UTC, or +10m."
    ),
    Option(("--delay",), "delay", "TIME", "The time from now: 90s, 10m, 2h, 1d."),
    Option(("--cwd",), "cwd", "DIR", "The directory it runs in; without it, the current one."),
    Option(("--env", "-e"), "env", "K=V", "An environment variable; may be repeated.", repeats=True),
)
#: Options of `enqueue` that say when a job may start. The fast reader leaves them to click.
RULES = (
    Option(
        ("--after",),
        "after",
        "ID",
        "Run after this job or batch has succeeded; ID:any, ID:failed.",
        repeats=True,
    ),
    Option(("--after-unfiled",), "after_unfiled", None, "Wait also for ids that nobody has filed yet."),
    Option(("--group",), "group", "NAME", "Run it in this group, of whose slots it needs one."),
    Option(("--slots",), "slots", "N", "How many slots of its group it needs."),
    Option(("--unique",), "unique", "KEY", "File nothing while another job with this key waits or runs."),
    Option(("--unique-for",), "unique_for", "HOW", "How long a job has its key: active, waiting, or 24h."),
    Option(("--hold",), "held", None, "Do not start it before `queuectl release`."),
)
#: Options of `enqueue` for many jobs of one command, each with values of its own.
VALUES = (
    Option(("--each",), "each", "COMMAND", "A job for each value after `--`, or on standard input (-)."),
    Option(("--values",), "values", "FILE", "A job for each line of FILE."),
    Option(("--null", "-0"), "by_nul", None, "The values that are read end in NUL, as from `find -print0`."),
    Option(("--with",), "combined", "NAME=VALUES", "Every combination: lr=0.1,0.01 seed=1..5.", repeats=True),
    Option(("--csv",), "csv", "FILE", "A job for each row; {NAME} is the value of a column."),
    Option(
        ("--array",),
        "array",
        "RANGE",
        "A job for each number: 1-100, 1-99:2; %8 = 8 at once.",
    ),
    Option(("--batch",), "batch", "NAME", "The name of all these jobs; their ids are NAME.1, NAME.2, …"),
    Option(("--resume",), "resume", None, "File the jobs of the batch that a crash has left out."),
    Option(("--dry-run",), "dry_run", None, "Only show the commands that would be filed."),
)
#: Options of `enqueue` for where jobs come from and what is printed.
OTHERS = (
    Option(("--file", "-f"), "files", "FILE", "JSON, JSON lines or YAML.", repeats=True),
    Option(("--lines",), "lines", None, "One shell command a line, from FILE or standard input."),
    Option(("--again",), "again", None, "Also file records whose state is completed."),
    Option(("--yes", "-y"), "yes", None, "Do not ask whether a --run-at in the far past is meant."),
    Option(("--json",), "as_json", None, "Print a JSON object per job instead of its id."),
)
#: Options that several commands have.
AS_JSON = Option(("--json",), "as_json", None, "JSON and nothing else; of several, one a line.")
WATCH = Option(("--watch", "-w"), "watch", None, "Redraw until Ctrl-C.")
LIMIT = Option(("--limit", "-n"), "limit", "N", "The most jobs to show.", least=0)
YES = Option(("--yes", "-y"), "yes", None, "Do not ask.")
DRY_RUN = Option(("--dry-run",), "dry_run", None, "Only show which jobs are meant.")
#: Options whose text is converted. The text of the others is the value of the field.
_MADE = frozenset({"run_at", "delay", "cwd", "env"})
_HELP = Option(("--help", "-h"), "help", None, "")
_BY_NAME = {name: option for option in (*FIELDS, *RULES, *VALUES, *OTHERS, _HELP) for name in option.names}


class Unread(Exception):
    """The command line has an unknown option, or one without its value: click words the error."""


class Line(NamedTuple):
    """A command line of `enqueue`.

    `options` are the arguments that are options, `said` the same as pairs of option and value ("" for a
    flag). `words` is the command; `is_list` is true if it follows `--`.
    """

    options: list[str]
    said: list[tuple[Option, str]]
    words: list[str]
    is_list: bool


def read(arguments: Sequence[str]) -> Line:
    """Split a command line into options and command; raises `BadUsage` and `Unread`.

    Options come before the first word of the command. They may also follow a command that is one quoted
    argument, a JSON object or `-`. After any other first word an option could belong to the command, so
    it is refused.
    """
    left = list(arguments)
    options, said = _take_options(left)
    if any(option.key == "each" for option, _ in said):
        return _values_of(options, said, left)
    if left[:1] == ["--"]:
        return Line(options, said, [in_utf8(word) for word in left[1:]], is_list=True)
    left = _with_json_whole([in_utf8(word) for word in left])
    words = left[:1]
    del left[:1]
    if words and _is_whole(words[0]):
        more, more_said = _take_options(left)
        if left:
            _refuse_more(words[0], left)
        return Line(options + more, said + more_said, words, is_list=False)
    words += left
    late = next((word for word in left if _is_option(word)), None)
    if late is not None:
        _refuse_late(late, options, words)
    return Line(options, said, words, is_list=False)


def _values_of(options: list[str], said: list[tuple[Option, str]], left: list[str]) -> Line:
    """The command line of `--each`, whose words are values; they stay as they are."""
    if left[:1] == ["--"]:
        return Line(options, said, left[1:], is_list=True)
    words = left[:1] if left[:1] == ["-"] else []
    del left[: len(words)]
    more, more_said = _take_options(left) if words else ([], [])
    if odd := next((word for word in left if words or _is_option(word)), None):
        raise BadUsage(f"{odd!r} may be meant as a value or for queuectl.", "Write `--` before the values.")
    return Line(options + more, said + more_said, words or left, is_list=False)


def _take_options(left: list[str]) -> tuple[list[str], list[tuple[Option, str]]]:
    """Remove the options at the front of `left` and return them."""
    options: list[str] = []
    said: list[tuple[Option, str]] = []
    while left and _is_option(left[0]) and left[0] != "--":
        word = left[0]
        name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        option = _BY_NAME.get(name)
        is_flag = option is not None and option.value is None
        count = 1 if is_flag or equals or value else 2
        if option is None or (is_flag and (equals or value)) or len(left) < count:
            raise Unread(word)
        said.append((option, left[1] if count == 2 else value))
        options += left[:count]
        del left[:count]
    return options, said


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _is_whole(word: str) -> bool:
    """Whether one argument is the whole command: quoted text, JSON, or `-` for standard input."""
    return word == "-" or word.lstrip()[:1] in {"{", "["} or any(map(str.isspace, word))


def _with_json_whole(words: list[str]) -> list[str]:
    """The words, those of a JSON object that cmd or PowerShell took apart at its blanks joined again."""
    import re  # imported by every command

    if words and re.match(r"'?\{[\s\\\"]*\w+[\\\"]*:", words[0]):
        ends = [count for count, word in enumerate(words, 1) if word.endswith(("}", "}'"))]
        if ends:
            return [" ".join(words[: ends[0]]), *words[ends[0] :]]
    return words


def _refuse_more(command: str, more: list[str]) -> None:
    if more[0] == "--":
        raise BadUsage("There is a command before `--` and another one after it.", "Give one command.")
    raise BadUsage(
        f"{more[0]!r} follows {command!r}, which is a whole command already.",
        "For several jobs, pipe one command per line into `queuectl enqueue --lines -`; "
        "for one command of several words, write `--` before it.",
    )


def _refuse_late(late: str, options: list[str], words: list[str]) -> None:
    import shlex

    line = shlex.join(["queuectl", "enqueue", *options, "--", *words])
    raise BadUsage(
        f"{late!r} follows the first word of a command, so it may be meant for {words[0]!r} or for queuectl.",
        f"Put the command in quotes or write `--` before it: `{line}`; queuectl's own options come first.",
    )


def _never(past: LongAgo) -> bool:
    del past
    return False


def fields(
    given: Mapping[str, str], env: Iterable[str], is_meant: Callable[[LongAgo], bool] = _never
) -> dict[str, Any]:
    """The job's fields from the options' texts, `env` from its NAME=VALUE words.

    `is_meant` decides whether a `run_at` of long ago is taken. Raises `BadUsage`.
    """
    found: dict[str, Any] = {key: in_utf8(text) for key, text in given.items() if key not in _MADE}
    found |= _run_at(given.get("run_at"), given.get("delay"), is_meant)
    if (cwd := given.get("cwd")) is not None:
        found["cwd"] = seen_from_here(in_utf8(cwd))
    if variables := dict(_variable(in_utf8(text)) for text in env):
        found["env"] = variables
    return found


def after(words: Iterable[str]) -> dict[str, str]:
    """The field `after` from words such as `build` and `lint:any`. Raises `BadUsage`."""
    found: dict[str, str] = {}
    for word in words:
        job_id, colon, ending = word.partition(":")
        if job_id in found:
            raise BadUsage(f"--after names {job_id!r} twice.", "Name each job once.")
        found[job_id] = ending if colon else ENDINGS[0]
    return found


def in_utf8(word: str) -> str:
    """A word of the command line as text, decoded as UTF-8 where that is valid, whatever the locale is.

    Scripts are in UTF-8 also where a service runs them in another locale. Other bytes are decoded by the
    locale.
    """
    if word.isascii():
        return word
    with contextlib.suppress(UnicodeDecodeError):  # then it is in the encoding of the locale
        return os.fsencode(word).decode()
    return word


def exact(word: str) -> str:
    """A word of the command line, byte for byte: bytes that are not UTF-8 are surrogates, in any locale."""
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def _run_at(run_at: str | None, delay: str | None, is_meant: Callable[[LongAgo], bool]) -> dict[str, str]:
    """The field `run_at`, if one of the two options was given."""
    if run_at is not None and delay is not None:
        raise BadUsage("--run-at and --delay exclude each other.", "Give one of them.")
    if delay is not None:
        moment = utc_now() + timedelta(seconds=entered_duration("--delay", delay.strip().removeprefix("+")))
    elif run_at is not None:
        try:
            moment = entered_moment("--run-at", run_at, utc_now())
        except LongAgo as past:
            if not is_meant(past):
                raise
            moment = past.moment
    else:
        return {}
    return {"run_at": iso(moment)}


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadUsage(f"--env: {text!r} is not NAME=VALUE.", "Write for example --env MODE=fast.")
    return name, value


def seen_from_here(path: str) -> str:
    """The absolute path; `..` is kept, as after a symbolic link it cannot be resolved from the text."""
    if not path:
        raise BadUsage("--cwd is empty.", "It takes the path of a directory.")
    path = path if path.startswith("/") else f"{here()}/{path}"
    return path if ".." in path.split("/") else os.path.normpath(path)


def here() -> str:
    """The current directory, the default `cwd` of a job; raises `QueueError` if it was deleted.

    Like `pwd`, the path with its symbolic links: a link such as `current` may point elsewhere tomorrow.
    """
    try:
        real = in_utf8(os.getcwd())
    except FileNotFoundError:
        raise QueueError(
            "The directory you are in is gone.", "Add --cwd DIR, or change to another directory."
        ) from None
    told = os.environ.get("PWD", "")
    seen = in_utf8(told)
    if seen != real and seen.startswith("/") and not {".", ".."} & set(seen.split("/")):
        with contextlib.suppress(OSError):  # PWD names no directory any more
            if os.path.samefile(told, "."):
                return seen
    return real
