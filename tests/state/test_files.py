"""Making directories, committing files, removing, and metadata: what they do and every refusal."""

from __future__ import annotations

import pytest

from raftfs import limits
from raftfs.state import Code, CommitFile, MakeDirectory, Remove, SetMetadata, UploadBegin, UploadChunk

from .driver import Driver, chunk

BAD_PATHS = ["", "a", "/a/", "/a//b", "/a/../b", "/.", "/a\0", "/" + "x" * 256, "/x" * 2049]


@pytest.fixture
def tree(driver: Driver) -> Driver:
    """/file, /full/inner, /empty"""
    driver.put("/file", b"content")
    driver.do(MakeDirectory("/full"))
    driver.put("/full/inner", b"x")
    driver.do(MakeDirectory("/empty"))
    return driver


def test_directory_is_made(driver: Driver) -> None:
    result = driver.do(MakeDirectory("/a"), at_ms=5_000)
    assert (result.code, result.revision) == (Code.CREATED, 1)
    assert result.stat == driver.stat("/a")
    stat = driver.stat("/a")
    assert (stat.is_directory, stat.size, stat.revision, stat.created_ms) == (True, 0, 1, 5_000)
    assert stat.content_type is None


def test_parents_are_made_in_one_revision(driver: Driver) -> None:
    driver.do(MakeDirectory("/a/b/c", parents=True))
    assert [driver.stat(path).revision for path in ("/a", "/a/b", "/a/b/c")] == [1, 1, 1]
    driver.do(MakeDirectory("/a/b/d", parents=True))
    assert driver.stat("/a/b").revision == 1


def test_existing_directory_is_fine_if_asked_for(tree: Driver) -> None:
    revision = tree.machine.revision
    for path in ("/empty", "/full", "/"):
        result = tree.do(MakeDirectory(path, exist_ok=True))
        assert (result.code, result.revision, result.stat) == (Code.OK, revision, tree.stat(path))


def test_make_directory_refusals(tree: Driver) -> None:
    tree.refused(MakeDirectory("/empty"), Code.ALREADY_EXISTS)
    tree.refused(MakeDirectory("/file"), Code.ALREADY_EXISTS)
    tree.refused(MakeDirectory("/file", exist_ok=True), Code.ALREADY_EXISTS)
    tree.refused(MakeDirectory("/"), Code.ALREADY_EXISTS)
    tree.refused(MakeDirectory("/no/a"), Code.NOT_FOUND)
    tree.refused(MakeDirectory("/file/a"), Code.NOT_A_DIRECTORY)
    tree.refused(MakeDirectory("/file/a/b", parents=True), Code.NOT_A_DIRECTORY)


def test_file_is_created_and_replaced(driver: Driver) -> None:
    first = driver.do(CommitFile("/f", 3, data=b"abc", content_type="text/plain", metadata={"k": "v"}), at_ms=5_000)
    assert (first.code, first.revision) == (Code.CREATED, 1)
    assert first.stat == driver.stat("/f")
    assert (driver.stat("/f").content_type, driver.stat("/f").metadata) == ("text/plain", {"k": "v"})
    second = driver.do(CommitFile("/f", 2, data=b"de"), at_ms=6_000)
    assert (second.code, second.revision) == (Code.REPLACED, 2)
    stat = driver.stat("/f")
    assert (stat.size, stat.created_ms, stat.modified_ms, stat.metadata) == (2, 5_000, 6_000, {})
    assert stat.inode == first.stat.inode
    assert driver.read("/f") == b"de"


def test_empty_file_is_a_file(driver: Driver) -> None:
    driver.put("/empty", b"")
    assert driver.read("/empty") == b""
    assert not driver.stat("/empty").is_directory


def test_names_are_bytes_to_the_machine(driver: Driver) -> None:
    """Case, accents and normal forms of Unicode make different names; the order is that of the UTF-8 bytes."""
    names = ["A", "a", "\u00e9", "e\u0301", "\U0001f600", "\uffff", "~", " ", "%", "a\nb"]
    for name in names:
        assert driver.put(f"/{name}", name.encode()).code is Code.CREATED
    assert driver.names("/") == [f"/{name}" for name in sorted(names, key=str.encode)]
    assert all(driver.read(f"/{name}") == name.encode() for name in names)


def test_preconditions_of_a_file(tree: Driver) -> None:
    revision = tree.stat("/file").revision
    assert tree.put("/new", if_absent=True).code is Code.CREATED
    assert tree.put("/file", b"2", if_match=revision).code is Code.REPLACED
    tree.refused(CommitFile("/file", 0, data=b"", if_match=revision), Code.PRECONDITION_FAILED)
    tree.refused(CommitFile("/none", 0, data=b"", if_match=revision), Code.PRECONDITION_FAILED)
    tree.refused(CommitFile("/file", 0, data=b"", if_absent=True), Code.PRECONDITION_FAILED)
    tree.refused(CommitFile("/file", 0, data=b"", if_match=2**63), Code.PRECONDITION_FAILED)


def test_parents_of_a_file(tree: Driver) -> None:
    tree.refused(CommitFile("/x/y/z", 0, data=b""), Code.NOT_FOUND)
    result = tree.put("/x/y/z", b"1", parents=True)
    assert (result.code, tree.stat("/x/y").revision) == (Code.CREATED, result.revision)


def test_commit_refusals(tree: Driver) -> None:
    tree.refused(CommitFile("/", 0, data=b""), Code.IS_A_DIRECTORY)
    tree.refused(CommitFile("/full", 0, data=b""), Code.IS_A_DIRECTORY)
    tree.refused(CommitFile("/full", 0, data=b"", if_absent=True), Code.IS_A_DIRECTORY)
    tree.refused(CommitFile("/file/x", 0, data=b""), Code.NOT_A_DIRECTORY)
    tree.refused(CommitFile("/file/x/y", 0, data=b"", parents=True), Code.NOT_A_DIRECTORY)


@pytest.mark.parametrize(
    "command",
    [
        CommitFile("/f", 0),
        CommitFile("/f", 0, data=b"", upload=1),
        CommitFile("/f", 2, data=b"abc"),
        CommitFile("/f", -1, data=b""),
        CommitFile("/f", limits.FILE_BYTES_MAX + 1, upload=1),
        CommitFile("/f", limits.INLINE_BYTES_MAX + 1, data=bytes(limits.INLINE_BYTES_MAX + 1)),
        CommitFile("/f", 0, data=b"", content_type="x" * 256),
        CommitFile("/f", 0, data=b"", content_type="text/plain\r\nX: y"),
        CommitFile("/f", 0, data=b"", metadata={"k": "v" * limits.METADATA_BYTES_MAX}),
        CommitFile("/f", 0, data=b"", metadata={str(n): "" for n in range(limits.METADATA_KEYS_MAX + 1)}),
        CommitFile("/f", 0, data=b"", metadata={"": "v"}),
    ],
)
def test_invalid_content(tree: Driver, command: CommitFile) -> None:
    tree.refused(command, Code.INVALID)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths_are_refused_by_every_command(driver: Driver, path: str) -> None:
    for command in (
        MakeDirectory(path),
        CommitFile(path, 0, data=b""),
        Remove(path),
        SetMetadata(path, {"k": "v"}),
        UploadBegin(path, 10),
    ):
        driver.refused(command, Code.INVALID)


def test_largest_inline_file(driver: Driver) -> None:
    data = bytes(range(256)) * (limits.INLINE_BYTES_MAX // 256)
    driver.put("/f", data)
    assert driver.read("/f") == data


def test_file_from_an_upload(driver: Driver) -> None:
    upload = driver.do(UploadBegin("/f", 1_000)).upload
    assert upload is not None
    driver.do(UploadChunk(upload.id, 0, chunk(1)))
    driver.do(UploadChunk(upload.id, 100, chunk(2, 50)))
    assert driver.reader.stat("/f") is None
    assert driver.machine.revision == 0
    assert driver.do(CommitFile("/f", 150, upload=upload.id)).code is Code.CREATED
    assert driver.read("/f") == [chunk(1), chunk(2, 50)]
    assert driver.stat("/f").size == 150
    assert driver.reader.upload(upload.id) is None
    driver.refused(CommitFile("/f", 150, upload=upload.id), Code.UPLOAD_NOT_FOUND)


def test_commit_of_an_incomplete_upload_is_refused(driver: Driver) -> None:
    upload = driver.do(UploadBegin("/f", 1_000)).upload
    assert upload is not None
    driver.do(UploadChunk(upload.id, 0, chunk(1)))
    result = driver.refused(CommitFile("/f", 101, upload=upload.id), Code.OFFSET_MISMATCH)
    assert result.upload is not None
    assert result.upload.offset == 100
    driver.refused(CommitFile("/f", 99, upload=upload.id), Code.OFFSET_MISMATCH)
    for unknown in (0, -1, 99, 2**64 - 1):
        driver.refused(CommitFile("/f", 100, upload=unknown), Code.UPLOAD_NOT_FOUND)


def test_refused_commit_keeps_its_upload(driver: Driver) -> None:
    driver.put("/f")
    upload = driver.do(UploadBegin("/f", 1_000)).upload
    assert upload is not None
    driver.refused(CommitFile("/f", 0, upload=upload.id, if_absent=True), Code.PRECONDITION_FAILED)
    assert driver.do(CommitFile("/f", 0, upload=upload.id)).code is Code.REPLACED
    assert driver.read("/f") == []


def test_remove(tree: Driver) -> None:
    before = tree.stat("/file")
    result = tree.do(Remove("/file", kind="file", if_match=before.revision))
    assert (result.code, result.stat) == (Code.OK, before)
    assert tree.do(Remove("/empty", kind="directory")).code is Code.OK
    assert tree.do(Remove("/full", recursive=True)).code is Code.OK
    assert tree.names("/") == []
    assert tree.reader.stat("/full/inner") is None


def test_remove_refusals(tree: Driver) -> None:
    tree.refused(Remove("/none"), Code.NOT_FOUND)
    tree.refused(Remove("/none/none"), Code.NOT_FOUND)
    tree.refused(Remove("/none", if_match=1), Code.NOT_FOUND)
    tree.refused(Remove("/file/x"), Code.NOT_A_DIRECTORY)
    tree.refused(Remove("/file", kind="directory"), Code.NOT_A_DIRECTORY)
    tree.refused(Remove("/empty", kind="file"), Code.IS_A_DIRECTORY)
    tree.refused(Remove("/full"), Code.NOT_EMPTY)
    tree.refused(Remove("/full", kind="directory"), Code.NOT_EMPTY)
    tree.refused(Remove("/file", if_match=99), Code.PRECONDITION_FAILED)
    tree.refused(Remove("/", recursive=True), Code.INVALID)
    tree.refused(Remove("/file", kind="link"), Code.INVALID)


def test_removed_directory_comes_back_empty(tree: Driver) -> None:
    tree.do(Remove("/full", recursive=True))
    tree.do(MakeDirectory("/full"))
    assert tree.names("/full") == []


def test_metadata_is_merged(tree: Driver) -> None:
    tree.do(SetMetadata("/file", {"a": "1", "b": "2"}), at_ms=50_000)
    result = tree.do(SetMetadata("/file", {"a": None, "c": "3"}, content_type="text/plain"), at_ms=60_000)
    stat = tree.stat("/file")
    assert (result.code, result.stat) == (Code.OK, stat)
    assert (stat.metadata, stat.content_type) == ({"b": "2", "c": "3"}, "text/plain")
    assert (stat.revision, stat.modified_ms, stat.size) == (result.revision, 60_000, 7)
    assert tree.read("/file") == b"content"


def test_metadata_of_directories(tree: Driver) -> None:
    tree.do(SetMetadata("/", {"owner": "all"}))
    tree.do(SetMetadata("/full", {"owner": "me"}))
    assert tree.stat("/").metadata == {"owner": "all"}
    assert tree.stat("/full").metadata == {"owner": "me"}
    assert tree.names("/full") == ["/full/inner"]


def test_metadata_that_changes_nothing_leaves_the_revision(tree: Driver) -> None:
    tree.do(SetMetadata("/file", {"a": "1"}))
    before = tree.everything()
    result = tree.do(SetMetadata("/file", {"a": "1", "b": None}, content_type=tree.stat("/file").content_type))
    assert (result.code, tree.everything()) == (Code.OK, before)


def test_metadata_refusals(tree: Driver) -> None:
    tree.refused(SetMetadata("/none", {"a": "1"}), Code.NOT_FOUND)
    tree.refused(SetMetadata("/file/x", {"a": "1"}), Code.NOT_A_DIRECTORY)
    tree.refused(SetMetadata("/file", {"a": "1"}, if_match=77), Code.PRECONDITION_FAILED)
    tree.refused(SetMetadata("/full", content_type="text/plain"), Code.INVALID)
    tree.refused(SetMetadata("/file", content_type="\n"), Code.INVALID)
    tree.refused(SetMetadata("/file", {"a": "1" * limits.METADATA_BYTES_MAX}), Code.INVALID)
    tree.do(SetMetadata("/file", {"a": "1" * 5_000}))
    tree.refused(SetMetadata("/file", {"b": "1" * 5_000}), Code.INVALID)
