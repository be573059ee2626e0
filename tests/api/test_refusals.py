"""Everything that is refused, with its code; and that nothing is ever answered in plain text."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import aiohttp
import pytest

from raftfs.testing.inprocess import InProcessCluster

from .raw import Answer, raw, read_answer, request


async def ask(url: str, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
    answer = await raw(url, request(method, target, body, **headers))
    assert answer is not None
    return answer


LONG = "x" * 300

REFUSED = [
    ("GET", "/nothing", None, {}, 404, "no_such_route"),
    ("GET", "/v1/files", None, {}, 404, "no_such_route"),
    ("GET", "/v2/files/a", None, {}, 404, "no_such_route"),
    ("OPTIONS", "*", None, {}, 404, "no_such_route"),
    ("POST", "/v1/files/a", b"", {}, 405, "method_not_allowed"),
    ("PURGE", "/v1/files/a", None, {}, 405, "method_not_allowed"),
    ("DELETE", "/v1/cluster", None, {}, 405, "method_not_allowed"),
    # paths
    ("GET", "/v1/files/a/../b", None, {}, 400, "invalid_path"),
    ("GET", "/v1/files/a/%2e%2e/b", None, {}, 400, "invalid_path"),
    ("GET", "/v1/files/a/%2E./b", None, {}, 400, "invalid_path"),
    ("GET", "/v1/files/./b", None, {}, 400, "invalid_path"),
    ("PUT", "/v1/files/../../etc/passwd", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/a%2F..%2Fb", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/a%00b", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/a%FFb", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/a%C0%AEb", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/a%ED%A0%80b", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/100%", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/a#b", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/a//b", b"x", {}, 400, "invalid_path"),
    ("PUT", f"/v1/files/{LONG}", b"x", {}, 400, "invalid_path"),
    ("PUT", "/v1/files/" + "/".join(["y" * 200] * 25), b"x", {}, 400, "invalid_path"),
    ("PUT", f"/v1/dirs/a/{LONG}", b"", {}, 400, "invalid_path"),
    ("GET", "/v1/dirs/a/..", None, {}, 400, "invalid_path"),
    # query
    ("GET", "/v1/files/a?colour=red", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/a?revision=1&revision=2", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/a?revision=-1", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/a?revision=%D9%A1", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/a?revision=99999999999999999999", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/a?consistency=sometimes", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/a?consistency=bounded&max_staleness=nan", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/a?max_staleness=3", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/a?consistency=%FF", None, {}, 400, "invalid_request"),
    ("GET", "/v1/dirs/?limit=0", None, {}, 400, "invalid_request"),
    ("GET", "/v1/dirs/?limit=1000000", None, {}, 400, "invalid_request"),
    ("GET", "/v1/dirs/?recursive=maybe", None, {}, 400, "invalid_request"),
    ("GET", "/v1/dirs/?cursor=garbage", None, {}, 400, "invalid_request"),
    ("PUT", "/v1/files/a?ack=some", b"x", {}, 400, "invalid_request"),
    ("PUT", "/v1/files/a?forward=perhaps", b"x", {}, 400, "invalid_request"),
    ("PUT", "/v1/files/a?recursive=true", b"x", {}, 400, "invalid_request"),
    ("GET", "/v1/cluster?x=1", None, {}, 400, "invalid_request"),
    ("GET", "/metrics?x=1", None, {}, 400, "invalid_request"),
    # headers
    ("GET", "/v1/files/a", None, {"Raftfs_Timeout": "soon"}, 400, "invalid_request"),
    ("GET", "/v1/files/a", None, {"Raftfs_Timeout": "0"}, 400, "invalid_request"),
    ("GET", "/v1/files/a", None, {"Raftfs_Timeout": "inf"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Idempotency_Key": "k" * 256}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Idempotency_Key": ""}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Content_Type": "t" * 256}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Content_Encoding": "gzip"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Content_Range": "bytes 0-0/2"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Repr_Digest": "sha-256=abc"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Repr_Digest": "sha-256=:YWJj:"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Repr_Digest": "sha-512=:YWJj:"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Repr_Digest": "sha-256=:" + "A" * 43 + "=:"}, 400, "digest_mismatch"),
    ("PUT", "/v1/files/a", b"x", {"Raftfs_Meta_a": "%zz"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Raftfs_Meta_a": "%FF"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", b"x", {"Raftfs_Meta_a": "v" * 9000}, 413, "too_large"),
    ("PUT", "/v1/files/a", b"x", {"Raftfs_Forwarded": "many"}, 400, "invalid_request"),
    ("PUT", "/v1/files/a", None, {"Content_Length": str(2**60)}, 413, "too_large"),
    # bodies
    ("PUT", "/v1/dirs/d", b"x", {}, 400, "invalid_request"),
    ("DELETE", "/v1/files/a", b"x", {}, 400, "invalid_request"),
    ("POST", "/v1/rename", b"", {}, 400, "invalid_request"),
    ("POST", "/v1/rename", b"[]", {}, 400, "invalid_request"),
    ("POST", "/v1/rename", b'{"from": "/a"}', {}, 400, "invalid_request"),
    ("POST", "/v1/copy", b'{"from": "/a", "to": "/b", "x": 1}', {}, 400, "invalid_request"),
    ("POST", "/v1/copy", b'{"from": "/../a", "to": "/b"}', {}, 400, "invalid_path"),
    ("POST", "/v1/copy", b'{"from": "/a", "to": "/b", "if_match": 1' + b"0" * 30 + b"}", {}, 400, "invalid_request"),
    ("POST", "/v1/rename", b'{"from": "/a", "to": "/b", "if_match": -1}', {}, 400, "invalid_request"),
    ("PATCH", "/v1/files/file", b"{}", {"If_Match": '"r' + "9" * 19 + '"'}, 412, "precondition_failed"),
    ("GET", "/v1/files/file?revision=9223372036854775807", None, {}, 400, "invalid_request"),
    ("GET", "/v1/files/file?revision=9223372036854775808", None, {}, 400, "invalid_request"),
    ("POST", "/v1/copy", b"{}", {"Content_Type": "text/plain"}, 400, "invalid_request"),
    ("POST", "/v1/copy", b" " * 300_000, {}, 413, "too_large"),
    ("PATCH", "/v1/files/a", b'{"metadata": {"": "x"}}', {}, 400, "invalid_request"),
    ("PATCH", "/v1/files/a", b'{"content_type": "a\\u0000b"}', {}, 400, "invalid_request"),
    # what is not there
    ("GET", "/v1/files/none", None, {}, 404, "not_found"),
    ("HEAD", "/v1/files/none", None, {}, 404, "not_found"),
    ("DELETE", "/v1/files/none", None, {}, 404, "not_found"),
    ("PATCH", "/v1/files/none", b"{}", {}, 404, "not_found"),
    ("GET", "/v1/dirs/none", None, {}, 404, "not_found"),
    ("DELETE", "/v1/dirs/none", None, {}, 404, "not_found"),
    ("PUT", "/v1/files/no/parent", b"x", {}, 404, "not_found"),
    ("POST", "/v1/rename", b'{"from": "/none", "to": "/b"}', {}, 404, "not_found"),
    ("GET", "/v1/files/", None, {}, 409, "is_a_directory"),
    ("GET", "/v1/files/dir", None, {}, 409, "is_a_directory"),
    ("PUT", "/v1/files/dir", b"x", {}, 409, "is_a_directory"),
    ("DELETE", "/v1/files/dir", None, {}, 409, "is_a_directory"),
    ("GET", "/v1/dirs/file", None, {}, 409, "not_a_directory"),
    ("HEAD", "/v1/dirs/file", None, {}, 409, "not_a_directory"),
    ("PUT", "/v1/files/file/below", b"x", {}, 409, "not_a_directory"),
    ("POST", "/v1/rename", b'{"from": "/dir", "to": "/dir/in"}', {}, 400, "invalid_request"),
]


@pytest.fixture
async def furnished(url: str, http: aiohttp.ClientSession) -> str:
    async with http.put(f"{url}/v1/dirs/dir") as answer:
        assert answer.status == 201
    async with http.put(f"{url}/v1/files/file", data=b"0123456789") as answer:
        assert answer.status == 201
    return url


async def test_each_refusal_has_its_code_and_outcome(furnished: str) -> None:
    wrong = []
    for method, target, body, headers, status, code in REFUSED:
        answer = await ask(furnished, method, target, body, **headers)
        problem = {} if method == "HEAD" else answer.problem
        seen = (answer.status, answer.headers.get("raftfs-error"), problem.get("code", code), problem.get("outcome"))
        outcome = "not_applied" if method in ("PUT", "POST", "PATCH", "DELETE") else None
        if seen != (status, code, code, outcome) or (problem and problem["status"] != status):
            wrong.append((method, target[:60], headers, seen, "expected", (status, code, outcome), problem))
    assert not wrong


async def test_an_unknown_parameter_is_named_with_those_that_are_known(url: str) -> None:
    answer = await ask(url, "GET", "/v1/dirs/?lmit=3")
    assert "lmit" in answer.problem["detail"]
    assert "limit" in answer.problem["detail"]


@pytest.mark.parametrize(
    "twice",
    [
        ('If-Match: "r1"', 'If-Match: "r2"'),
        ("Idempotency-Key: a", "idempotency-key: b"),
        ("Repr-Digest: sha-512=:YWJj:", "Repr-Digest: sha-256=:YWJj:"),
    ],
)
async def test_of_two_headers_that_decide_none_is_ignored(furnished: str, twice: tuple[str, str]) -> None:
    head = "\r\n".join(["DELETE /v1/files/file HTTP/1.1", "Host: a", *twice])
    answer = await raw(furnished, head.encode() + b"\r\n\r\n")
    assert answer is not None
    assert (answer.status, answer.problem["code"]) == (400, "invalid_request")
    assert "twice" in answer.problem["detail"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_a_page_of_another_origin_may_not_write(furnished: str, origin: str) -> None:
    move = b'{"from": "/file", "to": "/gone"}'
    answer = await ask(furnished, "POST", "/v1/rename", move, Origin=origin)
    assert (answer.status, answer.problem["code"], answer.problem["outcome"]) == (403, "forbidden", "not_applied")
    answer = await ask(furnished, "POST", "/v1/rename", move, Origin="http://test")
    assert answer.status == 200


async def test_405_says_what_is_allowed(url: str) -> None:
    answer = await ask(url, "POST", "/v1/files/a", b"")
    assert answer.headers["allow"] == "GET, HEAD, PUT, PATCH, DELETE"


BROKEN = [
    b"FROBNICATE /v1/files/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /v1/files/a\xffb HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"GARBAGE\r\n\r\n",
    b"GET /livez HTTP/9.9\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: a\r\nno colon here\r\n\r\n",
    b"PUT /v1/files/a HTTP/1.1\r\nHost: a\r\nContent-Length: minus\r\n\r\n",
    b"PUT /v1/files/a HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"PUT /v1/files/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"PUT /v1/files/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    b"\x00" * 4000,
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
async def test_broken_http_is_answered_with_a_problem_and_closed(url: str, data: bytes) -> None:
    answer = await raw(url, data)
    assert answer is not None
    assert (answer.status, answer.problem["code"]) == (400, "invalid_request")
    assert answer.headers["connection"] == "close"


async def test_a_header_without_end_is_refused_long_before_it_fills_the_memory(url: str) -> None:
    for line in (b"GET /" + b"a" * 4_000_000, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 4_000_000):
        answer = await raw(url, line)
        assert answer is not None
        assert (answer.status, answer.problem["code"]) == (431, "headers_too_large")
    many = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(100_000))
    answer = await raw(url, many)
    assert answer is not None
    assert (answer.status, answer.problem["code"]) in ((431, "headers_too_large"), (400, "invalid_request"))


async def test_a_body_shorter_than_announced_leaves_nothing(url: str, http: aiohttp.ClientSession) -> None:
    head = request("PUT", "/v1/files/a", None, Content_Length="100000")
    answer = await raw(url, head + b"x" * 5000, close=True)
    assert answer is not None
    assert (answer.status, answer.problem["code"], answer.problem["outcome"]) == (400, "incomplete_body", "not_applied")
    big = request("PUT", "/v1/files/a", None, Content_Length="10000000")
    answer = await raw(url, big + b"x" * 5_000_000, close=True)
    assert answer is not None
    assert (answer.status, answer.problem["code"], answer.problem["outcome"]) == (400, "incomplete_body", "not_applied")
    chunked = request("PUT", "/v1/files/a", None, Transfer_Encoding="chunked")
    answer = await raw(url, chunked + b"5\r\nhello\r\n", close=True)
    assert answer is not None
    assert (answer.status, answer.problem["code"]) == (400, "incomplete_body")
    answer = await raw(url, chunked + b"5\r\nhello\r\nZZ\r\n", close=True)
    assert answer is None or answer.status == 400
    async with http.get(f"{url}/v1/files/a") as response:
        assert response.status == 404


async def test_a_client_that_goes_away_in_mid_body_leaves_nothing(
    url: str, cluster: InProcessCluster, http: aiohttp.ClientSession
) -> None:
    parts = urlsplit(url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request("PUT", "/v1/files/a", None, Content_Length="10000000") + b"x" * 6_000_000)
    await writer.drain()
    writer.transport.abort()
    entries = len(cluster.log.entries)
    async with http.get(f"{url}/v1/files/a") as response:
        assert response.status == 404
    async with http.get(f"{url}/v1/dirs/") as response:
        assert (await response.json())["entries"] == []
    assert len(cluster.log.entries) >= entries


async def test_half_closed_clients_get_their_answer(url: str) -> None:
    answer = await raw(url, request("PUT", "/v1/files/a", b"whole"), close=True)
    assert answer is not None
    assert answer.status == 201
    answer = await raw(url, request("GET", "/v1/files/a"), close=True)
    assert answer is not None
    assert answer.body == b"whole"


async def test_a_refused_body_is_not_asked_for(url: str) -> None:
    """A client that waits for 100 Continue is told no before it sends anything."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request("PUT", "/v1/files/a?nonsense=1", None, Content_Length="5", Expect="100-continue"))
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_several_requests_on_one_connection(url: str) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request("PUT", "/v1/files/a", b"x") + request("GET", "/v1/files/a") + request("GET", "/v1/files/../b"))
    answers = [await read_answer(reader) for _ in range(3)]
    assert [answer.status for answer in answers if answer] == [201, 200, 400]
    writer.close()


async def test_an_absolute_target_is_understood(url: str) -> None:
    answer = await ask(url, "GET", f"{url}/v1/files/none")
    assert (answer.status, answer.problem["code"]) == (404, "not_found")
