"""The database file: its tables, how it is opened, its one row of counters, and what SQLite's errors mean here.

What is live and what is past are separate tables. The live ones hold one row for each name and each inode, so that
lookups, listings and the test for an empty directory never wade through history; a row that ends moves to its
``_past`` twin with the revision at which it ended (``rev_to``, exclusive).
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from raftfs import fsync
from raftfs.errors import CorruptData, DataTooNew, DataTooOld, RaftfsError, StorageFull
from raftfs.limits import STATE_READER_CACHE_BYTES, STATE_WAL_BYTES, STATE_WRITER_CACHE_BYTES
from raftfs.state.pages import PageSums, beside, read_log
from raftfs.state.versions import LAYOUT_CHANGES
from raftfs.versions import FORMAT_VERSION, FORMAT_VERSION_MIN, UNDECIDED

log = logging.getLogger(__name__)

ROOT_INODE: Final = 1
INTEGER_MAX: Final = 2**63 - 1
"""SQLite's largest integer; a number from a command is checked against it before it reaches a query."""

_APPLICATION_ID: Final = 0x52465331  # "RFS1"
_BUSY_S: Final = 1.0  # only a checkpoint ever waits, for readers; it has another way to be durable
_STATEMENTS_CACHED: Final = 256

# The layout of FORMAT_VERSION_MIN; LAYOUT_CHANGES make later ones of it. The format version itself is SQLite's
# user_version, so that code of any age finds it where it looks first.
_TABLES: Final = (
    """CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1), applied_index INTEGER NOT NULL, applied_term INTEGER NOT NULL,
        revision INTEGER NOT NULL, clock_ms INTEGER NOT NULL, last_inode INTEGER NOT NULL,
        last_content INTEGER NOT NULL, last_chunk INTEGER NOT NULL, last_outcome INTEGER NOT NULL,
        state_hash BLOB NOT NULL)""",
    """CREATE TABLE dirent (
        parent INTEGER NOT NULL, name TEXT NOT NULL, inode INTEGER NOT NULL, rev_from INTEGER NOT NULL,
        PRIMARY KEY (parent, name)) WITHOUT ROWID""",
    """CREATE TABLE dirent_past (
        parent INTEGER NOT NULL, name TEXT NOT NULL, inode INTEGER NOT NULL, rev_from INTEGER NOT NULL,
        rev_to INTEGER NOT NULL, PRIMARY KEY (parent, name, rev_from)) WITHOUT ROWID""",
    # content is NULL for a directory; metadata is msgpack, NULL when empty.
    """CREATE TABLE version (
        inode INTEGER PRIMARY KEY, rev_from INTEGER NOT NULL, size INTEGER NOT NULL, created_ms INTEGER NOT NULL,
        modified_ms INTEGER NOT NULL, content INTEGER, content_type TEXT, metadata BLOB)""",
    """CREATE TABLE version_past (
        inode INTEGER NOT NULL, rev_from INTEGER NOT NULL, size INTEGER NOT NULL, created_ms INTEGER NOT NULL,
        modified_ms INTEGER NOT NULL, content INTEGER, content_type TEXT, metadata BLOB, rev_to INTEGER NOT NULL,
        PRIMARY KEY (inode, rev_from)) WITHOUT ROWID""",
    # A content id has either one row of inline bytes or its chunks; versions (copies, renames) share it.
    "CREATE TABLE content (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    """CREATE TABLE content_chunk (
        content INTEGER NOT NULL, offset INTEGER NOT NULL, digest BLOB NOT NULL, length INTEGER NOT NULL,
        PRIMARY KEY (content, offset)) WITHOUT ROWID""",
    # holds: rows of content_chunk with this digest. seq: when it was first held, for backfill.
    """CREATE TABLE chunk (
        digest BLOB PRIMARY KEY, length INTEGER NOT NULL, holds INTEGER NOT NULL, seq INTEGER NOT NULL)
        WITHOUT ROWID""",
    "CREATE UNIQUE INDEX chunk_by_seq ON chunk (seq)",
    # An upload's id is the content id under which its chunks are kept, so that committing it is O(1).
    """CREATE TABLE upload (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL, offset INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
        expires_at_ms INTEGER NOT NULL)""",
    "CREATE INDEX upload_by_expiry ON upload (expires_at_ms)",
    """CREATE TABLE outcome (
        seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, fingerprint BLOB NOT NULL, time_ms INTEGER NOT NULL,
        result BLOB NOT NULL)""",
    # Who the members are, as of entry ``at``: opaque here.
    "CREATE TABLE membership (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL, data BLOB NOT NULL)",
    f"INSERT INTO version VALUES ({ROOT_INODE}, 0, 0, 0, 0, NULL, NULL, NULL)",
    f"INSERT INTO meta VALUES (1, 0, 0, 0, 0, {ROOT_INODE}, 0, 0, 0, zeroblob(32))",
    f"PRAGMA application_id = {_APPLICATION_ID}",
)


class Applied(NamedTuple):
    """How far a state has come. ``state_hash``: 32 bytes, equal on all nodes at the same index. ``version``: the format
    version by which the log is judged from here on."""

    index: int  # type: ignore[assignment]  # tuple.index is of no use here
    term: int
    revision: int
    state_hash: bytes
    version: int


@dataclass(slots=True)
class Meta:
    """The counters of the state; the columns of table ``meta``, and the format version."""

    applied_index: int
    applied_term: int
    revision: int
    clock_ms: int
    last_inode: int
    last_content: int
    last_chunk: int
    last_outcome: int
    state_hash: bytes
    version: int

    def next_inode(self) -> int:
        self.last_inode += 1
        return self.last_inode

    def next_content(self) -> int:
        self.last_content += 1
        return self.last_content

    def next_revision(self) -> int:
        self.revision += 1
        return self.revision

    def applied(self) -> Applied:
        return Applied(self.applied_index, self.applied_term, self.revision, self.state_hash, self.version)


def load_meta(db: sqlite3.Connection) -> Meta:
    """The counters as of the last committed entry."""
    row = db.execute(
        "SELECT applied_index, applied_term, revision, clock_ms, last_inode, last_content, last_chunk, last_outcome,"
        " state_hash, user_version FROM meta, pragma_user_version"
    ).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the row of counters is missing")
    return Meta(*row)


def load_configuration(db: sqlite3.Connection) -> tuple[int, bytes] | None:
    """Index and bytes of the last entry that said who the members are; None if there was none."""
    row = db.execute("SELECT at, data FROM membership").fetchone()
    return None if row is None else (row[0], row[1])


def store_meta(db: sqlite3.Connection, meta: Meta) -> None:
    db.execute(
        "UPDATE meta SET applied_index = ?, applied_term = ?, revision = ?, clock_ms = ?, last_inode = ?,"
        " last_content = ?, last_chunk = ?, last_outcome = ?, state_hash = ?",
        (
            meta.applied_index,
            meta.applied_term,
            meta.revision,
            meta.clock_ms,
            meta.last_inode,
            meta.last_content,
            meta.last_chunk,
            meta.last_outcome,
            meta.state_hash,
        ),
    )


def set_version(db: sqlite3.Connection, present: int, version: int) -> None:
    """Bring the tables from one format to the next, within the transaction of the caller."""
    for step in range(max(present, FORMAT_VERSION_MIN) + 1, version + 1):
        for statement in LAYOUT_CHANGES.get(step, ()):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {version}")


def open_writer(path: Path, version: int = UNDECIDED) -> sqlite3.Connection:
    """Open the database for its one writer and look through all of it, or create it with ``version``.

    Whoever opens it so has to copy the log by ``copy_log`` alone, and to close it with ``close_writer``. Raises
    DataTooNew, DataTooOld, CorruptData, StorageFull.
    """
    sums = PageSums(path)
    if not path.exists():
        # What is left of another one must not become part of the new one.
        _delete_log(path)
        sums.begin()
    elif sums.path.exists():
        _check_pages(path, sums)
    else:
        _trust(path, sums)
    return _open(path, "rwc", writer=True, version=version)


def _check_pages(path: Path, sums: PageSums) -> None:
    if sums.is_empty():
        return
    db = open_reader(path)
    try:
        db.execute("BEGIN")
        load_meta(db)
        seen = read_log(path)
    except sqlite3.DatabaseError as error:
        raise translate(path, error) from error
    finally:
        db.close()
    if not sums.check(seen):
        log.warning("the log of %s has lost its end, which the database has: deleted it", path)
        _delete_log(path)


def _delete_log(path: Path) -> None:
    """For certain, before anything comes to which it does not belong."""
    for suffix in ("-wal", "-shm"):
        beside(path, suffix).unlink(missing_ok=True)
    fsync.sync_directory(path.parent)


def _trust(path: Path, sums: PageSums) -> None:
    """A database without checksums: just installed from a copy of another one, say."""
    log.warning("%s has no checksums of its pages: looking through it, and making them", path)
    db = _open(path, "rw", writer=True)
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise translate(path, error) from error
    finally:
        db.close()
    if found != "ok":
        raise CorruptData(f"{path}: {found}")
    sums.begin()


def copy_log(db: sqlite3.Connection, path: Path, *, wait: bool) -> bool:
    """Copy the write-ahead log into the database, note the checksums of what changed, and then empty the log, if nobody
    reads from it (``wait``: for a second). False if readers kept some of it from being copied.

    Raises StorageFull (nothing is lost, try again later), CorruptData.
    """
    sums = PageSums(path)
    try:
        _reserve(sums, path, _pragma(db, "page_count"))
        busy, frames, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or frames != copied:
            return False
        if frames > 0:
            sums.record(frames)
        db.execute(f"PRAGMA busy_timeout = {round(_BUSY_S * 1000) if wait else 0}")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.DatabaseError as error:
        raise translate(path, error) from error
    return True


def _reserve(sums: PageSums, path: Path, pages: int) -> None:
    try:
        sums.reserve(pages)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(f"no space left for {sums.path}", outcome="unknown") from error
        raise


def close_writer(db: sqlite3.Connection, path: Path) -> None:
    """Close the writer. What it could not copy stays in the log: SQLite, left to itself, would copy it when the last
    connection closes, and the checksums would not know. A connection that cannot write never does."""
    with suppress(StorageFull, CorruptData, sqlite3.DatabaseError):
        copy_log(db, path, wait=False)
    try:
        last = open_reader(path)
    except (RaftfsError, sqlite3.DatabaseError):
        db.close()
        return
    db.close()
    last.close()


def open_reader(path: Path) -> sqlite3.Connection:
    """Open an existing database, read-only. Raises DataTooNew, DataTooOld, CorruptData.

    A connection that cannot write never checkpoints either: the writer alone moves the write-ahead log.
    """
    return _open(path, "ro", writer=False)


def _open(path: Path, mode: str, *, writer: bool, version: int = UNDECIDED) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    try:
        db = sqlite3.connect(
            uri,
            uri=True,
            isolation_level=None,
            timeout=_BUSY_S,
            check_same_thread=False,
            cached_statements=_STATEMENTS_CACHED,
        )
    except sqlite3.DatabaseError as error:
        raise translate(path, error) from error
    try:
        if writer:
            _prepare_writer(db, version)
        else:
            db.execute(f"PRAGMA cache_size = -{STATE_READER_CACHE_BYTES // 1024}")
        _check_format(db, path)
        load_meta(db)
    except sqlite3.DatabaseError as error:
        db.close()
        raise translate(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def _prepare_writer(db: sqlite3.Connection, version: int) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA cache_size = -{STATE_WRITER_CACHE_BYTES // 1024}")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # see copy_log
    db.execute(f"PRAGMA journal_size_limit = {STATE_WAL_BYTES}")
    db.execute("PRAGMA cell_size_check = ON")
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] or _pragma(db, "application_id"):
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        db.execute(statement)
    set_version(db, UNDECIDED, version)
    db.execute("COMMIT")


def refuse_newer(path: Path, version: int) -> None:
    """Raises DataTooNew if a database at ``path`` of this format is beyond what this code understands."""
    if version > FORMAT_VERSION:
        raise DataTooNew(
            f"{path} has format {version}, this raftfs understands up to {FORMAT_VERSION}: "
            f"install one that understands format {version}"
        )


def _check_format(db: sqlite3.Connection, path: Path) -> None:
    if _pragma(db, "application_id") != _APPLICATION_ID:
        raise CorruptData(f"{path} is not a state database of raftfs")
    found = _pragma(db, "user_version")
    refuse_newer(path, found)
    if UNDECIDED < found < FORMAT_VERSION_MIN:
        raise DataTooOld(
            f"{path} has format {found}, this raftfs understands {FORMAT_VERSION_MIN} to {FORMAT_VERSION}: "
            f"upgrade the cluster step by step, first with one that understands format {found + 1}"
        )


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def translate(path: Path, error: sqlite3.DatabaseError) -> RaftfsError | sqlite3.DatabaseError:
    """What a SQLite error means for a node: CorruptData, StorageFull, or the error itself (a bug, a broken disk).

    Ends the process if SQLite's own fsync failed: it would try again, and believe what the kernel says then.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC):
        fsync.failed(path, error)
    primary = None if code is None else code & 0xFF
    # Without room for the index beside the WAL, SQLite speaks of input and output.
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StorageFull(f"no space left for {path}", outcome="unknown")
    missing = "no such table" in str(error) or "no such column" in str(error)
    if primary in (None, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or missing:
        return CorruptData(f"{path} is damaged: {error}")
    return error
