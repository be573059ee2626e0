"""In-memory consensus, transport and clock for the service layer, honest about what the real ones do.

A ``FakeLog`` is one replicated log for all members in this process; each member's commands go through a real state
machine. A ``FakeNetwork`` joins their transports. Both can be told to fail in the ways that real ones do: members that
are down or cut off, requests that hang, answers that get lost. Nothing here is durable and nothing elects a leader:
the test says who leads.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raftfs.consensus import Configuration
from raftfs.errors import Conflict, NotLeader, Unavailable, UnknownOutcome
from raftfs.fsync import Kernel
from raftfs.service.ports import Buffer, Handler
from raftfs.state import StateMachine
from raftfs.state.commands import Result


class ManualClock:
    """A clock that moves when told."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = wall_ms
        self._monotonic_s = 1000.0

    def monotonic(self) -> float:
        return self._monotonic_s

    def wall_ms(self) -> int:
        return self._wall_ms

    def wall_s(self) -> float:
        return self._wall_ms / 1000

    def advance(self, seconds: float) -> None:
        self._monotonic_s += seconds
        self._wall_ms += round(seconds * 1000)

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._wall_ms += round(seconds * 1000)


class WatchedKernel(Kernel):
    """The system's own kernel, for ``raftfs.fsync.simulated``: ``look(what, path)`` is called before each of its steps
    ("data", "directory", "replace"), and sees the disk as a power cut would find it then."""

    def __init__(self, look: Callable[[str, Path], object]) -> None:
        self._look = look

    def sync_data(self, fd: int, path: Path) -> None:
        self._look("data", path)
        super().sync_data(fd, path)

    def sync_directory(self, fd: int, path: Path) -> None:
        self._look("directory", path)
        super().sync_directory(fd, path)

    def replace(self, source: Path, target: Path) -> None:
        self._look("replace", target)
        super().replace(source, target)


class FakeNetwork:
    """Who can talk to whom. ``down`` members talk to nobody; ``cut`` pairs not with each other.

    ``hold(peer, kind)`` makes requests of that kind hang at the peer until ``release``; ``lie(peer)`` makes its
    answers wrong. ``in_flight`` and ``most_in_flight`` count payload bytes on their way to each peer; ``requests``
    counts requests by (peer, kind).
    """

    def __init__(self, members: Sequence[str]) -> None:
        self.members = list(members)
        self.down: set[str] = set()
        self.cut: set[frozenset[str]] = set()
        self.lying: set[str] = set()
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.handlers: dict[tuple[str, str], Handler] = {}
        self._held: dict[tuple[str, str], asyncio.Event] = {}

    def reaches(self, a: str, b: str) -> bool:
        return a == b or not ({a, b} & self.down or frozenset((a, b)) in self.cut)

    def has_majority(self, member: str) -> bool:
        reached = sum(self.reaches(member, other) for other in self.members)
        return member not in self.down and reached > len(self.members) // 2

    def hold(self, peer: str, kind: str) -> None:
        self._held[peer, kind] = asyncio.Event()

    def release(self, peer: str, kind: str) -> None:
        self._held.pop((peer, kind)).set()

    def lie(self, peer: str) -> None:
        self.lying.add(peer)

    async def deliver(self, source: str, peer: str, kind: str, payload: bytes) -> bytes:
        self._check(source, peer)
        self.requests[peer, kind] += 1
        self.in_flight[peer] += len(payload)
        self.most_in_flight[peer] = max(self.most_in_flight[peer], self.in_flight[peer])
        try:
            held = self._held.get((peer, kind))
            if held is not None:
                await held.wait()
            self._check(source, peer)
            answer = await self.handlers[peer, kind](source, payload)
            self._check(source, peer)
        finally:
            self.in_flight[peer] -= len(payload)
        return bytes(byte ^ 1 for byte in answer[:1]) + answer[1:] if peer in self.lying else answer

    def _check(self, source: str, peer: str) -> None:
        if not self.reaches(source, peer):
            raise Unavailable(f"{peer} cannot be reached")


class FakeTransport:
    """One member's end of the network."""

    def __init__(self, network: FakeNetwork, me: str) -> None:
        self._network, self._me = network, me

    def handle(self, kind: str, handler: Handler) -> None:
        self._network.handlers[self._me, kind] = handler

    async def request(self, peer: str, kind: str, payload: bytes | Sequence[Buffer], *, timeout_s: float) -> bytes:
        whole = payload if isinstance(payload, bytes) else b"".join(payload)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(0)
                return await self._network.deliver(self._me, peer, kind, whole)
        except TimeoutError:
            raise Unavailable(f"{peer} did not answer in {timeout_s:g} s") from None

    def connected(self, peer: str) -> bool:
        return self._network.reaches(self._me, peer)


class FakeLog:
    """The replicated log: committed at once if the leader has a majority, applied on every member that it reaches.

    ``slow`` members are connected and do not take entries. ``forget_answers`` of the next proposals are applied and
    then reported as unknown.
    """

    def __init__(
        self, network: FakeNetwork, machines: Mapping[str, StateMachine], leader: str,
        configuration: Configuration | None = None,
    ) -> None:  # fmt: skip
        self.network, self.machines = network, machines
        self.leader: str | None = leader
        self.term = 1
        self.entries: list[tuple[int, bytes]] = []
        self.forget_answers = 0
        self.slow: set[str] = set()
        self.configuration = configuration or Configuration.of(network.members)

    def lead(self, leader: str | None) -> None:
        """Make another member the leader."""
        self.leader, self.term = leader, self.term + 1

    def append(self, leader: str, command: bytes) -> Result:
        """Commit and apply; the leader's result."""
        self.entries.append((self.term, command))
        reached = [name for name in self.machines if name not in self.slow and self.network.reaches(leader, name)]
        results = {member: self.catch_up(member) for member in reached}
        if self.forget_answers:
            self.forget_answers -= 1
            raise UnknownOutcome("the answer was lost")
        last = results[leader]
        assert last is not None
        return last

    def catch_up(self, member: str) -> Result | None:
        """Apply what the member lacks; the last result."""
        machine = self.machines[member]
        last = None
        for index in range(machine.applied_index + 1, len(self.entries) + 1):
            term, command = self.entries[index - 1]
            last = machine.apply(index, term, [command])[0]
        return last


@dataclass(frozen=True, slots=True)
class FakePeerStatus:
    connected: bool
    match_index: int | None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class FakeConsensusStatus:
    term: int
    leader_id: str | None
    commit_index: int
    applied_index: int
    peers: Mapping[str, FakePeerStatus]
    quorum: bool


class FakeConsensus:
    """One member's view of the log."""

    def __init__(self, log: FakeLog, me: str, clock: ManualClock) -> None:
        self._log, self._me, self._clock = log, me, clock
        self._heard_s: float | None = None
        self.rejoining: str | None = None

    async def propose(self, command: bytes, *, timeout_s: float) -> Result:
        # No await before the append: commands enter the log in the order of the calls.
        if not self.is_leader:
            raise NotLeader(f"{self._me} is not the leader", outcome="not_applied")
        self._require_majority()
        result = self._log.append(self._me, command)
        await asyncio.sleep(0)
        return result

    async def barrier(self, *, timeout_s: float) -> int:
        leader = self._log.leader
        await asyncio.sleep(0)
        network = self._log.network
        if leader is None or not network.reaches(self._me, leader) or not network.has_majority(leader):
            raise Unavailable("no leader with a quorum can be reached", retry_after_s=1.0)
        self._log.catch_up(self._me)
        return self.applied_index

    @property
    def leader_id(self) -> str | None:
        return self._log.leader

    @property
    def is_leader(self) -> bool:
        return self._log.leader == self._me

    @property
    def term(self) -> int:
        return self._log.term

    @property
    def commit_index(self) -> int:
        return len(self._log.entries) if self._hears_leader() else self.applied_index

    @property
    def applied_index(self) -> int:
        return self._log.machines[self._me].applied_index

    @property
    def configuration(self) -> Configuration:
        return self._log.configuration

    async def change_members(self, change: Callable[[Configuration], Configuration], *, timeout_s: float) -> None:
        self._require_majority()
        try:
            self._log.configuration = change(self.configuration)
        except ValueError as error:
            raise Conflict(str(error), outcome="not_applied", retry_after_s=1.0) from None

    async def transfer(self, *, timeout_s: float, to: str | None = None) -> bool:
        others = [name for name in self._log.network.members if name != self._me]
        self._log.lead(to or (others[0] if others else self._me))
        return self._log.leader != self._me

    def hold_log(self, index: int | None) -> None:
        """The log in memory is never cut."""

    @property
    def awaited(self) -> list[str]:
        return []

    def last_contact_s(self) -> float | None:
        if self._hears_leader():
            self._heard_s = self._clock.monotonic()
        return None if self._heard_s is None else self._clock.monotonic() - self._heard_s

    def _require_majority(self) -> None:
        if not self._log.network.has_majority(self._me):
            raise Unavailable("no quorum", outcome="not_applied", retry_after_s=1.0)

    def _hears_leader(self) -> bool:
        leader = self._log.leader
        network = self._log.network
        return leader is not None and network.reaches(self._me, leader) and network.has_majority(leader)

    def status(self) -> FakeConsensusStatus:
        peers = {
            peer: FakePeerStatus(self._log.network.reaches(self._me, peer), self._log.machines[peer].applied_index)
            for peer in self._log.network.members
            if peer != self._me
        }
        return FakeConsensusStatus(
            self.term, self.leader_id, self.commit_index, self.applied_index, peers, self._hears_leader()
        )
