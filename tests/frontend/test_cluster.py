"""A frontend before three nodes: what is passed on, and what the client does not notice."""

from __future__ import annotations

import asyncio
import io
import os

import aiohttp
import pytest

from raftfs import AsyncClient
from raftfs.models import ClusterStatus
from raftfs.testing.inprocess import InProcessCluster
from raftfs.versions import FORMAT_VERSION

from .conftest import Open
from .scripted import ScriptedNode, silence


async def put(http: aiohttp.ClientSession, url: str, name: str, data: bytes = b"x", **headers: str) -> int:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    async with http.put(f"{url}/v1/files/{name}", data=io.BytesIO(data), headers=named) as answer:
        await answer.read()
        return answer.status


async def test_everything_goes_through(url: str, http: aiohttp.ClientSession) -> None:
    data = os.urandom(3_000_000)
    assert await put(http, url, "big", data, Content_Type="image/png", Raftfs_Meta_a="b%20c") == 201
    async with http.get(f"{url}/v1/files/big") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
        assert (answer.headers["Raftfs-Meta-a"], answer.content_length) == ("b%20c", len(data))
        assert await answer.read() == data
        tag = answer.headers["ETag"]
    async with http.get(f"{url}/v1/files/big", headers={"Range": "bytes=5-9"}) as answer:
        assert (answer.status, await answer.read()) == (206, data[5:10])
    async with http.get(f"{url}/v1/files/big", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    async with http.head(f"{url}/v1/files/big") as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(data)))
    async with http.post(f"{url}/v1/rename", json={"from": "/big", "to": "/bäg ü"}) as answer:
        assert answer.status == 200
    async with http.get(f"{url}/v1/files/b%C3%A4g%20%C3%BC") as answer:
        assert await answer.read() == data
    async with http.patch(f"{url}/v1/files/b%C3%A4g%20%C3%BC", json={"metadata": {"k": "v"}}) as answer:
        assert (await answer.json())["metadata"] == {"a": "b c", "k": "v"}
    async with http.put(f"{url}/v1/dirs/d") as answer:
        assert answer.status == 201
    async with http.get(f"{url}/v1/dirs/") as answer:
        assert [entry["path"] for entry in (await answer.json())["entries"]] == ["/bäg ü", "/d"]
    async with http.delete(f"{url}/v1/files/b%C3%A4g%20%C3%BC") as answer:
        assert answer.status == 204
    async with http.get(f"{url}/v1/files/none") as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
    async with http.get(f"{url}/v1/cluster") as answer:
        assert len(ClusterStatus.model_validate_json(await answer.read()).members) == 3


async def test_the_leader_is_asked_about_the_cluster(
    cluster: InProcessCluster, http: aiohttp.ClientSession, open_frontend: Open
) -> None:
    """Another node may be one that the others refuse, and know nothing."""
    for leader in ("n1", "n2", "n3"):
        cluster.log.lead(leader)
        async with open_frontend(cluster.urls) as frontend, http.get(f"{frontend.url}/v1/cluster/leader") as answer:
            assert (await answer.json())["node"] == leader


async def test_any_node_takes_any_write(cluster: InProcessCluster, http: aiohttp.ClientSession) -> None:
    for node in cluster.nodes.values():
        assert await put(http, node.url, f"small-{node.id}") == 201
        assert await put(http, node.url, f"big-{node.id}", os.urandom(2_000_000)) == 201
    async with http.get(f"{cluster.urls[2]}/v1/dirs/") as answer:
        assert len((await answer.json())["entries"]) == 6


async def test_forward_never_redirects_to_the_leader(
    cluster: InProcessCluster, url: str, http: aiohttp.ClientSession
) -> None:
    target = "/v1/files/a%20b?parents=true&forward=never"
    for base in (url, cluster.urls[1]):
        async with http.put(base + target, data=b"x", allow_redirects=False) as answer:
            assert answer.status == 307
            assert answer.headers["Location"] == cluster.urls[0] + target
    async with http.put(cluster.urls[0] + target, data=b"x", allow_redirects=False) as answer:
        assert answer.status == 201


async def test_a_forwarded_write_is_not_forwarded_again(cluster: InProcessCluster, http: aiohttp.ClientSession) -> None:
    headers = {"Raftfs-Forwarded": "1"}
    async with http.put(f"{cluster.urls[1]}/v1/files/a", data=b"x", headers=headers) as answer:
        problem = await answer.json()
        assert (answer.status, problem["code"], problem["outcome"]) == (503, "not_leader", "not_applied")
        assert answer.headers["Raftfs-Leader"] == cluster.urls[0]
        assert "Retry-After" in answer.headers


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_the_leader_dies(cluster: InProcessCluster, url: str, http: aiohttp.ClientSession, size: int) -> None:
    assert await put(http, url, "a") == 201
    await cluster.nodes["n1"].stop()
    cluster.log.lead(None)

    async def elect() -> None:
        await asyncio.sleep(0.2)
        cluster.log.lead("n2")

    election = asyncio.create_task(elect())
    assert await put(http, url, "b", os.urandom(size)) == 201
    await election
    assert await put(http, cluster.urls[2], "c", os.urandom(size)) == 201


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_the_leadership_moves(
    cluster: InProcessCluster, url: str, http: aiohttp.ClientSession, size: int
) -> None:
    for leader in ("n1", "n2", "n3", "n1"):
        cluster.log.lead(leader)
        assert await put(http, url, f"to-{leader}", os.urandom(size)) in (200, 201)


async def test_a_lost_answer_is_asked_for_again_and_done_once(
    cluster: InProcessCluster, url: str, http: aiohttp.ClientSession
) -> None:
    cluster.log.forget_answers = 2
    async with http.put(f"{url}/v1/files/a", data=b"x", headers={"If-None-Match": "*"}) as answer:
        assert answer.status == 201
        assert "Idempotent-Replayed" not in answer.headers
    cluster.log.forget_answers = 1
    async with http.delete(f"{url}/v1/files/a") as answer:
        assert answer.status == 204
    cluster.log.forget_answers = 1
    async with http.put(f"{cluster.urls[0]}/v1/files/b", data=b"x") as answer:
        problem = await answer.json()  # at the leader itself there is nobody to add a key
        assert (answer.status, problem["code"], problem["outcome"]) == (504, "unknown_outcome", "unknown")
    cluster.log.forget_answers = 1
    headers = {"Idempotency-Key": "mine"}
    async with http.put(f"{cluster.urls[0]}/v1/files/c", data=b"x", headers=headers) as answer:
        assert (answer.status, answer.headers["Idempotent-Replayed"]) == (201, "true")


async def test_without_a_leader_a_write_ends_by_its_deadline(
    cluster: InProcessCluster, url: str, http: aiohttp.ClientSession
) -> None:
    cluster.log.lead(None)
    for base in (url, cluster.urls[1]):
        for size in (1, 2_000_000):
            headers = {"Raftfs-Timeout": "0.4"}
            async with http.put(f"{base}/v1/files/a", data=io.BytesIO(bytes(size)), headers=headers) as answer:
                problem = await answer.json()
                assert (answer.status, problem["code"], problem["outcome"]) == (503, "unavailable", "not_applied")
                assert "Retry-After" in answer.headers


async def test_one_survivor_answers_stale_reads_and_refuses_the_rest(
    cluster: InProcessCluster, url: str, http: aiohttp.ClientSession
) -> None:
    assert await put(http, url, "a", b"still here") == 201
    await cluster.nodes["n1"].stop()
    await cluster.nodes["n2"].stop()
    for _ in range(4):
        async with http.get(f"{url}/v1/files/a?consistency=stale") as answer:
            assert (answer.status, await answer.read()) == (200, b"still here")
            assert answer.headers["Raftfs-Stale"] == "true"
    headers = {"Raftfs-Timeout": "0.4"}
    async with http.get(f"{url}/v1/files/a", headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (503, "unavailable")
        assert "Retry-After" in answer.headers
    async with http.put(f"{url}/v1/files/a", data=b"y", headers=headers) as answer:
        assert (answer.status, (await answer.json())["outcome"]) == (503, "not_applied")
    async with http.get(f"{url}/v1/cluster") as answer:
        status = ClusterStatus.model_validate_json(await answer.read())
        assert (status.quorum, sum(member.reachable for member in status.members)) == (False, 1)


async def test_a_frozen_leader_is_left_for_the_new_one(
    cluster: InProcessCluster, url: str, http: aiohttp.ClientSession
) -> None:
    """The connection to it stays open and says nothing."""
    assert await put(http, url, "a") == 201
    await cluster.nodes["n1"].stop()
    async with ScriptedNode(silence, port=int(cluster.urls[0].rpartition(":")[2])) as frozen:
        frozen.frozen = True
        cluster.log.lead("n2")
        for size in (10, 2_000_000):
            assert await put(http, url, f"f-{size}", os.urandom(size)) == 201
            assert await put(http, cluster.urls[2], f"n-{size}", os.urandom(size)) == 201
        for _ in range(3):
            async with http.get(f"{url}/v1/files/f-10") as answer:
                assert answer.status == 200


async def test_reads_go_to_all_nodes(cluster: InProcessCluster, url: str, http: aiohttp.ClientSession) -> None:
    assert await put(http, url, "a") == 201
    for _ in range(12):
        async with http.get(f"{url}/v1/files/a") as answer:
            assert answer.status == 200
    for base in cluster.urls:
        async with http.get(f"{base}/metrics") as answer:
            text = await answer.text()
            assert 'raftfs_http_request_seconds_count{method="GET",route="files",status="200"} 4.0' in text


async def test_frontends_that_forward_in_a_circle_are_found_out(
    open_frontend: Open, http: aiohttp.ClientSession
) -> None:
    async with (
        open_frontend(["http://127.0.0.1:1"]) as first,
        open_frontend([first.url]) as second,
        http.get(f"{second.url}/v1/files/a", headers={"Raftfs-Forwarded": "3"}) as answer,
    ):
        assert (answer.status, (await answer.json())["code"]) == (503, "unavailable")


async def test_health_metrics_and_page(cluster: InProcessCluster, url: str, http: aiohttp.ClientSession) -> None:
    for base in (url, *cluster.urls):
        for path in ("/livez", "/readyz"):
            async with http.get(base + path) as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
        async with http.get(f"{base}/readyz?verbose") as answer:
            assert "[+] leader" in await answer.text()
        async with http.get(f"{base}/") as answer:
            page = await answer.text()
            assert "<title>raftfs</title>" in page
            assert "http://" not in page  # it works without outside resources
            assert "https://" not in page
        async with http.get(f"{base}/metrics") as answer:
            assert "raftfs_http_request_seconds_bucket" in await answer.text()
    async with http.get(f"{cluster.urls[0]}/metrics") as answer:
        text = await answer.text()
        for line in (
            "raftfs_raft_is_leader 1.0",
            "raftfs_raft_has_quorum 1.0",
            'raftfs_member_reachable{member="n3"} 1.0',
            f"raftfs_format_version {FORMAT_VERSION}.0",
            f'raftfs_member_format_version_max{{member="n3"}} {FORMAT_VERSION}.0',
        ):
            assert line in text
    cluster.log.lead(None)
    for base in (url, cluster.urls[0]):
        async with http.get(f"{base}/readyz") as answer:
            assert answer.status == 503


async def test_as_much_metadata_as_is_allowed_can_be_read_again(url: str, http: aiohttp.ClientSession) -> None:
    """As %XX it takes three times its length, in one header."""
    metadata = {"k": "é" * 4000}
    async with http.put(f"{url}/v1/files/m", data=b"x") as answer:
        assert answer.status == 201
    async with http.patch(f"{url}/v1/files/m", json={"metadata": metadata}) as answer:
        assert answer.status == 200
    async with AsyncClient(url, deadline_s=5) as client:
        assert (await client.stat("/m")).metadata == metadata
        assert await client.read("/m") == b"x"
