"""The guard with one of its rules left out, to show that each is needed and that the checker sees what it prevents."""

from __future__ import annotations

from typing import Any

from raftfs.consensus import messages as m
from raftfs.consensus.guard import Guard


class AcksBeforeDurable(Guard):
    """Without rule 1: entries count, here and elsewhere, before they are on this node's disk."""

    def _durable(self, index: int) -> int:
        return index


class CutsWhatMatches(Guard):
    """Without rule 2, and without the sender's half of it (rule 8): appends leave as PySyncObj makes them, two entries
    a message, again and again; and PySyncObj sees them as they came, and cuts the log behind their beginning."""

    def _send_append(self, peer: str, message: dict[str, Any]) -> None:
        flow = self._flows[peer]
        flow.enter_term(message["term"])
        entries = [m.WireEntry(term, bytes(data)) for data, _, term in message["entries"]]
        for start in range(0, max(1, len(entries)), 2):
            prev = message["prevLogIdx"] + start
            self._seq += 1
            part = entries[start : start + 2]
            self._emit(
                peer, m.Append(flow.term, self._seq, prev, self._journal.term(prev), message["commit_index"], part)
            )

    def _trim(self, prev: int, entries: list[m.WireEntry]) -> tuple[int, list[m.WireEntry]]:
        return prev, entries


class CountsEveryAck(Guard):
    """Without rule 3: PySyncObj gets each acknowledgement, of whatever term."""

    def receive(self, peer: str, message: m.Message) -> None:
        if isinstance(message, m.AppendAck) and not message.reset:
            next_index = message.match_index + 1
            self._deliver(peer, type="next_node_idx", next_node_idx=next_index, reset=False, success=True)
        else:
            super().receive(peer, message)


class CommitsUnverified(Guard):
    """Without rule 4: PySyncObj sees the leader's commit index as it came."""

    commit = 0

    def _receive_append(self, peer: str, message: m.Append) -> None:
        self.commit = message.commit_index
        super()._receive_append(peer, message)

    def _deliver(self, peer: str, **message: Any) -> None:
        if message["type"] == "append_entries":
            message["commit_index"] = self.commit
        super()._deliver(peer, **message)
