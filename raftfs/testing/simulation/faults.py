"""The nemesis: what goes wrong, when and for how long, all of it drawn from the seed.

Each seed has a character: some kinds of faults are left out and others come often, since a fault that is rare beside
others hides them, and many bugs need several of one kind. Changes of the members are the operator's. Not
here yet: damage of what was durable.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from raftfs.consensus import messages as m
from raftfs.consensus.guard import NO_OP
from raftfs.testing.simulation.client import Ways
from raftfs.testing.simulation.loop import VirtualLoop
from raftfs.testing.simulation.network import Network
from raftfs.testing.simulation.node import Node
from raftfs.testing.simulation.strangers import Strangers


class Nemesis:
    """``run`` does harm until it is cancelled; ``heal`` makes everything good again. ``only``: these kinds alone."""

    def __init__(
        self, loop: VirtualLoop, nodes: dict[str, Node], network: Network, ways: Ways, rng: random.Random,
        trace: Callable[..., None], only: Sequence[str] = (), slow: Sequence[float] = (),
    ) -> None:  # fmt: skip
        self._loop, self._nodes, self._network, self._ways = loop, nodes, network, ways
        self._rng, self._trace = rng, trace
        self._strangers = Strangers(loop, nodes, rng, trace)
        kinds = {
            self._break_wire: 6.0, self._cut_link: 3.0, self._partition: 2.0, self._isolate: 4.0,
            self._kill: 1.5, self._lose_power: 1.5, self._die_in_sync: 1.5, self._fail_sync: 0.5,
            self._restart_all: 1.0, self._pause: 2.0, self._fill_disk: 1.0, self._slow_down: 1.0,
            self._jump_wall: 0.5, self._drift: 0.5, self._transfer: 1.0, self._talk_nonsense: 0.5,
            self._depose: 1.0, self._starve: 1.0, self._strand: 0.5,
            self._come_as_a_stranger: 0.5,
        }  # fmt: skip
        self._kinds = list(kinds)
        self._weights = [weight * rng.choice((0.0, 1.0, 1.0, 4.0)) for weight in kinds.values()]
        if only:
            self._weights = [float(kind.__name__.strip("_") in only) for kind in kinds]
        elif not any(self._weights):
            self._weights = list(kinds.values())
        self._period_s = rng.choice((0.3, 0.8) if only else (0.1, 0.3, 0.8))
        network.delay_s = rng.choice((0.001, 0.005, 0.03))
        network.spike = rng.choice((0.0, 0.0, 0.01, 0.05))
        ways.lost = rng.choice((0.0, 0.02, 0.1))
        slow_disks = slow or rng.choice(((1.0,), (10.0,), (1.0, 10.0, 60.0)))
        for node in nodes.values():
            node.machine.slowness = rng.choice(slow_disks)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._period_s))
            kind = self._rng.choices(self._kinds, self._weights)[0]
            self._loop.seen[kind.__name__.strip("_").replace("_", " ")] += 1
            kind()

    def heal(self) -> None:
        """No more faults, and everybody runs."""
        self._network.calm = True
        self._loop.stalls = 0.0
        self._network.delay_s, self._network.spike, self._ways.lost = 0.001, 0.0, 0.0
        self._network.mend(list(self._network.cut))
        for node in self._nodes.values():
            disk = node.machine.disk
            disk.full, disk.fails, disk.ends_in = False, False, None
            node.machine.slowness = 1.0
            node.start_again()
            if node.process is not None:
                node.process.slowness = 1.0
                if node.process.paused:
                    node.process.resume()

    # --- choices -------------------------------------------------------------------------------------------------

    def _leader(self) -> Node | None:
        leaders = [node for node in self._nodes.values() if node.up and node.consensus.is_leader]
        return self._rng.choice(leaders) if leaders else None

    def _node(self) -> Node:
        """Any node; often the leader."""
        leader = self._leader()
        if leader is not None and self._rng.random() < 0.6:
            return leader
        return self._rng.choice(list(self._nodes.values()))

    def _later(self, longest_s: float, undo: Callable[[], None], at_least_s: float = 0.0) -> None:
        if self._rng.random() < 0.6:
            longest_s *= 0.3  # faults that overlap all the time leave nothing to be broken
        self._loop.call_later(at_least_s + self._rng.uniform(0.01, longest_s), undo)

    # --- the network ---------------------------------------------------------------------------------------------

    def _pair(self) -> tuple[str, str]:
        a, b = self._rng.sample(self._network.names, 2)
        return a, b

    def _break_wire(self) -> None:
        self._network.break_wire(*self._pair())

    def _cut(self, links: list[tuple[str, str]], at_least_s: float = 0.0) -> None:
        self._trace("cut", links)
        self._network.cut_off(links)
        self._later(3.0, lambda: self._network.mend(links), at_least_s)

    def _cut_link(self) -> None:
        """One direction, or both."""
        a, b = self._pair()
        self._cut([(a, b), (b, a)] if self._rng.random() < 0.5 else [(a, b)])

    def _partition(self) -> None:
        names = list(self._network.names)
        self._rng.shuffle(names)
        at = self._rng.randrange(1, len(names))
        self._cut([link for a in names[:at] for b in names[at:] for link in ((a, b), (b, a))])

    def _isolate(self) -> None:
        """A node hears nobody, or nobody hears it, or both."""
        name = self._node().name
        others = [other for other in self._network.names if other != name]
        deaf, mute = self._rng.choice(((True, False), (False, True), (True, True)))
        self._cut([(other, name) for other in others if deaf] + [(name, other) for other in others if mute])

    def _talk_nonsense(self) -> None:
        """A broken member says what no correct one does: whoever hears it closes the connection and uses nothing."""
        source, target = self._pair()
        node = self._nodes[target]
        if not node.up:
            return
        log, term = node.consensus._journal, node.consensus.term
        last, last_term, number = log.last_index, log.last_term, self._rng.randrange(2**20)
        nonsense: list[m.Message] = [m.AppendAck(term, number, last + 1 + number, False)]
        if not node.consensus.is_leader:
            nonsense += [
                m.Append(term, number, 0, 0, last, []),
                m.Append(term, number, last, last_term, last, [m.WireEntry(term, b"\x03members")]),
                m.Append(term, number, last, last_term, last, [m.WireEntry(term + 1, NO_OP)]),
            ]
        raw = m.encode(self._rng.choice(nonsense)) if self._rng.random() < 0.8 else self._rng.randbytes(20)
        self._network.slip_in(source, target, raw)

    def _come_as_a_stranger(self) -> None:
        self._strangers.come(self._node())

    def _depose(self) -> None:
        """The leader is cut off for as long as others need to elect another one, and clients still reach it."""
        leader = self._leader()
        if leader is not None and not self._network.cut:
            self._depose_one(leader)

    def _depose_one(self, leader: Node) -> None:
        others = [other for other in self._network.names if other != leader.name]
        links = [link for other in others for link in ((leader.name, other), (other, leader.name))]
        self._cut(links, at_least_s=1.0)

    def _strand(self) -> None:
        """The same, and meanwhile its machine goes out: when it is back in touch, it has applied less than it once
        knew to be committed, and its log ends with what nobody else has."""
        leader = self._leader()
        if leader is not None and not self._network.cut:
            self._depose_one(leader)
            self._loop.call_later(self._rng.uniform(0.1, 1.0), lambda: self._crash(leader, power=True))

    def _starve(self) -> None:
        """What the leader sends to a follower hangs for long, and the connection stays open."""
        leader = self._leader()
        if leader is not None and not self._network.cut:
            follower = self._rng.choice([name for name in self._network.names if name != leader.name])
            self._cut([(leader.name, follower)], at_least_s=2.0)

    # --- processes and machines ----------------------------------------------------------------------------------

    def _kill(self) -> None:
        self._crash(self._node(), power=False)

    def _lose_power(self) -> None:
        self._crash(self._node(), power=True)

    def _crash(self, node: Node, *, power: bool) -> None:
        node.crash(power=power)
        self._later(1.5, node.start_again)

    def _restart_all(self) -> None:
        power = self._rng.random() < 0.7
        for node in self._nodes.values():
            self._crash(node, power=power)

    def _die_in_sync(self) -> None:
        """The machine goes out while something is being made durable."""
        node = self._node()
        node.machine.disk.ends_in = self._rng.randrange(4)
        self._later(3.0, node.start_again)

    def _fail_sync(self) -> None:
        node = self._node()
        node.machine.disk.fails = True
        self._later(3.0, node.start_again)

    def _pause(self) -> None:
        process = self._node().process
        if process is not None and not process.paused:
            self._trace("pause", process.name)
            process.pause()
            self._later(2.5, process.resume)

    def _slow_down(self) -> None:
        process = self._node().process
        if process is not None:
            process.slowness = self._rng.choice((5.0, 30.0, 100.0))
            self._later(4.0, lambda: setattr(process, "slowness", 1.0))

    def _fill_disk(self) -> None:
        disk = self._node().machine.disk
        self._trace("full disk")
        disk.full = True
        self._later(2.0, lambda: setattr(disk, "full", False))

    # --- clocks --------------------------------------------------------------------------------------------------

    def _jump_wall(self) -> None:
        self._node().machine.wall_offset_ms += self._rng.randint(-10_000_000, 10_000_000)

    def _drift(self) -> None:
        node = self._node()
        node.machine.rate = self._rng.uniform(0.95, 1.05)
        if node.process is not None:
            node.process.set_rate(node.machine.rate)

    # --- what people do ------------------------------------------------------------------------------------------

    def _transfer(self) -> None:
        for node in self._nodes.values():
            if node.up and node.process is not None and node.consensus.is_leader:
                self._trace("transfer", node.name)
                node.process.spawn(node.consensus.transfer(timeout_s=1.0))
