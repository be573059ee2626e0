"""Seeds that must keep every promise, and that a seed is one run.

More: ``python -m raftfs.testing.simulate --seeds 1000``.
"""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from raftfs.testing import Simulation

FIXED = range(40)
FRESH = 15
BATCH = 10


@pytest.mark.parametrize("first", range(FIXED.start, FIXED.stop, BATCH))
def test_fixed_seeds_keep_every_promise(first: int) -> None:
    acknowledged = sum(Simulation(seed).run().acknowledged for seed in range(first, first + BATCH))
    assert acknowledged > 10 * BATCH  # the faults leave room for work to be done


def test_fresh_seeds_keep_every_promise() -> None:
    first = random.SystemRandom().randrange(2**32)
    for seed in range(first, first + FRESH):
        Simulation(seed).run()  # a failure names its seed


def test_the_same_seed_is_the_same_run_in_any_process() -> None:
    code = "from raftfs.testing import Simulation; print(Simulation(1).run())"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert runs == [f"{Simulation(1).run()}\n"] * 2


def test_another_seed_is_another_run() -> None:
    assert Simulation(1).run().trace_hash != Simulation(2).run().trace_hash
