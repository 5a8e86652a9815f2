"""The power goes off at any moment: what was promised is there, once, and nothing half is ever run."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from queuectl.errors import IdTaken
from queuectl.system import files
from queuectl.system.medium import Medium
from queuectl.times import utc_now
from tests.conftest import places_in
from tests.trials.power import Cut, Disk, Recorder, Tree, taken_of
from tests.trials.scenes import (
    KEPT,
    POINTS,
    Scene,
    claimed,
    drain,
    ends_of,
    kinds_of,
    losses_of,
    survives,
    waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from queuectl import Spool

SEED = 20261124


def record(scene: Scene, action: Callable[[Scene], None], to: Path) -> list[object]:
    """The operations of an action that nothing cuts off."""
    recorder = Recorder(str(scene.spool.path))

    def act() -> None:
        try:
            action(scene)
        finally:
            files.kernel = os
            to.write_bytes(pickle.dumps(recorder.ops))

    assert survives(act, recorder)
    ops: list[object] = pickle.loads(to.read_bytes())
    return ops


def states(
    before: Disk, ops: list[object], limit: int, luck: random.Random, *, by_file: bool
) -> Iterator[tuple[int, set[str], Tree]]:
    """Different trees that cuts may leave, with where the cut is and who had been told by then.

    Trees in which most is at stake come first: each cut in turn, the last one first, gives one.
    """
    lengths = range(len(ops), -1, -1)
    cuts = [Cut(before, tuple(ops[:length]), by_file) for length in lengths]  # type: ignore[arg-type]
    sources = [(cut, cut.trees(limit, luck)) for cut in cuts]
    seen: set[int] = set()
    count = 0
    while sources and count < limit:
        left = []
        for cut, trees in sources:
            told = cut.told()
            for tree in trees:
                fingerprint = hash((frozenset(told), frozenset(tree.items())))
                if fingerprint not in seen:
                    seen.add(fingerprint)
                    yield len(cut.ops), told, tree
                    count += 1
                    left.append((cut, trees))
                    break
        sources = left


def build(tree: Tree, root: Path) -> None:
    """Make the spool what this tree is."""
    for folder in root.iterdir():
        if folder.is_dir():
            for file in folder.iterdir():
                file.unlink()
        else:
            folder.unlink()
    for path, content in tree.items():
        Path(path).parent.mkdir(exist_ok=True)  # a folder that was made under a dot name, and is not renamed
        Path(path).write_bytes(content)


def after_the_reboot(tree: Tree) -> Tree:
    """The same as another boot of this machine finds it: no process of the old one is alive."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().encode()
    return {path: content.replace(boot, b"0" * len(boot)) for path, content in tree.items()}


def told_its_outcome(scene: Scene) -> None:
    """Under `durability: full` an outcome that was reported is as safe as a job that was filed."""
    claim = claimed(scene)
    KEPT[-1].complete(claim, {"exit_code": 0, "seconds": 0.0}, utc_now())
    scene.tell("the outcome")
    KEPT[-1].leave()


def waiting_under_full_durability(scene: Scene) -> None:
    with scene.spool.root.config.open("a") as config:
        config.write("durability: full\n")
    waiting(scene)


ACTIONS = POINTS | {
    "reporting an outcome under full durability": (waiting_under_full_durability, told_its_outcome)
}
#: What is tried, too, on a share where syncing a directory does nothing: all that promises something.
ON_SHARES = [
    "filing",
    "filing under a chosen id",
    "filing several",
    "reporting an outcome under full durability",
]


def is_taken(scene: Scene, job_id: str) -> bool:
    """Whether filing another job under an id is refused."""
    try:
        scene.spool.file({"id": job_id, "command": "true"})
    except IdTaken:
        return True
    return False


@pytest.mark.parametrize(
    ("what", "by_file"),
    [*((what, False) for what in ACTIONS), *((what, True) for what in ON_SHARES)],
    ids=[*ACTIONS, *(f"{what} on SMB" for what in ON_SHARES)],
)
def test_no_power_cut_loses_what_was_promised_doubles_it_or_leaves_a_half_that_runs(
    new_spool: Callable[[str], Spool],
    tmp_path: Path,
    size: Callable[[int, int], int],
    figure: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    by_file: bool,
) -> None:
    monkeypatch.setattr(Medium, "forgets_names", by_file)
    before, action = ACTIONS[what]
    scene = Scene(new_spool("spool"), tmp_path / "told")
    before(scene)
    begun = taken_of(scene.spool.path)
    ops = record(scene, action, tmp_path / "ops")
    luck = random.Random(SEED)
    faults: dict[str, object] = {}
    count = 0
    for cut, told, tree in states(begun, ops, size(30, 400), luck, by_file=by_file):
        count += 1
        shutil.rmtree(scene.marks)
        scene.marks.mkdir()
        build(after_the_reboot(tree), scene.spool.path)
        for beat in scene.spool.root.path.glob("workers/*.yaml"):
            os.utime(beat, (0, 0))  # nobody has shown a sign of life since
        given_twice = [job_id for job_id in told & set(places_in(scene.spool)) if not is_taken(scene, job_id)]
        assert survives(partial(drain, scene))
        # An outcome of which nobody had been told may be undone, in the file or in the directories:
        # a cut that leaves the move to done/ may take its lines, and the names of its logs.
        fault = losses_of(scene, {*scene.ids, *told} - {"the outcome"}, ends_of(action))
        fault = [
            one for one in fault if not one.endswith(": it is in done/, and nothing shows that it ever ran")
        ]
        fault += [f"the id {job_id} could be had again" for job_id in given_twice]
        if "the outcome" in told:
            kinds = kinds_of(scene.spool, "first")
            if kinds != ["started", "completed"] or any(scene.marks.iterdir()):
                fault.append(f"the outcome was reported, and is gone: {kinds}")
        if fault:
            left = {os.path.relpath(path, scene.spool.path): text for path, text in tree.items()}
            faults[f"cut after {cut} of {len(ops)} operations, state {count}"] = (fault, left)
    assert faults == {}
    assert count > 5
    where = " on SMB" if by_file else ""
    figure(f"power cut while {what}{where}", f"{count} states after {len(ops)} operations, all audited clean")
