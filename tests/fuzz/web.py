"""Fuzzing over real sockets: a node's HTTP server, a frontend given a node's answers, and a client given a server's."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from raftfs.client import AsyncClient
from raftfs.config import FrontendConfig
from raftfs.errors import RaftfsError
from raftfs.frontend import Frontend
from raftfs.testing.inprocess import InProcessCluster
from tests.api.raw import Answer, read_answer
from tests.client.scripted import ScriptedServer, raw
from tests.consensus.ports import free_address

from .place import Check

ANSWER_S_MAX = 30.0
"""Far beyond every deadline of the product: what takes longer hangs."""

BUG = b"a bug in the server"


async def exchange(url: str, data: bytes) -> bytes:
    """All that comes back for these bytes until the server closes, after our side has ended."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(ANSWER_S_MAX):
                return await reader.read()
        return b""
    finally:
        writer.close()


def check_answer(said: bytes) -> None:
    """Nothing, if the request had no end; or an answer with a well-formed head, and never one that tells of a bug."""
    assert BUG not in said, said[:1000]
    if not said:
        return
    head, end, _ = said.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    assert re.fullmatch(rb"HTTP/1\.[01] [1-5]\d\d [ -~]*", line), line
    assert end, head[:200]
    assert all(re.fullmatch(rb"[!-9;-~]+:[ -~\t\x80-\xff]*", field) for field in fields), head
    if line[9:10] in b"45":
        assert b"content-type: application/problem+json" in head.lower(), head


async def _still_serves(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
    async with asyncio.timeout(ANSWER_S_MAX):
        answer = await read_answer(reader)
    writer.close()
    assert isinstance(answer, Answer), "no answer"
    assert answer.status == 200, answer


@contextmanager
def http(url: str | None = None) -> Iterator[Check]:
    """A node answers everything that is sent to it, never with a 500, and the next one too."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> str:
            cluster = await stack.enter_async_context(InProcessCluster(Path(folder), nodes=1, deadline_s=2.0))
            return cluster.urls[0]

        server = url or runner.run(start())

        async def check(data: bytes) -> None:
            check_answer(await exchange(server, data))
            await _still_serves(server)

        try:
            yield lambda data: runner.run(check(data))
        finally:
            runner.run(stack.aclose())


@contextmanager
def frontend(make: Callable[[FrontendConfig], Any] = Frontend) -> Iterator[Check]:
    """Whatever a node answers, a frontend's client gets an answer that is HTTP."""
    with asyncio.Runner() as runner:
        stack, node = AsyncExitStack(), ScriptedServer()

        async def start() -> str:
            await stack.enter_async_context(node)
            listen = free_address()
            config = FrontendConfig(listen=listen, nodes=[node.url], request_deadline_s=0.3)
            return (await stack.enter_async_context(make(config))).url

        url = runner.run(start())

        async def check(data: bytes) -> None:
            node.play(raw(data))
            for request in (
                b"GET /v1/files/a HTTP/1.1\r\nHost: t\r\n\r\n",
                b"GET /v1/dirs/ HTTP/1.1\r\nHost: t\r\n\r\n",
            ):
                said = await exchange(url, request)
                # A body that breaks off, or an answer that a node made up, goes on as it is; a bug of ours does not.
                assert BUG not in said, said[:500]
                assert not said or said.startswith(b"HTTP/1."), said[:200]
            await _still_serves(url)

        try:
            yield lambda data: runner.run(check(data))
        finally:
            runner.run(stack.aclose())


@contextmanager
def client(make: Callable[..., Any] = AsyncClient) -> Iterator[Check]:
    """Whatever a server answers, a call of the library returns or raises one of our errors."""
    with asyncio.Runner() as runner:
        stack, server = AsyncExitStack(), ScriptedServer()
        runner.run(stack.enter_async_context(server))

        async def check(data: bytes) -> None:
            server.play(raw(data))
            async with make([server.url], deadline_s=0.2, attempt_s=0.2) as fs:
                for call in (fs.stat, fs.read, fs.list_page, fs.remove):
                    with contextlib.suppress(RaftfsError):
                        async with asyncio.timeout(ANSWER_S_MAX):
                            await call("/f")

        try:
            yield lambda data: runner.run(check(data))
        finally:
            runner.run(stack.aclose())


WEB: dict[str, Callable[..., Any]] = {"http": http, "frontend": frontend, "client": client}
