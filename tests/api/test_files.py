"""Files and directories through the API: the shapes, the headers, the bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from raftfs.limits import CHUNK_BYTES
from raftfs.models import Entry, EntryList
from raftfs.testing.inprocess import InProcessCluster


async def test_a_file_is_put_read_replaced_and_removed(url: str, http: aiohttp.ClientSession) -> None:
    async with http.put(f"{url}/v1/files/a.txt", data=b"one", headers={"Content-Type": "text/plain"}) as answer:
        assert answer.status == 201
        first = Entry.model_validate_json(await answer.read())
        assert answer.headers["ETag"] == f'"r{first.revision}"'
        assert answer.headers["Raftfs-Revision"] == str(first.revision)
        assert (first.path, first.name, first.type, first.size) == ("/a.txt", "a.txt", "file", 3)
    async with http.get(f"{url}/v1/files/a.txt") as answer:
        assert (answer.status, await answer.read()) == (200, b"one")
        assert answer.headers["Content-Type"] == "text/plain"
        assert answer.headers["ETag"] == f'"r{first.revision}"'
        assert "Last-Modified" in answer.headers
        assert "Raftfs-Stale" not in answer.headers
    async with http.put(f"{url}/v1/files/a.txt", data=b"twelve bytes") as answer:
        assert answer.status == 200
        second = Entry.model_validate_json(await answer.read())
        assert second.revision > first.revision
    async with http.head(f"{url}/v1/files/a.txt") as answer:
        assert answer.headers["Content-Length"] == "12"
        assert answer.headers["Raftfs-Type"] == "file"
    async with http.get(f"{url}/v1/files/a.txt?revision={first.revision}") as answer:
        assert await answer.read() == b"one"
    async with http.delete(f"{url}/v1/files/a.txt") as answer:
        assert (answer.status, await answer.read()) == (204, b"")
        assert int(answer.headers["Raftfs-Revision"]) > second.revision
    async with http.get(f"{url}/v1/files/a.txt") as answer:
        assert answer.status == 404
        assert (await answer.json())["code"] == "not_found"


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 32 * 1024 + 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 12345])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bytes_come_back_as_they_went(url: str, http: aiohttp.ClientSession, size: int, chunked: bool) -> None:
    data = os.urandom(size)
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 300_000):
            yield data[at : at + 300_000]

    body = pieces() if chunked else io.BytesIO(data)
    async with http.put(f"{url}/v1/files/b", data=body, headers={"Repr-Digest": f"sha-256=:{digest}:"}) as answer:
        assert answer.status == 201, await answer.text()
        assert (await answer.json())["size"] == size
    async with http.get(f"{url}/v1/files/b") as answer:
        assert answer.content_length == size
        assert await answer.read() == data


async def test_metadata_travels_in_headers_and_patches(url: str, http: aiohttp.ClientSession) -> None:
    headers = {"Raftfs-Meta-owner": "J%C3%BCrgen%20M", "Raftfs-Meta-%43olor": "red", "Raftfs-Meta-plain": "a b;c"}
    async with http.put(f"{url}/v1/files/m", data=b"x", headers=headers) as answer:
        assert (await answer.json())["metadata"] == {"owner": "Jürgen M", "Color": "red", "plain": "a b;c"}
    patch = {"metadata": {"plain": None, "ключ": "значение"}, "content_type": "text/csv"}
    async with http.patch(f"{url}/v1/files/m", json=patch) as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["metadata"] == {"owner": "Jürgen M", "Color": "red", "ключ": "значение"}
    async with http.head(f"{url}/v1/files/m") as answer:
        assert answer.headers["Content-Type"] == "text/csv"
        assert answer.headers["Raftfs-Meta-%43olor"] == "red"
        assert answer.headers["Raftfs-Meta-owner"] == "J%C3%BCrgen%20M"


async def test_directories(url: str, http: aiohttp.ClientSession) -> None:
    async with http.put(f"{url}/v1/dirs/d") as answer:
        assert answer.status == 201
        assert Entry.model_validate_json(await answer.read()).type == "directory"
    async with http.put(f"{url}/v1/dirs/d") as answer:
        assert answer.status == 200
    for name in ("x", "y", "z"):
        async with http.put(f"{url}/v1/files/d/sub/{name}?parents=true", data=name.encode()) as answer:
            assert answer.status == 201
    async with http.get(f"{url}/v1/dirs/d/sub?limit=2") as answer:
        page = EntryList.model_validate_json(await answer.read())
        assert [entry.name for entry in page.entries] == ["x", "y"]
        assert answer.headers["Raftfs-Revision"]
    async with http.get(f"{url}/v1/dirs/d/sub", params={"limit": "2", "cursor": page.next or ""}) as answer:
        rest = EntryList.model_validate_json(await answer.read())
        assert [entry.name for entry in rest.entries] == ["z"]
        assert rest.next is None
    async with http.get(f"{url}/v1/dirs/?recursive=true&glob=**/y") as answer:
        assert [entry["path"] for entry in (await answer.json())["entries"]] == ["/d/sub/y"]
    async with http.get(f"{url}/v1/dirs") as answer:
        assert [entry["path"] for entry in (await answer.json())["entries"]] == ["/d"]
    for route in ("dirs", "files"):
        async with http.head(f"{url}/v1/{route}/d") as answer:
            assert (answer.status, answer.headers["Raftfs-Type"]) == (200, "directory")
    async with http.delete(f"{url}/v1/dirs/d") as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "directory_not_empty")
    async with http.delete(f"{url}/v1/dirs/d?recursive=true") as answer:
        assert answer.status == 204


async def test_rename_and_copy(url: str, http: aiohttp.ClientSession) -> None:
    async with http.put(f"{url}/v1/files/a", data=b"abc") as answer:
        assert answer.status == 201
    async with http.post(f"{url}/v1/copy", json={"from": "/a", "to": "/b"}) as answer:
        assert (answer.status, (await answer.json())["path"]) == (200, "/b")
    async with http.post(f"{url}/v1/rename", json={"from": "/a", "to": "/b"}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "already_exists")
    async with http.post(f"{url}/v1/rename", json={"from": "/a", "to": "/b", "replace": True}) as answer:
        assert answer.status == 200
    async with http.post(f"{url}/v1/rename", json={"from": "/b", "to": "/new/c", "parents": True}) as answer:
        assert answer.status == 200
    async with http.get(f"{url}/v1/files/new/c") as answer:
        assert await answer.read() == b"abc"


async def test_a_repeated_key_is_answered_as_the_first_time(url: str, http: aiohttp.ClientSession) -> None:
    headers = {"Idempotency-Key": "k1"}
    async with http.put(f"{url}/v1/files/a", data=b"x", headers=headers) as answer:
        assert (answer.status, "Idempotent-Replayed" in answer.headers) == (201, False)
        first = await answer.read()
    async with http.put(f"{url}/v1/files/a", data=b"x", headers=headers) as answer:
        assert (answer.status, answer.headers["Idempotent-Replayed"]) == (201, "true")
        assert await answer.read() == first
    async with http.put(f"{url}/v1/files/a", data=b"longer", headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (422, "idempotency_key_reused")
    headers = {"Idempotency-Key": "k2"}
    for replayed in (False, True):
        async with http.delete(f"{url}/v1/files/a", headers=headers) as answer:
            assert (answer.status, "Idempotent-Replayed" in answer.headers) == (204, replayed)


@pytest.mark.parametrize("consistency", ["bounded", "stale"])
async def test_weaker_reads_are_marked(url: str, http: aiohttp.ClientSession, consistency: str) -> None:
    async with http.put(f"{url}/v1/files/a", data=b"x") as answer:
        assert answer.status == 201
    async with http.get(f"{url}/v1/files/a?consistency={consistency}") as answer:
        assert (await answer.read(), answer.headers["Raftfs-Stale"]) == (b"x", "true")
        assert int(answer.headers["Raftfs-Age-Ms"]) >= 0


async def test_a_client_that_waits_for_100_continue_gets_it(url: str, http: aiohttp.ClientSession) -> None:
    async with http.put(f"{url}/v1/files/a", data=io.BytesIO(os.urandom(2_000_000)), expect100=True) as answer:
        assert answer.status == 201
    async with http.put(f"{url}/v1/files/b", data=b"small", expect100=True) as answer:
        assert answer.status == 201


async def test_a_stored_page_cannot_act_as_this_origin(url: str, http: aiohttp.ClientSession) -> None:
    async with http.put(f"{url}/v1/files/a", data=b"<script>", headers={"Content-Type": "text/html"}) as answer:
        assert answer.status == 201
    async with http.get(f"{url}/v1/files/a") as answer:
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_read_that_waits_for_a_frozen_peer_ends_by_its_deadline(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with InProcessCluster(tmp_path, nodes=3) as cluster:
        async with http.put(f"{cluster.urls[0]}/v1/files/f", data=os.urandom(50_000)) as answer:
            assert answer.status == 201
        for file in (tmp_path / "n1" / "chunks").glob("??/*"):
            file.unlink()
        for peer in ("n2", "n3"):
            cluster.network.hold(peer, "chunk.get")
        async with http.get(f"{cluster.urls[0]}/v1/files/f", headers={"Raftfs-Timeout": "0.2"}) as answer:
            assert (answer.status, answer.headers["Raftfs-Error"]) == (504, "deadline_exceeded")
        for peer in ("n2", "n3"):
            cluster.network.release(peer, "chunk.get")
