"""Requests to nodes, over pooled connections, with nothing changed on the way.

This is the only module of the package that opens connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Mapping

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from raftfs.errors import Unavailable
from raftfs.http import names
from raftfs.limits import (
    ANSWER_HEADER_LINE_BYTES_MAX,
    HEADER_LINE_BYTES_MAX,
    HEADERS_MAX,
    NODES_KNOWN_MAX,
    UPSTREAM_ANSWER_BYTES_MAX,
    UPSTREAM_CONNECT_S_MAX,
    UPSTREAM_CONNECTIONS_MAX,
)
from raftfs.tls import Contexts, explain, refused_by_server

log = logging.getLogger(__name__)

ATTEMPT_ERRORS = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
"""What an attempt at a node fails with when the node, and not the request, is the reason."""


class CertificateRefused(aiohttp.ClientConnectionError):
    """The node ended the handshake over our certificate, or because we have none."""


# The node did nothing: known before a single byte of the request was sent, or it never looked at what was.
CONNECT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, CertificateRefused)

_NOT_FORWARDED = names.HOP_BY_HOP | {"host", "content-length", "expect", "raftfs-timeout", "raftfs-forwarded"}


async def _no_hidden_retry(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp would send a PUT again on its own when a kept connection turns out to be closed. Whether that is safe is
    for the forwarder to decide, so the error is given another class, which aiohttp does not act upon."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if refused_by_server(error):
            raise CertificateRefused(str(error)) from error
        raise aiohttp.ClientConnectionError(str(error) or "connection lost") from error


class Upstream:
    """A pool of connections to the nodes. Close it with :meth:`close`. ``tls``: for https nodes; None trusts whom this
    machine trusts. New connections take its context of their moment."""

    def __init__(self, tls: Contexts | None = None) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._tls = tls
        self._distrusted: dict[str, str] = {}

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=UPSTREAM_CONNECTIONS_MAX, keepalive_timeout=30.0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=UPSTREAM_CONNECT_S_MAX),
                max_line_size=HEADER_LINE_BYTES_MAX,
                max_field_size=ANSWER_HEADER_LINE_BYTES_MAX,
                max_headers=2 * HEADERS_MAX,
                middlewares=(_no_hidden_retry,),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, node: str, method: str, target: str, headers: CIMultiDict[str],
        body: bytes | AsyncIterable[bytes] | None, *, expect: bool = False,
    ) -> aiohttp.ClientResponse:  # fmt: skip
        """Send a request and return the answer as soon as its headers are there. Raises ATTEMPT_ERRORS."""
        # The pool keeps connections apart by their context, so after a change none of the old ones is used again.
        tls = True if self._tls is None else self._tls.client
        try:
            response = await self._open().request(
                method, URL(node + target, encoded=True), headers=headers, data=body, expect100=expect,
                allow_redirects=False, ssl=tls,
            )  # fmt: skip
        except aiohttp.ClientConnectionError as error:
            self._note_distrust(node, error)
            raise
        if self._distrusted:
            self._distrusted.pop(node, None)
        return response

    def _note_distrust(self, node: str, error: aiohttp.ClientConnectionError) -> None:
        """A node that does not answer is no news; that one cannot be trusted is said once."""
        reason = explain(error) if node.startswith("https://") else None
        if reason is not None and self._distrusted.get(node) != reason and len(self._distrusted) < NODES_KNOWN_MAX:
            self._distrusted[node] = reason
            log.error("no connection to %s: %s", node, reason)

    async def ask(self, node: str, target: str, *, timeout_s: float) -> bytes:
        """GET something small. Raises ATTEMPT_ERRORS, also for a status other than 200."""
        async with asyncio.timeout(timeout_s):
            response = await self.send(node, "GET", target, CIMultiDict(), None)
            async with response:
                if response.status != 200:
                    raise aiohttp.ClientConnectionError(f"{node} answered {response.status}")
                return await read_answer(response)


def forward_headers(headers: Mapping[str, str], *, hops: int, timeout_s: float) -> CIMultiDict[str]:
    """A request's headers for the next hop: all that are not of this connection alone, our own two renewed."""
    dropped = _NOT_FORWARDED
    if (connection := headers.get("Connection")) is not None:
        # RFC 9110, 7.6.1, forbids to nominate a header that is meant for the one who answers. Dropping such a one would
        # drop a precondition, or the key under which a write may be repeated.
        dropped = dropped | ({name.strip().lower() for name in connection.split(",")} - names.END_TO_END)
    out = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
    out[names.FORWARDED] = str(hops + 1)
    # A little less than what is left, so that the node's own answer still arrives in time.
    out[names.TIMEOUT] = f"{max(0.01, timeout_s - min(0.25, timeout_s / 10)):.3f}"
    return out


def answer_headers(response: aiohttp.ClientResponse) -> CIMultiDict[str]:
    """An answer's headers without those of its connection."""
    dropped = names.HOP_BY_HOP
    return CIMultiDict((name, value) for name, value in response.headers.items() if name.lower() not in dropped)


async def read_answer(response: aiohttp.ClientResponse) -> bytes:
    """The whole of an answer that must be small. Raises ATTEMPT_ERRORS, Unavailable if it is not small."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > UPSTREAM_ANSWER_BYTES_MAX:
            raise Unavailable(f"the answer of {response.host} is over {UPSTREAM_ANSWER_BYTES_MAX} bytes long")
        pieces.append(piece)
    return b"".join(pieces)
