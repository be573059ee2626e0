"""What a node says of the chunks it lacks: 0 is a promise that all of them are here."""

from __future__ import annotations

import os

from raftfs import limits

from .trio import Trio

BIG = os.urandom(2 * limits.CHUNK_BYTES + 1)


async def _missing(three: Trio, name: str) -> int | None:
    status = await three.services[name].cluster.status()
    return next(member.missing_chunks for member in status.members if member.id == name)


async def test_chunks_that_no_round_has_looked_at_count_as_missing(three: Trio) -> None:
    assert await _missing(three, "n3") is None
    await three.services["n3"].backfill.round()
    assert await _missing(three, "n3") == 0
    async with three.without("n3"):
        await three.put("/f", BIG)
    three.log.catch_up("n3")
    assert await _missing(three, "n3") == 3  # the log is here, the chunks are not, and no round has seen it
    await three.backfill("n3")
    assert await _missing(three, "n3") == 0
    assert three.digests("n3") == three.digests("n1")


async def test_a_copy_found_damaged_counts_until_all_has_been_looked_at_again(three: Trio) -> None:
    await three.put("/f", BIG)
    await three.services["n1"].backfill.round()
    assert await _missing(three, "n1") == 0
    three.services["n1"].backfill.rescan()
    assert await _missing(three, "n1") == 3
    await three.services["n1"].backfill.round()
    assert await _missing(three, "n1") == 0


async def test_the_complete_index_says_up_to_where_all_is_here(three: Trio) -> None:
    async def complete(name: str) -> int | None:
        status = await three.services["n1"].cluster.status()
        return next(member.complete_index for member in status.members if member.id == name)

    async with three.without("n3"):
        await three.put("/f", BIG)
    three.log.catch_up("n3")
    then = (await three.services["n1"].cluster.status()).applied_index
    assert (await complete("n3") or 0) < then
    await three.backfill("n3")
    await three.put("/g", b"small")  # goes on meanwhile
    assert (await complete("n3") or 0) >= then
