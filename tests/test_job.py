"""A job as a value: its fields, its text, its times, its history."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queuectl import documents, times
from queuectl.errors import BadJob, BadUsage
from queuectl.job import fields, history, layout, model
from queuectl.job.fields import from_fields
from queuectl.job.layout import to_yaml
from queuectl.job.model import Job, State
from queuectl.times import local

if TYPE_CHECKING:
    from collections.abc import Iterator

quick = settings(max_examples=150, deadline=None, database=None)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
moments = st.integers(86_400_000_000, 315_000_000_000_000_000).map(
    lambda microseconds: datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)


def told(text: str) -> Job:
    """The job that a file of this text tells of."""
    return from_fields(documents.load(text).tree)


def refusal(**fields: Any) -> BadJob:
    with pytest.raises(BadJob) as caught:
        from_fields({"command": "true"} | fields)
    return caught.value


# ── fields ────────────────────────────────────────────────────────────────────────────────────


def test_a_command_is_all_that_a_job_needs() -> None:
    assert told("command: echo hi\n") == Job(command="echo hi")


def test_every_field_has_a_parser_and_every_parser_a_field() -> None:
    assert set(fields.PARSERS) == set(model.Job._fields)
    assert set(fields.ALIASES.values()) <= set(fields.PARSERS)
    assert not fields.SHOWN_ONLY & {*fields.PARSERS, *fields.ALIASES}


def test_a_null_counts_as_not_said() -> None:
    text = "".join(f"{name}:\n" for name in fields.PARSERS if name != "command")
    assert told(f"command: x\n{text}") == Job(command="x")


@pytest.mark.parametrize(
    ("tree", "said"), [(None, "not a mapping"), ("echo hi", "plain text"), ([], "a list"), (["a"], "a list")]
)
def test_what_is_no_mapping_is_no_job(tree: Any, said: str) -> None:
    with pytest.raises(BadJob, match=said):
        from_fields(tree)


@pytest.mark.parametrize("tree", [{}, {"command": None}, {"id": "a"}])
def test_a_job_without_a_command_is_refused(tree: Any) -> None:
    with pytest.raises(BadJob, match="no command"):
        from_fields(tree)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("comand", "command"), ("Command", "command"), ("retries", "max_retries"), ("prio", "priority"),
     ("timeout_secs", "timeout_sec"), ("run-at", "run_at"), ("enviroment", None), ("", None),
      ("xyzzy", None)],
)  # fmt: skip
def test_an_unknown_field_is_answered_with_the_nearest_or_with_all(word: str, meant: str | None) -> None:
    error = refusal(**{word: "x"})
    assert error.problem == f"The field {word!r} is unknown."
    assert error.remedy == f"Did you mean {meant!r}?" if meant else error.remedy.startswith("Known are: id, ")


def test_what_status_shows_beside_the_fields_is_taken_back_and_has_no_effect() -> None:
    shown: dict[str, Any] = dict.fromkeys(fields.SHOWN_ONLY, "anything")
    assert from_fields({"command": "x"} | shown) == Job(command="x")


@pytest.mark.parametrize("alias", ["timeout_sec", "timeout_seconds"])
def test_an_alias_says_the_same_and_may_not_say_it_again(alias: str) -> None:
    assert told(f"command: x\n{alias}: 5\n") == Job(command="x", timeout=5.0)
    assert "says again" in refusal(**{"timeout": "5", alias: "5"}).problem


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("id", ["a", "7", "a.b_c-D", "0" * 100], ["", "-a", ".a", "_a", "a b", "a/b", "a@b", "é", "a" * 101,
         "a\n"]),
        ("command", ["true", " x ", "a\nb", ["true"], ["echo", ""]], ["", " \n", [], [""], [["a"]],
         {"a": "b"}]),
        ("priority", ["0", "10"], ["11", "-1", "1.0", "1e1", "017", "+1", " 1", "high", "٣", [], "1" * 50]),
        ("max_retries", ["0", "1000000"], ["1000001", "-1", "no", "00", "1_000", "0x10", {}]),
        ("timeout", ["0", "1.5", "90s", "2h", "100d"], ["-1", "inf", "nan", "1e3", "12:30:45", "forever",
         []]),
        ("backoff_base", ["0", "2", "1.5", "9999"], ["-1", "10000", "1e3", "two", "", ".5", []]),
        ("run_at", ["2026-11-22T04:27:00Z", "2026-11-22"], ["+10m", "soon", "04:27", "2026-13-01",
          "17960101120000"]),
        ("created_at", ["2026-11-22T04:27:00+14:00"], ["yesterday", "0001-01-01T00:00:00+14:00"]),
        ("cwd", ["/srv", "a b", "é"], [[], {}, "a\0b"]),
        ("env", [{}, {"A": "b"}, {"A": ""}, {"A": None}], ["A=b", [], {"": "x"}, {"A=B": "x"}, {"A": []},
         {"A": "\0"}]),
        ("history", [[], [{}], [{"attempt": "1"}]], ["x", ["x"], [{"attempt": "0"}], [{"attempt": "x"}],
         [{"at": []}]]),
    ],
)  # fmt: skip
def test_each_field_takes_what_is_within_its_bounds_and_no_more(
    field: str, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        from_fields({"command": "true"} | {field: value})
    for value in bad:
        error = refusal(**{field: value})
        assert error.problem.startswith(f"{field}: "), value


@pytest.mark.parametrize("text", ["no", "on", "1e3", "017", "12:30:45", "2026-11-22", "0x1F", ".inf"])
def test_a_text_field_takes_what_other_readers_take_for_another_type_as_the_text_it_is(text: str) -> None:
    taken = told(f"command: {text}\ncwd: {text}\nenv:\n  {text}: {text}\n")
    assert (taken.command, taken.cwd, taken.env) == (text.strip(), text.strip(), {text.strip(): text.strip()})


@pytest.mark.parametrize("text", ["no", "on", "1e3", "017", "12:30:45"])
@pytest.mark.parametrize("field", ["priority", "max_retries", "timeout", "backoff_base", "run_at"])
def test_a_number_field_takes_no_text_that_only_some_readers_take_for_a_number(field: str, text: str) -> None:
    if text == "017" and field in {"timeout", "backoff_base"}:
        assert getattr(told(f"command: x\n{field}: 017\n"), field) == 17.0
    else:
        assert refusal(**{field: text}).problem.startswith(f"{field}: ")


def test_a_command_may_have_48_kib_and_no_more_however_it_is_written() -> None:
    limit = 48 * 1024
    for fits in ("x" * limit, "é" * (limit // 2), ["x", "y" * (limit - 1)]):
        from_fields({"command": fits})
    for too_much in ("x" * (limit + 1), "é" * (limit // 2 + 1), ["x", "y" * limit]):
        assert "at most 49,152 bytes" in refusal(command=too_much).remedy


def test_a_refusal_shows_what_was_said_shortened_and_without_control_characters() -> None:
    problem = refusal(priority="\x1b[31m" + "x" * 1000).problem
    assert problem.isprintable()
    assert len(problem) < 150


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb"])
@pytest.mark.parametrize("field", ["command", "cwd", "env", "id"])
def test_half_a_surrogate_pair_which_no_file_can_hold_is_refused(field: str, text: str) -> None:
    values: list[Any] = [{"A": text}, {text: "A"}] if field == "env" else [text]
    for value in values:
        assert refusal(**{field: value}).problem.startswith(f"{field}: ")


def test_a_command_line_is_what_one_would_type() -> None:
    assert Job(command="echo 'a b'").command_line == "echo 'a b'"
    assert Job(command=("echo", "a b")).command_line == "echo 'a b'"


# ── times and durations ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("0", 0.0), ("90s", 90.0), ("1.5h", 5400.0), ("10m", 600.0), ("2d", 172800.0),
     ("1w", 604800.0), ("250ms", 0.25), (" 5 s ", 5.0), ("1h30m", 5400.0), ("3 min 20 s", 200.0),
     ("2 d 3 h", 183600.0)],
)  # fmt: skip
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert times.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1",
        "1y",
        "1h30",
        "1h30x",
        "h",
        "5M",
        "1 2s",
        "1e3",
        "inf",
        "nan",
        ".5",
        "1.",
        "5300w",
        "9" * 400,
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        times.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T12:00:00Z", NOON),
        ("2026-11-22T12:00:00", NOON),
        ("2026-11-22 12:00", NOON),
        ("2026-11-22T13:00:00+01:00", NOON),
        ("20261122T120000Z", NOON),
        ("2026-11-22", NOON - timedelta(hours=12)),
        ("2026-11-22 12:00:00 +00:00", NOON),
        ("2026-11-22 12:00:00Z", NOON),
        (" 2026-11-22T12:00Z ", NOON),
        ("1795348800", NOON),
        ("1795348800.0", NOON),
        ("1795348800.25", NOON + timedelta(seconds=0.25)),
        ("@1795348800", NOON),
        ("1795348800000", NOON),
    ],
)
def test_a_moment_is_iso_8601_or_seconds_or_milliseconds_since_1970(text: str, moment: datetime) -> None:
    assert times.parse_moment(text) == moment
    assert times.parse_moment(text).utcoffset() == timedelta(0)
    assert fields.from_fields({"command": "true", "run_at": text}).run_at == moment


@pytest.mark.parametrize(
    "text",
    ["", "now", "12:00", "+", "+10m", "+soon", "10m", "2026-02-30", "2026-11-22T25:00", "90", "20261122",
     "20261122120000", "1796010112000000", "1796010112000000000", "17960101120000", "2026-11-22T",
     "2026-W45-1"],
)  # fmt: skip
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        times.parse_moment(text)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process in the time zone of Berlin."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22 13:00", NOON),
        ("2026-11-22T12:00Z", NOON),
        ("2026-11-22T12:00:00+00:00", NOON),
        ("2027-07-01T14:00", datetime(2027, 7, 1, 12, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 22, 23, tzinfo=UTC)),
        ("+10m", NOON + timedelta(minutes=10)),
        ("+0", NOON),
        ("1795348800", NOON),
        ("2026-11-21T13:00", NOON - timedelta(days=1)),
        ("2027-03-28T03:00", datetime(2027, 3, 28, 1, tzinfo=UTC)),
        ("2027-03-28T02:30Z", datetime(2027, 3, 28, 2, 30, tzinfo=UTC)),
        ("2027-03-28T02:30+01:00", datetime(2027, 3, 28, 1, 30, tzinfo=UTC)),
        ("2027-10-31T02:30", datetime(2027, 10, 31, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_that_a_person_enters_is_local_unless_it_has_a_zone(text: str, moment: datetime) -> None:
    assert times.entered_moment("--run-at", text, NOON) == moment


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("moment", [NOON, datetime(2027, 7, 1, 12, tzinfo=UTC)])
def test_what_a_person_is_shown_is_local_with_its_zone_and_reads_back(moment: datetime) -> None:
    assert times.entered_moment("--run-at", local(moment), NOON) == moment
    assert local(moment).endswith(("+01:00", "+02:00"))


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"--run-at is empty\. It takes"),
        ("  ", r"--run-at is empty\. It takes"),
        ("90s", r"'90s' is no moment\. For 90s from now write --run-at \+90s\."),
        ("90", r"'90' is no moment\. For 90s from now write --run-at \+90s\."),
        ("+soon", r"'soon' is no length of time"),
        ("tomorrow", r"'tomorrow' is no moment\. It takes"),
        ("17960101120000", r"is no moment"),
        ("2025-11-22T12:00Z", r"was 365 d ago\. Correct it; without --run-at the job runs"),
        ("0026-11-22", r"was [\d,]+ d ago"),
        ("2027-03-28 02:30", r"'2027-03-28 02:30' does not exist: clocks are put forward then\. Write an"),
        ("2027-03-28T02:00", r"does not exist"),
        ("2027-03-28T02:59:59.999999", r"does not exist"),
    ],
)
def test_a_moment_that_cannot_be_meant_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(BadUsage, match=said):
        times.entered_moment("--run-at", text, NOON)


@quick
@given(moments, moments)
def test_the_texts_of_moments_read_back_and_sort_as_the_moments_do(one: datetime, other: datetime) -> None:
    assert times.from_stamp(times.stamp(one)) == one
    assert times.parse_moment(times.iso(one)) == one
    assert (times.stamp(one) < times.stamp(other)) == (one < other) == (times.iso(one) < times.iso(other))


def test_a_moment_of_another_zone_is_told_in_utc() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=-7)))
    assert times.iso(there) == "2026-11-22T12:00:00.000000Z"
    assert times.stamp(there) == "20261122T120000.000000Z"


# ── to text and back ──────────────────────────────────────────────────────────────────────────

AWKWARD = [
    "no", "on", "~", "null", "1e3", "017", "12:30:45", "0x1F", "2026-11-22", ".inf", "=", "<<", "...", "---",
    "- a", "? a", ": a", "a: b", "a:", "a #b", "#a", "!a", "&a", "*a", "%a", "@a", "`a`", "'a'", '"a"', "[a]",
    "{a}", "a, b", "|", ">", " a", "a ", "a\n", "\na", "a\nb", "a\nb\n", "a\nb\n\n", "a\n\n b", " a\nb",
    "a\n\tb",
    "\ta", "a\t", "a\rb", "a\r\nb", "a\x85b", "a\u2028b", "a\u2029b", "\ufeffa", "a\ufeff", "a\x7fb",
    "a\x1b[1m",
    "a\ufffeb", "a\uffff", "\x80", "é", "日本", "😀", "a\\nb", "~/bin/x", "a\n#b", "a\n---\nb", "a\n...\nb",
    "a\n \nb", "a\n ", "a\nb \n", "history:\n- {}", "x\nhistory:\n", "\xa0", "a\xa0", "\u3000a", "a\nb\x85",
    "a\n\u2028",
]  # fmt: skip

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
lines_of_shell = st.lists(
    st.text(alphabet=" \tab:#-'\"\\|>{}[]&*!%@`,?~=\x85\u2028\ufeff", max_size=6), max_size=5
).map("\n".join)
commands = (st.sampled_from(AWKWARD) | texts | lines_of_shell).filter(lambda text: bool(text.strip()))
durations = st.floats(0, times.LONGEST, allow_subnormal=False)


def fields_of(text: str) -> Any:
    """What any YAML program reads in a file of ours."""
    return yaml.safe_load(text)


@settings(max_examples=400, deadline=None, database=None)
@given(commands)
@example("a\uffff")
def test_any_command_reads_back_as_it_was_by_us_and_by_any_yaml_program(command: str) -> None:
    text = to_yaml(Job(command=command))
    assert told(text).command == command
    assert fields_of(text) == {"command": command, "history": None}


@pytest.mark.parametrize("command", AWKWARD)
def test_awkward_commands_read_back_as_they_were(command: str) -> None:
    if command.strip():
        text = to_yaml(Job(command=command, cwd=command, env={"A": command}))
        back = fields_of(text)
        assert (back["command"], back["cwd"], back["env"]) == (command, command, {"A": command})
        assert told(text) == Job(command=command, cwd=command, env={"A": command})


@quick
@given(st.lists(texts, min_size=1, max_size=4).filter(lambda words: bool(words[0])))
def test_a_list_of_words_reads_back_as_it_was(words: list[str]) -> None:
    text = to_yaml(Job(command=tuple(words)))
    assert told(text).command == tuple(words)
    assert fields_of(text)["command"] == words


jobs = st.builds(
    Job,
    command=commands,
    id=st.none() | st.from_regex(model.ID, fullmatch=True),
    priority=st.none() | st.integers(0, 10),
    run_at=st.none() | moments,
    max_retries=st.none() | st.integers(0, 1_000_000),
    timeout=st.none() | st.integers(0, 10**9).map(float),
    backoff_base=st.none() | st.integers(0, 9999 * 1000).map(lambda number: number / 1000),
    cwd=st.none() | texts,
    env=st.dictionaries(texts.filter(lambda name: bool(name) and "=" not in name), texts, max_size=3),
    launcher=st.none()
    | st.sampled_from(["none", "0", "srun --ntasks=1", "ssh -p 22 h {command}", "a '#: b'"]),
    created_at=st.none() | moments,
    history=st.lists(
        st.fixed_dictionaries(
            {"event": st.sampled_from(["started", "failed"]), "attempt": st.integers(1, 99)},
            optional={"error": texts, "seconds": st.floats(0, 1e9), "exit_code": st.integers(0, 255)},
        ),
        max_size=3,
    ).map(tuple),
)


@quick
@given(jobs)
def test_any_job_reads_back_as_it_was(meant: Job) -> None:
    text = to_yaml(meant)
    assert told(text) == meant
    assert set(fields_of(text)) <= set(model.Job._fields)


@pytest.mark.parametrize("days", [1, 11, 12, 365])
def test_a_time_limit_of_days_reads_back(days: int) -> None:
    assert told(to_yaml(Job(command="x", timeout=days * 86400.0))).timeout == days * 86400.0


@quick
@given(durations)
def test_a_time_limit_reads_back_to_the_millisecond(seconds: float) -> None:
    back = told(to_yaml(Job(command="x", timeout=seconds))).timeout
    assert back is not None
    assert math.isclose(back, seconds, abs_tol=0.001)


def test_what_a_person_edits_stands_on_lines_of_its_own() -> None:
    made = Job(id="a", command="x\ny", priority=5, timeout=90.0, run_at=NOON, env={"A": "b"}, created_at=NOON)
    assert to_yaml(made) == (
        "id: a\ncommand: |-\n  x\n  y\npriority: 5\ntimeout: 90\nrun_at: 2026-11-22T12:00:00.000000Z\n"
        "env:\n  A: b\ncreated_at: 2026-11-22T12:00:00.000000Z\nhistory:\n"
    )


def test_an_ordinary_command_is_written_as_it_is() -> None:
    for command in ("convert a.png -resize 50% b.png", "echo 'a' | wc -l > out", "/bin/true", "~/bin/x && y"):
        assert f"command: {command}\n" in to_yaml(Job(command=command))


@quick
@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | texts, max_size=4), st.integers(0, 4))
def test_an_event_is_one_line_that_reads_as_json_and_as_yaml(event: dict[str, Any], column: int) -> None:
    line = layout.event_line(event, column)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line.startswith(" " * column + "- {")
    assert json.loads(line[column + 2 :]) == event
    assert fields_of(line) == [event]


# ── history ───────────────────────────────────────────────────────────────────────────────────


def started(attempt: int) -> dict[str, Any]:
    return {"event": "started", "attempt": attempt, "worker": "w"}


def ended(kind: str, attempt: int, **facts: Any) -> dict[str, Any]:
    return {"event": kind, "attempt": attempt, "worker": "w"} | facts


RETRIED: dict[str, Any] = {"event": "retried"}
TWICE = (started(1), ended("failed", 1), started(2), ended("lost", 2))


def test_attempts_are_numbered_on_and_never_start_over() -> None:
    assert history.last_attempt(()) == 0
    assert history.last_attempt(TWICE) == 2
    assert history.last_attempt((*TWICE, RETRIED)) == 2
    assert history.last_attempt((*TWICE, RETRIED, started(3))) == 3


def test_a_retry_by_a_person_counts_runs_and_failures_anew() -> None:
    assert (history.attempts(TWICE), history.failures(TWICE)) == (2, 2)
    anew = (*TWICE, RETRIED)
    assert (history.attempts(anew), history.failures(anew)) == (0, 0)
    failed = (*anew, started(3), ended("failed", 3))
    assert (history.attempts(failed), history.failures(failed)) == (1, 1)
    assert history.since_retry((*failed, RETRIED)) == ()


@pytest.mark.parametrize(
    ("kind", "counts"), [("failed", 1), ("lost", 1), ("completed", 0), ("cancelled", 0), ("returned", 0)]
)
def test_only_a_failed_or_lost_run_counts_against_the_retries(kind: str, counts: int) -> None:
    assert history.failures((started(1), ended(kind, 1))) == counts


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (ended("completed", 1), State.DONE),
        (ended("completed", 1, next_try="2026-11-22"), State.DONE),
        (ended("failed", 1, next_try="2026-11-22"), State.FAILED),
        (ended("failed", 1), State.DEAD),
        (ended("lost", 1, next_try="2026-11-22"), State.PENDING),
        (ended("lost", 1), State.DEAD),
        (ended("returned", 1), State.PENDING),
        (ended("cancelled", 1), State.DEAD),
        (ended("cancelled", 1, next_try="2026-11-22"), State.DEAD),
    ],
)
def test_an_outcome_says_where_its_claim_goes(outcome: dict[str, Any], state: State) -> None:
    assert history.destination(outcome) is state
    assert state in model.TRANSITIONS[State.PROCESSING]


def test_an_outcome_is_its_owners_only_where_nothing_came_after_it() -> None:
    end = ended("failed", 1)
    assert history.outcome_by((started(1), end), "w") == end
    assert history.outcome_by((started(1), end), "another") is None
    assert history.outcome_by((started(1), end, started(2)), "w") is None
    assert history.outcome_by((started(1),), "w") is None
    assert history.outcome_by((), "w") is None


def test_a_job_in_pending_whose_outcome_sent_it_elsewhere_was_moved_by_hand() -> None:
    for elsewhere in ("completed", "failed", "cancelled"):
        assert history.moved_by_hand((started(1), ended(elsewhere, 1)))
    for back in (ended("returned", 1), ended("lost", 1, next_try="2026-11-22")):
        assert not history.moved_by_hand((started(1), back))
    assert not history.moved_by_hand(())
    assert not history.moved_by_hand((*TWICE, RETRIED))


def test_a_job_that_is_cancelled_while_it_waits_says_whether_it_ran() -> None:
    assert history.when_cancelled(()) == "cancelled before it ran"
    assert history.when_cancelled(({"event": "cancelled"}, RETRIED)) == "cancelled before it ran"
    for kind, how in {
        "failed": "before it ran again",
        "lost": "after its run was lost",
        "returned": "after its run was given back",
    }.items():
        assert history.when_cancelled((started(1), ended(kind, 1))) == f"cancelled {how}"
    assert history.when_cancelled((*TWICE, RETRIED)) == "cancelled before it ran again"


def test_a_history_that_a_yaml_program_laid_out_anew_has_its_numbers_back() -> None:
    events = [
        {"event": "started", "attempt": 1, "at": "2026-11-22T12:00:00Z", "worker": "17", "pid": 9},
        {"event": "failed", "attempt": 1, "exit_code": 3, "seconds": 0.25, "error": "5", "ok": None},
    ]
    text = yaml.safe_dump({"command": "x", "history": events})
    assert list(told(text).history) == events


@pytest.mark.parametrize("value", ["[" * 30_000, '{"a":' * 5_000, "1" * 5_000])
def test_an_event_with_a_value_that_json_cannot_take_is_kept_or_refused(value: str) -> None:
    tree = {"command": "x", "history": [{"event": "started", "note": value}]}
    try:
        assert from_fields(tree).history == ({"event": "started", "note": value},)
    except BadJob as error:
        assert error.problem.startswith("history: ")  # noqa: PT017 - either is right, another error is not


NO_MOMENTS, NO_TEXTS = [["x"], "soon", "+10m", None, ""], [["x"], None]
NO_WHOLE_NUMBERS, NO_AMOUNTS = ["1.5", "x", ["1"], "1e99"], ["NaN", "-1", {}, "x"]
WRONG: dict[str, list[Any]] = {
    **dict.fromkeys(("at", "next_try"), NO_MOMENTS),
    **dict.fromkeys(("event", "worker", "error", "signal"), NO_TEXTS),
    **dict.fromkeys(("attempt", "pid", "exit_code"), NO_WHOLE_NUMBERS),
    **dict.fromkeys(("seconds", "cpu_seconds", "max_rss_kb"), NO_AMOUNTS),
}


@pytest.mark.parametrize("event", [{key: value} for key in WRONG for value in WRONG[key]], ids=str)
def test_an_event_that_arithmetic_cannot_take_is_refused(event: dict[str, Any]) -> None:
    assert refusal(history=[{"event": "failed"} | event]).problem.startswith("history: ")


# ── states ────────────────────────────────────────────────────────────────────────────────────


def test_the_moves_are_those_that_the_protocol_names() -> None:
    moves = {f"{source} {target}" for source, targets in model.TRANSITIONS.items() for target in targets}
    assert moves == {
        "pending processing", "failed processing",
        "processing done", "processing failed", "processing dead", "processing pending",
        "pending dead", "failed dead",
        "dead pending", "failed pending", "done pending",
    }  # fmt: skip


def test_every_state_can_be_left_and_every_state_can_be_reached() -> None:
    assert set(model.TRANSITIONS) == set(State)
    assert {target for targets in model.TRANSITIONS.values() for target in targets} == set(State)


def test_done_is_shown_as_completed_and_the_others_as_they_are() -> None:
    assert [state.label for state in State] == ["pending", "processing", "completed", "failed", "dead"]
    assert [state.value for state in State] == ["pending", "processing", "done", "failed", "dead"]
