"""Look-ups that may grow with the number of files: temporary SQLite databases, in memory while they are small."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator

from raftfs.backup.manifest import Chunk


class BundleIndex:
    """Where the small contents are that some bundle has already."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", check_same_thread=False)
        self._db.execute("CREATE TABLE small (digest TEXT PRIMARY KEY, bundle TEXT, at INTEGER) WITHOUT ROWID")

    def add(self, chunks: Iterable[Chunk]) -> None:
        rows = ((chunk.digest, chunk.bundle, chunk.at) for chunk in chunks)
        self._db.executemany("INSERT OR IGNORE INTO small VALUES (?, ?, ?)", rows)

    def learn(self, chunks: Iterable[Chunk], is_there: Callable[[str], bool]) -> None:
        """Take over what a manifest says, where its bundles are still there."""
        last, found = "", False

        def usable() -> Iterator[Chunk]:
            nonlocal last, found
            for chunk in chunks:
                if chunk.bundle != last:
                    last, found = chunk.bundle, is_there(chunk.bundle)
                if found:
                    yield chunk

        self.add(usable())

    def find(self, digest: str, length: int) -> Chunk | None:
        row = self._db.execute("SELECT bundle, at FROM small WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else Chunk(digest, length, row[0], row[1])

    def close(self) -> None:
        self._db.close()


class References:
    """Which objects the manifests refer to, which of their bytes are whole contents, and a path that needs each."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.execute(
            "CREATE TABLE object (digest TEXT PRIMARY KEY, end INTEGER, path TEXT, seen INTEGER) WITHOUT ROWID"
        )
        self._db.execute(
            "CREATE TABLE part (bundle TEXT, at INTEGER, length INTEGER, digest TEXT, PRIMARY KEY (bundle, at, length))"
            " WITHOUT ROWID"
        )

    def add(self, chunk: Chunk, path: str) -> None:
        self._db.execute(
            "INSERT INTO object VALUES (?, ?, ?, 0) ON CONFLICT DO UPDATE SET end = max(end, excluded.end)",
            (chunk.object, chunk.at + chunk.length, path),
        )
        if chunk.bundle:
            self._db.execute(
                "INSERT OR IGNORE INTO part VALUES (?, ?, ?, ?)", (chunk.bundle, chunk.at, chunk.length, chunk.digest)
            )

    def see(self, digest: str) -> tuple[int, str] | None:
        """Note that an object is there. Returns the bytes that it must have at least and a path that needs them; None
        if nothing refers to it."""
        row = self._db.execute("SELECT end, path FROM object WHERE digest = ?", (digest,)).fetchone()
        self._db.execute("UPDATE object SET seen = 1 WHERE digest = ?", (digest,))
        return None if row is None else (row[0], row[1])

    def parts(self, bundle: str) -> Iterator[tuple[int, int, str]]:
        """(at, length, digest) of the contents in a bundle."""
        yield from self._db.execute("SELECT at, length, digest FROM part WHERE bundle = ?", (bundle,))

    def unseen(self) -> Iterator[tuple[str, str]]:
        """(digest, path) of the objects that were not seen."""
        yield from self._db.execute("SELECT digest, path FROM object WHERE seen = 0")

    def has(self, digest: str) -> bool:
        return self._db.execute("SELECT 1 FROM object WHERE digest = ?", (digest,)).fetchone() is not None

    def close(self) -> None:
        self._db.close()
