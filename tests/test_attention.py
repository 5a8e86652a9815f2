"""What a person should know is data: each kind of finding has its facts, and one place words them."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from queuectl.spool import requests
from queuectl.spool.onlooker import Onlooker
from queuectl.times import utc_now
from queuectl.view import explain
from queuectl.view.census import counts, listed
from queuectl.view.wording import Finding, Kind
from queuectl.view.workers import Worker

if TYPE_CHECKING:
    from queuectl import Spool

START = "2026-11-22T04:27:00.123456Z"
WORKER = Worker("web1-42-9f3c", "web1", 42, "detached", "idle", None, START, START, START, 0.0, 0.0, 0, None)


def attention(spool: Spool, *workers: Worker) -> list[Finding]:
    now = utc_now()
    return list(explain.attention(spool.root, counts(listed(spool.root), now), workers, now))


@pytest.mark.parametrize(
    ("worker", "kind", "sentence"),
    [
        (WORKER._replace(state="dead"), Kind.DIED, "1 died at work"),
        (
            WORKER._replace(state="frozen", how_to_wake="`kill`"),
            Kind.FROZEN,
            "If it is stopped, `kill` lets it go on",
        ),
        (WORKER._replace(clock_offset_seconds=90.0), Kind.CLOCK, "web1 is 90.0 s ahead"),
    ],
)
def test_a_worker_in_trouble_is_a_finding_with_a_sentence(
    spool: Spool, worker: Worker, kind: Kind, sentence: str
) -> None:
    (found,) = attention(spool, worker)
    assert found.kind is kind
    assert sentence in found.sentence


def test_what_lies_in_the_spool_is_a_finding_and_braces_in_names_are_text(spool: Spool) -> None:
    (spool.path / "pending" / "drop{0}.yaml").write_text("command: 'true'\n")
    (spool.path / "pending" / "note{1}").touch()
    (spool.path / "config.yaml").write_text("poll_interval: never\n")
    dropped, stranger, config = attention(spool)
    assert dropped == Finding(Kind.DROPPED, {"number": 1, "first": "drop{0}.yaml"})
    assert stranger == Finding(Kind.LEFT_ALONE, {"number": 1, "some": "pending/note{1}"})
    assert (config.kind, config.path) == (Kind.BAD_CONFIG, str(spool.root.config))
    assert "(drop{0}.yaml)" in dropped.sentence
    assert "poll_interval" in config.sentence


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_every_kind_of_finding_has_words_and_its_commands_are_marked(kind: Kind) -> None:
    facts: dict[str, object] = defaultdict(lambda: "this")
    facts["number"] = 1
    names = re.findall(r"\{(\w+)", "".join(kind.value))
    found = Finding(
        kind, {name: facts[name] for name in names if name not in {"quoted", "pending"}}, "/q/a b"
    )
    assert found.problem
    assert not found.problem.endswith(".")
    for text in (found.sentence, found.clause):
        assert "{" not in text
        assert text.count("`") % 2 == 0
        assert not re.search(r"(?<!`)queuectl ", text), text


def test_what_keeps_awaited_jobs_from_ending_is_worded_as_what_status_says(spool: Spool) -> None:
    spool.file({"id": "waits", "command": "true"})
    requests.pause(spool.root, spool.clock())
    found = list(explain.hindrances(spool.root, spool.settings(), Onlooker(spool.root), {"waits"}))
    assert [one.kind for one in found] == [Kind.PAUSED, Kind.NO_WORKER]
    assert found == attention(spool)[:2]


def test_the_command_that_helps_a_dead_job_is_no_part_of_the_reason(spool: Spool) -> None:
    spool.file({"id": "ends", "command": "true"})
    spool.cancel_waiting("ends")
    (reason,) = explain.reasons(spool.root, spool.settings(), spool.find("ends"), spool.clock())
    assert reason.problem == "cancelled before it ran"
    assert reason.clause == "cancelled before it ran (`queuectl retry ends` runs it again)"


def test_each_reason_why_a_job_waits_is_one_finding_and_the_number_before_it_the_last(spool: Spool) -> None:
    for job_id in ("first", "second", "third"):
        spool.file({"id": job_id, "command": "true"})
    requests.pause(spool.root, spool.clock())
    for job_id, before in (("first", "0 jobs"), ("second", "1 job"), ("third", "2 jobs")):
        found = explain.reasons(spool.root, spool.settings(), spool.find(job_id), spool.clock())
        assert [one.kind for one in found[:-1]] == [Kind.QUEUE_PAUSED, Kind.NOBODY_WORKS]
        assert found[-1].clause == f"{before} before it"
