"""How long syncs take is counted, by a clock that is brought."""

from __future__ import annotations

import itertools

import pytest

from raftfs.fsync import TIMES_S, Times


def test_without_a_clock_nothing_is_counted() -> None:
    times = Times()
    with times.measured():
        pass
    assert times.read() == ([0] * (len(TIMES_S) + 1), 0.0)


def test_each_sync_is_counted_in_its_class_also_one_that_fails() -> None:
    times = Times()
    moments = itertools.chain([0.0, 0.0005], [1.0, 1.003], [2.0, 102.0])
    times.clock = lambda: next(moments)
    with times.measured():
        pass
    with pytest.raises(OSError, match="gone"), times.measured():
        raise OSError("gone")
    with times.measured():
        pass
    counts, sum_s = times.read()
    assert counts[0] == 1  # a bound belongs to its class
    assert counts[TIMES_S.index(0.005)] == 1
    assert counts[-1] == 1
    assert sum(counts) == 3
    assert sum_s == pytest.approx(100.0035)
