"""``raftfs ls``, ``tree``, ``stat``, ``mkdir``, ``rm``, ``mv`` and ``cp``: looking around and rearranging."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftfs import paths
from raftfs.errors import InvalidRequest, IsADirectory, NotADirectory, NotFound
from raftfs_cli import connection, output, reading, targets
from raftfs_cli.transfer import is_directory

if TYPE_CHECKING:
    from raftfs.client import AsyncClient
    from raftfs.models import Entry, EntryList

Sources = Annotated[list[str], typer.Argument(metavar="SRC... DST", help="Paths of the store.")]
NoReplace = Annotated[bool, typer.Option("--no-replace", "-n", help="Fail if a file is at DST already.")]


def register(app: typer.Typer) -> None:
    for command in (ls, tree, stat, mkdir, rm, mv, cp):
        app.command()(command)


def ls(
    path: Annotated[str, typer.Argument(help="A directory or a file.")] = "/",
    long: Annotated[bool, typer.Option("--long", "-l", help="Size, revision and time of last change, too.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", "-R", help="All that is below, too.")] = False,
    glob: Annotated[str | None, typer.Option(help="Only names that match, such as '*.csv'.")] = None,
    consistency: reading.Consistency = reading.DEFAULT,
    max_staleness: reading.MaxStaleness = None,
    revision: reading.Revision = None,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """List a directory."""
    options = reading.read_options(consistency, max_staleness, revision)

    async def show(client: AsyncClient) -> None:
        entries: list[Entry] = []
        at_revision = 0
        async for page in _pages(client, path, recursive=recursive, glob=glob, **options):
            at_revision = page.revision
            if json:
                entries += page.entries
            else:
                _emit_entries(page.entries, path, long)
        if json:
            shown = [entry.model_dump() for entry in entries]
            output.emit_json({"entries": shown, "next": None, "revision": at_revision})

    connection.run(show)


async def _pages(client: AsyncClient, path: str, **options: Any) -> AsyncIterator[EntryList]:
    """All pages of a list, at one revision. A file is listed as itself."""
    from raftfs.models import EntryList

    cursor = None
    while True:
        try:
            page = await client.list_page(path, cursor=cursor, **options)
        except NotADirectory:
            if options.pop("glob", None) is not None:
                raise
            options.pop("recursive", None)
            entry = await client.stat(path, **options)
            yield EntryList(entries=[entry], next=None, revision=entry.revision)
            return
        yield page
        cursor = page.next
        if cursor is None:
            return


def _emit_entries(entries: list[Entry], listed: str, long: bool) -> None:
    if not entries:
        return
    top = paths.normalize(listed)
    names = [_name(entry, top) for entry in entries]
    if not long:
        output.emit(*names)
        return
    rows = [
        ("d" if entry.type == "directory" else "-", entry.size, f"r{entry.revision}", _time(entry.modified_ms), name)
        for entry, name in zip(entries, names, strict=True)
    ]
    output.emit(*output.columns(rows, right=[1, 2]))


def _name(entry: Entry, top: str) -> str:
    below = entry.path[len(top) :].lstrip("/") if entry.path != top else entry.name
    return f"{below}/" if entry.type == "directory" else below


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S")


def tree(
    path: Annotated[str, typer.Argument(help="A directory.")] = "/",
    consistency: reading.Consistency = reading.DEFAULT,
    max_staleness: reading.MaxStaleness = None,
    revision: reading.Revision = None,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Draw a directory with all that is below it."""
    options = reading.read_options(consistency, max_staleness, revision)

    async def collect(client: AsyncClient) -> tuple[list[Entry], int]:
        pages = [page async for page in _pages(client, path, recursive=True, **options)]
        return [entry for page in pages for entry in page.entries], pages[-1].revision

    entries, at_revision = connection.run(collect)
    if json:
        shown = [entry.model_dump() for entry in entries]
        output.emit_json({"entries": shown, "next": None, "revision": at_revision})
    else:
        output.emit(paths.normalize(path), *_draw(entries, paths.normalize(path)))


def _draw(entries: list[Entry], top: str) -> list[str]:
    """The lines below the top: one for each entry, in order of names, with the branches that lead to it."""
    children: dict[str, list[Entry]] = {}
    for entry in entries:
        children.setdefault(paths.split(entry.path)[0], []).append(entry)
    lines: list[str] = []
    waiting = [(entry, "", last) for entry, last in _marked(children.get(top, []))]
    while waiting:
        entry, indent, last = waiting.pop()
        lines.append(f"{indent}{'└── ' if last else '├── '}{entry.name}{'/' if entry.type == 'directory' else ''}")
        deeper = indent + ("    " if last else "│   ")
        waiting += [(child, deeper, is_last) for child, is_last in _marked(children.get(entry.path, []))]
    return lines


def _marked(siblings: list[Entry]) -> list[tuple[Entry, bool]]:
    """Siblings in reverse order of names, each with whether it is the last one."""
    ordered = sorted(siblings, key=lambda entry: entry.name, reverse=True)
    return [(entry, number == 0) for number, entry in enumerate(ordered)]


def stat(
    path: Annotated[str, typer.Argument(help="A file or directory.")],
    consistency: reading.Consistency = reading.DEFAULT,
    max_staleness: reading.MaxStaleness = None,
    revision: reading.Revision = None,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Show what is known about a file or directory."""
    options = reading.read_options(consistency, max_staleness, revision)
    entry = connection.run(lambda client: client.stat(path, **options))
    if json:
        output.emit_json(entry.model_dump())
        return
    rows: list[tuple[str, object]] = [
        ("path", entry.path),
        ("type", entry.type),
        ("size", entry.size),
        ("revision", entry.revision),
        ("created", _time(entry.created_ms)),
        ("modified", _time(entry.modified_ms)),
    ]
    if entry.content_type:
        rows.append(("content type", entry.content_type))
    rows += [(f"metadata {key}", value) for key, value in sorted(entry.metadata.items())]
    output.emit(*output.columns(rows))


def mkdir(
    directories: Annotated[list[str], typer.Argument(metavar="PATH...")],
    parents: Annotated[
        bool, typer.Option("--parents", "-p", help="Make those above, too; no error if it is there.")
    ] = False,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Make directories."""

    async def make(client: AsyncClient) -> list[Entry]:
        return [await client.mkdir(path, parents=parents, exist_ok=parents) for path in directories]

    _emit_changed(connection.run(make), "made", json)


def rm(
    removed: Annotated[list[str], typer.Argument(metavar="PATH...")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Directories with all they hold, too.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="No error if nothing is there.")] = False,
    if_match: Annotated[int | None, typer.Option(metavar="REVISION", help="Only if it has this revision.")] = None,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Remove files, and with -r directories."""

    async def remove(client: AsyncClient) -> list[str]:
        gone = []
        for path in removed:
            try:
                await client.remove(path, recursive=recursive, if_match=if_match)
            except NotFound:
                if not force:
                    raise
            else:
                gone.append(paths.normalize(path))
        return gone

    gone = connection.run(remove)
    if json:
        output.emit_json({"removed": gone})
    else:
        output.emit(*(f"removed {path}" for path in gone))


def mv(
    arguments: Sources,
    no_replace: NoReplace = False,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Rename files and directories, each at once.

    As with the mv of a system: SRC goes into DST if DST ends with a slash or is a directory, else it gets the name
    DST, and a file there is replaced. Directories above DST are made.
    """

    async def move(client: AsyncClient) -> list[Entry]:
        return [
            await client.rename(source, target, replace=not no_replace, parents=True)
            for source, target in await _plan(client, arguments)
        ]

    _emit_changed(connection.run(move), "now", json)


def cp(
    arguments: Sources,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Directories with all they hold, too.")] = False,
    no_replace: NoReplace = False,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Copy inside the store; no bytes move, so it takes no time and no room.

    SRC goes into DST if DST ends with a slash or is a directory, else the copy gets the name DST, and a file there
    is replaced. Directories above DST are made.
    """

    async def copy(client: AsyncClient) -> list[Entry]:
        moves = await _plan(client, arguments)
        for source, _ in moves:
            if not recursive and await is_directory(client, source):
                raise IsADirectory(f"{source} is a directory")
        return [await client.copy(source, target, replace=not no_replace, parents=True) for source, target in moves]

    _emit_changed(connection.run(copy), "made", json)


async def _plan(client: AsyncClient, arguments: list[str]) -> list[tuple[str, str]]:
    """Each source of ``mv`` or ``cp`` with its target."""
    if len(arguments) < 2:
        raise InvalidRequest("two paths are needed: SRC and DST")
    sources, target = targets.split(arguments, "")
    into = targets.is_into(sources, target) or await is_directory(client, target)
    plan = [(paths.normalize(source), targets.remote_target(source, target, into=into)) for source in sources]
    targets.refuse_twice(goal for _, goal in plan)
    return plan


def _emit_changed(entries: list[Entry], word: str, json: bool) -> None:
    if json:
        output.emit_json({"entries": [entry.model_dump() for entry in entries]})
    else:
        output.emit(*(f"{word} {entry.path}" for entry in entries))
