"""A server that plays a faulty network: each request gets the next step of a script, and all are remembered."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web

ENTRY = {
    "path": "/f",
    "name": "f",
    "type": "file",
    "size": 1,
    "revision": 7,
    "created_ms": 1,
    "modified_ms": 2,
    "content_type": None,
    "metadata": {},
}


@dataclass
class Seen:
    """One request as it came. ``body`` is what arrived, ``whole`` whether that was all of it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = False

    @property
    def key(self) -> str:
        return self.headers["Idempotency-Key"]


SEEN = web.RequestKey("seen", Seen)
Step = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class ScriptedServer:
    """Steps are used up one for each request; the last one stays."""

    steps: list[Step] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    _runner: web.ServerRunner | None = None

    def play(self, *steps: Step) -> Self:
        self.steps = list(steps)
        self.seen.clear()
        return self

    async def start(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Seen(request.method, request.raw_path, dict(request.headers))
        self.seen.append(seen)
        request[SEEN] = seen
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return await step(request)


async def body_of(request: web.BaseRequest) -> Seen:
    """Read the body into what was seen of the request. A body that breaks off ends the request."""
    seen: Seen = request[SEEN]
    async for piece in request.content.iter_any():
        seen.body += piece
    seen.whole = True
    return seen


def entry(status: int = 200, **fields: object) -> Step:
    async def step(request: web.BaseRequest) -> web.StreamResponse:
        await body_of(request)
        return web.json_response({**ENTRY, **fields}, status=status, headers={"Raftfs-Revision": "7"})

    return step


def problem(status: int, code: str, outcome: str | None = None, retry_after: str | None = "0") -> Step:
    async def step(request: web.BaseRequest) -> web.StreamResponse:
        await body_of(request)
        found = {"type": "about:blank", "title": code, "status": status, "detail": f"detail of {code}", "code": code}
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        content = json.dumps(found | ({} if outcome is None else {"outcome": outcome})).encode()
        return web.Response(status=status, body=content, headers=headers, content_type="application/problem+json")

    return step


def raw(data: bytes) -> Step:
    """Bytes that need not be HTTP, after the request was read; then the connection ends."""

    async def step(request: web.BaseRequest) -> web.StreamResponse:
        await body_of(request)
        assert request.transport is not None
        request.transport.write(data)
        request.transport.close()
        return web.Response()

    return step


async def drop(request: web.BaseRequest) -> web.StreamResponse:
    """Take the whole request, then break the connection without an answer."""
    await body_of(request)
    return await drop_early(request)


async def drop_early(request: web.BaseRequest) -> web.StreamResponse:
    """Break the connection before the body is read."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def silence(request: web.BaseRequest) -> web.StreamResponse:
    """Take the request and never answer, like a server that is frozen."""
    await body_of(request)
    await asyncio.Event().wait()
    return web.Response()


def content(data: bytes, *, etag: str = '"r5"', revision: int = 9, cut: int | None = None, **extra: str) -> Step:
    """A file, ranges included. ``cut``: break the connection after this many bytes of the body."""

    async def step(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"ETag": etag, "Raftfs-Revision": str(revision), "Content-Type": "application/octet-stream", **extra}
        start, stop, status = 0, len(data), 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
            start, stop, status = int(match[1]), min(len(data), int(match[2] or len(data)) + 1), 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        headers["Content-Length"] = str(stop - start)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if cut is None:
            await response.write(data[start:stop])
            return response
        await response.write(data[start : min(stop, start + cut)])
        assert request.transport is not None
        request.transport.close()  # what was written still arrives; abort would take it back
        return response

    return step
