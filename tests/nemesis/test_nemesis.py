"""Short runs of the nemesis: of nodes as they are, and of nodes that are broken on purpose and have to be caught.

They need root, and minutes; ``.ci/run`` asks for them with RAFTFS_TEST_NEMESIS=1.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from raftfs.testing.nemesis import Options, Report, run
from raftfs.testing.nemesis.schedule import Kind

BROKEN = Path(__file__).parent / "broken"

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not os.environ.get("RAFTFS_TEST_NEMESIS"), reason="needs root and minutes: set RAFTFS_TEST_NEMESIS=1"
    ),
    pytest.mark.timeout(900),
]

PLANTED: dict[str, tuple[tuple[Kind, ...], float]] = {
    "hasty_reads": (("one-way", "freeze"), 20),
    "trusting_leader": (("freeze", "cut-off-leader"), 40),
    "lying_disk": (("kill-all",), 20),
    "no_memory": (("break-connections", "kill"), 30),
}


def _run(tmp_path: Path, kinds: tuple[Kind, ...], duration_s: float, script: Path | None, seed: int) -> Report:
    options = Options(seed=seed, duration_s=duration_s, kinds=kinds, folder=tmp_path / f"{seed}", node_script=script)
    report = run(options)
    print(f"seed {seed}: {report.verdict}, {report.outcomes}, {report.faults}, {report.complaints[:1]}")
    return report


@pytest.mark.parametrize("name", PLANTED)
def test_a_broken_node_is_caught(name: str, tmp_path: Path) -> None:
    kinds, duration_s = PLANTED[name]
    for seed in range(1, 6):  # what a fault meets is chance; so it may take more than one run
        report = _run(tmp_path, kinds, duration_s, BROKEN / f"{name}.py", seed)
        if report.verdict == "violated" and not any("too little" in one for one in report.complaints):
            return
    pytest.fail("five runs did not catch it")


def test_a_run_leaves_nothing_behind(tmp_path: Path) -> None:
    before = _traces()
    report = _run(tmp_path, ("kill", "split"), 10, None, 1)
    assert report.verdict == "clean", report.complaints
    assert _traces() == before


def _traces() -> tuple[str, list[str]]:
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "nemesis" in line]
    return spaces, mounts
