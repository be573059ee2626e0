"""What a node does by itself: fetch chunks it lacks, delete those that nobody needs, end uploads that nobody ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from raftfs import limits
from raftfs.chunks import CollectReport
from raftfs.errors import RaftfsError
from raftfs.service.ports import Clock, ConsensusPort
from raftfs.service.proposals import Proposer
from raftfs.service.replicas import Replicas
from raftfs.service.workers import ReaderThread, Workers
from raftfs.state import Reader
from raftfs.state.commands import ChunkRef, UploadExpire

_log = logging.getLogger(__name__)


async def periodically(period_s: float, work: Callable[[], Awaitable[object]], name: str) -> None:
    """Do it again and again; a failed round is logged and the next one tries anew."""
    while True:
        try:
            await work()
        except RaftfsError as error:
            _log.info("%s: %s", name, error.detail)
        except Exception:
            _log.exception("%s failed; the next round tries again", name)
        await asyncio.sleep(period_s)


class Backfill:
    """Follows the log of newly referenced chunks from its beginning, which is both the scan at the start and the news
    afterwards, and fetches what this node lacks. A chunk must be missing in two rounds, so that one on its way is not
    fetched as well."""

    def __init__(self, replicas: Replicas, reader: ReaderThread[Reader], workers: Workers) -> None:
        self._replicas, self._reader, self._workers = replicas, reader, workers
        self._seq = 0
        self._from_start = False
        self._looked = False
        self._lacking: dict[bytes, ChunkRef] = {}
        self._fresh: dict[bytes, ChunkRef] = {}
        self._lost: set[bytes] = set()  # lacking here, and every other member said that it does not have it either
        self._looked_index = 0
        self.complete_index = 0
        """every chunk that was referenced at this index of the log is here, but for those that no member has any more;
        0 if that is not known"""
        replicas.on_damage = self.rescan

    @property
    def missing(self) -> int | None:
        """Chunks known to be lacking here, at most BACKFILL_QUEUE_CHUNKS_MAX; None before the first scan's end."""
        return len(self._lacking) + len(self._fresh) if self._looked else None

    def missing_at_most(self, newest_seq: int) -> int | None:
        """``missing``, and all chunks up to ``newest_seq`` that no round has looked at yet: 0 means that every one is
        here. None before the first scan's end."""
        looked_to = 0 if self._from_start else self._seq
        return None if self.missing is None else self.missing + max(newest_seq - looked_to, 0)

    def rescan(self) -> None:
        """Look at everything again in the next round: a copy that was there has been lost."""
        self._from_start = True
        self.complete_index = 0

    async def round(self) -> None:
        """Fetch what was missing last time and still is; then look at what is new."""
        self._lacking |= self._fresh
        self._fresh = {}
        await self._fetch()
        self._note_complete()
        await self._look()
        self._note_complete()

    def _note_complete(self) -> None:
        if not (self._lacking.keys() - self._lost or self._fresh or self._from_start):
            self.complete_index = self._looked_index

    async def _look(self) -> None:
        if self._from_start:
            self._from_start, self._seq = False, 0
            self._looked_index = 0
        index = await self._reader.call(_applied)
        while len(self._lacking) + len(self._fresh) < limits.BACKFILL_QUEUE_CHUNKS_MAX:
            changes = await self._reader.call(partial(_changes, self._seq))
            if not changes:
                self._looked_index = index
                break
            absent = await self._absent([ref for _, ref in changes])
            self._fresh |= {ref.digest: ref for ref in absent if ref.digest not in self._lacking}
            self._seq = changes[-1][0]
        self._looked = True

    async def _fetch(self) -> None:
        refs = list(self._lacking.values())
        self._lost &= self._lacking.keys()
        for at in range(0, len(refs), limits.BACKFILL_PAGE_CHUNKS):
            page = refs[at : at + limits.BACKFILL_PAGE_CHUNKS]
            wanted = await self._reader.call(partial(_referenced, await self._absent(page)))
            kept = {ref.digest for ref in wanted}
            for ref in page:
                if ref.digest not in kept:
                    self._lacking.pop(ref.digest, None)
            if wanted and not await self._fetch_page(wanted):
                break  # nothing more fits here; the next round tries again

    async def _fetch_page(self, wanted: list[ChunkRef]) -> bool:
        """Whether there was room for all that came."""
        room = True
        holders, everybody = await self._replicas.who_has([ref.digest for ref in wanted])
        for digest, peers in holders.items():
            (self._lost.add if everybody and not peers else self._lost.discard)(digest)
        places = asyncio.Semaphore(limits.CHUNK_TRANSFERS_AT_ONCE_MAX)

        async def fetch(ref: ChunkRef) -> None:
            nonlocal room
            async with places:
                if not room:
                    return
                try:
                    await self._replicas.fetch(ref, holders[ref.digest])
                except RaftfsError as error:
                    _log.debug("cannot backfill yet: %s", error.detail)
                    return
                if await self._absent([ref]):
                    room = False  # it came, and the disk could not take it
                else:
                    self._lacking.pop(ref.digest, None)

        async with asyncio.TaskGroup() as group:
            for ref in wanted:
                group.create_task(fetch(ref))
        left = sum(ref.digest in self._lacking for ref in wanted)
        _log.info("backfill: %d chunks fetched, %d are still missing", len(wanted) - left, left)
        return room

    async def _absent(self, refs: list[ChunkRef]) -> list[ChunkRef]:
        there = await self._workers.run(self._replicas.have, [ref.digest for ref in refs])
        return [ref for ref, have in zip(refs, there, strict=True) if not have]


def _applied(reader: Reader) -> int:
    return reader.applied().index


def _changes(after: int, reader: Reader) -> list[tuple[int, ChunkRef]]:
    return reader.chunk_changes(after, limits.BACKFILL_PAGE_CHUNKS)


def _referenced(refs: list[ChunkRef], reader: Reader) -> list[ChunkRef]:
    return [ref for ref in refs if reader.is_referenced(ref.digest)]


class Collector:
    """Deletes unreferenced chunks after their grace period.

    A chunk that this node acknowledged may be referenced by a command that it has not applied yet. So a round begins
    with a barrier: what is older than the grace period and unreferenced then was given up by its leader, who commits
    the reference within the grace period or not at all (see ``uploads``).
    """

    def __init__(
        self, replicas: Replicas, reader: ReaderThread[Reader], consensus: ConsensusPort, clock: Clock, *,
        grace_s: float, timeout_s: float,
    ) -> None:  # fmt: skip
        self._replicas, self._reader, self._consensus, self._clock = replicas, reader, consensus, clock
        self._grace_s, self._timeout_s = grace_s, timeout_s
        self.last: CollectReport | None = None
        self._wall_ahead_s = self._ahead()

    def _ahead(self) -> float:
        """The wall clock's lead over the monotonic one: constant, unless somebody sets the wall clock or the machine
        slept."""
        return self._clock.wall_ms() / 1000 - self._clock.monotonic()

    async def round(self) -> CollectReport:
        """One collection. Raises Unavailable or DeadlineExceeded if the state cannot be made current."""
        now_s, ahead_s = self._clock.wall_ms() / 1000, self._ahead()
        if abs(ahead_s - self._wall_ahead_s) > min(limits.CLOCK_JUMP_S_MIN, self._grace_s / 2):
            # Chunks of an upload that is under way would look older than they are.
            self._replicas.store.distrust_ages(now_s)
        self._wall_ahead_s = ahead_s
        await self._consensus.barrier(timeout_s=self._timeout_s)
        self.last = await self._reader.call(
            lambda reader: self._replicas.store.collect(reader.is_referenced, self._grace_s, now_s)
        )
        return self.last


class Expiry:
    """On the leader: ends uploads that are past their time."""

    def __init__(self, proposer: Proposer, reader: Reader, consensus: ConsensusPort, clock: Clock) -> None:
        self._proposer, self._reader, self._consensus, self._clock = proposer, reader, consensus, clock

    async def round(self) -> None:
        if self._consensus.is_leader and self._reader.has_expired_uploads(self._clock.wall_ms()):
            await self._proposer.propose(UploadExpire())
