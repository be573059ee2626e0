"""Copies of chunks: spread to a majority before a write is acknowledged, fetched from a peer when one is missing."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from raftfs import limits
from raftfs.chunks import DIGEST_BYTES, ChunkCorrupt, ChunkMissing, ChunkStore, hash_chunk
from raftfs.consensus import Configuration
from raftfs.errors import ChunkUnavailable, InvalidRequest, RaftfsError, StorageFull, Unavailable
from raftfs.service.ports import Clock, TransportPort
from raftfs.service.workers import Background, Budget, Workers
from raftfs.state.commands import ChunkRef

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """What happened to chunks since the start of this process, for metrics."""

    sent: int = 0
    skipped: int = 0
    fetched: int = 0
    damaged: int = 0


@dataclass(slots=True)
class _Spread:
    """One chunk on its way to the members. ``acks``: member to the moment its put began (the copy is not older)."""

    digest: bytes
    data: memoryview
    need: int
    voters: frozenset[str]
    retry: Callable[[], bool]
    acks: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    settled: bool = False

    @property
    def counted(self) -> set[str]:
        """The members that have it and count: one that only listens does not."""
        return self.acks.keys() & self.voters


class Replicas:
    """The chunks of this node and of its peers. Answers the peers' ``chunk.get``, ``chunk.put`` and ``chunk.have``."""

    def __init__(
        self, *, me: str, configuration: Callable[[], Configuration], store: ChunkStore, transport: TransportPort,
        clock: Clock, workers: Workers, background: Background,
    ) -> None:  # fmt: skip
        self._me, self._configuration = me, configuration
        self.store, self._transport, self._clock = store, transport, clock
        self._workers, self._background = workers, background
        self._sending = defaultdict[str, Budget](lambda: Budget(limits.PEER_CHUNK_BYTES_IN_FLIGHT_MAX))
        self._trailing = defaultdict[str, int](int)
        self._fetching: dict[bytes, asyncio.Task[bytes]] = {}
        self.counters = Counters()
        self.on_damage: Callable[[], None] = lambda: None
        transport.handle("chunk.get", self._on_get)
        transport.handle("chunk.put", self._on_put)
        transport.handle("chunk.have", self._on_have)

    # Spreading

    @property
    def _peers(self) -> list[str]:
        return [member.id for member in self._configuration().members if member.id != self._me]

    def require_all(self) -> None:
        """Raises Unavailable (not applied) naming the members that are not connected."""
        voters = self._configuration().voters - {self._me}
        away = [peer for peer in sorted(voters) if not self._transport.connected(peer)]
        if away:
            raise Unavailable(
                f"ack=all wants every member, but {', '.join(away)} cannot be reached",
                outcome="not_applied",
                retry_after_s=1.0,
            )

    async def spread(
        self, digest: bytes, data: memoryview, *, everywhere: bool, retry: Callable[[], bool], timeout_s: float
    ) -> float:
        """Make a chunk, whose digest the caller has just computed, durable here and on enough peers to be a majority
        (``everywhere``: on all). Returns the moment (monotonic) after which all these copies were put. A peer that
        cannot take it is asked again while ``retry`` says so.

        Peers that were not needed get it too, as far as their budgets allow; the rest is left to backfill. Raises
        StorageFull if this node's disk is, Unavailable if too few members took it in time; both not applied.
        """
        voters = self._configuration().voters
        need = len(voters) if everywhere else len(voters) // 2 + 1
        spread = _Spread(digest, data, need, voters, retry)
        tasks: dict[asyncio.Task[None], str] = {self._start(spread, self._me, self._put_here): self._me}
        tasks |= {self._start(spread, peer, self._put_there): peer for peer in self._peers}
        try:
            async with asyncio.timeout(timeout_s):
                await self._until_enough(spread, set(tasks))
        except TimeoutError:
            raise self._too_few(spread) from None
        finally:
            spread.settled = True
            for task, member in tasks.items():
                if not task.done():
                    self._trail(spread, member, task)
        others = sorted((spread.acks[member] for member in spread.counted - {self._me}), reverse=True)
        return min([spread.acks[self._me], *others[: need - 1]])

    def _start(
        self, spread: _Spread, member: str, put: Callable[[_Spread, str], Awaitable[None]]
    ) -> asyncio.Task[None]:
        async def work() -> None:
            await put(spread, member)

        return self._background.spawn(work(), f"chunk {spread.digest.hex()[:8]} to {member}")

    async def _until_enough(self, spread: _Spread, pending: set[asyncio.Task[None]]) -> None:
        while len(spread.counted) < spread.need or self._me not in spread.acks:
            if len(spread.counted) + len(pending) < spread.need:
                raise self._too_few(spread)
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    def _too_few(self, spread: _Spread) -> Unavailable:
        silent = [m for m in (self._me, *self._peers) if m not in spread.acks and m not in spread.refusals]
        reasons = [f"{member}: {reason}" for member, reason in spread.refusals.items()]
        reasons += [f"{member}: no answer yet" for member in silent]
        return Unavailable(
            f"a chunk is durable on {len(spread.counted)} members, {spread.need} are needed ({'; '.join(reasons)})",
            outcome="not_applied",
            retry_after_s=1.0,
        )

    def _trail(self, spread: _Spread, member: str, task: asyncio.Task[None]) -> None:
        """A copy that was not needed goes on in the background, within the peer's budget, and only after success."""
        size = len(spread.data)
        enough = len(spread.counted) >= spread.need
        if member == self._me or not enough or self._trailing[member] + size > limits.PEER_BYTES_TRAILING_MAX:
            if enough:
                self.counters.skipped += 1
            task.cancel()
            return
        self._trailing[member] += size

        def ended(_: asyncio.Task[None]) -> None:
            self._trailing[member] -= size

        task.add_done_callback(ended)

    async def _put_here(self, spread: _Spread, me: str) -> None:
        began = self._clock.monotonic()
        try:
            await self._workers.run(self.store.put, spread.digest, spread.data, verified=True)
        except StorageFull as error:
            error.outcome = "not_applied"
            raise
        spread.acks[me] = began

    async def _put_there(self, spread: _Spread, peer: str) -> None:
        pause = limits.CHUNK_RETRY_S_MIN
        while True:
            try:
                async with self._sending[peer].take(len(spread.data)):
                    began = self._clock.monotonic()
                    await self._transport.request(
                        peer, "chunk.put", [spread.digest, spread.data], timeout_s=limits.CHUNK_PUT_S_MAX
                    )
                spread.acks[peer] = began
                self.counters.sent += 1
                return
            except RaftfsError as error:
                spread.refusals[peer] = error.detail
                if spread.settled or not spread.retry():
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, limits.CHUNK_RETRY_S_MAX)

    # Getting

    async def get(self, ref: ChunkRef) -> bytes:
        """The chunk's verified bytes, from this node or, if its copy is missing or damaged, from a peer (and then
        kept here). Raises ChunkUnavailable."""
        try:
            return await self._workers.run(self.store.get, ref.digest)
        except ChunkMissing:
            _log.info("chunk %s is missing here, asking the peers", ref.digest.hex())
        except ChunkCorrupt:
            self._damaged()
        return await self.fetch(ref)

    async def fetch(self, ref: ChunkRef, peers: Sequence[str] | None = None) -> bytes:
        """The chunk from the first of ``peers`` (default: all) that has it, verified and kept here. Several callers
        share one transfer. Raises ChunkUnavailable."""
        task = self._fetching.get(ref.digest)
        if task is None:
            order = self._peers if peers is None else peers
            task = self._background.spawn(self._fetch(ref, order), f"fetch {ref.digest.hex()[:8]}")
            self._fetching[ref.digest] = task
            task.add_done_callback(lambda _: self._fetching.pop(ref.digest, None))
        return await asyncio.shield(task)

    async def _fetch(self, ref: ChunkRef, peers: Sequence[str]) -> bytes:
        reasons = []
        for peer in sorted(peers, key=self._transport.connected, reverse=True):
            try:
                data = await self._transport.request(peer, "chunk.get", ref.digest, timeout_s=limits.CHUNK_GET_S_MAX)
            except RaftfsError as error:
                reasons.append(f"{peer}: {error.detail}")
                continue
            if await self._workers.run(self._keep, ref, data):
                self.counters.fetched += 1
                return data
            reasons.append(f"{peer}: {'damaged' if data else 'does not have it'}")
        raise ChunkUnavailable(f"chunk {ref.digest.hex()}: {'; '.join(reasons) or 'no peers'}", retry_after_s=1.0)

    def _keep(self, ref: ChunkRef, data: bytes) -> bool:
        if len(data) != ref.length or hash_chunk(data) != ref.digest:
            return False
        try:
            self.store.put(ref.digest, data, verified=True)
        except StorageFull as error:
            _log.warning("fetched a chunk and cannot keep it: %s", error.detail)
        return True

    async def who_has(self, digests: Sequence[bytes]) -> tuple[dict[bytes, list[str]], bool]:
        """For each digest the connected peers that hold it, and whether every peer answered."""
        holders: dict[bytes, list[str]] = {digest: [] for digest in digests}
        everybody = True
        for peer in self._peers:
            try:
                answer = await self._transport.request(
                    peer, "chunk.have", b"".join(digests), timeout_s=limits.CHUNK_GET_S_MAX
                )
            except RaftfsError:
                everybody = False
                continue
            for digest, there in zip(digests, answer, strict=False):
                if there:
                    holders[digest].append(peer)
        return holders, everybody

    # Answering peers

    async def _on_get(self, peer: str, digest: bytes) -> bytes:
        """The chunk, or nothing (a chunk is never empty)."""
        if len(digest) != DIGEST_BYTES:
            raise InvalidRequest(f"{len(digest)} bytes are not a digest")
        try:
            return await self._workers.run(self.store.get, digest)
        except ChunkMissing:
            return b""
        except ChunkCorrupt:
            self._damaged()
            return b""

    async def _on_put(self, peer: str, payload: bytes) -> bytes:
        """Answers when the chunk is durable here; DigestMismatch and StorageFull go back as a refusal."""
        if not DIGEST_BYTES < len(payload) <= DIGEST_BYTES + limits.CHUNK_BYTES:
            raise InvalidRequest(f"{len(payload)} bytes are not a digest and a chunk")
        view = memoryview(payload)
        await self._workers.run(self.store.put, bytes(view[:DIGEST_BYTES]), view[DIGEST_BYTES:])
        return b""

    async def _on_have(self, peer: str, payload: bytes) -> bytes:
        """One byte, 1 or 0, for each digest."""
        if len(payload) % DIGEST_BYTES or len(payload) > DIGEST_BYTES * limits.BACKFILL_PAGE_CHUNKS:
            raise InvalidRequest(f"{len(payload)} bytes are not at most {limits.BACKFILL_PAGE_CHUNKS} digests")
        digests = [payload[at : at + DIGEST_BYTES] for at in range(0, len(payload), DIGEST_BYTES)]
        return await self._workers.run(self.have, digests)

    def have(self, digests: Sequence[bytes]) -> bytes:
        """Blocking: one byte, 1 or 0, for each digest."""
        return bytes(map(self.store.has, digests))

    def _damaged(self) -> None:
        self.counters.damaged += 1
        self.on_damage()
