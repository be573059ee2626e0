"""Members whose disks are full, on file systems that are really that small."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from raftfs import errors, limits
from raftfs.service import ReadOptions

from .trio import Trio, trio

BIG = os.urandom(limits.CHUNK_BYTES + 1)


@contextmanager
def small_disks(folder: Path, names: set[str]) -> Iterator[None]:
    mounted = []
    try:
        for name in names:
            where = folder / name / "chunks"
            where.mkdir(parents=True)
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=1m", "raftfs-test", str(where)], capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"cannot mount a small tmpfs, so full disks are not tested here: {done.stderr.strip()}")
            mounted.append(where)
        yield
    finally:
        for where in mounted:
            subprocess.run(["umount", str(where)], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


@asynccontextmanager
async def with_full_disks(folder: Path, full: set[str]) -> AsyncIterator[Trio]:
    with small_disks(folder, full):
        async with trio(folder, request_deadline_s=0.5) as three:
            yield three


async def test_a_full_leader_says_so(tmp_path: Path) -> None:
    async with with_full_disks(tmp_path, {"n1"}) as three:
        with pytest.raises(errors.StorageFull) as caught:
            await three.put("/f", BIG)
        assert caught.value.outcome == "not_applied"
        await three.put("/small", b"fits")


async def test_a_full_follower_is_survived(tmp_path: Path) -> None:
    async with with_full_disks(tmp_path, {"n3"}) as three:
        await three.put("/f", BIG)
        assert await three.read("n2", "/f") == BIG
        assert await three.read("n3", "/f") == BIG  # fetched, although it cannot be kept


async def test_a_full_majority_refuses(tmp_path: Path) -> None:
    async with with_full_disks(tmp_path, {"n2", "n3"}) as three:
        with pytest.raises(errors.Unavailable, match="no room") as caught:
            await three.put("/f", BIG)
        assert caught.value.outcome == "not_applied"
        with pytest.raises(errors.NotFound):
            await three.leader.files.stat("/f", ReadOptions())


async def test_a_full_follower_knows_what_it_lacks_and_fetches_it_when_there_is_room(tmp_path: Path) -> None:
    async with with_full_disks(tmp_path, {"n3"}) as three:
        await three.put("/f", BIG)
        three.log.catch_up("n3")
        for _ in range(3):
            await three.services["n3"].backfill.round()
            assert three.services["n3"].backfill.missing
        enlarge(tmp_path / "n3" / "chunks")
        await three.services["n3"].backfill.round()
        assert three.services["n3"].backfill.missing == 0
        assert three.digests("n3") == three.digests("n1")
