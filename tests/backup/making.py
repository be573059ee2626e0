"""Backups of a real (in-process) cluster, and of trees that differ in everything that a backup has to keep."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from raftfs.client import AsyncClient
from raftfs.models import Entry

CHUNK = 4 * 1024 * 1024


async def plant(client: AsyncClient, seed: int = 1) -> None:
    """A small tree: empty directories, metadata, odd names, small, empty and large files, and equal contents."""
    dice = random.Random(seed)
    await client.mkdir("/empty/inner", parents=True)
    await client.set_metadata("/empty", {"owner": "Jürgen"})
    await client.set_metadata("/", {"root": "yes"})
    for name, data in (
        ("/docs/a.txt", b"alpha"),
        ("/docs/same", b"alpha"),
        ("/docs/nothing", b""),
        ("/docs-2/odd \n\u2028 ünicode'\"", dice.randbytes(20_000)),
        ("/docs/edge", dice.randbytes(32 * 1024)),
        ("/docs/over", dice.randbytes(32 * 1024 + 1)),
        ("/large", dice.randbytes(CHUNK + 5)),
    ):
        await client.write(name, data, parents=True, content_type="text/x-test", metadata={"name": str(len(data))})


async def tree(client: AsyncClient, top: str = "/", revision: int | None = None) -> dict[str, Any]:
    """All that a restore has to bring back, read through the ordinary calls."""
    found: dict[str, Any] = {}
    root = await client.stat(top, revision=revision)
    entries: list[Entry] = [root]
    if root.type == "directory":
        entries += [entry async for entry in client.list(top, recursive=True, revision=revision)]
    for entry in entries:
        data = await client.read(entry.path, revision=revision) if entry.type == "file" else None
        found[entry.path] = (entry.type, data, entry.content_type, entry.metadata)
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
