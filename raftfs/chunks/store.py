"""Chunks on one node's disk: ``chunks/ab/<hex digest>``, written once, verified whenever they are written or read.

Order of a write: temporary file, fdatasync, rename, fsync of the folder. So a name is there only with its bytes, and
``put`` returns only when both are durable. Every name is made of a digest; nothing that a client sends reaches a path.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raftfs import fsync
from raftfs.chunks.digest import DIGEST_BYTES, hash_chunk
from raftfs.errors import DigestMismatch, StorageFull

FOLDERS: Final = 256
_log = logging.getLogger(__name__)

Data = bytes | bytearray | memoryview


class ChunkMissing(KeyError):
    """The store holds no chunk of this digest."""


class ChunkCorrupt(Exception):
    """The chunk's file was damaged; it is in quarantine now, and the chunk counts as missing."""


@dataclass(frozen=True, slots=True)
class ChunkStats:
    """``count`` chunks of ``bytes`` bytes are stored; ``quarantined`` damaged files were moved aside so far."""

    count: int
    bytes: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection deleted, and what it left."""

    deleted: int
    deleted_bytes: int
    kept: int
    kept_bytes: int


class ChunkStore:
    """All methods block and may be called from any thread at once.

    ``wall_clock`` gives seconds since the epoch and is what ages are measured by (a chunk's age is its file's mtime).
    """

    def __init__(self, root: Path, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Make the folders and drop temporaries that a crash left."""
        self._root = root
        self._tmp = root / "tmp"
        self._quarantine = root / "quarantine"
        self._clock = wall_clock
        self._numbers = itertools.count()
        # One lock for each folder: held while a chunk is written, freshened or deleted, so that a second put of the
        # same bytes returns only when the first is durable, and a collection never deletes what was just freshened.
        self._locks = [threading.Lock() for _ in range(FOLDERS)]
        self._pins: Counter[bytes] = Counter()
        self._pins_lock = threading.Lock()
        # Folders whose names are known to be durable. A process that died between rename and fsync left a name in
        # doubt, so the first "there already" in a folder is answered only after an fsync of it.
        self._certain: set[int] = set()
        self._prepare()
        self._opened_s = wall_clock()

    def _prepare(self) -> None:
        for folder in (self._root, self._tmp, self._quarantine, *map(self._folder, range(FOLDERS))):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fsync.sync_directory(self._root)
        fsync.sync_directory(self._root.parent)
        for leftover in self._tmp.iterdir():
            leftover.unlink()

    def put(self, digest: bytes, data: Data, *, verified: bool = False) -> bool:
        """Store a chunk; durable on return. False if it was there already, and then its grace period starts anew.

        ``verified`` says that the caller has itself just hashed these bytes. Raises DigestMismatch, or StorageFull
        with nothing left behind.
        """
        if not verified and hash_chunk(data) != digest:
            raise DigestMismatch(f"chunk {digest.hex()} does not match its digest")
        path = self._path(digest)
        with self._locks[digest[0]]:
            if self._holds_undamaged(digest, path):
                self._touch(path)
                if digest[0] not in self._certain:
                    self._make_certain(path.parent, digest[0])
                return False
            self._write(path, data)
            self._make_certain(path.parent, digest[0])
            return True

    def _holds_undamaged(self, digest: bytes, path: Path) -> bool:
        try:
            stored = _read(path)
        except FileNotFoundError:
            return False
        if stored is not None and hash_chunk(stored) == digest:
            return True
        self._move_aside(path)
        return False

    def _write(self, path: Path, data: Data) -> None:
        temporary = self._tmp / f"{path.name}.{next(self._numbers)}"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fsync.write_all(fd, data)
                now = self._clock()
                os.utime(fd, (now, now))
                fsync.sync_data(fd, temporary)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"no room for a chunk of {len(data)} bytes in {self._root}") from error
            raise

    def _make_certain(self, folder: Path, number: int) -> None:
        fsync.sync_directory(folder)
        self._certain.add(number)

    def get(self, digest: bytes) -> bytes:
        """The whole chunk, verified. Raises ChunkMissing, or ChunkCorrupt after moving the damaged file aside."""
        path = self._path(digest)
        try:
            data = _read(path)
        except FileNotFoundError:
            raise ChunkMissing(digest.hex()) from None
        if data is not None and hash_chunk(data) == digest:
            return data
        with self._locks[digest[0]]:
            # Looked at again: a put may have replaced the damaged file meanwhile.
            if self._holds_undamaged(digest, path):
                return path.read_bytes()
        raise ChunkCorrupt(digest.hex())

    def _move_aside(self, path: Path) -> None:
        """At most one damaged file is kept of each digest, for a look at what happened to it."""
        os.replace(path, self._quarantine / path.name)
        _log.error("chunk %s is damaged; moved to %s", path.name, self._quarantine)

    def has(self, digest: bytes) -> bool:
        """Whether a file of this name is there (not whether it is undamaged)."""
        return self._path(digest).exists()

    def pin(self, digest: bytes) -> None:
        """Keep the chunk from collection until unpinned as often as pinned. Pins live in memory."""
        with self._pins_lock:
            self._pins[digest] += 1

    def unpin(self, digest: bytes) -> None:
        """Undo one pin. Raises ValueError if there is none."""
        with self._pins_lock:
            if self._pins[digest] <= 0:
                raise ValueError(f"chunk {digest.hex()} is not pinned")
            self._pins[digest] -= 1
            if not self._pins[digest]:
                del self._pins[digest]

    def collect(self, is_referenced: Callable[[bytes], bool], grace_s: float, now_s: float) -> CollectReport:
        """Delete chunks that are unreferenced, unpinned, and were last put more than ``grace_s`` before ``now_s``.

        ``is_referenced`` must answer from a state that is current (behind a barrier that came after the grace period
        of whatever it denies). Nothing is deleted within a grace period of the store's opening, because the mtime of a
        chunk that was freshened just before a power cut may have been lost.
        """
        deleted = deleted_bytes = kept = kept_bytes = 0
        oldest = now_s - grace_s
        for entry in self._entries():
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            old = max(status.st_mtime, self._opened_s) < oldest
            if old and self._delete(bytes.fromhex(entry.name), oldest, is_referenced):
                deleted += 1
                deleted_bytes += status.st_size
            else:
                kept += 1
                kept_bytes += status.st_size
        return CollectReport(deleted, deleted_bytes, kept, kept_bytes)

    def distrust_ages(self, now_s: float) -> None:
        """Delete nothing within a grace period from now: the wall clock jumped, so ages say nothing."""
        self._opened_s = max(self._opened_s, now_s)

    def _delete(self, digest: bytes, oldest: float, is_referenced: Callable[[bytes], bool]) -> bool:
        path = self._path(digest)
        with self._locks[digest[0]]:
            with self._pins_lock:
                if self._pins[digest] > 0:
                    return False
            try:
                if path.stat().st_mtime >= oldest or is_referenced(digest):
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def digests(self) -> Iterator[bytes]:
        """Digests of all stored chunks, in no particular order; a snapshot of no particular moment."""
        for entry in self._entries():
            yield bytes.fromhex(entry.name)

    def stats(self) -> ChunkStats:
        """Counts by looking at every file."""
        count = size = 0
        for entry in self._entries():
            try:
                size += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            count += 1
        with os.scandir(self._quarantine) as damaged:
            return ChunkStats(count, size, sum(1 for _ in damaged))

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        """One folder at a time, so that memory does not grow with the store."""
        for number in range(FOLDERS):
            with os.scandir(self._folder(number)) as found:
                entries = [entry for entry in found if _is_name(entry.name)]
            yield from entries

    def _touch(self, path: Path) -> None:
        now = self._clock()
        os.utime(path, (now, now))

    def _folder(self, number: int) -> Path:
        return self._root / f"{number:02x}"

    def _path(self, digest: bytes) -> Path:
        return chunk_path(self._root, digest)


def chunk_path(root: Path, digest: bytes) -> Path:
    """Where the store in ``root`` keeps the chunk of this digest. Raises ValueError if it is none."""
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"a digest has {DIGEST_BYTES} bytes, not {len(digest)}")
    return root / f"{digest[0]:02x}" / digest.hex()


def is_whole(root: Path, digest: bytes, length: int, *, read: bool) -> bool:
    """Whether the store in ``root``, which nobody has open, holds the chunk: a file of its length, and with ``read``
    of its digest. Changes nothing."""
    path = chunk_path(root, digest)
    try:
        if path.stat().st_size != length:
            return False
    except FileNotFoundError:
        return False
    if not read:
        return True
    data = _read(path)
    return data is not None and hash_chunk(data) == digest


def _read(path: Path) -> bytes | None:
    """The file's bytes; None if the disk cannot read them, which is damage like any other. FileNotFoundError."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


def _is_name(name: str) -> bool:
    return len(name) == 2 * DIGEST_BYTES and all(c in "0123456789abcdef" for c in name)
