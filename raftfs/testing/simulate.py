"""``python -m raftfs.testing.simulate``: many seeds of the simulator, or one with all that happened in it.

python -m raftfs.testing.simulate --seeds 1000            1000 fresh seeds; the first failure ends it, exit code 1
python -m raftfs.testing.simulate --seeds 100 --from 0    seeds 0 to 99
python -m raftfs.testing.simulate --seed 7 --trace        one seed, each event a line
python -m raftfs.testing.simulate --seeds 400 --from 0 --plant "votes are forgotten"
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from raftfs.testing.simulation import Simulation, SimulationFailed
from raftfs.testing.simulation.planted import PLANTS


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 if every promise was kept."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    else:
        first = random.SystemRandom().randrange(2**32) if options.first is None else options.first
        seeds = range(first, first + options.seeds)
        print(f"seeds {seeds.start} to {seeds.stop - 1}", flush=True)
    plant = None if options.plant is None else PLANTS[options.plant].plant
    began_s, acknowledged = time.process_time(), 0
    for seed in seeds:
        try:
            report = Simulation(seed, plant=plant, trace=sys.stdout if options.trace else None).run()
        except SimulationFailed as failure:
            print(failure)
            print(f"again: python -m raftfs.testing.simulate --seed {seed} --trace{_plant_option(options.plant)}")
            return 1
        acknowledged += report.acknowledged
        if len(seeds) == 1:
            print(report)
    minutes = (time.process_time() - began_s) / 60
    print(
        f"{len(seeds)} seeds kept every promise ({acknowledged} acknowledged writes); "
        f"{len(seeds) / minutes:.0f} seeds a minute of one core"
    )
    return 0


def _plant_option(plant: str | None) -> str:
    return "" if plant is None else f' --plant "{plant}"'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m raftfs.testing.simulate", description="The deterministic simulator."
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--from", type=int, dest="first", metavar="SEED", help="the first one (default: a random one)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="write every event")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with this fault in the product")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
