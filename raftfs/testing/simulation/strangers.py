"""Strangers: somebody who is no member comes to the peer port, and speaks the members' messages.

It comes under a name that nobody has, as one who was removed (with the data directory that it had), or under the name
of a member with another data directory. The roster decides about its greeting, as about everybody's. If it is let in,
it says the worst that it can, as somebody does who has listened to all that the members say: it acknowledges what the
leader has, confirms that it leads, grants every vote, and sends entries as the leader of a newer term.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from raftfs.consensus import messages as m
from raftfs.consensus.guard import NO_OP
from raftfs.testing.simulation.loop import VirtualLoop
from raftfs.testing.simulation.network import SimulatedTransport
from raftfs.testing.simulation.node import Node

_STAYS_S: Final = (0.2, 2.0)
_SPEAKS_EVERY_S: Final = 0.005


class Strangers:
    """``come``: one of them comes to one of the nodes."""

    def __init__(
        self, loop: VirtualLoop, nodes: dict[str, Node], rng: random.Random, trace: Callable[..., None]
    ) -> None:
        self._loop, self._nodes, self._rng, self._trace = loop, nodes, rng, trace

    def come(self, node: Node) -> None:
        transport = node.transport
        if not node.up or transport is None:
            return
        name, uuid, fresh = self._rng.choice(self._identities(transport))
        refused = transport.roster.admit(name, uuid, fresh)
        self._loop.seen["stranger: refused" if refused is not None else "stranger: let in"] += 1
        self._trace("stranger", name, uuid, "at", node.name, refused)
        if refused is None:
            until_s = self._loop.now_s + self._rng.uniform(*_STAYS_S)
            self._loop.call_soon(self._speak, node, transport, name, until_s, context=transport.process.context)

    def _identities(self, at: SimulatedTransport) -> list[tuple[str, str, bool]]:
        """Name, data directory, and whether that is empty, of all that might come. A name that is bound to no directory
        yet is bound to the first that comes: nobody could see that it is the wrong one."""
        roster, other = at.roster, f"{self._rng.getrandbits(64):016x}"
        found = [("stranger", other, self._rng.random() < 0.5)]
        if roster.checks:
            book = roster.book
            found += [(name, other, self._rng.random() < 0.5) for name, record in book.items() if record.uuid]
            found += [
                (name, node.uuid, False)
                for name, node in self._nodes.items()
                if name != roster.me and name not in book and node.uuid
            ]
        return found

    def _speak(self, node: Node, transport: SimulatedTransport, name: str, until_s: float) -> None:
        if node.transport is not transport or self._loop.now_s > until_s:
            return
        for message in _lies(node):
            try:
                transport.on.message(name, message)
            except m.ProtocolViolation:
                return  # its connection is closed
        later_s = self._loop.now_s + _SPEAKS_EVERY_S
        self._loop.call_at_world(
            later_s, self._speak, node, transport, name, until_s, context=transport.process.context
        )


def _lies(node: Node) -> list[m.Message]:
    """What does most harm to a node as it is now."""
    consensus = node.consensus
    journal, term = consensus._journal, consensus.term
    last, last_term = journal.last_index, journal.last_term
    if consensus.is_leader:
        asked = consensus._barriers._number
        return [m.AppendAck(term, 0, last, False), m.ProbeAck(term, asked)]
    entry = m.WireEntry(term + 1, NO_OP)
    return [
        m.PreVoteGrant(term + 1), m.VoteGrant(term), m.Append(term + 1, 0, last, last_term, last + 1, [entry])
    ]  # fmt: skip
