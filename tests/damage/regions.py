"""What can be damaged in a data directory: each file, each part with a meaning of its own, and four kinds of damage."""

from __future__ import annotations

import random
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from raftfs.consensus import segments

SECTOR_BYTES = 512
PAGE_BYTES = 4096
KINDS = ("flip", "zero", "cut", "delete")
_PAGE_TYPES = {2: "interior index", 5: "interior table", 10: "leaf index", 13: "leaf table"}


@dataclass(frozen=True)
class Damage:
    """``part`` says what the byte at ``offset`` of ``file`` (relative) is; ``kind`` what happens to it."""

    file: str
    offset: int
    part: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {self.file} at {self.offset} ({self.part})"

    def inflict(self, root: Path) -> None:
        path = root / self.file
        if self.kind == "delete":
            path.unlink()
            return
        data = bytearray(path.read_bytes())
        if self.kind == "cut":
            del data[self.offset :]
        elif self.kind == "zero":
            start = self.offset - self.offset % SECTOR_BYTES
            data[start : start + SECTOR_BYTES] = bytes(len(data[start : start + SECTOR_BYTES]))
        else:
            data[self.offset] ^= 1 << self.offset % 8
        path.write_bytes(data)

    def changes(self, root: Path) -> bool:
        """Whether anything becomes different by it."""
        data = (root / self.file).read_bytes()
        start = self.offset - self.offset % SECTOR_BYTES
        return self.kind != "zero" or bool(data[start : start + SECTOR_BYTES].strip(b"\0"))


def all_damages(root: Path, *, step: int) -> list[Damage]:
    """Every file of a data directory, each part of it, and besides every ``step`` bytes: each kind of damage."""
    found = []
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        name, size = str(path.relative_to(root)), path.stat().st_size
        parts = dict(_parts(path, root))
        for offset in range(step, size, step):
            parts.setdefault(offset, "anywhere")
        for offset, part in parts.items():
            if offset < size:
                found += [Damage(name, offset, part, kind) for kind in KINDS if kind != "delete"]
        found.append(Damage(name, 0, "all of it", "delete"))
    return [damage for damage in found if damage.changes(root)]


def sample(damages: Sequence[Damage], number: int, dice: random.Random) -> list[Damage]:
    """``number`` of them, of as many kinds of parts of as many kinds of files as there are."""
    groups: dict[tuple[str, str, str], list[Damage]] = defaultdict(list)
    for damage in damages:
        groups[_family(damage.file), damage.part, damage.kind].append(damage)
    chosen: list[Damage] = []
    queues = [dice.sample(group, len(group)) for _, group in sorted(groups.items())]
    while len(chosen) < number and queues:
        dice.shuffle(queues)
        chosen += [queue.pop() for queue in queues]
        queues = [queue for queue in queues if queue]
    return chosen[:number]


def _family(name: str) -> str:
    if name.startswith("journal/"):
        return name if name.endswith("term") else "segment"
    return "chunk" if name.startswith("chunks/") else name


def _parts(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    reader: Callable[[Path], Iterator[tuple[int, str]]] | None = None
    if path.suffix == ".segment":
        reader = _segment
    elif path.name == "term":
        reader = _term
    elif path.name == "state.db":
        reader = _database
    elif path.name == "state.db-wal":
        reader = _log
    if reader is not None:
        yield from reader(path)
        return
    size = path.stat().st_size
    if path.name == "node.json":
        yield from ((offset, "text") for offset in range(0, size, 5))
    yield from ((0, "begin"), (8, "begin"), (40, "begin"), (512, "header"), (4096, "sums"), (size // 2, "middle"))
    yield max(size - 1, 0), "end"


def _segment(path: Path) -> Iterator[tuple[int, str]]:
    for offset, part in ((0, "magic"), (8, "number"), (16, "flags"), (20, "header crc"), (31, "header end")):
        yield offset, part
    records: list[segments.Record] = []
    segments.read_segment(path, records.append, last=True)
    for record in records:
        for offset, part in ((0, "length"), (4, "crc"), (8, "index"), (16, "term"), (24, "synced")):
            yield record.offset + offset, part
        yield record.offset + segments.RECORD_HEADER_BYTES, "body"
        yield record.end - 1, "body's end"


def _term(path: Path) -> Iterator[tuple[int, str]]:
    for slot in (0, PAGE_BYTES):
        for offset, part in ((0, "magic"), (4, "crc"), (8, "length"), (16, "vote"), (20, "vote"), (200, "nothing")):
            yield slot + offset, f"slot {slot // PAGE_BYTES}: {part}"


def _database(path: Path) -> Iterator[tuple[int, str]]:
    for offset, part in ((0, "magic"), (16, "page size"), (24, "change counter"), (28, "size"), (32, "freelist"),
                         (40, "schema"), (60, "version"), (68, "application")):  # fmt: skip
        yield offset, f"header: {part}"
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        roots = {page for (page,) in db.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 0")}
    data = path.read_bytes()
    for page in range(1, len(data) // PAGE_BYTES + 1):
        start = (page - 1) * PAGE_BYTES
        kind = _PAGE_TYPES.get(data[start + (100 if page == 1 else 0)], "overflow or free")
        kind += ", root" if page in roots else ""
        for offset, part in ((0, "page header"), (3, "cell count"), (5, "cell area"), (8, "pointers"), (2048, "middle"),
                             (4000, "cells"), (4095, "end")):  # fmt: skip
            yield start + offset, f"{kind}: {part}"


def _log(path: Path) -> Iterator[tuple[int, str]]:
    for offset, part in ((0, "magic"), (8, "page size"), (16, "salt"), (24, "checksum")):
        yield offset, f"header: {part}"
    for start in range(32, path.stat().st_size, PAGE_BYTES + 24):
        for offset, part in ((0, "page"), (4, "commit"), (8, "salt"), (16, "checksum"), (24, "bytes"), (3000, "bytes")):
            yield start + offset, f"frame: {part}"


def spoil_both_votes(root: Path) -> None:
    """Both copies of term and vote, which one region of damage does not hit."""
    path = root / "journal" / "term"
    data = bytearray(path.read_bytes())
    for slot in (0, PAGE_BYTES):
        (crc,) = struct.unpack_from("<I", data, slot + 4)
        struct.pack_into("<I", data, slot + 4, crc ^ 1)
    path.write_bytes(data)
