"""Bodies of uploads: where the bytes come from, and whether they can be sent once more.

An attempt asks for ``chunks()`` and gets the body from its first byte. Bytes, paths and seekable files can do that
any number of times. A stream (generator, pipe) can do it for as long as no more than ``BUFFERED_BODY_BYTES_MAX`` of
it was pulled; after that ``can_start`` is false and a failed upload is not retried.
"""

from __future__ import annotations

import asyncio
import io
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import IO, TypeAlias, cast

from raftfs.errors import InvalidRequest
from raftfs.limits import BUFFERED_BODY_BYTES_MAX, CLIENT_BLOCK_BYTES

Bytes: TypeAlias = bytes | bytearray | memoryview

_END = object()  # what an iterator gives at its end; None would hide a faulty producer


class Body(ABC):
    """``size`` in bytes, None if it is not known before the end."""

    size: int | None = None

    @property
    def can_start(self) -> bool:
        """Whether ``chunks()`` can deliver the whole body (again)."""
        return True

    @abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """The body from its first byte. At most one such iterator is in use at a time."""


Source: TypeAlias = Bytes | IO[bytes] | Iterable[bytes] | AsyncIterable[bytes] | Body
"""What ``write`` takes: bytes, an open binary file, an iterable of bytes, plain or asynchronous, or a ``Body``."""


class BytesBody(Body):
    def __init__(self, data: Bytes) -> None:
        self.data = data if isinstance(data, bytes) else bytes(data)
        self.size = len(self.data)

    async def chunks(self) -> AsyncIterator[bytes]:
        view = memoryview(self.data)
        for start in range(0, len(view), CLIENT_BLOCK_BYTES):
            yield bytes(view[start : start + CLIENT_BLOCK_BYTES])


class PathBody(Body):
    """A local file by its path, opened anew by each attempt and refused if it is another file by then."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._identity = _identity(os.stat(self._path))
        self.size = self._identity[0]

    async def chunks(self) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(open, self._path, "rb", buffering=0)
        try:
            self._check(file.fileno())
            left = self._identity[0]
            # Never once more after the last block: with that one the server may commit, so nothing may fail any more.
            while left > 0 and (block := await asyncio.to_thread(file.read, min(left, CLIENT_BLOCK_BYTES))):
                self._check(file.fileno())
                left -= len(block)
                yield block
        finally:
            file.close()

    def _check(self, fd: int) -> None:
        if _identity(os.fstat(fd)) != self._identity:
            raise InvalidRequest(f"{self._path} changed while it was being sent", outcome="not_applied")


def _identity(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


class FileBody(Body):
    """An open, seekable binary file, from where it stands to its end. It stays open; the caller closes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.tell()
        self.size = self._length = max(0, file.seek(0, os.SEEK_END) - self._start)
        file.seek(self._start)

    async def chunks(self) -> AsyncIterator[bytes]:
        self._file.seek(self._start)
        left = self._length
        while left > 0 and (block := await asyncio.to_thread(self._file.read, min(left, CLIENT_BLOCK_BYTES))):
            left -= len(block)
            yield block


class StreamBody(Body):
    """Bytes that come once. The first ``BUFFERED_BODY_BYTES_MAX`` are kept, so that an early failure can be retried."""

    def __init__(self, source: AsyncIterator[bytes], size: int | None = None) -> None:
        self._source = source
        self._head: list[bytes] = []
        self._pulled = 0
        self._ended = False
        self._broken = False
        self.size = size

    @property
    def can_start(self) -> bool:
        return self._pulled <= BUFFERED_BODY_BYTES_MAX and not self._broken

    async def chunks(self) -> AsyncIterator[bytes]:
        if not self.can_start:
            raise RuntimeError("a stream that was partly sent cannot be sent again")
        for chunk in list(self._head):
            yield chunk
        while not self._ended:
            # Cancelled or failed in the middle of a step, a generator is finished and would look as if it had ended.
            self._broken = True
            pulled = await anext(self._source, _END)
            self._broken = False
            if pulled is _END:
                self._ended = True
                return
            chunk = _as_bytes(pulled)
            self._pulled += len(chunk)
            if self._pulled <= BUFFERED_BODY_BYTES_MAX:
                self._head.append(chunk)
            else:
                self._head.clear()
            if chunk:
                yield chunk


def make_body(data: Source) -> Body:
    """Choose the body for what the caller passed. Raises TypeError for text and for what is not bytes at all."""
    source: object = data
    if isinstance(source, Body):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return BytesBody(source)
    if isinstance(source, AsyncIterable):
        return StreamBody(aiter(source))
    if isinstance(source, (str, io.TextIOBase)) or not (isinstance(source, Iterable) or hasattr(source, "read")):
        raise TypeError(f"files hold bytes, not {type(source).__name__}; for text use open(path, 'w')")
    if hasattr(source, "read"):
        file = cast("IO[bytes]", source)
        return FileBody(file) if _is_seekable(file) else StreamBody(_in_thread(_blocks(file)))
    return StreamBody(_in_thread(iter(cast("Iterable[bytes]", source))))


def _is_seekable(file: IO[bytes]) -> bool:
    seekable = getattr(file, "seekable", None)
    return bool(seekable is not None and seekable())


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    # read1 hands over what a pipe holds now; read would wait until the block is full.
    read = getattr(file, "read1", file.read)
    while block := read(CLIENT_BLOCK_BYTES):
        yield block


async def _in_thread(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A plain iterator, stepped in a worker thread, because a pipe or a generator may block."""
    while (chunk := await asyncio.to_thread(next, source, _END)) is not _END:
        yield cast("bytes", chunk)


def _as_bytes(chunk: object) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, (bytearray, memoryview)):
        return bytes(chunk)
    raise TypeError(f"the body's iterator must give bytes, not {type(chunk).__name__}")
