"""How a file's bytes become a version: inline in one command, or as chunks that a majority holds first."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from raftfs import errors, limits
from raftfs.chunks import hash_chunk
from raftfs.service.body import Body
from raftfs.service.options import WriteOptions
from raftfs.service.ports import Clock, ConsensusPort
from raftfs.service.proposals import Proposer, check, fingerprint
from raftfs.service.replicas import Replicas
from raftfs.service.workers import Background, Budget, Workers
from raftfs.state import Reader
from raftfs.state.commands import ChunkRef, CommitFile, Result, UploadAbort, UploadBegin, UploadChunk

_log = logging.getLogger(__name__)
_NO_UPLOAD: Final = 0  # ids begin at 1


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """``grace_s``: how long a peer keeps a chunk that nothing refers to. ``expiry_s``: life of an unfinished upload."""

    grace_s: float
    expiry_s: float


class Uploads:
    """Writes of file content, on the leader."""

    def __init__(
        self, *, settings: UploadSettings, proposer: Proposer, consensus: ConsensusPort, reader: Reader,
        replicas: Replicas, workers: Workers, background: Background, clock: Clock,
    ) -> None:  # fmt: skip
        self.settings, self.proposer, self.replicas = settings, proposer, replicas
        self.workers, self.background, self.clock = workers, background, clock
        self.consensus, self._reader = consensus, reader
        self.slots = Budget(limits.UPLOADS_AT_ONCE_MAX)
        self.memory = Budget(limits.UPLOADS_BYTES_MAX)
        self.bytes_in_flight = 0
        self._waiting = 0

    async def put(self, command: CommitFile, body: Body, sha256: bytes | None, write: WriteOptions) -> Result:
        """Make the body the content of a new version. ``command`` says all but size and content.

        Raises what the command's refusal is, IncompleteBody, DigestMismatch, Overloaded, StorageFull, Unavailable,
        NotLeader, UnknownOutcome; unless the outcome is unknown, nothing is visible then.
        """
        small = body.size is not None and body.size <= limits.INLINE_BYTES_MAX
        try:
            async with asyncio.timeout(self.proposer.timeout_s(write.timeout_s) if small else None) as deadline:
                head = bytearray(body.room(limits.INLINE_BYTES_MAX) + 1)
                head_size = await body.fill(memoryview(head))
        except TimeoutError:
            raise errors.DeadlineExceeded("the body did not arrive in time", outcome="not_applied") from None
        inline = bytes(memoryview(head)[:head_size])
        if body.ended and (write.ack == "quorum" or not inline):
            ends = deadline.when()
            left = None if ends is None else max(ends - asyncio.get_running_loop().time(), 0.001)
            return await self._put_inline(command, inline, sha256, write, left)
        replayed = await self._replay(command, body.size if not body.ended else body.total, sha256, write)
        if replayed is not None:
            return replayed
        await self._refuse_early(command, body, sha256, write)
        async with self._slot(self.proposer.timeout_s(write.timeout_s)):
            return await Upload(self, command, body, sha256, write).run(inline)

    async def _put_inline(
        self, command: CommitFile, data: bytes, sha256: bytes | None, write: WriteOptions, left_s: float | None
    ) -> Result:
        if sha256 is not None:
            check_sha256(hashlib.sha256(data).digest(), sha256)
        command = msgspec.structs.replace(command, size=len(data), data=data)
        return await self.proposer.propose(
            command,
            timeout_s=write.timeout_s if left_s is None else left_s,
            key=write.key,
            mark=fingerprint(command, sha256) if write.key else b"",
        )

    async def _replay(
        self, command: CommitFile, size: int | None, sha256: bytes | None, write: WriteOptions
    ) -> Result | None:
        """The outcome that this key had before, so that a retry need not send its bytes again."""
        if write.key is None:
            return None
        self.proposer.require_leader()
        await self.consensus.barrier(timeout_s=self.proposer.timeout_s(write.timeout_s))
        found = self._reader.outcome(write.key)
        if found is None:
            return None
        mark, result = found
        if size is None:
            if result.stat is None:
                return None  # whether it is the same request shows only at its commit
            size = result.stat.size
        if mark != fingerprint(msgspec.structs.replace(command, size=size), sha256):
            raise errors.KeyReused(f"the key {write.key!r} was used for another request", outcome="not_applied")
        return msgspec.structs.replace(check(result), replayed=True)

    async def _refuse_early(self, command: CommitFile, body: Body, sha256: bytes | None, write: WriteOptions) -> None:
        """Do not take gigabytes for a commit that will be refused.

        What this node has applied is only a hint. If it speaks against the commit, the state machine is asked, with a
        commit of an upload that cannot exist: it gives (and remembers under the key) the refusal, or it misses the
        upload, and then nothing else is wrong.
        """
        if body.size is None or not self._looks_refused(command):
            return
        command = msgspec.structs.replace(command, size=body.size, upload=_NO_UPLOAD)
        mark = fingerprint(command, sha256) if write.key else b""
        try:
            await self.proposer.propose(command, timeout_s=write.timeout_s, key=write.key, mark=mark)
        except errors.UploadNotFound:
            return

    def _looks_refused(self, command: CommitFile) -> bool:
        stat = self._reader.stat(command.path)
        if stat is None:
            return command.if_match is not None
        return stat.is_directory or command.if_absent or command.if_match not in (None, stat.revision)

    @asynccontextmanager
    async def _slot(self, timeout_s: float) -> AsyncIterator[None]:
        """One of the UPLOADS_AT_ONCE_MAX places. Raises Overloaded."""
        await self._enter(timeout_s)
        try:
            yield
        finally:
            self.slots.release(1)

    async def _enter(self, timeout_s: float) -> None:
        if self._waiting >= limits.UPLOADS_WAITING_MAX:
            raise errors.Overloaded("too many uploads are waiting", outcome="not_applied", retry_after_s=1.0)
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self.slots.acquire(1)
        except TimeoutError:
            raise errors.Overloaded(
                f"{limits.UPLOADS_AT_ONCE_MAX} uploads are running, no place came free in {timeout_s:g} s",
                outcome="not_applied",
                retry_after_s=1.0,
            ) from None
        finally:
            self._waiting -= 1


class Upload:
    """One large body on its way. Chunks overlap: while some are being written and sent, the next is being read, and
    those that a majority holds go into the log in the order of their offsets."""

    def __init__(
        self, uploads: Uploads, command: CommitFile, body: Body, sha256: bytes | None, write: WriteOptions
    ) -> None:
        self._all, self._command, self._body, self._write = uploads, command, body, write
        self._timeout_s = uploads.proposer.timeout_s(write.timeout_s)
        self._announced = sha256
        self._sha256 = hashlib.sha256()
        self._sha256_order = asyncio.Lock()
        self._budget = Budget(limits.UPLOAD_BYTES_IN_FLIGHT_MAX)
        self._id: asyncio.Task[int] | None = None

    async def run(self, head: bytes) -> Result:
        """``head`` was read from the body already."""
        if self._write.ack == "all":
            self._all.replicas.require_all()
        # Begun beside the first chunk's transfer, and in the background: when this call is cancelled before the id is
        # known, somebody must still learn it to abort the upload.
        self._id = self._all.background.spawn(self._begin(), f"upload to {self._command.path}")
        try:
            await self._send_all(head)
            if self._announced is not None:
                check_sha256(self._sha256.digest(), self._announced)
            result = await self._commit(await asyncio.shield(self._id))
        except BaseException:
            self._all.background.spawn(self._abort(self._id), f"abort of the upload to {self._command.path}")
            raise
        if result.replayed:
            # Another attempt with this key was first; this one's upload was not used.
            self._all.background.spawn(self._abort(self._id), f"abort of the second upload to {self._command.path}")
        return result

    async def _begin(self) -> int:
        command = UploadBegin(path=self._command.path, expires_ms=round(self._all.settings.expiry_s * 1000))
        result = await self._all.proposer.propose(command, timeout_s=self._timeout_s)
        if result.upload is None:
            raise errors.RaftfsError("the state machine began an upload and gave no id")
        return result.upload.id

    async def _commit(self, upload: int) -> Result:
        command = msgspec.structs.replace(self._command, size=self._body.total, upload=upload)
        mark = fingerprint(command, self._announced) if self._write.key else b""
        try:
            return await self._all.proposer.propose(command, timeout_s=self._timeout_s, key=self._write.key, mark=mark)
        except (errors.UploadNotFound, errors.Conflict) as error:
            raise _ended_early(error) from error

    async def _abort(self, begun: asyncio.Task[int]) -> None:
        try:
            await self._all.proposer.propose(UploadAbort(upload=await begun), timeout_s=self._timeout_s)
        except errors.RaftfsError as error:
            _log.debug("an upload to %s was not aborted and will expire: %s", self._command.path, error)

    async def _send_all(self, head: bytes) -> None:
        try:
            async with asyncio.TaskGroup() as chunks:
                turn = asyncio.Event()
                turn.set()
                offset, filled = 0, 0
                while not self._body.ended or head:
                    size = len(head) + self._body.room(limits.CHUNK_BYTES - len(head))
                    if size == 0:
                        await self._body.finish()
                        break
                    await self._acquire(size)
                    try:
                        buffer = memoryview(bytearray(size))
                        buffer[: len(head)] = head
                        filled = len(head) + await self._body.fill(buffer[len(head) :])
                    except BaseException:
                        self._release(size)
                        raise
                    head = b""
                    if filled == 0:
                        self._release(size)
                        break
                    after = asyncio.Event()
                    task = chunks.create_task(self._send(offset, buffer[:filled], turn, after))
                    # Not in the task itself: one that is cancelled before its first step never gets there.
                    task.add_done_callback(partial(self._release, size))
                    turn, offset = after, offset + filled
        except BaseExceptionGroup as group:
            error = _first(group)
            if isinstance(error, errors.UploadNotFound | errors.Conflict | errors.UnknownOutcome):
                raise _ended_early(error) from error
            raise error from None

    async def _acquire(self, size: int) -> None:
        await self._budget.acquire(size)
        try:
            await self._all.memory.acquire(size)
        except BaseException:
            self._budget.release(size)
            raise
        self._all.bytes_in_flight += size

    def _release(self, size: int, _: object = None) -> None:
        self._budget.release(size)
        self._all.memory.release(size)
        self._all.bytes_in_flight -= size

    async def _send(self, offset: int, data: memoryview, turn: asyncio.Event, after: asyncio.Event) -> None:
        """One chunk: hash, spread, and when those before it have been proposed, propose."""
        if self._announced is not None:
            async with self._sha256_order:
                await self._all.workers.run(self._sha256.update, data)
        digest = await self._all.workers.run(hash_chunk, data)
        store = self._all.replicas.store
        store.pin(digest)  # until the log refers to it
        try:
            await self._spread_and_propose(offset, digest, data, turn, after)
        finally:
            store.unpin(digest)

    async def _spread_and_propose(
        self, offset: int, digest: bytes, data: memoryview, turn: asyncio.Event, after: asyncio.Event
    ) -> None:
        assert self._id is not None
        moment = await self._spread(digest, data)
        upload = await asyncio.shield(self._id)
        await turn.wait()
        # A peer's collector spares a chunk for grace_s after its put, and first makes sure that its state is current.
        # Half of that for the way to the proposal and half for the proposal itself: a chunk whose command commits in
        # time can never have been collected before.
        while self._all.clock.monotonic() - moment > self._all.settings.grace_s / 2:
            moment = await self._spread(digest, data)
        command = UploadChunk(upload=upload, offset=offset, chunk=ChunkRef(digest=digest, length=len(data)))
        timeout_s = min(self._timeout_s, self._all.settings.grace_s / 2)
        # Tasks begin in the order of their making, so the commands enter the log in the order of their offsets.
        proposal = asyncio.create_task(self._all.proposer.propose(command, timeout_s=timeout_s))
        after.set()
        await proposal

    async def _spread(self, digest: bytes, data: memoryview) -> float:
        everywhere = self._write.ack == "all"
        return await self._all.replicas.spread(
            digest,
            data,
            everywhere=everywhere,
            retry=lambda: not everywhere and self._all.consensus.is_leader,
            timeout_s=self._timeout_s,
        )


def check_sha256(actual: bytes, announced: bytes) -> None:
    """Raises DigestMismatch (not applied)."""
    if actual != announced:
        raise errors.DigestMismatch(
            f"the body's sha-256 is {actual.hex()}, not the announced {announced.hex()}", outcome="not_applied"
        )


def _ended_early(error: errors.RaftfsError) -> errors.Unavailable:
    """The upload expired, or a step of it is in doubt; either way its file was never committed."""
    return errors.Unavailable(
        f"the upload was broken off: {error.detail}",
        outcome="not_applied",
        retry_after_s=error.retry_after_s or limits.FAILOVER_S,
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the upload; the others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
