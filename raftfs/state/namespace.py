"""Rows of the namespace: names (dirents) and what inodes held (versions), live and at an old revision.

A name or version is valid from ``rev_from`` up to, not including, ``rev_to``. Reading at revision R looks at the live
row if it began by R, and otherwise for the past row that spans R. Only reads and single-row writes are here; what a
command may do is decided in ``tree``.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from raftfs import paths
from raftfs.state.commands import Stat
from raftfs.state.schema import ROOT_INODE

VERSION_COLUMNS = "inode, rev_from, size, created_ms, modified_ms, content, content_type, metadata"

_metadata_encoder = msgspec.msgpack.Encoder(order="deterministic")
_metadata_decoder = msgspec.msgpack.Decoder(dict[str, str])


class Version(NamedTuple):
    """What an inode holds: a row of ``version``. ``content`` is None for a directory."""

    inode: int
    rev_from: int
    size: int
    created_ms: int
    modified_ms: int
    content: int | None
    content_type: str | None
    metadata: bytes | None

    @property
    def is_directory(self) -> bool:
        return self.content is None


def encode_metadata(metadata: dict[str, str]) -> bytes | None:
    return _metadata_encoder.encode(metadata) if metadata else None


def decode_metadata(data: bytes | None) -> dict[str, str]:
    return _metadata_decoder.decode(data) if data else {}


def to_stat(path: str, version: Version) -> Stat:
    return Stat(
        path,
        version.content is None,
        version.inode,
        version.size,
        version.rev_from,
        version.created_ms,
        version.modified_ms,
        version.content_type,
        decode_metadata(version.metadata),
    )


def lookup(db: sqlite3.Connection, parent: int, name: str) -> int | None:
    """The inode that ``name`` in directory ``parent`` means now."""
    row = db.execute("SELECT inode FROM dirent WHERE parent = ? AND name = ?", (parent, name)).fetchone()
    return row[0] if row else None


def lookup_at(db: sqlite3.Connection, parent: int, name: str, revision: int) -> int | None:
    """The inode that ``name`` in directory ``parent`` meant at ``revision``."""
    row = db.execute(
        "SELECT inode FROM dirent WHERE parent = ?1 AND name = ?2 AND rev_from <= ?3 UNION ALL"
        " SELECT inode FROM dirent_past WHERE parent = ?1 AND name = ?2 AND rev_from <= ?3 AND rev_to > ?3",
        (parent, name, revision),
    ).fetchone()
    return row[0] if row else None


def version(db: sqlite3.Connection, inode: int) -> Version:
    """What a live inode holds now."""
    return Version._make(db.execute(f"SELECT {VERSION_COLUMNS} FROM version WHERE inode = ?", (inode,)).fetchone())


def version_at(db: sqlite3.Connection, inode: int, revision: int) -> Version:
    """What an inode that was reachable at ``revision`` held then."""
    row = db.execute(
        f"SELECT {VERSION_COLUMNS} FROM version WHERE inode = ?1 AND rev_from <= ?2 UNION ALL"
        f" SELECT {VERSION_COLUMNS} FROM version_past WHERE inode = ?1 AND rev_from <= ?2 AND rev_to > ?2",
        (inode, revision),
    ).fetchone()
    return Version._make(row)


def find(db: sqlite3.Connection, path: str, revision: int | None = None) -> Version | None:
    """What is at a normal path, now or at ``revision``; None if nothing is (also below a file)."""
    inode: int | None = ROOT_INODE
    for name in paths.components(path):
        assert inode is not None
        inode = lookup(db, inode, name) if revision is None else lookup_at(db, inode, name, revision)
        if inode is None:
            return None
    assert inode is not None
    return version(db, inode) if revision is None else version_at(db, inode, revision)


def add_name(db: sqlite3.Connection, parent: int, name: str, inode: int, revision: int) -> None:
    db.execute("INSERT INTO dirent VALUES (?, ?, ?, ?)", (parent, name, inode, revision))


def end_name(db: sqlite3.Connection, parent: int, name: str, revision: int) -> None:
    """Move a live name to the past. What is below it becomes unreachable from ``revision`` on and stays in history."""
    db.execute(
        "INSERT INTO dirent_past SELECT parent, name, inode, rev_from, ?3 FROM dirent WHERE parent = ?1 AND name = ?2",
        (parent, name, revision),
    )
    db.execute("DELETE FROM dirent WHERE parent = ? AND name = ?", (parent, name))


def add_version(db: sqlite3.Connection, new: Version) -> None:
    db.execute("INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)


def replace_version(db: sqlite3.Connection, new: Version) -> None:
    """Move what the inode held to the past and store what it holds from ``new.rev_from`` on."""
    db.execute(
        f"INSERT INTO version_past SELECT {VERSION_COLUMNS}, ?2 FROM version WHERE inode = ?1",
        (new.inode, new.rev_from),
    )
    db.execute("REPLACE INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)


def is_empty(db: sqlite3.Connection, inode: int) -> bool:
    return db.execute("SELECT 1 FROM dirent WHERE parent = ? LIMIT 1", (inode,)).fetchone() is None


def children(db: sqlite3.Connection, parent: int, after: str, limit: int) -> list[tuple[str, Version]]:
    """Live entries of a directory, bytewise by name, from behind ``after``."""
    rows = db.execute(
        "SELECT d.name, v.inode, v.rev_from, v.size, v.created_ms, v.modified_ms, v.content, v.content_type, v.metadata"
        " FROM dirent d CROSS JOIN version v ON v.inode = d.inode"
        " WHERE d.parent = ? AND d.name > ? ORDER BY d.name LIMIT ?",
        (parent, after, limit),
    ).fetchall()
    return [(row[0], Version._make(row[1:])) for row in rows]


def children_at(
    db: sqlite3.Connection, parent: int, after: str, limit: int, revision: int
) -> list[tuple[str, Version]]:
    """The same as the directory was at ``revision``."""
    rows = db.execute(
        "SELECT name, inode FROM dirent WHERE parent = ?1 AND name > ?2 AND rev_from <= ?3 UNION ALL"
        " SELECT name, inode FROM dirent_past WHERE parent = ?1 AND name > ?2 AND rev_from <= ?3 AND rev_to > ?3"
        " ORDER BY name LIMIT ?4",
        (parent, after, revision, limit),
    ).fetchall()
    return [(name, version_at(db, inode, revision)) for name, inode in rows]
