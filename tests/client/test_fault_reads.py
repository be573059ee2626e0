"""What a network can do to a read, and answers that are not those of raftfs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from aiohttp import web

from raftfs import AsyncClient, errors

from .scripted import ScriptedServer, content, drop, problem, raw

BIG = bytes(range(256)) * 8192  # 2 MiB


async def test_a_broken_download_resumes_at_the_same_version(scripted: ScriptedServer, quick: AsyncClient) -> None:
    scripted.play(content(BIG, cut=700_001), content(BIG, cut=0), content(BIG, cut=12_345), content(BIG))
    assert await quick.read("/f") == BIG
    assert scripted.seen[0].target == "/v1/files/f"
    assert [seen.target for seen in scripted.seen[1:]] == ["/v1/files/f?revision=9"] * 3
    starts = [seen.headers["Range"] for seen in scripted.seen[1:]]
    assert starts == [f"bytes={700_001}-{len(BIG) - 1}"] * 2 + [f"bytes={712_346}-{len(BIG) - 1}"]


async def test_two_versions_are_never_mixed(scripted: ScriptedServer, quick: AsyncClient, tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"before")
    for call in (quick.read("/f"), quick.get("/f", target)):
        scripted.play(content(BIG, cut=500_000), content(bytes(len(BIG)), etag='"r6"'))
        with pytest.raises(errors.Conflict, match="changed while it was read"):
            await call
    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["f"]


async def test_a_server_that_ignores_ranges_is_found_out(scripted: ScriptedServer, quick: AsyncClient) -> None:
    async def whole(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=BIG, headers={"ETag": '"r5"', "Raftfs-Revision": "9"})

    scripted.play(content(BIG, cut=5), whole)
    with pytest.raises(errors.BadAnswer):
        await quick.read("/f")
    scripted.play(content(BIG, cut=5), content(BIG + b"x"))
    with pytest.raises(errors.BadAnswer, match="another range"):
        await quick.read("/f")


async def test_a_download_that_never_gets_on_is_given_up(scripted: ScriptedServer) -> None:
    scripted.play(content(BIG, cut=5), content(BIG, cut=0))
    async with AsyncClient(scripted.url) as fs:
        with pytest.raises(errors.DeadlineExceeded, match="did not end within"):
            await fs.read("/f", timeout=0.5)
    assert len(scripted.seen) > 1


async def test_a_download_stops_at_the_errors_of_its_server(scripted: ScriptedServer, quick: AsyncClient) -> None:
    scripted.play(content(BIG, cut=5), problem(404, "not_found"))
    with pytest.raises(FileNotFoundError):
        await quick.read("/f")


@pytest.mark.parametrize("trouble", [drop, problem(503, "unavailable"), problem(503, "chunk_unavailable")])
async def test_reads_are_repeated(scripted: ScriptedServer, quick: AsyncClient, trouble: object) -> None:
    scripted.play(trouble, trouble, content(b"here"))  # type: ignore[arg-type]
    assert await quick.read("/f") == b"here"
    assert len(scripted.seen) == 3


async def test_a_file_that_is_open_stays_at_its_version(scripted: ScriptedServer, quick: AsyncClient) -> None:
    scripted.play(content(BIG), content(BIG), content(bytes(len(BIG)), etag='"r6"'))
    async with quick.open("/f", "rb") as file:
        assert await file.read(3) == BIG[:3]
        await file.seek(-3, os.SEEK_END)
        with pytest.raises(errors.Conflict):
            await file.read(3)
    assert [seen.target for seen in scripted.seen[1:]] == ["/v1/files/f?revision=9"] * 2


# Answers that are not raftfs


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/html\r\n\r\n<html",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_what_is_not_raftfs_is_said_to_be_so(scripted: ScriptedServer, quick: AsyncClient, answer: bytes) -> None:
    scripted.play(raw(answer))
    with pytest.raises(errors.BadAnswer, match=scripted.url):
        await quick.cluster_status()
    with pytest.raises(errors.BadAnswer) as caught:
        await quick.write("/f", b"x")
    assert caught.value.outcome == "unknown"
    assert len(scripted.seen) == 2


async def test_a_file_without_its_headers_is_refused(scripted: ScriptedServer, quick: AsyncClient) -> None:
    async def bare(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"hello")

    scripted.play(bare)
    with pytest.raises(errors.BadAnswer):
        await quick.read("/f")
    with pytest.raises(errors.BadAnswer):
        await quick.stat("/f")
