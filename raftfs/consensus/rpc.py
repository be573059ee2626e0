"""Requests and answers on a bulk connection: many at once, in any order, each with a number.

A frame is two bytes of header length, a msgpack header, and the payload as it is: chunks are never packed.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from raftfs import errors
from raftfs.consensus.frames import Connection
from raftfs.decoding import UNDECODABLE

log = logging.getLogger(__name__)

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""``handler(peer id, payload) -> payload``"""

_HEADER: Final = struct.Struct(">H")
_AT_ONCE_MAX: Final = 16  # requests of one connection that are being answered; beyond that it is not read from


class _Ask(msgspec.Struct, frozen=True, array_like=True):
    number: int
    kind: str


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    number: int
    code: str | None = None
    detail: str = ""


class BulkClient:
    """The asking side of one connection."""

    def __init__(self, peer: str, connection: Connection) -> None:
        self._peer = peer
        self._connection = connection
        self._number = 0
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        connection.on_frame = self._frame

    async def request(self, kind: str, parts: list[bytes | bytearray | memoryview], *, timeout_s: float) -> bytes:
        self._number += 1
        number = self._number
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            async with asyncio.timeout(timeout_s):
                await self._connection.writable()
                self._connection.send(*_frame(_Ask(number, kind)), *parts)
                return await future
        except TimeoutError:
            raise errors.Unavailable(f"member {self._peer} did not answer {kind} within {timeout_s:g} s") from None
        finally:
            self._asked.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()  # an answer that came with the time-out is not an unhandled error

    def close(self) -> None:
        for future in self._asked.values():
            if not future.done():
                future.set_exception(errors.Unavailable(f"the connection to member {self._peer} broke"))

    def _frame(self, connection: Connection, raw: bytes) -> None:
        try:
            header, payload = _split(raw)
            answer = msgspec.msgpack.decode(header, type=_Answer)
        except (*UNDECODABLE, ValueError):
            log.warning("closed the bulk connection to %s: not an answer", self._peer)
            connection.abort()
            return
        future = self._asked.get(answer.number)
        if future is None or future.done():
            return
        if answer.code is None:
            future.set_result(payload)
        else:
            future.set_exception(errors.BY_CODE.get(answer.code, errors.RaftfsError)(answer.detail))


class BulkServer:
    """The answering side of all connections."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: dict[Connection, int] = {}

    def frame(self, connection: Connection, peer: str, raw: bytes) -> None:
        """A request came in. Whatever is no request closes the connection."""
        try:
            header, payload = _split(raw)
            ask = msgspec.msgpack.decode(header, type=_Ask)
        except (*UNDECODABLE, ValueError):
            log.warning("closed the bulk connection from %s: not a request", peer)
            connection.abort()
            return
        self._busy[connection] = self._busy.get(connection, 0) + 1
        if self._busy[connection] == _AT_ONCE_MAX:
            connection.pause_reading()
        task = asyncio.create_task(self._answer(connection, peer, ask, payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, connection: Connection, peer: str, ask: _Ask, payload: bytes) -> None:
        try:
            handler = self.handlers.get(ask.kind)
            if handler is None:
                raise errors.InvalidRequest(f"requests of kind {ask.kind!r} are not known here")
            answer, body = _Answer(ask.number), await handler(peer, payload)
        except errors.RaftfsError as error:
            answer, body = _Answer(ask.number, error.code, error.detail), b""
        except Exception:
            log.exception("a request of kind %s from %s failed", ask.kind, peer)
            answer, body = _Answer(ask.number, errors.RaftfsError.code, "internal error, see that node's log"), b""
        finally:
            self._done(connection)
        connection.send(*_frame(answer), body)
        await connection.writable()

    def _done(self, connection: Connection) -> None:
        left = self._busy.pop(connection) - 1
        if left:
            self._busy[connection] = left
        if left == _AT_ONCE_MAX - 1:
            connection.resume_reading()


def _frame(header: _Ask | _Answer) -> tuple[bytes, bytes]:
    packed = msgspec.msgpack.encode(header)
    return _HEADER.pack(len(packed)), packed


def _split(raw: bytes) -> tuple[bytes, bytes]:
    """Header and payload. ValueError if it is too short for its own header length."""
    if len(raw) < _HEADER.size:
        raise ValueError("no header")
    (length,) = _HEADER.unpack_from(raw)
    end = _HEADER.size + length
    if len(raw) < end:
        raise ValueError("short header")
    return raw[_HEADER.size : end], raw[end:]
