"""A server that stands still (SIGSTOP) keeps its connections and answers nothing: harder to see than a dead one."""

from __future__ import annotations

import random
import secrets

import pytest

from .clusters import CALM, running, settle, wait_until
from .ledger import Ledger, Writers, fetcher
from .machine import MIB
from .web import get, put


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_a_frozen_node_neither_stops_the_others_nor_comes_back_wrong(victim: str) -> None:
    with running() as cluster:
        ledger = Ledger()
        leader = cluster.leader()
        frozen = leader if victim == "leader" else next(node for node in cluster.nodes if node != leader)
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
            wait_until("the first writes", lambda: ledger.acknowledged >= 40)
            cluster.pause(frozen)
            ledger.forget_pauses()
            before = ledger.acknowledged
            wait_until("writes while the node is frozen", lambda: ledger.acknowledged >= before + 60)
            pause_s = ledger.longest_pause_s
            cluster.resume(frozen)
            goal = ledger.acknowledged + 40
            wait_until("writes after it woke", lambda: ledger.acknowledged >= goal)
        print(f"{frozen}, the {victim}, was frozen; the longest time without an acknowledgement was {pause_s:.2f} s")
        print(ledger)
        assert not ledger.noticed()
        settle(cluster)
        for name, url in {"frontend": cluster.url, **cluster.node_urls}.items():
            complaints = ledger.check(fetcher(url))
            assert not complaints, f"through {name}: {complaints}"


def test_a_leader_that_wakes_up_does_not_answer_with_what_it_knew() -> None:
    with running() as cluster:
        assert put(cluster.url, "/f", b"old").status == 201
        frozen = cluster.leader()
        cluster.pause(frozen)
        wait_until("a new leader to take a write", lambda: put(cluster.url, "/f", b"new").status == 200)
        cluster.resume(frozen)
        answer = get(cluster.node_urls[frozen], "/f")
        assert (answer.status, answer.body) == (200, b"new"), str(answer)


def test_a_large_upload_does_not_wait_for_a_frozen_follower() -> None:
    data = random.randbytes(100 * MIB)
    with running(**CALM) as cluster:
        leader = cluster.leader()
        frozen = next(node for node in cluster.nodes if node != leader)
        cluster.pause(frozen)
        answer = put(cluster.url, "/large", data)
        assert answer.status == 201, str(answer)
        print(f"100 MiB with {frozen} frozen: {len(data) / 1e6 / answer.seconds:.0f} MB/s")
        cluster.resume(frozen)
        settle(cluster)
