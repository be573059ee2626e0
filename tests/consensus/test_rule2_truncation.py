"""Rule 2: a follower removes entries only where they conflict, never a matching suffix, never below its commit."""

from __future__ import annotations

import pytest

from raftfs.consensus import messages as m
from raftfs.consensus.guard import COMMANDS, SafetyViolation

from .guarded_cluster import GuardedMaker
from .plain_cluster import PlainMaker

LARGE = "x" * 8200  # eight of these fill one message of the default 64 KiB


def test_plain_pysyncobj_loses_an_acknowledged_write_to_a_batch_sent_twice(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    network = cluster.network
    network.reset("a", "c")
    network.reset("b", "c")

    first = cluster.put("a", "first")
    cluster.tick("a")
    cluster.clock.advance(0.2)
    cluster.tick("a")  # the first write is on its way to b
    writes = [cluster.put("a", f"{number} {LARGE}") for number in range(9)]
    cluster.tick("a")
    cluster.clock.advance(0.2)
    cluster.tick("a")  # the nine others too, in two messages
    network.deliver("a", "b", 100)  # b has all of it
    assert len(network.in_flight("b", "a")) >= 3

    while not first.acknowledged:  # the answer to the first write: the leader turns back to what follows it
        network.deliver("b", "a")
        cluster.clock.advance(0.2)
        cluster.tick("a")
    network.deliver("b", "a", 100)
    cluster.tick("a")
    assert all(write.acknowledged for write in writes)
    assert len(cluster.log("b")) == len(cluster.log("a"))

    network.deliver("a", "b", 1)
    while len(cluster.log("b")) == len(cluster.log("a")):
        assert network.deliver("a", "b", 1) == 1
    cluster.crash("a")  # between two messages, like any other moment

    network.connect("b", "c")
    cluster.elect("b")
    cluster.run(1.0)
    survivors = cluster.values("b")
    assert cluster.values("c") == survivors
    assert survivors == ["first", *(write.value for write in writes[:8])]
    assert writes[8].acknowledged
    assert writes[8].value not in survivors


def test_raftfs_keeps_what_follows_a_batch_that_comes_twice(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    network = cluster.network
    network.reset("a", "c")
    network.reset("b", "c")

    first = cluster.put("a", "first")
    writes = [cluster.put("a", f"{number} {LARGE}") for number in range(9)]
    batches = network.in_flight("a", "b")
    assert len(batches) == 10
    network.deliver("a", "b", 100)
    while not first.acknowledged:
        network.deliver("b", "a")
        cluster.clock.advance(0.01)
        cluster.tick("a")
    network.deliver("b", "a", 100)
    cluster.tick("a")
    assert all(write.acknowledged for write in writes)

    again = [m.decode(raw) for raw in network.in_flight("a", "b")]
    assert all(isinstance(message, m.Append) and not message.entries for message in again)  # nothing is sent twice
    for raw in batches[:2]:  # and if it were, by whatever accident
        cluster.inject("a", "b", m.decode(raw))
    assert cluster.log("b") == cluster.log("a")

    cluster.crash("a")
    network.connect("b", "c")
    cluster.elect("b")
    cluster.run(1.0)
    assert cluster.values("c") == cluster.values("b") == ["first", *(write.value for write in writes)]


def test_raftfs_stops_rather_than_remove_what_is_committed(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    assert cluster.put("a", "kept").refused is False
    cluster.run(0.5)
    before = cluster.log("b")
    entries = [m.WireEntry(5, bytes([COMMANDS]) + b"another")]
    with pytest.raises(SafetyViolation):
        cluster.inject("c", "b", m.Append(5, 1, before[-2][0], before[-2][1], 0, entries))
    assert cluster.log("b") == before
