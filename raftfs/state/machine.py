"""The machine: entries in, results out, one transaction each."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from raftfs import fsync, limits
from raftfs.errors import DataTooNew, DataTooOld, StorageFull
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
    SwitchVersion,
    UploadAbort,
    UploadBegin,
    UploadChunk,
    UploadExpire,
    decode_envelope,
    encode,
    hashed,
)
from raftfs.state.moves import Moves
from raftfs.state.pages import beside
from raftfs.state.refusals import Refused, check_range
from raftfs.state.schema import (
    Meta,
    close_writer,
    copy_log,
    load_configuration,
    load_meta,
    open_writer,
    set_version,
    store_meta,
    translate,
)
from raftfs.state.sessions import Sessions
from raftfs.state.tree import Tree
from raftfs.state.uploads import Uploads
from raftfs.state.versions import required_version
from raftfs.versions import FORMAT_VERSION, FORMAT_VERSION_MIN, UNDECIDED


class StateMachine:
    """The one writer of a state database. Use it from one thread at a time.

    ``version``: with which format a new database begins. A node's begins undecided, because its log says which.
    Raises DataTooNew or DataTooOld if this code does not understand the file, CorruptData (naming the file) if it is
    damaged.
    """

    def __init__(self, path: Path, *, version: int = UNDECIDED) -> None:
        self._path = path.absolute()
        self._log = beside(self._path, "-wal")
        self._db = open_writer(self._path, version)
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
            SwitchVersion: self._switch_version,
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

    @property
    def version(self) -> int:
        """The format version by which the log is judged after the last committed entry."""
        return self._committed.version

    @property
    def configuration(self) -> tuple[int, bytes] | None:
        """Who the members are: index and bytes of the last entry that said so; None if there was none."""
        return load_configuration(self._db)

    def apply(
        self, index: int, term: int, commands: Sequence[bytes], configuration: bytes | None = None
    ) -> list[Result]:
        """Apply one entry in one transaction; returns a result for each of its commands (encoded envelopes).
        ``configuration`` is kept as it is.

        An entry at or below the applied index is skipped: []. A user's mistake is a result, never an exception.
        Raises ValueError if entries are missing before this one, StorageFull if the disk is full, CorruptData if the
        database is damaged, DataTooNew or DataTooOld if the entry switches to a format that this code does not
        understand, anything else is a bug; whatever is raised, nothing of the entry was applied.
        """
        if index <= self._committed.index:
            return []
        if index != self._committed.index + 1:
            raise ValueError(f"entry {index} does not follow entry {self._committed.index}")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results = self._apply_all(index, term, commands, configuration)
            self._db.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.DatabaseError):
                raise translate(self._path, error) from error
            raise
        self._committed = self._meta.applied()
        self._keep_log_short()
        return results

    def checkpoint(self) -> None:
        """Make everything applied durable. Raises StorageFull, CorruptData.

        The write-ahead log is copied into the database, which is synced. If a reader keeps the log from being emptied,
        the log itself is synced and holds the rest.
        """
        copy_log(self._db, self._path, wait=True)
        # Only the log is opened here: closing a descriptor of the database would drop SQLite's locks on it.
        fd = os.open(self._log, os.O_RDONLY)
        try:
            fsync.sync_data(fd, self._log)
        finally:
            os.close(fd)
        fsync.sync_directory(self._path.parent)

    def _keep_log_short(self) -> None:
        if self._log.stat().st_size >= limits.STATE_WAL_BYTES:
            with suppress(StorageFull):  # the entry is applied; the next one tries again
                copy_log(self._db, self._path, wait=False)

    def close(self) -> None:
        """Close the database. What was applied stays; the machine is of no use afterwards."""
        close_writer(self._db, self._path)

    def _apply_all(self, index: int, term: int, commands: Sequence[bytes], configuration: bytes | None) -> list[Result]:
        covered = [self._meta.state_hash, index.to_bytes(8, "big"), term.to_bytes(8, "big")]
        if configuration is not None:
            self._db.execute("INSERT OR REPLACE INTO membership VALUES (1, ?, ?)", (index, configuration))
            covered.append(configuration)
        results = []
        for command in commands:
            result = self._apply_one(command)
            results.append(result)
            # Commands are hashed beside their results: two nodes with different bytes in a file must not agree.
            for part in (command, hashed(result)):
                covered += (len(part).to_bytes(8, "big"), part)
        covered.append(self._meta.version.to_bytes(8, "big"))
        self._sessions.prune()
        self._meta.applied_index = index
        self._meta.applied_term = term
        self._meta.state_hash = blake3(b"".join(covered)).digest()
        store_meta(self._db, self._meta)
        return results

    def _apply_one(self, data: bytes) -> Result:
        try:
            envelope = decode_envelope(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # The library's own words are left out: they may differ between its versions, and results must not.
            return Result(Code.INVALID, self._meta.revision, detail="the command cannot be decoded")
        needed = max(envelope.format, required_version(envelope.command))
        if needed > self._meta.version:
            # As for code that cannot decode it: neither time nor key are looked at.
            return Result(
                Code.INVALID, self._meta.revision, detail=f"needs format {needed}, active is {self._meta.version}"
            )
        written = self._db.total_changes
        try:
            replayed = self._admit(envelope)
            if replayed is not None:
                return replayed
        except Refused as refused:
            return self._refusal(refused, written)
        try:
            result = self._handlers[type(envelope.command)](envelope.command)
        except Refused as refused:
            result = self._refusal(refused, written)
        if envelope.key is not None:
            self._sessions.remember(envelope.key, envelope.fingerprint, result.code, encode(result))
        return result

    def _admit(self, envelope: Envelope) -> Result | None:
        """Move the clock, and give the outcome that is already known. Raises Refused."""
        check_range("time_ms", envelope.time_ms, 0, limits.CLOCK_MS_MAX)
        self._meta.clock_ms = max(self._meta.clock_ms, envelope.time_ms)
        if envelope.key is None:
            return None
        self._sessions.check_key(envelope.key, envelope.fingerprint)
        return self._sessions.replay(envelope.key, envelope.fingerprint)

    def _switch_version(self, command: SwitchVersion) -> Result:
        present, version = command.present, command.version
        if present != self._meta.version:
            raise Refused(Code.PRECONDITION_FAILED, f"format {self._meta.version} is active, not {present}")
        if version <= present:
            raise Refused(Code.INVALID, f"format {version} is not newer than format {present}, which is active")
        if version > FORMAT_VERSION:
            raise DataTooNew(
                f"the cluster switches to format {version}, this raftfs understands up to {FORMAT_VERSION}: "
                f"install one that understands format {version}"
            )
        if version < FORMAT_VERSION_MIN:
            raise DataTooOld(
                f"the log begins with format {version}, this raftfs understands {FORMAT_VERSION_MIN} to "
                f"{FORMAT_VERSION}: let this node catch up with one that understands format {version}"
            )
        set_version(self._db, present, version)
        self._meta.version = version
        return Result(Code.OK, self._meta.revision)

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
