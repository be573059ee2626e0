"""Full disks: a clear error, nothing half visible, and a cluster that keeps serving.

Needs the right to mount a small tmpfs; where that is missing the tests are skipped, and say so.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftfs.testing import LocalCluster

from .clusters import CALM, running, settle, wait_until
from .ledger import Ledger, fetcher
from .machine import MIB, Footprint
from .web import Answer, ask, fetch, get, put, sha256

DISK_BYTES = 160 * MIB


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Path]:
    """A directory for a cluster whose nodes n1 to n3 have a small disk each."""
    mounted: list[Path] = []
    try:
        for node in ("n1", "n2", "n3"):
            target = tmp_path / "cluster" / node / "data"
            target.mkdir(parents=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(target)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"NOT SHOWN: full disks; this user may not mount a tmpfs: {done.stderr.strip()}")
            mounted.append(target)
        yield tmp_path / "cluster"
    finally:
        for target in mounted:
            subprocess.run(["umount", str(target)], check=True)


def _fill(cluster: LocalCluster, node: str, free_bytes: int) -> Path:
    """Take all but ``free_bytes`` of a node's disk; the file to remove to give it back."""
    ballast = cluster.data_dir(node) / "ballast"
    free = int(subprocess.check_output(["df", "-B1", "--output=avail", str(ballast.parent)]).split()[-1])
    with ballast.open("wb") as file:
        for _ in range((free - free_bytes) // MIB):
            file.write(bytes(MIB))
    return ballast


def _serves(cluster: LocalCluster) -> None:
    data = random.randbytes(1000)
    wait_until("a small write", lambda: put(cluster.url, "/small", data).status in (200, 201))
    for url in [cluster.url, *cluster.node_urls.values()]:
        assert get(url, "/small").body == data


def _is_ready(cluster: LocalCluster, node: str) -> bool:
    try:
        return ask(cluster.node_urls[node], "GET", "/readyz", timeout_s=5).status == 200
    except OSError:
        return False


def _bring_back(cluster: LocalCluster, node: str) -> bool:
    """As a service manager does: start it again whenever it has ended."""
    if cluster.process(node) is None:
        cluster.start(node, wait=False)
    return _is_ready(cluster, node)


def _too_large(cluster: LocalCluster) -> None:
    """An election in the middle of the upload is a lawful reason to refuse it, too; then it is tried again."""
    data = os.urandom(DISK_BYTES * 3 // 2)
    for _ in range(5):
        answer = put(cluster.url, "/too-large", data)
        _refused(answer)
        if answer.status == 507:
            assert answer.code == "storage_full"
            return
    raise AssertionError("the disks are full and nobody says so")


def _refused(answer: Answer) -> None:
    print(f"the upload that did not fit: {answer}")
    assert answer.status in (503, 507)
    assert answer.outcome == "not_applied"


def test_an_upload_that_fits_on_no_disk(disks: Path) -> None:
    with running(dir=disks, chunk_grace_s=2.0, upload_expiry_s=5.0) as cluster:
        _serves(cluster)
        before = Footprint.of(cluster)
        _too_large(cluster)
        for url in [cluster.url, *cluster.node_urls.values()]:
            assert get(url, "/too-large").status == 404
        _serves(cluster)
        wait_until("the room to be free again", lambda: Footprint.of(cluster).chunks == before.chunks)
        data = random.randbytes(40 * MIB)
        wait_until("an upload", lambda: put(cluster.url, "/fits", data).status in (200, 201))
        settle(cluster)
        assert fetch(cluster.url, "/fits").sha256 == sha256(data)


def test_a_follower_whose_disk_is_full_does_not_matter(disks: Path) -> None:
    data = random.randbytes(24 * MIB)
    with running(dir=disks, **CALM) as cluster:
        _serves(cluster)
        leader = cluster.leader()
        full = next(node for node in cluster.nodes if node != leader)
        ballast = _fill(cluster, full, 6 * MIB)
        answer = put(cluster.url, "/large", data)
        assert answer.status == 201, str(answer)
        _serves(cluster)
        for url in [cluster.url, *cluster.node_urls.values()]:
            assert fetch(url, "/large").sha256 == sha256(data)
        ballast.unlink()
        settle(cluster)


def test_a_leader_whose_disk_is_full_says_so_and_serves_on(disks: Path) -> None:
    data = random.randbytes(24 * MIB)
    with running(dir=disks, chunk_grace_s=2.0, upload_expiry_s=5.0) as cluster:
        _serves(cluster)
        ballast = _fill(cluster, cluster.leader(), 6 * MIB)
        answer = put(cluster.url, "/large", data)
        print(f"upload to a leader with 6 MiB left: {answer}")
        if answer.status not in (200, 201):
            _refused(answer)
            assert get(cluster.url, "/large").status == 404
        _serves(cluster)
        ballast.unlink()
        wait_until("an upload", lambda: put(cluster.url, "/large", data).status in (200, 201))
        settle(cluster)
        assert fetch(cluster.url, "/large").sha256 == sha256(data)


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_node_without_room_for_the_log_itself(disks: Path, role: str) -> None:
    """A follower's full disk must not be noticed at all. A leader refuses writes, clearly, until another one leads."""
    attempts = 60
    with running(dir=disks) as cluster:
        _serves(cluster)
        leader = cluster.leader()
        full = leader if role == "leader" else next(node for node in cluster.nodes if node != leader)
        ballast = _fill(cluster, full, MIB)
        ledger, dice = Ledger(), random.Random(role)
        for number in range(attempts):
            ledger.write(cluster.url, f"/f{number}", dice.randbytes(30_000))
        print(f"{full}, the {role}, has no room: {ledger}; its last words: {cluster.log_tail(full, 1)}")
        if role == "follower":
            assert ledger.acknowledged == attempts
        else:
            wait_until("another leader", lambda: cluster.leader() != full)
            assert ledger.write(cluster.url, "/with-another-leader", b"x") == "acknowledged"
        ballast.unlink()
        wait_until("the node to serve again", lambda: _bring_back(cluster, full))
        wait_until("a write", lambda: ledger.write(cluster.url, "/after", b"after") == "acknowledged")
        settle(cluster)
        for url in [cluster.url, *cluster.node_urls.values()]:
            complaints = ledger.check(fetcher(url))
            assert not complaints, complaints
