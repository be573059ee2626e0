"""Making a backup: one revision of the tree, read page by page while writes go on; only what is missing is fetched."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from blake3 import blake3

import raftfs
from raftfs import fsync, limits
from raftfs.backup import manifest
from raftfs.backup.manifest import Chunk, Directory, File, Head, Info, Writer
from raftfs.backup.scratch import BundleIndex
from raftfs.backup.store import BackupDirectory, writing
from raftfs.backup.tar import TarWriter
from raftfs.client import AsyncClient, Progress
from raftfs.client.progress import Report
from raftfs.client.transfer import each
from raftfs.errors import AlreadyExists, BadAnswer, CorruptData
from raftfs.models import ExportEntry, ExportPage


@dataclass(frozen=True, slots=True)
class Created:
    """A finished backup, and what this run added to its directory: objects that were not there, and their bytes."""

    backup: Info
    new_objects: int
    new_bytes: int


class _Target(Protocol):
    def has_object(self, digest: str, length: int | None = None) -> bool: ...
    def put_object(self, digest: str, data: bytes) -> None: ...


async def create(
    client: AsyncClient,
    directory: Path,
    *,
    report: Report | None = None,
    concurrency: int = limits.BACKUP_CHUNKS_AT_ONCE_DEFAULT,
) -> Created:
    """Add a backup of the whole tree, as it is at one revision, to a directory of backups, made if it is not there.

    Chunks that an earlier backup, or an interrupted one, has brought there are not fetched again. Each is compared with
    its digest as it arrives. Until the end nothing looks like a backup; run it again after a failure. Files are synced;
    a failed fsync ends the process, as everywhere in raftfs.
    Raises Conflict (backups of another cluster, or in use), InvalidRequest (something else is in the directory),
    StorageFull, CorruptData (bytes that do not have their digest), OSError, and what reading from the cluster raises.
    """
    cluster_id = (await client.cluster_status()).cluster_id
    target = await asyncio.to_thread(BackupDirectory.prepare, directory, cluster_id)
    index = BundleIndex()
    try:
        since = await asyncio.to_thread(_learn, target, index)
        await asyncio.to_thread(target.clear_unfinished)
        with writing(directory), target.unfinished.open("w+b") as file:  # to close it writes what it holds, too
            making = _Making(client, target, index, report, concurrency)
            head, info = await making.run(cluster_id, since, file)
            await asyncio.to_thread(target.finish, file, _name(head))
        return Created(info, making.new_objects, making.new_bytes)
    finally:
        index.close()
        target.close()


async def create_tar(
    client: AsyncClient,
    stream: IO[bytes],
    *,
    where: str = "the stream",
    report: Report | None = None,
    concurrency: int = limits.BACKUP_CHUNKS_AT_ONCE_DEFAULT,
) -> Created:
    """Write a backup of the whole tree, as it is at one revision, to a stream as a tar file. It holds everything: a
    stream has no earlier backup to build on. An interrupted one has no manifest, and is no backup. Raises as create."""
    cluster_id = (await client.cluster_status()).cluster_id
    target = await asyncio.to_thread(TarWriter, stream, cluster_id, Path(where))
    index = BundleIndex()
    try:
        making = _Making(client, target, index, report, concurrency)
        head, info = await making.run(cluster_id, 0, target.manifest)
        await asyncio.to_thread(target.finish, _name(head))
        return Created(info, making.new_objects, making.new_bytes)
    finally:
        index.close()
        target.close()


async def create_tar_file(
    client: AsyncClient,
    path: Path,
    *,
    report: Report | None = None,
    concurrency: int = limits.BACKUP_CHUNKS_AT_ONCE_DEFAULT,
) -> Created:
    """As create_tar, into a file that gets its name when it is complete and durable. Raises AlreadyExists, too."""
    if path.exists():
        raise AlreadyExists(f"{path} is there already, and a tar file holds one backup", outcome="not_applied")
    temporary = path.with_name(path.name + ".part")
    try:
        with writing(path), temporary.open("wb") as stream:
            done = await create_tar(client, stream, where=str(path), report=report, concurrency=concurrency)
            fsync.sync_data(stream.fileno(), temporary)
        temporary.rename(path)
        fsync.sync_directory(path.absolute().parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return done


def _name(head: Head) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(head.created_ms / 1000))}-r{head.revision}"


def _learn(target: BackupDirectory, index: BundleIndex) -> int:
    """Find out what small contents are there already. Returns the revision of the newest backup, 0 if there is none."""
    since = 0
    if names := target.names():
        # A damaged manifest is for verifying to complain about; here it only costs that more is fetched.
        with suppress(CorruptData), target.open_manifest(names[-1]) as file:
            reader = manifest.Reader(file, names[-1])
            for line in reader.lines():
                if not isinstance(line, Directory):
                    index.learn((chunk for chunk in line.chunks if chunk.bundle), target.has_object)
            since = reader.head.revision
    with suppress(FileNotFoundError), target.unfinished.open("rb") as left:
        index.learn(manifest.salvage(left), target.has_object)
    return since


@dataclass(frozen=True, slots=True)
class _Part:
    """A chunk of the cluster, where it can be read, and its bytes if they came with the page."""

    digest: str
    length: int
    path: str
    offset: int
    data: str | None


class _Making:
    """One backup on its way from a client to a target."""

    def __init__(
        self, client: AsyncClient, target: _Target, index: BundleIndex, report: Report | None, concurrency: int
    ) -> None:
        self._client, self._target, self._index = client, target, index
        self._report, self._concurrency = report, concurrency
        self._revision = 0
        self._done = Progress("", 0, None, 0, 0)
        self.new_objects = self.new_bytes = 0

    async def run(self, cluster_id: str, since: int, file: BinaryIO) -> tuple[Head, Info]:
        """Read the tree page by page, the next one while this one is worked on."""
        page = await self._client.export_page(data_since=since)
        self._revision = page.revision
        head = Head(
            manifest.FORMAT, cluster_id, page.revision, time.time_ns() // 1_000_000, f"raftfs {raftfs.__version__}"
        )
        writer = Writer(file, head)
        while True:
            following = None
            if page.next is not None:
                following = asyncio.create_task(self._client.export_page(cursor=page.next, data_since=since))
            try:
                await self._take(page, writer)
                if following is None:
                    break
                page = await following
            finally:
                if following is not None and not following.done():
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
        await asyncio.to_thread(writer.end)
        info = Info(
            _name(head), cluster_id, head.revision, head.created_ms, writer.files, writer.directories, writer.size
        )
        return head, info

    async def _take(self, page: ExportPage, writer: Writer) -> None:
        """Have everything of a page at the target, and then in the manifest."""
        if page.revision != self._revision:
            raise BadAnswer(f"the pages of one export show revisions {self._revision} and {page.revision}")
        large, small = await asyncio.to_thread(self._missing, page)
        await each(large, self._copy, self._concurrency)
        while small:
            await self._bundle(small)
        await asyncio.to_thread(self._write, page, writer)
        self._tell(page)

    def _missing(self, page: ExportPage) -> tuple[list[_Part], list[_Part]]:
        """Chunks that the target lacks, each once: those that become an object, and those that go into bundles."""
        large: dict[str, _Part] = {}
        small: dict[str, _Part] = {}
        for entry in page.entries:
            offset = entry.offset
            for digest, length in entry.chunks:
                part = _Part(digest, length, entry.path, offset, entry.data)
                offset += length
                if length > limits.BACKUP_BUNDLED_BYTES_MAX:
                    if digest not in large and not self._target.has_object(digest, length):
                        large[digest] = part
                elif digest not in small and self._index.find(digest, length) is None:
                    small[digest] = part
        return list(large.values()), list(reversed(small.values()))

    async def _copy(self, part: _Part) -> None:
        data = await self._fetch(part)
        await asyncio.to_thread(self._put, part.digest, data)

    async def _bundle(self, small: list[_Part]) -> None:
        """Take small contents off the end of the list, as many as an object has room for, and make it."""
        taken: list[_Part] = []
        size = 0
        while small and size < limits.BACKUP_BUNDLE_BYTES:
            taken.append(small.pop())
            size += taken[-1].length
        found: dict[str, bytes] = {}

        async def fetch(part: _Part) -> None:
            found[part.digest] = await self._fetch(part)

        await each(taken, fetch, self._concurrency)
        await asyncio.to_thread(self._store_bundle, [(part.digest, found[part.digest]) for part in taken])

    def _store_bundle(self, contents: list[tuple[str, bytes]]) -> None:
        data = b"".join(content for _, content in contents)
        bundle = blake3(data).hexdigest()
        self._put(bundle, data)
        at = 0
        chunks = []
        for digest, content in contents:
            chunks.append(Chunk(digest, len(content), bundle, at))
            at += len(content)
        self._index.add(chunks)

    def _put(self, digest: str, data: bytes) -> None:
        self._target.put_object(digest, data)
        self.new_objects += 1
        self.new_bytes += len(data)

    async def _fetch(self, part: _Part) -> bytes:
        """The bytes of a chunk, compared with its digest. Raises CorruptData."""
        if part.data is not None:
            try:
                data = base64.b64decode(part.data, validate=True)
            except binascii.Error as error:
                raise BadAnswer(f"the export has broken data for {part.path}: {error}") from None
            right = blake3(data).hexdigest() == part.digest
        else:
            stop = part.offset + part.length
            data = await self._client.read(part.path, start=part.offset, stop=stop, revision=self._revision)
            right = await asyncio.to_thread(_has_digest, data, part.digest)
        if not right:
            raise CorruptData(
                f"bytes {part.offset} to {part.offset + part.length} of {part.path} arrived with another digest than "
                f"{part.digest}"
            )
        return data

    def _write(self, page: ExportPage, writer: Writer) -> None:
        for entry in page.entries:
            if entry.type == "directory":
                line = Directory(entry.path, entry.revision, entry.created_ms, entry.modified_ms, entry.metadata)
                writer.directory(line)
            elif entry.offset:
                writer.chunks(self._chunks(entry), more=entry.more)
            else:
                writer.file(
                    File(
                        entry.path, entry.revision, entry.created_ms, entry.modified_ms, entry.size,
                        entry.content_type, entry.metadata, self._chunks(entry), entry.more,
                    )
                )  # fmt: skip

    def _chunks(self, entry: ExportEntry) -> list[Chunk]:
        chunks = []
        for digest, length in entry.chunks:
            small = length <= limits.BACKUP_BUNDLED_BYTES_MAX
            chunk = self._index.find(digest, length) if small else Chunk(digest, length)
            if chunk is None:
                raise RuntimeError(f"chunk {digest} was neither found nor fetched")
            chunks.append(chunk)
        return chunks

    def _tell(self, page: ExportPage) -> None:
        if not page.entries:
            return
        files = sum(entry.type == "file" and not entry.more for entry in page.entries)
        size = sum(length for entry in page.entries for _, length in entry.chunks)
        now = self._done
        self._done = Progress(page.entries[-1].path, now.done_bytes + size, None, now.done_files + files, 0)
        if self._report is not None:
            self._report(self._done)


def _has_digest(data: bytes, digest: str) -> bool:
    return bool(blake3(data).hexdigest() == digest)
