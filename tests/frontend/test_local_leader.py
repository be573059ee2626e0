"""A node that becomes the leader in the middle of a write that it was forwarding."""

from __future__ import annotations

import json

import aiohttp
import pytest
from aiohttp import web

from raftfs.errors import Overloaded, RaftfsError, StorageFull, Unavailable
from raftfs.frontend import Directory, Forwarder
from raftfs.frontend.upstream import Upstream
from raftfs.http import Call, HttpMetrics, HttpServer

from .scripted import Exchange, ScriptedNode


class _Here:
    """Leads once the other node has broken off, and then cannot do it."""

    def __init__(self, error: RaftfsError) -> None:
        self.leading = False
        self._error = error

    def leads(self) -> bool:
        return self.leading

    async def run(self) -> web.StreamResponse:
        raise self._error


class _App:
    def __init__(self, forwarder: Forwarder, here: _Here) -> None:
        self.metrics, self.deadline_s = HttpMetrics(), 5.0
        self._forwarder, self._here = forwarder, here

    async def respond(self, call: Call) -> web.StreamResponse:
        return await self._forwarder.write(call, self._here)


@pytest.mark.parametrize(
    ("error", "query"),
    [
        (Overloaded("full", outcome="not_applied"), ""),
        (StorageFull("full", outcome="not_applied"), ""),
        (Unavailable("n3 is away", outcome="not_applied"), "?ack=all"),
    ],
)
async def test_its_own_refusal_does_not_end_the_doubt_about_the_first_try(
    http: aiohttp.ClientSession, error: RaftfsError, query: str
) -> None:
    here = _Here(error)

    async def apply_and_die(exchange: Exchange) -> None:
        await exchange.body()
        here.leading = True
        exchange.cut()

    upstream = Upstream()
    async with ScriptedNode(apply_and_die) as node:
        app = _App(Forwarder(Directory(upstream, [node.url]), upstream), here)
        async with (
            HttpServer(app, "127.0.0.1:0") as server,
            http.put(f"{server.url}/v1/files/a{query}", data=b"x") as answer,
        ):
            problem = json.loads(await answer.read())
    await upstream.close()
    assert len(node.seen) == 1
    assert (problem["code"], problem["outcome"]) == ("unknown_outcome", "unknown")
