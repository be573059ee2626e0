"""Rule 3: acknowledgements carry the term and the verified index; stale ones are dropped."""

from __future__ import annotations

from typing import Any

from raftfs.testing.simulation.planted import CountsEveryAck

from .cluster import Cluster
from .guarded_cluster import GuardedMaker
from .plain_cluster import PlainMaker


def led_again_with_an_old_answer_under_way(cluster: Cluster) -> list[Any]:
    """Five nodes. d's answer to leader a is delayed until a, deposed and elected again, leads another log.

    Returns four writes at a: b holds them too, and d's old answer has just arrived.
    """
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)

    lost = [cluster.put("a", f"replaced {number}") for number in range(6)]
    network.hold("d", "a")
    for name in "bce":
        network.reset("a", name)
    cluster.run_only("a", 0.4)  # a and d hold six writes; d's answer is under way
    old_answers = len(network.in_flight("d", "a"))
    assert old_answers >= 1

    cluster.elect("b")  # by c and e; it overwrites the tails of d and a
    for name in "bce":
        network.connect("a", name)
    cluster.run_only("b", 2.2, step_s=0.11)
    assert all(cluster.log(name) == cluster.log("b") for name in "acde")
    assert not any(proposal.acknowledged for proposal in lost)

    network.hold("a", "d")
    cluster.elect("a")  # by b, c and e
    for name in "ce":
        network.hold("a", name)
    cluster.run(0.2)

    writes = [cluster.put("a", f"of the new log {number}") for number in range(4)]
    network.deliver("d", "a", old_answers)  # b answers honestly, d's answer is two terms old
    cluster.run_only("a", 0.44, step_s=0.11)
    assert cluster.is_leader("a")
    return writes


def test_plain_pysyncobj_counts_an_acknowledgement_of_an_earlier_term(plain: PlainMaker) -> None:
    cluster = plain("abcde")
    writes = led_again_with_an_old_answer_under_way(cluster)
    assert all(write.acknowledged for write in writes)
    cluster.crash("a")
    cluster.crash("b")
    cluster.network.release_all()
    cluster.elect("c")  # three of five are alive, as promised
    cluster.run(2.0)
    assert all(write.value not in cluster.values(name) for write in writes for name in "cde")


def test_raftfs_drops_an_acknowledgement_of_an_earlier_term(guarded: GuardedMaker) -> None:
    cluster = guarded("abcde")
    writes = led_again_with_an_old_answer_under_way(cluster)
    assert not any(write.acknowledged for write in writes)
    guard = cluster.nodes["a"].engine.guard
    last = cluster.log("a")[-1][0]
    assert [guard.match_index(name) == last for name in "bcde"] == [True, False, False, False]
    cluster.crash("a")
    cluster.crash("b")
    cluster.network.release_all()
    cluster.elect("c")
    cluster.run(2.0)
    assert cluster.values("c") == cluster.values("d") == cluster.values("e") == []


def test_without_this_rule_the_stale_acknowledgement_counts(guarded: GuardedMaker) -> None:
    writes = led_again_with_an_old_answer_under_way(guarded("abcde", guard=CountsEveryAck))
    assert all(write.acknowledged for write in writes)
