"""The tree with what its files consist of, page by page, all of one revision: what a backup is made from.

Order and cursor are those of a recursive list (see ``listing``), with the directory itself before all that is in it. A
file with more chunks than a page has room for is continued on the next page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from blake3 import blake3

from raftfs import limits, paths
from raftfs.errors import InvalidRequest
from raftfs.state import namespace
from raftfs.state.commands import ChunkRef, Stat
from raftfs.state.listing import Query, Walk, from_text, to_text
from raftfs.state.namespace import Version

_ENTRY_BYTES = 300  # of a page's encoding, beside path, metadata, chunks and data
_CHUNK_REF_BYTES = 80


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page begins: behind ``last`` (names below the top), or inside that file, at byte ``offset``. The
    fields before ``offset`` are those of a list's cursor."""

    query: bytes
    revision: int
    last: list[str]
    offset: int


_decoder = msgspec.msgpack.Decoder(_Place)


@dataclass(frozen=True, slots=True)
class Exported:
    """A directory, or (part of) a file: ``chunks`` from byte ``offset`` on, the rest on the next page if ``more``.

    The content of a small file, which has no chunks of its own, counts as one; ``data`` are its bytes if they were
    asked for.
    """

    stat: Stat
    offset: int = 0
    chunks: tuple[ChunkRef, ...] = ()
    more: bool = False
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class ExportPage:
    """As ``Page``."""

    entries: list[Exported]
    next: str | None
    revision: int


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported: ``path`` and all below it, as it was ``at`` a revision (None: now), which is ``shown``. With
    the bytes of small files whose last change came after revision ``since`` (None: without). A page ends at about
    ``page_bytes`` of its encoding."""

    path: str
    at: int | None
    shown: int
    since: int | None
    page_bytes: int = limits.PAGE_BYTES_MAX

    def read(self, db: sqlite3.Connection, top: Version, cursor: str | None, limit: int) -> ExportPage:
        """One page. Raises InvalidRequest if the cursor does not belong here."""
        entries: list[Exported] = []
        size, last = 0, list[str]()
        for names, version, offset in self._from(db, top, None if cursor is None else self._place(cursor)):
            if len(entries) >= limit or size >= self.page_bytes:
                return ExportPage(entries, self._cursor(last, 0), self.shown)
            room = max(1, (self.page_bytes - size) // _CHUNK_REF_BYTES)
            entry = self._entry(db, names, version, offset, room)
            entries.append(entry)
            size += _ENTRY_BYTES + len(entry.stat.path) + len(version.metadata or b"")
            size += len(entry.chunks) * _CHUNK_REF_BYTES + len(entry.data or b"") * 4 // 3
            if entry.more:
                reached = offset + sum(chunk.length for chunk in entry.chunks)
                return ExportPage(entries, self._cursor(names, reached), self.shown)
            last = names
        return ExportPage(entries, None, self.shown)

    def _from(
        self, db: sqlite3.Connection, top: Version, place: _Place | None
    ) -> Iterator[tuple[list[str], Version, int]]:
        if place is None:
            yield [], top, 0
        elif place.offset:
            version = namespace.find(db, self._path(place.last), self.at)
            if version is None or version.is_directory:
                raise InvalidRequest("the cursor names a file that is not there")
            yield place.last, version, place.offset
        if top.is_directory:
            walk = Walk(db, Query(self.path, True, None), self.at)
            for names, version, _ in walk.entries(top.inode, [] if place is None else place.last):
                yield names, version, 0

    def _entry(self, db: sqlite3.Connection, names: list[str], version: Version, offset: int, room: int) -> Exported:
        stat = namespace.to_stat(self._path(names), version)
        if version.content is None:
            return Exported(stat)
        row = db.execute("SELECT data FROM content WHERE id = ?", (version.content,)).fetchone()
        if row is not None:
            data: bytes = row[0]
            wanted = self.since is not None and version.rev_from > self.since
            chunks = (ChunkRef(blake3(data).digest(), len(data)),) if data else ()
            return Exported(stat, 0, chunks, False, data if wanted else None)
        rows = db.execute(
            "SELECT digest, length FROM content_chunk WHERE content = ? AND offset >= ? ORDER BY offset LIMIT ?",
            (version.content, offset, room + 1),
        ).fetchall()
        return Exported(stat, offset, tuple(ChunkRef(*found) for found in rows[:room]), len(rows) > room)

    def _path(self, names: list[str]) -> str:
        return paths.join(self.path, "/".join(names)) if names else self.path

    def _digest(self) -> bytes:
        return blake3(msgspec.msgpack.encode(["export", self.path])).digest(8)

    def _cursor(self, last: list[str], offset: int) -> str:
        return to_text(_Place(self._digest(), self.shown, last, offset))

    def _place(self, text: str) -> _Place:
        place = from_text(text, _decoder)
        ours = place.query == self._digest() and place.revision == self.shown
        if not ours or not 0 <= place.offset <= limits.FILE_BYTES_MAX:
            raise InvalidRequest("the cursor belongs to another export: path and revision must stay the same")
        return place
