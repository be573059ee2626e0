"""From chunks back to what needs them, whatever was renamed, replaced, copied and removed meanwhile."""

from __future__ import annotations

from raftfs.state import (
    ChunkRef,
    CommitFile,
    Copy,
    Holder,
    MakeDirectory,
    Remove,
    Rename,
    SetMetadata,
    UploadBegin,
    UploadChunk,
)

from .driver import Driver, chunk


def upload(driver: Driver, path: str, *chunks: ChunkRef) -> int:
    """An unfinished upload of these chunks."""
    begun = driver.do(UploadBegin(path, 1_000_000)).upload
    assert begun is not None
    offset = 0
    for ref in chunks:
        driver.do(UploadChunk(begun.id, offset, ref))
        offset += ref.length
    return begun.id


def put(driver: Driver, path: str, *chunks: ChunkRef) -> int:
    """A file of these chunks; its revision."""
    size = sum(ref.length for ref in chunks)
    return driver.do(CommitFile(path, size, upload=upload(driver, path, *chunks), parents=True)).revision


def holders(driver: Driver, *chunks: ChunkRef) -> list[Holder]:
    return driver.reader.holders({ref.digest for ref in chunks})


def test_a_file_is_named_with_what_it_lacks(driver: Driver) -> None:
    revision = put(driver, "/deep/er/f", chunk(1), chunk(2, 50), chunk(3))
    put(driver, "/other", chunk(4))
    driver.put("/inline", b"inline")
    assert holders(driver, chunk(2, 50)) == [Holder("file", "/deep/er/f", 250, revision, 1, 50)]
    assert holders(driver, chunk(1), chunk(3)) == [Holder("file", "/deep/er/f", 250, revision, 2, 200)]
    assert holders(driver, chunk(9)) == []
    assert driver.reader.holders(set()) == []


def test_a_chunk_that_comes_twice_in_a_file_counts_twice(driver: Driver) -> None:
    revision = put(driver, "/f", chunk(1), chunk(2), chunk(1))
    assert holders(driver, chunk(1)) == [Holder("file", "/f", 300, revision, 2, 200)]


def test_files_go_by_the_name_that_they_have_now(driver: Driver) -> None:
    revision = put(driver, "/a/f", chunk(1))
    driver.do(Rename("/a", "/b"))
    driver.do(Rename("/b/f", "/b/g"))
    assert holders(driver, chunk(1)) == [Holder("file", "/b/g", 100, revision, 1, 100)]


def test_copies_and_renames_are_all_found(driver: Driver) -> None:
    first = put(driver, "/f", chunk(1))
    second = driver.do(Copy("/f", "/copy")).revision
    assert holders(driver, chunk(1)) == [
        Holder("file", "/copy", 100, second, 1, 100),
        Holder("file", "/f", 100, first, 1, 100),
    ]


def test_old_versions_go_by_the_name_with_which_they_began(driver: Driver) -> None:
    first = put(driver, "/a/f", chunk(1))
    driver.do(SetMetadata("/a/f", {"k": "v"}))
    tagged = driver.machine.revision
    driver.do(Rename("/a/f", "/a/g"))
    put(driver, "/a/g", chunk(2))
    versions = [Holder("version", "/a/f", 100, revision, 1, 100) for revision in (first, tagged)]
    assert holders(driver, chunk(1)) == versions
    for version in versions:
        assert driver.read(version.path, version.revision) == [chunk(1)], "what is named can be read under that name"


def test_what_was_removed_with_its_directory_is_an_old_version(driver: Driver) -> None:
    revision = put(driver, "/a/b/f", chunk(1))
    driver.do(Remove("/a", recursive=True))
    driver.do(MakeDirectory("/a"))
    assert holders(driver, chunk(1)) == [Holder("version", "/a/b/f", 100, revision, 1, 100)]
    assert driver.read("/a/b/f", revision) == [chunk(1)]


def test_unfinished_uploads_are_found(driver: Driver) -> None:
    upload(driver, "/later", chunk(1), chunk(2))
    assert holders(driver, chunk(2)) == [Holder("upload", "/later", 200, 0, 1, 100)]


def test_the_clock_is_that_of_the_last_command(driver: Driver) -> None:
    assert driver.reader.clock_ms() == 0
    driver.do(MakeDirectory("/d"), at_ms=5_000)
    assert driver.reader.clock_ms() == 5_000
