"""The calls of the API, awaited. ``AsyncClient`` adds the transfers of local files and trees."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Literal, Self, overload

import aiohttp

from raftfs import limits, paths
from raftfs.client import answers, encoding
from raftfs.client.aiofile import (
    AsyncReader,
    AsyncTextReader,
    AsyncTextWriter,
    AsyncWriter,
    BinaryMode,
    Opening,
    TextMode,
    check_mode,
)
from raftfs.client.body import Body, Source, make_body
from raftfs.client.cluster import posted
from raftfs.client.download import Download, Pinned, check_slice, deadline, open_download, pin_head
from raftfs.client.exports import ExportCalls
from raftfs.client.options import Options, StrPath, make_options
from raftfs.client.transport import Moved, Request, Transport, read_answer
from raftfs.errors import AlreadyExists, IsADirectory, NotADirectory, NotFound, PreconditionFailed
from raftfs.models import Consistency, Entry, EntryList, MoveRequest

Ack = Literal["quorum", "all"]

_OK = frozenset({200})
_WRITTEN = frozenset({200, 201})
_EMPTY = frozenset({204})


class AsyncCalls(ExportCalls):
    """The calls of ``AsyncClient`` except those that touch local files."""

    def __init__(
        self,
        endpoints: str | Iterable[str] | None = None,
        *,
        deadline_s: float = limits.CLIENT_DEADLINE_S_DEFAULT,
        attempt_s: float = limits.CLIENT_ATTEMPT_S_DEFAULT,
        connect_s: float = limits.CLIENT_CONNECT_S_DEFAULT,
        ca: StrPath | None = None,
        cert: StrPath | None = None,
        key: StrPath | None = None,
    ) -> None:
        self.options = make_options(endpoints, deadline_s, attempt_s, connect_s, ca, cert, key)
        self._transport = Transport(self.options)

    @classmethod
    def from_options(cls, options: Options) -> Self:
        """A client with this configuration."""
        return cls(**asdict(options))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self).from_options, (self.options,))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.options.endpoints)!r})"

    async def close(self) -> None:
        """Close the connections. Using the client afterwards raises RuntimeError; closing twice does nothing."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        self._transport.session()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # Reading

    async def read(
        self,
        path: str,
        *,
        start: int = 0,
        stop: int | None = None,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """The bytes of a file from ``start`` up to ``stop`` (its end if None or behind the end), all of one version.

        ``consistency``: "linearizable" (current), "bounded" (at most ``max_staleness`` seconds old) or "stale" (what
        any node has). ``revision`` reads the file as it was then. Raises NotFound, IsADirectory,
        RangeNotSatisfiable when ``start`` is not inside the file, Unavailable, DeadlineExceeded.
        """
        check_slice(start, stop)
        query = encoding.read_query(consistency, max_staleness, revision)
        async with deadline(timeout):
            if start == stop:
                await self._pin(path, query, timeout)
                return b""
            download = await self._download(path, query, start=start, stop=stop, timeout=timeout)
            return b"".join([chunk async for chunk in download.chunks()])

    async def stat(
        self,
        path: str,
        *,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> Entry:
        """What is at a path: type, size in bytes, revision, times, metadata. Raises NotFound."""
        query = encoding.read_query(consistency, max_staleness, revision)
        normal = paths.normalize(path)

        async def consume(response: aiohttp.ClientResponse) -> Entry:
            return answers.entry_of(normal, response.headers, str(response.url))

        target = encoding.file_target(path) if normal != paths.ROOT else encoding.directory_target(path)
        async with deadline(timeout):
            while True:
                try:
                    return await self._transport.send(
                        Request("HEAD", target, _OK, query=query, timeout_s=timeout), consume
                    )
                except IsADirectory:
                    target = encoding.directory_target(path)
                except NotADirectory:  # a file took the directory's place between the two questions
                    target = encoding.file_target(path)

    async def exists(
        self, path: str, *, consistency: Consistency = "linearizable", timeout: float | None = None
    ) -> bool:
        """Whether a file or directory is at a path."""
        try:
            await self.stat(path, consistency=consistency, timeout=timeout)
        except (NotFound, NotADirectory):
            return False
        return True

    async def list_page(
        self,
        path: str = "/",
        *,
        limit: int = limits.PAGE_ENTRIES_DEFAULT,
        cursor: str | None = None,
        recursive: bool = False,
        glob: str | None = None,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> EntryList:
        """One page of a directory, in order of names. Pass its ``next`` as ``cursor`` for the page after it.

        Raises NotFound, NotADirectory, InvalidRequest.
        """
        query = encoding.read_query(consistency, max_staleness, revision)
        query |= {"limit": str(limit), **encoding.flags(recursive=recursive)}
        query |= {name: value for name, value in (("cursor", cursor), ("glob", glob)) if value is not None}
        request = Request("GET", encoding.directory_target(path), _OK, query=query, timeout_s=timeout)
        return await self._json(request, EntryList)

    async def list(
        self,
        path: str = "/",
        *,
        recursive: bool = False,
        glob: str | None = None,
        page_size: int = limits.PAGE_ENTRIES_DEFAULT,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Entry]:
        """The entries of a directory, all of one revision, fetched page by page as you iterate.

        ``timeout`` is for one page. Raises NotFound, NotADirectory, InvalidRequest.
        """
        cursor: str | None = None
        while True:
            page = await self.list_page(
                path, limit=page_size, cursor=cursor, recursive=recursive, glob=glob, consistency=consistency,
                max_staleness=max_staleness, revision=revision, timeout=timeout,
            )  # fmt: skip
            for entry in page.entries:
                yield entry
            cursor = page.next
            if cursor is None:
                return

    async def walk(
        self, path: str = "/", *, consistency: Consistency = "linearizable", revision: int | None = None
    ) -> AsyncIterator[tuple[str, builtins.list[str], builtins.list[str]]]:
        """Like ``os.walk``, top down: (directory, names of directories, names of files), all of one revision.

        Remove names from the list of directories to leave them out.
        """
        top = paths.normalize(path)
        if revision is None:
            page = await self.list_page(top, limit=1, consistency=consistency)
            revision = page.revision
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            directories: builtins.list[str] = []
            files: builtins.list[str] = []
            async for entry in self.list(folder, consistency=consistency, revision=revision):
                (directories if entry.type == "directory" else files).append(entry.name)
            yield folder, directories, files
            waiting += [paths.join(folder, name) for name in reversed(directories)]

    # Writing

    async def write(
        self,
        path: str,
        data: Source,
        *,
        if_absent: bool = False,
        if_match: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        parents: bool = False,
        ack: Ack = "quorum",
        checksum: bool = False,
        timeout: float | None = None,
    ) -> Entry:
        """Create or replace a file, atomically. Returns what is there now.

        ``data``: bytes, an open binary file, or an iterable of bytes (plain or asynchronous); an iterable is streamed,
        and is not retried once more than 1 MiB of it was taken. ``if_absent``: only if nothing is there.
        ``if_match``: only if the file has this revision. ``parents``: make missing directories. ``ack="all"``: durable
        on every member, not only a majority. ``checksum``: send a SHA-256 for the server to compare (reads the body
        twice). Raises AlreadyExists (``if_absent``), PreconditionFailed (``if_match``), NotFound (no parent),
        IsADirectory, NotADirectory, StorageFull, Unavailable, UnknownOutcome.
        """
        body = make_body(data)
        return await self._put(
            path, body, None, timeout,
            if_absent=if_absent, if_match=if_match, content_type=content_type, metadata=metadata,
            parents=parents, ack=ack, checksum=checksum,
        )  # fmt: skip

    async def _put(
        self,
        path: str,
        body: Body,
        moved: Moved | None,
        timeout: float | None,
        *,
        if_absent: bool = False,
        if_match: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        parents: bool = False,
        ack: Ack = "quorum",
        checksum: bool = False,
    ) -> Entry:
        target = encoding.file_target(path)
        headers = encoding.content(content_type, metadata) | encoding.precondition(if_match, if_absent)
        if checksum:
            headers |= await encoding.digest(body.chunks())
        query = encoding.flags(parents=parents) | ({} if ack == "quorum" else {"ack": ack})
        large = body.size is None or body.size > limits.BUFFERED_BODY_BYTES_MAX
        request = Request(
            "PUT", target, _WRITTEN, query, headers, body,
            mutation=True, transfer=large, timeout_s=timeout, moved=moved,
        )  # fmt: skip
        try:
            return await self._json(request, Entry)
        except PreconditionFailed as error:
            if not if_absent:
                raise
            # The one precondition was that nothing is there, and Python has a word for that.
            raise AlreadyExists(error.detail, outcome=error.outcome) from None

    async def mkdir(
        self, path: str, *, parents: bool = False, exist_ok: bool = False, timeout: float | None = None
    ) -> Entry:
        """Make a directory. ``parents``: and those above it. Raises AlreadyExists if something is there (with
        ``exist_ok``: if that is a file), NotFound without ``parents``, NotADirectory."""
        request = Request(
            "PUT", encoding.directory_target(path), _WRITTEN, encoding.flags(parents=parents),
            encoding.precondition(None, if_absent=not exist_ok), mutation=True, timeout_s=timeout,
        )  # fmt: skip
        return await self._json(request, Entry)

    async def rmdir(self, path: str, *, timeout: float | None = None) -> None:
        """Remove an empty directory. Raises NotFound, NotADirectory, DirectoryNotEmpty."""
        await self._delete(encoding.directory_target(path), timeout=timeout)

    async def remove(
        self, path: str, *, recursive: bool = False, if_match: int | None = None, timeout: float | None = None
    ) -> None:
        """Remove a file; with ``recursive`` also a directory with all that is in it, at once.

        Raises NotFound, IsADirectory (without ``recursive``), PreconditionFailed.
        """
        headers = encoding.precondition(if_match)
        try:
            await self._delete(encoding.file_target(path), headers=headers, timeout=timeout)
        except IsADirectory:
            if not recursive:
                raise
            query = encoding.flags(recursive=True)
            await self._delete(encoding.directory_target(path), query=query, headers=headers, timeout=timeout)

    async def _delete(
        self,
        target: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None,
    ) -> None:
        request = Request(
            "DELETE", target, _EMPTY, query=query or {}, headers=headers or {}, mutation=True, timeout_s=timeout
        )
        await self._transport.send(request, read_answer)

    async def rename(
        self,
        source: str,
        target: str,
        *,
        replace: bool = False,
        parents: bool = False,
        if_match: int | None = None,
        timeout: float | None = None,
    ) -> Entry:
        """Rename a file or directory, at once. ``replace``: over what is at ``target``. Returns the entry there.

        Raises NotFound, AlreadyExists, DirectoryNotEmpty, Conflict (into itself), PreconditionFailed.
        """
        return await self._move("/v1/rename", source, target, replace, parents, if_match, timeout)

    async def copy(
        self,
        source: str,
        target: str,
        *,
        replace: bool = False,
        parents: bool = False,
        if_match: int | None = None,
        timeout: float | None = None,
    ) -> Entry:
        """Copy a file inside the store; no bytes move. Returns the new entry. Raises as ``rename``."""
        return await self._move("/v1/copy", source, target, replace, parents, if_match, timeout)

    async def _move(
        self,
        route: str,
        source: str,
        target: str,
        replace: bool,
        parents: bool,
        if_match: int | None,
        timeout: float | None,
    ) -> Entry:
        move = MoveRequest(
            source=paths.normalize(source),
            target=paths.normalize(target),
            replace=replace,
            parents=parents,
            if_match=if_match,
        )
        return await self._json(posted(route, move, {}, timeout), Entry)

    async def set_metadata(
        self,
        path: str,
        metadata: Mapping[str, str | None] | None = None,
        *,
        content_type: str | None = None,
        if_match: int | None = None,
        timeout: float | None = None,
    ) -> Entry:
        """Change metadata of a file: keys with None are removed, keys that are not named stay.

        ``content_type`` None leaves it as it is. Raises NotFound, PreconditionFailed, InvalidRequest.
        """
        patch: dict[str, Any] = {}
        if metadata:
            patch["metadata"] = dict(metadata)
        if content_type is not None:
            patch["content_type"] = content_type
        headers = {"Content-Type": "application/merge-patch+json", **encoding.precondition(if_match)}
        body = make_body(json.dumps(patch).encode())
        target = encoding.file_target(path)
        request = Request("PATCH", target, _OK, headers=headers, body=body, mutation=True, timeout_s=timeout)
        return await self._json(request, Entry)

    # Open files

    @overload
    def open(self, path: str, mode: Literal["rb"]) -> Opening[AsyncReader]: ...
    @overload
    def open(self, path: str, mode: Literal["wb", "xb"], *, parents: bool = ...) -> Opening[AsyncWriter]: ...
    @overload
    def open(
        self, path: str, mode: Literal["r", "rt"] = ..., *, encoding: str = ..., errors: str = ...
    ) -> Opening[AsyncTextReader]: ...
    @overload
    def open(
        self,
        path: str,
        mode: Literal["w", "wt", "x", "xt"],
        *,
        encoding: str = ...,
        errors: str = ...,
        parents: bool = ...,
    ) -> Opening[AsyncTextWriter]: ...

    def open(
        self,
        path: str,
        mode: BinaryMode | TextMode = "r",
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        parents: bool = False,
    ) -> Opening[Any]:
        """Open a file: ``async with fs.open(path, "rb") as f``, or ``f = await fs.open(...)``.

        Modes: "rb" "wb" "xb" (create, AlreadyExists if it is there) and "r" "w" "x" for text. A reader sees one
        version throughout. What is written becomes visible when the file is closed; leaving ``async with`` by an
        exception discards it. Raises NotFound, IsADirectory (reading), ValueError for other modes.
        """
        kind = check_mode(mode)

        async def opening() -> AsyncReader | AsyncWriter | AsyncTextReader | AsyncTextWriter:
            if kind == "r":
                reader = await self.open_reader(path)
                return reader if "b" in mode else AsyncTextReader(reader, encoding, errors)
            writer = await self.open_writer(path, exclusive=kind == "x", parents=parents)
            return writer if "b" in mode else AsyncTextWriter(writer, encoding, errors)

        return Opening(opening)

    async def open_reader(self, path: str) -> AsyncReader:
        """Open for reading bytes."""
        return AsyncReader(self._transport, await self._pin(path, {}, None))

    async def open_writer(self, path: str, *, exclusive: bool = False, parents: bool = False) -> AsyncWriter:
        """Open for writing bytes. ``exclusive``: raise AlreadyExists if something is there, now or at ``close``."""
        normal = paths.normalize(path)
        if exclusive and await self.exists(normal):
            raise AlreadyExists(f"{normal} is there already", outcome="not_applied")

        async def upload(body: Body) -> Entry:
            return await self._put(normal, body, None, None, if_absent=exclusive, parents=parents)

        return AsyncWriter(upload)

    async def _pin(self, path: str, query: Mapping[str, str], timeout: float | None) -> Pinned:
        target = encoding.file_target(path)
        request = Request("HEAD", target, _OK, query=query, timeout_s=timeout)

        async def consume(response: aiohttp.ClientResponse) -> Pinned:
            return pin_head(target, query, response.headers, str(response.url))

        return await self._transport.send(request, consume)

    async def _download(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        start: int = 0,
        stop: int | None = None,
        timeout: float | None = None,
    ) -> Download:
        request = Request("GET", encoding.file_target(path), _OK, query=query, timeout_s=timeout)
        return await open_download(self._transport, request, start, stop)
