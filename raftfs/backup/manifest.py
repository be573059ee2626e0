"""The manifest of a backup: JSON lines, one for each directory and file, in path order. ``docs/design/backup.md`` has
the format. Both ends are bounded in memory, whatever the number of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, TypeAlias

import msgspec
from blake3 import blake3

from raftfs import limits, paths
from raftfs.errors import CorruptData, DataTooNew, InvalidPath

FORMAT: Final = 1
_HEX: Final = frozenset("0123456789abcdef")


class Chunk(NamedTuple):
    """A part of a file: BLAKE3 digest (hexadecimal) and length in bytes. It is the object of that name, or, if
    ``bundle`` names one, lies in that object from byte ``at`` on."""

    digest: str
    length: int
    bundle: str = ""
    at: int = 0

    @property
    def object(self) -> str:
        return self.bundle or self.digest


class _Line(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of the lines."""


class Head(_Line, frozen=True, tag="raftfs-backup"):
    """First line. ``format`` is this module's; ``created_ms`` by the clock of the machine that made the backup."""

    format: int
    cluster_id: str
    revision: int
    created_ms: int
    program: str


class Directory(_Line, frozen=True, tag="directory"):
    """A directory. The root comes first."""

    path: str
    revision: int
    created_ms: int
    modified_ms: int
    metadata: dict[str, str] = {}


class File(_Line, frozen=True, tag="file"):
    """A file. ``more``: the next line goes on with its chunks."""

    path: str
    revision: int
    created_ms: int
    modified_ms: int
    size: int
    content_type: str | None
    metadata: dict[str, str] = {}
    chunks: list[Chunk] = []
    more: bool = False


class More(_Line, frozen=True, tag="chunks"):
    """The next chunks of the file above."""

    chunks: list[Chunk]
    more: bool = False


class Tail(_Line, frozen=True, tag="end"):
    """Last line. ``digest``: BLAKE3 of all bytes before this line. ``size``: bytes of all files."""

    files: int
    directories: int
    size: int
    digest: str


Item: TypeAlias = Directory | File
Line: TypeAlias = Head | Directory | File | More | Tail

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


def encode_line(line: Line) -> bytes:
    return _encode(line) + b"\n"


def path_key(path: str) -> tuple[bytes, ...]:
    """What paths are ordered by: a directory, all below it, then its next sibling, names bytewise."""
    return tuple(part.encode() for part in paths.components(path))


@dataclass(frozen=True, slots=True)
class Info:
    """What head and tail say of a backup. ``name`` is unique in its directory and sorts by time."""

    name: str
    cluster_id: str
    revision: int
    created_ms: int
    files: int
    directories: int
    size: int


class Writer:
    """Writes a manifest to an open file. Raises OSError."""

    def __init__(self, file: BinaryIO, head: Head) -> None:
        self._file = file
        self._hash = blake3()
        self._open = False  # the file above is not complete
        self.files = self.directories = self.size = 0
        self._put(head)

    def directory(self, line: Directory) -> None:
        self.directories += 1
        self._put(line)

    def file(self, line: File) -> None:
        """A file, with any number of chunks; ``more`` if still others follow by ``chunks``."""
        self.files += 1
        self.size += line.size
        first, rest = line.chunks[: limits.MANIFEST_LINE_CHUNKS_MAX], line.chunks[limits.MANIFEST_LINE_CHUNKS_MAX :]
        self._put(msgspec.structs.replace(line, chunks=first, more=bool(rest) or line.more))
        if rest:
            self.chunks(rest, more=line.more)

    def chunks(self, chunks: list[Chunk], *, more: bool) -> None:
        """Goes on with the chunks of the file above."""
        step = limits.MANIFEST_LINE_CHUNKS_MAX
        for at in range(0, len(chunks), step):
            self._put(More(chunks[at : at + step], more or at + step < len(chunks)))

    def end(self) -> None:
        self._file.write(encode_line(Tail(self.files, self.directories, self.size, self._hash.hexdigest())))

    def _put(self, line: Line) -> None:
        data = encode_line(line)
        self._hash.update(data)
        self._file.write(data)


class Reader:
    """Reads a manifest, checking all of it: each raises CorruptData that names the line, DataTooNew."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._line = 0
        self._hash = blake3()
        self._files = self._directories = self._size = 0
        self._above: list[bytes] = []  # the directory that the present path is in, from the root
        self._last: tuple[bytes, ...] | None = None
        self._missing = 0  # bytes of the present file whose chunks are still to come
        first = self._next()
        if not isinstance(first, Head):
            raise self._wrong("does not begin with a backup's head")
        if first.format < 1:
            raise self._wrong("has a format that cannot be")
        if first.format > FORMAT:
            raise DataTooNew(
                f"backup {name} has format {first.format}, this raftfs understands up to {FORMAT}: install a newer one"
            )
        self.head = first

    def info(self) -> Info:
        """Of a manifest that was read to its end."""
        head = self.head
        return Info(
            self._name, head.cluster_id, head.revision, head.created_ms, self._files, self._directories, self._size
        )

    def lines(self) -> Iterator[Directory | File | More]:
        """All lines between head and tail, in order; at the end the tail was compared with them."""
        more = False
        while not isinstance(line := self._next(), Tail):
            if isinstance(line, Head) or isinstance(line, More) != more:
                raise self._wrong("is out of place")
            more = self._check(line)
            yield line
        counted = Tail(self._files, self._directories, self._size, self._hash.hexdigest())
        if more or not self._directories or self._raw != encode_line(counted):
            raise self._wrong("does not fit the lines above: some of them are damaged or missing")
        if self._file.read(1):
            raise self._wrong("should be the last one, and is not")

    def items(self) -> Iterator[Item]:
        """Directories and files, each file with all its chunks."""
        waiting: File | None = None
        for line in self.lines():
            if isinstance(line, More):
                assert waiting is not None, "lines() lets no other one begin with chunks"
                waiting.chunks.extend(line.chunks)
                if not line.more:
                    yield msgspec.structs.replace(waiting, more=False)
            elif isinstance(line, File) and line.more:
                waiting = line
            else:
                yield line

    def _next(self) -> Line:
        self._line += 1
        self._raw = self._file.readline(limits.MANIFEST_LINE_BYTES_MAX)
        if not self._raw.endswith(b"\n"):
            raise self._wrong("is cut off: the backup has no end")
        try:
            line: Line = _decode(self._raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._wrong(f"is damaged: {error}") from None
        if not isinstance(line, Tail):
            self._hash.update(self._raw)
        return line

    def _check(self, line: Directory | File | More) -> bool:
        """Whether the line makes sense where it stands; returns whether a line with more chunks must follow."""
        if isinstance(line, Directory | File):
            self._check_path(line)
        if isinstance(line, Directory):
            self._directories += 1
            return False
        if isinstance(line, File):
            self._files += 1
            self._size += line.size
            self._missing = line.size
        for chunk in line.chunks:
            if not (_is_digest(chunk.digest) and chunk.length > 0 and chunk.at >= 0):
                raise self._wrong("names a chunk that cannot be")
            if chunk.bundle and not _is_digest(chunk.bundle):
                raise self._wrong("names an object that cannot be")
            self._missing -= chunk.length
        if (line.more and self._missing <= 0) or (not line.more and self._missing != 0):
            raise self._wrong("has other chunks than its size says")
        return line.more

    def _check_path(self, line: Item) -> None:
        try:
            fits = paths.normalize(line.path) == line.path
        except InvalidPath:
            fits = False
        if not fits:
            raise self._wrong("has a path that cannot be")
        key = path_key(line.path)
        if (self._last is None) != (not key) or (self._last is not None and key <= self._last):
            raise self._wrong("is not in the order of paths")
        if list(key[:-1]) != self._above[: max(len(key) - 1, 0)]:
            raise self._wrong("is in a directory that is not there")
        self._last = key
        self._above = list(key if isinstance(line, Directory) else key[:-1])

    def _wrong(self, what: str) -> CorruptData:
        return CorruptData(f"manifest of backup {self._name}: line {self._line} {what}")


def _is_digest(text: str) -> bool:
    return len(text) == 64 and _HEX.issuperset(text)


def quick_info(file: BinaryIO, name: str) -> Info:
    """Head and tail of a manifest, without looking at what is between. Raises CorruptData."""
    head = Reader(file, name).head
    file.seek(0, 2)
    size = file.tell()
    file.seek(max(0, size - limits.MANIFEST_TAIL_BYTES_MAX))
    try:
        tail = msgspec.json.decode(file.read().rstrip(b"\n").rpartition(b"\n")[2], type=Tail)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise CorruptData(f"manifest of backup {name} has no end: it is damaged") from None
    return Info(name, head.cluster_id, head.revision, head.created_ms, tail.files, tail.directories, tail.size)


def salvage(file: BinaryIO) -> Iterator[Chunk]:
    """Chunks in the bundles that an unfinished manifest names, up to its first line that is not whole."""
    while (raw := file.readline(limits.MANIFEST_LINE_BYTES_MAX)).endswith(b"\n"):
        try:
            line: Line = _decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if isinstance(line, File | More):
            yield from (chunk for chunk in line.chunks if chunk.bundle)
