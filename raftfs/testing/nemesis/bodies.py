"""Bodies that say which write they are of, and cannot be mistaken if a byte of them is wrong or missing."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Final

_HEAD_BYTES_MAX: Final = 256


@dataclass(frozen=True)
class Damage:
    """What is wrong with a body."""

    text: str


def make(place: str, value: str, size: int) -> bytes:
    """A body of about ``size`` bytes for the write ``value`` at ``place`` (neither holds a space)."""
    filling = random.Random(value).randbytes(size)
    return f"{place} {value} {len(filling)} {hashlib.sha256(filling).hexdigest()}\n".encode() + filling


def value_of(place: str, body: bytes) -> str | Damage:
    """The write that a body is of; Damage if it is not whole, or was never written to this place."""
    head, newline, filling = body.partition(b"\n")
    words = head.decode("ascii", "replace").split(" ") if len(head) <= _HEAD_BYTES_MAX else []
    if not newline or len(words) != 4:
        return Damage(f"{len(body)} bytes that begin with {body[:80]!r}")
    found, value, length, digest = words
    if found != place:
        return Damage(f"bytes of {found}, write {value}")
    if str(len(filling)) != length or hashlib.sha256(filling).hexdigest() != digest:
        return Damage(f"damaged bytes of write {value}: {len(filling)} of {length}")
    return value
