"""More connections than a server can have."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from aiohttp import web

from raftfs.http import Call, HttpMetrics, HttpServer

from .raw import raw, read_answer, request


class _App:
    def __init__(self) -> None:
        self.metrics, self.deadline_s = HttpMetrics(), 60.0

    async def respond(self, call: Call) -> web.StreamResponse:
        return web.Response(text="here")


async def test_idle_connections_leave_room_for_the_rest_of_the_process() -> None:
    async with HttpServer(_App(), "127.0.0.1:0", grace_s=0.1, connections_max=3) as server:
        parts = urlsplit(server.url)
        idle = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(3)]
        for _ in range(5):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            answer = await read_answer(reader)
            assert answer is not None
            assert (answer.status, answer.problem["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert await reader.read() == b""
            writer.close()
        reader, writer = idle[0]  # those that are open go on
        writer.write(request("GET", "/livez"))
        first = await read_answer(reader)
        assert first is not None
        assert first.status == 200
        for _, writer in idle:
            writer.close()
        answer = await raw(server.url, request("GET", "/livez"))
        while answer is None or answer.status == 503:
            await asyncio.sleep(0.005)
            answer = await raw(server.url, request("GET", "/livez"))
        assert answer.status == 200
