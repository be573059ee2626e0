"""Reading: how current, and whole in spite of missing, damaged and replaced chunks."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from raftfs import errors, limits
from raftfs.chunks import hash_chunk
from raftfs.service import ReadOptions, WriteOptions

from .trio import LINEAR, STALE, Trio, only, pieces, trio, until

CHUNK = limits.CHUNK_BYTES
BIG = os.urandom(2 * CHUNK + 12_345)
FIRST = hash_chunk(BIG[:CHUNK])


async def settled(three: Trio) -> None:
    await until(lambda: all(len(three.digests(name)) == 3 for name in three.names))


async def test_ranges(three: Trio) -> None:
    await three.put("/f", BIG)
    opened = await three.services["n2"].files.open("/f", LINEAR)
    end = len(BIG)
    for start, stop in [
        (0, 0), (0, 1), (0, CHUNK), (1, CHUNK), (CHUNK - 1, CHUNK + 1), (CHUNK, 2 * CHUNK), (CHUNK + 5, CHUNK + 6),
        (10, end), (end - 1, end), (end, end), (2 * CHUNK, end),
    ]:  # fmt: skip
        assert b"".join([piece async for piece in opened.read(start, stop)]) == BIG[start:stop], (start, stop)


async def test_ranges_outside_are_refused(three: Trio) -> None:
    await three.put("/f", b"12345")
    opened = await three.leader.files.open("/f", LINEAR)
    for start, stop in ((-1, 1), (2, 1), (0, 6), (6, 6)):
        with pytest.raises(errors.RangeNotSatisfiable):
            opened.read(start, stop)


async def test_ranges_of_a_small_file(three: Trio) -> None:
    await three.put("/f", b"12345")
    opened = await three.leader.files.open("/f", LINEAR)
    assert [piece async for piece in opened.read(1, 4)] == [b"234"]
    assert [piece async for piece in opened.read(2, 2)] == []


async def test_nothing_and_directories(three: Trio) -> None:
    files = three.leader.files
    await files.make_directory("/d", parents=False, exist_ok=False, write=WriteOptions())
    with pytest.raises(errors.NotFound):
        await files.open("/x", LINEAR)
    with pytest.raises(errors.IsADirectory):
        await files.open("/d", LINEAR)
    with pytest.raises(errors.InvalidPath):
        await files.open("/d/../../etc/passwd", LINEAR)
    page, info = await files.list("/", LINEAR, limit=10, cursor=None, recursive=False, glob=None)
    assert [entry.path for entry in page.entries] == ["/d"]
    assert (info.revision, info.stale, info.age_ms) == (1, False, None)


async def test_a_linearizable_read_on_a_follower_sees_what_it_had_not_applied(three: Trio) -> None:
    three.network.down.add("n3")
    await three.put("/f", b"new")
    three.network.down.clear()
    with pytest.raises(errors.NotFound):
        await three.read("n3", "/f", STALE)
    assert await three.read("n3", "/f") == b"new"


async def test_without_a_quorum_only_stale_reads_are_answered(three: Trio) -> None:
    await three.put("/f", b"data")
    survivor = three.services["n2"].files
    await survivor.stat("/f", STALE)
    three.network.down |= {"n1", "n3"}
    three.clock.advance(3.0)
    with pytest.raises(errors.Unavailable) as caught:
        await survivor.stat("/f", LINEAR)
    assert caught.value.retry_after_s
    _, info = await survivor.stat("/f", STALE)
    assert (info.stale, info.age_ms) == (True, 3000)
    _, info = await survivor.stat("/f", ReadOptions(consistency="bounded", max_staleness_s=3.5))
    assert (info.stale, info.age_ms) == (True, 3000)
    with pytest.raises(errors.Unavailable):
        await survivor.stat("/f", ReadOptions(consistency="bounded", max_staleness_s=2.5))


async def test_a_node_that_never_heard_a_leader_says_so(three: Trio) -> None:
    three.network.down |= {"n1", "n3"}
    survivor = three.services["n2"].files
    _, info = await survivor.stat("/", STALE)
    assert (info.stale, info.age_ms) == (True, None)
    with pytest.raises(errors.Unavailable, match="never"):
        await survivor.stat("/", ReadOptions(consistency="bounded"))


async def test_old_revisions(three: Trio) -> None:
    stat, _ = await three.put("/f", BIG)
    await three.put("/f", b"new")
    assert await three.read("n2", "/f", ReadOptions(revision=stat.revision)) == BIG
    with pytest.raises(errors.InvalidRequest):
        await three.read("n2", "/f", ReadOptions(revision=99))
    with pytest.raises(errors.Unavailable):
        await three.read("n2", "/f", ReadOptions(revision=99, consistency="stale"))


async def test_an_opened_version_survives_replacement_and_removal(three: Trio) -> None:
    await three.put("/f", BIG)
    opened = await three.services["n2"].files.open("/f", LINEAR)
    async with aclosing(opened.read(0, len(BIG))) as stream:
        got = [await anext(stream)]
        await three.put("/f", b"other")
        await three.leader.files.remove("/f", kind="file", recursive=False, if_match=None, write=WriteOptions())
        await three.collect_everything()
        got += [piece async for piece in stream]
    assert b"".join(got) == BIG


async def test_a_missing_chunk_is_fetched_in_mid_read_and_kept(three: Trio) -> None:
    await three.put("/f", BIG)
    await settled(three)
    opened = await three.services["n2"].files.open("/f", LINEAR)
    for digest in three.digests("n2"):
        three.chunk_file("n2", digest).unlink()
    assert b"".join([piece async for piece in opened.read(0, len(BIG))]) == BIG
    assert three.digests("n2") == three.digests("n1")
    assert three.services["n2"].replicas.counters.fetched == 3


async def test_a_damaged_chunk_is_repaired_during_a_read(three: Trio) -> None:
    await three.put("/f", BIG)
    await settled(three)
    three.chunk_file("n2", FIRST).write_bytes(BIG[: CHUNK - 1] + b"?")
    assert await three.read("n2", "/f") == BIG
    assert three.stores["n2"].get(FIRST) == BIG[:CHUNK]
    assert three.services["n2"].replicas.counters.damaged == 1


async def test_a_damaged_chunk_is_not_given_to_a_peer_and_backfill_repairs_both(three: Trio) -> None:
    await three.put("/f", BIG)
    await settled(three)
    for name in ("n1", "n2"):
        three.chunk_file(name, FIRST).write_bytes(b"damaged")
    assert await three.read("n2", "/f") == BIG  # from n3, after n1 found its own damage
    await three.backfill("n1")
    assert three.stores["n1"].get(FIRST) == BIG[:CHUNK]


async def test_a_lying_peer_is_found_out(three: Trio) -> None:
    await three.put("/f", BIG)
    await settled(three)
    three.chunk_file("n2", FIRST).unlink()
    three.network.lie("n1")
    assert await three.read("n2", "/f") == BIG


async def test_a_chunk_that_nobody_has_is_an_error_between_pieces(three: Trio) -> None:
    await three.put("/f", BIG)
    await settled(three)
    last = hash_chunk(BIG[2 * CHUNK :])
    for name in three.names:
        three.chunk_file(name, last).unlink()
    opened = await three.services["n2"].files.open("/f", LINEAR)
    async with aclosing(opened.read(0, len(BIG))) as stream:
        assert await anext(stream) + await anext(stream) == BIG[: 2 * CHUNK]
        with pytest.raises(errors.ChunkUnavailable, match="n1: does not have it"):
            await anext(stream)


async def test_concurrent_readers_share_one_transfer(three: Trio) -> None:
    body = os.urandom(CHUNK)
    await three.put("/f", body)
    await until(lambda: all(three.digests(name) for name in three.names))
    three.chunk_file("n2", only(three.digests("n2"))).unlink()
    before = sum(three.network.requests[name, "chunk.get"] for name in three.names)
    assert await asyncio.gather(*(three.read("n2", "/f") for _ in range(5))) == [body] * 5
    assert sum(three.network.requests[name, "chunk.get"] for name in three.names) == before + 1


async def test_stopping_early_gives_the_read_ahead_back(three: Trio) -> None:
    await three.put("/f", BIG)
    files = three.leader.files
    async with aclosing((await files.open("/f", LINEAR)).read(0, len(BIG))) as stream:
        await anext(stream)
    memory = files._read_memory
    assert memory.needed.used == memory.ahead.used == 0
    assert memory.ahead.most > 0


async def test_chunks_held_for_slow_clients_are_bounded(three: Trio) -> None:
    """Each paused download holds its chunk; when there is no room for one more, it waits, and then is refused."""
    await three.put("/f", BIG)
    files = three.leader.files
    files._read_memory.wait_s = 0.05
    places = limits.READ_BYTES_MAX // CHUNK
    async with AsyncExitStack() as stack:
        for _ in range(places):
            stream = (await files.open("/f", LINEAR)).read(0, len(BIG))
            await stack.enter_async_context(aclosing(stream))
            await anext(stream)
        assert files._read_memory.needed.used + files._read_memory.ahead.used <= (
            limits.READ_BYTES_MAX + limits.READ_AHEAD_BYTES_MAX
        )
        with pytest.raises(errors.Overloaded):
            await three.read("n1", "/f")
    assert await three.read("n1", "/f") == BIG


async def test_a_page_that_a_lagging_node_cannot_show_yet_is_no_mistake_of_the_caller(three: Trio) -> None:
    for name in ("/a", "/b"):
        await three.put(name, b"x")
    three.network.down.add("n3")
    await three.put("/c", b"x")
    page, _ = await three.leader.files.list("/", LINEAR, limit=1, cursor=None, recursive=False, glob=None)
    with pytest.raises(errors.Unavailable):
        await three.services["n3"].files.list("/", STALE, limit=1, cursor=page.next, recursive=False, glob=None)
    three.network.down.clear()
    page, _ = await three.services["n3"].files.list("/", LINEAR, limit=1, cursor=page.next, recursive=False, glob=None)
    assert [entry.path for entry in page.entries] == ["/b"]


async def test_a_list_that_waits_behind_others_ends_by_its_deadline(three: Trio) -> None:
    files, busy = three.leader.files, threading.Event()
    blocker = asyncio.create_task(files._lists.call(lambda _: busy.wait()))
    try:
        with pytest.raises(errors.DeadlineExceeded):
            await files.list("/", ReadOptions(timeout_s=0.05), limit=1, cursor=None, recursive=False, glob=None)
    finally:
        busy.set()
        await blocker


async def test_a_reader_that_waits_for_a_peer_can_be_cancelled(three: Trio) -> None:
    await three.put("/f", BIG)
    await settled(three)
    three.chunk_file("n2", FIRST).unlink()
    three.network.hold("n1", "chunk.get")
    before = three.network.requests["n1", "chunk.get"]
    reading = asyncio.create_task(three.read("n2", "/f"))
    await until(lambda: three.network.requests["n1", "chunk.get"] > before)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    memory = three.services["n2"].files._read_memory
    assert memory.needed.used == memory.ahead.used == 0
    three.network.release("n1", "chunk.get")


async def test_a_single_node_works_alone(tmp_path: Path) -> None:
    async with trio(tmp_path, count=1) as alone:
        await alone.put("/f", pieces(BIG), size=None)
        assert await alone.read("n1", "/f") == BIG
        await alone.backfill("n1")
        assert alone.leader.backfill.missing == 0
