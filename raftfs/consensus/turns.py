"""When a member looks at everything: at the end of the loop's iteration in which something happened, and when something
is due by itself. A node with nothing to do sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_WAIT_S_MIN: Final = 0.001  # so that a deadline which a tick does not clear costs little


class Turns:
    """``turn`` is called on the running loop, once for all that asked for it in one iteration. ``clock``: seconds that
    go as fast as the loop's."""

    def __init__(self, turn: Callable[[], None], clock: Callable[[], float]) -> None:
        self._turn, self._clock = turn, clock
        self._asked = False
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = float("inf")

    def ask(self) -> None:
        """Something happened."""
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._take)

    def due(self, due_s: float) -> None:
        """A turn has to come by then. One that comes sooner asks again, so a later deadline may wait for it."""
        now_s = self._clock()
        due_s = max(due_s, now_s + _WAIT_S_MIN)
        if self._timer is not None:
            if due_s >= self._timer_due_s:
                return
            self._timer.cancel()
        if not self._stopped:
            self._timer_due_s = due_s
            self._timer = asyncio.get_running_loop().call_later(due_s - now_s, self._time_passed)

    def stop(self) -> None:
        """No turn comes any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _time_passed(self) -> None:
        self._timer = None
        self._take()

    def _take(self) -> None:
        self._asked = False
        if not self._stopped:
            self._turn()
