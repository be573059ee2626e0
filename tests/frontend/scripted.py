"""A node that does what a test tells it, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

Script = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request at a scripted node: its head has been read, the rest is the script's."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.decode().split("\r\n")
        self.method, self.target, _ = lines[0].split(" ")
        self.headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        self.reader, self.writer = reader, writer

    async def body(self) -> bytes:
        """All of a body with a Content-Length, asking for it if the sender waits."""
        if self.headers.get("expect"):
            await self.go_on()
        return await self.reader.readexactly(int(self.headers.get("content-length", "0")))

    async def go_on(self) -> None:
        self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self.writer.drain()

    async def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    def cut(self) -> None:
        self.writer.transport.abort()


class ScriptedNode:
    """Listens on loopback; says that ``leads`` (by default itself) leads, and runs ``script`` for everything else."""

    def __init__(self, script: Script, *, port: int = 0) -> None:
        self._script, self._port = script, port
        self.url = ""
        self.leads: str | None = None
        self.term = 1
        self.frozen = False
        self.seen: list[Exchange] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.leads = self.leads or self.url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if self.frozen:
                    await asyncio.Event().wait()
                exchange = Exchange(head, reader, writer)
                if exchange.target == "/v1/cluster/leader":
                    leader = None if self.leads is None else {"id": self.leads, "url": self.leads}
                    said: dict[str, object] = {"leader": leader, "term": self.term, "node": self.url, "members": []}
                    await exchange.answer(200, json.dumps(said).encode())
                else:
                    self.seen.append(exchange)
                    await self._script(exchange)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


async def silence(exchange: Exchange) -> None:
    """Accept everything, answer nothing: what a stopped process looks like."""
    await asyncio.Event().wait()
