"""Uploads, and which chunks are held."""

from __future__ import annotations

import pytest

from raftfs import limits
from raftfs.state import (
    ChunkRef,
    Code,
    CommitFile,
    Remove,
    UploadAbort,
    UploadBegin,
    UploadChunk,
    UploadExpire,
    UploadState,
)

from .driver import Driver, chunk


def begin(driver: Driver, path: str = "/f", expires_ms: int = 1_000, at_ms: int | None = None) -> UploadState:
    result = driver.do(UploadBegin(path, expires_ms), at_ms=at_ms)
    assert result.code is Code.CREATED
    assert result.upload is not None
    return result.upload


def test_begin(driver: Driver) -> None:
    first = begin(driver, "/a", 500, at_ms=2_000)
    second = begin(driver, "/a", 500, at_ms=2_000)
    assert (first.path, first.offset, first.expires_at_ms) == ("/a", 0, 2_500)
    assert first.id != second.id
    assert driver.reader.upload(first.id) == first
    assert driver.machine.revision == 0, "an upload is not part of the namespace"


@pytest.mark.parametrize("expires_ms", [0, -1, 2**63, 2**64 - 1])
def test_begin_refuses_a_silly_expiry(driver: Driver, expires_ms: int) -> None:
    driver.refused(UploadBegin("/a", expires_ms), Code.INVALID)


def test_chunks_follow_each_other(driver: Driver) -> None:
    upload = begin(driver)
    result = driver.do(UploadChunk(upload.id, 0, chunk(1)))
    assert result.upload == driver.reader.upload(upload.id)
    assert result.upload is not None
    assert result.upload.offset == 100
    mismatch = driver.refused(UploadChunk(upload.id, 50, chunk(2)), Code.OFFSET_MISMATCH)
    assert mismatch.upload == result.upload
    driver.refused(UploadChunk(upload.id, 200, chunk(2)), Code.OFFSET_MISMATCH)
    driver.refused(UploadChunk(upload.id, -1, chunk(2)), Code.OFFSET_MISMATCH)
    driver.refused(UploadChunk(upload.id, 2**64 - 1, chunk(2)), Code.OFFSET_MISMATCH)
    assert driver.do(UploadChunk(upload.id, 100, chunk(2))).code is Code.OK


def test_same_chunk_again_is_a_retry(driver: Driver) -> None:
    upload = begin(driver)
    driver.do(UploadChunk(upload.id, 0, chunk(1)))
    driver.do(UploadChunk(upload.id, 100, chunk(2)))
    before = driver.everything()
    result = driver.do(UploadChunk(upload.id, 0, chunk(1)))
    assert (result.code, driver.everything()) == (Code.OK, before)
    driver.refused(UploadChunk(upload.id, 0, chunk(2)), Code.OFFSET_MISMATCH)
    driver.refused(UploadChunk(upload.id, 100, chunk(1)), Code.OFFSET_MISMATCH)


def test_chunk_refusals(driver: Driver) -> None:
    upload = begin(driver)
    driver.do(UploadChunk(upload.id, 0, chunk(1)))
    driver.refused(UploadChunk(99, 0, chunk(1)), Code.UPLOAD_NOT_FOUND)
    driver.refused(UploadChunk(2**64 - 1, 0, chunk(1)), Code.UPLOAD_NOT_FOUND)
    driver.refused(UploadChunk(upload.id, 100, ChunkRef(b"short", 10)), Code.INVALID)
    driver.refused(UploadChunk(upload.id, 100, chunk(2, 0)), Code.INVALID)
    driver.refused(UploadChunk(upload.id, 100, chunk(2, limits.CHUNK_BYTES + 1)), Code.INVALID)
    driver.refused(UploadChunk(upload.id, 100, chunk(1, 99)), Code.INVALID)


def test_abort_drops_the_holds(driver: Driver) -> None:
    upload, other = begin(driver), begin(driver)
    for number in (1, 2, 1):
        state = driver.reader.upload(upload.id)
        assert state is not None
        driver.do(UploadChunk(upload.id, state.offset, chunk(number)))
    driver.do(UploadChunk(other.id, 0, chunk(2)))
    assert driver.do(UploadAbort(upload.id)).code is Code.OK
    assert driver.reader.upload(upload.id) is None
    assert driver.reader.chunks(b"", 10) == [chunk(2)]
    assert not driver.reader.is_referenced(chunk(1).digest)
    assert driver.reader.is_referenced(chunk(2).digest)
    driver.refused(UploadAbort(upload.id), Code.UPLOAD_NOT_FOUND)


def test_expiry_counts_from_the_last_chunk(driver: Driver) -> None:
    upload = begin(driver, expires_ms=1_000, at_ms=10_000)
    result = driver.do(UploadChunk(upload.id, 0, chunk(1)), at_ms=10_900)
    assert result.upload is not None
    assert result.upload.expires_at_ms == 11_900
    assert not driver.reader.has_expired_uploads(11_899)
    assert driver.reader.has_expired_uploads(11_900)
    driver.do(UploadExpire(), at_ms=11_899)
    assert driver.reader.upload(upload.id) is not None
    driver.do(UploadExpire(), at_ms=11_900)
    assert driver.reader.upload(upload.id) is None
    assert not driver.reader.is_referenced(chunk(1).digest)
    assert not driver.reader.has_expired_uploads(2**53)


def test_expire_takes_only_what_is_due(driver: Driver) -> None:
    early = begin(driver, expires_ms=10, at_ms=10_000)
    late = begin(driver, expires_ms=10_000, at_ms=10_000)
    driver.do(UploadExpire(), at_ms=12_000)
    assert driver.reader.upload(early.id) is None
    assert driver.reader.upload(late.id) == late


def test_changes_number_new_chunks_once(driver: Driver) -> None:
    upload = begin(driver)
    for position, number in enumerate((3, 1, 3, 2)):
        driver.do(UploadChunk(upload.id, 100 * position, chunk(number)))
    assert driver.reader.chunk_changes(0, 10) == [(1, chunk(3)), (2, chunk(1)), (3, chunk(2))]
    assert driver.reader.chunk_changes(1, 1) == [(2, chunk(1))]
    assert driver.reader.chunk_changes(3, 10) == []
    assert driver.reader.chunks(chunk(1).digest, 1) == [chunk(2)]
    driver.do(UploadAbort(upload.id))
    again = begin(driver)
    driver.do(UploadChunk(again.id, 0, chunk(3)))
    assert driver.reader.chunk_changes(0, 10) == [(4, chunk(3))], "held anew, numbered anew"


def test_history_keeps_its_chunks(driver: Driver) -> None:
    upload = begin(driver)
    driver.do(UploadChunk(upload.id, 0, chunk(1)))
    driver.do(CommitFile("/f", 100, upload=upload.id))
    revision = driver.machine.revision
    driver.put("/f", b"inline now")
    driver.do(Remove("/f"))
    assert driver.reader.is_referenced(chunk(1).digest)
    assert driver.read("/f", revision) == [chunk(1)]
