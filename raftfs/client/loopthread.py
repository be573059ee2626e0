"""An event loop on a thread of its own, on which the blocking client runs the asynchronous one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for any number of other threads. The thread is a daemon: it never keeps a program alive."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # Reentrant, because the garbage collector may post while this very thread submits.
        self._lock = threading.RLock()
        self._stopped = False
        self._thread = threading.Thread(target=self._main, name="raftfs-client", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        waiting = asyncio.all_tasks(self._loop)
        for task in waiting:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return the result. An interrupt of the waiting thread cancels the work.

        Raises RuntimeError when the thread was stopped, before or meanwhile, and when called from the loop's own
        thread (from a callback), where it would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback of a raftfs client cannot call the same client: it would wait for itself")
        future = self._submit(work)
        if future is None:
            raise RuntimeError("this raftfs client is closed; connect again")
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("this raftfs client was closed during the call; what became of it is unknown") from None
        except BaseException:
            future.cancel()
            raise

    def post(self, work: Coroutine[Any, Any, object]) -> None:
        """Run without waiting, from any thread. Does nothing when the thread was stopped, which ended all work."""
        self._submit(work)

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T] | None:
        # Under the lock, so that whatever is submitted stands before the stop and is cancelled, not left waiting.
        with self._lock:
            if not self._stopped and self._thread.is_alive():
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        return None

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Cancel what still runs, end the thread and wait for it."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
