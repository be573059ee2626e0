"""Lists of directories, page by page.

A cursor carries the revision of the first page and the last path that was looked at, so all pages show one moment
and each begins with an index lookup, whatever its place in the list. Recursive lists go in path order: a directory,
then all below it, then its next sibling, names bytewise. A page may be short, even empty, and still have a next one:
it also ends when it grew large or when many entries did not match the pattern.
"""

from __future__ import annotations

import binascii
import sqlite3
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from blake3 import blake3

from raftfs import limits, paths
from raftfs.errors import InvalidRequest
from raftfs.state import namespace
from raftfs.state.commands import Page, Stat
from raftfs.state.glob import Glob
from raftfs.state.namespace import Version

Place = TypeVar("Place", bound=msgspec.Struct)

_FETCH_MIN = 16
_FETCH_MAX = 512
_ENTRY_BYTES = 200  # of a page's encoding, beside path and metadata


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page begins. ``query``: hash of what was asked, so that a cursor fits its own list only."""

    query: bytes
    revision: int
    last: list[str]


_cursor_decoder = msgspec.msgpack.Decoder(_Cursor)


@dataclass(frozen=True, slots=True)
class Query:
    """What is listed."""

    path: str
    recursive: bool
    glob: str | None

    def digest(self) -> bytes:
        return blake3(msgspec.msgpack.encode([self.path, self.recursive, self.glob])).digest(8)


def to_text(place: msgspec.Struct) -> str:
    """A place in a list as a cursor."""
    return urlsafe_b64encode(msgspec.msgpack.encode(place)).decode().rstrip("=")


def from_text(text: str, decoder: msgspec.msgpack.Decoder[Place]) -> Place:
    """The place that a cursor names. Raises InvalidRequest if it is damaged."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return decoder.decode(urlsafe_b64decode(padded))
    except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError, ValueError):
        raise InvalidRequest("the cursor is damaged: pass on `next` of the page before as it came") from None


def encode_cursor(query: Query, revision: int, last: list[str]) -> str:
    return to_text(_Cursor(query.digest(), revision, last))


def cursor_revision(text: str) -> int:
    """The revision that all pages of a cursor's list (or export) show. Raises InvalidRequest if it is damaged."""
    return from_text(text, _cursor_decoder).revision


def decode_cursor(query: Query, text: str) -> tuple[int, list[str]]:
    """Revision and last names of a cursor. Raises InvalidRequest unless it came from a page of the same list."""
    cursor = from_text(text, _cursor_decoder)
    depth_fits = len(cursor.last) == 1 or (cursor.last and query.recursive)
    if cursor.query != query.digest() or not depth_fits:
        raise InvalidRequest("the cursor belongs to another list: path, recursive and glob must stay the same")
    return cursor.revision, cursor.last


@dataclass(slots=True)
class _Level:
    """One directory on the way of a walk: what was read ahead of it, and behind which name to read on."""

    inode: int
    names: list[str]
    positions: frozenset[int]
    after: str = ""
    fetch: int = _FETCH_MIN
    ahead: deque[tuple[str, Version]] = field(default_factory=deque)
    at_end: bool = False


class Walk:
    """Goes through a directory, from behind ``last``, yielding (names, version, matches) of each entry."""

    def __init__(self, db: sqlite3.Connection, query: Query, revision: int | None) -> None:
        self._db = db
        self._revision = revision
        self._recursive = query.recursive
        self._glob = Glob(query.glob) if query.glob is not None else None
        if self._glob is not None and not query.recursive and self._glob.depth > 1:
            raise InvalidRequest(f"glob {query.glob!r} has a slash, which only a recursive list can match")
        self._ahead = 0

    def entries(self, directory: int, last: list[str]) -> Iterator[tuple[list[str], Version, bool]]:
        stack = self._resume(directory, last)
        while stack:
            level = stack[-1]
            found = self._next(level)
            if found is None:
                stack.pop()
                continue
            name, version = found
            names = [*level.names, name]
            positions, matches = self._match(level.positions, name)
            yield names, version, matches
            if self._recursive and version.is_directory and (self._glob is None or positions):
                self._bound(level)
                stack.append(_Level(version.inode, names, positions))

    def _match(self, positions: frozenset[int], name: str) -> tuple[frozenset[int], bool]:
        if self._glob is None:
            return positions, True
        after = self._glob.step(positions, name)
        return after, self._glob.accepts(after)

    def _resume(self, directory: int, last: list[str]) -> list[_Level]:
        """The stack as it was after the walk had yielded ``last``."""
        stack = [_Level(directory, [], self._glob.start() if self._glob else frozenset())]
        for name in last:
            level = stack[-1]
            level.after = name
            if not self._recursive:
                break
            inode = self._lookup(level.inode, name)
            if inode is None:
                raise InvalidRequest("the cursor names an entry that is not in the list")
            positions, _ = self._match(level.positions, name)
            is_directory = self._version(inode).is_directory
            if not is_directory or (self._glob is not None and not positions):
                break
            stack.append(_Level(inode, [*level.names, name], positions))
        return stack

    def _next(self, level: _Level) -> tuple[str, Version] | None:
        if not level.ahead:
            if level.at_end:
                return None
            rows = self._children(level)
            level.ahead.extend(rows)
            level.at_end = len(rows) < level.fetch
            level.fetch = min(2 * level.fetch, _FETCH_MAX)
            self._ahead += len(rows)
            if not rows:
                return None
        self._ahead -= 1
        found = level.ahead.popleft()
        level.after = found[0]
        return found

    def _bound(self, level: _Level) -> None:
        """Before going down: drop what was read ahead here if too much is held over all levels; it is read again."""
        if self._ahead > limits.PAGE_BUFFER_ENTRIES_MAX:
            self._ahead -= len(level.ahead)
            level.ahead.clear()
            level.at_end = False
            level.fetch = _FETCH_MIN

    def _children(self, level: _Level) -> list[tuple[str, Version]]:
        if self._revision is None:
            return namespace.children(self._db, level.inode, level.after, level.fetch)
        return namespace.children_at(self._db, level.inode, level.after, level.fetch, self._revision)

    def _lookup(self, parent: int, name: str) -> int | None:
        if self._revision is None:
            return namespace.lookup(self._db, parent, name)
        return namespace.lookup_at(self._db, parent, name, self._revision)

    def _version(self, inode: int) -> Version:
        if self._revision is None:
            return namespace.version(self._db, inode)
        return namespace.version_at(self._db, inode, self._revision)


def read_page(walk: Walk, query: Query, directory: int, last: list[str], limit: int, revision: int) -> Page:
    """Up to ``limit`` matching entries from behind ``last``; ``revision`` is what the page shows."""
    entries: list[Stat] = []
    size = 0
    for scanned, (names, version, matches) in enumerate(walk.entries(directory, last)):
        if len(entries) >= limit or size >= limits.PAGE_BYTES_MAX or scanned >= limits.PAGE_SCAN_ENTRIES_MAX:
            return Page(entries, encode_cursor(query, revision, last), revision)
        last = names
        if matches:
            stat = namespace.to_stat(paths.join(query.path, "/".join(names)), version)
            size += _ENTRY_BYTES + len(stat.path) + len(version.metadata or b"")
            entries.append(stat)
    return Page(entries, None, revision)
