"""kill -9 of the leader, of a follower, of all at once, while clients write. Nothing acknowledged may be lost, nothing
half written may be seen, and the cluster must be well again without anybody's help."""

from __future__ import annotations

import http.client
import random
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftfs.client.progress import Progress
from raftfs.testing import LocalCluster

from .clusters import kill_all, running, settle, start_all, wait_until
from .ledger import Ledger, Writers, classify, fetcher
from .machine import MIB, check_chunks, leftovers, open_uploads, orphans
from .web import BLOCK_BYTES, ask, fetch, sha256

CRASH_OPTIONS: dict[str, Any] = {"chunk_grace_s": 4.0}
"""Short, so that the collector is at work while nodes die."""


def _writes_more(ledger: Ledger, number: int) -> None:
    goal = ledger.acknowledged + number
    wait_until(f"{number} more acknowledged writes", lambda: ledger.acknowledged >= goal)


def _check_everywhere(cluster: LocalCluster, ledger: Ledger) -> None:
    print(ledger)
    for name, url in {"frontend": cluster.url, **cluster.node_urls}.items():
        complaints = ledger.check(fetcher(url))
        assert not complaints, f"through {name}: {complaints}"


def _check_own_disk(cluster: LocalCluster, node: str, ledger: Ledger) -> None:
    """That a node serves every byte with the others stopped, so from nothing but its own disk."""
    check_chunks(cluster.data_dir(node))
    others = [other for other in cluster.nodes if other != node]
    for other in others:
        cluster.stop(other)
    complaints = ledger.check(fetcher(cluster.node_urls[node], "?consistency=stale"))
    assert not complaints, f"{node} alone: {complaints}"
    for other in others:
        cluster.start(other, wait=False)
    cluster.wait_ready()


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_a_node_killed_in_a_stream_of_writes(victim: str) -> None:
    with running(**CRASH_OPTIONS) as cluster:
        ledger = Ledger()
        with Writers(ledger, cluster.url, seed=secrets.randbits(32)):
            _writes_more(ledger, 50)
            leader = cluster.leader()
            dead = leader if victim == "leader" else next(node for node in cluster.nodes if node != leader)
            ledger.forget_pauses()
            cluster.kill(dead)
            _writes_more(ledger, 50)
        print(f"the longest time without an acknowledgement was {ledger.longest_pause_s:.2f} s")
        survivors = {node: url for node, url in cluster.node_urls.items() if node != dead}
        print(f"killed {dead}, the {victim}; {cluster.leader()} leads; {ledger}")
        for node, url in survivors.items():
            complaints = ledger.check(fetcher(url))
            assert not complaints, f"through {node}: {complaints}"
        with Writers(ledger, cluster.url, seed=secrets.randbits(32)):
            cluster.start(dead, wait=False)
            _writes_more(ledger, 50)
        assert not ledger.noticed()
        settle(cluster)
        _check_everywhere(cluster, ledger)
        _check_own_disk(cluster, dead, ledger)
        settle(cluster)


def test_all_nodes_killed_at_once_again_and_again() -> None:
    rounds = 3
    with running(**CRASH_OPTIONS) as cluster:
        ledger = Ledger()
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=5):
            for number in range(rounds):
                _writes_more(ledger, 30)
                kill_all(cluster)
                start_all(cluster)
                print(f"round {number + 1} of {rounds}: {ledger.acknowledged} acknowledged, {cluster.leader()} leads")
            _writes_more(ledger, 20)
        settle(cluster)
        _check_everywhere(cluster, ledger)


def test_nodes_killed_and_restarted_one_after_the_other_without_a_rest() -> None:
    dice_seed = secrets.randbits(32)
    print(f"seed of the victims: {dice_seed}")
    dice = random.Random(dice_seed)
    with running(**CRASH_OPTIONS) as cluster:
        ledger = Ledger()
        with Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=4):
            for _ in range(4):
                dead = dice.choice([cluster.leader(), *cluster.nodes])
                cluster.kill(dead)
                _writes_more(ledger, 15)
                cluster.start(dead)
        assert not ledger.noticed()
        settle(cluster)
        _check_everywhere(cluster, ledger)


class _Paced:
    """A body that stops in the middle until it is told to go on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.half_way = threading.Event()
        self.go_on = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._data), BLOCK_BYTES):
            if at >= len(self._data) // 2 and not self.half_way.is_set():
                self.half_way.set()
                assert self.go_on.wait(60)
            yield self._data[at : at + BLOCK_BYTES]


def test_the_leader_killed_in_the_middle_of_a_large_upload() -> None:
    data, ledger = random.randbytes(48 * MIB), Ledger()
    with running(**CRASH_OPTIONS, upload_expiry_s=8.0) as cluster:
        said: list[str] = []
        body = _Paced(data)

        def upload() -> None:
            headers = {"Content-Length": str(len(data))}
            try:
                answer = ask(cluster.url, "PUT", "/v1/files/large", body=body, headers=headers)
                said.extend([*classify(answer), str(answer)])
            except (OSError, http.client.HTTPException) as error:
                said.extend(["unknown", repr(error)])

        thread = threading.Thread(target=upload)
        thread.start()
        assert body.half_way.wait(60)
        dead = cluster.leader()
        cluster.kill(dead)
        wait_until(
            "a write after the leader's death", lambda: ledger.write(cluster.url, "/next", b"x") == "acknowledged"
        )
        during = fetch(cluster.url, "/large")
        assert during.status == 404, str(during)
        body.go_on.set()
        thread.join(timeout=120)
        assert not thread.is_alive(), "the upload hangs"
        print(f"the upload whose leader died was answered: {said}")
        after = fetch(cluster.url, "/large")
        whole = after.status == 200 and after.sha256 == sha256(data)
        print(f"left by it: {_left_behind(cluster)}")
        assert whole if said[0] == "acknowledged" else whole or after.status == 404, f"{said}, then {after}"
        wait_until("the upload anew", lambda: ledger.write(cluster.url, "/large", data) == "acknowledged")
        cluster.start(dead)
        wait_until("the abandoned upload to be gone everywhere", lambda: not any(_left_behind(cluster).values()))
        settle(cluster)
        _check_everywhere(cluster, ledger)
        _check_own_disk(cluster, dead, ledger)


def _left_behind(cluster: LocalCluster) -> dict[str, int]:
    """Records of unfinished uploads, chunk files that nothing refers to, temporary files: by node."""
    dirs = {node: cluster.data_dir(node) for node in cluster.nodes}
    return {node: open_uploads(path) + len(orphans(path)) + len(leftovers(path)) for node, path in dirs.items()}


def test_the_library_uploads_through_the_death_of_the_leader(tmp_path: Path) -> None:
    source = tmp_path / "source"
    data = random.randbytes(64 * MIB)
    source.write_bytes(data)
    with running(**CRASH_OPTIONS) as cluster, cluster.client() as client:
        dead: list[str] = []

        def kill_half_way(progress: Progress) -> None:
            if not dead and progress.done_bytes > len(data) // 2:
                dead.append(cluster.leader())
                cluster.kill(dead[0])

        client.put(source, "/large", progress=kill_half_way)
        print(f"killed {dead} in the middle; the library's put came back without an error")
        assert dead
        cluster.start(dead[0])
        settle(cluster)
        for url in cluster.node_urls.values():
            assert fetch(url, "/large").sha256 == sha256(data)
