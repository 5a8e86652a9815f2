"""Where the values of many jobs come from: words, lines, a CSV file, combinations, and ranges as in Slurm."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from queuectl.errors import BadUsage, nearest
from queuectl.job.template import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from queuectl.job.template import Template

#: The name of the only value of a job.
ONE = "value"
_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(\d{1,18}))?")
_ARRAY = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?")
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(.*)", re.DOTALL)


class Values:
    """The values of many jobs: their names, and a row of values for each job, from the start each time."""

    def __init__(self, names: Sequence[str], rows: Callable[[], Iterable[Sequence[str]]]) -> None:
        self.names = tuple(names)
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        for number, values in enumerate(self._rows(), 1):
            yield Row(number, dict(zip(self.names, values, strict=True)))


def of_words(words: Sequence[str]) -> Values:
    """Each word as it stands, such as the names that a shell made of `*.jpg`."""
    return Values((ONE,), lambda: ((word,) for word in words))


def of_text(data: bytes, *, by_nul: bool) -> Values:
    """Each line of a text, without its CR, or each part that ends in a NUL. Empty lines are no values."""
    if not by_nul and b"\0" in data:
        raise BadUsage(
            "The values hold a NUL byte.", "Say -0 for values that end in one, as `find -print0` does."
        )

    def parts() -> Iterator[tuple[str]]:
        begin = 0
        while begin < len(data):
            end = data.find(b"\0" if by_nul else b"\n", begin) % (len(data) + 1)  # -1 is the end of the data
            part = data[begin:end] if by_nul else data[begin:end].removesuffix(b"\r")
            if part:
                yield (part.decode("utf-8", "surrogateescape"),)
            begin = end + 1

    return Values((ONE,), parts)


def of_csv(text: str, where: str) -> Values:
    """The rows below the first one, which has the names of the columns. Raises `BadUsage`."""
    header = [name.strip() for name in next(_rows_of(text, where), [])]
    double = next((name for name in header if header.count(name) > 1 or not name), None)
    if double is not None:
        problem = f"the first line names the column {double!r} twice" if double else "a column has no name"
        raise BadUsage(f"{where}: {problem}.", "Give each column a name of its own.")
    return Values(header, lambda: itertools.islice(_rows_of(text, where), 1, None))


def _rows_of(text: str, where: str) -> Iterator[list[str]]:
    """The rows of a CSV text, the first one too, but no empty ones. Raises `BadUsage`."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = 0
    try:
        for row in reader:
            columns = columns or len(row)
            if row and len(row) != columns:
                raise BadUsage(
                    f"{where}, line {reader.line_num}: {len(row)} columns, where the first has {columns}.",
                    "Each line has as many columns as the first one, which names them.",
                )
            if row:
                yield row
    except csv.Error as error:
        raise BadUsage(
            f"{where}, line {reader.line_num}: {error}.", "It takes CSV, with a first line of names."
        ) from None


def of_combinations(texts: Sequence[str]) -> Values:
    """Every combination of `NAME=VALUES`; the last name changes fastest. Raises `BadUsage`."""
    chosen: dict[str, Sequence[str]] = {}
    for text in texts:
        named = _NAMED.fullmatch(text)
        if named is None:
            raise BadUsage(f"--with: {text!r} is not NAME=VALUES.", "Write for example --with lr=0.1,0.01.")
        if named[1] in chosen:
            raise BadUsage(
                f"--with names {named[1]!r} twice.", f"Give all its values at once: {named[1]}=1,2,3."
            )
        chosen[named[1]] = listed(named[1], named[2])
    return Values(tuple(chosen), lambda: itertools.product(*chosen.values()))


def listed(name: str, text: str) -> Sequence[str]:
    """The values of a list such as `a,b`, or of a range `1..5` or `1..100..10`; `01..10` keeps its zeros."""
    values: list[Sequence[str]] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            values.append([part])
            continue
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
        if first > last or not step:
            raise BadUsage(
                f"--with {name}: the range {part} runs backwards or stands still.",
                f"Write {last}..{first}." if first > last else "Its third number is the step, 1 or more.",
            )
        width = max(
            (len(end.lstrip("-")) for end in found.groups()[:2] if re.match(r"-?0\d", end)), default=0
        )
        values.append(_Numbers(range(first, last + 1, step), width))
    if not text or any(part == "" for part in text.split(",")):
        raise BadUsage(f"--with {name}: a value is empty.", "Write the values with a comma between two.")
    return values[0] if len(values) == 1 else list(itertools.chain.from_iterable(values))


class _Numbers(Sequence[str]):
    """The texts of a range of numbers, made when they are asked for: it may be a million."""

    def __init__(self, numbers: range, width: int) -> None:
        self._numbers = numbers
        self._width = width

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, at: int) -> str:  # type: ignore[override]
        return f"{self._numbers[at]:0{self._width}d}"


def of_array(text: str) -> tuple[Values, int | None]:
    """The values of an array as Slurm writes it (`1-100`, `1-99:2`, `1,3,7-9`), and the limit after a `%`."""
    numbers, percent, limit = text.partition("%")
    ranges = []
    for part in numbers.split(","):
        found = _ARRAY.fullmatch(part.strip())
        if found is None or (percent and not re.fullmatch(r"[1-9]\d{0,2}", limit)):
            raise BadUsage(
                f"--array: {text!r} is no array.",
                "It takes 1-100, 1-99:2, or 1,3,7-9; %8 behind it runs 8 at once.",
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last or found[3] == "0":
            raise BadUsage(f"--array: {part} runs backwards or stands still.", f"Write {last}-{first}.")
        ranges.append(range(first, last + 1, int(found[3] or 1)))
    if len(set(itertools.chain.from_iterable(ranges))) < sum(map(len, ranges)):
        raise BadUsage(f"--array: {text!r} has a number twice.", "Write each number once.")
    values = Values((ONE,), lambda: ((str(number),) for number in itertools.chain.from_iterable(ranges)))
    return values, int(limit) if percent else None


def refuse_unused(template: Template, values: Values) -> None:
    """Raise `BadUsage` for a mark that no value has, or for a command without any mark or variable."""
    for name in template.unknown() if values.names != (ONE,) else ():
        raise BadUsage(f"{{{name}}} is none of the values.", nearest(name, list(values.names)))
    if not template.uses_values:
        raise BadUsage(
            "The command uses no value, so all jobs would be the same.",
            "Write {} where the value is to stand, or use $QUEUECTL_VALUE.",
        )
