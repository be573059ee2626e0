"""A backup beside a cluster: both in path order, entry by entry, whatever their size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from blake3 import blake3

from raftfs import paths
from raftfs.backup.manifest import Directory, File, Item, path_key
from raftfs.client import AsyncClient
from raftfs.errors import NotFound
from raftfs.models import ExportEntry


@dataclass(frozen=True, slots=True)
class Pair:
    """What a backup has for a path of the cluster, and what is there: at least one of them."""

    path: str
    item: Item | None
    present: ExportEntry | None


class Present:
    """A path of the cluster and all below it, at one revision. ``revision`` is known once the first entry, or the end,
    came; give the one of an earlier look to see the same again."""

    def __init__(self, client: AsyncClient, path: str, revision: int | None = None) -> None:
        self._client, self._path = client, path
        self.revision = revision

    async def entries(self) -> AsyncIterator[ExportEntry]:
        """In path order, each file with all its chunks; none if nothing is at the path."""
        cursor: str | None = None
        waiting: ExportEntry | None = None
        while True:
            try:
                page = await self._client.export_page(self._path, cursor=cursor, revision=self.revision)
            except NotFound:
                if self.revision is None:
                    self.revision = (await self._client.list_page("/", limit=1)).revision
                return
            self.revision = page.revision
            for entry in page.entries:
                if waiting is not None and entry.offset:
                    waiting.chunks += entry.chunks
                else:
                    waiting = entry
                if not entry.more:
                    yield waiting
                    waiting = None
            cursor = page.next
            if cursor is None:
                return


async def merge(items: Iterator[tuple[str, Item]], present: Present) -> AsyncIterator[Pair]:
    """Both sides together. ``items``: with the paths that they have in the cluster, in path order."""
    mine = next(items, None)
    async for entry in present.entries():
        there = path_key(entry.path)
        while mine is not None and path_key(mine[0]) < there:
            yield Pair(mine[0], mine[1], None)
            mine = next(items, None)
        if mine is not None and mine[0] == entry.path:
            yield Pair(entry.path, mine[1], entry)
            mine = next(items, None)
        else:
            yield Pair(entry.path, None, entry)
    while mine is not None:
        yield Pair(mine[0], mine[1], None)
        mine = next(items, None)


def below(items: Iterator[Item], top: str, target: str) -> Iterator[tuple[str, Item]]:
    """Those that are ``top`` or below it, with the paths that they have when ``top`` becomes ``target``."""
    for item in items:
        if paths.is_inside(item.path, top):
            rest = item.path.removeprefix(top).strip("/")
            yield (paths.join(target, rest) if rest else target), item


async def is_same(client: AsyncClient, pair: Pair, revision: int | None) -> bool:
    """Whether what is there is what the backup has: kind, content, content type and metadata. Digests are compared;
    where the cluster cuts its chunks elsewhere, the bytes are read."""
    item, there = pair.item, pair.present
    if item is None or there is None or item.metadata != there.metadata:
        return False
    if isinstance(item, Directory) or there.type == "directory":
        return isinstance(item, Directory) and there.type == "directory"
    if item.size != there.size or item.content_type != there.content_type:
        return False
    if [chunk.length for chunk in item.chunks] == [length for _, length in there.chunks]:
        return [chunk.digest for chunk in item.chunks] == [digest for digest, _ in there.chunks]
    return await _has_bytes(client, pair.path, item, revision)


async def _has_bytes(client: AsyncClient, path: str, item: File, revision: int | None) -> bool:
    at = 0
    for chunk in item.chunks:
        data = await client.read(path, start=at, stop=at + chunk.length, revision=revision)
        if blake3(data).hexdigest() != chunk.digest:
            return False
        at += chunk.length
    return True
