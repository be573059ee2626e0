"""Who needs a chunk: from digests back to paths. For people who have to know what is lost with some chunks.

The tables lead from paths to chunks, so this reads all of them, once for each level of directories; it is meant for
a node that does not serve.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Set
from typing import Literal, NamedTuple

from raftfs.state.schema import ROOT_INODE

_VERSIONS = (
    "SELECT inode, rev_from, size, content, 1 FROM version WHERE content IS NOT NULL UNION ALL"
    " SELECT inode, rev_from, size, content, 0 FROM version_past WHERE content IS NOT NULL"
)
_NAMES = (
    "SELECT inode, parent, name, rev_from, NULL FROM dirent UNION ALL"
    " SELECT inode, parent, name, rev_from, rev_to FROM dirent_past"
)


class Holder(NamedTuple):
    """A file as it is now, an old version of one (as of ``revision``), or an unfinished upload (``revision`` is 0).
    ``size`` in bytes; ``chunks`` of it, ``chunk_bytes`` together, are among those that were asked for."""

    kind: Literal["file", "version", "upload"]
    path: str
    size: int
    revision: int
    chunks: int
    chunk_bytes: int


class _Name(NamedTuple):
    parent: int
    name: str
    rev_from: int
    rev_to: int | None


def find_holders(db: sqlite3.Connection, digests: Set[bytes]) -> list[Holder]:
    """Everything that refers to one of ``digests``, by kind and path. A version that only metadata tells from the next
    is listed, too."""
    lengths: dict[int, list[int]] = {}
    for content, digest, length in db.execute("SELECT content, digest, length FROM content_chunk"):
        if digest in digests:
            lengths.setdefault(content, []).append(length)
    found = [row for row in db.execute(_VERSIONS) if row[3] in lengths]
    names = _names(db, {row[0] for row in found})
    holders = []
    for inode, revision, size, content, live in found:
        path = _path(names, inode, None) if live else None
        # Where a version came into being is a path that it had for certain.
        kind: Literal["file", "version"] = "version" if path is None else "file"
        path = path or _path(names, inode, revision) or f"inode {inode}"
        holders.append(Holder(kind, path, size, revision, len(lengths[content]), sum(lengths[content])))
    for upload, path, offset in db.execute("SELECT id, path, offset FROM upload"):
        if upload in lengths:
            holders.append(Holder("upload", path, offset, 0, len(lengths[upload]), sum(lengths[upload])))
    return sorted(holders)


def _names(db: sqlite3.Connection, inodes: Iterable[int]) -> dict[int, list[_Name]]:
    """Every name that these inodes, and all directories above them, have or had."""
    names: dict[int, list[_Name]] = {}
    wanted = set(inodes)
    while wanted:
        for inode, *name in db.execute(_NAMES):
            if inode in wanted:
                names.setdefault(inode, []).append(_Name(*name))
        above = {name.parent for inode in wanted for name in names.get(inode, ())}
        wanted = above - names.keys() - {ROOT_INODE}
    return names


def _path(names: dict[int, list[_Name]], inode: int, revision: int | None) -> str | None:
    """Where an inode is now, or was at ``revision``; None if nowhere."""
    parts: list[str] = []
    while inode != ROOT_INODE:
        name = next((name for name in names.get(inode, ()) if _is_valid(name, revision)), None)
        if name is None:
            return None
        parts.append(name.name)
        inode = name.parent
    return "/" + "/".join(reversed(parts))


def _is_valid(name: _Name, revision: int | None) -> bool:
    if revision is None:
        return name.rev_to is None
    return name.rev_from <= revision and (name.rev_to is None or revision < name.rev_to)
