"""HTTP by hand, for requests that no client library would send."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.headers, self.body)
        return dict(json.loads(self.body))


async def raw(url: str, data: bytes, *, close: bool = False) -> Answer | None:
    """Send bytes as they are (then close the sending side, if told) and read one answer; None if there was none."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        try:
            writer.write(data)
            await writer.drain()
            if close:
                writer.write_eof()
        except ConnectionError:
            pass  # refused before all of it was sent; the answer may be there all the same
        return await read_answer(reader, head=data.startswith(b"HEAD "))
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        status = int(lines[0].split()[1])
        if status == 100:
            return await read_answer(reader)
        size = 0 if head else int(headers.get("content-length", "0"))
        return Answer(status, headers, await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def request(method: str, target: str, body: bytes | None = None, **headers: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: test", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")
