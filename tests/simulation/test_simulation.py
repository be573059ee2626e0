"""Seeds that must keep every promise, that they meet every kind of fault, and that a seed is one run.

More: ``python -m raftfs.testing.simulate --seeds 1000``.
"""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from raftfs.testing import Simulation, SimulationFailed
from raftfs.testing.simulate import main
from raftfs.testing.simulation.coverage import KINDS, total
from raftfs.testing.simulation.planted import PLANTS

FIXED = (*range(80), 300885, 401322)
"""300885: a machine that is emptied and added again while its old process was heard a moment ago. 401322: one that is
hundreds of large entries behind when the faults end."""
FRESH = 20
"""Drawn anew each time. One that fails has found something: its message says how to see it again."""


def test_fixed_seeds_keep_every_promise_and_meet_every_kind_of_fault() -> None:
    reports = [Simulation(seed).run() for seed in FIXED]
    assert sum(report.acknowledged for report in reports) > 10 * len(FIXED)  # the faults leave room for work
    seen = total(reports)
    assert set(seen) == set(KINDS), "each kind has its line in KINDS"
    assert not [kind for kind in KINDS if not seen[kind]]


def test_fresh_seeds_keep_every_promise() -> None:
    first = random.SystemRandom().randrange(2**32)
    print(f"seeds {first} to {first + FRESH - 1}")
    for seed in range(first, first + FRESH):
        Simulation(seed).run()


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


def _first_failure(name: str) -> SimulationFailed:
    for seed in range(PLANTS[name].within):
        try:
            Simulation(seed, plant=PLANTS[name].plant).run()
        except SimulationFailed as failure:
            return failure
    raise AssertionError(f"{name} was not found")


def test_a_failure_says_how_to_see_it_again_and_is_the_same_again(capsys: pytest.CaptureFixture[str]) -> None:
    name = "rule 5: no pre-vote"
    failure = _first_failure(name)
    assert main(["--seed", str(failure.seed), "--plant", name]) == 1
    told = capsys.readouterr().out
    assert failure.detail in told
    assert f'again: python -m raftfs.testing.simulate --seed {failure.seed} --trace --plant "{name}"' in told


def test_several_processes_give_what_one_gives(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for jobs in ("1", "2"):
        assert main(["--seeds", "6", "--from", "3", "--coverage", "--jobs", jobs]) == 0
        told.append(capsys.readouterr().out.rpartition(";")[0])
    assert told[0] == told[1]
    assert "6 seeds kept every promise" in told[0]
