"""A member that was away for longer than the log reaches back: it gets the leader's database, then the rest."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from raftfs.testing import LocalCluster

from .clusters import running, settle, wait_until
from .ledger import Ledger, Writers, fetcher

SHORT_LOG: dict[str, Any] = {"journal_segment_bytes": 128 * 1024, "journal_segments_kept": 3}


def leave_behind(cluster: LocalCluster, ledger: Ledger) -> str:
    """Kill a follower, and write until the others have cut off what it needs."""
    away = next(node for node in cluster.nodes if node != cluster.leader())
    with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
        wait_until("the first writes", lambda: ledger.acknowledged >= 20)
        cluster.kill(away)
        others = [cluster.data_dir(node) / "journal" for node in cluster.nodes if node != away]
        wait_until("the logs to be cut", lambda: all(oldest_segment(log) > 8 for log in others))
    return away


def oldest_segment(journal: Path) -> int:
    return min(int(path.stem) for path in journal.glob("*.segment"))


def check(cluster: LocalCluster, ledger: Ledger) -> None:
    settle(cluster)
    for name, url in cluster.node_urls.items():
        complaints = ledger.check(fetcher(url))
        assert not complaints, f"through {name}: {complaints}"


def test_a_member_behind_the_log_catches_up_while_writes_go_on() -> None:
    with running(**SHORT_LOG) as cluster:
        ledger = Ledger()
        away = leave_behind(cluster, ledger)
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
            goal = ledger.acknowledged + 30
            cluster.start(away)
            wait_until("the snapshot to be installed", lambda: "installing the snapshot" in cluster.log_tail(away, 200))
            wait_until("writes meanwhile", lambda: ledger.acknowledged >= goal)
        print(f"the longest time without an acknowledgement was {ledger.longest_pause_s:.2f} s")
        check(cluster, ledger)


def test_a_member_killed_again_and_again_while_it_catches_up_starts_every_time() -> None:
    with running(**SHORT_LOG) as cluster:
        ledger = Ledger()
        away = leave_behind(cluster, ledger)
        seed = secrets.randbits(32)
        print(f"seed {seed}")
        for life in range(8):
            cluster.start(away, wait=False)
            time.sleep((seed >> (life * 4) & 15) / 15 * 1.2)
            if cluster.pid(away) is not None:
                cluster.kill(away)
        cluster.start(away)
        check(cluster, ledger)
