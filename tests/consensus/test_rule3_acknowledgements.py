"""Rule 3: acknowledgements carry the term and the verified index; stale ones are dropped."""

from __future__ import annotations

from .plain_cluster import PlainMaker


def test_plain_pysyncobj_counts_an_acknowledgement_of_an_earlier_term(plain: PlainMaker) -> None:
    """Five nodes. d's answer to leader a is delayed until a, deposed and elected again, leads another log."""
    cluster = plain("abcde")
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)

    lost = [cluster.put("a", f"replaced {number}") for number in range(6)]
    network.hold("d", "a")
    network.reset("a", "b")
    network.reset("a", "c")
    network.reset("a", "e")
    cluster.tick("a")
    cluster.clock.advance(0.2)
    cluster.tick("a")
    network.drain()  # a and d hold six writes; d's answer is under way
    network.reset("a", "e")
    old_answers = len(network.in_flight("d", "a"))
    assert old_answers >= 1

    cluster.elect("b")  # by c and e; it overwrites the tails of d and a
    for name in "bce":
        network.connect("a", name)
    for _ in range(20):
        cluster.clock.advance(0.11)
        cluster.tick("b")
        network.drain()
    assert len({tuple(cluster.log(name)) for name in "abcde"}) == 1
    assert not any(proposal.acknowledged for proposal in lost)

    network.hold("a", "c")
    network.hold("a", "d")
    network.hold("a", "e")
    cluster.clock.advance(2.0)
    network.release("a", "c")
    network.release("a", "e")
    cluster.tick("a")
    network.drain()  # c, b and e vote for a; d says nothing that arrives
    assert cluster.is_leader("a")
    network.hold("a", "c")
    network.hold("a", "e")
    cluster.run(0.2)

    writes = [cluster.put("a", f"acknowledged {number}") for number in range(4)]
    network.deliver("d", "a", old_answers)  # b answers honestly, d's answer is two terms old
    cluster.tick("a")
    cluster.clock.advance(0.2)
    cluster.tick("a")
    network.drain()
    cluster.tick("a")
    assert all(write.acknowledged for write in writes)

    cluster.crash("a")
    cluster.crash("b")
    network.release_all()
    cluster.elect("c")  # three of five are alive, as promised
    cluster.run(2.0)
    assert all(write.value not in cluster.values(name) for write in writes for name in "cde")
