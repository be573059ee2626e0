"""The chunk store on a real disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from raftfs.chunks import ChunkCorrupt, ChunkMissing, ChunkStore, hash_chunk
from raftfs.errors import DigestMismatch, StorageFull

DATA = os.urandom(100_000)
DIGEST = hash_chunk(DATA)
GRACE_S = 100.0


class Wall:
    """A wall clock that the test turns."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def store(tmp_path: Path, wall: Wall) -> ChunkStore:
    return ChunkStore(tmp_path / "chunks", wall_clock=wall)


def file_of(store_root: Path, digest: bytes) -> Path:
    return store_root / "chunks" / digest.hex()[:2] / digest.hex()


def nothing(digest: bytes) -> bool:
    return False


def test_put_and_get(store: ChunkStore, tmp_path: Path) -> None:
    assert store.put(DIGEST, DATA) is True
    assert store.put(DIGEST, memoryview(bytearray(DATA))) is False
    assert store.get(DIGEST) == DATA
    assert store.has(DIGEST)
    assert list(store.digests()) == [DIGEST]
    assert (store.stats().count, store.stats().bytes) == (1, len(DATA))
    assert file_of(tmp_path, DIGEST).stat().st_mode & 0o777 == 0o600


def test_missing(store: ChunkStore) -> None:
    assert not store.has(DIGEST)
    with pytest.raises(ChunkMissing):
        store.get(DIGEST)


@pytest.mark.parametrize("name", [b"", b"../../etc/passwd", b"x" * 31, b"x" * 33])
def test_only_digests_are_names(store: ChunkStore, name: bytes) -> None:
    with pytest.raises(ValueError):
        store.get(name)


def test_wrong_digest_is_refused_and_leaves_nothing(store: ChunkStore, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch):
        store.put(hash_chunk(b"other"), DATA)
    assert store.stats().count == 0
    assert list((tmp_path / "chunks" / "tmp").iterdir()) == []


def system_calls(work: Callable[[], object]) -> list[str]:
    """Those of its calls that decide about durability, in order; only watched, not replaced."""
    calls: list[str] = []
    watched = {os.write: "write", os.fdatasync: "fdatasync", os.replace: "rename", os.fsync: "fsync"}

    def watch(frame: object, event: str, function: Any) -> None:
        if event == "c_call" and function in watched:
            calls.append(watched[function])

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_bytes_are_durable_before_their_name_and_the_name_before_the_answer(store: ChunkStore) -> None:
    assert system_calls(lambda: store.put(DIGEST, DATA)) == ["write", "fdatasync", "rename", "fsync"]
    assert system_calls(lambda: store.put(DIGEST, DATA)) == []


def test_a_name_that_a_crash_left_in_doubt_is_made_durable_before_the_answer(store: ChunkStore, tmp_path: Path) -> None:
    store.put(DIGEST, DATA)
    again = ChunkStore(tmp_path / "chunks")
    assert system_calls(lambda: again.put(DIGEST, DATA)) == ["fsync"]
    assert system_calls(lambda: again.put(DIGEST, DATA)) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "append"])
def test_damage_is_found_moved_aside_and_repaired_by_put(store: ChunkStore, tmp_path: Path, damage: str) -> None:
    store.put(DIGEST, DATA)
    path = file_of(tmp_path, DIGEST)
    damaged = bytearray(DATA)
    damaged[1234] ^= 1
    path.write_bytes({"flip": bytes(damaged), "truncate": DATA[:-1], "empty": b"", "append": DATA + b"x"}[damage])
    with pytest.raises(ChunkCorrupt):
        store.get(DIGEST)
    assert not store.has(DIGEST)
    assert store.stats().quarantined == 1
    with pytest.raises(ChunkMissing):
        store.get(DIGEST)
    assert store.put(DIGEST, DATA) is True
    assert store.get(DIGEST) == DATA


def test_put_over_a_damaged_file_writes_anew(store: ChunkStore, tmp_path: Path) -> None:
    store.put(DIGEST, DATA)
    file_of(tmp_path, DIGEST).write_bytes(b"damaged")
    assert store.put(DIGEST, DATA) is True
    assert store.get(DIGEST) == DATA
    assert store.stats().quarantined == 1


def test_leftover_temporaries_go_at_start_and_chunks_stay(store: ChunkStore, tmp_path: Path, wall: Wall) -> None:
    store.put(DIGEST, DATA)
    leftover = tmp_path / "chunks" / "tmp" / f"{DIGEST.hex()}.0"
    leftover.write_bytes(b"half")
    again = ChunkStore(tmp_path / "chunks", wall_clock=wall)
    assert not leftover.exists()
    assert again.get(DIGEST) == DATA


def test_collect_takes_old_unreferenced_unpinned_only(store: ChunkStore, wall: Wall) -> None:
    kinds = {name: os.urandom(10) for name in ("garbage", "referenced", "pinned", "young")}
    for name in ("garbage", "referenced", "pinned"):
        store.put(hash_chunk(kinds[name]), kinds[name])
    store.pin(hash_chunk(kinds["pinned"]))
    wall.now_s += GRACE_S + 1
    store.put(hash_chunk(kinds["young"]), kinds["young"])
    report = store.collect(lambda digest: digest == hash_chunk(kinds["referenced"]), GRACE_S, wall.now_s)
    assert (report.deleted, report.deleted_bytes, report.kept) == (1, 10, 3)
    assert not store.has(hash_chunk(kinds["garbage"]))
    store.unpin(hash_chunk(kinds["pinned"]))
    wall.now_s += GRACE_S + 1
    assert store.collect(nothing, GRACE_S, wall.now_s).deleted == 3
    assert store.stats().count == 0


def test_putting_again_starts_the_grace_anew(store: ChunkStore, wall: Wall) -> None:
    store.put(DIGEST, DATA)
    wall.now_s += GRACE_S + 1
    assert store.put(DIGEST, DATA) is False
    assert store.collect(nothing, GRACE_S, wall.now_s).deleted == 0


def test_a_restart_starts_the_grace_anew(store: ChunkStore, tmp_path: Path, wall: Wall) -> None:
    store.put(DIGEST, DATA)
    wall.now_s += GRACE_S + 1
    again = ChunkStore(tmp_path / "chunks", wall_clock=wall)
    assert again.collect(nothing, GRACE_S, wall.now_s).deleted == 0
    wall.now_s += GRACE_S + 1
    assert again.collect(nothing, GRACE_S, wall.now_s).deleted == 1


def test_pins_are_counted(store: ChunkStore, wall: Wall) -> None:
    store.put(DIGEST, DATA)
    store.pin(DIGEST)
    store.pin(DIGEST)
    store.unpin(DIGEST)
    wall.now_s += GRACE_S + 1
    assert store.collect(nothing, GRACE_S, wall.now_s).deleted == 0
    store.unpin(DIGEST)
    assert store.collect(nothing, GRACE_S, wall.now_s).deleted == 1
    with pytest.raises(ValueError):
        store.unpin(DIGEST)


def test_a_put_during_the_collection_of_the_same_chunk_survives(store: ChunkStore, wall: Wall) -> None:
    """The collector has found the chunk old and asks whether it is referenced; a put of it comes in just then."""
    store.put(DIGEST, DATA)
    wall.now_s += GRACE_S + 1
    putters: list[threading.Thread] = []

    def put_meanwhile(digest: bytes) -> bool:
        putter = threading.Thread(target=store.put, args=(digest, DATA))
        putter.start()
        putters.append(putter)
        return False

    store.collect(put_meanwhile, GRACE_S, wall.now_s)
    for putter in putters:
        putter.join()
    assert len(putters) == 1
    assert store.get(DIGEST) == DATA


def test_concurrent_puts_gets_and_collections(store: ChunkStore, wall: Wall) -> None:
    contents = [os.urandom(2000) for _ in range(8)]
    digests = [hash_chunk(data) for data in contents]

    def put(round_number: int) -> None:
        for data, digest in zip(contents, digests, strict=True):
            store.put(digest, data)

    def collect(round_number: int) -> None:
        store.collect(nothing, 0.0, wall.now_s + 1)

    with ThreadPoolExecutor(4) as pool:
        for work in [pool.submit(put if n % 2 else collect, n) for n in range(40)]:
            work.result()
    put(0)
    for data, digest in zip(contents, digests, strict=True):
        assert store.get(digest) == data
    assert store.stats().quarantined == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "raftfs-test", str(where)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs, so a full disk is not tested here: {mounted.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_full_disk(small_disk: Path) -> None:
    store = ChunkStore(small_disk / "chunks")
    big = os.urandom(4 * 1024 * 1024)
    with pytest.raises(StorageFull):
        store.put(hash_chunk(big), big)
    assert list((small_disk / "chunks" / "tmp").iterdir()) == []
    assert not store.has(hash_chunk(big))
    assert store.put(DIGEST, DATA) is True
    assert store.get(DIGEST) == DATA
