"""A stopped node of three is damaged: it refuses to start, is repaired, and rejoins while the others are written to."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftfs.testing import LocalCluster

from .clusters import running, settle, wait_until
from .ledger import Ledger, Writers, fetcher
from .test_snapshots import oldest_segment
from .web import ask, status_of

Damage = Callable[[Path], str]


def flip(path: Path, *offsets: int) -> None:
    raw = bytearray(path.read_bytes())
    for offset in offsets:
        raw[offset] ^= 0xFF
    path.write_bytes(raw)


def break_journal(data_dir: Path) -> str:
    segment = min((data_dir / "journal").glob("*.segment"))
    flip(segment, 40)
    return f"{segment}: damaged record at offset 32"


def break_term(data_dir: Path) -> str:
    flip(data_dir / "journal" / "term", 10, 4096 + 10)
    return f"{data_dir / 'journal' / 'term'}: both copies of the term and vote are damaged (offsets 0 and 4096)"


def break_state(data_dir: Path) -> str:
    flip(data_dir / "state.db", 4096 * 3 + 50)
    return f"{data_dir / 'state.db'}: page 4, at offset 12288, is damaged"


def break_all(data_dir: Path) -> str:
    break_state(data_dir)
    break_journal(data_dir)
    return break_term(data_dir)


def fsck(data_dir: Path, *options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "raftfs_cli", "fsck", "--data-dir", str(data_dir), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def follower(cluster: LocalCluster) -> str:
    return next(node for node in cluster.nodes if node != cluster.leader())


def write_and_damage(cluster: LocalCluster, ledger: Ledger, damage: Damage) -> str:
    """Some writes, a follower that is stopped in the middle of them and damaged, and some more without it."""
    broken = follower(cluster)
    with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
        wait_until("the first writes", lambda: ledger.acknowledged >= 30)
        cluster.stop(broken)
        goal = ledger.acknowledged + 20
        wait_until("writes without it", lambda: ledger.acknowledged >= goal)
    words = damage(cluster.data_dir(broken))
    cluster.start(broken, wait=False)
    wait_until("it to end again", lambda: cluster.pid(broken) is None)
    said = cluster.log_tail(broken, 60)
    assert words in said
    assert f"raftfs fsck --repair --data-dir {cluster.data_dir(broken)}" in said
    return broken


def readiness(url: str) -> str:
    try:
        return ask(url, "GET", "/readyz?verbose").body.decode()
    except OSError:
        return "not there yet"


@pytest.mark.parametrize("damage", [break_journal, break_term, break_state, break_all])
def test_a_damaged_node_refuses_is_repaired_and_rejoins_under_traffic(damage: Damage) -> None:
    with running() as cluster:
        ledger = Ledger()
        broken = write_and_damage(cluster, ledger, damage)
        data_dir = cluster.data_dir(broken)
        code, found = fsck(data_dir)
        assert code == 9
        assert found["damaged"]
        code, done = fsck(data_dir, "--repair")
        assert code == 0
        assert done["done"]
        assert (data_dir / "rejoin.json").exists()
        assert fsck(data_dir)[0] == 0
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
            goal = ledger.acknowledged + 30
            cluster.start(broken)
            wait_until("it to be whole", lambda: not (data_dir / "rejoin.json").exists())
            wait_until("writes meanwhile", lambda: ledger.acknowledged >= goal)
        settle(cluster)
        assert not ledger.check(fetcher(cluster.node_urls[broken]))


def test_while_it_rejoins_it_makes_no_majority_and_serves_nobody() -> None:
    with running() as cluster:
        ledger = Ledger()
        broken = write_and_damage(cluster, ledger, break_term)
        data_dir = cluster.data_dir(broken)
        assert fsck(data_dir, "--repair")[0] == 0
        third = next(node for node in cluster.nodes if node not in (broken, cluster.leader()))
        last = next(node for node in cluster.nodes if node not in (broken, third))
        cluster.kill(third)
        cluster.start(broken, wait=False)
        url = cluster.node_urls[broken]
        wait_until("it to say that it rejoins", lambda: f"waiting to hear the term of {third}" in readiness(url))
        answer = ask(url, "GET", "/v1/dirs/?consistency=stale")
        assert answer.status == 503, answer
        assert b"getting back what was damaged" in answer.body
        wait_until("the leader to give up", lambda: not status_of(cluster.node_urls[last])["quorum"])
        answer = ask(cluster.node_urls[last], "PUT", "/v1/files/without-a-majority", body=b"x")
        assert answer.status in (503, 504), answer
        assert (data_dir / "rejoin.json").exists()
        cluster.start(third)
        wait_until("it to be whole", lambda: not (data_dir / "rejoin.json").exists())
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
            goal = ledger.acknowledged + 20
            wait_until("writes", lambda: ledger.acknowledged >= goal)
        settle(cluster)
        for name, node_url in cluster.node_urls.items():
            assert not ledger.check(fetcher(node_url)), name


def test_a_state_is_fetched_as_a_copy_if_the_log_was_cut() -> None:
    with running(journal_segment_bytes=128 * 1024, journal_segments_kept=3) as cluster:
        ledger = Ledger()
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
            logs = [cluster.data_dir(node) / "journal" for node in cluster.nodes]
            wait_until("the logs to be cut", lambda: all(oldest_segment(log) > 3 for log in logs))
        broken = write_and_damage(cluster, ledger, break_state)
        assert fsck(cluster.data_dir(broken), "--repair")[0] == 0
        cluster.start(broken)
        wait_until("it to be whole", lambda: not (cluster.data_dir(broken) / "rejoin.json").exists())
        assert "installing the snapshot" in cluster.log_tail(broken, 400)
        settle(cluster)
        assert not ledger.check(fetcher(cluster.node_urls[broken]))


def test_killed_again_and_again_while_it_rejoins_it_goes_on() -> None:
    with running() as cluster:
        ledger = Ledger()
        broken = write_and_damage(cluster, ledger, break_all)
        data_dir = cluster.data_dir(broken)
        assert fsck(data_dir, "--repair")[0] == 0
        seed = secrets.randbits(32)
        print(f"seed {seed}")
        with Writers(ledger, cluster.url, seed=seed, clients=4):
            for life in range(6):
                cluster.start(broken, wait=False)
                time.sleep((seed >> (life * 4) & 15) / 15)
                if cluster.pid(broken) is not None:
                    cluster.kill(broken)
            cluster.start(broken)
            wait_until("it to be whole", lambda: not (data_dir / "rejoin.json").exists())
        settle(cluster)
        assert not ledger.check(fetcher(cluster.node_urls[broken]))
