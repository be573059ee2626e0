"""What a power cut may leave of a disk, and what it must: the model alone, without a kernel."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftfs.testing.powercut.image import ROOT, File, Image

SEEDS = range(200)


def outcomes(image: Image) -> list[dict[str, bytes | None]]:
    """What is left, path by path (None: a directory), for each of many seeds."""
    return [
        {path: None if file is None else bytes(file.data) for path, file in image.survivors(random.Random(seed))}
        for seed in SEEDS
    ]


def put(image: Image, path: str, data: bytes) -> int:
    inode = image.create(path, 0o600, 1)
    image.file(inode).write(data, 0, 1)
    return inode


def put_durably(image: Image, path: str, data: bytes) -> int:
    inode = put(image, path, data)
    image.file(inode).sync(data_only=True)
    image.sync_directory(ROOT)
    return inode


def seen(image: Image, holds: Callable[[dict[str, bytes | None]], bool]) -> int:
    return sum(map(holds, outcomes(image)))


def test_what_is_synced_survives_every_cut() -> None:
    image = Image()
    put_durably(image, "/a", b"synced" * 1000)
    image.make_directory("/d", 0o700, 1)
    image.sync_directory(ROOT)
    assert seen(image, lambda left: left == {"a": b"synced" * 1000, "d": None}) == len(SEEDS)


def test_without_a_sync_of_its_directory_a_synced_file_may_be_gone() -> None:
    image = Image()
    inode = put(image, "/a", b"synced")
    image.file(inode).sync(data_only=False)
    gone = seen(image, lambda left: "a" not in left)
    assert 0 < gone < len(SEEDS)
    assert gone + seen(image, lambda left: left.get("a") == b"synced") == len(SEEDS)


def test_a_name_whose_file_is_not_synced_may_stand_for_less() -> None:
    image = Image()
    put(image, "/a", bytes([1]) * 5000)
    image.sync_directory(ROOT)
    lengths = {len(left["a"] or b"") for left in outcomes(image)}
    assert {0, 5000} < lengths
    # Zeros or garbage, where a file grew and nothing was written to the disk.
    assert seen(image, lambda left: bytes(512) in (left["a"] or b"")) > 0
    assert seen(image, lambda left: bool(set(left["a"] or b"") - {0, 1})) > 0


def test_a_later_write_may_survive_an_earlier_one() -> None:
    image = Image()
    file = image.file(put_durably(image, "/a", bytes(16384)))
    file.write(b"1" * 4096, 0, 2)
    file.write(b"2" * 4096, 8192, 3)
    assert seen(image, lambda left: left["a"][:4096] == bytes(4096) and left["a"][8192:12288] == b"2" * 4096) > 0  # type: ignore[index]
    assert seen(image, lambda left: left["a"][:4096] == b"1" * 4096 and left["a"][8192:12288] == bytes(4096)) > 0  # type: ignore[index]
    assert seen(image, lambda left: left["a"][12288:] == bytes(4096)) == len(SEEDS)  # type: ignore[index]


def test_a_write_is_torn_between_sectors_and_never_within_one() -> None:
    image = Image()
    file = image.file(put_durably(image, "/a", b"0" * 8192))
    file.write(b"1" * 8192, 0, 2)
    torn = 0
    for left in outcomes(image):
        data = left["a"] or b""
        sectors = [data[start : start + 512] for start in range(0, 8192, 512)]
        assert all(sector in (b"0" * 512, b"1" * 512) for sector in sectors)
        torn += len(set(sectors)) == 2
    assert torn > len(SEEDS) / 10


def test_a_truncation_may_not_have_happened() -> None:
    image = Image()
    file = image.file(put_durably(image, "/a", b"0" * 8192))
    file.truncate(100, 2)
    lengths = {len(left["a"] or b"") for left in outcomes(image)}
    assert lengths == {100, 8192}


def test_a_rename_is_undone_or_done_and_its_target_is_never_missing() -> None:
    image = Image()
    put_durably(image, "/a", b"old")
    put_durably(image, "/a.new", b"new")
    image.rename("/a.new", "/a")
    both = [{"a": b"old", "a.new": b"new"}, {"a": b"new"}]
    left = outcomes(image)
    assert all(one in both for one in left)
    assert all(one in left for one in both)
    image.sync_directory(ROOT)
    assert seen(image, lambda left: left == {"a": b"new"}) == len(SEEDS)


def test_a_rename_between_directories_never_loses_the_file() -> None:
    for synced in ("/d", "/", None):
        image = Image()
        put_durably(image, "/a", b"bytes")
        image.make_directory("/d", 0o700, 1)
        image.sync_directory(ROOT)
        image.rename("/a", "/d/b")
        if synced:
            image.sync_directory(image.find(synced))
        assert seen(image, lambda left: "a" in left or "d/b" in left) == len(SEEDS)
        if synced:
            assert seen(image, lambda left: left.get("d/b") == b"bytes") == len(SEEDS)
        assert (seen(image, lambda left: "a" in left) > 0) is (synced != "/")


def test_names_are_lost_in_any_order() -> None:
    image = Image()
    for name in "abc":
        put_durably(image, f"/{name}", b"1")
    for name in "abc":
        image.remove(f"/{name}")
    found = {"".join(sorted(left)) for left in outcomes(image)}
    assert {"", "abc", "bc", "c", "a"} <= found


def test_a_file_that_is_gone_for_good_is_forgotten() -> None:
    image = Image()
    inode = put_durably(image, "/a", b"1")
    image.remove("/a")
    image.collect([])
    assert inode in image.inodes  # the removal may be lost
    image.sync_directory(ROOT)
    image.collect([inode])
    assert inode in image.inodes  # it is open
    image.collect([])
    assert inode not in image.inodes


def test_a_directory_that_is_gone_can_still_come_back_with_what_was_in_it() -> None:
    image = Image()
    image.make_directory("/d", 0o700, 1)
    image.sync_directory(ROOT)
    put(image, "/d/a", b"1")
    image.remove("/d/a")
    image.remove("/d")
    image.collect([])
    assert 0 < seen(image, lambda left: "d/a" in left) < seen(image, lambda left: "d" in left) < len(SEEDS)
    image.sync_directory(ROOT)
    image.collect([])
    assert seen(image, lambda left: left == {}) == len(SEEDS)


def test_one_seed_is_one_outcome(tmp_path: Path) -> None:
    image = Image()
    for number in range(20):
        put(image, f"/{number}", bytes([number]) * 3000)
    trees = [tmp_path / "1", tmp_path / "2", tmp_path / "3"]
    for tree, seed in zip(trees, (7, 7, 8), strict=True):
        image.lose_power(random.Random(seed), tree)
    contents = [{path.name: path.read_bytes() for path in tree.iterdir()} for tree in trees]
    assert contents[0] == contents[1] != contents[2]
    again = Image.load(trees[0])
    assert outcomes(again) == [contents[0]] * len(SEEDS)


WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 6000), st.integers(1, 3000)),
        st.tuples(st.just("truncate"), st.integers(0, 9000), st.just(0)),
        st.tuples(st.just("sync"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


@given(WRITES, st.integers(0, 2**32))
def test_what_survives_of_a_file_is_made_of_what_it_was(steps: list[tuple[str, int, int]], seed: int) -> None:
    """Each sector is as it was at some moment since the sync, or was never written to and lies where the file grew."""
    file = File()
    states = [b""]
    for number, (what, first, second) in enumerate(steps, start=1):
        if what == "write":
            file.write(bytes([number]) * second, first, number)
        elif what == "truncate":
            file.truncate(first, number)
        else:
            file.sync(data_only=True)
            states = []
        states.append(bytes(file.data))
    assert file.durable() == states[0]
    torn = file.torn(random.Random(seed))
    assert min(map(len, states)) <= len(torn) <= max(map(len, states))
    durable = states[0]
    for start in range(0, len(torn), 512):
        sector = torn[start : start + 512]
        past = {state[start : start + len(sector)].ljust(len(sector), b"\0") for state in states}
        assert sector in past or start + 512 > len(durable)


def test_errors_are_those_of_a_file_system() -> None:
    image = Image()
    put(image, "/a", b"1")
    image.make_directory("/d", 0o700, 1)
    put(image, "/d/x", b"1")
    cases: list[tuple[type[OSError], Callable[[], object]]] = [
        (FileNotFoundError, lambda: image.find("/b")),
        (NotADirectoryError, lambda: image.find("/a/b")),
        (FileExistsError, lambda: image.create("/a", 0o600, 1)),
        (IsADirectoryError, lambda: image.file(image.find("/d"))),
        (IsADirectoryError, lambda: image.rename("/a", "/d")),
        (NotADirectoryError, lambda: image.rename("/d", "/a")),
        (FileNotFoundError, lambda: image.rename("/b", "/c")),
        (OSError, lambda: image.remove("/d")),
    ]
    for error, do in cases:
        with pytest.raises(error):
            do()
