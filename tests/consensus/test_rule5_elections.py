"""Rules 5 and 6: who may start an election. Plain PySyncObj lets anybody; ours asks first and obeys a live leader."""

from __future__ import annotations

import pytest

from raftfs.consensus import messages as m

from .guarded_cluster import GuardedCluster, GuardedMaker
from .plain_cluster import PlainMaker

STEP_S = 0.01


def leaders(cluster: GuardedCluster) -> list[str]:
    return [name for name in cluster.nodes if cluster.is_leader(name)]


def test_plain_pysyncobj_changes_leaders_because_of_one_broken_link(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    term = cluster.term("a")
    cluster.network.reset("a", "b")
    cluster.run(60, step_s=0.05)
    assert max(cluster.term(name) for name in "abc") > term


def test_raftfs_changes_nothing_because_of_one_broken_link(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    term = cluster.term("a")
    cluster.network.reset("a", "b")
    for write in range(20):
        cluster.run(6, step_s=0.05)
        assert leaders(cluster) == ["a"]
        proposal = cluster.put("a", f"write {write}")
        cluster.run(0.2, step_s=0.05)
        assert proposal.acknowledged
    assert {cluster.term(name) for name in "abc"} == {term}
    cluster.network.connect("a", "b")
    cluster.run(1, step_s=0.05)
    assert cluster.values("b") == cluster.values("a")


@pytest.mark.parametrize("deaf", ["b from a", "a from b"])
def test_raftfs_changes_nothing_because_of_a_link_broken_one_way(guarded: GuardedMaker, deaf: str) -> None:
    cluster = guarded()
    cluster.elect("a")
    term = cluster.term("a")
    ear, mouth = deaf[0], deaf[-1]
    cluster.network.reset_one(mouth, ear)
    cluster.run(60, step_s=0.05)
    assert leaders(cluster) == ["a"]
    assert {cluster.term(name) for name in "abc"} == {term}


def test_plain_pysyncobj_deposes_a_live_leader_when_a_node_comes_back(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.network.reset("a", "c")  # c still sees b, so its own timer goes on and raises the term
    cluster.network.hold("c", "b")
    cluster.run(30, step_s=0.05)
    term = cluster.term("a")
    assert cluster.term("c") > term
    cluster.network.release_all()
    cluster.network.connect("a", "c")
    cluster.run(5, step_s=0.05)
    assert cluster.term("a") > term


def test_raftfs_node_that_comes_back_brings_no_newer_term(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    term = cluster.term("a")
    cluster.network.isolate("c")
    cluster.run(30, step_s=0.05)
    assert cluster.term("c") == term
    cluster.network.connect_all()
    cluster.run(5, step_s=0.05)
    assert leaders(cluster) == ["a"]
    assert cluster.term("a") == term


def test_raftfs_refuses_a_vote_while_a_live_leader_is_heard(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, step_s=0.05)
    term = cluster.term("a")
    cluster.inject("c", "b", m.VoteRequest(term + 50, 10**6, term + 49))
    cluster.run(1, step_s=0.05)
    assert {cluster.term(name) for name in "abc"} == {term}
    assert leaders(cluster) == ["a"]


def test_raftfs_leader_without_a_majority_steps_down_within_an_election_timeout(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, step_s=0.05)
    cluster.network.isolate("a")
    cluster.run(cluster.times.election_timeout_ms_max / 1000 + 0.1, step_s=0.05)
    assert not cluster.is_leader("a")


def test_raftfs_replaces_a_dead_leader_long_before_the_election_timeout(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    write = cluster.put("a", "before")
    cluster.run(0.2, step_s=STEP_S)
    assert write.acknowledged
    cluster.crash("a")
    cluster.run(cluster.times.election_timeout_ms_min / 1000 / 2, step_s=STEP_S)
    assert len(leaders(cluster)) == 1
    after = cluster.put(leaders(cluster)[0], "after")
    cluster.run(0.2, step_s=STEP_S)
    assert after.acknowledged
    assert cluster.values("b") == cluster.values("c") == ["before", "after"]


@pytest.mark.parametrize("first", ["b", "c"])
def test_raftfs_follower_that_learns_late_of_a_death_confirms_it_at_once(guarded: GuardedMaker, first: str) -> None:
    """The first one asks, and is refused, since the other one still hears the leader. It need not ask again."""
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, step_s=0.001)
    cluster.network.reset("a", first)
    cluster.run(0.03, step_s=0.001)
    assert leaders(cluster) == ["a"]
    cluster.crash("a")
    cluster.run(0.03, step_s=0.001)
    assert len(leaders(cluster)) == 1


@pytest.mark.parametrize(("late_s", "granted"), [(0.0, True), (1.0, False)])
def test_raftfs_confirms_only_who_asked_lately(guarded: GuardedMaker, late_s: float, granted: bool) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, step_s=STEP_S)
    term = cluster.term("a")
    cluster.inject("c", "b", m.PreVote(term + 1, 10**6, term))
    cluster.run(late_s, step_s=STEP_S)
    cluster.network.hold("b", "c")
    cluster.network.reset("a", "b")
    cluster.tick("b")
    said = [m.decode(raw) for raw in cluster.network.in_flight("b", "c")]
    assert any(isinstance(message, m.PreVoteGrant) for message in said) == granted


def test_raftfs_replaces_a_silent_leader_after_the_election_timeout(guarded: GuardedMaker) -> None:
    """Frozen, not dead: its connections stay."""
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, step_s=STEP_S)
    cluster.network.hold_all("a")
    frozen = cluster.nodes.pop("a")
    cluster.run(2.5, step_s=STEP_S)
    assert len(leaders(cluster)) == 1
    cluster.nodes["a"] = frozen
    cluster.network.release_all()
    cluster.run(2.5, step_s=STEP_S)
    assert len(leaders(cluster)) == 1
    assert not cluster.is_leader("a")


def test_raftfs_node_with_an_older_log_cannot_hold_up_the_election(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.network.isolate("c")
    write = cluster.put("a", "c does not have this")
    cluster.run(0.2, step_s=STEP_S)
    assert write.acknowledged
    cluster.network.connect("b", "c")
    cluster.crash("a")
    cluster.run(3, step_s=STEP_S)
    assert leaders(cluster) == ["b"]
    assert cluster.values("c") == ["c does not have this"]


def test_raftfs_transfers_leadership_and_loses_nothing(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    writes = [cluster.put("a", f"write {number}") for number in range(10)]
    cluster.run(0.2, step_s=STEP_S)
    assert cluster.nodes["a"].engine.transfer()
    cluster.run(0.1, step_s=STEP_S)
    assert len(leaders(cluster)) == 1
    assert not cluster.is_leader("a")
    assert all(write.acknowledged for write in writes)
    cluster.run(0.2, step_s=STEP_S)
    assert cluster.values("b") == [write.value for write in writes]


@pytest.mark.parametrize("frozen", ["b", "c"])
def test_raftfs_does_not_hand_over_to_a_member_that_stands_still(guarded: GuardedMaker, frozen: str) -> None:
    """Both have the whole log; the one that was heard last takes over."""
    cluster = guarded()
    cluster.elect("a")
    cluster.put("a", "first")
    cluster.run(0.3)
    for link in cluster.network.links:
        if frozen in link:
            cluster.network.hold(*link)
    awake = [name for name in "abc" if name != frozen]
    for _ in range(4):
        cluster.clock.advance(0.05)
        cluster.tick(*awake)
        cluster.network.drain()
    assert cluster.nodes["a"].engine.transfer()
    cluster.network.drain()
    cluster.tick(*awake)
    cluster.network.drain()
    assert leaders(cluster) == [name for name in awake if name != "a"]


def test_raftfs_takes_a_transfer_from_the_leader_alone(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, step_s=STEP_S)
    term = cluster.term("a")
    cluster.inject("c", "b", m.TimeoutNow(term))
    cluster.inject("a", "b", m.TimeoutNow(term - 1))
    cluster.run(0.5, step_s=STEP_S)
    assert leaders(cluster) == ["a"]
    assert cluster.term("b") == term
