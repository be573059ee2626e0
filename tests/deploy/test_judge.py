"""The parts of the trial that say whether all is well are given something that is not."""

from __future__ import annotations

import pytest

from raftfs.testing import history as h
from raftfs.testing.nemesis.doors import Notes

from .controller import Recap
from .judge import complaints, table
from .traffic import longest_gap


def notes(*operations: tuple[h.Call, str | None, int | None]) -> Notes:
    """One after the other, each with its result and revision."""
    found = Notes()
    for number, (call, result, revision) in enumerate(operations):
        end = h.NEVER if result is None else number + 0.5
        found.history.append(h.Operation(call, result, float(number), end, "c0", revision))
        found.outcomes["unknown" if result is None else "ok"] += 1
    return found


RIGHT = [
    (h.Write("/a/x", "v1"), h.CREATED, 1),
    (h.Write("/a/x", "v2"), h.REPLACED, 2),
    (h.Write("/a/x", "v3"), None, None),
    (h.Read("/a/x"), "v2", 2),
]


def test_what_is_right_is_right() -> None:
    assert complaints(notes(*RIGHT), 3) == []


@pytest.mark.parametrize(
    "lie",
    [(h.Read("/a/x"), "v1", 2), (h.Read("/a/x"), h.MISSING, 2), (h.Read("/a/x"), "v9", 2)],
    ids=["a lost write", "a lost file", "a write of nobody"],
)
def test_what_was_acknowledged_and_is_not_there_at_the_end_is_noticed(lie: tuple[h.Call, str, int]) -> None:
    found = complaints(notes(*RIGHT, lie), 3)
    assert len(found) == 1
    assert "no order explains this answer" in found[0]


def test_a_revision_that_goes_back_is_noticed() -> None:
    assert complaints(notes(*RIGHT, (h.Read("/a/x"), "v2", 1)), 3)


def test_damaged_bytes_are_noticed() -> None:
    found = notes(*RIGHT)
    found.wrong.append("damaged bytes")
    assert complaints(found, 3) == ["damaged bytes"]


def test_too_little_is_not_enough() -> None:
    assert "too little" in complaints(notes(*RIGHT), 1000)[0]


def test_the_longest_gap_is_within_the_time_that_is_looked_at() -> None:
    moments = [1.0, 2.0, 5.0, 5.5, 20.0]
    assert longest_gap(moments, 1.5, 6.0) == 3.0
    assert longest_gap(moments, 3.0, 6.0) == 2.0, "what began before counts from the beginning on"
    assert longest_gap(moments, 6.0, 19.0) == 13.0, "a time without any is as long as the whole"
    assert longest_gap([], 0.0, 4.0) == 4.0


SAID = """
PLAY RECAP *********************************************************************
f1                         : ok=31   changed=0    unreachable=0    failed=0    skipped=12   rescued=0    ignored=0
n1                         : ok=64   changed=3    unreachable=0    failed=0    skipped=20   rescued=0    ignored=0
"""


def test_what_a_playbook_changed_is_read_from_its_recap() -> None:
    recap = Recap(0, SAID)
    assert recap.changed == {"f1": 0, "n1": 3}
    assert recap.touched == {"n1": 3}


def test_a_table_has_columns() -> None:
    assert table([("phase", "s"), ("a", "10.0")]) == "phase     s\na      10.0"
