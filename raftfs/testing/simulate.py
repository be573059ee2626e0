"""``python -m raftfs.testing.simulate``: many seeds of the simulator, or one with all that happened in it.

python -m raftfs.testing.simulate --seeds 1000            1000 fresh seeds; the first failure ends it, exit code 1
python -m raftfs.testing.simulate --seeds 1000 --jobs 4   in four processes
python -m raftfs.testing.simulate --seeds 100 --from 0    seeds 0 to 99
python -m raftfs.testing.simulate --seeds 100 --coverage  and how often each kind of fault came
python -m raftfs.testing.simulate --seed 7 --trace        one seed, each event a line
python -m raftfs.testing.simulate --seeds 400 --from 0 --plant "votes are forgotten"
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from functools import partial

from raftfs.testing.simulation import Report, Simulation, SimulationFailed
from raftfs.testing.simulation.coverage import table, total
from raftfs.testing.simulation.planted import PLANTS

Outcome = tuple[Report | SimulationFailed, float]
"""and the seconds of a core that it took"""


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 if every promise was kept."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    else:
        first = random.SystemRandom().randrange(2**32) if options.first is None else options.first
        seeds = range(first, first + options.seeds)
        print(f"seeds {seeds.start} to {seeds.stop - 1}", flush=True)
    reports, spent_s = [], 0.0
    for outcome, seconds in _outcomes(seeds, options):
        spent_s += seconds
        if isinstance(outcome, SimulationFailed):
            print(outcome)
            return 1
        reports.append(outcome)
    if len(seeds) == 1:
        print(reports[0])
    if options.coverage:
        print(table(total(reports)))
    acknowledged = sum(report.acknowledged for report in reports)
    print(
        f"{len(seeds)} seeds kept every promise ({acknowledged} acknowledged writes); "
        f"{60 * len(seeds) / spent_s:.0f} seeds a minute of one core"
    )
    return 0


def _outcomes(seeds: range, options: argparse.Namespace) -> Iterator[Outcome]:
    """In the order of the seeds."""
    if options.jobs == 1:
        yield from (_outcome(seed, options.plant, trace=options.trace) for seed in seeds)
        return
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        yield from pool.imap(partial(_outcome, plant=options.plant, trace=False), seeds, chunksize=4)


def _outcome(seed: int, plant: str | None, *, trace: bool) -> Outcome:
    began_s = time.process_time()
    outcome: Report | SimulationFailed
    try:
        planted = None if plant is None else PLANTS[plant].plant
        outcome = Simulation(seed, plant=planted, trace=sys.stdout if trace else None).run()
    except SimulationFailed as failure:
        outcome = SimulationFailed(failure.seed, failure.rule, failure.detail, plant)
    return outcome, time.process_time() - began_s


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m raftfs.testing.simulate", description="The deterministic simulator."
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--from", type=int, dest="first", metavar="SEED", help="the first one (default: a random one)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--trace", action="store_true", help="write every event (of one job)")
    parser.add_argument("--coverage", action="store_true", help="say how often each kind of fault came")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with this fault in the product")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
