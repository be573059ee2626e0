"""What a leader knows about one follower's connection: what was sent in this term, and how much is unanswered."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from raftfs.limits import PEER_BYTES_IN_FLIGHT_MAX, PEER_ENTRIES_IN_FLIGHT_MAX


@dataclass(slots=True)
class Flow:
    """One connection to one peer, with at most ``bytes_max`` (and one more entry) unanswered on it. ``sent_index`` 0:
    nothing was sent on it in ``term``."""

    bytes_max: int = PEER_BYTES_IN_FLIGHT_MAX
    term: int = 0
    sent_index: int = 0
    match_index: int = 0
    commit_sent: int = 0
    sent_at_s: float = float("-inf")
    reset_floor: int = 0
    """resets that answer an append with a lower seq are stale"""
    first_seq: int = 0
    """the append that asked whether the peer has the first entry of our log"""
    behind_told_s: float = float("-inf")
    paused: bool = False
    asking: bool = False
    """entries wait for the answer: what is on its way still counts, although it is forgotten here"""
    _unacked: deque[tuple[int, int]] = field(default_factory=deque)
    _unacked_bytes: int = 0

    def enter_term(self, term: int) -> None:
        """A new leadership: nothing that was sent before counts."""
        if term != self.term:
            self.term = term
            self.match_index = 0
            self.commit_sent = 0
            self.forget()

    def forget(self) -> None:
        """The peer did not accept what was sent: send again from wherever the engine says."""
        self.sent_index = 0
        self.asking = False
        self._unacked.clear()
        self._unacked_bytes = 0

    def ask(self) -> None:
        """What was sent is cut off the log: nothing more is sent until the peer, silent for long, says what it has."""
        self.forget()
        self.asking = True

    @property
    def has_room(self) -> bool:
        return (
            not self.asking and self._unacked_bytes < self.bytes_max and len(self._unacked) < PEER_ENTRIES_IN_FLIGHT_MAX
        )

    def sent(self, index: int, size: int) -> None:
        self.sent_index = index
        self._unacked.append((index, size))
        self._unacked_bytes += size

    def acknowledged(self, match_index: int) -> None:
        self.asking = False
        self.match_index = max(self.match_index, match_index)
        while self._unacked and self._unacked[0][0] <= match_index:
            self._unacked_bytes -= self._unacked.popleft()[1]
