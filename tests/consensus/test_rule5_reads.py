"""Rule 5 and the read barrier: a leader that lost its quorum steps down, and nobody reads what is no longer true."""

from __future__ import annotations

from .guarded_cluster import GuardedMaker
from .plain_cluster import PlainMaker


def test_plain_pysyncobj_reads_stale_data_on_a_leader_that_was_cut_off(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    old = cluster.put("a", "old")
    cluster.run(0.5)
    assert old.acknowledged
    cluster.network.isolate("a")
    cluster.elect("b")
    new = cluster.put("b", "new")
    cluster.run(20.0)
    assert new.acknowledged
    assert cluster.is_leader("a")
    assert cluster.nodes["a"].isReady()
    assert cluster.values("a") == ["old"]
    assert cluster.values("b") == ["old", "new"]


def test_plain_pysyncobj_does_not_tell_a_stale_leader_of_the_newer_term(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    cluster.network.isolate("a")
    cluster.elect("b")
    cluster.run(0.5)
    cluster.network.connect("a", "c")  # c knows better, and a sends it heartbeats all the time
    for _ in range(20):
        cluster.run(1.0)
        assert cluster.is_leader("a")
        assert cluster.term("a") < cluster.term("c")


def test_raftfs_answers_no_read_on_a_leader_that_was_cut_off(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    old = cluster.put("a", "old")
    cluster.run(0.5)
    assert old.acknowledged
    cluster.network.isolate("a")
    cluster.clock.advance(0.5)  # less than its patience: it believes that it leads
    read = cluster.ask("a", [])
    cluster.tick("a")
    assert cluster.is_leader("a")
    cluster.elect("b")
    new = cluster.put("b", "new")
    cluster.run(2.0)
    assert new.acknowledged
    assert not cluster.is_leader("a")
    assert (read.answered, read.index) == (True, None)

    network = cluster.network
    network.connect_all()
    cluster.run(1.0)
    reads = {name: cluster.ask(name, []) for name in "abc"}  # and every node can tell the truth
    cluster.run(0.5)
    for name, read in reads.items():
        assert read.index is not None
        assert cluster.applied_index(name) >= read.index
        assert cluster.values(name) == ["old", "new"]


def test_raftfs_tells_a_stale_leader_of_the_newer_term(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    network = cluster.network
    network.reset("a", "b")
    network.hold("a", "c")
    cluster.clock.advance(0.1)
    cluster.tick("a")  # a heartbeat for c, which takes its time
    cluster.elect("b")
    assert cluster.is_leader("a")
    network.deliver("a", "c")
    network.deliver("c", "a", 10)
    assert not cluster.is_leader("a")
    assert cluster.term("a") == cluster.term("b")


def test_raftfs_takes_no_answer_to_a_read_of_an_earlier_life_of_the_node(guarded: GuardedMaker) -> None:
    """The leader's round for b's first read takes long; b restarts meanwhile, and asks again after a write."""
    cluster = guarded()
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)
    cluster.ask("b", [])
    cluster.tick("b")
    network.deliver("b", "a", 10)  # the leader asks the others
    cluster.crash("b")
    network.reset("a", "c")  # in vain, for now
    network.connect("a", "c")
    new = cluster.put("a", "new")
    for _ in range(4):
        network.drain()
        cluster.clock.advance(0.01)
        cluster.tick("a")
    assert new.acknowledged

    cluster.restart("b")
    cluster.run_only("a", 0.06, step_s=0.03)  # b hears who leads
    read = cluster.ask("b", ["new"])
    network.hold("a", "b")
    network.hold("a", "c")
    cluster.tick("b")
    network.deliver("b", "a", 10)
    network.release_all()
    cluster.run_only("a", 0.5, step_s=0.05)
    assert read.index is not None
    assert read.index >= cluster.log("a")[-1][0]
