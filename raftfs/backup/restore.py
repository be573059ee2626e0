"""Putting a backup into a cluster: all of it into an empty one, or some paths into a live one.

What is there already, and is the same, counts as done. That alone makes a restore go on where an interrupted one
stopped, and repeating it harmless. Before anything is written, all that would be overwritten is looked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from raftfs import limits, paths
from raftfs.backup import manifest
from raftfs.backup.compare import Pair, Present, below, is_same, merge
from raftfs.backup.contents import Contents, FileBody
from raftfs.backup.manifest import Directory, File, Info, Item
from raftfs.backup.store import Source
from raftfs.client import AsyncClient, Progress
from raftfs.client.progress import Report
from raftfs.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, PreconditionFailed

Existing = Literal["refuse", "replace", "skip"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. ``revision``: the cluster's, at which everything was compared with the backup afterwards.
    ``written`` and ``same`` count files and directories that were made and that were there already; ``skipped``,
    those that differ and were left alone."""

    backup: Info
    revision: int
    written: int
    same: int
    skipped: int
    size: int


def check(source: Source, name: str | None) -> Info:
    """Read the whole manifest of a backup, by default the newest. Blocking. Raises NotFound, CorruptData."""
    names = source.names()
    if not names:
        raise NotFound("no finished backup is here")
    chosen = names[-1] if name is None else name
    with source.open_manifest(chosen) as file:
        reader = manifest.Reader(file, chosen)
        for _ in reader.lines():
            pass
        return reader.info()


async def restore(
    client: AsyncClient,
    source: Source,
    *,
    name: str | None = None,
    report: Report | None = None,
    concurrency: int = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
) -> Restored:
    """Make an empty cluster what a backup holds (the newest one, unless ``name`` says which), and compare every file
    with it afterwards.

    A cluster with part of the backup in it, and nothing else, counts as empty: an interrupted restore leaves that.
    Raises Conflict if it is not empty, or is written to meanwhile; NotFound, CorruptData (a damaged backup; the file in
    question is not made), and what writing to the cluster raises.
    """
    info = await asyncio.to_thread(check, source, name)
    return await _Restore(client, source, info, report, concurrency).run([("/", "/")], "refuse", whole=True)


async def restore_paths(
    client: AsyncClient,
    source: Source,
    tops: Sequence[str],
    *,
    to: str | None = None,
    existing: Existing = "refuse",
    name: str | None = None,
    report: Report | None = None,
    concurrency: int = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
) -> Restored:
    """Put files and directories of a backup back into a cluster, where they were, or one of them at the path ``to``.

    What is there and differs: ``existing`` "refuse" raises AlreadyExists before anything is written, "skip" leaves it,
    "replace" replaces files. Nothing is removed: what is there and not in the backup stays. A file where the backup has
    a directory, or the other way round, is always refused. A file that changes during the restore is not overwritten:
    Conflict. Raises NotFound if the backup has no such path, InvalidRequest, and as restore.
    """
    tops = [paths.normalize(top) for top in tops]
    if not tops or (to is not None and len(tops) != 1):
        raise InvalidRequest("name the paths to restore; another target can be given for one path alone")
    for number, top in enumerate(tops):
        if any(paths.is_inside(top, other) for other in tops[:number] + tops[number + 1 :]):
            raise InvalidRequest(f"{top} is named twice, by itself or by a directory above it")
    info = await asyncio.to_thread(check, source, name)
    places = [(top, top if to is None else paths.normalize(to)) for top in tops]
    return await _Restore(client, source, info, report, concurrency).run(places, existing, whole=False)


class _Restore:
    """One restore."""

    def __init__(
        self, client: AsyncClient, source: Source, info: Info, report: Report | None, concurrency: int
    ) -> None:
        self._client, self._source, self._info = client, source, info
        self._report, self._concurrency = report, concurrency
        self._contents = Contents(source)
        self._progress = Progress("", 0, None, 0, 0)
        self._written = self._same = self._skipped = 0

    async def run(self, places: list[tuple[str, str]], existing: Existing, *, whole: bool) -> Restored:
        revisions = [await self._look(top, target, existing, whole=whole) for top, target in places]
        for (top, target), revision in zip(places, revisions, strict=True):
            await self._write_all(top, target, existing, revision)
        reached = 0
        for top, target in places:
            reached = await self._compare(top, target, existing, whole=whole)
        return Restored(self._info, reached, self._written, self._same, self._skipped, self._progress.done_bytes)

    # Looking first

    async def _look(self, top: str, target: str, existing: Existing, *, whole: bool) -> int:
        """Refuse if anything stands in the way. Returns the revision that was looked at."""
        present = Present(self._client, target)
        wrong: list[str] = []
        count = total_files = total_size = 0
        any_item = False
        with closing(self._items(top, target)) as items:
            async for pair in merge(items, present):
                any_item = any_item or pair.item is not None
                if isinstance(pair.item, File):
                    total_files += 1
                    total_size += pair.item.size
                if (fault := await self._in_the_way(pair, existing, present, whole=whole)) is not None:
                    count += 1
                    if len(wrong) < limits.BACKUP_LINES_MAX:
                        wrong.append(f"{pair.path} {fault}")
        if not any_item:
            raise NotFound(f"backup {self._info.name} has nothing at {top}")
        if wrong:
            more = f", and {count - len(wrong)} more" if count > len(wrong) else ""
            listed = "; ".join(wrong) + more
            if whole:
                raise Conflict(f"the cluster is not empty: {listed}. Nothing was written", outcome="not_applied")
            raise AlreadyExists(f"{listed}. Nothing was written", outcome="not_applied")
        now = self._progress
        self._progress = Progress("", 0, (now.total_bytes or 0) + total_size, 0, now.total_files + total_files)
        assert present.revision is not None
        return present.revision

    async def _in_the_way(self, pair: Pair, existing: Existing, present: Present, *, whole: bool) -> str | None:
        """What speaks against restoring this, if anything does."""
        item, there = pair.item, pair.present
        if there is None:
            return None
        if item is None:
            return "is not in the backup" if whole else None
        if isinstance(item, Directory) != (there.type == "directory"):
            return (
                f"is a {there.type}, and no {'directory' if isinstance(item, Directory) else 'file'} as in the backup"
            )
        if isinstance(item, Directory):
            differs = bool(there.metadata) and item.metadata != there.metadata
            return "has other metadata than in the backup" if whole and differs else None
        if existing != "refuse" or await is_same(self._client, pair, present.revision):
            return None
        return "is there, with other content or metadata than in the backup"

    # Writing

    async def _write_all(self, top: str, target: str, existing: Existing, revision: int) -> None:
        queue: asyncio.Queue[Pair | None] = asyncio.Queue(2 * self._concurrency)
        present = Present(self._client, target, revision)

        async def work() -> None:
            while (pair := await queue.get()) is not None:
                await self._write(pair, existing, revision)

        async def feed() -> None:
            with closing(self._items(top, target)) as items:
                async for pair in merge(items, present):
                    if pair.item is not None:
                        await queue.put(pair)
            for _ in range(self._concurrency):
                await queue.put(None)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(feed())
                for _ in range(self._concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise _first(failed) from None

    async def _write(self, pair: Pair, existing: Existing, revision: int) -> None:
        item = pair.item
        assert item is not None
        if pair.present is not None and await is_same(self._client, pair, revision):
            self._same += 1
        elif isinstance(item, Directory):
            await self._directory(pair, item, existing)
        elif pair.present is not None and existing == "skip":
            self._skipped += 1
        else:
            await self._file(pair, item)
            self._written += 1
        self._tell(pair.path, item)

    async def _directory(self, pair: Pair, item: Directory, existing: Existing) -> None:
        there = pair.present
        if there is None:
            await self._client.mkdir(pair.path, parents=True, exist_ok=True)
        elif there.metadata and existing != "replace":
            self._skipped += 1  # a directory of a live cluster keeps what it says of itself
            return
        if item.metadata or (there is not None and there.metadata):
            gone = dict.fromkeys(there.metadata) if there is not None else {}
            await self._client.set_metadata(pair.path, {**gone, **item.metadata})
        self._written += 1

    async def _file(self, pair: Pair, item: File) -> None:
        there = pair.present
        data: FileBody | bytes = FileBody(self._contents, item)
        if item.size <= limits.BUFFERED_BODY_BYTES_MAX:
            data = b"".join([piece async for piece in FileBody(self._contents, item).chunks()])
        try:
            await self._client.write(
                pair.path, data, if_absent=there is None, if_match=None if there is None else there.revision,
                content_type=item.content_type, metadata=item.metadata, parents=True,
            )  # fmt: skip
        except (AlreadyExists, PreconditionFailed) as error:
            raise Conflict(
                f"{pair.path} was changed by somebody else during the restore: {error.detail}", outcome="not_applied"
            ) from None

    # Comparing afterwards

    async def _compare(self, top: str, target: str, existing: Existing, *, whole: bool) -> int:
        present = Present(self._client, target)
        wrong: list[str] = []
        with closing(self._items(top, target)) as items:
            async for pair in merge(items, present):
                expected = pair.item is not None and not self._may_differ(pair, existing)
                stray = pair.item is None and whole
                bad = stray or (expected and not await is_same(self._client, pair, present.revision))
                if bad and len(wrong) < limits.BACKUP_LINES_MAX:
                    wrong.append(pair.path)
        if wrong:
            raise Conflict(
                f"after the restore these are not as in the backup, so somebody else writes to the cluster: {wrong}"
            )
        assert present.revision is not None
        return present.revision

    @staticmethod
    def _may_differ(pair: Pair, existing: Existing) -> bool:
        """What a restore of paths leaves as it is."""
        if pair.present is None:
            return False
        return existing == "skip" or (
            existing == "refuse" and isinstance(pair.item, Directory) and bool(pair.present.metadata)
        )

    def _items(self, top: str, target: str) -> Generator[tuple[str, Item], None, None]:
        with self._source.open_manifest(self._info.name) as file:
            yield from below(manifest.Reader(file, self._info.name).items(), top, target)

    def _tell(self, path: str, item: Item) -> None:
        now, size = self._progress, item.size if isinstance(item, File) else 0
        files = now.done_files + isinstance(item, File)
        self._progress = Progress(path, now.done_bytes + size, now.total_bytes, files, now.total_files)
        if self._report is not None:
            self._report(self._progress)


def _first(failed: BaseException) -> BaseException:
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    return failed
