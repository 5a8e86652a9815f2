"""What every page is made of: its query, its parts and the facts that they show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


#: The name of the page that stands for any other while the spool is out of reach.
AWAY = "away"


@dataclass(frozen=True, slots=True)
class Query:
    """The query of an address: the first value of each name."""

    values: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Query:
        """Read `state=dead&page=2`; a query with too many fields is empty."""
        try:
            pairs = parse_qs(text, max_num_fields=50, errors="replace")
        except ValueError:
            return cls()
        return cls({key: found[0][:4000] for key, found in pairs.items()})

    def text(self, name: str) -> str:
        """The value of a name without surrounding spaces, "" if there is none."""
        return self.values.get(name, "").strip()

    def number(self, name: str, default: int = 1) -> int:
        """A value as a whole number of at least 1; `default` if it is not a number."""
        return max(1, whole_number(self.text(name)) or default)


def whole_number(text: str) -> int | None:
    """The number that a text of at most nine digits is, None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its parts in order, and the facts that they show.

    The parts in `still` are not replaced while the page is open: a person may be typing there.
    """

    name: str
    title: str
    parts: tuple[str, ...]
    facts: dict[str, Any]
    still: tuple[str, ...] = ()
    status: int = 200

    @property
    def lives_as(self) -> str:
        """The name that the stream compares, "" for a form: a stream cannot make a form again."""
        return "" if self.name in {"new", "sure"} else self.name


def address(path: str, values: Mapping[str, Any]) -> str:
    """A path with a query of the values that are not empty."""
    kept = {key: value for key, value in values.items() if value not in {None, ""}}
    return f"{path}?{urlencode(kept)}" if kept else path
