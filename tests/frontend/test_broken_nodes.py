"""Nodes that break off, stall or lie: what the client is told, and that nothing is held in memory."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest

from raftfs.frontend import Directory, Forwarder
from raftfs.frontend.app import FrontendApp
from raftfs.frontend.upstream import Upstream
from raftfs.http import HttpServer

from .conftest import Open
from .scripted import Exchange, ScriptedNode

BIG = 3_000_000


async def _problem(answer: aiohttp.ClientResponse) -> tuple[int, str, str | None]:
    problem = json.loads(await answer.read())
    return answer.status, problem["code"], problem.get("outcome")


async def test_a_large_body_cut_off_in_the_middle_was_not_applied(
    open_frontend: Open, http: aiohttp.ClientSession
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.reader.readexactly(2_000_000)
        exchange.cut()

    async with ScriptedNode(script) as node, open_frontend([node.url]) as frontend:
        async with http.put(f"{frontend.url}/v1/files/a", data=io.BytesIO(bytes(40_000_000))) as answer:
            assert await _problem(answer) == (503, "unavailable", "not_applied")
            assert "Retry-After" in answer.headers
        assert len(node.seen) == 1


async def test_a_large_body_without_an_answer_has_an_unknown_outcome(
    open_frontend: Open, http: aiohttp.ClientSession
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.body()
        exchange.cut()

    async with ScriptedNode(script) as node, open_frontend([node.url]) as frontend:
        async with http.put(f"{frontend.url}/v1/files/a", data=io.BytesIO(bytes(BIG))) as answer:
            assert await _problem(answer) == (504, "unknown_outcome", "unknown")
        assert len(node.seen) == 1


async def test_a_large_body_is_offered_elsewhere_when_it_was_not_wanted(
    open_frontend: Open, http: aiohttp.ClientSession
) -> None:
    """The old leader names the new one before the body flows, so the body is still whole for it."""
    got = []

    async def new(exchange: Exchange) -> None:
        got.append(await exchange.body())
        await exchange.answer(201, Raftfs_Revision="7")

    async with ScriptedNode(new) as leader:

        async def old(exchange: Exchange) -> None:
            await exchange.answer(
                503, Raftfs_Error="not_leader", Raftfs_Outcome="not_applied", Raftfs_Leader=leader.url
            )

        data = bytes(range(256)) * 12_000
        async with ScriptedNode(old) as follower, open_frontend([follower.url]) as frontend:
            async with http.put(f"{frontend.url}/v1/files/a", data=io.BytesIO(data)) as answer:
                assert (answer.status, answer.headers["Raftfs-Revision"]) == (201, "7")
            assert got == [data]


async def test_a_small_write_is_repeated_under_one_key(open_frontend: Open, http: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.body()
        if len(node.seen) < 4:
            exchange.cut()
        else:
            await exchange.answer(201, Idempotent_Replayed="true")

    async with ScriptedNode(script) as node, open_frontend([node.url]) as frontend:
        async with http.put(f"{frontend.url}/v1/files/a", data=b"x") as answer:
            assert (answer.status, "Idempotent-Replayed" in answer.headers) == (201, False)
        assert len({exchange.headers["idempotency-key"] for exchange in node.seen}) == 1
        node.seen.clear()
        async with http.post(f"{frontend.url}/v1/copy", json={}, headers={"Idempotency-Key": "mine"}) as answer:
            assert (answer.status, answer.headers["Idempotent-Replayed"]) == (201, "true")
        assert [exchange.headers["idempotency-key"] for exchange in node.seen] == ["mine"] * 4


async def test_a_definite_no_ends_the_doubt(open_frontend: Open, http: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        if len(node.seen) == 1:
            exchange.cut()
        else:
            await exchange.answer(412, b'{"code": "precondition_failed"}', Raftfs_Error="precondition_failed")

    async with (
        ScriptedNode(script) as node,
        open_frontend([node.url]) as frontend,
        http.delete(f"{frontend.url}/v1/files/a") as answer,
    ):
        assert answer.status == 412


async def test_a_refusal_after_a_lost_answer_leaves_the_doubt(open_frontend: Open, http: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        if len(node.seen) == 1:
            exchange.cut()
        else:
            await exchange.answer(503, Raftfs_Error="overloaded", Raftfs_Outcome="not_applied")

    async with (
        ScriptedNode(script) as node,
        open_frontend([node.url]) as frontend,
        http.delete(f"{frontend.url}/v1/files/a") as answer,
    ):
        assert await _problem(answer) == (504, "unknown_outcome", "unknown")


async def test_a_node_that_never_answers_a_write(open_frontend: Open, http: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with ScriptedNode(script) as node, open_frontend([node.url], deadline_s=0.5) as frontend:
        async with http.put(f"{frontend.url}/v1/files/a", data=b"x") as answer:
            assert await _problem(answer) == (504, "unknown_outcome", "unknown")
        async with http.put(f"{frontend.url}/v1/files/a", data=io.BytesIO(bytes(BIG))) as answer:
            assert await _problem(answer) == (503, "unavailable", "not_applied")  # its body was never asked for


async def test_a_leader_that_freezes_in_mid_request_is_left_for_the_new_one(
    open_frontend: Open, http: aiohttp.ClientSession
) -> None:
    frozen = asyncio.Event()

    async def freezes(exchange: Exchange) -> None:
        old.frozen = True
        frozen.set()
        await asyncio.Event().wait()

    async def works(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(201)

    async with ScriptedNode(freezes) as old, ScriptedNode(works) as new:
        new.leads = old.url
        async with open_frontend([old.url, new.url]) as frontend:
            writing = asyncio.create_task(http.put(f"{frontend.url}/v1/files/a", data=b"x").__aenter__())
            await frozen.wait()
            new.leads, new.term = new.url, 2
            answer = await writing
            assert answer.status == 201
            answer.close()


class _NobodyKnows(Directory):
    """Knows who led at first. Whoever asks again waits for somebody who says nothing."""

    def __init__(self, upstream: Upstream, leader: str) -> None:
        super().__init__(upstream, [leader])
        self.hint(leader)
        self.asked = asyncio.Event()

    async def find(self, suspect: str | None = None) -> str | None:
        self.asked.set()
        await asyncio.Event().wait()
        return None


async def test_an_answer_that_comes_while_the_others_are_asked_who_leads_is_passed_on_at_once(
    http: aiohttp.ClientSession,
) -> None:
    """Beside a frozen node, each question took half a second, and with it every write that a new leader was slow at."""

    async def slow(exchange: Exchange) -> None:
        await exchange.body()
        await directory.asked.wait()
        await exchange.answer(201)

    upstream = Upstream()
    async with ScriptedNode(slow) as node:
        directory = _NobodyKnows(upstream, node.url)
        app = FrontendApp(Forwarder(directory, upstream), deadline_s=3600)
        async with (
            asyncio.timeout(60),
            HttpServer(app, "127.0.0.1:0") as server,
            http.put(f"{server.url}/v1/files/a", data=b"x") as answer,
        ):
            assert answer.status == 201
    await upstream.close()


async def test_reads_leave_a_silent_node(open_frontend: Open, http: aiohttp.ClientSession) -> None:
    async def silent(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async def works(exchange: Exchange) -> None:
        await exchange.answer(200, b"bytes")

    async with ScriptedNode(silent) as one, ScriptedNode(works) as two, open_frontend([one.url, two.url]) as frontend:
        for _ in range(3):
            async with http.get(f"{frontend.url}/v1/files/a") as answer:
                assert await answer.read() == b"bytes"


async def test_reads_go_on_to_a_node_that_can(open_frontend: Open, http: aiohttp.ClientSession) -> None:
    async def cannot(exchange: Exchange) -> None:
        await exchange.answer(503, b"{}", Raftfs_Error="chunk_unavailable")

    async def can(exchange: Exchange) -> None:
        await exchange.answer(200, b"bytes")

    async with ScriptedNode(cannot) as one, ScriptedNode(can) as two:
        async with open_frontend([one.url, two.url]) as frontend:
            for _ in range(4):
                async with http.get(f"{frontend.url}/v1/files/a") as answer:
                    assert await answer.read() == b"bytes"
        async with open_frontend([one.url]) as frontend, http.get(f"{frontend.url}/v1/files/a") as answer:
            assert (answer.status, answer.headers["Raftfs-Error"]) == (503, "chunk_unavailable")


async def test_a_file_that_breaks_off_never_looks_whole(open_frontend: Open, http: aiohttp.ClientSession) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(300_000))
        await exchange.writer.drain()
        exchange.cut()

    async with (
        ScriptedNode(script) as node,
        open_frontend([node.url]) as frontend,
        http.get(f"{frontend.url}/v1/files/a") as answer,
    ):
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_a_client_that_breaks_off_is_not_taken_for_whole(open_frontend: Open) -> None:
    ended = asyncio.get_running_loop().create_future()

    async def script(exchange: Exchange) -> None:
        try:
            await exchange.body()
            ended.set_result("whole")
        except (asyncio.IncompleteReadError, ConnectionError):
            ended.set_result("broken")

    async with ScriptedNode(script) as node, open_frontend([node.url]) as frontend:
        parts = urlsplit(frontend.url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"PUT /v1/files/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + bytes(2_000_000))
        await writer.drain()
        writer.transport.abort()
        assert await ended == "broken"


async def test_uploads_wait_for_a_slow_node(open_frontend: Open) -> None:
    """Backpressure: a node that does not read stops the client; the frontend holds next to nothing of the body."""
    reading = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.go_on()
        await reading.wait()
        await exchange.reader.readexactly(int(exchange.headers["content-length"]))
        await exchange.answer(201)

    size, sent = 200_000_000, 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        piece = bytes(1_000_000)
        for _ in range(size // len(piece)):
            yield piece
            sent += len(piece)

    async with ScriptedNode(script) as node, open_frontend([node.url]) as frontend, aiohttp.ClientSession() as http:
        headers = {"Content-Length": str(size)}
        writing = asyncio.create_task(http.put(f"{frontend.url}/v1/files/a", data=body(), headers=headers).__aenter__())
        before = -1
        while sent != before or not sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 30_000_000  # what four socket buffers hold
        reading.set()
        async with await writing as answer:
            assert answer.status == 201
        assert sent == size


async def test_downloads_wait_for_a_slow_client(open_frontend: Open) -> None:
    size, sent = 200_000_000, 0

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        exchange.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = bytes(1_000_000)
        for _ in range(size // len(piece)):
            exchange.writer.write(piece)
            await exchange.writer.drain()
            sent += len(piece)

    async with (
        ScriptedNode(script) as node,
        open_frontend([node.url]) as frontend,
        aiohttp.ClientSession() as http,
        http.get(f"{frontend.url}/v1/files/a") as answer,
    ):
        before = -1
        while sent != before or not sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 30_000_000
        got = 0
        async for piece in answer.content.iter_any():
            got += len(piece)
        assert got == size


async def test_headers_of_one_connection_stay_there(open_frontend: Open) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(
            200, b"\x1f\x8bnot really gzip", Content_Encoding="gzip", Keep_Alive="timeout=5", X_Own="1"
        )

    sent = {
        "Connection": "X-Private",
        "X-Private": "1",
        "TE": "trailers",
        "Accept-Encoding": "zstd",
        "X-Request-Id": "7",
    }
    async with ScriptedNode(script) as node, open_frontend([node.url]) as frontend:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as http,
            http.get(f"{frontend.url}/v1/files/a?consistency=stale", headers=sent) as answer,
        ):
            assert await answer.read() == b"\x1f\x8bnot really gzip"
            assert (answer.headers["Content-Encoding"], answer.headers["X-Own"]) == ("gzip", "1")
            assert "Keep-Alive" not in answer.headers
        exchange = node.seen[0]
        assert exchange.target == "/v1/files/a?consistency=stale"
        assert (exchange.headers["accept-encoding"], exchange.headers["x-request-id"]) == ("zstd", "7")
        assert exchange.headers["raftfs-forwarded"] == "1"
        assert not {"x-private", "te"} & exchange.headers.keys()


async def test_no_connection_header_takes_a_precondition_or_a_key_away(
    open_frontend: Open, http: aiohttp.ClientSession
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(204)

    sent = {"Connection": "If-Match, Idempotency-Key", "If-Match": '"r1"', "Idempotency-Key": "k"}
    async with ScriptedNode(script) as node, open_frontend([node.url]) as frontend:
        async with http.delete(f"{frontend.url}/v1/files/a", headers=sent):
            pass
        assert (node.seen[0].headers["if-match"], node.seen[0].headers["idempotency-key"]) == ('"r1"', "k")
