"""Chunk files that are damaged or gone on one node: never served, fetched from a peer, whole again on disk."""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from raftfs.testing import LocalCluster

from .clusters import CALM, running, settle, wait_until
from .machine import MIB, check_chunks, chunk_files
from .web import fetch, put, sha256

DATA = random.randbytes(20 * MIB + 12_345)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], None]] = {"flipped": _flip, "cut": _cut, "empty": _empty, "deleted": Path.unlink}


def _is_whole(cluster: LocalCluster, node: str) -> bool:
    try:
        return check_chunks(cluster.data_dir(node)) > 0
    except AssertionError:
        return False


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_damage_on_one_disk_is_never_served_and_is_repaired(role: str) -> None:
    with running(**CALM) as cluster:
        assert put(cluster.url, "/f", DATA).status == 201
        settle(cluster)
        leader = cluster.leader()
        node = leader if role == "leader" else next(name for name in cluster.nodes if name != leader)
        for name, damage in DAMAGES.items():
            files = sorted(chunk_files(cluster.data_dir(node)).values())
            # It stands still meanwhile: what it began when it saw the damage before could mend this one, too.
            cluster.pause(node)
            for path in files:
                damage(path)
            assert not _is_whole(cluster, node)
            cluster.resume(node)
            answer = fetch(cluster.node_urls[node], "/f")
            assert (answer.status, answer.sha256) == (200, sha256(DATA)), str(answer)
            wait_until("the disk to be whole again", lambda: _is_whole(cluster, node))
            print(f"{len(files)} chunk files of {node}, a {role}: {name}, read right, repaired")
        settle(cluster)


def test_damage_before_a_restart_is_not_served_either() -> None:
    with running(**CALM) as cluster:
        assert put(cluster.url, "/f", DATA).status == 201
        settle(cluster)
        node = cluster.leader()
        cluster.stop(node)
        files = sorted(chunk_files(cluster.data_dir(node)).values())
        for damage, path in zip(DAMAGES.values(), files, strict=False):
            damage(path)
        cluster.start(node)
        assert fetch(cluster.node_urls[node], "/f").sha256 == sha256(DATA)
        wait_until("the disk to be whole again", lambda: _is_whole(cluster, node))
        settle(cluster)


def test_a_chunk_that_no_reachable_node_has_undamaged_is_an_error_and_not_a_short_file() -> None:
    with running(**CALM) as cluster:
        assert put(cluster.url, "/f", DATA).status == 201
        settle(cluster)
        victim = sorted(chunk_files(cluster.data_dir("n1")))[0]
        for node in cluster.nodes:
            _flip(chunk_files(cluster.data_dir(node))[victim])
        for name, url in {"frontend": cluster.url, **cluster.node_urls}.items():
            try:
                answer = fetch(url, "/f")
            except (OSError, http.client.HTTPException) as error:
                print(f"through {name}: {error!r}")
            else:
                assert answer.status in (500, 503), str(answer)
                print(f"through {name}: {answer}")


def test_a_node_that_was_down_during_an_upload_backfills() -> None:
    data = random.randbytes(100 * MIB)
    with running(**CALM) as cluster:
        leader = cluster.leader()
        away = next(node for node in cluster.nodes if node != leader)
        cluster.kill(away)
        answer = put(cluster.url, "/large", data)
        assert answer.status == 201, str(answer)
        cluster.start(away)
        settle(cluster)
        others = [node for node in cluster.nodes if node != away]
        for node in others:
            cluster.stop(node)
        alone = fetch(cluster.node_urls[away], "/large", "?consistency=stale")
        assert (alone.status, alone.sha256) == (200, sha256(data)), str(alone)
        print(f"{away} was away for {len(data) // MIB} MiB and serves them alone, from its own disk")
