"""The manifest: what is written is read again, and no line that is wrong, missing, doubled or moved passes."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from blake3 import blake3

from raftfs import limits
from raftfs.backup.manifest import Chunk, Directory, File, Head, Item, Reader, Tail, Writer, encode_line, quick_info
from raftfs.errors import CorruptData, DataTooNew

HEAD = Head(1, "ours", 9, 1_700_000_000_000, "raftfs test")


def digest(number: int) -> str:
    return blake3(str(number).encode()).hexdigest()


def file(path: str, chunks: list[Chunk]) -> File:
    return File(path, 3, 1, 2, sum(chunk.length for chunk in chunks), "text/plain", {"k": "v"}, chunks)


def directory(path: str) -> Directory:
    return Directory(path, 1, 1, 1)


ITEMS: list[Item] = [
    directory("/"),
    directory("/a"),
    file("/a/big", [Chunk(digest(n), 7) for n in range(2 * limits.MANIFEST_LINE_CHUNKS_MAX + 1)]),
    directory("/a/sub"),
    file("/a/sub/x", [Chunk(digest(0), 3, digest(1), 4)]),
    file("/a-", []),
    file("/b", [Chunk(digest(5), 1)]),
]


def written(items: list[Item], head: Head = HEAD) -> bytes:
    out = io.BytesIO()
    writer = Writer(out, head)
    for item in items:
        if isinstance(item, Directory):
            writer.directory(item)
        else:
            writer.file(item)
    writer.end()
    return out.getvalue()


def read(data: bytes) -> list[Item]:
    return list(Reader(io.BytesIO(data), "b").items())


def sealed(lines: list[bytes]) -> bytes:
    """Lines with a tail that fits them: as if they had been written so."""
    body = b"".join(lines)
    files = sum(line.startswith(b'{"type":"file"') for line in lines)
    directories = sum(line.startswith(b'{"type":"directory"') for line in lines)
    size = sum(item.size for item in ITEMS if isinstance(item, File))
    return body + encode_line(Tail(files, directories, size, blake3(body).hexdigest()))


def test_what_is_written_is_read_again() -> None:
    data = written(ITEMS)
    assert read(data) == ITEMS
    reader = Reader(io.BytesIO(data), "b")
    assert len(list(reader.lines())) == len(ITEMS) + 2
    info = reader.info()
    assert (info.files, info.directories, info.size) == (4, 3, 7 * 2001 + 4)
    assert quick_info(io.BytesIO(data), "b") == info
    assert sealed(data.splitlines(keepends=True)[:-1]) == data


def test_every_byte_counts() -> None:
    data = written(ITEMS[:2] + ITEMS[3:])
    assert read(data)
    for at in range(len(data)):
        for changed in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at], data[:at] + data[at + 1 :]):
            with pytest.raises((CorruptData, DataTooNew)):
                read(changed)
    with pytest.raises(CorruptData):
        read(data + b"\n")


def swap(lines: list[bytes], one: int, other: int) -> list[bytes]:
    changed = list(lines)
    changed[one], changed[other] = changed[other], changed[one]
    return changed


WRONG: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "no head": lambda lines: lines[1:],
    "two heads": lambda lines: [lines[0], *lines],
    "no root": lambda lines: [lines[0], *lines[2:]],
    "order": lambda lines: swap(lines, -1, -2),
    "twice": lambda lines: [*lines, lines[-1]],
    "no parent": lambda lines: [line for line in lines if b'"/a/sub",' not in line],
    "chunks without a file": lambda lines: [*lines[:2], lines[4], *lines[2:]],
    "a file without all its chunks": lambda lines: [*lines[:5], *lines[6:]],
    "a file that is cut off": lambda lines: lines[:4],
    "other size": lambda lines: [line.replace(b'"size":14007', b'"size":14008') for line in lines],
    "bad digest": lambda lines: [line.replace(digest(5).encode(), b"../../etc/passwd") for line in lines],
    "bad bundle": lambda lines: [line.replace(digest(1).encode() + b'",4', b'../x",4') for line in lines],
    "bad path": lambda lines: [line.replace(b'"/a/sub"', b'"/a/../sub"') for line in lines],
    "negative place": lambda lines: [line.replace(b'",4]', b'",-4]') for line in lines],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_manifest_that_makes_no_sense_is_refused_though_its_digest_fits(name: str) -> None:
    lines = written(ITEMS).splitlines(keepends=True)[:-1]
    wrong = WRONG[name](lines)
    assert wrong != lines
    with pytest.raises(CorruptData, match="manifest of backup b: line"):
        read(sealed(wrong))


def test_a_newer_format_is_named() -> None:
    with pytest.raises(DataTooNew, match="format 2"):
        read(written(ITEMS, Head(2, "ours", 9, 0, "raftfs 9")))
