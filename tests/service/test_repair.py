"""Backfill, collection, and what the cluster says about itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftfs import errors, limits
from raftfs.chunks import hash_chunk
from raftfs.service import WriteOptions

from .trio import GRACE_S, Trio, trio, until

BIG = os.urandom(2 * limits.CHUNK_BYTES + 1)


async def test_a_node_that_was_away_backfills(three: Trio) -> None:
    async with three.without("n3"):
        await three.put("/f", BIG)
    back = three.services["n3"]
    seen = [back.backfill.missing]
    await back.backfill.round()
    seen.append(back.backfill.missing)
    three.log.catch_up("n3")
    for _ in range(2):
        await back.backfill.round()
        seen.append(back.backfill.missing)
    assert seen == [None, 0, 3, 0]  # not looked yet; not told yet; seen to be missing; fetched
    assert three.digests("n3") == three.digests("n1")


async def test_backfill_goes_on_when_the_peers_are_back(three: Trio) -> None:
    three.network.down.add("n3")
    await three.put("/f", BIG)
    three.log.catch_up("n3")
    await three.backfill("n3")
    assert three.services["n3"].backfill.missing == 3
    three.network.down.clear()
    await three.services["n3"].backfill.round()
    assert three.services["n3"].backfill.missing == 0


async def test_a_chunk_that_no_member_has_any_more_holds_up_nothing(three: Trio) -> None:
    """After a recovery that lost chunks, say: new members could never have them, and would never vote."""
    await three.put("/f", BIG)
    lost = hash_chunk(BIG[-1:])
    for name in three.names[:2]:
        three.chunk_file(name, lost).unlink()
    back = three.services["n1"].backfill
    three.network.down.add("n3")
    await three.backfill("n1")
    assert (back.missing, back.complete_index) == (1, 0), "n3 may have it"
    three.chunk_file("n3", lost).unlink()
    await back.round()
    assert (back.missing, back.complete_index) == (1, 0), "nobody asked n3"
    three.network.down.clear()
    await back.round()
    assert (back.missing, back.complete_index) == (1, three.machines["n1"].applied_index)
    three.stores["n3"].put(lost, BIG[-1:])
    await back.round()
    assert back.missing == 0
    assert lost in three.digests("n1"), "it is looked for ever after"


async def test_backfill_drops_what_is_no_longer_referenced(three: Trio) -> None:
    with pytest.raises(errors.NotFound):
        await three.put("/no/f", BIG)
    await three.services["n3"].backfill.round()
    await three.collect_everything()
    await three.backfill("n3")
    assert three.services["n3"].backfill.missing == 0


async def test_chunks_of_files_are_never_collected(three: Trio) -> None:
    await three.put("/f", BIG)
    await three.collect_everything()
    assert await three.read("n1", "/f") == BIG
    assert len(three.digests("n1")) == 3


async def test_nothing_is_collected_by_a_node_that_may_lag(three: Trio) -> None:
    """It acknowledged a chunk, was cut off before it learned of the file, and stays so for longer than the grace."""
    await three.put("/f", os.urandom(limits.INLINE_BYTES_MAX + 1))
    data = os.urandom(1000)
    three.stores["n3"].put(hash_chunk(data), data)
    three.network.down.add("n3")
    three.clock.advance(GRACE_S + 1)
    with pytest.raises(errors.Unavailable):
        await three.services["n3"].collector.round()
    assert three.stores["n3"].has(hash_chunk(data))


async def test_the_rounds_run_by_themselves(tmp_path: Path) -> None:
    async with trio(tmp_path, backfill_period_s=0.01, collect_period_s=0.01) as three:
        for service in three.services.values():
            await service.start()
        three.network.down.add("n3")
        await three.put("/f", BIG)
        garbage = os.urandom(1000)
        three.stores["n2"].put(hash_chunk(garbage), garbage)
        three.clock.advance(GRACE_S + 1)
        three.network.down.clear()
        await until(
            lambda: three.digests("n3") == three.digests("n1") and not three.stores["n2"].has(hash_chunk(garbage))
        )
        assert await three.read("n3", "/f") == BIG


async def test_status(three: Trio) -> None:
    await three.put("/f", BIG)
    for service in three.services.values():
        await service.backfill.round()
    three.network.down.add("n3")
    status = await three.leader.cluster.status()
    assert status.leader is not None
    assert (status.cluster_id, status.leader.id, status.quorum, status.revision) == ("c", "n1", True, 1)
    assert status.state_hash == three.machines["n1"].state_hash.hex()
    assert [(m.id, m.role, m.reachable) for m in status.members] == [
        ("n1", "leader", True),
        ("n2", "follower", True),
        ("n3", "follower", False),
    ]
    assert [m.lag for m in status.members] == [0, 0, None]
    assert status.members[0].missing_chunks == 0


async def test_readiness(three: Trio) -> None:
    def failing(name: str) -> list[str]:
        return [check for check, passed, _ in three.services[name].cluster.ready() if not passed]

    assert [failing(name) for name in three.names] == [[], [], []]
    three.network.down |= {"n2", "n3"}
    three.clock.advance(60.0)
    assert failing("n1") == ["quorum"]
    assert failing("n2") == ["quorum"]
    three.log.lead(None)
    assert failing("n2") == ["leader", "quorum"]
    assert three.services["n2"].cluster.leader is None


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("chunk.put", b"x"),
        ("chunk.put", b"x" * 32),
        ("chunk.put", b"x" * 100),
        ("chunk.put", hash_chunk(b"") + b""),
        ("chunk.put", bytes(limits.CHUNK_BYTES + 33)),
        ("chunk.have", b"x"),
        ("chunk.have", bytes(32 * (limits.BACKFILL_PAGE_CHUNKS + 1))),
        ("chunk.get", b"../x"),
    ],
)
async def test_garbage_on_the_peer_port_is_refused(tmp_path: Path, kind: str, payload: bytes) -> None:
    async with trio(tmp_path, count=2) as two:
        with pytest.raises(errors.InvalidRequest):
            await two.network.deliver("n1", "n2", kind, payload)
        assert two.digests("n2") == set()


async def test_moved_files_need_no_bytes(three: Trio) -> None:
    await three.put("/f", BIG)
    copies = 2 * len(three.digests("n1"))
    await until(lambda: three.leader.replicas.counters.sent == copies)  # the third copy trails behind the answer
    sent = three.leader.replicas.counters.sent
    await three.leader.files.copy("/f", "/g", replace=False, parents=False, if_match=None, write=WriteOptions())
    assert three.leader.replicas.counters.sent == sent
    assert await three.read("n2", "/g") == BIG
