"""LocalCluster with real servers: start, kill, freeze, restart, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftfs.errors import ConfigError
from raftfs.testing import ClusterError, LocalCluster
from raftfs.testing.ports import free_block
from raftfs.testing.processes import Process, raftfs_environment

pytestmark = pytest.mark.system

SERVERS = ["n1", "n2", "n3", "frontend"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=3) as cluster:
        yield cluster


def _put(cluster: LocalCluster, path: str, data: bytes) -> None:
    with cluster.client() as client:
        client.write(path, data)


def _processes(cluster: LocalCluster, names: list[str]) -> list[Process]:
    found = [process for name in names if (process := cluster.process(name))]
    assert len(found) == len(names)
    return found


def _wait_gone(processes: list[Process]) -> None:
    while any(process.alive for process in processes):
        time.sleep(0.05)


def test_status_says_what_runs_where(cluster: LocalCluster) -> None:
    leader = cluster.leader()
    status = cluster.status()
    assert status["frontend"] == {"url": cluster.url, "pid": cluster.pid("frontend")}
    assert [node["id"] for node in status["nodes"]] == ["n1", "n2", "n3"]
    assert {node["id"]: node["role"] for node in status["nodes"]}[leader] == "leader"
    assert sorted(node["role"] for node in status["nodes"]) == ["follower", "follower", "leader"]
    for node in status["nodes"]:
        assert node["url"] == cluster.node_urls[node["id"]]
        assert Path(node["data_dir"]).is_dir()
        assert cluster.rss_bytes(node["id"]) > 10 * 1024 * 1024


def test_a_killed_leader_is_replaced_and_comes_back(cluster: LocalCluster) -> None:
    _put(cluster, "/before", b"1")
    former = cluster.leader()
    cluster.kill(former)
    assert cluster.pid(former) is None
    assert {node["id"]: node["role"] for node in cluster.status()["nodes"]}[former] is None
    assert cluster.leader() != former
    _put(cluster, "/after", b"2")
    cluster.start(former)
    with cluster.client(cluster.node_urls[former]) as client:
        assert client.read("/before") + client.read("/after") == b"12"


def test_a_frozen_server_answers_nothing_until_it_goes_on(cluster: LocalCluster) -> None:
    follower = next(node for node in cluster.nodes if node != cluster.leader())
    cluster.pause(follower)
    try:
        assert cluster.pid(follower) is not None
        assert {node["id"]: node["role"] for node in cluster.status()["nodes"]}[follower] is None
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(cluster.node_urls[follower] + "/livez", timeout=0.3)
        cluster.wait_ready()
    finally:
        cluster.resume(follower)
    cluster.wait_ready(follower)


def test_the_frontend_stops_and_starts_too(cluster: LocalCluster) -> None:
    cluster.stop("frontend")
    assert cluster.pid("frontend") is None
    with pytest.raises(ClusterError, match="frontend does not run"):
        cluster.kill("frontend")
    cluster.start("frontend")
    cluster.start("frontend")
    _put(cluster, "/through-the-new-frontend", b"x")


def test_another_process_operates_the_same_cluster(cluster: LocalCluster) -> None:
    """What is on disk is enough; the handle that did not start a server kills and starts it all the same."""
    other = LocalCluster.open(cluster.dir)
    follower = next(node for node in cluster.nodes if node != cluster.leader())
    other.kill(follower)
    assert cluster.pid(follower) is None
    other.start(follower)
    assert cluster.pid(follower) == other.pid(follower) is not None


def test_unknown_names_are_refused(cluster: LocalCluster) -> None:
    for call in (cluster.kill, cluster.start, cluster.stop, cluster.pause, cluster.rss_bytes, cluster.pid):
        with pytest.raises(ConfigError, match="n1, n2, n3, frontend"):
            call("n9")


def test_a_port_that_is_taken_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    port = free_block()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port + 2))
        taken.listen()
        cluster = LocalCluster(nodes=3, dir=tmp_path, port=port)
        with pytest.raises(ConfigError, match=f"port {port + 2}, meant for n2"), cluster:
            pytest.fail("started on a taken port")
    assert all(cluster.process(name) is None for name in SERVERS)


def test_a_server_that_dies_while_starting_shows_the_end_of_its_log(tmp_path: Path) -> None:
    cluster = LocalCluster(nodes=1, dir=tmp_path)
    cluster.data_dir("n1").parent.mkdir(parents=True)
    cluster.data_dir("n1").write_text("a file where the directory should be")
    with pytest.raises(ClusterError, match=r"n1 ended while starting(.|\n)*data"), cluster:
        pytest.fail("started without a data directory")
    assert cluster.process("frontend") is None


def test_data_survive_a_stop_of_everything(tmp_path: Path) -> None:
    with LocalCluster(nodes=3, dir=tmp_path / "c") as cluster:
        _put(cluster, "/kept", b"kept")
        processes = _processes(cluster, SERVERS)
    assert not any(process.alive for process in processes)
    with LocalCluster(dir=tmp_path / "c") as again, again.client() as client:
        assert again.nodes == ["n1", "n2", "n3"]
        assert client.read("/kept") == b"kept"


def test_a_temporary_directory_is_removed() -> None:
    with LocalCluster(nodes=1) as cluster:
        assert cluster.dir.is_dir()
    assert not cluster.dir.exists()


ORPHANS = """
import os, signal, sys
from raftfs.testing import LocalCluster
cluster = LocalCluster(nodes=3, dir=sys.argv[1])
cluster.up()
cluster.pause("n2")
print("up", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_servers_end_with_the_program_that_started_them_however_it_dies(tmp_path: Path) -> None:
    """SIGKILL of the program, with one of its servers frozen."""
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS, str(tmp_path)], env=raftfs_environment(), capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b"up\n"
    left = [Process.load(tmp_path / name / "pid") for name in SERVERS]
    _wait_gone([process for process in left if process])


def test_detached_servers_go_on_without_their_program(tmp_path: Path) -> None:
    code = "import sys; from raftfs.testing import LocalCluster; LocalCluster(1, sys.argv[1], detach=True).up()"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=raftfs_environment(), check=True)
    cluster = LocalCluster.open(tmp_path)
    try:
        _put(cluster, "/a", b"a")
        assert os.getpgid(cluster.pid("n1") or 0) == cluster.pid("n1")
    finally:
        cluster.down()
    assert cluster.process("n1") is None
    assert cluster.process("frontend") is None
