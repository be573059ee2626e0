"""The peer port over real sockets: members are heard, everything else is closed and changes nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import trustme

from raftfs import errors
from raftfs.config import PeerTLS
from raftfs.consensus import messages as m
from raftfs.consensus.compatibility import our_versions
from raftfs.consensus.peers import Callbacks, Hello, PeerTransport, Welcome
from raftfs.limits import PEER_FRAME_BYTES_MAX, PEER_REFUSALS_NOTED_MAX
from raftfs.tls import Contexts, peer_credentials

from .ports import free_address, peer_transport


@asynccontextmanager
async def pair(
    *,
    cluster_ids: tuple[str, str] = ("c", "c"),
    tls: Callable[[str], Contexts] | None = None,
) -> AsyncIterator[tuple[PeerTransport, PeerTransport]]:
    members = {"a": free_address(), "b": free_address()}
    transports = [
        peer_transport(me, members, cluster_id=cluster_id, tls=tls(me) if tls else None)
        for me, cluster_id in zip(members, cluster_ids, strict=True)
    ]
    for transport in transports:
        await transport.start()
    try:
        yield transports[0], transports[1]
    finally:
        for transport in transports:
            await transport.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - conditions of foreign objects, which set no event
            await asyncio.sleep(0.01)


async def test_messages_arrive_in_order_and_connections_are_reported() -> None:
    async with pair() as (a, b):
        heard: list[tuple[str, m.Message]] = []
        events: list[str] = []
        b.on = Callbacks(message=lambda peer, message: heard.append((peer, message)))
        a.on = Callbacks(connected=lambda p: events.append(f"+{p}"), disconnected=lambda p: events.append(f"-{p}"))
        await until(lambda: a.connected("b"))
        sent = [m.Probe(1, number) for number in range(200)]
        for message in sent:
            a.send("b", message)
        await until(lambda: len(heard) == 200)
        assert heard == [("a", message) for message in sent]
        await b.stop()
        await until(lambda: not a.connected("b"))
        assert events in (["+b", "-b"], ["-b"])


async def echo(_peer: str, payload: bytes) -> bytes:
    return payload


async def test_requests_carry_megabytes_both_ways_many_at_once() -> None:
    async with pair() as (a, b):
        b.handle("echo", echo)
        await until(lambda: a.connected("b"))
        payloads = [os.urandom(1024 * 1024) for _ in range(30)]
        answers = await asyncio.gather(
            *(retried(lambda p=p: a.request("b", "echo", [p[:10], p[10:]], timeout_s=20)) for p in payloads)  # type: ignore[misc]
        )
        assert answers == payloads


async def retried(call: Callable[[], Awaitable[bytes]]) -> bytes:
    """The bulk connection may come a moment after the other one."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except errors.Unavailable:
                await asyncio.sleep(0.01)


async def test_a_handlers_error_reaches_the_asker_as_its_class() -> None:
    async def refuse(_peer: str, _payload: bytes) -> bytes:
        raise errors.StorageFull("no room on b")

    async def break_down(_peer: str, _payload: bytes) -> bytes:
        raise RuntimeError("secret detail")

    async with pair() as (a, b):
        b.handle("refuse", refuse)
        b.handle("break", break_down)
        b.handle("echo", echo)
        await retried(lambda: a.request("b", "echo", b"", timeout_s=5))
        with pytest.raises(errors.StorageFull, match="no room on b"):
            await a.request("b", "refuse", b"", timeout_s=5)
        with pytest.raises(errors.RaftfsError, match="see that node's log"):
            await a.request("b", "break", b"", timeout_s=5)
        with pytest.raises(errors.InvalidRequest, match="not known"):
            await a.request("b", "no such kind", b"", timeout_s=5)


async def test_a_request_without_an_answer_ends_and_a_broken_connection_ends_all() -> None:
    async def never(_peer: str, _payload: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with pair() as (a, b):
        b.handle("never", never)
        b.handle("echo", echo)
        await retried(lambda: a.request("b", "echo", b"", timeout_s=5))
        with pytest.raises(errors.Unavailable, match="did not answer"):
            await a.request("b", "never", b"", timeout_s=0.05)
        waiting = asyncio.create_task(a.request("b", "never", b"", timeout_s=60))
        await asyncio.sleep(0.05)
        await b.stop()
        with pytest.raises(errors.Unavailable):
            await waiting


async def raw_connection(transport: PeerTransport) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*transport._listen)


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


SAID = msgspec.to_builtins(our_versions())


def hello(**changes: object) -> bytes:
    values: dict[str, object] = {"cluster_id": "c", "sender": "b", "receiver": "a", "channel": "raft", "versions": SAID}
    return frame(msgspec.msgpack.encode({**values, **changes}))


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x04\x95" + b"A" * 500,
        struct.pack(">I", PEER_FRAME_BYTES_MAX * 100),
        frame(b"\x00" * 100),
        frame(b""),
        frame(msgspec.msgpack.encode({"sender": "b"})),
        os.urandom(4096),
    ],
)
async def test_garbage_closes_the_connection_without_an_answer(garbage: bytes) -> None:
    async with pair() as (a, _):
        heard: list[object] = []
        a.on = Callbacks(message=lambda peer, message: heard.append(message))
        reader, writer = await raw_connection(a)
        writer.write(garbage)
        async with asyncio.timeout(20):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert heard == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cluster_id": "other"}, "this is cluster 'c', not 'other'"),
        ({"sender": "stranger"}, "'stranger' is not a member"),
        ({"sender": "a"}, "'a' is not a member"),
        ({"receiver": "n7"}, "this is member 'a', not 'n7'"),
        ({"versions": {**SAID, "protocol_min": 98, "protocol_max": 99}}, "b 98 to 99: upgrade a"),
        ({"versions": {**SAID, "format_min": 97, "format_max": 98, "format": 98}}, "install one there that"),
    ],
)
async def test_a_wrong_greeting_is_refused_with_the_reason(changes: dict[str, object], reason: str) -> None:
    async with pair() as (a, _):
        reader, writer = await raw_connection(a)
        writer.write(hello(**changes))
        async with asyncio.timeout(20):
            answer = await reader.read()
        refused = msgspec.msgpack.decode(answer[4:], type=Welcome).refused
        assert refused is not None
        assert reason in refused
        writer.close()


async def greet(port_of: PeerTransport, **changes: object) -> None:
    reader, writer = await raw_connection(port_of)
    writer.write(hello(**changes))
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()


async def test_a_refusal_is_told_of_once_for_each_name_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    """A removed member dials for ever, and would fill the logs of all others."""
    transport = peer_transport("a", {"a": free_address(), "b": "127.0.0.1:1"})
    await transport.start()
    try:
        for _ in range(3):
            await greet(transport, sender="removed")
            await greet(transport, cluster_id="other")
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert ["not a member" in line for line in told] == [True, False], told
        for number in range(PEER_REFUSALS_NOTED_MAX):
            await greet(transport, sender=f"removed-{number}")
        assert len(caplog.records) == 2 + PEER_REFUSALS_NOTED_MAX
        await greet(transport, sender="removed")
        assert len(caplog.records) == 3 + PEER_REFUSALS_NOTED_MAX, "what is remembered is bounded"
    finally:
        await transport.stop()


@pytest.mark.parametrize("body", [b"\x00garbage", msgspec.msgpack.encode(["Append", 1]), b"\xff" * 3000])
async def test_garbage_after_the_greeting_closes_the_connection(body: bytes) -> None:
    async with pair() as (a, _):
        heard: list[object] = []
        a.on = Callbacks(message=lambda peer, message: heard.append(message))
        reader, writer = await raw_connection(a)
        writer.write(hello() + frame(body))
        async with asyncio.timeout(20):
            with suppress(ConnectionResetError):
                await reader.read()
        writer.close()
        assert heard == []


async def test_a_refused_member_can_say_why() -> None:
    async with pair(cluster_ids=("c", "other")) as (a, _):
        await until(lambda: a.refusal("b") is not None)
        assert "this is cluster 'other'" in (a.refusal("b") or "")
        assert not a.connected("b")
        with pytest.raises(errors.Unavailable, match="not connected"):
            await a.request("b", "echo", b"", timeout_s=1)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, directory: Path, name: str) -> Contexts:
    certificate = authority.issue_cert(name)
    paths = [directory / f"{name}.{kind}" for kind in ("cert", "key", "ca")]
    certificate.cert_chain_pems[0].write_to_path(paths[0])
    certificate.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    return peer_credentials(PeerTLS(cert=paths[0], key=paths[1], ca=paths[2]))


async def test_mutual_tls_connects_members(tmp_path: Path, authority: trustme.CA) -> None:
    async with pair(tls=lambda me: contexts(authority, tmp_path, me)) as (a, b):
        b.handle("echo", echo)
        assert await retried(lambda: a.request("b", "echo", b"secret", timeout_s=5)) == b"secret"


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    async with pair(tls=lambda me: contexts(authority, tmp_path, "a" if me == "a" else "mallory")) as (a, b):
        await until(lambda: b.refusal("a") is not None)
        assert "does not name 'b'" in (b.refusal("a") or "")
        assert not a.connected("b"), "a checks b's name, too"


async def test_a_stranger_without_a_certificate_is_not_heard(tmp_path: Path, authority: trustme.CA) -> None:
    async with pair(tls=lambda me: contexts(authority, tmp_path, me)) as (a, _):
        reader, writer = await raw_connection(a)
        writer.write(hello())
        async with asyncio.timeout(20):
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b""
        assert b"refused" not in answer
        writer.close()


def test_hello_is_a_plain_structure() -> None:
    assert msgspec.msgpack.decode(hello()[4:], type=Hello).sender == "b"
