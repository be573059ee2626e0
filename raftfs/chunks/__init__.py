"""The chunk store: up to 4 MiB of a file's bytes each, immutable, named by their BLAKE3 digest.

Bytes and their digest come in and are on the disk, name included, before ``put`` returns; verified bytes go out. A
damaged file is moved aside and counts as missing, so that a peer's copy replaces it. Chunks that nothing refers to are
collected after a grace period, counted from the last time they were put. What may never happen here: bytes that do not
match their digest leave the store, a chunk in use is deleted, or a name comes from anything but a digest.
"""

from raftfs.chunks.digest import DIGEST_BYTES, hash_chunk
from raftfs.chunks.store import ChunkCorrupt, ChunkMissing, ChunkStats, ChunkStore, CollectReport, is_whole

__all__ = [
    "DIGEST_BYTES",
    "ChunkCorrupt",
    "ChunkMissing",
    "ChunkStats",
    "ChunkStore",
    "CollectReport",
    "hash_chunk",
    "is_whole",
]
