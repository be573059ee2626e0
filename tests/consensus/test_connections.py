"""Connections of the peer port that died without a word: a machine that lost power sends no goodbye."""

from __future__ import annotations

import asyncio

import msgspec

from raftfs.consensus.compatibility import our_versions
from raftfs.consensus.peers import Hello, Welcome
from raftfs.limits import PEER_CONNECTIONS_MAX

from .ports import free_address, peer_transport


async def greet(port: int) -> tuple[Welcome | None, asyncio.StreamWriter]:
    """Connect as member b, and stay."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = msgspec.msgpack.encode(Hello("c", "b", "a", "raft", our_versions()))
    writer.write(len(raw).to_bytes(4, "big") + raw)
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        return msgspec.msgpack.decode(await reader.readexactly(length), type=Welcome), writer
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None, writer


async def test_a_member_that_comes_again_and_again_is_never_locked_out() -> None:
    address = free_address()
    transport = peer_transport("a", {"a": address, "b": "127.0.0.1:1"})
    await transport.start()
    writers = []
    try:
        async with asyncio.timeout(20):
            for life in range(PEER_CONNECTIONS_MAX + 10):
                welcome, writer = await greet(int(address.rsplit(":", 1)[1]))
                writers.append(writer)
                assert welcome is not None, f"locked out in life {life}"
                assert welcome.refused is None
    finally:
        for writer in writers:
            writer.close()
        await transport.stop()
