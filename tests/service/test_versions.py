"""When the leader switches: the decision, sans-IO."""

from __future__ import annotations

import pytest

from raftfs.service.versions import Understood, next_version
from raftfs.versions import UNDECIDED


def code(newest: int) -> Understood:
    return Understood(max(1, newest - 1), newest)


@pytest.mark.parametrize(
    ("members", "version"),
    [
        ([code(6), code(6), code(6)], 6),
        ([code(6), code(6), code(5)], None),
        ([code(6), code(6), None], None),
        ([code(5), code(5), code(5)], None),
        ([code(6)], 6),
        ([], None),
    ],
)
@pytest.mark.parametrize("patient", [True, False])
def test_a_switch_needs_every_member(members: list[Understood | None], version: int | None, patient: bool) -> None:
    assert next_version(5, members, patient=patient) == version


@pytest.mark.parametrize(
    ("members", "patient", "version"),
    [
        ([code(6), code(6), code(6)], True, 6),
        ([code(6), code(5), code(6)], True, 5),
        ([code(6), code(6), None], True, None),
        ([code(6), code(6), None], False, 6),
        ([code(6), code(5), None], False, 5),
        ([code(7), code(5), code(6)], False, None),  # nothing is common to all
    ],
)
def test_a_new_cluster_begins_with_what_all_understand(
    members: list[Understood | None], patient: bool, version: int | None
) -> None:
    assert next_version(UNDECIDED, members, patient=patient) == version
