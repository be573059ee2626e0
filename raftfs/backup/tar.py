"""One backup as a tar stream, and as a tar file to be read.

The members are the files of a directory of backups, the manifest last: unpacked, the stream is such a directory.
Headers are written in one form only, so that any other byte in them is damage.
"""

from __future__ import annotations

import io
import sqlite3
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from raftfs import limits
from raftfs.backup.manifest import FORMAT
from raftfs.backup.store import BACKUPS, MARKER, OBJECTS, SUFFIX, Mark, object_name, parse_mark, writing
from raftfs.errors import CorruptData, NotFound

_BLOCK: Final = 512
_COPY_BYTES: Final = 1024 * 1024


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _padding(size: int) -> int:
    return -size % _BLOCK


class TarWriter:
    """Writes one backup to a stream, object by object; thread-safe. ``close`` without ``finish`` leaves a stream
    without a manifest, which is no backup."""

    def __init__(self, stream: IO[bytes], cluster_id: str, where: Path) -> None:
        self._stream = stream
        self._where = where
        self._lock = threading.Lock()
        self._written = sqlite3.connect("", check_same_thread=False)  # a temporary database, on disk if it grows
        self._written.execute("CREATE TABLE object (digest TEXT PRIMARY KEY, length INTEGER) WITHOUT ROWID")
        self.manifest = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - closed by close()
        self._member(MARKER, io.BytesIO(Mark(FORMAT, cluster_id).encode()))

    def has_object(self, digest: str, length: int | None = None) -> bool:
        with self._lock:
            found = self._written.execute("SELECT length FROM object WHERE digest = ?", (digest,)).fetchone()
        return found is not None and length in (None, found[0])

    def put_object(self, digest: str, data: bytes) -> None:
        """Raises StorageFull, OSError."""
        with self._lock:
            known = self._written.execute("SELECT 1 FROM object WHERE digest = ?", (digest,)).fetchone()
            if known is None:
                self._member(object_name(digest), io.BytesIO(data))
                self._written.execute("INSERT INTO object VALUES (?, ?)", (digest, len(data)))

    def finish(self, name: str) -> None:
        """The manifest, and the end of the stream."""
        self._member(f"{BACKUPS}/{name}{SUFFIX}", self.manifest)
        with writing(self._where):
            self._stream.write(bytes(2 * _BLOCK))
            self._stream.flush()

    def close(self) -> None:
        self._written.close()
        self.manifest.close()

    def _member(self, name: str, content: BinaryIO) -> None:
        size = content.seek(0, 2)
        content.seek(0)
        with writing(self._where):
            self._stream.write(_header(name, size))
            while block := content.read(_COPY_BYTES):
                self._stream.write(block)
            self._stream.write(bytes(_padding(size)))


class TarSource:
    """A tar file with one backup. Looks through all headers first. Raises CorruptData, NotFound, OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise NotFound(f"there is no {path}")
        self._file = path.open("rb")
        self._index = sqlite3.connect("", check_same_thread=False)
        self._index.execute("CREATE TABLE member (name TEXT PRIMARY KEY, start INTEGER, size INTEGER)")
        self._lock = threading.Lock()
        try:
            self._scan()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()
        self._index.close()

    def names(self) -> list[str]:
        rows = self._index.execute("SELECT name FROM member WHERE name LIKE ?", (f"{BACKUPS}/%{SUFFIX}",))
        return sorted(name[len(BACKUPS) + 1 :].removesuffix(SUFFIX) for (name,) in rows)

    def open_manifest(self, name: str) -> BinaryIO:
        start, size = self._find(f"{BACKUPS}/{name}{SUFFIX}")
        return cast("BinaryIO", io.BufferedReader(_Part(self.path, start, size), _COPY_BYTES))

    def objects(self) -> Iterator[str]:
        rows = self._index.execute(f"SELECT name FROM member WHERE name LIKE '{OBJECTS}/%' ORDER BY start")
        yield from (name[-64:] for (name,) in rows)

    def read_object(self, digest: str) -> bytes:
        start, size = self._find(object_name(digest))
        if size > limits.BACKUP_OBJECT_BYTES_MAX:
            raise CorruptData(f"{self.path}: {object_name(digest)} is longer than an object can be")
        with self._lock:
            self._file.seek(start)
            return self._file.read(size)

    def strange(self) -> Iterator[str]:
        for (name,) in self._index.execute("SELECT name FROM member ORDER BY start"):
            is_object = name == object_name(name[-64:]) and len(name) == len(object_name("0" * 64))
            is_manifest = name.startswith(f"{BACKUPS}/") and name.endswith(SUFFIX)
            if name != MARKER and not is_object and not is_manifest:
                yield name

    def notes(self) -> Iterator[str]:
        return iter(())

    def _find(self, name: str) -> tuple[int, int]:
        with self._lock:
            row = self._index.execute("SELECT start, size FROM member WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(f"{self.path}: {name} is missing")
        return row[0], row[1]

    def _scan(self) -> None:
        at, length = 0, self._file.seek(0, 2)
        while True:
            self._file.seek(at)
            head = self._file.read(_BLOCK)
            if len(head) < _BLOCK:
                raise CorruptData(f"{self.path} ends at byte {at + len(head)}, before the end of the backup")
            if head == bytes(_BLOCK):
                break
            name, size = self._parse(head, at)
            start = at + _BLOCK
            at = start + size + _padding(size)
            if at > length:
                raise CorruptData(f"{self.path} ends inside {name}")
            self._file.seek(start + size)
            if any(self._file.read(_padding(size))):
                raise CorruptData(f"{self.path} is damaged behind {name}, at byte {start + size}")
            try:
                self._index.execute("INSERT INTO member VALUES (?, ?, ?)", (name, start, size))
            except sqlite3.IntegrityError:
                raise CorruptData(f"{self.path} has {name} twice") from None
        self._check_end(at, length)
        start, size = self._find(MARKER)
        self._file.seek(start)
        self.mark = parse_mark(self._file.read(min(size, _COPY_BYTES)), f"{self.path}: {MARKER}")

    def _parse(self, head: bytes, at: int) -> tuple[str, int]:
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "strict")
            same = _header(info.name, info.size) == head
        except (tarfile.TarError, ValueError):
            same = False
        if not same:
            raise CorruptData(
                f"{self.path} is damaged at byte {at}, or was not written by `raftfs backup create` (unpack another "
                "tar file of a backup into a directory)"
            )
        return info.name, info.size

    def _check_end(self, at: int, length: int) -> None:
        self._file.seek(at)
        if length - at != 2 * _BLOCK or any(self._file.read(2 * _BLOCK)):
            raise CorruptData(f"{self.path} is damaged at its end, from byte {at} on")


class _Part(io.RawIOBase):
    """Bytes [start, start + size) of a file."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, self._size)[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view[: max(0, min(len(view), self._size - self._at))])
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
