"""Reading a version of a file, through broken connections, without ever mixing two versions.

The first answer names the file's ETag and the namespace's revision. Whatever is asked for after that (the rest of a
body that broke off, the next range of an open file) is asked for at this revision, and refused if its ETag differs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import unquote

import aiohttp

from raftfs import limits
from raftfs.client import answers
from raftfs.client.transport import Request, Transport
from raftfs.errors import BadAnswer, Conflict, DeadlineExceeded, IsADirectory, RangeNotSatisfiable, Unavailable

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_WHOLE = frozenset({200})
_PART = frozenset({206})


@dataclass(frozen=True, slots=True)
class Pinned:
    """One version: ``size`` in bytes, its ``etag``, and the ``revision`` of the namespace at which it is read."""

    target: str
    query: Mapping[str, str]
    size: int
    etag: str
    revision: int

    def check(self, headers: Mapping[str, str], url: str) -> None:
        """Raises Conflict if an answer shows another version."""
        etag = answers.etag_of(headers, url)
        if etag != self.etag:
            raise Conflict(f"the file changed while it was read: {self.etag} became {etag}")


class Download:
    """Bytes ``start`` to ``stop`` of a pinned version. Iterate once; ``aclose`` when you stop before the end."""

    def __init__(
        self,
        transport: Transport,
        pinned: Pinned,
        start: int,
        stop: int,
        response: aiohttp.ClientResponse | None = None,
    ) -> None:
        self._transport = transport
        self._response = response
        self.pinned = pinned
        self.start = start
        self.stop = stop

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Pieces in order. Raises Unavailable after too many resumes without a byte, and what requests raise."""
        position = self.start
        fruitless = 0
        try:
            while position < self.stop:
                piece, why = await self._piece(position)
                if not piece:
                    fruitless += 1
                    await self._pause(fruitless, why)
                    continue
                fruitless = 0
                position += len(piece)
                if position > self.stop:
                    raise BadAnswer(f"{self.pinned.target} brought more bytes than its headers said")
                yield piece
        finally:
            await self.aclose()

    async def _piece(self, position: int) -> tuple[bytes, str]:
        """The next bytes, or nothing and the reason, after which the next call resumes at ``position``."""
        if self._response is None:
            self._response = await self._resume(position)
        try:
            async with asyncio.timeout(self._transport.options.attempt_s):
                piece = await self._response.content.readany()
            why = "the body ended early"
        except TimeoutError:
            piece, why = b"", "no bytes came in time"
        except (aiohttp.ClientError, OSError) as error:
            piece, why = b"", str(error)
        if not piece:
            await self.aclose()
        return piece, why

    @staticmethod
    async def _pause(fruitless: int, why: str) -> None:
        if fruitless > limits.CLIENT_RESUMES_WITHOUT_PROGRESS_MAX:
            raise Unavailable(f"the download broke off {fruitless} times without a new byte: {why}")
        if fruitless > 1:
            delay_s = limits.CLIENT_RETRY_DELAY_S_MIN * 2.0**fruitless
            await asyncio.sleep(min(delay_s, limits.CLIENT_RETRY_DELAY_S_MAX))

    async def _resume(self, position: int) -> aiohttp.ClientResponse:
        pinned = self.pinned

        async def check(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
            url = str(response.url)
            pinned.check(response.headers, url)
            if _content_range(response.headers, url) != (position, self.stop, pinned.size):
                raise BadAnswer(f"{url} answered with another range than the one asked for")
            return response

        request = Request(
            "GET",
            pinned.target,
            _PART,
            query={**pinned.query, "revision": str(pinned.revision)},
            headers={"Range": f"bytes={position}-{self.stop - 1}"},
        )
        return await self._transport.send(request, check)

    async def aclose(self) -> None:
        """Give the connection back if everything was read, drop it otherwise."""
        response, self._response = self._response, None
        if response is not None:
            if response.content.is_eof() and response.content.exception() is None:
                response.release()
            else:
                response.close()


async def open_download(transport: Transport, request: Request, start: int, stop: int | None) -> Download:
    """Send a GET and pin what it answers. ``start`` and ``stop`` as in slicing; ``stop`` may lie behind the end."""
    whole = start == 0 and stop is None
    if not whole:
        value = f"bytes={start}-{'' if stop is None else stop - 1}"
        request = replace(request, expect=_PART, headers={**request.headers, "Range": value})
    else:
        request = replace(request, expect=_WHOLE)

    async def pin(response: aiohttp.ClientResponse) -> Download:
        url = str(response.url)
        if whole:
            first, end, size = 0, _length(response.headers, url), _length(response.headers, url)
        else:
            first, end, size = _content_range(response.headers, url)
            if first != start or end != (size if stop is None else min(stop, size)):
                raise BadAnswer(f"{url} answered with another range than the one asked for")
        revision = answers.revision_of(response.headers, url)
        pinned = Pinned(request.target, request.query, size, answers.etag_of(response.headers, url), revision)
        return Download(transport, pinned, first, end, response)

    return await transport.send(request, pin)


def _length(headers: Mapping[str, str], url: str) -> int:
    value = headers.get("Content-Length", "")
    if not value.isascii() or not value.isdecimal():
        raise BadAnswer(f"{url} answered without a valid Content-Length ({value!r})")
    return int(value)


def pin_head(target: str, query: Mapping[str, str], headers: Mapping[str, str], url: str) -> Pinned:
    """What the answer to a HEAD pins. Raises IsADirectory."""
    if headers.get("Raftfs-Type") == "directory":
        raise IsADirectory(f"{unquote(target.removeprefix('/v1/files'))} is a directory")
    size = _length(headers, url)
    return Pinned(target, query, size, answers.etag_of(headers, url), answers.revision_of(headers, url))


def _content_range(headers: Mapping[str, str], url: str) -> tuple[int, int, int]:
    """(start, stop, size of the file) of a 206."""
    value = headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        raise BadAnswer(f"{url} answered 206 without a valid Content-Range ({value!r})")
    first, last, size = (int(number) for number in match.groups())
    return first, last + 1, size


@asynccontextmanager
async def deadline(timeout_s: float | None) -> AsyncIterator[None]:
    """Bounds a whole call, its body included. Raises DeadlineExceeded."""
    try:
        async with asyncio.timeout(timeout_s) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded(f"the call did not end within {timeout_s:g} s") from None


def check_slice(start: int, stop: int | None) -> None:
    """Raises RangeNotSatisfiable for negative positions and for a stop before the start."""
    if start < 0 or (stop is not None and stop < start):
        raise RangeNotSatisfiable(f"start {start} and stop {stop} are not a range of bytes (0 <= start <= stop)")
