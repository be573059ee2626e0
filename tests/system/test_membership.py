"""Members come and go under traffic: growth, removal, replacement of a lost disk, and who must stay outside."""

from __future__ import annotations

import secrets
import shutil

import pytest

from raftfs.client import Client
from raftfs.errors import Conflict, NotFound, Unavailable
from raftfs.testing import LocalCluster

from .clusters import CALM, running, settle, wait_until
from .ledger import Ledger, Writers, fetcher
from .test_snapshots import SHORT_LOG
from .web import status_of


def role(cluster: LocalCluster, node: str, *, seen_by: str | None = None) -> str | None:
    url = cluster.url if seen_by is None else cluster.node_urls[seen_by]
    return next((member["role"] for member in status_of(url)["members"] if member["id"] == node), None)


def wait_for_vote(cluster: LocalCluster, node: str) -> None:
    wait_until(f"{node} to vote", lambda: role(cluster, node) in ("follower", "leader"))


def add(cluster: LocalCluster, client: Client) -> str:
    node = cluster.grow()
    assert client.cluster_add(node, cluster.peer(node), cluster.node_urls[node]).role == "learner"
    return node


def check(cluster: LocalCluster, ledger: Ledger, nodes: list[str]) -> None:
    for node in nodes:
        complaints = ledger.check(fetcher(cluster.node_urls[node]))
        assert not complaints, f"through {node}: {complaints}"


def wipe(cluster: LocalCluster, node: str) -> None:
    """The machine's disk is lost."""
    if cluster.pid(node) is not None:
        cluster.kill(node)
    shutil.rmtree(cluster.data_dir(node))


def test_three_become_five_and_three_again_under_traffic() -> None:
    with running(**SHORT_LOG, **CALM) as cluster, cluster.client() as client:
        ledger = Ledger()
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=3):
            wait_until("the first writes", lambda: ledger.acknowledged >= 20)
            for _ in range(2):
                wait_for_vote(cluster, add(cluster, client))
            goal = ledger.acknowledged + 20
            wait_until("writes with five", lambda: ledger.acknowledged >= goal)
            first = cluster.leader()
            for node in (first, next(name for name in ("n1", "n2", "n3") if name != first)):
                client.cluster_remove(node)
                wait_until(f"{node} to be no member", lambda node=node: role(cluster, node) is None)
            goal = ledger.acknowledged + 20
            wait_until("writes with three", lambda: ledger.acknowledged >= goal)
        left = [member["id"] for member in status_of(cluster.url)["members"]]
        assert len(left) == 3
        assert {"n4", "n5"} < set(left)
        term = status_of(cluster.url)["term"]
        for node in set(cluster.nodes) - set(left):  # who was removed runs on, and is not heard
            wait_until(f"{node} to be refused", lambda node=node: "is not a member" in cluster.log_tail(node, 200))
        check(cluster, ledger, left)
        assert status_of(cluster.url)["term"] == term
        print(f"the longest time without an acknowledgement was {ledger.longest_pause_s:.2f} s")


def test_a_member_with_an_emptied_disk_is_refused_until_it_is_replaced() -> None:
    with running(**SHORT_LOG) as cluster, cluster.client() as client:
        ledger = Ledger()
        lost = next(node for node in cluster.nodes if node != cluster.leader())
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=3):
            wait_until("the first writes", lambda: ledger.acknowledged >= 20)
            wipe(cluster, lost)
            cluster.start(lost, wait=False)
            wait_until("the refusal", lambda: f"raftfs cluster replace {lost}" in cluster.log_tail(lost, 200))
            assert not next(m for m in status_of(cluster.url)["members"] if m["id"] == lost)["reachable"]
            client.cluster_replace(lost)
            wait_for_vote(cluster, lost)
            goal = ledger.acknowledged + 20
            wait_until("writes afterwards", lambda: ledger.acknowledged >= goal)
        settle(cluster)
        check(cluster, ledger, cluster.nodes)


def test_an_emptied_member_cannot_elect_one_that_lacks_what_was_acknowledged() -> None:
    """Two of three hold an acknowledged write; one of them loses its disk, the other one is down. The third must not
    lead with the help of the emptied one."""
    with running() as cluster, cluster.client(deadline_s=10) as client:
        leader = cluster.leader()
        emptied, behind = (node for node in cluster.nodes if node != leader)
        cluster.pause(behind)
        client.write("/precious", b"acknowledged")
        cluster.kill(leader)
        wipe(cluster, emptied)
        cluster.resume(behind)
        cluster.start(emptied, wait=False)
        wait_until("the refusal", lambda: f"raftfs cluster replace {emptied}" in cluster.log_tail(emptied, 200))
        wait_until("the third to be without a leader", lambda: not status_of(cluster.node_urls[behind])["quorum"])
        term = status_of(cluster.node_urls[behind])["term"]
        with pytest.raises(Unavailable):  # ten seconds are many election timeouts
            client.write("/precious", b"by a leader that must not be", if_match=1)
        assert not status_of(cluster.node_urls[behind])["quorum"]
        assert status_of(cluster.node_urls[behind])["term"] == term
        cluster.start(leader)
        assert client.read("/precious") == b"acknowledged"
        client.cluster_replace(emptied)
        wait_for_vote(cluster, emptied)
        settle(cluster)


def test_changes_that_may_not_be_are_refused() -> None:
    with running() as cluster, cluster.client() as client:
        follower = next(node for node in cluster.nodes if node != cluster.leader())
        with pytest.raises(NotFound, match="members are n1, n2, n3"):
            client.cluster_remove("n9")
        with pytest.raises(Conflict, match="is alive"):
            client.cluster_replace(follower)
        with pytest.raises(Conflict, match="is a member already"):
            client.cluster_add(follower, "127.0.0.1:1", "http://127.0.0.1:2")
        with pytest.raises(ValueError, match="host:port"):
            client.cluster_add("n4", "nowhere", "http://127.0.0.1:2")
        client.cluster_transfer(follower)
        wait_until(f"{follower} to lead", lambda: cluster.leader() == follower)
        client.cluster_remove(follower)  # hands over first
        wait_until(f"{follower} to be no member", lambda: role(cluster, follower) is None)
