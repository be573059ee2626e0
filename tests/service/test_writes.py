"""Writing files: small, large, and all the ways in which it breaks off."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from raftfs import errors, limits
from raftfs.chunks import hash_chunk
from raftfs.service import WriteOptions
from raftfs.service.proposals import REFUSALS
from raftfs.state import Reader
from raftfs.state.commands import Code, Result

from .trio import GRACE_S, LINEAR, STALE, Trio, pieces, trio, until

BIG = os.urandom(2 * limits.CHUNK_BYTES + 12_345)


def test_every_refusal_has_its_error() -> None:
    assert set(REFUSALS) == {code for code in Code if code >= 100}


@pytest.mark.parametrize("size", [0, 1, limits.INLINE_BYTES_MAX, limits.INLINE_BYTES_MAX + 1, limits.CHUNK_BYTES])
@pytest.mark.parametrize("announced", [True, False])
async def test_sizes(three: Trio, size: int, announced: bool) -> None:
    data = os.urandom(size)
    stat, created = await three.put("/f", pieces(data), size=size if announced else None)
    assert (stat.size, created) == (size, True)
    for name in three.names:
        assert await three.read(name, "/f") == data
    assert bool(three.digests("n1")) == (size > limits.INLINE_BYTES_MAX)


async def test_a_large_file_is_on_every_node(three: Trio) -> None:
    stat, _ = await three.put("/a/b", BIG, parents=True, sha256=hashlib.sha256(BIG).digest(), content_type="x/y")
    assert (stat.size, stat.content_type) == (len(BIG), "x/y")
    assert [await three.read(name, "/a/b") for name in three.names] == [BIG] * 3
    await until(lambda: all(len(three.digests(name)) == 3 for name in three.names))
    assert three.leader.uploads.bytes_in_flight == 0


async def test_replacing_says_so(three: Trio) -> None:
    await three.put("/f", b"1")
    stat, created = await three.put("/f", BIG)
    assert (created, stat.size) == (False, len(BIG))


async def test_only_the_leader_writes(three: Trio) -> None:
    for call in (
        three.services["n2"].files.make_directory("/d", parents=False, exist_ok=False, write=WriteOptions()),
        three.services["n2"].files.put(
            "/f", pieces(b"x"), size=1, content_type=None, metadata={}, if_match=None, if_absent=False, parents=False,
            sha256=None, write=WriteOptions(),
        ),
    ):  # fmt: skip
        with pytest.raises(errors.NotLeader) as caught:
            await call
        assert caught.value.outcome == "not_applied"


async def test_one_of_three_down_does_not_matter(three: Trio) -> None:
    three.network.down.add("n3")
    await three.put("/f", BIG)
    assert await three.read("n2", "/f") == BIG
    assert three.digests("n3") == set()


async def test_a_minority_refuses_and_leaves_nothing_visible(tmp_path: Path) -> None:
    async with trio(tmp_path, request_deadline_s=0.2) as three:
        three.network.down |= {"n2", "n3"}
        for body in (b"small", BIG):
            with pytest.raises(errors.Unavailable) as caught:
                await three.put("/f", body)
            assert caught.value.outcome == "not_applied"
            assert caught.value.retry_after_s
        three.network.down.clear()
        with pytest.raises(errors.NotFound):
            await three.services["n1"].files.stat("/f", LINEAR)


async def test_chunks_without_a_majority_are_not_proposed(tmp_path: Path) -> None:
    """The log works, but no peer stores chunks."""
    async with trio(tmp_path, request_deadline_s=0.2) as three:
        for peer in ("n2", "n3"):
            three.network.hold(peer, "chunk.put")
        with pytest.raises(errors.Unavailable, match="durable on 1 members, 2 are needed") as caught:
            await three.put("/f", BIG)
        assert caught.value.outcome == "not_applied"
        for peer in ("n2", "n3"):
            three.network.release(peer, "chunk.put")
        await until(lambda: not three.leader.replicas.counters.sent)
        await assert_all_collected(three)


async def assert_all_collected(three: Trio) -> None:
    """Nothing is visible and, once the abort is through and the grace is over, nothing is stored."""
    with pytest.raises(errors.NotFound):
        await three.leader.files.stat("/f", LINEAR)
    machine = three.machines["n1"]
    await _aborted(three)
    assert machine.revision == 0
    await all_collected(three)
    assert three.leader.uploads.bytes_in_flight == 0
    assert three.leader.uploads.slots.used == 0


async def all_collected(three: Trio) -> None:
    """Collect until nothing is left: a transfer that was under way may still bring a chunk, with its own grace."""
    while any(three.digests(name) for name in three.names):
        await three.collect_everything()
        await asyncio.sleep(0)


async def _aborted(three: Trio) -> None:
    with closing(Reader(three.folder / "n1" / "state.db")) as reader:
        await until(lambda: not reader.has_expired_uploads(10**14))


async def test_a_disconnect_in_mid_body_leaves_nothing(three: Trio) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(BIG):
            yield piece
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await three.put("/f", broken(), size=len(BIG) + 1)
    await assert_all_collected(three)


async def test_cancellation_in_mid_body_leaves_nothing(three: Trio) -> None:
    stalled = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        async for piece in pieces(BIG):
            yield piece
        stalled.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(three.put("/f", stalling(), size=None))
    await stalled.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    await assert_all_collected(three)


@pytest.mark.parametrize("data", [b"small", BIG])
async def test_a_body_of_another_length_is_refused(three: Trio, data: bytes) -> None:
    with pytest.raises(errors.IncompleteBody):
        await three.put("/f", pieces(data), size=len(data) + 1)
    with pytest.raises(errors.InvalidRequest):
        await three.put("/f", pieces(data), size=len(data) - 1)
    await assert_all_collected(three)


@pytest.mark.parametrize("data", [b"small", BIG])
async def test_a_wrong_digest_is_refused(three: Trio, data: bytes) -> None:
    with pytest.raises(errors.DigestMismatch) as caught:
        await three.put("/f", data, sha256=b"\0" * 32)
    assert caught.value.outcome == "not_applied"
    await assert_all_collected(three)


async def test_a_refused_commit_ends_the_upload(three: Trio) -> None:
    with pytest.raises(errors.NotFound):
        await three.put("/no/f", BIG)
    await assert_all_collected(three)


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_commit_that_would_be_refused_is_refused_before_its_bytes(three: Trio, key: str | None) -> None:
    stat, _ = await three.put("/f", b"old")
    await three.leader.files.make_directory("/d", parents=False, exist_ok=False, write=WriteOptions())
    write = WriteOptions(key=key)
    read = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal read
        async for piece in pieces(BIG):
            read += len(piece)
            yield piece

    with pytest.raises(errors.PreconditionFailed):
        await three.put("/f", counted(), size=len(BIG), if_absent=True, write=write)
    if key is None:
        with pytest.raises(errors.PreconditionFailed):
            await three.put("/f", counted(), size=len(BIG), if_match=stat.revision + 5)
        with pytest.raises(errors.PreconditionFailed):
            await three.put("/x", counted(), size=len(BIG), if_match=1)
        with pytest.raises(errors.IsADirectory):
            await three.put("/d", counted(), size=len(BIG))
    assert read < limits.CHUNK_BYTES
    assert three.digests("n1") == set()
    await three.leader.files.remove("/f", kind="file", recursive=False, if_match=None, write=WriteOptions())
    if key is not None:  # a delayed duplicate must not succeed after its client was told of the refusal
        with pytest.raises(errors.PreconditionFailed):
            await three.put("/f", BIG, if_absent=True, write=write)


async def test_the_hint_of_a_leader_that_lags_refuses_nothing(three: Trio) -> None:
    """A new leader has not applied the removal yet; the log knows better."""
    await three.put("/f", b"old")
    three.network.down.add("n2")
    await three.leader.files.remove("/f", kind="file", recursive=False, if_match=None, write=WriteOptions())
    three.network.down.clear()
    three.log.lead("n2")
    await three.put("/f", BIG, if_absent=True)
    assert await three.read("n3", "/f") == BIG


async def test_deduplicated_chunks_survive_the_end_of_the_other_upload(three: Trio) -> None:
    await three.put("/kept", BIG)
    with pytest.raises(errors.DigestMismatch):
        await three.put("/f", BIG, sha256=b"\0" * 32)
    await _aborted(three)
    await three.collect_everything()
    assert await three.read("n1", "/kept") == BIG


async def test_a_chunk_is_not_collected_between_its_put_and_its_proposal(three: Trio) -> None:
    """The body stalls, time passes, every node collects: the upload still becomes a whole file."""
    stalled, go_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield BIG[: limits.CHUNK_BYTES + 1]
        stalled.set()
        await go_on.wait()
        yield BIG[limits.CHUNK_BYTES + 1 :]

    upload = asyncio.create_task(three.put("/f", body(), size=len(BIG)))
    await stalled.wait()
    await until(lambda: len(three.digests("n2")) == 1)
    await three.collect_everything()
    go_on.set()
    await upload
    assert [await three.read(name, "/f") for name in three.names] == [BIG] * 3


async def test_a_clock_that_is_set_makes_no_chunk_old(three: Trio) -> None:
    """The peers' copies are a moment old and not in the log yet; then their wall clocks jump by more than the grace."""
    for name in three.names:
        await three.services[name].collector.round()
    three.clock.advance(GRACE_S + 1)
    data = os.urandom(limits.INLINE_BYTES_MAX + 1)
    three.stores["n2"].put(hash_chunk(data), data)
    three.clock.jump(GRACE_S + 1)
    await three.services["n2"].collector.round()
    assert three.stores["n2"].has(hash_chunk(data))
    three.clock.advance(GRACE_S + 1)
    await three.services["n2"].collector.round()
    assert not three.stores["n2"].has(hash_chunk(data))


async def test_old_acknowledgements_are_not_used(three: Trio) -> None:
    """The peers' answers come when half the grace is over: they may soon be collected, so all are asked again."""
    for peer in ("n2", "n3"):
        three.network.hold(peer, "chunk.put")
    upload = asyncio.create_task(three.put("/f", BIG))
    await until(lambda: three.network.requests["n2", "chunk.put"] >= 2)
    before = three.network.requests["n2", "chunk.put"]
    three.clock.advance(60.0)  # over half of the grace
    for peer in ("n2", "n3"):
        three.network.release(peer, "chunk.put")
    await upload
    assert three.network.requests["n2", "chunk.put"] > before
    assert await three.read("n2", "/f") == BIG


async def test_a_slow_peer_does_not_slow_the_quorum_and_its_bytes_are_bounded(three: Trio) -> None:
    three.network.hold("n3", "chunk.put")
    body = os.urandom(12 * limits.CHUNK_BYTES)
    await three.put("/f", body)
    assert await three.read("n2", "/f") == body
    assert three.network.most_in_flight["n3"] <= limits.PEER_CHUNK_BYTES_IN_FLIGHT_MAX + 4 * 32
    assert three.leader.replicas.counters.skipped > 0
    three.network.release("n3", "chunk.put")
    await until(lambda: three.network.in_flight["n3"] == 0)
    await three.backfill("n3")
    assert three.digests("n3") == three.digests("n1")
    assert three.services["n3"].backfill.missing == 0


async def test_bytes_of_an_upload_in_flight_are_bounded(three: Trio) -> None:
    """Peers that take nothing: the body is read only as far as the budget goes."""
    for peer in ("n2", "n3"):
        three.network.hold(peer, "chunk.put")
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(12 * 16):
            taken += limits.CHUNK_BYTES // 16
            yield b"x" * (limits.CHUNK_BYTES // 16)

    upload = asyncio.create_task(three.put("/f", body(), size=None))
    await until(lambda: three.leader.uploads.bytes_in_flight == limits.UPLOAD_BYTES_IN_FLIGHT_MAX)
    for _ in range(100):
        await asyncio.sleep(0)
    assert taken <= limits.UPLOAD_BYTES_IN_FLIGHT_MAX + limits.CHUNK_BYTES
    for peer in ("n2", "n3"):
        three.network.release(peer, "chunk.put")
    await upload
    assert taken == 12 * limits.CHUNK_BYTES
    assert three.leader.uploads.bytes_in_flight == 0


async def test_slow_uploads_do_not_keep_others_out(three: Trio) -> None:
    """A tree of large files goes out eight at a time; somebody else's file must not wait for all of it."""
    go_on = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield bytes(limits.INLINE_BYTES_MAX + 1)
        await go_on.wait()

    uploads = three.leader.uploads
    tasks = [
        asyncio.create_task(three.put(f"/slow{n}", stalled(), size=None))
        for n in range(limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT)
    ]
    await until(lambda: uploads.slots.used == len(tasks))
    await three.put("/f", BIG, write=WriteOptions(timeout_s=5.0))
    assert uploads.memory.used <= len(tasks) * limits.CHUNK_BYTES
    go_on.set()
    await asyncio.gather(*tasks)
    assert uploads.memory.used == 0
    assert uploads.memory.most <= limits.UPLOADS_BYTES_MAX


async def test_more_uploads_than_places_wait_and_then_are_refused(three: Trio) -> None:
    go_on = asyncio.Event()

    async def slow(n: int) -> AsyncIterator[bytes]:
        yield bytes([n]) * (limits.INLINE_BYTES_MAX + 1)
        await go_on.wait()

    uploads = [asyncio.create_task(three.put(f"/f{n}", slow(n), size=None)) for n in range(limits.UPLOADS_AT_ONCE_MAX)]
    await until(lambda: three.leader.uploads.slots.used == limits.UPLOADS_AT_ONCE_MAX)
    with pytest.raises(errors.Overloaded) as caught:
        await three.put("/late", BIG, write=WriteOptions(timeout_s=0.01))
    assert caught.value.outcome == "not_applied"
    waiting = asyncio.create_task(three.put("/patient", BIG))
    go_on.set()
    await asyncio.gather(*uploads, waiting)
    assert await three.read("n3", "/patient") == BIG


async def test_ack_all_wants_everybody(three: Trio) -> None:
    everybody = WriteOptions(ack="all")
    for body in (b"small", b"", BIG):
        await three.put("/f", body, write=everybody)
        assert await three.read("n3", "/f") == body
    assert three.digests("n3") == three.digests("n1") == three.digests("n2")
    three.network.down.add("n3")
    for body in (b"small 2", BIG[1:]):
        with pytest.raises(errors.Unavailable, match="n3") as caught:
            await three.put("/g", body, write=everybody)
        assert caught.value.outcome == "not_applied"
    with pytest.raises(errors.NotFound):
        await three.leader.files.stat("/g", LINEAR)


@pytest.mark.parametrize("size", [0, 50_000])
async def test_ack_all_wants_the_log_everywhere_too(three: Trio, size: int) -> None:
    """A member that has the chunks but not the entry would not have the file."""
    three.log.slow.add("n3")
    write = WriteOptions(key="k", ack="all", timeout_s=0.1)
    with pytest.raises(errors.Unavailable, match="n3 did not confirm") as caught:
        await three.put("/f", bytes(size), write=write)
    assert caught.value.outcome == "applied"
    with pytest.raises(errors.Unavailable):
        await three.leader.files.remove(
            "/f", kind="file", recursive=False, if_match=None, write=WriteOptions(key="r", ack="all", timeout_s=0.1)
        )
    three.log.slow.clear()
    three.log.catch_up("n3")
    stat, created = await three.put("/f", bytes(size), write=write)
    assert (stat.size, created) == (size, True)


async def test_a_retry_with_its_key_replays_without_its_bytes(three: Trio) -> None:
    seen: list[Result] = []
    write = WriteOptions(key="k", on_result=seen.append)
    first = await three.put("/f", BIG, write=write)
    read = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal read
        async for piece in pieces(BIG):
            read += len(piece)
            yield piece

    again = await three.put("/f", counted(), size=len(BIG), write=write)
    assert again == first
    assert [result.replayed for result in seen] == [False, True]
    assert read < limits.CHUNK_BYTES
    unknown_size = await three.put("/f", pieces(BIG), size=None, write=write)
    assert unknown_size == first
    for path, body in (("/other", BIG), ("/f", BIG + b"x"), ("/f", b"small")):
        with pytest.raises(errors.KeyReused):
            await three.put(path, body, write=write)


async def test_a_lost_answer_is_unknown_and_its_retry_finds_out(three: Trio) -> None:
    three.log.forget_answers = 1
    write = WriteOptions(key="k")
    with pytest.raises(errors.UnknownOutcome) as caught:
        await three.put("/f", b"small", write=write)
    assert caught.value.outcome == "unknown"
    seen: list[Result] = []
    await three.put("/f", b"small", write=WriteOptions(key="k", on_result=seen.append))
    assert seen[0].replayed


async def test_an_unknown_step_before_the_commit_is_not_applied(three: Trio) -> None:
    three.log.forget_answers = 1  # the beginning of the upload
    with pytest.raises(errors.Unavailable) as caught:
        await three.put("/f", BIG)
    assert caught.value.outcome == "not_applied"
    with pytest.raises(errors.NotFound):
        await three.leader.files.stat("/f", STALE)


async def test_two_attempts_with_one_key_at_once(three: Trio) -> None:
    write = WriteOptions(key="k")
    first, second = await asyncio.gather(three.put("/f", BIG, write=write), three.put("/f", BIG, write=write))
    assert first == second
    await _aborted(three)
    assert three.machines["n1"].revision == 1


async def test_an_upload_whose_leader_died_expires(tmp_path: Path) -> None:
    async with trio(tmp_path, upload_expiry_s=10.0) as three:
        stalled = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            async for piece in pieces(BIG):
                yield piece
            stalled.set()
            await asyncio.Event().wait()

        upload = asyncio.create_task(three.put("/f", stalling(), size=None))
        await stalled.wait()
        await until(lambda: len(three.digests("n2")) >= 2)
        three.network.down.add("n1")
        three.log.lead("n2")
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        await three.services["n2"].expiry.round()
        three.clock.advance(11.0)
        await three.services["n2"].expiry.round()
        three.network.down.clear()
        await all_collected(three)


async def test_directories_and_moves(three: Trio) -> None:
    files, write = three.leader.files, WriteOptions()
    assert (await files.make_directory("/d/e", parents=True, exist_ok=False, write=write))[1] is True
    assert (await files.make_directory("/d", parents=False, exist_ok=True, write=write))[1] is False
    await three.put("/d/e/f", BIG)
    moved = await files.rename("/d", "/m", replace=False, parents=False, if_match=None, write=write)
    assert moved.path == "/m"
    copied = await files.copy("/m/e/f", "/copy", replace=False, parents=False, if_match=None, write=write)
    assert copied.size == len(BIG)
    changed = await files.set_metadata("/copy", metadata={"a": "b"}, content_type=None, if_match=None, write=write)
    assert changed.metadata == {"a": "b"}
    with pytest.raises(errors.DirectoryNotEmpty):
        await files.remove("/m", kind="directory", recursive=False, if_match=None, write=write)
    with pytest.raises(errors.InvalidRequest):
        await files.rename("/m", "/m/e/x", replace=False, parents=False, if_match=None, write=write)
    await files.remove("/m", kind="any", recursive=True, if_match=None, write=write)
    assert await three.read("n2", "/copy") == BIG
    with pytest.raises(errors.PreconditionFailed):
        await files.remove("/copy", kind="file", recursive=False, if_match=10**6, write=write)


def test_chunks_are_named_by_content_only() -> None:
    assert hash_chunk(b"x") == hash_chunk(memoryview(b"x")) != hash_chunk(b"y")
