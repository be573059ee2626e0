"""How current a read is, and the bytes of an opened version."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from raftfs import limits
from raftfs.errors import InvalidRequest, RangeNotSatisfiable, Unavailable
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

    async def reach(self, read: ReadOptions) -> int | None:
        """Returns the age in ms of what a bounded or stale read will see; None if unknown or linearizable.

        Raises Unavailable or DeadlineExceeded without a quorum, Unavailable if a bounded read would be too old.
        """
        if read.consistency == "linearizable":
            await self._consensus.barrier(timeout_s=self._timeout_s if read.timeout_s is None else read.timeout_s)
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
    """A chunk that was asked for; ``held`` bytes of the read-ahead budget are taken for it."""

    task: asyncio.Task[bytes]
    part: _Part
    held: int


class OpenFile:
    """One version of a file, opened: a later change of the path does not touch it."""

    def __init__(self, version: FileVersion, info: ReadInfo, replicas: Replicas, read_ahead: Budget) -> None:
        self.stat: Stat = version.stat
        self.info = info
        self._data, self._chunks = version.data, version.chunks
        self._replicas, self._read_ahead = replicas, read_ahead

    def read(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Verified bytes [start, stop) in pieces of at most a chunk. Close it (``aclosing``) if you stop early.

        Raises RangeNotSatisfiable unless 0 <= start <= stop <= size; while iterating, also between two pieces,
        ChunkUnavailable if no reachable node has an undamaged copy.
        """
        if not 0 <= start <= stop <= self.stat.size:
            raise RangeNotSatisfiable(f"bytes {start} to {stop} of a file of {self.stat.size}")
        return self._inline(start, stop) if self._data is not None else self._stream(start, stop)

    async def _inline(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        if self._data and start < stop:
            yield self._data[start:stop]

    async def _stream(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        parts = deque(self._parts(start, stop))
        ahead: deque[_Coming] = deque()
        try:
            while parts or ahead:
                self._order(parts, ahead)
                coming = ahead[0]
                data = await coming.task
                ahead.popleft()
                self._read_ahead.release(coming.held)
                self._order(parts, ahead)
                part = coming.part
                yield data if part.stop - part.start == len(data) else data[part.start : part.stop]
        finally:
            for coming in ahead:
                coming.task.cancel()
                self._read_ahead.release(coming.held)
            await asyncio.gather(*(coming.task for coming in ahead), return_exceptions=True)

    def _order(self, parts: deque[_Part], ahead: deque[_Coming]) -> None:
        """Ask for the chunk that is needed next, and for those after it only while memory allows."""
        while parts and len(ahead) < limits.READ_AHEAD_CHUNKS:
            held = parts[0].chunk.length if ahead else 0
            if not self._read_ahead.try_acquire(held):
                return
            part = parts.popleft()
            ahead.append(_Coming(asyncio.create_task(self._replicas.get(part.chunk)), part, held))

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
