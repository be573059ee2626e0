"""A leader that is stopped in order (SIGTERM) lets another one lead first, and no write is lost by that."""

from __future__ import annotations

import re
import secrets

from raftfs.testing import LocalCluster

from .clusters import running, settle, wait_until
from .ledger import Ledger, Writers, fetcher

ROUNDS_MAX = 8
_LEADS = re.compile(r"term \d+: (\w+) leads")


def test_a_leader_that_is_stopped_hands_over_first() -> None:
    """It says who leads after it, which it could not know if it had been missed only when it was gone. On a machine
    that is very busy the others may not take over in the time that a stopping node has; they do not so each time."""
    ledger, successors = Ledger(), list[tuple[str, str | None]]()
    with running() as cluster:
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4, large=False):
            while len(successors) < ROUNDS_MAX and not _handed_over(successors):
                goal = ledger.acknowledged + 10
                wait_until("acknowledged writes", lambda goal=goal: ledger.acknowledged >= goal)
                leader = cluster.leader()
                cluster.stop(leader)
                successors.append((leader, _last_leader(cluster, leader)))
                cluster.start(leader)
        leader = cluster.leader()
        cluster.kill(leader)
        assert _last_leader(cluster, leader) == leader, "who has no time to hand over knows no successor"
        cluster.start(leader)
        print(successors)
        assert _handed_over(successors)
        assert not ledger.noticed()
        settle(cluster)
        for name, url in cluster.node_urls.items():
            complaints = ledger.check(fetcher(url))
            assert not complaints, f"through {name}: {complaints}"


def _handed_over(successors: list[tuple[str, str | None]]) -> bool:
    return any(leader != successor for leader, successor in successors)


def _last_leader(cluster: LocalCluster, node: str) -> str | None:
    """The one that ``node`` followed last, by its log."""
    told = _LEADS.findall(cluster.log_tail(node, 1000))
    return told[-1] if told else None
