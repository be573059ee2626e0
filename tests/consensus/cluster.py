"""What the cluster of plain PySyncObj and the cluster of ours have in common, so that both run the same schedules.

A node does something only when the test delivers a message to it, lets it tick, or proposes through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from raftfs.testing.invariants import LogEntry
from raftfs.testing.virtual import Clock, Network

ELECTION_S = 2.0  # longer than every election timeout, of PySyncObj's (1.4 s) and of our (0.8 s) configuration


class Cluster(ABC):
    def __init__(self, names: Iterable[str], clock: Clock) -> None:
        self.clock = clock
        self.names = sorted(names)
        self.network: Network[Any] = Network(self.names, self._deliver, self._announce)
        self.nodes: dict[str, Any] = {}

    @abstractmethod
    def _deliver(self, source: str, target: str, message: Any) -> None: ...

    @abstractmethod
    def _announce(self, name: str, peer: str, up: bool) -> None: ...

    @abstractmethod
    def start(self, name: str) -> None:
        """Start a node on what its disk holds. It is connected to nobody yet."""

    @abstractmethod
    def crash(self, name: str, *, power: bool = False) -> None:
        """Kill a node. With ``power``, its disk also forgets what is not known to be durable."""

    @abstractmethod
    def tick(self, *names: str) -> None: ...

    @abstractmethod
    def put(self, name: str, value: Any) -> Any:
        """Propose through a node. The answer has ``value`` and ``acknowledged``."""

    @abstractmethod
    def is_leader(self, name: str) -> bool: ...

    @abstractmethod
    def term(self, name: str) -> int: ...

    @abstractmethod
    def values(self, name: str) -> list[Any]:
        """What the node has applied, in order."""

    @abstractmethod
    def log(self, name: str, first: int = 1) -> Sequence[LogEntry]:
        """The entries from index ``first`` on."""

    @abstractmethod
    def applied_index(self, name: str) -> int: ...

    @abstractmethod
    def disk_step(self, name: str) -> None:
        """Let a node's disk go on with what it has to do."""

    def start_all(self) -> None:
        for name in self.names:
            self.start(name)
        self.network.connect_all()

    def restart(self, name: str) -> None:
        """Start a node and connect it to all that run."""
        self.start(name)
        for other in self.nodes:
            if other != name:
                self.network.connect(name, other)

    def close(self) -> None:
        for name in list(self.nodes):
            self.crash(name)

    def run(self, seconds: float, step_s: float = 0.05) -> None:
        """Let time pass for everybody, with a network that takes no time."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            self.tick(*self.nodes)
            self.network.drain()

    def run_only(self, name: str, seconds: float, step_s: float = 0.2) -> None:
        """Let one node tick, and deliver what is not held; the others only answer."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            self.tick(name)
            self.network.drain()

    def elect(self, name: str) -> None:
        """Make a node leader: of all, it is the one that wakes first after an election timeout."""
        self.clock.advance(ELECTION_S)
        self.tick(name)
        self.network.drain()
        assert self.is_leader(name)
