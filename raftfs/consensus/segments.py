"""Segment files of the journal: their format, and telling a torn tail from damage.

A segment is a header and records, each ``length, crc, index, term, synced`` and then the entry's bytes. ``synced`` is
the offset in this file up to which everything was known to be durable when the record was written. An unfinished last
write may leave any mixture of its pages behind, also a good record after a bad one; so a bad record at offset x is
damage only if something proves that x had been durable: a later record whose ``synced`` lies beyond x, or a later
segment. Otherwise it is a torn tail, on which nothing was acknowledged, and is cut.
("Protocol-Aware Recovery for Consensus-Based Storage", FAST 2018, section 3.3.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import google_crc32c

from raftfs.errors import CorruptData
from raftfs.limits import COMMAND_BYTES_MAX, ENTRY_BYTES_MAX

_RECORD: Final = struct.Struct("<IIQQQ")
_HEADER: Final = struct.Struct("<8sQII")  # magic, number, flags, crc
_MAGIC: Final = b"RAFTFSJ1"
RECORD_HEADER_BYTES: Final = _RECORD.size
SEGMENT_HEADER_BYTES: Final = 32
_BASE: Final = 1  # flag: the log begins with this segment, whatever older ones say
DATA_BYTES_MAX: Final = ENTRY_BYTES_MAX + COMMAND_BYTES_MAX + 64 * 1024  # an entry and its framing


@dataclass(frozen=True, slots=True)
class Record:
    """``offset`` is where the record begins in its file; its bytes follow RECORD_HEADER_BYTES later."""

    offset: int
    index: int
    term: int
    data: memoryview
    synced: int

    @property
    def end(self) -> int:
        return self.offset + RECORD_HEADER_BYTES + len(self.data)


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:012d}.segment"


def segment_number(path: Path) -> int:
    """Raises CorruptData for a file that has no place here."""
    if not path.stem.isdecimal():
        raise CorruptData(f"{path} is not a journal segment; move it out of the journal's folder")
    return int(path.stem)


def encode_header(number: int, *, base: bool = False) -> bytes:
    """``base``: the log begins here (after a snapshot was installed); older segments count no more."""
    flags = _BASE if base else 0
    crc = google_crc32c.value(struct.pack("<8sQI", _MAGIC, number, flags))
    return _HEADER.pack(_MAGIC, number, flags, crc).ljust(SEGMENT_HEADER_BYTES, b"\0")


def is_base(path: Path) -> bool:
    """Whether a segment is marked as the log's beginning. A damaged header is found out when it is read."""
    with path.open("rb") as file:
        return file.read(SEGMENT_HEADER_BYTES) == encode_header(segment_number(path), base=True)


def encode_record(index: int, term: int, data: bytes, synced: int) -> bytes:
    return _RECORD.pack(len(data), _crc(index, term, synced, data), index, term, synced) + data


def _crc(index: int, term: int, synced: int, data: bytes | memoryview) -> int:
    head = struct.pack("<IQQQ", len(data), index, term, synced)
    return int(google_crc32c.extend(google_crc32c.value(head), bytes(data)))


def decode_record(raw: bytes | memoryview, offset: int = 0) -> Record | None:
    """The record at ``offset``, or None if there is no whole, undamaged one."""
    view = memoryview(raw)
    if offset + RECORD_HEADER_BYTES > len(view):
        return None
    length, crc, index, term, synced = _RECORD.unpack_from(view, offset)
    start = offset + RECORD_HEADER_BYTES
    if length == 0 or length > DATA_BYTES_MAX or start + length > len(view):
        return None
    data = view[start : start + length]
    return Record(offset, index, term, data, synced) if _crc(index, term, synced, data) == crc else None


def read_segment(path: Path, take: Callable[[Record], None], *, last: bool) -> int:
    """Give every record of a segment to ``take``, one at a time: a segment may hold hundreds of thousands. Returns the
    length in bytes of the segment's good part.

    With ``last`` (the newest segment) a torn tail is left out of that length. Raises CorruptData naming file and
    offset for anything else that is wrong.
    """
    raw = path.read_bytes()
    number = segment_number(path)
    if raw[:SEGMENT_HEADER_BYTES] not in (encode_header(number), encode_header(number, base=True)):
        # A crash right after the file was made leaves an unfinished header and no durable record.
        if last and not any(record.synced > 0 for record in _scan(raw, 0)):
            return 0
        raise CorruptData(f"{path}: damaged segment header at offset 0")
    offset = SEGMENT_HEADER_BYTES
    while offset < len(raw):
        record = decode_record(raw, offset)
        if record is None:
            _refuse_damage(path, raw, offset, last=last)
            break
        take(record)
        offset = record.end
    return offset


def _refuse_damage(path: Path, raw: bytes, offset: int, *, last: bool) -> None:
    """Raise CorruptData if the bad record at ``offset`` had been durable once."""
    if not last:
        raise CorruptData(f"{path}: damaged record at offset {offset}, and newer segments exist")
    proof = next((record for record in _scan(raw, offset + 1) if record.synced > offset), None)
    if proof is not None:
        raise CorruptData(
            f"{path}: damaged record at offset {offset}; the record at offset {proof.offset} was written when "
            f"everything up to offset {proof.synced} was durable, so this is damage and no unfinished write"
        )


def _scan(raw: bytes, offset: int) -> Iterator[Record]:
    """Every undamaged record at any offset from ``offset`` on: lengths cannot be trusted after damage."""
    end = len(raw)
    while offset + RECORD_HEADER_BYTES < end:
        (length,) = struct.unpack_from("<I", raw, offset)
        if 0 < length <= DATA_BYTES_MAX and offset + RECORD_HEADER_BYTES + length <= end:
            record = decode_record(raw, offset)
            if record is not None:
                yield record
                offset = record.end
                continue
        offset += 1
