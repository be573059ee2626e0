"""A leader whose disk hangs, and fails nothing, must not hold up everybody: it hands over to one whose disk works."""

from __future__ import annotations

from .guarded_cluster import GuardedCluster, GuardedMaker

STEP_S = 0.01


def leaders(cluster: GuardedCluster) -> list[str]:
    return [name for name in cluster.nodes if cluster.is_leader(name)]


def hanging(cluster: GuardedCluster, *names: str) -> None:
    cluster.held_disks.update(names)


def patience_s(cluster: GuardedCluster) -> float:
    return cluster.times.election_timeout_ms_max / 1000


def test_a_leader_whose_disk_hangs_hands_over_and_nothing_is_lost(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, STEP_S)
    hanging(cluster, "a")
    write = cluster.put("a", "waits for a's disk")
    cluster.run(patience_s(cluster) - 0.1, STEP_S)
    assert leaders(cluster) == ["a"]
    assert not write.acknowledged
    cluster.run(0.3, STEP_S)
    (successor,) = set(leaders(cluster)) - {"a"}
    after = cluster.put(successor, "after")
    cluster.run(0.2, STEP_S)
    assert after.acknowledged
    assert cluster.values(successor) == ["waits for a's disk", "after"]
    cluster.held_disks.clear()
    cluster.run(1, STEP_S)
    assert write.acknowledged
    assert cluster.values("a") == ["waits for a's disk", "after"]


def test_where_every_disk_hangs_nobody_is_better(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, STEP_S)
    term = cluster.term("a")
    hanging(cluster, "a", "b", "c")
    write = cluster.put("a", "waits for everybody's disk")
    cluster.run(10, STEP_S)
    assert leaders(cluster) == ["a"]
    assert cluster.term("a") == term
    cluster.held_disks.clear()
    cluster.run(0.2, STEP_S)
    assert write.acknowledged


def test_a_leader_stays_where_the_others_are_no_majority_without_it(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, STEP_S)
    cluster.crash("c")
    hanging(cluster, "a")
    write = cluster.put("a", "waits")
    cluster.run(5, STEP_S)
    assert leaders(cluster) == ["a"]
    cluster.held_disks.clear()
    cluster.run(0.2, STEP_S)
    assert write.acknowledged


def test_disks_that_are_equally_slow_change_nothing(guarded: GuardedMaker) -> None:
    """The leader's is the last one to finish, each time, and each write takes longer than a hanging one may."""
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, STEP_S)
    term = cluster.term("a")
    for number in range(5):
        hanging(cluster, "a", "b", "c")
        write = cluster.put("a", f"write {number}")
        cluster.run(2 * patience_s(cluster), STEP_S)
        for name in "bca":
            cluster.sync(name)
            cluster.run(0.05, STEP_S)
        cluster.held_disks.clear()
        cluster.run(0.05, STEP_S)
        assert write.acknowledged
    assert leaders(cluster) == ["a"]
    assert cluster.term("a") == term


def test_a_node_whose_disk_hangs_does_not_stand(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.2, STEP_S)
    hanging(cluster, "c")
    write = cluster.put("a", "b has it")
    cluster.run(2 * patience_s(cluster), STEP_S)
    assert write.acknowledged
    cluster.network.reset("a", "c")  # it sees the death first, and with a sound disk would be the next leader
    cluster.run(0.03, STEP_S)
    cluster.crash("a")
    cluster.run(0.5, STEP_S)
    assert leaders(cluster) == ["b"]


def test_a_leader_whose_state_machine_hangs_hands_over_if_there_is_somebody(guarded: GuardedMaker) -> None:
    for names in ("a", "abc"):
        cluster = guarded(names)
        cluster.elect("a")
        cluster.run(0.2, STEP_S)
        cluster.nodes["a"].engine.disk.applying_since_s = cluster.clock()
        cluster.run(6, STEP_S)
        assert len(leaders(cluster)) == 1
        assert cluster.is_leader("a") == (names == "a")
