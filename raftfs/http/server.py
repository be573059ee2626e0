"""The HTTP server: aiohttp's low-level server, with every answer ours.

aiohttp answers broken HTTP itself, in plain text. Here its request handler is replaced in the two places where it
does so, and an application is one coroutine from a call to a response.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from types import TracebackType
from typing import Any, Protocol, Self

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import LineTooLong

from raftfs.config import split_address
from raftfs.errors import (
    HeadersTooLarge,
    IncompleteBody,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    RaftfsError,
    TlsRequired,
)
from raftfs.http import names
from raftfs.http.call import Call
from raftfs.http.metrics import HttpMetrics
from raftfs.http.problems import problem_response
from raftfs.limits import HEADER_LINE_BYTES_MAX, HEADERS_MAX, HTTP_CONNECTIONS_MAX, KEEP_ALIVE_S, LINGER_S_MAX
from raftfs.listener import TlsListener
from raftfs.tls import Contexts

log = logging.getLogger(__name__)

_VERSIONS = (HttpVersion10, HttpVersion11)
_BACKLOG = 1024
_FOREIGN = web.RequestKey("foreign", bool)


class App(Protocol):
    """What a server serves. ``deadline_s``: for requests that name none."""

    metrics: HttpMetrics
    deadline_s: float

    async def respond(self, call: Call) -> web.StreamResponse:
        """Answer a resolved call. May raise any RaftfsError; anything else is a bug and becomes a 500."""


class HttpServer:
    """An async context manager that serves ``app`` on ``address`` (host:port; port 0 picks a free one), over TLS if
    ``tls`` is given: each handshake takes its context of that moment.

    ``url`` is known once it is entered. Leaving stops listening, lets requests that are under way finish for
    ``grace_s``, then closes their connections. Connections beyond ``connections_max`` are told so and closed: the
    descriptors that are left belong to the journal, the database, the chunks and the peers.
    """

    def __init__(
        self, app: App, address: str, *, tls: Contexts | None = None, grace_s: float = 5.0,
        connections_max: int | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._host, self._port = _split(address)
        self._grace_s = grace_s
        self._connections_max = connections_max or _connections_max()
        self._tls = tls
        self._runner: web.ServerRunner | None = None
        self._listener: TlsListener | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        server = _Server(self._handle, self._app.metrics, self._connections_max)
        self._runner = web.ServerRunner(server, shutdown_timeout=self._grace_s)
        await self._runner.setup()
        try:
            host, port = await self._listen(self._runner, server)
        except BaseException:
            await self._runner.cleanup()
            raise
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        return self

    async def _listen(self, runner: web.ServerRunner, server: _Server) -> tuple[str, int]:
        """The address that was had."""
        if self._tls is None:
            await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
            host, port = runner.addresses[0][:2]
        else:
            self._listener = TlsListener("client", self._tls, server, plain=_demand_tls)
            await self._listener.start(self._host, self._port, backlog=_BACKLOG)
            host, port = self._listener.sockets[0].getsockname()[:2]
        return host, port

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        app = self._app
        call = Call(request, app.deadline_s)
        app.metrics.in_flight.inc()
        status = 499  # the client went away before there was an answer
        try:
            response = await self._answer(call)
            status = response.status
            return response
        finally:
            if isinstance(request.protocol, _RequestHandler):
                request.protocol.current_body = None  # nobody reads it any more
            call.body.release()
            app.metrics.in_flight.dec()
            app.metrics.observe(
                call.route, call.method, status, time.perf_counter() - started,
                call.body.read_bytes, request.writer.output_size,
            )  # fmt: skip

    async def _answer(self, call: Call) -> web.StreamResponse:
        try:
            if call.request.get(_FOREIGN):
                raise InvalidRequest("this is not HTTP/1.1: the request line names another version, or none")
            call.resolve()
            return await self._app.respond(call)
        except RaftfsError as error:
            if call.request.writer.output_size:
                raise self._abort(call, error) from error
            return _problem(call, error)
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("bug while answering %s %s", call.method, call.route)
            if call.request.writer.output_size:
                raise self._abort(call, error) from error
            return problem_response(RaftfsError("a bug in the server; its log says more"), write=call.write)

    @staticmethod
    def _abort(call: Call, error: Exception) -> ConnectionResetError:
        # The answer has begun, with its length announced. Only a broken connection can say now that it is not whole.
        if call.request.transport is not None:
            call.request.transport.abort()
        return ConnectionResetError(f"answer broken off: {error}")


def _problem(call: Call, error: RaftfsError) -> web.Response:
    headers = {"Allow": ", ".join(names.METHODS[call.route])} if isinstance(error, MethodNotAllowed) else None
    response = problem_response(error, write=call.write, headers=headers)
    if isinstance(error, IncompleteBody):
        response.force_close()
    return response


def _connections_max() -> int:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return HTTP_CONNECTIONS_MAX if files == resource.RLIM_INFINITY else min(HTTP_CONNECTIONS_MAX, files // 2)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), 0) if port == "0" else split_address(address)


class _Server(web.Server):
    """aiohttp's server with our request handler."""

    def __init__(self, handle: Any, metrics: HttpMetrics, connections_max: int) -> None:
        super().__init__(handle, request_factory=self._request)
        self.metrics = metrics
        self.connections_max = connections_max
        self.connections_open = 0

    @staticmethod
    def _request(
        message: RawRequestMessage, payload: StreamReader, protocol: web.RequestHandler, writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:  # fmt: skip
        assert isinstance(protocol, _RequestHandler)
        protocol.current_body = payload
        foreign = message.version not in _VERSIONS
        if foreign:  # aiohttp would answer in the version of the request, whatever that is
            message = message._replace(version=HttpVersion11, should_close=True)
        request = web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())
        request[_FOREIGN] = foreign
        return request

    def __call__(self) -> web.RequestHandler:
        return _RequestHandler(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_S,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=LINGER_S_MAX,
            auto_decompress=False,
        )


class _RequestHandler(web.RequestHandler):
    """Answers what the HTTP parser refuses with a problem, and a client that closes its sending side early too."""

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._metrics = server.metrics
        self._refused = False
        self.current_body: StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._server.connections_open < self._server.connections_max:
            self._server.connections_open += 1
            super().connection_made(transport)
            return
        self._manager = None  # aiohttp does not get to know this connection, nor its end
        self._metrics.observe("none", "OTHER", Overloaded.status, 0.0, 0, 0)
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_TOO_MANY)
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._manager is not None:
            self._server.connections_open -= 1
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size:
            raise ConnectionResetError("the answer had begun already")
        error: RaftfsError
        if isinstance(exc, LineTooLong):
            error = HeadersTooLarge(f"a line of the request is over {HEADER_LINE_BYTES_MAX} bytes long")
        elif status < 500:
            error = InvalidRequest(f"this is not HTTP/1.1: {_first_line(message or str(exc))}")
        else:
            log.error("bug in the HTTP server", exc_info=exc)
            error = RaftfsError("a bug in the server; its log says more")
        self._metrics.observe("none", "OTHER", error.status, 0.0, 0, 0)
        self._refused = True
        response = problem_response(error, write=False, headers={"Connection": "close"})
        response.force_close()
        return response

    def data_received(self, data: bytes) -> None:
        if self._refused:  # what follows a refused request is read and dropped until the answer is out
            return
        super().data_received(data)
        if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            # The parser has given up. It does not tell the body that it was in the middle of.
            self._refused = True
            self._break_off(IncompleteBody("what follows is not HTTP/1.1"))

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio's own contract
        """The client sends no more. It may still listen for the answer to what it did send."""
        idle = not self._bodies() or (self._waiter is not None and not self._waiter.done())
        if idle or self.transport is None or self.transport.get_extra_info("sslcontext") is not None:
            return None
        self._break_off(IncompleteBody("the client closed the connection"))
        self.close()
        return True

    def _bodies(self) -> list[StreamReader]:
        """Of the requests that wait and of the one in hand."""
        return [*(body for _, body in self._messages), *([self.current_body] if self.current_body else [])]

    def _break_off(self, error: IncompleteBody) -> None:
        for body in self._bodies():
            if not body.is_eof():
                body.set_exception(error)


def _raw(response: web.Response) -> bytes:
    """An answer to nobody's request in particular, after which the connection is closed."""
    assert isinstance(response.body, bytes)
    headers = {**response.headers, "Content-Length": str(len(response.body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + response.body


_NO_TLS = _raw(problem_response(TlsRequired(), write=False))
_TOO_MANY = _raw(problem_response(Overloaded("too many connections are open", retry_after_s=1.0), write=False))


def _demand_tls(first: bytes) -> bytes:
    """The answer to a request in the clear, of which ``first`` are the first bytes."""
    head, _, body = _NO_TLS.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n" + (b"" if first.startswith(b"HEAD ") else body)


def _first_line(text: str) -> str:
    return " ".join(text.split())[:200]
