"""Who leads, as a member sees it, since when nobody does, and the wait for somebody who will."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

log = logging.getLogger(__name__)

LEADERLESS_S_MAX: Final = 3.0  # without a leader for this long, a read is refused at once instead of at its deadline
_AGAIN_S: Final = 0.01


class LeaderWatch:
    """``note`` tells it; ``seen`` is the leader that is in touch, None if there is none. ``clock``: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lost_s = clock()
        self._known = asyncio.Event()
        self.seen: str | None = None

    def note(self, leader: str | None, term: int) -> None:
        if leader == self.seen:
            return
        self.seen = leader
        if leader is None:
            self._lost_s = self._clock()
            self._known.clear()
        else:
            self._known.set()
        log.info("term %d: %s", term, f"{leader} leads" if leader else "no leader")

    def leaderless_s(self) -> float:
        """Seconds since a leader was known here that is in touch; 0 while one is."""
        return 0.0 if self.seen is not None else self._clock() - self._lost_s

    async def wait(self) -> None:
        """Until it makes sense to ask the leader again, or to give up."""
        if self.seen is not None:
            return await asyncio.sleep(_AGAIN_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(LEADERLESS_S_MAX - self.leaderless_s(), 0) + _AGAIN_S):
                await self._known.wait()
        return None
