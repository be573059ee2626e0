"""Handshakes: which are offered, how long and how many at once; and what becomes of who speaks no TLS at all."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from raftfs.listener import TlsListener
from raftfs.tls import Made, server_context

from .authority import attacker, issued
from .server import credentials_of, serving

WAIT_S_MAX = 60.0


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@asynccontextmanager
async def listening(ca: Path, **limits: float) -> AsyncIterator[tuple[TlsListener, int]]:
    files = issued(ca, "server")
    tls = Made(server_context(files.cert, files.key), None, None)
    listener = TlsListener("test", tls, Echo, **limits)  # type: ignore[arg-type]
    await listener.start("127.0.0.1", 0)
    try:
        yield listener, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await listener.wait_closed()


async def echoed(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=attacker(), server_hostname="server")
    writer.write(b"hi")
    answer = await reader.readexactly(2)
    writer.close()
    return answer == b"hi"


HALVES = {"nothing": b"", "the beginning": b"\x16", "half a record": b"\x16\x03\x01\x02\x00" + b"\x01\x00\x01\xfc\x03"}


@pytest.mark.parametrize("half", HALVES)
async def test_half_a_handshake_is_ended_in_time(tmp_path: Path, half: str) -> None:
    async with listening(tmp_path, handshake_s=0.2) as (listener, port), asyncio.timeout(WAIT_S_MAX):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HALVES[half])
        (end,) = await asyncio.gather(reader.read(), return_exceptions=True)
        assert end == b"" or isinstance(end, ConnectionError)
        assert listener.refused == 1
        writer.close()
        assert await echoed(port)


@pytest.mark.parametrize("half", HALVES)
async def test_many_half_handshakes_keep_nobody_out_and_hold_no_more_than_their_number(
    tmp_path: Path, half: str
) -> None:
    """The time is for ever here, so it is their number that ends them."""
    async with (
        listening(tmp_path, handshake_s=3600.0, handshakes_max=8) as (listener, port),
        asyncio.timeout(WAIT_S_MAX),
    ):
        held = []
        for _ in range(50):
            held.append(await asyncio.open_connection("127.0.0.1", port))
            held[-1][1].write(HALVES[half])
            if len(held) % 10 == 0:
                assert await echoed(port)
        for reader, _ in held[:40]:
            await asyncio.gather(reader.read(), return_exceptions=True)  # comes to an end, with a reset or without
        assert len(listener._shaking) <= 8
        for _, writer in held:
            writer.close()


async def test_a_server_that_bounds_nothing_would_be_noticed(tmp_path: Path) -> None:
    """asyncio's own, with a time that is for ever: every half handshake is held."""
    files = issued(tmp_path, "server")
    loop = asyncio.get_running_loop()
    context = server_context(files.cert, files.key)
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context, ssl_handshake_timeout=3600.0)
    port = server.sockets[0].getsockname()[1]
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
    assert await echoed(port)
    reads = [asyncio.create_task(reader.read()) for reader, _ in held[:40]]
    done, _ = await asyncio.wait(reads, timeout=0.5)
    assert not done
    for read in reads:
        read.cancel()
    for _, writer in held:
        writer.transport.abort()
    server.close()
    await asyncio.sleep(0.05)


async def test_old_versions_of_tls_are_not_offered(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, port):
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.warns(DeprecationWarning, match="deprecated"):
                context = attacker(version=version)
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="server")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = attacker(version=version)
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="server")
            writer.close()


async def renegotiates(port: int, openssl: str) -> bool:
    """Whether the server takes part in a second handshake on a connection."""
    process = await asyncio.create_subprocess_exec(
        openssl, "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(WAIT_S_MAX):
        while b"Verify return code" not in said:
            piece = await process.stdout.read(65536)
            assert piece, said.decode()
            said += piece
        process.stdin.write(b"R\n")
        while b"RENEGOTIATING" not in said:  # a command is one only if it comes alone
            piece = await process.stdout.read(65536)
            assert piece, said.decode()
            said += piece
        process.stdin.write(b"ping\n")
        while b"ping" not in said and (piece := await process.stdout.read(65536)):
            said += piece
        process.stdin.close()
        await process.wait()
    return b"ping" in said


async def test_renegotiation_is_not_offered(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command here")
    files = issued(tmp_path, "server")
    async with listening(tmp_path) as (_, port):
        assert not await renegotiates(port, openssl)
    context = server_context(files.cert, files.key)
    context.options = (context.options & ~ssl.OP_NO_RENEGOTIATION) | 1 << 8  # OpenSSL's ALLOW_CLIENT_RENEGOTIATION
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=context)
    async with server:
        assert await renegotiates(server.sockets[0].getsockname()[1], openssl), "the check notices one that does"


async def test_sessions_are_not_resumed(tmp_path: Path) -> None:
    """A ticket would let somebody in whose CA was dropped since."""
    async with serving(credentials_of(tmp_path)) as url:

        def connect_twice(version: ssl.TLSVersion) -> bool:
            context = attacker(version=version)
            session = None
            for _ in range(2):
                plain = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=WAIT_S_MAX)
                with context.wrap_socket(plain, server_hostname="server", session=session) as conn:
                    conn.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert conn.recv(65536).startswith(b"HTTP/1.1 200")
                    session, reused = conn.session, conn.session_reused
            return bool(reused)

        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert not await asyncio.to_thread(connect_twice, version)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_a_request_in_the_clear_is_told_so(tmp_path: Path, method: str) -> None:
    async with serving(credentials_of(tmp_path)) as url, asyncio.timeout(WAIT_S_MAX):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        body = b"x" * 1_000_000 if method == "PUT" else b""
        writer.write(f"{method} /v1/files/a HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head, _, said = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"Raftfs-Error: tls_required" in head
        if method == "HEAD":
            assert said == b""
        else:
            assert json.loads(said)["detail"] == "This port speaks TLS: the URL must begin with https://"
        writer.close()
