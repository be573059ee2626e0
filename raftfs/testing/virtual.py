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
        self._stall: tuple[int, float] = (0, 0.0)

    def __call__(self) -> float:
        left, seconds = self._stall
        self._stall = (left - 1, seconds)
        self.now_s += self._step_s + (seconds if left == 1 else 0.0)
        return self.now_s

    def stall(self, reading: int, seconds: float) -> None:
        """Let the process stand still for a while, just before the given reading from now (1 is the next)."""
        self._stall = (reading, seconds)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Network(Generic[Message]):
    """First-in-first-out links between named nodes, one for each direction.

    ``deliver(source, target, message)`` hands a message to its target; ``announce(node, peer, up)`` tells a node that
    its connection to a peer came up or broke. A pair of nodes may be connected in one direction alone.
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
        self.links = [(a, b) for a in self.names for b in self.names if a != b]
        self._queues: dict[tuple[str, str], deque[Message]] = {link: deque() for link in self.links}
        self._late: dict[tuple[str, str], deque[Message]] = {link: deque() for link in self.links}
        self._up: set[tuple[str, str]] = set()
        self._held: set[tuple[str, str]] = set()

    def connected(self, source: str, target: str) -> bool:
        return (source, target) in self._up

    def connect(self, a: str, b: str) -> None:
        """Bring the links of a pair up and tell both ends. Nothing happens to a link that is up."""
        for link in ((a, b), (b, a)):
            self.connect_one(*link)

    def connect_one(self, source: str, target: str) -> None:
        """Bring one direction up and tell its sender."""
        if (source, target) not in self._up:
            self._up.add((source, target))
            self._announce(source, target, True)

    def connect_all(self) -> None:
        for link in self.links:
            self.connect_one(*link)

    def reset(self, a: str, b: str) -> None:
        """Break a connection: what is in flight, in both directions, is lost, and both ends are told."""
        broken = [link for link in ((a, b), (b, a)) if link in self._up]
        for link in broken:
            self._up.discard(link)
            self._queues[link].clear()
        for source, target in broken:
            self._announce(source, target, False)

    def reset_one(self, source: str, target: str, *, late: bool = False) -> None:
        """Break one direction and tell its sender. With ``late``, what is in flight may still arrive, even after what
        is sent on the next connection: the receiver has two sockets then, and reads them in any order."""
        if (source, target) in self._up:
            self._up.discard((source, target))
            if late:
                self._late[source, target].extend(self._queues[source, target])
            self._queues[source, target].clear()
            self._announce(source, target, False)

    def isolate(self, name: str) -> None:
        """Break every connection of a node."""
        for other in self.names:
            if other != name:
                self.reset(name, other)

    def forget(self, name: str) -> None:
        """Nothing that was on its way to a node arrives any more: its process ended."""
        for source, target in self.links:
            if target == name:
                self._late[source, target].clear()

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

    def late(self) -> list[tuple[str, str]]:
        """The links that have something left from a broken connection."""
        return [link for link, queue in self._late.items() if queue]

    def deliver_late(self, source: str, target: str) -> None:
        """Deliver the oldest message that was left on a broken connection."""
        self._deliver(source, target, self._late[source, target].popleft())

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
