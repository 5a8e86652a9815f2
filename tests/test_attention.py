"""What needs attention is data: each kind of finding has its facts, and one sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from queuectl.times import utc_now
from queuectl.view import attention, lookup
from queuectl.view.attention import Finding

if TYPE_CHECKING:
    from queuectl import Spool

WORKER = {
    "name": "web1-42-9f3c",
    "host": "web1",
    "pid": 42,
    "clock_offset_seconds": 0.0,
}


@pytest.mark.parametrize(
    ("workers", "finding", "sentence"),
    [
        ([WORKER | {"state": "dead"}], "died", "1 died at work"),
        (
            [WORKER | {"state": "frozen", "how_to_wake": "`kill`"}],
            "frozen",
            "if it is stopped, `kill` lets it go on",
        ),
        ([WORKER | {"state": "idle", "clock_offset_seconds": 90.0}], "clock", "web1 is 90.0 s ahead"),
    ],
)
def test_a_worker_in_trouble_is_a_finding_with_a_sentence(
    spool: Spool, workers: list[dict[str, object]], finding: str, sentence: str
) -> None:
    now = utc_now()
    (found,) = attention.findings(spool.root, lookup.counts(spool.root, now), workers, now)
    assert found.kind == finding
    assert sentence in attention.worded(found)


def test_what_lies_in_the_spool_is_a_finding_and_braces_in_names_are_text(spool: Spool) -> None:
    (spool.path / "pending" / "drop{0}.yaml").write_text("command: 'true'\n")
    (spool.path / "pending" / "note{1}").touch()
    (spool.path / "config.yaml").write_text("poll_interval: never\n")
    now = utc_now()
    found = list(attention.findings(spool.root, lookup.counts(spool.root, now), [], now))
    assert found[:2] == [
        Finding("dropped", {"number": 1, "first": "drop{0}.yaml"}),
        Finding("stranger", {"number": 1, "some": "pending/note{1}"}),
    ]
    assert [one.kind for one in found[2:]] == ["bad-config"]
    assert "(drop{0}.yaml)" in attention.worded(found[0])
    assert "poll_interval" in attention.worded(found[2])


def test_every_sentence_ends_and_its_commands_are_marked() -> None:
    for sentence in attention.SENTENCES.values():
        assert sentence.endswith("."), sentence
        assert sentence.count("`") % 2 == 0
        assert not re.search(r"(?<!`)queuectl ", sentence), sentence
