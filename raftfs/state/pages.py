"""Checksums of the database's pages, in a file beside it: SQLite keeps none, and would serve a flipped byte.

A database in WAL mode changes at checkpoints alone. After each that copied the whole log, the checksums of the pages in
that log are written here, durably, before the log may be used again. So whenever the database is opened, each of its
pages either has the checksum that stands here, or a newer one in the log takes its place (frames of the log have
checksums of their own, which SQLite checks when it opens it). Anything else is damage, and named by its offset.

The file: two headers, written in turn, and then four bytes for each page. A header says which log (its two salts), up
to which frame, went into the checksums. A log that ends before that frame has lost its end, and would give back old
pages of some tables beside new ones of others; but then the database holds all that the log held, and the log goes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c

from raftfs import fsync
from raftfs.errors import CorruptData

PAGE_BYTES: Final = 4096
_HEADER: Final = struct.Struct("<8sQ8sIII")  # magic, generation, salts, frames, pages, crc of what stands before it
_MAGIC: Final = b"RFSPAGE1"
_SLOT_BYTES: Final = 512
_SUMS_AT: Final = 4096
_SUM: Final = struct.Struct("<I")

# https://www.sqlite.org/walformat.html and https://www.sqlite.org/fileformat2.html#the_write_ahead_log
_LOG_HEADER_BYTES: Final = 32
_FRAME: Final = struct.Struct(">II16x")  # page, size of the database in pages if a transaction ends here
_SALTS: Final = slice(16, 24)
_INDEX_FRAMES: Final = struct.Struct("=I")
_INDEX_FRAMES_AT: Final = 16
_INDEX_SALTS: Final = slice(32, 40)
_INDEX_HEADER_BYTES: Final = 48
_READ_PAGES: Final = 256


class Log(NamedTuple):
    """The write-ahead log as SQLite sees it: ``salts`` name it, ``frames`` of it are whole."""

    salts: bytes
    frames: int


class _Header(NamedTuple):
    generation: int
    salts: bytes
    frames: int
    pages: int


_NONE: Final = _Header(0, bytes(8), 0, 0)


def beside(database: Path, suffix: str) -> Path:
    """A companion of the database: "-wal", "-shm" or "-sums"."""
    return database.with_name(database.name + suffix)


def read_log(database: Path) -> Log:
    """What SQLite made of the log when it was opened. A connection has to be in a read transaction."""
    log = beside(database, "-wal")
    if not log.exists() or log.stat().st_size == 0:
        return Log(b"", 0)
    index = beside(database, "-shm").read_bytes()[:_INDEX_HEADER_BYTES]
    if len(index) < _INDEX_HEADER_BYTES:
        raise RuntimeError(f"{log} has no index")
    return Log(index[_INDEX_SALTS], _INDEX_FRAMES.unpack_from(index, _INDEX_FRAMES_AT)[0])


class PageSums:
    """The checksums of one database. Blocking; one writer."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self.path = beside(database, "-sums")

    def is_empty(self) -> bool:
        """Whether nothing was copied into the database yet: it may not even be one. Raises CorruptData."""
        with self.path.open("rb") as file:
            return self._header(file.read(_SUMS_AT)).pages == 0

    def check(self, log: Log) -> bool:
        """Read the whole database and compare. False if the log lost its end and has to be deleted: the database holds
        all of it. Raises CorruptData naming file and offset. No connection of this process may be open."""
        with self.path.open("rb") as file:
            header = self._header(file.read(_SUMS_AT))
            raw = file.read(header.pages * _SUM.size)
        if len(raw) != header.pages * _SUM.size:
            raise CorruptData(f"{self.path} is damaged: it ends at offset {_SUMS_AT + len(raw)}")
        sums = struct.unpack(f"<{header.pages}I", raw)
        lost = log.salts == header.salts and log.frames < header.frames
        newer = set() if lost else {page for page, _, _ in self._frames(0, log.frames)}
        for page, data in self._pages(header.pages):
            if page not in newer and _checksum(page, data) != sums[page - 1]:
                raise CorruptData(
                    f"{self._database}: page {page}, at offset {(page - 1) * PAGE_BYTES}, is damaged: its checksum is "
                    f"not the one at offset {_SUMS_AT + (page - 1) * _SUM.size} of {self.path.name}"
                )
        return not lost

    def begin(self) -> None:
        """For a database that is there (its log is empty, no connection of this process is open) or still to be made:
        take it as it is for right."""
        pages = self._database.stat().st_size // PAGE_BYTES if self._database.exists() else 0
        sums = b"".join(_SUM.pack(_checksum(page, data)) for page, data in self._pages(pages))
        head = b"".join(_encode(_NONE._replace(generation=n, pages=pages)).ljust(_SLOT_BYTES, b"\0") for n in (0, 1))
        fsync.write_durably(self.path, head.ljust(_SUMS_AT, b"\0") + sums)

    def reserve(self, pages: int) -> None:
        """Make room for the checksums of so many pages. OSError if there is none; nothing has changed then."""
        fd = os.open(self.path, os.O_RDWR)
        try:
            size, needed = os.fstat(fd).st_size, _SUMS_AT + pages * _SUM.size
            if size < needed:
                os.pwrite(fd, bytes(needed - size), size)
        finally:
            os.close(fd)

    def record(self, frames: int) -> None:
        """Note the pages in the first ``frames`` of the log, all of which the database has by now; durable on return.
        The log must not be used again before that."""
        with beside(self._database, "-wal").open("rb") as file:
            salts = file.read(_LOG_HEADER_BYTES)[_SALTS]
        with self.path.open("rb") as file:
            old = self._header(file.read(_SUMS_AT))
        pages, sums = old.pages, {}
        for page, size, data in self._frames(old.frames if old.salts == salts else 0, frames):
            sums[page] = _checksum(page, data)
            pages = size or pages
        self._write(_Header(old.generation + 1, salts, frames, pages), sums)

    def _header(self, raw: bytes) -> _Header:
        """The newer of the two headers. A crash leaves every sector whole, so both of them have to be."""
        return max(self._slot(raw, at) for at in (0, _SLOT_BYTES))

    def _slot(self, raw: bytes, at: int) -> _Header:
        part = raw[at : at + _HEADER.size]
        if len(part) == _HEADER.size:
            header = _Header(*_HEADER.unpack(part)[1:-1])
            if _encode(header) == part:
                return header
        raise CorruptData(f"{self.path} is damaged at offset {at}")

    def _write(self, header: _Header, sums: dict[int, int]) -> None:
        fd = os.open(self.path, os.O_RDWR)
        try:
            # A crash leaves some of this and not the rest: the log still has every page whose checksum is in doubt.
            for first, run in _runs(sums):
                os.pwrite(fd, run, _SUMS_AT + (first - 1) * _SUM.size)
            os.pwrite(fd, _encode(header), header.generation % 2 * _SLOT_BYTES)
            fsync.sync_data(fd, self.path)
        finally:
            os.close(fd)

    def _frames(self, first: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """(page, size of the database after it if a transaction ends there, bytes) of frames of the log."""
        if first >= stop:
            return
        with beside(self._database, "-wal").open("rb") as file:
            file.seek(_LOG_HEADER_BYTES + first * (_FRAME.size + PAGE_BYTES))
            for _ in range(first, stop):
                page, size = _FRAME.unpack(file.read(_FRAME.size))
                yield page, size, file.read(PAGE_BYTES)

    def _pages(self, pages: int) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of the database's pages; those behind its end are empty."""
        if not pages:
            return
        with self._database.open("rb") as file:
            for first in range(0, pages, _READ_PAGES):
                block = file.read(min(_READ_PAGES, pages - first) * PAGE_BYTES)
                for at in range(min(_READ_PAGES, pages - first)):
                    yield first + at + 1, block[at * PAGE_BYTES : (at + 1) * PAGE_BYTES]


def _encode(header: _Header) -> bytes:
    head = _HEADER.pack(_MAGIC, *header, 0)[: -_SUM.size]
    return head + _SUM.pack(google_crc32c.value(head))


def _checksum(page: int, data: bytes) -> int:
    """CRC32C of a page, and of its place: a page that stands where another one belongs is damage, too."""
    return int(google_crc32c.value(data)) ^ page


def _runs(sums: dict[int, int]) -> Iterator[tuple[int, bytes]]:
    """Neighbours together: the first page of each run, and the checksums as they are stored."""
    for _, group in groupby(enumerate(sorted(sums)), key=lambda place: place[1] - place[0]):
        pages = [page for _, page in group]
        yield pages[0], b"".join(_SUM.pack(sums[page]) for page in pages)
