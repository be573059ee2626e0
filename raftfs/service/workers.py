"""Where blocking work goes: bounded threads, a thread for each reader, tracked background tasks, byte budgets."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, ParamSpec, TypeVar

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Threads for hashing and for writing and reading chunks."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function. If the caller is cancelled, a call that has begun runs to its end unheeded."""
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def close(self) -> None:
        """Wait for the calls that have begun; drop the others."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)


class ReaderThread(Generic[R]):
    """One database reader in a thread of its own, for reads that take longer than the loop can wait."""

    def __init__(self, open_reader: Callable[[], R], close_reader: Callable[[R], None], name: str) -> None:
        self._open, self._close = open_reader, close_reader
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._reader: R | None = None

    async def call(self, function: Callable[[R], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, function)

    def _call(self, function: Callable[[R], T]) -> T:
        if self._reader is None:
            self._reader = self._open()
        return function(self._reader)

    def _end(self) -> None:
        if self._reader is not None:
            self._close(self._reader)

    async def close(self) -> None:
        """Wait for the running call and close the reader."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._end)
        await asyncio.to_thread(self._pool.shutdown)


class Background:
    """Tasks that outlive the call that started them, and end with the service."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("%s ended: %s", task.get_name(), error)

    async def close(self) -> None:
        """Cancel what is running and wait for it."""
        while self._tasks:
            running = list(self._tasks)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


class Budget:
    """Bytes (or anything countable) of which at most ``limit`` are out at once; first come, first served.

    Asking for more than the limit gives the whole of it, so that nothing waits for ever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.used = 0
        self.most = 0

    @asynccontextmanager
    async def take(self, amount: int) -> AsyncIterator[None]:
        await self.acquire(amount)
        try:
            yield
        finally:
            self.release(amount)

    async def acquire(self, amount: int) -> None:
        if self.try_acquire(amount):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(amount)  # it was our turn, and we are gone
            else:
                with suppress(ValueError):  # a release that came after the cancellation has dropped it already
                    self._waiting.remove((amount, turn))
                self._wake()
            raise

    def try_acquire(self, amount: int) -> bool:
        """Take it now if nobody waits and there is enough."""
        amount = min(amount, self._limit)
        if self._waiting or self.used + amount > self._limit:
            return False
        self._add(amount)
        return True

    def release(self, amount: int) -> None:
        self.used -= min(amount, self._limit)
        self._wake()

    def _add(self, amount: int) -> None:
        self.used += amount
        self.most = max(self.most, self.used)

    def _wake(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            amount = min(amount, self._limit)
            if self.used + amount > self._limit:
                return
            self._waiting.popleft()
            if not turn.done():
                self._add(amount)
                turn.set_result(None)
