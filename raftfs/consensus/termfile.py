"""Current term and vote on disk, written twice.

A node that forgets its vote can vote twice in one term and elect two leaders, so the pair is kept in two slots, each
with its own CRC32C, written and fsynced one after the other, the first one first, before anything acts on them. So one
slot that cannot be read is no loss, whether a crash or damage took it, and no older vote comes back:

- the first is bad: the second one is older only if the write of the first had not ended, or a crash came right after
  it. Nobody acted on that newer vote then.
- the second is bad: the first one is never older than it.

Two bad slots are refused, and so is a file that is missing or empty beside a log: its votes are forgotten.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c
import msgspec

from raftfs import fsync
from raftfs.decoding import UNDECODABLE
from raftfs.errors import CorruptData

_SLOT_BYTES: Final = 4096  # one slot a page: a torn page hits one slot at most
_HEADER: Final = struct.Struct("<4sIQ")  # magic, crc, length of what follows
_MAGIC: Final = b"RFTV"


class Vote(NamedTuple):
    """``sequence`` counts the writes; ``voted_for`` is the member's id, None if no vote was given in ``term``."""

    sequence: int
    term: int
    voted_for: str | None


class TermFile:
    """The file ``path``, made with term 0 if it is not there and ``may_begin`` (nothing else is there yet either).
    Raises CorruptData if it must be there, or if neither slot can be read."""

    def __init__(self, path: Path, *, may_begin: bool = True, look: bool = False) -> None:
        """``look``: only read it, and change nothing."""
        self._path, self._look = path, look
        self.damaged_offsets: list[int] = []
        fresh = not path.exists() or path.stat().st_size == 0
        if fresh and not may_begin:
            raise CorruptData(
                f"{path}: the term and vote are missing from offset 0 on, although this node ran before. It could vote "
                "twice, so it refuses to start"
            )
        self._vote = Vote(0, 0, None)
        if fresh and look:
            self._fd = -1
            return
        if fresh:
            # In one step: of a file that is written in place, a power cut may leave the name and no slot, and that is
            # what a damaged one looks like.
            fsync.write_durably(path, _slot(self._vote) * 2)
        self._fd = os.open(path, os.O_RDONLY if look else os.O_RDWR)
        try:
            self._load()
        except BaseException:
            os.close(self._fd)
            raise

    @classmethod
    def create(cls, path: Path) -> None:
        """A file with term 0 and no vote at ``path``, durably, if there is none. A member that gave votes before must
        not use it unless it rejoins (see rejoin.py)."""
        cls(path).close()

    @property
    def term(self) -> int:
        return self._vote.term

    @property
    def voted_for(self) -> str | None:
        return self._vote.voted_for

    def set(self, term: int, voted_for: str | None) -> None:
        """Durable when it returns. Raises OSError if it cannot be written (the caller must then act on nothing)."""
        if (term, voted_for) == (self._vote.term, self._vote.voted_for):
            return
        if term < self._vote.term:
            raise ValueError(f"term must not go back from {self._vote.term} to {term}")
        vote = Vote(self._vote.sequence + 1, term, voted_for)
        self._write(vote)
        self._vote = vote

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, vote: Vote) -> None:
        for slot in (0, 1):
            os.pwrite(self._fd, _slot(vote), slot * _SLOT_BYTES)
            fsync.sync_data(self._fd, self._path)

    def _load(self) -> None:
        slots = [self._read_slot(0), self._read_slot(1)]
        good = [vote for vote in slots if vote is not None]
        if not good:
            raise CorruptData(
                f"{self._path}: both copies of the term and vote are damaged (offsets 0 and {_SLOT_BYTES}). "
                "This node could vote twice, so it refuses to start"
            )
        self._vote = max(good, key=lambda vote: vote.sequence)
        self.damaged_offsets = [at * _SLOT_BYTES for at, vote in enumerate(slots) if vote is None]
        if slots[0] != slots[1] and not self._look:
            # An unfinished or damaged slot: mend it before anyone acts on what may be in the page cache alone.
            self._write(self._vote)

    def _read_slot(self, slot: int) -> Vote | None:
        raw = os.pread(self._fd, _SLOT_BYTES, slot * _SLOT_BYTES)
        if len(raw) < _HEADER.size:
            return None
        magic, crc, length = _HEADER.unpack_from(raw)
        body = raw[_HEADER.size : _HEADER.size + length]
        if magic != _MAGIC or len(body) != length or google_crc32c.value(body) != crc:
            return None
        try:
            return msgspec.msgpack.decode(body, type=Vote)
        except UNDECODABLE:
            return None


def _slot(vote: Vote) -> bytes:
    body = msgspec.msgpack.encode(vote)
    return (_HEADER.pack(_MAGIC, google_crc32c.value(body), len(body)) + body).ljust(_SLOT_BYTES, b"\0")
