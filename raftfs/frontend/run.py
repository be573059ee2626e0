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
from raftfs.tls import Credentials, dialing_credentials, frontend_credentials, watching


def load_certificates(config: FrontendConfig) -> tuple[Credentials | None, Credentials | None]:
    """For its port, and for dialing nodes. Raises ConfigError if the files cannot be used."""
    tls = None if config.tls is None else frontend_credentials(config.tls)
    return tls, None if config.nodes_tls is None else dialing_credentials(config.nodes_tls)


class Frontend:
    """A frontend in this process: an async context manager that serves while it is entered. ``url`` is where."""

    def __init__(self, config: FrontendConfig) -> None:
        self._config = config
        self._credentials: list[Credentials] = []
        self._stack = AsyncExitStack()
        self._directory: Directory
        self.url = ""

    async def __aenter__(self) -> Self:
        """Raises OSError if the address cannot be listened on, ConfigError if certificate files cannot be used."""
        config = self._config
        tls, nodes_tls = load_certificates(config)
        self._credentials = [each for each in (tls, nodes_tls) if each is not None]
        async with AsyncExitStack() as stack:
            upstream = Upstream(nodes_tls)
            stack.push_async_callback(upstream.close)
            directory = self._directory = Directory(upstream, config.nodes, secure=not config.insecure)
            stack.push_async_callback(directory.close)
            app = FrontendApp(Forwarder(directory, upstream), deadline_s=config.request_deadline_s)
            app.metrics.show_certificates(self._credentials)
            await stack.enter_async_context(watching(self._credentials))
            server = await stack.enter_async_context(HttpServer(app, config.listen, tls=tls))
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

    def reload(self) -> None:
        """Use the certificate files as they are now, for new connections. Those that cannot be used change nothing."""
        for each in self._credentials:
            each.reload()


async def serve_frontend(config: FrontendConfig, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set. Raises OSError if the address cannot be listened on."""
    async with Frontend(config):
        await stop.wait()
