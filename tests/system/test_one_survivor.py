"""One server of three: what it may still say, what it must refuse, and in what time."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from raftfs.testing import LocalCluster

from .clusters import running, settle, wait_until
from .machine import MIB
from .web import ANSWER_S_MAX, Answer, ask, fetch, get, leader_of, put, sha256

DEADLINE_S = 2
SMALL, LARGE = b"small", random.randbytes(5 * MIB)
WRITES: tuple[tuple[str, str, bytes], ...] = (
    ("PUT", "/v1/files/new", b"a new file"),
    ("PUT", "/v1/files/new", LARGE),
    ("PUT", "/v1/files/small", b"replaced"),
    ("DELETE", "/v1/files/small", b""),
    ("PUT", "/v1/dirs/new", b""),
    ("POST", "/v1/rename", b'{"from": "/small", "to": "/other"}'),
    ("POST", "/v1/copy", b'{"from": "/small", "to": "/other"}'),
)
READS: tuple[tuple[str, str, bytes], ...] = (
    ("GET", "/v1/files/small", b""),
    ("GET", "/v1/files/large", b""),
    ("HEAD", "/v1/files/small", b""),
    ("GET", "/v1/files/absent", b""),
    ("GET", "/v1/dirs/", b""),
)


def _leave_one(cluster: LocalCluster) -> str:
    """Kill two, the leader among them; the name of the third, which never leads.

    The follower goes first. If the leader did, the two that are left could elect the third, and it would take writes as
    a leader that only then loses its quorum: their outcome is unknown, and it would be right to say so.
    """
    leader = cluster.leader()
    survivor, other = (node for node in cluster.nodes if node != leader)
    cluster.kill(other)
    cluster.kill(leader)
    # On a starved machine the two may have elected anew before the second kill all the same.
    wait_until("the survivor not to lead", lambda: leader_of(cluster.node_urls[survivor]) != survivor)
    return survivor


def _refused(url: str, request: tuple[str, str, bytes], deadline_s: int | None) -> Answer:
    method, target, body = request
    headers = {} if deadline_s is None else {"Raftfs-Timeout": str(deadline_s)}
    answer = ask(url, method, target, body=body or None, headers=headers, timeout_s=ANSWER_S_MAX)
    assert answer.status == 503, f"{request[:2]}: {answer}"
    assert int(answer.headers["retry-after"]) >= 1
    if method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["status"] == 503
    if method in ("PUT", "POST", "DELETE"):
        assert answer.outcome == answer.json["outcome"] == "not_applied"
    return answer


def _check_refusals(where: dict[str, str], deadline_s: int | None) -> None:
    """All kinds of requests at once, at every door: each is answered 503. A request that hangs ends in a timeout of the
    test's own client, which is an error."""
    todo = [(name, url, request) for name, url in where.items() for request in (*WRITES, *READS)]
    with ThreadPoolExecutor(len(todo)) as pool:
        answers = list(pool.map(lambda one: (one, _refused(one[1], one[2], deadline_s)), todo))
    slowest = max(answers, key=lambda one: one[1].seconds)
    print(
        f"deadline {deadline_s or 'default'}: {len(answers)} requests got 503 with Retry-After; slowest "
        f"{slowest[0][2][0]} {slowest[0][2][1]} through {slowest[0][0]}: {slowest[1].seconds:.2f} s"
    )


def _check_stale(url: str) -> None:
    for path, data in (("/small", SMALL), ("/large", LARGE)):
        answer = get(url, path, "?consistency=stale")
        assert (answer.status, answer.body) == (200, data)
        assert answer.headers["raftfs-stale"] == "true"
        assert int(answer.headers["raftfs-age-ms"]) >= 0
        assert int(answer.headers["raftfs-revision"]) >= 1
    listed = ask(url, "GET", "/v1/dirs/?consistency=stale")
    assert [entry["name"] for entry in listed.json["entries"]] == ["large", "small"]
    assert listed.headers["raftfs-stale"] == "true"
    absent = get(url, "/absent", "?consistency=stale")
    assert absent.status == 404


def test_one_survivor_of_three_and_the_return_of_a_second() -> None:
    with running() as cluster:
        assert put(cluster.url, "/small", SMALL).status == 201
        assert put(cluster.url, "/large", LARGE).status == 201
        settle(cluster)
        survivor = _leave_one(cluster)
        where = {survivor: cluster.node_urls[survivor], "frontend": cluster.url}
        for name, url in where.items():
            _check_stale(url)
            print(f"stale reads through {name} are answered and marked")
        _check_refusals(where, DEADLINE_S)
        _check_refusals(where, None)
        bounded = get(where[survivor], "/small", "?consistency=bounded&max_staleness=0.5", Raftfs_Timeout="2")
        assert bounded.status == 503, str(bounded)
        _check_return(cluster, survivor)


def _check_return(cluster: LocalCluster, survivor: str) -> None:
    second = next(node for node in cluster.nodes if node != survivor)
    cluster.start(second, wait=False)
    wait_until("a write through the frontend", lambda: put(cluster.url, "/back", b"x").status in (200, 201))
    for url in (cluster.url, cluster.node_urls[survivor]):
        answer = get(url, "/small")
        assert (answer.status, answer.body) == (200, SMALL)
        assert "raftfs-stale" not in answer.headers
        assert fetch(url, "/large").sha256 == sha256(LARGE)
        assert get(url, "/new").status == 404
    print(f"service resumed with {survivor} and {second}")


def test_a_request_that_waits_is_served_when_the_quorum_returns_in_time() -> None:
    with running() as cluster:
        assert put(cluster.url, "/f", SMALL).status == 201
        survivor = _leave_one(cluster)
        second = next(node for node in cluster.nodes if node != survivor)
        with ThreadPoolExecutor(2) as pool:
            write = pool.submit(put, cluster.url, "/waiting", b"w", Raftfs_Timeout="50")
            read = pool.submit(get, cluster.url, "/f", Raftfs_Timeout="50")
            cluster.start(second)
            print(f"write: {write.result()}; read: {read.result()}")
            assert write.result().status == 201
            assert read.result().body == SMALL
