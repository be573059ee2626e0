"""The export: the tree at one revision with what its files consist of, in pages that lose and repeat nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from blake3 import blake3

from raftfs.errors import InvalidRequest, NotFound
from raftfs.state import (
    ChunkRef,
    CommitFile,
    Exported,
    MakeDirectory,
    Remove,
    Rename,
    SetMetadata,
    UploadBegin,
    UploadChunk,
    namespace,
    schema,
)
from raftfs.state.export import Export

from .driver import Driver, chunk

SMALL_PAGES = 1_000


def upload(tree: Driver, path: str, chunks: list[ChunkRef]) -> None:
    begun = tree.do(UploadBegin(path, 3_600_000)).upload
    assert begun is not None
    offset = 0
    for one in chunks:
        assert tree.do(UploadChunk(begun.id, offset, one)).upload is not None
        offset += one.length
    tree.do(CommitFile(path, offset, upload=begun.id))


@pytest.fixture
def tree(driver: Driver) -> Driver:
    driver.do(MakeDirectory("/a"))
    driver.do(SetMetadata("/a", metadata={"owner": "me"}, content_type=None))
    driver.do(MakeDirectory("/a/empty"))
    driver.put("/a/small", b"some bytes", metadata={"k": "v"}, content_type="text/plain")
    driver.put("/a/nothing", b"")
    driver.put("/a-first", b"sorts before what is in /a if paths are compared as text")
    upload(driver, "/large", [chunk(number) for number in range(60)])
    return driver


def everything(tree: Driver, path: str = "/", *, limit: int = 1000, **query: object) -> list[Exported]:
    found: list[Exported] = []
    cursor = None
    while True:
        page = tree.reader.export(path, limit=limit, cursor=cursor, **query)  # type: ignore[arg-type]
        assert len(page.entries) <= limit
        found += page.entries
        cursor = page.next
        if cursor is None:
            return found


def test_it_shows_what_there_is_in_path_order_with_its_digests(tree: Driver) -> None:
    found = everything(tree)
    order = ["/", "/a", "/a/empty", "/a/nothing", "/a/small", "/a-first", "/large"]
    assert [one.stat.path for one in found] == order
    by_path = {one.stat.path: one for one in found}
    assert by_path["/a/small"].chunks == (ChunkRef(blake3(b"some bytes").digest(), 10),)
    assert by_path["/a/nothing"].chunks == ()
    assert by_path["/large"].chunks == tuple(chunk(number) for number in range(60))
    assert by_path["/a"].stat.metadata == {"owner": "me"}
    assert [one.stat for one in found[1:]] == tree.all_entries("/")


def test_bytes_of_small_files_come_only_when_they_are_newer(tree: Driver) -> None:
    assert all(one.data is None for one in everything(tree))
    assert {one.stat.path: one.data for one in everything(tree, since=0) if one.data is not None} == {
        "/a/small": b"some bytes",
        "/a/nothing": b"",
        "/a-first": b"sorts before what is in /a if paths are compared as text",
    }
    since = tree.machine.revision
    tree.put("/a/small", b"changed")
    newer = {one.stat.path for one in everything(tree, since=since) if one.data is not None}
    assert newer == {"/a/small"}


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_all_pages_show_the_revision_of_the_first(tree: Driver, limit: int) -> None:
    before, revision = everything(tree), tree.machine.revision
    page = tree.reader.export("/", limit=limit)
    found = list(page.entries)
    while page.next is not None:
        tree.do(Rename("/a", "/b"))
        tree.put("/b/small", b"other bytes")
        tree.do(Remove("/large"))
        tree.do(Rename("/b", "/a"))
        page = tree.reader.export("/", limit=limit, cursor=page.next)
        assert page.revision == revision
        found += page.entries
    assert found == before == everything(tree, revision=revision)


def test_a_file_with_many_chunks_goes_over_several_pages(tree: Driver) -> None:
    revision = tree.machine.revision
    export = Export("/", None, revision, None, page_bytes=SMALL_PAGES)
    db = schema.open_reader(tree.path)
    top = namespace.find(db, "/")
    assert top is not None
    cursor, pages, parts = None, 0, []
    while True:
        page = export.read(db, top, cursor, 1000)
        pages += 1
        parts += [one for one in page.entries if one.stat.path == "/large"]
        cursor = page.next
        if cursor is None:
            break
    db.close()
    assert pages > 5
    assert [one.more for one in parts] == [True] * (len(parts) - 1) + [False]
    assert [ref for one in parts for ref in one.chunks] == [chunk(number) for number in range(60)]
    assert [one.offset for one in parts] == [
        sum(ref.length for earlier in parts[:number] for ref in earlier.chunks) for number in range(len(parts))
    ]


def test_a_file_or_a_directory_alone(tree: Driver) -> None:
    assert [one.stat.path for one in everything(tree, "/a/small")] == ["/a/small"]
    assert [one.stat.path for one in everything(tree, "/a", limit=1)] == ["/a", "/a/empty", "/a/nothing", "/a/small"]


def test_what_cannot_be_is_refused(tree: Driver) -> None:
    with pytest.raises(NotFound):
        tree.reader.export("/gone", limit=1)
    for limit in (0, 10_001):
        with pytest.raises(InvalidRequest):
            tree.reader.export("/", limit=limit)
    with pytest.raises(InvalidRequest):
        tree.reader.export("/", limit=1, revision=tree.machine.revision + 1)
    of_a_list = tree.reader.list("/", limit=1, recursive=True).next
    of_another = tree.reader.export("/a", limit=1).next
    for cursor in (of_a_list, of_another, "nonsense", ""):
        with pytest.raises(InvalidRequest):
            tree.reader.export("/", limit=1, cursor=cursor)
    ours = tree.reader.export("/", limit=1).next
    with pytest.raises(InvalidRequest):
        tree.reader.list("/", limit=1, recursive=True, cursor=ours)
    with pytest.raises(InvalidRequest):
        tree.reader.export("/", limit=1, cursor=ours, revision=0)


def test_random_histories_are_shown_as_they_were(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with Driver(tmp_path / "random.db") as driver:
        seen = {}
        for step in range(120):
            names = [f"/{dice.choice('abc')}", f"/{dice.choice('abc')}/{dice.choice('xyz')}"]
            commands = [
                MakeDirectory(names[0], exist_ok=True),
                CommitFile(names[1], 4, data=b"%04d" % step, parents=True),
                Rename(dice.choice(names), f"/{dice.choice('abcd')}", replace=True),
                Remove(dice.choice(names), recursive=True),
            ]
            driver.do(dice.choice(commands))
            seen[driver.machine.revision] = everything(driver, since=0)
        for revision, was in seen.items():
            assert everything(driver, revision=revision, since=0, limit=dice.choice([1, 2, 1000])) == was
