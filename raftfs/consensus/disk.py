"""Whether this node's disk is good enough to lead: it must have room, and keep up with the disks of the others.

A leader counts no entry before it is durable here, so a disk that hangs, and fails nothing, would hold up every write
while heartbeats go on and nobody else stands. Compared is what is durable: a majority that holds an entry for so long
without this node can do without it. Where all disks are equally slow nobody is better, and nothing changes. Sans-IO:
``tick`` moves it.
"""

from __future__ import annotations

from collections.abc import Callable

from raftfs.consensus.journal import Journal
from raftfs.limits import STATE_HANG_TIMES_MAX


class DiskWatch:
    """``patience_s``: how long a write of the log may take before the disk is said to hang."""

    def __init__(self, *, journal: Journal, patience_s: float, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._patience_s = patience_s
        self._clock = clock
        self.full = False
        """whether log or state found no room; set by whoever writes them"""
        self.applying_since_s: float | None = None
        """when the state machine began with what it is at now; set by whoever calls it"""
        self._durable_index = journal.durable_index
        self._moved_s = clock()
        self._ahead: tuple[int, float] | None = None
        """an index that the others have and this node had not when it was noted, and when that was"""

    def tick(self, held_by_others: int) -> None:
        """``held_by_others``: on a leader, the index up to which a majority without it holds the log; 0 elsewhere."""
        now_s, durable = self._clock(), self._journal.durable_index
        if durable != self._durable_index or durable == self._journal.last_index:
            self._durable_index, self._moved_s = durable, now_s
        if self._ahead is not None and (durable >= self._ahead[0] or not held_by_others):
            self._ahead = None
        if self._ahead is None and held_by_others > durable:
            self._ahead = held_by_others, now_s

    @property
    def _state_hangs(self) -> bool:
        """An entry may rightly take long, but everywhere: so there is more patience than with the log."""
        if self.applying_since_s is None:
            return False
        return self._clock() - self.applying_since_s > STATE_HANG_TIMES_MAX * self._patience_s

    @property
    def may_lead(self) -> bool:
        """Whether this node should stand for election: something waits for its disk, and nothing gets there."""
        return not self.full and not self._state_hangs and self._clock() - self._moved_s <= self._patience_s

    @property
    def should_yield(self) -> bool:
        """As leader: whether the others have done for long, or while this disk is full, what it has not; or whether
        the state machine hangs, which holds up every write as well."""
        if self._state_hangs:
            return True
        if self._ahead is None:
            return False
        return self.full or self._clock() - self._ahead[1] > self._patience_s
