"""What a log of a million small entries costs in memory: 12 bytes an entry and the tail, while it is written and
after it was loaded. Each in a process of its own, of which the system says how much memory it has and had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MIB = 1024 * 1024
ENTRIES = 1_000_000
INDEX_BYTES = 16 * ENTRIES  # 12, and room for arrays that grow in steps
TAIL_BYTES = 4 * MIB
SEGMENT_BYTES = 2 * MIB
SLACK_BYTES = 12 * MIB  # what the system counts in pages of 2 MiB, and what an allocator keeps

BEGINNING = f"""
import json, re, sys
from pathlib import Path
from raftfs.consensus.journal import Journal

def memory(which):
    return 1024 * int(re.search(which + r":\\s*(\\d+)", Path("/proc/self/status").read_text()).group(1))

def journal():
    return Journal(Path(sys.argv[1]), segment_bytes={SEGMENT_BYTES}, tail_bytes_max={TAIL_BYTES})

def entry(index):
    return b"%040d" % index

journal().close()  # what is needed once is there
before = memory("VmRSS")
"""

WRITE = f"""
log = journal()
for index in range(1, {ENTRIES} + 1):
    log.add(entry(index), index, 1)
    if index % 5000 == 0:
        log.flush()
print(json.dumps({{"held": memory("VmRSS") - before, "peak": memory("VmHWM") - before}}))
log.close()
"""

LOAD = f"""
log = journal()
found = {{"held": memory("VmRSS") - before, "peak": memory("VmHWM") - before}}
assert log.last_index == {ENTRIES}
assert all(log.data(index) == entry(index) for index in (1, 2, 500_000, {ENTRIES}))
print(json.dumps(found))
log.close()
"""


def run(code: str, directory: Path) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + code, str(directory)],
        env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    print(found)
    return found


def test_a_million_entries_cost_their_index_and_the_tail(tmp_path: Path) -> None:
    written = run(WRITE, tmp_path)
    assert written["peak"] < INDEX_BYTES + TAIL_BYTES + SLACK_BYTES
    loaded = run(LOAD, tmp_path)
    assert loaded["held"] < INDEX_BYTES + SEGMENT_BYTES + SLACK_BYTES
    assert loaded["peak"] < INDEX_BYTES + 2 * SEGMENT_BYTES + SLACK_BYTES
