"""Open files of the asynchronous client. The blocking ones (``file.py``) stand on these.

A reader sees one version, the one that was there when it was opened. A writer sends while one writes, and what it
sent becomes visible in one instant when it is closed; after an exception, ``abort`` or a lost connection nothing does.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

from raftfs import limits
from raftfs.client.body import Body, Bytes, BytesBody, StreamBody
from raftfs.client.download import Download, Pinned
from raftfs.client.transport import Transport
from raftfs.models import Entry

BinaryMode: TypeAlias = Literal["rb", "wb", "xb"]
TextMode: TypeAlias = Literal["r", "rt", "w", "wt", "x", "xt"]

_WINDOW_GROWTH = 4


class AsyncReader:
    """A file opened for reading bytes: ``read``, ``seek``, ``tell``, lines by ``async for``. ``size`` is in bytes."""

    def __init__(self, transport: Transport, pinned: Pinned) -> None:
        self._transport = transport
        self._pinned = pinned
        self._position = 0
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._piece = memoryview(b"")  # what is left of the last piece; it starts at _position
        self._window = limits.CLIENT_BLOCK_BYTES
        self.size = pinned.size
        self.closed = False

    async def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, all that is left if it is negative; fewer only at the end of the file."""
        self._check_open()
        left = max(0, self.size - self._position)
        wanted = left if size < 0 else min(size, left)
        parts: list[memoryview] = []
        while wanted > 0:
            part = await self._take(wanted)
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    async def read_some(self, size: int) -> memoryview:
        """Between 1 and ``size`` bytes, whatever is there first; nothing at the end of the file."""
        self._check_open()
        left = max(0, self.size - self._position)
        return await self._take(min(size, left)) if min(size, left) > 0 else memoryview(b"")

    async def _take(self, wanted: int) -> memoryview:
        while not self._piece:
            if self._pieces is None:
                self._pieces = self._download(wanted)
            piece = await anext(self._pieces, None)
            if piece is None:
                self._pieces = None  # one window is read to its end; reading goes on, so the next may be larger
                self._window *= _WINDOW_GROWTH
            else:
                self._piece = memoryview(piece)
        part, self._piece = self._piece[:wanted], self._piece[wanted:]
        self._position += len(part)
        return part

    def _download(self, wanted: int) -> AsyncGenerator[bytes, None]:
        stop = min(self.size, self._position + max(wanted, self._window))
        return Download(self._transport, self._pinned, self._position, stop).chunks()

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the start, the position (SEEK_CUR) or the end (SEEK_END); returns the position."""
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        if base + offset < 0:
            raise ValueError(f"cannot seek to the negative position {base + offset}")
        step = base + offset - self._position
        if 0 <= step <= len(self._piece):
            self._piece = self._piece[step:]
        elif step:
            await self._drop()
            self._window = limits.CLIENT_BLOCK_BYTES
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    async def _drop(self) -> None:
        pieces, self._pieces, self._piece = self._pieces, None, memoryview(b"")
        if pieces is not None:
            await pieces.aclose()

    async def close(self) -> None:
        """Drop the connection, if one is in use."""
        self.closed = True
        await self._drop()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = b""
        while block := await self.read(64 * 1024):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _Pipe:
    """Hands pieces from a writer to its upload. Bounded: ``put`` waits while the upload is behind."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._changed = asyncio.Condition()
        self._ended = False
        self.stopped = False

    async def put(self, piece: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.stopped or len(self._pieces) < 4)
            if not self.stopped:
                self._pieces.append(piece)
                self._changed.notify_all()

    async def end(self) -> None:
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def stop(self) -> None:
        """The upload is over, whichever way: nobody will read the rest."""
        async with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def __aiter__(self) -> _Pipe:
        return self

    async def __anext__(self) -> bytes:
        async with self._changed:
            await self._changed.wait_for(lambda: self._pieces or self._ended)
            if not self._pieces:
                raise StopAsyncIteration
            piece = self._pieces.popleft()
            self._changed.notify_all()
            return piece


class AsyncWriter:
    """A file opened for writing bytes. ``close`` commits; then ``entry`` is what became visible.

    Up to 1 MiB is kept and sent at ``close`` (so it can be retried); more is streamed while it is written.
    """

    def __init__(self, upload: Callable[[Body], Coroutine[Any, Any, Entry]]) -> None:
        self._upload = upload
        self._head = bytearray()
        self._pipe = _Pipe()
        self._task: asyncio.Task[Entry] | None = None
        self._position = 0
        self.closed = False
        self.entry: Entry | None = None

    async def write(self, data: Bytes) -> int:
        """Take all of ``data``; returns its length. Raises the upload's error as soon as it has failed."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        view = memoryview(data).cast("B")
        self._position += len(view)
        if self._task is None and len(self._head) + len(view) <= limits.BUFFERED_BODY_BYTES_MAX:
            self._head += view
            return len(view)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            await self._put(bytes(self._head))
            self._head.clear()
        for start in range(0, len(view), limits.CLIENT_BLOCK_BYTES):
            await self._put(bytes(view[start : start + limits.CLIENT_BLOCK_BYTES]))
        return len(view)

    async def _run(self) -> Entry:
        try:
            return await self._upload(StreamBody(aiter(self._pipe)))
        finally:
            await self._pipe.stop()

    async def _put(self, piece: bytes) -> None:
        if piece:
            await self._pipe.put(piece)
        if self._pipe.stopped and self._task is not None:
            self.closed = True
            await self._task  # raises what ended the upload
            raise RuntimeError("the server answered before the file was complete")

    def tell(self) -> int:
        """Bytes written so far."""
        return self._position

    async def close(self) -> None:
        """Commit what was written. Raises what ``write`` of the client raises; closing twice does nothing."""
        if self.closed:
            return
        self.closed = True
        if self._task is None:
            self.entry = await self._upload(BytesBody(self._head))
            return
        try:
            await self._pipe.end()
            self.entry = await self._task
        except BaseException:
            self._task.cancel()
            raise

    async def abort(self) -> None:
        """Give up: nothing of what was written becomes visible."""
        self.closed = True
        self._head.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            await self.close()
        else:
            await self.abort()


class AsyncTextReader:
    """A file opened for reading text, with universal newlines: ``read``, and lines by ``async for``."""

    def __init__(self, reader: AsyncReader, encoding: str, errors: str) -> None:
        self._reader = reader
        decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)

    async def read(self) -> str:
        """All that is left."""
        return self._decoder.decode(await self._reader.read(), final=True)

    async def __aiter__(self) -> AsyncIterator[str]:
        rest = ""
        while block := await self._reader.read(64 * 1024):
            *lines, rest = (rest + self._decoder.decode(block)).split("\n")
            for line in lines:
                yield line + "\n"
        *lines, rest = (rest + self._decoder.decode(b"", final=True)).split("\n")
        for line in lines:
            yield line + "\n"
        if rest:
            yield rest

    async def close(self) -> None:
        await self._reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class AsyncTextWriter:
    """A file opened for writing text. Newlines are written as they are."""

    def __init__(self, writer: AsyncWriter, encoding: str, errors: str) -> None:
        self._writer = writer
        self._encoder = codecs.getincrementalencoder(encoding)(errors)

    async def write(self, text: str) -> int:
        """Take all of ``text``; returns its length in characters."""
        await self._writer.write(self._encoder.encode(text))
        return len(text)

    @property
    def entry(self) -> Entry | None:
        """What became visible, once closed."""
        return self._writer.entry

    async def close(self) -> None:
        """Commit."""
        if not self._writer.closed:
            await self._writer.write(self._encoder.encode("", final=True))
        await self._writer.close()

    async def abort(self) -> None:
        """Give up: nothing becomes visible."""
        await self._writer.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            await self.close()
        else:
            await self.abort()


class _File(Protocol):
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


F = TypeVar("F", bound=_File)


class Opening(Generic[F]):
    """What ``AsyncClient.open`` returns: ``async with fs.open(...) as f`` or ``f = await fs.open(...)``."""

    def __init__(self, opening: Callable[[], Awaitable[F]]) -> None:
        self._opening = opening
        self._file: F | None = None

    def __await__(self) -> Generator[Any, None, F]:
        return self._opening().__await__()

    async def __aenter__(self) -> F:
        self._file = await self._opening()
        return self._file

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            await self._file.__aexit__(exc_type, exc, traceback)


def check_mode(mode: str) -> str:
    """ "r", "w" or "x". Raises ValueError for what a replicated file cannot do."""
    kind, rest = mode[:1], mode[1:]
    if kind not in ("r", "w", "x") or rest not in ("", "b", "t"):
        raise ValueError(f"mode must be one of rb wb xb r w x, not {mode!r}: files are read, or written as a whole")
    return kind
