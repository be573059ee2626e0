"""What the use cases need from the world: consensus, the peers and the clocks.

The real ones are ``raftfs.consensus`` and ``SystemClock``; ``raftfs.testing.fakes`` ships in-memory ones.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from raftfs.consensus import Configuration

Buffer = bytes | bytearray | memoryview
Handler = Callable[[str, bytes], Awaitable[bytes]]


class PeerStatusPort(Protocol):
    """How the leader sees one peer."""

    @property
    def connected(self) -> bool: ...
    @property
    def match_index(self) -> int | None: ...
    @property
    def refused(self) -> str | None: ...


class ConsensusStatusPort(Protocol):
    """A snapshot of what a member knows of the cluster."""

    @property
    def term(self) -> int: ...
    @property
    def leader_id(self) -> str | None: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def peers(self) -> Mapping[str, PeerStatusPort]: ...
    @property
    def quorum(self) -> bool: ...


class ConsensusPort(Protocol):
    """The replicated log. ``propose`` puts commands into the log in the order in which it is called."""

    async def propose(self, command: bytes, *, timeout_s: float) -> Any:
        """The local result. NotLeader, Unavailable, Overloaded: not applied. UnknownOutcome: perhaps applied."""

    async def barrier(self, *, timeout_s: float) -> int:
        """Returns when local state is as new as the cluster was at the call. Unavailable, DeadlineExceeded."""

    @property
    def leader_id(self) -> str | None: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def rejoining(self) -> str | None:
        """How far this member is with getting back what was damaged: nobody may read here. None if it is whole."""

    @property
    def awaited(self) -> list[str]:
        """Members whom this node must hear before it votes, because it has no data."""

    def last_contact_s(self) -> float | None:
        """Seconds since this node heard the leader; 0.0 on a leader with a quorum; None if never."""

    def status(self) -> ConsensusStatusPort: ...
    @property
    def configuration(self) -> Configuration:
        """The members that count now."""

    async def change_members(self, change: Callable[[Configuration], Configuration], *, timeout_s: float) -> None:
        """Conflict (not applied): not now; ``propose``'s errors."""

    async def transfer(self, *, timeout_s: float, to: str | None = None) -> bool:
        """Whether another member took the leadership over in time."""

    def hold_log(self, index: int | None) -> None:
        """Keep the log from this index on, for a member that fetches our state; None ends it."""


class TransportPort(Protocol):
    """Bulk requests between members."""

    def handle(self, kind: str, handler: Handler) -> None:
        """Answer requests of this kind; the handler gets the peer's id and the payload."""

    async def request(self, peer: str, kind: str, payload: bytes | Sequence[Buffer], *, timeout_s: float) -> bytes:
        """Raises Unavailable when the peer cannot be reached or does not answer in time, else what its handler did."""

    def connected(self, peer: str) -> bool: ...


class Clock(Protocol):
    """Time, passed in so that a simulator can own it."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, for deadlines and ages."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, for what people see and for expiry."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
