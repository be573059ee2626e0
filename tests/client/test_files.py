"""Open files: real file objects, one version, and nothing half-written."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftfs import AsyncClient, Client, errors
from raftfs.client.file import RawReader

from .scripted import ScriptedServer, content

SAMPLE = os.urandom(300_000)


@pytest.fixture(scope="module")
def sample(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, str, Path]]:
    """A file in the store, and the same on the disk."""
    local = tmp_path_factory.mktemp("sample") / "f"
    local.write_bytes(SAMPLE)
    with Client(server_url) as fs:
        fs.put(local, "/sample/f", parents=True)
        yield fs, "/sample/f", local


POSITION = st.integers(min_value=-10, max_value=len(SAMPLE) + 10)
STEP = st.one_of(
    st.tuples(st.just("read"), st.integers(min_value=-1, max_value=70_000)),
    st.tuples(st.just("readline"), st.just(-1)),
    st.tuples(st.just("seek"), POSITION),
    st.tuples(st.just("skip"), st.integers(min_value=-5000, max_value=5000)),
    st.tuples(st.just("back"), POSITION),
)


def do(file: io.BufferedIOBase | io.RawIOBase, step: tuple[str, int]) -> object:
    """One step on a file; errors count as results."""
    action, number = step
    try:
        match action:
            case "seek":
                return file.seek(number)
            case "skip":
                return file.seek(number, os.SEEK_CUR)
            case "back":
                return file.seek(-number, os.SEEK_END)
            case "readline":
                return file.readline()
            case _:
                return file.read(number), file.tell()
    except (ValueError, OSError):
        return "refused"


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(STEP, max_size=12))
def test_a_file_behaves_like_a_local_one(sample: tuple[Client, str, Path], steps: list[tuple[str, int]]) -> None:
    fs, path, local = sample
    with local.open("rb") as expected, fs.open(path, "rb") as file:
        for step in steps:
            assert do(file, step) == do(expected, step)


async def test_windows_of_a_large_file_join_up(scripted: ScriptedServer) -> None:
    data = os.urandom(9_000_000)
    scripted.play(content(data))
    async with AsyncClient(scripted.url) as fs, fs.open("/f", "rb") as file:
        assert await file.read(10) == data[:10]
        await file.seek(5)
        assert await file.read() == data[5:]
        assert await file.read(1) == b""
        await file.seek(-20, os.SEEK_END)
        assert await file.read(5) == data[-20:-15]
        assert file.tell() == len(data) - 15
        with pytest.raises(ValueError, match="whence"):
            await file.seek(0, 7)
    with pytest.raises(ValueError, match="closed"):
        await file.read()


def test_the_standard_library_takes_our_files(blocking: Client, folder: str) -> None:
    blocking.mkdir(folder)
    with blocking.open(f"{folder}/z.zip", "wb") as out, zipfile.ZipFile(out, "w") as archive:
        archive.writestr("inner.txt", "hello")
    with blocking.open(f"{folder}/z.zip", "rb") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("inner.txt") == b"hello"
    with blocking.open(f"{folder}/t.csv", "w", newline="") as text:
        csv.writer(text).writerows([["a", "b"], ["ü", "1\n2"]])
    with blocking.open(f"{folder}/t.csv", newline="") as rows:
        assert list(csv.reader(rows)) == [["a", "b"], ["ü", "1\n2"]]
    with blocking.open(f"{folder}/z.zip", "rb") as file, blocking.open(f"{folder}/y.zip", "xb") as copy:
        shutil.copyfileobj(file, copy)
    assert copy.entry is not None
    assert blocking.read(f"{folder}/y.zip") == blocking.read(f"{folder}/z.zip")


@pytest.mark.parametrize("size", [0, 10, 1024 * 1024, 1024 * 1024 + 1, 9_000_000])
def test_writing_in_pieces(blocking: Client, folder: str, size: int) -> None:
    data = os.urandom(size)
    with blocking.open(f"{folder}/f", "wb", parents=True) as file:
        assert isinstance(file, io.BufferedWriter)
        for start in range(0, size, 700_000):
            assert file.write(data[start : start + 700_000]) == len(data[start : start + 700_000])
        assert file.tell() == size
        assert not blocking.exists(f"{folder}/f")
    assert file.entry is not None
    assert file.entry.size == size
    assert blocking.read(f"{folder}/f") == data


@pytest.mark.parametrize("size", [10, 5_000_000])
@pytest.mark.parametrize("mode", ["wb", "w"])
def test_an_exception_discards_what_was_written(blocking: Client, folder: str, size: int, mode: str) -> None:
    blocking.write(f"{folder}/f", b"before", parents=True)
    data = b"x" * size if mode == "wb" else "x" * size
    file = blocking.open(f"{folder}/f", mode)  # type: ignore[call-overload]

    def fail() -> None:
        with file:
            file.write(data)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert file.closed
    assert blocking.read(f"{folder}/f") == b"before"
    with pytest.raises(ValueError, match="closed file"):
        file.write(data)


@pytest.mark.parametrize("size", [10, 5_000_000])
@pytest.mark.parametrize("mode", ["wb", "w"])
def test_a_forgotten_file_is_discarded(blocking: Client, folder: str, size: int, mode: str) -> None:
    def forget() -> None:
        file = blocking.open(f"{folder}/f", mode, parents=True)  # type: ignore[call-overload]
        file.write(b"x" * size if mode == "wb" else "x" * size)
        del file
        gc.collect()

    with pytest.warns(ResourceWarning, match="never closed"):
        forget()
    assert not blocking.exists(f"{folder}/f")


def test_exclusive_files(blocking: Client, folder: str) -> None:
    with blocking.open(f"{folder}/f", "xb", parents=True) as file:
        file.write(b"mine")
    with pytest.raises(FileExistsError):
        blocking.open(f"{folder}/f", "xb")
    late = blocking.open(f"{folder}/g", "x")
    late.write("late")
    blocking.write(f"{folder}/g", b"first")
    with pytest.raises(FileExistsError):
        late.close()
    assert late.closed
    assert blocking.read(f"{folder}/g") == b"first"


def test_errors_of_an_upload_reach_the_writer(blocking: Client, folder: str) -> None:
    blocking.mkdir(f"{folder}/d", parents=True)
    file = blocking.open(f"{folder}/d", "wb")
    file.write(b"x")
    with pytest.raises(IsADirectoryError):
        file.close()
    assert file.closed

    def write_much() -> None:
        with blocking.open(f"{folder}/d", "wb") as large:
            for _ in range(50):
                large.write(bytes(1024 * 1024))

    with pytest.raises(IsADirectoryError):
        write_much()


def test_a_reader_keeps_its_version(blocking: Client, folder: str) -> None:
    blocking.write(f"{folder}/f", b"a" * 100_000, parents=True)
    with blocking.open(f"{folder}/f", "rb") as file:
        assert file.read(10) == b"a" * 10
        blocking.write(f"{folder}/f", b"b" * 100_000)
        blocking.rename(folder, f"{folder}-moved")
        raw = file.raw
        assert isinstance(raw, RawReader)
        assert raw.seek(50_000) == 50_000
        assert raw.read(5) == b"aaaaa"


def test_modes_and_missing_files(blocking: Client, folder: str) -> None:
    for mode in ("a", "r+", "rw", "", "b", "wbt"):
        with pytest.raises(ValueError, match="mode must be"):
            blocking.open(f"{folder}/f", mode)  # type: ignore[call-overload]
    with pytest.raises(FileNotFoundError):
        blocking.open(f"{folder}/f")
    with pytest.raises(errors.NotFound), blocking.open(f"{folder}/f", "wb") as file:
        file.write(b"no parent")


# Asynchronous files


async def test_asynchronous_text(fs: AsyncClient, folder: str) -> None:
    text = "first\nzweite ü\n" + "x" * 200_000 + "\nlast without newline"
    async with fs.open(f"{folder}/t", "w", parents=True) as file:
        await file.write(text)
    assert file.entry is not None
    async with fs.open(f"{folder}/t") as back:
        assert [line async for line in back] == io.StringIO(text).readlines()
    async with fs.open(f"{folder}/t") as back:
        assert await back.read() == text
    await fs.write(f"{folder}/crlf", b"a\r\nb\rc\n")
    async with fs.open(f"{folder}/crlf") as back:
        assert [line async for line in back] == ["a\n", "b\n", "c\n"]
    async with fs.open(f"{folder}/t", "rb") as raw:
        assert [line async for line in raw] == io.BytesIO(text.encode()).readlines()


async def test_an_asynchronous_writer_commits_or_not(fs: AsyncClient, folder: str) -> None:
    async def fail(size: int) -> None:
        async with fs.open(f"{folder}/f", "wb", parents=True) as file:
            await file.write(bytes(size))
            raise ZeroDivisionError

    for size in (10, 3_000_000):
        with pytest.raises(ZeroDivisionError):
            await fail(size)
        assert not await fs.exists(f"{folder}/f")
        opened = await fs.open(f"{folder}/f", "wb", parents=True)
        await opened.write(bytearray(size))
        await opened.close()
        await opened.close()
        assert len(await fs.read(f"{folder}/f")) == size
        with pytest.raises(ValueError, match="closed file"):
            await opened.write(b"x")
        await fs.remove(f"{folder}/f")


async def test_a_cancelled_writer_leaves_nothing(fs: AsyncClient, folder: str) -> None:
    started = asyncio.Event()

    async def write() -> None:
        async with fs.open(f"{folder}/f", "wb", parents=True) as file:
            await file.write(bytes(2_000_000))
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await fs.exists(f"{folder}/f")
