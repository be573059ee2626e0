"""Running a frontend: from a configuration to a listening server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from raftfs.config import FrontendConfig
from raftfs.frontend.app import FrontendApp
from raftfs.frontend.directory import Directory
from raftfs.frontend.forward import Forwarder
from raftfs.frontend.upstream import Upstream
from raftfs.http import HttpServer


class Frontend:
    """A frontend in this process: an async context manager that serves while it is entered. ``url`` is where."""

    def __init__(self, config: FrontendConfig) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._directory: Directory
        self.url = ""

    async def __aenter__(self) -> Self:
        """Raises OSError if the address cannot be listened on."""
        async with AsyncExitStack() as stack:
            upstream = Upstream()
            stack.push_async_callback(upstream.close)
            directory = self._directory = Directory(upstream, self._config.nodes)
            stack.push_async_callback(directory.close)
            app = FrontendApp(Forwarder(directory, upstream), deadline_s=self._config.request_deadline_s)
            server = await stack.enter_async_context(HttpServer(app, self._config.listen))
            self.url = server.url
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def describe(self) -> str:
        """Whom it forwards to, in one line for people."""
        return f"frontend {self.url}: leader {self._directory.leader() or 'not known'}"


async def serve_frontend(config: FrontendConfig, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set. Raises OSError if the address cannot be listened on."""
    async with Frontend(config):
        await stop.wait()
