"""Tokens: things that one owner has at a time, each a file that is renamed to take it.

    NAME               free; a person made it, with `touch`
    NAME.STAMP         free from the moment STAMP on
    NAME.STAMP@OWNER   taken

Taking a token is a rename to the taker's own name, as a claim is. Giving it back is a rename to another
STAMP: no name comes back. The text in a token is how long it rests after each use, such as `60s`; without
text it never rests.

Nothing counts, so nothing drifts: a crash leaves a token with a dead owner, and the recovery that ends that
owner's claims frees it.
"""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from queuectl import times
from queuectl.spool.names import STAMP
from queuectl.spool.root import GROUPS
from queuectl.system import files
from queuectl.times import from_stamp, parse_duration, shifted, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from queuectl.spool.root import Root

#: The name of a token. `paused` is a word of its own in the directory of a group.
NAME = re.compile(r"(?!paused(?![a-z0-9_-]))[a-z0-9_-]{1,32}", re.ASCII)
_TOKEN = re.compile(rf"({NAME.pattern})(?:\.({STAMP})(?:@([A-Za-z0-9-]{{1,80}}))?)?", re.ASCII)


class Token(NamedTuple):
    """A token as its file name gives it. One that a person made has no `stamp` yet."""

    name: str
    stamp: str = ""
    owner: str | None = None

    def __str__(self) -> str:
        owner = f"@{self.owner}" if self.owner else ""
        return f"{self.name}.{self.stamp}{owner}" if self.stamp else self.name


def parse(text: str) -> Token | None:
    """The token of this file name; None for a file that is none."""
    match = _TOKEN.fullmatch(text)
    return Token(match[1], match[2] or "", match[3]) if match else None


def among(texts: Iterable[str]) -> list[Token]:
    """The tokens among these file names, in the order of their names and stamps."""
    return [token for text in sorted(texts) if (token := parse(text))]


def valid(tokens: Iterable[Token]) -> list[Token]:
    """One token a name, in order: the one that is taken, else the first.

    A person may make a token that is there already, under another name.
    """
    chosen: dict[str, Token] = {}
    for token in tokens:
        if token.name not in chosen or (token.owner and not chosen[token.name].owner):
            chosen[token.name] = token
    return [chosen[name] for name in sorted(chosen)]


def take(root: Root, folder: str, wanted: Sequence[Token], owner: str, now: datetime) -> list[Token]:
    """Take free tokens: all of them, or none where other owners are faster.

    Race: a person may have made a second token of a name, and two owners may have taken one each. Each of
    them lists the tokens after its renames, so at least the later one sees both, and gives its own back.
    """
    taken: list[Token] = []
    try:
        for token in wanted:
            # No name comes back, even if a clock was set back.
            mine = Token(token.name, max(stamp(now), _after(token.stamp)), owner)
            if not files.move(f"{folder}/{token}", f"{folder}/{mine}"):
                break
            taken.append(mine)
        if len(taken) == len(wanted):
            names = {token.name for token in taken}
            if {one for one in among(root.texts_in(folder)) if one.owner and one.name in names} == set(taken):
                return taken
    except BaseException:
        with contextlib.suppress(OSError):  # the first error counts, and its own tokens are seen later
            give_back(folder, taken)
        raise
    give_back(folder, taken)
    return []


def give_back(folder: str, taken: Iterable[Token]) -> None:
    """Give tokens back that were not used."""
    for token in taken:
        release(folder, token)


def release(folder: str, token: Token, used: datetime | None = None) -> bool:
    """Give a token back; if it was used, it rests from the moment `used` on. False where it is gone."""
    at = _after(token.stamp)
    if used is not None and (rest := rest_of(folder, token)):
        with contextlib.suppress(OverflowError):  # at the end of time nothing rests
            at = max(at, stamp(used + timedelta(seconds=rest)))
    return files.move(f"{folder}/{token}", f"{folder}/{Token(token.name, at)}")


def rest_of(folder: str, token: Token) -> float:
    """The seconds for which a token rests after each use; 0 where its text is no duration."""
    try:
        text = files.read(f"{folder}/{token}").decode("ascii").strip()
        return parse_duration(text) if text else 0.0
    except (OSError, ValueError):
        return 0.0


def set_rest(folder: str, token: Token, seconds: float) -> bool:
    """Let a token rest for so many seconds after each use from now on. False where it has been renamed."""
    text = f"{seconds:g}s\n".encode() if seconds else b""
    try:
        with files.opened(f"{folder}/{token}", files.WRITE) as fd:
            files.write_at(fd, text, 0)
            files.kernel.ftruncate(fd, len(text))
    except FileNotFoundError:
        return False
    return True


def _after(text: str) -> str:
    return stamp(shifted(from_stamp(text))) if text else ""


def folders(root: Root) -> list[str]:
    """The directories that hold tokens, one a group. A link to one is passed over."""
    if GROUPS not in files.list_names(root.text):
        return []
    above = f"{root.text}/{GROUPS}"
    names = root.texts_in(above) if files.is_folder(above) else []
    return [path for name in names if name[:1] != "." and files.is_folder(path := f"{above}/{name}")]


def held(root: Root) -> Iterator[tuple[str, Token]]:
    """Each token that somebody has taken, with its directory."""
    for folder in folders(root):
        with contextlib.suppress(PermissionError, FileNotFoundError):  # that holds up no other group
            yield from ((folder, token) for token in among(root.texts_in(folder)) if token.owner)


def free(left: Iterable[tuple[str, Token]], now: datetime) -> None:
    """Give back tokens, each with its directory, of dead owners whose claims have been ended.

    Nobody knows when a dead owner started its command, so a token that rests does so from now on.
    """
    for folder, token in left:
        with contextlib.suppress(PermissionError):  # a worker that may rename it frees it
            release(folder, token, now)


class Rests:
    """How long tokens rest still, by this process's own clock. One per worker.

    A clock that was wrong when a token was given back must not close it for long: it is waited for no longer
    than it rests, from when it was first seen.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[Token, float]] = {}

    def left(self, folder: str, tokens: Iterable[Token], now: datetime) -> dict[Token, float]:
        """For each of the free tokens of a directory the seconds for which it still rests."""
        before, clock, moment = self._seen.pop(folder, {}), times.clock.monotonic(), stamp(now)
        seen: dict[Token, float] = {}
        left = dict.fromkeys(tokens, 0.0)
        for token in left:
            if token.stamp > moment and (rest := rest_of(folder, token)):
                seen[token] = before.get(token, clock)
                by_stamp = (from_stamp(token.stamp) - now) / timedelta(seconds=1)
                left[token] = max(0.0, min(by_stamp, rest - (clock - seen[token])))
        if seen:
            self._seen[folder] = seen
        return left
