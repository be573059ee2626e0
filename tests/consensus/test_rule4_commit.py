"""Rule 4: the commit index moves only over entries that this node has verified against this leader."""

from __future__ import annotations

from raftfs.consensus import messages as m
from raftfs.testing.simulation.planted import CommitsUnverified

from .guarded_cluster import GuardedMaker
from .plain_cluster import PlainMaker


def test_plain_pysyncobj_applies_a_divergent_tail_on_the_first_part_of_a_snapshot(plain: PlainMaker) -> None:
    cluster = plain()
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)

    network.isolate("a")
    divergent = [cluster.put("a", f"divergent {number}") for number in range(3)]
    cluster.tick("a")
    cluster.elect("b")
    cluster.run(0.5)
    for number in range(6):
        assert_applied = cluster.put("b", f"kept {number}")
        cluster.run(0.5)
        assert assert_applied.acknowledged
    cluster.nodes["b"].forceLogCompaction()
    cluster.run(0.5)
    assert not any(proposal.answers for proposal in divergent)

    network.connect("a", "b")
    network.hold("b", "a")
    for _ in range(100):  # b learns how far back a is, then sends its snapshot in parts
        cluster.clock.advance(0.11)
        cluster.tick("b")
        while network.in_flight("b", "a") and "serialized" not in network.in_flight("b", "a")[0]:
            network.deliver("b", "a")
        network.drain()
        if network.in_flight("b", "a"):
            break
    network.deliver("b", "a", 1)  # one part, which verifies nothing
    cluster.tick("a")

    assert all(proposal.acknowledged for proposal in divergent)
    assert cluster.values("a") == [proposal.value for proposal in divergent]
    assert cluster.values("b") == [f"kept {number}" for number in range(6)]


def test_raftfs_applies_nothing_of_a_divergent_tail(guarded: GuardedMaker) -> None:
    cluster = guarded()
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)
    shared, shared_term, _ = cluster.log("a")[-1]

    network.isolate("a")
    divergent = [cluster.put("a", f"divergent {number}") for number in range(3)]
    cluster.elect("b")
    cluster.run(0.5)
    kept = [cluster.put("b", f"kept {number}") for number in range(6)]
    cluster.run(0.5)
    assert all(write.acknowledged for write in kept)

    # A heartbeat whose commit index lies far beyond the entry that it verifies.
    commit = cluster.nodes["b"].engine.commit_index
    cluster.inject("b", "a", m.Append(cluster.term("b"), 10**6, shared, shared_term, commit, []))
    cluster.tick("a")
    assert cluster.nodes["a"].engine.commit_index == shared
    assert len(cluster.log("a")) == shared + 3
    assert cluster.values("a") == []

    network.connect("a", "b")
    cluster.run(1.0)
    assert all(write.lost and not write.acknowledged for write in divergent)
    assert cluster.values("a") == [write.value for write in kept]


def test_without_this_rule_a_heartbeat_commits_a_divergent_tail(guarded: GuardedMaker) -> None:
    cluster = guarded(guard=CommitsUnverified)
    cluster.elect("a")
    cluster.run(0.5)
    shared, shared_term, _ = cluster.log("a")[-1]
    cluster.network.isolate("a")
    divergent = [cluster.put("a", f"divergent {number}") for number in range(3)]
    cluster.elect("b")
    cluster.inject("b", "a", m.Append(cluster.term("b"), 10**6, shared, shared_term, shared + 3, []))
    cluster.tick("a")
    assert cluster.values("a") == [write.value for write in divergent]
