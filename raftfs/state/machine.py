"""The machine: entries in, results out, one transaction each."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from raftfs import fsync, limits
from raftfs.state.commands import (
    Code,
    CommitFile,
    Copy,
    Envelope,
    MakeDirectory,
    Remove,
    Rename,
    Result,
    SetMetadata,
    UploadAbort,
    UploadBegin,
    UploadChunk,
    UploadExpire,
    decode_envelope,
    encode,
)
from raftfs.state.moves import Moves
from raftfs.state.refusals import Refused, check_range
from raftfs.state.schema import Meta, load_meta, open_writer, store_meta, translate
from raftfs.state.sessions import Sessions
from raftfs.state.tree import Tree
from raftfs.state.uploads import Uploads


class StateMachine:
    """The one writer of a state database. Use it from one thread at a time.

    Raises DataTooNew if a newer raftfs wrote the file, CorruptData (naming the file) if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._db = open_writer(self._path)
        self._meta = load_meta(self._db)
        self._committed = self._meta.applied()
        uploads = Uploads(self._db, self._meta)
        self._sessions = Sessions(self._db, self._meta)
        self._tree = Tree(self._db, self._meta, uploads)
        moves = Moves(self._tree)
        self._handlers: dict[type, Callable[[Any], Result]] = {
            MakeDirectory: self._tree.make_directory,
            Remove: self._tree.remove,
            CommitFile: self._tree.commit_file,
            Rename: moves.rename,
            Copy: moves.copy,
            SetMetadata: self._tree.set_metadata,
            UploadBegin: uploads.begin,
            UploadChunk: uploads.chunk,
            UploadAbort: uploads.abort,
            UploadExpire: uploads.expire,
        }

    @property
    def applied_index(self) -> int:
        """Index of the last committed entry; 0 when there was none."""
        return self._committed.index

    @property
    def applied_term(self) -> int:
        """Term of the last committed entry."""
        return self._committed.term

    @property
    def revision(self) -> int:
        """The namespace's revision after the last committed entry."""
        return self._committed.revision

    @property
    def state_hash(self) -> bytes:
        """32 bytes: equal on two nodes that applied the same entries with the same results."""
        return self._committed.state_hash

    def apply(self, index: int, term: int, commands: Sequence[bytes]) -> list[Result]:
        """Apply one entry in one transaction; returns a result for each of its commands (encoded envelopes).

        An entry at or below the applied index is skipped: []. A user's mistake is a result, never an exception.
        Raises ValueError if entries are missing before this one, StorageFull if the disk is full, CorruptData if the
        database is damaged, anything else is a bug; whatever is raised, nothing of the entry was applied.
        """
        if index <= self._committed.index:
            return []
        if index != self._committed.index + 1:
            raise ValueError(f"entry {index} does not follow entry {self._committed.index}")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results = self._apply_all(index, term, commands)
            self._db.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.DatabaseError):
                raise translate(self._path, error) from error
            raise
        self._committed = self._meta.applied()
        return results

    def checkpoint(self) -> None:
        """Make everything applied durable. Raises StorageFull, CorruptData.

        The write-ahead log is copied into the database, which is synced. If a reader keeps the log from being emptied,
        the log itself is synced and holds the rest.
        """
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.DatabaseError as error:
            raise translate(self._path, error) from error
        # Only the log is opened here: closing a descriptor of the database would drop SQLite's locks on it.
        log = self._path.with_name(self._path.name + "-wal")
        fd = os.open(log, os.O_RDONLY)
        try:
            fsync.sync_data(fd, log)
        finally:
            os.close(fd)
        fsync.sync_directory(self._path.parent)

    def close(self) -> None:
        """Close the database. What was applied stays; the machine is of no use afterwards."""
        self._db.close()

    def _apply_all(self, index: int, term: int, commands: Sequence[bytes]) -> list[Result]:
        hashed = [self._meta.state_hash, index.to_bytes(8, "big"), term.to_bytes(8, "big")]
        results = []
        for command in commands:
            result, encoded = self._apply_one(command)
            results.append(result)
            # Commands are hashed beside their results: two nodes with different bytes in a file must not agree.
            hashed += (len(command).to_bytes(8, "big"), command, len(encoded).to_bytes(8, "big"), encoded)
        self._sessions.prune()
        self._meta.applied_index = index
        self._meta.applied_term = term
        self._meta.state_hash = blake3(b"".join(hashed)).digest()
        store_meta(self._db, self._meta)
        return results

    def _apply_one(self, data: bytes) -> tuple[Result, bytes]:
        try:
            envelope = decode_envelope(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # The library's own words are left out: they may differ between its versions, and results must not.
            result = Result(Code.INVALID, self._meta.revision, detail="the command cannot be decoded")
            return result, encode(result)
        written = self._db.total_changes
        try:
            replayed = self._admit(envelope)
            if replayed is not None:
                return replayed, encode(replayed)
        except Refused as refused:
            result = self._refusal(refused, written)
            return result, encode(result)
        try:
            result = self._handlers[type(envelope.command)](envelope.command)
        except Refused as refused:
            result = self._refusal(refused, written)
        encoded = encode(result)
        if envelope.key is not None:
            self._sessions.remember(envelope.key, envelope.fingerprint, result.code, encoded)
        return result, encoded

    def _admit(self, envelope: Envelope) -> Result | None:
        """Move the clock, and give the outcome that is already known. Raises Refused."""
        check_range("time_ms", envelope.time_ms, 0, limits.CLOCK_MS_MAX)
        self._meta.clock_ms = max(self._meta.clock_ms, envelope.time_ms)
        if envelope.key is None:
            return None
        self._sessions.check_key(envelope.key, envelope.fingerprint)
        return self._sessions.replay(envelope.key, envelope.fingerprint)

    def _refusal(self, refused: Refused, written: int) -> Result:
        if self._db.total_changes != written:
            raise RuntimeError(f"a refused command wrote: {refused}")
        return Result(refused.code, self._meta.revision, upload=refused.upload, detail=refused.detail)

    def _roll_back(self) -> None:
        self._tree.forget()
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            stored = load_meta(self._db)
        except sqlite3.DatabaseError as error:
            raise translate(self._path, error) from error
        for field in dataclasses.fields(Meta):
            setattr(self._meta, field.name, getattr(stored, field.name))
