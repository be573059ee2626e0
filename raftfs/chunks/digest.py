"""The one digest of raftfs: BLAKE3, 32 bytes."""

from __future__ import annotations

from typing import Final

from blake3 import blake3

DIGEST_BYTES: Final = 32


def hash_chunk(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 of the bytes. Releases the interpreter lock for large buffers, so call it in a worker thread."""
    return blake3(data).digest()
