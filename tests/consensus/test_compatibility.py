"""Who may work with whom."""

from __future__ import annotations

import re

import msgspec
import pytest

from raftfs.consensus.compatibility import Versions, disagreement, our_versions
from raftfs.consensus.peers import Hello, Welcome
from raftfs.versions import FORMAT_VERSION, UNDECIDED


def code(newest: int, active: int) -> Versions:
    """Code of a release, on a database."""
    return Versions(protocol_min=1, protocol_max=1, format_min=max(1, newest - 1), format_max=newest, format=active)


def test_the_same_code_agrees_with_itself() -> None:
    for active in (UNDECIDED, FORMAT_VERSION):
        assert disagreement("a", our_versions(active), "b", our_versions(UNDECIDED)) is None


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (code(5, 5), code(5, 5)),
        (code(6, 5), code(5, 5)),  # an upgrade under way
        (code(6, 6), code(6, 5)),  # one has not applied the switch yet
        (code(6, UNDECIDED), code(5, 5)),  # a new member
        (code(7, 6), code(6, 5)),  # the other one lags behind with its log, not with its code
        (code(6, UNDECIDED), code(5, UNDECIDED)),  # a new cluster
    ],
)
def test_neighbours_work_together(mine: Versions, theirs: Versions) -> None:
    assert disagreement("a", mine, "b", theirs) is None
    assert disagreement("b", theirs, "a", mine) is None


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (code(6, 6), code(5, 5), "switched to format 6, and the raftfs of b understands 4 to 5: install one there"),
        (code(7, UNDECIDED), code(5, 5), "the cluster has format 5, and the raftfs of a understands 6 to 7: upgrade"),
        (code(7, UNDECIDED), code(5, UNDECIDED), "format 6 to 7.* 4 to 5: upgrade b"),
        (Versions(2, 3, 5, 5, 5), Versions(1, 1, 5, 5, 5), "a speaks peer protocol 2 to 3, b 1: upgrade b"),
    ],
)
def test_both_sides_see_who_has_to_be_upgraded(a: Versions, b: Versions, reason: str) -> None:
    for said in (disagreement("a", a, "b", b), disagreement("b", b, "a", a)):
        assert said is not None
    assert re.search(reason, disagreement("a", a, "b", b) or "")
    upgraded = "b" if "upgrade b" in reason or "of b" in reason else "a"
    assert upgraded in (disagreement("b", b, "a", a) or "")


def test_greetings_of_newer_code_are_read() -> None:
    """An unknown field, at any level, locks nobody out."""
    versions = {**msgspec.to_builtins(our_versions()), "compression_max": 3}
    hello = {
        "cluster_id": "c", "sender": "b", "receiver": "a", "channel": "raft", "versions": versions, "colour": "red",
    }  # fmt: skip
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(hello), type=Hello).versions == our_versions()
    welcome = {"refused": None, "versions": versions, "colour": "red"}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(welcome), type=Welcome).versions == our_versions()
