"""What each kind of fault does to the servers, and how it ends."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from raftfs.testing.nemesis.clock import can_be_seen
from raftfs.testing.nemesis.membership import Members
from raftfs.testing.nemesis.network import HUB, Drop, Network
from raftfs.testing.nemesis.schedule import CLOCK_JUMPS_S, Fault, Kind
from raftfs.testing.nemesis.servers import FRONTENDS, Servers
from raftfs.testing.nemesis.watch import Watch

READY_S_MAX: Final = 20.0
_BREAKS_EVERY_S: Final = 0.3
_LOSS_PERCENT: Final = (5, 30)

_JUMP_SEEN_S: Final = 0.5


class Nemesis:
    """Carries out faults. ``done`` counts what really happened; ``log`` says so in words, with the node that "leader"
    stood for."""

    def __init__(self, servers: Servers, network: Network, watch: Watch) -> None:
        self._servers, self._network, self._watch = servers, network, watch
        self._members = Members(servers, watch)
        self._clocks_wrong: list[str] = []
        self._jumps_seen, self._jumps_unseen = 0, 0
        self.done: Counter[str] = Counter()
        self.log: list[str] = []

    @property
    def complaints(self) -> list[str]:
        """What faults showed by themselves, and which of them were none."""
        found = [*self._members.complaints, *self._clocks_wrong]
        if self.done["replace"] and not self._members.refused:
            found.append("members were emptied, and not one was seen to be refused under its old name")
        if self._jumps_unseen and not self._jumps_seen:
            found.append("clocks were set, and no node was seen to have another time")
        return found

    async def run(self, fault: Fault) -> None:
        """Do it, let it last, and undo it, also when cancelled."""
        node = fault.node
        if node == "leader":
            node = await self._watch.leader() or random.Random(fault.dice).choice(self._servers.nodes)
        dice = random.Random(fault.dice)
        do: dict[Kind, Callable[[str, Fault, random.Random], Awaitable[str | None]]] = {
            "kill": self._kill,
            "kill-all": self._kill_all,
            "freeze": self._freeze,
            "freeze-majority": self._freeze_majority,
            "split": self._split,
            "cut-off-leader": self._cut_off_leader,
            "cut-off-node": self._cut_off_node,
            "one-way": self._one_way,
            "bridge": self._bridge,
            "break-connections": self._break_connections,
            "loss": self._loss,
            "full-disk": self._full_disk,
            "full-disks": self._full_disks,
            "clock": self._clock,
            "clocks": self._clocks,
            "rolling-restart": self._rolling_restart,
            "kill-frontend": self._kill_frontend,
            "transfer": self._transfer,
            "replace": self._replace,
            "grow-and-shrink": self._grow_and_shrink,
        }
        said = await do[fault.kind](node, fault, dice)
        self.done[fault.kind] += said is not None
        self.log.append(f"{fault}: {said or 'in vain'}")

    def _minority(self, first: str, dice: random.Random) -> list[str]:
        """``first`` and others, as many as may fail."""
        others = [node for node in self._servers.nodes if node != first]
        return [first, *dice.sample(others, (len(self._servers.nodes) - 1) // 2 - 1)]

    def _majority(self, first: str, dice: random.Random) -> list[str]:
        others = [node for node in self._servers.nodes if node != first]
        return [first, *dice.sample(others, len(self._servers.nodes) // 2)]

    # Processes

    async def _kill(self, node: str, fault: Fault, dice: random.Random) -> str:
        victims = self._minority(node, dice) if dice.random() < 0.3 else [node]
        return await self._kill_and_start(victims, fault)

    async def _kill_all(self, node: str, fault: Fault, dice: random.Random) -> str:
        return await self._kill_and_start(self._servers.nodes, fault)

    async def _kill_and_start(self, victims: Sequence[str], fault: Fault) -> str:
        await asyncio.to_thread(self._servers.kill, victims)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            for victim in victims:
                self._servers.start(victim)
        return f"SIGKILL to {' '.join(victims)}"

    async def _freeze(self, node: str, fault: Fault, dice: random.Random) -> str:
        return await self._freeze_all([node], fault)

    async def _freeze_majority(self, node: str, fault: Fault, dice: random.Random) -> str:
        return await self._freeze_all(self._majority(node, dice), fault)

    async def _freeze_all(self, victims: Sequence[str], fault: Fault) -> str:
        for victim in victims:
            self._servers.freeze(victim)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            for victim in victims:
                self._servers.thaw(victim)
        return f"SIGSTOP to {' '.join(victims)}"

    async def _rolling_restart(self, node: str, fault: Fault, dice: random.Random) -> str:
        slow = []
        for victim in dice.sample(self._servers.nodes, len(self._servers.nodes)):
            try:
                if not await asyncio.to_thread(self._servers.stop, victim):
                    slow.append(victim)
            finally:
                self._servers.start(victim)
            await self._watch.ready(victim, READY_S_MAX)
        return "SIGTERM to each in turn" + (f", had to kill {' '.join(slow)}" if slow else "")

    async def _kill_frontend(self, node: str, fault: Fault, dice: random.Random) -> str:
        return await self._kill_and_start([dice.choice(FRONTENDS)], fault)

    # Who the members are

    async def _transfer(self, node: str, fault: Fault, dice: random.Random) -> str | None:
        return await self._members.transfer(dice.choice(self._servers.first), dice)

    async def _replace(self, node: str, fault: Fault, dice: random.Random) -> str | None:
        return await self._members.replace(node, fault.lasts_s, dice)

    async def _grow_and_shrink(self, node: str, fault: Fault, dice: random.Random) -> str | None:
        return await self._members.grow_and_shrink(fault.lasts_s, dice)

    # The network

    async def _cut(self, drops: Sequence[Drop], fault: Fault) -> None:
        await asyncio.to_thread(self._network.drop, drops)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            await asyncio.shield(asyncio.to_thread(self._network.restore, drops))

    async def _split(self, node: str, fault: Fault, dice: random.Random) -> str:
        """Two sides; each frontend is on one of them."""
        one = self._minority(node, dice)
        two = [other for other in self._servers.nodes if other not in one]
        for frontend in FRONTENDS:
            (one if dice.random() < 0.5 else two).append(frontend)
        await self._cut(_both_ways(one, two), fault)
        return f"{' '.join(one)} | {' '.join(two)}"

    async def _cut_off_leader(self, node: str, fault: Fault, dice: random.Random) -> str:
        """The leader hears no other node, but clients and frontends reach it as before."""
        leader = await self._watch.leader() or node
        await self._cut(_both_ways([leader], [other for other in self._servers.nodes if other != leader]), fault)
        return f"{leader} | other nodes; clients reach all"

    async def _cut_off_node(self, node: str, fault: Fault, dice: random.Random) -> str:
        """Nobody reaches it, no client either."""
        await self._cut(_both_ways([node], [other for other in [*self._servers.names, HUB] if other != node]), fault)
        return f"{node} | everybody"

    async def _one_way(self, node: str, fault: Fault, dice: random.Random) -> str:
        others = [other for other in self._servers.nodes if other != node]
        heard = dice.sample(others, dice.randint(1, len(others)))
        is_deaf = dice.random() < 0.5
        await self._cut([(other, node) if is_deaf else (node, other) for other in heard], fault)
        return f"{' '.join(heard)} -/-> {node}" if is_deaf else f"{node} -/-> {' '.join(heard)}"

    async def _bridge(self, node: str, fault: Fault, dice: random.Random) -> str:
        """One node reaches all, and the others only it (or, of five, it and their own half)."""
        others = [other for other in dice.sample(self._servers.nodes, len(self._servers.nodes)) if other != node]
        one, two = others[: len(others) // 2], others[len(others) // 2 :]
        await self._cut(_both_ways(one, two), fault)
        return f"{' '.join(one)} | {' '.join(two)}, {node} reaches both"

    async def _break_connections(self, node: str, fault: Fault, dice: random.Random) -> str:
        broken, end = 0, asyncio.get_running_loop().time() + fault.lasts_s
        while asyncio.get_running_loop().time() < end:
            broken += await asyncio.to_thread(self._network.break_connections, node)
            await asyncio.sleep(_BREAKS_EVERY_S)
        return f"{broken} connections of {node} broken"

    async def _loss(self, node: str, fault: Fault, dice: random.Random) -> str:
        percent = dice.randint(*_LOSS_PERCENT)
        hosts = self._servers.nodes if dice.random() < 0.5 else [node]
        for host in hosts:
            await asyncio.to_thread(self._network.lose, host, percent)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            for host in hosts:
                await asyncio.shield(asyncio.to_thread(self._network.lose, host, -percent))
        return f"{percent} % of the packets to {' '.join(hosts)} lost"

    # Disks and clocks

    async def _full_disk(self, node: str, fault: Fault, dice: random.Random) -> str:
        return await self._fill([node], fault)

    async def _full_disks(self, node: str, fault: Fault, dice: random.Random) -> str:
        return await self._fill(self._majority(node, dice), fault)

    async def _fill(self, nodes: Sequence[str], fault: Fault) -> str:
        for node in nodes:
            await asyncio.to_thread(self._servers.fill_disk, node)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            for node in nodes:
                await asyncio.shield(asyncio.to_thread(self._servers.free_disk, node))
        return f"no room on {' '.join(nodes)}"

    async def _clock(self, node: str, fault: Fault, dice: random.Random) -> str:
        return await self._jump({node: dice.choice(CLOCK_JUMPS_S)}, fault)

    async def _clocks(self, node: str, fault: Fault, dice: random.Random) -> str:
        return await self._jump({other: dice.choice(CLOCK_JUMPS_S) for other in self._servers.nodes}, fault)

    async def _jump(self, jumps: dict[str, int], fault: Fault) -> str:
        for node, ahead_s in jumps.items():
            self._servers.set_clock(node, ahead_s)
        try:
            await self._see_jumps([node for node, ahead_s in jumps.items() if can_be_seen(ahead_s)], fault.lasts_s)
        finally:
            for node in jumps:
                self._servers.set_clock(node, 0)
        return ", ".join(f"{node} {ahead_s:+d} s" for node, ahead_s in jumps.items())

    async def _see_jumps(self, nodes: Sequence[str], lasts_s: float) -> None:
        """Wait, and see at least one node that answers with another time; all of them may be starting."""
        loop, seen = asyncio.get_running_loop(), 0
        begin = loop.time()
        while (past_s := loop.time() - begin) < lasts_s or (nodes and not seen and past_s < READY_S_MAX):
            await asyncio.sleep(_JUMP_SEEN_S)
            right = await asyncio.gather(*map(self._watch.clock_is_right, nodes))
            seen += right.count(True)
            for node, is_right in zip(nodes, right, strict=True):
                if is_right is False:
                    self._clocks_wrong.append(f"the clock of {node} was set, and it has another time")
        self._jumps_unseen += bool(nodes) and not seen
        self._jumps_seen += seen


def _both_ways(one: Sequence[str], two: Sequence[str]) -> list[Drop]:
    return [drop for a in one for b in two for drop in ((a, b), (b, a))]
