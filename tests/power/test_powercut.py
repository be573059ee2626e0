"""Short runs of real nodes whose power goes: of nodes as they are, and of nodes that do not sync what they must.

They need root, FUSE and minutes; ``.ci/run`` asks for them with RAFTFS_TEST_POWER=1.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raftfs.testing.nemesis import Report
from raftfs.testing.nemesis.machine import clean_up
from raftfs.testing.powercut.run import Options, run

from .needs import ROOT

BROKEN = Path(__file__).parent / "broken"
PLANTED = ("journal_unsynced", "names_unsynced", "chunks_unsynced", "votes_unsynced")

SEED, ROUNDS = 7, 12

pytestmark = ROOT


def _run(tmp_path: Path, rounds: int, script: Path | None, seed: int) -> Report:
    report = run(Options(seed, rounds=rounds, folder=tmp_path / f"{seed}", node_script=script))
    print(f"seed {seed}: {report.verdict}, {report.outcomes}, {report.faults}, {report.complaints[:1]}")
    return report


def test_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    clean_up()  # what dead runs of others have left
    report = _run(tmp_path, ROUNDS, None, SEED)
    print(*report.schedule, sep="\n")
    assert report.verdict == "clean", report.complaints
    assert clean_up() == [], "this one has left something behind"


@pytest.mark.parametrize("name", PLANTED)
def test_a_broken_node_is_caught(name: str, tmp_path: Path) -> None:
    for seed in range(1, 6):  # what a cut meets is chance; so it may take more than one run
        report = _run(tmp_path, 6, BROKEN / f"{name}.py", seed)
        if report.verdict == "violated" and not any("too little" in one for one in report.complaints):
            return
    pytest.fail("five runs did not catch it")
