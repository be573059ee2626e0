"""Files and directories: every use case that a client can ask for."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from raftfs import limits
from raftfs.errors import DeadlineExceeded, NotFound, TooLarge
from raftfs.paths import normalize
from raftfs.service.body import Body
from raftfs.service.options import ReadInfo, ReadOptions, WriteOptions
from raftfs.service.proposals import Proposer, fingerprint
from raftfs.service.reads import Freshness, OpenFile, ReadMemory
from raftfs.service.replicas import Replicas
from raftfs.service.uploads import Uploads
from raftfs.service.workers import ReaderThread
from raftfs.state import ExportPage, Reader, cursor_revision
from raftfs.state.commands import (
    Code,
    Command,
    CommitFile,
    Copy,
    MakeDirectory,
    Page,
    Remove,
    Rename,
    Result,
    SetMetadata,
    Stat,
)

T = TypeVar("T")

CONTENT_TYPE_DEFAULT = "application/octet-stream"


class Files:
    """Paths are normalized here (InvalidPath).

    Reads work on any node and raise Unavailable or DeadlineExceeded when they cannot be as current as was asked.
    Writes work on the leader and raise NotLeader elsewhere; an error says with ``outcome`` whether the write happened.
    """

    def __init__(
        self, *, reader: Reader, lists: ReaderThread[Reader], freshness: Freshness, proposer: Proposer,
        uploads: Uploads, replicas: Replicas,
    ) -> None:  # fmt: skip
        self._reader, self._lists, self._freshness = reader, lists, freshness
        self._proposer, self._uploads, self._replicas = proposer, uploads, replicas
        self._read_memory = ReadMemory()

    async def stat(self, path: str, read: ReadOptions) -> tuple[Stat, ReadInfo]:
        """What is at the path. Raises NotFound."""
        path = normalize(path)
        age_ms = await self._freshness.reach(read)
        with self._reader.snapshot():
            info = self._freshness.info(self._reader, read, age_ms)
            stat = self._reader.stat(path, read.revision)
        if stat is None:
            raise NotFound(f"nothing is at {path}")
        return stat, info

    async def open(self, path: str, read: ReadOptions) -> OpenFile:
        """The file's version, ready to be read. Raises NotFound, IsADirectory."""
        path = normalize(path)
        age_ms = await self._freshness.reach(read)
        with self._reader.snapshot():
            info = self._freshness.info(self._reader, read, age_ms)
            version = self._reader.open(path, read.revision)
        if version is None:
            raise NotFound(f"nothing is at {path}")
        return OpenFile(version, info, self._replicas, self._read_memory)

    async def list(
        self, path: str, read: ReadOptions, *, limit: int, cursor: str | None, recursive: bool, glob: str | None
    ) -> tuple[Page, ReadInfo]:
        """One page of what is in the directory. Raises NotFound, NotADirectory, InvalidRequest, DeadlineExceeded."""
        path = normalize(path)
        return await self._page(
            path, read, cursor,
            lambda reader: reader.list(
                path, limit=limit, cursor=cursor, recursive=recursive, glob=glob, revision=read.revision
            ),
        )  # fmt: skip

    async def export(
        self, path: str, read: ReadOptions, *, limit: int, cursor: str | None, since: int | None
    ) -> tuple[ExportPage, ReadInfo]:
        """One page of a path and all below it with the chunks of files, as ``Reader.export``. Raises as list."""
        path = normalize(path)
        return await self._page(
            path, read, cursor,
            lambda reader: reader.export(path, limit=limit, cursor=cursor, revision=read.revision, since=since),
        )  # fmt: skip

    async def _page(
        self, path: str, read: ReadOptions, cursor: str | None, get: Callable[[Reader], T]
    ) -> tuple[T, ReadInfo]:
        # A cursor asks for the revision of its first page, which this node may not have reached.
        shown = read if cursor is None else dataclasses.replace(read, revision=cursor_revision(cursor))
        ends_s = asyncio.get_running_loop().time() + self._freshness.timeout_s(read)
        age_ms = await self._freshness.reach(read)

        def work(reader: Reader) -> tuple[T, ReadInfo]:
            with reader.snapshot():
                info = self._freshness.info(reader, shown, age_ms)
                return get(reader), info

        try:
            async with asyncio.timeout_at(ends_s):
                return await self._lists.call(work)
        except TimeoutError:
            raise DeadlineExceeded(f"the list of {path} was not ready in time; others are before it") from None

    async def put(
        self, path: str, body: AsyncIterator[bytes], *, size: int | None, content_type: str | None,
        metadata: Mapping[str, str], if_match: int | None, if_absent: bool, parents: bool, sha256: bytes | None,
        write: WriteOptions,
    ) -> tuple[Stat, bool]:  # fmt: skip
        """Make the body the file's content: all of it becomes visible at one instant, or nothing does.

        ``size`` is the announced length in bytes, None if unknown. ``if_match`` is the revision that the present file
        must have; ``if_absent`` wants nothing to be there; ``sha256`` is the body's announced digest. Returns the new
        stat and whether the path is new. Raises IncompleteBody, DigestMismatch, TooLarge, PreconditionFailed,
        AlreadyExists, NotFound (no parent), NotADirectory, IsADirectory, KeyReused, Overloaded, StorageFull,
        Unavailable, UnknownOutcome.
        """
        path = normalize(path)
        if size is not None and size > limits.FILE_BYTES_MAX:
            raise TooLarge(f"a file has at most {limits.FILE_BYTES_MAX} bytes, not {size}", outcome="not_applied")
        self._proposer.require_leader()
        command = CommitFile(
            path=path,
            size=0,
            content_type=CONTENT_TYPE_DEFAULT if content_type is None else content_type,
            metadata=dict(metadata),
            if_match=if_match,
            if_absent=if_absent,
            parents=parents,
        )
        result = await self._uploads.put(command, Body(body, size), sha256, write)
        if write.ack == "all":
            await self._proposer.everywhere(write.timeout_s)
        return _done(result, write), result.code == Code.CREATED

    async def make_directory(
        self, path: str, *, parents: bool, exist_ok: bool, write: WriteOptions
    ) -> tuple[Stat, bool]:
        """Returns the directory's stat and whether it is new. Raises AlreadyExists, NotFound, NotADirectory."""
        command = MakeDirectory(path=normalize(path), parents=parents, exist_ok=exist_ok)
        result = await self._propose(command, write)
        return _done(result, write), result.code == Code.CREATED

    async def remove(
        self, path: str, *, kind: str, recursive: bool, if_match: int | None, write: WriteOptions
    ) -> Result:
        """Remove a "file", "directory" or "any" (``kind``). Raises NotFound, IsADirectory, NotADirectory,
        DirectoryNotEmpty, PreconditionFailed."""
        command = Remove(path=normalize(path), kind=kind, recursive=recursive, if_match=if_match)
        result = await self._propose(command, write)
        if write.on_result is not None:
            write.on_result(result)
        return result

    async def rename(
        self, source: str, target: str, *, replace: bool, parents: bool, if_match: int | None, write: WriteOptions
    ) -> Stat:
        """Move a file or directory; returns the target's stat. Raises NotFound, AlreadyExists, NotADirectory,
        IsADirectory, PreconditionFailed, InvalidRequest (a directory into itself)."""
        command = Rename(normalize(source), normalize(target), replace=replace, parents=parents, if_match=if_match)
        return _done(await self._propose(command, write), write)

    async def copy(
        self, source: str, target: str, *, replace: bool, parents: bool, if_match: int | None, write: WriteOptions
    ) -> Stat:
        """Copy a file or directory without moving bytes; returns the target's stat. Raises as rename."""
        command = Copy(normalize(source), normalize(target), replace=replace, parents=parents, if_match=if_match)
        return _done(await self._propose(command, write), write)

    async def set_metadata(
        self, path: str, *, metadata: Mapping[str, str | None], content_type: str | None, if_match: int | None,
        write: WriteOptions,
    ) -> Stat:  # fmt: skip
        """Merge into the metadata (None removes a key). Raises NotFound, PreconditionFailed, InvalidRequest."""
        command = SetMetadata(normalize(path), metadata=dict(metadata), content_type=content_type, if_match=if_match)
        return _done(await self._propose(command, write), write)

    async def _propose(self, command: Command, write: WriteOptions) -> Result:
        self._proposer.require_leader()
        if write.ack == "all":
            self._replicas.require_all()
        mark = fingerprint(command) if write.key else b""
        result = await self._proposer.propose(command, timeout_s=write.timeout_s, key=write.key, mark=mark)
        if write.ack == "all":
            await self._proposer.everywhere(write.timeout_s)
        return result


def _done(result: Result, write: WriteOptions) -> Stat:
    if write.on_result is not None:
        write.on_result(result)
    assert result.stat is not None, "the state machine answers these commands with a stat"
    return result.stat
