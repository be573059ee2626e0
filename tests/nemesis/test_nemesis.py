"""Short runs of the nemesis: of nodes as they are, and of nodes that are broken on purpose and have to be caught.

They need root, and minutes; ``.ci/run`` asks for them with RAFTFS_TEST_NEMESIS=1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftfs.testing.nemesis import Options, Report, clock, run
from raftfs.testing.nemesis.machine import NEMESIS, faketime
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
    "no_names": (("replace",), 20),
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


def test_a_clock_jumps_and_spans_of_time_do_not(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    program = """if True:
        import os, sys, time
        file, new = sys.argv[1:]
        zero_s = time.time() - time.monotonic()
        for ahead_s in (86400, -3600, 2, 0):
            with open(new, "w") as out:
                out.write(f"{ahead_s:+d}\\n")
            os.replace(new, file)
            print(round(time.time() - time.monotonic() - zero_s))
    """
    file.write_text("+0\n")
    inside = ["unshare", "--mount", *clock.before(faketime(), file)]
    command = [*inside, sys.executable, "-c", program, str(file), str(tmp_path / "new")]
    left = set(os.listdir("/dev/shm"))
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["86400", "-3600", "2", "0"]
    assert not any("faketime" in name for name in set(os.listdir("/dev/shm")) - left)


def test_a_run_leaves_nothing_behind(tmp_path: Path) -> None:
    report = _run(tmp_path, ("kill", "split"), 10, None, 1)
    assert report.verdict == "clean", report.complaints
    assert report.claim
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    left = [*spaces.splitlines(), *Path("/proc/mounts").read_text().splitlines(), *map(str, NEMESIS.root.glob("*"))]
    assert not [one for one in left if report.claim in one]
