"""The network between the members: connections that take their time, break, hang and are cut, as TCP's do.

A member dials each other one and sends on its own connection alone, as ``PeerTransport`` does. On one connection
nothing is lost or overtakes; when it breaks, what is in flight is lost, or arrives late, even behind what was sent on
the next connection, or twice. Each end learns of the break at a time of its own, the receiving one perhaps never. While
a direction is cut, what was sent on it waits (TCP sends again), until the cut is mended or the connection given up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from raftfs.consensus import messages as m
from raftfs.consensus.peers import Callbacks
from raftfs.consensus.roster import Roster
from raftfs.consensus.rpc import Handler
from raftfs.decoding import UNDECODABLE
from raftfs.errors import RaftfsError, Unavailable
from raftfs.testing.invariants import Violation
from raftfs.testing.simulation.loop import Process, VirtualLoop

_REDIAL_S = (0.02, 0.5)
_REFUSED_REDIAL_S = 1.0
_TICK_S = 1e-6  # nothing on one connection happens at the same instant: timers of one instant have no order
_SMALL_BYTES = 64
_LOOK_S = 0.1
_GIVE_UP_S = 10.0  # what a sender waits for acknowledgements of TCP

_FATES = {
    (True, False): "lost",
    (True, True): "out of order",
    (False, True): "twice",
    (False, False): "in time, though its connection broke",
}
"""gone from its connection, and arrives late over no connection"""

Trace = Callable[..., None]


class Wire:
    """One connection, from its sender to its receiver."""

    def __init__(self, source: SimulatedTransport, target: SimulatedTransport, number: int) -> None:
        self.source, self.target, self.number = source, target, number
        self.known = target.peers.get(source.name)
        self.open = True
        self.source_closed = asyncio.Event()
        self.last_s = 0.0
        self.waiting: list[bytes] = []
        self.flying: dict[int, tuple[asyncio.TimerHandle, bytes]] = {}
        self.sent = 0

    def bytes_on_the_way(self) -> int:
        """All that was sent and has not arrived, but for heartbeats and other small talk."""
        return sum(len(raw) for raw in self.waiting if len(raw) > _SMALL_BYTES) + sum(
            len(raw) for _, raw in self.flying.values() if len(raw) > _SMALL_BYTES
        )


class Network:
    """Who is connected, what is cut, and how long everything takes. ``delay_s`` is the usual longest way."""

    def __init__(self, loop: VirtualLoop, names: Sequence[str], rng: random.Random, trace: Trace) -> None:
        self.loop, self.names, self._trace = loop, list(names), trace
        self.delay_s = 0.002
        self.spike = 0.0
        """part of the messages that take up to half a second"""
        self.late = 0.5
        """part of the messages in flight on a breaking connection that arrive late, or twice"""
        self.calm = False
        self.members: dict[str, SimulatedTransport] = {}
        self.cut: set[tuple[str, str]] = set()
        self._seed = rng.random()
        self._rngs: dict[tuple[str, str], random.Random] = {}
        self._numbers = 0
        self.in_flight_bytes_max = 2**30
        self.on_violation: Callable[[Exception], None] = lambda _error: None

    def rng(self, source: str, target: str) -> random.Random:
        """What decides all that happens on this way."""
        known = self._rngs.get((source, target))
        if known is None:
            known = self._rngs[source, target] = random.Random(f"{self._seed} {source} {target}")
        return known

    # --- the nemesis's side --------------------------------------------------------------------------------------

    def cut_off(self, links: Iterable[tuple[str, str]]) -> None:
        links = set(links)
        one_way = any((target, source) not in links for source, target in links)
        self.loop.seen["network: cut one way" if one_way else "network: cut both ways"] += 1
        self.cut |= links

    def mend(self, links: Iterable[tuple[str, str]]) -> None:
        """What waited goes on its way."""
        self.cut -= set(links)
        for wire in [wire for member in self.members.values() for wire in member.wires.values()]:
            if wire.waiting and self.passes(wire.source.name, wire.target.name):
                waiting, wire.waiting = wire.waiting, []
                for raw in waiting:
                    self._fly(wire, raw)

    def passes(self, source: str, target: str) -> bool:
        return (source, target) not in self.cut

    def way_s(self, source: str, target: str) -> float:
        rng = self.rng(source, target)
        if rng.random() < self.spike:
            self.loop.seen["message: very late"] += 1
            return rng.uniform(0.01, 0.5)
        return 0.0001 + rng.random() * self.delay_s

    def break_wire(self, source: str, target: str) -> None:
        """The connection that ``source`` made to ``target`` breaks."""
        member = self.members.get(source)
        wire = None if member is None else member.wires.get(target)
        if wire is not None:
            self._trace("break", source, target)
            self._lose_flying(wire)
            self._close(wire)

    def settle(self) -> None:
        """Whoever has a connection that broke, and does not know it yet, learns of it now."""
        for member in self.members.values():
            for wire in member.wires.values():
                if not wire.open or wire.target.incoming.get(member.name) is not wire:
                    wire.open = False
                    self._tell_source(wire, 0.0)

    def slip_in(self, source: str, target: str, raw: bytes) -> None:
        """Bytes that ``source`` did not send arrive on its connection. If they are refused, it breaks."""
        member = self.members.get(source)
        wire = None if member is None else member.wires.get(target)
        if wire is not None and wire.open:
            self.loop.call_soon(self._hear_nonsense, wire, raw, context=wire.target.process.context)

    def _hear_nonsense(self, wire: Wire, raw: bytes) -> None:
        try:
            message = m.decode(raw)
            self._trace("nonsense", wire.source.name, wire.target.name, describe(message))
            wire.target.on.message(wire.source.name, message)
        except (m.ProtocolViolation, *UNDECODABLE):
            self._lose_flying(wire)
            self._close(wire)

    def process_died(self, dead: SimulatedTransport, *, power: bool) -> None:
        """Its kernel closes its connections, after what was sent; a machine without power says nothing."""
        del self.members[dead.name]
        for peer in dead.wires:
            wire = dead.wires[peer]
            if power:
                self._lose_flying(wire)
            else:
                self._tell_target(wire)
        for member in self.members.values():
            to_dead = member.wires.get(dead.name)
            if to_dead is not None and to_dead.target is dead:
                to_dead.open = False
                wait_s = self.rng(member.name, dead.name).uniform(0.05, 3.0) if power else 0.0
                self._tell_source(to_dead, wait_s)

    # --- connections ---------------------------------------------------------------------------------------------

    def dial(self, source: SimulatedTransport, peer: str) -> bool:
        """A new connection, if the peer can be reached now."""
        target = self.members.get(peer)
        if (
            target is None
            or target.process.paused
            or not (self.passes(source.name, peer) and self.passes(peer, source.name))
        ):
            return False
        if not self.greet(source, target):
            return False
        self._numbers += 1
        wire = Wire(source, target, self._numbers)
        source.wires[peer] = wire
        old = target.incoming.get(source.name)
        target.incoming[source.name] = wire
        if old is not None and old.open:
            self._lose_flying(old)
            old.open = False
        self._trace("connect", source.name, peer)
        return True

    def greet(self, source: SimulatedTransport, target: SimulatedTransport) -> bool:
        """Hello and Welcome: both ends look at who the other one is. False if one of them refuses."""
        refused = target.roster.admit(source.name, source.roster.uuid, source.roster.fresh())
        if refused is None:
            refused = source.roster.admit(target.name, target.roster.uuid, target.roster.fresh())
            source.roster.learn(target.roster.index, target.roster.configuration)
        source.refused[target.name] = refused
        if refused is not None:
            self.loop.seen["members: refused"] += 1
            self._trace("refused", source.name, target.name, refused)
        return refused is None and target.name in source.peers and source.name in target.peers

    def leave(self, member: SimulatedTransport, peer: str) -> None:
        """A member ends its connections with another one, in both directions."""
        self._trace("leaves", member.name, peer)
        wire = member.wires.pop(peer, None)
        if wire is not None:
            self._lose_flying(wire)
            wire.open = False
            wire.source_closed.set()
            self._tell_target(wire)
            self.loop.call_soon(member.on.disconnected, peer)
        wire = member.incoming.pop(peer, None)
        if wire is not None:
            self._lose_flying(wire)
            wire.open = False
            self._tell_source(wire, 0.0)

    def send(self, wire: Wire, raw: bytes) -> None:
        if not wire.open:
            return  # the sender has not learned yet that it broke
        if len(raw) > _SMALL_BYTES and wire.bytes_on_the_way() > self.in_flight_bytes_max:
            self.on_violation(
                Violation(
                    "bounded flow", f"{wire.bytes_on_the_way()} bytes from {wire.source.name} to {wire.target.name}"
                )
            )
        if not self.passes(wire.source.name, wire.target.name):
            wire.waiting.append(raw)
            if len(wire.waiting) == 1:
                self.loop.call_at_world(
                    self.loop.now_s + _GIVE_UP_S, self._give_up, wire, context=wire.source.process.context
                )
            return
        self._fly(wire, raw)

    def _give_up(self, wire: Wire) -> None:
        if wire.waiting and wire.open:
            self._lose_flying(wire)
            self._close(wire)

    def _fly(self, wire: Wire, raw: bytes) -> None:
        arrives = max(wire.last_s + _TICK_S, self.loop.now_s + self.way_s(wire.source.name, wire.target.name))
        wire.last_s = arrives
        wire.sent += 1
        timer = self.loop.call_at_world(arrives, self._land, wire, wire.sent, raw, context=wire.target.process.context)
        wire.flying[wire.sent] = (timer, raw)

    def _land(self, wire: Wire, number: int, raw: bytes) -> None:
        wire.flying.pop(number, None)
        self._deliver(wire, raw)

    def _deliver(self, wire: Wire, raw: bytes) -> None:
        if wire.target.peers.get(wire.source.name) is not wire.known:
            return  # who sent it is no member any more, or was one with another data directory
        message = m.decode(raw)
        self._trace("message", wire.source.name, wire.target.name, describe(message))
        try:
            wire.target.on.message(wire.source.name, message)
        except m.ProtocolViolation as error:
            self.on_violation(
                Violation("members speak correctly", f"{wire.source.name} to {wire.target.name}: {error}")
            )

    def _lose_flying(self, wire: Wire) -> None:
        """Lost, or late and in any order, or both in time and late."""
        rng = self.rng(wire.source.name, wire.target.name)
        wire.waiting = []
        for number in list(wire.flying):
            timer, raw = wire.flying[number]
            gone = rng.random() < 0.8
            if gone:
                timer.cancel()
                del wire.flying[number]
            late = not self.calm and rng.random() < self.late
            self.loop.seen[f"message: {_FATES[gone, late]}"] += 1
            if late:
                late_s = self.loop.now_s + rng.uniform(0.0, 1.0)
                self.loop.call_at_world(late_s, self._deliver, wire, raw, context=wire.target.process.context)

    def _close(self, wire: Wire) -> None:
        wire.open = False
        rng = self.rng(wire.source.name, wire.target.name)
        half_open = rng.random() < 0.3 and not self.calm
        self.loop.seen["connection: half open"] += half_open
        self._tell_source(wire, rng.uniform(0.5, 4.0) if half_open else 0.0)
        if rng.random() < 0.8 and self.passes(wire.source.name, wire.target.name):
            self._tell_target(wire)

    async def ask(self, source: SimulatedTransport, peer: str, kind: str, payload: bytes) -> bytes:
        """A bulk request and its answer. While the way is cut, they wait, as TCP does; if the peer dies, the connection
        is gone."""
        await asyncio.sleep(self.way_s(source.name, peer))
        target = self.members.get(peer)
        if target is None or kind not in target.handlers or not self.greet(source, target):
            raise Unavailable(f"{peer} cannot be reached")
        answer: asyncio.Future[bytes] = self.loop.create_future()
        await self._until_mended(source.name, peer)
        if self.members.get(peer) is target:
            target.process.spawn(self._serve(source, target, kind, payload, answer))
        while not answer.done():
            await asyncio.wait([answer], timeout=_LOOK_S)
            if self.members.get(peer) is not target:
                raise Unavailable(f"{peer} went away")
        return answer.result()

    async def _until_mended(self, source: str, target: str) -> None:
        while not self.passes(source, target):  # noqa: ASYNC110  # whoever mends it tells nobody
            await asyncio.sleep(_LOOK_S)

    async def _serve(
        self, source: SimulatedTransport, target: SimulatedTransport, kind: str, payload: bytes,
        answer: asyncio.Future[bytes],
    ) -> None:  # fmt: skip
        try:
            done: bytes | RaftfsError = await target.handlers[kind](source.name, payload)
        except RaftfsError as error:
            done = error
        except Exception as error:
            done = RaftfsError(f"internal error: {type(error).__name__}")  # as BulkServer says it
        await self._until_mended(target.name, source.name)
        when = self.loop.now_s + self.way_s(target.name, source.name)
        self.loop.call_at_world(when, _answer, answer, done, context=source.process.context)

    def _tell_source(self, wire: Wire, wait_s: float) -> None:
        source = wire.source
        if not self.passes(wire.target.name, source.name):
            wait_s += self.rng(source.name, wire.target.name).uniform(0.5, 4.0)
        when = self.loop.now_s + wait_s + self.way_s(wire.target.name, source.name)
        self.loop.call_at_world(when, source.closed, wire, context=source.process.context)

    def _tell_target(self, wire: Wire) -> None:
        target = wire.target
        if self.passes(wire.source.name, target.name):
            when = max(wire.last_s + _TICK_S, self.loop.now_s + self.way_s(wire.source.name, target.name))
            self.loop.call_at_world(when, target.lost, wire, context=target.process.context)


@dataclass
class Peer:
    """Another member as one knows it. ``uuid``: what the configuration binds its name to."""

    uuid: str
    dialing: asyncio.Task[None]


class SimulatedTransport:
    """One member's end: what ``PeerTransport`` is to the node."""

    def __init__(self, network: Network, roster: Roster, process: Process) -> None:
        self._network, self.name, self.roster, self.process = network, roster.me, roster, process
        self.peers: dict[str, Peer] = {}
        self.refused: dict[str, str | None] = {}
        self.on = Callbacks()
        self.wires: dict[str, Wire] = {}
        self.incoming: dict[str, Wire] = {}
        self.handlers: dict[str, Handler] = {}
        self._rng = process.rng

    async def start(self) -> None:
        """Begin to dial."""
        self._network.members[self.name] = self
        self.roster.on_change = self._follow
        self._follow()

    def _follow(self) -> None:
        """Talk to those whom the roster names, and to nobody else."""
        book = self.roster.book
        for name, peer in list(self.peers.items()):
            record = book.get(name)
            if record is None or peer.uuid not in ("", record.uuid):
                del self.peers[name]
                peer.dialing.cancel()
                self._network.leave(self, name)
            else:
                peer.uuid = record.uuid
        for name, record in book.items():
            if name not in self.peers:
                self.peers[name] = Peer(record.uuid, self.process.spawn(self._keep_dialing(name)))

    async def _keep_dialing(self, peer: str) -> None:
        delay_s, longest_s = _REDIAL_S
        while True:
            await asyncio.sleep(self._network.way_s(self.name, peer) * 3)
            if peer not in self.wires and self._network.dial(self, peer):
                delay_s = _REDIAL_S[0]
                self.on.connected(peer)
            while peer in self.wires:
                await self.wires[peer].source_closed.wait()
            if self.refused.get(peer) is not None:
                delay_s = _REFUSED_REDIAL_S
            await asyncio.sleep(delay_s * (0.5 + self._rng.random()))
            delay_s = min(2 * delay_s, longest_s)

    def send(self, peer: str, message: m.Message) -> None:
        wire = self.wires.get(peer)
        if wire is not None:
            self._network.send(wire, m.encode(message))

    def connected(self, peer: str) -> bool:
        return peer in self.wires

    def refusal(self, peer: str) -> str | None:
        return self.refused.get(peer)

    def handle(self, kind: str, handler: Handler) -> None:
        self.handlers[kind] = handler

    async def request(
        self, peer: str, kind: str, payload: bytes | Sequence[bytes | bytearray | memoryview], *, timeout_s: float
    ) -> bytes:
        whole = payload if isinstance(payload, bytes) else b"".join(payload)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._network.ask(self, peer, kind, whole)
        except TimeoutError:
            raise Unavailable(f"{peer} did not answer in {timeout_s:g} s") from None

    def closed(self, wire: Wire) -> None:
        """Our connection broke."""
        if self.wires.get(wire.target.name) is wire:
            del self.wires[wire.target.name]
            self.on.disconnected(wire.target.name)
            wire.source_closed.set()

    def lost(self, wire: Wire) -> None:
        """The peer's connection to us broke."""
        if self.incoming.get(wire.source.name) is wire:
            del self.incoming[wire.source.name]
            self.on.lost(wire.source.name)


def _answer(future: asyncio.Future[bytes], done: bytes | RaftfsError) -> None:
    if future.done():
        return
    if isinstance(done, RaftfsError):
        future.set_exception(done)
    else:
        future.set_result(done)


def describe(message: m.Message) -> str:
    """A message in a line, without what depends on the order in which a leader turns to its followers."""
    more = ""
    if isinstance(message, m.Append):
        more = f" after {message.prev_index}/{message.prev_term} +{len(message.entries)} commit {message.commit_index}"
    elif isinstance(message, m.AppendAck):
        more = f" {'reset ' if message.reset else ''}{message.match_index}"
    elif isinstance(message, m.ReadIndexAnswer):
        more = f" {message.index}"
    return f"{type(message).__name__} {message.term}{more}"
