"""What requests keep of their bodies, all together."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from raftfs.http import Body, Call, HttpMetrics, HttpServer
from raftfs.limits import BUFFERED_BODIES_BYTES_MAX, INLINE_BYTES_MAX

_SIZE = 1_000_000  # each of these is kept if it is alone
_COUNT = BUFFERED_BODIES_BYTES_MAX // _SIZE + 20


class _App:
    """Takes a body as a forwarder does: kept if it may be, otherwise as it comes."""

    def __init__(self) -> None:
        self.metrics, self.deadline_s = HttpMetrics(), 60.0
        self.calls: list[Call] = []

    async def respond(self, call: Call) -> web.StreamResponse:
        self.calls.append(call)
        kept = await call.body.buffer()
        size = len(kept) if kept is not None else 0
        if kept is None:
            async for piece in call.body:
                size += len(piece)
        return web.Response(text=f"{size} {'kept' if kept is not None else 'streamed'}")


async def _stall(url: str) -> asyncio.StreamWriter:
    """A client that sends all of its body but the last byte."""
    parts = urlsplit(url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"PUT /v1/files/a HTTP/1.1\r\nHost: a\r\nContent-Length: {_SIZE}\r\n\r\n".encode() + bytes(_SIZE - 1))
    await writer.drain()
    return writer


async def test_many_slow_clients_cannot_fill_the_memory(http: aiohttp.ClientSession) -> None:
    app = _App()
    async with HttpServer(app, "127.0.0.1:0", grace_s=0.1) as server:
        writers = [await _stall(server.url) for _ in range(_COUNT)]
        while sum(call.body.read_bytes for call in app.calls) < _COUNT * (_SIZE - 1):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
        assert Body.kept_by_all <= BUFFERED_BODIES_BYTES_MAX + _COUNT * 4 * INLINE_BYTES_MAX
        assert Body.kept_by_all < _COUNT * (_SIZE - 1)
        for size, how in ((1000, "kept"), (_SIZE, "streamed")):
            async with http.put(f"{server.url}/v1/files/b", data=bytes(size)) as answer:
                assert await answer.text() == f"{size} {how}"
        for writer in writers:
            writer.transport.abort()
    assert Body.kept_by_all == 0
