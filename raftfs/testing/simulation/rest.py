"""What a cluster at rest has to bear without a word: one broken link, a dead leader, a leader that nobody hears.

No other fault is about, so each of these has an exact answer, in time too (which is virtual, so it is exact).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from raftfs.config import RaftTimes
from raftfs.testing.invariants import Violation
from raftfs.testing.simulation.loop import VirtualLoop
from raftfs.testing.simulation.network import Network
from raftfs.testing.simulation.node import Node

_SETTLE_S: Final = 3.0
_QUIET_S: Final = 3.0
_BROKEN_LINK_S: Final = 1.5
_SLACK_S: Final = 0.1  # between a deadline and the turn that looks at it


class Rest:
    """``run`` tries one thing, drawn if none is named. Raises Violation."""

    def __init__(
        self, loop: VirtualLoop, nodes: dict[str, Node], network: Network, rng: random.Random, times: RaftTimes,
        trace: Callable[..., None],
    ) -> None:  # fmt: skip
        self._loop, self._nodes, self._network, self._rng, self._trace = loop, nodes, network, rng, trace
        self._shortest_s = times.election_timeout_ms_min / 1000
        self._longest_s = times.election_timeout_ms_max / 1000

    async def run(self, named: str | None = None) -> None:
        self._network.settle()
        await asyncio.sleep(_SETTLE_S)
        trials = {
            "break_a_link": self._break_a_link,
            "kill_the_leader": self._kill_the_leader,
            "silence_the_leader": self._silence_the_leader,
        }
        name = self._rng.choice(list(trials)) if named is None else named
        self._loop.seen[f"at rest: {name.replace('_', ' ')}"] += 1
        await trials[name]()

    async def stay_quiet(self, members: Sequence[Node]) -> None:
        """Who was removed runs on, and disturbs nobody."""
        self._network.settle()
        await asyncio.sleep(_SETTLE_S)
        before = {node.name: (node.consensus.term, node.consensus.leader_id) for node in members}
        self._loop.seen["at rest: who was removed is quiet"] += len(members) < len(self._nodes)
        await asyncio.sleep(_QUIET_S)
        after = {node.name: (node.consensus.term, node.consensus.leader_id) for node in members}
        if before != after or len(set(after.values())) != 1:
            raise Violation("loyalty", f"the members were {before}, and are {after}, with nobody's fault")

    def _leader(self) -> Node:
        leaders = [node for node in self._nodes.values() if node.consensus.is_leader]
        if len(leaders) != 1:
            raise Violation("liveness", f"{len(leaders)} leaders long after the faults had stopped")
        return leaders[0]

    def _others(self, leader: Node) -> list[str]:
        return [name for name in self._nodes if name != leader.name]

    async def _break_a_link(self) -> None:
        """Between the leader and one follower, in one direction or both: the others hear the leader, so nothing
        changes. Nobody writes meanwhile, or the follower could not be elected anyhow."""
        leader = self._leader()
        term, follower = leader.consensus.term, self._rng.choice(self._others(leader))
        links = [(leader.name, follower), (follower, leader.name)]
        cut = links if self._rng.random() < 0.5 else links[:1]
        self._trace("one link cut", cut)
        self._network.cut_off(cut)
        self._network.break_wire(leader.name, follower)
        await asyncio.sleep(_BROKEN_LINK_S)
        self._network.mend(cut)
        await asyncio.sleep(0.5)
        if leader.consensus.term != term or not leader.consensus.is_leader:
            raise Violation("loyalty", f"{leader.name} lost its office to one broken link")

    async def _kill_the_leader(self) -> None:
        """Its kernel closes its connections: another one leads before the shortest election timeout is over."""
        leader = self._leader()
        term = leader.consensus.term
        leader.crash(power=False)
        await asyncio.sleep(self._shortest_s)
        others = [self._nodes[name] for name in self._others(leader)]
        if not any(node.consensus.is_leader and node.consensus.term > term for node in others):
            raise Violation("quick failover", f"nobody leads {self._shortest_s:g} s after the death of {leader.name}")
        leader.start()

    async def _silence_the_leader(self) -> None:
        """It hears nobody and nobody hears it: it steps down within the longest election timeout."""
        leader = self._leader()
        cut = [link for name in self._others(leader) for link in ((leader.name, name), (name, leader.name))]
        self._trace("leader silenced", leader.name)
        self._network.cut_off(cut)
        await asyncio.sleep(self._longest_s + _SLACK_S)
        if leader.consensus.is_leader:
            raise Violation("check-quorum", f"{leader.name} leads on without a quorum")
        self._network.mend(cut)
