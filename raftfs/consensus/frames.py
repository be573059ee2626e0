"""Frames on a stream: four bytes of length (big-endian), then that many bytes. Nothing is read beyond a limit."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Final

_LENGTH: Final = struct.Struct(">I")

Buffers = bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview]


class Connection(asyncio.Protocol):
    """One connection of the peer port. ``on_frame`` gets each frame's bytes; ``on_lost`` is called once at its end.

    The first frame may have ``frame_bytes_max`` bytes; whoever trusts the other side more raises the limit. A frame
    over it, or an error raised by ``on_frame``, closes the connection.
    """

    def __init__(
        self,
        *,
        frame_bytes_max: int,
        on_frame: Callable[[Connection, bytes], None],
        on_lost: Callable[[Connection], None],
        on_made: Callable[[Connection], None] | None = None,
    ) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.on_frame = on_frame
        self.on_lost = on_lost
        self._on_made = on_made
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = False
        self.error: Exception | None = None
        """why the connection was lost, if the network said so"""

    # --- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH.size and not self.closed:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > self.frame_bytes_max:
                self.close()
                break
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                frame = bytes(view[start + _LENGTH.size : end])
            start = end
            try:
                self.on_frame(self, frame)
            except BaseException:
                self.close()
                raise
        del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.error = exc
        self._writable.set()
        self.on_lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- ours ----------------------------------------------------------------------------------------------------

    def send(self, *parts: bytes | bytearray | memoryview) -> None:
        """Queue one frame made of ``parts``; never blocks. Nothing happens on a closed connection."""
        if self.closed or self._transport is None:
            return
        self._transport.write(_LENGTH.pack(sum(len(part) for part in parts)) + (parts[0] if len(parts) == 1 else b""))
        if len(parts) > 1:
            for part in parts:
                self._transport.write(part)

    async def writable(self) -> None:
        """Wait until what is queued is small again (or the connection is gone)."""
        await self._writable.wait()

    def extra(self, name: str) -> object:
        """As asyncio's ``get_extra_info``."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    def pause_reading(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is queued, then close."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
