"""Our `NamedTuple` is that of `typing`, as far as it is used."""

from __future__ import annotations

import pickle
import subprocess
import sys
import typing

import pytest

from queuectl.tuples import NamedTuple

if typing.TYPE_CHECKING:
    from queuectl import Spool

HEAVY = {"typing", "inspect", "logging", "click", "yaml", "filelock", "watchdog", "json", "pathlib"}


class Ours(NamedTuple):
    """What a tuple is for."""

    first: int
    second: str = "b"

    @property
    def both(self) -> str:
        return f"{self.first}{self.second}"

    def named(self) -> str:
        return super().__repr__()


class Theirs(typing.NamedTuple):
    """What a tuple is for."""

    first: int
    second: str = "b"


def test_it_makes_tuples_as_those_of_typing() -> None:
    ours, theirs = Ours(1), Theirs(1)
    assert tuple(ours) == tuple(theirs) == (1, "b")
    assert hash(ours) == hash(theirs)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours._asdict() == theirs._asdict()
    assert ours._replace(second="c") == Ours(1, "c")
    assert (Ours._fields, Ours._field_defaults) == (Theirs._fields, Theirs._field_defaults)
    assert (Ours.__doc__, Ours.__module__) == (Theirs.__doc__, Theirs.__module__)
    assert (ours.both, ours.named()) == ("1b", repr(ours))
    assert type(pickle.loads(pickle.dumps(ours))) is Ours


def test_it_refuses_what_those_of_typing_refuse() -> None:
    with pytest.raises(TypeError, match="third"):
        Ours(1, third=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="first"):
        Ours()  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Ours(1).other = 1  # type: ignore[attr-defined]


def test_filing_a_job_imports_nothing_heavy(spool: Spool) -> None:
    code = (
        "import sys; from queuectl.cli import quick; assert quick.run(sys.argv[1:]) == 0; "
        "print(*sys.modules, sep='\\n')"
    )
    words = ["--spool", str(spool.path), "enqueue", "true"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())
