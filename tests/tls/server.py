"""A small HTTP server of the product, over TLS, for what is about connections alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from raftfs.config import FrontendTLS
from raftfs.http import Call, HttpMetrics, HttpServer, json_response
from raftfs.tls import Credentials, frontend_credentials

from .authority import issued


class Hello:
    """Answers everything with an empty list of a directory."""

    def __init__(self) -> None:
        self.metrics = HttpMetrics()
        self.deadline_s = 60.0

    async def respond(self, call: Call) -> web.StreamResponse:
        if call.route == "metrics":
            return self.metrics.response()
        return json_response({"entries": [], "next": None, "revision": 1})


def credentials_of(ca: Path, *, name: str = "server", require_client_cert: bool = False) -> Credentials:
    files = issued(ca, name)
    return frontend_credentials(
        FrontendTLS(cert=files.cert, key=files.key, ca=files.ca, require_client_cert=require_client_cert)
    )


@asynccontextmanager
async def serving(credentials: Credentials | None) -> AsyncIterator[str]:
    """The URL."""
    app = Hello()
    app.metrics.show_certificates([] if credentials is None else [credentials])
    async with HttpServer(app, "127.0.0.1:0", tls=credentials) as server:
        yield server.url
