"""Stat and open, now and at old revisions; lists, their pages, order, cursors and patterns."""

from __future__ import annotations

import pytest

from raftfs import limits
from raftfs.errors import InvalidRequest, IsADirectory, NotADirectory, NotFound
from raftfs.state import CommitFile, Copy, Envelope, MakeDirectory, Remove, Rename, SetMetadata, encode
from raftfs.state.glob import Glob
from raftfs.state.listing import Query, encode_cursor

from .driver import Driver


@pytest.fixture
def tree(driver: Driver) -> Driver:
    for path in ("/a/b/one.py", "/a/b/two.txt", "/a/zero.py", "/a-b/x.py", "/c"):
        driver.put(path, path.encode(), parents=True)
    return driver


def test_nothing_there(tree: Driver) -> None:
    for path in ("/none", "/none/none", "/c/below-a-file", "/a/b/none"):
        assert tree.reader.stat(path) is None
        assert tree.reader.open(path) is None
        assert tree.reader.stat(path, 1) is None


def test_root(driver: Driver) -> None:
    stat = driver.stat("/")
    assert (stat.is_directory, stat.revision, stat.path) == (True, 0, "/")
    with pytest.raises(IsADirectory):
        driver.reader.open("/")


def test_old_revisions_of_a_path(driver: Driver) -> None:
    driver.put("/f", b"1")
    driver.put("/f", b"2")
    driver.do(Rename("/f", "/g"))
    driver.put("/f", b"4")
    driver.do(SetMetadata("/f", {"k": "v"}))
    driver.do(Remove("/f"))
    assert [driver.reader.stat("/f", revision) is not None for revision in range(7)] == [
        False, True, True, False, True, True, False
    ]  # fmt: skip
    assert [driver.read("/f", revision) for revision in (1, 2, 4, 5)] == [b"1", b"2", b"4", b"4"]
    assert driver.stat("/f", 4).metadata == {}
    assert driver.stat("/f", 5).metadata == {"k": "v"}
    assert driver.read("/g", 6) == b"2"


def test_old_revisions_below_a_renamed_and_a_replaced_directory(tree: Driver) -> None:
    before = tree.machine.revision
    tree.do(Rename("/a", "/moved"))
    moved = tree.machine.revision
    tree.put("/moved/b/one.py", b"new")
    tree.do(MakeDirectory("/other"))
    tree.do(Rename("/other", "/moved", replace=True))
    assert tree.read("/a/b/one.py", before) == b"/a/b/one.py"
    assert tree.read("/moved/b/one.py", moved) == b"/a/b/one.py"
    assert tree.read("/moved/b/one.py", moved + 1) == b"new"
    assert tree.names("/moved") == []
    assert tree.names("/", revision=before) == [
        "/a", "/a/b", "/a/b/one.py", "/a/b/two.txt", "/a/zero.py", "/a-b", "/a-b/x.py", "/c"
    ]  # fmt: skip


@pytest.mark.parametrize("revision", [-1, 6, 2**70])
def test_revision_that_is_not_there(tree: Driver, revision: int) -> None:
    assert tree.machine.revision == 5
    for read in (tree.reader.stat, tree.reader.open):
        with pytest.raises(InvalidRequest):
            read("/c", revision)
    with pytest.raises(InvalidRequest):
        tree.reader.list("/", limit=1, revision=revision)


def test_list_is_ordered_by_bytes_and_by_path(tree: Driver) -> None:
    assert tree.names("/", recursive=False) == ["/a", "/a-b", "/c"]
    assert tree.names("/a") == ["/a/b", "/a/b/one.py", "/a/b/two.txt", "/a/zero.py"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("recursive", [False, True])
def test_pages_join_to_the_whole(tree: Driver, limit: int, recursive: bool) -> None:
    pages = tree.pages("/", limit=limit, recursive=recursive)
    assert all(len(page.entries) == limit for page in pages[:-1])
    assert [stat for page in pages for stat in page.entries] == tree.all_entries("/", recursive=recursive)
    assert {page.revision for page in pages} == {tree.machine.revision}


def test_list_that_ends_with_a_full_page_has_no_next(tree: Driver) -> None:
    assert tree.reader.list("/", limit=3).next is None


@pytest.mark.parametrize("recursive", [False, True])
def test_later_pages_show_the_revision_of_the_first(tree: Driver, recursive: bool) -> None:
    whole = tree.all_entries("/", recursive=recursive)
    page = tree.reader.list("/", limit=1, recursive=recursive)
    seen = page.entries
    changes = [
        Remove("/c"),
        Rename("/a", "/z"),
        CommitFile("/a-b/x.py", 1, data=b"2"),
        CommitFile("/b", 0, data=b""),
        Remove("/z", recursive=True),
        Copy("/a-b", "/a"),
        Remove("/a-b", recursive=True),
    ]
    while page.next is not None:
        if changes:
            tree.do(changes.pop(0))
        page = tree.reader.list("/", limit=1, recursive=recursive, cursor=page.next)
        seen += page.entries
    assert seen == whole


def test_cursor_works_for_a_directory_that_is_gone(tree: Driver) -> None:
    page = tree.reader.list("/a", limit=1)
    tree.do(Remove("/a", recursive=True))
    assert [stat.path for stat in tree.reader.list("/a", limit=9, cursor=page.next).entries] == ["/a/zero.py"]
    with pytest.raises(NotFound):
        tree.reader.list("/a", limit=9)


def test_cursor_is_refused_for_another_list(tree: Driver) -> None:
    cursor = tree.reader.list("/a", limit=1, recursive=True).next
    assert cursor is not None
    for path, query in (
        ("/", {"recursive": True}),
        ("/a", {"recursive": False}),
        ("/a", {"recursive": True, "glob": "*"}),
        ("/a", {"recursive": True, "revision": 1}),
    ):
        with pytest.raises(InvalidRequest):
            tree.reader.list(path, limit=1, cursor=cursor, **query)
    assert tree.reader.list("/a", limit=1, recursive=True, cursor=cursor, revision=tree.machine.revision).entries


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "\u00e9", "kA==", "AAAA" * 50, "gA"])
def test_damaged_cursor_is_refused(tree: Driver, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        tree.reader.list("/a", limit=1, cursor=cursor)


@pytest.mark.parametrize(("revision", "last"), [(5, []), (99, ["b"]), (-1, ["b"]), (5, ["none", "x"]), (5, ["", ""])])
def test_forged_cursor_is_refused(tree: Driver, revision: int, last: list[str]) -> None:
    query = Query("/a", True, None)
    with pytest.raises(InvalidRequest):
        tree.reader.list("/a", limit=1, recursive=True, cursor=encode_cursor(query, revision, last))


def test_list_refusals(tree: Driver) -> None:
    with pytest.raises(NotADirectory):
        tree.reader.list("/c", limit=1)
    for path in ("/none", "/c/x"):
        with pytest.raises(NotFound):
            tree.reader.list(path, limit=1)
    for limit in (0, -1, limits.PAGE_ENTRIES_MAX + 1):
        with pytest.raises(InvalidRequest):
            tree.reader.list("/", limit=limit)


def test_large_directory_is_paged(driver: Driver) -> None:
    names = [f"/d/{number:04}" for number in range(3_000)]
    driver.do(MakeDirectory("/d"))
    driver.entry(*(encode(Envelope(CommitFile(name, 0, data=b""), 1)) for name in names))
    assert driver.names("/d", limit=700, recursive=False) == names
    assert driver.names("/", limit=999) == ["/d", *names]


def test_recursive_list_of_many_large_directories_reads_ahead_only_so_far(driver: Driver) -> None:
    """Every level of a chain holds more than one read: what is dropped on the way down is read again."""
    paths, parent = [], ""
    for _ in range(12):
        driver.do(MakeDirectory(f"{parent}/0-dir"))
        driver.entry(*(encode(Envelope(CommitFile(f"{parent}/{n:04}", 0, data=b""), 1)) for n in range(600)))
        paths += [f"{parent}/0-dir", *(f"{parent}/{n:04}" for n in range(600))]
        parent += "/0-dir"
    expected = sorted(paths, key=lambda path: [name.encode() for name in path.split("/")])
    assert driver.names("/", limit=10_000) == expected
    assert driver.names("/", limit=500) == expected


@pytest.mark.parametrize(
    ("glob", "recursive", "expected"),
    [
        ("*", False, ["/a", "/a-b", "/c"]),
        ("a*", False, ["/a", "/a-b"]),
        ("c", False, ["/c"]),
        ("C", False, []),
        ("[ac]", False, ["/a", "/c"]),
        ("[!a]", False, ["/c"]),
        ("?", False, ["/a", "/c"]),
        ("*", True, ["/a", "/a-b", "/c"]),
        ("*/*.py", True, ["/a/zero.py", "/a-b/x.py"]),
        ("**/*.py", True, ["/a/b/one.py", "/a/zero.py", "/a-b/x.py"]),
        ("a/**", True, ["/a", "/a/b", "/a/b/one.py", "/a/b/two.txt", "/a/zero.py"]),
        ("a/**/*.py", True, ["/a/b/one.py", "/a/zero.py"]),
        ("**/b/**", True, ["/a/b", "/a/b/one.py", "/a/b/two.txt"]),
        ("a/b/one.py", True, ["/a/b/one.py"]),
        ("nothing/**", True, []),
    ],
)
@pytest.mark.parametrize("limit", [1, 100])
def test_glob(tree: Driver, glob: str, recursive: bool, expected: list[str], limit: int) -> None:
    assert tree.names("/", glob=glob, recursive=recursive, limit=limit) == expected


@pytest.mark.parametrize("glob", ["", "x" * 1025])
def test_bad_globs(tree: Driver, glob: str) -> None:
    with pytest.raises(InvalidRequest):
        tree.reader.list("/", limit=1, glob=glob)


def test_glob_with_a_slash_needs_a_recursive_list(tree: Driver) -> None:
    with pytest.raises(InvalidRequest):
        tree.reader.list("/", limit=1, glob="a/*")


def test_glob_that_would_make_a_naive_matcher_backtrack_for_ever() -> None:
    glob = Glob("*a" * 400 + "/" + "**/" * 50 + "b")
    positions = glob.start()
    for name in ["a" * 255] * 200:
        positions = glob.step(positions, name)
    assert not glob.accepts(positions)


def test_glob_of_many_double_stars_costs_no_more_than_one() -> None:
    glob = Glob("**/" * 300 + "b")
    assert len(glob.start()) == 2
    assert glob.accepts(glob.step(glob.step(glob.start(), "a"), "b"))


def test_page_with_few_matches_ends_early(driver: Driver) -> None:
    count = limits.PAGE_SCAN_ENTRIES_MAX + 1
    directory, file = driver.do(MakeDirectory("/d")).stat, driver.put("/f").stat
    assert directory is not None
    assert file is not None
    driver.machine._db.execute(
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
        " INSERT INTO dirent SELECT ?, printf('%06d', i), ?, 1 FROM n",
        (count, directory.inode, file.inode),
    )
    first = driver.reader.list("/d", limit=10, glob=f"*{count - 1}")
    assert first.entries == []
    assert first.next is not None
    second = driver.reader.list("/d", limit=10, glob=f"*{count - 1}", cursor=first.next)
    assert [stat.path for stat in second.entries] == [f"/d/{count - 1:06}"]
    assert second.next is None


def test_page_with_large_metadata_ends_early(driver: Driver) -> None:
    metadata = {"k": "v" * 8_000}
    count = limits.PAGE_BYTES_MAX // 8_000 + 50
    driver.entry(*(encode(Envelope(CommitFile(f"/{n:04}", 0, data=b"", metadata=metadata), 1)) for n in range(count)))
    pages = driver.pages("/", limit=limits.PAGE_ENTRIES_MAX)
    assert len(pages) == 2
    assert sum(len(page.entries) for page in pages) == count


def test_snapshot_sees_one_moment(driver: Driver) -> None:
    driver.put("/f", b"1")
    with driver.reader.snapshot():
        before = driver.reader.applied()
        driver.put("/f", b"2")
        assert driver.read("/f") == b"1"
        assert driver.reader.applied() == before
        with driver.reader.snapshot():
            assert driver.stat("/f").revision == 1
        assert driver.stat("/f").revision == 1
    assert driver.read("/f") == b"2"


def test_snapshot_ends_after_an_error(driver: Driver) -> None:
    with pytest.raises(NotFound), driver.reader.snapshot():
        driver.reader.list("/none", limit=1)
    driver.put("/f", b"2")
    assert driver.read("/f") == b"2"


def test_no_read_sorts_or_scans(driver: Driver) -> None:
    """What pages and lookups cost does not grow with the directory: every query walks an index."""
    queries = [
        "SELECT inode FROM dirent WHERE parent = 1 AND name = 'x'",
        "SELECT d.name, v.size FROM dirent d CROSS JOIN version v ON v.inode = d.inode"
        " WHERE d.parent = 1 AND d.name > 'x' ORDER BY d.name LIMIT 5",
        "SELECT name, inode FROM dirent WHERE parent = 1 AND name > 'x' AND rev_from <= 3 UNION ALL"
        " SELECT name, inode FROM dirent_past WHERE parent = 1 AND name > 'x' AND rev_from <= 3 AND rev_to > 3"
        " ORDER BY name LIMIT 5",
    ]
    for query in queries:
        plan = [row[3] for row in driver.machine._db.execute(f"EXPLAIN QUERY PLAN {query}")]
        assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in plan), plan
