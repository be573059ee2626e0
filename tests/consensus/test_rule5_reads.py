"""Rule 5 and the read barrier: a leader that lost its quorum steps down, and nobody reads what is no longer true."""

from __future__ import annotations

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
