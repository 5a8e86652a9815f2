"""Groups: jobs that share slots. Never more of them run than there are, and others wait for nothing."""

from __future__ import annotations

import json
import os
import random
import time
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl import Spool, State, times
from queuectl.errors import BadJob
from queuectl.rules import groups
from queuectl.spool import tokens
from queuectl.spool.edits import Place
from queuectl.spool.names import Name
from queuectl.spool.onlooker import Onlooker
from queuectl.spool.order import NO_GROUP, Lineup
from queuectl.spool.root import Root
from queuectl.spool.tokens import Token
from queuectl.spool.waiting import REFUSED
from queuectl.times import stamp, utc_now
from queuectl.view import audit
from queuectl.view.wording import Kind
from queuectl.worker.waits import DONE, On
from tests.test_stepping import Stage, stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from queuectl.spool.claims import Claim
    from queuectl.worker.member import Member
    from tests.conftest import Counting, StoppedClock, Until, Workers
    from tests.shell import Shell

__all__ = ["stage"]

NOW = datetime(2026, 11, 22, 4, 27, tzinfo=UTC)
EARLY, LATE = stamp(NOW), stamp(NOW + timedelta(hours=1))


def gpu(spool: Spool, *slots: str, text: str = "") -> Path:
    """The directory of a group `gpu` with these slots."""
    folder = spool.path / "groups" / "gpu"
    folder.mkdir(parents=True)
    for slot in slots:
        (folder / slot).write_text(text)
    return folder


def file(spool: Spool, job_id: str, command: str = "true", **fields: object) -> None:
    spool.file({"id": job_id, "command": command, "group": "gpu", **fields})


def claims(me: Member, spool: Spool) -> list[Claim]:
    """All claims that the member can make now."""
    me.relist(spool.clock())
    me.look(spool.clock())
    found = []
    while (claim := me.claim(spool.clock())) is not None:
        found.append(claim)
    return found


def owners(spool: Spool, group: str = "gpu") -> dict[str, str | None]:
    return {token.name: token.owner for token in groups.look(spool.root, group).slots}


# ── tokens ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("cuda0", Token("cuda0")),
        (f"1.{EARLY}", Token("1", EARLY)),
        (f"_a-b.{EARLY}@web1-42-9f3c", Token("_a-b", EARLY, "web1-42-9f3c")),
        ("paused2", Token("paused2")),
        ("paused", None),
        ("Cuda0", None),
        ("cuda0.txt", None),
        (f"cuda0.{EARLY}@", None),
        (f"cuda0.{EARLY}@a@b", None),
        ("cuda0@web1-42-9f3c", None),
        ("x" * 33, None),
        (".cuda0", None),
        ("3.gone", None),
        ("٣", None),
    ],
)
def test_a_token_is_its_file_name_and_other_files_are_none(text: str, token: Token | None) -> None:
    assert tokens.parse(text) == token
    assert token is None or str(token) == text


def test_of_several_tokens_of_a_name_the_taken_one_counts() -> None:
    texts = ["a", f"a.{EARLY}", f"a.{LATE}@me-1-abcd", "b", f"b.{EARLY}"]
    random.shuffle(texts)
    assert tokens.valid(tokens.among(texts)) == [Token("a", LATE, "me-1-abcd"), Token("b")]


def test_a_token_that_is_taken_and_given_back_never_has_a_name_again(spool: Spool) -> None:
    folder = gpu(spool, "a")
    seen = {"a"}
    for at in (NOW, NOW - timedelta(days=1), NOW, NOW):  # the clock is set back, and on again
        (free,) = tokens.among(os.listdir(folder))
        (mine,) = tokens.take(spool.root, str(folder), [free], "me-1-abcd", at)
        assert tokens.release(str(folder), mine)
        names = {str(mine), *os.listdir(folder)}
        assert not names & seen
        seen |= names


def test_two_tokens_of_one_name_are_not_both_kept(spool: Spool) -> None:
    folder = gpu(spool, "a", f"a.{EARLY}")
    first, second = tokens.among(os.listdir(folder))
    assert tokens.take(spool.root, str(folder), [first], "me-1-abcd", NOW)
    # Of the two owners the later one sees both, also where its stamp is the earlier one.
    assert tokens.take(spool.root, str(folder), [second], "you-1-abcd", NOW - timedelta(days=1)) == []
    assert [token.owner for token in tokens.valid(tokens.among(os.listdir(folder)))] == ["me-1-abcd"]
    assert {token.owner for token in tokens.among(os.listdir(folder))} == {None, "me-1-abcd"}


def test_all_tokens_that_are_wanted_are_taken_or_none(spool: Spool) -> None:
    folder = gpu(spool, "a", "b", "c")
    a, b, c = tokens.among(os.listdir(folder))
    assert tokens.take(spool.root, str(folder), [b], "you-1-abcd", NOW)
    assert tokens.take(spool.root, str(folder), [a, b, c], "me-1-abcd", NOW) == []
    assert owners(spool) == {"a": None, "b": "you-1-abcd", "c": None}


def race(path: str, owner: str, wanted: int, seconds: float) -> None:
    """Take slots and give them back; a file that must be new shows that nobody else has them."""
    slots = groups.Slots(Root(path), owner)
    claim = Name(5, EARLY, owner, owner, "gpu", wanted)
    end, won = time.monotonic() + seconds, 0
    while time.monotonic() < end or not won:
        if slots.take(claim, utc_now()):
            marks = [Path(path, "logs", f"slot-{name}") for name in slots.names(claim)]
            assert len(marks) == wanted
            for mark in marks:
                mark.touch(exist_ok=False)
            time.sleep(0.0005)
            for mark in marks:
                mark.unlink()
            slots.give_back(claim)
            won += 1


def test_owners_that_race_for_slots_never_have_one_at_the_same_time(spool: Spool) -> None:
    gpu(spool, *"abcd", f"a.{EARLY}", f"b.{LATE}")
    context = get_context("fork")
    racers = [
        context.Process(target=race, args=(str(spool.path), f"me-{n}-abcd", 1 + n % 3, 1.5)) for n in range(6)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0] * 6
    assert owners(spool) == dict.fromkeys("abcd")


# ── rests ─────────────────────────────────────────────────────────────────────────────────────


def can_take(slots: groups.Slots, now: datetime) -> bool:
    claim = Name(5, EARLY, "job", "me-1-abcd", "gpu")
    if is_taken := slots.take(claim, now):
        slots.give_back(claim, now)
    return is_taken


def test_a_slot_rests_from_the_start_of_the_command(spool: Spool, clock: StoppedClock) -> None:
    gpu(spool, "a", text="60s\n")
    slots = groups.Slots(spool.root, "me-1-abcd")
    started = clock.now()
    claim = Name(5, EARLY, "job", "me-1-abcd", "gpu")
    assert slots.take(claim, started)
    clock.sleep(45)
    slots.give_back(claim, started)
    assert not can_take(slots, clock.now())
    clock.sleep(14)
    assert not can_take(slots, clock.now())
    assert slots.opens_in() == pytest.approx(groups.SOON)
    clock.sleep(1)
    assert can_take(slots, clock.now())


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_that_was_wrong_closes_a_slot_for_no_longer_than_it_rests(
    spool: Spool, clock: StoppedClock, hours: int
) -> None:
    gpu(spool, "a", text="60s")
    wrong = clock.now() + timedelta(hours=abs(hours))
    slots = groups.Slots(spool.root, "me-1-abcd")
    assert can_take(slots, wrong)  # it is given back under a stamp of tomorrow
    assert not can_take(slots, clock.now())
    clock.sleep(59)
    assert not can_take(slots, clock.now())
    clock.sleep(1)
    assert can_take(slots, clock.now())


def test_a_slot_without_a_rest_is_free_whatever_its_stamp_says(spool: Spool) -> None:
    gpu(spool, f"a.{LATE}", "b", text="no duration")
    assert can_take(groups.Slots(spool.root, "me-1-abcd"), NOW)


def test_slots_that_were_lost_to_another_owner_do_not_rest(spool: Spool) -> None:
    folder = gpu(spool, "a", "b", text="1h")
    a, b = tokens.among(os.listdir(folder))
    tokens.take(spool.root, str(folder), [b], "you-1-abcd", NOW)
    assert tokens.take(spool.root, str(folder), [a, b], "me-1-abcd", NOW) == []
    assert can_take(groups.Slots(spool.root, "me-1-abcd"), NOW + timedelta(seconds=1))


# ── the lanes ─────────────────────────────────────────────────────────────────────────────────


def names_of(lineup: Lineup) -> list[str]:
    found = []
    while (one := lineup.pop()) is not None:
        found.append(one[1][27:])
    return found


def test_a_closed_lane_holds_up_no_other_one_and_keeps_its_order() -> None:
    lineup = Lineup()
    texts = [f"0{rank}-{EARLY}-{job_id}.yaml" for rank, job_id in ((1, "a+gpu"), (2, "b"), (3, "c+gpu=2"))]
    lineup.fill(State.PENDING, texts, [])
    lineup.add_due(State.FAILED, f"00-{EARLY}-d+web.yaml")
    lineup.is_open = lambda group: group != "gpu"
    assert lineup.promote(EARLY)
    assert [text for _, text in lineup.first(2)] == [texts[0], texts[1], f"00-{EARLY}-d+web.yaml"]
    assert names_of(lineup) == ["d+web.yaml", "b.yaml"]
    assert not lineup.promote(EARLY)
    assert lineup.due_groups() == ["gpu"]
    lineup.is_open = lambda _: True
    assert names_of(lineup) == ["a+gpu.yaml", "c+gpu=2.yaml"]
    assert NO_GROUP not in lineup.due_groups()


# ── claims ────────────────────────────────────────────────────────────────────────────────────


def test_as_many_jobs_of_a_group_are_claimed_as_it_has_slots_and_others_go_on(spool: Spool) -> None:
    gpu(spool, "cuda0", "cuda1")
    for n in range(4):
        file(spool, f"gpu-{n}", priority=9)
    spool.file({"id": "plain", "command": "true"})
    with spool.member() as me:
        got = claims(me, spool)
        assert [claim.id for claim in got] == ["gpu-0", "gpu-1", "plain"]
        assert [me.told(claim).get("QUEUECTL_SLOT") for claim in got] == ["cuda0", "cuda1", None]
        me.complete(got[1], {"exit_code": 0}, spool.clock())
        assert [claim.id for claim in claims(me, spool)] == ["gpu-2"]
        me.give_back(got[0])
        assert owners(spool)["cuda0"] is None


def test_a_job_with_several_slots_waits_for_all_of_them_and_nobody_overtakes_it(spool: Spool) -> None:
    gpu(spool, "a", "b", "c")
    file(spool, "one", priority=9)
    file(spool, "three", slots=3, priority=8)
    file(spool, "later", priority=7)
    with spool.member() as me:
        (one,) = claims(me, spool)
        assert one.id == "one"
        me.complete(one, {"exit_code": 0}, spool.clock())
        (three,) = claims(me, spool)
        assert me.told(three)["QUEUECTL_SLOT"] == "a,b,c"


def test_a_group_that_nobody_has_set_up_has_one_slot(spool: Spool) -> None:
    file(spool, "a")
    file(spool, "b")
    with spool.member() as me:
        assert [claim.id for claim in claims(me, spool)] == ["a"]
    assert len(os.listdir(spool.path / "groups" / "gpu")) == 1
    assert (spool.path / "groups" / "gpu").stat().st_mode == spool.path.stat().st_mode


def test_a_paused_group_starts_nothing(spool: Spool, clock: StoppedClock) -> None:
    folder = gpu(spool, "a")
    (folder / "paused").touch()
    file(spool, "a")
    with spool.member() as me:
        assert claims(me, spool) == []
        assert not me.waits_for_slots
        (folder / "paused").unlink()
        clock.sleep(groups.LONGEST)
        assert [claim.id for claim in claims(me, spool)] == ["a"]


def test_the_content_decides_which_group_a_job_is_in(spool: Spool) -> None:
    gpu(spool, "a")
    file(spool, "first", priority=9)
    file(spool, "second")
    (path,) = (spool.path / "pending").glob("*second*")
    with spool.member() as me:
        assert [claim.id for claim in claims(me, spool)] == ["first"]
        path.write_text(path.read_text().replace("group: gpu", "group: web"))
        path.rename(str(path).replace("+gpu", ""))
        assert [claim.id for claim in claims(me, spool)] == ["second"]
        assert spool.find("second").name.group == "web"
        assert [bool(owner) for owner in owners(spool, "web").values()] == [True]


def test_an_edit_that_takes_a_job_out_of_a_full_group_counts_at_once(spool: Spool) -> None:
    gpu(spool, "a")
    file(spool, "first")
    file(spool, "second")
    with spool.member() as me:
        assert [claim.id for claim in claims(me, spool)] == ["first"]
        path = Path(spool.find("second").path)
        path.write_text(path.read_text().replace("group: gpu\n", ""))
        me.look(spool.clock(), edited=[Place(State.PENDING, path.name)])
        (second,) = claims(me, spool)
        assert (second.id, second.name.group) == ("second", None)


def test_no_job_of_a_group_starts_without_a_slot(spool: Spool) -> None:
    """A job that was taken to be renamed may agree with its name by then."""
    gpu(spool, "a")
    file(spool, "first")
    file(spool, "second")
    with spool.member() as me:
        assert [claim.id for claim in claims(me, spool)] == ["first"]
        path = Path(spool.find("second").path)
        text = path.read_text()
        path.write_text(text.replace("group: gpu\n", ""))
        me.look(spool.clock(), edited=[Place(State.PENDING, path.name)])
        assert me.waiting.has_due(spool.clock())
        path.write_text(text)
        assert me.claim(spool.clock()) is None
        assert spool.find("second").state is State.PENDING


def test_a_job_that_wants_more_slots_than_its_group_has_holds_nobody_up(
    spool: Spool, clock: StoppedClock
) -> None:
    folder = gpu(spool, "a", "b")
    drop(spool, "big", "slots: 3\npriority: 10\n")
    with spool.member() as me:
        take_in(me, spool)
        file(spool, "small")
        clock.sleep(1.0)
        (small,) = claims(me, spool)
        assert small.id == "small"
        me.complete(small, {"exit_code": 0}, spool.clock())
        assert me.is_drained(spool.clock())
        (folder / "c").touch()
        clock.sleep(REFUSED)
        assert [claim.id for claim in claims(me, spool)] == ["big"]


def drop(spool: Spool, job_id: str, fields: str) -> None:
    (spool.path / "pending" / f"{job_id}.yaml").write_text(
        f"id: {job_id}\ncommand: 'true'\ngroup: gpu\n{fields}"
    )


def take_in(me: Member, spool: Spool) -> None:
    while not all("Z-" in text for text in os.listdir(spool.path / "pending")):
        me.look(spool.clock(), again=True)
        times.clock.sleep(1.0)


def test_what_is_done_with_a_job_keeps_its_group_in_the_name(spool: Spool) -> None:
    gpu(spool, "a", "b")
    drop(spool, "job", "slots: 2\nmax_retries: 0\n")
    with spool.member() as me:
        take_in(me, spool)
        assert spool.find("job").path.endswith("-job+gpu=2.yaml")
        (claim,) = claims(me, spool)
        assert claim.path.endswith(f"-job+gpu=2@{me.name}.yaml")
        me.fail(claim, {"exit_code": 1}, spool.clock(), 0.0)
    assert spool.find("job").path.endswith("/dead/" + os.path.basename(spool.find("job").path))
    assert spool.retry("job").endswith("-job+gpu=2.yaml")
    assert spool.cancel_waiting("job").endswith("-job+gpu=2.yaml")


@pytest.mark.parametrize(
    "fields",
    [
        {"slots": 2},
        {"group": "held"},
        {"group": "GPU"},
        {"group": "a" * 25},
        {"group": "-a"},
        {"group": "gpu", "slots": 0},
        {"group": "gpu", "slots": 1000},
        {"group": "a/b"},
        {"group": ""},
    ],
)
def test_a_wrong_group_is_refused(spool: Spool, fields: dict[str, object]) -> None:
    with pytest.raises(BadJob, match=r"group|slots"):
        spool.file({"command": "true", **fields})
    assert list(spool.list()) == []


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────


def test_a_directory_that_cannot_be_used_stops_its_group_alone(spool: Spool, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "passwd").touch()
    (spool.path / "groups").mkdir()
    (spool.path / "groups" / "gpu").symlink_to(elsewhere)
    (spool.path / "groups" / "web").write_text("no directory")
    file(spool, "a")
    spool.file({"id": "b", "command": "true", "group": "web"})
    spool.file({"id": "c", "command": "true"})
    with spool.member() as me:
        assert [claim.id for claim in claims(me, spool)] == ["c"]
        tokens.free(tokens.held(spool.root), NOW)
    assert os.listdir(elsewhere) == ["passwd"]


def test_slots_that_an_error_has_left_are_given_back_at_the_next_look(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(spool, "a")
    file(spool, "job")
    with spool.member() as me:
        (claim,) = claims(me, spool)
        with monkeypatch.context() as broken:
            broken.setattr(tokens, "release", failing)
            me.complete(claim, {"exit_code": 0}, spool.clock())
        assert spool.find("job").state is State.DONE
        assert owners(spool) == {"a": me.name}
        me.look(spool.clock())
        assert owners(spool) == {"a": None}


def failing(*_: object) -> bool:
    raise OSError(5, "Input/output error")


def test_a_claim_that_is_gone_leaves_no_slot_behind(spool: Spool) -> None:
    gpu(spool, "a")
    file(spool, "job")
    with spool.member() as me:
        (claim,) = claims(me, spool)
        os.rename(claim.path, f"{spool.root.folder(State.PENDING)}/{claim.name.later()}")
        me.look(spool.clock())
        assert owners(spool) == {"a": None}


def test_the_slots_of_the_dead_are_free_once_their_jobs_have_ended(spool: Spool) -> None:
    gpu(spool, "a", "b")
    file(spool, "job")
    me = spool.member()
    claims(me, spool)
    me.presence.unlock()  # as a crash does
    with spool.member() as other:
        assert claims(other, spool) == []
        other.recover(lambda *_: None, spool.clock())
        assert set(owners(spool).values()) == {None}
        assert [claim.id for claim in claims(other, spool)] == ["job"]


def test_a_dead_owner_whose_command_still_runs_keeps_its_slots(spool: Spool) -> None:
    from queuectl.spool.recovery import StillRuns

    gpu(spool, "a")
    file(spool, "job")
    me = spool.member()
    (claim,) = claims(me, spool)
    me.begin(claim)
    me.note(claim, me.started(1, 1, spool.clock()))
    me.presence.unlock()

    def still_runs(*_: object) -> None:
        raise StillRuns(1)

    with spool.member() as other:
        other.recover(still_runs, spool.clock())
        assert owners(spool) == {"a": me.name}


def test_an_owner_that_dies_during_a_recovery_keeps_its_slot_until_its_command_has_ended(
    spool: Spool, clock: StoppedClock
) -> None:
    gpu(spool, "a", "b", text="60s")

    def start_and_die(job_id: str) -> str:
        file(spool, job_id)
        clock.sleep(1)
        me = spool.member()
        (claim,) = claims(me, spool)
        me.begin(claim)
        me.note(claim, me.started(1, 1, spool.clock()))
        me.presence.unlock()
        return me.name

    stopped: list[str] = []
    late: list[str] = []

    def stop(_: object, name: Name, __: object) -> None:
        """Takes its time, while another worker starts a job in the other slot and dies."""
        stopped.append(name.id)
        clock.sleep(29)
        if not late:
            late.append(start_and_die("second"))

    start_and_die("first")
    with spool.member() as other:
        other.recover(stop, spool.clock())
        assert (stopped, owners(spool)) == (["first"], {"a": None, "b": late[0]})
        assert f"{late[0]}.yaml" in os.listdir(spool.root.workers)
        clock.sleep(59)
        assert claims(other, spool) == []  # the slot rests from when it was freed
        clock.sleep(1)
        assert [claim.id for claim in claims(other, spool)] == ["first"]
        other.recover(stop, spool.clock())
        assert (stopped, owners(spool)) == (["first", "second"], {"a": other.name, "b": None})


def test_fewer_slots_hold_until_the_jobs_in_them_have_ended(spool: Spool) -> None:
    folder = gpu(spool, "1", "2", "3")
    for n in range(5):
        file(spool, f"job-{n}")
    with spool.member() as me:
        first, second, third = claims(me, spool)
        (folder / "2.gone").touch()
        (folder / "3.gone").touch()
        me.complete(first, {"exit_code": 0}, spool.clock())
        assert claims(me, spool) == []  # two jobs run still, and one may
        me.complete(second, {"exit_code": 0}, spool.clock())
        assert claims(me, spool) == []
        me.complete(third, {"exit_code": 0}, spool.clock())
        assert [claim.id for claim in claims(me, spool)] == ["job-3"]
    assert [text[:2] for text in os.listdir(folder)] == ["1."]


# ── workers ───────────────────────────────────────────────────────────────────────────────────


def test_a_drain_waits_for_slots_that_come_back(spool: Spool, stage: Stage) -> None:
    gpu(spool, "a")
    for n in range(3):
        file(spool, f"job-{n}")
    stage.lasts = 5.0
    workers = [stage.enter(), stage.enter()]
    left = set(workers)
    for _ in range(2000):
        for worker in workers:
            if worker in left and stage.step(worker) == DONE:
                left.discard(worker)
                assert stage.started == ["job-0", "job-1", "job-2"]
            assert sum(not command.has_ended() for command in stage.commands) <= 1
    assert not left


def test_a_drain_leaves_a_paused_group(spool: Spool, stage: Stage) -> None:
    (gpu(spool, "a") / "paused").touch()
    file(spool, "job")
    spool.file({"id": "plain", "command": "true"})
    stage.until(stage.enter(), On.END)
    assert stage.started == ["plain"]


def test_a_worker_for_one_group_takes_no_other_job(spool: Spool, stage: Stage) -> None:
    file(spool, "job")
    spool.file({"id": "plain", "command": "true"})
    spool.file({"id": "later", "command": "true", "run_at": "2126-01-01T00:00:00Z"})
    stage.until(stage.enter(frozenset({State.PENDING}), only="gpu"), On.END)
    assert stage.started == ["job"]


def test_real_commands_find_their_slots_and_never_more_of_them_run(
    spool: Spool, workers: Workers, until: Until
) -> None:
    gpu(spool, "cuda0", "cuda1")
    marks = spool.path.parent / "marks"
    marks.mkdir()
    command = f"set -C; : > {marks}/$QUEUECTL_SLOT || exit 9; sleep 0.05; rm {marks}/$QUEUECTL_SLOT"
    for n in range(12):
        file(spool, f"job-{n}", command, max_retries=0)
    workers.drain(4)
    assert {found.state for found in spool.list()} == {State.DONE}
    assert set(owners(spool).values()) == {None}


def test_a_killed_worker_frees_its_slot_and_no_two_jobs_are_in_it(
    spool: Spool, workers: Workers, until: Until
) -> None:
    gpu(spool, "a", "b")
    marks = spool.path.parent / "marks"
    marks.mkdir()
    alone = f"exec 9>{marks}/$QUEUECTL_SLOT; flock -n 9 || touch {marks}/TWICE; sleep 0.1"
    for n in range(20):
        file(spool, f"job-{n}", alone, max_retries=20, backoff_base=0)
    luck = random.Random(0)
    while any(found.state is not State.DONE for found in spool.list()):
        workers.refill(3)
        time.sleep(luck.uniform(0.1, 0.4))
        if luck.random() < 0.5:
            luck.choice(workers.running()).kill()
    workers.stop()
    assert not (marks / "TWICE").exists()


# ── what it costs ─────────────────────────────────────────────────────────────────────────────


def run_all(spool: Spool, jobs: Iterable[str]) -> None:
    with spool.member() as me:
        me.relist(spool.clock())
        for _ in jobs:
            claim = me.claim(spool.clock())
            assert claim is not None
            me.complete(claim, {"exit_code": 0}, spool.clock())


@pytest.mark.parametrize("count", [1, 40])
def test_a_plain_job_makes_no_operation_more_beside_a_full_group(
    spool: Spool, counting: Counting, count: int
) -> None:
    plain: Sequence[str] = [f"plain-{n}" for n in range(count)]
    list(spool.file_many({"id": one, "command": "true"} for one in plain))
    counting.calls.clear()
    run_all(spool, plain)
    alone = counting.calls.copy()
    list(spool.file_many({"id": f"more-{one}", "command": "true"} for one in plain))
    gpu(spool, f"a.{EARLY}@{spool.member().name}")
    for n in range(5):
        file(spool, f"job-{n}", priority=9)
    counting.calls.clear()
    run_all(spool, plain)
    # The first look at the group and one at each file of the listing, whatever the number of plain jobs.
    more = counting.calls - alone
    assert more == {"listdir": 3, "lstat": 1 + 5}


# ── check ─────────────────────────────────────────────────────────────────────────────────────


def test_check_names_what_is_no_slot_and_repair_frees_what_the_dead_left(spool: Spool) -> None:
    folder = gpu(
        spool, "a", f"a.{EARLY}", f"b.{EARLY}@gone-1-abcd", "notes.txt", "paused", "7.gone", "8.gone", "8"
    )
    (spool.path / "groups" / "Big").mkdir()
    (spool.path / "groups" / ".draft.x").mkdir()
    os.utime(spool.path / "groups" / ".draft.x", (0, 0))
    onlooker = Onlooker(spool.root)
    found = audit.check(spool.root, onlooker, 300, spool.clock())
    assert {(one.kind, os.path.basename(one.path)) for one in found} == {
        (Kind.SAME_SLOT, f"a.{EARLY}"),
        (Kind.DEAD_SLOT, f"b.{EARLY}@gone-1-abcd"),
        (Kind.NO_SLOT, "notes.txt"),
        (Kind.GONE_SLOT, "7.gone"),
        (Kind.NO_GROUP, "Big"),
        (Kind.DRAFT, ".draft.x"),
    }
    left = audit.repair(spool.root, onlooker, spool.settings(), lambda *_: None, spool.clock())
    assert {os.path.basename(one.path) for one in left} == {"notes.txt", "Big"}
    assert {str(text).partition(".")[0] for text in os.listdir(folder)} == {"a", "b", "notes", "paused", "8"}
    assert not any("@" in text for text in os.listdir(folder))


def test_a_job_that_is_released_has_its_group_in_its_name_again(spool: Spool) -> None:
    file(spool, "job", slots=1)
    spool.hold("job")
    assert "+gpu" not in spool.find("job").path
    spool.release("job")
    assert spool.find("job").path.endswith("-job+gpu.yaml")
    spool.hold("job")
    spool.release("job", at_once=True)
    assert spool.find("job").path.endswith("-job+gpu.yaml")
    file(spool, "behind", after="job")
    with spool.member() as me:
        (claim,) = claims(me, spool)
        me.complete(me.note(claim, me.started(1, None, spool.clock())), {"exit_code": 0}, spool.clock())
        me.look(spool.clock())
        assert spool.find("behind").path.endswith("-behind+gpu.yaml")


# ── by command ────────────────────────────────────────────────────────────────────────────────


def says(shell: Shell, *words: str) -> str:
    return shell(*words).out


@pytest.fixture
def queue(shell: Shell) -> Shell:
    shell("init")
    return shell


def test_a_group_is_made_and_changed_by_command(queue: Shell) -> None:
    assert says(queue, "group", "set", "gpu", "--slots", "3") == "gpu has 3 slots\n"
    assert says(queue, "group", "set", "gpu", "--slots", "1", "--rest", "90s") == (
        "gpu has 1 slot, each rests for 1 min 30 s from a start\n"
    )
    folder = queue.spool.path / "groups" / "gpu"
    (folder / "cuda0").touch()
    assert says(queue, "group", "set", "gpu", "--slots", "2").startswith("gpu has 3 slots, each rests")
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == {"1", "2", "cuda0"}
    assert {path.read_text() for path in folder.iterdir()} == {"90s\n"}
    assert says(queue, "group", "set", "gpu", "--rest", "0") == "gpu has 3 slots\n"
    assert says(queue, "group", "pause", "gpu") == "gpu is paused\n"
    (one,) = map(json.loads, says(queue, "group", "list", "--json").splitlines())
    assert one == {
        "group": "gpu",
        "paused": True,
        "slots": 3,
        "in_use": 0,
        "resting": 0,
        "running": 0,
        "waiting": 0,
        "rest_seconds": 0,
        "workers": {},
    }
    assert says(queue, "group", "resume", "gpu") == "gpu is resumed\n"
    assert says(queue, "group", "resume", "gpu") == "gpu was not paused\n"
    assert says(queue, "check") == ""


def test_slots_that_are_in_use_go_when_their_jobs_have_ended(queue: Shell) -> None:
    says(queue, "group", "set", "gpu", "--slots", "3")
    spool = queue.spool
    for n in range(3):
        file(spool, f"job-{n}")
    with spool.member() as me:
        got = claims(me, spool)
        said = queue("group", "set", "gpu", "--slots", "1")
        assert said.out == "gpu has 1 slot\n"
        assert "3 are in use; nothing is started in gpu until fewer than 1 are." in said.err
        for claim in got:
            me.give_back(claim)
        (claim,) = claims(me, spool)
        shown = says(queue, "group", "list").splitlines()[1]
        assert shown.split() == ["gpu", "1", "1", "0", "2", "-", "full"]
        me.give_back(claim)
    assert says(queue, "check") == ""


def texts_in(spool: Spool) -> list[tuple[str, bytes]]:
    """All files, without the moments in their names."""
    files = sorted(path for path in spool.path.rglob("*") if path.is_file())
    return [(path.name[27:] or path.name, path.read_bytes()) for path in files]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["enqueue", "--group", "gpu", "--slots", "3", "true"], "it wants 3, and the group gpu has 2"),
        (["enqueue", "--group", "new", "--slots", "2", "true"], "it wants 2, and the group new has 1"),
        (["enqueue", "--group", "GPU", "true"], "'GPU' cannot be taken"),
        (["enqueue", "--slots", "2", "true"], "slots says nothing without group"),
        (["group", "set", "gpu"], "Nothing to set was given"),
        (["group", "set", "GPU", "--slots", "2"], "'GPU' is no name of a group"),
        (["group", "set", "gpu", "--slots", "0"], "0 is not in the range"),
        (["group", "set", "gpu", "--rest", "soon"], "--rest"),
        (["group", "pause", "../x"], "'../x' is no name of a group"),
        (["group", "pause", "gqu"], "There is no group 'gqu'"),
        (["group", "resume", "gqu"], "There is no group 'gqu'"),
        (["worker", "start", "--group", "a b"], "'a b' is no name of a group"),
        (["group", "new", "gpu"], "Did you mean `queuectl group set`?"),
        (["set", "waits", "slots=3"], "it wants 3, and the group gpu has 2"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(queue: Shell, words: list[str], told: str) -> None:
    says(queue, "group", "set", "gpu", "--slots", "2")
    says(queue, "enqueue", "--id", "waits", "--group", "gpu", "true")
    before = texts_in(queue.spool)
    assert told in queue(*words, status=(1, 2)).err
    assert texts_in(queue.spool) == before


def test_status_says_what_a_job_of_a_group_waits_for(queue: Shell) -> None:
    says(queue, "group", "set", "gpu", "--slots", "2")
    says(queue, "enqueue", "--id", "one", "--group", "gpu", "--slots", "2", "true")
    says(queue, "enqueue", "--id", "two", "--group", "gpu", "true")
    spool = queue.spool
    with spool.member() as me:
        assert [claim.id for claim in claims(me, spool)] == ["one"]
        assert "waits for a slot of gpu: 2 of 2 in use" in says(queue, "status", "two")
        says(queue, "group", "pause", "gpu")
        assert "gpu is paused (`queuectl group resume gpu`)" in says(queue, "status", "two")
        assert "! Paused: no job of the group gpu is started." in says(queue, "status")
    drop(spool, "big", "slots: 3\n")
    with spool.member() as me:
        take_in(me, spool)
    assert "wants 3 slots, gpu has 2" in says(queue, "status", "big")
    assert "Job big wants 3 slots, and the group gpu has 2." in says(queue, "status")
    shown = json.loads(says(queue, "status", "one", "--json"))
    assert (shown["group"], shown["slots"]) == ("gpu", 2)


def test_a_job_changes_its_group_with_set(queue: Shell) -> None:
    says(queue, "enqueue", "--id", "job", "--group", "gpu", "true")
    says(queue, "set", "job", "group=web")
    spool = queue.spool
    assert spool.find("job").path.endswith("-job+web.yaml")
    says(queue, "set", "job", "group=")
    assert spool.find("job").path.endswith("-job.yaml")


def test_workers_of_a_group_run_its_jobs_alone(queue: Shell) -> None:
    says(queue, "enqueue", "--id", "job", "--group", "gpu", "echo $QUEUECTL_SLOT")
    says(queue, "enqueue", "--id", "plain", "true")
    for words in (["--drain"], ["--drain", "--count", "2"]):
        queue("worker", "start", "--group", "gpu", *words)
        assert says(queue, "list", "--state", "pending").split()[6] == "plain"
    assert says(queue, "logs", "job", "--stdout").strip() == "1"
    says(queue, "enqueue", "--id", "next", "--group", "gpu", "true")
    says(queue, "worker", "start", "--group", "gpu")
    says(queue, "wait", "next")
    says(queue, "worker", "stop")
    assert queue.spool.find("plain").state is State.PENDING


def test_two_tokens_of_one_name_that_an_owner_has_in_turn_never_have_one_name(spool: Spool) -> None:
    folder = gpu(spool, f"a.{EARLY}")
    slots = groups.Slots(spool.root, "me-1-abcd")
    claim = Name(5, EARLY, "job", "me-1-abcd", "gpu")
    names = []
    for _ in range(3):  # at one moment
        assert slots.take(claim, NOW)
        names += os.listdir(folder)
        slots.give_back(claim)
        names += os.listdir(folder)
    assert len(set(names)) == len(names)


def test_a_slot_that_this_owner_has_without_a_claim_is_given_back_now_and_then(spool: Spool) -> None:
    with spool.member() as me:
        gpu(spool, f"a.{EARLY}@{me.name}", "b")
        file(spool, "job")
        (claim,) = claims(me, spool)
        (spool.path / "groups" / "gpu" / f"c.{EARLY}@{me.name}").touch()
        me.recover(lambda *_: None, spool.clock(), frozenset({str(claim.name)}))
        me.look(spool.clock())
        assert sorted(filter(None, owners(spool).values())) == [me.name]


def test_a_job_of_a_group_is_held_and_released_by_mv(spool: Spool) -> None:
    file(spool, "a.yaml")
    path = spool.find("a.yaml").path
    os.rename(path, f"{path}.held")
    with spool.member() as me:
        assert claims(me, spool) == []
        assert spool.find("a.yaml").label(spool.clock()) == "held"
        os.rename(f"{path}.held", path)
        assert [claim.id for claim in claims(me, spool)] == ["a.yaml"]
    os.rename(spool.find("a.yaml").path, f"{path}.held")
    assert spool.release("a.yaml").endswith("-a.yaml+gpu.yaml")
