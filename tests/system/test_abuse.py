"""Clients that vanish, lie, or are no clients at all: each gets a clear error or a closed connection, nothing half sent
is visible, and soon after nothing is left of it, on disk, in the log, in memory or among the open files."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from raftfs.testing import LocalCluster

from .clusters import CALM, running, settle, wait_until
from .machine import MIB, Footprint, memory_bytes, orphans, servers
from .web import abandon, address_of, ask, blocks, get, put, raw, status_of

GIB = 1024 * MIB
ANNOUNCED_BYTES, SENT_BYTES = 24 * MIB, 13 * MIB
MEMORY_GROWTH_BYTES_MAX = 48 * MIB
OPEN_FILES_MORE_MAX = 6
"""Connections between the servers come and go; a leak grows with the number of requests and goes beyond this."""

Door = str


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(**CALM, chunk_grace_s=1.0, upload_expiry_s=5.0) as cluster:
        for url in [cluster.url, *cluster.node_urls.values()]:
            # Everybody has met everybody, so that what is open from here on is open for a reason.
            assert put(url, "/kept", random.randbytes(5 * MIB)).status in (200, 201)
            assert get(url, "/kept").status == 200
            assert put(url, "/small", b"0123456789").status in (200, 201)
        yield cluster


@pytest.fixture
def doors(cluster: LocalCluster) -> dict[Door, str]:
    leader = cluster.leader()
    follower = next(node for node in cluster.nodes if node != leader)
    return {
        "frontend": cluster.url,
        "leader": cluster.node_urls[leader],
        "follower": cluster.node_urls[follower],
    }


@contextmanager
def _leaves_nothing(cluster: LocalCluster) -> Iterator[None]:
    """That the servers live on, under the same leader, and come back to what they held before."""
    settle(cluster)
    before, pids, term = Footprint.of(cluster), servers(cluster), status_of(cluster.node_urls["n1"])["term"]
    yield
    assert servers(cluster) == pids, "a server ended"
    after: list[Footprint] = []

    def as_before() -> bool:
        after[:] = [Footprint.of(cluster)]
        return _is_as_before(before, after[0])

    try:
        wait_until("nothing to be left", as_before)
    finally:
        print(f"before: {before}\nafter:  {after[0]}")
    view = status_of(cluster.node_urls["n1"])
    assert view["term"] == term, "the leader lost its place"
    assert put(cluster.url, "/still", b"alive").status in (200, 201)


def _is_as_before(before: Footprint, now: Footprint) -> bool:
    return (
        now.chunks == before.chunks
        and not any(now.temporary.values())
        and not any(now.uploads.values())
        and all(now.files[name] <= before.files[name] + OPEN_FILES_MORE_MAX for name in before.files)
    )


def test_what_is_left_behind_is_seen(cluster: LocalCluster) -> None:
    """Each kind of leftover, planted in turn."""
    before = Footprint.of(cluster)
    assert _is_as_before(before, before)
    for planted in (
        replace(before, chunks={**before.chunks, "n2": before.chunks["n2"] | {"00" * 32}}),
        replace(before, chunks={**before.chunks, "n2": frozenset()}),
        replace(before, temporary={**before.temporary, "n3": ["left"]}),
        replace(before, uploads={**before.uploads, "n1": 1}),
        replace(before, files={**before.files, "frontend": before.files["frontend"] + 10}),
    ):
        assert not _is_as_before(before, planted)


def _absent(cluster: LocalCluster, path: str) -> None:
    for name, url in {"frontend": cluster.url, **cluster.node_urls}.items():
        assert get(url, path).status == 404, f"{path} is visible through {name}"


def _head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"PUT /v1/files{path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def _chunked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


def test_clients_that_vanish_in_the_middle_of_an_upload(cluster: LocalCluster, doors: dict[Door, str]) -> None:
    paths = []
    with _leaves_nothing(cluster):
        for door, url in doors.items():
            for size in (1000, 500_000, SENT_BYTES):
                path = f"/gone-{door}-{size}"
                body = list(blocks(size, secrets.token_bytes(MIB)))
                abandon(address_of(url), [_head(path, f"Content-Length: {ANNOUNCED_BYTES}"), *body])
                abandon(address_of(url), [_head(path + "-c", "Transfer-Encoding: chunked"), *_chunked(body)])
                paths += [path, path + "-c"]
            # Seen once, so that it is known that there was something to clean up.
            wait_until(
                "chunks of an abandoned upload", lambda: any(orphans(cluster.data_dir(n)) for n in cluster.nodes)
            )
        for path in paths:
            _absent(cluster, path)
    for path in paths:
        _absent(cluster, path)


def test_bodies_that_end_early(cluster: LocalCluster, doors: dict[Door, str]) -> None:
    with _leaves_nothing(cluster):
        for door, url in doors.items():
            for size in (0, 1000, 500_000, SENT_BYTES):
                path = f"/short-{door}-{size}"
                pieces = [
                    _head(path, f"Content-Length: {ANNOUNCED_BYTES}"),
                    *blocks(size, secrets.token_bytes(MIB)),
                ]
                said = raw(address_of(url), pieces, finish=True)
                print(f"{door}: {size} of {ANNOUNCED_BYTES} bytes: {said.status}, closed: {said.closed}")
                assert said.closed
                assert said.status in (400, None)
                if said.status is not None:
                    assert b"incomplete_body" in said.received
                _absent(cluster, path)


def test_a_chunked_body_that_breaks_its_own_rules(cluster: LocalCluster, doors: dict[Door, str]) -> None:
    with _leaves_nothing(cluster):
        for url in doors.values():
            for broken in (
                b"zz\r\nabc\r\n",
                b"5\r\nabcdefgh\r\n",
                b"-5\r\nabc\r\n",
                b"ffffffffffffffffffff\r\nabc\r\n",
            ):
                start = _chunked(blocks(SENT_BYTES, secrets.token_bytes(MIB)))
                said = raw(
                    address_of(url), [_head("/broken", "Transfer-Encoding: chunked"), *start, broken], finish=True
                )
                assert said.closed
                assert said.status in (400, None), said.received[:500]
        _absent(cluster, "/broken")


BAD_PATHS = {
    "dots": "/a/../b",
    "escaped dots": "/a/%2e%2E/b",
    "dots at the end": "/a/..",
    "one dot": "/a/./b",
    "NUL": "/a%00b",
    "bad UTF-8": "/a%ff%feb",
    "overlong UTF-8": "/a%c0%afb",
    "surrogate": "/a%ed%a0%80b",
    "300-byte component": "/" + "x" * 300,
    "300-byte component of multi-byte letters": "/" + "%C3%A9" * 150,
    "long path": "/" + "/".join(["x" * 200] * 22),
    "broken escape": "/a%zzb",
}


@pytest.mark.parametrize("name", BAD_PATHS)
def test_bad_paths(cluster: LocalCluster, doors: dict[Door, str], name: str) -> None:
    path = BAD_PATHS[name]
    for door, url in doors.items():
        for method in ("PUT", "GET", "DELETE"):
            answer = ask(url, method, f"/v1/files{path}", body=b"x" if method == "PUT" else None)
            assert (answer.status, answer.code) == (400, "invalid_path"), f"{method} through {door}: {answer}"
        body = b'{"from": "/small", "to": "/a/../b"}'
        assert ask(url, "POST", "/v1/rename", body=body).code == "invalid_path"


def test_raw_bytes_in_a_path(cluster: LocalCluster, doors: dict[Door, str]) -> None:
    with _leaves_nothing(cluster):
        for url in doors.values():
            for path in (b"/a\xff\xfe", b"/a\x00b", b"/a\x7fb", b"/a b"):
                request = b"PUT /v1/files" + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
                said = raw(address_of(url), [request], finish=True)
                assert said.closed
                assert said.status in (400, None), said.received[:500]
    names = [entry["name"] for entry in ask(cluster.url, "GET", "/v1/dirs/").json["entries"]]
    assert names == ["kept", "small", "still"]


ENDLESS = {
    "one header": (b"GET /v1/files/small HTTP/1.1\r\nHost: x\r\nX-Endless: ", b"a" * 65536),
    "many headers": (b"GET /v1/files/small HTTP/1.1\r\nHost: x\r\n", b"X-More: and more and more\r\n" * 2000),
    "request line": (b"GET /v1/files/", b"a" * 65536),
    "method": (b"", b"A" * 65536),
    "trailer": (_head("/x", "Transfer-Encoding: chunked") + b"0\r\nX: ", b"a" * 65536),
}


def _slowly(start: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    """The start alone first, so that the server may be at work on it when the rest comes."""
    yield start
    time.sleep(0.1)
    yield from rest


@pytest.mark.parametrize("name", ENDLESS)
def test_a_gigabyte_of_header(cluster: LocalCluster, doors: dict[Door, str], name: str) -> None:
    start, block = ENDLESS[name]
    with _leaves_nothing(cluster):
        before = {server: memory_bytes(pid, "VmRSS") for server, pid in servers(cluster).items()}
        for door, url in doors.items():
            told = raw(address_of(url), [start, block])
            assert told.closed
            assert told.status in (400, 431), told.received[:500]
            said = raw(address_of(url), _slowly(start, blocks(GIB, block)))
            print(f"{door}: cut off after {said.sent / MIB:.1f} of 1024 MiB, answer {said.status}")
            assert said.closed
            assert said.sent < GIB // 4
            assert said.status in (400, 431, None)
        grown = {server: memory_bytes(pid, "VmRSS") - before[server] for server, pid in servers(cluster).items()}
        print(f"memory grew by (MiB): { {server: round(more / MIB, 1) for server, more in grown.items()} }")
        assert max(grown.values()) < MEMORY_GROWTH_BYTES_MAX


def test_bad_ranges(doors: dict[Door, str]) -> None:
    for url in doors.values():
        for bad in ("bytes=abc", "bytes=5-2", "bytes=--3", "bytes", "bytes=", "bytes=1-2-3"):
            assert get(url, "/small", Range=bad).code == "invalid_request", bad
        for outside in ("bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999999999999999999-"):
            answer = get(url, "/small", Range=outside)
            assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10"), outside
        assert get(url, "/small", Range="bytes=8-99").body == b"89"


def test_unknown_parameters(cluster: LocalCluster, doors: dict[Door, str]) -> None:
    for url in doors.values():
        for method, target in (
            ("GET", "/v1/files/small?consistancy=stale"),
            ("GET", "/v1/files/small?consistency=sometimes"),
            ("GET", "/v1/files/small?revision=1&revision=2"),
            ("PUT", "/v1/files/unknown?acks=all"),
            ("DELETE", "/v1/files/small?recursive=true"),
            ("GET", "/v1/dirs/?limit=-1"),
            ("GET", "/v1/cluster?x=1"),
        ):
            answer = ask(url, method, target, body=b"x" if method == "PUT" else None)
            assert (answer.status, answer.code) == (400, "invalid_request"), f"{target}: {answer}"
    _absent(cluster, "/unknown")


GARBAGE = {
    "noise": secrets.token_bytes(100_000),
    "zeros": bytes(1_000_000),
    "TLS hello": bytes.fromhex("16030100c8010000c40303") + secrets.token_bytes(200),
    "a length beyond all bounds": b"\xff" * 64,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
    "length and chunks": b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
    b"\r\n1\r\nx\r\n0\r\n\r\n",
    "negative length": b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nx",
    "length that is no number": b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\nx",
    "half a request": b"GET /v1/files/sm",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_client_port(cluster: LocalCluster, doors: dict[Door, str], name: str) -> None:
    with _leaves_nothing(cluster):
        for _ in range(10):
            for url in doors.values():
                said = raw(address_of(url), [GARBAGE[name]], finish=True)
                assert said.closed
                assert said.status is None or 400 <= said.status < 500, said.received[:300]
        _absent(cluster, "/x")


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_peer_port(cluster: LocalCluster, name: str) -> None:
    peers = [address_of("http://" + member["peer"]) for member in status_of(cluster.node_urls["n1"])["members"]]
    with _leaves_nothing(cluster):
        for _ in range(10):
            for peer in peers:
                said = raw(peer, [GARBAGE[name]], finish=True)
                assert said.closed
        for peer in peers:
            said = raw(peer, blocks(64 * MIB, GARBAGE[name] * 10))
            assert said.closed
            assert len(said.received) < 1000


def test_silence_on_the_peer_port(cluster: LocalCluster) -> None:
    peers = [address_of("http://" + member["peer"]) for member in status_of(cluster.node_urls["n1"])["members"]]
    with _leaves_nothing(cluster):
        begun = time.monotonic()
        with ThreadPoolExecutor(len(peers)) as pool:
            exchanges = list(pool.map(lambda peer: raw(peer, [], wait_s=30), peers))
        assert all(exchange.closed for exchange in exchanges), "a stranger who says nothing is not let go"
        print(f"{len(peers)} silent strangers were let go within {time.monotonic() - begun:.1f} s")
