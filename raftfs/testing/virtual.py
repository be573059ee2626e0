"""Virtual time and a virtual network, so that a cluster in one process can be led through any schedule, repeatably.

Nothing here knows an engine. A cluster of engines hands its messages to :class:`Network` and gets them back when the
test says so; the time that it sees is :class:`Clock`. Links are what TCP connections are: first in, first out, lossless
until they break, and what is in flight then is lost. A test may hold a link (the bytes are delayed), break it, or copy
a message (which TCP never does, but an attacker on the path can).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

Message = TypeVar("Message")

DELIVERIES_MAX: Final = 1_000_000  # a drain that delivers more than this is a message storm, not a schedule


class Clock:
    """Seconds that pass only when told. Each reading moves the clock on by ``step_s``, so that loops which wait for
    time to pass come to an end."""

    def __init__(self, start_s: float = 1000.0, step_s: float = 1e-6) -> None:
        self.now_s = start_s
        self._step_s = step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Network(Generic[Message]):
    """First-in-first-out links between named nodes.

    ``deliver(source, target, message)`` hands a message to its target; ``announce(node, peer, up)`` tells a node that
    its connection to a peer came up or broke.
    """

    def __init__(
        self,
        names: Iterable[str],
        deliver: Callable[[str, str, Message], None],
        announce: Callable[[str, str, bool], None],
    ) -> None:
        self.names = sorted(names)
        self._deliver = deliver
        self._announce = announce
        self._queues: dict[tuple[str, str], deque[Message]] = {
            (a, b): deque() for a in self.names for b in self.names if a != b
        }
        self._up: set[frozenset[str]] = set()
        self._held: set[tuple[str, str]] = set()

    def connected(self, a: str, b: str) -> bool:
        return frozenset((a, b)) in self._up

    def connect(self, a: str, b: str) -> None:
        """Bring a connection up and tell both ends. Nothing happens if it is up."""
        if self.connected(a, b):
            return
        self._up.add(frozenset((a, b)))
        self._announce(a, b, True)
        self._announce(b, a, True)

    def connect_all(self) -> None:
        for i, a in enumerate(self.names):
            for b in self.names[i + 1 :]:
                self.connect(a, b)

    def reset(self, a: str, b: str) -> None:
        """Break a connection: what is in flight, in both directions, is lost, and both ends are told."""
        if not self.connected(a, b):
            return
        self._up.discard(frozenset((a, b)))
        self._queues[a, b].clear()
        self._queues[b, a].clear()
        self._announce(a, b, False)
        self._announce(b, a, False)

    def isolate(self, name: str) -> None:
        """Break every connection of a node."""
        for other in self.names:
            if other != name:
                self.reset(name, other)

    def send(self, source: str, target: str, message: Message) -> bool:
        """Put a message on a link. False if the connection is down (the message is then lost)."""
        if not self.connected(source, target):
            return False
        self._queues[source, target].append(message)
        return True

    def hold(self, source: str, target: str) -> None:
        """Delay everything on a link, in one direction, until :meth:`release`."""
        self._held.add((source, target))

    def hold_all(self, name: str) -> None:
        """Delay everything from and to a node."""
        for other in self.names:
            if other != name:
                self.hold(name, other)
                self.hold(other, name)

    def release(self, source: str, target: str) -> None:
        self._held.discard((source, target))

    def release_all(self) -> None:
        self._held.clear()

    def in_flight(self, source: str, target: str) -> list[Message]:
        """The messages on a link, oldest first."""
        return list(self._queues[source, target])

    def busy(self) -> list[tuple[str, str]]:
        """The links, in a fixed order, that have something to deliver and are not held."""
        return [link for link, queue in self._queues.items() if queue and link not in self._held]

    def deliver(self, source: str, target: str, count: int = 1) -> int:
        """Deliver the oldest messages of a link, held or not. Returns how many there were."""
        done = 0
        while done < count and self._queues[source, target]:
            self._deliver(source, target, self._queues[source, target].popleft())
            done += 1
        return done

    def duplicate(self, source: str, target: str, position: int = 0) -> None:
        """Put a copy of a message in flight at the end of its link."""
        queue = self._queues[source, target]
        queue.append(queue[position])

    def drain(self) -> int:
        """Deliver one message of each link in turn until every link that is not held is empty."""
        done = 0
        while links := self.busy():
            for source, target in links:
                done += self.deliver(source, target)
            if done > DELIVERIES_MAX:
                raise RuntimeError(f"the network does not come to rest: {done} deliveries")
        return done
