"""The peer port: members dial each other, say who they are, and exchange Raft messages and bulk requests.

Every member keeps two connections to each other member: one for its own Raft messages, one for its bulk requests
(chunks, status) and their answers, so that a heartbeat never waits behind four megabytes. A connection begins with a
greeting that names cluster, sender, receiver and channel; with TLS the certificate must name the sender too. Whoever
is not a member of this cluster is refused before anything else that it sends is looked at. No pickle anywhere.
"""

from __future__ import annotations

import asyncio
import asyncio.trsock
import logging
import random
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from raftfs.config import split_address
from raftfs.consensus import messages as m
from raftfs.consensus.compatibility import Versions, disagreement, our_versions
from raftfs.consensus.frames import Connection
from raftfs.consensus.membership import Configuration
from raftfs.consensus.roster import Roster
from raftfs.consensus.rpc import BulkClient, BulkServer, Handler
from raftfs.decoding import UNDECODABLE
from raftfs.errors import Unavailable
from raftfs.limits import PEER_CONNECTIONS_MAX, PEER_FRAME_BYTES_MAX, PEER_HELLO_S_MAX, PEER_REFUSALS_NOTED_MAX
from raftfs.listener import TlsListener
from raftfs.tls import Contexts, explain

log = logging.getLogger(__name__)

Channel = Literal["raft", "bulk"]
_CHANNELS: Final[tuple[Channel, ...]] = ("raft", "bulk")
_HELLO_BYTES_MAX: Final = 1024
_WELCOME_BYTES_MAX: Final = 16 * 1024  # with up to MEMBERS_MAX members in it
_DIAL_S_MAX: Final = 1.0
_REDIAL_S_MIN: Final = 0.02
_REDIAL_S_MAX: Final = 0.5
_REFUSED_REDIAL_S: Final = 1.0
_KEEPALIVE_S: Final = 5
_UNACKED_MS_MAX: Final = 10_000  # TCP gives a connection up if nothing that was sent is acknowledged for this long


class Hello(msgspec.Struct, frozen=True):
    """First frame of a connection. Like its answer it is read by code of any age: what it does not know it skips, and
    what comes later has a default."""

    cluster_id: str
    sender: str
    receiver: str
    channel: Channel
    versions: Versions
    uuid: str = ""
    """of the sender's data directory"""
    fresh: bool = False
    """that directory holds nothing yet"""


class Welcome(msgspec.Struct, frozen=True):
    """Its answer; ``refused`` says why, None if the connection stands. ``configuration`` counts for who answers, from
    entry ``configuration_index`` of its log."""

    refused: str | None = None
    versions: Versions | None = None
    uuid: str = ""
    fresh: bool = False
    configuration_index: int = 0
    configuration: Configuration | None = None


@dataclass(slots=True)
class _Peer:
    """A member and our connections to it."""

    id: str
    address: tuple[str, int]
    uuid: str = ""
    """what the configuration binds its name to"""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    raft: Connection | None = None
    bulk: BulkClient | None = None
    refused: str | None = None
    incoming: dict[Channel, Connection] = field(default_factory=dict)
    """its newest connection to us for each channel"""


@dataclass(slots=True)
class Callbacks:
    """What the owner of the Raft channel wants to hear, on the loop."""

    message: Callable[[str, m.Message], None] = field(default=lambda _peer, _message: None)
    connected: Callable[[str], None] = field(default=lambda _peer: None)
    disconnected: Callable[[str], None] = field(default=lambda _peer: None)
    lost: Callable[[str], None] = field(default=lambda _peer: None)
    """the peer closed its connection to us: its process may have died"""


class PeerTransport:
    """``roster`` says who is talked to, ``listen`` (``host:port``) where. ``tls``: None for plain TCP.

    The client context must check host names; the server one must demand certificates; each handshake takes the ones of
    its moment. ``versions``: what this member says of itself in each greeting.
    """

    def __init__(
        self,
        *,
        roster: Roster,
        cluster_id: str,
        listen: str,
        tls: Contexts | None = None,
        versions: Callable[[], Versions] = our_versions,
    ) -> None:
        self._me = roster.me
        self._roster = roster
        self._versions = versions
        self._cluster_id = cluster_id
        self._listen = split_address(listen)
        self._tls = tls
        self._peers: dict[str, _Peer] = {}
        self._server: asyncio.Server | TlsListener | None = None
        self._incoming: set[Connection] = set()
        self._turned_away: dict[str, str] = {}
        """why each name's last greeting was refused here: those that came last, the newest of them at the end"""
        self._strangers: list[Connection] = []  # of these, those that have not greeted, oldest first
        self._ending: set[asyncio.Task[None]] = set()
        self._bulk = BulkServer()
        self.on = Callbacks()

    async def start(self) -> None:
        """Listen, and begin to dial. OSError if the address cannot be had."""
        host, port = self._listen
        if self._tls is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._accept, host, port, reuse_address=True)
        else:
            self._server = TlsListener("peer", self._tls, self._accept)
            await self._server.start(host, port)
        self._roster.on_change = self._follow
        self._follow()

    def _follow(self) -> None:
        """Talk to those whom the roster names, and to nobody else."""
        book = self._roster.book
        for peer in list(self._peers.values()):
            record = book.get(peer.id)
            if record is None or split_address(record.peer) != peer.address or peer.uuid not in ("", record.uuid):
                self._leave(peer)
            else:
                peer.uuid = record.uuid
        for record in book.values():
            if record.id not in self._peers:
                peer = self._peers[record.id] = _Peer(record.id, split_address(record.peer), record.uuid)
                peer.tasks = [
                    asyncio.create_task(self._keep_dialing(peer, channel), name=f"dial-{peer.id}-{channel}")
                    for channel in _CHANNELS
                ]

    def _leave(self, peer: _Peer) -> None:
        """It is no member any more, or has another data directory from now on."""
        del self._peers[peer.id]
        for task in peer.tasks:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        for connection in list(peer.incoming.values()):
            connection.abort()

    async def stop(self) -> None:
        """Close everything; requests under way fail with Unavailable."""
        self._roster.on_change = lambda: None
        for peer in list(self._peers.values()):
            for task in peer.tasks:
                task.cancel()
                self._ending.add(task)
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for connection in list(self._incoming):
            connection.abort()
        await self._bulk.close()
        if self._server is not None:
            await self._server.wait_closed()
        await asyncio.sleep(0)  # let the transports report that they are closed

    def connected(self, peer: str) -> bool:
        """Whether Raft messages can be sent to ``peer`` now."""
        found = self._peers.get(peer)
        return found is not None and found.raft is not None

    def refusal(self, peer: str) -> str | None:
        """Why ``peer`` refused our last greeting; None if it did not."""
        found = self._peers.get(peer)
        return None if found is None else found.refused

    def send(self, peer: str, message: m.Message) -> None:
        """Queue a Raft message; dropped if there is no connection. Never blocks."""
        found = self._peers.get(peer)
        if found is not None and found.raft is not None:
            found.raft.send(m.encode(message))

    def handle(self, kind: str, handler: Handler) -> None:
        """Answer bulk requests of ``kind`` with ``handler(peer, payload)``; a RaftfsError reaches the asker."""
        self._bulk.handlers[kind] = handler

    async def request(
        self, peer: str, kind: str, payload: bytes | Sequence[bytes | bytearray | memoryview], *, timeout_s: float
    ) -> bytes:
        """Ask a member. Raises Unavailable if it cannot be reached, gave no answer in time, or the connection broke;
        otherwise whatever its handler raised."""
        found = self._peers.get(peer)
        client = None if found is None else found.bulk
        if client is None:
            raise Unavailable(f"member {peer} is not connected")
        parts: list[bytes | bytearray | memoryview] = [payload] if isinstance(payload, bytes) else list(payload)
        return await client.request(kind, parts, timeout_s=timeout_s)

    # --- accepting -----------------------------------------------------------------------------------------------

    def _accept(self) -> Connection:
        connection = Connection(
            frame_bytes_max=_HELLO_BYTES_MAX,
            on_frame=self._greeted,
            on_lost=self._incoming_lost,
            on_made=self._incoming_made,
        )
        return connection

    def _incoming_made(self, connection: Connection) -> None:
        self._incoming.add(connection)
        self._strangers.append(connection)
        if len(self._strangers) > PEER_CONNECTIONS_MAX:
            self._strangers[0].abort()  # whoever has been silent for longest makes room
        asyncio.get_running_loop().call_later(PEER_HELLO_S_MAX, self._end_silent, connection)

    def _end_silent(self, connection: Connection) -> None:
        if connection in self._strangers:
            connection.abort()

    def _incoming_lost(self, connection: Connection) -> None:
        self._incoming.discard(connection)
        if connection in self._strangers:
            self._strangers.remove(connection)

    def _member_lost(self, connection: Connection, peer: _Peer, channel: Channel) -> None:
        self._incoming_lost(connection)
        if peer.incoming.get(channel) is connection:
            del peer.incoming[channel]
            if self._peers.get(peer.id) is peer and channel == "raft":
                self.on.lost(peer.id)

    def _greeted(self, connection: Connection, frame: bytes) -> None:
        try:
            hello = msgspec.msgpack.decode(frame, type=Hello)
        except UNDECODABLE:
            log.warning("closed a connection to the peer port from %s: no greeting", connection.extra("peername"))
            connection.abort()
            return
        refused = self._check_hello(hello, connection)
        answer = Welcome(refused, self._versions(), self._roster.uuid, self._roster.fresh())
        if refused is None:  # strangers are told nothing, nor is who has a member's name and another data directory
            answer = msgspec.structs.replace(
                answer, configuration_index=self._roster.index, configuration=self._roster.configuration
            )
        connection.send(msgspec.msgpack.encode(answer))
        if refused is not None:
            self._note_refusal(hello.sender, connection, refused)
            connection.close()
            return
        self._welcome(connection, self._peers[hello.sender], hello.channel)

    def _note_refusal(self, sender: str, connection: Connection, reason: str) -> None:
        """Who is refused comes again and again, a removed member for ever; it is told of once for each reason."""
        known = self._turned_away.pop(sender, None) == reason
        self._turned_away[sender] = reason
        if len(self._turned_away) > PEER_REFUSALS_NOTED_MAX:
            del self._turned_away[next(iter(self._turned_away))]
        level = logging.DEBUG if known else logging.WARNING
        log.log(level, "refused %s on the peer port: %s", connection.extra("peername"), reason)

    def _welcome(self, connection: Connection, peer: _Peer, channel: Channel) -> None:
        """From now on, frames are the member's. Its older connection is dead, if perhaps without a word: a machine
        that lost power sends none, and would lock itself out by coming back often enough."""
        self._strangers.remove(connection)
        self._turned_away.pop(peer.id, None)
        _tune(connection)
        connection.frame_bytes_max = PEER_FRAME_BYTES_MAX
        connection.on_lost = lambda c: self._member_lost(c, peer, channel)
        if channel == "raft":
            connection.on_frame = lambda c, raw: self._raft_frame(c, peer.id, raw)
        else:
            connection.on_frame = lambda c, raw: self._bulk.frame(c, peer.id, raw)
        old = peer.incoming.get(channel)
        peer.incoming[channel] = connection
        if old is not None:
            old.abort()

    def _check_hello(self, hello: Hello, connection: Connection) -> str | None:
        """Why this connection is refused, or None."""
        if self._tls is not None and hello.sender not in _certified_names(connection):
            return f"the certificate does not name {hello.sender!r}"
        if hello.cluster_id != self._cluster_id:
            return f"this is cluster {self._cluster_id!r}, not {hello.cluster_id!r}"
        if hello.receiver != self._me:
            return f"this is member {self._me!r}, not {hello.receiver!r}; check the addresses of the members"
        disagreed = disagreement(self._me, self._versions(), hello.sender, hello.versions)
        return disagreed or self._roster.admit(hello.sender, hello.uuid, hello.fresh)

    def _raft_frame(self, connection: Connection, peer: str, raw: bytes) -> None:
        try:
            message = m.decode(raw)
        except UNDECODABLE as error:
            log.warning("closed the connection from %s: not a Raft message: %s", peer, error)
            connection.abort()
            return
        try:
            self.on.message(peer, message)
        except m.ProtocolViolation as error:
            log.error("closed the connection from %s: %s", peer, error)
            connection.abort()

    # --- dialing -------------------------------------------------------------------------------------------------

    async def _keep_dialing(self, peer: _Peer, channel: Channel) -> None:
        """Hold one connection, for ever."""
        delay_s = _REDIAL_S_MIN
        while True:
            lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            connection = await self._dial(peer, channel, lost)
            if connection is not None:
                delay_s = _REDIAL_S_MIN
                try:
                    self._made(peer, channel, connection)
                    await lost
                finally:
                    self._lost(peer, channel)
                    connection.abort()
            if peer.refused is not None:
                delay_s = _REFUSED_REDIAL_S
            await asyncio.sleep(delay_s * (0.5 + random.random()))
            delay_s = min(2 * delay_s, _REDIAL_S_MAX)

    async def _dial(self, peer: _Peer, channel: Channel, lost: asyncio.Future[None]) -> Connection | None:
        loop = asyncio.get_running_loop()
        welcomed: asyncio.Future[bytes] = loop.create_future()

        def first_frame(_connection: Connection, raw: bytes) -> None:
            if not welcomed.done():
                welcomed.set_result(raw)

        def gone(_connection: Connection) -> None:
            welcomed.cancel()  # nothing happens if the answer has come
            if not lost.done():
                lost.set_result(None)

        connection = Connection(frame_bytes_max=_WELCOME_BYTES_MAX, on_frame=first_frame, on_lost=gone)
        try:
            async with asyncio.timeout(_DIAL_S_MAX):
                welcome = await self._greet(peer, channel, connection, welcomed)
        except (OSError, ValueError, TimeoutError, *UNDECODABLE) as error:  # ValueError: an id that TLS cannot name
            self._note_unreached(peer, connection.error or error)
            connection.abort()
            return None
        refused, whose = welcome.refused, "refused this node"
        if refused is None and welcome.versions is not None:
            refused = disagreement(self._me, self._versions(), peer.id, welcome.versions)
        if refused is None:
            refused, whose = self._roster.admit(peer.id, welcome.uuid, welcome.fresh), "is refused"
        if welcome.configuration is not None:
            self._roster.learn(welcome.configuration_index, welcome.configuration)
        if refused is not None and peer.refused != refused:
            log.error("member %s %s: %s", peer.id, whose, refused)
        peer.refused = refused
        if refused is not None or self._peers.get(peer.id) is not peer:
            connection.abort()
            return None
        connection.frame_bytes_max = PEER_FRAME_BYTES_MAX
        return connection

    async def _greet(
        self, peer: _Peer, channel: Channel, connection: Connection, welcomed: asyncio.Future[bytes]
    ) -> Welcome:
        """Connect, and greet whom the certificate names. OSError, ValueError, UNDECODABLE."""
        host, port = peer.address
        tls = self._tls.client if self._tls else None
        await asyncio.get_running_loop().create_connection(
            lambda: connection, host, port, ssl=tls, server_hostname=peer.id if tls else None
        )
        # TLS libraries take *.example for n1.example, and N1 for n1. A member's name is that name alone.
        if tls is not None and peer.id not in _certified_names(connection):
            raise ssl.SSLCertVerificationError(f"its certificate does not name {peer.id!r}")
        _tune(connection)
        hello = Hello(
            self._cluster_id, self._me, peer.id, channel, self._versions(), self._roster.uuid, self._roster.fresh()
        )
        connection.send(msgspec.msgpack.encode(hello))
        return msgspec.msgpack.decode(await _uncancelled(welcomed), type=Welcome)

    def _note_unreached(self, peer: _Peer, error: BaseException) -> None:
        """A member that is down is no news. One that cannot be trusted, or does not trust us, is: it is told of once,
        and stands in the status of the cluster."""
        host, port = peer.address
        log.debug("cannot reach member %s at %s:%d: %s", peer.id, host, port, error)
        reason = explain(error) if self._tls is not None else None
        if reason is not None:
            if peer.refused != reason:
                log.error("no connection to member %s at %s:%d: %s", peer.id, host, port, reason)
            peer.refused = reason

    def _made(self, peer: _Peer, channel: Channel, connection: Connection) -> None:
        if channel == "bulk":
            peer.bulk = BulkClient(peer.id, connection)
        else:
            peer.raft = connection
            self.on.connected(peer.id)

    def _lost(self, peer: _Peer, channel: Channel) -> None:
        if channel == "bulk":
            if peer.bulk is not None:
                peer.bulk.close()
            peer.bulk = None
        elif peer.raft is not None:
            peer.raft = None
            self.on.disconnected(peer.id)


async def _uncancelled(future: asyncio.Future[bytes]) -> bytes:
    """The future's result; ConnectionError if the connection was lost first."""
    await asyncio.wait([future])
    if future.cancelled():
        raise ConnectionError("the connection was closed during the greeting")
    return future.result()


def _tune(connection: Connection) -> None:
    sock = connection.extra("socket")
    assert isinstance(sock, asyncio.trsock.TransportSocket)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKED_MS_MAX)
    # A connection that only ever receives learns from nothing else that the other machine is gone.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)


def _certified_names(connection: Connection) -> set[str]:
    certificate = connection.extra("peercert")
    names = certificate.get("subjectAltName", ()) if isinstance(certificate, dict) else ()
    return {value for kind, value in names if kind == "DNS"}
