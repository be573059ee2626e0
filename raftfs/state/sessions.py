"""Exactly once: the outcome of every command that carries an idempotency key, given again to a retry.

Refusals are remembered like successes: a delayed duplicate must not succeed after its client was told of a refusal.
Not remembered are UPLOAD_NOT_FOUND and OFFSET_MISMATCH, which speak of one attempt (its upload) and not of the
request: the retry brings a new upload and must get its chance.

Outcomes are numbered without gaps and dropped oldest first, by number and by age, at the same entries on every node.
"""

from __future__ import annotations

import sqlite3

import msgspec

from raftfs import limits
from raftfs.state.commands import Code, Result, decode_result
from raftfs.state.refusals import Refused
from raftfs.state.schema import Meta

_OF_THE_ATTEMPT = frozenset({Code.UPLOAD_NOT_FOUND, Code.OFFSET_MISMATCH})


def load_outcome(db: sqlite3.Connection, key: str) -> tuple[bytes, Result] | None:
    """Fingerprint and result stored for a key."""
    row = db.execute("SELECT fingerprint, result FROM outcome WHERE key = ?", (key,)).fetchone()
    return (row[0], decode_result(row[1])) if row else None


class Sessions:
    """The outcomes, as the writer keeps them."""

    def __init__(self, db: sqlite3.Connection, meta: Meta) -> None:
        self._db = db
        self._meta = meta

    def check_key(self, key: str, fingerprint: bytes) -> None:
        size = len(key.encode())
        if not 0 < size <= limits.IDEMPOTENCY_KEY_BYTES_MAX:
            raise Refused(
                Code.INVALID, f"an idempotency key has 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} bytes, not {size}"
            )
        if len(fingerprint) > limits.FINGERPRINT_BYTES_MAX:
            raise Refused(Code.INVALID, f"a fingerprint has at most {limits.FINGERPRINT_BYTES_MAX} bytes")

    def replay(self, key: str, fingerprint: bytes) -> Result | None:
        """The outcome of an earlier command with this key, if there was one. Refuses a key of another request."""
        found = load_outcome(self._db, key)
        if found is None:
            return None
        if found[0] != fingerprint:
            raise Refused(Code.KEY_REUSED, f"idempotency key {key!r} was used for a different request")
        return msgspec.structs.replace(found[1], replayed=True)

    def remember(self, key: str, fingerprint: bytes, code: Code, encoded: bytes) -> None:
        if code in _OF_THE_ATTEMPT:
            return
        self._meta.last_outcome += 1
        self._db.execute(
            "INSERT INTO outcome VALUES (?, ?, ?, ?, ?)",
            (self._meta.last_outcome, key, fingerprint, self._meta.clock_ms, encoded),
        )

    def prune(self) -> None:
        """Once for each entry: drop what is over the number, and some of what is over the age."""
        self._db.execute("DELETE FROM outcome WHERE seq <= ?", (self._meta.last_outcome - limits.IDEMPOTENCY_KEYS_MAX,))
        oldest = self._db.execute("SELECT seq, time_ms FROM outcome ORDER BY seq LIMIT 1").fetchone()
        cutoff_ms = self._meta.clock_ms - limits.IDEMPOTENCY_KEY_AGE_MS_MAX
        if oldest and oldest[1] < cutoff_ms:
            self._db.execute(
                "DELETE FROM outcome WHERE seq < ? AND time_ms < ?",
                (oldest[0] + limits.OUTCOMES_PRUNED_MAX, cutoff_ms),
            )
