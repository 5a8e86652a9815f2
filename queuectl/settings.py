"""The settings in config.yaml: default, meaning, type and bounds of each key."""

from __future__ import annotations

import re
from functools import cache

from queuectl import documents, times
from queuectl.errors import BadDocument, BadSetting, BrokenConfig, nearest
from queuectl.job.fields import launcher
from queuectl.job.layout import number, scalar
from queuectl.job.model import HERE
from queuectl.system import files, users
from queuectl.times import DURATION, is_bare_number, parse_duration
from queuectl.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any, Literal

    from queuectl.job.policy import Policy
    from queuectl.system.medium import Medium

FILE = "config.yaml"
NOBODY = "none"


class Settings(NamedTuple):
    """The values in force; the names are the keys of config.yaml."""

    scheduling_mode: Literal["priority", "fifo"] = "priority"
    priority: int = 0
    job_timeout_seconds: float = 3600.0
    max_retries: int = 3
    backoff_base: float = 2.0
    max_backoff_seconds: float = 300.0
    retry_delay: float = 0.0
    backoff_jitter: float = 0.1
    lock_lease_seconds: float = 300.0
    poll_interval: float = 1.0
    stop_grace_seconds: float = 0.3
    durability: Literal["filed", "full", "none"] = "filed"
    max_output_bytes: int = 64 * 1024 * 1024
    trusted_users: str = NOBODY
    launcher: str = HERE

    @property
    def syncs(self) -> bool:
        """Whether outcomes and the moves of claims are to survive a power cut, too."""
        return self.durability == "full"

    def policy(self, max_retries: int | None, backoff_base: float | None) -> Policy:
        """The retry policy of a job with its own values of these two, or None for the settings' values."""
        from queuectl.job.policy import Policy  # which those who only file do without

        return Policy(
            max_retries=self.max_retries if max_retries is None else max_retries,
            backoff_base=self.backoff_base if backoff_base is None else backoff_base,
            max_backoff=self.max_backoff_seconds,
            retry_delay=self.retry_delay,
            jitter=self.backoff_jitter,
        )


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not is_bare_number(text) or not low <= float(text) <= high:
            raise ValueError(f"a number from {low:g} to {high:,.10g}")
        return float(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = parse_duration(text)
        except ValueError:
            value = -1
        if not low <= value <= high:
            raise ValueError(f"a number of seconds from {low:g} to {high:,.10g}, or {DURATION}")
        return value

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,15}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high:,}")
        return int(text)

    return parse


def _users(text: str) -> str:
    names = text.replace(",", " ").split()
    if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?", name) for name in names):
        raise ValueError("names of users with commas between them")
    return ",".join(names) or NOBODY


class Key(NamedTuple):
    """One key: the parser of its text, its meaning, and its names in older tools."""

    parse: Callable[[str], Any]
    meaning: str
    older: tuple[str, ...] = ()


_YEAR = 365 * 86400
KEYS: Mapping[str, Key] = {
    "scheduling_mode": Key(
        _choice("priority", "fifo"),
        "priority, or fifo: jobs filed from now on run in the order of time alone",
    ),
    "priority": Key(_whole(0, 10), "the priority of jobs that name none; 10 is the most urgent"),
    "job_timeout_seconds": Key(
        _seconds(0, _YEAR),
        "time limit, in seconds, of jobs that name none; 0 = no limit",
        ("timeout", "command_timeout"),
    ),
    "max_retries": Key(_whole(0, 1_000_000), "tries after the first one: 3 means at most 4 runs"),
    "backoff_base": Key(_number(0, 9999), "the n-th retry waits backoff_base ** n seconds"),
    "max_backoff_seconds": Key(_seconds(0, _YEAR), "the longest such wait"),
    "retry_delay": Key(_seconds(0, _YEAR), "seconds added to every such wait"),
    "backoff_jitter": Key(_number(0, 1), "each wait is lengthened by a random share of at most this"),
    "lock_lease_seconds": Key(
        _seconds(1, 86400),
        "a worker on another host that shows no sign of life for this long is dead",
    ),
    "poll_interval": Key(
        _seconds(0.05, 3600), "seconds between looks where no file events arrive (network shares)"
    ),
    "stop_grace_seconds": Key(
        _seconds(0, 3600), "seconds between SIGTERM and SIGKILL when a command is stopped"
    ),
    "durability": Key(
        _choice("filed", "full", "none"),
        "filed: a job is on disk before its id is printed; full: outcomes too; none",
    ),
    "max_output_bytes": Key(
        _whole(0, 10**15),
        "bytes kept of each output stream of a run: its head and its newest tail; 0 = all",
    ),
    "trusted_users": Key(
        _users, "users whose jobs a worker of root runs, beside root's own: names or numbers, with commas"
    ),
    "launcher": Key(
        launcher,
        "command prefix that hands each job to an engine and waits for it, such as srun; none = run here",
    ),
}
OLDER = {older: name for name, key in KEYS.items() for older in key.older}
DEFAULTS = Settings()


def key_name(word: str) -> str:
    """The key that `word` means: `-` and `_` are the same, older names are known."""
    name = word.strip().replace("-", "_")
    name = OLDER.get(name, name)
    if name not in KEYS:
        raise BadSetting(f"There is no key {word!r}.", nearest(name, list(KEYS)))
    return name


def parse_value(name: str, text: Any) -> Any:
    """The value that `text` gives the key `name`; raises `BadSetting` with what is allowed."""
    if not isinstance(text, str):
        raise BadSetting(f"{name}: this is not a plain value.", f"It means: {KEYS[name].meaning}.")
    try:
        return KEYS[name].parse(text.strip())
    except ValueError as error:
        raise BadSetting(f"{name}: {text!r} is not {error}.", f"It means: {KEYS[name].meaning}.") from None


def doubt(name: str, value: Any) -> str | None:
    """A warning about a value that is valid and may not work on this host; None if there is none.

    Raises `BadSetting` for the name of an unknown user. A number is always taken.
    """
    if name == "trusted_users":
        unknown = [user for user in value.split(",") if value != NOBODY and _id_of(user) is None]
        if unknown:
            raise BadSetting(
                f"{name}: there is no user {unknown[0]!r} on this system.", "Name one, or give the number."
            )
    if name == "launcher" and value != HERE:
        import shlex
        import shutil

        program = shlex.split(value)[0]
        if shutil.which(program) is None:
            return f"There is no program {program!r} on this host; workers need it where they run."
    return None


class Reading(NamedTuple):
    """The values that a config.yaml sets, and the errors of the others.

    Each error stands under its key; an error of the whole file stands under `""`.
    """

    values: dict[str, Any]
    faults: dict[str, BadSetting]


def read(text: str) -> Reading:
    """Read all of a config.yaml that is valid."""
    values: dict[str, Any] = {}
    faults: dict[str, BadSetting] = {}
    try:
        found = documents.load_all(text)
    except BadDocument as error:
        return Reading({}, {"": BadSetting(error.problem, error.remedy)})
    tree = found[0].tree if found else {}
    if len(found) > 1 or not isinstance(tree, dict | None):
        fault = BadSetting("It is not one mapping of keys to values.", "Write `key: value` lines.")
        return Reading({}, {"": fault})
    seen: set[str] = set()
    for word, raw in (tree or {}).items():
        name = word
        try:
            name = key_name(word)
            if name in seen:
                values.pop(name, None)
                raise BadSetting(f"It sets {name} twice.", "Keep one.")
            seen.add(name)
            if raw is not None:
                values[name] = parse_value(name, raw)
        except BadSetting as error:
            faults.setdefault(name, error)
    return Reading(values, faults)


def load(root: Path | str) -> Settings:
    """The settings of a spool; raises `FileNotFoundError` or `BrokenConfig`."""
    values, broken = readable(root)
    if broken is not None:
        raise broken
    return values


def readable(root: Path | str) -> tuple[Settings, BrokenConfig | None]:
    """The valid settings of a spool, defaults in the place of the others, and the error if there is one.

    Raises `BrokenConfig` if config.yaml is not a regular file, and `OSError`.
    """
    path = f"{root}/{FILE}"
    try:
        data, is_trusted = _read_file(path)
    except files.NotAFile as error:
        raise BrokenConfig(path, f"{error.strerror}.", "Mend it by hand.") from None
    try:
        values, faults = read(documents.text_of(data))
    except BadDocument as error:
        values, faults = {}, {"": BadSetting(error.problem, error.remedy)}
    if not is_trusted and values.pop("trusted_users", NOBODY) != NOBODY:
        faults["trusted_users"] = BadSetting(
            "It names trusted_users, and others than root may write to it.",
            f"Run `chown root {path}` and `chmod go-w {path}`.",
        )
    fault = next(iter(faults.values()), None)
    broken = None if fault is None else BrokenConfig(path, fault.problem, fault.remedy, faults)
    return Settings(**values), broken


def _read_file(path: str) -> tuple[bytes, bool]:
    """The bytes of config.yaml, and whether to trust the names of trusted users in it.

    A user who can name trusted users can run commands as root, so root takes them from its own file only.
    """
    if not users.is_root():
        return files.read(path), True
    try:
        return files.read(path, trust=users.Trust(frozenset({0}), alone=False)), True
    except files.Untrusted:
        return files.read(path), False


@cache
def trusted_ids(names: str) -> frozenset[int]:
    """The user numbers of root and of these users; names that this system does not know are left out."""
    ids = {_id_of(name) for name in names.split(",") if names != NOBODY}
    return frozenset({0, *(uid for uid in ids if uid is not None)})


def _id_of(user: str) -> int | None:
    """The number of a user, given by name or by number; None where this system knows no such name."""
    if user.isdigit():
        return int(user)
    return users.user_id(user)


def template() -> str:
    """A config.yaml that explains each key and sets none: the defaults stand in comments."""
    lines = ["# Settings of this queuectl spool; running workers take changes up by themselves."]
    for name, key in KEYS.items():
        lines += ["", f"# {key.meaning}", f"# {name}: {_written(name, shown(getattr(DEFAULTS, name)))}"]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A value as it is typed."""
    return number(value) if isinstance(value, float) else str(value)


def edited(text: str, name: str, value: str | None) -> str:
    """The text of config.yaml with one key set, or unset with None; the rest is unchanged.

    The line that sets the key is replaced. Otherwise a line is added below the comment with its default,
    or at the end. Invalid values of other keys do not matter. Raises `BadSetting` if the layout of the
    text does not allow it.
    """
    names = "|".join((name, *KEYS[name].older)).replace("_", "[-_]")
    own = re.compile(rf"^(['\"]?)(?:{names})\1[ \t]*:[^\n]*?(?P<comment>[ \t]+#[^\n]*)?$\n?", re.MULTILINE)
    example = re.compile(rf"^#[ \t]*{name}[ \t]*:[^\n]*$\n?", re.MULTILINE)
    line = "" if value is None else f"{name}: {_written(name, value)}"
    if found := own.search(text):
        line = line and f"{line}{found['comment'] or ''}\n"
        result = text[: found.start()] + line + text[found.end() :]
    elif value is None:
        result = text
    else:
        place = example.search(text)
        at = place.end() if place else len(text)
        before = text[:at] if not text[:at] or text[:at].endswith("\n") else text[:at] + "\n"
        result = f"{before}{line}\n{text[at:]}"
    wanted, faults = read(text)
    if "" in faults:
        raise faults[""]
    wanted.pop(name, None)
    if value is not None:
        wanted[name] = parse_value(name, value)
    got, left = read(result)
    if got != wanted or left.keys() != faults.keys() - {name}:
        raise BadSetting(
            f"{FILE} is laid out in a way that cannot be edited line by line.", "Edit it by hand."
        )
    return result


def _written(name: str, value: str) -> str:
    """A value as YAML: text that could be read as a number is quoted."""
    return scalar(value) if isinstance(parse_value(name, value), str) else value


class Live:
    """The current settings of a spool: the file is read again when it has changed.

    A broken file leaves the last good values in force; at the first read, its valid values. `trouble` is
    the error in words. On a share the file is examined at most once per `poll_interval`.
    """

    def __init__(self, root: Path | str, medium: Medium) -> None:
        self._root = root
        self._medium = medium
        self._looked = float("-inf")
        self._file = f"{root}/{FILE}"
        self._mark: files.Mark | None = None
        self._seen: files.Mark | None = None
        self.last: Settings = DEFAULTS
        self.trouble: str | None = None

    def now(self) -> Settings:
        """The values in force; raises `OSError` if the spool is out of reach."""
        if times.clock.monotonic() - self._looked < self.last.poll_interval and self._medium.is_remote:
            return self.last
        mark = files.mark(self._file)
        self._looked = times.clock.monotonic()
        if mark != self._mark and (self._mark is None or self._is_whole(mark)):
            self._read()
            self._mark = mark
        return self.last

    def _read(self) -> None:
        self.trouble = None
        wrong: Exception | None
        try:
            values, wrong = readable(self._root)
        except (BadSetting, PermissionError) as error:
            values, wrong = DEFAULTS, error
        if wrong is None or self._mark is None:
            self.last = values
        if wrong is not None:
            is_first = self._mark is None
            rest = (
                "What cannot be read has its default." if is_first else "The last good values stay in force."
            )
            self.trouble = f"{wrong} {rest}"

    def _is_whole(self, mark: files.Mark) -> bool:
        """Whether a changed file is complete: not open for writing; on a share, the same at two looks.

        Race: an editor truncates the file before it writes it, and an empty file means all defaults.
        """
        if self._medium.tells_writers:
            return not files.being_written(self._file)
        stands = mark == self._seen
        self._seen = mark
        return stands
