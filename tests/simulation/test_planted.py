"""Each planted fault is found, by a seed that is known to find it, and the table in the documentation says which.

The seeds depend on the code: a change of timing anywhere makes other runs of them. ``python -m raftfs.testing.simulate
--seeds 500 --from 0 --plant NAME`` finds another one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raftfs.testing import Simulation, SimulationFailed
from raftfs.testing.simulation.planted import PLANTS, Planted

PAGE = Path(__file__).parents[2] / "docs" / "design" / "simulation.md"
TRIED = 25  # seeds tried in all, from the one that found it when it was written down


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    planted: Planted = PLANTS[name]
    for seed in range(planted.seed, planted.seed + TRIED):
        try:
            Simulation(seed, plant=planted.plant).run()
        except SimulationFailed as failure:
            assert failure.rule  # noqa: PT017  # which rule is seen first may change with the schedule
            return
    pytest.fail(f"{TRIED} seeds from {planted.seed} on did not find it")


def test_the_documentation_lists_what_is_found() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, planted in PLANTS.items():
        assert f"| {name} | {planted.seed} | {planted.found_as} |" in page
