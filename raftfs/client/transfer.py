"""Files and trees between this machine and the store.

A download is written beside its target and renamed over it when it is complete, so the target is the old file or the
new one. A tree is downloaded at one revision. At most ``concurrency`` files are on their way at a time; the first
error stops the others and is raised.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat as stat_flags
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from raftfs import limits, paths
from raftfs.client.download import Download
from raftfs.errors import InvalidPath, InvalidRequest
from raftfs.models import Entry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TreeSummary:
    """What a tree transfer moved: ``files`` and ``directories`` (the top one included) and ``size`` in bytes."""

    files: int
    directories: int
    size: int


@dataclass(frozen=True, slots=True)
class LocalTree:
    """A local tree: each file's path, its path below the top with ``/``, and its size; and the empty directories."""

    files: list[tuple[Path, str, int]]
    empty: list[str]
    directories: int


def scan(top: Path) -> LocalTree:
    """List a local tree. Links are followed. Raises InvalidRequest for links in circles and for devices and the like,
    InvalidPath for names that the store cannot hold, OSError."""
    tree = LocalTree([], [], 0)
    directories = 0
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(top, "", frozenset())]
    while waiting:
        folder, relative, above = waiting.pop()
        identity = _identity(folder)
        if identity in above:
            raise InvalidRequest(f"{folder} is a link to a directory that contains it")
        directories += 1
        names = sorted(os.listdir(folder))
        if not names and relative:
            tree.empty.append(relative)
        for name in names:
            paths.normalize(name)
            below = f"{relative}/{name}" if relative else name
            info = os.stat(folder / name)
            if stat_flags.S_ISDIR(info.st_mode):
                waiting.append((folder / name, below, above | {identity}))
            elif stat_flags.S_ISREG(info.st_mode):
                tree.files.append((folder / name, below, info.st_size))
            else:
                raise InvalidRequest(f"{folder / name} is neither a file nor a directory")
    return LocalTree(tree.files, tree.empty, directories)


def _identity(path: Path) -> tuple[int, int]:
    info = os.stat(path)
    return info.st_dev, info.st_ino


def local_path(top: Path, below: str) -> Path:
    """Where a path of the store goes below ``top``. Raises InvalidPath for a name this system would split."""
    parts = paths.components(paths.normalize(below))
    for part in parts:
        if os.sep in part or (os.altsep and os.altsep in part) or os.path.isabs(part):
            raise InvalidPath(f"the name {part!r} cannot be a file name on this system")
    return top.joinpath(*parts)


def make_folders(top: Path, below: Iterable[str]) -> None:
    """Make ``top`` and the directories below it. Raises OSError, InvalidPath."""
    top.mkdir(parents=True, exist_ok=True)
    for path in below:
        local_path(top, path).mkdir(parents=True, exist_ok=True)


async def save(download: Download, local: Path, moved: Callable[[int], None]) -> None:
    """Write a download to a temporary file beside ``local`` and rename it over ``local``. Raises OSError."""
    # A name has at most 255 bytes, and a character up to 4 of them.
    temporary = local.with_name(f".{local.name[:50]}.{secrets.token_hex(6)}.part")
    try:
        with await asyncio.to_thread(open, temporary, "xb") as file:
            await pour(download, file, moved)
        os.replace(temporary, local)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


async def pour(download: Download, file: IO[bytes], moved: Callable[[int], None]) -> None:
    """Write a download to an open binary file, in worker threads."""
    done = 0
    async for block in _blocks(download.chunks()):
        await asyncio.to_thread(_write_all, file, block)
        done += sum(map(len, block))
        moved(done)
    await asyncio.to_thread(file.flush)


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Chunks in groups of about a block: a thread switch for every piece from the socket would cost more than it."""
    group: list[bytes] = []
    length = 0
    async for chunk in chunks:
        group.append(chunk)
        length += len(chunk)
        if length >= limits.CLIENT_BLOCK_BYTES:
            yield group
            group, length = [], 0
    if group:
        yield group


def _write_all(file: IO[bytes], block: Iterable[bytes]) -> None:
    for piece in block:
        view = memoryview(piece)
        while view:  # an unbuffered file may take less than it was given
            view = view[file.write(view) or 0 :]


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]], concurrency: int) -> None:
    """Do ``work`` for each item, ``concurrency`` at a time. The first error cancels the others and is raised."""
    if not 1 <= concurrency <= limits.CLIENT_TRANSFERS_AT_ONCE_MAX:
        raise InvalidRequest(f"concurrency must be from 1 to {limits.CLIENT_TRANSFERS_AT_ONCE_MAX}, not {concurrency}")
    shared: Iterator[T] = iter(items)

    async def worker() -> None:
        for item in shared:  # the iterator is shared: each item goes to one worker
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except BaseExceptionGroup as failed:
        raise _first(failed) from None


def _first(failed: BaseException) -> BaseException:
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed


def relative(entry: Entry, top: str) -> str:
    """Path of an entry below the normal path ``top``."""
    return entry.path[len(top) :].lstrip("/")
