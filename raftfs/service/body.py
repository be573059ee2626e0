"""A request's body, read into buffers of our size, with its length, digest and pace checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from raftfs import limits
from raftfs.errors import IncompleteBody, InvalidRequest, TooLarge


class Body:
    """``size`` is the announced length, None if unknown. ``total`` counts the bytes that were read."""

    def __init__(self, pieces: AsyncIterator[bytes], size: int | None) -> None:
        self._pieces, self.size = pieces, size
        self._rest = memoryview(b"")
        self.total = 0
        self.ended = False

    def room(self, most: int) -> int:
        """Size of a buffer for the next part: at most ``most``, less if the body is known to end earlier."""
        return most if self.size is None else min(most, max(self.size - self.total, 0))

    async def fill(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes only at the body's end, and then ``ended`` is set.

        Raises IncompleteBody if it ends before the announced length or stalls, InvalidRequest if it goes on after it,
        TooLarge over the largest file.
        """
        filled = 0
        while filled < len(buffer):
            if not self._rest and not await self._next():
                break
            part = self._rest[: len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            self._rest = self._rest[len(part) :]
            filled += len(part)
        self._count(filled)
        return filled

    async def finish(self) -> None:
        """Check that nothing follows the announced length."""
        if not self.ended and (self._rest or await self._next()):
            self._count(len(self._rest))

    async def _next(self) -> bool:
        """Get the next piece that is not empty; False at the end."""
        while not self.ended:
            try:
                async with asyncio.timeout(limits.BODY_IDLE_S_MAX):
                    self._rest = memoryview(await anext(self._pieces))
            except StopAsyncIteration:
                self.ended = True
            except TimeoutError:
                raise IncompleteBody(
                    f"no byte of the body came for {limits.BODY_IDLE_S_MAX:g} s, after {self.total}",
                    outcome="not_applied",
                ) from None
            if self._rest:
                return True
        return False

    def _count(self, amount: int) -> None:
        self.total += amount
        if self.total > limits.FILE_BYTES_MAX:
            raise TooLarge(f"a file has at most {limits.FILE_BYTES_MAX} bytes", outcome="not_applied")
        if self.size is not None and self.total > self.size:
            raise InvalidRequest(f"the body goes on after its announced {self.size} bytes", outcome="not_applied")
        if self.ended and self.size is not None and self.total < self.size:
            raise IncompleteBody(
                f"the body ended after {self.total} of its announced {self.size} bytes", outcome="not_applied"
            )
