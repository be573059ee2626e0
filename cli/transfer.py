"""``raftfs put``, ``get`` and ``cat``: files and trees between this machine and the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raftfs import limits, paths
from raftfs.errors import InvalidRequest, IsADirectory, NotADirectory, NotFound
from raftfs_cli import connection, output, reading, targets
from raftfs_cli.progress import Meter, metering

if TYPE_CHECKING:
    from raftfs.client import AsyncClient
    from raftfs.models import Entry

Ack = Literal["quorum", "all"]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Take directories with all they hold.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Jobs = Annotated[
    int,
    typer.Option("--jobs", "-j", min=1, max=limits.CLIENT_TRANSFERS_AT_ONCE_MAX, help="Files on their way at a time."),
]


def register(app: typer.Typer) -> None:
    for command in (put, get, cat):
        app.command()(command)


def put(
    arguments: Annotated[list[str], typer.Argument(metavar="SRC... [DST]", help="Local files; - is standard input.")],
    recursive: Recursive = False,
    ack: Annotated[Ack, typer.Option(help="Acknowledged when a majority, or every node, has it on disk.")] = "quorum",
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if nothing is there.")] = False,
    if_match: Annotated[int | None, typer.Option(metavar="REVISION", help="Only over this revision.")] = None,
    content_type: Annotated[str | None, typer.Option(help="Such as text/plain.")] = None,
    jobs: Jobs = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
    quiet: Quiet = False,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Send files to the store.

    As with cp: SRC goes into DST if DST ends with a slash or is a directory, else it gets the name DST. Directories
    above DST are made. Without DST, SRC goes into /.
    """
    sources, target = targets.split(arguments, "/")
    options = {"if_absent": if_absent, "if_match": if_match, "content_type": content_type}
    options = {key: value for key, value in options.items() if value}
    with metering("sent", quiet=quiet or json) as meter:
        sending = _Sending(sources, target, recursive, ack, jobs, options, meter)
        sent = connection.run(sending.run)
    _finish(sent, meter, json, quiet)


class _Sending:
    """One ``put``."""

    def __init__(
        self,
        sources: list[str],
        target: str,
        recursive: bool,
        ack: Ack,
        jobs: int,
        options: dict[str, Any],
        meter: Meter,
    ) -> None:
        self._sources = sources
        self._target = target
        self._recursive = recursive
        self._ack = ack
        self._jobs = jobs
        self._options = options
        self._meter = meter

    async def run(self, client: AsyncClient) -> list[dict[str, Any]]:
        """Send everything; returns what each source became. All is checked before anything is sent."""
        from raftfs.client.transfer import each

        into = targets.is_into(self._sources, self._target)
        if not into:
            into = self._sources != [targets.STDIO] and await is_directory(client, self._target)
        plan = targets.plan_uploads(self._sources, self._target, into=into, recursive=self._recursive)
        if self._options and any(upload.directory for upload in plan):
            raise InvalidRequest("--if-absent, --if-match and --content-type are for files, not for directories")
        results: dict[targets.Upload, dict[str, Any]] = {}

        async def send(upload: targets.Upload) -> None:
            results[upload] = await self._send(client, upload)

        await each([upload for upload in plan if not upload.directory], send, self._jobs)
        for upload in plan:
            if upload.directory:  # a tree sends as many files at a time as we may
                await send(upload)
        return [results[upload] for upload in plan]

    async def _send(self, client: AsyncClient, upload: targets.Upload) -> dict[str, Any]:
        report = self._meter.transfer()
        if upload.directory:
            tree = await client.put_tree(
                upload.source, upload.target, progress=report, concurrency=self._jobs, ack=self._ack
            )
            counts = {"files": tree.files, "directories": tree.directories, "size": tree.size}
            return {"path": upload.target, "type": "directory", **counts}
        local = sys.stdin.buffer if upload.source == targets.STDIO else Path(upload.source)
        entry = await client.put(local, upload.target, progress=report, parents=True, ack=self._ack, **self._options)
        return entry.model_dump()


def get(
    arguments: Annotated[list[str], typer.Argument(metavar="SRC... [DST]", help="Paths of the store.")],
    recursive: Recursive = False,
    consistency: reading.Consistency = reading.DEFAULT,
    max_staleness: reading.MaxStaleness = None,
    revision: reading.Revision = None,
    jobs: Jobs = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
    quiet: Quiet = False,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Fetch files from the store; DST - is standard output.

    As with cp: SRC goes into DST if DST ends with a slash or is a directory, else it gets the name DST. Directories
    above DST are made. Without DST, SRC goes into the current directory.
    """
    sources, target = targets.split(arguments, ".")
    options = reading.read_options(consistency, max_staleness, revision)
    if target == targets.STDIO:
        if recursive or json:
            raise InvalidRequest("a file goes to standard output as it is: without -r and --json")
        _to_stdout(sources, options, quiet)
        return

    async def fetch(client: AsyncClient) -> list[dict[str, Any]]:
        into = targets.is_into(sources, target) or Path(target).is_dir()
        entries = [await client.stat(source, **options) for source in sources]
        for entry in entries:
            if entry.type == "directory" and not recursive:
                raise IsADirectory(f"{entry.path} is a directory")
        goals = [targets.local_target(entry.path, target, into=into) for entry in entries]
        targets.refuse_twice(goals)
        return [
            await _fetch(client, entry, goal, options, jobs, meter) for entry, goal in zip(entries, goals, strict=True)
        ]

    with metering("fetched", quiet=quiet or json) as meter:
        fetched = connection.run(fetch)
    _finish(fetched, meter, json, quiet)


async def _fetch(
    client: AsyncClient, entry: Entry, local: Path, options: dict[str, Any], jobs: int, meter: Meter
) -> dict[str, Any]:
    report = meter.transfer()
    if entry.type == "directory":
        tree = await client.get_tree(
            entry.path, local, progress=report, concurrency=jobs, **reading.tree_options(options)
        )
        counts = {"files": tree.files, "directories": tree.directories, "size": tree.size}
        return {"path": entry.path, "local": str(local), "type": "directory", **counts}
    local.parent.mkdir(parents=True, exist_ok=True)
    size = await client.get(entry.path, local, progress=report, **options)
    return {"path": entry.path, "local": str(local), "type": "file", "size": size}


def cat(
    sources: Annotated[list[str], typer.Argument(metavar="PATH...")],
    consistency: reading.Consistency = reading.DEFAULT,
    max_staleness: reading.MaxStaleness = None,
    revision: reading.Revision = None,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Write files of the store to standard output, one after the other."""
    _to_stdout(sources, reading.read_options(consistency, max_staleness, revision), quiet=True)


def _to_stdout(sources: list[str], options: dict[str, Any], quiet: bool) -> None:
    async def fetch(client: AsyncClient) -> None:
        for source in sources:
            await client.get(source, sys.stdout.buffer, progress=meter.transfer(), **options)

    with output.reader_may_leave(), metering("fetched", quiet=quiet, to_stdout=True) as meter:
        connection.run(fetch)
        sys.stdout.buffer.flush()


async def is_directory(client: AsyncClient, path: str) -> bool:
    """Whether a directory of the store is at this path."""
    if paths.normalize(path) == paths.ROOT:
        return True
    try:
        return (await client.stat(path)).type == "directory"
    except (NotFound, NotADirectory):
        return False


def _finish(done: list[dict[str, Any]], meter: Meter, json: bool, quiet: bool) -> None:
    files = sum(each.get("files", 1) for each in done)
    size = sum(each["size"] for each in done)
    if json:
        output.emit_json({"entries": done, "files": files, "size": size})
    elif not quiet and files != 1:
        output.emit(meter.summary(files, size))
