"""The body of a request: read once from the client, given out as often as it can be.

Up to BUFFERED_BODY_BYTES_MAX are kept, so that a request can be tried again at another node; beyond that the body is
a stream that flows through once, with backpressure from whoever consumes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

from aiohttp import web

from raftfs.errors import IncompleteBody, TooLarge
from raftfs.limits import BODY_IDLE_S_MAX, BUFFERED_BODIES_BYTES_MAX, BUFFERED_BODY_BYTES_MAX, INLINE_BYTES_MAX

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Body:
    """``size`` is the announced length in bytes, None for a chunked body. Iterating gives all bytes from the first;
    a second time only while :attr:`replayable`. Reading raises IncompleteBody when the client stops or breaks off."""

    kept_by_all: ClassVar[int] = 0
    """Bytes that all requests of this process keep: what is asked to bound them is the process' memory."""

    __slots__ = ("_awaited", "_ended", "_kept", "_kept_bytes", "_lock", "_needed", "_request", "broken", "given_bytes",
                 "read_bytes", "replayable", "size", "waiting")  # fmt: skip

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        length = request.headers.get("Content-Length")
        if length is not None:
            self.size: int | None = int(length)
        else:
            self.size = None if request.body_exists else 0
        self._awaited = "Expect" in request.headers  # the client waits for our word before it sends
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._needed = False  # all of it is wanted at once, so nothing may flow past
        self._ended = self.size == 0
        self._lock: asyncio.Lock | None = None
        self.replayable = True
        self.read_bytes = 0  # taken from the client so far
        self.given_bytes = 0  # given to consumers so far, over all attempts: moves while there is progress
        self.waiting = False  # a consumer waits for the client just now
        self.broken: IncompleteBody | None = None

    @property
    def complete(self) -> bool:
        """Whether every byte has been read from the client: a consumer may then have all of it."""
        return self._ended

    async def buffer(self) -> bytes | None:
        """Read up to BUFFERED_BODY_BYTES_MAX, less when too much is kept for others. All of the body if that was all of
        it, otherwise None (it is a stream, of which what was read is kept)."""
        if self.size is not None and self.size > BUFFERED_BODY_BYTES_MAX:
            return None
        while not self._ended and self._has_room():
            await self._pull()
        if not self._ended:
            return None
        if len(self._kept) > 1:
            self._kept = [b"".join(self._kept)]
        return self._kept[0] if self._kept else b""

    async def read_all(self, bytes_max: int) -> bytes:
        """The whole body, at most ``bytes_max`` (TooLarge)."""
        if self.size is not None and self.size > bytes_max:
            raise TooLarge(f"the body is {self.size} bytes long, at most {bytes_max} are allowed here")
        self._needed = True
        while not self._ended and self.read_bytes <= bytes_max:
            await self._pull()
        if not self._ended or self.read_bytes > bytes_max:
            raise TooLarge(f"the body is over {bytes_max} bytes long")
        return b"".join(self._kept)

    def _has_room(self) -> bool:
        """Whether more may be kept. A little always may: small writes are the ones most worth repeating."""
        if self._kept_bytes > BUFFERED_BODY_BYTES_MAX:
            return False
        return self._kept_bytes < INLINE_BYTES_MAX or Body.kept_by_all < BUFFERED_BODIES_BYTES_MAX

    def release(self) -> None:
        """The request has ended: nothing is kept any more."""
        Body.kept_by_all -= self._kept_bytes
        self._kept_bytes, self._kept, self.replayable = 0, [], False

    async def _pull(self) -> bytes:
        """Read the next piece from the client; empty at the end."""
        if self._awaited:
            self._awaited = False
            await self._request.writer.write(_CONTINUE)
            # aiohttp takes any output for a response that has begun; this was none.
            self._request.writer.output_size = 0
        self.waiting = True
        try:
            async with asyncio.timeout(BODY_IDLE_S_MAX):
                piece = await self._request.content.readany()
        except TimeoutError:
            self.broken = IncompleteBody(f"the body brought no byte for {BODY_IDLE_S_MAX:g} s")
            raise self.broken from None
        except (OSError, web.RequestPayloadError, IncompleteBody) as error:
            self.broken = IncompleteBody(f"the body ended after {self.read_bytes} bytes: {error or 'connection lost'}")
            raise self.broken from None
        finally:
            self.waiting = False
        self._take(piece)
        return piece

    def _take(self, piece: bytes) -> None:
        if not piece:
            self._ended = True
            return
        self.read_bytes += len(piece)
        if self.size is not None and self.read_bytes >= self.size:
            self._ended = True
        if self.replayable:
            if self._needed or self._has_room():
                self._kept.append(piece)
                self._kept_bytes += len(piece)
                Body.kept_by_all += len(piece)
            else:
                # Too much to keep: from here on it flows past. What an iterator still holds, it holds itself.
                self.replayable = False
                self._kept = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self.replayable:
            raise IncompleteBody("the body has been sent already and was too long to be kept")
        if self._lock is None:
            self._lock = asyncio.Lock()
        kept = self._kept
        position = 0
        while True:
            if position < len(kept):
                piece = kept[position]
                position += 1
            else:
                # One reader at a time: an attempt that is being cancelled may not have let go yet.
                async with self._lock:
                    if position < len(kept):
                        continue
                    if self._ended:
                        return
                    piece = await self._pull()
                    if not piece:
                        return
                    if self.replayable:
                        position += 1
            self.given_bytes += len(piece)
            yield piece
