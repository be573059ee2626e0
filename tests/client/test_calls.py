"""Every call against a real server."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftfs import AsyncClient, errors, limits
from raftfs.client.progress import Progress

MIXED = [0, 1, 1000, limits.INLINE_BYTES_MAX, limits.INLINE_BYTES_MAX + 1, limits.CHUNK_BYTES + 5]


@pytest.mark.parametrize("size", MIXED)
async def test_what_is_written_is_read(fs: AsyncClient, folder: str, size: int) -> None:
    data = os.urandom(size)
    written = await fs.write(f"{folder}/f", data, parents=True, content_type="text/x", metadata={"Größe": "ä % b "})
    assert (written.path, written.name, written.type, written.size) == (f"{folder}/f", "f", "file", size)
    assert written.metadata == {"Größe": "ä % b "}
    assert await fs.read(f"{folder}/f") == data
    assert await fs.stat(f"{folder}/f") == written
    if size > 2:
        assert await fs.read(f"{folder}/f", start=1, stop=size - 1) == data[1:-1]
        assert await fs.read(f"{folder}/f", start=size // 2) == data[size // 2 :]
        assert await fs.read(f"{folder}/f", stop=size * 2) == data
    assert await fs.read(f"{folder}/f", start=0, stop=0) == b""
    with pytest.raises(errors.RangeNotSatisfiable):
        await fs.read(f"{folder}/f", start=size, stop=size + 1)


async def test_a_stream_of_unknown_length_is_written(fs: AsyncClient, folder: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 50_000

    entry = await fs.write(f"{folder}/f", pieces(), parents=True)
    assert entry.size == 5_000_000
    assert await fs.read(f"{folder}/f") == b"".join([piece async for piece in pieces()])


async def test_preconditions(fs: AsyncClient, folder: str) -> None:
    path = f"{folder}/f"
    first = await fs.write(path, b"1", parents=True, if_absent=True)
    with pytest.raises(FileExistsError) as exists:
        await fs.write(path, b"2", if_absent=True)
    assert isinstance(exists.value, errors.AlreadyExists)
    assert exists.value.outcome == "not_applied"
    second = await fs.write(path, b"2", if_match=first.revision)
    with pytest.raises(errors.PreconditionFailed):
        await fs.write(path, b"3", if_match=first.revision)
    with pytest.raises(errors.PreconditionFailed):
        await fs.remove(path, if_match=first.revision)
    assert await fs.read(path) == b"2"
    assert await fs.read(path, revision=first.revision) == b"1"
    await fs.remove(path, if_match=second.revision)
    assert not await fs.exists(path)


async def test_a_checksum_is_verified(fs: AsyncClient, folder: str) -> None:
    await fs.write(f"{folder}/f", b"x" * 100_000, parents=True, checksum=True)
    assert await fs.read(f"{folder}/f") == b"x" * 100_000


async def test_metadata_changes_and_stays(fs: AsyncClient, folder: str) -> None:
    path = f"{folder}/f"
    await fs.write(path, b"x", parents=True, metadata={"a": "1", "b": "2"})
    entry = await fs.set_metadata(path, {"a": None, "c": "3"})
    assert entry.metadata == {"b": "2", "c": "3"}
    entry = await fs.set_metadata(path, content_type="text/plain", if_match=entry.revision)
    assert (entry.metadata, entry.content_type) == ({"b": "2", "c": "3"}, "text/plain")
    with pytest.raises(errors.PreconditionFailed):
        await fs.set_metadata(path, {"d": "4"}, if_match=entry.revision - 1)


async def test_directories(fs: AsyncClient, folder: str) -> None:
    with pytest.raises(errors.NotFound):
        await fs.mkdir(f"{folder}/a/b")
    made = await fs.mkdir(f"{folder}/a/b", parents=True)
    assert (made.path, made.type) == (f"{folder}/a/b", "directory")
    with pytest.raises(errors.AlreadyExists):
        await fs.mkdir(f"{folder}/a/b")
    assert await fs.mkdir(f"{folder}/a/b", exist_ok=True) == made
    assert await fs.stat(f"{folder}/a/b") == made
    assert (await fs.stat("/")).type == "directory"
    await fs.write(f"{folder}/a/f", b"x")
    with pytest.raises(errors.DirectoryNotEmpty):
        await fs.rmdir(f"{folder}/a")
    with pytest.raises(NotADirectoryError):
        await fs.rmdir(f"{folder}/a/f")
    with pytest.raises(IsADirectoryError):
        await fs.remove(f"{folder}/a")
    with pytest.raises(IsADirectoryError):
        await fs.read(f"{folder}/a")
    with pytest.raises(IsADirectoryError):
        await fs.open(f"{folder}/a", "rb")
    await fs.rmdir(f"{folder}/a/b")
    await fs.remove(f"{folder}/a/f", recursive=True)
    await fs.write(f"{folder}/a/g", b"x")
    await fs.remove(f"{folder}/a", recursive=True)
    assert not await fs.exists(f"{folder}/a/g")
    with pytest.raises(FileNotFoundError):
        await fs.remove(f"{folder}/a")
    with pytest.raises(FileNotFoundError):
        await fs.stat(f"{folder}/a")


async def test_lists_page_by_page_at_one_revision(fs: AsyncClient, folder: str) -> None:
    for number in range(7):
        await fs.write(f"{folder}/d/{number}.txt", b"x", parents=True)
    names = []
    async for entry in fs.list(f"{folder}/d", page_size=2):
        names.append(entry.name)
        if len(names) == 3:
            await fs.write(f"{folder}/d/9.txt", b"late")
    assert names == [f"{number}.txt" for number in range(7)]
    assert [entry.name async for entry in fs.list(f"{folder}/d", glob="[89].*")] == ["9.txt"]
    page = await fs.list_page(f"{folder}/d", limit=5)
    rest = await fs.list_page(f"{folder}/d", limit=5, cursor=page.next)
    assert (len(page.entries), len(rest.entries), rest.next) == (5, 3, None)
    recursive = [entry.path async for entry in fs.list(folder, recursive=True)]
    assert recursive[:2] == [f"{folder}/d", f"{folder}/d/0.txt"]
    with pytest.raises(errors.NotFound):
        await fs.list_page(f"{folder}/nothing")
    with pytest.raises(errors.NotADirectory):
        await fs.list_page(f"{folder}/d/1.txt")
    with pytest.raises(errors.InvalidRequest):
        await fs.list_page(f"{folder}/d", cursor="nonsense")


async def test_walk(fs: AsyncClient, folder: str) -> None:
    for path in ("a/x", "a/deep/y", "b/z", "top"):
        await fs.write(f"{folder}/{path}", b"x", parents=True)
    found = [step async for step in fs.walk(folder)]
    assert found == [
        (folder, ["a", "b"], ["top"]),
        (f"{folder}/a", ["deep"], ["x"]),
        (f"{folder}/a/deep", [], ["y"]),
        (f"{folder}/b", [], ["z"]),
    ]
    pruned = []
    async for path, directories, _ in fs.walk(folder):
        directories[:] = [name for name in directories if name != "a"]
        pruned.append(path)
        await fs.write(f"{folder}/later/f", b"x", parents=True)
    assert pruned == [folder, f"{folder}/b"]


async def test_rename_and_copy(fs: AsyncClient, folder: str) -> None:
    await fs.write(f"{folder}/a/f", b"1", parents=True)
    moved = await fs.rename(f"{folder}/a", f"{folder}/b")
    assert (moved.path, moved.type) == (f"{folder}/b", "directory")
    copied = await fs.copy(f"{folder}/b/f", f"{folder}/new/g", parents=True)
    assert copied.path == f"{folder}/new/g"
    assert await fs.read(f"{folder}/new/g") == await fs.read(f"{folder}/b/f") == b"1"
    await fs.write(f"{folder}/h", b"2")
    with pytest.raises(errors.AlreadyExists):
        await fs.rename(f"{folder}/h", f"{folder}/new/g")
    await fs.rename(f"{folder}/h", f"{folder}/new/g", replace=True)
    assert await fs.read(f"{folder}/new/g") == b"2"
    with pytest.raises(errors.PreconditionFailed):
        await fs.rename(f"{folder}/new/g", f"{folder}/i", if_match=1)


@pytest.mark.parametrize("consistency", ["linearizable", "bounded", "stale"])
async def test_consistencies(fs: AsyncClient, folder: str, consistency: str) -> None:
    await fs.write(f"{folder}/f", b"x", parents=True)
    assert await fs.read(f"{folder}/f", consistency=consistency) == b"x"  # type: ignore[arg-type]
    assert (await fs.stat(f"{folder}/f", consistency=consistency)).size == 1  # type: ignore[arg-type]


async def test_cluster_status(fs: AsyncClient, server_url: str) -> None:
    status = await fs.cluster_status()
    assert status.leader is not None
    assert (status.leader.url, status.quorum) == (server_url, True)


# Local files


@pytest.mark.parametrize("size", [0, 100, 3_000_000])
async def test_put_and_get(fs: AsyncClient, folder: str, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "local").write_bytes(data)
    sent: list[Progress] = []
    got: list[Progress] = []
    entry = await fs.put(tmp_path / "local", f"{folder}/f", parents=True, progress=sent.append, metadata={"a": "b"})
    assert (entry.size, entry.metadata) == (size, {"a": "b"})
    assert sent[-1] == got_all(f"{folder}/f", size)
    assert await fs.get(f"{folder}/f", tmp_path / "back", progress=got.append) == size
    assert (tmp_path / "back").read_bytes() == data
    assert got[-1] == got_all(f"{folder}/f", size)
    assert [p.done_bytes for p in got] == sorted(p.done_bytes for p in got)
    buffer = io.BytesIO()
    assert await fs.get(f"{folder}/f", buffer) == size
    assert buffer.getvalue() == data
    assert sorted(os.listdir(tmp_path)) == ["back", "local"]


def got_all(path: str, size: int) -> Progress:
    return Progress(path, size, size, 1, 1)


async def test_get_into_a_directory_and_over_a_file(fs: AsyncClient, folder: str, tmp_path: Path) -> None:
    await fs.write(f"{folder}/f", b"new", parents=True)
    (tmp_path / "f").write_bytes(b"old and longer")
    await fs.get(f"{folder}/f", tmp_path)
    assert (tmp_path / "f").read_bytes() == b"new"
    with pytest.raises(errors.NotFound):
        await fs.get(f"{folder}/nothing", tmp_path / "f")
    with pytest.raises(FileNotFoundError):
        await fs.get(f"{folder}/f", tmp_path / "no" / "f")
    with pytest.raises(FileNotFoundError):
        await fs.put(tmp_path / "nothing", f"{folder}/g")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


async def test_a_callback_that_raises_ends_the_transfer(fs: AsyncClient, folder: str, tmp_path: Path) -> None:
    def refuse(_: Progress) -> None:
        raise ZeroDivisionError

    await fs.write(f"{folder}/f", b"x" * 3_000_000, parents=True)
    with pytest.raises(ZeroDivisionError):
        await fs.get(f"{folder}/f", tmp_path / "f", progress=refuse)
    assert os.listdir(tmp_path) == []
    (tmp_path / "l").write_bytes(b"x" * 3_000_000)
    with pytest.raises(ZeroDivisionError):
        await fs.put(tmp_path / "l", f"{folder}/g", progress=refuse)
    assert not await fs.exists(f"{folder}/g")


async def test_trees(fs: AsyncClient, folder: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, size in (("a", 0), ("b/c", 10), ("b/d e/ü", 40_000), ("b/d e/big", 1_200_000)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(os.urandom(size))
    (source / "empty" / "inside").mkdir(parents=True)
    (source / "link").symlink_to("b")
    reports: list[Progress] = []
    summary = await fs.put_tree(source, f"{folder}/tree", progress=reports.append, concurrency=3)
    assert (summary.files, summary.directories) == (7, 7)
    assert (reports[-1].done_files, reports[-1].total_files) == (7, 7)
    assert reports[-1].done_bytes == reports[-1].total_bytes == summary.size
    back = await fs.get_tree(f"{folder}/tree", tmp_path / "back", progress=reports.append)
    assert back == summary
    assert contents(tmp_path / "back") == contents(source)
    with pytest.raises(errors.NotFound):
        await fs.get_tree(f"{folder}/nothing", tmp_path / "back")
    with pytest.raises(errors.NotADirectory):
        await fs.get_tree(f"{folder}/tree/a", tmp_path / "back")


def contents(top: Path) -> dict[str, bytes | None]:
    return {
        os.path.relpath(os.path.join(folder, name), top): read(os.path.join(folder, name))
        for folder, directories, files in os.walk(top, followlinks=True)
        for name in directories + files
    }


def read(path: str) -> bytes | None:
    return None if os.path.isdir(path) else Path(path).read_bytes()


async def test_a_tree_is_fetched_at_one_revision(fs: AsyncClient, folder: str, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        await fs.write(f"{folder}/{name}", b"old", parents=True)
    revision = (await fs.list_page(folder)).revision
    for name in ("a", "b", "c", "d"):
        await fs.write(f"{folder}/{name}", b"new")
    await fs.get_tree(folder, tmp_path / "then", revision=revision)
    assert contents(tmp_path / "then") == {"a": b"old", "b": b"old", "c": b"old"}


async def test_a_tree_that_cannot_be_sent_is_refused_first(fs: AsyncClient, folder: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.mkfifo(tmp_path / "z-pipe")
    with pytest.raises(errors.InvalidRequest, match="neither a file nor a directory"):
        await fs.put_tree(tmp_path, folder)
    (tmp_path / "z-pipe").unlink()
    (tmp_path / "circle").symlink_to(tmp_path)
    with pytest.raises(errors.InvalidRequest, match="contains it"):
        await fs.put_tree(tmp_path, folder)
    (tmp_path / "circle").unlink()
    with pytest.raises(NotADirectoryError):
        await fs.put_tree(tmp_path / "a", folder)
    with pytest.raises(errors.InvalidRequest, match="concurrency"):
        await fs.put_tree(tmp_path, folder, concurrency=0)
    assert not await fs.exists(f"{folder}/a")


async def test_the_first_error_of_a_tree_is_raised(fs: AsyncClient, folder: str, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").write_bytes(b"x")
    await fs.mkdir(f"{folder}/7", parents=True)
    with pytest.raises(IsADirectoryError):
        await fs.put_tree(tmp_path, folder)


# The client itself


async def test_a_closed_client_says_so(server_url: str) -> None:
    fs = AsyncClient(server_url)
    await fs.exists("/x")
    await fs.close()
    await fs.close()
    with pytest.raises(RuntimeError, match="closed"):
        await fs.exists("/x")
