"""The same with real processes, for a few damages: a node that refuses ends, names the file, and exits non-zero."""

from __future__ import annotations

import random
import secrets
import subprocess
import time

import pytest

from raftfs.testing import LocalCluster
from raftfs.testing.processes import raftfs_command, raftfs_environment
from raftfs_cli.exitcodes import DAMAGED
from tests.system.clusters import running, settle, wait_until
from tests.system.web import fetch, put, sha256

from .regions import Damage, all_damages

PARTS = [("journal/", "body", "flip"), ("node.json", "text", "flip"), ("chunks/", "middle", "flip")]
DATA = random.randbytes(5_000_000)
SMALL = {f"/small/{number}": random.randbytes(300) for number in range(40)}


def pick(cluster: LocalCluster, node: str, file: str, part: str, kind: str) -> Damage:
    found = [
        damage
        for damage in all_damages(cluster.data_dir(node), step=10**9)
        if damage.file.startswith(file) and (damage.part, damage.kind) == (part, kind)
    ]
    assert found, f"nothing to damage: {file}, {part}"
    return found[len(found) // 3]


def outcome(cluster: LocalCluster, node: str) -> str | None:
    """Its words if it ends by itself; None when it serves."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if cluster.process(node) is None:
            return cluster.log_tail(node, 3)
        try:
            if fetch(cluster.node_urls[node], "/large", "?consistency=stale").status == 200:
                return None
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{node} neither serves nor ends")


@pytest.mark.parametrize(("file", "part", "kind"), PARTS, ids=[f"{file} {part} {kind}" for file, part, kind in PARTS])
def test_a_damaged_node_refuses_or_comes_back_whole(file: str, part: str, kind: str) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    with running(journal_segment_bytes=8 * 1024, journal_segments_kept=3) as cluster:
        assert put(cluster.url, "/large", DATA).status == 201
        for path, data in SMALL.items():
            assert put(cluster.url, path + "?parents=true", data).status == 201
        settle(cluster)
        node = next(name for name in cluster.nodes if name != cluster.leader())
        cluster.kill(node)
        damage = pick(cluster, node, file, part, kind)
        damage.inflict(cluster.data_dir(node))
        cluster.start(node, wait=False)
        said = outcome(cluster, node)
        print(f"{damage}: {said or 'came back'}")
        if said is not None:
            assert str(cluster.data_dir(node) / damage.file.partition("/")[0]) in said
            again = [*raftfs_command(), "node", "run", "--config", str(cluster.data_dir(node).parent / "raftfs.toml")]
            ended = subprocess.run(again, env=raftfs_environment(), capture_output=True, text=True, timeout=60)
            assert ended.returncode == DAMAGED
            assert damage.file.partition("/")[0] in ended.stderr
            return
        wait_until("the node to serve", lambda: fetch(cluster.node_urls[node], "/large").sha256 == sha256(DATA))
        for path, data in SMALL.items():
            assert fetch(cluster.node_urls[node], path).sha256 == sha256(data), path
        settle(cluster)
