"""File names: plain `ls` shows the order in which jobs run."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectl import Spool, State
from queuectl.errors import IdTaken
from queuectl.job.model import is_id
from queuectl.spool import names
from queuectl.spool.names import Kind, Name
from queuectl.times import stamp, utc_now

quick = settings(max_examples=150, deadline=None, database=None)
ids = st.text(alphabet="abcXYZ019._-", min_size=1, max_size=100).filter(is_id)
ranks = st.integers(0, names.FIFO_RANK)
moments = st.integers(0, 315_000_000_000_000_000).map(
    lambda microseconds: datetime(1, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
owners = st.from_regex(r"[A-Za-z0-9-]{1,80}", fullmatch=True).filter(str.isascii)
waiting_names = st.builds(lambda rank, due, job_id: Name(rank, stamp(due), job_id), ranks, moments, ids)


@quick
@given(st.lists(waiting_names, max_size=10))
def test_the_order_of_names_is_the_order_in_which_jobs_run(listed: list[Name]) -> None:
    by_text = sorted(listed, key=str)
    keys = [(name.rank, name.due_at) for name in by_text]
    assert keys == sorted(keys)


@quick
@given(waiting_names)
def test_a_waiting_name_reads_back_and_is_no_claim(name: Name) -> None:
    assert names.parse(str(name)) == name
    assert names.parse_claim(str(name)) is None
    assert names.is_sortable(str(name))
    assert str(name)[names.DUE] == name.due


damages = st.tuples(st.integers(0, 60), st.sampled_from(["", "-", ".yaml", "\n", "é", " ", "@me.yaml"]))
odd_names = st.builds(
    lambda name, damage: str(name)[: damage[0]] + damage[1] + str(name)[damage[0] + 1 :],
    waiting_names,
    damages,
)
cut_names = st.builds(lambda name, end: str(name)[:end], waiting_names, st.integers(1, 40))


@quick
@given(st.lists(st.one_of(waiting_names.map(str), odd_names, cut_names), max_size=8))
def test_many_names_together_are_told_apart_as_each_is_alone(texts: list[str]) -> None:
    for state in State:
        alone = [text for text in texts if names.classify(state, text) is not Kind.JOB]
        assert names.odd(state, texts) == alone


@quick
@given(waiting_names, owners)
def test_a_claims_name_reads_back_with_its_owner_and_does_not_wait(name: Name, owner: str) -> None:
    claim = name.owned(owner)
    assert names.parse_claim(str(claim)) == claim
    assert names.parse(str(claim)) is None
    assert claim.free() == name


@quick
@given(waiting_names, owners)
def test_a_name_is_ascii_without_a_colon_and_short_enough_for_any_disk(name: Name, owner: str) -> None:
    longest = f".{name.owned(owner)}.reason.txt"
    assert longest.isascii()
    assert not set(longest) & set(':/\\*?"<>| \n')
    assert len(longest) <= 255


@quick
@given(waiting_names, owners)
def test_a_job_that_comes_back_has_a_new_name_that_is_a_microsecond_on(name: Name, owner: str) -> None:
    later = name.owned(owner).later()
    assert later.due_at - name.due_at == timedelta(microseconds=1)
    assert later == name._replace(due=later.due)
    assert str(later) > str(name)


@quick
@given(st.text(max_size=60) | st.from_regex(r"\A\d\d-2026112\dT042700\.123456Z-[a-z]\.yaml\Z"))
def test_a_name_that_is_read_at_all_reads_back_as_the_very_same_name(text: str) -> None:
    for read in (names.parse, names.parse_claim):
        name = read(text)
        assert name is None or str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.yaml",
        "05-20261122T042700.123456Z-a.yml",
        "05-20261122T042700.123456Z-a.yaml~",
        ".05-20261122T042700.123456Z-a.yaml",
        "5-20261122T042700.123456Z-a.yaml",
        "05-20261122T042700Z-a.yaml",
        "05-20261122T042700.123456Z-.yaml",
        "05-20261122T042700.123456Z--a.yaml",
        "05-20261122T042700.123456Z-a b.yaml",
        "05-20261122T042700.123456Z-a.yaml\n",
        "05-20261122T042700.123456Z-a@.yaml",
        "05-20261122T042700.123456Z-a@b@c.yaml",
        "05-20261322T042700.123456Z-a.yaml",
        "05-20261122T246000.123456Z-a.yaml",
        "05-00000000T000000.000000Z-a.yaml",
    ],
)
def test_any_other_name_is_not_that_of_a_job(text: str) -> None:
    assert names.parse(text) is None
    assert names.parse_claim(text) is None


@quick
@given(
    st.one_of(st.sampled_from([0, 1, 1900, 2000, 2024, 2026, 2100, 9999]), st.integers(0, 9999)),
    st.integers(0, 13),
    st.integers(0, 32),
)
def test_a_name_is_a_jobs_exactly_if_there_is_such_a_day(year: int, month: int, day: int) -> None:
    try:
        datetime(year, month, day, tzinfo=UTC)
        is_day = True
    except ValueError:
        is_day = False
    text = f"05-{year:04}{month:02}{day:02}T042700.123456Z-x.yaml"
    assert (names.parse(text) is not None) == is_day
    assert (names.parse_claim(text.replace(".yaml", "@me.yaml")) is not None) == is_day


def test_the_more_urgent_a_job_the_smaller_its_rank_and_fifo_comes_last() -> None:
    assert [names.rank_of(priority, fifo=False) for priority in (10, 5, 0)] == [0, 5, 10]
    assert {names.rank_of(priority, fifo=True) for priority in range(11)} == {11}


def test_a_rank_tells_the_priority_where_it_has_one() -> None:
    for priority in range(11):
        assert names.priority_of(names.rank_of(priority, fifo=False), 99) == priority
    assert names.priority_of(names.FIFO_RANK, 4) == 4


def test_made_ids_are_legal_known_as_made_and_not_made_twice() -> None:
    made = [names.make_id() for _ in range(2000)]
    assert all(is_id(one) and names.is_made_id(one) for one in made)
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    "chosen", ["resize-42", "ABCDEFGHJKMN", "abcdefghjkm", "abcdefghjkmnp", "0bcdefghjkmn"]
)
def test_a_chosen_id_is_not_taken_for_a_made_one(chosen: str) -> None:
    assert not names.is_made_id(chosen)


@quick
@given(
    st.text(max_size=300) | st.binary(max_size=255).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
def test_any_file_name_suggests_a_legal_id(text: str) -> None:
    assert is_id(names.id_from_file_name(text))
    assert is_id(names.id_from_file_name(f"{text}.yaml"))


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("resize.yaml", "resize"),
        ("resize.JSON", "resize"),
        ("my job (1).yml", "my-job-1"),
        ("-rf.yaml", "rf"),
        ("a.tar.yaml", "a.tar"),
        ("größe.yaml", "gr-e"),
        ("a" * 200 + ".yaml", "a" * 80),
    ],
)
def test_a_file_name_suggests_the_id_that_a_person_would_expect(text: str, suggested: str) -> None:
    assert names.id_from_file_name(text) == suggested


def test_a_file_name_without_a_letter_suggests_a_made_id() -> None:
    assert names.is_made_id(names.id_from_file_name("-.-.yaml"))


# ── names in a real spool ─────────────────────────────────────────────────────────────────────


def all_claims(spool: Spool, now: datetime) -> list[str]:
    """The ids that a member is given one after the other, looking in between as a worker does."""
    found = []
    with spool.member() as member:
        for _ in range(10):
            member.look(now, again=True)
            member.waiting.next_due()
            member.waiting.doubt(utc_now())
            claim = member.claim(now)
            if claim is None:
                break
            found.append(claim.id)
            Path(claim.path).rename(spool.path / "done" / str(claim.name.free()))
    return found


@pytest.mark.parametrize(
    "due", ["99999999T999999.999999Z", "00000000T000000.000000Z", "20261122T042760.000000Z"]
)
def test_a_name_with_a_moment_that_never_was_stops_nobody(tmp_path: Path, due: str) -> None:
    spool = Spool.create(tmp_path / "spool")
    (spool.path / "pending" / f"00-{due}-odd.yaml").write_text("id: odd\ncommand: 'true'\n")
    spool.file({"id": "good", "command": "true"})
    assert "good" in all_claims(spool, utc_now() + timedelta(hours=1))


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z"])
@pytest.mark.parametrize("state", [State.PENDING, State.FAILED])
def test_a_job_at_the_end_of_time_stops_nobody(tmp_path: Path, text: str, state: State) -> None:
    spool = Spool.create(tmp_path / "spool")
    name = Name(0, stamp(utc_now()), "odd")
    (spool.path / state / str(name)).write_text(f"id: odd\ncommand: 'true'\nrun_at: {text}\n")
    spool.file({"id": "good", "command": "true"})
    assert "good" in all_claims(spool, utc_now() + timedelta(hours=1))


def test_a_job_whose_priority_was_edited_runs_in_its_new_place(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool")
    for job_id in ("one", "two", "three"):
        spool.file({"id": job_id, "command": "true", "priority": 5})
    path = Path(spool.find("one").path)
    path.write_text(path.read_text().replace("priority: 5", "priority: 1"))
    assert all_claims(spool, utc_now() + timedelta(hours=1)) == ["two", "three", "one"]


def test_urgent_jobs_run_first_and_equals_in_the_order_of_their_filing(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "spool")
    for job_id, priority in (("a", 1), ("b", 9), ("c", 1), ("d", 9), ("e", 10)):
        spool.file({"id": job_id, "command": "true", "priority": priority})
    assert all_claims(spool, utc_now() + timedelta(hours=1)) == ["e", "b", "d", "a", "c"]


A_JOB = "05-20261122T042700.123456Z-resize-42.yaml"
A_CLAIM = "05-20261122T042700.123456Z-resize-42@web1-42-9f3c.yaml"


@pytest.mark.parametrize(
    ("state", "text", "kind"),
    [
        (State.PENDING, A_JOB, Kind.JOB),
        (State.PENDING, A_CLAIM, Kind.DROP),
        (State.PENDING, "resize.YML", Kind.DROP),
        (State.PENDING, ".resize.json", Kind.UNFINISHED),
        (State.PENDING, "resize.yaml~", Kind.UNFINISHED),
        (State.PENDING, "notes.txt", Kind.STRANGER),
        (State.PROCESSING, A_CLAIM, Kind.JOB),
        (State.PROCESSING, A_JOB, Kind.STRANGER),
        (State.DONE, "resize.yaml", Kind.STRANGER),
        (State.DEAD, f"{A_JOB}{names.REASON}", Kind.REASON),
        (State.FAILED, f"{A_JOB}{names.REASON}", Kind.STRANGER),
    ],
)
def test_a_file_name_is_one_thing_in_one_directory(state: State, text: str, kind: Kind) -> None:
    assert names.classify(state, text) is kind


groups = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,23}", fullmatch=True).filter(lambda text: text != "held")
reasons = st.one_of(
    st.sampled_from(["held", "moving", "needs-limits"]),
    ids.map("after+{}".format),
    st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).filter(str.isascii).map("edit+{}".format),
)
#: Ids that end as parked and claimed names do.
tricky = st.sampled_from(
    ["x.yaml", "x.yaml.moving", "x.held", "held", "a.yaml.after", "x.tmp.yaml", "a" * 100]
)
all_names = st.one_of(
    st.builds(
        lambda name, job_id, group, slots: name._replace(id=job_id, group=group, slots=slots),
        waiting_names,
        st.one_of(ids, tricky),
        groups,
        st.integers(1, 999),
    ),
    st.builds(
        lambda name, job_id, parked: name._replace(id=job_id, parked=parked),
        waiting_names,
        st.one_of(ids, tricky),
        reasons,
    ),
)


@quick
@given(all_names)
def test_a_name_with_a_group_or_a_reason_to_be_parked_reads_back(name: Name) -> None:
    text = str(name)
    assert len(text) <= 255
    assert names.name_in(State.PENDING, text) == names.name_in(State.FAILED, text) == name
    assert (names.parse(text) is None) == (name.parked is not None)
    assert names.name_in(State.DONE, text) == (None if name.parked else name)
    assert names.id_in(text) == names.id_in(f".{text}.tmp") == name.id


@quick
@given(all_names, st.from_regex(r"[A-Za-z0-9-]{1,65}", fullmatch=True).filter(str.isascii))
def test_a_claim_bears_the_group_or_the_reason_of_the_name_that_it_was_made_of(
    name: Name, owner: str
) -> None:
    text = str(name.owned(owner))
    assert len(f".{text}.new") <= 255
    reason = "after" if name.parked and name.parked.startswith("after+") else name.parked
    assert names.parse_claim(text) == name._replace(owner=owner, parked=reason)
    assert names.id_in(text) == name.id


@quick
@given(st.lists(st.one_of(all_names, waiting_names).map(str), max_size=30))
def test_no_job_counts_as_odd_whatever_its_form(texts: list[str]) -> None:
    assert names.odd(State.PENDING, texts) == []
    assert all(names.classify(State.PENDING, text) is Kind.JOB for text in texts)


def test_a_parked_job_is_not_run_keeps_its_id_and_is_found(spool: Spool) -> None:
    spool.file({"id": "stays", "command": "true"})
    spool.file({"id": "runs", "command": "true"})
    (found,) = (one for one in spool.list() if one.id == "stays")
    os.rename(found.path, f"{found.path}.held")
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        assert claim.id == "runs"
        assert me.claim(spool.clock()) is None
    assert spool.find("stays").path == f"{found.path}.held"
    assert spool.find("stays").label(spool.clock()) == "held"
    with pytest.raises(IdTaken):
        spool.file({"id": "stays", "command": "true"})
    os.rename(f"{found.path}.held", found.path)
    with spool.member() as me:
        me.look(spool.clock(), again=True)
        claim = me.claim(spool.clock())
        assert claim is not None
        assert claim.id == "stays"
