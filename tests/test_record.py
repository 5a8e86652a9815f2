"""The job file: read whole, added to by one line an event, mended where a crash cut it short."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl import Job, Spool
from queuectl.errors import BadJob
from queuectl.job.layout import to_yaml
from queuectl.spool import claims, jobfile
from queuectl.system import files
from queuectl.times import utc_now

quick = settings(max_examples=100, deadline=None, database=None)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
START = {"event": "started", "attempt": 1, "at": "2026-11-22T12:00:00.000000Z", "worker": "w", "pid": 9}
END = {"event": "failed", "attempt": 1, "at": "2026-11-22T12:00:01.000000Z", "worker": "w", "error": "é } ]"}

#: Every layout to which an event is added as it stands.
OPEN = {
    "no history": "command: echo hi\n",
    "no history, no final newline": "command: echo hi",
    "no history, a block scalar last": "command: |\n  echo hi\n  echo ho\n",
    "no history, a list last": "command:\n- echo\n- hi\n",
    "no history, a mapping last": "command: echo hi\nenv:\n  A: b\n",
    "no history, a comment last": "command: echo hi\n# why",
    "no history, a document mark first": "---\ncommand: echo hi\n",
    "no history, Windows lines": "command: echo hi\r\npriority: 5\r\n",
    "no history, a byte order mark": "\ufeffcommand: echo hi\n",
    "no history, keys indented": "  command: echo hi\n  priority: 5\n",
    "history empty": "command: echo hi\nhistory:\n",
    "history empty, no final newline": "command: echo hi\nhistory:",
    "history empty, with a space": "command: echo hi\nhistory: \n",
    "history empty, with a comment": "command: echo hi\nhistory:  # none yet\n",
    "history empty, a comment below": "command: echo hi\nhistory:\n# none yet\n",
    "history empty, a key in quotes": 'command: echo hi\n"history":\n',
    "history empty, Windows lines": "command: echo hi\r\nhistory:\r\n",
    "history empty, keys indented": "  command: echo hi\n  history:\n",
    "history as we write it": f"command: echo hi\nhistory:\n- {json.dumps(START)}\n",
    "history, no final newline": f"command: echo hi\nhistory:\n- {json.dumps(START)}",
    "history indented": f"command: echo hi\nhistory:\n    - {json.dumps(START)}\n",
    "history indented, no final newline": f"command: echo hi\nhistory:\n  - {json.dumps(START)}",
    "history and keys indented": f" command: echo hi\n history:\n   - {json.dumps(START)}\n",
    "history written by a YAML program": yaml.safe_dump({"command": "echo hi", "history": [START]}),
    "history first in an item of its own": "command: echo hi\nhistory:\n-\n  event: started\n  attempt: 1\n",
    "history with a comment": f"command: echo hi\nhistory:\n- {json.dumps(START)}\n# looked into it\n",
    "history before the file's last line break": f"command: echo hi\nhistory:\n- {json.dumps(START)}\n\n\n",
}

#: Every layout to which nothing can be added: it has to be written anew.
CLOSED = {
    "JSON": json.dumps({"command": "echo hi", "history": [START]}),
    "JSON over several lines": json.dumps({"command": "echo hi"}, indent=2) + "\n",
    "flow": "{command: echo hi, priority: 5}\n",
    "an end mark": "command: echo hi\n...\n",
    "an end mark after a history": f"command: echo hi\nhistory:\n- {json.dumps(START)}\n...\n",
    "history in flow": "command: echo hi\nhistory: []\n",
    "history with events in flow": f"command: echo hi\nhistory: [{json.dumps(START)}]\n",
    "history not last": f"history:\n- {json.dumps(START)}\ncommand: echo hi\n",
    "history empty and not last": "history:\ncommand: echo hi\n",
    "history null": "command: echo hi\nhistory: null\n",
    "history ~": "command: echo hi\nhistory: ~\n",
}


def added(text: bytes, *events: dict[str, Any]) -> bytes:
    """The content after these events were added, as a worker adds them."""
    reading = jobfile.parse(text)
    return (text if reading.keep is None else text[: reading.keep]) + reading.addition(events)


def history(text: bytes) -> list[Any]:
    return list(jobfile.parse(text).job.history)


@pytest.mark.parametrize("layout", OPEN.values(), ids=OPEN)
def test_an_event_is_added_to_the_end_and_nothing_else_changes(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(layout.encode())
    before = jobfile.read(str(path))
    assert before.columns is not None
    after = jobfile.append(str(path), before, (START,))
    assert path.read_bytes().startswith(layout.encode())
    assert jobfile.read(str(path)).job == after.job
    assert after.job.history == (*before.job.history, START)
    assert after.job.command == before.job.command
    last = jobfile.append(str(path), after, (END, START))
    assert jobfile.read(str(path)).job == last.job
    assert last.job.history == (*before.job.history, START, END, START)
    tree = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
    assert len(tree["history"]) == len(last.job.history)


@pytest.mark.parametrize("layout", CLOSED.values(), ids=CLOSED)
def test_a_layout_that_takes_no_event_is_written_anew_and_says_the_same(spool: Spool, layout: str) -> None:
    path = spool.path / "processing" / "job.yaml"
    path.write_bytes(layout.encode())
    before = jobfile.read(str(path))
    claims.ready(spool.root, str(path), before)
    after = jobfile.read(str(path))
    assert after.job == before.job
    last = jobfile.append(str(path), after, (END,))
    assert jobfile.read(str(path)).job == last.job
    assert last.job.history == (*before.job.history, END)
    assert [one.name for one in path.parent.iterdir()] == ["job.yaml"]


@pytest.mark.parametrize(
    ("layout", "already"),
    [
        *((layout, ()) for layout in OPEN.values()),
        *((OPEN[name], (END,)) for name in ("no history", "history indented", "history and keys indented")),
    ],
)
def test_an_event_cut_short_at_any_byte_is_not_there_and_the_next_one_mends_the_file(
    layout: str, already: tuple[dict[str, Any], ...]
) -> None:
    before = layout.encode()
    before = added(before, *already) if already else before
    whole = added(before, END)
    assert whole.startswith(before)
    for length in range(len(before), len(whole)):
        torn = whole[:length]
        reading = jobfile.parse(torn)
        told = list(reading.job.history)
        # Without its line break the line is whole: then the event stands.
        assert told == (history(whole) if length == len(whole) - 1 else history(before)), torn[-40:]
        assert reading.job.command == jobfile.parse(before).job.command
        assert reading.columns is not None
        mended = added(torn, START)
        assert history(mended) == [*told, START], torn[-40:]
        yaml.safe_load(mended.decode("utf-8-sig"))


def test_a_torn_last_line_is_ignored_and_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    whole = to_yaml(Job(command="echo hi", history=(START,)))
    path.write_text(whole + '- {"event": "failed", "attempt": 1, "err')
    reading = jobfile.read(str(path))
    assert reading.job.history == (START,)
    jobfile.append(str(path), reading, (END,))
    assert path.read_text() == to_yaml(Job(command="echo hi", history=(START, END)))


def test_zeros_that_a_power_cut_left_at_the_end_are_ignored_and_cut_off() -> None:
    begun = to_yaml(Job(command="echo hi", history=(START,))).encode()
    whole = added(begun, END)
    for length in range(len(begun), len(whole) + 1):
        torn = whole[:length] + b"\0" * (len(whole) - length + 3)
        told = history(torn)
        # A line whose line break was lost may count or not: the next one has to stand on its own.
        wanted = [[START], [START, END]] if length == len(whole) - 1 else [history(whole[:length])]
        assert told in wanted, torn[-60:]
        assert history(added(torn, START)) == [*told, START]


def test_zeros_after_the_first_heading_are_ignored_and_cut_off() -> None:
    torn = to_yaml(Job(command="echo hi")).encode() + b"\0" * 100
    assert history(torn) == []
    assert added(torn, START) == to_yaml(Job(command="echo hi", history=(START,))).encode()


@pytest.mark.parametrize("text", [b"command: rm -rf /srv\0\0\0", b"command: rm -rf /srv\n\0", b"\0" * 50])
def test_zeros_in_what_a_person_wrote_are_no_torn_event_and_are_refused(text: bytes) -> None:
    with pytest.raises(BadJob, match="NUL"):
        jobfile.parse(text)


def test_a_command_that_looks_like_a_history_is_none() -> None:
    for command in ("x\nhistory:\n", "x\nhistory:\n- {}", 'x\nhistory:\n- {"event": "completed"}\n'):
        text = to_yaml(Job(command=command)).encode()
        assert jobfile.parse(text).job == Job(command=command)
        assert jobfile.parse(added(text, START)).job == Job(command=command, history=(START,))


def test_nothing_is_added_where_the_claim_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(to_yaml(Job(command="echo hi")))
    reading = jobfile.read(str(path))
    path.rename(tmp_path / "elsewhere.yaml")
    with pytest.raises(FileNotFoundError):
        jobfile.append(str(path), reading, (START,))
    assert [one.name for one in tmp_path.iterdir()] == ["elsewhere.yaml"]


@pytest.mark.parametrize(
    "tail",
    [
        b"- " + b'{"a":' * 10_000,
        b"- " + b'{"a":' * 10_000 + b"\n",
        b'- {"a": ' + b"1" * 5_000 + b"}",
        b'- {"a": ' + b"1" * 5_000 + b"}\n",
        b'- {"a": "' + b"[" * 30_000 + b'"}\n',
        b'- {"a": "' + b"[" * 30_000 + b'"}',
        b'- {"a": [' + b"[" * 30_000 + b"}\n",
        b'- {"attempt": 1e400}\n',
        b'- {"attempt": "one"}\n',
        b'- {"attempt": 1.5}\n',
        b'- {"next_try": "soon"}\n',
        b"- started\n",
        b"- - a\n",
        b'- {"event": "started", "event": "failed"}\n',
        b"history:\n",
        b"\xff\xfe\n",
    ],
    ids=range(16),
)
def test_a_hostile_history_is_read_or_refused_and_nothing_else(tail: bytes) -> None:
    try:
        told = jobfile.parse(b"command: x\nhistory:\n" + tail).job
    except BadJob:
        return
    assert told.command == "x"


@quick
@given(
    st.lists(
        st.sampled_from(
            ["command: x", "history:", "- ", "{", "}", '{"event": "failed"}', "\n", " ", '"', "\0", "[",
             "...", "é", "- {}", "\ncommand: x\nhistory:\n", "#", "---", "\r", "null", "id: a"]
        ),
        max_size=12,
    ).map("".join)
)  # fmt: skip
def test_any_mixture_is_read_or_refused_and_what_is_read_can_be_added_to(text: str) -> None:
    data = text.encode()
    try:
        reading = jobfile.parse(data)
    except BadJob:
        return
    if reading.columns is not None:
        assert history(added(data, END)) == [*reading.job.history, END]


@quick
@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_whatever_an_event_tells_reads_back(errors: list[str]) -> None:
    text = to_yaml(Job(command="x")).encode()
    events = [{"event": "failed", "attempt": 1, "error": error} for error in errors]
    for event in events:
        text = added(text, event)
    assert history(text) == events


# ── in a real spool ───────────────────────────────────────────────────────────────────────────

AWKWARD_JSON = {
    "half a surrogate pair in a directory": '{"command": "true", "cwd": "\\ud800"}',
    "half a surrogate pair in a variable": '{"command": "true", "env": {"A": "\\udfff"}}',
    "half a surrogate pair in a history": '{"command": "true", "history": [{"note": "\\ud800"}]}',
    "no character": '{"command": "true", "cwd": "a\\uffff"}',
    "no character in a variable's name": '{"command": "true", "env": {"a\\ufffe": "b"}}',
    "a variable with a very long name": json.dumps({"command": "true", "env": {"A" * 2000: "b"}}),
    "a text that is longer when it is escaped": '{"command": "true", "cwd": "%s"}' % ("\x85" * 20_000),
    "a time limit of days": '{"command": "true", "timeout": "12d"}',
    "a small backoff": '{"command": "true", "backoff_base": "0.000001"}',
}


@pytest.mark.parametrize("content", AWKWARD_JSON.values(), ids=AWKWARD_JSON)
def test_json_that_is_awkward_to_write_anew_runs_or_is_put_aside_and_stops_nobody(
    tmp_path: Path, content: str
) -> None:
    spool = Spool.create(tmp_path / "spool")
    dropped = spool.path / "pending" / "00-20200101T000000.000000Z-odd.yaml"
    dropped.write_text(content, encoding="utf-8")
    spool.file({"id": "good", "command": "true"})
    now = utc_now() + timedelta(hours=1)
    claimed = []
    with spool.member() as member:
        for _ in range(5):
            member.look(now, again=True)
            claim = member.claim(now)
            if claim is not None:
                claimed.append(claim.id)
                Path(claim.path).rename(tmp_path / f"{claim.id}.yaml")
    assert "good" in claimed
    if "odd" not in claimed:
        dead = spool.path / "dead" / dropped.name
        assert dead.read_text(encoding="utf-8") == content
        assert dead.with_name(f"{dead.name}.reason.txt").read_text().strip()


def test_a_job_with_a_long_history_still_reads(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(to_yaml(Job(command="echo hi")))
    reading = jobfile.read(str(path))
    for attempt in range(1, 101):
        reading = jobfile.append(
            str(path), reading, (START | {"attempt": attempt}, END | {"attempt": attempt})
        )
    assert jobfile.read(str(path)).job == reading.job
    assert path.stat().st_size < files.MAX_BYTES
