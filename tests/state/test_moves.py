"""Rename and copy: what they do and every refusal."""

from __future__ import annotations

import pytest

from raftfs.state import Code, CommitFile, Copy, MakeDirectory, Remove, Rename, SetMetadata, UploadBegin, UploadChunk

from .driver import Driver, chunk


@pytest.fixture
def tree(driver: Driver) -> Driver:
    """/f, /g, /d/x, /d/sub/y, /e/z"""
    driver.put("/f", b"f")
    driver.put("/g", b"g")
    driver.put("/d/x", b"x", parents=True)
    driver.put("/d/sub/y", b"y", parents=True)
    driver.put("/e/z", b"z", parents=True)
    return driver


def test_file_is_renamed_and_stays_the_same_file(tree: Driver) -> None:
    before = tree.stat("/f")
    result = tree.do(Rename("/f", "/e/f"))
    after = tree.stat("/e/f")
    assert (result.code, result.stat) == (Code.CREATED, after)
    assert tree.reader.stat("/f") is None
    assert (after.inode, after.revision, after.created_ms) == (before.inode, before.revision, before.created_ms)


def test_directory_is_renamed_with_all_below(tree: Driver) -> None:
    tree.do(Rename("/d", "/e/moved"))
    assert tree.names("/") == ["/e", "/e/moved", "/e/moved/sub", "/e/moved/sub/y", "/e/moved/x", "/e/z", "/f", "/g"]
    assert tree.read("/e/moved/sub/y") == b"y"
    tree.put("/e/moved/sub/new", b"n")
    tree.refused(CommitFile("/d/sub/new", 0, data=b""), Code.NOT_FOUND)


def test_renaming_writes_the_same_whatever_the_size(tree: Driver, tmp_path: object) -> None:
    rows = []
    for count in (1, 200):
        for number in range(count):
            tree.put(f"/d/file-{number}", b"")
        before = tree.machine._db.total_changes
        tree.do(Rename("/d", "/moved"))
        rows.append(tree.machine._db.total_changes - before)
        tree.do(Rename("/moved", "/d"))
    assert rows[0] == rows[1]


def test_rename_replaces_a_file(tree: Driver) -> None:
    result = tree.do(Rename("/f", "/g", replace=True))
    assert (result.code, tree.read("/g")) == (Code.REPLACED, b"f")
    assert tree.reader.stat("/f") is None


def test_rename_replaces_a_directory_with_all_in_it(tree: Driver) -> None:
    result = tree.do(Rename("/d", "/e", replace=True))
    assert result.code is Code.REPLACED
    assert tree.names("/") == ["/e", "/e/sub", "/e/sub/y", "/e/x", "/f", "/g"]


def test_rename_makes_parents(tree: Driver) -> None:
    tree.refused(Rename("/f", "/p/q/f"), Code.NOT_FOUND)
    tree.do(Rename("/f", "/p/q/f", parents=True))
    assert tree.read("/p/q/f") == b"f"


@pytest.mark.parametrize("move", [Rename, Copy])
def test_onto_itself(tree: Driver, move: type[Rename] | type[Copy]) -> None:
    for path in ("/f", "/d"):
        tree.refused(move(path, path), Code.ALREADY_EXISTS)
        before = tree.everything()
        result = tree.do(move(path, path, replace=True))
        assert (result.code, result.stat, tree.everything()) == (Code.OK, tree.stat(path), before)


@pytest.mark.parametrize("move", [Rename, Copy])
def test_refusals(tree: Driver, move: type[Rename] | type[Copy]) -> None:
    tree.refused(move("/none", "/n"), Code.NOT_FOUND)
    tree.refused(move("/none/none", "/n"), Code.NOT_FOUND)
    tree.refused(move("/f", "/none/n"), Code.NOT_FOUND)
    tree.refused(move("/f/none", "/n"), Code.NOT_A_DIRECTORY)
    tree.refused(move("/f", "/g/n"), Code.NOT_A_DIRECTORY)
    tree.refused(move("/f", "/g/n/m", parents=True), Code.NOT_A_DIRECTORY)
    tree.refused(move("/f", "/g"), Code.ALREADY_EXISTS)
    tree.refused(move("/f", "/d"), Code.ALREADY_EXISTS)
    tree.refused(move("/f", "/d", replace=True), Code.IS_A_DIRECTORY)
    tree.refused(move("/d", "/f", replace=True), Code.NOT_A_DIRECTORY)
    tree.refused(move("/f", "/n", if_match=99), Code.PRECONDITION_FAILED)
    tree.refused(move("/none", "/n", if_match=99), Code.NOT_FOUND)
    tree.refused(move("bad", "/n"), Code.INVALID)
    tree.refused(move("/f", "/n/"), Code.INVALID)


@pytest.mark.parametrize("move", [Rename, Copy])
def test_not_into_itself(tree: Driver, move: type[Rename] | type[Copy]) -> None:
    tree.refused(move("/d", "/d/new"), Code.INTO_ITSELF)
    tree.refused(move("/d", "/d/sub/new"), Code.INTO_ITSELF)
    tree.refused(move("/d", "/d/sub", replace=True), Code.INTO_ITSELF)
    tree.refused(move("/d", "/d/p/q", parents=True), Code.INTO_ITSELF)
    tree.refused(move("/", "/d/root"), Code.INTO_ITSELF)
    tree.refused(move("/d", "/", replace=True), Code.INTO_ITSELF)
    tree.refused(move("/d/sub", "/d", replace=True), Code.INTO_ITSELF)
    assert tree.do(move("/d", "/dd")).code is Code.CREATED


def test_rename_with_the_right_revision(tree: Driver) -> None:
    assert tree.do(Rename("/f", "/n", if_match=tree.stat("/f").revision)).code is Code.CREATED


def test_swap_through_a_third_name(tree: Driver) -> None:
    for source, target in (("/d", "/tmp"), ("/e", "/d"), ("/tmp", "/e")):
        tree.do(Rename(source, target))
    assert tree.names("/d") == ["/d/z"]
    assert tree.names("/e") == ["/e/sub", "/e/sub/y", "/e/x"]


def test_file_is_copied(tree: Driver) -> None:
    tree.do(SetMetadata("/f", {"k": "v"}, content_type="text/plain"))
    result = tree.do(Copy("/f", "/e/copy"), at_ms=70_000)
    stat = tree.stat("/e/copy")
    assert (result.code, result.stat, stat.revision) == (Code.CREATED, stat, result.revision)
    assert (stat.metadata, stat.content_type, stat.created_ms, stat.modified_ms) == (
        {"k": "v"}, "text/plain", 70_000, 70_000
    )  # fmt: skip
    tree.put("/f", b"changed")
    assert tree.read("/e/copy") == b"f"


def test_copy_over_a_file_is_its_next_version(tree: Driver) -> None:
    before = tree.stat("/g")
    result = tree.do(Copy("/f", "/g", replace=True))
    after = tree.stat("/g")
    assert result.code is Code.REPLACED
    assert (after.inode, after.created_ms, tree.read("/g")) == (before.inode, before.created_ms, b"f")
    assert tree.read("/g", before.revision) == b"g"


def test_directory_is_copied(tree: Driver) -> None:
    tree.do(SetMetadata("/d", {"k": "top"}))
    tree.do(SetMetadata("/d/sub", {"k": "sub"}))
    before = tree.machine.revision
    result = tree.do(Copy("/d", "/p/copy", parents=True))
    assert tree.names("/p") == ["/p/copy", "/p/copy/sub", "/p/copy/sub/y", "/p/copy/x"]
    assert (tree.stat("/p/copy").metadata, tree.stat("/p/copy/sub").metadata) == ({"k": "top"}, {"k": "sub"})
    tree.put("/d/sub/y", b"changed")
    tree.do(Remove("/d/x"))
    assert (tree.read("/p/copy/sub/y"), tree.read("/p/copy/x")) == (b"y", b"x")
    assert result.revision == before + 2, "a revision for each file"
    assert tree.stat("/p/copy").revision == result.revision
    for revision in range(before + 1, result.revision):
        assert tree.reader.stat("/p/copy", revision) is None, "no half copies at the revisions between"
        assert tree.reader.stat("/p", revision) is None


def test_copied_files_have_revisions_of_their_own(tree: Driver) -> None:
    """Otherwise two of them could change places under one ETag."""
    tree.do(Copy("/d", "/copy"))
    tree.do(Copy("/copy", "/e", replace=True))
    revisions = [stat.revision for stat in tree.all_entries("/") if not stat.is_directory]
    assert len(set(revisions)) == len(revisions)


def test_empty_directory_is_copied(tree: Driver) -> None:
    tree.do(MakeDirectory("/none"))
    result = tree.do(Copy("/none", "/copy"))
    assert tree.stat("/copy").revision == result.revision == tree.machine.revision


def test_copy_shares_chunks(driver: Driver) -> None:
    upload = driver.do(UploadBegin("/f", 1_000)).upload
    assert upload is not None
    driver.do(UploadChunk(upload.id, 0, chunk(1)))
    driver.do(CommitFile("/f", 100, upload=upload.id))
    driver.do(Copy("/f", "/g"))
    driver.do(Remove("/f"))
    assert driver.read("/g") == [chunk(1)]
    assert driver.reader.chunks(b"", 10) == [chunk(1)]
