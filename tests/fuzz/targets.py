"""What is fuzzed, each with its oracle: a context manager that gives a function from bytes to nothing. The function
raises AssertionError if the parser did something that it must not do. Each takes the parser, so that a broken one can
be handed in."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import Any

import msgspec

from raftfs.chunks import DIGEST_BYTES, ChunkStore, hash_chunk
from raftfs.client import answers
from raftfs.config import NodeConfig
from raftfs.consensus import Configuration, MemberRecord, PeerTransport, Roster, frames, our_versions, rpc
from raftfs.consensus import messages as m
from raftfs.consensus.compatibility import disagreement
from raftfs.consensus.guard import Guard, SafetyViolation
from raftfs.consensus.peers import Hello, Welcome
from raftfs.decoding import UNDECODABLE
from raftfs.errors import InvalidRequest, RaftfsError
from raftfs.models import ClusterStatus, Entry, EntryList
from raftfs.service import Service
from raftfs.state import Reader, StateMachine
from raftfs.state.commands import encode
from raftfs.testing.fakes import FakeConsensus, FakeLog, FakeNetwork, FakeTransport, ManualClock
from raftfs.versions import FORMAT_VERSION
from tests.consensus.guarded_cluster import GuardedCluster
from tests.consensus.plain_cluster import virtual_engine
from tests.consensus.ports import free_address

from . import files
from .place import Check, folder_in_memory
from .seeds import KEPT_CHUNK

Target = Callable[..., AbstractContextManager[Check]]


# --- the peer port -------------------------------------------------------------------------------------------------


class _Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


FRAME_BYTES_MAX = 2000


@contextmanager
def frames_(connection: type[frames.Connection] = frames.Connection) -> Iterator[Check]:
    """Frames come out as they went in, however the stream is cut into pieces; one too long ends it."""

    def expected(data: bytes) -> tuple[list[bytes], bool]:
        found = []
        while len(data) >= 4:
            (length,) = struct.unpack_from(">I", data)
            if length > FRAME_BYTES_MAX:
                return found, True
            if len(data) < 4 + length:
                break
            found.append(data[4 : 4 + length])
            data = data[4 + length :]
        return found, False

    def check(data: bytes) -> None:
        got: list[bytes] = []
        wire, dice = _Wire(), random.Random(data)
        under_test = connection(
            frame_bytes_max=FRAME_BYTES_MAX, on_frame=lambda _, frame: got.append(frame), on_lost=lambda _: None
        )
        under_test.connection_made(wire)
        rest = data
        while rest and not wire.closed:
            size = dice.choice((1, 3, 7, 64, 5000))
            under_test.data_received(rest[:size])
            rest = rest[size:]
        assert (got, wire.closed) == expected(data)

    yield check


@contextmanager
def greetings(transport: type[PeerTransport] = PeerTransport) -> Iterator[Check]:
    """Whoever does not say who it is, as a member of this cluster, is not welcomed and not heard; the next one is."""
    address = free_address()
    records = (MemberRecord("a", address, "", "ua"), MemberRecord("b", "127.0.0.1:1", "", "ub"))
    under_test = transport(
        roster=Roster(me="a", uuid="ua", configuration=Configuration(records), index=5), cluster_id="c", listen=address
    )

    def may_come(data: bytes) -> bool:
        try:
            hello = msgspec.msgpack.decode(data, type=Hello)
        except UNDECODABLE:
            return False
        who = (hello.cluster_id, hello.receiver, hello.sender, hello.uuid)
        return who == ("c", "a", "b", "ub") and disagreement("a", our_versions(), "b", hello.versions) is None

    async def greet(data: bytes) -> Welcome | None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        try:
            writer.write(struct.pack(">I", len(data)) + data)
            async with asyncio.timeout(20):
                (length,) = struct.unpack(">I", await reader.readexactly(4))
                return msgspec.msgpack.decode(await reader.readexactly(length), type=Welcome)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        finally:
            writer.close()

    async def check(data: bytes) -> None:
        welcome = await greet(data)
        welcomed = welcome is not None and welcome.refused is None
        assert welcomed == may_come(data), welcome
        good = Hello("c", "b", "a", "raft", our_versions(), "ub", False)
        answer = await greet(msgspec.msgpack.encode(good))
        assert answer is not None
        assert answer.refused is None

    with asyncio.Runner() as runner:
        runner.run(under_test.start())
        try:
            yield lambda data: runner.run(check(data))
        finally:
            runner.run(under_test.stop())


@contextmanager
def bulk(
    client: type[rpc.BulkClient] = rpc.BulkClient, server: type[rpc.BulkServer] = rpc.BulkServer
) -> Iterator[Check]:
    """A request or an answer that is none ends its connection, and nothing else happens."""

    async def run(data: bytes) -> None:
        answering, wires = server(), [_Wire(), _Wire()]
        ends = [
            frames.Connection(frame_bytes_max=10**6, on_frame=lambda *_: None, on_lost=lambda _: None) for _ in wires
        ]
        for end, wire in zip(ends, wires, strict=True):
            end.connection_made(wire)
        asking = client("n2", ends[0])
        request = asyncio.create_task(asking.request("echo", [b"x"], timeout_s=5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answering.frame(ends[1], "n2", data)
        ends[0].on_frame(ends[0], data)
        asking.close()
        await asyncio.gather(request, return_exceptions=True)
        error = request.exception()
        assert error is None or isinstance(error, RaftfsError), repr(error)
        await answering.close()

    with asyncio.Runner() as runner:
        yield lambda data: runner.run(run(data))


@contextmanager
def handlers(store: type[ChunkStore] = ChunkStore) -> Iterator[Check]:
    """What a member asks in bulk is answered or refused; the first byte says which question it is. No chunk is taken
    or given under the digest of another."""
    with folder_in_memory() as folder, asyncio.Runner() as runner:
        network = FakeNetwork(["n1"])
        machine = StateMachine(folder / "state.db", version=FORMAT_VERSION)
        transport = FakeTransport(network, "n1")
        members = [{"id": "n1", "peer": "127.0.0.1:7411", "url": "http://127.0.0.1:7401"}]
        service = Service(
            config=NodeConfig(id="n1", cluster_id="c", data_dir=folder, members=members),  # type: ignore[arg-type]
            consensus=FakeConsensus(FakeLog(network, {"n1": machine}, "n1"), "n1", ManualClock()),
            transport=transport,
            chunks=store(folder / "chunks"),
            open_reader=lambda: Reader(folder / "state.db"),
            clock=ManualClock(),
        )
        service.replicas.store.put(hash_chunk(KEPT_CHUNK), KEPT_CHUNK)
        kinds = ["chunk.get", "chunk.put", "chunk.have", "snapshot.read"]

        async def run(data: bytes) -> None:
            if not data:
                return
            kind = kinds[data[0] % len(kinds)]
            with suppress(RaftfsError):
                answer = await network.handlers["n1", kind]("n2", data[1:])
                if kind == "chunk.put":
                    assert hash_chunk(data[1 + DIGEST_BYTES :]) == data[1 : 1 + DIGEST_BYTES], "another chunk is taken"
                elif kind == "chunk.get":
                    assert answer in (b"", KEPT_CHUNK), "another chunk is given"

        try:
            yield lambda data: runner.run(run(data))
        finally:
            runner.run(service.stop())
            machine.close()


@contextmanager
def messages(guard: type[Guard] = Guard) -> Iterator[Check]:
    """A message of a member, whatever it says, changes nothing that is committed; it is refused as a violation of the
    protocol, or lets the node stop for safety. The first byte says from whom to whom."""
    with folder_in_memory() as folder, virtual_engine() as clock:
        made: list[GuardedCluster] = []
        numbers = itertools.count()

        def fresh() -> GuardedCluster:
            if made:
                made.pop().close()
            path = folder / str(next(numbers))
            path.mkdir()
            made.append(GuardedCluster("abc", clock, path, guard=guard))
            made[0].elect("a")
            for number in range(3):
                made[0].put("a", f"value {number}")
            made[0].run(0.3)
            return made[0]

        fresh()

        def check(data: bytes) -> None:
            try:
                message = m.decode(data[1:])
            except UNDECODABLE:
                return
            cluster = made[0]
            source, target = ("ab", "ba", "ca", "cb", "bc", "ac")[data[0] % 6]
            before = {name: (cluster.term(name), _committed(cluster, name)) for name in cluster.names}
            try:
                cluster.inject(source, target, message)
                cluster.tick(target)
                cluster.network.drain()
            except m.ProtocolViolation:
                pass
            except SafetyViolation:
                cluster = fresh()
                return
            for name, (term, committed) in before.items():
                assert cluster.term(name) >= term, f"{name} went back to term {cluster.term(name)}"
                assert _committed(cluster, name)[: len(committed)] == committed, f"{name} lost what was committed"
            if not cluster.is_leader("a"):
                fresh()  # a message of a newer term ended it; what comes next is to meet a leader again

        yield check
        made.pop().close()


def _committed(cluster: GuardedCluster, name: str) -> list[Any]:
    """The log up to the commit index."""
    return cluster.log(name)[: cluster.nodes[name].engine.commit_index]


# --- the state -----------------------------------------------------------------------------------------------------


@contextmanager
def commands(machine: type[StateMachine] = StateMachine) -> Iterator[Check]:
    """Whatever is in an entry, applying it gives a result, the same on two nodes, and a state that can be read."""
    with folder_in_memory() as folder:
        pair = [machine(folder / name, version=FORMAT_VERSION) for name in ("one.db", "two.db")]
        reader = Reader(folder / "one.db")

        def check(data: bytes) -> None:
            index = pair[0].applied_index + 1
            results = [one.apply(index, 1, [data]) for one in pair]
            assert results[0] == results[1]
            encode(results[0][0])
            assert pair[0].state_hash == pair[1].state_hash
            reader.list("/", limit=100, recursive=True)

        yield check
        reader.close()
        for one in pair:
            one.close()


@contextmanager
def cursors(list_page: Callable[..., Any] = Reader.list) -> Iterator[Check]:
    """A cursor continues its own list or is refused. The first byte says which list."""
    with folder_in_memory() as folder:
        machine = StateMachine(folder / "state.db", version=FORMAT_VERSION)
        from .seeds import FURNITURE

        for index, entry in enumerate(FURNITURE, 1):
            machine.apply(index, 1, [entry])
        with closing(Reader(folder / "state.db")) as reader:

            def check(data: bytes) -> None:
                text = base64.urlsafe_b64encode(data[2:]).decode().rstrip("=")
                if data[:1] > b"\x80":
                    text = data[2:].decode("latin-1")
                recursive = data[1:2] > b"\x80"
                try:
                    page = list_page(reader, "/", limit=3, cursor=text, recursive=recursive)
                except InvalidRequest:
                    return
                paths = [entry.path for entry in page.entries]
                assert all(reader.stat(path) is not None for path in paths)
                assert len(set(paths)) == len(paths) <= 3

            yield check
        machine.close()


# --- the client ----------------------------------------------------------------------------------------------------


@contextmanager
def bodies(
    parse: Callable[..., Any] = answers.parse, error_of: Callable[..., Any] = answers.error_of
) -> Iterator[Check]:
    """A body that a server sent becomes a model or one of our errors. The first byte is a status."""

    def check(data: bytes) -> None:
        for model in (Entry, EntryList, ClusterStatus):
            with suppress(RaftfsError):
                assert isinstance(parse(model, data[2:], "http://server"), model)
        status = 300 + (data[0] if data else 0)
        value = data[2:40].decode("latin-1")
        headers = {"Raftfs-Error": value, "Retry-After": value, "Content-Type": "text/plain"}
        assert isinstance(error_of(status, headers, data[2:], "http://server"), RaftfsError)

    yield check


TARGETS: dict[str, Target] = {
    "frames": frames_,
    "greetings": greetings,
    "bulk": bulk,
    "handlers": handlers,
    "messages": messages,
    "journal": files.journal,
    "term": files.term_file,
    "identity": files.identity,
    "rejoin": files.rejoin,
    "recovery": files.recovery,
    "snapshot": files.snapshot,
    "commands": commands,
    "cursors": cursors,
    "bodies": bodies,
}
