"""PySyncObj as it comes, in the place of raftfs's engine: a guard without any rule, which only translates messages.

It keeps raftfs's journal and is asked for durability as PySyncObj asks for it: never. Its own election timer decides
about elections (with a time that is drawn once for each life of a node, as a drawn one would come from a random source
of its own).
"""

from __future__ import annotations

from typing import Any

from raftfs.consensus import messages as m
from raftfs.consensus.elections import Elections
from raftfs.consensus.engine import Engine
from raftfs.consensus.guard import Guard

_TICK_S = 0.02


class PassThrough(Guard):
    """Messages go to and from PySyncObj as they come."""

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        kind, peer, term = message["type"], node.id, message.get("term", 0)
        if kind == "append_entries" and message.get("prevLogIdx") is not None and message["prevLogTerm"] is not None:
            entries = [m.WireEntry(entry_term, bytes(data)) for data, _, entry_term in message["entries"]]
            commit = message["commit_index"]
            self._emit(peer, m.Append(term, 0, message["prevLogIdx"], message["prevLogTerm"], commit, entries))
        elif kind == "next_node_idx":
            self._emit(peer, m.AppendAck(self.core.term, 0, message["next_node_idx"] - 1, message["reset"]))
        elif kind == "request_vote":
            self._emit(peer, m.VoteRequest(term, message["last_log_index"], message["last_log_term"]))
        elif kind == "response_vote":
            self._emit(peer, m.VoteGrant(term))
        elif kind == "timeout_now":
            self._emit(peer, m.TimeoutNow(term))
        return True

    def receive(self, peer: str, message: m.Message) -> None:
        if isinstance(message, m.Append):
            self.leader_heard_s = self._clock()
            first = message.prev_index + 1
            self._deliver(
                peer, type="append_entries", term=message.term, commit_index=message.commit_index,
                prevLogIdx=message.prev_index, prevLogTerm=message.prev_term,
                entries=[(entry.data, first + at, entry.term) for at, entry in enumerate(message.entries)],
            )  # fmt: skip
        elif isinstance(message, m.AppendAck):
            self._deliver(
                peer, type="next_node_idx", next_node_idx=message.match_index + 1, reset=message.reset,
                success=not message.reset,
            )  # fmt: skip
        elif isinstance(message, m.VoteRequest):
            self._deliver(
                peer, type="request_vote", term=message.term, last_log_index=message.last_log_index,
                last_log_term=message.last_log_term,
            )  # fmt: skip
        elif isinstance(message, m.VoteGrant):
            self._deliver(peer, type="response_vote", term=message.term)
        elif isinstance(message, m.TimeoutNow):
            self._deliver(peer, type="timeout_now", term=message.term)

    def durable(self) -> None:
        """Nobody waits for the disk."""


class _NoElections(Elections):
    """PySyncObj's own timer decides; it is asked often enough."""

    def tick(self) -> None:
        pass

    @property
    def due_s(self) -> float:
        return self._clock() + _TICK_S


class PlainEngine(Engine):
    """What a program gets that uses PySyncObj as its documentation says, but for the journal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, guard=PassThrough)
        times, clock, raft = options["times"], options["clock"], self._raft
        timeout_s = options["rng"].uniform(times.election_timeout_ms_min, times.election_timeout_ms_max) / 1000
        raft._SyncObj__conf.raftMinTimeout = raft._SyncObj__conf.raftMaxTimeout = timeout_s
        raft._SyncObj__raftElectionDeadline = clock() + timeout_s
        self.elections = _NoElections(
            me=options["me"], peers=self.peers, voter=self, times=times, emit=options["emit"], clock=clock,
            rng=options["rng"],
        )  # fmt: skip

    @property
    def safe_index(self) -> int:
        return self.commit_index

    def receive(self, peer: str, message: m.Message) -> None:
        self.guard.receive(peer, message)

    def tick(self) -> None:
        self._raft.doTick(0.0)
