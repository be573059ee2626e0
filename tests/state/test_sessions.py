"""Idempotency keys: a retry gets the first outcome, whatever happened since."""

from __future__ import annotations

import pytest

from raftfs import limits
from raftfs.state import (
    Code,
    CommitFile,
    Envelope,
    MakeDirectory,
    Remove,
    UploadBegin,
    UploadChunk,
    decode_result,
    encode,
)

from .driver import Driver, chunk

DAY_MS = limits.IDEMPOTENCY_KEY_AGE_MS_MAX


def test_retry_gets_the_first_outcome(driver: Driver) -> None:
    first = driver.do(CommitFile("/f", 1, data=b"1"), key="k")
    driver.put("/f", b"2")
    before = driver.everything()
    again = driver.do(CommitFile("/f", 1, data=b"1"), key="k")
    assert again.replayed
    assert not first.replayed
    assert (again.code, again.revision, again.stat) == (first.code, first.revision, first.stat)
    assert driver.everything() == before
    assert driver.read("/f") == b"2"


def test_refusals_are_remembered_too(driver: Driver) -> None:
    refused = driver.do(Remove("/d"), key="k")
    assert refused.code is Code.NOT_FOUND
    driver.do(MakeDirectory("/d"))
    again = driver.do(Remove("/d"), key="k")
    assert (again.code, again.replayed) == (Code.NOT_FOUND, True)
    assert driver.stat("/d")


def test_key_of_another_request_is_refused(driver: Driver) -> None:
    driver.do(MakeDirectory("/a"), key="k", fingerprint=b"one")
    result = driver.do(MakeDirectory("/b"), key="k", fingerprint=b"two")
    assert (result.code, result.replayed) == (Code.KEY_REUSED, False)
    assert driver.reader.stat("/b") is None
    assert driver.do(MakeDirectory("/a"), key="k", fingerprint=b"one").replayed


def test_same_key_twice_in_one_entry(driver: Driver) -> None:
    envelope = encode(Envelope(MakeDirectory("/a"), 1, "k", b"f"))
    first, second = driver.entry(envelope, envelope)
    assert (first.code, first.replayed, second.code, second.replayed) == (Code.CREATED, False, Code.CREATED, True)


def test_outcome_survives_a_restart(driver: Driver) -> None:
    driver.do(MakeDirectory("/a"), key="k")
    driver.reopen()
    assert driver.do(MakeDirectory("/a"), key="k").replayed


def test_reader_sees_the_outcome(driver: Driver) -> None:
    result = driver.do(MakeDirectory("/a"), key="k", fingerprint=b"print")
    assert driver.reader.outcome("k") == (b"print", result)
    assert driver.reader.outcome("other") is None


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00e9" * 128])
def test_bad_keys(driver: Driver, key: str) -> None:
    result = driver.entry(_envelope(key, b"f"))[0]
    assert (result.code, driver.reader.outcome(key)) == (Code.INVALID, None)
    assert driver.machine.revision == 0


def test_bad_fingerprint(driver: Driver) -> None:
    assert driver.entry(_envelope("k", bytes(65)))[0].code is Code.INVALID


def _envelope(key: str, fingerprint: bytes) -> bytes:
    return encode(Envelope(MakeDirectory("/a"), 1, key, fingerprint))


def test_failures_of_the_attempt_are_not_remembered(driver: Driver) -> None:
    """A retry brings a new upload; it must get its chance."""
    assert driver.do(CommitFile("/f", 100, upload=77), key="k").code is Code.UPLOAD_NOT_FOUND
    upload = driver.do(UploadBegin("/f", 1_000)).upload
    assert upload is not None
    assert driver.do(CommitFile("/f", 100, upload=upload.id), key="k").code is Code.OFFSET_MISMATCH
    driver.do(UploadChunk(upload.id, 0, chunk(1)))
    result = driver.do(CommitFile("/f", 100, upload=upload.id), key="k")
    assert (result.code, result.replayed) == (Code.CREATED, False)


def test_outcomes_are_dropped_by_age(driver: Driver) -> None:
    driver.do(MakeDirectory("/a"), key="old", at_ms=10_000)
    driver.do(MakeDirectory("/b"), key="young", at_ms=10_001)
    driver.do(MakeDirectory("/c"), at_ms=10_000 + DAY_MS)
    assert driver.reader.outcome("old") is not None
    driver.do(MakeDirectory("/d"), at_ms=10_001 + DAY_MS)
    assert driver.reader.outcome("old") is None
    assert driver.reader.outcome("young") is not None
    assert driver.do(MakeDirectory("/a"), key="old").code is Code.ALREADY_EXISTS


def test_outcomes_are_dropped_by_number(driver: Driver) -> None:
    """The newest IDEMPOTENCY_KEYS_MAX stay. The counter is set forward instead of storing a million of them."""
    first = driver.do(MakeDirectory("/a"), key="first")
    driver.do(MakeDirectory("/b"), key="second")
    driver.machine._meta.last_outcome = limits.IDEMPOTENCY_KEYS_MAX
    driver.do(MakeDirectory("/c"), key="third")
    assert driver.reader.outcome("first") is None
    assert driver.reader.outcome("second") is not None
    assert first.code is Code.CREATED


def test_age_pruning_is_bounded_for_each_entry(driver: Driver) -> None:
    count = limits.OUTCOMES_PRUNED_MAX + 10
    driver.entry(*(encode(Envelope(Remove("/none"), 1, f"k{n}", b"")) for n in range(count)))
    driver.do(MakeDirectory("/a"), at_ms=2 + DAY_MS)
    assert driver.reader.outcome(f"k{limits.OUTCOMES_PRUNED_MAX - 1}") is None
    assert driver.reader.outcome(f"k{limits.OUTCOMES_PRUNED_MAX}") is not None
    driver.do(MakeDirectory("/b"), at_ms=2 + DAY_MS)
    assert driver.reader.outcome(f"k{count - 1}") is None


def test_stored_outcome_is_the_result(driver: Driver) -> None:
    result = driver.do(MakeDirectory("/a"), key="k")
    (stored,) = driver.machine._db.execute("SELECT result FROM outcome").fetchone()
    assert decode_result(stored) == result
