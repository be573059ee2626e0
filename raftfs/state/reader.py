"""Reads of the state: what the last committed entry left, or what was there at an older revision."""

from __future__ import annotations

import builtins
import sqlite3
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from raftfs import limits
from raftfs.errors import InvalidRequest, IsADirectory, NotADirectory, NotFound
from raftfs.state import namespace
from raftfs.state.commands import ChunkRef, FileVersion, Page, Result, Stat, UploadState
from raftfs.state.export import Export, ExportPage
from raftfs.state.holders import Holder, find_holders
from raftfs.state.listing import Query, Walk, cursor_revision, decode_cursor, read_page
from raftfs.state.schema import Applied, load_configuration, open_reader, translate
from raftfs.state.sessions import load_outcome
from raftfs.state.uploads import load_upload


class _Snapshot:
    """A read transaction; entered again inside itself it does nothing, so that calls can be grouped."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._depth = 0

    def __enter__(self) -> None:
        if self._depth == 0:
            try:
                self._db.execute("BEGIN")
            except sqlite3.DatabaseError as error:
                raise translate(self._path, error) from error
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._db.in_transaction:
            self._db.execute("COMMIT" if error is None else "ROLLBACK")
        if isinstance(error, sqlite3.DatabaseError):
            raise translate(self._path, error) from error


class Reader:
    """A read-only connection to a state database, for one thread; any number beside the writer.

    Paths are in normal form. ``revision`` None means now. Raises InvalidRequest for a revision that is not reached
    yet, and CorruptData if the database is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._db = open_reader(path)
        self._snapshot = _Snapshot(self._db, path)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All calls inside see one moment. Keep it short: the write-ahead log grows meanwhile."""
        with self._snapshot:
            yield

    def applied(self) -> Applied:
        """Index, term, revision, state hash and format version after the last committed entry."""
        with self._snapshot:
            row = self._db.execute(
                "SELECT applied_index, applied_term, revision, state_hash, user_version FROM meta, pragma_user_version"
            ).fetchone()
        return Applied._make(row)

    def stat(self, path: str, revision: int | None = None) -> Stat | None:
        """What is at a path; None if nothing is."""
        with self._snapshot:
            found = namespace.find(self._db, path, self._pinned(revision))
        return None if found is None else namespace.to_stat(path, found)

    def open(self, path: str, revision: int | None = None) -> FileVersion | None:
        """A file's stat and its inline bytes or chunks; None if nothing is there. Raises IsADirectory."""
        with self._snapshot:
            found = namespace.find(self._db, path, self._pinned(revision))
            if found is None:
                return None
            if found.content is None:
                raise IsADirectory(f"{path} is a directory")
            row = self._db.execute("SELECT data FROM content WHERE id = ?", (found.content,)).fetchone()
            stat = namespace.to_stat(path, found)
            if row is not None:
                return FileVersion(stat, row[0], [])
            rows = self._db.execute(
                "SELECT digest, length FROM content_chunk WHERE content = ? ORDER BY offset", (found.content,)
            )
            return FileVersion(stat, None, [ChunkRef(digest, length) for digest, length in rows])

    def list(
        self,
        path: str,
        *,
        limit: int,
        cursor: str | None = None,
        recursive: bool = False,
        glob: str | None = None,
        revision: int | None = None,
    ) -> Page:
        """One page of a directory, in path order; pass its ``next`` as ``cursor`` for the page after it.

        All pages show the revision of the first. ``limit``: 1 to PAGE_ENTRIES_MAX; a page may hold fewer, or none,
        and still have a next. ``glob`` is matched against the name, or against the path relative to ``path`` if
        ``recursive`` (where ``**`` stands for any number of directories).
        Raises NotFound, NotADirectory, InvalidRequest (limit, cursor, glob or revision).
        """
        if not 1 <= limit <= limits.PAGE_ENTRIES_MAX:
            raise InvalidRequest(f"limit is {limit}, must be from 1 to {limits.PAGE_ENTRIES_MAX}")
        query = Query(path, recursive, glob)
        last: list[str] = []
        if cursor is not None:
            pinned, last = decode_cursor(query, cursor)
            if revision not in (None, pinned):
                raise InvalidRequest(f"the cursor shows revision {pinned}, not {revision}")
            revision = pinned
        with self._snapshot:
            shown = self._current() if revision is None else revision
            at = self._pinned(revision)
            found = namespace.find(self._db, path, at)
            if found is None:
                raise NotFound(f"nothing is at {path}")
            if not found.is_directory:
                raise NotADirectory(f"{path} is a file")
            return read_page(Walk(self._db, query, at), query, found.inode, last, limit, shown)

    def export(
        self, path: str, *, limit: int, cursor: str | None = None, revision: int | None = None, since: int | None = None
    ) -> ExportPage:
        """One page of a path and all below it, with the chunks of files; see ``export``. All pages show the revision of
        the first. ``since``: with the bytes of small files that changed after that revision.

        Raises NotFound, InvalidRequest (limit, cursor or revision).
        """
        if not 1 <= limit <= limits.PAGE_ENTRIES_MAX:
            raise InvalidRequest(f"limit is {limit}, must be from 1 to {limits.PAGE_ENTRIES_MAX}")
        if cursor is not None:
            pinned = cursor_revision(cursor)
            if revision not in (None, pinned):
                raise InvalidRequest(f"the cursor shows revision {pinned}, not {revision}")
            revision = pinned
        with self._snapshot:
            at = self._pinned(revision)
            found = namespace.find(self._db, path, at)
            if found is None:
                raise NotFound(f"nothing is at {path}")
            shown = self._current() if revision is None else revision
            return Export(path, at, shown, since).read(self._db, found, cursor, limit)

    def outcome(self, key: str) -> tuple[bytes, Result] | None:
        """Fingerprint and result remembered for an idempotency key; None if there is none (any more)."""
        with self._snapshot:
            return load_outcome(self._db, key)

    def upload(self, upload_id: int) -> UploadState | None:
        """An open upload; None if it was committed, aborted, has expired or never was."""
        with self._snapshot:
            return load_upload(self._db, upload_id)

    def has_expired_uploads(self, now_ms: int) -> bool:
        """Whether an UploadExpire with this time would drop something."""
        with self._snapshot:
            return self._some("SELECT 1 FROM upload WHERE expires_at_ms <= ? LIMIT 1", now_ms)

    def is_referenced(self, digest: bytes) -> bool:
        """Whether a version, live or past, or an upload holds this chunk."""
        with self._snapshot:
            return self._some("SELECT 1 FROM chunk WHERE digest = ?", digest)

    def holders(self, digests: Set[bytes]) -> builtins.list[Holder]:
        """What is not whole without these chunks: files, old versions, uploads. Reads the whole database."""
        with self._snapshot:
            return find_holders(self._db, digests)

    def clock_ms(self) -> int:
        """The time of the last command, in milliseconds since the epoch by the clocks of the leaders; 0: there was
        none."""
        with self._snapshot:
            return int(self._db.execute("SELECT clock_ms FROM meta").fetchone()[0])

    def configuration(self) -> tuple[int, bytes] | None:
        """As StateMachine.configuration."""
        with self._snapshot:
            return load_configuration(self._db)

    def chunks(self, after: bytes, limit: int) -> builtins.list[ChunkRef]:
        """Held chunks in the order of their digests, from behind ``after`` (b"" for the first)."""
        with self._snapshot:
            rows = self._db.execute(
                "SELECT digest, length FROM chunk WHERE digest > ? ORDER BY digest LIMIT ?", (after, limit)
            ).fetchall()
        return [ChunkRef(digest, length) for digest, length in rows]

    def chunk_changes(self, after_seq: int, limit: int) -> builtins.list[tuple[int, ChunkRef]]:
        """Held chunks in the order in which they were first held, with that number, from behind ``after_seq``."""
        with self._snapshot:
            rows = self._db.execute(
                "SELECT seq, digest, length FROM chunk WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit)
            ).fetchall()
        return [(seq, ChunkRef(digest, length)) for seq, digest, length in rows]

    def newest_chunk(self) -> int:
        """The highest number that ``chunk_changes`` would give; 0 if no chunk is held."""
        with self._snapshot:
            return int(self._db.execute("SELECT COALESCE(MAX(seq), 0) FROM chunk").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def _some(self, query: str, value: int | bytes) -> bool:
        return self._db.execute(query, (value,)).fetchone() is not None

    def _current(self) -> int:
        return int(self._db.execute("SELECT revision FROM meta").fetchone()[0])

    def _pinned(self, revision: int | None) -> int | None:
        """None where the live rows say it all: for now, and for the revision that is now."""
        if revision is None:
            return None
        current = self._current()
        if not 0 <= revision <= current:
            raise InvalidRequest(f"revision {revision} is not there: this node has revisions 0 to {current}")
        return None if revision == current else revision
