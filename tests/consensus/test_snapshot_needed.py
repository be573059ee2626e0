"""A follower whose log does not reach the leader's beginning is told so; one whose log does is not."""

from __future__ import annotations

from raftfs.consensus import messages as m

from .guarded_cluster import GuardedCluster, GuardedMaker


def write_and_cut(cluster: GuardedCluster, count: int = 60, *, also: str = "") -> None:
    """As leader a, write, and keep only the newest segment of the log, there and on the nodes ``also``."""
    for number in range(count):
        cluster.put("a", f"write {number}")
        cluster.run(0.1, step_s=0.05)
    for name in "a" + also:
        node = cluster.nodes[name]
        node.journal.unlink(node.journal.cut(keep_segments=1, below=node.engine.commit_index))
        assert node.journal.first_index > 20


def behind(cluster: GuardedCluster) -> dict[str, list[str]]:
    """Who is told by whom, from now on."""
    told: dict[str, list[str]] = {name: [] for name in cluster.nodes}
    for name, node in cluster.nodes.items():
        node.engine.guard.on_behind = told[name].append
    return told


def test_a_member_that_was_away_too_long_is_told_and_the_leader_stays(guarded: GuardedMaker) -> None:
    cluster = guarded(segment_bytes=512)
    cluster.elect("a")
    cluster.network.isolate("c")
    write_and_cut(cluster)
    told = behind(cluster)
    cluster.network.connect_all()
    cluster.run(3, step_s=0.05)
    assert set(told["c"]) == {"a"}
    assert len(told["c"]) <= 4, "once a second is enough"
    assert told["b"] == []
    assert cluster.is_leader("a")
    after = cluster.put("a", "after")
    cluster.run(0.3, step_s=0.05)
    assert after.acknowledged


def test_with_a_member_behind_the_others_are_still_a_quorum_and_it_counts_for_liveness(guarded: GuardedMaker) -> None:
    cluster = guarded(segment_bytes=512)
    cluster.elect("a")
    cluster.network.isolate("c")
    write_and_cut(cluster)
    cluster.network.connect_all()
    cluster.crash("b")
    cluster.run(3, step_s=0.05)
    assert cluster.is_leader("a"), "c answers, so the leader is not cut off"
    write = cluster.put("a", "needs b")
    cluster.run(1, step_s=0.05)
    assert not write.acknowledged


def test_a_member_that_has_the_first_entry_gets_the_rest_from_the_log(guarded: GuardedMaker) -> None:
    cluster = guarded(segment_bytes=512)
    cluster.elect("a")
    write_and_cut(cluster)
    cluster.network.isolate("c")
    for number in range(5):
        cluster.put("a", f"more {number}")
        cluster.run(0.1, step_s=0.05)
    told = behind(cluster)
    cluster.network.connect_all()
    cluster.run(1, step_s=0.05)
    assert told["c"] == []
    assert cluster.values("c") == cluster.values("a")


def test_a_divergent_tail_of_the_first_term_needs_no_snapshot(guarded: GuardedMaker) -> None:
    """The hint goes back over a whole run of entries of one term, here to before the leader's first entry; the leader
    asks for its own first entry before it gives the member up."""
    cluster = guarded(segment_bytes=512)
    cluster.elect("a")
    write_and_cut(cluster, also="bc")
    first = min(cluster.nodes[name].journal.first_index for name in "bc")
    cluster.network.isolate("a")
    for number in range(3):
        cluster.put("a", f"never committed {number}")
    cluster.run(2, step_s=0.05)
    assert cluster.nodes["a"].journal.first_index_of_term(cluster.nodes["a"].journal.last_index) <= first
    told = behind(cluster)
    cluster.network.connect_all()
    cluster.run(3, step_s=0.05)
    assert told["a"] == []
    leader = next(name for name in "bc" if cluster.is_leader(name))
    write = cluster.put(leader, "after")
    cluster.run(0.5, step_s=0.05)
    assert write.acknowledged
    assert cluster.values("a") == cluster.values("b") == cluster.values("c")


def test_a_leader_whose_log_reaches_further_back_is_understood(guarded: GuardedMaker) -> None:
    cluster = guarded(segment_bytes=512)
    cluster.elect("a")
    write_and_cut(cluster)
    cluster.crash("a")
    cluster.run(3, step_s=0.05)
    leader = next(name for name in "bc" if cluster.is_leader(name))
    assert cluster.nodes[leader].journal.first_index == 1
    cluster.start("a")
    first = cluster.nodes["a"].journal.first_index
    cluster.network.connect_all()
    early = cluster.nodes[leader].journal.term(first - 10)
    entry = cluster.nodes[leader].journal
    entries = [m.WireEntry(entry.term(i), entry.data(i)) for i in range(first - 9, first - 3)]
    cluster.inject(leader, "a", m.Append(cluster.term(leader), 1, first - 10, early, first, entries))
    entries = [m.WireEntry(entry.term(i), entry.data(i)) for i in range(first - 9, first + 5)]
    cluster.inject(leader, "a", m.Append(cluster.term(leader), 2, first - 10, early, first, entries))
    write = cluster.put(leader, "after")
    cluster.run(1, step_s=0.05)
    assert write.acknowledged
    assert cluster.values("a") == cluster.values(leader)


def with_a_silent_member(guarded: GuardedMaker) -> GuardedCluster:
    """``a`` leads, and what it sends to ``c`` stays on the way, of which there may be 100 bytes."""
    cluster = guarded(segment_bytes=512)
    cluster.nodes["a"].engine.guard.in_flight_bytes_max = 100
    cluster.elect("a")
    cluster.network.reset("a", "c")
    cluster.network.connect("a", "c")
    cluster.network.hold("a", "c")
    return cluster


def test_the_log_may_be_cut_behind_what_a_silent_member_got(guarded: GuardedMaker) -> None:
    """Its connection is open and full; the leader's heartbeats must not name an entry that is gone."""
    cluster = with_a_silent_member(guarded)
    write_and_cut(cluster)
    told = behind(cluster)
    cluster.run(1, step_s=0.05)
    cluster.network.release_all()
    cluster.run(3, step_s=0.05)
    assert set(told["c"]) == {"a"}
    assert cluster.is_leader("a")


def test_a_silent_member_is_sent_nothing_more_each_time_that_the_log_is_cut(guarded: GuardedMaker) -> None:
    cluster = with_a_silent_member(guarded)
    for _ in range(5):
        write_and_cut(cluster)
    on_the_way = cluster.network.in_flight("a", "c")
    appends = [message for message in map(m.decode, on_the_way) if isinstance(message, m.Append)]
    entries = [entry for message in appends for entry in message.entries]
    assert 100 <= sum(len(entry.data) for entry in entries) < 200, "one more than fits, and no more"
    cluster.network.release_all()
    cluster.run(3, step_s=0.05)
    assert cluster.is_leader("a")
