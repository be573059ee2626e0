"""Lazy snapshots: a member whose log does not reach the leader's any more fetches a copy of the leader's database.

Nothing is copied before somebody needs it, and then in a thread, beside the writer. The copy is fetched in pieces,
checked as a whole (digest, then the database itself), and only announced as ready; it takes the place of the state and
of the log at the node's next start (``install``), in steps that a crash may interrupt anywhere: each start goes on
with them until they are done. Term and vote stay, so the node's promises do. Chunks are brought by backfill.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path
from typing import Annotated

import msgspec
from blake3 import blake3

from raftfs import fsync, limits
from raftfs.consensus import NO_OP, Journal
from raftfs.decoding import UNDECODABLE
from raftfs.errors import CorruptData, DataTooNew, InvalidRequest, NotFound, RaftfsError
from raftfs.service.ports import Clock, ConsensusPort, TransportPort
from raftfs.service.workers import Background, Workers
from raftfs.state import StateMachine, check_copy, copy_database

log = logging.getLogger(__name__)


class _Copy(msgspec.Struct, frozen=True, array_like=True):
    """A copy that can be fetched: ``index`` and ``term`` of the last entry in it, size in bytes, BLAKE3 of it all."""

    number: int
    index: int
    term: int
    size: int
    digest: bytes


class _Piece(msgspec.Struct, frozen=True, array_like=True):
    number: int
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class _Ready(msgspec.Struct, frozen=True):
    """``ready.json``: a whole, checked copy lies in ``incoming.db``; ``digest`` is its BLAKE3."""

    index: int
    term: int
    digest: bytes


_decode_copy = msgspec.msgpack.Decoder(_Copy).decode
_decode_piece = msgspec.msgpack.Decoder(_Piece).decode


class SnapshotSource:
    """Makes copies of this node's database for others, one at a time, and hands out their pieces. While a copy is in
    use, the log keeps what comes after it."""

    def __init__(
        self,
        *,
        data_dir: Path,
        consensus: ConsensusPort,
        transport: TransportPort,
        workers: Workers,
        clock: Clock,
        background: Background,
    ) -> None:
        self._state = data_dir / "state.db"
        self._folder = data_dir / "snapshot-out"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._consensus = consensus
        self._workers = workers
        self._clock = clock
        self._background = background
        self._making = asyncio.Lock()
        self._copy: _Copy | None = None
        self._takers: set[str] = set()  # who was given the present copy
        self._used_s = 0.0
        transport.handle("snapshot.open", self._on_open)
        transport.handle("snapshot.read", self._on_read)

    async def _on_open(self, peer: str, payload: bytes) -> bytes:
        async with self._making:
            if self._copy is not None and peer not in self._takers:
                # Another member is fetching it, and would lose it by a new one.
                self._takers.add(peer)
                self._used_s = self._clock.monotonic()
                return msgspec.msgpack.encode(self._copy)
            number = 1 if self._copy is None else self._copy.number + 1
            log.info("copying the database for %s", peer)
            # The member needs what comes after the copy, too, when it has installed it.
            self._consensus.hold_log(self._consensus.status().applied_index)
            self._copy = await self._workers.run(self._make, number)
            self._takers = {peer}
            self._used_s = self._clock.monotonic()
            self._background.spawn(self._delete_unused(number), "snapshot copy")
            return msgspec.msgpack.encode(self._copy)

    def _make(self, number: int) -> _Copy:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        path = self._folder / f"{number}.db"
        copy_database(self._state, path)
        applied = check_copy(path)
        return _Copy(number, applied.index, applied.term, path.stat().st_size, _digest(path))

    async def _on_read(self, peer: str, payload: bytes) -> bytes:
        try:
            piece = _decode_piece(payload)
        except UNDECODABLE:
            raise InvalidRequest("this does not say which piece of a copy") from None
        if self._copy is None or self._copy.number != piece.number:
            raise NotFound("this copy of the database is gone; ask for a new one")
        self._used_s = self._clock.monotonic()
        return await self._workers.run(_read, self._folder / f"{piece.number}.db", piece.offset)

    async def _delete_unused(self, number: int) -> None:
        while self._copy is not None and self._copy.number == number:
            idle_s = self._clock.monotonic() - self._used_s
            if idle_s >= limits.SNAPSHOT_IDLE_S_MAX:
                self._copy = None
                self._consensus.hold_log(None)
                await self._workers.run(shutil.rmtree, self._folder, ignore_errors=True)
                return
            await asyncio.sleep(limits.SNAPSHOT_IDLE_S_MAX - idle_s)


class SnapshotFetcher:
    """Fetches the leader's copy when this member is behind; ``ready`` is set when it waits for the next start."""

    def __init__(
        self,
        *,
        data_dir: Path,
        consensus: ConsensusPort,
        transport: TransportPort,
        workers: Workers,
        background: Background,
    ) -> None:
        self._folder = data_dir / "snapshot"
        self._consensus = consensus
        self._transport = transport
        self._workers = workers
        self._background = background
        self._task: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.too_new: DataTooNew | None = None
        """the cluster went on to a format that this code does not understand: ``ready`` is set, the node must end"""

    def behind(self, leader: str) -> None:
        """The leader says that its log does not reach back to the end of ours."""
        if not self.ready.is_set() and (self._task is None or self._task.done()):
            self._task = self._background.spawn(self._fetch(leader), "snapshot")

    async def _fetch(self, leader: str) -> None:
        try:
            answer = await self._transport.request(leader, "snapshot.open", b"", timeout_s=limits.SNAPSHOT_COPY_S_MAX)
            copy = _decode_copy(answer)
            if copy.index <= self._consensus.status().applied_index:
                return
            log.info("fetching a snapshot of %d bytes at index %d from %s", copy.size, copy.index, leader)
            path = await self._workers.run(self._prepare)
            for offset in range(0, copy.size, limits.SNAPSHOT_PIECE_BYTES):
                request = msgspec.msgpack.encode(_Piece(copy.number, offset))
                piece = await self._transport.request(
                    leader, "snapshot.read", request, timeout_s=limits.SNAPSHOT_IDLE_S_MAX
                )
                await self._workers.run(_append, path, piece)
            await self._workers.run(self._announce, path, copy)
        except DataTooNew as error:
            self.too_new = error
        except (RaftfsError, OSError, *UNDECODABLE) as error:
            # The leader says again that we are behind, and so this is tried again.
            log.warning("could not fetch a snapshot from %s: %s", leader, error)
            await asyncio.sleep(limits.SNAPSHOT_RETRY_S)
            return
        self.ready.set()

    def _prepare(self) -> Path:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        fsync.sync_directory(self._folder.parent)
        return self._folder / "incoming.db"

    def _announce(self, path: Path, copy: _Copy) -> None:
        """Check the whole copy, make it durable, and say so durably."""
        if path.stat().st_size != copy.size or _digest(path) != copy.digest:
            raise CorruptData(f"the snapshot in {path} is not what was sent; it is fetched again")
        applied = check_copy(path)
        if (applied.index, applied.term) != (copy.index, copy.term):
            raise CorruptData(f"the snapshot in {path} holds index {applied.index}, announced was {copy.index}")
        fd = os.open(path, os.O_RDONLY)
        try:
            fsync.sync_data(fd, path)
        finally:
            os.close(fd)
        fsync.sync_directory(self._folder)
        announce(self._folder / "ready.json", copy.index, copy.term, copy.digest)


def announce(path: Path, index: int, term: int, digest: bytes) -> None:
    """Say durably that the copy beside ``path`` is whole and checked."""
    fsync.write_durably(path, msgspec.json.encode(_Ready(index, term, digest)))


def install(data_dir: Path) -> bool:
    """At a node's start, before anything is open: put a fetched snapshot in the place of state and log, or go on with
    that after a crash. Whether there was one.

    The order lets every interruption be repeated: ``ready.json`` goes last, so each step may come twice.
    """
    folder = data_dir / "snapshot"
    ready = _read_ready(folder)
    if ready is None:
        shutil.rmtree(folder, ignore_errors=True)  # it was not whole
        return False
    incoming, state = folder / "incoming.db", data_dir / "state.db"
    if incoming.exists() and not _is_undamaged(incoming, ready):
        log.error("the snapshot in %s was damaged after it was fetched; dropped it", folder)
    elif incoming.exists() and not _is_superseded(data_dir, ready):
        log.info("installing the snapshot at index %d", ready.index)
        Journal.begin_at(data_dir / "journal", ready.index, ready.term, NO_OP)
        for suffix in ("-wal", "-shm", "-sums"):
            state.with_name(state.name + suffix).unlink(missing_ok=True)
        # Before the new database comes: beside the old write-ahead log, it would be overwritten with old pages.
        fsync.sync_directory(data_dir)
        os.replace(incoming, state)
        fsync.sync_directory(data_dir)
    (folder / "ready.json").unlink()
    fsync.sync_directory(folder)
    shutil.rmtree(folder)
    return True


def check_fetched(data_dir: Path) -> bool:
    """Whether a fetched snapshot waits for the next start. Raises CorruptData if it is damaged."""
    folder = data_dir / "snapshot"
    ready, incoming = _read_ready(folder), folder / "incoming.db"
    if ready is None or not incoming.exists():
        return False
    if not _is_undamaged(incoming, ready):
        raise CorruptData(f"{incoming} is not what was fetched (from offset 0 to {incoming.stat().st_size})")
    return True


def _read_ready(folder: Path) -> _Ready | None:
    path = folder / "ready.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Ready)
    except FileNotFoundError:
        return None
    except UNDECODABLE as error:
        raise CorruptData(f"{path} is damaged at offset 0: {error}; delete the folder {folder}") from error


def _is_undamaged(incoming: Path, ready: _Ready) -> bool:
    """Whether copy and announcement are what they were when both were written. If not, nothing is lost by dropping
    them, unless the log was begun anew for them already: then it says that it does not fit the state."""
    if _digest(incoming) != ready.digest:
        return False
    applied = check_copy(incoming)
    return (applied.index, applied.term) == (ready.index, ready.term)


def _is_superseded(data_dir: Path, ready: _Ready) -> bool:
    """Whether log or state went beyond the snapshot after it was fetched: another leader had a longer log. What lies
    beyond may be acknowledged, so it must not be thrown away. A log that begins at the snapshot's index with a state
    that is older is an installation that was interrupted."""
    state = StateMachine(data_dir / "state.db")
    applied = state.applied_index
    state.close()
    if applied >= ready.index:
        return True
    journal = Journal(data_dir / "journal", commit_floor=None, look=True)
    try:
        first, last = journal.first_index, journal.last_index
        return first < ready.index <= last and journal.term(ready.index) == ready.term
    finally:
        journal.close()


def _digest(path: Path) -> bytes:
    return blake3(max_threads=1).update_mmap(path).digest()


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(limits.SNAPSHOT_PIECE_BYTES)


def _append(path: Path, piece: bytes) -> None:
    with path.open("ab") as file:
        file.write(piece)
