"""Explore schedules of the protocol: run many, replay one, make a failing one shorter, or run those kept.

python -m tests.simulation run 2000
python -m tests.simulation replay SEED
python -m tests.simulation shrink SEED
python -m tests.simulation kept
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time
from multiprocessing import Pool
from pathlib import Path

from tests.simulation import plan as plans
from tests.simulation.shares import PROFILES

#: With how much other luck each kept plan is run.
LUCKS = 20


def _try(given: tuple[int, str | None]) -> tuple[int, str | None, int]:
    seed, profile = given
    outcome = plans.run(plans.draw(seed, profile))
    return seed, outcome.broke, outcome.operations


def _run(options: argparse.Namespace) -> int:
    begun, operations, failed = time.perf_counter(), 0, 0
    seeds = [(seed, options.profile) for seed in range(options.first, options.first + options.count)]
    done = 0
    with Pool(options.jobs, gc.freeze) as pool:  # looking for garbage in what is imported takes a tenth
        for seed, broke, count in pool.imap_unordered(_try, seeds, 8):
            operations += count
            done += 1
            if broke is not None:
                failed += 1
                profile = options.profile or list(PROFILES)[seed % len(PROFILES)]
                print(f"seed {seed} ({profile}): {broke.strip()}", flush=True)
                if options.until and failed >= options.until:
                    pool.terminate()
                    break
    spent = time.perf_counter() - begun
    print(f"{done:,} schedules, {operations:,} operations, {failed} failed, {spent:.1f} s")
    return 1 if failed else 0


def _kept() -> int:
    """Run each plan in kept.txt with its own luck and with others, as calls have come and gone since."""
    failed = 0
    for line in Path(__file__).with_name("kept.txt").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        plan = plans.from_text(line)
        for luck in (plan.luck, *range(LUCKS)):
            if (broke := plans.run(plan._replace(luck=luck)).broke) is not None:
                failed += 1
                print(f"{plans.as_text(plan._replace(luck=luck))}: {broke.strip()}")
    return 1 if failed else 0


def _plan(options: argparse.Namespace) -> plans.Plan:
    return plans.from_text(options.plan) if options.plan else plans.draw(options.seed, options.profile)


def main() -> int:
    """Run what is asked for."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a schedule
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="run schedules; seeds that fail are printed")
    runs.add_argument("count", type=int)
    runs.add_argument("--from", dest="first", type=int, default=0)
    runs.add_argument("--jobs", type=int, default=os.cpu_count())
    runs.add_argument("--until", type=int, default=0, help="stop after this many failures")
    for name in ("replay", "shrink"):
        one = commands.add_parser(name)
        one.add_argument("seed", type=int, nargs="?", default=0)
        one.add_argument("--plan", help="a plan as `shrink` prints it")
    commands.add_parser("kept", help="run the plans that failed once")
    for each in commands.choices.values():
        each.add_argument("--profile", choices=PROFILES)
    options = parser.parse_args()
    if options.command != "replay":
        logging.disable()
    if options.command == "kept":
        return _kept()
    if options.command == "run":
        return _run(options)
    if options.command == "replay":
        outcome = plans.run(_plan(options), traces=True)
        print(*outcome.trace, sep="\n")
        return 1 if outcome.broke else 0
    shorter = plans.shrink(_plan(options))
    print(*shorter.happenings, sep="\n")
    print(plans.run(shorter).broke)
    print(f"python -m tests.simulation replay --plan {plans.as_text(shorter)!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
