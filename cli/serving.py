"""One server in the foreground: its start, the signals that reach it, what systemd is told, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from raftfs import limits
from raftfs.errors import RaftfsError
from raftfs_cli.systemd import ServiceManager

log = logging.getLogger("raftfs")

_STOP_S_MAX: Final = 10.0


class Runnable(Protocol):
    """A node or a frontend: it serves while it is entered."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def describe(self) -> str:
        """How it does, in one line for people."""

    def reload(self) -> None:
        """Look at its files again, on SIGHUP. If they are no good, it keeps what it has and logs it."""


Server = TypeVar("Server", bound=Runnable)


def serve(server: Server, end: Callable[[Server], Awaitable[object]], exit_with_stdin: bool) -> None:
    """Run a server until ``end`` (its own end) or a signal."""
    _allow_many_files()
    if exit_with_stdin:
        threading.Thread(target=_stop_at_end_of_stdin, name="stdin-watch", daemon=True).start()
    try:
        asyncio.run(_run_until_told(server, end))
    except (RaftfsError, OSError):
        raise
    except Exception:
        log.exception("the server failed")  # a log, unlike a terminal, wants it all
        raise


def _allow_many_files() -> None:
    """Descriptors are what many connections use up first, and the soft limit is often far below the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * limits.HTTP_CONNECTIONS_MAX
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run_until_told(server: Server, end: Callable[[Server], Awaitable[object]]) -> None:
    """Start, wait for the server's own end or a signal, stop in order. A signal works during the start, too."""
    me = asyncio.current_task()
    assert me is not None
    told = asyncio.Event()
    with contextlib.closing(ServiceManager()) as manager:

        def stop(number: signal.Signals) -> None:
            if told.is_set():  # the second signal does not wait for the order
                log.warning("%s again: ending at once", number.name)
                os._exit(128 + number)
            log.info("%s: stopping", number.name)
            told.set()
            me.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, log.info, "SIGHUP: it does not serve yet")
        try:
            async with server as running:
                await _inform(manager, running, end)
        except asyncio.CancelledError:
            if not told.is_set():
                raise


async def _inform(manager: ServiceManager, running: Server, end: Callable[[Server], Awaitable[object]]) -> None:
    """Wait for the end of a server that serves now, and keep the service manager informed."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, manager, running)
    manager.ready()
    informing = asyncio.create_task(manager.keep_informed(running.describe), name="service-manager")
    try:
        await end(running)
    finally:
        informing.cancel()
        manager.stopping()


def _reload(manager: ServiceManager, running: Runnable) -> None:
    log.info("SIGHUP: looking at the files again")
    with manager.reloading():
        running.reload()


def _stop_at_end_of_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_S_MAX)
    os._exit(1)  # the parent is gone, nobody else would end a server that hangs
