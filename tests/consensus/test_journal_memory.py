"""What the log costs in memory: 12 bytes an entry and its newest bytes, while it is written and when it is loaded."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftfs.consensus.journal import Journal

ENTRIES = 150_000
INDEX_BYTES = 16 * ENTRIES  # 12, and room for arrays that grow in steps
TAIL_BYTES = 1024 * 1024
SEGMENT_BYTES = 2 * 1024 * 1024
SLACK_BYTES = 1024 * 1024
SIZES = {"segment_bytes": SEGMENT_BYTES, "tail_bytes_max": TAIL_BYTES}


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_a_long_log_costs_its_index_and_its_tail(tmp_path: Path, traced: None) -> None:
    journal = Journal(tmp_path, **SIZES)
    for index in range(1, ENTRIES + 1):
        journal.add(b"x" * 100, index, 1)
        if index % 10_000 == 0:
            journal.flush()
    held = tracemalloc.get_traced_memory()[0]
    journal.close()
    # An object for each entry of the tail, too: as much again as its bytes, when entries are as small as here.
    assert held < INDEX_BYTES + 3 * TAIL_BYTES + SLACK_BYTES

    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    journal = Journal(tmp_path, **SIZES)
    held, peak = (size - before for size in tracemalloc.get_traced_memory())
    assert journal.last_index == ENTRIES
    assert journal.data(1) == journal.data(ENTRIES) == b"x" * 100
    journal.close()
    assert held < INDEX_BYTES + SLACK_BYTES
    assert peak < INDEX_BYTES + SEGMENT_BYTES + 2 * SLACK_BYTES
