"""How current a read is, and the bytes of an opened version."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from raftfs import limits
from raftfs.errors import InvalidRequest, Overloaded, RangeNotSatisfiable, Unavailable
from raftfs.service.options import ReadInfo, ReadOptions
from raftfs.service.ports import ConsensusPort
from raftfs.service.replicas import Replicas
from raftfs.service.workers import Budget
from raftfs.state import Reader
from raftfs.state.commands import ChunkRef, FileVersion, Stat


class Freshness:
    """Makes the local state as current as a read asks, before the read looks at it."""

    def __init__(self, consensus: ConsensusPort, timeout_s: float) -> None:
        self._consensus, self._timeout_s = consensus, timeout_s

    def timeout_s(self, read: ReadOptions) -> float:
        """The read's own timeout or the node's."""
        return self._timeout_s if read.timeout_s is None else read.timeout_s

    async def reach(self, read: ReadOptions) -> int | None:
        """Returns the age in ms of what a bounded or stale read will see; None if unknown or linearizable.

        Raises Unavailable or DeadlineExceeded without a quorum, Unavailable if a bounded read would be too old, or if
        this node is still getting back what was damaged.
        """
        if self._consensus.rejoining is not None:
            raise Unavailable(
                f"this node is getting back what was damaged ({self._consensus.rejoining}); ask another one",
                retry_after_s=1.0,
            )
        if read.consistency == "linearizable":
            await self._consensus.barrier(timeout_s=self.timeout_s(read))
            return None
        contact_s = self._consensus.last_contact_s()
        if read.consistency == "bounded" and (contact_s is None or contact_s > read.max_staleness_s):
            heard = "never heard a leader" if contact_s is None else f"last heard the leader {contact_s:.1f} s ago"
            raise Unavailable(
                f"this node {heard}; the read allows {read.max_staleness_s:g} s of staleness", retry_after_s=1.0
            )
        return None if contact_s is None else round(contact_s * 1000)

    @staticmethod
    def info(reader: Reader, read: ReadOptions, age_ms: int | None) -> ReadInfo:
        """What the state shows now. Raises InvalidRequest (Unavailable on a node that may lag) if the revision that
        was asked for is still to come."""
        revision = reader.applied().revision
        stale = read.consistency != "linearizable"
        if read.revision is not None and read.revision > revision:
            detail = f"revision {read.revision} was asked for, this node is at {revision}"
            raise Unavailable(detail, retry_after_s=1.0) if stale else InvalidRequest(detail)
        return ReadInfo(revision, stale, age_ms)


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes [start, stop) of a chunk."""

    chunk: ChunkRef
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Coming:
    """A chunk that was asked for, and whose length is taken from ``budget`` until the consumer is done with it."""

    task: asyncio.Task[bytes]
    part: _Part
    budget: Budget

    def give_back(self) -> None:
        self.budget.release(self.part.chunk.length)


class ReadMemory:
    """What all downloads of a node may hold: ``needed`` for the chunk that each is sending, ``ahead`` for those after
    it. Two budgets, so that reading ahead never keeps another download from its next chunk."""

    def __init__(self) -> None:
        self.needed = Budget(limits.READ_BYTES_MAX)
        self.ahead = Budget(limits.READ_AHEAD_BYTES_MAX)
        self.wait_s = limits.READ_WAIT_S_MAX  # how long a download waits for ``needed``


class OpenFile:
    """One version of a file, opened: a later change of the path does not touch it."""

    def __init__(self, version: FileVersion, info: ReadInfo, replicas: Replicas, memory: ReadMemory) -> None:
        self.stat: Stat = version.stat
        self.info = info
        self._data, self._chunks = version.data, version.chunks
        self._replicas, self._memory = replicas, memory

    def read(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Verified bytes [start, stop) in pieces of at most a chunk. Close it (``aclosing``) if you stop early.

        Raises RangeNotSatisfiable unless 0 <= start <= stop <= size; while iterating, also between two pieces,
        ChunkUnavailable if no reachable node has an undamaged copy, Overloaded if too many slow downloads hold chunks.
        """
        if not 0 <= start <= stop <= self.stat.size:
            raise RangeNotSatisfiable(f"bytes {start} to {stop} of a file of {self.stat.size}")
        return self._inline(start, stop) if self._data is not None else self._stream(start, stop)

    async def _inline(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        if self._data and start < stop:
            yield self._data[start:stop]

    async def _stream(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        parts = deque(self._parts(start, stop))
        coming: deque[_Coming] = deque()
        try:
            while parts or coming:
                if not coming:
                    await self._wait_for_memory(parts[0].chunk.length)
                    coming.append(self._ask(parts.popleft(), self._memory.needed))
                self._look_ahead(parts, coming)
                part, data = coming[0].part, await coming[0].task
                self._look_ahead(parts, coming)
                yield data if part.stop - part.start == len(data) else data[part.start : part.stop]
                del data
                coming.popleft().give_back()
        finally:
            for chunk in coming:
                chunk.task.cancel()
                chunk.give_back()
            await asyncio.gather(*(chunk.task for chunk in coming), return_exceptions=True)

    async def _wait_for_memory(self, length: int) -> None:
        try:
            async with asyncio.timeout(self._memory.wait_s):
                await self._memory.needed.acquire(length)
        except TimeoutError:
            raise Overloaded("too many downloads are being taken too slowly", retry_after_s=1.0) from None

    def _look_ahead(self, parts: deque[_Part], coming: deque[_Coming]) -> None:
        """Ask for chunks behind the one that is needed, while memory allows."""
        while parts and len(coming) <= limits.READ_AHEAD_CHUNKS:
            if not self._memory.ahead.try_acquire(parts[0].chunk.length):
                return
            coming.append(self._ask(parts.popleft(), self._memory.ahead))

    def _ask(self, part: _Part, budget: Budget) -> _Coming:
        return _Coming(asyncio.create_task(self._replicas.get(part.chunk)), part, budget)

    def _parts(self, start: int, stop: int) -> list[_Part]:
        """Chunks that overlap the range, each with the part of it that is wanted."""
        if start == stop:
            return []
        ends = list(itertools.accumulate(chunk.length for chunk in self._chunks))
        parts = []
        for number in range(bisect_right(ends, start), len(ends)):
            chunk, begin = self._chunks[number], ends[number] - self._chunks[number].length
            if begin >= stop:
                break
            parts.append(_Part(chunk, max(start - begin, 0), min(stop - begin, chunk.length)))
        return parts
