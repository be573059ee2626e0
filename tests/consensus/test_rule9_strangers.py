"""Rule 9: nothing is unpickled from the network or the disk, and nobody who is not a member is listened to."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysyncobj.tcp_connection
import pytest
from cryptography.fernet import Fernet
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.encryptor import getEncryptor

from raftfs.consensus import messages as m
from raftfs.consensus.guard import NO_OP
from raftfs.consensus.peers import Callbacks
from raftfs.limits import PEER_FRAME_BYTES_MAX
from raftfs.testing.ports import free_ports

from .guarded_cluster import GuardedMaker
from .plain_cluster import PlainMaker, type_byte
from .ports import free_address, peer_transport

TICKS_MAX = 1000  # of at most 10 ms each: how long a real node is driven before a test gives up
PASSWORD = "a password"


def test_plain_pysyncobj_takes_a_stranger_into_the_cluster_although_membership_is_fixed(plain: PlainMaker) -> None:
    cluster = plain(dynamicMembershipChange=False)
    cluster.elect("a")
    cluster.run(0.5)
    command = type_byte["membership"] + pickle.dumps(["add", "stranger:1"])
    cluster.inject("stranger:1", "a", {"type": "apply_command", "command": command})
    cluster.run(1.0)
    for name in "abc":
        assert "stranger:1" in {node.id for node in cluster.nodes[name].otherNodes}


def test_plain_pysyncobj_takes_entries_and_a_term_from_a_stranger(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    last, term, _ = cluster.log("b")[-1]
    message = {"type": "append_entries", "term": 10**6, "commit_index": last + 1}
    message |= {"prevLogIdx": last, "prevLogTerm": term, "entries": [(type_byte["no-op"], last + 1, 10**6)]}
    cluster.inject("stranger:1", "b", message)
    assert cluster.log("b")[-1] == (last + 1, 10**6, type_byte["no-op"])
    assert cluster.nodes["b"].raftCommitIndex == last + 1
    cluster.run(10.0)
    assert all(cluster.term(name) >= 10**6 for name in "abc")


class Store(SyncObj):
    def __init__(self, address: str, conf: SyncObjConf) -> None:
        super().__init__(address, [], conf=conf)
        self.items: list[Any] = []

    @replicated
    def put(self, value: Any) -> None:
        self.items.append(value)


class Server:
    """A cluster of one, plain, on a real port of the loopback, and a client that speaks its frames."""

    def __init__(self, **configuration: Any) -> None:
        (port,) = free_ports(1)
        conf = SyncObjConf(
            autoTick=False, raftMinTimeout=0.05, raftMaxTimeout=0.06, appendEntriesPeriod=0.01, **configuration
        )
        self.node = Store(f"127.0.0.1:{port}", conf)
        self.client = socket.create_connection(("127.0.0.1", port))
        self.client.settimeout(0)
        self.fernet: Fernet | None = None
        self.keys: tuple[bytes, ...] = ()
        self.received = b""

    def close(self) -> None:
        self.client.close()
        self.node.destroy()

    def frame(self, message: Any, *, raw: bool = False) -> bytes:
        data = message if raw else zlib.compress(pickle.dumps((*self.keys, message) if self.keys else message))
        if self.fernet is not None:
            data = self.fernet.encrypt(data)
        return struct.pack("i", len(data)) + data

    def read(self) -> Any:
        """The next message from the server."""
        while len(self.received) < 4 or len(self.received) < 4 + struct.unpack("i", self.received[:4])[0]:
            assert self.until(self._receive), "the server sent nothing"
        size = 4 + struct.unpack("i", self.received[:4])[0]
        data, self.received = self.received[4:size], self.received[size:]
        if self.fernet is not None:
            data = self.fernet.decrypt(data)
        return pickle.loads(zlib.decompress(data))

    def _receive(self) -> bool:
        try:
            part = self.client.recv(1 << 16)
        except BlockingIOError:
            return False
        self.received += part
        return True

    def until(self, condition: Any) -> bool:
        for _ in range(TICKS_MAX):
            self.node.doTick(0.01)
            if condition():
                return True
        return False


@pytest.fixture
def servers() -> Iterator[Any]:
    made: list[Server] = []

    def make(**configuration: Any) -> Server:
        made.append(Server(**configuration))
        return made[-1]

    yield make
    for server in made:
        server.close()


class Touch:
    """Unpickled, it runs code: here, the making of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_plain_pysyncobj_runs_the_code_in_one_frame_of_a_stranger(servers: Any, tmp_path: Path) -> None:
    server = servers()
    proof = tmp_path / "made by the server"
    server.client.sendall(server.frame(Touch(proof)))
    assert server.until(proof.exists)


def test_plain_pysyncobj_listens_on_every_address_of_the_machine(servers: Any) -> None:
    server = servers()  # its own address is 127.0.0.1
    listener = server.node._SyncObj__transport._server._TcpServer__socket
    assert listener.getsockname()[0] == "0.0.0.0"


def test_plain_pysyncobj_sends_every_entry_to_a_stranger(servers: Any) -> None:
    server = servers()
    assert server.until(server.node.isReady)
    server.client.sendall(server.frame("readonly"))
    assert server.until(lambda: server.node.readonlyNodes)
    server.node.put("a secret")
    for _ in range(100):
        if any(b"a secret" in entry[0] for entry in server.read().get("entries", ())):
            break
    else:
        pytest.fail("the secret was not sent")


def test_plain_pysyncobj_inflates_a_small_frame_without_a_limit(servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inflated: list[int] = []
    original = zlib.decompress

    def decompress(data: bytes) -> bytes:
        result = original(data)
        inflated.append(len(result))
        return result

    server = servers()
    monkeypatch.setattr(pysyncobj.tcp_connection.zlib, "decompress", decompress)
    bomb = zlib.compress(bytes(32 * 1024 * 1024), 9)
    server.client.sendall(server.frame(bomb, raw=True))
    assert server.until(lambda: inflated)
    assert inflated[0] > 1000 * len(bomb)


def test_plain_pysyncobj_derives_the_same_key_wherever_a_password_is_used() -> None:
    """The salt is a constant of the library, so one table of passwords opens every cluster."""
    secret = getEncryptor(PASSWORD).encrypt(b"of one cluster")
    assert getEncryptor(PASSWORD).decrypt(secret) == b"of one cluster"


def test_plain_pysyncobj_with_a_password_accepts_what_an_attacker_recorded_and_sends_again(servers: Any) -> None:
    server = servers(password=PASSWORD)
    assert server.until(server.node.isReady)
    server.fernet = getEncryptor(PASSWORD)
    server.client.sendall(server.frame(b"the client's random key"))
    client_key, server_key = server.read()
    assert client_key == b"the client's random key"
    server.keys = (server_key,)
    server.client.sendall(server.frame("readonly"))
    put = type_byte["regular"] + pickle.dumps((server.node._methodToID["put_v0"], ("recorded",)))
    recorded = server.frame({"type": "apply_command", "command": put})
    server.client.sendall(recorded)
    assert server.until(lambda: server.node.items == ["recorded"])
    server.client.sendall(5 * recorded)  # bytes alone: whoever sends them knows no key
    assert server.until(lambda: len(server.node.items) == 6)


async def test_raftfs_unpickles_and_inflates_nothing_and_closes_the_connection(tmp_path: Path) -> None:
    address = free_address()
    heard: list[Any] = []
    transport = peer_transport("a", {"a": address, "b": "127.0.0.1:1"})
    transport.on = Callbacks(message=lambda peer, message: heard.append(message))
    await transport.start()
    proof = tmp_path / "made by the server"
    pickled = pickle.dumps(Touch(proof))
    large = PEER_FRAME_BYTES_MAX + 1
    try:
        for body in (pickled, zlib.compress(pickled), zlib.compress(bytes(32 * 1024 * 1024)), b"", b"." * 2048):
            for length in (struct.pack(">I", len(body)), struct.pack("i", len(body)), struct.pack(">I", large)):
                reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rsplit(":", 1)[1]))
                writer.write(length + body)
                writer.write_eof()
                async with asyncio.timeout(20):
                    with contextlib.suppress(ConnectionResetError):
                        assert await reader.read() == b""
                writer.close()
    finally:
        await transport.stop()
    assert heard == []
    assert not proof.exists()


def test_raftfs_listens_on_the_address_that_it_is_given() -> None:
    async def listening() -> list[str]:
        address = free_address()
        transport = peer_transport("a", {"a": address})
        await transport.start()
        try:
            server = transport._server
            assert server is not None
            return [listener.getsockname()[0] for listener in server.sockets]
        finally:
            await transport.stop()

    assert asyncio.run(listening()) == ["127.0.0.1"]


@pytest.mark.parametrize("type_name", ["regular", "membership"])
def test_raftfs_takes_no_entry_that_pysyncobj_would_unpickle(guarded: GuardedMaker, type_name: str) -> None:
    """Not even from a member."""
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    before = cluster.log("b")
    entry = m.WireEntry(cluster.term("a"), type_byte[type_name] + pickle.dumps(["add", "stranger:1"]))
    message = m.Append(cluster.term("a"), 10**6, before[-1][0], before[-1][1], 0, [entry])
    with pytest.raises(m.ProtocolViolation):
        cluster.inject("a", "b", message)
    assert cluster.log("b") == before


def test_raftfs_takes_no_entry_from_the_future(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    last, term, _ = cluster.log("b")[-1]
    with pytest.raises(m.ProtocolViolation):
        cluster.inject("a", "b", m.Append(term, 10**6, last, term, 0, [m.WireEntry(10**6, NO_OP)]))
    assert cluster.term("b") == term
    assert cluster.log("b")[-1][0] == last


def test_raftfs_is_not_moved_by_what_an_attacker_recorded_and_sends_again(guarded: GuardedMaker) -> None:
    """On a connection without TLS; with it, nothing recorded is accepted at all."""
    cluster = guarded()
    network = cluster.network
    cluster.elect("a")
    cluster.run(0.5)
    write = cluster.put("a", "once")
    recorded = network.in_flight("a", "b")
    cluster.run(0.5)
    assert write.acknowledged
    before = cluster.log("b")
    for raw in 5 * recorded:
        cluster.inject("a", "b", m.decode(raw))
    cluster.run(0.5)
    assert cluster.log("b") == before
    assert cluster.values("b") == ["once"]
