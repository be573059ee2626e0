"""A cluster of real processes that speaks TLS everywhere: attacked, and its certificates replaced while it works."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from raftfs import certificates, errors
from raftfs.client import Client
from raftfs.testing import LocalCluster
from tests.system.clusters import running, wait_until

from .authority import attacker, forge, issued
from .greeting import greet, greeting

pytestmark = pytest.mark.system

MIB = 1024 * 1024
BODY_BYTES = 192 * MIB
MEMORY_GROWTH_BYTES_MAX = 160 * MIB
"""What uploads and downloads together may hold (128 and 96 MiB by their limits, never both full here), and some air;
a body that is held whole, in one place or two, goes beyond it."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with running(tmp_path_factory.mktemp("cluster"), tls=True) as cluster:
        yield cluster


def ca_of(cluster: LocalCluster) -> Path:
    assert cluster.ca is not None
    return cluster.ca.parent


def identity(cluster: LocalCluster, node: str) -> tuple[str, str]:
    """Cluster and UUID, as a thief of a data directory, but not of a certificate, would know them."""
    values = json.loads((cluster.data_dir(node) / "node.json").read_text())
    return values["cluster_id"], values["uuid"]


def test_attacks_on_a_running_members_peer_port(cluster: LocalCluster, tmp_path: Path) -> None:
    ca = ca_of(cluster)
    cluster_id, uuid = identity(cluster, "n2")
    hello = greeting(cluster_id, "n2", "n1", uuid=uuid)
    before = [cluster.pid(name) for name in cluster.nodes]
    outcomes = {
        "plain TCP": None,
        "no certificate": attacker(),
        "another CA": attacker(issued(tmp_path / "other", "n2")),
        "expired": attacker(forge(ca, tmp_path / "expired", "n2", start_days=-2, end_days=-1)),
        "not yet valid": attacker(forge(ca, tmp_path / "early", "n2", start_days=1, end_days=2)),
        "a frontend's": attacker(issued(ca, "frontend")),
        "another member's": attacker(issued(ca, "n3")),
    }
    for attack, context in outcomes.items():
        said = greet(cluster.peer("n1"), hello, context)
        assert said.startswith(("closed", "handshake: ", "refused: the certificate does not name")), f"{attack}: {said}"
    assert greet(cluster.peer("n1"), hello, attacker(issued(ca, "n2"))) == "welcome", "the greeting itself is good"
    with cluster.client() as client:
        client.write("/after-the-attacks", b"x")
        assert client.read("/after-the-attacks") == b"x"
    assert [cluster.pid(name) for name in cluster.nodes] == before


def test_every_port_wants_tls(cluster: LocalCluster) -> None:
    for url in [cluster.url, *cluster.node_urls.values()]:
        with Client(url.replace("https", "http")) as client, pytest.raises(errors.TlsRequired):
            client.list_page("/")
        with Client(url) as client, pytest.raises(errors.NotTrusted):
            client.list_page("/")
        with Client(url, ca=cluster.ca) as client:
            client.list_page("/")


def test_large_files_go_through_without_being_held_in_memory(cluster: LocalCluster, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        for _ in range(BODY_BYTES // MIB):
            file.write(os.urandom(MIB))
    names = [*cluster.nodes, "frontend"]
    before = {name: cluster.rss_bytes(name) for name in names}
    peak = dict(before)
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            for name in names:
                peak[name] = max(peak[name], cluster.rss_bytes(name))

    with ThreadPoolExecutor(1) as pool, cluster.client() as client:
        looking = pool.submit(look)
        try:
            client.put(source, "/large")
            for url in [cluster.url, *cluster.node_urls.values()]:
                with cluster.client(url) as direct:
                    direct.get("/large", target)
                assert target.stat().st_size == BODY_BYTES
            assert target.read_bytes() == source.read_bytes()
        finally:
            done.set()
        looking.result()
    assert {
        name: peak[name] - before[name] for name in names if peak[name] - before[name] > MEMORY_GROWTH_BYTES_MAX
    } == {}


class Traffic:
    """Clients that write and read through every door, each on new connections again and again, and forgive nothing."""

    def __init__(self, cluster: LocalCluster, ca: Path) -> None:
        self._urls = [cluster.url, *cluster.node_urls.values()]
        self._ca = ca
        self._stop = threading.Event()
        self.done = 0
        self.failed: list[str] = []

    def run(self, number: int) -> None:
        for count in itertools.count():
            if self._stop.is_set():
                return
            url = self._urls[(number + count) % len(self._urls)]
            # One attempt for each call: whatever goes wrong is seen, and not mended by trying again.
            with Client(url, ca=self._ca, deadline_s=30.0, attempt_s=30.0) as client:
                data = f"{number} {count}".encode()
                try:
                    client.write(f"/traffic-{number}", data)
                    assert client.read(f"/traffic-{number}") == data
                    self.done += 1
                except Exception as error:
                    self.failed.append(f"{url}: {error!r}")

    @contextmanager
    def going_on(self, workers: int = 3) -> Iterator[Callable[[int], None]]:
        with ThreadPoolExecutor(workers) as pool:
            running = [pool.submit(self.run, number) for number in range(workers)]
            try:
                yield self._more
            finally:
                self._stop.set()
            for each in running:
                each.result()

    def _more(self, count: int) -> None:
        """Wait until so many more calls were done."""
        goal = self.done + count
        wait_until("more calls to be done", lambda: self.done >= goal or bool(self.failed))


def replace(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_bytes(data)
    new.replace(path)


def reload(cluster: LocalCluster) -> None:
    """SIGHUP to all, and wait until each has taken its files over."""
    names = [*cluster.nodes, "frontend"]
    count = {
        name: cluster.log_path(name).read_text().count("use the certificate files as they are now") for name in names
    }
    for name in names:
        cluster.kill(name, signal.SIGHUP)
    for name in names:
        wait_until(
            f"{name} to take its files over",
            lambda name=name: (  # type: ignore[misc]
                cluster.log_path(name).read_text().count("use the certificate files as they are now") >= count[name] + 2
            ),
        )


def test_ca_and_certificates_are_replaced_under_traffic_and_no_request_fails(tmp_path: Path) -> None:
    with running(tmp_path / "cluster", tls=True) as cluster:
        ca = ca_of(cluster)
        old, new, bundle = tmp_path / "old", tmp_path / "new", tmp_path / "bundle.crt"
        shutil.copytree(ca, old)
        certificates.make_ca(new, subject="the new CA")
        both = (old / "ca.crt").read_bytes() + (new / "ca.crt").read_bytes()
        bundle.write_bytes(both)
        traffic = Traffic(cluster, bundle)
        with Client(cluster.url, ca=bundle) as standing, traffic.going_on() as more:
            standing.write("/standing", b"x")
            more(30)
            replace(ca / "ca.crt", both)
            reload(cluster)
            more(30)
            for name in [*cluster.nodes, "frontend"]:
                files = issued(new, name)
                replace(ca / f"{name}.key", files.key.read_bytes())
                replace(ca / f"{name}.crt", files.cert.read_bytes())
            reload(cluster)
            more(30)
            replace(ca / "ca.crt", (new / "ca.crt").read_bytes())
            reload(cluster)
            more(30)
            assert standing.read("/standing") == b"x"
        assert traffic.failed == []
        for url in [cluster.url, *cluster.node_urls.values()]:
            with Client(url, ca=old / "ca.crt") as client, pytest.raises(errors.NotTrusted):
                client.list_page("/")
        cluster_id, uuid = identity(cluster, "n2")
        hello = greeting(cluster_id, "n2", "n1", uuid=uuid)
        assert greet(cluster.peer("n1"), hello, attacker(issued(old, "n2"))) == "handshake: TLSV1_ALERT_UNKNOWN_CA"
        # Peers find each other again with what they have now.
        victim = next(node for node in cluster.nodes if node != cluster.leader())
        cluster.stop(victim)
        cluster.start(victim)
        with cluster.client() as client:
            client.write("/at-the-end", b"x", ack="all")


def test_traffic_notices_a_rotation_in_the_wrong_order(tmp_path: Path) -> None:
    """A new certificate before anybody trusts its CA: the clients, and the test above with them, see it."""
    with running(tmp_path / "cluster", tls=True) as cluster:
        ca, new = ca_of(cluster), tmp_path / "new"
        traffic = Traffic(cluster, ca / "ca.crt")
        with traffic.going_on() as more:
            more(10)
            for name in cluster.nodes:
                files = issued(new, name)
                replace(ca / f"{name}.key", files.key.read_bytes())
                replace(ca / f"{name}.crt", files.cert.read_bytes())
            reload(cluster)
            wait_until("somebody to notice", lambda: bool(traffic.failed))
        assert "NotTrusted" in traffic.failed[0] or "Unavailable" in traffic.failed[0]


def test_a_removed_member_is_not_heard_any_more_although_its_certificate_is_good(tmp_path: Path) -> None:
    with running(tmp_path / "cluster", tls=True) as cluster:
        ca = ca_of(cluster)
        leader = cluster.leader()
        victim = next(node for node in cluster.nodes if node != leader)
        other = next(node for node in cluster.nodes if node not in (leader, victim))
        cluster_id, uuid = identity(cluster, victim)
        hello = greeting(cluster_id, victim, other, uuid=uuid)
        context = attacker(issued(ca, victim))
        assert greet(cluster.peer(other), hello, context) == "welcome"
        port = int(cluster.peer(victim).rsplit(":", 1)[1])
        assert established(cluster, other, port)
        with cluster.client() as client:
            client.cluster_remove(victim)
        wait_until("it to be heard no more", lambda: "is not a member" in greet(cluster.peer(other), hello, context))
        wait_until("its connections to end", lambda: not established(cluster, other, port))
        assert cluster.process(victim) is not None
        with cluster.client() as client:
            client.write("/without-it", b"x")


def established(cluster: LocalCluster, node: str, port: int) -> bool:
    """Whether a node has a connection to the peer port ``port``, by what the kernel says of its sockets."""
    process = cluster.process(node)
    assert process is not None
    sockets = set()
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(link))
        except FileNotFoundError:
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and row[3] == "01" and f"socket:[{row[9]}]" in sockets for row in rows)


def test_an_old_tls_is_not_spoken(cluster: LocalCluster) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context = attacker(version=ssl.TLSVersion.TLSv1_1)
    cluster_id, uuid = identity(cluster, "n2")
    assert greet(cluster.peer("n1"), greeting(cluster_id, "n2", "n1", uuid=uuid), context).startswith("handshake: ")
