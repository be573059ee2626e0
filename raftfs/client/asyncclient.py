"""The asynchronous client. ``Client`` is a facade over this one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import IO, TypeAlias

from raftfs import limits, paths
from raftfs.client import encoding, transfer
from raftfs.client.body import PathBody, make_body
from raftfs.client.calls import Ack, AsyncCalls
from raftfs.client.download import deadline
from raftfs.client.progress import Report, Tally, reporting
from raftfs.client.transfer import TreeSummary
from raftfs.models import Consistency, Entry

LocalPath: TypeAlias = str | PathLike[str]


class AsyncClient(AsyncCalls):
    """A connection to a raftfs cluster, through any of its nodes or frontends.

    ``endpoints``: one URL, several, or None for RAFTFS_ENDPOINTS (comma separated), else http://127.0.0.1:7400.
    ``deadline_s`` bounds each call with its retries unless the call has its own ``timeout``; a transfer of a large
    or streamed file may last as long as bytes move. ``attempt_s`` and ``connect_s`` bound one attempt.
    ``ca``, ``cert`` and ``key``: PEM files for https endpoints, else those that RAFTFS_CA, RAFTFS_CERT and RAFTFS_KEY
    name: the CA that the server's certificate must come from (else one that this machine trusts), and a certificate of
    one's own for servers that demand it, with its key (if that is not in the same file). NotTrusted if there is no
    connection that both sides trust.

    Calls may run concurrently. Reads are retried at will. A write carries an idempotency key and is retried under it,
    so it happens once. When time is over and it is not known whether a write happened, UnknownOutcome is raised;
    other errors of a write mean that it did not. All errors are in ``raftfs.errors``.

    It can be pickled (only its configuration is) and used after a fork (the child makes its own connections).
    """

    async def put(
        self,
        local: LocalPath | IO[bytes],
        remote: str,
        *,
        progress: bool | Report | None = None,
        if_absent: bool = False,
        if_match: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        parents: bool = False,
        ack: Ack = "quorum",
        checksum: bool = False,
        timeout: float | None = None,
    ) -> Entry:
        """Send a local file, by its path or open in binary mode (a pipe is streamed), to the path ``remote``.

        ``progress``: True for a bar on the terminal, or a callback that takes ``Progress``. The other arguments and
        errors are those of ``write``; OSError if the local file cannot be read, InvalidRequest if it changes meanwhile.
        """
        name = paths.normalize(remote)
        body = await asyncio.to_thread(PathBody, local) if isinstance(local, (str, PathLike)) else make_body(local)
        with reporting(progress, name) as report:
            tally = Tally(report, body.size, 1)
            entry = await self._put(
                name, body, tally.file(name), timeout,
                if_absent=if_absent, if_match=if_match, content_type=content_type, metadata=metadata,
                parents=parents, ack=ack, checksum=checksum,
            )  # fmt: skip
            tally.finish(name)
        return entry

    async def get(
        self,
        remote: str,
        local: LocalPath | IO[bytes],
        *,
        progress: bool | Report | None = None,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        revision: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Fetch a file to a local path (into it, if it is a directory) or an open binary file. Returns its bytes.

        A path is replaced at once when the download is complete, and left as it is when it fails. One version is
        fetched, also when the connection breaks on the way. Raises as ``read``; OSError; Conflict if that version
        cannot be had any more.
        """
        name = paths.normalize(remote)
        query = encoding.read_query(consistency, max_staleness, revision)
        target = _target(local, name) if isinstance(local, (str, PathLike)) else local
        with reporting(progress, name) as report:
            tally = Tally(report, None, 1)
            async with deadline(timeout):
                return await self._fetch(name, target, query, tally, timeout)

    async def _fetch(
        self,
        name: str,
        local: Path | IO[bytes],
        query: Mapping[str, str],
        tally: Tally,
        timeout: float | None,
    ) -> int:
        download = await self._download(name, query, timeout=timeout)
        tally.announce(download.stop)
        try:
            if isinstance(local, Path):
                await transfer.save(download, local, tally.file(name))
            else:
                await transfer.pour(download, local, tally.file(name))
        finally:
            await download.aclose()
        tally.finish(name)
        return download.stop

    async def put_tree(
        self,
        local: LocalPath,
        remote: str,
        *,
        progress: bool | Report | None = None,
        concurrency: int = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
        ack: Ack = "quorum",
    ) -> TreeSummary:
        """Send a local directory with all that is in it into the directory ``remote``, which is made if missing.

        Files that are there are replaced, others stay. Links are followed. The first error stops the transfer and is
        raised; files that were sent by then stay. Raises as ``put``; NotADirectoryError; InvalidPath for a local name
        that the store cannot hold; InvalidRequest for devices and links in circles, before anything is sent.
        """
        top = paths.normalize(remote)
        tree = await asyncio.to_thread(transfer.scan, Path(local))
        size = sum(size for _, _, size in tree.files)
        with reporting(progress, top) as report:
            tally = Tally(report, size, len(tree.files))

            async def send(item: tuple[Path, str, int]) -> None:
                path, below, _ = item
                name = paths.normalize(f"{top}/{below}") if top != paths.ROOT else f"/{below}"
                body = await asyncio.to_thread(PathBody, path)
                await self._put(name, body, tally.file(name), None, parents=True, ack=ack)
                tally.finish(name)

            async def make(below: str) -> None:
                await self.mkdir(f"{top}/{below}" if top != paths.ROOT else f"/{below}", parents=True, exist_ok=True)

            if top != paths.ROOT:
                await self.mkdir(top, parents=True, exist_ok=True)
            await transfer.each(tree.empty, make, concurrency)
            await transfer.each(tree.files, send, concurrency)
        return TreeSummary(len(tree.files), tree.directories, size)

    async def get_tree(
        self,
        remote: str,
        local: LocalPath,
        *,
        progress: bool | Report | None = None,
        concurrency: int = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
        consistency: Consistency = "linearizable",
        revision: int | None = None,
    ) -> TreeSummary:
        """Fetch a directory with all that is in it, as it is at one revision, into the local directory ``local``.

        Local files of the same names are replaced, others stay. The first error stops the transfer and is raised.
        Raises NotFound, NotADirectory, OSError, and InvalidPath for a name that this system cannot hold.
        """
        top = paths.normalize(remote)
        revision, entries = await self._tree(top, consistency, revision)
        folders = [transfer.relative(entry, top) for entry in entries if entry.type == "directory"]
        files = [entry for entry in entries if entry.type == "file"]
        query = encoding.read_query(consistency, None, revision)
        size = sum(entry.size for entry in files)
        await asyncio.to_thread(transfer.make_folders, Path(local), folders)
        with reporting(progress, top) as report:
            tally = Tally(report, size, len(files))

            async def fetch(entry: Entry) -> None:
                target = transfer.local_path(Path(local), transfer.relative(entry, top))
                await self._fetch(entry.path, target, query, tally, None)

            await transfer.each(files, fetch, concurrency)
        return TreeSummary(len(files), len(folders) + 1, size)

    async def _tree(self, top: str, consistency: Consistency, revision: int | None) -> tuple[int, list[Entry]]:
        """All that is below a directory, and the revision at which it is so."""
        entries: list[Entry] = []
        cursor: str | None = None
        while True:
            page = await self.list_page(top, cursor=cursor, recursive=True, consistency=consistency, revision=revision)
            entries += page.entries
            cursor = page.next
            if cursor is None:
                return page.revision, entries


def _target(local: LocalPath, remote: str) -> Path:
    path = Path(local)
    return transfer.local_path(path, paths.split(remote)[1]) if path.is_dir() else path
