"""Uploads, and the holds on chunks.

An upload is a row with a position and its chunks under a content id (its own id). Committing it deletes the row and
gives the content id to a file's version: O(1), and no hold changes. Aborting and expiring drop the chunks' holds.
A chunk whose last hold goes leaves the table, and the chunk store may delete its bytes after a grace period. Versions
of files keep their content for as long as history keeps them.
"""

from __future__ import annotations

import sqlite3

from raftfs import limits
from raftfs.state.commands import (
    ChunkRef,
    Code,
    Result,
    UploadAbort,
    UploadBegin,
    UploadChunk,
    UploadExpire,
    UploadState,
)
from raftfs.state.refusals import Refused, check_path, check_range
from raftfs.state.schema import INTEGER_MAX, Meta

_DIGEST_BYTES = 32


def load_upload(db: sqlite3.Connection, upload_id: int) -> UploadState | None:
    if not 0 < upload_id <= INTEGER_MAX:
        return None
    row = db.execute("SELECT id, path, offset, expires_at_ms FROM upload WHERE id = ?", (upload_id,)).fetchone()
    return UploadState(*row) if row else None


def require_upload(db: sqlite3.Connection, upload_id: int) -> UploadState:
    upload = load_upload(db, upload_id)
    if upload is None:
        raise Refused(
            Code.UPLOAD_NOT_FOUND, f"there is no upload {upload_id}: it was committed, aborted or has expired"
        )
    return upload


class Uploads:
    """The upload commands. Uploads are invisible in the namespace, so they leave its revision alone."""

    def __init__(self, db: sqlite3.Connection, meta: Meta) -> None:
        self._db = db
        self._meta = meta

    def begin(self, command: UploadBegin) -> Result:
        check_path(command.path)
        check_range("expires_ms", command.expires_ms, 1, limits.CLOCK_MS_MAX)
        upload = UploadState(self._meta.next_content(), command.path, 0, self._meta.clock_ms + command.expires_ms)
        self._db.execute(
            "INSERT INTO upload VALUES (?, ?, ?, ?, ?)",
            (upload.id, upload.path, 0, command.expires_ms, upload.expires_at_ms),
        )
        return Result(Code.CREATED, self._meta.revision, upload=upload)

    def chunk(self, command: UploadChunk) -> Result:
        upload = require_upload(self._db, command.upload)
        chunk, offset = command.chunk, command.offset
        self._check_chunk(chunk)
        if offset != upload.offset:
            self._check_repeated(upload, offset, chunk)
            return Result(Code.OK, self._meta.revision, upload=upload)
        if offset + chunk.length > limits.FILE_BYTES_MAX:
            raise Refused(Code.INVALID, f"a file may have at most {limits.FILE_BYTES_MAX} bytes", upload)
        self._db.execute(
            "INSERT INTO content_chunk VALUES (?, ?, ?, ?)", (upload.id, offset, chunk.digest, chunk.length)
        )
        self._hold(chunk)
        self._db.execute(
            "UPDATE upload SET offset = ?2, expires_at_ms = ?3 + expires_ms WHERE id = ?1",
            (upload.id, offset + chunk.length, self._meta.clock_ms),
        )
        return Result(Code.OK, self._meta.revision, upload=load_upload(self._db, upload.id))

    def abort(self, command: UploadAbort) -> Result:
        upload = require_upload(self._db, command.upload)
        self._drop(upload.id)
        return Result(Code.OK, self._meta.revision)

    def expire(self, command: UploadExpire) -> Result:
        expired = self._db.execute(
            "SELECT id FROM upload WHERE expires_at_ms <= ? ORDER BY id", (self._meta.clock_ms,)
        ).fetchall()
        for (upload_id,) in expired:
            self._drop(upload_id)
        return Result(Code.OK, self._meta.revision)

    def check_complete(self, upload_id: int, size: int) -> None:
        """Refuse unless the upload holds exactly ``size`` bytes."""
        upload = require_upload(self._db, upload_id)
        if upload.offset != size:
            raise Refused(
                Code.OFFSET_MISMATCH, f"upload {upload_id} holds {upload.offset} bytes, the file has {size}", upload
            )

    def finish(self, upload_id: int) -> int:
        """End a checked upload; returns the content id that now belongs to a file."""
        self._db.execute("DELETE FROM upload WHERE id = ?", (upload_id,))
        return upload_id

    def _check_chunk(self, chunk: ChunkRef) -> None:
        if len(chunk.digest) != _DIGEST_BYTES:
            raise Refused(Code.INVALID, f"a chunk's digest has {_DIGEST_BYTES} bytes, not {len(chunk.digest)}")
        check_range("chunk length", chunk.length, 1, limits.CHUNK_BYTES)
        row = self._db.execute("SELECT length FROM chunk WHERE digest = ?", (chunk.digest,)).fetchone()
        if row and row[0] != chunk.length:
            raise Refused(Code.INVALID, f"chunk {chunk.digest.hex()} has {row[0]} bytes, not {chunk.length}")

    def _check_repeated(self, upload: UploadState, offset: int, chunk: ChunkRef) -> None:
        """A chunk at another offset than the next is fine only if it is there already."""
        row = None
        if 0 <= offset < upload.offset:
            row = self._db.execute(
                "SELECT digest, length FROM content_chunk WHERE content = ? AND offset = ?", (upload.id, offset)
            ).fetchone()
        if row != (chunk.digest, chunk.length):
            raise Refused(
                Code.OFFSET_MISMATCH,
                f"upload {upload.id} holds {upload.offset} bytes, the chunk starts at {offset}",
                upload,
            )

    def _hold(self, chunk: ChunkRef) -> None:
        held = self._db.execute("UPDATE chunk SET holds = holds + 1 WHERE digest = ?", (chunk.digest,))
        if held.rowcount == 0:
            self._meta.last_chunk += 1
            self._db.execute(
                "INSERT INTO chunk VALUES (?, ?, 1, ?)", (chunk.digest, chunk.length, self._meta.last_chunk)
            )

    def _drop(self, upload_id: int) -> None:
        digests = self._db.execute("SELECT digest FROM content_chunk WHERE content = ?", (upload_id,)).fetchall()
        self._db.executemany("UPDATE chunk SET holds = holds - 1 WHERE digest = ?", digests)
        self._db.executemany("DELETE FROM chunk WHERE digest = ? AND holds = 0", digests)
        self._db.execute("DELETE FROM content_chunk WHERE content = ?", (upload_id,))
        self._db.execute("DELETE FROM upload WHERE id = ?", (upload_id,))
