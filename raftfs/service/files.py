"""Files and directories: every use case that a client can ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from raftfs.service.options import ReadInfo, ReadOptions, WriteOptions
from raftfs.state.commands import Page, Result, Stat


class OpenFile:
    """One version of a file, opened: later changes of the path do not touch it."""

    stat: Stat
    info: ReadInfo

    def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Verified bytes [start, stop). Raises ChunkUnavailable, also between two pieces."""
        raise NotImplementedError


class Files:
    """Paths are normalized here. Reads work on any node; writes only on the leader (NotLeader elsewhere)."""

    async def stat(self, path: str, read: ReadOptions) -> tuple[Stat, ReadInfo]:
        raise NotImplementedError

    async def open(self, path: str, read: ReadOptions) -> OpenFile:
        raise NotImplementedError

    async def list(
        self, path: str, read: ReadOptions, *, limit: int, cursor: str | None, recursive: bool, glob: str | None
    ) -> tuple[Page, ReadInfo]:
        raise NotImplementedError

    async def put(
        self, path: str, body: AsyncIterator[bytes], *, size: int | None, content_type: str | None,
        metadata: Mapping[str, str], if_match: int | None, if_absent: bool, parents: bool, sha256: bytes | None,
        write: WriteOptions,
    ) -> tuple[Stat, bool]:  # fmt: skip
        """Returns (stat, created)."""
        raise NotImplementedError

    async def make_directory(
        self, path: str, *, parents: bool, exist_ok: bool, write: WriteOptions
    ) -> tuple[Stat, bool]:
        raise NotImplementedError

    async def remove(
        self, path: str, *, kind: str, recursive: bool, if_match: int | None, write: WriteOptions
    ) -> Result:
        raise NotImplementedError

    async def rename(
        self, source: str, target: str, *, replace: bool, parents: bool, if_match: int | None, write: WriteOptions
    ) -> Stat:
        raise NotImplementedError

    async def copy(
        self, source: str, target: str, *, replace: bool, parents: bool, if_match: int | None, write: WriteOptions
    ) -> Stat:
        raise NotImplementedError

    async def set_metadata(
        self, path: str, *, metadata: Mapping[str, str | None], content_type: str | None, if_match: int | None,
        write: WriteOptions,
    ) -> Stat:  # fmt: skip
        raise NotImplementedError
