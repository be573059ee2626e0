"""Clients: they ask the nodes for reads and writes, try again as the client library does, and keep a history.

Retrying is the library's own (``raftfs.client.retry``): another node at once, then pauses, always with the same
idempotency key. What lies between, HTTP and forwarding, is left out: a call is handed to a node after a while, and its
answer comes back after a while, or is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from raftfs.client.retry import Failure, Retries
from raftfs.errors import (
    AlreadyExists,
    DeadlineExceeded,
    NotFound,
    PreconditionFailed,
    RaftfsError,
    Unavailable,
    UnknownOutcome,
)
from raftfs.service.options import ReadOptions, WriteOptions
from raftfs.service.service import Service
from raftfs.state.commands import Result, Stat
from raftfs.testing import history as h
from raftfs.testing.simulation.judge import Judge, Seen, Written
from raftfs.testing.simulation.loop import VirtualLoop
from raftfs.testing.simulation.node import Node

_RETRIED = (Unavailable, DeadlineExceeded, UnknownOutcome)
_ATTEMPT_S_MAX = 1.5
Work = Callable[[Service], Coroutine[Any, Any, Any]]


@dataclass
class Ways:
    """Between clients and nodes. ``lost``: part of the answers that never arrive. ``passes(a, b)``: whether one node
    reaches another one, to hand on what is the leader's."""

    passes: Callable[[str, str], bool]
    delay_s: float = 0.002
    lost: float = 0.0


class Client:
    """``run`` does one thing after another until ``stop``."""

    def __init__(
        self, name: str, loop: VirtualLoop, nodes: dict[str, Node], judge: Judge, ways: Ways, rng: random.Random,
        trace: Callable[..., None], paths: list[str], *, keys: bool = True,
    ) -> None:  # fmt: skip
        self.name, self._loop, self._nodes, self._judge = name, loop, nodes, judge
        self._ways, self._rng, self._trace, self._paths = ways, rng, trace, paths
        self._preferred = self._home = rng.randrange(len(nodes))
        self._stays = rng.random() < 0.3
        """reads at its home alone, and reads most of the time"""
        self._keys = keys
        self._count = 0
        self._known: dict[str, tuple[str, int]] = {}
        self.stopped = False
        self.acknowledged = 0

    async def run(self) -> None:
        pause_s = self._rng.choice((0.003, 0.02, 0.1))
        while not self.stopped:
            path, dice = self._rng.choice(self._paths), self._rng.random()
            if self._stays and dice < 0.8:
                await self.read(path)
            elif dice < 0.4:
                await self.write(path)
            elif dice < 0.55:
                await self.swap(path)
            elif dice < 0.6:
                await self.create(path)
            elif dice < 0.65:
                await self.delete(path)
            elif dice < 0.9:
                await self.read(path)
            else:
                await self.peek(path)
            await asyncio.sleep(self._rng.random() * pause_s)

    # --- what it does --------------------------------------------------------------------------------------------

    async def write(self, path: str, timeout_s: float | None = None) -> bool:
        """Whether it was acknowledged."""
        value = self._value()
        return await self._change(h.Write(path, value), path, value, timeout_s)

    async def create(self, path: str) -> None:
        value = self._value()
        await self._change(h.Create(path, value), path, value, if_absent=True)

    async def swap(self, path: str) -> None:
        if path in self._known:
            expected, revision = self._known[path]
            value = self._value()
            await self._change(h.Swap(path, expected, value), path, value, if_match=revision)

    async def delete(self, path: str) -> None:
        key = f"{self.name}.{self._count}.delete"
        self._count += 1

        async def work(service: Service) -> Result:
            options = WriteOptions(key=key, timeout_s=self._patience_s())
            return await service.files.remove(path, kind="file", recursive=False, if_match=None, write=options)

        call, begin = h.Delete(path), self._loop.time()
        try:
            result: Result = await self._call(work, mutation=True, timeout_s=None)
        except NotFound:
            self._tell(call, h.MISSING, begin)
        except RaftfsError as error:
            self._give_up(call, begin, key, error)
        else:
            self._tell(call, h.DELETED, begin, result.revision)
            self._judge.written.append(Written(key, "once", f"{self.name}: {call}"))

    async def read(self, path: str) -> None:
        """A linearizable read at any node."""
        begin = self._loop.time()
        self._preferred = self._home if self._stays else self._rng.randrange(len(self._nodes))
        try:
            found = await self._call(self._reading(path, "linearizable"), mutation=False, timeout_s=None)
        except RaftfsError:
            return
        value, revision, stat = found
        self._judge.seen.append(Seen(path, revision, value, self.name))
        self._tell(h.Read(path), h.MISSING if value is None else value.decode(), begin, revision)
        if stat is not None and value is not None:
            self._known[path] = value.decode(), stat.revision

    async def peek(self, path: str) -> None:
        """A stale read: whatever the node has, but at the revision that it names."""
        try:
            value, revision, _ = await self._attempt(self._reading(path, "stale"), _ATTEMPT_S_MAX)
        except (RaftfsError, OSError):
            return
        self._judge.seen.append(Seen(path, revision, value, f"{self.name}, stale"))

    def _patience_s(self) -> float:
        """How long a node may take for an attempt."""
        return self._rng.uniform(0.1, _ATTEMPT_S_MAX)

    def _value(self) -> str:
        self._count += 1
        return f"{self.name}.{self._count}"

    def _reading(self, path: str, consistency: Any) -> Work:
        options = ReadOptions(consistency=consistency, timeout_s=_ATTEMPT_S_MAX)

        async def work(service: Service) -> tuple[bytes | None, int, Stat | None]:
            try:
                file = await service.files.open(path, options)
            except NotFound:
                # Its revision is not told; the parent's answer is a read of its own, so nothing is said about it.
                return None, -1, None
            return b"".join([piece async for piece in file.read(0, file.stat.size)]), file.info.revision, file.stat

        return work

    async def _change(
        self, call: h.Write | h.Create | h.Swap, path: str, value: str, timeout_s: float | None = None, *,
        if_match: int | None = None, if_absent: bool = False,
    ) -> bool:  # fmt: skip
        data, patience_s = value.encode(), self._patience_s()

        async def body() -> AsyncIterator[bytes]:
            yield data

        async def work(service: Service) -> tuple[Stat, bool]:
            return await service.files.put(
                path, body(), size=len(data), content_type=None, metadata={"key": value}, if_match=if_match,
                if_absent=if_absent, parents=False, sha256=None,
                write=WriteOptions(key=value if self._keys else None, timeout_s=patience_s),
            )  # fmt: skip

        begin = self._loop.time()
        try:
            stat, created = await self._call(work, mutation=True, timeout_s=timeout_s)
        except PreconditionFailed:
            self._tell(call, h.EXISTS if if_absent else h.MISMATCH, begin)
        except AlreadyExists:
            self._tell(call, h.EXISTS, begin)
        except RaftfsError as error:
            self._give_up(call, begin, value, error)
        else:
            self._tell(call, h.CREATED if created else h.REPLACED, begin, stat.revision)
            self._judge.written.append(Written(value, "once", f"{self.name}: {call}"))
            self._known[path] = value, stat.revision
            self.acknowledged += 1
            return True
        return False

    # --- history -------------------------------------------------------------------------------------------------

    def _tell(self, call: h.Call, result: str, begin: float, revision: int | None = None) -> None:
        self._trace("told", self.name, call, result, revision)
        if revision is not None and revision < 0:
            revision = None
        self._judge.history.append(h.Operation(call, result, begin, self._loop.time(), self.name, revision))

    def _give_up(self, call: h.Call, begin: float, key: str, error: RaftfsError) -> None:
        self._trace("told", self.name, call, error.code, error.outcome)
        refused = error.outcome == "not_applied"
        self._judge.written.append(Written(key, "never" if refused else "perhaps", f"{self.name}: {call}"))
        if not refused:
            self._judge.history.append(h.Operation(call, None, begin, h.NEVER, self.name))

    # --- calls ---------------------------------------------------------------------------------------------------

    async def _call(self, work: Work, *, mutation: bool, timeout_s: float | None) -> Any:
        ends = self._loop.time() + (self._rng.uniform(0.3, 4.0) if timeout_s is None else timeout_s)
        retries = Retries(mutation=mutation, endpoints=len(self._nodes), rng=self._rng)
        while True:
            try:
                left_s = max(ends - self._loop.time(), 0.01)
                return await self._attempt(work, min(_ATTEMPT_S_MAX, left_s), mutation=mutation)
            except (RaftfsError, OSError) as error:
                failure = _judge(error, mutation)
            retries.failed(failure)
            delay_s = retries.delay_s()
            if not failure.retry or retries.exhausted or self._loop.time() + delay_s >= ends:
                raise retries.verdict(failure)
            self._preferred = (self._preferred + 1) % len(self._nodes)
            await asyncio.sleep(delay_s)

    def _handed_on(self, node: Node) -> Node:
        """Who serves a mutation: a node that follows hands it to its leader."""
        leader = self._nodes.get(node.consensus.leader_id or "") if node.up else None
        return node if leader is None or not self._ways.passes(node.name, leader.name) else leader

    async def _attempt(self, work: Work, timeout_s: float, *, mutation: bool = False) -> Any:
        """Raises what the node raised, or ConnectionError, or TimeoutError."""
        node = list(self._nodes.values())[self._preferred]
        if mutation:
            node = self._handed_on(node)
        async with asyncio.timeout(timeout_s):
            await asyncio.sleep(self._rng.random() * self._ways.delay_s)
            lost = self._rng.random() < self._ways.lost
            self._loop.seen["client: answer lost"] += lost
            answer = node.call(work)
            await asyncio.wait([answer])
            await asyncio.sleep(timeout_s if lost else self._rng.random() * self._ways.delay_s)
            return answer.result()


def _judge(error: RaftfsError | OSError, mutation: bool) -> Failure:
    """As the library's transport does."""
    if isinstance(error, RaftfsError):
        return Failure(error, isinstance(error, _RETRIED), mutation and error.outcome != "not_applied")
    if isinstance(error, TimeoutError):
        return Failure(DeadlineExceeded("no answer in time"), True, mutation)
    return Failure(Unavailable(str(error)), True, mutation and not isinstance(error, ConnectionRefusedError))
